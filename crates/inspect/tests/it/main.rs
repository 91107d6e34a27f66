//! Integration tests, one file a promise, one binary to link.

mod contract;
mod hostile_onnx;
mod judging;
mod parity;
mod qlinearconv;
mod resize;
mod strips;
mod synthetic;
