//! `manifest.json`.

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
    /// When the bundle was packed.
    #[schemars(with = "String")]
    pub created: Timestamp,
    /// What the network takes.
    pub input: Input,
    /// Input pixels a cell of the anomaly map, along each side.
    pub output_stride: u32,
    /// How its map becomes an image score.
    pub score: ScoreRule,
    /// Where a score begins to be a defect.
    pub calibration: Calibration,
    /// Of the network's convolutions.
    pub precision: Precision,
    /// Versions of ckaad-edge that can run the model.
    #[schemars(with = "String")]
    pub engine: VersionReq,
    /// What it was trained on.
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
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// What happens to a frame of another aspect ratio.
    pub fit: ResizeMode,
    /// How pixels between pixels are made.
    pub filter: Filter,
}

/// How a frame of any shape comes to the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeMode {
    /// Each side by its own factor; nothing is lost or added, the aspect ratio changes.
    Stretch,
    /// Both sides by one factor, so that the whole frame is inside, with grey around it.
    Letterbox,
    /// Both sides by one factor, so that the input is filled; what stands out, the same on both sides, is cut off.
    Crop,
}

/// The kernel of a resize; it grows with the reduction, so that nothing aliases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// A triangle.
    Bilinear,
    /// Catmull and Rom's cubic: sharper.
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
    /// Pixels in the mean: 1 is the maximum.
    pub top_k: u32,
    /// Any finite number.
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
    /// Exponential tail: above `tail_start` the share of normal images is `tail_share * exp(-(score - tail_start) /
    /// tail_scale)`.
    pub tail_start: f32,
    /// Share of normal images above `tail_start`, 0 to 1.
    pub tail_share: f32,
    /// Above 0, in units of the score.
    pub tail_scale: f32,
    /// Share of normal images that the threshold may alert on.
    pub false_alarm_budget: f32,
    /// Image score from which a part is defective.
    pub threshold: f32,
    /// Value of the smoothed map from which a pixel belongs to a region.
    pub pixel_threshold: f32,
}

/// In which numbers the network computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Floats throughout.
    F32,
    /// Quantised convolutions, but for the layers that were left in float.
    Int8,
}

/// What the model was trained on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// SHA-256 over the sorted list of relative paths and file digests.
    pub sha256: String,
    /// Normal images that it was trained on; held-out ones are not among them.
    pub normal_images: u32,
    /// Coarse-labelled anomalous images that it was trained on.
    pub anomalous_images: u32,
}

/// One member of the archive behind the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// One of the paths of the format.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}
