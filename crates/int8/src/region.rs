//! A quantised part of a graph, and the float operators between and behind, in the few operators that there are kernels for. All bytes
//! are u8 here: an i8 tensor is the u8 tensor 128 higher.

/// Output channels that are computed together.
pub const BLOCK: usize = 16;

/// Index of a node; every node has one result.
pub type Id = usize;

/// Channels, height, width.
pub type Shape = [usize; 3];

/// What the values of a tensor outside a region are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    U8,
    I8,
    F32,
}

impl ElementType {
    /// What turns a byte outside into the u8 inside, and back: an i8 is kept 128 higher.
    pub fn flip(self) -> u8 {
        if self == ElementType::I8 { 0x80 } else { 0 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A tensor from outside.
    Input(Input),
    Conv(Conv),
    Add(AddRow),
    /// Of bytes or floats, as the next two.
    MaxPool(Window),
    /// Nearest neighbour, by whole factors down and across.
    Upsample([usize; 2]),
    /// Along the channels.
    Concat,
    /// `scale * (byte - zero)`, for the float operators that follow.
    Float {
        scale: f32,
        zero: f32,
    },
    /// Floats → bytes: `zero + round(x / scale)`, saturated.
    Quantise {
        scale: f32,
        zero: f32,
    },
    FloatConv(FloatConv),
    /// Mean over the cells of a window that are inside.
    AveragePool(Window),
    /// Bilinear, half-pixel, by whole factors down and across.
    Enlarge([usize; 2]),
    /// Length 1 along the channels: `x / sqrt(|x|² + epsilon)`.
    Unit {
        epsilon: f32,
    },
    /// Sum of floats.
    FloatAdd(Activation),
    InstanceNorm(InstanceNorm),
    /// One more channel of this value behind the others.
    Append(f32),
    /// Leaves the region as f32 `[1,1,H,W]`: `sqrt(max(0, min p + |x|²))`, where `p` are the channels of the first input and `x` those of
    /// the second.
    Distance,
    /// Leaves the region as f32 `[1,C,H,W]`.
    Floats,
    /// Leaves the region as f32 `[1,C,H,W]`: `scale * (byte - zero)`.
    Dequantise {
        scale: f32,
        zero: f32,
    },
    /// Leaves the region as bytes `[1,C,H,W]`.
    Bytes(ElementType),
    /// Leaves the region as f32 `[1,1,H,W]`. Its scales and offsets have one value a channel, or one for all.
    /// Of bytes or floats.
    CosineError(CosineRow),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Which of the region's inputs.
    pub index: usize,
    /// `[1,H,W,C]` rather than `[1,C,H,W]`.
    pub channels_last: bool,
    /// U8 or I8.
    pub element: ElementType,
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

/// A quantised convolution as the ONNX file says it, activations already as u8.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// `[out, in / groups, height, width]`.
    pub values: Vec<i8>,
    pub dims: [usize; 4],
    pub bias: Vec<i32>,
    /// `x_scale * w_scale / y_scale` of each output channel.
    pub multipliers: Vec<f32>,
    pub x_zero: u8,
    pub y_zero: u8,
}

impl Weights {
    /// Whether every sum can be requantised without overflow of the conversion to i32: what the kernels rely on.
    pub fn bounded(&self) -> bool {
        let row = self.values.len() / self.dims[0].max(1);
        let largest = |channel: &[i8]| channel.iter().map(|w| u64::from(w.unsigned_abs()) * 255).sum::<u64>();
        self.values.chunks_exact(row.max(1)).zip(&self.bias).zip(&self.multipliers).all(|((channel, bias), scale)| {
            let sum = 2 * largest(channel) + u64::from(bias.unsigned_abs());
            sum < 1 << 31 && scale.is_finite() && (sum as f32 * scale).abs() < (1 << 30) as f32
        })
    }
}

/// Sum of two quantised tensors: `round(a * scale_a + (b * scale_b + offset))`, both scales already over the output's, both products fused
/// with their additions: so ONNX Runtime computes it, and now and then the last bit decides over a byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddRow {
    pub scale_a: f32,
    pub scale_b: f32,
    /// `zero - (zero_a * scale_a + zero_b * scale_b)`.
    pub offset: f32,
    /// Smallest and largest byte: the activation.
    pub low: u8,
    pub high: u8,
}

/// `1 - a·b / sqrt(a·a * b·b + epsilon)` over the channels of a pixel, where channel `c` of `a` is `scale_a[c] * byte + offset_a[c]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CosineRow {
    /// One value for each byte of a pixel, 0 behind the last channel; before [`CosineRow::for_channels`] one a channel or one for all.
    pub scale_a: Vec<f32>,
    pub offset_a: Vec<f32>,
    pub scale_b: Vec<f32>,
    pub offset_b: Vec<f32>,
    pub epsilon: f32,
}

impl CosineRow {
    /// Bytes of a pixel, a multiple of 16.
    pub fn lanes(&self) -> usize {
        self.scale_a.len()
    }

    /// The same with a value for every byte of a pixel with so many channels; none when it is for another number of channels.
    pub fn for_channels(&self, channels: usize) -> Option<CosineRow> {
        let fill = |values: &[f32]| {
            let mut all = if let &[one] = values { vec![one; channels] } else { values.to_vec() };
            let fits = all.len() == channels;
            all.resize(channels.next_multiple_of(BLOCK), 0.0);
            fits.then_some(all)
        };
        Some(CosineRow {
            scale_a: fill(&self.scale_a)?,
            offset_a: fill(&self.offset_a)?,
            scale_b: fill(&self.scale_b)?,
            offset_b: fill(&self.offset_b)?,
            epsilon: self.epsilon,
        })
    }
}

/// A convolution of floats over all channels.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatConv {
    /// `[out, in, height, width]`.
    pub values: Vec<f32>,
    pub dims: [usize; 4],
    pub bias: Vec<f32>,
    pub window: Window,
    pub activation: Activation,
    /// One group a channel; otherwise one group.
    pub depthwise: bool,
}

/// Each channel of an image brought to mean 0 and variance 1, then scaled and moved.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceNorm {
    pub scale: Vec<f32>,
    pub offset: Vec<f32>,
    pub epsilon: f32,
}

/// What is done to each sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// Negative ones times this: 1 leaves them, 0 is ReLU, anything between LeakyReLU, -1 the absolute value; then at most the second.
    Slope(f32, f32),
}

impl Activation {
    pub const NONE: Activation = Activation::Slope(1.0, f32::INFINITY);
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
    pub fn weights(&self) -> usize {
        match self {
            Op::Conv(conv) => conv.weights.values.len(),
            // 16 output channels lie side by side, however few there are.
            Op::FloatConv(conv) => conv.values.len() / conv.dims[0] * conv.dims[0].next_multiple_of(16),
            _ => 0,
        }
    }

    /// Whether its result leaves the region.
    pub fn leaves(&self) -> bool {
        matches!(self, Op::Dequantise { .. } | Op::Floats | Op::Bytes(_) | Op::CosineError(_) | Op::Distance)
    }

    /// Whether it reads floats rather than bytes; none where it reads either.
    fn reads_floats(&self) -> Option<bool> {
        match self {
            Op::Input(_) | Op::MaxPool(_) | Op::Upsample(_) | Op::Concat | Op::CosineError(_) => None,
            Op::Conv(_) | Op::Add(_) | Op::Float { .. } | Op::Dequantise { .. } | Op::Bytes(_) => Some(false),
            Op::Quantise { .. } | Op::FloatConv(_) | Op::FloatAdd(_) | Op::InstanceNorm(_) | Op::Append(_) => {
                Some(true)
            }
            Op::AveragePool(_) | Op::Enlarge(_) | Op::Unit { .. } | Op::Distance | Op::Floats => Some(true),
        }
    }

    /// Whether its result is floats rather than bytes, where its inputs are `of`.
    pub fn gives_floats(&self, of: bool) -> bool {
        match self {
            Op::MaxPool(_) | Op::Upsample(_) | Op::Concat => of,
            Op::Input(_) | Op::Conv(_) | Op::Add(_) | Op::Quantise { .. } | Op::Bytes(_) => false,
            Op::Float { .. } | Op::FloatConv(_) | Op::FloatAdd(_) | Op::InstanceNorm(_) | Op::Append(_) => true,
            Op::AveragePool(_) | Op::Enlarge(_) | Op::Unit { .. } => true,
            Op::Distance | Op::Dequantise { .. } | Op::Floats | Op::CosineError(_) => true,
        }
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

/// Whether a tensor has elements, and not too many.
fn small(shape: &Shape) -> bool {
    let elements = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    elements.is_some_and(|n| (1..LARGEST).contains(&n))
}

impl Region {
    /// Which results are floats rather than bytes.
    pub fn floats(&self) -> Vec<bool> {
        let mut floats: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let of = node.inputs.first().is_some_and(|&i| floats[i]);
            floats.push(node.op.gives_floats(of));
        }
        floats
    }

    /// Shapes of all results, from the shapes of the region's inputs as they come.
    ///
    /// # Errors
    /// A sentence that names the node whose inputs do not fit.
    pub fn shapes(&self, inputs: &[[usize; 4]]) -> Result<Vec<Shape>, String> {
        let floats = self.floats();
        let mut shapes: Vec<Shape> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            // The kernels rely on this: each tensor is in memory, and of the kind that its reader takes.
            let readable = node.inputs.iter().all(|&i| {
                let kind = node.op.reads_floats().unwrap_or(floats[node.inputs[0]]);
                i < shapes.len() && !self.nodes[i].op.leaves() && floats[i] == kind
            });
            if !readable {
                return Err(format!("{}: {} cannot read its inputs", node.name, node.op.name()));
            }
            let of: Vec<Shape> = node.inputs.iter().map(|&i| shapes[i]).collect();
            let shape = node.shape(&of, inputs).filter(small);
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
                (fits && conv.weights.bounded()).then_some([out, height, width])
            }
            Op::InstanceNorm(norm) => {
                let fits = norm.scale.len() == first?[0] && norm.offset.len() == first?[0];
                fits.then_some(first?)
            }
            Op::Append(_) => Some([first?[0] + 1, first?[1], first?[2]]),
            Op::Add(_) | Op::FloatAdd(_) => (of.len() == 2 && of[0] == of[1]).then_some(first?),
            Op::CosineError(row) => {
                let [channels, height, width] = first?;
                let fits = of.len() == 2 && of[0] == of[1] && row.for_channels(channels).is_some();
                fits.then_some([1, height, width])
            }
            Op::FloatConv(conv) => {
                let [height, width] = conv.window.over(first?)?;
                let ([out, depth, ..], [channels, ..]) = (conv.dims, first?);
                let fits = if conv.depthwise { out == channels && depth == 1 } else { depth == channels };
                fits.then_some([out, height, width])
            }
            Op::Distance => {
                let same = of.len() == 2 && of[0][1..] == of[1][1..];
                same.then_some([1, first?[1], first?[2]])
            }
            Op::MaxPool(window) | Op::AveragePool(window) => {
                // Every window has a cell inside.
                let inside = window.pads.iter().zip(window.kernel.iter().cycle()).all(|(pad, kernel)| pad < kernel);
                if !inside {
                    return None;
                }
                let [height, width] = window.over(first?)?;
                Some([first?[0], height, width])
            }
            Op::Upsample([down, across]) | Op::Enlarge([down, across]) => {
                let [channels, height, width] = first?;
                Some([channels, height * down, width * across])
            }
            Op::Concat => {
                let same = of.iter().all(|s| s[1..] == of[0][1..]);
                same.then_some([of.iter().map(|s| s[0]).sum(), first?[1], first?[2]])
            }
            Op::Float { .. } | Op::Quantise { .. } | Op::Unit { .. } => first,
            Op::Dequantise { .. } | Op::Floats | Op::Bytes(_) => first,
        }
    }
}

impl Op {
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "an input",
            Op::Conv(_) | Op::FloatConv(_) => "a convolution",
            Op::Add(_) | Op::FloatAdd(_) => "an addition",
            Op::MaxPool(_) | Op::AveragePool(_) => "a pooling",
            Op::Upsample(_) | Op::Enlarge(_) => "an enlargement",
            Op::Concat | Op::Append(_) => "a concatenation",
            Op::Float { .. } | Op::Dequantise { .. } => "a dequantisation",
            Op::Quantise { .. } => "a quantisation",
            Op::Unit { .. } | Op::InstanceNorm(_) => "a normalisation",
            Op::Distance => "a distance",
            Op::Bytes(_) | Op::Floats => "an output",
            Op::CosineError(_) => "a cosine error",
        }
    }
}
