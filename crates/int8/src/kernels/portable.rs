//! The definition, in plain Rust.

use super::{Area, Tiles, requantise};
use crate::pack::{Dense, DenseF32, Depthwise, DepthwiseF32};
use crate::shape::BLOCK;

/// # Safety
/// As [`super::dense`].
pub unsafe fn dense(conv: &Dense, area: Area) {
    let mut tiles = Tiles::<1>::new(&area);
    while tiles.advance() > 0 {
        let (input, output) = (tiles.inputs[0], tiles.outputs[0]);
        for block in area.blocks.clone() {
            let mut acc: [i32; BLOCK] = conv.requant.bias_of(block);
            let mut weights = conv.weights_of(block).iter();
            for segment in &conv.segments {
                for quad in 0..segment.quads {
                    // SAFETY: the caller promises that the segments are readable.
                    let x: [u8; 4] = unsafe { input.add(segment.offset + 4 * quad).cast::<[u8; 4]>().read_unaligned() };
                    let Some(w) = weights.next() else { return };
                    for (sum, w) in acc.iter_mut().zip(w.0.chunks_exact(4)) {
                        let products = x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w as i8));
                        *sum = products.fold(*sum, i32::wrapping_add);
                    }
                }
            }
            let scale = conv.requant.scale_of(block);
            match &conv.least {
                // SAFETY: the caller promises 16 writable bytes a block.
                None => unsafe { store(&acc, scale, conv.requant.zero, output.add(block * BLOCK)) },
                // SAFETY: the caller promises 16 floats a pixel.
                Some(offset) => unsafe { keep_least(&acc, scale, &offset[block * BLOCK..], output) },
            }
        }
    }
}

/// # Safety
/// As [`super::dense_f32`].
pub unsafe fn dense_f32(conv: &DenseF32, area: Area) {
    let mut tiles = Tiles::<1>::new(&area);
    while tiles.advance() > 0 {
        let (input, output) = (tiles.inputs[0], tiles.outputs[0]);
        for block in area.blocks.clone() {
            let mut acc: [f32; BLOCK] = std::array::from_fn(|i| conv.bias[block * BLOCK + i]);
            let mut weights = conv.weights_of(block).iter();
            for segment in &conv.segments {
                for i in 0..segment.quads {
                    // SAFETY: the caller promises that the segments are readable.
                    let x = unsafe { input.add(segment.offset + 4 * i).cast::<f32>().read_unaligned() };
                    let Some(w) = weights.next() else { return };
                    acc.iter_mut().zip(&w.0).for_each(|(sum, w)| *sum = x.mul_add(*w, *sum));
                }
            }
            acc.iter_mut().for_each(|sum| *sum = bend(*sum, conv.slope, conv.ceiling));
            // SAFETY: the caller promises 64 writable bytes a block.
            unsafe { output.add(block * BLOCK * 4).cast::<[f32; BLOCK]>().write_unaligned(acc) };
        }
    }
}

/// # Safety
/// As [`super::depthwise`].
pub unsafe fn depthwise(conv: &Depthwise, area: Area) {
    let mut tiles = Tiles::<1>::new(&area);
    while tiles.advance() > 0 {
        let (input, output) = (tiles.inputs[0], tiles.outputs[0]);
        for block in area.blocks.clone() {
            let mut acc: [i32; BLOCK] = conv.requant.bias_of(block);
            for (tap, &offset) in conv.taps.iter().enumerate() {
                // SAFETY: the caller promises that 16 bytes of each block are readable at every tap.
                let x: [u8; BLOCK] = unsafe { input.add(offset + block * BLOCK).cast::<[u8; BLOCK]>().read() };
                for ((sum, x), w) in acc.iter_mut().zip(x).zip(conv.weights_of(tap, block)) {
                    *sum = sum.wrapping_add(i32::from(x) * w);
                }
            }
            // SAFETY: the caller promises 16 writable bytes a block.
            unsafe { store(&acc, conv.requant.scale_of(block), conv.requant.zero, output.add(block * BLOCK)) };
        }
    }
}

/// # Safety
/// As [`super::depthwise_f32`].
pub unsafe fn depthwise_f32(conv: &DepthwiseF32, area: Area) {
    let mut tiles = Tiles::<1>::new(&area);
    while tiles.advance() > 0 {
        let (input, output) = (tiles.inputs[0], tiles.outputs[0]);
        for block in area.blocks.clone() {
            let mut acc: [f32; BLOCK] = std::array::from_fn(|i| conv.bias[block * BLOCK + i]);
            for (tap, &offset) in conv.taps.iter().enumerate() {
                // SAFETY: the caller promises that 64 bytes of each block are readable at every tap.
                let x = unsafe { input.add(offset + block * BLOCK * 4).cast::<[f32; BLOCK]>().read_unaligned() };
                let w = &conv.weights[tap * conv.blocks + block].0;
                acc.iter_mut().zip(x).zip(w).for_each(|((sum, x), w)| *sum = x.mul_add(*w, *sum));
            }
            acc.iter_mut().for_each(|sum| *sum = bend(*sum, conv.slope, conv.ceiling));
            // SAFETY: the caller promises 64 writable bytes a block.
            unsafe { output.add(block * BLOCK * 4).cast::<[f32; BLOCK]>().write_unaligned(acc) };
        }
    }
}

/// Negative sums times `slope`, then at most `ceiling`; what is no number stays so.
fn bend(sum: f32, slope: f32, ceiling: f32) -> f32 {
    let bent = if sum < 0.0 { sum * slope } else { sum };
    if bent > ceiling { ceiling } else { bent }
}

/// Each of 16 floats becomes the lesser of itself and of what its sum gives.
///
/// # Safety
/// `out` is readable and writable for 16 floats.
unsafe fn keep_least(acc: &[i32; BLOCK], scale: &[f32], offset: &[f32], out: *mut u8) {
    let out = out.cast::<[f32; BLOCK]>();
    // SAFETY: the caller's promise.
    let mut least = unsafe { out.read_unaligned() };
    for (((least, &acc), &scale), &offset) in least.iter_mut().zip(acc).zip(scale).zip(offset) {
        let value = acc as f32 * scale + offset;
        *least = if value < *least { value } else { *least };
    }
    // SAFETY: the caller's promise.
    unsafe { out.write_unaligned(least) };
}

/// # Safety
/// `out` is writable for 16 bytes.
unsafe fn store(acc: &[i32; BLOCK], scale: &[f32], zero: i32, out: *mut u8) {
    let mut bytes = [0u8; BLOCK];
    for ((byte, &acc), &scale) in bytes.iter_mut().zip(acc).zip(scale) {
        *byte = requantise(acc, scale, zero);
    }
    // SAFETY: the caller's promise.
    unsafe { out.cast::<[u8; BLOCK]>().write(bytes) };
}
