//! The backbone's stages behind a tap, copied so that they can learn.

use crate::device;
use crate::features::Extractor;
use crate::graph::{Activation, Conv, Graph, Id, Op};
use crate::methods::folding::{padded, values};
use crate::methods::places::Places;
use crate::methods::raw::Raw;
use burn::module::Param;
use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::activation::relu;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

/// What the copies compute, each layer behind those that it reads; what they have learned is in [`Weights`].
pub struct Stages {
    layers: Vec<Layer>,
    /// The node of the extractor that the first of them reads, and which of its scales is learned from.
    start: Id,
    scale: usize,
    /// Where that node stands before the tap, what brings the tap's features back to it.
    raw: Raw,
}

/// One operator.
struct Layer {
    name: String,
    /// 0 is the start, `i + 1` the result of layer `i`.
    inputs: Vec<usize>,
    op: LayerOp,
}

enum LayerOp {
    Conv(Box<Conv>, Form),
    Add(Activation),
}

/// How burn computes a convolution. Its own gradient of a grouped one is one convolution a channel.
enum Form {
    /// 1x1: one matrix product.
    Pointwise,
    /// A factor a channel.
    Scale,
    /// One channel a group.
    Depthwise(Box<Depthwise>),
    Dense,
}

/// What learns.
#[derive(Module, Debug)]
pub struct Weights {
    /// `[out, depth·k·k]` of every convolution.
    kernels: Vec<Param<Tensor<2>>>,
    biases: Vec<Param<Tensor<1>>>,
    /// `[1,C]`: how far a place of the last stage is from normal.
    score: Param<Tensor<2>>,
    score_bias: Param<Tensor<1>>,
}

impl Stages {
    /// Of all that lies between the tap of `scale` and the deepest one that is read.
    pub fn behind(extractor: &Extractor, scale: usize, device: &Device) -> Stages {
        let (graph, tap, deepest) = (&extractor.graph, extractor.taps[scale], extractor.deepest());
        // Behind a ReLU a tap is standardised by a convolution of its own, at which the next stage does not look.
        let before = graph.nodes[tap].inputs.first().copied().unwrap_or(Graph::IMAGE);
        let (start, ids) = match between(graph, tap, deepest) {
            Some(ids) => (tap, ids),
            None => (before, between(graph, before, deepest).unwrap_or_default()),
        };
        let spread = extractor.spread.as_ref().filter(|_| start != tap);
        let place = |id: Id| ids.iter().position(|&i| i == id).map_or(0, |i| i + 1);
        let layer = |&id: &Id| {
            let node = &graph.nodes[id];
            let op = match &node.op {
                Op::Add(activation) => LayerOp::Add(*activation),
                Op::Conv(conv) => {
                    let form = Form::of(conv, graph.shape(node.inputs[0]), device);
                    LayerOp::Conv(Box::new(conv.clone()), form)
                }
                other => unreachable!("no backbone has {other:?} behind a tap"),
            };
            let inputs = node.inputs.iter().map(|&i| place(i)).collect();
            Layer { name: format!("devnet.{}", node.name), inputs, op }
        };
        let raw = Raw::new(spread.map_or(&[], |all| std::slice::from_ref(&all[scale])), device);
        Stages { layers: ids.iter().map(layer).collect(), start, scale, raw }
    }

    /// The weights as the backbone has them, and a score that is drawn.
    pub fn weights(&self, device: &Device) -> Weights {
        let matrix = |conv: &Conv| {
            let dims = [conv.out, conv.weight.len() / conv.out];
            Param::from_tensor(Tensor::from_data(TensorData::new(conv.weight.clone(), dims), device))
        };
        let bias =
            |conv: &Conv| Param::from_tensor(Tensor::from_data(TensorData::new(conv.bias.clone(), [conv.out]), device));
        let channels = self.convs().last().map_or(0, |conv| conv.out);
        let drawn = Distribution::Normal(0.0, 1.0 / (channels as f64).sqrt());
        Weights {
            kernels: self.convs().map(matrix).collect(),
            biases: self.convs().map(bias).collect(),
            score: Param::from_tensor(device::random([1, channels], drawn, device)),
            score_bias: Param::from_tensor(Tensor::zeros([1], device)),
        }
    }

    fn convs(&self) -> impl Iterator<Item = &Conv> {
        self.layers.iter().filter_map(|layer| match &layer.op {
            LayerOp::Conv(conv, _) => Some(&**conv),
            LayerOp::Add(_) => None,
        })
    }

    /// Which of the extractor's scales is learned from.
    pub fn scale(&self) -> usize {
        self.scale
    }

    /// What the last stage gives for the features of [`Stages::scale`], `[N,C,h,w]`.
    pub fn forward(&self, weights: &Weights, features: Tensor<4>) -> Places {
        let features = self.raw.of(&[features]).swap_remove(0);
        let mut results = vec![Places::of(&features)];
        let mut learned = weights.kernels.iter().zip(&weights.biases);
        for layer in &self.layers {
            let read = |i: usize| &results[layer.inputs[i]];
            let (x, activation) = match &layer.op {
                LayerOp::Add(activation) => (read(0).copied(|x| x + read(1).values.clone()), *activation),
                LayerOp::Conv(conv, form) => {
                    let (kernel, bias) = learned.next().expect("weights are made a convolution at a time");
                    let x = form.apply(conv, read(0), kernel.val());
                    (x.map(|x| x + bias.val().unsqueeze_dim(1)), conv.activation)
                }
            };
            results.push(x.map(|x| match activation {
                Activation::Linear => x,
                Activation::Relu => relu(x),
                // A clamp goes through a mask and back.
                Activation::Relu6 => relu(x.clone()) - relu(x.sub_scalar(6.0)),
            }));
        }
        results.pop().expect("the features are the first")
    }

    /// How far every place of every image is from normal, `[N,h·w]`, never below 0.
    pub fn deviations(&self, weights: &Weights, features: Tensor<4>) -> Tensor<2> {
        let last = self.forward(weights, features);
        let [images, h, w] = last.grid;
        let score = weights.score.val().matmul(last.values) + weights.score_bias.val().unsqueeze_dim(1);
        score.reshape([images, h * w]).abs()
    }

    /// The stages behind the extractor's nodes: the last one's result.
    pub fn append(&self, graph: &mut Graph, weights: &Weights) -> Id {
        let mut results = vec![self.start];
        let mut learned = weights.kernels.iter().zip(&weights.biases);
        for layer in &self.layers {
            let read = |i: usize| results[layer.inputs[i]];
            results.push(match &layer.op {
                LayerOp::Add(activation) => graph.add(&layer.name, read(0), read(1), *activation),
                LayerOp::Conv(conv, _) => {
                    let (kernel, bias) = learned.next().expect("weights are made a convolution at a time");
                    let (weight, bias) = (values(kernel.val()).0, values(bias.val()).0);
                    graph.conv(&layer.name, read(0), Conv { weight, bias, ..(**conv).clone() })
                }
            });
        }
        results.pop().expect("the start is the first")
    }
}

impl Weights {
    /// The score of a place as a convolution.
    pub fn score(&self) -> Conv {
        let (weight, dims) = values(self.score.val());
        let bias = values(self.score_bias.val()).0;
        padded(weight, bias, &[1, dims[1], 1, 1], 1, Activation::Linear)
    }
}

/// The nodes that lead from `start` to `end`, in their order; `None` where one of them reads something else.
fn between(graph: &Graph, start: Id, end: Id) -> Option<Vec<Id>> {
    let mut needed = vec![false; graph.nodes.len()];
    needed[end] = true;
    for id in (start + 1..=end).rev() {
        if needed[id] {
            graph.nodes[id].inputs.iter().for_each(|&input| needed[input] = true);
        }
    }
    let others = needed[..start].iter().any(|n| *n);
    (needed[start] && !others).then(|| (start + 1..=end).filter(|&id| needed[id]).collect())
}

impl Form {
    fn of(conv: &Conv, [_, h, w]: [usize; 3], device: &Device) -> Form {
        match (conv.groups, conv.kernel, conv.stride) {
            (1, 1, 1) => Form::Pointwise,
            (1, ..) => Form::Dense,
            (_, 1, 1) => Form::Scale,
            _ => Form::Depthwise(Box::new(Depthwise::new(conv, [h, w], device))),
        }
    }

    /// Without bias and activation.
    fn apply(&self, conv: &Conv, x: &Places, kernel: Tensor<2>) -> Places {
        match self {
            Form::Pointwise => x.copied(|x| kernel.matmul(x)),
            Form::Scale => x.copied(|x| x * kernel),
            Form::Depthwise(form) => form.apply(x, kernel),
            Form::Dense => {
                let [top, left, bottom, right] = conv.pads;
                debug_assert!(top == bottom && left == right, "only depthwise ones have uneven borders");
                let kernel = kernel.reshape([conv.out, conv.depth(), conv.kernel, conv.kernel]);
                let options = ConvOptions::new([conv.stride; 2], [top, left], [1, 1], 1);
                Places::of(&conv2d(x.copied(|x| x).maps(), kernel, None, options))
            }
        }
    }
}

/// Most pairs of a cell that is read and one that is written for which a whole image is one band.
const WHOLE: usize = 40_000;

/// A depthwise convolution as a matrix product a channel, for maps of one size.
struct Depthwise {
    /// Zeros above and below a map, the latter up to a multiple of the stride.
    rows: [usize; 2],
    /// Rows of the result that one product gives, and rows that it reads.
    band: [usize; 2],
    /// Height and width of the result.
    size: [usize; 2],
    stride: usize,
    /// Where a cell of a band's result finds each of the kernel's numbers in what the band reads: `[k·k, read·w·given·w']` of ones and zeros.
    places: Tensor<2>,
}

impl Depthwise {
    fn new(conv: &Conv, [h, w]: [usize; 2], device: &Device) -> Depthwise {
        let (k, stride, [top, left, bottom, right]) = (conv.kernel, conv.stride, conv.pads);
        let (high, wide) = (conv.size(h, [top, bottom]), conv.size(w, [left, right]));
        // What is given, what is read, and how many rows above the map the first band begins.
        let (given, read, above) = match h * w * high * wide <= WHOLE {
            true => (high, h, top),
            false => (1, k, 0),
        };
        let mut ones = vec![0f32; k * k * read * w * given * wide];
        for at in 0..k * k * given * wide {
            let (y, x, row, column) = (at / (k * given * wide), at / (given * wide) % k, at / wide % given, at % wide);
            let (from, left) = ((row * stride + y).wrapping_sub(above), (column * stride + x).wrapping_sub(left));
            if from < read && left < w {
                ones[(((y * k + x) * read + from) * w + left) * given * wide + row * wide + column] = 1.0;
            }
        }
        let places = Tensor::from_data(TensorData::new(ones, [k * k, read * w * given * wide]), device);
        let needed = ((high - 1) * stride + k).max(top + h).next_multiple_of(stride);
        let rows = if given == high { [0, 0] } else { [top, needed - top - h] };
        Depthwise { rows, band: [given, read], size: [high, wide], stride, places }
    }

    fn apply(&self, x: &Places, kernel: Tensor<2>) -> Places {
        let ([n, h, w], [c, _], [high, wide], [given, read]) = (x.grid, kernel.dims(), self.size, self.band);
        let device = x.values.device();
        let places = if device.is_autodiff() { Tensor::from_inner(self.places.clone()) } else { self.places.clone() };
        let maps: Tensor<4> = x.values.clone().reshape([c, n, h, w]);
        let bands: Tensor<3> = match given == high {
            true => maps.reshape([c, n, h * w]),
            false => {
                let border = |rows: usize| (rows > 0).then(|| Tensor::zeros([c, n, rows, w], &device));
                let parts = [border(self.rows[0]), Some(maps), border(self.rows[1])];
                let padded = Tensor::cat(parts.into_iter().flatten().collect(), 2);
                let groups = padded.dims()[2] / self.stride;
                let padded: Tensor<5> = padded.reshape([c, n, groups, self.stride, w]);
                let row = |y: usize| padded.clone().narrow(2, y / self.stride, high).narrow(3, y % self.stride, 1);
                Tensor::cat((0..read).map(row).collect(), 4).reshape([c, n * high, read * w])
            }
        };
        let spread: Tensor<3> = kernel.matmul(places).reshape([c, read * w, given * wide]);
        Places { values: bands.matmul(spread).reshape([c, n * high * wide]), grid: [n, high, wide] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against burn's own convolution, which knows nothing of bands: results and both gradients, of small maps and of large ones.
    #[test]
    fn a_depthwise_convolution_by_matrix_products_is_one() {
        let device = device::cpu().autodiff();
        device::seed(3);
        for (kernel, stride, pads, [h, w]) in [
            (3, 1, [1; 4], [5, 7]),
            (5, 2, [1, 1, 2, 2], [6, 8]),
            (5, 2, [2, 2, 2, 2], [7, 5]),
            (3, 2, [0, 0, 1, 1], [8, 6]),
            (3, 1, [1; 4], [15, 14]),
            (5, 2, [2; 4], [29, 27]),
            (5, 2, [1, 1, 2, 2], [28, 32]),
        ] {
            let conv = Conv {
                weight: vec![],
                bias: vec![],
                out: 3,
                kernel,
                stride,
                pads,
                groups: 3,
                activation: Activation::Linear,
            };
            let [top, left, bottom, right] = pads;
            let normal = Distribution::Normal(0.0, 1.0);
            let x: Tensor<4> = device::random([2, 3, h, w], normal, &device).require_grad();
            let weight: Tensor<2> = device::random([3, kernel * kernel], normal, &device).require_grad();
            let form = Depthwise::new(&conv, [h, w], &device::cpu());
            let own = form.apply(&Places::of(&x), weight.clone()).maps();
            let border =
                |t: Tensor<4>| t.pad([(top, bottom), (left, right)], burn::tensor::ops::PadMode::Constant(0.0));
            let theirs = conv2d(
                border(x.clone()),
                weight.clone().reshape([3, 1, kernel, kernel]),
                None,
                ConvOptions::new([stride; 2], [0, 0], [1, 1], 3),
            );
            assert_eq!(own.dims(), theirs.dims());
            let of = |out: &Tensor<4>| {
                let gradients = out.clone().powi_scalar(2).sum().backward();
                [
                    values(out.clone().inner()).0,
                    values(x.grad(&gradients).unwrap()).0,
                    values(weight.grad(&gradients).unwrap()).0,
                ]
            };
            for (own, theirs) in of(&own).iter().zip(of(&theirs)) {
                assert_eq!(own.len(), theirs.len());
                let worst = own.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-3, "{kernel} {stride} {pads:?}: {worst}");
            }
        }
    }
}
