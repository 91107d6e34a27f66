//! Frozen feature extractors as graphs, so that training reads its features from the engine that the device runs.

mod lite0;
mod weights;

pub use weights::{WeightError, Weights, fold_batch_norm};

use super::export::graph::{Graph, Id};

/// One map of features that the method reconstructs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    pub channels: usize,
    /// Input pixels a cell, along each side.
    pub stride: usize,
}

/// The extractors that can be named in a training config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub enum Backbone {
    #[serde(rename = "efficientnet-lite0")]
    EfficientNetLite0,
}

impl Backbone {
    pub fn name(self) -> &'static str {
        match self {
            Backbone::EfficientNetLite0 => "efficientnet-lite0",
        }
    }

    /// What must be said of the weights in every bundle that holds them.
    pub fn licence(self) -> &'static str {
        match self {
            Backbone::EfficientNetLite0 => "EfficientNet-lite0 weights (ImageNet): Apache-2.0, Google",
        }
    }

    /// Strides 4, 8 and 16.
    pub fn scales(self) -> Vec<Scale> {
        match self {
            Backbone::EfficientNetLite0 => lite0::SCALES.to_vec(),
        }
    }

    /// The weights that come with this program.
    pub fn weights(self) -> Result<Weights, WeightError> {
        match self {
            Backbone::EfficientNetLite0 => Weights::from_bytes(lite0::WEIGHTS, "the built-in EfficientNet-lite0"),
        }
    }

    /// Appends the extractor to `graph`, reading from the image; returns the nodes of [`Backbone::scales`].
    ///
    /// # Errors
    /// When a tensor is missing in `weights` or has another shape.
    pub fn append(self, graph: &mut Graph, weights: &Weights) -> Result<Vec<Id>, WeightError> {
        match self {
            Backbone::EfficientNetLite0 => lite0::append(graph, weights),
        }
    }
}
