//! Frozen feature extractors as graphs, so that training reads its features from the engine that the device runs.

mod lite0;
mod resnet;
mod weights;

pub use weights::{WeightError, Weights, fold_batch_norm};

use crate::graph::{ChannelStatistics, Graph, Id};
use resnet::{BlockKind, ResNet};
use std::path::Path;

/// One map of features that the method reconstructs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Channels of the features.
    pub channels: usize,
    /// Input pixels a cell, along each side.
    pub stride: usize,
}

/// The extractors that can be named in a training config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub enum Backbone {
    /// Comes with this program (see NOTICE).
    #[serde(rename = "efficientnet-lite0")]
    EfficientNetLite0,
    /// As torchvision's `resnet18`.
    #[serde(rename = "resnet18")]
    ResNet18,
    /// As torchvision's `resnet34`.
    #[serde(rename = "resnet34")]
    ResNet34,
    /// As torchvision's `resnet50`.
    #[serde(rename = "resnet50")]
    ResNet50,
    /// As torchvision's `resnet101`.
    #[serde(rename = "resnet101")]
    ResNet101,
    /// As torchvision's `resnet152`.
    #[serde(rename = "resnet152")]
    ResNet152,
    /// As torchvision's `wide_resnet50_2`.
    #[serde(rename = "wide-resnet50-2")]
    WideResNet50,
    /// As torchvision's `wide_resnet101_2`.
    #[serde(rename = "wide-resnet101-2")]
    WideResNet101,
}

impl Backbone {
    /// As a training config and a bundle write it.
    pub fn name(self) -> &'static str {
        match self {
            Backbone::EfficientNetLite0 => "efficientnet-lite0",
            Backbone::ResNet18 => "resnet18",
            Backbone::ResNet34 => "resnet34",
            Backbone::ResNet50 => "resnet50",
            Backbone::ResNet101 => "resnet101",
            Backbone::ResNet152 => "resnet152",
            Backbone::WideResNet50 => "wide-resnet50-2",
            Backbone::WideResNet101 => "wide-resnet101-2",
        }
    }

    fn resnet(self) -> Option<ResNet> {
        let (blocks, block) = match self {
            Backbone::EfficientNetLite0 => return None,
            Backbone::ResNet18 => ([2, 2, 2, 2], BlockKind::Basic),
            Backbone::ResNet34 => ([3, 4, 6, 3], BlockKind::Basic),
            Backbone::ResNet50 => ([3, 4, 6, 3], BlockKind::Bottleneck { inner: 64 }),
            Backbone::ResNet101 => ([3, 4, 23, 3], BlockKind::Bottleneck { inner: 64 }),
            Backbone::ResNet152 => ([3, 8, 36, 3], BlockKind::Bottleneck { inner: 64 }),
            Backbone::WideResNet50 => ([3, 4, 6, 3], BlockKind::Bottleneck { inner: 128 }),
            Backbone::WideResNet101 => ([3, 4, 23, 3], BlockKind::Bottleneck { inner: 128 }),
        };
        Some(ResNet { blocks, block })
    }

    /// What must be said of the weights in every bundle that holds them.
    pub fn licence(self) -> &'static str {
        match self {
            Backbone::EfficientNetLite0 => "EfficientNet-lite0 weights (ImageNet): Apache-2.0, Google",
            _ => "ResNet weights: as given to the trainer; torchvision's (ImageNet) are BSD-3-Clause",
        }
    }

    /// Strides 4, 8, 16 and 32.
    pub fn scales(self) -> Vec<Scale> {
        self.resnet().map_or_else(|| lite0::SCALES.to_vec(), ResNet::scales)
    }

    /// The weights in `file`, or those that come with this program.
    pub fn weights(self, file: Option<&Path>) -> Result<Weights, WeightError> {
        match (file, self) {
            (Some(path), _) => Weights::load(path),
            (None, Backbone::EfficientNetLite0) => {
                let read = |bytes| Weights::from_bytes(bytes, "the built-in EfficientNet-lite0");
                let [upper, deep] = lite0::WEIGHTS.map(read);
                Ok(upper?.and(deep?))
            }
            (None, other) => Err(WeightError::NoneBuiltIn(other.name())),
        }
    }

    /// Appends the extractor to `graph`, reading from the image. With `statistics` (one for each of
    /// [`Extracted::streams`]) the taps are standardised. EfficientNet's streams are too: scale and offset are folded
    /// into the convolutions around them. Behind a ResNet's ReLU nothing can be folded, so there each tap gets a
    /// convolution of its own.
    ///
    /// # Errors
    /// When a tensor is missing in `weights` or has another shape.
    pub fn append(
        self,
        graph: &mut Graph,
        weights: &Weights,
        statistics: Option<&[ChannelStatistics]>,
        deepest: usize,
    ) -> Result<Extracted, WeightError> {
        match self.resnet() {
            Some(resnet) => resnet.append(graph, weights, statistics, deepest),
            None => lite0::append(graph, weights, statistics, deepest),
        }
    }
}

/// Nodes of an extractor.
pub struct Extracted {
    /// The results of the stages, which residual additions pass along.
    pub streams: Vec<Id>,
    /// Those that are reconstructed, in the order of [`Backbone::scales`].
    pub taps: Vec<Id>,
    /// For each tap the stream that it comes from.
    pub tap_streams: Vec<usize>,
}
