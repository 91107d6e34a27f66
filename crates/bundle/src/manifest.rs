use jiff::Timestamp;
use schemars::JsonSchema;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

/// The format that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// `manifest.json`, the first member of every bundle: all that the agent must know besides the network's weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the bundle format; see [`FORMAT`].
    pub format: u32,
    /// Name of the model, `[a-z0-9-]`, at most 64 characters; it becomes a topic level.
    pub name: String,
    /// Semantic version of the model; grows with every release.
    pub version: Version,
    /// Training method, for instance `ckaad-patch`.
    pub method: String,
    /// Frozen feature extractor, for instance `efficientnet-lite0`.
    pub backbone: String,
    #[schemars(with = "String")]
    pub created: Timestamp,
    pub input: Input,
    /// Input pixels a cell of the anomaly map, along each side.
    pub output_stride: u32,
    pub score: ScoreRule,
    pub calibration: Calibration,
    pub precision: Precision,
    /// Versions of ckaad-edge that can run the model.
    #[schemars(with = "String")]
    pub engine: VersionReq,
    pub training_data: TrainingData,
    /// One line for each licence that binds the model: backbone weights, data.
    pub licences: Vec<String>,
    /// Every further member, in the archive's order. Filled in when packing.
    #[serde(default)]
    pub members: Vec<Member>,
}

/// How a frame becomes the network's input `image`: u8 `[1,height,width,3]`, RGB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub width: u32,
    pub height: u32,
    pub fit: ResizeMode,
    pub filter: Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeMode {
    Stretch,
    Letterbox,
    Crop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    Bilinear,
    CatmullRom,
}

/// From the smoothed anomaly map at input size to one number an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreRule {
    /// Standard deviation of the Gaussian, in input pixels.
    pub sigma_px: f32,
    /// The image score is the mean of this many largest pixels: 1 is the maximum, width x height the mean.
    pub top_k: u32,
    /// Where there are any, the score is their weighted sum in place of the single mean above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<ScoreTerm>,
}

/// One term of a combined image score: `weight` times the mean of the `top_k` largest pixels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreTerm {
    pub top_k: u32,
    pub weight: f32,
}

/// Learned from normal images that were held out of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Number of held-out normal images.
    pub images: u32,
    /// Quantiles 0, 0.05, ... 1 of their image scores (21 values).
    pub quantiles: Vec<f32>,
    /// Exponential tail: above `tail_start` the share of normal images is `tail_share * exp(-(score - tail_start) / tail_scale)`.
    pub tail_start: f32,
    pub tail_share: f32,
    pub tail_scale: f32,
    /// Share of normal images that the threshold may alert on.
    pub false_alarm_budget: f32,
    /// Image score from which a part is defective.
    pub threshold: f32,
    /// Value of the smoothed map from which a pixel belongs to a region.
    pub pixel_threshold: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    Int8,
}

/// What the model was trained on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// SHA-256 over the sorted list of relative paths and file digests.
    pub sha256: String,
    pub normal_images: u32,
    pub anomalous_images: u32,
}

/// One member of the archive behind the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}
