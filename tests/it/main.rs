//! Integration tests, one file a promise, one binary to link.

#[cfg(feature = "train")]
mod backbones;
mod bundle;
#[cfg(feature = "train")]
mod datasets;
mod floors;
#[cfg(feature = "train")]
mod hostile_onnx;
#[cfg(feature = "train")]
mod metrics;
mod parity;
mod qlinearconv;
#[cfg(feature = "train")]
mod report;
mod synthetic;
#[cfg(feature = "train")]
mod trainer;

#[cfg(feature = "agent")]
mod agent;
#[cfg(feature = "agent")]
mod bad_input;
#[cfg(feature = "agent")]
mod capture;
#[cfg(feature = "agent")]
mod config_file;
#[cfg(feature = "agent")]
mod demo;
#[cfg(feature = "agent")]
mod mqtt;
#[cfg(feature = "agent")]
mod systemd;
#[cfg(feature = "agent")]
mod util;
