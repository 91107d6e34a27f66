//! Layer normalisation: all values of an image together brought to mean 0 and variance 1.
//!
//! A row can only be normalised when all rows were read, so this is two operators: [`RowMoments`] gives mean and
//! squares of each row, and [`LayerNorm`] puts them together, in the order of the rows, and normalises. So both are cut
//! in rows and give the same bits with any number of threads.

use super::one;
use crate::isa::{LANES, compiled_for_every_isa};
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{ElementType, Shape};
use std::sync::Arc;

/// ONNX's LayerNormalization over channels, height and width: `(x - mean) / sqrt(variance + epsilon)`, then scaled and
/// moved.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// The only shape that it is for.
    pub shape: Shape,
    /// Of each value; none where they are all 1 and 0.
    pub affine: Option<Affine>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// A scale and an offset of each value.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// `[C,H,W]`.
    pub scale: Vec<f32>,
    /// `[C,H,W]`.
    pub offset: Vec<f32>,
}

impl Operator for LayerNorm {
    fn name(&self) -> &'static str {
        "a normalisation"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    /// Its second input is [`RowMoments`]'.
    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        let &[shape, moments] = inputs else { return None };
        let count = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side))?;
        let fits = |affine: &Affine| [affine.scale.len(), affine.offset.len()] == [count; 2];
        let whole = shape == self.shape && moments == [2, shape[1], 1];
        (whole && self.affine.as_ref().is_none_or(fits)).then_some(shape)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        let lanes = placed.result.lanes();
        let affine = self.affine.as_ref().map(|a| [&a.scale, &a.offset].map(|v| channels_last(v, self.shape, lanes)));
        placed.rows(Normalise { affine, epsilon: f64::from(self.epsilon) })
    }

    fn before(&self) -> Option<Arc<dyn Operator>> {
        Some(Arc::new(RowMoments))
    }

    fn weights(&self) -> usize {
        self.affine.as_ref().map_or(0, |affine| affine.scale.len() + affine.offset.len())
    }
}

/// `[C,H,W]` as `[H,W,lanes]`, 0 behind the last channel.
fn channels_last(values: &[f32], [_, height, width]: Shape, lanes: usize) -> Vec<f32> {
    let mut out = vec![0.0; height * width * lanes];
    for (channel, plane) in values.chunks_exact(height * width).enumerate() {
        out.chunks_exact_mut(lanes).zip(plane).for_each(|(pixel, &value)| pixel[channel] = value);
    }
    out
}

struct Normalise {
    /// Scales and offsets of all lanes.
    affine: Option<[Vec<f32>; 2]>,
    epsilon: f64,
}

impl RowStep for Normalise {
    fn row(&self, row: &mut Row) {
        let (isa, y, from) = (row.isa, row.y, *row.input(0));
        let ([channels, height, width], lanes) = (from.shape, from.lanes());
        let moments = |y: usize| {
            let moments = row.floats(1, y);
            (f64::from(moments[0]), f64::from(moments[1]))
        };
        let mean = (0..height).map(|y| moments(y).0).sum::<f64>() / height as f64;
        // What the rows' own squares lack: how far their means are from the mean of all.
        let row_values = (channels * width) as f64;
        let squares: f64 = (0..height).map(moments).map(|(m, squares)| squares + row_values * (m - mean).powi(2)).sum();
        let factor = 1.0 / (squares / (row_values * height as f64) + self.epsilon).sqrt();
        let (mean, factor, x) = (mean as f32, factor as f32, row.floats(0, y));
        let out = row.out_floats();
        match &self.affine {
            Some(affine) => {
                let [scale, offset] = affine.each_ref().map(|v| &v[y * width * lanes..(y + 1) * width * lanes]);
                normalise_row_affine(isa, mean, factor, scale, offset, x, out);
            }
            None => normalise_row(isa, mean, factor, x, out),
        }
        if channels < lanes {
            // Sums over a pixel run over all its lanes.
            out.chunks_exact_mut(lanes).for_each(|pixel| pixel[channels..].fill(0.0));
        }
    }
}

/// Of each row its mean and the sum of the squares of what its values are from it: `[2,H,1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowMoments;

impl Operator for RowMoments {
    fn name(&self) -> &'static str {
        "a normalisation"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        Some([2, one(inputs)?[1], 1])
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for RowMoments {
    fn row(&self, row: &mut Row) {
        let (isa, x, from) = (row.isa, row.floats(0, row.y), *row.input(0));
        row_moments(isa, from.shape[0], from.lanes(), x, row.out_floats());
    }
}

compiled_for_every_isa! {
    /// Mean and squares of a row of pixels of `channels` values in `lanes`. Sums run in 16 lanes of f64.
    pub(crate) fn row_moments(channels: usize, lanes: usize, x: &[f32], out: &mut [f32]) {
        let count = (x.len() / lanes * channels) as f64;
        let mean = sum_over(channels, lanes, x, |x| x) / count;
        let squares = sum_over(channels, lanes, x, |x| (x - mean) * (x - mean));
        out.fill(0.0);
        (out[0], out[1]) = (mean as f32, squares as f32);
    }

    /// `(x - mean) * factor`.
    pub(crate) fn normalise_row(mean: f32, factor: f32, x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = (x - mean) * factor;
        }
    }

    /// As [`normalise_row`], then scaled and moved.
    pub(crate) fn normalise_row_affine(
        mean: f32,
        factor: f32,
        scale: &[f32],
        offset: &[f32],
        x: &[f32],
        out: &mut [f32],
    ) {
        for (((out, &x), &scale), &offset) in out.iter_mut().zip(x).zip(scale).zip(offset) {
            *out = (x - mean) * factor * scale + offset;
        }
    }
}

#[inline(always)]
fn sum_over(channels: usize, lanes: usize, x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0f64; LANES];
    for pixel in x.chunks_exact(lanes) {
        for part in pixel[..channels].chunks(LANES) {
            for (sum, &x) in sums.iter_mut().zip(part) {
                *sum += f(f64::from(x));
            }
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::tests::{floats, others};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn moments_have_the_same_bits_and_are_the_formula() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for channels in 1..=70usize {
            let (width, lanes) = (rng.random_range(1..20), channels.next_multiple_of(LANES));
            // Far from 0: what sums of squares less squares of sums would not stand.
            let x: Vec<f32> = floats(&mut rng, width * lanes, 1.0).into_iter().map(|x| x + 1000.0).collect();
            let moments = |isa: Isa| {
                let mut out = [7f32; LANES];
                row_moments(isa, channels, lanes, &x, &mut out);
                out
            };
            let right = moments(Isa::PORTABLE);
            for isa in others() {
                assert_eq!(moments(isa), right, "{isa:?}, {channels} channels");
            }
            let values = || x.chunks_exact(lanes).flat_map(|pixel| &pixel[..channels]).map(|&x| f64::from(x));
            let mean = values().sum::<f64>() / (width * channels) as f64;
            let squares: f64 = values().map(|x| (x - mean).powi(2)).sum();
            assert!((f64::from(right[0]) - mean).abs() < 1e-3, "{channels} channels");
            assert!((f64::from(right[1]) - squares).abs() <= 1e-6 * squares, "{channels} channels");
        }
    }

    #[test]
    fn normalised_rows_have_the_same_bits_everywhere() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        for length in 0..100 {
            let [x, scale, offset] = [(); 3].map(|()| floats(&mut rng, length, 3.0));
            let rows = |isa: Isa| {
                let mut out = vec![7f32; 2 * length];
                let (plain, affine) = out.split_at_mut(length);
                normalise_row(isa, 0.7, 1.3, &x, plain);
                normalise_row_affine(isa, 0.7, 1.3, &scale, &offset, &x, affine);
                out
            };
            assert!(others().into_iter().all(|isa| rows(isa) == rows(Isa::PORTABLE)), "{length} values");
        }
    }
}
