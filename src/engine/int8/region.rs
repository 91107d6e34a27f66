//! A quantised part of a graph, in the few operators that there are kernels for. All activations are u8 here: an i8 tensor is
//! the u8 tensor 128 higher.

use super::kernels::{AddRow, CosineRow};
use super::pack::Weights;

/// Index of a node; every node has one result.
pub type Id = usize;

/// Channels, height, width.
pub type Shape = [usize; 3];

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A tensor from outside.
    Input(Input),
    Conv(Conv),
    Add(AddRow),
    MaxPool(Window),
    /// Nearest neighbour, by whole factors down and across.
    Upsample([usize; 2]),
    /// Along the channels.
    Concat,
    /// Leaves the region as f32 `[1,C,H,W]`: `scale * (byte - zero)`.
    Dequantise {
        scale: f32,
        zero: f32,
    },
    /// Leaves the region as bytes `[1,C,H,W]`.
    Bytes {
        signed: bool,
    },
    /// Leaves the region as f32 `[1,1,H,W]`. Its scales and offsets have one value a channel, or one for all.
    CosineError(CosineRow),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Which of the region's inputs.
    pub index: usize,
    /// `[1,H,W,C]` rather than `[1,C,H,W]`.
    pub channels_last: bool,
    /// i8 rather than u8.
    pub signed: bool,
    /// One more channel behind the others, filled with this byte.
    pub append: Option<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    pub weights: Weights,
    pub window: Window,
    /// One group a channel; otherwise one group.
    pub depthwise: bool,
}

/// How a kernel moves over its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Down and across, as in all pairs here.
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
}

impl Window {
    fn over(&self, [_, height, width]: Shape) -> Option<[usize; 2]> {
        let side = |length: usize, before: usize, after: usize, axis: usize| {
            let room = (length + before + after).checked_sub(self.kernel[axis])?;
            Some(room / self.stride[axis] + 1)
        };
        let [top, left, bottom, right] = self.pads;
        Some([side(height, top, bottom, 0)?, side(width, left, right, 1)?])
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The result's name in the ONNX file.
    pub name: String,
    pub op: Op,
    pub inputs: Vec<Id>,
}

impl Op {
    /// Whether its result leaves the region.
    pub fn leaves(&self) -> bool {
        matches!(self, Op::Dequantise { .. } | Op::Bytes { .. } | Op::CosineError(_))
    }
}

/// Nodes in an order in which each comes after its inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Region {
    pub nodes: Vec<Node>,
    /// The nodes whose results leave, in the order in which they do.
    pub outputs: Vec<Id>,
}

/// Elements that a tensor may have: far above any frame, far below what would overflow.
const LARGEST: usize = 1 << 28;

impl Region {
    /// Shapes of all results, from the shapes of the region's inputs as they come.
    ///
    /// # Errors
    /// A sentence that names the node whose inputs do not fit.
    pub fn shapes(&self, inputs: &[[usize; 4]]) -> Result<Vec<Shape>, String> {
        let mut shapes: Vec<Shape> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let of: Vec<Shape> = node.inputs.iter().map(|&i| shapes[i]).collect();
            let shape = node.shape(&of, inputs).filter(|s| (1..LARGEST).contains(&s.iter().product()));
            let Some(shape) = shape else {
                return Err(format!(
                    "{}: inputs of {of:?} (channels, height, width) do not fit {}",
                    node.name,
                    node.op.name()
                ));
            };
            shapes.push(shape);
        }
        Ok(shapes)
    }
}

impl Node {
    fn shape(&self, of: &[Shape], inputs: &[[usize; 4]]) -> Option<Shape> {
        let first = of.first().copied();
        match &self.op {
            Op::Input(input) => {
                let &[1, a, b, c] = inputs.get(input.index)? else { return None };
                let [channels, height, width] = if input.channels_last { [c, a, b] } else { [a, b, c] };
                Some([channels + usize::from(input.append.is_some()), height, width])
            }
            Op::Conv(conv) => {
                let [channels, ..] = first?;
                let [out, depth, ..] = conv.weights.dims;
                let fits = if conv.depthwise { out == channels && depth == 1 } else { depth == channels };
                let [height, width] = conv.window.over(first?)?;
                fits.then_some([out, height, width])
            }
            Op::Add(_) => (of.len() == 2 && of[0] == of[1]).then_some(first?),
            Op::CosineError(row) => {
                let [channels, height, width] = first?;
                let fits = of.len() == 2 && of[0] == of[1] && row.for_channels(channels).is_some();
                fits.then_some([1, height, width])
            }
            Op::MaxPool(window) => {
                let [height, width] = window.over(first?)?;
                Some([first?[0], height, width])
            }
            Op::Upsample([down, across]) => {
                let [channels, height, width] = first?;
                Some([channels, height * down, width * across])
            }
            Op::Concat => {
                let same = of.iter().all(|s| s[1..] == of[0][1..]);
                same.then_some([of.iter().map(|s| s[0]).sum(), first?[1], first?[2]])
            }
            Op::Dequantise { .. } | Op::Bytes { .. } => first,
        }
    }
}

impl Op {
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "an input",
            Op::Conv(_) => "a convolution",
            Op::Add(_) => "an addition",
            Op::MaxPool(_) => "a maximum over a window",
            Op::Upsample(_) => "an enlargement",
            Op::Concat => "a concatenation",
            Op::Dequantise { .. } => "a dequantisation",
            Op::Bytes { .. } => "an output",
            Op::CosineError(_) => "a cosine error",
        }
    }
}
