//! Golden samples: does a model do here what it did where it was packed?

use super::{InspectError, Inspector, Verdict};
use crate::imaging;
use ckaad_bundle::{Bundle, GoldenAnswer};
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
    /// `None` when the picture could not be decoded.
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
        let tolerance = (TOLERANCE * distance).max(1e-4 * calibration.threshold.abs());
        let grid_tolerance = TOLERANCE * calibration.pixel_threshold.abs();
        // The image's score stands in the threshold's units once it is divided by its spread.
        let image_tolerance = self.manifest.score.image.map_or(0.0, |branch| tolerance * branch.image.spread);
        let mut results = vec![];
        for (index, golden) in bundle.golden.iter().enumerate() {
            let answer = match &bundle.gpu {
                Some(gpu) if self.for_gpu => gpu.golden.get(index).unwrap_or(&golden.expected),
                _ => &golden.expected,
            };
            let expected = answer.score;
            let Ok(image) = imaging::decode(&golden.png, Path::new(&format!("golden/{index:02}.png"))) else {
                results.push(GoldenResult {
                    index,
                    expected,
                    score: None,
                    max_grid_error: f32::INFINITY,
                    image_score_error: None,
                    passed: false,
                });
                continue;
            };
            let found = golden_answer(&self.inspect(&image)?);
            let differences = found.grid.iter().zip(&answer.grid).map(|(a, b)| (a - b).abs());
            let max_grid_error = differences.fold(0.0, f32::max);
            let image_score_error = match (found.image_score, answer.image_score) {
                (Some(found), Some(expected)) => Some((found - expected).abs()),
                (None, None) => None,
                _ => Some(f32::INFINITY),
            };
            let passed = found.grid.len() == answer.grid.len()
                && max_grid_error <= grid_tolerance
                && (found.score - expected).abs() <= tolerance
                && image_score_error.is_none_or(|error| error <= image_tolerance);
            let score = Some(found.score);
            results.push(GoldenResult { index, expected, score, max_grid_error, image_score_error, passed });
        }
        Ok(results)
    }
}
