//! The inner loops, once for every instruction set, and the choice between them.
//!
//! All compute the same bytes: sums are exact in i32 (wrapping, as the hardware's), and the one rounding, in
//! [`requantise`], is written so that every instruction set does it in the same order. [`portable`] is the definition;
//! the tests hold the others to it.
//!
//! A convolution's output is cut in *blocks* of 16 channels and its input in *quads* of 4 bytes that are neighbours in
//! memory: what one dot-product instruction takes. Weights lie as `[block][quad][16][4]`, 64 bytes a quad.

// Registers are counted: loops over their numbers unroll, and say which one is meant.
#![allow(clippy::needless_range_loop)]

mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use crate::isa::{Isa, Set};
use crate::pack::{Dense, DenseF32, Depthwise, DepthwiseF32, Pixels};
use std::ops::Range;

/// Blocks of a dense convolution that one call takes at most.
pub const MAX_BLOCKS: usize = 4;

/// Calls the function of one name in the module of `$isa`.
///
/// # Safety
/// An [`Isa`] is one that this CPU has; what else the function asks for is the caller's to promise.
macro_rules! dispatch {
    ($isa:expr, $name:ident ( $($argument:expr),* )) => {
        match $isa.set() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the CPU has the instructions, and the rest is the caller's promise.
            Set::Avx512Vnni => unsafe { avx512::$name($($argument),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the CPU has the instructions, and the rest is the caller's promise.
            Set::Avx2 => unsafe { avx2::$name($($argument),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the CPU has the instructions, and the rest is the caller's promise.
            Set::NeonDot => unsafe { neon::dot::$name($($argument),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the CPU has the instructions, and the rest is the caller's promise.
            Set::Neon => unsafe { neon::plain::$name($($argument),*) },
            // SAFETY: the CPU has the instructions, and the rest is the caller's promise.
            Set::Portable => unsafe { portable::$name($($argument),*) },
        }
    };
}

/// Multiply-adds a second of this instruction set's product of bytes, from registers only.
pub fn peak(isa: Isa, seconds: f64) -> Option<f64> {
    let (begun, mut macs) = (std::time::Instant::now(), 0u64);
    while begun.elapsed().as_secs_f64() < seconds {
        macs += match isa.set() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` is one that this CPU has.
            Set::Avx512Vnni => unsafe { avx512::multiply_in_registers() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Set::Avx2 => unsafe { avx2::multiply_in_registers() },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Set::NeonDot => unsafe { neon::dot::multiply_in_registers() },
            _ => return None,
        };
    }
    Some(macs as f64 / begun.elapsed().as_secs_f64())
}

/// Which pixels and blocks of a convolution's result are computed, and where.
#[derive(Clone, Debug)]
pub struct Area {
    /// How the pixels lie.
    pub at: Pixels,
    /// First byte under the kernel at the first pixel.
    pub input: *const u8,
    /// First byte of the result's first pixel.
    pub output: *mut u8,
    /// Pixels, counted row by row.
    pub pixels: Range<usize>,
    /// Blocks of output channels.
    pub blocks: Range<usize>,
}

/// Computes the blocks (at most [`MAX_BLOCKS`]) of the output at the pixels.
///
/// # Safety
/// For every pixel `(y, x)` of `pixels`: `input + y * in_row + x * in_column` plus every segment of `conv` is readable,
/// and `output + y * out_row + x * out_column + 16 * b` is writable for 16 bytes for every `b` of `blocks`, and nobody
/// else reads or writes these bytes meanwhile. Where only the least product is wanted, in place of these bytes the 64 at `output + y * out_row + x * out_column`,
/// which are read as well.
pub unsafe fn dense(isa: Isa, conv: &Dense, area: Area) {
    assert!(area.blocks.len() <= MAX_BLOCKS && area.blocks.end <= conv.blocks);
    dispatch!(isa, dense(conv, area));
}

/// As [`dense`], every channel on its own.
///
/// # Safety
/// As [`dense`], with the taps of `conv` (16 bytes of each block at each) in place of its segments.
pub unsafe fn depthwise(isa: Isa, conv: &Depthwise, area: Area) {
    assert!(area.blocks.end <= conv.blocks);
    dispatch!(isa, depthwise(conv, area));
}

/// As [`dense`], of floats: every sum in the order of its segments, with fused multiply-adds.
///
/// # Safety
/// As [`dense`], with 64 bytes a block.
pub unsafe fn dense_f32(isa: Isa, conv: &DenseF32, area: Area) {
    assert!(area.blocks.len() <= MAX_BLOCKS && area.blocks.end <= conv.blocks);
    dispatch!(isa, dense_f32(conv, area));
}

/// As [`depthwise`], of floats, with fused multiply-adds.
///
/// # Safety
/// As [`depthwise`], with 64 bytes a block.
pub unsafe fn depthwise_f32(isa: Isa, conv: &DepthwiseF32, area: Area) {
    assert!(area.blocks.end <= conv.blocks);
    dispatch!(isa, depthwise_f32(conv, area));
}

/// i32 sum → output byte. `|acc * scale|` stays below 2^30 (`Region::shapes` refuses anything else), so the conversion
/// cannot overflow.
#[inline(always)]
fn requantise(acc: i32, scale: f32, zero: i32) -> u8 {
    ((acc as f32 * scale).round_ties_even() as i32 + zero).clamp(0, 255) as u8
}

/// `P` output pixels at a time; the last tile repeats its first pixel where there are fewer.
///
/// A kernel that is done with a tile goes over all `P` and asks `p < count`: with `0..count` the compiler would index the sums by a number that it does not
/// know, so keep them in memory, and store each of them in every round of the innermost loop (`cross/test-kernels` reads the assembly for that).
struct Tiles<const P: usize> {
    inputs: [*const u8; P],
    outputs: [*mut u8; P],
    at: Pixels,
    input: *const u8,
    output: *mut u8,
    x: usize,
    y: usize,
    left: usize,
}

impl<const P: usize> Tiles<P> {
    #[inline(always)]
    fn new(area: &Area) -> Tiles<P> {
        let &Area { at, input, output, ref pixels, .. } = area;
        Tiles {
            inputs: [input; P],
            outputs: [output; P],
            at,
            input,
            output,
            x: pixels.start % at.width,
            y: pixels.start / at.width,
            left: pixels.len(),
        }
    }

    /// Moves on and says how many pixels the tile has; 0 at the end.
    #[inline(always)]
    fn advance(&mut self) -> usize {
        let count = self.left.min(P);
        for p in 0..P {
            if p >= count {
                self.inputs[p] = self.inputs[0];
                self.outputs[p] = self.outputs[0];
                continue;
            }
            // In bounds by the contract of `dense`; wrapping, so that this needs no promise of its own.
            self.inputs[p] = self.input.wrapping_add(self.y * self.at.in_row + self.x * self.at.in_column);
            self.outputs[p] = self.output.wrapping_add(self.y * self.at.out_row + self.x * self.at.out_column);
            self.x += 1;
            if self.x == self.at.width {
                (self.x, self.y) = (0, self.y + 1);
            }
        }
        self.left -= count;
        count
    }
}
