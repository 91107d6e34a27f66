//! The auto-encoder: fusion encoder and mirrored decoder (paper: section 3.2).
//!
//! ```text
//! s4 ─3x3/2─3x3/2─┐
//! s8 ──────3x3/2──┼─concat─[residual blocks /2]─ bottleneck ─[up]─┬─[up]─┬─[up]─┐
//! s16 ───────1x1──┘                                             s16'    s8'    s4'
//! ```
//! The paper normalises by instance; batch norm folds into the convolutions, which int8 chains need, and is the
//! default.

use crate::backbones::Scale;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, InstanceNorm, InstanceNormConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The auto-encoder's shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetConfig {
    /// Widths that fit a device; `widths` and `bottleneck` override it.
    pub size: Size,
    /// Channels inside encoder and decoder at each scale, the finest first; empty takes them from `size`.
    pub widths: Vec<usize>,
    /// Channels of the bottleneck, at half the deepest scale's resolution; 0 takes them from `size`.
    pub bottleneck: usize,
    /// Residual blocks of every stage.
    pub blocks: usize,
    /// What follows each convolution.
    pub norm: NormKind,
}

impl Default for NetConfig {
    fn default() -> Self {
        NetConfig { size: Size::Base, widths: vec![], bottleneck: 0, blocks: 1, norm: NormKind::Batch }
    }
}

/// Widths where the config names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// 16 to 48 channels.
    Tiny,
    /// 24 to 96 channels.
    Small,
    /// 48 to 192 channels.
    Base,
    /// The paper's ResNet18: 64, 128, 256 and 512.
    Paper,
}

/// Over what a channel is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// The batch; folded into the convolution in the end.
    Batch,
    /// The image, also on the device.
    Instance,
}

impl NetConfig {
    /// One width a scale, and the bottleneck's.
    pub fn resolve(&self, scales: &[Scale]) -> (Vec<usize>, usize) {
        let (finest, bottleneck) = match self.size {
            Size::Tiny => ([16, 24, 32], 48),
            Size::Small => ([24, 32, 48], 96),
            Size::Base => ([48, 64, 96], 192),
            Size::Paper => ([64, 128, 256], 512),
        };
        let of_stride = |s: &Scale| finest[(s.stride.ilog2() as usize).saturating_sub(2).min(2)];
        let widths = if self.widths.is_empty() { scales.iter().map(of_stride).collect() } else { self.widths.clone() };
        (widths, if self.bottleneck == 0 { bottleneck } else { self.bottleneck })
    }
}

/// Convolution without bias, then a normalisation: one of the two is there.
#[derive(Module, Debug)]
pub struct ConvNorm {
    pub conv: Conv2d,
    pub batch: Option<BatchNorm>,
    pub instance: Option<InstanceNorm>,
}

impl ConvNorm {
    /// Fresh weights.
    pub fn new(input: usize, output: usize, kernel: usize, stride: usize, norm: NormKind, device: &Device) -> ConvNorm {
        let pad = kernel / 2;
        let conv = Conv2dConfig::new([input, output], [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false)
            .with_initializer(Initializer::KaimingNormal { gain: 2f64.sqrt(), fan_out_only: true })
            .init(device);
        let by_batch = norm == NormKind::Batch;
        ConvNorm {
            conv,
            batch: by_batch.then(|| BatchNormConfig::new(output).init(device)),
            instance: (!by_batch).then(|| InstanceNormConfig::new(output).init(device)),
        }
    }

    /// `[N,C,H,W]` → `[N,output,H/stride,W/stride]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv.forward(x);
        match (&self.batch, &self.instance) {
            (Some(norm), _) => norm.forward(x),
            (None, Some(norm)) => norm.forward(x),
            (None, None) => x,
        }
    }
}

/// What a block does to the resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// The first convolution has stride 2.
    Halve,
    Keep,
    /// Nearest neighbour behind the first convolution: the channels shrink where the pixels are few, as with the
    /// paper's transposed convolution, and int8 needs no operator of its own.
    Double,
}

/// Basic residual block (He et al. 2016).
#[derive(Module, Debug)]
pub struct Block {
    pub first: ConvNorm,
    pub second: ConvNorm,
    /// `None` where the input can be added as it is.
    pub shortcut: Option<ConvNorm>,
    pub up: bool,
}

impl Block {
    fn new(input: usize, output: usize, resample: Resample, norm: NormKind, device: &Device) -> Block {
        let stride = if resample == Resample::Halve { 2 } else { 1 };
        let shortcut = resample != Resample::Keep || input != output;
        Block {
            first: ConvNorm::new(input, output, 3, stride, norm, device),
            second: ConvNorm::new(output, output, 3, 1, norm, device),
            shortcut: shortcut.then(|| ConvNorm::new(input, output, 1, stride, norm, device)),
            up: resample == Resample::Double,
        }
    }

    /// `count` blocks, of which the first resamples.
    fn stage(
        count: usize,
        input: usize,
        output: usize,
        first: Resample,
        norm: NormKind,
        device: &Device,
    ) -> Vec<Block> {
        let block = |i: usize| match i {
            0 => Block::new(input, output, first, norm, device),
            _ => Block::new(output, output, Resample::Keep, norm, device),
        };
        (0..count).map(block).collect()
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.shortcut {
            Some(conv) => conv.forward(x.clone()),
            None => x.clone(),
        };
        let x = relu(self.first.forward(x));
        let (x, shortcut) = if self.up { (upsample2(x), upsample2(shortcut)) } else { (x, shortcut) };
        relu(self.second.forward(x) + shortcut)
    }
}

fn upsample2(x: Tensor<4>) -> Tensor<4> {
    interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]))
}

/// Reconstructs the features of every scale out of one narrow map.
#[derive(Module, Debug)]
pub struct AutoEncoder {
    /// For each scale the convolutions that bring it to the deepest one's size.
    pub reduce: Vec<Vec<ConvNorm>>,
    /// The bottleneck.
    pub fuse: Vec<Block>,
    /// Deepest first.
    pub stages: Vec<Vec<Block>>,
    /// To the features' channels; deepest first.
    pub heads: Vec<Conv2d>,
}

impl AutoEncoder {
    /// Fresh weights.
    pub fn new(config: &NetConfig, scales: &[Scale], device: &Device) -> AutoEncoder {
        let (widths, bottleneck) = config.resolve(scales);
        let norm = config.norm;
        let deepest = scales.len() - 1;
        let reduce = (0..scales.len())
            .map(|i| {
                if i == deepest {
                    return vec![ConvNorm::new(scales[i].channels, widths[i], 1, 1, norm, device)];
                }
                let mut channels = scales[i].channels;
                (i..deepest)
                    .map(|step| {
                        let conv = ConvNorm::new(channels, widths[step + 1], 3, 2, norm, device);
                        channels = widths[step + 1];
                        conv
                    })
                    .collect()
            })
            .collect();
        let fused = widths[deepest] * scales.len();
        let fuse = Block::stage(config.blocks, fused, bottleneck, Resample::Halve, norm, device);
        let mut channels = bottleneck;
        let (mut stages, mut heads) = (vec![], vec![]);
        for i in (0..scales.len()).rev() {
            stages.push(Block::stage(config.blocks, channels, widths[i], Resample::Double, norm, device));
            heads.push(Conv2dConfig::new([widths[i], scales[i].channels], [1, 1]).init(device));
            channels = widths[i];
        }
        AutoEncoder { reduce, fuse, stages, heads }
    }

    /// `features[i]` is `[N,channels_i,H/stride_i,W/stride_i]`, the finest first; the result has the same shapes.
    pub fn forward(&self, features: &[Tensor<4>]) -> Vec<Tensor<4>> {
        let reduced = self
            .reduce
            .iter()
            .zip(features)
            .map(|(convs, x)| convs.iter().fold(x.clone(), |x, conv| relu(conv.forward(x))));
        let through = |x, blocks: &[Block]| blocks.iter().fold(x, |x, block| block.forward(x));
        let mut x = through(Tensor::cat(reduced.collect(), 1), &self.fuse);
        let mut outputs = vec![];
        for (stage, head) in self.stages.iter().zip(&self.heads) {
            x = through(x, stage);
            outputs.push(head.forward(x.clone()));
        }
        outputs.reverse();
        outputs
    }
}
