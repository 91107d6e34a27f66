//! The inner loops, once for every instruction set, and the choice between them.
//!
//! All compute the same bytes: sums are exact in i32 (wrapping, as the hardware's), and the one rounding, in [`requantise`], is
//! written so that every instruction set does it in the same order. [`portable`] is the definition; the tests hold the others to it.
//!
//! A convolution's output is cut in *blocks* of 16 channels and its input in *quads* of 4 bytes that are neighbours in memory: what
//! one dot-product instruction takes. Weights lie as `[block][quad][16][4]`, 64 bytes a quad.

// Registers are counted: loops over their numbers unroll, and say which one is meant.
#![allow(clippy::needless_range_loop)]

mod elementwise;
mod portable;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use super::pack::{Dense, DenseF32, Depthwise, DepthwiseF32, Pixels};
use std::ops::Range;

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
            if has!("avx2") && has!("fma") {
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

/// Multiply-adds a second of this instruction set's product of bytes, from registers only.
pub fn peak(isa: Isa, seconds: f64) -> Option<f64> {
    let (begun, mut macs) = (std::time::Instant::now(), 0u64);
    while begun.elapsed().as_secs_f64() < seconds {
        macs += match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `isa` comes from `available`.
            Isa::Avx512Vnni => unsafe { avx512::multiply_in_registers() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::multiply_in_registers() },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::NeonDot => unsafe { neon::dot::multiply_in_registers() },
            _ => return None,
        };
    }
    Some(macs as f64 / begun.elapsed().as_secs_f64())
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

/// As [`dense`], of floats: every sum in the order of its segments, with fused multiply-adds.
///
/// # Safety
/// As [`dense`], with 64 bytes a block.
pub unsafe fn dense_f32(
    isa: Isa,
    conv: &DenseF32,
    at: &Pixels,
    input: *const u8,
    output: *mut u8,
    pixels: Range<usize>,
    blocks: Range<usize>,
) {
    debug_assert!(blocks.len() <= MAX_BLOCKS && blocks.end <= conv.blocks);
    dispatch!(isa, dense_f32(conv, at, input, output, pixels, blocks));
}

/// As [`depthwise`], of floats, with fused multiply-adds.
///
/// # Safety
/// As [`depthwise`], with 64 bytes a block.
pub unsafe fn depthwise_f32(
    isa: Isa,
    conv: &DepthwiseF32,
    at: &Pixels,
    input: *const u8,
    output: *mut u8,
    pixels: Range<usize>,
    blocks: Range<usize>,
) {
    debug_assert!(blocks.end <= conv.blocks);
    dispatch!(isa, depthwise_f32(conv, at, input, output, pixels, blocks));
}

/// Every elementwise kernel, by `$with! { name(argument: type, ...); ... }`.
macro_rules! elementwise_kernels {
    ($with:ident $($feature:literal)?) => {
        $with! { $($feature)?
            add_row(how: &crate::region::AddRow, a: &[u8], b: &[u8], out: &mut [u8]);
            cosine_row(how: &crate::region::CosineRow, a: &[u8], b: &[u8], out: &mut [f32]);
            cosine_row_f32(how: &crate::region::CosineRow, a: &[f32], b: &[f32], out: &mut [f32]);
            max_row_f32(x: &[f32], out: &mut [f32]);
            add_row_f32(slope: f32, ceiling: f32, a: &[f32], b: &[f32], out: &mut [f32]);
            max_row(x: &[u8], out: &mut [u8]);
            sum_row(x: &[f32], out: &mut [f32]);
            to_float_row(scale: f32, zero: f32, x: &[u8], out: &mut [f32]);
            to_byte_row(scale: f32, zero: f32, x: &[f32], out: &mut [u8]);
            blend_row(upper: [&[f32]; 2], lower: [&[f32]; 2], across: f32, down: f32, out: &mut [f32]);
            unit_row(lanes: usize, epsilon: f32, x: &[f32], out: &mut [f32]);
            distance_row(count: usize, products: &[f32], x: &[f32], out: &mut [f32]);
        }
    };
}

/// Functions that choose the instruction set.
macro_rules! chosen {
    ($($name:ident ($($argument:ident: $kind:ty),*);)*) => {
        $(
            /// See the function of this name in [`elementwise`].
            pub fn $name(isa: Isa, $($argument: $kind),*) {
                dispatch!(isa, $name($($argument),*));
            }
        )*
    };
}
elementwise_kernels!(chosen);

/// The portable text, compiled with the features of one instruction set.
macro_rules! compiled_for {
    ($($feature:literal)? $($name:ident ($($argument:ident: $kind:ty),*);)*) => {
        compiled_for!(@each [$($feature)?] $($name ($($argument: $kind),*);)*);
    };
    (@each $feature:tt $($name:ident ($($argument:ident: $kind:ty),*);)*) => {
        $(compiled_for!(@one $feature $name ($($argument: $kind),*));)*
    };
    (@one [$($feature:literal)?] $name:ident ($($argument:ident: $kind:ty),*)) => {
        /// # Safety
        /// The CPU has this instruction set.
        $(#[target_feature(enable = $feature)])?
        pub unsafe fn $name($($argument: $kind),*) {
            $crate::kernels::elementwise::$name($($argument),*);
        }
    };
}
use {compiled_for, elementwise_kernels};

/// i32 sum → output byte. `|acc * scale|` stays below 2^30 (`Region::shapes` refuses anything else), so the conversion cannot overflow.
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
