//! `--device auto|cpu|cuda:N` → a burn device.

use burn::prelude::Device;
use std::str::FromStr;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU that can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU of this number, counted from 0.
    Cuda(usize),
}

/// Why a device cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum DeviceError {
    #[error("{0:?} is no device; auto, cpu or cuda:N is expected (cuda:0 is the first GPU)")]
    Unknown(String),
    #[error("cuda:{0} was asked for, but this program was built without the feature \"cuda\"")]
    NotBuilt(usize),
    #[error("cuda:{0} was asked for, but no NVIDIA driver (libcuda.so.1) is installed on this machine")]
    NoDriver(usize),
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(text.to_owned());
        match text.split_once(':') {
            None if text == "auto" => Ok(DeviceChoice::Auto),
            None if text == "cpu" => Ok(DeviceChoice::Cpu),
            None if text == "cuda" => Ok(DeviceChoice::Cuda(0)),
            Some(("cuda", n)) => n.parse().map(DeviceChoice::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

/// The CPU, on which a trained network is read to be exported.
pub fn cpu() -> Device {
    Device::flex()
}

impl DeviceChoice {
    /// `auto` takes the first GPU when one can be used, else the CPU.
    pub fn open(self) -> Result<(Device, String), DeviceError> {
        match self {
            DeviceChoice::Cpu => Ok((cpu(), "cpu".into())),
            DeviceChoice::Cuda(index) => cuda(index),
            DeviceChoice::Auto => cuda(0).or_else(|_| DeviceChoice::Cpu.open()),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<(Device, String), DeviceError> {
    // The CUDA backend panics when the driver's library cannot be loaded, so look for it first.
    if !has_library("libcuda.so.1") {
        return Err(DeviceError::NoDriver(index));
    }
    Ok((Device::cuda(index), format!("cuda:{index}")))
}

#[cfg(not(feature = "cuda"))]
fn cuda(index: usize) -> Result<(Device, String), DeviceError> {
    Err(DeviceError::NotBuilt(index))
}

/// Whether the dynamic linker would find `name`: its search path first, then its cache.
#[cfg(feature = "cuda")]
fn has_library(name: &str) -> bool {
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    let cache = std::process::Command::new("ldconfig").arg("-p").output();
    in_path || cache.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_written() {
        assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("gpu".parse::<DeviceChoice>(), Err(DeviceError::Unknown("gpu".into())));
        assert_eq!("cuda:x".parse::<DeviceChoice>(), Err(DeviceError::Unknown("cuda:x".into())));
    }
}
