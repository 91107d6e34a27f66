//! What adapts features, and what adapted features are compared by.

use crate::backbones::Scale;
use crate::graph::{Activation, Conv};
use crate::methods::folding::{padded, values};
use crate::methods::places::Places;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer};
use burn::prelude::*;
use burn::tensor::activation::relu;

/// `x + Wx` at every place of every scale, with what teaches W.
#[derive(Module, Debug)]
pub struct Adapters {
    /// The W of each scale, 0 at the start.
    pub own: Vec<Conv2d>,
    /// Of each scale.
    pub views: Vec<View>,
}

/// From adapted features to what two views of one place are compared by (SimSiam, arXiv 2011.10566).
#[derive(Module, Debug)]
pub struct View {
    pub project: [Layer; 2],
    pub predict: Layer,
    pub predicted: Conv2d,
}

/// A 1x1 convolution without bias and a batch norm.
#[derive(Module, Debug)]
pub struct Layer {
    pub conv: Conv2d,
    pub norm: BatchNorm,
}

/// One scale's features, adapted, as they are compared, and what is predicted of that from another view: a channel a row.
pub struct Compared {
    pub adapted: Tensor<2>,
    pub projected: Tensor<2>,
    pub predicted: Tensor<2>,
}

/// The prediction goes through so many times fewer channels.
const NARROWER: usize = 4;

impl Layer {
    fn new(input: usize, output: usize, device: &Device) -> Layer {
        let conv = Conv2dConfig::new([input, output], [1, 1])
            .with_bias(false)
            .with_initializer(Initializer::KaimingNormal { gain: 1.0, fan_out_only: false })
            .init(device);
        Layer { conv, norm: BatchNormConfig::new(output).init(device) }
    }

    fn forward(&self, x: Places) -> Places {
        x.pointwise(&self.conv).normalised(&self.norm)
    }
}

impl Adapters {
    /// For features of `scales`, the finest first.
    pub fn new(scales: &[Scale], device: &Device) -> Adapters {
        let own = |s: &Scale| {
            Conv2dConfig::new([s.channels, s.channels], [1, 1])
                .with_bias(false)
                .with_initializer(Initializer::Zeros)
                .init(device)
        };
        let view = |s: &Scale| {
            let (c, narrow) = (s.channels, (s.channels / NARROWER).max(1));
            View {
                project: [Layer::new(c, c, device), Layer::new(c, c, device)],
                predict: Layer::new(c, narrow, device),
                predicted: Conv2dConfig::new([narrow, c], [1, 1]).init(device),
            }
        };
        Adapters { own: scales.iter().map(own).collect(), views: scales.iter().map(view).collect() }
    }

    /// Features `[N,C,h,w]` of one scale.
    pub fn adapted(&self, scale: usize, x: &Tensor<4>) -> Places {
        let x = Places::of(x);
        let before = x.values.clone();
        x.pointwise(&self.own[scale]).map(|change| before + change)
    }

    /// The same as they are compared.
    pub fn compared(&self, scale: usize, x: &Tensor<4>) -> Compared {
        let View { project: [first, second], predict, predicted } = &self.views[scale];
        let adapted = self.adapted(scale, x);
        let values = adapted.values.clone();
        let projected = second.forward(first.forward(adapted).map(relu));
        let narrow = Places { values: projected.values.clone(), grid: projected.grid };
        let predicted = predict.forward(narrow).map(relu).pointwise(predicted);
        Compared { adapted: values, projected: projected.values, predicted: predicted.values }
    }

    /// `x + Wx` of one scale as a convolution.
    pub fn folded(&self, scale: usize) -> Conv {
        let (mut weight, dims) = values(self.own[scale].weight.val());
        weight.iter_mut().step_by(dims[0] + 1).for_each(|diagonal| *diagonal += 1.0);
        padded(weight, vec![0.0; dims[0]], &dims, 1, Activation::Linear)
    }
}
