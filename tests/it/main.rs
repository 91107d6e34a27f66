//! Integration tests, one file a promise, one binary to link.

mod bundle;
mod floors;
mod parity;
mod synthetic;
mod trainer;
