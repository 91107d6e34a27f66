//! `[score]` of the training config.

use crate::graph::Term;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From map to image score. What is left open, held-out training images choose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreConfig {
    /// Gaussian, in input pixels.
    pub sigma_px: f32,
    /// How the pixels of a map become one number.
    pub rule: Rule,
    /// Pixels in the mean of rule `top-k`.
    pub top_k: u32,
    /// Weight of the reconstruction error in the map, in units of its mean over normal images. Of each weight that is
    /// not given, validation chooses one. The paper's map is `error = 1, energy = 0` without a bank.
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

/// From the smoothed map to the image score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The best of the rules below on held-out images.
    Auto,
    /// The largest pixel.
    Maximum,
    /// The mean of the largest `top_k` pixels.
    TopK,
    /// The mean of all pixels.
    Mean,
    /// A weighted sum of maximum, top-k means and mean, fitted by logistic regression.
    Combined,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        ScoreConfig { sigma_px: 4.0, rule: Rule::Auto, top_k: 100, error: None, energy: None, distance: None }
    }
}
