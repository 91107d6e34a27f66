//! `configs/train/<method>-<dataset>.toml`: what is trained and how. Every key has a default; an unknown one is an error.

mod check;

use super::augment::{AnomalyConfig, AugmentConfig};
use super::backbones::Backbone;
use super::methods::ckaad::{DiscriminatorConfig, LossConfig, NetConfig};
use super::methods::nearest::BankConfig;
use super::quantise::QuantiseConfig;
use super::select::Term;
use ckaad_bundle::{Filter, Input, ResizeMode};
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
    pub method: Method,
    pub backbone: Backbone,
    /// torchvision state dict (`.pth`, `.safetensors`) of the backbone, relative to the working directory; EfficientNet-lite0 needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    pub input: InputConfig,
    pub features: FeatureConfig,
    pub net: NetConfig,
    pub discriminator: DiscriminatorConfig,
    pub bank: BankConfig,
    pub loss: LossConfig,
    pub anomalies: AnomalyConfig,
    pub augment: AugmentConfig,
    pub train: LoopConfig,
    pub validation: ValidationConfig,
    pub score: ScoreConfig,
    pub quantise: QuantiseConfig,
    /// Share of normal parts that may raise an alert.
    pub false_alarm_budget: f32,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            name: "ckaad".into(),
            version: Version::new(0, 1, 0),
            seed: 1,
            method: Method::Ckaad,
            backbone: Backbone::EfficientNetLite0,
            weights: None,
            input: InputConfig::default(),
            features: FeatureConfig::default(),
            net: NetConfig::default(),
            discriminator: DiscriminatorConfig::default(),
            bank: BankConfig::default(),
            loss: LossConfig::default(),
            anomalies: AnomalyConfig::default(),
            augment: AugmentConfig::default(),
            train: LoopConfig::default(),
            validation: ValidationConfig::default(),
            score: ScoreConfig::default(),
            quantise: QuantiseConfig::default(),
            false_alarm_budget: 0.005,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The auto-encoder with its discriminators.
    Ckaad,
    /// A bank of normal patches, as a baseline.
    NearestNeighbour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InputConfig {
    /// A multiple of 32.
    pub width: u32,
    /// A multiple of 32.
    pub height: u32,
    pub fit: ResizeMode,
    pub filter: Filter,
}

impl Default for InputConfig {
    fn default() -> Self {
        InputConfig { width: 224, height: 224, fit: ResizeMode::Stretch, filter: Filter::Bilinear }
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
    /// Bring every feature channel to mean 0 and variance 1 over normal images, so that the networks see them alike and all share one
    /// int8 range well.
    pub standardise: bool,
    /// Where the reconstruction error is measured: on features as the backbone gives them, or on standardised ones.
    pub error: ErrorSpace,
    /// Cache mirrored copies of every training image.
    pub flips: Flips,
}

impl Default for FeatureConfig {
    fn default() -> Self {
        FeatureConfig { strides: vec![8, 16], standardise: true, error: ErrorSpace::Raw, flips: Flips::None }
    }
}

/// Standardisation lifts channels that hardly vary to the weight of those that carry the picture; for the cosine that is noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErrorSpace {
    Raw,
    Standardised,
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
    /// Stop after so many validations without a better one; 0 trains to the end.
    pub patience: usize,
}

impl Default for LoopConfig {
    fn default() -> Self {
        LoopConfig {
            epochs: 40,
            batch: 16,
            anomalous_batch: 4,
            learning_rate: 2e-3,
            discriminator_learning_rate: 5e-3,
            patience: 0,
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

/// From map to image score. What is left open, held-out training images choose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreConfig {
    /// Gaussian, in input pixels.
    pub sigma_px: f32,
    pub rule: Rule,
    /// Pixels in the mean of rule `top-k`.
    pub top_k: u32,
    /// Weight of the reconstruction error in the map, in units of its mean over normal images. Of each weight that is not given, validation
    /// chooses one. The paper's map is `error = 1, energy = 0` without a bank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f32>,
    /// Weight of the patch discriminator's energy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy: Option<f32>,
    /// Weight of the distance to the bank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<f32>,
}

impl ScoreConfig {
    /// What the config says of a term's weight.
    pub fn weight(&self, term: Term) -> Option<f32> {
        match term {
            Term::Error => self.error,
            Term::Energy => self.energy,
            Term::Distance => self.distance,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The best of the rules below on held-out images.
    Auto,
    Maximum,
    TopK,
    Mean,
    /// A weighted sum of maximum, top-k means and mean, fitted by logistic regression.
    Combined,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        ScoreConfig { sigma_px: 4.0, rule: Rule::Auto, top_k: 100, error: None, energy: None, distance: None }
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
}
