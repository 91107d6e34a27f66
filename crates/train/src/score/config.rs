//! `[score]` of the training config.

use crate::graph::Term;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From map to image score. What is left open, training images choose, each judged by a model that never saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreConfig {
    /// Gaussian, in input pixels.
    pub sigma_px: f32,
    /// How the pixels of a map become one number.
    pub rule: Rule,
    /// Pixels in the mean of rule `top-k`.
    pub top_k: u32,
    /// Segments of the image for rule `forest`, which is tried where there are any: boosted trees over what the map shows
    /// in each.
    pub segments: SegmentsKind,
    /// How many `k-means` finds.
    pub clusters: usize,
    /// Those of `polygons`: the corners of each, across and down as shares of the image's width and height.
    pub polygons: Vec<Vec<[f32; 2]>>,
    /// Whether the image branch takes part, where there is one.
    pub image: ImageRule,
    /// Weight of a term in the map, in units of its mean over normal images, by the term's name. A weight that is not
    /// given is chosen. The paper's map is `error = 1, energy = 0`.
    pub weights: BTreeMap<String, f32>,
}

impl ScoreConfig {
    /// What the config says of a term's weight.
    pub fn weight(&self, term: Term) -> Option<f32> {
        self.weights.get(term.name).copied()
    }
}

/// From the smoothed map to the image score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The best of the rules below.
    Auto,
    /// The largest pixel.
    Maximum,
    /// The mean of the largest `top_k` pixels.
    TopK,
    /// The mean of all pixels.
    Mean,
    /// A weighted sum of maximum, top-k means and mean, fitted by logistic regression.
    Combined,
    /// Boosted trees over what the map shows in each of `segments`.
    Forest,
}

/// How an image is cut into segments, the same for every image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SegmentsKind {
    /// It is not.
    None,
    /// The bright and the dark part of the mean normal image (Otsu 1979).
    Foreground,
    /// Places with like features in the mean normal image; for parts that always lie alike.
    KMeans,
    /// `polygons`, one segment each, and one of all that lies in none; for parts that always lie alike.
    Polygons,
}

/// Whether the image branch takes part in the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageRule {
    /// As much as the training images say; with too few labels for that, as much as the map.
    Auto,
    /// It is left out.
    Off,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        ScoreConfig {
            sigma_px: 4.0,
            rule: Rule::Auto,
            top_k: 100,
            segments: SegmentsKind::None,
            clusters: 6,
            polygons: vec![],
            image: ImageRule::Auto,
            weights: BTreeMap::new(),
        }
    }
}
