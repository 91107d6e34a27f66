//! Images that are almost the same picture, found by thumbnails.

use super::look::{CELLS, normalise};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

/// Correlation of two whitened thumbnails from which their images may be near duplicates at all.
const LEAST: f32 = 0.7;
/// Standard deviations, after Fisher's transformation, that the correlation of near duplicates is beyond that of unrelated
/// pictures. Their tail is longer than a normal one where pictures vary in few ways (pose and light of one part).
const BEYOND: f32 = 9.0;
/// Fewer images do not show what they have in common.
const FEWEST: usize = 20;
/// Thumbnails that the covariance is taken of at most; more make it no better.
const MOST_FOR_COVARIANCE: usize = 20_000;
/// The covariance is drawn towards a multiple of one by `SHRINKAGE + CELLS / images` of its mean variance: of few images
/// it knows little, and would else set apart whatever they are. Chosen on the magnetic tiles, see `docs/data.md`.
const SHRINKAGE: f32 = 0.01;
/// Thumbnails of one side that are compared at once, and by which unrelated pictures are judged at most.
const ROWS: usize = 512;

/// The nearest of the other side, of each thumbnail of one.
pub struct Nearest {
    /// Place and correlation, -1 to 1, of the nearest; none where the sets are too small to tell.
    pub found: Vec<Option<(usize, f32)>>,
    /// Correlation above which two images of this set are near duplicates, 0.7 to 1.
    pub limit: f32,
}

/// For each thumbnail of `test` the nearest of `training`.
///
/// Pictures of one kind of part are alike: plain thumbnails of two parts in the same fixture may correlate by 0.99. What
/// tells parts apart is what they do not share. So the mean thumbnail of all is subtracted, and the differences from it
/// are whitened with their covariance, by which every way in which pictures of this set commonly differ (light, shift,
/// pattern) counts alike. Two pictures that have no more to do with each other than any two of the set then have a
/// correlation near 0, whatever the set. How near depends on the number of ways in which pictures of the set vary, and so
/// does the limit.
///
/// Both are rows of [`CELLS`] numbers.
pub fn nearest(training: &[f32], test: &[f32]) -> Nearest {
    let rows = test.len() / CELLS;
    if training.is_empty() || rows == 0 || training.len() / CELLS + rows < FEWEST {
        return Nearest { found: vec![None; rows], limit: LEAST };
    }
    let whitening = Whitening::of(&[training, test]);
    let [training, test] = [training, test].map(|side| whitening.applied(side));
    let blocks: Vec<Vec<Option<(usize, f32)>>> =
        test.par_chunks(ROWS * CELLS).map(|block| nearest_of_block(&training, block)).collect();
    Nearest { found: blocks.concat(), limit: limit(&training, &test) }
}

/// What unrelated pictures of the set stay far below. All but a few pairs are unrelated: 95 % of the correlations are
/// within 1.96 standard deviations of 0, and in d independent directions a standard deviation is 1 / √d.
fn limit(training: &[f32], test: &[f32]) -> f32 {
    let sample = |side: &[f32]| -> Vec<Vec<f32>> {
        let step = (side.len() / CELLS).div_ceil(ROWS).max(1);
        side.chunks_exact(CELLS).step_by(step).map(<[f32]>::to_vec).collect()
    };
    let (training, test) = (sample(training), sample(test));
    let mut sizes: Vec<f32> = test.iter().flat_map(|a| training.iter().map(|b| dot(a, b).abs())).collect();
    let at = sizes.len() * 95 / 100;
    let (_, within, _) = sizes.select_nth_unstable_by(at, f32::total_cmp);
    let directions = (1.96 / within.max(1e-3)).powi(2);
    // The standard deviation of Fisher's z of d directions.
    (BEYOND / (directions - 1.0).max(1e-3).sqrt()).tanh().max(LEAST)
}

fn nearest_of_block(training: &[f32], test: &[f32]) -> Vec<Option<(usize, f32)>> {
    let mut best: Vec<Option<(usize, f32)>> = vec![None; test.len() / CELLS];
    let matrix = |rows: &[f32]| ArrayView2::from_shape((rows.len() / CELLS, CELLS), rows).map(|m| m.to_owned());
    let Ok(test) = matrix(test) else { return best };
    for (block, rows) in training.chunks(ROWS * CELLS).enumerate() {
        let Ok(rows) = matrix(rows) else { return best };
        let correlations: Array2<f32> = test.dot(&rows.t());
        for (line, best) in correlations.axis_iter(Axis(0)).zip(&mut best) {
            for (i, &correlation) in line.iter().enumerate() {
                if best.is_none_or(|(_, least)| correlation > least) {
                    *best = Some((block * ROWS + i, correlation));
                }
            }
        }
    }
    best
}

/// What pictures of a set have in common.
struct Whitening {
    mean: Vec<f32>,
    /// Lower triangle L with L Lᵀ = covariance, row by row.
    root: Vec<f32>,
}

impl Whitening {
    /// Of all the rows of `sides`; there is at least one.
    fn of(sides: &[&[f32]]) -> Whitening {
        let rows = || sides.iter().flat_map(|side| side.chunks_exact(CELLS));
        let step = rows().count().div_ceil(MOST_FOR_COVARIANCE).max(1);
        let sample: Vec<&[f32]> = rows().step_by(step).collect();
        let count = sample.len().max(1) as f32;
        let mut mean = vec![0.0; CELLS];
        for row in &sample {
            mean.iter_mut().zip(*row).for_each(|(mean, value)| *mean += value / count);
        }
        let centred = Array2::from_shape_fn((sample.len(), CELLS), |(row, cell)| sample[row][cell] - mean[cell]);
        let mut covariance: Array2<f32> = centred.t().dot(&centred) / count;
        let variance = covariance.diag().sum() / CELLS as f32;
        // Where all thumbnails are the same there is nothing to whiten, and no division by zero.
        let more = ((SHRINKAGE + CELLS as f32 / count) * variance).max(1e-9);
        covariance.diag_mut().mapv_inplace(|v| v + more);
        Whitening { mean, root: cholesky(covariance.into_iter().collect()) }
    }

    /// The whitened rows, each with a norm of one.
    fn applied(&self, thumbnails: &[f32]) -> Vec<f32> {
        let mut whitened = thumbnails.to_vec();
        whitened.par_chunks_exact_mut(CELLS).for_each(|row| {
            // A constant picture is like no other.
            if row.iter().all(|&v| v == 0.0) {
                return;
            }
            for i in 0..CELLS {
                let line = &self.root[i * CELLS..][..=i];
                row[i] = (row[i] - self.mean[i] - dot(&line[..i], &row[..i])) / line[i];
            }
            normalise(row);
        });
        whitened
    }
}

/// The lower triangle L with L Lᵀ = `matrix`, which is symmetric and positive, row by row.
fn cholesky(mut matrix: Vec<f32>) -> Vec<f32> {
    for i in 0..CELLS {
        for j in 0..=i {
            let rest = matrix[i * CELLS + j] - dot(&matrix[i * CELLS..][..j], &matrix[j * CELLS..][..j]);
            matrix[i * CELLS + j] =
                if i == j { rest.max(f32::MIN_POSITIVE).sqrt() } else { rest / matrix[j * CELLS + j] };
        }
    }
    matrix
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    /// Thumbnails of parts in one fixture: a common picture, light from one of many directions, and what is the part's.
    fn part(rng: &mut StdRng, own: &[f32]) -> Vec<f32> {
        let (across, along): (f32, f32) = (rng.random_range(-1.0..1.0), rng.random_range(-1.0..1.0));
        let mut cells: Vec<f32> = (0..CELLS)
            .map(|i| {
                let (x, y) = ((i % 16) as f32 / 16.0 - 0.5, (i / 16) as f32 / 16.0 - 0.5);
                10.0 * (7.0 * x).sin() * (9.0 * y).cos() + across * x + along * y + own[i]
            })
            .collect();
        let mean = cells.iter().sum::<f32>() / CELLS as f32;
        cells.iter_mut().for_each(|c| *c -= mean);
        normalise(&mut cells);
        cells
    }

    fn own(rng: &mut StdRng) -> Vec<f32> {
        (0..CELLS).map(|_| rng.random_range(-0.2..0.2)).collect()
    }

    #[test]
    fn the_same_part_under_another_light_is_found_and_other_parts_are_not() {
        let mut rng = StdRng::seed_from_u64(1);
        let parts: Vec<Vec<f32>> = (0..160).map(|_| own(&mut rng)).collect();
        let training: Vec<f32> = parts[..100].iter().flat_map(|own| part(&mut rng, own)).collect();
        // The first 20 of the test were trained on, and the others were not.
        let test: Vec<f32> = parts[..20].iter().chain(&parts[100..]).flat_map(|own| part(&mut rng, own)).collect();
        assert!(dot(&training[..CELLS], &training[CELLS..2 * CELLS]) > 0.95, "plain thumbnails are all alike");
        let Nearest { found, limit } = nearest(&training, &test);
        assert!(limit < 0.9, "{limit}");
        for (i, found) in found.into_iter().enumerate() {
            let (place, correlation) = found.unwrap();
            if i < 20 {
                assert!(place == i && correlation > limit, "{i}: {place} {correlation}");
            } else {
                assert!(correlation < limit, "{i}: {place} {correlation}");
            }
        }
    }

    /// Where pictures vary in a few ways only, unrelated ones are alike by chance, and the limit rises.
    #[test]
    fn pictures_that_vary_in_few_ways_are_no_near_duplicates() {
        let mut rng = StdRng::seed_from_u64(3);
        let ways: Vec<Vec<f32>> = (0..4).map(|_| own(&mut rng)).collect();
        let mut picture = || {
            let shares: Vec<f32> = (0..4).map(|_| rng.random_range(-1.0..1.0)).collect();
            let mut cells: Vec<f32> =
                (0..CELLS).map(|i| ways.iter().zip(&shares).map(|(way, share)| way[i] * share).sum()).collect();
            normalise(&mut cells);
            cells
        };
        let training: Vec<f32> = (0..200).flat_map(|_| picture()).collect();
        let test: Vec<f32> = (0..50).flat_map(|_| picture()).collect();
        let Nearest { found, limit } = nearest(&training, &test);
        let alike = |least: f32| found.iter().filter(|found| found.is_some_and(|(_, c)| c > least)).count();
        assert!(alike(LEAST) > 40 && alike(limit) == 0, "{limit}: {} {}", alike(LEAST), alike(limit));
    }

    #[test]
    fn few_alike_and_constant_thumbnails_say_nothing() {
        let mut rng = StdRng::seed_from_u64(1);
        let one = own(&mut rng);
        let same: Vec<f32> = (0..30).flat_map(|_| one.clone()).collect();
        assert_eq!(nearest(&same[..5 * CELLS], &same[..5 * CELLS]).found, [None; 5]);
        assert_eq!(nearest(&[], &same).found, [None; 30]);
        assert_eq!(nearest(&same, &[]).found, []);
        let even = vec![0.0; 30 * CELLS];
        assert!(nearest(&even, &even).found.iter().all(|found| found.is_some_and(|(_, c)| c == 0.0)));
        assert!(nearest(&same, &same).found.iter().all(|found| found.is_some_and(|(_, c)| c.is_finite())));
    }

    #[test]
    fn the_root_gives_the_matrix_back() {
        let mut rng = StdRng::seed_from_u64(2);
        let rows: Vec<f32> = (0..60).flat_map(|_| own(&mut rng)).collect();
        let rows = ArrayView2::from_shape((60, CELLS), &rows).unwrap();
        let matrix: Array2<f32> = rows.t().dot(&rows) + Array2::<f32>::eye(CELLS);
        let root = cholesky(matrix.iter().copied().collect());
        for (i, j) in [(0, 0), (5, 2), (255, 255), (200, 17)] {
            let product = dot(&root[i * CELLS..][..=j], &root[j * CELLS..][..=j]);
            assert!((product - matrix[[i, j]]).abs() < 1e-3, "{i} {j}: {product} {}", matrix[[i, j]]);
        }
    }
}
