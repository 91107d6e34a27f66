//! `[quantise]` of the training config.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From f32 to int8. `export` reads it anew; how the backbone's ranges are found was settled when the run started, since
/// all behind it learned from features in those numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuantiseConfig {
    /// How the range of each tensor is found.
    pub calibration: Calibration,
    /// Normal training images that ranges are measured on; a quarter as many anomalous ones come on top, where there
    /// are.
    pub images: usize,
    /// Leave layers in float while the losses below are exceeded.
    pub mixed: bool,
    /// Image AUROC that int8 may lose against f32 on held-out training images.
    pub auroc_loss: f64,
    /// AUPRO that int8 may lose, against masks of held-out images or, without any, against what the f32 map shows.
    pub aupro_loss: f64,
    /// Layers that stay in float in any case: names as the report lists them, or the beginning of some up to a dot.
    pub float_layers: Vec<String>,
    /// Layers that `mixed` may leave in float.
    pub max_float_layers: usize,
}

impl Default for QuantiseConfig {
    fn default() -> Self {
        QuantiseConfig {
            calibration: Calibration::Entropy,
            images: 128,
            mixed: true,
            auroc_loss: 0.002,
            aupro_loss: 0.01,
            float_layers: vec![],
            max_float_layers: 16,
        }
    }
}

/// How the range of a tensor is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Calibration {
    /// All values but 0.01 % at each end of an image; over the images the widest.
    Percentile,
    /// All values.
    Minmax,
    /// The range whose 255 steps keep most of the values' distribution (smallest Kullback-Leibler divergence).
    Entropy,
    /// The range with the smallest expected squared error.
    Mse,
}
