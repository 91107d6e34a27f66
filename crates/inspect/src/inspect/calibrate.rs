//! Where a score begins to be a defect.

use super::quantile;
use ckaad_bundle::Calibration;

/// Fewer normal images than this say nothing about a tail.
pub const MIN_IMAGES: usize = 20;

/// Share of the normal images whose scores the exponential tail is fitted to.
const TAIL_SHARE: f32 = 0.2;

/// Why no threshold can be learned.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum CalibrationError {
    #[error("{0} held-out normal images are too few to calibrate a threshold; at least {MIN_IMAGES} are needed")]
    TooFew(usize),
    #[error("the false-alarm budget must lie between 0 and {TAIL_SHARE}, found {0}")]
    Budget(f32),
    #[error("a held-out normal image has a score that is not finite")]
    NotFinite,
}

/// Learns the threshold from `scores` of held-out normal images, and the pixel threshold from the `peaks` of their
/// smoothed maps.
///
/// A budget of one false alarm in 500 lies beyond what 80 images can show by counting, so the largest fifth of the
/// scores is fitted with an exponential tail, and the threshold is where that tail falls to `budget`.
///
/// # Errors
/// There are fewer than [`MIN_IMAGES`] scores, `budget` does not lie in the tail, or a score is not finite.
pub fn calibrate(scores: &[f32], peaks: &[f32], budget: f32) -> Result<Calibration, CalibrationError> {
    if scores.len() < MIN_IMAGES {
        return Err(CalibrationError::TooFew(scores.len()));
    }
    if !(budget > 0.0 && budget < TAIL_SHARE) {
        return Err(CalibrationError::Budget(budget));
    }
    if scores.iter().chain(peaks).any(|v| !v.is_finite()) {
        return Err(CalibrationError::NotFinite);
    }
    let (scores, peaks) = (sorted(scores), sorted(peaks));
    let at = |sorted: &[f32], share: f32| quantile(sorted, share).unwrap_or(f32::NAN);
    let tail_start = at(&scores, 1.0 - TAIL_SHARE);
    let tail: Vec<f32> = scores.iter().copied().filter(|&s| s > tail_start).collect();
    let tail_scale = (tail.iter().map(|s| s - tail_start).sum::<f32>() / tail.len().max(1) as f32).max(1e-6);
    Ok(Calibration {
        images: scores.len() as u32,
        quantiles: (0..=20).map(|i| at(&scores, i as f32 / 20.0)).collect(),
        tail_start,
        tail_share: TAIL_SHARE,
        tail_scale,
        false_alarm_budget: budget,
        threshold: tail_start + tail_scale * (TAIL_SHARE / budget).ln(),
        pixel_threshold: at(&peaks, 0.95),
    })
}

fn sorted(values: &[f32]) -> Vec<f32> {
    let mut values = values.to_vec();
    values.sort_by(f32::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn the_threshold_keeps_the_budget_on_an_exponential_tail() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| 1.0 - rng.random::<f32>().ln() * 0.1).collect() };
        let scores = draw(2_000);
        let calibration = calibrate(&scores, &scores, 0.005).unwrap();
        let fresh = draw(100_000);
        let rate = fresh.iter().filter(|&&s| s >= calibration.threshold).count() as f32 / 100_000.0;
        assert!((0.003..0.008).contains(&rate), "{rate}");
        assert!(calibration.quantiles.windows(2).all(|w| w[0] <= w[1]));
    }

    #[test]
    fn too_few_images_and_a_senseless_budget_are_refused() {
        assert!(matches!(calibrate(&[1.0; 5], &[1.0; 5], 0.01), Err(CalibrationError::TooFew(5))));
        assert!(matches!(calibrate(&[1.0; 50], &[1.0; 50], 0.5), Err(CalibrationError::Budget(_))));
        assert!(matches!(calibrate(&[f32::NAN; 50], &[1.0; 50], 0.01), Err(CalibrationError::NotFinite)));
    }
}
