//! torchvision's ResNets (He et al. 2016, arXiv 1512.03385; wide ones: Zagoruyko and Komodakis 2016, arXiv 1605.07146)
//! without their head, in their v1.5 form (a bottleneck's stride is in its 3x3 convolution). Features are the outputs of
//! layers 1 to 4, behind their ReLU.

use super::weights::{ConvSpec, WeightError, Weights};
use super::{Extracted, Scale};
use crate::graph::{Activation, ChannelStatistics, Conv, Graph, Id};

/// One network of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNet {
    /// Blocks of layers 1 to 4.
    pub blocks: [usize; 4],
    pub block: BlockKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    Basic,
    /// `inner` is the width of the 3x3 convolution in layer 1: 64, or 128 in the wide networks.
    Bottleneck {
        inner: usize,
    },
}

const STEM: usize = 64;
const EPSILON: f32 = 1e-5;
/// ImageNet's mean and deviation, of pixels from 0 to 1.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

impl ResNet {
    pub fn scales(self) -> Vec<Scale> {
        (0..4).map(|layer| self.scale(layer)).collect()
    }

    fn scale(self, layer: usize) -> Scale {
        Scale { channels: self.channels(layer), stride: 4 << layer }
    }

    fn channels(self, layer: usize) -> usize {
        let expansion = if self.block == BlockKind::Basic { 1 } else { 4 };
        (64 << layer) * expansion
    }

    /// The layers up to the one of stride `deepest`. `statistics` holds one entry a layer; the features that are handed
    /// on are standardised, the network itself is left as it is.
    pub fn append(
        self,
        graph: &mut Graph,
        weights: &Weights,
        statistics: Option<&[ChannelStatistics]>,
        deepest: usize,
    ) -> Result<Extracted, WeightError> {
        let ones = graph.ones();
        let stem = weights.conv_norm("conv1", "bn1", spec([STEM, 3, 7], 2, Activation::Relu), EPSILON)?;
        let stem = graph.conv("conv1", ones, fold_normalisation(stem));
        let mut x = graph.max_pool("maxpool", stem);
        let mut input = STEM;
        let mut extracted = Extracted { streams: vec![], taps: vec![], tap_streams: vec![] };
        for layer in (0..4).filter(|&layer| self.scale(layer).stride <= deepest) {
            for block in 0..self.blocks[layer] {
                let stride = if layer > 0 && block == 0 { 2 } else { 1 };
                let place = Place { name: format!("layer{}.{block}", layer + 1), layer, input, stride };
                x = self.block(graph, weights, x, &place)?;
                input = self.channels(layer);
            }
            extracted.streams.push(x);
            extracted.tap_streams.push(layer);
            extracted.taps.push(match statistics.and_then(|all| all.get(layer)) {
                Some(statistics) => graph.conv(format!("layer{}.standard", layer + 1), x, statistics.as_conv()),
                None => x,
            });
        }
        Ok(extracted)
    }

    fn block(self, graph: &mut Graph, weights: &Weights, x: Id, place: &Place) -> Result<Id, WeightError> {
        let Place { name, layer, input, stride } = place;
        let (input, stride, out) = (*input, *stride, self.channels(*layer));
        let load = |i: usize, shape: [usize; 3], stride: usize, activation| {
            let spec = spec(shape, stride, activation);
            weights.conv_norm(&format!("{name}.conv{i}"), &format!("{name}.bn{i}"), spec, EPSILON)
        };
        let convs = match self.block {
            BlockKind::Basic => {
                vec![
                    load(1, [out, input, 3], stride, Activation::Relu)?,
                    load(2, [out, out, 3], 1, Activation::Linear)?,
                ]
            }
            BlockKind::Bottleneck { inner } => {
                let inner = inner << layer;
                vec![
                    load(1, [inner, input, 1], 1, Activation::Relu)?,
                    load(2, [inner, inner, 3], stride, Activation::Relu)?,
                    load(3, [out, inner, 1], 1, Activation::Linear)?,
                ]
            }
        };
        let mut shortcut = x;
        if stride > 1 || input != out {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            let folded = format!("{name}.downsample");
            let conv = if weights.has(&format!("{folded}.weight")) { folded } else { conv };
            let conv = weights.conv_norm(&conv, &norm, spec([out, input, 1], stride, Activation::Linear), EPSILON)?;
            shortcut = graph.conv(format!("{name}.downsample"), x, conv);
        }
        let mut y = x;
        for (i, conv) in convs.into_iter().enumerate() {
            y = graph.conv(format!("{name}.conv{}", i + 1), y, conv);
        }
        Ok(graph.add(format!("{name}.add"), y, shortcut, Activation::Relu))
    }
}

/// Where a block stands.
struct Place {
    name: String,
    layer: usize,
    input: usize,
    stride: usize,
}

/// `[out, input, kernel]`, all channels in one group.
fn spec([out, input, kernel]: [usize; 3], stride: usize, activation: Activation) -> ConvSpec {
    ConvSpec { input, out, kernel, stride, groups: 1, activation }
}

/// The stem reads `y = (byte - 127) / 128` and a channel of ones in place of `(byte / 255 - mean) / deviation`, which
/// is `y * 128 / (255 deviation) + (127 / 255 - mean) / deviation`.
fn fold_normalisation(stem: Conv) -> Conv {
    let area = stem.kernel * stem.kernel;
    let mut weight = Vec::with_capacity(stem.out * 4 * area);
    for filter in stem.weight.chunks_exact(3 * area) {
        let mut ones = vec![0f32; area];
        for (c, plane) in filter.chunks_exact(area).enumerate() {
            weight.extend(plane.iter().map(|w| w * 128.0 / (255.0 * DEVIATION[c])));
            let offset = (127.0 / 255.0 - MEAN[c]) / DEVIATION[c];
            ones.iter_mut().zip(plane).for_each(|(o, w)| *o += w * offset);
        }
        weight.extend(ones);
    }
    Conv { weight, ..stem }
}
