//! The network as it leaves the trainer: few operators, batch norms already folded, shapes known. [`crate::onnx`]
//! writes it in f32 and in int8, from the same list, so the two cannot drift apart.
//!
//! A node stands for what is done to one image. Where a network takes several views of a part, every node is there once a view; only
//! [`Op::CrossView`] reads what the others have.

mod ranges;
mod statistics;
mod terms;

pub use ranges::Ranges;
pub use statistics::ChannelStatistics;
pub use terms::{Term, TermKind, TermWeights};

use serde::{Deserialize, Serialize};

/// Slope of the LeakyReLU between the convolutions of an [`EnergyHead`].
pub const LEAK: f32 = 0.1;

/// Keeps the cosine finite where a feature vector is all zero.
pub const COSINE_EPSILON: f32 = 1e-12;

/// Index of a node; every node has one output.
pub type Id = usize;

/// What follows an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Linear,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
}

/// A convolution with its bias and activation.
#[derive(Clone, Debug)]
pub struct Conv {
    /// `[out, in/groups, kernel, kernel]`, row by row.
    pub weight: Vec<f32>,
    /// One an output channel; empty for none.
    pub bias: Vec<f32>,
    /// Output channels.
    pub out: usize,
    /// Its side, in cells.
    pub kernel: usize,
    /// Along both axes.
    pub stride: usize,
    /// Zeros added at the top, left, bottom and right.
    pub pads: [usize; 4],
    /// Channels of one group see no other's; as many groups as channels is a depthwise convolution.
    pub groups: usize,
    /// What follows it.
    pub activation: Activation,
}

impl Conv {
    /// Input channels of one group.
    pub fn depth(&self) -> usize {
        self.weight.len() / (self.out * self.kernel * self.kernel)
    }

    /// Height or width of the result, with so many zeros before and behind the input's.
    pub fn size(&self, length: usize, pads: [usize; 2]) -> usize {
        (length + pads[0] + pads[1] - self.kernel) / self.stride + 1
    }
}

/// What a node computes; tensors are `[1,C,H,W]`.
#[derive(Clone, Debug)]
pub enum Op {
    /// u8 `[1,H,W,3]` → `(x - 127) / 128` as `[1,3,H,W]`: EfficientNet's normalisation, which is at the same time
    /// an exact quantisation (zero point 127, scale 1/128).
    Image,
    /// The image with a fourth channel of ones (byte 255). A backbone with another normalisation folds its scale and
    /// offset into its first convolution, the offset as weights of this channel: so zeros at the border stay zeros
    /// *after* normalisation.
    Ones,
    /// A convolution.
    Conv(Conv),
    /// Sum of two tensors of one shape.
    Add(Activation),
    /// Per channel and image: mean 0, variance 1, then scale and offset.
    InstanceNorm(InstanceNorm),
    /// 3x3, stride 2, one cell of border.
    MaxPool,
    /// `x` where it is not negative, and this times `x` where it is.
    LeakyRelu(f32),
    /// Over all channels and cells of an image: mean 0, variance 1; this is added to the variance.
    LayerNorm(f32),
    /// The first input times the second plus the third, all of one shape.
    Modulate,
    /// `[C,H,W]`, row by row: the same for every image.
    Constant(Vec<f32>),
    /// Four blocks of channels become one of twice the height and width: those of its upper left cells, upper right, lower left,
    /// lower right.
    DepthToSpace2,
    /// Nearest neighbour, twice the height and width.
    Upsample2,
    /// Along the channels.
    Concat,
    /// `1 - cos` along the channels of its two inputs, first brought back from standardised to raw features if told
    /// how: `[1,1,H,W]`.
    CosineError(Option<ChannelStatistics>),
    /// Maps of several scales as one: `[ΣC,h,w]`. This and all below are the tail, which is float in both precisions.
    Joint(Joint),
    /// Energy of every patch of a [`Op::Joint`]: `[1,h,w]`.
    Energy(EnergyHead),
    /// Distance of every patch of a [`Op::Joint`] to the nearest of a bank: `[1,h,w]`.
    Nearest(Bank),
    /// Weighted sum of maps; smaller ones are first brought to the first one's size (bilinear, half-pixel).
    SumMaps(Vec<f32>),
    /// Of each channel the mean, the mean of its largest cells and the mean of its smallest: `[3C,1,1]`, in this order.
    Pool(Pool),
    /// `bias + Σ weight · value` over all values of its inputs, behind one another: `[1,1,1]`.
    Linear(Linear),
    /// How far all values of its inputs, behind one another, are from those of normal images: `[1,1,1]`.
    Mahalanobis(Mahalanobis),
    /// `ln(1 + e^x)` of every cell: a logit as a map that is never negative.
    Softplus,
    /// `min(x / limit, 1)` of every cell of a map that is never negative.
    Capped(f32),
    /// `second / (1 + e^-first)` of every cell of two maps: a logit says how much of the second is let through.
    Gated,
    /// The sum of its one or two inputs, and of that at every cell, over its channels: mean 0, variance 1, then scale and offset.
    ChannelNorm(ChannelNorm),
    /// Attention of every cell over cells of the part's other views: the sum of the first two inputs asks, the third is looked at, in this view to choose by
    /// and in the others to answer with.
    CrossView(CrossView),
}

/// Normalisation over the channels of every cell.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelNorm {
    /// One a channel.
    pub scale: Vec<f32>,
    /// One a channel.
    pub offset: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// How a view looks at the others of its part. Cells are looked at by windows, squares that cover the map from its upper left corner and go beyond its
/// right and lower edges where the side does not divide it; what lies beyond takes part in nothing. Of every window's cells the mean is taken; a window
/// looks at those windows of the other views whose means have the largest products with its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossView {
    /// Of a part; at least 2.
    pub views: usize,
    /// Side of a window, in cells.
    pub window: usize,
    /// Windows that a window looks at; where the others have fewer, all of theirs.
    pub top: usize,
    /// Heads that share out the channels.
    pub heads: usize,
}

impl CrossView {
    /// Added to the product of a cell that is none, so that the softmax gives it nothing.
    pub const NEVER: f32 = -1e9;

    /// Windows down and across a map.
    pub fn windows(self, [height, width]: [usize; 2]) -> [usize; 2] {
        [height.div_ceil(self.window), width.div_ceil(self.window)]
    }

    /// Windows of the other views that one window looks at.
    pub fn looked_at(self, size: [usize; 2]) -> usize {
        let [down, across] = self.windows(size);
        self.top.min((self.views - 1) * down * across)
    }

    /// Of every cell of every window, row by row, whether it lies on the map.
    pub fn on_map(self, [height, width]: [usize; 2]) -> Vec<bool> {
        let ([down, across], side) = (self.windows([height, width]), self.window);
        let windows = (0..down).flat_map(|y| (0..across).map(move |x| (y * side, x * side)));
        let cells = windows.flat_map(|(y, x)| (0..side).flat_map(move |v| (0..side).map(move |u| (y + v, x + u))));
        cells.map(|(y, x)| y < height && x < width).collect()
    }
}

/// How many cells the means of [`Op::Pool`] are taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// One cell in so many, and one at least.
    pub one_in: usize,
}

impl Pool {
    /// Cells in the mean of the largest, and of the smallest, out of `cells`.
    pub fn count(self, cells: usize) -> usize {
        (cells / self.one_in).max(1)
    }
}

/// A weight for every value, and a constant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// One a value.
    pub weights: Vec<f32>,
    /// Added to the sum.
    pub bias: f32,
}

/// The Mahalanobis distance to a Gaussian that has a variance of its own in some directions and one in all others:
/// `sqrt(|x'|² - Σ (direction · x')²)` with `x' = (x - mean) * inverse`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mahalanobis {
    /// One a value.
    pub mean: Vec<f32>,
    /// One a value: one over its deviation, and over that of the other directions.
    pub inverse: Vec<f32>,
    /// As many numbers each as there are values, row by row: of length below 1, the closer to 1 the wider the Gaussian
    /// is along it.
    pub directions: Vec<f32>,
}

impl Mahalanobis {
    /// The number of directions that have a variance of their own.
    pub fn count(&self) -> usize {
        self.directions.len() / self.mean.len().max(1)
    }
}

/// Normalisation over the cells of every channel.
#[derive(Clone, Debug)]
pub struct InstanceNorm {
    /// One a channel.
    pub scale: Vec<f32>,
    /// One a channel.
    pub offset: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
    /// What follows it.
    pub activation: Activation,
}

/// Every input is brought to one grid ([`regrid`]) and all are concatenated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joint {
    /// Average each input over 3x3 of its cells first.
    pub smooth: bool,
    /// Give each input length 1 along its channels at every position.
    pub unit: bool,
}

/// A patch discriminator's head: convolutions with LeakyReLU 0.1 between; the energy is the absolute value.
#[derive(Clone, Debug)]
pub struct EnergyHead {
    /// In their order.
    pub convs: Vec<Conv>,
}

/// Patch vectors of normal images.
#[derive(Clone, Debug, PartialEq)]
pub struct Bank {
    /// `[count, channels]`, row by row.
    pub vectors: Vec<f32>,
    /// Length of a vector.
    pub channels: usize,
}

impl Bank {
    /// The number of vectors.
    pub fn count(&self) -> usize {
        self.vectors.len() / self.channels
    }
}

/// How a map of one stride comes to the common grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regrid {
    /// It is there already.
    Same,
    /// Mean over `factor` x `factor` cells.
    Pool(usize),
    /// Bilinear, half-pixel.
    Enlarge(usize),
}

/// From a map `from` cells wide to one `to` cells wide; one must divide the other.
pub fn regrid(from: usize, to: usize) -> Regrid {
    match from {
        _ if from == to => Regrid::Same,
        _ if from > to => Regrid::Pool(from / to),
        _ => Regrid::Enlarge(to / from),
    }
}

/// One operator with its inputs and the shape of its result.
#[derive(Clone, Debug)]
pub struct Node {
    /// Unique in its graph; a layer is named by it in reports and configs.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Nodes before it.
    pub inputs: Vec<Id>,
    /// Channels, height, width.
    pub shape: [usize; 3],
}

/// Nodes in an order in which each comes after its inputs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The first is the image.
    pub nodes: Vec<Node>,
    /// The anomaly map; the last node while nothing is said of it.
    pub map: Option<Id>,
    /// The score of the image as a whole, where there is one beside the map.
    pub image_score: Option<Id>,
}

impl Graph {
    /// The image alone.
    pub fn new(width: usize, height: usize) -> Graph {
        let image = Node { name: "image".into(), op: Op::Image, inputs: vec![], shape: [3, height, width] };
        Graph { nodes: vec![image], map: None, image_score: None }
    }

    /// The node that a graph starts with.
    pub const IMAGE: Id = 0;

    /// Channels, height and width of a node's result.
    pub fn shape(&self, id: Id) -> [usize; 3] {
        self.nodes[id].shape
    }

    /// The anomaly map.
    pub fn output(&self) -> Id {
        self.map.unwrap_or(self.nodes.len() - 1)
    }

    /// The map, and the image score where there is one.
    pub fn outputs(&self) -> Vec<Id> {
        [self.output()].into_iter().chain(self.image_score).collect()
    }

    /// The graph without the nodes that none of its [`Graph::outputs`] needs.
    pub fn pruned(&self) -> Graph {
        let mut needed = vec![false; self.nodes.len()];
        needed[Graph::IMAGE] = true;
        self.outputs().into_iter().for_each(|id| needed[id] = true);
        // Every node comes after its inputs.
        for (id, node) in self.nodes.iter().enumerate().rev() {
            if needed[id] {
                node.inputs.iter().for_each(|&input| needed[input] = true);
            }
        }
        let mut renamed = vec![0; self.nodes.len()];
        let mut graph = Graph::default();
        for (id, node) in self.nodes.iter().enumerate().filter(|(id, _)| needed[*id]) {
            renamed[id] = graph.nodes.len();
            graph.nodes.push(Node { inputs: node.inputs.iter().map(|&i| renamed[i]).collect(), ..node.clone() });
        }
        graph.map = Some(renamed[self.output()]);
        graph.image_score = self.image_score.map(|id| renamed[id]);
        graph
    }

    fn push(&mut self, name: impl Into<String>, op: Op, inputs: Vec<Id>, shape: [usize; 3]) -> Id {
        let name = name.into();
        // In a file a name is one tensor: of two nodes with the same name a reader would see one.
        debug_assert!(self.nodes.iter().all(|node| node.name != name), "two nodes are called {name}");
        self.nodes.push(Node { name, op, inputs, shape });
        self.nodes.len() - 1
    }

    /// Appends a convolution.
    pub fn conv(&mut self, name: impl Into<String>, input: Id, conv: Conv) -> Id {
        let [_, h, w] = self.shape(input);
        let [top, left, bottom, right] = conv.pads;
        let shape = [conv.out, conv.size(h, [top, bottom]), conv.size(w, [left, right])];
        self.push(name, Op::Conv(conv), vec![input], shape)
    }

    /// Appends the sum of two nodes of one shape.
    pub fn add(&mut self, name: impl Into<String>, a: Id, b: Id, activation: Activation) -> Id {
        debug_assert_eq!(self.shape(a), self.shape(b));
        let shape = self.shape(a);
        self.push(name, Op::Add(activation), vec![a, b], shape)
    }

    /// Appends [`Op::Ones`].
    pub fn ones(&mut self) -> Id {
        let [c, h, w] = self.shape(Graph::IMAGE);
        self.push("image.ones", Op::Ones, vec![Graph::IMAGE], [c + 1, h, w])
    }

    /// Appends a normalisation.
    pub fn instance_norm(&mut self, name: impl Into<String>, input: Id, norm: InstanceNorm) -> Id {
        let shape = self.shape(input);
        self.push(name, Op::InstanceNorm(norm), vec![input], shape)
    }

    /// Appends [`Op::LeakyRelu`].
    pub fn leaky_relu(&mut self, name: impl Into<String>, input: Id, slope: f32) -> Id {
        let shape = self.shape(input);
        self.push(name, Op::LeakyRelu(slope), vec![input], shape)
    }

    /// Appends [`Op::LayerNorm`].
    pub fn layer_norm(&mut self, name: impl Into<String>, input: Id, epsilon: f32) -> Id {
        let shape = self.shape(input);
        self.push(name, Op::LayerNorm(epsilon), vec![input], shape)
    }

    /// Appends [`Op::Modulate`] of three nodes of one shape.
    pub fn modulate(&mut self, name: impl Into<String>, x: Id, factor: Id, offset: Id) -> Id {
        let shape = self.shape(x);
        debug_assert!(shape == self.shape(factor) && shape == self.shape(offset));
        self.push(name, Op::Modulate, vec![x, factor, offset], shape)
    }

    /// Appends [`Op::Constant`].
    pub fn constant(&mut self, name: impl Into<String>, shape: [usize; 3], values: Vec<f32>) -> Id {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        self.push(name, Op::Constant(values), vec![], shape)
    }

    /// Appends [`Op::DepthToSpace2`]; the channels of `input` are a multiple of four.
    pub fn depth_to_space2(&mut self, name: impl Into<String>, input: Id) -> Id {
        let [c, h, w] = self.shape(input);
        self.push(name, Op::DepthToSpace2, vec![input], [c / 4, 2 * h, 2 * w])
    }

    /// Appends [`Op::MaxPool`].
    pub fn max_pool(&mut self, name: impl Into<String>, input: Id) -> Id {
        let [c, h, w] = self.shape(input);
        self.push(name, Op::MaxPool, vec![input], [c, h.div_ceil(2), w.div_ceil(2)])
    }

    /// `grid` is the height and width of the result.
    pub fn joint(&mut self, name: impl Into<String>, inputs: Vec<Id>, joint: Joint, grid: [usize; 2]) -> Id {
        let channels = inputs.iter().map(|&i| self.shape(i)[0]).sum();
        self.push(name, Op::Joint(joint), inputs, [channels, grid[0], grid[1]])
    }

    /// Appends a discriminator's head behind a joint map.
    pub fn energy(&mut self, name: impl Into<String>, joint: Id, head: EnergyHead) -> Id {
        let [_, h, w] = self.shape(joint);
        self.push(name, Op::Energy(head), vec![joint], [1, h, w])
    }

    /// Appends distances to a bank behind a joint map.
    pub fn nearest(&mut self, name: impl Into<String>, joint: Id, bank: Bank) -> Id {
        let [_, h, w] = self.shape(joint);
        self.push(name, Op::Nearest(bank), vec![joint], [1, h, w])
    }

    /// Appends [`Op::Upsample2`].
    pub fn upsample2(&mut self, name: impl Into<String>, input: Id) -> Id {
        let [c, h, w] = self.shape(input);
        self.push(name, Op::Upsample2, vec![input], [c, 2 * h, 2 * w])
    }

    /// Appends all inputs behind one another along the channels; they have one height and width.
    pub fn concat(&mut self, name: impl Into<String>, inputs: Vec<Id>) -> Id {
        let [_, h, w] = self.shape(inputs[0]);
        let channels = inputs.iter().map(|&i| self.shape(i)[0]).sum();
        self.push(name, Op::Concat, inputs, [channels, h, w])
    }

    /// Appends [`Op::CosineError`] of two nodes of one shape.
    pub fn cosine_error(&mut self, name: impl Into<String>, a: Id, b: Id, raw: Option<ChannelStatistics>) -> Id {
        debug_assert_eq!(self.shape(a), self.shape(b));
        let [_, h, w] = self.shape(a);
        self.push(name, Op::CosineError(raw), vec![a, b], [1, h, w])
    }

    /// Appends the weighted sum of maps, at the size of the first.
    pub fn sum_maps(&mut self, name: impl Into<String>, maps: Vec<Id>, weights: Vec<f32>) -> Id {
        let shape = self.shape(maps[0]);
        self.push(name, Op::SumMaps(weights), maps, shape)
    }

    /// Appends [`Op::Pool`]; where another method has it already, that one.
    pub fn pool(&mut self, name: impl Into<String>, input: Id, pool: Pool) -> Id {
        let same = |node: &Node| node.inputs == [input] && matches!(node.op, Op::Pool(of) if of == pool);
        if let Some(there) = self.nodes.iter().position(same) {
            return there;
        }
        let channels = self.shape(input)[0];
        self.push(name, Op::Pool(pool), vec![input], [3 * channels, 1, 1])
    }

    /// Appends [`Op::Linear`] over `[C,1,1]` inputs, with as many weights as they have values together.
    pub fn linear(&mut self, name: impl Into<String>, inputs: Vec<Id>, linear: Linear) -> Id {
        debug_assert_eq!(inputs.iter().map(|&i| self.shape(i)[0]).sum::<usize>(), linear.weights.len());
        self.push(name, Op::Linear(linear), inputs, [1, 1, 1])
    }

    /// Appends [`Op::Mahalanobis`] over `[C,1,1]` inputs, with as many values as its mean has.
    pub fn mahalanobis(&mut self, name: impl Into<String>, inputs: Vec<Id>, distance: Mahalanobis) -> Id {
        debug_assert_eq!(inputs.iter().map(|&i| self.shape(i)[0]).sum::<usize>(), distance.mean.len());
        self.push(name, Op::Mahalanobis(distance), inputs, [1, 1, 1])
    }

    /// Appends [`Op::Softplus`].
    pub fn softplus(&mut self, name: impl Into<String>, input: Id) -> Id {
        let shape = self.shape(input);
        self.push(name, Op::Softplus, vec![input], shape)
    }

    /// Appends [`Op::Capped`].
    pub fn capped(&mut self, name: impl Into<String>, input: Id, limit: f32) -> Id {
        let shape = self.shape(input);
        self.push(name, Op::Capped(limit), vec![input], shape)
    }

    /// Appends [`Op::Gated`] of two maps of one shape.
    pub fn gated(&mut self, name: impl Into<String>, logit: Id, map: Id) -> Id {
        debug_assert_eq!(self.shape(logit), self.shape(map));
        let shape = self.shape(map);
        self.push(name, Op::Gated, vec![logit, map], shape)
    }

    /// Appends [`Op::ChannelNorm`].
    pub fn channel_norm(&mut self, name: impl Into<String>, inputs: Vec<Id>, norm: ChannelNorm) -> Id {
        let shape = self.shape(inputs[0]);
        debug_assert!(inputs.iter().all(|&input| self.shape(input) == shape));
        self.push(name, Op::ChannelNorm(norm), inputs, shape)
    }

    /// Appends [`Op::CrossView`] of nodes of one shape: what asks, its position, what is looked at. The heads divide its channels.
    pub fn cross_view(&mut self, name: impl Into<String>, inputs: [Id; 3], how: CrossView) -> Id {
        let shape = self.shape(inputs[0]);
        debug_assert!(inputs.iter().all(|&input| self.shape(input) == shape));
        self.push(name, Op::CrossView(how), inputs.to_vec(), shape)
    }

    /// Images of one part that the network takes at once: 1 unless one of them is to be seen beside the others.
    pub fn views(&self) -> usize {
        let views = |node: &Node| if let Op::CrossView(how) = node.op { how.views } else { 1 };
        self.nodes.iter().map(views).max().unwrap_or(1)
    }

    /// Multiply-adds for one image.
    pub fn macs(&self) -> u64 {
        let per_node = |node: &Node| {
            let [channels, h, w] = node.shape;
            let of_cell = match node.op {
                // Of every channel once for the products and once for the sum.
                Op::CrossView(how) => 2 * channels * how.looked_at([h, w]) * how.window.pow(2),
                _ => node.op.weights(),
            };
            of_cell as u64 * (h * w) as u64
        };
        self.nodes.iter().map(per_node).sum()
    }

    /// Weights and biases.
    pub fn parameters(&self) -> u64 {
        let per_node = self.nodes.iter().map(|node| (node.op.weights() + node.op.biases()) as u64);
        per_node.sum()
    }
}

impl Op {
    /// Whether its result is float in both precisions.
    pub fn is_tail(&self) -> bool {
        match self {
            Op::Image | Op::Ones | Op::Conv(_) | Op::Add(_) | Op::InstanceNorm(_) => false,
            Op::LeakyRelu(_) | Op::LayerNorm(_) | Op::Modulate | Op::Constant(_) => false,
            Op::MaxPool | Op::Upsample2 | Op::DepthToSpace2 | Op::Concat => false,
            Op::CosineError(_) | Op::Joint(_) | Op::Energy(_) | Op::Nearest(_) => true,
            Op::SumMaps(_) | Op::Pool(_) | Op::Linear(_) | Op::Mahalanobis(_) => true,
            Op::Softplus | Op::Capped(_) | Op::Gated => true,
            Op::ChannelNorm(_) | Op::CrossView(_) => true,
        }
    }

    /// Numbers that are multiplied with the input at every cell of the output.
    fn weights(&self) -> usize {
        match self {
            Op::Conv(c) => c.weight.len(),
            Op::Energy(head) => head.convs.iter().map(|c| c.weight.len()).sum(),
            Op::Nearest(bank) => bank.vectors.len(),
            Op::Linear(linear) => linear.weights.len(),
            Op::Mahalanobis(distance) => distance.directions.len(),
            _ => 0,
        }
    }

    fn biases(&self) -> usize {
        match self {
            Op::Conv(c) => c.bias.len(),
            Op::InstanceNorm(norm) => norm.scale.len() + norm.offset.len(),
            Op::Constant(values) => values.len(),
            Op::ChannelNorm(norm) => norm.scale.len() + norm.offset.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruning_leaves_what_an_output_needs_and_keeps_the_order() {
        let mut graph = Graph::new(64, 64);
        let a = graph.max_pool("a", Graph::IMAGE);
        let b = graph.max_pool("b", a);
        let unused = graph.max_pool("unused", b);
        graph.max_pool("unused too", unused);
        let pooled = graph.pool("pooled", a, Pool { one_in: 50 });
        let score = graph.linear("score", vec![pooled], Linear { weights: vec![1.0; 9], bias: 0.0 });
        (graph.map, graph.image_score) = (Some(b), Some(score));
        let pruned = graph.pruned();
        let names: Vec<&str> = pruned.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["image", "a", "b", "pooled", "score"]);
        assert_eq!((pruned.map, pruned.image_score), (Some(2), Some(4)));
        assert_eq!(pruned.nodes[3].inputs, [1]);
        assert_eq!((pruned.shape(3), pruned.shape(4), Pool { one_in: 50 }.count(256)), ([9, 1, 1], [1, 1, 1], 5));
    }
}
