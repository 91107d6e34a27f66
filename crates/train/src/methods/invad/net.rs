//! Fuser and decoder, after the paper and what its authors published of sizes.
//!
//! ```text
//! s4 ──4x4/4─┐                              learned constant ─CL─┐
//! s8 ──2x2/2─┼─concat─1x1─bottleneck─┬─style 16 ─latent──► blocks ├─► s16'
//! s16 ─1x1───┘                       ├─style 8 ──latent──► blocks /2 ─► s8'
//!                                    └─style 4 ──latent──► blocks /2 ─► s4'
//! ```

use crate::backbones::Scale;
use crate::methods::folding::{depth_to_space, leaky_relu};
use burn::module::{Module, Param, RunningState};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::SQRT_2;

/// Slope of every LeakyReLU.
pub const SLOPE: f64 = 0.2;
/// Of the fuser's first norms; that of its bottleneck is burn's.
const FUSER_EPSILON: f64 = 1e-6;
/// Of the decoder's norms.
pub const EPSILON: f64 = 1e-5;
/// How much the last batch counts in the running statistics.
const MOMENTUM: f64 = 0.05;
/// By which the middle of the fuser's bottleneck is narrower.
const NARROWER: usize = 4;

/// The networks' shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetConfig {
    /// Widths that fit a device, or the paper's; what follows overrides them.
    pub size: Size,
    /// Channels of the style maps, a multiple of 4; 0 takes them from `size`.
    pub style: usize,
    /// Channels that tell a stage of the decoder about the image; 0 takes them from `size`.
    pub latent: usize,
    /// Residual blocks of every stage of the decoder; 0 takes them from `size`.
    pub blocks: usize,
    /// What the decoder normalises over before it modulates.
    pub norm: NormKind,
}

impl Default for NetConfig {
    fn default() -> Self {
        NetConfig { size: Size::Slim, style: 0, latent: 0, blocks: 0, norm: NormKind::Batch }
    }
}

/// Widths where the config names none. The decoder is as wide as the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// Styles of 32, latents of 8 channels, 2 blocks.
    Slim,
    /// The paper's InvAD-lite: styles of 64, latents of 16 channels, 4 blocks.
    Lite,
    /// The paper's InvAD: styles of 64, latents of 16 channels, 2 blocks.
    Paper,
}

/// Over what the decoder's features are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// All channels and places of an image (the paper), also on the device, where it is a float operator.
    Layer,
    /// The same while training; on the device by the mean statistics of training images, which fold into the convolutions there.
    Frozen,
    /// The batch, channel by channel; it folds into the convolutions on the device.
    Batch,
}

impl NetConfig {
    /// Channels of the style maps and of the latents, and the number of blocks.
    pub fn resolve(&self) -> (usize, usize, usize) {
        let (style, latent, blocks) = match self.size {
            Size::Slim => (32, 8, 2),
            Size::Lite => (64, 16, 4),
            Size::Paper => (64, 16, 2),
        };
        let or = |own: usize, by_size: usize| if own == 0 { by_size } else { own };
        (or(self.style, style), or(self.latent, latent), or(self.blocks, blocks))
    }
}

/// A convolution whose weights are drawn with deviation 1 and scaled by one over the root of their number an output when they are used, so that an
/// optimiser moves wide and narrow layers alike. Stride 1, zeros around the input.
#[derive(Module, Debug)]
pub struct EqualConv {
    /// `[out,in,k,k]`, not yet scaled.
    pub weight: Param<Tensor<4>>,
    pub bias: Option<Param<Tensor<1>>>,
}

impl EqualConv {
    fn new(input: usize, output: usize, kernel: usize, bias: Option<f64>, device: &Device) -> EqualConv {
        EqualConv {
            weight: Initializer::Normal { mean: 0.0, std: 1.0 }.init([output, input, kernel, kernel], device),
            bias: bias.map(|value| Initializer::Constant { value }.init([output], device)),
        }
    }

    /// `[out,in,k,k]`, as they are used.
    pub fn scaled(&self) -> Tensor<4> {
        let weight = self.weight.val();
        let [_, input, height, width] = weight.dims();
        weight.div_scalar(((input * height * width) as f64).sqrt())
    }

    /// As [`EqualConv::scaled`], by [`doubling_taps`] and in front of [`depth_to_space`]: `[4·out,in,3,3]`.
    pub fn scaled_to_double(&self) -> Tensor<4> {
        let weight = self.scaled();
        let [output, input, ..] = weight.dims();
        let doubling = Tensor::<2>::from_data(TensorData::new(doubling_taps(), [9, 36]), &weight.device());
        let taps: Tensor<2> = weight.reshape([output * input, 9]);
        let own = taps.matmul(doubling).reshape([output, input, 4, 9]);
        own.permute([2, 0, 1, 3]).reshape([4 * output, input, 3, 3])
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [.., kernel] = self.weight.dims();
        if kernel > 1 {
            return conv2d(x, self.scaled(), self.bias.as_ref().map(Param::val), same(kernel));
        }
        // As a matrix product: burn's gradient of a convolution's weight is a convolution with a kernel as large as the map.
        let [n, c, h, w] = x.dims();
        let weight: Tensor<3> = self.scaled().flatten::<2>(1, 3).unsqueeze();
        let out = weight.expand([n as i64, -1, -1]).matmul(x.reshape([n, c, h * w]));
        let [_, output, _] = out.dims();
        self.with_bias(out.reshape([n, output, h, w]))
    }

    /// Behind it the activation; where it `doubles`, with twice the height and width.
    fn activated(&self, x: Tensor<4>, doubles: bool) -> Tensor<4> {
        if !doubles {
            return activated(self.forward(x));
        }
        let out = depth_to_space(conv2d(x, self.scaled_to_double(), None, same(3)));
        activated(self.with_bias(out))
    }

    fn with_bias(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.bias {
            Some(bias) => x + bias.val().reshape([1, -1, 1, 1]),
            None => x,
        }
    }
}

fn same(kernel: usize) -> ConvOptions<2> {
    ConvOptions::new([1, 1], [kernel / 2, kernel / 2], [1, 1], 1)
}

/// Of one axis, normalised so that a constant stays what it is: stride 2 leaves every other cell empty.
const BLUR: [f32; 4] = [0.25, 0.75, 0.75, 0.25];

/// What a transposed 3x3 convolution of stride 2 with a blur of 1, 3, 3, 1 behind it makes of the weights of a 3x3 convolution, `[9,4·9]`: from a
/// tap of the one to the taps of four such convolutions, one a cell of every 2x2 block of the result.
fn doubling_taps() -> Vec<f32> {
    // Of an output cell 2q + parity the weight with which tap `k` reads input cell q + d - 1: cell i of the enlarged map is the sum over m of
    // blur[m] times cell i - 1 + m of the transposed convolution, whose cell 2q + k is the sum over its taps k.
    let one = |parity: usize, d: usize, k: usize| -> f32 {
        let reads = |&m: &usize| parity + m + 2 == 1 + k + 2 * d;
        (0..BLUR.len()).filter(reads).map(|m| BLUR[m]).sum()
    };
    let cells = || pairs(2).flat_map(|p| pairs(3).map(move |d| (p, d)));
    let of_tap = |(ky, kx)| cells().map(move |((py, px), (dy, dx))| one(py, dy, ky) * one(px, dx, kx));
    pairs(3).flat_map(of_tap).collect()
}

fn pairs(side: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    (0..side).flat_map(move |y| (0..side).map(move |x| (y, x)))
}

/// Of the shortcut of a doubling block: the shares with which the two cells of an axis read the cells before, at and behind theirs.
pub const SHARES: [[f32; 3]; 2] = [[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]];

/// Twice the height and width, bilinear, with zeros around the map.
fn doubled(x: Tensor<4>) -> Tensor<4> {
    let down = doubled_along(x, 2);
    doubled_along(down, 3)
}

fn doubled_along(x: Tensor<4>, axis: usize) -> Tensor<4> {
    let dims = x.dims();
    let length = dims[axis];
    let mut one = dims;
    one[axis] = 1;
    let zeros = Tensor::zeros(one, &x.device());
    let wide = Tensor::cat(vec![zeros.clone(), x, zeros], axis);
    let cells = SHARES.map(|shares| {
        let read = |(at, share): (usize, f32)| wide.clone().narrow(axis, at, length).mul_scalar(f64::from(share));
        let parts = shares.into_iter().enumerate().filter(|(_, share)| *share != 0.0).map(read);
        parts.reduce(|a, b| a + b).expect("a cell reads two")
    });
    let side_by_side: Tensor<5> = Tensor::stack(cells.to_vec(), axis + 1);
    let mut dims = dims;
    dims[axis] *= 2;
    side_by_side.reshape(dims)
}

/// What follows a convolution: its bias, then a LeakyReLU that keeps the variance.
fn activated(x: Tensor<4>) -> Tensor<4> {
    leaky_relu(x, SLOPE).mul_scalar(SQRT_2)
}

/// Convolution without bias, then a batch norm.
#[derive(Module, Debug)]
pub struct ConvNorm {
    pub conv: Conv2d,
    pub norm: BatchNorm,
}

impl ConvNorm {
    fn new([input, output]: [usize; 2], kernel: usize, stride: usize, epsilon: f64, device: &Device) -> ConvNorm {
        let pad = if stride > 1 { 0 } else { kernel / 2 };
        let conv = Conv2dConfig::new([input, output], [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false)
            .with_initializer(Initializer::KaimingNormal { gain: SQRT_2, fan_out_only: true })
            .init(device);
        ConvNorm { conv, norm: BatchNormConfig::new(output).with_epsilon(epsilon).init(device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

/// From the features of all scales to a style map each.
#[derive(Module, Debug)]
pub struct Fuser {
    /// For each scale the convolution that brings it to the deepest one's size.
    pub reduce: Vec<ConvNorm>,
    pub join: ConvNorm,
    pub bottleneck: Vec<ConvNorm>,
    /// Deepest first; the first convolution of all but the deepest doubles height and width.
    pub steps: Vec<Vec<EqualConv>>,
}

impl Fuser {
    fn new(scales: &[Scale], style: usize, device: &Device) -> Fuser {
        let deepest = scales.last().map_or(1, |s| s.stride);
        let reduce = |s: &Scale| {
            let factor = deepest / s.stride;
            ConvNorm::new([s.channels; 2], factor, factor, FUSER_EPSILON, device)
        };
        let all = scales.iter().map(|s| s.channels).sum();
        let narrow = style / NARROWER;
        let own = |widths: [usize; 2], kernel: usize| ConvNorm::new(widths, kernel, 1, EPSILON, device);
        let step = || (0..2).map(|_| EqualConv::new(style, style, 3, Some(0.0), device)).collect();
        Fuser {
            reduce: scales.iter().map(reduce).collect(),
            join: ConvNorm::new([all, style], 1, 1, FUSER_EPSILON, device),
            bottleneck: vec![own([style, narrow], 1), own([narrow, narrow], 3), own([narrow, style], 1)],
            steps: scales.iter().map(|_| step()).collect(),
        }
    }

    /// Style maps, deepest first.
    fn forward(&self, features: &[Tensor<4>]) -> Vec<Tensor<4>> {
        let reduced = self.reduce.iter().zip(features).map(|(conv, x)| conv.forward(x.clone())).collect();
        let mut x = relu(self.join.forward(Tensor::cat(reduced, 1)));
        let mut inner = x.clone();
        for (i, conv) in self.bottleneck.iter().enumerate() {
            inner = conv.forward(inner);
            if i + 1 < self.bottleneck.len() {
                inner = relu(inner);
            }
        }
        x = relu(inner + x);
        let mut styles = vec![];
        for (i, step) in self.steps.iter().enumerate() {
            for (j, conv) in step.iter().enumerate() {
                x = conv.activated(x, i > 0 && j == 0);
            }
            styles.push(x.clone());
        }
        styles
    }
}

/// Brings features to mean 0 and variance 1, and keeps what it found over the batches.
#[derive(Module, Debug)]
pub struct Norm {
    /// One a channel, or one for all.
    pub running_mean: RunningState<Tensor<1>>,
    pub running_variance: RunningState<Tensor<1>>,
    pub by_channel: bool,
}

impl Norm {
    fn new(channels: usize, by_channel: bool, device: &Device) -> Norm {
        let count = if by_channel { channels } else { 1 };
        Norm {
            running_mean: RunningState::new(Tensor::zeros([count], device)),
            running_variance: RunningState::new(Tensor::ones([count], device)),
            by_channel,
        }
    }

    /// Whether running statistics take the place of an image's own is for [`NormKind`] to say, which this does not know: by channel
    /// they always do where nothing is trained, over an image never.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let trained = x.device().is_autodiff();
        if self.by_channel && !trained {
            let stat = |state: &RunningState<Tensor<1>>| -> Tensor<4> {
                state.value().to_device(&x.device()).reshape([1, -1, 1, 1])
            };
            let (mean, variance) = (stat(&self.running_mean), stat(&self.running_variance));
            return (x - mean) / variance.add_scalar(EPSILON).sqrt();
        }
        let [n, c, h, w] = x.dims();
        // One row for each mean that is taken.
        let rows: Tensor<2> = match self.by_channel {
            true => x.permute([1, 0, 2, 3]).reshape([c, n * h * w]),
            false => x.reshape([n, c * h * w]),
        };
        let mean = rows.clone().mean_dim(1);
        let centred = rows - mean.clone();
        let variance = centred.clone().square().mean_dim(1);
        if trained {
            self.remember(mean, variance.clone());
        }
        let normal = centred / variance.add_scalar(EPSILON).sqrt();
        match self.by_channel {
            true => normal.reshape([c, n, h, w]).permute([1, 0, 2, 3]),
            false => normal.reshape([n, c, h, w]),
        }
    }

    /// `[rows,1]` each.
    fn remember(&self, mean: Tensor<2>, variance: Tensor<2>) {
        let over_images = |found: Tensor<2>| -> Tensor<1> {
            let found: Tensor<1> = found.detach().flatten(0, 1);
            if self.by_channel { found } else { found.mean() }
        };
        for (state, found) in [(&self.running_mean, mean), (&self.running_variance, variance)] {
            let found = over_images(found);
            let before = state.value_sync().to_device(&found.device());
            state.update((before.mul_scalar(1.0 - MOMENTUM) + found.mul_scalar(MOMENTUM)).detach());
        }
    }
}

/// A normalised, modulated convolution with its activation.
#[derive(Module, Debug)]
pub struct Styled {
    pub norm: Norm,
    /// From the latent to what every value is multiplied with; absent where nothing tells the convolution about the image.
    pub gamma: Option<EqualConv>,
    /// The same for what is added.
    pub beta: Option<EqualConv>,
    pub conv: EqualConv,
    /// Whether it doubles height and width.
    pub doubles: bool,
}

impl Styled {
    fn new([input, output]: [usize; 2], latent: usize, doubles: bool, by_channel: bool, device: &Device) -> Styled {
        let modulating = |initial: f64| (latent > 0).then(|| EqualConv::new(latent, input, 3, Some(initial), device));
        Styled {
            norm: Norm::new(input, by_channel, device),
            gamma: modulating(1.0),
            beta: modulating(0.0),
            conv: EqualConv::new(input, output, 3, Some(0.0), device),
            doubles,
        }
    }

    fn forward(&self, x: Tensor<4>, latent: &Tensor<4>) -> Tensor<4> {
        let mut x = self.norm.forward(x);
        if let (Some(gamma), Some(beta)) = (&self.gamma, &self.beta) {
            x = x * gamma.forward(latent.clone()) + beta.forward(latent.clone());
        }
        self.conv.activated(x, self.doubles)
    }
}

/// Two styled convolutions beside a shortcut.
#[derive(Module, Debug)]
pub struct Block {
    pub first: Styled,
    pub second: Styled,
    /// 1x1, without bias or activation.
    pub shortcut: EqualConv,
}

impl Block {
    fn forward(&self, x: Tensor<4>, latent: &Tensor<4>) -> Tensor<4> {
        let shortcut = self.shortcut.forward(x.clone());
        let shortcut = if self.first.doubles { doubled(shortcut) } else { shortcut };
        let x = self.second.forward(self.first.forward(x, latent), latent);
        (x + shortcut).div_scalar(SQRT_2)
    }
}

/// The part of the decoder that gives the features of one scale.
#[derive(Module, Debug)]
pub struct Stage {
    pub latent: Vec<EqualConv>,
    pub blocks: Vec<Block>,
}

/// From style maps to features.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[1,C,h,w]`, the same for every image.
    pub start: Param<Tensor<4>>,
    pub first: EqualConv,
    /// Deepest first.
    pub stages: Vec<Stage>,
}

impl Decoder {
    /// `grid` is height and width of the deepest scale.
    fn new(scales: &[Scale], grid: [usize; 2], config: &NetConfig, device: &Device) -> Decoder {
        let (style, latent, blocks) = config.resolve();
        let by_channel = config.norm == NormKind::Batch;
        let equal = |input: usize, output: usize| EqualConv::new(input, output, 3, Some(0.0), device);
        let mut before = scales.last().map_or(0, |s| s.channels);
        let start = Initializer::Normal { mean: 0.0, std: 1.0 }.init([1, before, grid[0], grid[1]], device);
        let first = equal(before, before);
        let mut stages = vec![];
        for (i, scale) in scales.iter().rev().enumerate() {
            let block = |k: usize| {
                let (input, doubles) = (if k == 0 { before } else { scale.channels }, i > 0 && k == 0);
                let modulating = if doubles { 0 } else { latent };
                Block {
                    first: Styled::new([input, scale.channels], modulating, doubles, by_channel, device),
                    second: Styled::new([scale.channels; 2], latent, false, by_channel, device),
                    shortcut: EqualConv::new(input, scale.channels, 1, None, device),
                }
            };
            let blocks = (0..blocks).map(block).collect();
            stages.push(Stage { latent: vec![equal(style, style), equal(style, latent)], blocks });
            before = scale.channels;
        }
        Decoder { start, first, stages }
    }

    /// What every image starts from, `[1,C,h,w]`.
    pub fn started(&self) -> Tensor<4> {
        self.first.activated(self.start.val(), false)
    }
}

/// Fuser and decoder.
#[derive(Module, Debug)]
pub struct InvadNet {
    /// From the features to style maps.
    pub fuser: Fuser,
    /// From style maps to features.
    pub decoder: Decoder,
}

impl InvadNet {
    /// Untrained, for features of `scales`, the finest first, of which the deepest has height and width `grid`. Each stride is twice
    /// the one before.
    pub fn new(config: &NetConfig, scales: &[Scale], grid: [usize; 2], device: &Device) -> InvadNet {
        let (style, ..) = config.resolve();
        InvadNet { fuser: Fuser::new(scales, style, device), decoder: Decoder::new(scales, grid, config, device) }
    }

    /// `features[i]` is `[N,C,h,w]`, the finest first; the result has the same shapes.
    pub fn forward(&self, features: &[Tensor<4>]) -> Vec<Tensor<4>> {
        let styles = self.fuser.forward(features);
        let mut x = self.decoder.started();
        let mut outputs = vec![];
        for (stage, style) in self.decoder.stages.iter().zip(styles) {
            let latent = stage.latent.iter().fold(style, |z, conv| conv.activated(z, false));
            x = stage.blocks.iter().fold(x, |x, block| block.forward(x, &latent));
            outputs.push(x.clone());
        }
        outputs.reverse();
        outputs
    }
}
