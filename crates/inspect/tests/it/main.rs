//! Integration tests, one file a promise, one binary to link.

mod contract;
mod hostile_onnx;
mod parity;
mod qlinearconv;
mod synthetic;
