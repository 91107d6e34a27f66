//! The network as it leaves the trainer: few operators, batch norms already folded, shapes known. [`super::onnx`]
//! writes it in f32 and in int8, from the same list, so the two cannot drift apart.

/// Index of a node; every node has one output.
pub type Id = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Linear,
    Relu,
    Relu6,
}

#[derive(Clone, Debug)]
pub struct Conv {
    /// `[out, in/groups, kernel, kernel]`, row by row.
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub out: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Zeros added at the top, left, bottom and right.
    pub pads: [usize; 4],
    pub groups: usize,
    pub activation: Activation,
}

impl Conv {
    /// Input channels of one group.
    pub fn depth(&self) -> usize {
        self.weight.len() / (self.out * self.kernel * self.kernel)
    }
}

#[derive(Clone, Debug)]
pub enum Op {
    /// u8 `[1,H,W,3]` → `(x - 127) / 128` as `[1,3,H,W]`: the backbone's normalisation, which is at the same time
    /// an exact quantisation (zero point 127, scale 1/128).
    Image,
    Conv(Conv),
    /// Sum of two tensors of one shape.
    Add(Activation),
    /// Nearest neighbour, twice the height and width.
    Upsample2,
    /// Along the channels.
    Concat,
    /// `1 - cos` along the channels of its two inputs: `[1,1,H,W]`.
    CosineError,
    /// Sum of maps; smaller ones are first brought to the first one's size (bilinear, half-pixel).
    SumMaps,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub op: Op,
    pub inputs: Vec<Id>,
    /// Channels, height, width.
    pub shape: [usize; 3],
}

/// Nodes in an order in which each comes after its inputs; the last one is the output.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
}

impl Graph {
    pub fn new(width: usize, height: usize) -> Graph {
        let image = Node { name: "image".into(), op: Op::Image, inputs: vec![], shape: [3, height, width] };
        Graph { nodes: vec![image] }
    }

    pub const IMAGE: Id = 0;

    pub fn shape(&self, id: Id) -> [usize; 3] {
        self.nodes[id].shape
    }

    pub fn output(&self) -> Id {
        self.nodes.len() - 1
    }

    fn push(&mut self, name: impl Into<String>, op: Op, inputs: Vec<Id>, shape: [usize; 3]) -> Id {
        self.nodes.push(Node { name: name.into(), op, inputs, shape });
        self.output()
    }

    pub fn conv(&mut self, name: impl Into<String>, input: Id, conv: Conv) -> Id {
        let [_, h, w] = self.shape(input);
        let [top, left, bottom, right] = conv.pads;
        let side = |length: usize, pads: usize| (length + pads - conv.kernel) / conv.stride + 1;
        let shape = [conv.out, side(h, top + bottom), side(w, left + right)];
        self.push(name, Op::Conv(conv), vec![input], shape)
    }

    pub fn add(&mut self, name: impl Into<String>, a: Id, b: Id, activation: Activation) -> Id {
        debug_assert_eq!(self.shape(a), self.shape(b));
        let shape = self.shape(a);
        self.push(name, Op::Add(activation), vec![a, b], shape)
    }

    pub fn upsample2(&mut self, name: impl Into<String>, input: Id) -> Id {
        let [c, h, w] = self.shape(input);
        self.push(name, Op::Upsample2, vec![input], [c, 2 * h, 2 * w])
    }

    pub fn concat(&mut self, name: impl Into<String>, inputs: Vec<Id>) -> Id {
        let [_, h, w] = self.shape(inputs[0]);
        let channels = inputs.iter().map(|&i| self.shape(i)[0]).sum();
        self.push(name, Op::Concat, inputs, [channels, h, w])
    }

    pub fn cosine_error(&mut self, name: impl Into<String>, a: Id, b: Id) -> Id {
        debug_assert_eq!(self.shape(a), self.shape(b));
        let [_, h, w] = self.shape(a);
        self.push(name, Op::CosineError, vec![a, b], [1, h, w])
    }

    pub fn sum_maps(&mut self, name: impl Into<String>, maps: Vec<Id>) -> Id {
        let shape = self.shape(maps[0]);
        self.push(name, Op::SumMaps, maps, shape)
    }

    /// Multiply-adds of all convolutions for one image.
    pub fn macs(&self) -> u64 {
        let per_node = self.nodes.iter().map(|node| match &node.op {
            Op::Conv(c) => (c.weight.len() * node.shape[1] * node.shape[2]) as u64,
            _ => 0,
        });
        per_node.sum()
    }

    /// Weights and biases of all convolutions.
    pub fn parameters(&self) -> u64 {
        let per_node = self.nodes.iter().map(|node| match &node.op {
            Op::Conv(c) => (c.weight.len() + c.bias.len()) as u64,
            _ => 0,
        });
        per_node.sum()
    }
}
