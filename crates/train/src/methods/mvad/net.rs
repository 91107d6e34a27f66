//! Attention across views, fuser and student, after the paper.
//!
//! ```text
//! s8  ─cross-view blocks─┬─3x3/2─┐                                   ┌─► s8'
//! s16 ─cross-view blocks─┼───1x1─+─3x3/2─┐                      double─► s16'
//! s32 ─cross-view blocks─┴──────────1x1──+─1x1─bottleneck─► blocks ─┴─► s32'
//! ```

use super::windows::{self, LookedAt};
use crate::backbones::Scale;
use crate::graph::CrossView;
use crate::methods::folding::depth_to_space;
use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::activation::{relu, softmax};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::{SQRT_2, TAU};

/// Of the norms over channels.
pub const EPSILON: f64 = 1e-6;
/// Of the positions' waves: the longest is so many times the shortest.
const TEMPERATURE: f64 = 1e4;

/// Widths and depths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// One block a scale, twice as wide inside; a student of 32 to 96 channels.
    Slim,
    /// The paper's: 1, 2, 4 blocks, four times as wide inside; a student as wide as the features, of 3, 4, 6 blocks, behind a bottleneck of half the deepest
    /// scale's height and width.
    Paper,
}

impl Size {
    /// Blocks of attention at the scale `i`, the finest first.
    fn blocks(self, i: usize) -> usize {
        if self == Size::Slim { 1 } else { 1 << i }
    }

    /// How much wider a block is inside.
    fn expansion(self) -> usize {
        if self == Size::Slim { 2 } else { 4 }
    }

    /// Channels of the student at the scale `i` of so many channels.
    fn width(self, i: usize, channels: usize) -> usize {
        if self == Size::Slim { 32 * (i + 1).min(3) } else { channels }
    }

    /// Blocks of the student at the scale `i` of `scales`: 3, 4, 6, the deepest first.
    fn student(self, i: usize, scales: usize) -> usize {
        if self == Size::Slim { 1 } else { [3, 4, 6][(scales - 1 - i).min(2)] }
    }
}

/// The networks' shape.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub size: Size,
    /// Share of what is dropped while training.
    pub dropout: f64,
    /// Whether a view is drawn from its own features too, or from what the others answer alone.
    pub own: bool,
}

/// Convolution without bias, then a batch norm.
#[derive(Module, Debug)]
pub struct ConvNorm {
    pub conv: Conv2d,
    pub norm: BatchNorm,
    /// Whether four channels become one of twice the height and width before the norm: a transposed 2x2 convolution of stride 2.
    pub doubles: bool,
}

impl ConvNorm {
    fn new([input, output]: [usize; 2], kernel: usize, stride: usize, device: &Device) -> ConvNorm {
        let pad = kernel / 2;
        let conv = Conv2dConfig::new([input, output], [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false)
            .with_initializer(Initializer::KaimingNormal { gain: SQRT_2, fan_out_only: true })
            .init(device);
        ConvNorm { conv, norm: BatchNormConfig::new(output).init(device), doubles: false }
    }

    fn doubling([input, output]: [usize; 2], device: &Device) -> ConvNorm {
        let conv = ConvNorm::new([input, 4 * output], 1, 1, device).conv;
        ConvNorm { conv, norm: BatchNormConfig::new(output).init(device), doubles: true }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv.forward(x);
        self.norm.forward(if self.doubles { depth_to_space(x) } else { x })
    }
}

/// Over the channels of every cell: mean 0, variance 1, then scale and offset.
#[derive(Module, Debug)]
pub struct ChannelNorm {
    pub scale: Param<Tensor<1>>,
    pub offset: Param<Tensor<1>>,
}

impl ChannelNorm {
    pub fn new(channels: usize, device: &Device) -> ChannelNorm {
        let constant = |value: f64| Initializer::Constant { value }.init([channels], device);
        ChannelNorm { scale: constant(1.0), offset: constant(0.0) }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mean = x.clone().mean_dim(1);
        let centred = x - mean;
        let variance = centred.clone().square().mean_dim(1);
        let standard = centred / variance.add_scalar(EPSILON).sqrt();
        standard * self.scale.val().reshape([1, -1, 1, 1]) + self.offset.val().reshape([1, -1, 1, 1])
    }
}

/// Attention over the other views and a small network for every cell, each beside a shortcut and with a norm behind it.
#[derive(Module, Debug)]
pub struct Block {
    pub asked: ChannelNorm,
    pub widen: Conv2d,
    pub narrow: Conv2d,
    pub told: ChannelNorm,
    pub dropout: f64,
    /// Whether what asked goes on beside the answer.
    pub keeps: bool,
}

impl Block {
    fn new(channels: usize, shape: &Shape, first: bool, device: &Device) -> Block {
        let inside = channels * shape.size.expansion();
        let linear = |input: usize, output: usize| Conv2dConfig::new([input, output], [1, 1]).init(device);
        Block {
            asked: ChannelNorm::new(channels, device),
            widen: linear(channels, inside),
            narrow: linear(inside, channels),
            told: ChannelNorm::new(channels, device),
            dropout: shape.dropout,
            keeps: shape.own || !first,
        }
    }

    fn forward(&self, x: Tensor<4>, position: &Tensor<4>, others: &LookedAt, how: CrossView) -> Tensor<4> {
        let answered = attention(x.clone() + position.clone(), others, how);
        let x = match self.keeps {
            true => self.asked.forward(x + self.kept(answered, true)),
            false => self.asked.forward(answered),
        };
        let inner = relu(self.widen.forward(x.clone()));
        let inner = self.narrow.forward(self.kept(inner, false));
        let inner = self.kept(self.kept(inner, false), true);
        self.told.forward(x + inner)
    }

    /// While training, some of the values are dropped, or all of some images.
    fn kept(&self, x: Tensor<4>, whole_images: bool) -> Tensor<4> {
        let device = x.device();
        if self.dropout == 0.0 || !device.is_autodiff() {
            return x;
        }
        let [n, c, h, w] = x.dims();
        let dims = if whole_images { [n, 1, 1, 1] } else { [n, c, h, w] };
        let keep = Tensor::<4>::random(dims, Distribution::Bernoulli(1.0 - self.dropout), &device);
        x * keep.div_scalar(1.0 - self.dropout)
    }
}

/// What the others' cells answer to `asking`, `[N,C,h,w]`.
pub fn attention(asking: Tensor<4>, others: &LookedAt, how: CrossView) -> Tensor<4> {
    let shape = asking.dims();
    let beside = |t: &Tensor<4>| if asking.device().is_autodiff() { Tensor::from_inner(t.clone()) } else { t.clone() };
    let (keys, mask) = (beside(&others.keys), beside(&others.mask));
    let queries = windows::heads(windows::windows(asking, how), how.heads);
    let products = queries.matmul(keys.clone().transpose()).mul_scalar((shape[1] as f64).powf(-0.5));
    let sums = softmax(products + mask, 3).matmul(keys);
    let [windows, heads, cells, channels] = sums.dims();
    let cells_first: Tensor<3> = sums.permute([0, 2, 1, 3]).reshape([windows, cells, heads * channels]);
    windows::map(cells_first, how, shape)
}

/// `[1,C,h,w]`: half of the channels say how far down a cell lies, the others how far across, as sines and cosines of waves of many lengths.
pub fn positions([channels, h, w]: [usize; 3]) -> Vec<f32> {
    let half = channels / 2;
    let value = |c: usize, at: usize, length: usize| {
        let (c, side) = if c < half { (c, half) } else { (c - half, channels - half) };
        let along = (at + 1) as f64 / length as f64 * TAU;
        let angle = along / TEMPERATURE.powf((2 * (c / 2)) as f64 / side as f64);
        (if c.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
    };
    let of_channel = |c: usize| {
        (0..h).flat_map(move |y| (0..w).map(move |x| if c < half { value(c, y, h) } else { value(c, x, w) }))
    };
    (0..channels).flat_map(of_channel).collect()
}

/// From the features of all scales to a few channels of the deepest one's size, or in the paper's size of half its height and width.
#[derive(Module, Debug)]
pub struct Fuser {
    /// Of all scales but the finest.
    pub join: Vec<ConvNorm>,
    /// Of all scales but the deepest, to the size of the next.
    pub reduce: Vec<ConvNorm>,
    pub mix: ConvNorm,
    pub bottlenecks: Vec<Bottleneck>,
}

/// Three convolutions, the middle one narrow, beside a shortcut, which is a convolution where the shape changes.
#[derive(Module, Debug)]
pub struct Bottleneck {
    pub convs: Vec<ConvNorm>,
    pub shortcut: Option<ConvNorm>,
}

impl Bottleneck {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut inner = x.clone();
        for (i, conv) in self.convs.iter().enumerate() {
            inner = conv.forward(inner);
            if i + 1 < self.convs.len() {
                inner = relu(inner);
            }
        }
        let shortcut = self.shortcut.as_ref().map_or(x.clone(), |conv| conv.forward(x));
        relu(inner + shortcut)
    }
}

impl Fuser {
    fn new(scales: &[Scale], size: Size, device: &Device) -> Fuser {
        let deepest = scales.last().map_or(1, |s| s.channels);
        let conv = |widths: [usize; 2], kernel: usize, stride: usize| ConvNorm::new(widths, kernel, stride, device);
        let bottlenecks = match size {
            Size::Slim => vec![],
            Size::Paper => (0..3)
                .map(|i| {
                    let (input, stride) = if i == 0 { (deepest, 2) } else { (2 * deepest, 1) };
                    let (inside, output) = (deepest / 2, 2 * deepest);
                    Bottleneck {
                        convs: vec![
                            conv([input, inside], 1, 1),
                            conv([inside, inside], 3, stride),
                            conv([inside, output], 1, 1),
                        ],
                        shortcut: (i == 0).then(|| conv([input, output], 1, stride)),
                    }
                })
                .collect(),
        };
        let mixed = if size == Size::Slim { size.width(scales.len() - 1, deepest) } else { deepest };
        Fuser {
            join: scales.iter().skip(1).map(|s| conv([s.channels; 2], 1, 1)).collect(),
            reduce: scales.windows(2).map(|pair| conv([pair[0].channels, pair[1].channels], 3, 2)).collect(),
            mix: conv([deepest, mixed], 1, 1),
            bottlenecks,
        }
    }

    fn forward(&self, features: &[Tensor<4>]) -> Tensor<4> {
        let mut x = features[0].clone();
        for ((reduce, join), finer) in self.reduce.iter().zip(&self.join).zip(&features[1..]) {
            x = relu(reduce.forward(x)) + relu(join.forward(finer.clone()));
        }
        let mixed = relu(self.mix.forward(x));
        self.bottlenecks.iter().fold(mixed, |x, block| block.forward(x))
    }
}

/// Two convolutions beside a shortcut; the first and the shortcut double height and width where there is one that does.
#[derive(Module, Debug)]
pub struct Basic {
    pub first: ConvNorm,
    pub second: ConvNorm,
    pub shortcut: Option<ConvNorm>,
}

impl Basic {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = self.second.forward(relu(self.first.forward(x.clone())));
        let shortcut = self.shortcut.as_ref().map_or(x.clone(), |conv| conv.forward(x));
        relu(inner + shortcut)
    }
}

/// The part of the student that gives the features of one scale.
#[derive(Module, Debug)]
pub struct Stage {
    pub blocks: Vec<Basic>,
    /// Where the student is narrower than the features.
    pub widen: Option<Conv2d>,
}

/// All that is learned.
#[derive(Module, Debug)]
pub struct MvadNet {
    /// Of each scale, the finest first.
    pub attention: Vec<Vec<Block>>,
    pub fuser: Fuser,
    /// Deepest first.
    pub student: Vec<Stage>,
}

impl MvadNet {
    /// Untrained, for features of `scales`, the finest first, each of twice the stride of the one before.
    pub fn new(scales: &[Scale], shape: &Shape, device: &Device) -> MvadNet {
        let size = shape.size;
        let blocks = |(i, s): (usize, &Scale)| {
            (0..size.blocks(i)).map(|k| Block::new(s.channels, shape, k == 0, device)).collect()
        };
        let mut before = match size {
            Size::Slim => size.width(scales.len() - 1, 0),
            Size::Paper => 2 * scales.last().map_or(1, |s| s.channels),
        };
        let mut student = vec![];
        for (i, scale) in scales.iter().enumerate().rev() {
            let width = size.width(i, scale.channels);
            // A slim one begins at the deepest scale's own size.
            let doubles = size == Size::Paper || i + 1 < scales.len();
            let basic = |k: usize| {
                let input = if k == 0 { before } else { width };
                let changes = k == 0 && (doubles || input != width);
                let enter = |kernel: usize| match k == 0 && doubles {
                    true => ConvNorm::doubling([input, width], device),
                    false => ConvNorm::new([input, width], kernel, 1, device),
                };
                Basic {
                    first: enter(3),
                    second: ConvNorm::new([width, width], 3, 1, device),
                    shortcut: changes.then(|| enter(1)),
                }
            };
            let blocks = (0..size.student(i, scales.len())).map(basic).collect();
            let widen = (size == Size::Slim).then(|| Conv2dConfig::new([width, scale.channels], [1, 1]).init(device));
            student.push(Stage { blocks, widen });
            before = width;
        }
        MvadNet {
            attention: scales.iter().enumerate().map(blocks).collect(),
            fuser: Fuser::new(scales, size, device),
            student,
        }
    }

    /// `features[i]` is `[N,C,h,w]`, the finest first; `others` and `windows` are of the same scales. The result has the features' shapes.
    pub fn forward(&self, features: &[Tensor<4>], others: &[LookedAt], windows: &[CrossView]) -> Vec<Tensor<4>> {
        let scales = self.attention.iter().zip(features).zip(others).zip(windows);
        let beside: Vec<Tensor<4>> = scales
            .map(|(((blocks, x), others), &how)| {
                let [_, c, h, w] = x.dims();
                let position = TensorData::new(positions([c, h, w]), [1, c, h, w]);
                let position = Tensor::from_data(position, &x.device());
                blocks.iter().fold(x.clone(), |x, block| block.forward(x, &position, others, how))
            })
            .collect();
        let mut x = self.fuser.forward(&beside);
        let mut outputs = vec![];
        for stage in &self.student {
            x = stage.blocks.iter().fold(x, |x, block| block.forward(x));
            outputs.push(stage.widen.as_ref().map_or(x.clone(), |conv| conv.forward(x.clone())));
        }
        outputs.reverse();
        outputs
    }
}
