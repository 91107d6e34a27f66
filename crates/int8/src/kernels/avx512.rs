//! AVX-512 with VNNI: `vpdpbusd` multiplies 16 output channels by a quad, 64 multiply-adds an instruction.

use super::{Area, Tiles};
use crate::pack::{Dense, DenseF32, Depthwise, DepthwiseF32, Requant, WIDE, Wide};
use crate::shape::BLOCK;
use std::arch::x86_64::*;

/// # Safety
/// As [`super::dense`]; the CPU has AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn dense(conv: &Dense, area: Area) {
    // 24 sums, the blocks' weights and one broadcast stay within 32 registers.
    // SAFETY: the caller's promise, passed on.
    unsafe {
        match area.blocks.len() {
            4 => group::<4, 6>(conv, area),
            3 => group::<3, 8>(conv, area),
            2 => group::<2, 12>(conv, area),
            1 => group::<1, 12>(conv, area),
            _ => {}
        }
    }
}

/// # Safety
/// As [`dense`], for the blocks `first..first + OB`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn group<const OB: usize, const P: usize>(conv: &Dense, area: Area) {
    let (mut tiles, first) = (Tiles::<P>::new(&area), area.blocks.start);
    let stride = conv.quads * 64;
    // SAFETY: `weights` holds `blocks * quads` lines and first + OB <= blocks; bias and scale hold 16 values a block;
    // the segments of every pixel are readable and its blocks writable by the caller's promise.
    unsafe {
        let weights = conv.weights_of(first).as_ptr().cast::<u8>();
        loop {
            let count = tiles.advance();
            if count == 0 {
                return;
            }
            let mut acc = [[_mm512_setzero_si512(); OB]; P];
            for o in 0..OB {
                let bias = _mm512_loadu_si512(conv.requant.bias.as_ptr().add((first + o) * BLOCK).cast());
                for sums in &mut acc {
                    sums[o] = bias;
                }
            }
            let mut w = weights;
            for segment in &conv.segments {
                let mut offset = segment.offset;
                for _ in 0..segment.quads {
                    let mut wv = [_mm512_setzero_si512(); OB];
                    for o in 0..OB {
                        wv[o] = _mm512_load_si512(w.add(o * stride).cast());
                    }
                    for p in 0..P {
                        let x = _mm512_set1_epi32(tiles.inputs[p].add(offset).cast::<i32>().read_unaligned());
                        for o in 0..OB {
                            acc[p][o] = _mm512_dpbusd_epi32(acc[p][o], x, wv[o]);
                        }
                    }
                    offset += 4;
                    w = w.add(64);
                }
            }
            for p in 0..P {
                if p < count {
                    match &conv.least {
                        None => store(&acc[p], &conv.requant, first, tiles.outputs[p]),
                        Some(offset) => keep_least(&acc[p], &conv.requant, offset, first, tiles.outputs[p]),
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`super::dense_f32`]; the CPU has AVX-512 F.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn dense_f32(conv: &DenseF32, area: Area) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        match area.blocks.len() {
            4 => group_f32::<4, 6>(conv, area),
            3 => group_f32::<3, 8>(conv, area),
            2 => group_f32::<2, 12>(conv, area),
            1 => group_f32::<1, 12>(conv, area),
            _ => {}
        }
    }
}

/// # Safety
/// As [`dense_f32`], for the blocks `first..first + OB`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn group_f32<const OB: usize, const P: usize>(conv: &DenseF32, area: Area) {
    let (mut tiles, first) = (Tiles::<P>::new(&area), area.blocks.start);
    let stride = conv.depth * BLOCK;
    let (slope, ceiling) = (_mm512_set1_ps(conv.slope), _mm512_set1_ps(conv.ceiling));
    // SAFETY: `weights` holds `blocks * depth` lines and first + OB <= blocks; bias holds 16 values a block; the
    // segments of every pixel are readable and its blocks writable by the caller's promise.
    unsafe {
        let weights = conv.weights_of(first).as_ptr().cast::<f32>();
        loop {
            let count = tiles.advance();
            if count == 0 {
                return;
            }
            let mut acc = [[_mm512_setzero_ps(); OB]; P];
            for o in 0..OB {
                let bias = _mm512_loadu_ps(conv.bias.as_ptr().add((first + o) * BLOCK));
                for sums in &mut acc {
                    sums[o] = bias;
                }
            }
            let mut w = weights;
            for segment in &conv.segments {
                let mut offset = segment.offset;
                for _ in 0..segment.quads {
                    let mut wv = [_mm512_setzero_ps(); OB];
                    for o in 0..OB {
                        wv[o] = _mm512_load_ps(w.add(o * stride));
                    }
                    for p in 0..P {
                        let x = _mm512_set1_ps(tiles.inputs[p].add(offset).cast::<f32>().read_unaligned());
                        for o in 0..OB {
                            acc[p][o] = _mm512_fmadd_ps(x, wv[o], acc[p][o]);
                        }
                    }
                    offset += 4;
                    w = w.add(BLOCK);
                }
            }
            for p in 0..P {
                if p < count {
                    for o in 0..OB {
                        let out = tiles.outputs[p].add((first + o) * BLOCK * 4);
                        _mm512_storeu_ps(out.cast(), bend(acc[p][o], slope, ceiling));
                    }
                }
            }
        }
    }
}

/// Pixels of a row that share a load of depthwise weights.
const ACROSS: usize = 8;

/// # Safety
/// As [`super::depthwise`]; the CPU has AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn depthwise(conv: &Depthwise, area: Area) {
    // Whole groups of 64 channels, but for the last.
    let blocks = &area.blocks;
    let whole = blocks.start.is_multiple_of(4) && (blocks.end.is_multiple_of(4) || blocks.end == conv.blocks);
    if let Some(wide) = conv.wide.as_ref().filter(|_| whole) {
        // SAFETY: the caller's promise, passed on; the tiles' shapes are those of `Wide::new`.
        unsafe {
            match (wide.across, wide.stride) {
                (3, 1) => wide_depthwise::<3, 1, 2, 1>(wide, conv, area),
                (3, 2) => wide_depthwise::<3, 2, 3, 2>(wide, conv, area),
                (5, 1) => wide_depthwise::<5, 1, 4, 2>(wide, conv, area),
                _ => wide_depthwise::<5, 2, 2, 2>(wide, conv, area),
            }
        }
        return;
    }
    let mut tiles = Tiles::<ACROSS>::new(&area);
    loop {
        let count = tiles.advance();
        if count == 0 {
            return;
        }
        for block in area.blocks.clone() {
            // SAFETY: bias holds 16 values a block and weights `taps * blocks * 16`; the taps are readable and the
            // block writable by the caller's promise.
            unsafe {
                let bias = _mm512_loadu_si512(conv.requant.bias.as_ptr().add(block * BLOCK).cast());
                let mut acc = [bias; ACROSS];
                let mut w = conv.weights.as_ptr().add(block * BLOCK);
                for &tap in &conv.taps {
                    let weights = _mm512_loadu_si512(w.cast());
                    for p in 0..ACROSS {
                        let x = _mm_loadu_si128(tiles.inputs[p].add(tap + block * BLOCK).cast());
                        // The upper half of each widened byte is 0: of the pair of products only the lower one counts.
                        acc[p] = _mm512_dpwssd_epi32(acc[p], _mm512_cvtepu8_epi32(x), weights);
                    }
                    w = w.add(conv.blocks * BLOCK);
                }
                for p in 0..ACROSS {
                    if p < count {
                        store(&[acc[p]], &conv.requant, block, tiles.outputs[p]);
                    }
                }
            }
        }
    }
}

/// A kernel `K` across with step `S`: `T` neighbouring output pixels of 64 channels from `G` groups of 4 columns, whose
/// bytes are interleaved so that one dot product takes 4 columns of 16 channels, for every pixel that they matter to.
///
/// # Safety
/// As [`super::depthwise`]; the CPU has AVX-512 F, BW, VL and VNNI; `wide` was made for `K`, `S`, `T` and `G`; `blocks`
/// start at a multiple of 4.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn wide_depthwise<const K: usize, const S: usize, const T: usize, const G: usize>(
    wide: &Wide,
    conv: &Depthwise,
    area: Area,
) {
    let Area { at, input, output, pixels, blocks } = area;
    let zero = _mm512_set1_epi32(conv.requant.zero);
    for chunk in blocks.start / 4..blocks.end.div_ceil(4) {
        let bytes = (conv.blocks * BLOCK - chunk * WIDE).min(WIDE);
        let mask = u64::MAX >> (WIDE - bytes);
        let (bias, scale) = (&wide.bias[chunk * WIDE..][..WIDE], &wide.scale[chunk * WIDE..][..WIDE]);
        let weights = &wide.weights[chunk * wide.rows * T * G * 4..][..wide.rows * T * G * 4];
        let mut pixel = pixels.start;
        while pixel < pixels.end {
            let (y, x) = (pixel / at.width, pixel % at.width);
            let count = T.min(at.width - x).min(pixels.end - pixel);
            // SAFETY: columns behind the last that `count` pixels need are read from the first instead, so all are
            // under a kernel of the caller's pixels; masks keep within the channels that memory has; `weights`, `bias`
            // and `scale` were cut above.
            unsafe {
                let first = input.add(y * at.in_row + x * at.in_column + chunk * WIDE);
                let needed = (count - 1) * S + K;
                let offset = |column: usize| if column < needed { column * wide.column } else { 0 };
                let mut acc = [[_mm512_setzero_si512(); 4]; T];
                for part in 0..4 {
                    let bias = _mm512_loadu_si512(bias.as_ptr().add(part * BLOCK).cast());
                    for sums in &mut acc {
                        sums[part] = bias;
                    }
                }
                let mut w = weights.as_ptr();
                for row in 0..wide.rows {
                    let start = first.add(row * wide.row);
                    for g in 0..G {
                        let columns: [__m512i; 4] =
                            std::array::from_fn(|i| _mm512_maskz_loadu_epi8(mask, start.add(offset(4 * g + i)).cast()));
                        let quads = interleave(columns);
                        for t in 0..T {
                            // Known when this is compiled: whether the pixel's kernel reaches any of the columns.
                            if 4 * g < t * S + K && t * S < 4 * g + 4 {
                                for part in 0..4 {
                                    let weights = _mm512_load_si512(w.add((t * G + g) * 4 + part).cast());
                                    acc[t][part] = _mm512_dpbusd_epi32(acc[t][part], quads[part], weights);
                                }
                            }
                        }
                    }
                    w = w.add(T * G * 4);
                }
                for (t, sums) in acc.iter().enumerate() {
                    if t < count {
                        let out = output.add(y * at.out_row + (x + t) * at.out_column + chunk * WIDE);
                        _mm512_mask_storeu_epi8(out.cast(), mask, requantise_wide(sums, scale, zero));
                    }
                }
            }
            pixel += count;
        }
    }
}

/// Quads of each channel from four columns of 64 channels, in the order of `Wide::channel`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn interleave([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (low_ab, high_ab) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
    let (low_cd, high_cd) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(low_ab, low_cd),
        _mm512_unpackhi_epi16(low_ab, low_cd),
        _mm512_unpacklo_epi16(high_ab, high_cd),
        _mm512_unpackhi_epi16(high_ab, high_cd),
    ]
}

/// 64 bytes from sums in the order of `Wide::channel`: packing within 128 bits is the way back of unpacking.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn requantise_wide(sums: &[__m512i; 4], scale: &[f32], zero: __m512i) -> __m512i {
    let rounded: [__m512i; 4] = std::array::from_fn(|part| {
        // SAFETY: the slice was cut to 16 values.
        let scale = unsafe { _mm512_loadu_ps(scale[part * BLOCK..][..BLOCK].as_ptr()) };
        _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[part]), scale)), zero)
    });
    let (low, high) = (_mm512_packs_epi32(rounded[0], rounded[1]), _mm512_packs_epi32(rounded[2], rounded[3]));
    _mm512_packus_epi16(low, high)
}

/// # Safety
/// As [`super::depthwise_f32`]; the CPU has AVX-512 F.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn depthwise_f32(conv: &DepthwiseF32, area: Area) {
    let mut tiles = Tiles::<ACROSS>::new(&area);
    let (slope, ceiling) = (_mm512_set1_ps(conv.slope), _mm512_set1_ps(conv.ceiling));
    loop {
        let count = tiles.advance();
        if count == 0 {
            return;
        }
        for block in area.blocks.clone() {
            // SAFETY: bias holds 16 values a block and weights `taps * blocks` lines; the taps are readable and the
            // block writable by the caller's promise.
            unsafe {
                let mut acc = [_mm512_loadu_ps(conv.bias.as_ptr().add(block * BLOCK)); ACROSS];
                for (tap, &offset) in conv.taps.iter().enumerate() {
                    let weights = _mm512_load_ps(conv.weights.as_ptr().add(tap * conv.blocks + block).cast());
                    for p in 0..ACROSS {
                        let x = _mm512_loadu_ps(tiles.inputs[p].add(offset + block * BLOCK * 4).cast());
                        acc[p] = _mm512_fmadd_ps(x, weights, acc[p]);
                    }
                }
                for p in 0..ACROSS {
                    if p < count {
                        let out = tiles.outputs[p].add(block * BLOCK * 4);
                        _mm512_storeu_ps(out.cast(), bend(acc[p], slope, ceiling));
                    }
                }
            }
        }
    }
}

/// Negative sums times `slope`, then at most `ceiling`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn bend(sum: __m512, slope: __m512, ceiling: __m512) -> __m512 {
    let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(sum, _mm512_setzero_ps());
    // In this order what is no number stays so.
    _mm512_min_ps(ceiling, _mm512_mask_mul_ps(sum, negative, sum, slope))
}

/// Requantises the sums of `OB` blocks and writes them side by side.
///
/// # Safety
/// `out + 16 * first` is writable for `16 * OB` bytes; `requant` has `first + OB` blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn store<const OB: usize>(acc: &[__m512i; OB], requant: &Requant, first: usize, out: *mut u8) {
    let zero = _mm512_set1_epi32(requant.zero);
    let mut rounded = [_mm512_setzero_si512(); 4];
    for o in 0..OB {
        // SAFETY: 16 scales a block.
        let scale = unsafe { _mm512_loadu_ps(requant.scale.as_ptr().add((first + o) * BLOCK)) };
        // The rounding of the control register is to nearest, ties to even.
        let scaled = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[o]), scale));
        rounded[o] = _mm512_add_epi32(scaled, zero);
    }
    // SAFETY: the caller's promise; the mask leaves bytes behind 16 * OB alone.
    unsafe {
        let out = out.add(first * BLOCK);
        if OB == 1 {
            let positive = _mm512_max_epi32(rounded[0], _mm512_setzero_si512());
            _mm_storeu_si128(out.cast(), _mm512_cvtusepi32_epi8(positive));
            return;
        }
        let low = _mm512_packs_epi32(rounded[0], rounded[1]);
        let high = _mm512_packs_epi32(rounded[2], rounded[3]);
        let packed = _mm512_packus_epi16(low, high);
        // Packing works within 128 bits: lane L, double word j holds channels 4 L .. 4 L + 3 of block j.
        let order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
        let bytes = _mm512_permutexvar_epi32(order, packed);
        if OB == 4 {
            _mm512_storeu_si512(out.cast(), bytes);
        } else {
            _mm512_mask_storeu_epi8(out.cast(), (1u64 << (16 * OB)) - 1, bytes);
        }
    }
}

/// Each of 16 floats becomes the least of itself and of what the sums of `OB` blocks give.
///
/// # Safety
/// `out` is readable and writable for 16 floats; `requant` and `offset` have `first + OB` blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn keep_least<const OB: usize>(
    acc: &[__m512i; OB],
    requant: &Requant,
    offset: &[f32],
    first: usize,
    out: *mut u8,
) {
    // SAFETY: 16 scales and offsets a block, and the caller's promise.
    unsafe {
        let mut least = _mm512_loadu_ps(out.cast());
        for o in 0..OB {
            let at = (first + o) * BLOCK;
            let (scale, offset) = (requant.scale.as_ptr().add(at), offset.as_ptr().add(at));
            let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[o]), _mm512_loadu_ps(scale));
            // In this order what is no number is left out.
            least = _mm512_min_ps(_mm512_add_ps(scaled, _mm512_loadu_ps(offset)), least);
        }
        _mm512_storeu_ps(out.cast(), least);
    }
}

/// Independent products, as many as hide the instruction's latency; returns the multiply-adds done.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn multiply_in_registers() -> u64 {
    const ROUNDS: u64 = 10_000;
    let mut acc = [_mm512_setzero_si512(); 16];
    let x = std::hint::black_box(_mm512_set1_epi8(3));
    for _ in 0..ROUNDS {
        for sum in &mut acc {
            *sum = _mm512_dpbusd_epi32(*sum, x, x);
        }
    }
    std::hint::black_box(acc);
    ROUNDS * 16 * 64
}
