//! `ckaad-train export`: run → bundle, or one ONNX file for TensorRT.
//!
//! ```text
//! extractor + trained networks ─fold─► graph ─► ONNX f32 ─quantise─► ONNX int8
//!                                                 └──── bundle ◄───────┘
//! bundle ─agent's engine on held-out images─► score rule, threshold, golden samples, report
//! ```

pub mod graph;
pub mod int8;
pub mod onnx;
mod proto;
pub mod tail;

use super::backbones::WeightError;
use super::config::{Method, TrainConfig};
use super::features::{Extractor, FeatureError};
use super::fit::networks;
use super::methods::ckaad::{AutoEncoder, Fold, Kind, PatchDiscriminator, StepError, Trainer};
use super::methods::nearest::{self, BankError};
use super::progress::Progress;
use super::quantise::{self, Jury, Mixed, QuantiseError, Ranges, Subject};
use super::run::{self, Run, RunError, RunInfo};
use super::select::{Choice, HeldOut, MapWeights, Term};
use burn::prelude::Device;
use ckaad_bundle::{
    Bundle, BundleError, Calibration, Draft, FORMAT, Golden, Manifest, Precision, ScoreRule, TrainingData,
};
use ckaad_inspect::engine::EngineError;
use ckaad_inspect::imaging::{self, DecodeError};
use ckaad_inspect::{CalibrationError, InspectError, InspectOptions, Inspector};
use graph::{Bank, Graph};
use int8::Dialect;
use ndarray::Array2;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Run(#[from] RunError),
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
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{0} has no trained model yet: run ckaad-train fit first")]
    Untrained(PathBuf),
    #[error("cannot encode a golden sample: {0}")]
    Golden(#[from] image::ImageError),
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
    pub manifest: Manifest,
    /// Of the terms in the map.
    pub weights: MapWeights,
    /// Image AUROC on the held-out training images, where anomalies are among them.
    pub validation_auroc: Option<f64>,
    pub quantisation: Option<quantise::Report>,
    pub macs: u64,
    pub parameters: u64,
}

/// Golden samples in a bundle.
const GOLDEN: usize = 4;

/// What was trained, in inference form: each part gives one term of the map.
pub struct Network {
    auto_encoder: Option<AutoEncoder>,
    patch: Option<PatchDiscriminator>,
    bank: Option<Bank>,
}

impl Network {
    pub fn of(trainer: &Trainer, bank: Option<Bank>) -> Network {
        let (auto_encoder, patch) = trainer.networks();
        Network { auto_encoder: Some(auto_encoder), patch, bank }
    }

    /// From a run, with the checkpoint in the folder `best`.
    fn load(config: &TrainConfig, extractor: &Extractor, run: &Run, best: &Path) -> Result<Network, ExportError> {
        let bank = (config.bank.vectors > 0).then(|| nearest::load(&run.path(nearest::FILE))).transpose()?;
        if config.method == Method::NearestNeighbour {
            return Ok(Network { auto_encoder: None, patch: None, bank });
        }
        let trainer = Trainer::new(networks(config, extractor), &Device::flex()).load_weights(best)?;
        Ok(Network::of(&trainer, bank))
    }

    /// The terms that it can give, unless `config` rules them out.
    fn terms(&self, config: &TrainConfig) -> Vec<Term> {
        let there = [
            (Term::Error, self.auto_encoder.is_some()),
            (Term::Energy, self.patch.is_some()),
            (Term::Distance, self.bank.is_some()),
        ];
        let all: Vec<Term> = there.into_iter().filter(|(_, there)| *there).map(|(term, _)| term).collect();
        let wanted: Vec<Term> = all.iter().copied().filter(|&t| config.score.weight(t) != Some(0.0)).collect();
        if wanted.is_empty() { all[..1].to_vec() } else { wanted }
    }
}

/// Extractor, trained networks, and the weighted sum of their maps as one graph. A term of weight 0 is left out with all that leads to it.
pub fn network(config: &TrainConfig, extractor: &Extractor, network: &Network, weights: MapWeights) -> Graph {
    let spread = networks(config, extractor).spread;
    let mut graph = extractor.graph.clone();
    let taps = &extractor.taps;
    let (mut maps, mut factors) = (vec![], vec![]);
    if let Some(auto_encoder) = network.auto_encoder.as_ref().filter(|_| weights.error > 0.0) {
        let outputs = auto_encoder.append(&mut Fold { graph: &mut graph }, taps);
        for (i, (&tap, output)) in taps.iter().zip(outputs).enumerate() {
            let raw = spread.map(|all| all[i].clone());
            maps.push(graph.cosine_error(format!("error.{i}"), tap, output, raw));
            factors.push(weights.error);
        }
    }
    if let Some(patch) = network.patch.as_ref().filter(|_| weights.energy > 0.0) {
        for energy in (Fold { graph: &mut graph }).energies(patch, taps) {
            maps.push(energy);
            factors.push(weights.energy);
        }
    }
    if let Some(bank) = network.bank.as_ref().filter(|_| weights.distance > 0.0) {
        let patches = nearest::patches(&mut graph, taps, taps[extractor.scale_of(config.bank.stride)]);
        maps.push(graph.nearest("distance", patches, bank.clone()));
        factors.push(weights.distance);
    }
    graph.sum_maps("map", maps, factors);
    graph
}

/// # Errors
/// When the run is not whole or not trained, an image cannot be read, or `out` cannot be written.
pub fn export(folder: &Path, out: &Path, form: Form) -> Result<Exported, ExportError> {
    let progress = Progress::detect();
    let run = Run::at(folder);
    let (config, info) = (run.config()?, run.info()?);
    let best = run.checkpoint("best")?.ok_or_else(|| ExportError::Untrained(folder.to_owned()))?;
    let statistics = config.features.standardise.then_some(info.statistics.as_slice());
    let weights = config.backbone.weights(config.weights.as_deref())?;
    let extractor = Extractor::new(&config, &weights, statistics)?;
    let trained = Network::load(&config, &extractor, &run, &best)?;
    let terms = trained.terms(&config);
    let graph_of = |weights: MapWeights| network(&config, &extractor, &trained, weights);
    let quantiser = match form {
        Form::F32 => None,
        Form::Int8 | Form::Qdq => {
            Some(Quantiser::new(&graph_of(MapWeights::equal(&terms)), &config, &info, &progress)?)
        }
    };
    let model_of = |graph: &Graph, dialect: Dialect| match &quantiser {
        None => onnx::emit_f32(graph, None),
        Some(quantiser) => {
            let subject = quantiser.subject(graph, &config, dialect);
            subject.model(&subject.asked())
        }
    };
    // The map's weights are chosen for the bundle and kept for TensorRT: both are files of one model.
    let (chosen_for, dialect) = (Dialect::QOperator, form.dialect());
    let jury = jury(&config, &info, &progress);

    // The map is linear in its terms, so the choice needs each of them only once; a mixture is then judged as a whole.
    let (mut held_out, mut models) = (HeldOut { terms: vec![], normal: jury.normal }, vec![]);
    for term in terms {
        let model = model_of(&graph_of(MapWeights::only(term)), chosen_for);
        held_out.terms.push((term, jury.maps(&model, &format!("judging {}", config.name))?));
        models.push(model);
    }
    let mut choice = held_out.choose(&config.score);
    let graph = graph_of(choice.weights);
    let single = held_out.terms.iter().position(|(term, _)| choice.weights == MapWeights::only(*term));
    let (mut model, mut maps) = match single {
        Some(i) if dialect == chosen_for => (models.swap_remove(i), held_out.terms.swap_remove(i).1),
        _ => {
            let model = model_of(&graph, dialect);
            let maps = jury.maps(&model, &format!("judging {}", config.name))?;
            (model, maps)
        }
    };
    let mut quantisation = None;
    if let Some(quantiser) = &quantiser {
        let subject = quantiser.subject(&graph, &config, dialect);
        let asked = subject.asked().len();
        let Mixed { model: mixed, maps: mixed_maps, report } = subject.search(&jury, maps)?;
        (model, maps) = (mixed, mixed_maps);
        if report.float_layers.len() > asked || dialect != chosen_for {
            choice = Choice { weights: choice.weights, ..jury.choose(maps.clone()) };
        }
        quantisation = Some(report);
    }

    let precision = if form == Form::F32 { Precision::F32 } else { Precision::Int8 };
    let mut bundle = provisional(&config, &info, &graph, model, precision);
    bundle.manifest.score = choice.rule;
    bundle.manifest.calibration = calibrate(&maps[..jury.normal], &bundle.manifest.score, config.false_alarm_budget)?;
    let digest = if form == Form::Qdq {
        std::fs::write(out, &bundle.model).map_err(|source| ExportError::Write { path: out.to_owned(), source })?;
        None
    } else {
        bundle.golden = golden(&bundle, &info)?;
        bundle.report = Some(report(&run, &info, &graph, choice.weights, choice.auroc, &quantisation)?);
        let Bundle { manifest, model, golden, report, .. } = bundle.clone();
        Some(Draft { manifest, model, golden, report }.write(out)?)
    };
    Ok(Exported {
        digest,
        manifest: bundle.manifest,
        weights: choice.weights,
        validation_auroc: choice.auroc,
        quantisation,
        macs: graph.macs(),
        parameters: graph.parameters(),
    })
}

/// What it takes to write any graph of one run in int8.
struct Quantiser {
    ranges: Ranges,
    images: usize,
}

impl Quantiser {
    /// Measures `graph`, which has all terms, on training images, normal and anomalous.
    fn new(graph: &Graph, config: &TrainConfig, info: &RunInfo, progress: &Progress) -> Result<Quantiser, ExportError> {
        quantise::check_names(graph, &config.quantise)?;
        let images = config.quantise.images;
        let mut samples = run::samples(&info.data, &info.split.train_normal);
        let every = samples.len().div_ceil(images).max(1);
        samples = samples.into_iter().step_by(every).collect();
        samples.extend(run::samples(&info.data, &info.split.train_anomalous).into_iter().take(images / 4));
        let ranges = Ranges::measure(graph, &samples, config.input.into(), config.quantise.calibration, progress)?;
        Ok(Quantiser { ranges, images: samples.len() })
    }

    fn subject<'a>(&'a self, graph: &'a Graph, config: &'a TrainConfig, dialect: Dialect) -> Subject<'a> {
        Subject { graph, ranges: &self.ranges, images: self.images, config: &config.quantise, dialect }
    }
}

/// The held-out training images.
fn jury<'a>(config: &'a TrainConfig, info: &RunInfo, progress: &'a Progress) -> Jury<'a> {
    let mut samples = run::samples(&info.data, &info.split.validation_normal);
    let normal = samples.len();
    samples.extend(run::samples(&info.data, &info.split.validation_anomalous));
    Jury { samples, normal, input: config.input.into(), score: &config.score, progress }
}

fn report(
    run: &Run,
    info: &RunInfo,
    graph: &Graph,
    weights: MapWeights,
    auroc: Option<f64>,
    quantisation: &Option<quantise::Report>,
) -> Result<serde_json::Value, ExportError> {
    let training = run.progress("last").or_else(|_| run.progress("best"))?;
    Ok(serde_json::json!({
        "what": "held-out training images, judged by the agent's engine through this bundle",
        "image_auroc": auroc,
        "normal_images": info.split.validation_normal.len(),
        "anomalous_images": info.split.validation_anomalous.len(),
        "gmac": graph.macs() as f64 / 1e9,
        "parameters": graph.parameters(),
        "map_weights": weights,
        "quantisation": quantisation,
        "training": {
            "seconds": training.seconds,
            "epochs": training.epochs_done,
            "best_epoch": training.best.map(|b| b.epoch),
            "validations": training.validations,
            "warning": training.warning,
        },
    }))
}

fn method(config: &TrainConfig) -> &'static str {
    match (config.method, config.discriminator.kind) {
        (Method::NearestNeighbour, _) => "nearest-neighbour",
        (_, Kind::None) => "ckaad-reconstruction",
        (_, Kind::Patch) => "ckaad-patch",
        (_, Kind::Image) => "ckaad-image",
        (_, Kind::Both) => "ckaad-both",
    }
}

/// The bundle before its calibration is known.
fn provisional(config: &TrainConfig, info: &RunInfo, graph: &Graph, model: Vec<u8>, precision: Precision) -> Bundle {
    let manifest = Manifest {
        format: FORMAT,
        name: config.name.clone(),
        version: config.version.clone(),
        method: method(config).into(),
        backbone: config.backbone.name().into(),
        created: jiff::Timestamp::now(),
        input: config.input.into(),
        output_stride: config.input.width / graph.shape(graph.output())[2] as u32,
        score: ScoreRule { sigma_px: config.score.sigma_px, top_k: 1, terms: vec![] },
        calibration: Calibration {
            images: 0,
            quantiles: vec![0.0; 21],
            tail_start: 0.0,
            tail_share: 0.0,
            tail_scale: 0.0,
            false_alarm_budget: config.false_alarm_budget,
            threshold: f32::INFINITY,
            pixel_threshold: f32::INFINITY,
        },
        precision,
        engine: semver::VersionReq::parse(concat!("^", env!("CARGO_PKG_VERSION"))).expect("^ and the crate's version"),
        training_data: TrainingData {
            sha256: info.data_digest.clone(),
            normal_images: info.split.train_normal.len() as u32,
            anomalous_images: info.split.train_anomalous.len() as u32,
        },
        licences: vec![config.backbone.licence().into()],
        members: vec![],
    };
    Bundle { manifest, model, golden: vec![], report: None, digest: String::new() }
}

/// `normal` are the maps of held-out normal images.
fn calibrate(normal: &[Array2<f32>], rule: &ScoreRule, budget: f32) -> Result<Calibration, CalibrationError> {
    let scores: Vec<f32> = normal.iter().map(|m| ckaad_inspect::image_score(m.view(), rule)).collect();
    let peaks: Vec<f32> = normal.iter().map(|m| ckaad_inspect::top_k_mean(m.view(), 1)).collect();
    ckaad_inspect::calibrate(&scores, &peaks, budget)
}

/// Held-out images at input size with the answers of this bundle: normal and, where there are, anomalous ones.
fn golden(bundle: &Bundle, info: &RunInfo) -> Result<Vec<Golden>, ExportError> {
    let mut inspector = Inspector::new(bundle, &InspectOptions::default())?;
    let mut samples = run::samples(&info.data, &info.split.validation_anomalous);
    samples.truncate(GOLDEN / 2);
    let normal = run::samples(&info.data, &info.split.validation_normal);
    samples.extend(normal.into_iter().take(GOLDEN - samples.len()));
    let input = &bundle.manifest.input;
    let golden = |s: &super::datasets::Sample| {
        let (pixels, _) = imaging::resize(&imaging::load(&s.path)?, input);
        let image =
            imaging::RgbImage::from_raw(input.width, input.height, pixels).expect("fit gives width x height x 3 bytes");
        let expected = ckaad_inspect::golden_answer(&inspector.inspect(&image)?);
        Ok(Golden { png: imaging::encode_png(&image)?, expected })
    };
    samples.iter().map(golden).collect()
}
