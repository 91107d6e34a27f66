//! The inner loops, once for every instruction set, and the choice between them.
//!
//! All compute the same bytes: sums are exact in i32 (wrapping, as the hardware's), and the one rounding, in [`requantise`], is
//! written so that every instruction set does it in the same order. [`portable`] is the definition; the tests hold the others to it.
//!
//! A convolution's output is cut in *blocks* of 16 channels and its input in *quads* of 4 bytes that are neighbours in memory: what
//! one dot-product instruction takes. Weights lie as `[block][quad][16][4]`, 64 bytes a quad.

mod elementwise;
mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub use elementwise::{AddRow, CosineRow};

use super::pack::{Dense, Depthwise};
use std::ops::Range;

/// Output channels that are computed together.
pub const BLOCK: usize = 16;

/// Blocks of a dense convolution that one call takes at most.
pub const MAX_BLOCKS: usize = 4;

/// An instruction set that there are kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Isa {
    /// Those that this CPU has, best first; [`Isa::Portable`] is always the last.
    pub fn available() -> Vec<Isa> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni") {
                found.push(Isa::Avx512Vnni);
            }
            if has!("avx2") {
                found.push(Isa::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                found.push(Isa::NeonDot);
            }
            found.push(Isa::Neon);
        }
        found.push(Isa::Portable);
        found
    }

    pub fn best() -> Isa {
        Isa::available()[0]
    }

    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => "AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "AVX2",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => "NEON with dot product",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "NEON",
            Isa::Portable => "portable",
        }
    }
}

/// Calls the function of one name in the module of `$isa`.
///
/// # Safety
/// A value of [`Isa`] other than `Portable` comes from [`Isa::available`], so the CPU has the features that its functions need.
macro_rules! dispatch {
    ($isa:expr, $name:ident ( $($argument:expr),* )) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => unsafe { avx512::$name($($argument),*) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::$name($($argument),*) },
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => unsafe { neon::dot::$name($($argument),*) },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => unsafe { neon::plain::$name($($argument),*) },
            Isa::Portable => unsafe { portable::$name($($argument),*) },
        }
    };
}

/// How output pixels, counted row by row, lie in the two tensors. All distances are in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    /// Output pixels in a row.
    pub width: usize,
    /// Between the inputs of two output pixels below each other, and beside each other.
    pub in_row: usize,
    pub in_column: usize,
    pub out_row: usize,
    pub out_column: usize,
}

/// Computes `blocks` (at most [`MAX_BLOCKS`]) of the output at `pixels`.
///
/// # Safety
/// For every pixel `(y, x)` of `pixels`: `input + y * in_row + x * in_column` plus every segment of `conv` is readable, and
/// `output + y * out_row + x * out_column + 16 * b` is writable for 16 bytes for every `b` of `blocks`, and nobody else reads or writes
/// these bytes meanwhile. `isa` is one of [`Isa::available`].
pub unsafe fn dense(
    isa: Isa,
    conv: &Dense,
    at: &Pixels,
    input: *const u8,
    output: *mut u8,
    pixels: Range<usize>,
    blocks: Range<usize>,
) {
    debug_assert!(blocks.len() <= MAX_BLOCKS && blocks.end <= conv.blocks);
    dispatch!(isa, dense(conv, at, input, output, pixels, blocks));
}

/// As [`dense`], every channel on its own.
///
/// # Safety
/// As [`dense`], with the taps of `conv` (16 bytes of each block at each) in place of its segments.
pub unsafe fn depthwise(
    isa: Isa,
    conv: &Depthwise,
    at: &Pixels,
    input: *const u8,
    output: *mut u8,
    pixels: Range<usize>,
    blocks: Range<usize>,
) {
    debug_assert!(blocks.end <= conv.blocks);
    dispatch!(isa, depthwise(conv, at, input, output, pixels, blocks));
}

/// `out = requantised a + b`, bytes of one length.
pub fn add_row(isa: Isa, how: &AddRow, a: &[u8], b: &[u8], out: &mut [u8]) {
    dispatch!(isa, add_row(how, a, b, out));
}

/// `1 - cos` of each pixel's channels; see [`CosineRow`].
pub fn cosine_row(isa: Isa, how: &CosineRow, a: &[u8], b: &[u8], out: &mut [f32]) {
    dispatch!(isa, cosine_row(how, a, b, out));
}

/// `out[i] = max(out[i], x[i])`.
pub fn max_row(isa: Isa, x: &[u8], out: &mut [u8]) {
    dispatch!(isa, max_row(x, out));
}

/// The elementwise kernels of one instruction set: the portable text, compiled with its features.
macro_rules! elementwise_for {
    ($($feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        pub unsafe fn add_row(how: &super::AddRow, a: &[u8], b: &[u8], out: &mut [u8]) {
            super::elementwise::add_row(how, a, b, out);
        }

        $(#[target_feature(enable = $feature)])?
        pub unsafe fn cosine_row(how: &super::CosineRow, a: &[u8], b: &[u8], out: &mut [f32]) {
            super::elementwise::cosine_row(how, a, b, out);
        }

        $(#[target_feature(enable = $feature)])?
        pub unsafe fn max_row(x: &[u8], out: &mut [u8]) {
            super::elementwise::max_row(x, out);
        }
    };
}
use elementwise_for;

/// i32 sum → output byte. `|acc * scale|` stays below 2^30 ([`super::pack`] refuses anything else), so the conversion cannot overflow.
#[inline(always)]
fn requantise(acc: i32, scale: f32, zero: i32) -> u8 {
    ((acc as f32 * scale).round_ties_even() as i32 + zero).clamp(0, 255) as u8
}

/// `P` output pixels at a time; the last tile repeats its first pixel where there are fewer.
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
    fn new(at: &Pixels, input: *const u8, output: *mut u8, pixels: Range<usize>) -> Tiles<P> {
        Tiles {
            inputs: [input; P],
            outputs: [output; P],
            at: *at,
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
