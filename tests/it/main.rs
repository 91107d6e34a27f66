//! The real binary, a real broker: one file a promise, one binary to link.

#[cfg(all(feature = "demo", feature = "failpoints", feature = "onnxruntime"))]
mod accelerator;
mod agent;
mod bad_input;
mod capture;
mod config_file;
mod demo;
mod device;
mod errors;
#[cfg(feature = "failpoints")]
mod faults;
mod floors;
mod mqtt;
#[cfg(feature = "demo")]
mod parts;
mod regressions;
mod systemd;
mod updates;
mod util;
