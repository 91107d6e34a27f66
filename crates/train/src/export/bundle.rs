//! What is written: the bundle with its threshold, golden samples and report, or one ONNX file.

use super::{Candidate, ExportError, Exported, Form};
use crate::config::TrainConfig;
use crate::datasets::Sample;
use crate::graph::{Graph, MapWeights};
use crate::methods::Method;
use crate::methods::ckaad::DiscriminatorKind;
use crate::quantise;
use crate::run::{self, RunFolder, RunInfo};
use ckaad_bundle::{
    Bundle, Calibration, Draft, FORMAT, Golden, Manifest, MapTerm, Precision, Score, ScoreRule, TrainingData,
};
use ckaad_inspect::imaging::{self, RgbImage};
use ckaad_inspect::{CalibrationError, InspectOptions, Inspector};
use ndarray::Array2;
use std::path::Path;

/// Golden samples in a bundle.
const GOLDEN: usize = 4;

/// What an export has come to.
pub struct Contents<'a> {
    pub run: &'a RunFolder,
    pub config: &'a TrainConfig,
    pub info: &'a RunInfo,
    pub graph: Graph,
    pub candidate: Candidate,
    pub quantisation: Option<quantise::Report>,
    pub form: Form,
}

/// Calibrates the model, asks it for its golden answers, and writes it to `out`.
pub fn write(contents: Contents, out: &Path) -> Result<Exported, ExportError> {
    let bundle = calibrated(&contents)?;
    let (manifest, digest) = if contents.form == Form::Qdq {
        std::fs::write(out, &bundle.model).map_err(|cause| ExportError::Write { path: out.to_owned(), cause })?;
        (bundle.manifest, None)
    } else {
        let golden = golden(&bundle, contents.info)?;
        let report = Some(report(&contents)?);
        let manifest = bundle.manifest.clone();
        let Bundle { manifest: full, model, forest, segments, gpu, .. } = bundle;
        let draft = Draft { manifest: full, model, golden, forest, segments, gpu, report };
        (manifest, Some(draft.write(out)?))
    };
    let Contents { graph, candidate, quantisation, .. } = contents;
    Ok(Exported {
        digest,
        manifest,
        weights: candidate.choice.weights,
        validation_auroc: candidate.choice.auroc,
        quantisation,
        macs: graph.macs(),
        parameters: graph.parameters(),
    })
}

fn report(contents: &Contents) -> Result<serde_json::Value, ExportError> {
    let Contents { run, info, graph, candidate, quantisation, .. } = contents;
    let training = run.progress("last").or_else(|_| run.progress("best"))?;
    Ok(serde_json::json!({
        "what": "held-out training images, judged by the agent's engine through this bundle",
        "image_auroc": candidate.choice.auroc,
        "normal_images": info.split.validation_normal.len(),
        "anomalous_images": info.split.validation_anomalous.len(),
        "gmac": graph.macs() as f64 / 1e9,
        "parameters": graph.parameters(),
        "map_weights": candidate.choice.weights,
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
        (_, DiscriminatorKind::None) => "ckaad-reconstruction",
        (_, DiscriminatorKind::Patch) => "ckaad-patch",
        (_, DiscriminatorKind::Image) => "ckaad-image",
        (_, DiscriminatorKind::Both) => "ckaad-both",
    }
}

/// The bundle with the threshold of its held-out normal images, without golden samples and report.
fn calibrated(contents: &Contents) -> Result<Bundle, ExportError> {
    let Contents { config, info, graph, candidate, form, .. } = contents;
    let normal = &candidate.maps[..info.split.validation_normal.len()];
    let rule = candidate.choice.rule.clone();
    let calibration = calibrate(normal, &rule, config.false_alarm_budget)?;
    let manifest = Manifest {
        format: FORMAT,
        name: config.name.clone(),
        version: config.version.clone(),
        methods: vec![method(config).into()],
        backbone: config.backbone.name().into(),
        created: jiff::Timestamp::now(),
        input: config.input.into(),
        views: 1,
        output_stride: config.input.width / graph.shape(graph.output())[2] as u32,
        terms: terms(candidate.choice.weights),
        score: Score { sigma_px: config.score.sigma_px, rule, image: None },
        calibration,
        precision: if *form == Form::F32 { Precision::F32 } else { Precision::Int8 },
        engine: semver::VersionReq::parse(concat!("^", env!("CARGO_PKG_VERSION"))).expect("^ and the crate's version"),
        training_data: TrainingData {
            sha256: info.data_digest.clone(),
            normal_images: info.split.train_normal.len() as u32,
            anomalous_images: info.split.train_anomalous.len() as u32,
            appearance: None,
        },
        licences: vec![config.backbone.licence().into()],
        members: vec![],
    };
    let model = candidate.model.clone();
    let (forest, segments, gpu) = (None, None, None);
    Ok(Bundle { manifest, model, golden: vec![], forest, segments, gpu, report: None, digest: String::new() })
}

/// The terms that the map is summed from.
fn terms(weights: MapWeights) -> Vec<MapTerm> {
    let all = [("error", weights.error), ("energy", weights.energy), ("distance", weights.distance)];
    let used = all.into_iter().filter(|(_, weight)| *weight != 0.0);
    used.map(|(name, weight)| MapTerm { name: name.into(), weight }).collect()
}

/// `normal` are the maps of held-out normal images.
fn calibrate(normal: &[Array2<f32>], rule: &ScoreRule, budget: f32) -> Result<Calibration, CalibrationError> {
    let scores: Vec<f32> = normal.iter().map(|m| ckaad_inspect::map_score(m.view(), rule, None)).collect();
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
    let golden = |s: &Sample| {
        let (pixels, _) = imaging::resize(&imaging::load(&s.path)?, input);
        let image =
            RgbImage::from_raw(input.width, input.height, pixels).expect("resize gives width x height x 3 bytes");
        let expected = ckaad_inspect::golden_answer(&inspector.inspect(&image)?);
        Ok(Golden { png: imaging::encode_png(&image).map_err(ExportError::Golden)?, expected })
    };
    samples.iter().map(golden).collect()
}
