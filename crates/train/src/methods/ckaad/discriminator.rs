//! The discriminators (paper: section 3.3). They give energies, not probabilities: low means "normal".

use crate::backbones::Scale;
use crate::graph::{COSINE_EPSILON, LEAK};
use crate::methods::folding::leaky_relu;
use crate::methods::grid::to_grid;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{InstanceNorm, InstanceNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which discriminators learn beside the auto-encoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiscriminatorConfig {
    /// Which of the two there are.
    pub kind: DiscriminatorKind,
    /// One patch head over all scales, brought to one grid, in place of the paper's one head a scale. It sees fine and
    /// coarse features of a place together.
    pub joint: bool,
    /// Input pixels a cell of the joint grid; one of `features.strides`.
    pub stride: usize,
    /// Channels of the patch heads' hidden convolutions; 0 takes as many as come in (the paper).
    pub width: usize,
    /// Kernel of the second convolution of a patch head: 1 (the paper) or 3.
    pub kernel: usize,
    /// How many patches of an anomalous image, those of the highest energy, are taught to be anomalous; 0 is the paper:
    /// every patch. Fewer look for the defect (multiple-instance learning); as many of every normal image then count twice.
    /// About as many as a defect covers at the joint stride: a number and no share, since a larger image does not make the
    /// defect larger. Where a head has no more patches, every patch counts, once.
    pub places: usize,
    /// Patch heads also learn that normal features plus Gaussian noise of up to this deviation, in standardised units,
    /// are anomalous at every patch (as in SimpleNet, Liu et al. 2023, arXiv 2303.15140); 0 leaves it out (the paper).
    pub noise: f64,
    /// Weight of that term.
    pub noise_weight: f64,
}

impl Default for DiscriminatorConfig {
    fn default() -> Self {
        DiscriminatorConfig {
            kind: DiscriminatorKind::Patch,
            joint: true,
            stride: 8,
            width: 64,
            kernel: 1,
            places: 40,
            noise: 0.7,
            noise_weight: 0.5,
        }
    }
}

/// What a discriminator looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiscriminatorKind {
    /// There is no discriminator.
    None,
    /// Every patch by itself; its energies are a term of the map.
    Patch,
    /// The whole image; it only teaches the auto-encoder.
    Image,
    /// One of each.
    Both,
}

impl DiscriminatorKind {
    /// Whether there is any discriminator, and so any use for anomalous training images.
    pub fn learns(self) -> bool {
        self != DiscriminatorKind::None
    }

    /// Whether patches are looked at.
    pub fn patch(self) -> bool {
        matches!(self, DiscriminatorKind::Patch | DiscriminatorKind::Both)
    }

    /// Whether whole images are.
    pub fn image(self) -> bool {
        matches!(self, DiscriminatorKind::Image | DiscriminatorKind::Both)
    }
}

#[derive(Module, Debug)]
pub struct Discriminators {
    pub patch: Option<PatchDiscriminator>,
    pub image: Option<ImageDiscriminator>,
}

/// Energies of some images: of their patches `[N,1,h_i,w_i]`, a tensor a head, and of the whole images `[N,1,1,1]`.
pub struct Energies {
    pub patch: Vec<Tensor<4>>,
    pub image: Vec<Tensor<4>>,
}

impl Energies {
    /// The kinds that are there.
    pub fn kinds(&self) -> impl Iterator<Item = &[Tensor<4>]> {
        [self.patch.as_slice(), self.image.as_slice()].into_iter().filter(|kind| !kind.is_empty())
    }

    /// Over all heads.
    pub fn mean(&self) -> Tensor<1> {
        let all: Vec<Tensor<1>> = self.kinds().flatten().map(|e| e.clone().mean()).collect();
        Tensor::cat(all, 0).mean()
    }
}

impl Discriminators {
    /// `None` when none is asked for.
    pub fn new(config: &DiscriminatorConfig, scales: &[Scale], device: &Device) -> Option<Discriminators> {
        config.kind.learns().then(|| Discriminators {
            patch: config.kind.patch().then(|| PatchDiscriminator::new(config, scales, device)),
            image: config.kind.image().then(|| ImageDiscriminator::new(scales, device)),
        })
    }

    /// `features[i]` is `[N,C_i,h_i,w_i]`.
    pub fn energies(&self, features: &[Tensor<4>]) -> Energies {
        Energies {
            patch: self.patch.as_ref().map_or_else(Vec::new, |d| d.energies(features)),
            image: self.image.iter().map(|d| d.energy(features)).collect(),
        }
    }
}

/// Three convolutions without bias on features of length 1; the energy is the output's absolute value.
#[derive(Module, Debug)]
pub struct PatchHead {
    pub convs: Vec<Conv2d>,
}

/// Gives every patch an energy.
#[derive(Module, Debug)]
pub struct PatchDiscriminator {
    /// One a scale, or one for all.
    pub heads: Vec<PatchHead>,
    /// Index of the scale whose grid the joint head works on; `None` with one head a scale.
    pub joint: Option<usize>,
}

impl PatchDiscriminator {
    fn new(config: &DiscriminatorConfig, scales: &[Scale], device: &Device) -> PatchDiscriminator {
        let head = |input: usize| {
            let width = if config.width == 0 { input } else { config.width };
            let conv = |input: usize, out: usize, kernel: usize| {
                let pad = kernel / 2;
                Conv2dConfig::new([input, out], [kernel, kernel])
                    .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
                    .with_bias(false)
                    .init(device)
            };
            PatchHead { convs: vec![conv(input, width, 1), conv(width, width, config.kernel), conv(width, 1, 1)] }
        };
        if config.joint {
            let grid = scales.iter().position(|s| s.stride == config.stride).unwrap_or(0);
            let all = scales.iter().map(|s| s.channels).sum();
            return PatchDiscriminator { heads: vec![head(all)], joint: Some(grid) };
        }
        PatchDiscriminator { heads: scales.iter().map(|s| head(s.channels)).collect(), joint: None }
    }

    /// Energies `[N,1,h,w]`, a tensor a head.
    pub fn energies(&self, features: &[Tensor<4>]) -> Vec<Tensor<4>> {
        let Some(grid) = self.joint else {
            let pairs = self.heads.iter().zip(features);
            return pairs.map(|(head, x)| head.energy(normalise(x.clone()))).collect();
        };
        let [_, _, _, width] = features[grid].dims();
        let parts = features.iter().map(|x| normalise(to_grid(x.clone(), width))).collect();
        vec![self.heads[0].energy(Tensor::cat(parts, 1))]
    }
}

impl PatchHead {
    fn energy(&self, x: Tensor<4>) -> Tensor<4> {
        if self.convs.iter().all(|conv| conv.kernel_size == [1, 1]) { self.of_patches(x) } else { self.of_map(x) }
    }

    /// 1x1 convolutions as matrix products over all patches at once: one transposition in place of one a convolution.
    fn of_patches(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        let mut rows: Tensor<2> = x.permute([0, 2, 3, 1]).reshape([n * h * w, c]);
        for (i, conv) in self.convs.iter().enumerate() {
            if i > 0 {
                rows = leaky_relu(rows, LEAK.into());
            }
            let weight: Tensor<2> = conv.weight.val().flatten(1, 3);
            rows = rows.matmul(weight.transpose());
        }
        rows.abs().reshape([n, 1, h, w])
    }

    fn of_map(&self, mut x: Tensor<4>) -> Tensor<4> {
        for (i, conv) in self.convs.iter().enumerate() {
            if i > 0 {
                x = leaky_relu(x, LEAK.into());
            }
            x = conv.forward(x);
        }
        x.abs()
    }
}

/// Length 1 along the channels.
fn normalise(x: Tensor<4>) -> Tensor<4> {
    let length = (x.clone().square().sum_dim(1) + COSINE_EPSILON).sqrt();
    x / length
}

/// Channels of the image discriminator.
const IMAGE_WIDTH: usize = 64;

/// 3x3 convolution of stride 2, instance norm, LeakyReLU.
#[derive(Module, Debug)]
pub struct Shrink {
    conv: Conv2d,
    norm: InstanceNorm,
}

impl Shrink {
    fn new(input: usize, device: &Device) -> Shrink {
        let conv = Conv2dConfig::new([input, IMAGE_WIDTH], [3, 3])
            .with_stride([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .with_bias(false);
        Shrink { conv: conv.init(device), norm: InstanceNormConfig::new(IMAGE_WIDTH).init(device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        leaky_relu(self.norm.forward(self.conv.forward(x)), LEAK.into())
    }
}

/// One energy an image: every scale is shrunk to half the deepest one's size, all are concatenated and shrunk on; the
/// mean over what is left of the picture goes through a small perceptron.
#[derive(Module, Debug)]
pub struct ImageDiscriminator {
    scales: Vec<Vec<Shrink>>,
    joint: Shrink,
    hidden: Linear,
    energy: Linear,
}

impl ImageDiscriminator {
    fn new(scales: &[Scale], device: &Device) -> ImageDiscriminator {
        let deepest = scales.last().map_or(1, |s| s.stride);
        let chain = |scale: &Scale| {
            let steps = (deepest / scale.stride).ilog2() as usize + 1;
            (0..steps).map(|i| Shrink::new(if i == 0 { scale.channels } else { IMAGE_WIDTH }, device)).collect()
        };
        ImageDiscriminator {
            scales: scales.iter().map(chain).collect(),
            joint: Shrink::new(IMAGE_WIDTH * scales.len(), device),
            hidden: LinearConfig::new(IMAGE_WIDTH, IMAGE_WIDTH).init(device),
            energy: LinearConfig::new(IMAGE_WIDTH, 1).init(device),
        }
    }

    /// `[N,1,1,1]`.
    fn energy(&self, features: &[Tensor<4>]) -> Tensor<4> {
        let shrink = |(chain, x): (&Vec<Shrink>, &Tensor<4>)| chain.iter().fold(x.clone(), |x, s| s.forward(x));
        let parts = self.scales.iter().zip(features).map(shrink).collect();
        let x = self.joint.forward(Tensor::cat(parts, 1));
        let x: Tensor<2> = x.mean_dim(3).mean_dim(2).flatten(1, 3);
        let x = leaky_relu(self.hidden.forward(x), LEAK.into());
        self.energy.forward(x).abs().reshape([0, 1, 1, 1])
    }
}
