//! What is written: the bundle with its threshold, golden samples and report, or one ONNX file.

use super::{Context, Evidence, ExportError, Exported, Form};
use crate::config::TrainConfig;
use crate::datasets::{Parts, Sample, evenly};
use crate::export::folds::Decided;
use crate::export::gpu::Exact;
use crate::export::inspector::{golden_answers, inspector};
use crate::graph::{Graph, TermWeights};
use crate::methods::Labelled;
use crate::quantise;
use crate::run::Unit;
use ckaad_bundle::{
    Appearance, Draft, FORMAT, Golden, MAX_GOLDEN, Manifest, MapTerm, Moments, Precision, TrainingData, replace,
};
use ckaad_inspect::Forest;
use ckaad_inspect::imaging::{self, RgbImage};
use image::{GrayImage, ImageFormat};
use rayon::prelude::*;
use std::io::{Cursor, Write};
use std::path::Path;

/// Golden samples in a bundle.
const GOLDEN: usize = 4;

/// Normal images that brightness and sharpness are measured on.
const APPEARANCE_IMAGES: usize = 200;

/// What an export has come to.
pub struct Contents<'a> {
    pub context: &'a Context<'a>,
    /// Names of the methods that have a part in the answer.
    pub methods: Vec<String>,
    pub graph: Graph,
    /// For a device with a GPU.
    pub exact: Option<Exact>,
    pub model: Vec<u8>,
    pub decided: Decided,
    pub evidence: Evidence,
    pub quantisation: Option<quantise::Report>,
    pub form: Form,
}

/// Calibrates the model, asks it for its golden answers, and writes it to `out`.
pub fn write(contents: Contents, out: &Path) -> Result<Exported, ExportError> {
    let mut manifest = manifest(&contents)?;
    let report = report(&contents)?;
    let Contents { context, graph, exact, model, decided, evidence, quantisation, form, .. } = contents;
    let digest = if form == Form::Qdq {
        replace(out, |file| file.write_all(&model))
            .map_err(|cause| ExportError::Write { path: out.to_owned(), cause })?;
        None
    } else {
        let mut draft = Draft {
            manifest: manifest.clone(),
            model,
            golden: vec![],
            forest: decided.choice.forest.as_ref().map(Forest::to_json),
            segments: segments(&decided)?,
            gpu: None,
            report: Some(report),
        };
        let golden = golden(&draft, context.images, graph.views())?;
        if let Some(exact) = exact {
            draft.gpu = Some(exact.model(&draft, &golden)?);
            manifest.gpu_calibration = Some(exact.calibration(&draft, context)?);
        }
        Some(Draft { manifest: manifest.clone(), golden, ..draft }.write(out)?)
    };
    Ok(Exported { digest, manifest, evidence, quantisation, macs: graph.macs(), parameters: graph.parameters() })
}

/// The picture of the segments, where the score rule looks at them.
fn segments(decided: &Decided) -> Result<Option<Vec<u8>>, ExportError> {
    let Some(segments) = decided.segments.as_ref().filter(|_| decided.choice.forest.is_some()) else { return Ok(None) };
    let (height, width) = segments.labels.dim();
    let picture = GrayImage::from_raw(width as u32, height as u32, segments.labels.iter().copied().collect())
        .expect("a label a pixel");
    let mut png = vec![];
    picture.write_to(&mut Cursor::new(&mut png), ImageFormat::Png).map_err(ExportError::Picture)?;
    Ok(Some(png))
}

fn report(contents: &Contents) -> Result<serde_json::Value, ExportError> {
    let Contents { context, graph, decided, evidence, quantisation, .. } = contents;
    let training = context.run.progress(&Unit::Whole.checkpoint())?;
    Ok(serde_json::json!({
        "what": "training images, each judged by the agent's engine through a model that never saw it",
        "evidence": evidence,
        "gmac": graph.macs() as f64 / 1e9,
        "parameters": graph.parameters(),
        "map_weights": decided.choice.weights,
        "quantisation": quantisation,
        "training": {
            "seconds": training.seconds,
            "epochs": training.epochs_done,
            "history": training.history,
            "warning": training.warning,
        },
    }))
}

/// The manifest with the threshold that the verdicts on normal images give.
fn manifest(contents: &Contents) -> Result<Manifest, ExportError> {
    let Contents { context, methods, graph, decided, form, .. } = contents;
    let (config, images) = (context.config, context.images);
    let is_normal = |image: &&Labelled| image.sample.defect.is_none();
    let of_normal = images.iter().zip(&decided.choice.scores).filter(|(image, _)| is_normal(image));
    let normal: Vec<f32> = of_normal.map(|(_, score)| *score).collect();
    let normals = images.iter().filter(is_normal).count();
    Ok(Manifest {
        format: FORMAT,
        name: config.name.clone(),
        version: config.version.clone(),
        methods: methods.clone(),
        backbone: config.backbone.name().into(),
        created: jiff::Timestamp::now(),
        input: config.input.into(),
        views: graph.views() as u32,
        view_names: config.views_of(graph.views()).to_vec(),
        output_stride: config.input.width / graph.shape(graph.output())[2] as u32,
        terms: terms(&decided.choice.weights),
        score: decided.choice.score.clone(),
        calibration: ckaad_inspect::calibrate(&normal, &decided.peaks, config.false_alarm_budget)?,
        gpu_calibration: None,
        precision: if *form == Form::F32 { Precision::F32 } else { Precision::Int8 },
        engine: semver::VersionReq::parse(concat!("^", env!("CARGO_PKG_VERSION"))).expect("^ and the crate's version"),
        training_data: TrainingData {
            sha256: context.info.data_digest.clone(),
            normal_images: normals as u32,
            anomalous_images: (images.len() - normals) as u32,
            appearance: Some(appearance(config, images)?),
        },
        licences: vec![config.backbone.licence().into()],
        members: vec![],
    })
}

fn terms(weights: &TermWeights) -> Vec<MapTerm> {
    weights.map().iter().map(|(term, weight)| MapTerm { name: term.name.into(), weight }).collect()
}

/// Brightness and sharpness of normal training images at the network's input size.
fn appearance(config: &TrainConfig, images: &[Labelled]) -> Result<Appearance, ExportError> {
    let normal: Vec<&Sample> = images.iter().map(|i| &i.sample).filter(|s| s.defect.is_none()).collect();
    let width = config.input.width;
    let measure = |sample: &&Sample| {
        let pixels = imaging::load_fitted(&sample.path, &config.input.into())?;
        Ok(imaging::appearance(&pixels, width as usize))
    };
    let chosen = evenly(normal, APPEARANCE_IMAGES);
    let measured: Vec<(f32, f32)> = chosen.par_iter().map(measure).collect::<Result<_, ExportError>>()?;
    let moments = |pick: fn(&(f32, f32)) -> f32| {
        let count = measured.len().max(1) as f32;
        let mean = measured.iter().map(pick).sum::<f32>() / count;
        let variance = measured.iter().map(|m| (pick(m) - mean).powi(2)).sum::<f32>() / count;
        Moments { mean, deviation: variance.sqrt() }
    };
    Ok(Appearance { brightness: moments(|m| m.0), sharpness: moments(|m| m.1) })
}

/// Training images at input size with the answers of what will be packed: normal and, where there are, anomalous ones; of several views whole parts.
fn golden(draft: &Draft, images: &[Labelled], views: usize) -> Result<Vec<Golden>, ExportError> {
    let inspector = inspector(draft.clone())?;
    let parts = Parts::of(images.iter().map(|image| &image.sample), &draft.manifest.view_names).complete;
    let shows = |part: &Vec<usize>| part.iter().any(|&i| images[i].sample.defect.is_some());
    let of_class = |anomalous: bool, most: usize| {
        let all: Vec<&Vec<usize>> = parts.iter().filter(|part| shows(part) == anomalous).collect();
        if most == 0 { vec![] } else { evenly(all, most) }
    };
    let most = golden_parts(views);
    let mut chosen = of_class(true, most / 2);
    chosen.extend(of_class(false, most - chosen.len()));
    let input = &draft.manifest.input;
    let golden = |part: &&Vec<usize>| {
        let picture = |&i: &usize| {
            let pixels = imaging::load_fitted(&images[i].sample.path, input)?;
            Ok(RgbImage::from_raw(input.width, input.height, pixels).expect("resize gives width x height x 3 bytes"))
        };
        let pictures: Vec<RgbImage> = part.iter().map(picture).collect::<Result<_, ExportError>>()?;
        let answers = golden_answers(&inspector, &pictures)?;
        let sample = |(picture, expected)| {
            Ok(Golden { png: imaging::encode_png(picture).map_err(ExportError::Picture)?, expected })
        };
        pictures.iter().zip(answers).map(sample).collect::<Result<Vec<_>, ExportError>>()
    };
    Ok(chosen.iter().map(golden).collect::<Result<Vec<_>, _>>()?.concat())
}

/// Parts among the golden samples: of one view as many as there are samples, of several two where a bundle has room for both.
fn golden_parts(views: usize) -> usize {
    (GOLDEN / views).max(2).min(MAX_GOLDEN / views).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_samples_are_whole_parts_and_no_more_than_a_bundle_may_have() {
        assert_eq!([1, 2, 3, 8, 9, 16].map(golden_parts), [GOLDEN, 2, 2, 2, 1, 1]);
        assert!((1..=ckaad_bundle::MAX_VIEWS).all(|views| golden_parts(views) * views <= MAX_GOLDEN));
    }
}
