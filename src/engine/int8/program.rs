//! A region with known shapes → steps over one block of memory.
//!
//! Tensors are channels-last, a pixel's channels filled up to a multiple of 16 bytes; what a convolution pads lies around the tensor as
//! a border of zero points, so no kernel knows about borders. A step is cut in *units*; any thread takes the next unit of a
//! step, and goes on to the next step when all units of this one are done, whoever did them. Nothing is allocated while it runs.

use super::kernels::{self, AddRow, BLOCK, CosineRow, Isa, MAX_BLOCKS, Pixels};
use super::memory::{Buffer, Memory, layout};
use super::pack::{Dense, DenseF32, Depthwise, DepthwiseF32, Line};
use super::pool::{Pool, pause};
use super::region::{Activation, Conv, FloatConv, Input, InstanceNorm, Op, Region, Shape, Window};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

pub struct Program {
    isa: Isa,
    steps: Vec<Step>,
    /// Bytes of memory that a run needs.
    memory: usize,
    /// Of each result that leaves: how many values, and the bytes of one.
    outputs: Vec<(usize, usize)>,
}

struct Step {
    kind: Kind,
    /// Beside the border's, which comes first.
    units: usize,
    border: Option<Buffer>,
}

enum Kind {
    Input {
        input: Input,
        from: Shape,
        to: Buffer,
    },
    Dense {
        conv: Box<Dense>,
        at: Pixels,
        input: usize,
        output: usize,
        cut: Cut,
    },
    Depthwise {
        conv: Box<Depthwise>,
        at: Pixels,
        input: usize,
        output: usize,
        cut: Cut,
    },
    Add {
        how: AddRow,
        a: Buffer,
        b: Buffer,
        to: Buffer,
    },
    MaxPool {
        window: Window,
        from: Buffer,
        to: Buffer,
    },
    Upsample {
        factors: [usize; 2],
        from: Buffer,
        to: Buffer,
    },
    /// `value` are the bytes of one.
    Concat {
        value: usize,
        from: Vec<Buffer>,
        to: Buffer,
    },
    Float {
        scale: f32,
        zero: f32,
        from: Buffer,
        to: Buffer,
    },
    Quantise {
        scale: f32,
        zero: f32,
        from: Buffer,
        to: Buffer,
    },
    DenseF32 {
        conv: Box<DenseF32>,
        at: Pixels,
        input: usize,
        output: usize,
        cut: Cut,
    },
    AveragePool {
        window: Window,
        from: Buffer,
        to: Buffer,
    },
    Enlarge {
        rows: Vec<Between>,
        columns: Vec<Between>,
        from: Buffer,
        to: Buffer,
    },
    Unit {
        epsilon: f32,
        from: Buffer,
        to: Buffer,
    },
    DepthwiseF32 {
        conv: Box<DepthwiseF32>,
        at: Pixels,
        input: usize,
        output: usize,
        cut: Cut,
    },
    FloatAdd {
        slope: f32,
        ceiling: f32,
        a: Buffer,
        b: Buffer,
        to: Buffer,
    },
    FloatMaxPool {
        window: Window,
        from: Buffer,
        to: Buffer,
    },
    InstanceNorm {
        norm: InstanceNorm,
        from: Buffer,
        to: Buffer,
    },
    Append {
        value: f32,
        from: Buffer,
        to: Buffer,
    },
    FloatCosineError {
        how: CosineRow,
        a: Buffer,
        b: Buffer,
        output: usize,
    },
    Distance {
        count: usize,
        products: Buffer,
        of: Buffer,
        output: usize,
    },
    Dequantise {
        from: Buffer,
        table: Box<[f32; 256]>,
        output: usize,
    },
    Floats {
        from: Buffer,
        output: usize,
    },
    Bytes {
        from: Buffer,
        flip: u8,
        output: usize,
    },
    CosineError {
        how: CosineRow,
        a: Buffer,
        b: Buffer,
        output: usize,
    },
}

/// How a convolution's output is cut in units: pixels times groups of blocks.
#[derive(Clone, Debug)]
struct Cut {
    pixels: usize,
    /// Pixels of a unit.
    chunk: usize,
    blocks: usize,
    /// Blocks of a unit.
    group: usize,
    /// All groups of some pixels before the next pixels: their input stays in the cache, where all weights fit beside it.
    group_first: bool,
}

/// Memory of one run at a time.
pub struct Scratch {
    bytes: Vec<Line>,
    /// Of each step: the next unit that nobody has, and how many are done.
    next: Vec<AtomicUsize>,
    done: Vec<AtomicUsize>,
    failed: AtomicBool,
    /// First byte of each result that leaves, during a run.
    targets: Vec<AtomicPtr<u8>>,
}

/// Bytes of weights that may stay in the second-level cache beside the pixels.
const WEIGHTS_IN_CACHE: usize = 384 << 10;
/// Input bytes of a unit.
const UNIT_INPUT: usize = 96 << 10;
/// Multiply-adds below which a unit is not worth the handing over.
const UNIT_MACS: usize = 100_000;
/// Divided by every tile's number of pixels.
const TILE_MULTIPLE: usize = 24;

impl Program {
    /// # Errors
    /// A sentence, when shapes do not fit.
    pub fn compile(region: &Region, inputs: &[[usize; 4]], isa: Isa, threads: usize) -> Result<Program, String> {
        let (shapes, floats) = (region.shapes(inputs)?, region.floats());
        let Memory { buffers, bytes } = layout(region, &shapes)?;
        let mut steps = vec![];
        let bytes_a_value = |id: usize| if let Op::Bytes { .. } = region.nodes[id].op { 1 } else { size_of::<f32>() };
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
                Op::Bytes { signed } => {
                    let flip = if *signed { 0x80 } else { 0 };
                    (height, Kind::Bytes { from: from(0), flip, output: output()? })
                }
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

    pub fn scratch(&self) -> Scratch {
        let counters = || self.steps.iter().map(|_| AtomicUsize::new(0)).collect();
        Scratch {
            bytes: vec![Line([0; 64]); self.memory.div_ceil(64)],
            next: counters(),
            done: counters(),
            failed: AtomicBool::new(false),
            targets: self.outputs.iter().map(|_| AtomicPtr::default()).collect(),
        }
    }

    /// `inputs` and `outputs` hold as many values as the shapes say that the program was compiled for: bytes, or f32 in the machine's
    /// order and aligned.
    ///
    /// # Panics
    /// When they do not, or `scratch` is another program's.
    pub fn run(&self, pool: &Pool, scratch: &mut Scratch, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        assert!(scratch.bytes.len() * 64 >= self.memory && scratch.next.len() == self.steps.len());
        assert_eq!(outputs.len(), self.outputs.len());
        for ((output, &(count, size)), target) in outputs.iter_mut().zip(&self.outputs).zip(&scratch.targets) {
            assert!(output.len() == count * size && output.as_ptr().addr().is_multiple_of(size));
            target.store(output.as_mut_ptr(), Ordering::Relaxed);
        }
        for step in &self.steps {
            if let Kind::Input { input, from: [channels, height, width], .. } = &step.kind {
                let channels = channels - usize::from(input.append.is_some());
                assert_eq!(inputs[input.index].len(), channels * height * width);
            }
        }
        for counter in scratch.next.iter().chain(&scratch.done) {
            counter.store(0, Ordering::Relaxed);
        }
        scratch.failed.store(false, Ordering::Relaxed);
        let run = Run {
            program: self,
            memory: scratch.bytes.as_mut_ptr().cast(),
            next: &scratch.next,
            done: &scratch.done,
            failed: &scratch.failed,
            inputs,
            targets: &scratch.targets,
        };
        pool.run(&|| run.take_part());
        assert!(!scratch.failed.load(Ordering::Acquire), "a step of the int8 engine panicked");
    }
}

struct Run<'a> {
    program: &'a Program,
    memory: *mut u8,
    next: &'a [AtomicUsize],
    done: &'a [AtomicUsize],
    failed: &'a AtomicBool,
    inputs: &'a [&'a [u8]],
    targets: &'a [AtomicPtr<u8>],
}

// SAFETY: threads share the memory and the outputs through the pointers, and each unit writes bytes that no other unit of its step touches:
// a row of a tensor, some pixels of some blocks, or the border. A step starts when all units of the step before are done (acquire
// on `done`, which each unit releases), and `layout` gives a step's result memory that none of its inputs has.
unsafe impl Sync for Run<'_> {}

/// Marks the run as failed when a unit panics, so that nobody waits for it.
struct Guard<'a>(&'a AtomicBool, bool);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.store(true, Ordering::Release);
        }
    }
}

impl Run<'_> {
    /// What every thread does.
    fn take_part(&self) {
        let mut guard = Guard(self.failed, false);
        for (i, step) in self.program.steps.iter().enumerate() {
            let all = step.units + usize::from(step.border.is_some());
            loop {
                let unit = self.next[i].fetch_add(1, Ordering::Relaxed);
                if unit >= all {
                    break;
                }
                self.unit(step, unit);
                self.done[i].fetch_add(1, Ordering::Release);
            }
            let mut waited = 0;
            while self.done[i].load(Ordering::Acquire) < all {
                if self.failed.load(Ordering::Acquire) {
                    break;
                }
                pause(&mut waited);
            }
            if self.failed.load(Ordering::Acquire) {
                break;
            }
        }
        guard.1 = true;
    }

    fn target<T>(&self, output: usize) -> *mut T {
        self.targets[output].load(Ordering::Relaxed).cast()
    }

    fn unit(&self, step: &Step, unit: usize) {
        let unit = match &step.border {
            // SAFETY: the border is nobody else's.
            Some(to) if unit == 0 => return unsafe { to.fill_border(self.memory) },
            Some(_) => unit - 1,
            None => unit,
        };
        let isa = self.program.isa;
        match &step.kind {
            Kind::Dense { conv, at, input, output, cut } => {
                let (pixels, blocks) = cut.unit(unit);
                // SAFETY: `layout` gave both tensors their room with all borders and a guard behind; units are disjoint.
                unsafe {
                    let (input, output) = (self.memory.add(*input), self.memory.add(*output));
                    for start in blocks.clone().step_by(MAX_BLOCKS) {
                        let blocks = start..(start + MAX_BLOCKS).min(blocks.end);
                        kernels::dense(isa, conv, at, input, output, pixels.clone(), blocks);
                    }
                }
            }
            Kind::Depthwise { conv, at, input, output, cut } => {
                let (pixels, blocks) = cut.unit(unit);
                // SAFETY: as above.
                unsafe {
                    let (input, output) = (self.memory.add(*input), self.memory.add(*output));
                    kernels::depthwise(isa, conv, at, input, output, pixels, blocks);
                }
            }
            Kind::DenseF32 { conv, at, input, output, cut } => {
                let (pixels, blocks) = cut.unit(unit);
                // SAFETY: as above.
                unsafe {
                    let (input, output) = (self.memory.add(*input), self.memory.add(*output));
                    for start in blocks.clone().step_by(MAX_BLOCKS) {
                        let blocks = start..(start + MAX_BLOCKS).min(blocks.end);
                        kernels::dense_f32(isa, conv, at, input, output, pixels.clone(), blocks);
                    }
                }
            }
            Kind::DepthwiseF32 { conv, at, input, output, cut } => {
                let (pixels, blocks) = cut.unit(unit);
                // SAFETY: as above.
                unsafe {
                    let (input, output) = (self.memory.add(*input), self.memory.add(*output));
                    kernels::depthwise_f32(isa, conv, at, input, output, pixels, blocks);
                }
            }
            // SAFETY, for all rows below: row `unit` of the result is this unit's alone, and nobody writes the inputs during this step.
            Kind::Input { input, from, to } => {
                read_input(self.inputs[input.index], input, *from, unit, unsafe { to.row_mut(self.memory, unit) })
            }
            Kind::Add { how, a, b, to } => {
                let (a, b, to) =
                    unsafe { (a.row(self.memory, unit), b.row(self.memory, unit), to.row_mut(self.memory, unit)) };
                kernels::add_row(isa, how, a, b, to);
            }
            Kind::MaxPool { window, from, to } => {
                let out = unsafe { to.row_mut(self.memory, unit) };
                let rows = window.taps(unit, 0, from.shape[1]);
                let row = |y: usize| unsafe { from.row(self.memory, y) };
                max_pool(isa, window, rows.map(row), from, out);
            }
            Kind::Upsample { factors, from, to } => {
                let (row, out) = unsafe { (from.row(self.memory, unit / factors[0]), to.row_mut(self.memory, unit)) };
                for (x, pixel) in out.chunks_exact_mut(to.pixel).enumerate() {
                    let x = x / factors[1];
                    pixel.copy_from_slice(&row[x * from.pixel..(x + 1) * from.pixel]);
                }
            }
            Kind::Concat { value, from, to } => {
                let out = unsafe { to.row_mut(self.memory, unit) };
                let mut start = 0;
                for part in from {
                    let (row, length) = (unsafe { part.row(self.memory, unit) }, part.shape[0] * value);
                    for (out, pixel) in out.chunks_exact_mut(to.pixel).zip(row.chunks_exact(part.pixel)) {
                        out[start..start + length].copy_from_slice(&pixel[..length]);
                    }
                    start += length;
                }
                // Sums over a pixel of floats run over all its lanes.
                out.chunks_exact_mut(to.pixel).for_each(|pixel| pixel[start..].fill(0));
            }
            Kind::Float { scale, zero, from, to } => {
                let (row, out) = unsafe { (from.row(self.memory, unit), to.floats_mut(self.memory, unit)) };
                kernels::to_float_row(isa, *scale, *zero, row, out);
                let (channels, lanes) = (to.shape[0], to.pixel / 4);
                if channels < lanes {
                    // Sums over a pixel run over all its lanes.
                    out.chunks_exact_mut(lanes).for_each(|pixel| pixel[channels..].fill(0.0));
                }
            }
            Kind::Quantise { scale, zero, from, to } => {
                let (row, out) = unsafe { (from.floats(self.memory, unit), to.row_mut(self.memory, unit)) };
                kernels::to_byte_row(isa, *scale, *zero, row, out);
            }
            Kind::AveragePool { window, from, to } => {
                let out = unsafe { to.floats_mut(self.memory, unit) };
                out.fill(0.0);
                let (rows, lanes) = (window.taps(unit, 0, from.shape[1]), from.pixel / 4);
                for (x, pixel) in out.chunks_exact_mut(lanes).enumerate() {
                    let columns = window.taps(x, 1, from.shape[2]);
                    for y in rows.clone() {
                        let row = unsafe { from.floats(self.memory, y) };
                        for x in columns.clone() {
                            kernels::sum_row(isa, &row[x * lanes..(x + 1) * lanes], pixel);
                        }
                    }
                    let share = 1.0 / (rows.len() * columns.len()) as f32;
                    pixel.iter_mut().for_each(|v| *v *= share);
                }
            }
            Kind::Enlarge { rows, columns, from, to } => {
                let down = rows[unit];
                let out = unsafe { to.floats_mut(self.memory, unit) };
                let [upper, lower] = [down.first, down.second].map(|y| unsafe { from.floats(self.memory, y) });
                let lanes = from.pixel / 4;
                for (pixel, across) in out.chunks_exact_mut(lanes).zip(columns) {
                    let at = [across.first, across.second].map(|x| x * lanes..(x + 1) * lanes);
                    let [upper, lower] = [upper, lower].map(|row| at.clone().map(|pixel| &row[pixel]));
                    kernels::blend_row(isa, upper, lower, across.share, down.share, pixel);
                }
            }
            Kind::Unit { epsilon, from, to } => {
                let (row, out) = unsafe { (from.floats(self.memory, unit), to.floats_mut(self.memory, unit)) };
                kernels::unit_row(isa, from.pixel / 4, *epsilon, row, out);
            }
            Kind::FloatAdd { slope, ceiling, a, b, to } => {
                let [a, b] = [a, b].map(|x| unsafe { x.floats(self.memory, unit) });
                kernels::add_row_f32(isa, *slope, *ceiling, a, b, unsafe { to.floats_mut(self.memory, unit) });
            }
            Kind::FloatMaxPool { window, from, to } => {
                let out = unsafe { to.floats_mut(self.memory, unit) };
                out.fill(f32::NEG_INFINITY);
                let lanes = from.pixel / 4;
                for y in window.taps(unit, 0, from.shape[1]) {
                    let row = unsafe { from.floats(self.memory, y) };
                    for (x, pixel) in out.chunks_exact_mut(lanes).enumerate() {
                        for x in window.taps(x, 1, from.shape[2]) {
                            kernels::max_row_f32(isa, &row[x * lanes..(x + 1) * lanes], pixel);
                        }
                    }
                }
            }
            // A unit is a block of channels of the whole tensor.
            Kind::InstanceNorm { norm, from, to } => unsafe { instance_norm(norm, from, to, self.memory, unit) },
            Kind::Append { value, from, to } => {
                let (row, out) = unsafe { (from.floats(self.memory, unit), to.floats_mut(self.memory, unit)) };
                let channels = from.shape[0];
                for (pixel, out) in row.chunks_exact(from.pixel / 4).zip(out.chunks_exact_mut(to.pixel / 4)) {
                    out.fill(0.0);
                    out[..channels].copy_from_slice(&pixel[..channels]);
                    out[channels] = *value;
                }
            }
            Kind::FloatCosineError { how, a, b, output } => {
                let width = a.shape[2];
                let [a, b] = [a, b].map(|x| unsafe { x.floats(self.memory, unit) });
                let out =
                    unsafe { std::slice::from_raw_parts_mut(self.target::<f32>(*output).add(unit * width), width) };
                kernels::cosine_row_f32(isa, how, a, b, out);
            }
            Kind::Distance { count, products, of, output } => {
                let width = of.shape[2];
                let (products, of) = unsafe { (products.floats(self.memory, unit), of.floats(self.memory, unit)) };
                let out =
                    unsafe { std::slice::from_raw_parts_mut(self.target::<f32>(*output).add(unit * width), width) };
                kernels::distance_row(isa, *count, products, of, out);
            }
            Kind::Floats { from, output } => {
                let row = unsafe { from.floats(self.memory, unit) };
                unsafe { spread(row, from, unit, self.target::<f32>(*output), |value| value) };
            }
            Kind::Dequantise { from, table, output } => {
                let row = unsafe { from.row(self.memory, unit) };
                // SAFETY: the results that leave have room for all of the shape; see `run`.
                unsafe { spread(row, from, unit, self.target::<f32>(*output), |byte| table[usize::from(byte)]) };
            }
            Kind::Bytes { from, flip, output } => {
                let row = unsafe { from.row(self.memory, unit) };
                unsafe { spread(row, from, unit, self.target::<u8>(*output), |byte| byte ^ flip) };
            }
            Kind::CosineError { how, a, b, output } => {
                let width = a.shape[2];
                let (a, b) = unsafe { (a.row(self.memory, unit), b.row(self.memory, unit)) };
                let out =
                    unsafe { std::slice::from_raw_parts_mut(self.target::<f32>(*output).add(unit * width), width) };
                kernels::cosine_row(isa, how, a, b, out);
            }
        }
    }
}

/// One row of an input, its channels last.
fn read_input(values: &[u8], input: &Input, [lanes_used, height, width]: Shape, y: usize, out: &mut [u8]) {
    let channels = lanes_used - usize::from(input.append.is_some());
    let lanes = out.len() / width;
    let flip = if input.signed { 0x80 } else { 0 };
    for (x, pixel) in out.chunks_exact_mut(lanes).enumerate() {
        for (c, byte) in pixel[..channels].iter_mut().enumerate() {
            let at = if input.channels_last { (y * width + x) * channels + c } else { (c * height + y) * width + x };
            *byte = values[at] ^ flip;
        }
        if let Some(value) = input.append {
            pixel[channels] = value;
        }
    }
}

/// One block of channels of a whole tensor. Sums run over the pixels in their order, in f64.
///
/// # Safety
/// `memory` holds the region's tensors; nobody writes `from`, and this block of `to` is the caller's alone.
unsafe fn instance_norm(norm: &InstanceNorm, from: &Buffer, to: &Buffer, memory: *mut u8, block: usize) {
    let ([_, height, width], lanes) = (from.shape, from.pixel / 4);
    let channels = block * BLOCK..(block + 1) * BLOCK;
    let pixels = |y: usize| {
        // SAFETY: the caller's promise.
        let row: &[f32] = unsafe { from.floats(memory, y) };
        row.chunks_exact(lanes).map(|pixel| &pixel[channels.clone()])
    };
    let count = (height * width) as f64;
    let (mut mean, mut variance) = ([0f64; BLOCK], [0f64; BLOCK]);
    for pixel in (0..height).flat_map(pixels) {
        mean.iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    mean.iter_mut().for_each(|sum| *sum /= count);
    for pixel in (0..height).flat_map(pixels) {
        for ((sum, &v), mean) in variance.iter_mut().zip(pixel).zip(&mean) {
            *sum += (f64::from(v) - mean).powi(2);
        }
    }
    let (scale, offset) = (&norm.scale[channels.clone()], &norm.offset[channels.clone()]);
    let factor: [f32; BLOCK] =
        std::array::from_fn(|i| (f64::from(scale[i]) / (variance[i] / count + f64::from(norm.epsilon)).sqrt()) as f32);
    for y in 0..height {
        for (x, pixel) in pixels(y).enumerate() {
            // SAFETY: inside row `y` of `to`, in this block of channels.
            let out = unsafe { memory.add(to.start() + y * to.row_bytes() + x * to.pixel).cast::<f32>() };
            for i in 0..BLOCK {
                let value = (pixel[i] - mean[i] as f32) * factor[i] + offset[i];
                // SAFETY: as above.
                unsafe { out.add(channels.start + i).write(value) };
            }
        }
    }
}

impl InstanceNorm {
    /// With a value for every lane; 0 behind the last channel.
    fn padded(&self, lanes: usize) -> InstanceNorm {
        let mut padded = self.clone();
        padded.scale.resize(lanes, 0.0);
        padded.offset.resize(lanes, 0.0);
        padded
    }
}

/// Row `y` of a tensor, its channels first.
///
/// # Safety
/// `out` has room for the whole tensor, and its row `y` of every channel is the caller's alone.
unsafe fn spread<S: Copy, T>(row: &[S], from: &Buffer, y: usize, out: *mut T, value: impl Fn(S) -> T) {
    let [channels, height, width] = from.shape;
    let lanes = row.len() / width;
    for c in 0..channels {
        for x in 0..width {
            // SAFETY: inside `[channels, height, width]`.
            unsafe { out.add((c * height + y) * width + x).write(value(row[x * lanes + c])) };
        }
    }
}

impl Window {
    /// Input positions under the kernel at output position `at` of an axis (0 down, 1 across) that is `length` long.
    fn taps(&self, at: usize, axis: usize, length: usize) -> Range<usize> {
        let start = at * self.stride[axis];
        let before = self.pads[axis];
        let end = (start + self.kernel[axis]).saturating_sub(before).min(length);
        start.saturating_sub(before).min(end)..end
    }
}

fn max_pool<'a>(isa: Isa, window: &Window, rows: impl Iterator<Item = &'a [u8]>, from: &Buffer, out: &mut [u8]) {
    out.fill(0);
    for row in rows {
        for (x, pixel) in out.chunks_exact_mut(from.pixel).enumerate() {
            for x in window.taps(x, 1, from.shape[2]) {
                kernels::max_row(isa, &row[x * from.pixel..(x + 1) * from.pixel], pixel);
            }
        }
    }
}

/// An output position between two input positions, and the second one's share.
#[derive(Clone, Copy, Debug)]
struct Between {
    first: usize,
    second: usize,
    share: f32,
}

/// Bilinear, half-pixel: for each position of an axis of length `to`.
fn between(from: usize, to: usize) -> Vec<Between> {
    let position = |i: usize| {
        let x = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
        let first = x as usize;
        Between { first, second: (first + 1).min(from - 1), share: x - first as f32 }
    };
    (0..to).map(position).collect()
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
    let pixels = to.shape[1] * to.shape[2];
    let macs = 4 * conv.values.len() * pixels;
    let in_bytes = at.in_column * conv.window.stride[0];
    if conv.depthwise {
        let conv = Box::new(DepthwiseF32::new(conv, from.pixel, from.row_bytes()));
        let cut = Cut::new(pixels, in_bytes, macs, conv.blocks, conv.blocks, threads);
        return (cut.units(), Kind::DepthwiseF32 { conv, at, input, output, cut });
    }
    let conv = Box::new(DenseF32::new(conv, from.pixel, from.row_bytes()));
    let groups = conv.blocks.div_ceil(MAX_BLOCKS);
    let mut cut = Cut::new(pixels, in_bytes, macs, conv.blocks, conv.blocks.div_ceil(groups), threads);
    cut.group_first = conv.weights.len() * 64 <= WEIGHTS_IN_CACHE;
    (cut.units(), Kind::DenseF32 { conv, at, input, output, cut })
}

fn convolution(conv: &Conv, from: Buffer, to: Buffer, threads: usize) -> (usize, Kind) {
    let (at, input, output) = placed(conv.window, from, to);
    let pixels = to.shape[1] * to.shape[2];
    let macs = conv.weights.values.len() * pixels;
    let in_bytes = at.in_column * conv.window.stride[0];
    if conv.depthwise {
        let conv = Box::new(conv.weights.depthwise(from.pixel, from.row_bytes()));
        // The weights are a few kilobytes: all blocks at once.
        let cut = Cut::new(pixels, in_bytes, macs, conv.blocks, conv.blocks, threads);
        return (cut.units(), Kind::Depthwise { conv, at, input, output, cut });
    }
    let conv = Box::new(conv.weights.dense(from.pixel, from.row_bytes()));
    let groups = conv.blocks.div_ceil(MAX_BLOCKS);
    let group = conv.blocks.div_ceil(groups);
    let mut cut = Cut::new(pixels, in_bytes, macs, conv.blocks, group, threads);
    cut.group_first = conv.weights.len() * 64 <= WEIGHTS_IN_CACHE;
    (cut.units(), Kind::Dense { conv, at, input, output, cut })
}

impl Cut {
    fn new(pixels: usize, in_bytes: usize, macs: usize, blocks: usize, group: usize, threads: usize) -> Cut {
        let groups = blocks.div_ceil(group);
        let mut chunk = (UNIT_INPUT / in_bytes.max(1)).max(TILE_MULTIPLE);
        if threads > 1 {
            // Enough units that the threads end together, unless they would be too small.
            let wanted = (4 * threads).min(macs / UNIT_MACS).div_ceil(groups).max(1);
            chunk = chunk.min(pixels.div_ceil(wanted));
        }
        let chunk = chunk.next_multiple_of(TILE_MULTIPLE);
        Cut { pixels, chunk, blocks, group, group_first: true }
    }

    fn units(&self) -> usize {
        self.pixels.div_ceil(self.chunk) * self.blocks.div_ceil(self.group)
    }

    /// Pixels and blocks of a unit.
    fn unit(&self, unit: usize) -> (Range<usize>, Range<usize>) {
        let (chunks, groups) = (self.pixels.div_ceil(self.chunk), self.blocks.div_ceil(self.group));
        let (chunk, group) =
            if self.group_first { (unit / groups, unit % groups) } else { (unit % chunks, unit / chunks) };
        let part = |i: usize, size: usize, all: usize| i * size..((i + 1) * size).min(all);
        (part(chunk, self.chunk, self.pixels), part(group, self.group, self.blocks))
    }
}
