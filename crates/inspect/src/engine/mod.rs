//! ONNX → runnable plan on tract: u8 image in, anomaly map and image score out. Quantised parts, and the float tail behind them, run in
//! our own operator (`ckaad-int8`); tract loads, finds shapes, plans, and runs every other operator.
//!
//! [`Plan`] runs any graph with the input contract (`image`, u8 `[V,H,W,3]`: V views of one part, 1 as a rule); [`Engine`] also holds the output
//! contract (`anomaly_map`, f32 `[V,1,H/s,W/s]`, and where a model has it `image_score`, one f32 a view). Resizing a frame to `[H,W,3]` and everything behind
//! the map belong to `inspect`.

mod assemble;
mod constants;
mod float_conv;
mod op;
mod partition;
mod patterns;
mod runtime;
mod tensors;

use ckaad_bundle::MAX_VIEWS;
pub use ckaad_int8::pool::Pool;
use ckaad_int8::region::Region;
use ndarray::Array2;
use partition::Partitioned;
use runtime::RuntimeSession;
pub use runtime::{Provider, RuntimeOptions};
use std::sync::Arc;
use tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

/// The instruction set that the int8 kernels use on this CPU.
pub fn instruction_set() -> &'static str {
    ckaad_int8::Isa::best().name()
}

/// Multiply-adds a second that one core can do at most with these kernels' instruction, measured in registers over
/// `seconds`; none where there is no such measurement.
pub fn peak_macs_per_second(seconds: f64) -> Option<f64> {
    ckaad_int8::peak(ckaad_int8::Isa::best(), seconds)
}

/// Why a model cannot be run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum EngineError {
    #[error("the model is not an ONNX graph that this engine can run: {0}")]
    Unsupported(String),
    #[error("the model breaks the contract: {0}")]
    Contract(String),
    #[error("the image has {actual} bytes; the model takes {expected} ({}{width}x{height} RGB)", views_of(*.views))]
    ImageSize { actual: usize, expected: usize, views: usize, width: usize, height: usize },
    #[error("the model stopped while running: {0}")]
    Run(String),
    #[error("ONNX Runtime cannot run it: {0}")]
    Runtime(String),
}

/// `3 views of `; of one nothing.
fn views_of(views: usize) -> String {
    if views == 1 { String::new() } else { format!("{views} views of ") }
}

/// An optimised graph, ready to run. Running does not change it; clones share the weights.
#[derive(Clone)]
pub struct Plan {
    network: Network,
    unfused: Vec<String>,
}

/// What tract made of a graph.
#[derive(Clone)]
struct Network {
    runnable: Arc<TypedRunnableModel>,
    views: usize,
    width: usize,
    height: usize,
    /// Names of the outputs, in the file's order.
    names: Vec<String>,
    /// Channels, height and width of each output.
    outputs: Vec<[usize; 3]>,
}

impl Plan {
    /// The threads of `pool`, a number for threads of its own, share the work of the int8 engine. tract's own operators stay on the
    /// caller's thread; a second set of threads would only take the cores from the first.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] when the bytes are no ONNX graph or an operator is missing,
    /// [`EngineError::Contract`] when the input is not u8 `[V,H,W,3]` or an output is not f32 `[V,C,h,w]` (of one view one number
    /// may have any shape).
    pub fn load(onnx: &[u8], pool: impl Into<Pool>) -> Result<Plan, EngineError> {
        let pool = pool.into();
        let mut reader = tract_onnx::onnx();
        op::register(&mut reader);
        let read = || reader.proto_model_for_read(&mut &onnx[..]).map_err(unsupported);
        let proto = read()?;
        if proto.graph.as_ref().is_some_and(partition::forged) {
            return Err(EngineError::Unsupported(format!(
                "it uses the operator {}, which is no file's to use",
                partition::REGION
            )));
        }
        let Partitioned { model, regions, unfused } = partition::partition(proto);
        // A region whose parts do not fit after all (an addition that broadcasts, say) is no reason to refuse what
        // tract can run.
        let (network, unfused) = match Network::load(&reader, model, regions, &pool) {
            Err(EngineError::Unsupported(e)) => {
                (Network::load(&reader, read()?, vec![], &pool)?, vec![format!("the whole network: {e}")])
            }
            network => (network?, unfused),
        };
        Ok(Plan { network, unfused })
    }

    /// Width and height of the input.
    pub fn input_size(&self) -> (usize, usize) {
        (self.network.width, self.network.height)
    }

    /// Views of one part that it takes at once.
    pub fn views(&self) -> usize {
        self.network.views
    }

    /// Quantised operators that the int8 engine does not take and tract runs, as `operator: result`; one line,
    /// `the whole network` and why, where it takes nothing.
    pub fn unfused(&self) -> &[String] {
        &self.unfused
    }

    /// Names of the outputs, in the order of [`Plan::outputs`].
    pub fn names(&self) -> &[String] {
        &self.network.names
    }

    /// Channels, height and width of each output; of a single number 1, 1 and 1.
    pub fn outputs(&self) -> &[[usize; 3]] {
        &self.network.outputs
    }

    /// `image` is `[V,H,W,3]`; the results are `[V,C,h,w]`, row by row, in the order of [`Plan::outputs`].
    ///
    /// # Errors
    /// [`EngineError::ImageSize`] or [`EngineError::Run`].
    pub fn run(&self, image: &[u8]) -> Result<Vec<Vec<f32>>, EngineError> {
        let Network { views, width, height, .. } = self.network;
        let expected = views * width * height * 3;
        if image.len() != expected {
            return Err(EngineError::ImageSize { actual: image.len(), expected, views, width, height });
        }
        let run = |e: TractError| EngineError::Run(format!("{e:#}"));
        let input = Tensor::from_shape(&[views, height, width, 3], image).map_err(run)?;
        // An operator that panics over an unsound model must not stop the daemon.
        let work = std::panic::AssertUnwindSafe(|| {
            // Whatever default the rest of the process has set.
            multithread_tract_scope(Executor::SingleThread, || self.network.runnable.run(tvec!(input.into_tvalue())))
        });
        let outputs = std::panic::catch_unwind(work)
            .unwrap_or_else(|_| Err(TractError::msg("an operator failed half-way: the model is not sound")));
        let outputs = outputs.map_err(run)?;
        outputs.iter().map(|o| Ok(o.to_plain_array_view::<f32>().map_err(run)?.iter().copied().collect())).collect()
    }
}

impl Network {
    /// A file that makes tract panic is a file that cannot be run; the daemon goes on.
    fn load(
        reader: &tract_onnx::Onnx,
        proto: ModelProto,
        regions: Vec<Region>,
        pool: &Pool,
    ) -> Result<Network, EngineError> {
        let load = std::panic::AssertUnwindSafe(|| Network::build(reader, proto, regions, pool));
        let panicked = || EngineError::Unsupported("it is not sound: reading it failed half-way".into());
        std::panic::catch_unwind(load).unwrap_or_else(|_| Err(panicked()))
    }

    fn build(
        reader: &tract_onnx::Onnx,
        mut proto: ModelProto,
        regions: Vec<Region>,
        pool: &Pool,
    ) -> Result<Network, EngineError> {
        float_conv::rewrite(&mut proto);
        let names: Vec<String> = proto.graph.iter().flat_map(|g| &g.output).map(|o| o.name.clone()).collect();
        let mut model = reader.model_for_proto_model(&proto).map_err(unsupported)?;
        drop(proto);
        op::fill(&mut model, regions, pool).map_err(unsupported)?;
        let model = model.into_typed().and_then(|m| m.into_decluttered()).map_err(unsupported)?;
        let [views, height, width] = input_size(&model)?;
        let outputs = output_shapes(&model, names.len(), views)?;
        let runnable = model.into_optimized().and_then(|m| m.into_runnable()).map_err(unsupported)?;
        Ok(Network { runnable, views, width, height, names, outputs })
    }
}

fn unsupported(e: TractError) -> EngineError {
    EngineError::Unsupported(format!("{e:#}"))
}

/// The output that every model has.
const MAP: &str = "anomaly_map";
/// The output of models with an image branch.
const IMAGE_SCORE: &str = "image_score";

/// What computes a model.
enum Runner {
    /// This crate's own engine.
    Own(Plan),
    /// A library of the device.
    OnnxRuntime(RuntimeSession),
}

impl Runner {
    fn input_size(&self) -> (usize, usize) {
        match self {
            Runner::Own(plan) => plan.input_size(),
            Runner::OnnxRuntime(session) => session.input_size(),
        }
    }

    fn views(&self) -> usize {
        match self {
            Runner::Own(plan) => plan.views(),
            Runner::OnnxRuntime(session) => session.views(),
        }
    }

    fn names(&self) -> &[String] {
        match self {
            Runner::Own(plan) => plan.names(),
            Runner::OnnxRuntime(session) => session.names(),
        }
    }

    fn outputs(&self) -> &[[usize; 3]] {
        match self {
            Runner::Own(plan) => plan.outputs(),
            Runner::OnnxRuntime(session) => session.outputs(),
        }
    }

    fn run(&self, image: &[u8]) -> Result<Vec<Vec<f32>>, EngineError> {
        match self {
            Runner::Own(plan) => plan.run(image),
            Runner::OnnxRuntime(session) => session.run(image),
        }
    }
}

/// A model that holds the whole contract.
pub struct Engine {
    runner: Runner,
    /// Which of the outputs is the map.
    map: usize,
    /// Which is the image score, where there is one.
    image_score: Option<usize>,
}

/// What a model says of an image, or of one view of a part.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// `[h,w]`; the larger a value, the more anomalous.
    pub map: Array2<f32>,
    /// Of the whole image, from models with an image branch; the larger, the more anomalous.
    pub image_score: Option<f32>,
}

impl Engine {
    /// # Errors
    /// As [`Plan::load`]; also [`EngineError::Contract`] when the outputs are not `anomaly_map` of one channel, and
    /// `image_score` of one number or none.
    pub fn load(onnx: &[u8], pool: impl Into<Pool>) -> Result<Engine, EngineError> {
        Engine::of(Runner::Own(Plan::load(onnx, pool)?))
    }

    /// The same in ONNX Runtime.
    ///
    /// # Errors
    /// [`EngineError::Runtime`] when its library cannot be used or no provider takes the model, [`EngineError::Contract`] as [`Engine::load`].
    pub fn in_runtime(onnx: &[u8], options: &RuntimeOptions) -> Result<Engine, EngineError> {
        Engine::of(Runner::OnnxRuntime(RuntimeSession::load(onnx, options)?))
    }

    fn of(runner: Runner) -> Result<Engine, EngineError> {
        let at = |name: &str| runner.names().iter().position(|n| n == name);
        let (map, image_score) = (at(MAP), at(IMAGE_SCORE));
        let known = 1 + usize::from(image_score.is_some());
        match (map.map(|i| (i, runner.outputs()[i])), image_score.map(|i| runner.outputs()[i])) {
            (Some((map, [1, _, _])), None | Some([1, 1, 1])) if runner.outputs().len() == known => {
                Ok(Engine { runner, map, image_score })
            }
            _ => {
                let found = runner.names().iter().zip(runner.outputs());
                let views = runner.views();
                let found: Vec<String> = found.map(|(n, [c, h, w])| format!("{n} [{views},{c},{h},{w}]")).collect();
                Err(EngineError::Contract(format!(
                    "the output {MAP} [{views},1,h,w], and {IMAGE_SCORE} of one number a view or none, expected; found {}",
                    found.join(", ")
                )))
            }
        }
    }

    /// Width and height of the input.
    pub fn input_size(&self) -> (usize, usize) {
        self.runner.input_size()
    }

    /// Views of one part that it takes at once.
    pub fn views(&self) -> usize {
        self.runner.views()
    }

    /// As [`Plan::unfused`]; nothing where ONNX Runtime computes.
    pub fn unfused(&self) -> &[String] {
        match &self.runner {
            Runner::Own(plan) => plan.unfused(),
            Runner::OnnxRuntime(_) => &[],
        }
    }

    /// Which of ONNX Runtime's providers computes; none where this crate's own engine does.
    pub fn provider(&self) -> Option<Provider> {
        match &self.runner {
            Runner::Own(_) => None,
            Runner::OnnxRuntime(session) => Some(session.provider()),
        }
    }

    /// Width and height of the map.
    pub fn map_size(&self) -> (usize, usize) {
        let [_, height, width] = self.runner.outputs()[self.map];
        (width, height)
    }

    /// Whether the model has the output `image_score`.
    pub fn has_image_score(&self) -> bool {
        self.image_score.is_some()
    }

    /// What the model says of each view of `image`, which is `[V,H,W,3]`.
    ///
    /// # Errors
    /// As [`Plan::run`]; [`EngineError::Run`] also when an output holds a value that is not finite.
    pub fn run(&self, image: &[u8]) -> Result<Vec<Outputs>, EngineError> {
        let values = self.runner.run(image)?;
        if let Some(i) = values.iter().position(|output| output.iter().any(|v| !v.is_finite())) {
            return Err(EngineError::Run(format!("{} holds a value that is not finite", self.runner.names()[i])));
        }
        let [_, height, width] = self.runner.outputs()[self.map];
        let views = self.runner.views();
        let expected = |i: usize| views * if i == self.map { height * width } else { 1 };
        if let Some(i) = (0..values.len()).find(|&i| values[i].len() != expected(i)) {
            let (name, found) = (&self.runner.names()[i], values[i].len());
            return Err(EngineError::Run(format!("{name} has {found} values in place of {}", expected(i))));
        }
        let maps = values[self.map].chunks_exact(height * width).enumerate();
        maps.map(|(view, map)| {
            let image_score = self.image_score.and_then(|i| values[i].get(view).copied());
            let map = Array2::from_shape_vec((height, width), map.to_vec());
            Ok(Outputs { map: map.map_err(|e| EngineError::Run(e.to_string()))?, image_score })
        })
        .collect()
    }
}

/// Pixels of the input along a side; products of such sizes do not overflow.
const LARGEST_SIDE: usize = 1 << 14;

/// Views, height and width.
fn input_size(model: &TypedModel) -> Result<[usize; 3], EngineError> {
    let contract = |found: String| EngineError::Contract(format!("input u8 [V,H,W,3] expected, found {found}"));
    let inputs = model.input_outlets().map_err(|e| contract(e.to_string()))?;
    if inputs.len() != 1 {
        return Err(contract(format!("{} inputs", inputs.len())));
    }
    let fact = model.input_fact(0).map_err(|e| contract(e.to_string()))?;
    match (fact.datum_type, fact.shape.as_concrete()) {
        (DatumType::U8, Some(&[views, height, width, 3]))
            if (1..=MAX_VIEWS).contains(&views) && (1..=LARGEST_SIDE).contains(&height.max(width)) =>
        {
            Ok([views, height, width])
        }
        _ => Err(contract(format!("{fact:?}"))),
    }
}

fn output_shapes(model: &TypedModel, names: usize, views: usize) -> Result<Vec<[usize; 3]>, EngineError> {
    let contract =
        |found: String| EngineError::Contract(format!("outputs f32 [{views},C,h,w] expected, found {found}"));
    let count = model.output_outlets().map_err(|e| contract(e.to_string()))?.len();
    if count != names {
        return Err(contract(format!("{count} for {names} names")));
    }
    (0..count)
        .map(|i| {
            let fact = model.output_fact(i).map_err(|e| contract(e.to_string()))?;
            match (fact.datum_type, fact.shape.as_concrete()) {
                (DatumType::F32, Some(&[v, c, h, w])) if v == views && c > 0 && h > 0 && w > 0 => Ok([c, h, w]),
                (DatumType::F32, Some(shape)) if views == 1 && shape.iter().all(|&side| side == 1) => Ok([1, 1, 1]),
                _ => Err(contract(format!("{fact:?}"))),
            }
        })
        .collect()
}
