//! `configs/train/<method>-<dataset>.toml`: what is trained and how. Every key has a default; an unknown one is an
//! error.

mod check;
mod keys;
mod kinds;

pub use kinds::{MethodChoice, MethodKind, join};

use crate::augment::{AnomalyConfig, AugmentConfig};
use crate::backbones::Backbone;
use crate::features::{Extractor, FeatureConfig, Reading};
use crate::methods::ckaad::{Ckaad, CkaadConfig};
use crate::methods::devnet::{Devnet, DevnetConfig};
use crate::methods::invad::{Invad, InvadConfig};
use crate::methods::mil::{Mil, MilConfig};
use crate::methods::mvad::{Mvad, MvadConfig};
use crate::methods::sparsity::{Sparsity, SparsityConfig};
use crate::methods::tocoad::{Tocoad, TocoadConfig};
use crate::methods::{Bank, BankConfig, Mahalanobis, MahalanobisConfig, Method, Model, Pooled, PooledConfig};
use crate::quantise::QuantiseConfig;
use crate::run::{RunFolder, RunFolderError, ValidationConfig};
use crate::score::ScoreConfig;
use burn::prelude::Device;
use ckaad_bundle::{Filter, Input, ResizeMode};
use ckaad_inspect::keys::UnknownKey;
use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Why a training config cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum ConfigError {
    #[error("cannot read the training config {path}: {cause}")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error(transparent)]
    Run(#[from] RunFolderError),
    #[error("{path} is no training config: {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("unknown key `{key}` in {path}{}", .nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey { path: PathBuf, key: String, nearest: Option<String> },
    #[error("{path}: {key} is {found}; {expected}")]
    Value { path: PathBuf, key: &'static str, found: String, expected: &'static str },
}

/// A whole training config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: Version,
    /// Seeds the split, the weights and the order of the batches.
    pub seed: u64,
    /// What the model is made of.
    pub methods: Vec<MethodKind>,
    /// The frozen extractor.
    pub backbone: Backbone,
    /// torchvision state dict (`.pth`, `.safetensors`) of the backbone, relative to the working directory;
    /// EfficientNet-lite0 needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// What the network takes.
    pub input: InputConfig,
    /// Names of the views of a part that are to be seen beside each other, in their order; none where every image is judged by itself.
    pub views: Vec<String>,
    /// A time in place of the input's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetConfig>,
    /// Which features are reconstructed.
    pub features: FeatureConfig,
    /// Read where `ckaad` is among the methods, as the nine below where theirs is.
    pub ckaad: CkaadConfig,
    /// The bank of normal patches.
    pub bank: BankConfig,
    /// The image branch on pooled features.
    pub pooled: PooledConfig,
    /// The image's distance from normal ones.
    pub mahalanobis: MahalanobisConfig,
    /// The head taught by coarse labels.
    pub mil: MilConfig,
    /// Reconstruction by feature inversion.
    pub invad: InvadConfig,
    /// Masks of sparse defects.
    pub sparsity: SparsityConfig,
    /// The bank on features that have learned what defects look like.
    pub tocoad: TocoadConfig,
    /// The backbone's last stages, taught by coarse labels.
    pub devnet: DevnetConfig,
    /// Reconstruction of a view with the part's other views at hand.
    pub mvad: MvadConfig,
    /// The anomalous training images.
    pub anomalies: AnomalyConfig,
    /// Random changes of training images.
    pub augment: AugmentConfig,
    /// The training loop.
    pub train: LoopConfig,
    /// How training images judge.
    pub validation: ValidationConfig,
    /// From map to image score.
    pub score: ScoreConfig,
    /// From f32 to int8.
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
            methods: vec![MethodKind::Ckaad, MethodKind::Bank, MethodKind::Mahalanobis, MethodKind::Pooled],
            backbone: Backbone::EfficientNetLite0,
            weights: None,
            input: InputConfig::default(),
            views: vec![],
            budget: None,
            features: FeatureConfig::default(),
            ckaad: CkaadConfig::default(),
            bank: BankConfig::default(),
            pooled: PooledConfig::default(),
            mahalanobis: MahalanobisConfig::default(),
            mil: MilConfig::default(),
            invad: InvadConfig::default(),
            sparsity: SparsityConfig::default(),
            tocoad: TocoadConfig::default(),
            devnet: DevnetConfig::default(),
            mvad: MvadConfig::default(),
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

/// Makes the untrained methods of a config, on the features of an extractor.
pub type Build<'a> = &'a (dyn Fn(&TrainConfig, &Extractor, &Device) -> Model + Sync);

/// How a frame becomes the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InputConfig {
    /// A multiple of 32.
    pub width: u32,
    /// A multiple of 32.
    pub height: u32,
    /// What happens to a frame of another aspect ratio.
    pub fit: ResizeMode,
    /// The kernel of the resize.
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

/// How long the device may take for a frame. With it `input.width` and `input.height` are chosen: the largest that keep
/// the images' shape and the time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// Milliseconds for the network, smoothing and score, on one thread of the device.
    pub ms: f64,
    /// How much longer a thread of the device takes than one of this machine.
    #[serde(default = "alike")]
    pub factor: f64,
}

fn alike() -> f64 {
    1.0
}

/// The training loop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoopConfig {
    /// How often every normal image is seen.
    pub epochs: usize,
    /// Normal images a step.
    pub batch: usize,
    /// Coarse-labelled anomalies a step; they are cycled.
    pub anomalous_batch: usize,
    /// At least so many steps: a small set is seen in more epochs.
    pub least_steps: usize,
    /// Epochs between two checkpoints.
    pub checkpoint_every: usize,
}

impl Default for LoopConfig {
    fn default() -> Self {
        LoopConfig { epochs: 40, batch: 16, anomalous_batch: 8, least_steps: 600, checkpoint_every: 5 }
    }
}

impl LoopConfig {
    /// Epochs of `steps` steps each.
    pub fn epochs_of(&self, steps: usize) -> usize {
        self.epochs.max(self.least_steps.div_ceil(steps.max(1)))
    }
}

/// The stride of every backbone's last stage.
const DEEPEST: usize = 32;

impl TrainConfig {
    /// Reads a training config and checks every key and value.
    ///
    /// # Errors
    /// The file cannot be read or is no training config: one sentence with the file and, where one is wrong, the key.
    pub fn load(path: &Path) -> Result<TrainConfig, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        TrainConfig::parse(&text, path)
    }

    /// `path` is for the sentences.
    fn parse(text: &str, path: &Path) -> Result<TrainConfig, ConfigError> {
        let malformed = |e| ConfigError::Malformed { path: path.to_owned(), reason: one_line(text, &e) };
        let table: toml::Table = toml::from_str(text).map_err(malformed)?;
        let written = serde_json::to_value(&table).expect("a TOML table has string keys");
        if let Some(UnknownKey { key, nearest }) = keys::unknown(&written) {
            return Err(ConfigError::UnknownKey { path: path.to_owned(), key, nearest });
        }
        let config: TrainConfig = toml::from_str(text).map_err(malformed)?;
        config.check(path)?;
        Ok(config)
    }

    /// The config that `run` was started with. It is checked again: what `export` alone reads may have been changed by
    /// hand since.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or has a value out of its bounds.
    pub fn of_run(run: &RunFolder) -> Result<TrainConfig, ConfigError> {
        TrainConfig::parse(&run.config()?, &run.config_path())
    }

    /// What the extractor is made of: as deep as any method reads.
    pub fn reading(&self) -> Reading<'_> {
        let own = |kind: &MethodKind| match kind {
            MethodKind::Mahalanobis => self.mahalanobis.strides.as_slice(),
            MethodKind::Pooled => &self.pooled.strides,
            MethodKind::Devnet => &[DEEPEST],
            _ => &[],
        };
        let strides = self.features.strides.iter().chain(self.methods.iter().flat_map(own));
        let deepest = strides.copied().max().unwrap_or(0);
        Reading { backbone: self.backbone, strides: &self.features.strides, deepest, input: self.input.into() }
    }

    /// Names of the views that a network takes at once, where it takes so many; none where it takes one.
    pub fn views_of(&self, views: usize) -> &[String] {
        if views > 1 { &self.views } else { &[] }
    }

    /// The methods, untrained.
    pub fn model(&self, extractor: &Extractor, device: &Device) -> Model {
        let method = |kind: &MethodKind| -> Box<dyn Method> {
            match kind {
                MethodKind::Ckaad => Box::new(Ckaad::new(&self.ckaad, extractor, device)),
                MethodKind::Bank => Box::new(Bank::new(self.bank)),
                MethodKind::Mahalanobis => Box::new(Mahalanobis::new(self.mahalanobis.clone())),
                MethodKind::Pooled => Box::new(Pooled::new(self.pooled.clone())),
                MethodKind::Mil => Box::new(Mil::new(&self.mil, extractor, device)),
                MethodKind::Invad => Box::new(Invad::new(&self.invad, extractor, device)),
                MethodKind::Sparsity => Box::new(Sparsity::new(&self.sparsity, extractor, device)),
                MethodKind::Tocoad => Box::new(Tocoad::new(&self.tocoad, extractor, device)),
                MethodKind::Devnet => Box::new(Devnet::new(self.devnet, extractor, device)),
                MethodKind::Mvad => Box::new(Mvad::new(&self.mvad, self.views.len(), extractor, device)),
            }
        };
        Model { methods: self.methods.iter().map(method).collect() }
    }
}

/// The parser draws the place over several lines; a sentence has the line's number.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    match error.span() {
        Some(span) => format!("line {}: {message}", text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1),
        None => message,
    }
}
