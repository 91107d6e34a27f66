//! The head's layers.

use crate::backbones::Scale;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Initializer, Linear, LinearConfig, PaddingConfig2d,
};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};

/// Share of the adapted features that is dropped while training, so that few labels are not learned by heart.
const DROPPED: f64 = 0.1;

/// Map head and image branch.
#[derive(Module, Debug)]
pub struct MilNet {
    /// One a scale, the finest first: to one width.
    pub adapt: Vec<Conv2d>,
    /// Of their sum, at the finest scale.
    pub adapted: BatchNorm,
    pub dropout: Dropout,
    pub hidden: Conv2d,
    pub hidden_norm: BatchNorm,
    /// One channel: the logit of every place.
    pub logit: Conv2d,
    /// The two coarsest scales, or the only one, on the coarsest one's grid.
    pub context: Vec<Conv2d>,
    /// Of their sum.
    pub context_norm: BatchNorm,
    /// From pooled context and pooled logits to the image's logit.
    pub bag: Linear,
    /// Places in the means of the largest and smallest logits.
    pub places: usize,
}

/// What the net says of some images.
pub struct Logits {
    /// `[N,1,h,w]`, on the finest scale's grid.
    pub places: Tensor<4>,
    /// `[N]`.
    pub images: Tensor<1>,
}

impl MilNet {
    /// Untrained, for features of `scales`, the finest first.
    pub fn new(scales: &[Scale], width: usize, context: usize, places: usize, device: &Device) -> MilNet {
        let conv = |input: usize, output: usize, kernel: usize, stride: usize, bias: bool| {
            let pad = kernel / 2;
            Conv2dConfig::new([input, output], [kernel, kernel])
                .with_stride([stride, stride])
                .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
                .with_bias(bias)
                .with_initializer(Initializer::KaimingNormal { gain: 1.0, fan_out_only: false })
                .init(device)
        };
        let coarsest = &scales[scales.len().saturating_sub(2)..];
        let stride = |i: usize| if i + 1 < coarsest.len() { 2 } else { 1 };
        MilNet {
            adapt: scales.iter().map(|s| conv(s.channels, width, 1, 1, false)).collect(),
            adapted: BatchNormConfig::new(width).init(device),
            dropout: DropoutConfig::new(DROPPED).init(),
            hidden: conv(width, width, 1, 1, false),
            hidden_norm: BatchNormConfig::new(width).init(device),
            logit: conv(width, 1, 1, 1, true),
            context: coarsest.iter().enumerate().map(|(i, s)| conv(s.channels, context, 3, stride(i), false)).collect(),
            context_norm: BatchNormConfig::new(context).init(device),
            bag: LinearConfig::new(3 * context + 3, 1).init(device),
            places,
        }
    }

    /// `features` are `[N,C,h,w]` a scale, the finest first.
    pub fn forward(&self, features: &[Tensor<4>]) -> Logits {
        let mut sum: Option<Tensor<4>> = None;
        for (conv, x) in self.adapt.iter().zip(features).rev() {
            let x = conv.forward(x.clone());
            sum = Some(match sum {
                None => x,
                Some(coarse) => x + doubled(coarse),
            });
        }
        let sum = sum.expect("an extractor has at least one scale");
        let x = self.dropout.forward(relu(self.adapted.forward(sum)));
        let x = relu(self.hidden_norm.forward(self.hidden.forward(x)));
        let places = self.logit.forward(x);
        let coarsest = &features[features.len() - self.context.len()..];
        let parts = self.context.iter().zip(coarsest).map(|(conv, x)| conv.forward(x.clone()));
        let context = parts.reduce(|a, b| a + b).expect("an extractor has at least one scale");
        let context = relu(self.context_norm.forward(context));
        let pooled = Tensor::cat(vec![pooled(context, 1), pooled(places.clone(), self.places)], 1);
        let images = self.bag.forward(pooled).flatten(0, 1);
        Logits { places, images }
    }
}

/// Nearest neighbour, twice the height and width.
fn doubled(x: Tensor<4>) -> Tensor<4> {
    interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]))
}

/// Of each channel the mean, the mean of its `count` largest cells and that of its smallest: `[N,3C]`, as the graph's pool.
fn pooled(x: Tensor<4>, count: usize) -> Tensor<2> {
    let x: Tensor<3> = x.flatten(2, 3);
    let parts = vec![x.clone().mean_dim(2), largest(x.clone(), count), largest(x.neg(), count).neg()];
    Tensor::cat(parts, 1).flatten(1, 2)
}

/// The mean of the `count` largest values along the last axis.
pub fn largest(x: Tensor<3>, count: usize) -> Tensor<3> {
    let [_, _, cells] = x.dims();
    match count.min(cells) {
        1 => x.max_dim(2),
        count => x.topk(count, 2).mean_dim(2),
    }
}
