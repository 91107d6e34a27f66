//! `ckaad-train export`: run → bundle.
//!
//! ```text
//! extractor + auto-encoder ─fold─► graph ─► ONNX f32 ─ranges on training images─► ONNX int8
//!                                             └────────── bundle ◄──────────────────┘
//! bundle ─agent's engine on held-out images─► score rule, threshold, golden samples, report
//! ```

pub mod graph;
pub mod onnx;
mod proto;
mod ranges;

use super::config::TrainConfig;
use super::features::{Extractor, FeatureError};
use super::methods::ckaad::{AutoEncoder, Fold, StepError, Trainer};
use super::metrics;
use super::progress::Progress;
use super::run::{self, Run, RunError, RunInfo};
use crate::bundle::{
    Bundle, BundleError, Calibration, Draft, FORMAT, Golden, Manifest, Precision, ScoreRule, TrainingData,
};
use crate::engine::EngineError;
use crate::imaging::{self, DecodeError};
use crate::inspect::{self, CalibrationError, InspectError, InspectOptions, Inspector};
use burn::prelude::Device;
use graph::Graph;
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
    Engine(#[from] EngineError),
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error(transparent)]
    Image(#[from] DecodeError),
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("{0} has no trained model yet: run ckaad-train fit first")]
    Untrained(PathBuf),
    #[error("cannot encode a golden sample: {0}")]
    Golden(#[from] image::ImageError),
}

/// What was packed.
pub struct Exported {
    pub digest: String,
    pub manifest: Manifest,
    /// Image AUROC on the held-out training images, where anomalies are among them.
    pub validation_auroc: Option<f64>,
    pub macs: u64,
    pub parameters: u64,
}

/// Golden samples in a bundle.
const GOLDEN: usize = 4;
/// Training images that the int8 ranges are measured on.
const RANGE_IMAGES: usize = 128;

/// The whole network as a graph: extractor, auto-encoder, cosine errors and their sum.
pub fn network(extractor: &Extractor, auto_encoder: &AutoEncoder) -> Graph {
    let mut graph = extractor.graph.clone();
    let outputs = auto_encoder.append(&mut Fold { graph: &mut graph }, &extractor.taps);
    let errors = extractor.taps.iter().zip(outputs).enumerate();
    let errors = errors.map(|(i, (&tap, output))| graph.cosine_error(format!("error.{i}"), tap, output)).collect();
    graph.sum_maps("errors", errors);
    graph
}

/// The numbers of pixels that the image score may be the mean of: the largest alone, some, all.
pub fn score_rules(config: &TrainConfig) -> Vec<u32> {
    let pixels = config.input.width * config.input.height;
    match config.score.top_k {
        0 => vec![1, pixels / 500, pixels / 100, pixels / 20, pixels / 4, pixels],
        k => vec![k.min(pixels)],
    }
}

pub fn export(folder: &Path, out: &Path, precision: Precision) -> Result<Exported, ExportError> {
    let progress = Progress::detect();
    let run = Run::at(folder);
    let (config, info) = (run.config()?, run.info()?);
    let best = run.checkpoint("best")?.ok_or_else(|| ExportError::Untrained(folder.to_owned()))?;
    let statistics = config.features.standardise.then_some(info.statistics.as_slice());
    let extractor = Extractor::new(config.backbone, &config.features.strides, config.input.into(), statistics)?;
    let trainer = Trainer::new(&config.net, config.loss, false, &extractor.scales, &Device::flex());
    let graph = network(&extractor, &trainer.load_weights(&best)?.auto_encoder());
    let model = match precision {
        Precision::F32 => onnx::emit_f32(&graph, None),
        Precision::Int8 => {
            let mut samples = run::samples(&info.data, &info.split.train_normal);
            let every = samples.len().div_ceil(RANGE_IMAGES).max(1);
            samples = samples.into_iter().step_by(every).collect();
            samples.extend(run::samples(&info.data, &info.split.train_anomalous).into_iter().take(RANGE_IMAGES / 4));
            onnx::emit_int8(&graph, &ranges::measure(&graph, &samples, config.input.into(), &progress)?)
        }
    };
    let mut bundle = provisional(&config, &info, model, precision);
    let held_out = HeldOut::judge(&bundle, &config, &info, &progress)?;
    let (top_k, validation_auroc) = held_out.choose_rule(&score_rules(&config));
    bundle.manifest.score.top_k = top_k;
    bundle.manifest.calibration = held_out.calibrate(top_k, config.false_alarm_budget)?;
    bundle.golden = golden(&bundle, &info)?;
    bundle.report = Some(serde_json::json!({
        "what": "held-out training images, judged by the agent's engine through this bundle",
        "image_auroc": validation_auroc,
        "normal_images": info.split.validation_normal.len(),
        "anomalous_images": info.split.validation_anomalous.len(),
        "gmac": graph.macs() as f64 / 1e9,
        "parameters": graph.parameters(),
    }));
    let Bundle { manifest, model, golden, report, .. } = bundle;
    let digest = Draft { manifest: manifest.clone(), model, golden, report }.write(out)?;
    Ok(Exported { digest, manifest, validation_auroc, macs: graph.macs(), parameters: graph.parameters() })
}

/// The bundle before its calibration is known.
fn provisional(config: &TrainConfig, info: &RunInfo, model: Vec<u8>, precision: Precision) -> Bundle {
    let manifest = Manifest {
        format: FORMAT,
        name: config.name.clone(),
        version: config.version.clone(),
        method: if config.train.discriminator { "ckaad-patch" } else { "ckaad-reconstruction" }.into(),
        backbone: config.backbone.name().into(),
        created: jiff::Timestamp::now(),
        input: config.input.into(),
        output_stride: config.features.strides[0] as u32,
        score: ScoreRule { sigma_px: config.score.sigma_px, top_k: 1 },
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

/// Smoothed maps of the held-out training images, through the bundle.
struct HeldOut {
    normal: Vec<Vec<f32>>,
    anomalous: Vec<Vec<f32>>,
}

impl HeldOut {
    fn judge(
        bundle: &Bundle,
        config: &TrainConfig,
        info: &RunInfo,
        progress: &Progress,
    ) -> Result<HeldOut, ExportError> {
        let mut inspector = Inspector::new(bundle, &InspectOptions::default())?;
        let normal = run::samples(&info.data, &info.split.validation_normal);
        let anomalous = run::samples(&info.data, &info.split.validation_anomalous);
        let bar = progress.bar(&format!("calibrating {}", config.name), normal.len() + anomalous.len());
        let mut maps = |samples: &[super::datasets::Sample]| -> Result<Vec<Vec<f32>>, ExportError> {
            let map = |s: &super::datasets::Sample| {
                bar.advance(1);
                Ok(inspector.inspect(&imaging::load(&s.path)?)?.map)
            };
            samples.iter().map(map).collect()
        };
        Ok(HeldOut { normal: maps(&normal)?, anomalous: maps(&anomalous)? })
    }

    /// The rule with the best image AUROC; where no anomalies are held out, 1/500 of the pixels (the paper's 100 of 224x224).
    fn choose_rule(&self, rules: &[u32]) -> (u32, Option<f64>) {
        let labels: Vec<bool> = (0..self.normal.len() + self.anomalous.len()).map(|i| i >= self.normal.len()).collect();
        let default = rules[1.min(rules.len() - 1)];
        rules.iter().fold((default, None), |best: (u32, Option<f64>), &k| {
            let scores: Vec<f32> =
                self.normal.iter().chain(&self.anomalous).map(|m| inspect::top_k_mean(m, k as usize)).collect();
            let auroc = metrics::auroc(&scores, &labels);
            if auroc.is_some() && auroc > best.1 { (k, auroc) } else { best }
        })
    }

    fn calibrate(&self, top_k: u32, budget: f32) -> Result<Calibration, CalibrationError> {
        let scores: Vec<f32> = self.normal.iter().map(|m| inspect::top_k_mean(m, top_k as usize)).collect();
        let peaks: Vec<f32> = self.normal.iter().map(|m| inspect::top_k_mean(m, 1)).collect();
        inspect::calibrate(&scores, &peaks, budget)
    }
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
        let (pixels, _) = inspect::fit(&imaging::load(&s.path)?, input);
        let image =
            imaging::RgbImage::from_raw(input.width, input.height, pixels).expect("fit gives width x height x 3 bytes");
        let expected = inspect::answer(&inspector.inspect(&image)?);
        Ok(Golden { png: imaging::encode_png(&image)?, expected })
    };
    samples.iter().map(golden).collect()
}
