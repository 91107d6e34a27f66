//! The head's layers.

use crate::backbones::Scale;
use crate::device;
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
    /// One a scale, the finest first: to one width.
    pub adapt: Vec<Conv2d>,
    /// Of their sum, at the finest scale.
    pub adapted: BatchNorm,
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
        let mut sum: Option<(Tensor<2>, [usize; 3])> = None;
        for (conv, x) in self.adapt.iter().zip(features).rev() {
            let [n, _, h, w] = x.dims();
            let own = pointwise(conv, channels(x));
            let all = match sum {
                None => own,
                Some((coarse, grid)) => own + doubled(coarse, grid),
            };
            sum = Some((all, [n, h, w]));
        }
        let (sum, [n, h, w]) = sum.expect("an extractor has at least one scale");
        let x = self.dropped(relu(normalised(&self.adapted, sum)), n);
        let x = relu(normalised(&self.hidden_norm, pointwise(&self.hidden, x)));
        pointwise(&self.logit, x).reshape([n, 1, h, w])
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

/// A channel a row, the places of all images behind one another: `[N,C,h,w]` → `[C,N·h·w]`. So a 1x1 convolution is one
/// matrix product, and a channel's mean is taken of one row.
fn channels(x: &Tensor<4>) -> Tensor<2> {
    let [n, c, h, w] = x.dims();
    x.clone().permute([1, 0, 2, 3]).reshape([c, n * h * w])
}

/// A 1x1 convolution as a matrix product: burn's gradient of a convolution's weight is another convolution, with a kernel
/// as large as the map.
fn pointwise(conv: &Conv2d, x: Tensor<2>) -> Tensor<2> {
    let weight: Tensor<2> = conv.weight.val().flatten(1, 3);
    let out = weight.matmul(x);
    match &conv.bias {
        None => out,
        Some(bias) => out + bias.val().unsqueeze_dim(1),
    }
}

/// As one long image: burn transposes where a channel's values do not lie behind one another.
fn normalised(norm: &BatchNorm, x: Tensor<2>) -> Tensor<2> {
    norm.forward::<3>(x.unsqueeze_dim(0)).squeeze_dim(0)
}

/// Nearest neighbour, twice the height and width, of the channels of `[N,h,w]`.
fn doubled(x: Tensor<2>, [n, h, w]: [usize; 3]) -> Tensor<2> {
    let c = x.dims()[0];
    let x: Tensor<5> = x.reshape([c, n * h, 1, w, 1]);
    x.expand([c, n * h, 2, w, 2]).reshape([c, 4 * n * h * w])
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

/// The mean of the `count` largest values along the last axis.
pub fn largest(x: Tensor<3>, count: usize) -> Tensor<3> {
    let [_, _, cells] = x.dims();
    match count.min(cells) {
        1 => x.max_dim(2),
        count => sorted(x).narrow(2, 0, count).mean_dim(2),
    }
}
