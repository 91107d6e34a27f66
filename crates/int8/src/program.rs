//! A region with known shapes → steps over one block of memory.
//!
//! Tensors are channels-last, a pixel's channels filled up to a multiple of 16 values; what a convolution pads lies around the tensor as
//! a border of zero points, so no kernel knows about borders. A step is cut in *units*; any thread takes the next unit of a
//! step, and goes on to the next step when all units of this one are done, whoever did them. Nothing is allocated while it runs.

use super::cut::Work;
use super::kernels::Isa;
use super::memory::{Buffer, Memory, layout};
use super::pack::{DenseF32, DepthwiseF32, Pixels};
use super::region::{Activation, BLOCK, Conv, FloatConv, Op, Region, Window};
use super::rows::between;
use super::steps::Kind;

pub struct Program {
    pub isa: Isa,
    pub steps: Vec<Step>,
    /// Bytes of memory that a run needs.
    pub memory: usize,
    /// Of each result that leaves: how many values, and the bytes of one.
    pub outputs: Vec<(usize, usize)>,
}

pub struct Step {
    pub kind: Kind,
    /// Beside the border's, which comes first.
    pub units: usize,
    pub border: Option<Buffer>,
}

impl Program {
    /// # Errors
    /// A sentence, when shapes do not fit.
    pub fn compile(region: &Region, inputs: &[[usize; 4]], isa: Isa, threads: usize) -> Result<Program, String> {
        let (shapes, floats) = (region.shapes(inputs)?, region.floats());
        let Memory { buffers, bytes } = layout(region, &shapes)?;
        let mut steps = vec![];
        let bytes_a_value = |id: usize| if let Op::Bytes(_) = region.nodes[id].op { 1 } else { size_of::<f32>() };
        let outputs = region.outputs.iter().map(|&id| (shapes[id].iter().product(), bytes_a_value(id))).collect();
        for (id, node) in region.nodes.iter().enumerate() {
            let from = |i: usize| buffers[node.inputs[i]];
            let to = buffers[id];
            let [_, height, _] = shapes[id];
            let output =
                || region.outputs.iter().position(|&o| o == id).ok_or_else(|| format!("{}: not an output", node.name));
            let (units, kind) = match &node.op {
                Op::Input(input) => (height, Kind::Input { input: input.clone(), from: shapes[id], to }),
                Op::Conv(conv) => convolution(conv, from(0), to, threads),
                Op::Add(how) => (height, Kind::Add { how: *how, a: from(0), b: from(1), to }),
                Op::Upsample(factors) => (height, Kind::Upsample { factors: *factors, from: from(0), to }),
                Op::Concat => {
                    let from = (0..node.inputs.len()).map(from).collect();
                    (height, Kind::Concat { value: if floats[id] { size_of::<f32>() } else { 1 }, from, to })
                }
                Op::FloatAdd(Activation::Slope(slope, ceiling)) => {
                    (height, Kind::FloatAdd { slope: *slope, ceiling: *ceiling, a: from(0), b: from(1), to })
                }
                Op::InstanceNorm(norm) => {
                    let norm = norm.padded(to.pixel / size_of::<f32>());
                    (norm.scale.len() / BLOCK, Kind::InstanceNorm { norm, from: from(0), to })
                }
                &Op::Append(value) => (height, Kind::Append { value, from: from(0), to }),
                Op::MaxPool(window) if floats[id] => {
                    (height, Kind::FloatMaxPool { window: *window, from: from(0), to })
                }
                Op::MaxPool(window) => (height, Kind::MaxPool { window: *window, from: from(0), to }),
                &Op::Float { scale, zero } => (height, Kind::Float { scale, zero, from: from(0), to }),
                &Op::Quantise { scale, zero } => (height, Kind::Quantise { scale, zero, from: from(0), to }),
                Op::FloatConv(conv) => float_convolution(conv, from(0), to, threads),
                Op::AveragePool(window) => (height, Kind::AveragePool { window: *window, from: from(0), to }),
                Op::Enlarge(_) => {
                    let [_, h, w] = shapes[node.inputs[0]];
                    let (rows, columns) = (between(h, height), between(w, shapes[id][2]));
                    (height, Kind::Enlarge { rows, columns, from: from(0), to })
                }
                &Op::Unit { epsilon } => (height, Kind::Unit { epsilon, from: from(0), to }),
                Op::Distance => {
                    let count = shapes[node.inputs[0]][0];
                    (height, Kind::Distance { count, products: from(0), of: from(1), output: output()? })
                }
                Op::Floats => (height, Kind::Floats { from: from(0), output: output()? }),
                Op::Dequantise { scale, zero } => {
                    let table = Box::new(std::array::from_fn(|byte| (byte as f32 - zero) * scale));
                    (height, Kind::Dequantise { from: from(0), table, output: output()? })
                }
                Op::Bytes(element) => (height, Kind::Bytes { from: from(0), flip: element.flip(), output: output()? }),
                Op::CosineError(how) => {
                    let how = how.for_channels(shapes[node.inputs[0]][0]).ok_or("a cosine error of other channels")?;
                    let (a, b, output) = (from(0), from(1), output()?);
                    if floats[node.inputs[0]] {
                        (height, Kind::FloatCosineError { how, a, b, output })
                    } else {
                        (height, Kind::CosineError { how, a, b, output })
                    }
                }
            };
            steps.push(Step { kind, units, border: (to.border() && !node.op.leaves()).then_some(to) });
        }
        Ok(Program { isa, steps, memory: bytes, outputs })
    }
}

/// Where a convolution reads and writes.
fn placed(window: Window, from: Buffer, to: Buffer) -> (Pixels, usize, usize) {
    let Window { stride, pads: [top, left, ..], .. } = window;
    let at = Pixels {
        width: to.shape[2],
        in_row: stride[0] * from.row_bytes(),
        in_column: stride[1] * from.pixel,
        out_row: to.row_bytes(),
        out_column: to.pixel,
    };
    // The border is as wide as the widest padding of all readers.
    let input = from.offset + (from.pads[0] - top) * from.row_bytes() + (from.pads[1] - left) * from.pixel;
    (at, input, to.start())
}

fn float_convolution(conv: &FloatConv, from: Buffer, to: Buffer, threads: usize) -> (usize, Kind) {
    let (at, input, output) = placed(conv.window, from, to);
    // A float is four times the work of a byte.
    let work = Work::new(conv.window, from, to, 4 * conv.values.len(), threads);
    if conv.depthwise {
        let conv = Box::new(DepthwiseF32::new(conv, from.pixel, from.row_bytes()));
        let cut = work.depthwise(conv.blocks);
        return (cut.units(), Kind::DepthwiseF32 { conv, at, input, output, cut });
    }
    let conv = Box::new(DenseF32::new(conv, from.pixel, from.row_bytes()));
    let cut = work.dense(conv.blocks, conv.weights.len());
    (cut.units(), Kind::DenseF32 { conv, at, input, output, cut })
}

fn convolution(conv: &Conv, from: Buffer, to: Buffer, threads: usize) -> (usize, Kind) {
    let (at, input, output) = placed(conv.window, from, to);
    let work = Work::new(conv.window, from, to, conv.weights.values.len(), threads);
    if conv.depthwise {
        let conv = Box::new(conv.weights.depthwise(from.pixel, from.row_bytes(), conv.window.stride[1]));
        let cut = work.depthwise(conv.blocks);
        return (cut.units(), Kind::Depthwise { conv, at, input, output, cut });
    }
    let conv = Box::new(conv.weights.dense(from.pixel, from.row_bytes()));
    let cut = work.dense(conv.blocks, conv.weights.len());
    (cut.units(), Kind::Dense { conv, at, input, output, cut })
}
