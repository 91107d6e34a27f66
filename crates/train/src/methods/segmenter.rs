//! A small network that gives every place a logit: maps of several scales on the finest grid, and neighbours that decide together.

use crate::graph::{Activation, Graph, Id};
use crate::methods::adapt::Adapt;
use crate::methods::ckaad::{ConvNorm, Fold, NormKind};
use crate::methods::folding::with_bias;
use burn::nn::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use burn::tensor::activation::relu;

/// The network.
#[derive(Module, Debug)]
pub struct Segmenter {
    /// The finest first.
    pub adapt: Adapt,
    /// 3x3.
    pub hidden: Vec<ConvNorm>,
    pub logit: Conv2d,
}

/// 3x3 convolutions in a row.
const HIDDEN: usize = 2;
/// The share of places that an untrained network says yes to, as a logit: nearly none, as are a defect's in truth.
const AT_FIRST: f64 = -3.0;

impl Segmenter {
    /// Untrained, for inputs of so many channels, the finest first.
    pub fn new(channels: &[usize], width: usize, device: &Device) -> Segmenter {
        let mut logit = Conv2dConfig::new([width, 1], [1, 1]).init(device);
        logit.bias = Some(Initializer::Constant { value: AT_FIRST }.init([1], device));
        Segmenter {
            adapt: Adapt::new(channels, width, device),
            hidden: (0..HIDDEN).map(|_| ConvNorm::new(width, width, 3, 1, NormKind::Batch, device)).collect(),
            logit,
        }
    }

    /// The logits of all places, `[N,1,h,w]`, of inputs `[N,C,h,w]`.
    pub fn forward(&self, inputs: &[Tensor<4>]) -> Tensor<4> {
        let x = self.adapt.forward(inputs).maps();
        let x = self.hidden.iter().fold(x, |x, conv| relu(conv.forward(x)));
        self.logit.forward(x)
    }

    /// The same as nodes, whose names begin with `name`.
    pub fn append(&self, graph: &mut Graph, name: &str, inputs: &[Id]) -> Id {
        let mut x = self.adapt.append(graph, &format!("{name}.adapt"), inputs);
        for (i, conv) in self.hidden.iter().enumerate() {
            x = Fold { graph, prefix: "" }.conv_norm(&format!("{name}.hidden.{i}"), x, conv, true);
        }
        graph.conv(format!("{name}.logit"), x, with_bias(&self.logit, Activation::Linear))
    }
}
