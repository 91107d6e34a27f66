//! AVX2: bytes and weights widened to i16, of which `vpmaddwd` adds the products of two neighbours exactly.

use super::{Area, Tiles};
use crate::pack::{Dense, DenseF32, Depthwise, DepthwiseF32, Requant};
use crate::shape::BLOCK;
use std::arch::x86_64::*;

/// Pixels that share a load of weights: 8 sums, 4 registers of weights, one pixel's inputs and what picks them stay within 16 registers.
const TILE: usize = 4;

/// # Safety
/// As [`super::dense`]; the CPU has AVX2.
///
/// # Panics
/// The convolution was packed without pairs.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn dense(conv: &Dense, area: Area) {
    let even = _mm256_set1_epi32(0x00FF_00FF);
    for block in area.blocks.clone() {
        let mut tiles = Tiles::<TILE>::new(&area);
        loop {
            let count = tiles.advance();
            if count == 0 {
                break;
            }
            // SAFETY: two lines of 32 widened weights for every quad of the block; the segments of every pixel are readable and
            // its blocks writable by the caller's promise.
            unsafe {
                // acc[p][half]: of 8 output channels.
                let mut acc = [bias(&conv.requant, block); TILE];
                let mut w = conv.pairs_of(block).as_ptr().cast::<__m256i>();
                for segment in &conv.segments {
                    let mut offset = segment.offset;
                    for _ in 0..segment.quads {
                        let weights: [__m256i; 4] = std::array::from_fn(|i| _mm256_load_si256(w.add(i)));
                        for p in 0..TILE {
                            let quad = _mm256_set1_epi32(tiles.inputs[p].add(offset).cast::<i32>().read_unaligned());
                            let (x02, x13) = (_mm256_and_si256(quad, even), _mm256_srli_epi16(quad, 8));
                            for half in 0..2 {
                                let sum = _mm256_add_epi32(acc[p][half], _mm256_madd_epi16(x02, weights[half]));
                                acc[p][half] = _mm256_add_epi32(sum, _mm256_madd_epi16(x13, weights[2 + half]));
                            }
                        }
                        offset += 4;
                        w = w.add(4);
                    }
                }
                for p in 0..TILE {
                    if p < count {
                        match &conv.least {
                            None => store(acc[p], &conv.requant, block, tiles.outputs[p]),
                            Some(offset) => keep_least(acc[p], &conv.requant, offset, block, tiles.outputs[p]),
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`super::dense_f32`]; the CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn dense_f32(conv: &DenseF32, area: Area) {
    // 12 sums hide the latency of a fused multiply-add at two a cycle; weights and one broadcast stay within 16 registers.
    const TILE: usize = 6;
    let (slope, ceiling) = (_mm256_set1_ps(conv.slope), _mm256_set1_ps(conv.ceiling));
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
                let bias = conv.bias.as_ptr().add(block * BLOCK);
                let mut acc = [[_mm256_loadu_ps(bias), _mm256_loadu_ps(bias.add(8))]; TILE];
                let mut w = conv.weights_of(block).as_ptr().cast::<f32>();
                for segment in &conv.segments {
                    let mut offset = segment.offset;
                    for _ in 0..segment.quads {
                        let weights = [_mm256_load_ps(w), _mm256_load_ps(w.add(8))];
                        for p in 0..TILE {
                            let x = _mm256_set1_ps(tiles.inputs[p].add(offset).cast::<f32>().read_unaligned());
                            for half in 0..2 {
                                acc[p][half] = _mm256_fmadd_ps(x, weights[half], acc[p][half]);
                            }
                        }
                        offset += 4;
                        w = w.add(BLOCK);
                    }
                }
                for p in 0..TILE {
                    if p < count {
                        for half in 0..2 {
                            let out = tiles.outputs[p].add((block * BLOCK + 8 * half) * 4);
                            _mm256_storeu_ps(out.cast(), bend(acc[p][half], slope, ceiling));
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`super::depthwise`]; the CPU has AVX2.
///
/// # Panics
/// The convolution was packed without pairs.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn depthwise(conv: &Depthwise, area: Area) {
    let mut tiles = Tiles::<4>::new(&area);
    loop {
        let count = tiles.advance();
        if count == 0 {
            return;
        }
        for block in area.blocks.clone() {
            // SAFETY: bias holds 16 values a block and `pairs` a line of each block for every two taps; the taps are readable and the block writable by
            // the caller's promise.
            unsafe {
                let mut acc = [bias(&conv.requant, block); 4];
                let mut w = conv.pairs_from(block).as_ptr().cast::<__m256i>();
                for taps in conv.taps.chunks(2) {
                    let [first, second] = [taps[0], taps[taps.len() - 1]].map(|tap| tap + block * BLOCK);
                    let weights = [_mm256_load_si256(w), _mm256_load_si256(w.add(1))];
                    for p in 0..4 {
                        let a = _mm_loadu_si128(tiles.inputs[p].add(first).cast());
                        let b = _mm_loadu_si128(tiles.inputs[p].add(second).cast());
                        let x = [_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)];
                        for half in 0..2 {
                            let product = _mm256_madd_epi16(_mm256_cvtepu8_epi16(x[half]), weights[half]);
                            acc[p][half] = _mm256_add_epi32(acc[p][half], product);
                        }
                    }
                    // Behind the last two taps it points nowhere.
                    w = w.wrapping_add(2 * conv.blocks);
                }
                for p in 0..4 {
                    if p < count {
                        store(acc[p], &conv.requant, block, tiles.outputs[p]);
                    }
                }
            }
        }
    }
}

/// Pixels that share a load of a depthwise convolution's weights.
const ACROSS: usize = 8;

/// # Safety
/// As [`super::depthwise_f32`]; the CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn depthwise_f32(conv: &DepthwiseF32, area: Area) {
    let mut tiles = Tiles::<ACROSS>::new(&area);
    let (slope, ceiling) = (_mm256_set1_ps(conv.slope), _mm256_set1_ps(conv.ceiling));
    loop {
        let count = tiles.advance();
        if count == 0 {
            return;
        }
        for start in (area.blocks.start * BLOCK..area.blocks.end * BLOCK).step_by(8) {
            // SAFETY: bias holds 16 values a block and weights `taps * blocks` lines of 16; the taps are readable and
            // the block writable by the caller's promise.
            unsafe {
                let mut acc = [_mm256_loadu_ps(conv.bias.as_ptr().add(start)); ACROSS];
                for (tap, &offset) in conv.taps.iter().enumerate() {
                    let line = conv.weights.as_ptr().cast::<f32>().add(tap * conv.blocks * BLOCK);
                    let weights = _mm256_loadu_ps(line.add(start));
                    for p in 0..ACROSS {
                        let x = _mm256_loadu_ps(tiles.inputs[p].add(offset + start * 4).cast());
                        acc[p] = _mm256_fmadd_ps(x, weights, acc[p]);
                    }
                }
                for p in 0..ACROSS {
                    if p < count {
                        let out = tiles.outputs[p].add(start * 4);
                        _mm256_storeu_ps(out.cast(), bend(acc[p], slope, ceiling));
                    }
                }
            }
        }
    }
}

/// Negative sums times `slope`, then at most `ceiling`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn bend(sum: __m256, slope: __m256, ceiling: __m256) -> __m256 {
    let negative = _mm256_cmp_ps::<_CMP_LT_OQ>(sum, _mm256_setzero_ps());
    // In this order what is no number stays so.
    _mm256_min_ps(ceiling, _mm256_blendv_ps(sum, _mm256_mul_ps(sum, slope), negative))
}

/// What the sums of a block's channels begin with.
///
/// # Safety
/// `requant` has that block.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn bias(requant: &Requant, block: usize) -> [__m256i; 2] {
    // SAFETY: 16 values a block.
    [0, 8].map(|half| unsafe { _mm256_loadu_si256(requant.bias.as_ptr().add(block * BLOCK + half).cast()) })
}

/// # Safety
/// `out + 16 * block` is writable for 16 bytes; `requant` has that block.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn store(sums: [__m256i; 2], requant: &Requant, block: usize, out: *mut u8) {
    let mut rounded = sums;
    for (half, sums) in rounded.iter_mut().enumerate() {
        // SAFETY: 16 scales a block.
        let scale = unsafe { _mm256_loadu_ps(requant.scale.as_ptr().add(block * BLOCK + 8 * half)) };
        // The rounding of the control register is to nearest, ties to even.
        *sums = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(*sums), scale));
    }
    // The zero point is added with saturation to what was saturated already: what lies beyond an i16 lies beyond a byte with it, too.
    let words = _mm256_adds_epi16(_mm256_packs_epi32(rounded[0], rounded[1]), _mm256_set1_epi16(requant.zero as i16));
    let words = _mm256_permute4x64_epi64(words, 0b11_01_10_00);
    let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    // SAFETY: the caller's promise.
    unsafe { _mm_storeu_si128(out.add(block * BLOCK).cast(), bytes) };
}

/// Each of 16 floats becomes the lesser of itself and of what the sums of a block give.
///
/// # Safety
/// `out` is readable and writable for 16 floats; `requant` and `offset` have that block.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn keep_least(sums: [__m256i; 2], requant: &Requant, offset: &[f32], block: usize, out: *mut u8) {
    for (half, sums) in sums.into_iter().enumerate() {
        let at = block * BLOCK + 8 * half;
        // SAFETY: 16 scales and offsets a block, and the caller's promise.
        unsafe {
            let (scale, offset) = (requant.scale.as_ptr().add(at), offset.as_ptr().add(at));
            let out = out.cast::<f32>().add(8 * half);
            let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(scale));
            // In this order what is no number is left out.
            let least = _mm256_min_ps(_mm256_add_ps(scaled, _mm256_loadu_ps(offset)), _mm256_loadu_ps(out));
            _mm256_storeu_ps(out, least);
        }
    }
}

/// Independent products and additions, as many as hide the latency; returns the multiply-adds done.
///
/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply_in_registers() -> u64 {
    const ROUNDS: u64 = 10_000;
    let mut acc = [_mm256_setzero_si256(); 12];
    let x = std::hint::black_box(_mm256_set1_epi16(3));
    for _ in 0..ROUNDS {
        for sum in &mut acc {
            *sum = _mm256_add_epi32(_mm256_madd_epi16(x, *sum), *sum);
        }
    }
    std::hint::black_box(acc);
    ROUNDS * 12 * 16
}
