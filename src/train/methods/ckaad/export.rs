//! The trained modules as graph nodes, batch norms folded.

use super::net::{Block, ConvNorm};
use crate::train::backbones::fold_batch_norm;
use crate::train::export::graph::{Activation, Conv, Graph, Id};
use burn::nn::conv::Conv2d;
use burn::prelude::*;

/// Appends modules to a graph.
pub struct Fold<'a> {
    pub graph: &'a mut Graph,
}

impl Fold<'_> {
    /// Convolution and batch norm, then ReLU if `rectify`.
    pub fn conv_norm(&mut self, name: &str, input: Id, module: &ConvNorm, rectify: bool) -> Id {
        let (weight, dims) = values(module.conv.weight.val());
        let norm = &module.norm;
        let (weight, bias) = fold_batch_norm(
            &weight,
            None,
            &values(norm.gamma.val()).0,
            &values(norm.beta.val()).0,
            &values(norm.running_mean.value_sync()).0,
            &values(norm.running_var.value_sync()).0,
            norm.epsilon as f32,
        );
        let activation = if rectify { Activation::Relu } else { Activation::Linear };
        self.push(name, input, weight, bias, &dims, module.conv.stride[0], activation)
    }

    /// A plain convolution with its bias.
    pub fn conv(&mut self, name: &str, input: Id, module: &Conv2d) -> Id {
        let (weight, dims) = values(module.weight.val());
        let bias = module.bias.as_ref().map_or_else(|| vec![0.0; dims[0]], |b| values(b.val()).0);
        self.push(name, input, weight, bias, &dims, module.stride[0], Activation::Linear)
    }

    pub fn block(&mut self, name: &str, input: Id, block: &Block) -> Id {
        let mut shortcut = self.conv_norm(&format!("{name}.shortcut"), input, &block.shortcut, false);
        let mut x = self.conv_norm(&format!("{name}.first"), input, &block.first, true);
        if block.up {
            shortcut = self.graph.upsample2(format!("{name}.shortcut.up"), shortcut);
            x = self.graph.upsample2(format!("{name}.up"), x);
        }
        let x = self.conv_norm(&format!("{name}.second"), x, &block.second, false);
        self.graph.add(format!("{name}.add"), x, shortcut, Activation::Relu)
    }

    #[allow(clippy::too_many_arguments)]
    fn push(
        &mut self,
        name: &str,
        input: Id,
        weight: Vec<f32>,
        bias: Vec<f32>,
        dims: &[usize],
        stride: usize,
        activation: Activation,
    ) -> Id {
        let (out, kernel) = (dims[0], dims[2]);
        let pads = [kernel / 2; 4];
        self.graph.conv(name, input, Conv { weight, bias, out, kernel, stride, pads, groups: 1, activation })
    }
}

/// A tensor's values, row by row, and its shape.
fn values<const D: usize>(tensor: Tensor<D>) -> (Vec<f32>, Vec<usize>) {
    let dims = tensor.dims().to_vec();
    let values = tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32 the line before");
    (values, dims)
}
