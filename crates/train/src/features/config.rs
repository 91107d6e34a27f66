//! `[features]` of the training config.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which features are reconstructed, and how they are prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FeatureConfig {
    /// Scales to reconstruct: neighbouring strides of the backbone, the finest first. 4 sees finer defects and triples
    /// the cost.
    pub strides: Vec<usize>,
    /// Bring every feature channel to mean 0 and variance 1 over normal images, so that the networks see them alike and
    /// all share one int8 range well.
    pub standardise: bool,
    /// Cache mirrored copies of every training image.
    pub flips: Flips,
    /// Compute them in int8, as the device does, so that what learns from them learns from what it will be given. `false`
    /// learns from exact ones.
    pub int8: bool,
}

impl Default for FeatureConfig {
    fn default() -> Self {
        FeatureConfig { strides: vec![8, 16], standardise: true, flips: Flips::None, int8: true }
    }
}

/// Mirrored copies of every training image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Flips {
    /// The image alone.
    None,
    /// And left to right.
    Horizontal,
    /// And top to bottom, and both.
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
