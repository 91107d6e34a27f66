//! NEON, with and without the dot-product instructions of ARMv8.2.

use super::{Area, Tiles};
use crate::pack::{Dense, DenseF32, Depthwise, DepthwiseF32, Requant};
use crate::shape::BLOCK;
use std::arch::aarch64::*;

/// Pixels that share a load of weights: 16 sums, 4 to 8 registers of weights and the inputs stay within 32.
const TILE: usize = 4;

/// With `sdot`.
pub mod dot {
    use super::*;
    pub use super::{dense_f32, depthwise, depthwise_f32};

    /// # Safety
    /// As [`crate::kernels::dense`]; the CPU has the dot-product instructions.
    #[target_feature(enable = "neon,dotprod")]
    pub unsafe fn dense(conv: &Dense, area: Area) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            match &conv.least {
                None => sums::<false>(conv, &[], area),
                Some(offset) => sums::<true>(conv, offset, area),
            }
        }
    }

    /// `offset` is that of the products of which only the `LEAST` is wanted.
    ///
    /// # Safety
    /// As [`dense`].
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn sums<const LEAST: bool>(conv: &Dense, offset: &[f32], area: Area) {
        for block in area.blocks.clone() {
            // Inputs are taken as i8, 128 less; this is what the sums then lack.
            let lacking = &conv.shift[block * BLOCK..(block + 1) * BLOCK];
            let mut tiles = Tiles::<TILE>::new(&area);
            loop {
                let count = tiles.advance();
                if count == 0 {
                    break;
                }
                // SAFETY: a line of 64 weights for every quad of the block; the segments of every pixel are readable
                // and its blocks writable by the caller's promise.
                unsafe {
                    let start: [int32x4_t; 4] = std::array::from_fn(|j| vld1q_s32(lacking.as_ptr().add(4 * j)));
                    let mut acc = [start; TILE];
                    let mut w = conv.weights_of(block).as_ptr().cast::<i8>();
                    let flip = vdupq_n_s32(i32::from_ne_bytes([0x80; 4]));
                    for segment in &conv.segments {
                        // Four quads of a pixel are one load, and the instruction takes the one that is meant out of it.
                        for four in 0..segment.quads / 4 {
                            let at = segment.offset + 16 * four;
                            let x: [int8x16_t; TILE] = std::array::from_fn(|p| {
                                let bytes = vld1q_s8(tiles.inputs[p].add(at).cast());
                                veorq_s8(bytes, vreinterpretq_s8_s32(flip))
                            });
                            add_quad::<0>(&mut acc, w, &x);
                            add_quad::<1>(&mut acc, w.add(64), &x);
                            add_quad::<2>(&mut acc, w.add(128), &x);
                            add_quad::<3>(&mut acc, w.add(192), &x);
                            w = w.add(256);
                        }
                        for quad in segment.quads / 4 * 4..segment.quads {
                            let at = segment.offset + 4 * quad;
                            let x: [int8x16_t; TILE] = std::array::from_fn(|p| {
                                let bytes = tiles.inputs[p].add(at).cast::<i32>().read_unaligned();
                                vreinterpretq_s8_s32(veorq_s32(vdupq_n_s32(bytes), flip))
                            });
                            add_quad::<0>(&mut acc, w, &x);
                            w = w.add(64);
                        }
                    }
                    for p in 0..TILE {
                        if p < count {
                            finish::<LEAST>(acc[p], &conv.requant, offset, block, tiles.outputs[p]);
                        }
                    }
                }
            }
        }
    }

    /// The products of 16 output channels' weights for a quad, which lie at `w`, with the quad `LANE` of each pixel.
    ///
    /// # Safety
    /// 64 bytes are readable at `w`; the CPU has the dot-product instructions.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add_quad<const LANE: u32>(acc: &mut [[int32x4_t; 4]; TILE], w: *const i8, x: &[int8x16_t; TILE]) {
        // SAFETY: the caller's promise.
        unsafe {
            let weights: [int8x16_t; 4] = std::array::from_fn(|j| vld1q_s8(w.add(16 * j)));
            for p in 0..TILE {
                for j in 0..4 {
                    acc[p][j] = sdot::<LANE>(acc[p][j], weights[j], x[p]);
                }
            }
        }
    }

    /// Independent products, as many as hide the instruction's latency; returns the multiply-adds done.
    ///
    /// # Safety
    /// The CPU has the dot-product instructions.
    #[target_feature(enable = "neon,dotprod")]
    pub unsafe fn multiply_in_registers() -> u64 {
        const ROUNDS: u64 = 10_000;
        let mut acc = [vdupq_n_s32(0); 16];
        let x = std::hint::black_box(vdupq_n_s8(3));
        for _ in 0..ROUNDS {
            for sum in &mut acc {
                // SAFETY: the CPU has the instruction.
                *sum = unsafe { sdot::<0>(*sum, x, x) };
            }
        }
        std::hint::black_box(acc);
        ROUNDS * 16 * 16
    }

    /// The four products of each lane of `a` with the four bytes of the lane `LANE` of `b`, added to its sum. In assembly:
    /// the intrinsic is not stable.
    ///
    /// # Safety
    /// The CPU has the dot-product instructions.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn sdot<const LANE: u32>(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the instruction reads and writes only these registers.
        unsafe {
            std::arch::asm!(
                "sdot {acc:v}.4s, {a:v}.16b, {b:v}.4b[{lane}]",
                acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b, lane = const LANE,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        acc
    }
}

/// Every ARMv8 has these.
pub mod plain {
    use super::*;
    pub use super::{dense_f32, depthwise, depthwise_f32};

    /// Pixels of a tile: each has two sums a channel, of even and of odd pairs of products.
    const TILE: usize = 2;

    /// # Safety
    /// As [`crate::kernels::dense`].
    #[target_feature(enable = "neon")]
    pub unsafe fn dense(conv: &Dense, area: Area) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            match &conv.least {
                None => sums::<false>(conv, &[], area),
                Some(offset) => sums::<true>(conv, offset, area),
            }
        }
    }

    /// `offset` is that of the products of which only the `LEAST` is wanted.
    ///
    /// # Safety
    /// As [`dense`].
    #[target_feature(enable = "neon")]
    unsafe fn sums<const LEAST: bool>(conv: &Dense, offset: &[f32], area: Area) {
        for block in area.blocks.clone() {
            // Inputs are taken as i8, 128 less; this is what the sums then lack.
            let lacking = &conv.shift[block * BLOCK..(block + 1) * BLOCK];
            let mut tiles = Tiles::<TILE>::new(&area);
            loop {
                let count = tiles.advance();
                if count == 0 {
                    break;
                }
                // SAFETY: a line of 64 weights for every quad of the block; the segments of every pixel are readable
                // and its blocks writable by the caller's promise.
                unsafe {
                    let start: [int32x4_t; 8] = std::array::from_fn(|i| {
                        let (four, none) = (vld1q_s32(lacking.as_ptr().add(i / 2 * 4)), vdupq_n_s32(0));
                        if i % 2 == 0 { vzip1q_s32(four, none) } else { vzip2q_s32(four, none) }
                    });
                    let mut acc = [start; TILE];
                    let mut w = conv.weights_of(block).as_ptr().cast::<i8>();
                    let flip = vdup_n_s32(i32::from_ne_bytes([0x80; 4]));
                    for segment in &conv.segments {
                        // Two products are one i16 where no weight is -128.
                        let paired = if conv.narrow { segment.quads / 2 } else { 0 };
                        for pair in 0..paired {
                            let at = segment.offset + 8 * pair;
                            let x: [[int8x16_t; 2]; TILE] = std::array::from_fn(|p| {
                                let x = veor_s32(vld1_s32(tiles.inputs[p].add(at).cast()), flip);
                                [vdupq_lane_s32::<0>(x), vdupq_lane_s32::<1>(x)].map(|x| vreinterpretq_s8_s32(x))
                            });
                            for j in 0..4 {
                                let (a, b) = (vld1q_s8(w.add(16 * j)), vld1q_s8(w.add(64 + 16 * j)));
                                for p in 0..TILE {
                                    let [xa, xb] = x[p];
                                    let low = vmull_s8(vget_low_s8(a), vget_low_s8(xa));
                                    let low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(xb));
                                    let high = vmlal_high_s8(vmull_high_s8(a, xa), b, xb);
                                    acc[p][2 * j] = vpadalq_s16(acc[p][2 * j], low);
                                    acc[p][2 * j + 1] = vpadalq_s16(acc[p][2 * j + 1], high);
                                }
                            }
                            w = w.add(128);
                        }
                        for single in 2 * paired..segment.quads {
                            let at = segment.offset + 4 * single;
                            let x: [int8x16_t; TILE] = std::array::from_fn(|p| {
                                let x = tiles.inputs[p].add(at).cast::<i32>().read_unaligned();
                                let x = veor_s32(vdup_n_s32(x), flip);
                                vreinterpretq_s8_s32(vcombine_s32(x, x))
                            });
                            for j in 0..4 {
                                let a = vld1q_s8(w.add(16 * j));
                                for p in 0..TILE {
                                    let low = vmull_s8(vget_low_s8(a), vget_low_s8(x[p]));
                                    acc[p][2 * j] = vpadalq_s16(acc[p][2 * j], low);
                                    acc[p][2 * j + 1] = vpadalq_s16(acc[p][2 * j + 1], vmull_high_s8(a, x[p]));
                                }
                            }
                            w = w.add(64);
                        }
                    }
                    for p in 0..TILE {
                        if p < count {
                            let sums = std::array::from_fn(|j| vpaddq_s32(acc[p][2 * j], acc[p][2 * j + 1]));
                            finish::<LEAST>(sums, &conv.requant, offset, block, tiles.outputs[p]);
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`super::dense_f32`].
#[target_feature(enable = "neon")]
pub unsafe fn dense_f32(conv: &DenseF32, area: Area) {
    for block in area.blocks.clone() {
        let mut tiles = Tiles::<TILE>::new(&area);
        loop {
            let count = tiles.advance();
            if count == 0 {
                break;
            }
            // SAFETY: `depth` lines of 16 weights and 16 biases a block; the segments of every pixel are readable and
            // its blocks writable by the caller's promise.
            unsafe {
                let bias: [float32x4_t; 4] =
                    std::array::from_fn(|j| vld1q_f32(conv.bias.as_ptr().add(block * BLOCK + 4 * j)));
                let mut acc = [bias; TILE];
                let mut w = conv.weights_of(block).as_ptr().cast::<f32>();
                for segment in &conv.segments {
                    // Four values of a pixel are one load.
                    for four in 0..segment.quads / 4 {
                        let at = segment.offset + 16 * four;
                        let x: [float32x4_t; TILE] = std::array::from_fn(|p| vld1q_f32(tiles.inputs[p].add(at).cast()));
                        add_value::<0>(&mut acc, w, &x);
                        add_value::<1>(&mut acc, w.add(BLOCK), &x);
                        add_value::<2>(&mut acc, w.add(2 * BLOCK), &x);
                        add_value::<3>(&mut acc, w.add(3 * BLOCK), &x);
                        w = w.add(4 * BLOCK);
                    }
                    for i in segment.quads / 4 * 4..segment.quads {
                        let at = segment.offset + 4 * i;
                        let x: [float32x4_t; TILE] =
                            std::array::from_fn(|p| vld1q_dup_f32(tiles.inputs[p].add(at).cast()));
                        add_value::<0>(&mut acc, w, &x);
                        w = w.add(BLOCK);
                    }
                }
                for p in 0..TILE {
                    if p < count {
                        for j in 0..4 {
                            let out = tiles.outputs[p].add((block * BLOCK + 4 * j) * 4);
                            vst1q_f32(out.cast(), bend(acc[p][j], conv.slope, conv.ceiling));
                        }
                    }
                }
            }
        }
    }
}

/// The products of 16 output channels' weights for a value, which lie at `w`, with the value `LANE` of each pixel.
///
/// # Safety
/// 16 floats are readable at `w`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_value<const LANE: i32>(acc: &mut [[float32x4_t; 4]; TILE], w: *const f32, x: &[float32x4_t; TILE]) {
    // SAFETY: the caller's promise.
    let weights: [float32x4_t; 4] = std::array::from_fn(|j| unsafe { vld1q_f32(w.add(4 * j)) });
    for p in 0..TILE {
        for j in 0..4 {
            acc[p][j] = vfmaq_laneq_f32::<LANE>(acc[p][j], weights[j], x[p]);
        }
    }
}

/// # Safety
/// As [`super::depthwise`].
#[target_feature(enable = "neon")]
pub unsafe fn depthwise(conv: &Depthwise, area: Area) {
    let mut tiles = Tiles::<TILE>::new(&area);
    loop {
        let count = tiles.advance();
        if count == 0 {
            return;
        }
        for block in area.blocks.clone() {
            // SAFETY: weights hold `taps * blocks * 16` values; the taps are readable and the block writable by the
            // caller's promise.
            unsafe {
                let mut acc = [[vdupq_n_s32(0); 4]; TILE];
                let mut w = conv.halves.as_ptr().add(block * BLOCK);
                for &tap in &conv.taps {
                    let weights = [vld1q_s16(w), vld1q_s16(w.add(8))];
                    for p in 0..TILE {
                        let x = vld1q_u8(tiles.inputs[p].add(tap + block * BLOCK));
                        let x = [vmovl_u8(vget_low_u8(x)), vmovl_high_u8(x)].map(|x| vreinterpretq_s16_u16(x));
                        for half in 0..2 {
                            let (x, weights) = (x[half], weights[half]);
                            acc[p][2 * half] = vmlal_s16(acc[p][2 * half], vget_low_s16(x), vget_low_s16(weights));
                            acc[p][2 * half + 1] = vmlal_high_s16(acc[p][2 * half + 1], x, weights);
                        }
                    }
                    w = w.add(conv.blocks * BLOCK);
                }
                for p in 0..TILE {
                    if p < count {
                        store(acc[p], &conv.requant, block, tiles.outputs[p]);
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`super::depthwise_f32`].
#[target_feature(enable = "neon")]
pub unsafe fn depthwise_f32(conv: &DepthwiseF32, area: Area) {
    let mut tiles = Tiles::<TILE>::new(&area);
    loop {
        let count = tiles.advance();
        if count == 0 {
            return;
        }
        for start in (area.blocks.start * BLOCK..area.blocks.end * BLOCK).step_by(4) {
            // SAFETY: bias holds 16 values a block and weights `taps * blocks` lines of 16; the taps are readable and
            // the block writable by the caller's promise.
            unsafe {
                let mut acc = [vld1q_f32(conv.bias.as_ptr().add(start)); TILE];
                for (tap, &offset) in conv.taps.iter().enumerate() {
                    let line = conv.weights.as_ptr().cast::<f32>().add(tap * conv.blocks * BLOCK);
                    let weights = vld1q_f32(line.add(start));
                    for p in 0..TILE {
                        let x = vld1q_f32(tiles.inputs[p].add(offset + start * 4).cast());
                        acc[p] = vfmaq_f32(acc[p], x, weights);
                    }
                }
                for p in 0..TILE {
                    if p < count {
                        vst1q_f32(tiles.outputs[p].add(start * 4).cast(), bend(acc[p], conv.slope, conv.ceiling));
                    }
                }
            }
        }
    }
}

/// Negative sums times `slope`, then at most `ceiling`.
#[inline]
#[target_feature(enable = "neon")]
fn bend(sum: float32x4_t, slope: f32, ceiling: f32) -> float32x4_t {
    let bent = vbslq_f32(vcltzq_f32(sum), vmulq_n_f32(sum, slope), sum);
    vminq_f32(bent, vdupq_n_f32(ceiling))
}

/// What becomes of the sums of a block, their bias not yet added. `LEAST` is a constant: a question in the loop over tiles would cost the sums their registers.
///
/// # Safety
/// That of [`keep_least`] or of [`store`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish<const LEAST: bool>(
    sums: [int32x4_t; 4],
    requant: &Requant,
    offset: &[f32],
    block: usize,
    out: *mut u8,
) {
    // SAFETY: the caller's promise, passed on.
    unsafe { if LEAST { keep_least(sums, requant, offset, block, out) } else { store(sums, requant, block, out) } }
}

/// Each of 16 floats becomes the lesser of itself and of what the sums of a block give.
///
/// # Safety
/// `out` is readable and writable for 16 floats; `requant` and `offset` have that block.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn keep_least(sums: [int32x4_t; 4], requant: &Requant, offset: &[f32], block: usize, out: *mut u8) {
    for j in 0..4 {
        let at = block * BLOCK + 4 * j;
        // SAFETY: 16 biases, scales and offsets a block, and the caller's promise.
        unsafe {
            let (bias, scale) = (vld1q_s32(requant.bias.as_ptr().add(at)), vld1q_f32(requant.scale.as_ptr().add(at)));
            let scaled = vmulq_f32(vcvtq_f32_s32(vaddq_s32(sums[j], bias)), scale);
            let value = vaddq_f32(scaled, vld1q_f32(offset.as_ptr().add(at)));
            let out = out.cast::<f32>().add(4 * j);
            let least = vld1q_f32(out);
            // Not the instruction for the lesser one, which keeps what is no number.
            vst1q_f32(out, vbslq_f32(vcltq_f32(value, least), value, least));
        }
    }
}

/// # Safety
/// `out + 16 * block` is writable for 16 bytes; `requant` has that block.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store(sums: [int32x4_t; 4], requant: &Requant, block: usize, out: *mut u8) {
    let zero = vdupq_n_s32(requant.zero);
    let rounded: [int32x4_t; 4] = std::array::from_fn(|j| {
        let at = block * BLOCK + 4 * j;
        // SAFETY: 16 biases and scales a block.
        let (bias, scale) =
            unsafe { (vld1q_s32(requant.bias.as_ptr().add(at)), vld1q_f32(requant.scale.as_ptr().add(at))) };
        let scaled = vmulq_f32(vcvtq_f32_s32(vaddq_s32(sums[j], bias)), scale);
        vaddq_s32(vcvtnq_s32_f32(scaled), zero)
    });
    let low = vcombine_s16(vqmovn_s32(rounded[0]), vqmovn_s32(rounded[1]));
    let high = vcombine_s16(vqmovn_s32(rounded[2]), vqmovn_s32(rounded[3]));
    let bytes = vcombine_u8(vqmovun_s16(low), vqmovun_s16(high));
    // SAFETY: the caller's promise.
    unsafe { vst1q_u8(out.add(block * BLOCK), bytes) };
}
