//! Kernels that a compiler vectorises by itself: the text is compiled once for every instruction set. Sums of floats run in 16 lanes of
//! a fixed order, and products are fused with additions only where the text says so: every CPU gives the same bits.

use crate::region::{AddRow, CosineRow};

const LANES: usize = 16;

#[inline(always)]
pub fn add_row(how: &AddRow, a: &[u8], b: &[u8], out: &mut [u8]) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        let sum = f32::from(a).mul_add(how.scale_a, f32::from(b).mul_add(how.scale_b, how.offset));
        *out = to_byte(sum.round_ties_even(), how.low, how.high);
    }
}

/// A whole number, saturated; what is no number becomes `low`.
#[inline(always)]
fn to_byte(value: f32, low: u8, high: u8) -> u8 {
    let (low, high) = (f32::from(low), f32::from(high));
    let value = if value > low { value } else { low };
    let value = if value < high { value } else { high };
    // SAFETY: it lies between two bytes. One instruction, where `as` is several.
    unsafe { value.to_int_unchecked::<i32>() as u8 }
}

/// `scale * (byte - zero)` of every byte.
#[inline(always)]
pub fn to_float_row(scale: f32, zero: f32, x: &[u8], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = (f32::from(x) - zero) * scale;
    }
}

/// `zero + round(x / scale)`, saturated.
#[inline(always)]
pub fn to_byte_row(scale: f32, zero: f32, x: &[f32], out: &mut [u8]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = to_byte((x / scale).round_ties_even() + zero, 0, 255);
    }
}

/// `out[i] += x[i]`.
#[inline(always)]
pub fn sum_row(x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out += x;
    }
}

/// Between four corners: `upper` and `lower` are each a left and a right pixel, `across` and `down` the right's and the lower's share.
#[inline(always)]
pub fn blend_row(upper: [&[f32]; 2], lower: [&[f32]; 2], across: f32, down: f32, out: &mut [f32]) {
    let ([a, b], [c, d]) = (upper, lower);
    for ((((out, &a), &b), &c), &d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        let (upper, lower) = (a * (1.0 - across) + b * across, c * (1.0 - across) + d * across);
        *out = upper * (1.0 - down) + lower * down;
    }
}

/// Pixels of `lanes` floats, each made as long as 1.
#[inline(always)]
pub fn unit_row(lanes: usize, epsilon: f32, x: &[f32], out: &mut [f32]) {
    for (out, x) in out.chunks_exact_mut(lanes).zip(x.chunks_exact(lanes)) {
        let factor = 1.0 / (squared_length(x) + epsilon).sqrt();
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x * factor;
        }
    }
}

/// Of each pixel the smallest of `count` products (in pixels of whole lanes) and the length of `x`.
#[inline(always)]
pub fn distance_row(count: usize, products: &[f32], x: &[f32], out: &mut [f32]) {
    let (wide, lanes) = (products.len() / out.len(), x.len() / out.len());
    for ((out, products), x) in out.iter_mut().zip(products.chunks_exact(wide)).zip(x.chunks_exact(lanes)) {
        let mut smallest = [f32::INFINITY; LANES];
        let whole = products[..count].chunks_exact(LANES);
        let rest = whole.remainder();
        for part in whole {
            for (smallest, &p) in smallest.iter_mut().zip(part) {
                *smallest = if p < *smallest { p } else { *smallest };
            }
        }
        let smallest = smallest.iter().chain(rest).fold(f32::INFINITY, |m, &p| if p < m { p } else { m });
        *out = (smallest + squared_length(x)).max(0.0).sqrt();
    }
}

#[inline(always)]
fn squared_length(x: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    for part in x.chunks_exact(LANES) {
        for (sum, &x) in sums.iter_mut().zip(part) {
            *sum += x * x;
        }
    }
    tree_sum(&sums)
}

#[inline(always)]
pub fn max_row(x: &[u8], out: &mut [u8]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = (*out).max(x);
    }
}

#[inline(always)]
pub fn cosine_row(how: &CosineRow, a: &[u8], b: &[u8], out: &mut [f32]) {
    cosine(how, a, b, out);
}

/// As [`cosine_row`], of floats.
#[inline(always)]
pub fn cosine_row_f32(how: &CosineRow, a: &[f32], b: &[f32], out: &mut [f32]) {
    cosine(how, a, b, out);
}

#[inline(always)]
fn cosine<T: Copy + Into<f32>>(how: &CosineRow, a: &[T], b: &[T], out: &mut [f32]) {
    let lanes = how.lanes();
    for ((out, a), b) in out.iter_mut().zip(a.chunks_exact(lanes)).zip(b.chunks_exact(lanes)) {
        let (mut ab, mut aa, mut bb) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
        for start in (0..lanes).step_by(LANES) {
            let part = start..start + LANES;
            let (a, b) = (&a[part.clone()], &b[part.clone()]);
            let (sa, oa) = (&how.scale_a[part.clone()], &how.offset_a[part.clone()]);
            let (sb, ob) = (&how.scale_b[part.clone()], &how.offset_b[part]);
            for i in 0..LANES {
                let x = a[i].into() * sa[i] + oa[i];
                let y = b[i].into() * sb[i] + ob[i];
                ab[i] += x * y;
                aa[i] += x * x;
                bb[i] += y * y;
            }
        }
        let [ab, aa, bb] = [ab, aa, bb].map(|sums| tree_sum(&sums));
        *out = 1.0 - ab / (aa * bb + how.epsilon).sqrt();
    }
}

/// `out[i] = max(out[i], x[i])`.
#[inline(always)]
pub fn max_row_f32(x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = if x > *out { x } else { *out };
    }
}

/// `a + b`, negative sums times `slope`, then at most `ceiling`.
#[inline(always)]
pub fn add_row_f32(slope: f32, ceiling: f32, a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        let sum = a + b;
        let bent = if sum < 0.0 { sum * slope } else { sum };
        *out = if bent > ceiling { ceiling } else { bent };
    }
}

/// Sum of 16 lanes, halves first.
#[inline(always)]
fn tree_sum(lanes: &[f32; LANES]) -> f32 {
    let mut sums = *lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}
