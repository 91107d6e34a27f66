//! `manifest.json`.

use jiff::Timestamp;
use schemars::JsonSchema;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

/// The format that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 2;

/// `manifest.json`, the first member of every bundle: all that the agent must know besides the network's weights.
///
/// One of format 1 is read into the same structure: what it did not say is what those bundles did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the bundle format; see [`FORMAT`]. As it was read, so that an older one can be told.
    pub format: u32,
    /// Name of the model, `[a-z0-9-]`, at most 64 characters; it becomes a topic level.
    pub name: String,
    /// Semantic version of the model; grows with every release.
    pub version: Version,
    /// What the model is made of, for instance `ckaad-patch`, `bank`, `pooled`: 1 to 16 plain names of at most 64
    /// characters.
    pub methods: Vec<String>,
    /// Frozen feature extractor, for instance `efficientnet-lite0`.
    pub backbone: String,
    /// When the bundle was packed.
    #[schemars(with = "String")]
    pub created: Timestamp,
    /// What the network takes of each view.
    pub input: Input,
    /// Images of one part that the network takes at once, 1 to 16: `image` is `[views,height,width,3]`.
    pub views: u32,
    /// What the views are called, in their order: one name each, or none where they have none, as one alone. A picture shows the view whose name is its
    /// own, or stands in it between underscores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub view_names: Vec<String>,
    /// Input pixels a cell of the anomaly map, along each side.
    pub output_stride: u32,
    /// What the anomaly map is summed from, for people; at most 16, and none where nobody said.
    pub terms: Vec<MapTerm>,
    /// How the map, and the image branch where there is one, become an image score.
    pub score: Score,
    /// Where a score begins to be a defect.
    pub calibration: Calibration,
    /// The same for the network for a GPU, whose scores are others; `calibration` holds for both where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_calibration: Option<Calibration>,
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

/// How a frame becomes the network's input `image`: u8 `[views,height,width,3]`, RGB.
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
    /// As [`Letterbox`](ResizeMode::Letterbox), but around the frame its own outermost pixels go on, so that the network
    /// sees no edge where the part has none.
    Pad,
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

/// One summand of the anomaly map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapTerm {
    /// A plain text of 1 to 64 characters, for instance `error`.
    pub name: String,
    /// Any finite number.
    pub weight: f32,
}

/// From the anomaly map, and the image branch where there is one, to one number an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Standard deviation of the Gaussian that smooths the map at input size, in input pixels: 0 to 64.
    pub sigma_px: f32,
    /// From the smoothed map to one number.
    pub rule: ScoreRule,
    /// How the network's output `image_score` joins that number. There where the network has this output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageBranch>,
}

/// From the smoothed anomaly map at input size to one number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ScoreRule {
    /// The mean of the largest pixels.
    TopK {
        /// Pixels in the mean: 1 is the maximum, width x height the mean.
        top_k: u32,
    },
    /// A weighted sum of such means.
    Combined {
        /// 1 to 16 of them.
        terms: Vec<ScoreTerm>,
    },
    /// Boosted trees over statistics of the map's segments, which are the members `score/forest.json` and
    /// `score/segments.png`: the trees' margin, and `tie_break` times the mean of the largest 1/500 of the pixels.
    Forest {
        /// Labels 0 to `segments - 1` of the picture of segments, 1 to 256.
        segments: u32,
        /// At least 0. A forest knows few different margins; this orders the images of one margin.
        tie_break: f32,
    },
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

/// How the network's output `image_score` and the map's score become one. Each is standardised by what normal images
/// have: `z = (value - centre) / spread`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageBranch {
    /// Of the map's score.
    pub map: Standard,
    /// Of `image_score`.
    pub image: Standard,
    /// Share of the image in the whole, 0 to 1.
    pub weight: f32,
    /// How the two come together.
    pub fusion: Fusion,
}

/// Where the values of normal images lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Standard {
    /// Their middle.
    pub centre: f32,
    /// How far they lie apart; above 0.
    pub spread: f32,
}

/// How two standardised scores become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fusion {
    /// `(1 - weight) * z_map + weight * z_image`.
    Sum,
    /// `2 * max((1 - weight) * z_map, weight * z_image)`: with a weight of 0.5 the larger one.
    Larger,
}

/// Learned from normal images, judged by models that were not trained on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Number of these images, n.
    pub images: u32,
    /// Quantiles 0, 0.05, ... 1 of their image scores (21 values).
    pub quantiles: Vec<f32>,
    /// Image score from which a part is defective.
    pub threshold: f32,
    /// Value of the smoothed map from which a pixel belongs to a region.
    pub pixel_threshold: f32,
    /// Share of normal images that the threshold may alert on.
    pub false_alarm_budget: f32,
    /// The threshold is the k-th largest of the n scores. None where the budget is smaller than what n images can show
    /// by counting: the threshold comes from the tail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// What lies beyond counting.
    pub tail: Tail,
    /// Share of new normal images that is to be expected at or above the threshold.
    pub expected_rate: f32,
    /// Interval that holds the true share with a probability of 90 %. `[0, 1]`, which says nothing, in a bundle of
    /// format 1.
    pub interval: [f32; 2],
}

/// Which of the views with these names a picture shows, by what it is called without its ending: the view's name, or that between underscores. The
/// longest that fits: `top_left` is no `top`.
///
/// ```
/// let names = ["top", "top_left"].map(str::to_owned);
/// assert_eq!(ckaad_bundle::view_shown(&names, "part7_top_left_3"), Some(1));
/// assert_eq!(ckaad_bundle::view_shown(&names, "bottom"), None);
/// ```
pub fn view_shown(names: &[String], picture: &str) -> Option<usize> {
    let picture = format!("_{picture}_");
    let called = |&view: &usize| picture.contains(&format!("_{}_", names[view]));
    (0..names.len()).filter(called).max_by_key(|&view| names[view].len())
}

impl Calibration {
    /// The median of the normal images' scores.
    pub fn median(&self) -> f32 {
        self.quantiles.get(self.quantiles.len() / 2).copied().unwrap_or(f32::NAN)
    }

    /// A score on a scale that models share: 0 is the median of normal images, 1 the threshold.
    pub fn calibrated_score(&self, score: f32) -> f32 {
        (score - self.median()) / (self.threshold - self.median()).max(f32::EPSILON)
    }
}

/// The tail of the normal images' scores, a generalised Pareto distribution: the share of them above a score s from
/// `start` on is `share * (1 + shape * (s - start) / scale)^(-1 / shape)`. A shape of 0 is the exponential
/// `share * exp(-(s - start) / scale)`; one below 0 ends at `start - scale / shape`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tail {
    /// In units of the score.
    pub start: f32,
    /// Share of normal images above `start`, 0 to 1.
    pub share: f32,
    /// Above 0, in units of the score.
    pub scale: f32,
    /// -1 to 1; 0 is the exponential.
    pub shape: f32,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// SHA-256 over the sorted list of relative paths and file digests.
    pub sha256: String,
    /// Normal images that it was trained on; held-out ones are not among them.
    pub normal_images: u32,
    /// Coarse-labelled anomalous images that it was trained on.
    pub anomalous_images: u32,
    /// How the normal ones look, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appearance: Option<Appearance>,
}

/// How the normal training images look at input size; what drift is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Appearance {
    /// Mean luma of an image, 0 to 255.
    pub brightness: Moments,
    /// Variance of the 3x3 Laplacian of an image's luma.
    pub sharpness: Moments,
}

/// Over a set of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// Any finite number.
    pub mean: f32,
    /// Standard deviation, at least 0.
    pub deviation: f32,
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
