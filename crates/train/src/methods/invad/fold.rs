//! The trained networks as graph nodes: norms and constant factors folded into convolutions, what is the same for every image computed once.

use super::net::{Block, ConvNorm, EPSILON, EqualConv, InvadNet, NormKind, SHARES, SLOPE, Styled};
use crate::graph::{Activation, Conv, Graph, Id};
use crate::methods::folding::{padded, values, with_batch_norm};
use burn::prelude::*;
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

/// Appends networks to a graph.
pub struct Fold<'a> {
    /// What is appended to.
    pub graph: &'a mut Graph,
    /// What the decoder normalises over.
    pub norm: NormKind,
}

/// Mean and one over the deviation of every channel, as training left them.
struct Statistics {
    mean: Vec<f32>,
    inverse: Vec<f32>,
}

impl Fold<'_> {
    /// The networks behind the extractor's `taps`: one prediction a tap.
    pub fn predictions(&mut self, net: &InvadNet, taps: &[Id]) -> Vec<Id> {
        let styles = self.styles(net, taps);
        let mut x = None;
        let mut outputs = vec![];
        for (i, (stage, style)) in net.decoder.stages.iter().zip(styles).enumerate() {
            let latents = stage.latent.iter().enumerate();
            let latent = latents.fold(style, |z, (j, module)| {
                self.activated(&format!("invad.{i}.latent.{j}"), z, module, false, SQRT_2)
            });
            for (k, block) in stage.blocks.iter().enumerate() {
                let name = format!("invad.{i}.{k}");
                x = Some(match x {
                    None => self.first_block(&name, net.decoder.started(), latent, block),
                    Some(x) => self.block(&name, x, latent, block),
                });
            }
            outputs.extend(x);
        }
        outputs.reverse();
        outputs
    }

    /// Deepest first.
    fn styles(&mut self, net: &InvadNet, taps: &[Id]) -> Vec<Id> {
        let fuser = &net.fuser;
        let reduced = fuser.reduce.iter().zip(taps).enumerate();
        let reduced = reduced
            .map(|(i, (module, &tap))| self.conv_norm(&format!("invad.reduce.{i}"), tap, module, Activation::Linear));
        let reduced = reduced.collect();
        let all = self.graph.concat("invad.reduced", reduced);
        let joined = self.conv_norm("invad.join", all, &fuser.join, Activation::Relu);
        let (mut x, last) = (joined, fuser.bottleneck.len() - 1);
        for (i, module) in fuser.bottleneck.iter().enumerate() {
            let activation = if i == last { Activation::Linear } else { Activation::Relu };
            x = self.conv_norm(&format!("invad.bottleneck.{i}"), x, module, activation);
        }
        x = self.graph.add("invad.bottleneck.sum", x, joined, Activation::Relu);
        let mut styles = vec![];
        for (i, step) in fuser.steps.iter().enumerate() {
            for (j, module) in step.iter().enumerate() {
                x = self.activated(&format!("invad.style.{i}.{j}"), x, module, i > 0 && j == 0, SQRT_2);
            }
            styles.push(x);
        }
        styles
    }

    fn conv_norm(&mut self, name: &str, input: Id, module: &ConvNorm, activation: Activation) -> Id {
        let mut conv = with_batch_norm(&module.conv, &module.norm, activation);
        if conv.stride > 1 {
            conv.pads = [0; 4];
        }
        self.graph.conv(name, input, conv)
    }

    /// A convolution, its bias and its LeakyReLU, times `gain`.
    fn activated(&mut self, name: &str, input: Id, module: &EqualConv, doubles: bool, gain: f32) -> Id {
        let weight = if doubles { module.scaled_to_double() } else { module.scaled() };
        // As often as the cells of a doubled pixel.
        let bias = bias(module).repeat(if doubles { 4 } else { 1 });
        let conv = plain(weight, bias, gain);
        let x = self.graph.conv(name, input, conv);
        let x = self.graph.leaky_relu(format!("{name}.activation"), x, SLOPE as f32);
        if doubles { self.graph.depth_to_space2(format!("{name}.doubled"), x) } else { x }
    }

    /// Of what every image starts from, `[1,C,h,w]`.
    fn first_block(&mut self, name: &str, start: Tensor<4>, latent: Id, block: &Block) -> Id {
        let shortcut = block.shortcut.forward(start.clone());
        let shortcut = self.constant(&format!("{name}.shortcut"), shortcut, FRAC_1_SQRT_2);
        let normal = self.constant(&format!("{name}.first.constant"), block.first.norm.forward(start), 1.0);
        let modulated = self.modulated(&format!("{name}.first"), normal, latent, &block.first, None);
        self.behind_first(name, modulated, shortcut, latent, block)
    }

    fn block(&mut self, name: &str, x: Id, latent: Id, block: &Block) -> Id {
        let shortcut = self.shortcut(&format!("{name}.shortcut"), x, block);
        let modulated = self.normalised(&format!("{name}.first"), x, latent, &block.first);
        self.behind_first(name, modulated, shortcut, latent, block)
    }

    /// All of a block behind what its first convolution reads.
    fn behind_first(&mut self, name: &str, modulated: Id, shortcut: Id, latent: Id, block: &Block) -> Id {
        let Block { first, second, .. } = block;
        let inner = self.activated(&format!("{name}.first"), modulated, &first.conv, first.doubles, SQRT_2);
        let modulated = self.normalised(&format!("{name}.second"), inner, latent, second);
        // The sum is divided by the root of 2, so this activation's gain goes.
        let inner = self.activated(&format!("{name}.second"), modulated, &second.conv, second.doubles, 1.0);
        self.graph.add(format!("{name}.sum"), inner, shortcut, Activation::Linear)
    }

    /// Over the root of 2.
    fn shortcut(&mut self, name: &str, x: Id, block: &Block) -> Id {
        let module = &block.shortcut;
        let conv = plain(module.scaled(), bias(module), FRAC_1_SQRT_2);
        if !block.first.doubles {
            return self.graph.conv(name, x, conv);
        }
        // Each cell of a doubled pixel is a mean of neighbours: four copies of the channels, each with its own.
        let conv = Conv { weight: conv.weight.repeat(4), bias: conv.bias.repeat(4), out: 4 * conv.out, ..conv };
        let channels = conv.out;
        let copies = self.graph.conv(format!("{name}.copies"), x, conv);
        let cells = SHARES.iter().flat_map(|down| SHARES.iter().map(move |across| (down, across)));
        let kernels = cells.map(|(down, across)| -> Vec<f32> {
            down.iter().flat_map(|a| across.iter().map(move |b| a * b)).collect()
        });
        let weight = kernels.flat_map(|kernel| kernel.repeat(channels / 4)).collect();
        let means = self.graph.conv(name, copies, by_channel(weight, vec![0.0; channels], 3));
        self.graph.depth_to_space2(format!("{name}.doubled"), means)
    }

    /// As the module's norm says, then [`Fold::modulated`].
    fn normalised(&mut self, name: &str, x: Id, latent: Id, module: &Styled) -> Id {
        if self.norm == NormKind::Layer {
            let normal = self.graph.layer_norm(format!("{name}.norm"), x, EPSILON as f32);
            return self.modulated(name, normal, latent, module, None);
        }
        let [channels, ..] = self.graph.shape(x);
        self.modulated(name, x, latent, module, Some(statistics(module, channels)))
    }

    /// What is to be normalised by `statistics`, or is normal already, scaled and moved as the latent says.
    fn modulated(&mut self, name: &str, x: Id, latent: Id, module: &Styled, statistics: Option<Statistics>) -> Id {
        let (Some(gamma), Some(beta)) = (&module.gamma, &module.beta) else {
            return match statistics {
                Some(Statistics { mean, inverse }) => self.graph.conv(format!("{name}.norm"), x, affine(mean, inverse)),
                None => x,
            };
        };
        let mut gamma = plain(gamma.scaled(), bias(gamma), 1.0);
        let mut beta = plain(beta.scaled(), bias(beta), 1.0);
        if let Some(Statistics { mean, inverse }) = statistics {
            // (x - mean)·inverse·γ + β is x·(inverse·γ) + (β - mean·inverse·γ), and γ and β are made of the same latent.
            let row = gamma.weight.len() / gamma.out;
            for channel in 0..gamma.out {
                let (mean, inverse, weights) = (mean[channel], inverse[channel], channel * row..(channel + 1) * row);
                gamma.weight[weights.clone()].iter_mut().for_each(|w| *w *= inverse);
                gamma.bias[channel] *= inverse;
                beta.bias[channel] -= mean * gamma.bias[channel];
                for at in weights {
                    beta.weight[at] -= mean * gamma.weight[at];
                }
            }
        }
        let gamma = self.graph.conv(format!("{name}.gamma"), latent, gamma);
        let beta = self.graph.conv(format!("{name}.beta"), latent, beta);
        self.graph.modulate(format!("{name}.modulated"), x, gamma, beta)
    }

    fn constant(&mut self, name: &str, tensor: Tensor<4>, gain: f32) -> Id {
        let (mut numbers, dims) = values(tensor);
        numbers.iter_mut().for_each(|value| *value *= gain);
        self.graph.constant(name, [dims[1], dims[2], dims[3]], numbers)
    }
}

fn bias(module: &EqualConv) -> Vec<f32> {
    let zeros = || vec![0.0; module.weight.val().dims()[0]];
    module.bias.as_ref().map_or_else(zeros, |bias| values(bias.val()).0)
}

/// Everything times `gain`.
fn plain(weight: Tensor<4>, bias: Vec<f32>, gain: f32) -> Conv {
    let (weight, dims) = values(weight);
    let times = |all: Vec<f32>| all.into_iter().map(|value| value * gain).collect();
    padded(times(weight), times(bias), &dims, 1, Activation::Linear)
}

/// A convolution of every channel by itself.
fn by_channel(weight: Vec<f32>, bias: Vec<f32>, kernel: usize) -> Conv {
    let channels = bias.len();
    Conv {
        weight,
        bias,
        out: channels,
        kernel,
        stride: 1,
        pads: [kernel / 2; 4],
        groups: channels,
        activation: Activation::Linear,
    }
}

/// `(x - mean) · inverse` of every channel.
fn affine(mean: Vec<f32>, inverse: Vec<f32>) -> Conv {
    let bias = mean.iter().zip(&inverse).map(|(mean, inverse)| -mean * inverse).collect();
    by_channel(inverse, bias, 1)
}

fn statistics(module: &Styled, channels: usize) -> Statistics {
    let all = |found: Vec<f32>| if found.len() == 1 { found.repeat(channels) } else { found };
    let mean = all(values(module.norm.running_mean.value_sync()).0);
    let variance = all(values(module.norm.running_variance.value_sync()).0);
    Statistics { mean, inverse: variance.iter().map(|v| 1.0 / (v + EPSILON as f32).sqrt()).collect() }
}
