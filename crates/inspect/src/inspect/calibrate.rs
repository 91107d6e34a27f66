//! Where a score begins to be a defect.

use super::quantile;
use ckaad_bundle::{Calibration, Tail};

/// Fewer normal images than this say nothing about a tail.
pub const MIN_IMAGES: usize = 20;

/// Share of the normal images whose scores the tail is fitted to.
const TAIL_SHARE: f32 = 0.2;

/// Fewer scores in the tail than this say nothing about its shape.
const MIN_FOR_SHAPE: usize = 30;

/// Shapes that are believed: further out lies what a few scores happen to look like.
const SHAPES: (f64, f64) = (-0.3, 0.2);

/// The interval leaves this share out at each end.
const LEFT_OUT: f64 = 0.05;

/// Why no threshold can be learned.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum CalibrationError {
    #[error("{0} normal images are too few to calibrate a threshold; at least {MIN_IMAGES} are needed")]
    TooFew(usize),
    #[error("the false-alarm budget must lie between 0 and {TAIL_SHARE}, found {0}")]
    Budget(f32),
    #[error("a normal image has a score that is not finite")]
    NotFinite,
}

/// What a threshold for a false-alarm budget can promise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prospect {
    /// The threshold is the k-th largest of the n scores; none where the budget is smaller than what n images can show
    /// by counting.
    pub rank: Option<u32>,
    /// Share of new normal images that is to be expected at or above the threshold.
    pub expected_rate: f32,
    /// Interval that holds the true share with a probability of 90 %.
    pub interval: [f32; 2],
}

/// What `n` normal images can give for `budget`, before any of them was judged.
///
/// A score alerts when it is at or above the threshold. With the k-th largest of n scores as the threshold, k of the n
/// alert themselves, and a new image that is exchangeable with them does so with a probability of `k / (n + 1)`: it is
/// as likely to have any place among the n + 1, and alerts in the first k of them. (Scores that are equal can only make
/// it more.) The largest k that keeps the budget is `floor(budget * (n + 1))`. Over all the sets of n images that could
/// have been there, the true share is distributed as Beta(k, n + 1 - k), whatever the scores' distribution.
///
/// Where k is 0 the threshold comes from the tail that [`calibrate`] fits, and the budget is what is expected of it.
/// Nothing but the largest score vouches for it: the interval goes from 0 to where Beta(1, n) says that the share above
/// that score ends.
pub fn expected(n: usize, budget: f32) -> Prospect {
    // A budget of 0.02 is a little less than that in 32 bits, and 249 images must give rank 5 for it.
    let rank = (f64::from(budget) * (n + 1) as f64 * (1.0 + 1e-6)).floor() as usize;
    if rank == 0 {
        return Prospect { rank: None, expected_rate: budget, interval: [0.0, beyond(n, 0)] };
    }
    let rank = rank.min(n.max(1));
    let at = |share: f64| share_at_rank(n, rank, share) as f32;
    Prospect {
        rank: Some(rank as u32),
        expected_rate: (rank as f64 / (n + 1) as f64) as f32,
        interval: [at(LEFT_OUT), at(1.0 - LEFT_OUT)],
    }
}

/// The upper end of the interval for a threshold that `above` of `n` scores reach, and that is not one of them: the
/// share above the next smaller score can only be larger.
fn beyond(n: usize, above: usize) -> f32 {
    if above >= n { 1.0 } else { share_at_rank(n, above + 1, 1.0 - LEFT_OUT) as f32 }
}

/// The quantile `probability` of the share of new images above the `rank`-th largest of `n` scores, which is distributed
/// as Beta(rank, n + 1 - rank). Both parameters are whole, so its distribution function at x is the probability that of
/// n images with a share x at least `rank` alert: a binomial sum.
fn share_at_rank(n: usize, rank: usize, probability: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    // Halved until a share in 64 bits has no digits left.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if 1.0 - fewer_than(rank, n, middle) < probability { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The probability that fewer than `rank` of `n` images alert when each does with the probability `share`, which lies
/// between 0 and 1.
fn fewer_than(rank: usize, n: usize, share: f64) -> f64 {
    let odds = share.ln() - (-share).ln_1p();
    let mut term = n as f64 * (-share).ln_1p();
    let mut sum = 0.0;
    for i in 0..rank.min(n + 1) {
        sum += term.exp();
        term += ((n - i) as f64 / (i + 1) as f64).ln() + odds;
    }
    sum.min(1.0)
}

/// Learns the threshold from `scores` of normal images, each judged by a model that was not trained on it, and the
/// pixel threshold from the `peaks` of their smoothed maps.
///
/// Where n images can show the budget by counting, the threshold is one of the scores, as [`expected`] says. Where they
/// cannot, the largest fifth of them is fitted with a generalised Pareto distribution by probability-weighted moments,
/// its shape held between -0.3 and 0.2 (with fewer than 30 scores in that fifth: an exponential), and the threshold is
/// where that falls to the budget.
///
/// # Errors
/// There are fewer than [`MIN_IMAGES`] scores, `budget` does not lie in the largest fifth, or a score is not finite.
pub fn calibrate(scores: &[f32], peaks: &[f32], budget: f32) -> Result<Calibration, CalibrationError> {
    let n = scores.len();
    if n < MIN_IMAGES {
        return Err(CalibrationError::TooFew(n));
    }
    if !(budget > 0.0 && budget < TAIL_SHARE) {
        return Err(CalibrationError::Budget(budget));
    }
    if scores.iter().chain(peaks).any(|v| !v.is_finite()) {
        return Err(CalibrationError::NotFinite);
    }
    let (scores, peaks) = (sorted(scores), sorted(peaks));
    let at = |sorted: &[f32], share: f32| quantile(sorted, share).unwrap_or(f32::NAN);
    let tail = fit_tail(&scores);
    let Prospect { rank, expected_rate, mut interval } = expected(n, budget);
    let threshold = match rank {
        Some(rank) => scores[n - rank as usize],
        None => quantile_of_tail(&tail, budget),
    };
    if rank.is_none() {
        // A score far out may lie above where the tail ends.
        interval[1] = beyond(n, scores.iter().filter(|&&s| s >= threshold).count());
    }
    Ok(Calibration {
        images: n as u32,
        quantiles: (0..=20).map(|i| at(&scores, i as f32 / 20.0)).collect(),
        threshold,
        pixel_threshold: at(&peaks, 0.95),
        false_alarm_budget: budget,
        rank,
        tail,
        expected_rate,
        interval,
    })
}

/// The tail of ascending scores.
fn fit_tail(scores: &[f32]) -> Tail {
    let start = quantile(scores, 1.0 - TAIL_SHARE).unwrap_or(f32::NAN);
    let excesses: Vec<f64> = scores.iter().filter(|&&s| s > start).map(|&s| f64::from(s) - f64::from(start)).collect();
    let count = excesses.len().max(1) as f64;
    let mean = excesses.iter().sum::<f64>() / count;
    // Hosking and Wallis: the mean of the excesses, and their mean weighted by the share of excesses above each.
    let above = |i: usize| (excesses.len() - 1 - i) as f64 / (count - 1.0).max(1.0);
    let weighted = excesses.iter().enumerate().map(|(i, e)| e * above(i)).sum::<f64>() / count;
    let enough = excesses.len() >= MIN_FOR_SHAPE && mean > 2.0 * weighted;
    let shape = if enough { (2.0 - mean / (mean - 2.0 * weighted)).clamp(SHAPES.0, SHAPES.1) } else { 0.0 };
    // The distribution's mean is scale / (1 - shape), and stays that of the excesses when the shape is clipped.
    let scale = (mean * (1.0 - shape)).max(1e-6);
    Tail { start, share: (count / scores.len() as f64) as f32, scale: scale as f32, shape: shape as f32 }
}

/// Where the share above falls to `budget`.
fn quantile_of_tail(tail: &Tail, budget: f32) -> f32 {
    let (scale, shape) = (f64::from(tail.scale), f64::from(tail.shape));
    let ratio = f64::from(budget) / f64::from(tail.share);
    let beyond = if shape.abs() < 1e-6 { -scale * ratio.ln() } else { scale / shape * (ratio.powf(-shape) - 1.0) };
    (f64::from(tail.start) + beyond) as f32
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
    use rand_chacha::ChaCha8Rng;

    #[track_caller]
    fn close(found: f32, expected: f64) {
        assert!((f64::from(found) - expected).abs() < 1e-6, "{found}, not {expected}");
    }

    /// Scores of normal images with an exponential distribution: the share above s is exp(-s).
    fn exponential(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
        (0..n).map(|_| -(1.0 - rng.random::<f32>()).ln()).collect()
    }

    #[test]
    fn what_n_images_can_promise() {
        // Quantiles of Beta(k, n + 1 - k), computed with exact fractions.
        for (n, budget, rank, interval) in [
            (93, 0.02, 1, [0.000_551_388_7, 0.031_698_889]),
            (250, 0.02, 5, [0.007_912_850_3, 0.036_237_965]),
            (249, 0.02, 5, [0.007_944_760, 0.036_381_988]),
            (30, 0.19, 5, [0.068_055_574, 0.279_615_166]),
            (1000, 0.019, 19, [0.012_476_769, 0.026_575_623]),
            (20, 0.15, 3, [0.042_169_408, 0.282_618_525]),
        ] {
            let prospect = expected(n, budget);
            assert_eq!(prospect.rank, Some(rank), "{n} images for {budget}");
            close(prospect.expected_rate, f64::from(rank) / (n + 1) as f64);
            let off = |i: usize| (f64::from(prospect.interval[i]) - interval[i]).abs();
            assert!(off(0) < 2e-6 && off(1) < 2e-6, "{n} images for {budget}: {:?}", prospect.interval);
        }
    }

    #[test]
    fn a_budget_beyond_counting_is_expected_and_not_vouched_for() {
        for (n, budget, upper) in [(100, 0.005, 0.029_513_05), (500, 0.001, 0.005_973_552), (48, 0.02, 0.060_503_41)] {
            let prospect = expected(n, budget);
            assert_eq!((prospect.rank, prospect.expected_rate, prospect.interval[0]), (None, budget, 0.0));
            assert!((f64::from(prospect.interval[1]) - upper).abs() < 1e-5, "{n}: {:?}", prospect.interval);
        }
        assert_eq!(expected(0, 0.02).interval, [0.0, 1.0]);
        assert_eq!(expected(49, 0.02).rank, Some(1), "the first that can");
        // Many images are no trouble.
        let many = expected(1_000_000, 0.15);
        assert_eq!(many.rank, Some(150_000));
        assert!(many.interval[0] > 0.149 && many.interval[1] < 0.151, "{many:?}");
    }

    #[test]
    fn the_threshold_is_the_score_with_that_rank() {
        let scores: Vec<f32> = (0..250).map(|i| ((i * 73) % 250) as f32).collect();
        let calibration = calibrate(&scores, &scores, 0.02).unwrap();
        assert_eq!((calibration.rank, calibration.threshold), (Some(5), 245.0));
        assert_eq!(scores.iter().filter(|&&s| s >= calibration.threshold).count(), 5);
        let Prospect { expected_rate, interval, .. } = expected(250, 0.02);
        assert_eq!((calibration.expected_rate, calibration.interval), (expected_rate, interval));
        assert_eq!((calibration.images, calibration.median()), (250, 124.5));
        assert_eq!(calibration.pixel_threshold, 0.95 * 249.0);
        let few = calibrate(&scores[..93], &scores, 0.02).unwrap();
        assert_eq!((few.rank, few.threshold), (Some(1), scores[..93].iter().copied().fold(0.0, f32::max)));
    }

    #[test]
    fn over_many_sets_of_images_the_promise_holds() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (n, budget, sets) = (93, 0.05, 4000);
        let mut rates = vec![];
        for _ in 0..sets {
            let scores = exponential(&mut rng, n);
            let calibration = calibrate(&scores, &scores, budget).unwrap();
            rates.push((-f64::from(calibration.threshold)).exp());
        }
        let Prospect { expected_rate, interval, .. } = expected(n, budget);
        let mean = rates.iter().sum::<f64>() / f64::from(sets);
        let inside = rates.iter().filter(|r| (f64::from(interval[0])..=f64::from(interval[1])).contains(*r)).count();
        // Four standard errors of each.
        assert!((mean - f64::from(expected_rate)).abs() < 4.0 * 0.0206 / f64::from(sets).sqrt(), "{mean}");
        assert!((inside as f64 / f64::from(sets) - 0.9).abs() < 4.0 * 0.3 / f64::from(sets).sqrt(), "{inside}");
    }

    #[test]
    fn the_tail_keeps_a_budget_beyond_counting() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for (n, low, high) in [(100, 0.001, 0.006), (400, 0.0005, 0.002)] {
            let budget = 0.4 / n as f32;
            let mut rates: Vec<f64> = (0..500)
                .map(|_| {
                    let scores = exponential(&mut rng, n);
                    let calibration = calibrate(&scores, &scores, budget).unwrap();
                    assert!(calibration.rank.is_none() && calibration.expected_rate == budget);
                    (-f64::from(calibration.threshold)).exp()
                })
                .collect();
            rates.sort_by(f64::total_cmp);
            assert!((low..high).contains(&rates[250]), "{n}: the median set gives {}", rates[250]);
        }
    }

    #[test]
    fn the_shape_of_a_tail_is_found_with_enough_scores_and_held_within_bounds() {
        // Quantiles of generalised Pareto distributions; the largest fifth of each has the same shape.
        let scores = |shape: f64, n: usize| -> Vec<f32> {
            let share = |i: usize| (i as f64 + 0.5) / n as f64;
            (0..n).map(|i| ((share(i).powf(-shape) - 1.0) / shape) as f32).collect()
        };
        let tail = |shape: f64, n: usize| calibrate(&scores(shape, n), &[1.0], 0.0001).unwrap().tail;
        for shape in [-0.2, 0.1] {
            let found = tail(shape, 5000);
            assert!((f64::from(found.shape) - shape).abs() < 0.03, "{shape}: {found:?}");
            assert_eq!(found.share, 0.2);
        }
        assert_eq!((tail(-0.8, 5000).shape, tail(0.7, 5000).shape), (-0.3, 0.2));
        assert_eq!(tail(0.1, 140).shape, 0.0, "28 scores are too few");
        assert!(tail(0.1, 150).shape != 0.0, "30 are enough");
    }

    #[test]
    fn the_threshold_is_where_the_tail_falls_to_the_budget() {
        for shape in [-0.3, -0.1, 0.0, 1e-7, 0.2] {
            let tail = Tail { start: 2.0, share: 0.2, scale: 0.5, shape };
            let threshold = f64::from(quantile_of_tail(&tail, 0.001));
            let (shape, at) = (f64::from(shape), (threshold - 2.0) / 0.5);
            let above = if shape.abs() < 1e-6 { (-at).exp() } else { (1.0 + shape * at).powf(-1.0 / shape) };
            assert!((0.2 * above / 0.001 - 1.0).abs() < 1e-4, "{shape}: {threshold}");
        }
    }

    #[test]
    fn scores_above_the_tails_end_widen_the_interval() {
        // One far out, which makes the mean of the tail's 20 scores only a little larger.
        let mut scores: Vec<f32> = (0..100).map(|i| 1.0 + i as f32 * 1e-4).collect();
        scores[3] = 1.02;
        let calibration = calibrate(&scores, &scores, 0.009).unwrap();
        assert_eq!(scores.iter().filter(|&&s| s >= calibration.threshold).count(), 1, "{calibration:?}");
        close(calibration.interval[1], 0.046_559_811);
        assert_eq!(calibration.interval[0], 0.0);
    }

    #[test]
    fn equal_scores_give_a_threshold_too() {
        for budget in [0.001, 0.1] {
            let calibration = calibrate(&[1.0; 30], &[1.0; 30], budget).unwrap();
            assert!(calibration.threshold >= 1.0 && calibration.threshold < 1.0001, "{calibration:?}");
            assert!(calibration.tail.scale > 0.0 && calibration.tail.share > 0.0);
        }
    }

    #[test]
    fn too_few_images_and_a_senseless_budget_are_refused() {
        assert!(matches!(calibrate(&[1.0; 19], &[1.0; 5], 0.01), Err(CalibrationError::TooFew(19))));
        assert!(calibrate(&[1.0; MIN_IMAGES], &[1.0; 5], 0.01).is_ok());
        for budget in [0.0, 0.2, 0.5, -0.1, f32::NAN] {
            assert!(matches!(calibrate(&[1.0; 50], &[1.0; 50], budget), Err(CalibrationError::Budget(_))), "{budget}");
        }
        assert!(matches!(calibrate(&[f32::NAN; 50], &[1.0; 50], 0.01), Err(CalibrationError::NotFinite)));
        assert!(matches!(calibrate(&[1.0; 50], &[f32::INFINITY; 50], 0.01), Err(CalibrationError::NotFinite)));
    }
}
