//! Golden samples: does a model do here what it did where it was packed?

use super::{InspectError, Inspector, Verdict};
use crate::imaging::{self, RgbImage};
use ckaad_bundle::{Bundle, Golden, GoldenAnswer};
use ndarray::{Axis, Slice};
use std::path::Path;

/// Cells along each side of the map's checksum grid.
const GRID: usize = 8;

/// Largest difference to the stored answer: what rounding in another CPU's kernels may cost. Of a score as a share of
/// the threshold's distance from the median of normal images, of the map as a share of the pixel threshold.
const TOLERANCE: f32 = 0.02;

/// A golden sample, run here.
#[derive(Clone, Debug)]
pub struct GoldenResult {
    /// The number in its file's name.
    pub index: usize,
    /// The image score that was packed with it.
    pub expected: f32,
    /// `None` when the picture could not be decoded, or that of another view of its part.
    pub score: Option<f32>,
    /// Largest difference between a cell's mean and the stored one.
    pub max_grid_error: f32,
    /// Difference between the network's image score and the stored one; `None` where the model has none.
    pub image_score_error: Option<f32>,
    /// Whether scores and map are within their tolerances.
    pub passed: bool,
}

/// What is stored of a verdict: its score and the means of the smoothed map over a grid.
pub fn golden_answer(verdict: &Verdict) -> GoldenAnswer {
    let (height, width) = verdict.map.dim();
    let mut grid = Vec::with_capacity(GRID * GRID);
    for row in 0..GRID {
        for column in 0..GRID {
            let ys = row * height / GRID..(row + 1) * height / GRID;
            let xs = column * width / GRID..(column + 1) * width / GRID;
            let cell = verdict.map.slice_axis(Axis(0), Slice::from(ys));
            let cell = cell.slice_axis(Axis(1), Slice::from(xs));
            // Row by row: the same order of sums everywhere.
            let sum: f64 = cell.rows().into_iter().map(|row| row.iter().map(|&v| f64::from(v)).sum::<f64>()).sum();
            grid.push((sum / cell.len().max(1) as f64) as f32);
        }
    }
    GoldenAnswer { score: verdict.score, grid, image_score: verdict.image_score }
}

/// Largest differences to a stored answer.
struct Tolerances {
    score: f32,
    grid: f32,
    image_score: f32,
}

fn compared(index: usize, answer: &GoldenAnswer, found: &GoldenAnswer, most: &Tolerances) -> GoldenResult {
    let differences = found.grid.iter().zip(&answer.grid).map(|(a, b)| (a - b).abs());
    let max_grid_error = differences.fold(0.0, f32::max);
    let image_score_error = match (found.image_score, answer.image_score) {
        (Some(found), Some(expected)) => Some((found - expected).abs()),
        (None, None) => None,
        _ => Some(f32::INFINITY),
    };
    let passed = found.grid.len() == answer.grid.len()
        && max_grid_error <= most.grid
        && (found.score - answer.score).abs() <= most.score
        && image_score_error.is_none_or(|error| error <= most.image_score);
    let (expected, score) = (answer.score, Some(found.score));
    GoldenResult { index, expected, score, max_grid_error, image_score_error, passed }
}

impl Inspector {
    /// Runs every golden sample of `bundle` and compares with the stored answers: does the model do here what it did
    /// where it was packed?
    ///
    /// # Errors
    /// When the network stops.
    pub fn check_golden(&self, bundle: &Bundle) -> Result<Vec<GoldenResult>, InspectError> {
        let calibration = &self.calibration;
        // Where normal scores do not differ, rounding still may.
        let distance = (calibration.threshold - calibration.median()).abs();
        let score = (TOLERANCE * distance).max(1e-4 * calibration.threshold.abs());
        let tolerances = Tolerances {
            score,
            grid: TOLERANCE * calibration.pixel_threshold.abs(),
            // The image's score stands in the threshold's units once it is divided by its spread.
            image_score: self.manifest.score.image.map_or(0.0, |branch| score * branch.image.spread),
        };
        let mut results = vec![];
        let views = (self.manifest.views as usize).max(1);
        // The views of one part lie behind one another, and are judged together.
        for (first, part) in bundle.golden.chunks(views).enumerate().map(|(i, part)| (i * views, part)) {
            let picture = |(i, golden): (usize, &Golden)| {
                imaging::decode(&golden.png, Path::new(&format!("golden/{:02}.png", first + i))).ok()
            };
            let pictures: Option<Vec<RgbImage>> = part.iter().enumerate().map(picture).collect();
            let verdicts = match &pictures {
                Some(pictures) => self.inspect_part(&pictures.iter().collect::<Vec<_>>(), self.limits())?,
                None => vec![],
            };
            for (i, golden) in part.iter().enumerate() {
                let index = first + i;
                let answer = match &bundle.gpu {
                    Some(gpu) if self.for_gpu => gpu.golden.get(index).unwrap_or(&golden.expected),
                    _ => &golden.expected,
                };
                results.push(match verdicts.get(i) {
                    Some(verdict) => compared(index, answer, &golden_answer(verdict), &tolerances),
                    None => GoldenResult {
                        index,
                        expected: answer.score,
                        score: None,
                        max_grid_error: f32::INFINITY,
                        image_score_error: None,
                        passed: false,
                    },
                });
            }
        }
        Ok(results)
    }
}
