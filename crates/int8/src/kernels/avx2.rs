//! AVX2: bytes widened to i16, `vpmaddwd` adds the products of two neighbours exactly.

use super::{Area, Tiles};
use crate::pack::{Dense, DenseF32, Depthwise, DepthwiseF32, Requant};
use crate::shape::BLOCK;
use std::arch::x86_64::*;

/// Pixels that share a load of weights: 8 sums, 2 inputs, and weights stay within 16 registers.
const TILE: usize = 2;

/// # Safety
/// As [`super::dense`]; the CPU has AVX2.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn dense(conv: &Dense, area: Area) {
    for block in area.blocks.clone() {
        let mut tiles = Tiles::<TILE>::new(&area);
        loop {
            let count = tiles.advance();
            if count == 0 {
                break;
            }
            // SAFETY: a line of 64 weights for every quad of the block; the segments of every pixel are readable and
            // its blocks writable by the caller's promise.
            unsafe {
                // acc[p][j]: of output channels 4 j .. 4 j + 3, each the sums of its first two and of its last two
                // input bytes.
                let mut acc = [[_mm256_setzero_si256(); 4]; TILE];
                let mut w = conv.weights_of(block).as_ptr().cast::<u8>();
                for segment in &conv.segments {
                    for quad in 0..segment.quads {
                        let x: [__m256i; TILE] = std::array::from_fn(|p| {
                            let quad = tiles.inputs[p].add(segment.offset + 4 * quad).cast::<i32>().read_unaligned();
                            _mm256_cvtepu8_epi16(_mm_set1_epi32(quad))
                        });
                        for j in 0..4 {
                            let weights = _mm256_cvtepi8_epi16(_mm_loadu_si128(w.add(16 * j).cast()));
                            for p in 0..TILE {
                                acc[p][j] = _mm256_add_epi32(acc[p][j], _mm256_madd_epi16(x[p], weights));
                            }
                        }
                        w = w.add(64);
                    }
                }
                for p in 0..TILE {
                    if p < count {
                        let sums = [pairs(acc[p][0], acc[p][1]), pairs(acc[p][2], acc[p][3])];
                        store(sums, &conv.requant, block, tiles.outputs[p]);
                    }
                }
            }
        }
    }
}

/// Adds neighbours: 8 output channels from two registers of 4.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn pairs(a: __m256i, b: __m256i) -> __m256i {
    // Within 128 bits it gives a0 a1 b0 b1 | a2 a3 b2 b3; the permutation brings them in order.
    _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0b11_01_10_00)
}

/// # Safety
/// As [`super::dense_f32`]; the CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn dense_f32(conv: &DenseF32, area: Area) {
    const TILE: usize = 4;
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
                    for i in 0..segment.quads {
                        let weights = [_mm256_loadu_ps(w), _mm256_loadu_ps(w.add(8))];
                        for p in 0..TILE {
                            let x = tiles.inputs[p].add(segment.offset + 4 * i).cast::<f32>().read_unaligned();
                            let x = _mm256_set1_ps(x);
                            for half in 0..2 {
                                acc[p][half] = _mm256_fmadd_ps(x, weights[half], acc[p][half]);
                            }
                        }
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
#[target_feature(enable = "avx2,fma")]
pub unsafe fn depthwise(conv: &Depthwise, area: Area) {
    let mut tiles = Tiles::<4>::new(&area);
    loop {
        let count = tiles.advance();
        if count == 0 {
            return;
        }
        for block in area.blocks.clone() {
            // SAFETY: weights hold `taps * blocks * 16` values; the taps are readable and the block writable by the
            // caller's promise.
            unsafe {
                let mut acc = [[_mm256_setzero_si256(); 2]; 4];
                let mut w = conv.weights.as_ptr().add(block * BLOCK);
                for &tap in &conv.taps {
                    let weights = [_mm256_loadu_si256(w.cast()), _mm256_loadu_si256(w.add(8).cast())];
                    for p in 0..4 {
                        let x = _mm_loadu_si128(tiles.inputs[p].add(tap + block * BLOCK).cast());
                        let x = [_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8))];
                        for half in 0..2 {
                            // The upper half of each widened byte is 0: of the pair of products only the lower one
                            // counts.
                            let product = _mm256_madd_epi16(x[half], weights[half]);
                            acc[p][half] = _mm256_add_epi32(acc[p][half], product);
                        }
                    }
                    w = w.add(conv.blocks * BLOCK);
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

/// # Safety
/// As [`super::depthwise_f32`]; the CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn depthwise_f32(conv: &DepthwiseF32, area: Area) {
    let mut tiles = Tiles::<4>::new(&area);
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
                let mut acc = [_mm256_loadu_ps(conv.bias.as_ptr().add(start)); 4];
                for (tap, &offset) in conv.taps.iter().enumerate() {
                    let line = conv.weights.as_ptr().cast::<f32>().add(tap * conv.blocks * BLOCK);
                    let weights = _mm256_loadu_ps(line.add(start));
                    for p in 0..4 {
                        let x = _mm256_loadu_ps(tiles.inputs[p].add(offset + start * 4).cast());
                        acc[p] = _mm256_fmadd_ps(x, weights, acc[p]);
                    }
                }
                for p in 0..4 {
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

/// # Safety
/// `out + 16 * block` is writable for 16 bytes; `requant` has that block.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn store(sums: [__m256i; 2], requant: &Requant, block: usize, out: *mut u8) {
    let zero = _mm256_set1_epi32(requant.zero);
    let mut rounded = sums;
    for (half, sums) in rounded.iter_mut().enumerate() {
        // SAFETY: 16 biases and scales a block.
        let (bias, scale) = unsafe {
            let at = block * BLOCK + 8 * half;
            (_mm256_loadu_si256(requant.bias.as_ptr().add(at).cast()), _mm256_loadu_ps(requant.scale.as_ptr().add(at)))
        };
        let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(*sums, bias));
        // The rounding of the control register is to nearest, ties to even.
        *sums = _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(sum, scale)), zero);
    }
    let words = _mm256_permute4x64_epi64(_mm256_packs_epi32(rounded[0], rounded[1]), 0b11_01_10_00);
    let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    // SAFETY: the caller's promise.
    unsafe { _mm_storeu_si128(out.add(block * BLOCK).cast(), bytes) };
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
