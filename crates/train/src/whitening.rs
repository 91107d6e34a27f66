//! Coordinates in which normal images spread alike in every direction: probabilistic principal components (Tipping and
//! Bishop 1999). The directions in which images vary most have a variance of their own, all others share one.
//!
//! What varies much among normal images says little there, however far an image is off; what hardly varies says much.

use crate::graph::Mahalanobis;
use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Directions beyond those that are kept, which bring the kept ones nearer to exact (Halko, Martinsson and Tropp 2011).
const OVERSAMPLED: usize = 16;
/// Passes over the rows; variances that are near each other may stay mixed, which hardly matters to their sum.
const PASSES: usize = 6;
/// Of so many rows one direction can be told.
const ROWS_A_DIRECTION: usize = 4;
/// The least that the shared variance counts for, in units of a column's: nearly no rows must not make it nothing.
const LEAST: f64 = 1e-3;
/// The least that a column's deviation counts for, as a share of the median of those that vary: what hardly ever varied among a few
/// normal images would else outweigh all other columns the first time that it does.
const FLOOR: f64 = 0.05;

/// What makes the coordinates from columns as they are.
#[derive(Clone, Debug)]
pub struct Whitening {
    mean: Array1<f64>,
    /// One over the deviation of each column.
    inverse: Array1<f64>,
    /// `[columns, directions]`, of length 1 each and at right angles to each other, in standardised columns.
    directions: Array2<f64>,
    /// What the part of a row along each direction is multiplied with, beside `rest`.
    gains: Array1<f64>,
    /// What the whole standardised row is multiplied with.
    rest: f64,
}

impl Whitening {
    /// Of the rows of normal images, `[n, columns]`, with at most so many directions of their own.
    pub fn of(rows: ArrayView2<f64>, directions: usize) -> Whitening {
        let columns = rows.ncols();
        let mean = rows.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(columns));
        let deviation = if rows.is_empty() { Array1::zeros(columns) } else { rows.std_axis(Axis(0), 0.0) };
        let mut varying: Vec<f64> = deviation.iter().copied().filter(|d| *d > 0.0).collect();
        varying.sort_by(f64::total_cmp);
        let floor = FLOOR * ckaad_inspect::quantile(&varying, 0.5).unwrap_or_default();
        // Where no column ever varies there is nothing to go by.
        let inverse = deviation.mapv(|d| if floor > 0.0 { 1.0 / d.max(floor) } else { 0.0 });
        let standard = (&rows - &mean) * &inverse;
        let total: f64 = (&deviation * &inverse).mapv(|d| d * d).sum();
        let kept = directions.min(rows.nrows() / ROWS_A_DIRECTION).min(columns.saturating_sub(1));
        let (variances, directions) = principal(&standard, kept);
        let shared = (total - variances.sum()) / (columns - kept).max(1) as f64;
        let shared = shared.max(LEAST);
        let gain = |variance: f64| 1.0 / variance.max(shared).sqrt() - 1.0 / shared.sqrt();
        Whitening { mean, inverse, directions, gains: variances.mapv(gain), rest: 1.0 / shared.sqrt() }
    }

    /// Rows in these coordinates.
    pub fn rows(&self, rows: ArrayView2<f64>) -> Array2<f64> {
        let standard = (&rows - &self.mean) * &self.inverse;
        let along = standard.dot(&self.directions) * &self.gains;
        standard * self.rest + along.dot(&self.directions.t())
    }

    /// The weights of columns as they are, and what is added, that give `bias + weights · row` of a row in these
    /// coordinates.
    pub fn linear(&self, weights: &[f64], bias: f64) -> (Vec<f64>, f64) {
        let weights = Array1::from(weights.to_vec());
        let along = self.directions.t().dot(&weights) * &self.gains;
        let weights = (weights * self.rest + self.directions.dot(&along)) * &self.inverse;
        let bias = bias - weights.dot(&self.mean);
        (weights.to_vec(), bias)
    }

    /// The length of a row in these coordinates, against the root of the number of columns: its Mahalanobis distance.
    pub fn mahalanobis(&self) -> Mahalanobis {
        let single = |value: &f64| *value as f32;
        let root = (self.mean.len().max(1) as f64).sqrt();
        // A direction of its own takes away from the squared length that the shared variance alone would give.
        let less = self.gains.mapv(|gain| (1.0 - (gain / self.rest + 1.0).powi(2)).max(0.0).sqrt());
        Mahalanobis {
            mean: self.mean.iter().map(single).collect(),
            inverse: (&self.inverse * (self.rest / root)).iter().map(single).collect(),
            directions: (&self.directions * &less).t().iter().map(single).collect(),
        }
    }
}

/// The `count` directions in which the rows, whose mean is 0, vary most, `[columns, count]`, and the variance along each.
fn principal(rows: &Array2<f64>, count: usize) -> (Array1<f64>, Array2<f64>) {
    let (n, columns) = rows.dim();
    if count == 0 {
        return (Array1::zeros(0), Array2::zeros((columns, 0)));
    }
    let rows = DMatrix::from_row_iterator(n, columns, rows.iter().copied());
    let drawn = (count + OVERSAMPLED).min(n).min(columns);
    // Any start will do that is no direction's right angle; the same one always, so that a run can be repeated.
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut basis = DMatrix::from_fn(columns, drawn, |_, _| random.random_range(-1.0..1.0));
    for _ in 0..PASSES {
        basis = rows.tr_mul(&(&rows * basis)).qr().q();
    }
    let along = &rows * &basis;
    let spread = SymmetricEigen::new(along.tr_mul(&along) / n as f64);
    let mut order: Vec<usize> = (0..drawn).collect();
    order.sort_by(|&a, &b| spread.eigenvalues[b].total_cmp(&spread.eigenvalues[a]));
    order.truncate(count);
    let directions = basis * spread.eigenvectors.select_columns(&order);
    let variances = order.iter().map(|&i| spread.eigenvalues[i]).collect();
    (variances, Array2::from_shape_fn((columns, count), |at| directions[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows around 5 whose first two columns vary together, of `columns`.
    fn rows(n: usize, columns: usize) -> Array2<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut normal = move || (0..12).map(|_| random.random_range(-0.5..0.5)).sum::<f64>();
        let mut rows = Array2::zeros((n, columns));
        for mut row in rows.rows_mut() {
            row.iter_mut().for_each(|v| *v = 5.0 + normal());
            let common = 2.0 * normal();
            row[0] += common;
            row[1] += common;
        }
        rows
    }

    #[test]
    fn normal_rows_spread_alike_in_every_direction() {
        let rows = rows(4000, 6);
        let white = Whitening::of(rows.view(), 5).rows(rows.view());
        let covariance = white.t().dot(&white) / 4000.0;
        for ((i, j), v) in covariance.indexed_iter() {
            let expected = if i == j { 1.0 } else { 0.0 };
            assert!((v - expected).abs() < 0.1, "{covariance:.2}");
        }
    }

    #[test]
    fn weights_of_the_coordinates_are_weights_of_the_columns() {
        let rows = rows(100, 6);
        let whitening = Whitening::of(rows.view(), 3);
        let (weights, bias) = whitening.linear(&[0.5, -1.0, 2.0, 0.0, 1.0, -0.3], 0.7);
        let there = whitening.rows(rows.view()).dot(&Array1::from(vec![0.5, -1.0, 2.0, 0.0, 1.0, -0.3])) + 0.7;
        let here = rows.dot(&Array1::from(weights)) + bias;
        assert!(there.iter().zip(&here).all(|(a, b)| (a - b).abs() < 1e-9), "{there} {here}");
    }

    fn distance(to: &Mahalanobis, row: &[f32]) -> f32 {
        let Mahalanobis { mean, inverse, directions } = to;
        let x: Vec<f32> = row.iter().zip(mean).zip(inverse).map(|((v, m), i)| (v - m) * i).collect();
        let dot = |a: &[f32]| -> f32 { a.iter().zip(&x).map(|(a, b)| a * b).sum() };
        (dot(&x) - directions.chunks_exact(x.len()).map(|d| dot(d).powi(2)).sum::<f32>()).max(0.0).sqrt()
    }

    #[test]
    fn the_distance_is_the_length_in_these_coordinates() {
        let rows = rows(100, 6);
        let whitening = Whitening::of(rows.view(), 3);
        let (learned, white) = (whitening.mahalanobis(), whitening.rows(rows.view()));
        for (row, white) in rows.rows().into_iter().zip(white.rows()) {
            let row: Vec<f32> = row.iter().map(|&v| v as f32).collect();
            let expected = (white.dot(&white) / 6.0).sqrt() as f32;
            let found = distance(&learned, &row);
            assert!((found - expected).abs() < 1e-4 * expected, "{found} {expected}");
        }
    }

    /// Both must not end in what is not a number: there may be few images, and channels that never vary.
    #[test]
    fn few_rows_and_columns_that_do_not_vary_are_no_harm() {
        for n in [0, 1, 2, 5] {
            let mut rows = rows(n, 6);
            rows.column_mut(3).fill(2.0);
            let whitening = Whitening::of(rows.view(), 128);
            let white = whitening.rows(arr(&[9.0; 6]).view());
            assert!(white.iter().all(|v| v.is_finite()), "{n}: {white}");
            // Silent on normal images, it is seen once it speaks, and does not drown the others by a rounding error.
            assert_eq!(white[(0, 3)] > 1.0, n > 1, "{n}: {white}");
            let rounded = whitening.rows(arr(&[5.0, 5.0, 5.0, 2.0 + 1e-9, 5.0, 5.0]).view());
            assert!(rounded[(0, 3)].abs() < 1e-2, "{n}: {rounded}");
            assert!(distance(&whitening.mahalanobis(), &[9.0; 6]).is_finite(), "{n}");
        }
    }

    fn arr(row: &[f64]) -> Array2<f64> {
        Array2::from_shape_vec((1, row.len()), row.to_vec()).unwrap()
    }
}
