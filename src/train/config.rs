//! `configs/train/<method>-<dataset>.toml`: what is trained and how. Every key has a default; an unknown one is an error.

use super::backbones::Backbone;
use super::methods::ckaad::{LossConfig, NetConfig};
use crate::bundle::{Filter, Fit, Input};
use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the training config {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Malformed { path: PathBuf, message: String },
    #[error("{path}: {key} is {found}; {expected}")]
    Value { path: PathBuf, key: &'static str, found: String, expected: &'static str },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Name of the model.
    pub name: String,
    pub version: Version,
    /// Seeds the split, the weights and the order of the batches.
    pub seed: u64,
    pub backbone: Backbone,
    pub input: InputConfig,
    pub features: FeatureConfig,
    pub net: NetConfig,
    pub loss: LossConfig,
    pub train: LoopConfig,
    pub validation: ValidationConfig,
    pub score: ScoreConfig,
    /// Share of normal parts that may raise an alert.
    pub false_alarm_budget: f32,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            name: "ckaad".into(),
            version: Version::new(0, 1, 0),
            seed: 1,
            backbone: Backbone::EfficientNetLite0,
            input: InputConfig::default(),
            features: FeatureConfig::default(),
            net: NetConfig::default(),
            loss: LossConfig::default(),
            train: LoopConfig::default(),
            validation: ValidationConfig::default(),
            score: ScoreConfig::default(),
            false_alarm_budget: 0.005,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InputConfig {
    /// A multiple of 32.
    pub width: u32,
    /// A multiple of 32.
    pub height: u32,
    pub fit: Fit,
    pub filter: Filter,
}

impl Default for InputConfig {
    fn default() -> Self {
        InputConfig { width: 224, height: 224, fit: Fit::Stretch, filter: Filter::Bilinear }
    }
}

impl From<InputConfig> for Input {
    fn from(c: InputConfig) -> Input {
        Input { width: c.width, height: c.height, fit: c.fit, filter: c.filter }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FeatureConfig {
    /// Scales to reconstruct: neighbouring strides of the backbone, the finest first. 4 sees finer defects and triples the cost.
    pub strides: Vec<usize>,
    /// Bring every feature channel to mean 0 and variance 1 over normal images, so that none outweighs the others in the
    /// cosine and all share one int8 range well.
    pub standardise: bool,
    /// Cache mirrored copies of every training image.
    pub flips: Flips,
}

impl Default for FeatureConfig {
    fn default() -> Self {
        FeatureConfig { strides: vec![8, 16], standardise: true, flips: Flips::None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Flips {
    None,
    Horizontal,
    Both,
}

impl Flips {
    /// (left-right, top-bottom) of each cached copy.
    pub fn variants(self) -> &'static [(bool, bool)] {
        match self {
            Flips::None => &[(false, false)],
            Flips::Horizontal => &[(false, false), (true, false)],
            Flips::Both => &[(false, false), (true, false), (false, true), (true, true)],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoopConfig {
    pub epochs: usize,
    /// Normal images a step.
    pub batch: usize,
    /// Coarse-labelled anomalies a step; they are cycled.
    pub anomalous_batch: usize,
    pub learning_rate: f64,
    pub discriminator_learning_rate: f64,
    /// Patch discriminator on or off; off is plain reconstruction.
    pub discriminator: bool,
}

impl Default for LoopConfig {
    fn default() -> Self {
        LoopConfig {
            epochs: 40,
            batch: 16,
            anomalous_batch: 4,
            learning_rate: 2e-3,
            discriminator_learning_rate: 2e-3,
            discriminator: true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationConfig {
    /// Share of the normal training images that are held out: they choose the epoch and calibrate the threshold.
    pub normal_share: f64,
    /// Share of the coarse-labelled anomalies that are held out: they choose the epoch and the score rule.
    pub anomalous_share: f64,
    /// Epochs between two validations.
    pub every: usize,
}

impl Default for ValidationConfig {
    fn default() -> Self {
        ValidationConfig { normal_share: 0.12, anomalous_share: 0.25, every: 5 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreConfig {
    /// Gaussian, in input pixels.
    pub sigma_px: f32,
    /// Pixels in the image score's mean; 0 lets validation choose.
    pub top_k: u32,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        ScoreConfig { sigma_px: 4.0, top_k: 0 }
    }
}

impl TrainConfig {
    pub fn load(path: &Path) -> Result<TrainConfig, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: TrainConfig = toml::from_str(&text)
            .map_err(|e| ConfigError::Malformed { path: path.to_owned(), message: e.to_string() })?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let value = |good: bool, key, found: String, expected| {
            if good { Ok(()) } else { Err(ConfigError::Value { path: path.to_owned(), key, found, expected }) }
        };
        let side = |s: u32| (64..=2048).contains(&s) && s.is_multiple_of(32);
        let share = |s: f64| s > 0.0 && s < 0.5;
        let strides = &self.features.strides;
        let offered: Vec<usize> = self.backbone.scales().iter().map(|s| s.stride).collect();
        let neighbours = !strides.is_empty() && offered.windows(strides.len()).any(|w| w == strides.as_slice());
        let named = self.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let budget = self.false_alarm_budget;
        value(
            named && !self.name.is_empty() && self.name.len() <= 64,
            "name",
            format!("{:?}", self.name),
            "1 to 64 of a-z, 0-9 and - expected",
        )?;
        value(
            side(self.input.width),
            "input.width",
            self.input.width.to_string(),
            "a multiple of 32 from 64 to 2048 expected",
        )?;
        value(
            side(self.input.height),
            "input.height",
            self.input.height.to_string(),
            "a multiple of 32 from 64 to 2048 expected",
        )?;
        value(
            neighbours,
            "features.strides",
            format!("{strides:?}"),
            "neighbours among the backbone's strides expected, for instance [8, 16] or [4, 8, 16]",
        )?;
        value(
            self.net.widths.len() == strides.len(),
            "net.widths",
            format!("{:?}", self.net.widths),
            "one width a stride of features.strides expected",
        )?;
        value(
            self.net.widths.iter().chain([&self.net.bottleneck]).all(|w| (1..=4096).contains(w)),
            "net",
            format!("{:?}", self.net),
            "widths from 1 to 4096 expected",
        )?;
        value(
            (1..=10_000).contains(&self.train.epochs),
            "train.epochs",
            self.train.epochs.to_string(),
            "1 to 10000 expected",
        )?;
        value(
            (2..=1024).contains(&self.train.batch),
            "train.batch",
            self.train.batch.to_string(),
            "2 to 1024 expected",
        )?;
        value(
            self.train.learning_rate > 0.0,
            "train.learning_rate",
            self.train.learning_rate.to_string(),
            "a positive number expected",
        )?;
        value(
            self.loss.gamma > 0.0 && self.loss.gamma <= 1.0,
            "loss.gamma",
            self.loss.gamma.to_string(),
            "above 0 and at most 1 expected",
        )?;
        value(
            share(self.validation.normal_share),
            "validation.normal_share",
            self.validation.normal_share.to_string(),
            "above 0 and below 0.5 expected",
        )?;
        value(
            share(self.validation.anomalous_share),
            "validation.anomalous_share",
            self.validation.anomalous_share.to_string(),
            "above 0 and below 0.5 expected",
        )?;
        value(self.validation.every > 0, "validation.every", "0".into(), "at least 1 expected")?;
        value(
            (0.0..=64.0).contains(&self.score.sigma_px),
            "score.sigma_px",
            self.score.sigma_px.to_string(),
            "0 to 64 expected",
        )?;
        value(budget > 0.0 && budget < 0.2, "false_alarm_budget", budget.to_string(), "above 0 and below 0.2 expected")
    }
}
