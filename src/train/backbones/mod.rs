//! Frozen feature extractors as graphs, so that training reads its features from the engine that the device runs.

mod lite0;
mod weights;

pub use weights::{WeightError, Weights, fold_batch_norm};

use super::export::graph::{Conv, Graph, Id};

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

    /// Appends the extractor to `graph`, reading from the image. With `statistics` (one for each of
    /// [`Extracted::streams`]) every stream is standardised: scale and offset are folded into the convolutions around it.
    ///
    /// # Errors
    /// When a tensor is missing in `weights` or has another shape.
    pub fn append(
        self,
        graph: &mut Graph,
        weights: &Weights,
        statistics: Option<&[ChannelStatistics]>,
    ) -> Result<Extracted, WeightError> {
        match self {
            Backbone::EfficientNetLite0 => lite0::append(graph, weights, statistics),
        }
    }
}

/// Nodes of an extractor.
pub struct Extracted {
    /// The results of the stages: tensors without an activation, which residual additions pass along.
    pub streams: Vec<Id>,
    /// Those that are reconstructed, in the order of [`Backbone::scales`].
    pub taps: Vec<Id>,
}

/// Mean and standard deviation of every channel of one stream, over normal images.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ChannelStatistics {
    pub mean: Vec<f32>,
    pub deviation: Vec<f32>,
}

impl ChannelStatistics {
    /// Makes `conv` give `(y - mean) / deviation` for `y`; without `centre` only `y / deviation`, for a term that is added to a
    /// centred one.
    fn fold_into_output(&self, conv: &mut Conv, centre: bool) {
        let row = conv.weight.len() / conv.out;
        for (c, weights) in conv.weight.chunks_exact_mut(row).enumerate() {
            let mean = if centre { self.mean[c] } else { 0.0 };
            weights.iter_mut().for_each(|w| *w /= self.deviation[c]);
            conv.bias[c] = (conv.bias[c] - mean) / self.deviation[c];
        }
    }

    /// Makes a 1x1 `conv` read `(x - mean) / deviation` and give what it gave for `x`.
    fn fold_into_input(&self, conv: &mut Conv) {
        let channels = self.mean.len();
        for (weights, bias) in conv.weight.chunks_exact_mut(channels).zip(&mut conv.bias) {
            for (c, w) in weights.iter_mut().enumerate() {
                *bias += *w * self.mean[c];
                *w *= self.deviation[c];
            }
        }
    }
}
