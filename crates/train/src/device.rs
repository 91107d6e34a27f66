//! `--device auto|cpu|wgpu:N|cuda:N` → a burn device. Whatever is random is drawn on the CPU, so that a run begins alike on every device.

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::Distribution;
use std::str::FromStr;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU that can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number, counted from 0, through its Vulkan driver; behind the GPUs, a software renderer.
    Wgpu(usize),
    /// The NVIDIA GPU of this number, counted from 0, through CUDA.
    Cuda(usize),
}

/// Why a device cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum DeviceError {
    #[error("{0:?} is no device; auto, cpu, wgpu:N or cuda:N is expected (wgpu:0 is the first GPU)")]
    Unknown(String),
    #[error("{api}:{index} was asked for, but this program was built without the feature {api:?}")]
    NotBuilt { api: &'static str, index: usize },
    #[error(
        "wgpu:{0} was asked for, but no GPU is found: libvulkan.so.1 and the Vulkan driver of the GPU are looked for"
    )]
    NoVulkan(usize),
    #[error("wgpu:{index} was asked for, but there is only {found}")]
    NoAdapter { index: usize, found: String },
    #[error("wgpu:{0} is there, but its driver cannot be used")]
    Driver(usize),
    #[error("cuda:{index} was asked for, but CUDA finds {found} GPU(s)")]
    NoGpu { index: usize, found: usize },
    #[error("cuda:{0} was asked for, but no NVIDIA driver (libcuda.so.1) is installed on this machine")]
    NoDriver(usize),
    #[error(
        "cuda:{0} was asked for, but there is no nvvm/libdevice/libdevice.10.bc of a CUDA toolkit in $CUDA_PATH or, where that is not set, in /usr/local/cuda, /opt/cuda, /usr/lib/cuda or /usr"
    )]
    NoLibdevice(usize),
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(text.to_owned());
        let (api, index) = match text.split_once(':') {
            None => (text, Ok(0)),
            Some(("auto" | "cpu", _)) => return Err(unknown()),
            Some((api, index)) => (api, index.parse()),
        };
        let index = index.map_err(|_| unknown())?;
        match api {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "wgpu" => Ok(DeviceChoice::Wgpu(index)),
            "cuda" => Ok(DeviceChoice::Cuda(index)),
            _ => Err(unknown()),
        }
    }
}

/// The CPU, on which a trained network is read to be exported.
pub fn cpu() -> Device {
    Device::flex()
}

impl DeviceChoice {
    /// `auto` takes the first GPU when one can be used, else the CPU. The second is what the log calls it.
    ///
    /// # Errors
    /// It is not there, or this program cannot use it.
    pub fn open(self) -> Result<(Device, String), DeviceError> {
        match self {
            DeviceChoice::Cpu => Ok((cpu(), "cpu".into())),
            DeviceChoice::Wgpu(index) => wgpu::open(index),
            DeviceChoice::Cuda(index) => cuda::open(index),
            // Who builds with CUDA wants it.
            DeviceChoice::Auto => cuda::open(0).or_else(|_| wgpu::first_gpu()).or_else(|_| DeviceChoice::Cpu.open()),
        }
    }
}

#[cfg(feature = "wgpu")]
mod wgpu {
    use super::DeviceError;
    use burn::prelude::Device;
    use burn::tensor::{DeviceKind, DeviceType};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// GPUs first, and how many, then software renderers.
    fn adapters() -> (Vec<Device>, usize) {
        let software = Device::wgpu(DeviceKind::Cpu);
        let all = Device::enumerate(DeviceType::Wgpu).into_vec();
        let (renderers, mut all): (Vec<Device>, Vec<Device>) = all.into_iter().partition(|device| *device == software);
        let gpus = all.len();
        all.extend(renderers);
        (all, gpus)
    }

    fn name(index: usize, device: &Device) -> String {
        let name = device.identity().map(|identity| identity.name).filter(|name| !name.is_empty());
        let tuned = if cfg!(feature = "autotune") { "" } else { "; built without the feature autotune" };
        format!("wgpu:{index} ({}{tuned})", name.as_deref().unwrap_or("without a name"))
    }

    pub fn open(index: usize) -> Result<(Device, String), DeviceError> {
        opened(index, &adapters().0)
    }

    fn opened(index: usize, all: &[Device]) -> Result<(Device, String), DeviceError> {
        if all.is_empty() {
            return Err(DeviceError::NoVulkan(index));
        }
        let found = || match all.len() {
            1 => "wgpu:0".to_owned(),
            more => format!("wgpu:0 to wgpu:{}", more - 1),
        };
        let device = all.get(index).ok_or_else(|| DeviceError::NoAdapter { index, found: found() })?;
        // To be asked for its name it is opened, and burn panics where that fails.
        let name = catch_unwind(AssertUnwindSafe(|| name(index, device))).map_err(|_| DeviceError::Driver(index))?;
        Ok((device.clone(), name))
    }

    /// A software renderer is slower than the CPU's own way.
    pub fn first_gpu() -> Result<(Device, String), DeviceError> {
        let (all, gpus) = adapters();
        opened(0, &all[..gpus])
    }
}

#[cfg(not(feature = "wgpu"))]
mod wgpu {
    use super::DeviceError;
    use burn::prelude::Device;

    pub fn open(index: usize) -> Result<(Device, String), DeviceError> {
        Err(DeviceError::NotBuilt { api: "wgpu", index })
    }

    pub fn first_gpu() -> Result<(Device, String), DeviceError> {
        open(0)
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::DeviceError;
    use burn::prelude::Device;
    use burn::tensor::DeviceType;
    use std::path::PathBuf;

    pub fn open(index: usize) -> Result<(Device, String), DeviceError> {
        // The CUDA backend panics when the driver's library cannot be loaded, so look for it first.
        if !has_library("libcuda.so.1") {
            return Err(DeviceError::NoDriver(index));
        }
        let found = Device::enumerate(DeviceType::Cuda).into_vec().len();
        if index >= found {
            return Err(DeviceError::NoGpu { index, found });
        }
        // It panics as well at the first kernel with an exponential in it where this is not there; it looks nowhere else where the variable is set.
        let toolkits = match std::env::var_os("CUDA_PATH") {
            Some(path) => vec![PathBuf::from(path)],
            None => ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"].map(PathBuf::from).to_vec(),
        };
        if !toolkits.iter().any(|folder| folder.join("nvvm/libdevice/libdevice.10.bc").exists()) {
            return Err(DeviceError::NoLibdevice(index));
        }
        Ok((Device::cuda(index), format!("cuda:{index}")))
    }

    /// Whether the dynamic linker would find `name`: its search path first, then its cache.
    fn has_library(name: &str) -> bool {
        let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&path).any(|folder| folder.join(name).exists());
        let cache = std::process::Command::new("ldconfig").arg("-p").output();
        in_path || cache.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains(name))
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use super::DeviceError;
    use burn::prelude::Device;

    pub fn open(index: usize) -> Result<(Device, String), DeviceError> {
        Err(DeviceError::NotBuilt { api: "cuda", index })
    }
}

/// What is drawn from here on, weights and noise alike, follows from `seed`.
pub fn seed(seed: u64) {
    cpu().seed(seed);
}

/// Values of a distribution, drawn on the CPU, on `device`.
pub fn random<const D: usize>(dims: [usize; D], distribution: Distribution, device: &Device) -> Tensor<D> {
    let drawn = Tensor::<D>::random(dims, distribution, &cpu());
    Tensor::from_data(drawn.into_data(), device)
}

/// The module that `make` makes on the device it is given, its weights drawn on the CPU, to be trained on `device`.
pub fn drawn<M: Module>(device: &Device, make: impl FnOnce(&Device) -> M) -> M {
    let module = make(&cpu().autodiff());
    // A weight is drawn when it is first looked at, wherever that is.
    module.visit(&mut Look);
    module.fork(&device.clone().autodiff())
}

struct Look;

impl ModuleVisitor for Look {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        param.val();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_written() {
        assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
        assert_eq!("wgpu".parse(), Ok(DeviceChoice::Wgpu(0)));
        assert_eq!("wgpu:2".parse(), Ok(DeviceChoice::Wgpu(2)));
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        for wrong in ["gpu", "cuda:x", "cpu:0", "wgpu:-1", "wgpu:", ""] {
            assert_eq!(wrong.parse::<DeviceChoice>(), Err(DeviceError::Unknown(wrong.to_owned())));
        }
    }
}
