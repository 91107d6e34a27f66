//! The trained modules as graph nodes, batch norms folded.

use super::discriminator::PatchDiscriminator;
use super::net::{AutoEncoder, Block, ConvNorm};
use crate::graph::{Activation, Conv, EnergyHead, Graph, Id, InstanceNorm, Joint};
use crate::methods::folding::{padded, values, with_batch_norm, with_bias};
use burn::nn::conv::Conv2d;
use burn::prelude::*;

/// Appends modules to a graph.
pub struct Fold<'a> {
    /// What is appended to.
    pub graph: &'a mut Graph,
    /// What the names of the auto-encoder's nodes begin with; a model may have two of them.
    pub prefix: &'static str,
}

impl Fold<'_> {
    /// The auto-encoder behind the extractor's `taps`: one reconstruction a tap.
    pub fn auto_encoder(&mut self, network: &AutoEncoder, taps: &[Id]) -> Vec<Id> {
        let prefix = self.prefix;
        let mut reduced = vec![];
        for (i, convs) in network.reduce.iter().enumerate() {
            let mut x = taps[i];
            for (j, conv) in convs.iter().enumerate() {
                x = self.conv_norm(&format!("{prefix}reduce.{i}.{j}"), x, conv, true);
            }
            reduced.push(x);
        }
        let fused = self.graph.concat(format!("{prefix}fuse.concat"), reduced);
        let mut x = self.blocks(&format!("{prefix}fuse"), fused, &network.fuse);
        let mut outputs = vec![];
        for (i, (stage, head)) in network.stages.iter().zip(&network.heads).enumerate() {
            x = self.blocks(&format!("{prefix}stage.{i}"), x, stage);
            outputs.push(self.conv(&format!("{prefix}head.{i}"), x, head));
        }
        outputs.reverse();
        outputs
    }

    /// Convolution and normalisation, then ReLU if `rectify`. A batch norm is folded; an instance norm stays a node.
    pub fn conv_norm(&mut self, name: &str, input: Id, module: &ConvNorm, rectify: bool) -> Id {
        let activation = if rectify { Activation::Relu } else { Activation::Linear };
        if let Some(norm) = &module.batch {
            return self.graph.conv(name, input, with_batch_norm(&module.conv, norm, activation));
        }
        let (weight, dims) = values(module.conv.weight.val());
        let stride = module.conv.stride[0];
        let plain = if module.instance.is_some() { Activation::Linear } else { activation };
        let x = self.graph.conv(name, input, padded(weight, vec![0.0; dims[0]], &dims, stride, plain));
        let Some(norm) = &module.instance else { return x };
        let affine = |p: &Option<burn::module::Param<Tensor<1>>>, default: f32| {
            p.as_ref().map_or_else(|| vec![default; dims[0]], |p| values(p.val()).0)
        };
        let norm = InstanceNorm {
            scale: affine(&norm.gamma, 1.0),
            offset: affine(&norm.beta, 0.0),
            epsilon: norm.epsilon as f32,
            activation,
        };
        self.graph.instance_norm(format!("{name}.norm"), x, norm)
    }

    /// A plain convolution with its bias.
    fn conv(&mut self, name: &str, input: Id, module: &Conv2d) -> Id {
        let conv = with_bias(module, Activation::Linear);
        self.graph.conv(name, input, conv)
    }

    fn blocks(&mut self, name: &str, input: Id, blocks: &[Block]) -> Id {
        blocks.iter().enumerate().fold(input, |x, (i, block)| self.block(&format!("{name}.{i}"), x, block))
    }

    fn block(&mut self, name: &str, input: Id, block: &Block) -> Id {
        let mut shortcut = match &block.shortcut {
            Some(conv) => self.conv_norm(&format!("{name}.shortcut"), input, conv, false),
            None => input,
        };
        let mut x = self.conv_norm(&format!("{name}.first"), input, &block.first, true);
        if block.up {
            shortcut = self.graph.upsample2(format!("{name}.shortcut.up"), shortcut);
            x = self.graph.upsample2(format!("{name}.up"), x);
        }
        let x = self.conv_norm(&format!("{name}.second"), x, &block.second, false);
        self.graph.add(format!("{name}.add"), x, shortcut, Activation::Relu)
    }

    /// Energies of a patch discriminator over the extractor's `taps`, one map a head.
    pub fn energies(&mut self, patch: &PatchDiscriminator, taps: &[Id]) -> Vec<Id> {
        let unit = Joint { smooth: false, unit: true };
        let groups: Vec<(Vec<Id>, Id)> = match patch.joint {
            Some(grid) => vec![(taps.to_vec(), taps[grid])],
            None => taps.iter().map(|&tap| (vec![tap], tap)).collect(),
        };
        let heads = groups.into_iter().zip(&patch.heads).enumerate();
        heads
            .map(|(i, ((inputs, grid), head))| {
                let [_, h, w] = self.graph.shape(grid);
                let joint = self.graph.joint(format!("energy.{i}.joint"), inputs, unit, [h, w]);
                let convs = head.convs.iter().map(plain).collect();
                self.graph.energy(format!("energy.{i}"), joint, EnergyHead { convs })
            })
            .collect()
    }
}

/// A convolution of stride 1 without bias.
fn plain(module: &Conv2d) -> Conv {
    let (weight, dims) = values(module.weight.val());
    padded(weight, vec![], &dims, 1, Activation::Linear)
}
