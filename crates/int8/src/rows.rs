//! The parts of steps that no instruction set is needed for: reading and writing tensors from outside, windows, positions, norms.

use super::kernels::{self, Isa};
use super::memory::Buffer;
use super::region::{BLOCK, Input, InstanceNorm, Shape, Window};
use std::ops::Range;

/// One row of an input, its channels last.
pub fn read_input(values: &[u8], input: &Input, [lanes_used, height, width]: Shape, y: usize, out: &mut [u8]) {
    let channels = lanes_used - usize::from(input.append.is_some());
    let lanes = out.len() / width;
    let flip = input.element.flip();
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
pub unsafe fn instance_norm(norm: &InstanceNorm, from: &Buffer, to: &Buffer, memory: *mut u8, block: usize) {
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
    let factor: [f32; BLOCK] = std::array::from_fn(|i| match scale[i] {
        // Lanes behind the last channel stay 0, whatever epsilon is.
        0.0 => 0.0,
        scale => (f64::from(scale) / (variance[i] / count + f64::from(norm.epsilon)).sqrt()) as f32,
    });
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
    pub fn padded(&self, lanes: usize) -> InstanceNorm {
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
pub unsafe fn spread<S: Copy, T>(row: &[S], from: &Buffer, y: usize, out: *mut T, value: impl Fn(S) -> T) {
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
    pub fn taps(&self, at: usize, axis: usize, length: usize) -> Range<usize> {
        let start = at * self.stride[axis];
        let before = self.pads[axis];
        let end = (start + self.kernel[axis]).saturating_sub(before).min(length);
        start.saturating_sub(before).min(end)..end
    }
}

pub fn max_pool<'a>(isa: Isa, window: &Window, rows: impl Iterator<Item = &'a [u8]>, from: &Buffer, out: &mut [u8]) {
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
pub struct Between {
    pub first: usize,
    pub second: usize,
    pub share: f32,
}

/// Bilinear, half-pixel: for each position of an axis of length `to`.
pub fn between(from: usize, to: usize) -> Vec<Between> {
    let position = |i: usize| {
        let x = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
        let first = (x as usize).min(from - 1);
        Between { first, second: (first + 1).min(from - 1), share: x - first as f32 }
    };
    (0..to).map(position).collect()
}
