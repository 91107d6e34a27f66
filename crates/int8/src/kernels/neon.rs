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
                        for quad in 0..segment.quads {
                            let weights: [int8x16_t; 4] = std::array::from_fn(|j| vld1q_s8(w.add(16 * j)));
                            for p in 0..TILE {
                                let x = tiles.inputs[p].add(segment.offset + 4 * quad).cast::<i32>().read_unaligned();
                                let x = vreinterpretq_s8_s32(veorq_s32(vdupq_n_s32(x), flip));
                                for j in 0..4 {
                                    acc[p][j] = sdot(acc[p][j], weights[j], x);
                                }
                            }
                            w = w.add(64);
                        }
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
                *sum = unsafe { sdot(*sum, x, x) };
            }
        }
        std::hint::black_box(acc);
        ROUNDS * 16 * 16
    }

    /// Four products of bytes added to each lane. In assembly: the intrinsic is not stable.
    ///
    /// # Safety
    /// The CPU has the dot-product instructions.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the instruction reads and writes only these registers.
        unsafe {
            std::arch::asm!(
                "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
                acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
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

    /// # Safety
    /// As [`crate::kernels::dense`].
    #[target_feature(enable = "neon")]
    pub unsafe fn dense(conv: &Dense, area: Area) {
        for block in area.blocks.clone() {
            let mut tiles = Tiles::<TILE>::new(&area);
            loop {
                let count = tiles.advance();
                if count == 0 {
                    break;
                }
                // SAFETY: a line of 64 weights for every quad of the block; the segments of every pixel are readable
                // and its blocks writable by the caller's promise.
                unsafe {
                    let mut acc = [[vdupq_n_s32(0); 4]; TILE];
                    let mut w = conv.weights_of(block).as_ptr().cast::<i8>();
                    for segment in &conv.segments {
                        for quad in 0..segment.quads {
                            // One register for each of the quad's bytes, 16 output channels in it.
                            let weights = vld4q_s8(w);
                            let weights = [weights.0, weights.1, weights.2, weights.3]
                                .map(|w| [vmovl_s8(vget_low_s8(w)), vmovl_s8(vget_high_s8(w))]);
                            for p in 0..TILE {
                                let x = tiles.inputs[p].add(segment.offset + 4 * quad).cast::<u32>().read_unaligned();
                                let x = vget_low_u16(vmovl_u8(vcreate_u8(u64::from(x))));
                                let x = vreinterpret_s16_u16(x);
                                acc[p] = add_products::<0>(acc[p], weights[0], x);
                                acc[p] = add_products::<1>(acc[p], weights[1], x);
                                acc[p] = add_products::<2>(acc[p], weights[2], x);
                                acc[p] = add_products::<3>(acc[p], weights[3], x);
                            }
                            w = w.add(64);
                        }
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

    /// 16 output channels' products with lane `L` of `x`.
    #[inline]
    #[target_feature(enable = "neon")]
    fn add_products<const L: i32>(acc: [int32x4_t; 4], w: [int16x8_t; 2], x: int16x4_t) -> [int32x4_t; 4] {
        [
            vmlal_lane_s16::<L>(acc[0], vget_low_s16(w[0]), x),
            vmlal_lane_s16::<L>(acc[1], vget_high_s16(w[0]), x),
            vmlal_lane_s16::<L>(acc[2], vget_low_s16(w[1]), x),
            vmlal_lane_s16::<L>(acc[3], vget_high_s16(w[1]), x),
        ]
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
                    for i in 0..segment.quads {
                        let weights: [float32x4_t; 4] = std::array::from_fn(|j| vld1q_f32(w.add(4 * j)));
                        for p in 0..TILE {
                            let x = tiles.inputs[p].add(segment.offset + 4 * i).cast::<f32>().read_unaligned();
                            for j in 0..4 {
                                acc[p][j] = vfmaq_n_f32(acc[p][j], weights[j], x);
                            }
                        }
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
                let mut w = conv.weights.as_ptr().add(block * BLOCK);
                for &tap in &conv.taps {
                    let weights: [int16x4_t; 4] = std::array::from_fn(|j| vmovn_s32(vld1q_s32(w.add(4 * j))));
                    for p in 0..TILE {
                        let x = vld1q_u8(tiles.inputs[p].add(tap + block * BLOCK));
                        let low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
                        let high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(x)));
                        let x = [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)];
                        for j in 0..4 {
                            acc[p][j] = vmlal_s16(acc[p][j], x[j], weights[j]);
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
