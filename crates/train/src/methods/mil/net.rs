//! The head's layers.

use crate::backbones::Scale;
use crate::device;
use crate::methods::adapt::Adapt;
use crate::methods::folding::sorted;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::activation::relu;

/// Share of the adapted channels that is dropped while training.
const DROPPED: f64 = 0.1;

/// Map head and image branch.
#[derive(Module, Debug)]
pub struct MilNet {
    /// All scales at one width on the finest one's grid.
    pub adapt: Adapt,
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
            adapt: Adapt::new(&scales.iter().map(|s| s.channels).collect::<Vec<_>>(), width, device),
            hidden: conv(width, width, 1, 1, false),
            hidden_norm: BatchNormConfig::new(width).init(device),
            logit: conv(width, 1, 1, 1, true),
            context: coarsest.iter().enumerate().map(|(i, s)| conv(s.channels, context, 3, stride(i), false)).collect(),
            context_norm: BatchNormConfig::new(context).init(device),
            bag: LinearConfig::new(3 * context + 3, 1).init(device),
            places,
        }
    }

    /// The logits of all places, `[N,1,h,w]`.
    fn places_of(&self, features: &[Tensor<4>]) -> Tensor<4> {
        let adapted = self.adapt.forward(features);
        let images = adapted.grid[0];
        let hidden = adapted.map(|x| self.dropped(x, images)).pointwise(&self.hidden).normalised(&self.hidden_norm);
        hidden.map(relu).pointwise(&self.logit).maps()
    }

    /// While training, some channels of each image are 0 and the others larger, so that few labels are not learned by
    /// heart. Whole channels: neighbouring places would tell what a single one lost.
    fn dropped(&self, x: Tensor<2>, images: usize) -> Tensor<2> {
        if !x.device().is_autodiff() {
            return x;
        }
        let [c, all] = x.dims();
        let kept: Tensor<3> = device::random([c, images, 1], Distribution::Bernoulli(1.0 - DROPPED), &x.device());
        let x: Tensor<3> = x.reshape([c, images, all / images]);
        (x * kept.div_scalar(1.0 - DROPPED)).reshape([c, all])
    }

    /// `features` are `[N,C,h,w]` a scale, the finest first.
    pub fn forward(&self, features: &[Tensor<4>]) -> Logits {
        let places = self.places_of(features);
        let coarsest = &features[features.len() - self.context.len()..];
        let parts = self.context.iter().zip(coarsest).map(|(conv, x)| conv.forward(x.clone()));
        let context = parts.reduce(|a, b| a + b).expect("an extractor has at least one scale");
        let context = relu(self.context_norm.forward(context));
        let pooled = Tensor::cat(vec![pooled(context, 1), pooled(places.clone(), self.places)], 1);
        let images = self.bag.forward(pooled).flatten(0, 1);
        Logits { places, images }
    }
}

/// Of each channel the mean, the mean of its `count` largest cells and that of its smallest: `[N,3C]`, as the graph's pool.
fn pooled(x: Tensor<4>, count: usize) -> Tensor<2> {
    let x: Tensor<3> = x.flatten(2, 3);
    let cells = x.dims()[2];
    let [largest, smallest] = match count.min(cells) {
        1 => [x.clone().max_dim(2), x.clone().min_dim(2)],
        count => {
            let sorted = sorted(x.clone());
            [0, cells - count].map(|from| sorted.clone().narrow(2, from, count).mean_dim(2))
        }
    };
    Tensor::cat(vec![x.mean_dim(2), largest, smallest], 1).flatten(1, 2)
}
