//! `ckaad-train export`: run → bundle, or one ONNX file for TensorRT.
//!
//! ```text
//! extractor + trained networks ─fold─► graph ─► ONNX f32 ─quantise─► ONNX int8
//!                                                 └──── bundle ◄───────┘
//! bundle ─agent's engine on held-out images─► score rule, threshold, golden samples, report
//! ```

mod bundle;

use crate::backbones::WeightError;
use crate::config::{ConfigError, TrainConfig};
use crate::device;
use crate::features::{Extractor, FeatureError};
use crate::graph::{Graph, MapWeights, Term};
use crate::methods::ckaad::{StepError, Trainer};
use crate::methods::nearest::{self, BankError, PatchBank};
use crate::methods::{Method, Network};
use crate::onnx;
use crate::onnx::int8::Dialect;
use crate::progress::ProgressDisplay;
use crate::quantise::{self, HeldOutSet, Int8Graph, MixedPrecision, QuantiseError, Ranges};
use crate::run::{self, RunFolder, RunFolderError, RunInfo};
use crate::score::{Choice, HeldOut};
use ckaad_bundle::{BundleError, Manifest};
use ckaad_inspect::engine::EngineError;
use ckaad_inspect::imaging::DecodeError;
use ckaad_inspect::{CalibrationError, InspectError};
use ndarray::Array2;
use std::path::{Path, PathBuf};

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
    Checkpoint(#[from] StepError),
    #[error(transparent)]
    Bank(#[from] BankError),
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
    #[error("{0} has no trained model yet: run ckaad-train fit first")]
    Untrained(PathBuf),
    #[error("cannot encode a golden sample: {0}")]
    Golden(image::ImageError),
}

/// What `export` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A bundle in f32.
    F32,
    /// A bundle in int8.
    Int8,
    /// An ONNX file in int8 with QuantizeLinear and DequantizeLinear around float operators, as TensorRT takes it.
    Qdq,
}

impl Form {
    fn dialect(self) -> Dialect {
        if self == Form::Qdq { Dialect::Qdq } else { Dialect::QOperator }
    }
}

/// What was written.
pub struct Exported {
    /// SHA-256 of the bundle; none of a plain ONNX file.
    pub digest: Option<String>,
    /// What the bundle says of itself; of a plain ONNX file, what it would say.
    pub manifest: Manifest,
    /// Of the terms in the map.
    pub weights: MapWeights,
    /// Image AUROC on the held-out training images, where anomalies are among them.
    pub validation_auroc: Option<f64>,
    /// What int8 costs; none of a model in f32.
    pub quantisation: Option<quantise::Report>,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// Weights and biases.
    pub parameters: u64,
}

/// A model that may be exported: the ONNX file, its smoothed maps `[H,W]` of the held-out images, and what they were
/// chosen by.
struct Candidate {
    model: Vec<u8>,
    maps: Vec<Array2<f32>>,
    choice: Choice,
}

/// The model of one term alone, and its maps of the held-out images.
struct TermModel {
    term: Term,
    model: Vec<u8>,
    maps: Vec<Array2<f32>>,
}

/// The weights of the map are chosen in the bundle's dialect and kept for TensorRT: both are files of one model.
const CHOSEN_IN: Dialect = Dialect::QOperator;

/// Makes a bundle, or an ONNX file for TensorRT, of the best checkpoint in `folder` and writes it to `out`.
///
/// # Errors
/// When the run is not whole or not trained, an image cannot be read, or `out` cannot be written.
pub fn export(folder: &Path, out: &Path, form: Form) -> Result<Exported, ExportError> {
    let progress = ProgressDisplay::detect();
    let run = RunFolder::at(folder);
    let (config, info) = (TrainConfig::of_run(&run)?, run.info()?);
    let best = run.checkpoint("best")?.ok_or_else(|| ExportError::Untrained(folder.to_owned()))?;
    let statistics = config.features.standardise.then_some(info.statistics.as_slice());
    let weights = config.backbone.weights(config.weights.as_deref())?;
    let strides = &config.features.strides;
    let extractor = Extractor::new(config.backbone, strides, config.input.into(), &weights, statistics)?;
    let network = load(&config, &extractor, &run, &best)?;
    let mut export = Export {
        config: &config,
        held_out: held_out(&config, &info, &progress),
        dialect: form.dialect(),
        extractor,
        network,
        quantiser: None,
    };
    if form != Form::F32 {
        let whole = export.graph(MapWeights::equal(&export.terms()));
        export.quantiser = Some(Quantiser::new(&whole, &config, &info, &progress)?);
    }
    let terms = export.judge_terms()?;
    let candidate = export.choose(terms)?;
    let graph = export.graph(candidate.choice.weights);
    let (candidate, quantisation) = export.keep_float_layers(&graph, candidate)?;
    bundle::write(
        bundle::Contents { run: &run, config: &config, info: &info, graph, candidate, quantisation, form },
        out,
    )
}

/// One run on its way out.
struct Export<'a> {
    config: &'a TrainConfig,
    extractor: Extractor,
    network: Network,
    held_out: HeldOutSet<'a>,
    /// `None` for a model in f32.
    quantiser: Option<Quantiser>,
    dialect: Dialect,
}

impl Export<'_> {
    /// The terms that the network can give, unless the config rules them out.
    fn terms(&self) -> Vec<Term> {
        let all = self.network.terms();
        let wanted = |term: &Term| self.config.score.weight(*term) != Some(0.0);
        let wanted: Vec<Term> = all.iter().copied().filter(wanted).collect();
        if wanted.is_empty() { all.into_iter().take(1).collect() } else { wanted }
    }

    fn graph(&self, weights: MapWeights) -> Graph {
        self.network.graph(&self.extractor, weights)
    }

    fn model(&self, graph: &Graph, dialect: Dialect) -> Vec<u8> {
        match &self.quantiser {
            None => onnx::emit_f32(graph, None),
            Some(quantiser) => {
                let int8 = quantiser.int8_graph(graph, self.config, dialect);
                int8.model(&int8.asked())
            }
        }
    }

    fn maps(&self, model: &[u8]) -> Result<Vec<Array2<f32>>, QuantiseError> {
        self.held_out.maps(model, &format!("judging {}", self.config.name))
    }

    /// Each term alone. The map is linear in its terms, so the choice of weights needs each of them only once.
    fn judge_terms(&self) -> Result<Vec<TermModel>, ExportError> {
        let judged = |term: Term| {
            let model = self.model(&self.graph(MapWeights::only(term)), CHOSEN_IN);
            let maps = self.maps(&model)?;
            Ok(TermModel { term, model, maps })
        };
        self.terms().into_iter().map(judged).collect()
    }

    /// The best weights and score rule; a mixture is judged again as a whole, a term alone has been.
    fn choose(&self, mut terms: Vec<TermModel>) -> Result<Candidate, ExportError> {
        let maps = terms.iter().map(|t| (t.term, t.maps.as_slice())).collect();
        let choice = HeldOut { terms: maps, normal: self.held_out.normal }.choose(&self.config.score);
        let alone = terms.iter().position(|t| choice.weights == MapWeights::only(t.term));
        if let Some(alone) = alone.filter(|_| self.dialect == CHOSEN_IN) {
            let TermModel { model, maps, .. } = terms.swap_remove(alone);
            return Ok(Candidate { model, maps, choice });
        }
        let model = self.model(&self.graph(choice.weights), self.dialect);
        let maps = self.maps(&model)?;
        Ok(Candidate { model, maps, choice })
    }

    /// Leaves layers in float where int8 costs too much. The score rule is chosen anew where that, or another dialect,
    /// changed the maps.
    fn keep_float_layers(
        &self,
        graph: &Graph,
        candidate: Candidate,
    ) -> Result<(Candidate, Option<quantise::Report>), ExportError> {
        let Some(quantiser) = &self.quantiser else { return Ok((candidate, None)) };
        let int8 = quantiser.int8_graph(graph, self.config, self.dialect);
        let asked = int8.asked().len();
        let MixedPrecision { model, maps, report } = int8.search(&self.held_out, candidate.maps)?;
        let mut choice = candidate.choice;
        if report.float_layers.len() > asked || self.dialect != CHOSEN_IN {
            choice = Choice { weights: choice.weights, ..self.held_out.choose(&maps) };
        }
        Ok((Candidate { model, maps, choice }, Some(report)))
    }
}

/// What the run trained, with the checkpoint in the folder `best`.
fn load(config: &TrainConfig, extractor: &Extractor, run: &RunFolder, best: &Path) -> Result<Network, ExportError> {
    let bank = (config.bank.vectors > 0).then(|| nearest::load(&run.path(nearest::FILE))).transpose()?;
    let bank = bank.map(|bank| PatchBank { bank, stride: config.bank.stride });
    Ok(match config.method {
        Method::NearestNeighbour => Network::nearest(bank),
        Method::Ckaad => {
            let parts = config.parts(extractor);
            let trainer = Trainer::new(parts, &device::cpu()).load_weights(best)?;
            Network::ckaad(&trainer, parts.spread, bank)
        }
    })
}

/// What it takes to write any graph of one run in int8.
struct Quantiser {
    ranges: Ranges,
    images: usize,
}

impl Quantiser {
    /// Measures `graph`, which has all terms, on training images, normal and anomalous.
    fn new(
        graph: &Graph,
        config: &TrainConfig,
        info: &RunInfo,
        progress: &ProgressDisplay,
    ) -> Result<Quantiser, ExportError> {
        quantise::check_names(graph, &config.quantise)?;
        let images = config.quantise.images;
        let mut samples = run::samples(&info.data, &info.split.train_normal);
        let every = samples.len().div_ceil(images).max(1);
        samples = samples.into_iter().step_by(every).collect();
        samples.extend(run::samples(&info.data, &info.split.train_anomalous).into_iter().take(images / 4));
        let ranges = Ranges::measure(graph, &samples, config.input.into(), config.quantise.calibration, progress)?;
        Ok(Quantiser { ranges, images: samples.len() })
    }

    fn int8_graph<'a>(&'a self, graph: &'a Graph, config: &'a TrainConfig, dialect: Dialect) -> Int8Graph<'a> {
        Int8Graph { graph, ranges: &self.ranges, images: self.images, config: &config.quantise, dialect }
    }
}

/// The held-out training images.
fn held_out<'a>(config: &'a TrainConfig, info: &RunInfo, progress: &'a ProgressDisplay) -> HeldOutSet<'a> {
    let mut samples = run::samples(&info.data, &info.split.validation_normal);
    let normal = samples.len();
    samples.extend(run::samples(&info.data, &info.split.validation_anomalous));
    HeldOutSet { samples, normal, input: config.input.into(), score: &config.score, progress }
}
