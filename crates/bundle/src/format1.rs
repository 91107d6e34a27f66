//! The manifest of format 1: read, and turned into today's. Nothing writes it any more.

use super::{Calibration, Input, Manifest, Member, Precision, Score, ScoreRule, ScoreTerm, Tail, TrainingData};
use jiff::Timestamp;
use semver::{Version, VersionReq};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest1 {
    format: u32,
    name: String,
    version: Version,
    method: String,
    backbone: String,
    created: Timestamp,
    input: Input,
    output_stride: u32,
    score: Score1,
    calibration: Calibration1,
    precision: Precision,
    engine: VersionReq,
    training_data: TrainingData1,
    licences: Vec<String>,
    #[serde(default)]
    members: Vec<Member>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Score1 {
    sigma_px: f32,
    /// Used where there are no terms.
    top_k: u32,
    #[serde(default)]
    terms: Vec<ScoreTerm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Calibration1 {
    images: u32,
    quantiles: Vec<f32>,
    /// The tail was exponential.
    tail_start: f32,
    tail_share: f32,
    tail_scale: f32,
    false_alarm_budget: f32,
    threshold: f32,
    pixel_threshold: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainingData1 {
    sha256: String,
    normal_images: u32,
    anomalous_images: u32,
}

impl From<Manifest1> for Manifest {
    fn from(m: Manifest1) -> Manifest {
        let data = m.training_data;
        Manifest {
            format: m.format,
            name: m.name,
            version: m.version,
            methods: vec![m.method],
            backbone: m.backbone,
            created: m.created,
            input: m.input,
            views: 1,
            view_names: vec![],
            output_stride: m.output_stride,
            terms: vec![],
            score: m.score.into(),
            calibration: m.calibration.into(),
            gpu_calibration: None,
            precision: m.precision,
            engine: m.engine,
            training_data: TrainingData {
                sha256: data.sha256,
                normal_images: data.normal_images,
                anomalous_images: data.anomalous_images,
                appearance: None,
            },
            licences: m.licences,
            members: m.members,
        }
    }
}

impl From<Score1> for Score {
    fn from(s: Score1) -> Score {
        let rule = if s.terms.is_empty() {
            ScoreRule::TopK { top_k: s.top_k }
        } else {
            ScoreRule::Combined { terms: s.terms }
        };
        Score { sigma_px: s.sigma_px, rule, image: None }
    }
}

impl From<Calibration1> for Calibration {
    fn from(c: Calibration1) -> Calibration {
        Calibration {
            images: c.images,
            quantiles: c.quantiles,
            threshold: c.threshold,
            pixel_threshold: c.pixel_threshold,
            false_alarm_budget: c.false_alarm_budget,
            // The threshold is where the tail falls to the budget; how far that may be off, format 1 did not say.
            rank: None,
            tail: Tail { start: c.tail_start, share: c.tail_share, scale: c.tail_scale, shape: 0.0 },
            expected_rate: c.false_alarm_budget,
            interval: [0.0, 1.0],
        }
    }
}
