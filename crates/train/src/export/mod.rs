//! `ckaad-train export`: run → bundle, or one ONNX file for TensorRT.
//!
//! ```text
//! models of the folds ─agent's engine on the images each never saw─► terms ─► weights ─► float layers ─► rule, threshold
//!                                                                                │            │
//! model of all images ─────────────────fold, quantise───────────────► ONNX ◄─────┴────────────┘─► bundle
//! ```

mod bundle;
mod choose;
mod evidence;
mod folds;
mod gpu;
mod inspector;
mod segments;

use crate::backbones::WeightError;
use crate::config::{Build, ConfigError, TrainConfig};
use crate::device;
use crate::features::{Extractor, FeatureError};
use crate::graph::{Graph, Id, Ranges};
use crate::methods::{Labelled, Library, MethodError, Model, TrainingImages};
use crate::onnx;
use crate::onnx::int8::Dialect;
use crate::progress::ProgressDisplay;
use crate::quantise::{self, Int8Graph, QuantiseError};
use crate::run::{RunFolder, RunFolderError, RunInfo, Unit};
use crate::views::NoView;
use ckaad_bundle::{BundleError, Manifest};
use ckaad_inspect::engine::EngineError;
use ckaad_inspect::imaging::DecodeError;
use ckaad_inspect::{CalibrationError, InspectError};
use folds::Folds;
use gpu::Exact;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub use choose::{MethodsChosen, TriedMethods, choose_methods};
pub use evidence::{Evidence, KindRow, TermRow};

/// Why a run cannot be exported.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum ExportError {
    #[error(transparent)]
    Run(#[from] RunFolderError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Features(#[from] FeatureError),
    #[error(transparent)]
    Method(#[from] MethodError),
    #[error(transparent)]
    Weights(#[from] WeightError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error(transparent)]
    Image(#[from] DecodeError),
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    #[error(transparent)]
    Quantise(#[from] QuantiseError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("cannot write {path}: {cause}")]
    Write { path: PathBuf, cause: std::io::Error },
    #[error("{run} is not trained to its end ({unit} is missing): run ckaad-train fit --resume first")]
    Untrained { run: PathBuf, unit: String },
    #[error("{run}: which methods are exported is not chosen yet: run ckaad-train fit --method auto --resume first")]
    NotChosen { run: PathBuf },
    #[error(transparent)]
    NoView(#[from] NoView),
    #[error("cannot encode a picture of the bundle: {0}")]
    Picture(image::ImageError),
}

/// What `export` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A bundle in f32.
    F32,
    /// A bundle in int8.
    Int8,
    /// The same, with the network in f16 beside it for devices that have a GPU.
    Gpu,
    /// An ONNX file in int8 with QuantizeLinear and DequantizeLinear around float operators, as TensorRT takes it.
    Qdq,
}

/// What was written.
pub struct Exported {
    /// SHA-256 of the bundle; none of a plain ONNX file.
    pub digest: Option<String>,
    /// What the bundle says of itself; of a plain ONNX file, what it would say.
    pub manifest: Manifest,
    /// What the weights, the score rule and the threshold rest on.
    pub evidence: Evidence,
    /// What int8 costs; none of a model in f32.
    pub quantisation: Option<quantise::Report>,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// Weights and biases.
    pub parameters: u64,
}

/// Makes a bundle, or an ONNX file for TensorRT, of the run in `folder` and writes it to `out`.
///
/// # Errors
/// When the run is not whole or not trained, an image cannot be read, or `out` cannot be written.
pub fn export(folder: &Path, out: &Path, form: Form) -> Result<Exported, ExportError> {
    export_with(folder, out, form, &TrainConfig::model)
}

/// As [`export`], of the methods that `build` makes of the run's config.
///
/// # Errors
/// As [`export`].
pub fn export_with(folder: &Path, out: &Path, form: Form, build: Build) -> Result<Exported, ExportError> {
    let run = RunFolder::at(folder);
    let config = choose::chosen(&run)?;
    Context::with(&run, &config, form != Form::F32, build, |context| {
        let config = context.config;
        let mut folds = Folds::load(context)?;
        let weights = folds.choose();
        let (float_layers, quantisation) = folds.float_layers(&weights)?;
        let mut whole = context.unit(Unit::Whole)?;
        if float_layers != config.quantise.float_layers {
            folds.learn_again(&float_layers)?;
            whole.library = context.library(&whole.numbers, &float_layers);
            whole.learn_again()?;
        }
        let decided = folds.decide(&weights, &float_layers)?;
        // With other layers in float the image branch may turn out to be of no use.
        let weights = decided.choice.weights.clone();
        let graph = whole.model.graph(context.extractor, &weights);
        let dialect = if form == Form::Qdq { Dialect::Qdq } else { Dialect::QOperator };
        let model = whole.numbers.write(&graph, None, &float_layers, dialect);
        let evidence = Evidence::of(&folds, &decided);
        context.run.keep_verdicts(&evidence.scores)?;
        let methods = whole.model.used(&weights);
        let exact = (form == Form::Gpu).then(|| Exact::of(&run, config, build, &weights)).transpose()?;
        let contents =
            bundle::Contents { context, methods, graph, exact, model, decided, evidence, quantisation, form };
        bundle::write(contents, out)
    })
}

/// One run on its way out.
struct Context<'a> {
    config: &'a TrainConfig,
    run: &'a RunFolder,
    info: &'a RunInfo,
    /// Every training image, with its whole path.
    images: &'a [Labelled],
    extractor: &'a Extractor,
    progress: &'a ProgressDisplay,
    /// Whether models are quantised.
    int8: bool,
    build: Build<'a>,
}

impl Context<'_> {
    /// Opens a run for `then`; `config` is its own, or that with fewer methods.
    fn with<T>(
        run: &RunFolder,
        config: &TrainConfig,
        int8: bool,
        build: Build,
        then: impl FnOnce(&Context) -> Result<T, ExportError>,
    ) -> Result<T, ExportError> {
        let progress = ProgressDisplay::detect();
        let info = run.info()?;
        let weights = config.backbone.weights(config.weights.as_deref())?;
        let ranges = info.ranges.as_ref().filter(|_| int8);
        let extractor = Extractor::new(config.reading(), &weights, info.spread(), ranges)?;
        let images = info.placed();
        then(&Context {
            config,
            run,
            info: &info,
            images: &images,
            extractor: &extractor,
            progress: &progress,
            int8,
            build,
        })
    }

    /// Height and width of the network's input.
    fn size(&self) -> (usize, usize) {
        (self.config.input.height as usize, self.config.input.width as usize)
    }
}

impl<'a> Context<'a> {
    /// What `unit` of the run learned, measured for int8 on the images that it saw.
    fn unit(&'a self, unit: Unit) -> Result<UnitModel<'a>, ExportError> {
        let model = self
            .load(&unit)?
            .ok_or_else(|| ExportError::Untrained { run: self.run.folder.clone(), unit: unit.checkpoint() })?;
        let measured = if self.int8 { Some(self.ranges(&model, &unit)?) } else { None };
        let numbers = Numbers { context: self, measured };
        let library = self.library(&numbers, &self.config.quantise.float_layers);
        let mut model = UnitModel { unit, model, numbers, library };
        if self.other_numbers() {
            model.learn_again()?;
        } else if self.int8 {
            // What was learned behind a method's own layers was learned from these in float.
            model.learn(true)?;
        }
        Ok(model)
    }

    /// Whether features are in other numbers now than when the run learned from them.
    fn other_numbers(&self) -> bool {
        self.int8 != self.info.ranges.is_some() || !self.config.quantise.float_layers.is_empty()
    }

    /// The training images as networks in these numbers see them.
    fn library(&'a self, numbers: &Numbers<'a>, float_layers: &[String]) -> Rc<Library<'a>> {
        let (numbers, float_layers) = (numbers.clone(), float_layers.to_vec());
        let emit = move |graph: &Graph, ids: &[Id]| numbers.write(graph, Some(ids), &float_layers, Dialect::QOperator);
        let library = Library::new(self.images, self.extractor, self.progress, self.config.seed);
        Rc::new(library.with_numbers_of(Box::new(emit)))
    }

    /// What `unit` of the run learned; `None` where there is no such unit.
    fn load(&self, unit: &Unit) -> Result<Option<Model>, ExportError> {
        let Some(folder) = self.run.checkpoint(&unit.checkpoint())? else { return Ok(None) };
        if !self.run.progress(&unit.checkpoint())?.finished {
            return Ok(None);
        }
        let model = (self.build)(self.config, self.extractor, &device::cpu());
        let mut model = unit.keep(model, self.info.label_counts());
        model.load(&folder)?;
        Ok(Some(model))
    }

    /// Measures a graph with all terms on training images, normal and anomalous.
    fn ranges(&self, model: &Model, unit: &Unit) -> Result<MeasuredRanges, ExportError> {
        let (graph, _) = model.term_graph(self.extractor, &model.terms());
        quantise::check_names(&graph, &self.config.quantise)?;
        let names = self.config.views_of(graph.views());
        let parts = self.info.typical_parts(names, self.config.quantise.images, |image| unit.sees(image));
        let calibration = self.config.quantise.calibration;
        let ranges = quantise::measure(&graph, self.extractor, &parts, calibration, self.progress)?;
        let ranges = self.extractor.ranges.as_ref().map_or(ranges.clone(), |backbone| ranges.and(backbone));
        Ok(MeasuredRanges { ranges, images: parts.iter().map(Vec::len).sum() })
    }
}

#[derive(Clone)]
struct MeasuredRanges {
    ranges: Ranges,
    images: usize,
}

/// How the networks of a unit are written: in f32, or in int8 by what was measured.
#[derive(Clone)]
struct Numbers<'a> {
    context: &'a Context<'a>,
    measured: Option<MeasuredRanges>,
}

impl Numbers<'_> {
    /// The ONNX file of `graph`, with `outputs` or its own, and the named layers in float.
    fn write(&self, graph: &Graph, outputs: Option<&[Id]>, float_layers: &[String], dialect: Dialect) -> Vec<u8> {
        let Some(int8) = self.int8(graph, dialect) else { return onnx::emit_f32(graph, outputs) };
        int8.with_outputs(outputs, &int8.named(float_layers))
    }

    fn int8<'a>(&'a self, graph: &'a Graph, dialect: Dialect) -> Option<Int8Graph<'a>> {
        let measured = self.measured.as_ref()?;
        let (ranges, images, config) = (&measured.ranges, measured.images, &self.context.config.quantise);
        Some(Int8Graph { graph, ranges, images, config, dialect })
    }
}

/// One unit's methods, and how they are written.
struct UnitModel<'a> {
    unit: Unit,
    model: Model,
    numbers: Numbers<'a>,
    /// The images in those numbers.
    library: Rc<Library<'a>>,
}

impl UnitModel<'_> {
    /// What learned in a pass learns again, from features in today's numbers: a head that was fitted to others is off.
    fn learn_again(&mut self) -> Result<(), ExportError> {
        [false, true].into_iter().try_for_each(|steps| self.learn(steps))
    }

    /// The same of the methods that are trained in steps, or of those that are not.
    fn learn(&mut self, steps: bool) -> Result<(), ExportError> {
        Ok(self.model.learn(&TrainingImages::new(&self.library, |image| self.unit.sees(image)), steps)?)
    }
}
