//! Networks in ONNX Runtime, whose library lies on the device: how a GPU is reached. Nothing of it is built in.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::str::FromStr;

/// Which of ONNX Runtime's execution providers computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// NVIDIA's TensorRT; what it cannot compute, CUDA does.
    Tensorrt,
    /// NVIDIA's CUDA.
    Cuda,
    /// The processor, by ONNX Runtime's own kernels.
    Cpu,
}

impl Provider {
    /// As configurations write it.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Tensorrt => "tensorrt",
            Provider::Cuda => "cuda",
            Provider::Cpu => "cpu",
        }
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Provider, String> {
        let all = [Provider::Tensorrt, Provider::Cuda, Provider::Cpu];
        all.into_iter().find(|p| p.name() == text).ok_or_else(|| "tensorrt, cuda or cpu expected".into())
    }
}

/// How a network is to run in ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// `libonnxruntime.so`, 1.17 or newer. A process has one: the first that was loaded stays.
    pub library: PathBuf,
    /// Tried in this order; the first that takes the network computes.
    pub providers: Vec<Provider>,
    /// Where TensorRT keeps the engines that it builds in minutes; without it builds them at every start.
    pub cache: Option<PathBuf>,
    /// Of the processor's share.
    pub threads: usize,
}

#[cfg(feature = "onnxruntime")]
pub(super) use with::RuntimeSession;
#[cfg(not(feature = "onnxruntime"))]
pub(super) use without::RuntimeSession;

#[cfg(feature = "onnxruntime")]
mod with {
    use super::{Provider, RuntimeOptions};
    use crate::engine::{EngineError, LARGEST_SIDE};
    use ckaad_bundle::MAX_VIEWS;
    use ort::ep::{CUDA, ExecutionProviderDispatch, TensorRT};
    use ort::session::Session;
    use ort::session::builder::GraphOptimizationLevel;
    use ort::value::{Outlet, Tensor, TensorElementType, ValueType};
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, PoisonError};

    /// A network in ONNX Runtime. It judges one image, or one part, at a time.
    pub struct RuntimeSession {
        session: Mutex<Session>,
        provider: Provider,
        /// Views, height and width of the input.
        size: [usize; 3],
        names: Vec<String>,
        outputs: Vec<[usize; 3]>,
    }

    /// The library of this process.
    static LIBRARY: Mutex<Option<(PathBuf, ort::environment::Environment)>> = Mutex::new(None);

    fn environment(library: &Path) -> Result<ort::environment::Environment, EngineError> {
        let failed = |why: String| EngineError::Runtime(format!("{}: {why}", library.display()));
        let mut loaded = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, environment)) = loaded.as_ref() {
            return match path == library {
                true => Ok(environment.clone()),
                false => Err(failed(format!("{} is loaded already, and a process has one", path.display()))),
            };
        }
        if !library.is_file() {
            return Err(failed("there is no such file".into()));
        }
        let builder = ort::init_from(library).map_err(|e| failed(e.to_string()))?;
        let environment = builder.with_telemetry(false).build().map_err(|e| failed(one_line(&e)))?;
        *loaded = Some((library.to_owned(), environment.clone()));
        Ok(environment)
    }

    /// ONNX Runtime's messages go over several lines.
    fn one_line<T>(error: &ort::Error<T>) -> String {
        error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    impl RuntimeSession {
        pub fn load(onnx: &[u8], options: &RuntimeOptions) -> Result<RuntimeSession, EngineError> {
            // The binding panics where a library is not what it says it is.
            let load = std::panic::AssertUnwindSafe(|| RuntimeSession::first(onnx, options));
            let panicked = || EngineError::Runtime(format!("{}: it failed half-way", options.library.display()));
            std::panic::catch_unwind(load).unwrap_or_else(|_| Err(panicked()))
        }

        /// With the first provider that takes the network.
        fn first(onnx: &[u8], options: &RuntimeOptions) -> Result<RuntimeSession, EngineError> {
            let environment = environment(&options.library)?;
            let mut refused = vec![];
            for &provider in &options.providers {
                match session(&environment, onnx, provider, options) {
                    Ok(session) => return RuntimeSession::of(session, provider),
                    Err(e) => refused.push(format!("{}: {}", provider.name(), one_line(&e))),
                }
            }
            Err(EngineError::Runtime(match refused.is_empty() {
                true => "no provider is named".into(),
                false => refused.join("; "),
            }))
        }

        fn of(session: Session, provider: Provider) -> Result<RuntimeSession, EngineError> {
            let size = match session.inputs() {
                [input] => image_size(input)?,
                inputs => return Err(EngineError::Contract(format!("one input expected, found {}", inputs.len()))),
            };
            let names = session.outputs().iter().map(|output| output.name().to_owned()).collect();
            let outputs = session.outputs().iter().map(|output| shape(output, size[0])).collect::<Result<_, _>>()?;
            Ok(RuntimeSession { session: Mutex::new(session), provider, size, names, outputs })
        }

        pub fn provider(&self) -> Provider {
            self.provider
        }

        pub fn input_size(&self) -> (usize, usize) {
            (self.size[2], self.size[1])
        }

        pub fn views(&self) -> usize {
            self.size[0]
        }

        pub fn names(&self) -> &[String] {
            &self.names
        }

        pub fn outputs(&self) -> &[[usize; 3]] {
            &self.outputs
        }

        pub fn run(&self, image: &[u8]) -> Result<Vec<Vec<f32>>, EngineError> {
            let [views, height, width] = self.size;
            let expected = views * height * width * 3;
            if image.len() != expected {
                return Err(EngineError::ImageSize { actual: image.len(), expected, views, width, height });
            }
            let run = |e: ort::Error| EngineError::Run(one_line(&e));
            let input = Tensor::from_array(([views, height, width, 3], image.to_vec())).map_err(run)?;
            let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            let outputs = session.run(ort::inputs![input]).map_err(run)?;
            let values = |name: &String| {
                let output = outputs.get(name).ok_or_else(|| EngineError::Run(format!("{name} was not given")))?;
                Ok(output.try_extract_tensor::<f32>().map_err(run)?.1.to_vec())
            };
            let all: Vec<Vec<f32>> = self.names.iter().map(values).collect::<Result<_, EngineError>>()?;
            let sizes = all.iter().zip(&self.outputs).zip(&self.names);
            match sizes.into_iter().find(|((values, shape), _)| values.len() != views * shape.iter().product::<usize>())
            {
                Some(((values, _), name)) => {
                    Err(EngineError::Run(format!("{name} has {} values, which it should not", values.len())))
                }
                None => Ok(all),
            }
        }
    }

    fn session(
        environment: &ort::environment::Environment,
        onnx: &[u8],
        provider: Provider,
        options: &RuntimeOptions,
    ) -> ort::Result<Session> {
        let cuda = || CUDA::default().build();
        let providers: Vec<ExecutionProviderDispatch> = match provider {
            Provider::Cpu => vec![],
            Provider::Cuda => vec![cuda().error_on_failure()],
            Provider::Tensorrt => {
                let mut tensorrt = TensorRT::default();
                if let Some(cache) = &options.cache {
                    let cache = cache.display().to_string();
                    tensorrt = tensorrt.with_engine_cache(true).with_engine_cache_path(&cache);
                    tensorrt = tensorrt.with_timing_cache(true).with_timing_cache_path(cache);
                }
                vec![tensorrt.build().error_on_failure(), cuda()]
            }
        };
        let mut builder = Session::builder(environment)?.with_optimization_level(GraphOptimizationLevel::All)?;
        if !sums_bytes_exactly() {
            builder = builder.with_precise_qmm()?;
        }
        let builder = builder.with_intra_threads(options.threads.max(1))?.with_inter_threads(1)?;
        builder.with_execution_providers(providers)?.commit_from_memory(onnx)
    }

    /// On x86 without VNNI, ONNX Runtime saturates the sum of two products of bytes, and answers otherwise than on every other CPU, unless it is told not to.
    fn sums_bytes_exactly() -> bool {
        #[cfg(target_arch = "x86_64")]
        return is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni");
        #[cfg(not(target_arch = "x86_64"))]
        return true;
    }

    fn dims(outlet: &Outlet, expected: TensorElementType) -> Option<Vec<usize>> {
        match outlet.dtype() {
            ValueType::Tensor { ty, shape, .. } if *ty == expected => shape
                .iter()
                .map(|&side| usize::try_from(side).ok().filter(|s| (1..=LARGEST_SIDE).contains(s)))
                .collect(),
            _ => None,
        }
    }

    /// Views, height and width.
    fn image_size(input: &Outlet) -> Result<[usize; 3], EngineError> {
        match dims(input, TensorElementType::Uint8).as_deref() {
            Some(&[views, height, width, 3]) if views <= MAX_VIEWS => Ok([views, height, width]),
            _ => Err(EngineError::Contract(format!("input u8 [V,H,W,3] expected, found {}", input.dtype()))),
        }
    }

    fn shape(output: &Outlet, views: usize) -> Result<[usize; 3], EngineError> {
        match dims(output, TensorElementType::Float32).as_deref() {
            Some(&[v, c, h, w]) if v == views => Ok([c, h, w]),
            Some(sides) if views == 1 && sides.iter().all(|&side| side == 1) => Ok([1, 1, 1]),
            _ => Err(EngineError::Contract(format!("outputs f32 [{views},C,h,w] expected, found {}", output.dtype()))),
        }
    }
}

#[cfg(not(feature = "onnxruntime"))]
mod without {
    use super::{Provider, RuntimeOptions};
    use crate::engine::EngineError;

    /// There is none in this build.
    pub enum RuntimeSession {}

    impl RuntimeSession {
        pub fn load(_: &[u8], _: &RuntimeOptions) -> Result<RuntimeSession, EngineError> {
            Err(EngineError::Runtime("this program was built without the feature onnxruntime".into()))
        }

        pub fn provider(&self) -> Provider {
            match *self {}
        }

        pub fn input_size(&self) -> (usize, usize) {
            match *self {}
        }

        pub fn views(&self) -> usize {
            match *self {}
        }

        pub fn names(&self) -> &[String] {
            match *self {}
        }

        pub fn outputs(&self) -> &[[usize; 3]] {
            match *self {}
        }

        pub fn run(&self, _: &[u8]) -> Result<Vec<Vec<f32>>, EngineError> {
            match *self {}
        }
    }
}
