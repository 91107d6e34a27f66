//! What each step of a program does to one unit: a row of its result, some pixels of some blocks of channels, or one block of channels.

use super::cut::Cut;
use super::kernels::{self, Isa};
use super::memory::Buffer;
use super::pack::{Dense, DenseF32, Depthwise, DepthwiseF32, Pixels};
use super::region::{AddRow, CosineRow, Input, InstanceNorm, Shape, Window};
use super::rows::{Between, instance_norm, max_pool, read_input, spread};
use std::sync::atomic::{AtomicPtr, Ordering};

pub enum Kind {
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

/// Where a run's data are.
pub struct Place<'a> {
    pub isa: Isa,
    pub memory: *mut u8,
    pub inputs: &'a [&'a [u8]],
    pub targets: &'a [AtomicPtr<u8>],
}

impl<'a> Place<'a> {
    fn target<T>(&self, output: usize) -> *mut T {
        self.targets[output].load(Ordering::Relaxed).cast()
    }

    /// Row `y` of a map that leaves.
    ///
    /// # Safety
    /// The result `output` is f32 and has room for that row, which is the caller's alone.
    unsafe fn map_row(&self, output: usize, y: usize, width: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.target::<f32>(output).add(y * width), width) }
    }
}

impl Kind {
    /// # Panics
    /// Never: `Program::compile` made the parts fit, and `Program::run` looked at the inputs.
    pub fn unit(&self, unit: usize, place: &Place) {
        let (isa, memory) = (place.isa, place.memory);
        match self {
            Kind::Dense { conv, at, input, output, cut } => {
                let (pixels, blocks) = cut.unit(unit);
                // SAFETY: `layout` gave both tensors their room with all borders and a guard behind; units are disjoint.
                unsafe {
                    let (input, output) = (memory.add(*input), memory.add(*output));
                    kernels::dense(isa, conv, at, input, output, pixels, blocks);
                }
            }
            Kind::Depthwise { conv, at, input, output, cut } => {
                let (pixels, blocks) = cut.unit(unit);
                // SAFETY: as above.
                unsafe {
                    let (input, output) = (memory.add(*input), memory.add(*output));
                    kernels::depthwise(isa, conv, at, input, output, pixels, blocks);
                }
            }
            Kind::DenseF32 { conv, at, input, output, cut } => {
                let (pixels, blocks) = cut.unit(unit);
                // SAFETY: as above.
                unsafe {
                    let (input, output) = (memory.add(*input), memory.add(*output));
                    kernels::dense_f32(isa, conv, at, input, output, pixels, blocks);
                }
            }
            Kind::DepthwiseF32 { conv, at, input, output, cut } => {
                let (pixels, blocks) = cut.unit(unit);
                // SAFETY: as above.
                unsafe {
                    let (input, output) = (memory.add(*input), memory.add(*output));
                    kernels::depthwise_f32(isa, conv, at, input, output, pixels, blocks);
                }
            }
            // SAFETY, for all rows below: row `unit` of the result is this unit's alone, and nobody writes the inputs during this step.
            Kind::Input { input, from, to } => {
                read_input(place.inputs[input.index], input, *from, unit, unsafe { to.row_mut(memory, unit) })
            }
            Kind::Add { how, a, b, to } => {
                let (a, b, to) = unsafe { (a.row(memory, unit), b.row(memory, unit), to.row_mut(memory, unit)) };
                kernels::add_row(isa, how, a, b, to);
            }
            Kind::MaxPool { window, from, to } => {
                let out = unsafe { to.row_mut(memory, unit) };
                let rows = window.taps(unit, 0, from.shape[1]);
                let row = |y: usize| unsafe { from.row(memory, y) };
                max_pool(isa, window, rows.map(row), from, out);
            }
            Kind::Upsample { factors, from, to } => {
                let (row, out) = unsafe { (from.row(memory, unit / factors[0]), to.row_mut(memory, unit)) };
                for (x, pixel) in out.chunks_exact_mut(to.pixel).enumerate() {
                    let x = x / factors[1];
                    pixel.copy_from_slice(&row[x * from.pixel..(x + 1) * from.pixel]);
                }
            }
            Kind::Concat { value, from, to } => {
                let out = unsafe { to.row_mut(memory, unit) };
                let mut start = 0;
                for part in from {
                    let (row, length) = (unsafe { part.row(memory, unit) }, part.shape[0] * value);
                    for (out, pixel) in out.chunks_exact_mut(to.pixel).zip(row.chunks_exact(part.pixel)) {
                        out[start..start + length].copy_from_slice(&pixel[..length]);
                    }
                    start += length;
                }
                // Sums over a pixel of floats run over all its lanes.
                out.chunks_exact_mut(to.pixel).for_each(|pixel| pixel[start..].fill(0));
            }
            Kind::Float { scale, zero, from, to } => {
                let (row, out) = unsafe { (from.row(memory, unit), to.floats_mut(memory, unit)) };
                kernels::to_float_row(isa, *scale, *zero, row, out);
                let (channels, lanes) = (to.shape[0], to.pixel / 4);
                if channels < lanes {
                    // Sums over a pixel run over all its lanes.
                    out.chunks_exact_mut(lanes).for_each(|pixel| pixel[channels..].fill(0.0));
                }
            }
            Kind::Quantise { scale, zero, from, to } => {
                let (row, out) = unsafe { (from.floats(memory, unit), to.row_mut(memory, unit)) };
                kernels::to_byte_row(isa, *scale, *zero, row, out);
            }
            Kind::AveragePool { window, from, to } => {
                let out = unsafe { to.floats_mut(memory, unit) };
                out.fill(0.0);
                let (rows, lanes) = (window.taps(unit, 0, from.shape[1]), from.pixel / 4);
                for (x, pixel) in out.chunks_exact_mut(lanes).enumerate() {
                    let columns = window.taps(x, 1, from.shape[2]);
                    for y in rows.clone() {
                        let row = unsafe { from.floats(memory, y) };
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
                let out = unsafe { to.floats_mut(memory, unit) };
                let [upper, lower] = [down.first, down.second].map(|y| unsafe { from.floats(memory, y) });
                let lanes = from.pixel / 4;
                for (pixel, across) in out.chunks_exact_mut(lanes).zip(columns) {
                    let at = [across.first, across.second].map(|x| x * lanes..(x + 1) * lanes);
                    let [upper, lower] = [upper, lower].map(|row| at.clone().map(|pixel| &row[pixel]));
                    kernels::blend_row(isa, upper, lower, across.share, down.share, pixel);
                }
            }
            Kind::Unit { epsilon, from, to } => {
                let (row, out) = unsafe { (from.floats(memory, unit), to.floats_mut(memory, unit)) };
                kernels::unit_row(isa, from.pixel / 4, *epsilon, row, out);
            }
            Kind::FloatAdd { slope, ceiling, a, b, to } => {
                let [a, b] = [a, b].map(|x| unsafe { x.floats(memory, unit) });
                kernels::add_row_f32(isa, *slope, *ceiling, a, b, unsafe { to.floats_mut(memory, unit) });
            }
            Kind::FloatMaxPool { window, from, to } => {
                let out = unsafe { to.floats_mut(memory, unit) };
                out.fill(f32::NEG_INFINITY);
                let lanes = from.pixel / 4;
                for y in window.taps(unit, 0, from.shape[1]) {
                    let row = unsafe { from.floats(memory, y) };
                    for (x, pixel) in out.chunks_exact_mut(lanes).enumerate() {
                        for x in window.taps(x, 1, from.shape[2]) {
                            kernels::max_row_f32(isa, &row[x * lanes..(x + 1) * lanes], pixel);
                        }
                    }
                }
            }
            // A unit is a block of channels of the whole tensor.
            Kind::InstanceNorm { norm, from, to } => unsafe { instance_norm(norm, from, to, memory, unit) },
            Kind::Append { value, from, to } => {
                let (row, out) = unsafe { (from.floats(memory, unit), to.floats_mut(memory, unit)) };
                let channels = from.shape[0];
                for (pixel, out) in row.chunks_exact(from.pixel / 4).zip(out.chunks_exact_mut(to.pixel / 4)) {
                    out.fill(0.0);
                    out[..channels].copy_from_slice(&pixel[..channels]);
                    out[channels] = *value;
                }
            }
            Kind::FloatCosineError { how, a, b, output } => {
                let width = a.shape[2];
                let [a, b] = [a, b].map(|x| unsafe { x.floats(memory, unit) });
                let out = unsafe { place.map_row(*output, unit, width) };
                kernels::cosine_row_f32(isa, how, a, b, out);
            }
            Kind::Distance { count, products, of, output } => {
                let width = of.shape[2];
                let (products, of) = unsafe { (products.floats(memory, unit), of.floats(memory, unit)) };
                let out = unsafe { place.map_row(*output, unit, width) };
                kernels::distance_row(isa, *count, products, of, out);
            }
            Kind::Floats { from, output } => {
                let row = unsafe { from.floats(memory, unit) };
                unsafe { spread(row, from, unit, place.target::<f32>(*output), |value| value) };
            }
            Kind::Dequantise { from, table, output } => {
                let row = unsafe { from.row(memory, unit) };
                // SAFETY: the results that leave have room for all of the shape; see `run`.
                unsafe { spread(row, from, unit, place.target::<f32>(*output), |byte| table[usize::from(byte)]) };
            }
            Kind::Bytes { from, flip, output } => {
                let row = unsafe { from.row(memory, unit) };
                unsafe { spread(row, from, unit, place.target::<u8>(*output), |byte| byte ^ flip) };
            }
            Kind::CosineError { how, a, b, output } => {
                let width = a.shape[2];
                let (a, b) = unsafe { (a.row(memory, unit), b.row(memory, unit)) };
                let out = unsafe { place.map_row(*output, unit, width) };
                kernels::cosine_row(isa, how, a, b, out);
            }
        }
    }
}
