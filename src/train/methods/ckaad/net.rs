//! The auto-encoder: fusion encoder and mirrored decoder (paper: section 3.2; batch norm, so that it folds for int8).
//!
//! ```text
//! s4 ─3x3/2─3x3/2─┐
//! s8 ──────3x3/2──┼─concat─[residual block /2]─ bottleneck ─[up]─┬─[up]─┬─[up]─┐
//! s16 ───────1x1──┘                                            s16'    s8'    s4'
//! ```

use super::export::Fold;
use crate::train::backbones::Scale;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Widths of the auto-encoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetConfig {
    /// Channels inside encoder and decoder at each scale, the finest first.
    pub widths: Vec<usize>,
    /// Channels of the bottleneck, at half the deepest scale's resolution.
    pub bottleneck: usize,
}

impl Default for NetConfig {
    fn default() -> Self {
        NetConfig { widths: vec![64, 96], bottleneck: 192 }
    }
}

/// Convolution without bias, then batch norm.
#[derive(Module, Debug)]
pub struct ConvNorm {
    pub conv: Conv2d,
    pub norm: BatchNorm,
}

impl ConvNorm {
    fn new(input: usize, output: usize, kernel: usize, stride: usize, device: &Device) -> ConvNorm {
        let pad = kernel / 2;
        let conv = Conv2dConfig::new([input, output], [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false)
            .with_initializer(Initializer::KaimingNormal { gain: 2f64.sqrt(), fan_out_only: true })
            .init(device);
        ConvNorm { conv, norm: BatchNormConfig::new(output).init(device) }
    }

    /// `[N,C,H,W]` → `[N,output,H/stride,W/stride]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

/// Basic residual block (He et al. 2016) that halves the resolution (the first convolution has stride 2), or doubles it
/// (nearest neighbour behind the first convolution: the channels shrink where the pixels are few, as with the paper's
/// transposed convolution, and int8 needs no operator of its own).
#[derive(Module, Debug)]
pub struct Block {
    pub first: ConvNorm,
    pub second: ConvNorm,
    pub shortcut: ConvNorm,
    pub up: bool,
}

impl Block {
    fn new(input: usize, output: usize, up: bool, device: &Device) -> Block {
        let stride = if up { 1 } else { 2 };
        Block {
            first: ConvNorm::new(input, output, 3, stride, device),
            second: ConvNorm::new(output, output, 3, 1, device),
            shortcut: ConvNorm::new(input, output, 1, stride, device),
            up,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = self.shortcut.forward(x.clone());
        let x = relu(self.first.forward(x));
        let (x, shortcut) = if self.up { (upsample2(x), upsample2(shortcut)) } else { (x, shortcut) };
        relu(self.second.forward(x) + shortcut)
    }
}

fn upsample2(x: Tensor<4>) -> Tensor<4> {
    interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]))
}

#[derive(Module, Debug)]
pub struct AutoEncoder {
    /// For each scale the convolutions that bring it to the deepest one's size.
    pub reduce: Vec<Vec<ConvNorm>>,
    pub fuse: Block,
    /// Deepest first.
    pub stages: Vec<Block>,
    /// To the features' channels; deepest first.
    pub heads: Vec<Conv2d>,
}

impl AutoEncoder {
    pub fn new(config: &NetConfig, scales: &[Scale], device: &Device) -> AutoEncoder {
        let widths = &config.widths;
        let deepest = scales.len() - 1;
        let reduce = (0..scales.len())
            .map(|i| {
                if i == deepest {
                    return vec![ConvNorm::new(scales[i].channels, widths[i], 1, 1, device)];
                }
                let mut channels = scales[i].channels;
                (i..deepest)
                    .map(|step| {
                        let conv = ConvNorm::new(channels, widths[step + 1], 3, 2, device);
                        channels = widths[step + 1];
                        conv
                    })
                    .collect()
            })
            .collect();
        let fused = widths[deepest] * scales.len();
        let mut channels = config.bottleneck;
        let (mut stages, mut heads) = (vec![], vec![]);
        for i in (0..scales.len()).rev() {
            stages.push(Block::new(channels, widths[i], true, device));
            heads.push(Conv2dConfig::new([widths[i], scales[i].channels], [1, 1]).init(device));
            channels = widths[i];
        }
        AutoEncoder { reduce, fuse: Block::new(fused, config.bottleneck, false, device), stages, heads }
    }

    /// `features[i]` is `[N,channels_i,H/stride_i,W/stride_i]`, the finest first; the result has the same shapes.
    pub fn forward(&self, features: &[Tensor<4>]) -> Vec<Tensor<4>> {
        let reduced = self
            .reduce
            .iter()
            .zip(features)
            .map(|(convs, x)| convs.iter().fold(x.clone(), |x, conv| relu(conv.forward(x))));
        let mut x = self.fuse.forward(Tensor::cat(reduced.collect(), 1));
        let mut outputs = vec![];
        for (stage, head) in self.stages.iter().zip(&self.heads) {
            x = stage.forward(x);
            outputs.push(head.forward(x.clone()));
        }
        outputs.reverse();
        outputs
    }

    /// The same network as graph nodes behind the extractor's `features`.
    pub fn append(&self, fold: &mut Fold, features: &[usize]) -> Vec<usize> {
        let mut reduced = vec![];
        for (i, convs) in self.reduce.iter().enumerate() {
            let mut x = features[i];
            for (j, conv) in convs.iter().enumerate() {
                x = fold.conv_norm(&format!("reduce.{i}.{j}"), x, conv, true);
            }
            reduced.push(x);
        }
        let fused = fold.graph.concat("fuse.concat", reduced);
        let mut x = fold.block("fuse", fused, &self.fuse);
        let mut outputs = vec![];
        for (i, (stage, head)) in self.stages.iter().zip(&self.heads).enumerate() {
            x = fold.block(&format!("stage.{i}"), x, stage);
            outputs.push(fold.conv(&format!("head.{i}"), x, head));
        }
        outputs.reverse();
        outputs
    }
}
