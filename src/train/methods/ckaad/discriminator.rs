//! The patch discriminator (paper: section 3.3): one head a scale, energies instead of probabilities.

use crate::train::backbones::Scale;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use burn::tensor::activation::leaky_relu;

/// Three 1x1 convolutions without bias on channel-wise normalised features; the energy is the output's absolute value.
#[derive(Module, Debug)]
pub struct PatchHead {
    pub convs: Vec<Conv2d>,
}

#[derive(Module, Debug)]
pub struct PatchDiscriminator {
    pub heads: Vec<PatchHead>,
}

impl PatchDiscriminator {
    pub fn new(scales: &[Scale], device: &Device) -> PatchDiscriminator {
        let head = |scale: &Scale| {
            let c = scale.channels;
            let conv = |out: usize| Conv2dConfig::new([c, out], [1, 1]).with_bias(false).init(device);
            PatchHead { convs: vec![conv(c), conv(c), conv(1)] }
        };
        PatchDiscriminator { heads: scales.iter().map(head).collect() }
    }

    /// Energies `[N,1,h_i,w_i]` of every patch at every scale; low means "normal".
    pub fn energies(&self, features: &[Tensor<4>]) -> Vec<Tensor<4>> {
        self.heads.iter().zip(features).map(|(head, x)| head.energy(x.clone())).collect()
    }
}

impl PatchHead {
    fn energy(&self, x: Tensor<4>) -> Tensor<4> {
        let norm = (x.clone().square().sum_dim(1) + 1e-12).sqrt();
        let mut x = x / norm;
        for (i, conv) in self.convs.iter().enumerate() {
            if i > 0 {
                x = leaky_relu(x, 0.1);
            }
            x = conv.forward(x);
        }
        x.abs()
    }
}
