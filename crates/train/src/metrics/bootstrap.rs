//! How far an AUROC can be trusted: test sets of a few hundred images leave it uncertain in the second digit.

use super::curve::{Above, Curve};
use ckaad_inspect::quantile;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const RESAMPLES: usize = 1_000;
const SEED: u64 = 0x0a0c_95c1;

/// The 95 % percentile bootstrap interval of the AUROC: 1,000 resamples, normal and anomalous items drawn apart, so
/// that each resample keeps the numbers of both (Efron and Tibshirani 1993, chapter 13). The same items in the same
/// order give the same interval. `None` when a class is empty.
pub fn auroc_interval(scores: &[f32], anomalous: &[bool]) -> Option<(f64, f64)> {
    let ranks = ranks(scores);
    let of = |wanted: bool| -> Vec<usize> {
        ranks.iter().zip(anomalous).filter(|(_, a)| **a == wanted).map(|(rank, _)| *rank).collect()
    };
    let (normal, anomalous) = (of(false), of(true));
    if normal.is_empty() || anomalous.is_empty() {
        return None;
    }
    let distinct = ranks.iter().max()? + 1;
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let resample = |_| auroc(&draw(&normal, distinct, &mut rng), &draw(&anomalous, distinct, &mut rng));
    let mut values: Vec<f64> = (0..RESAMPLES).filter_map(resample).collect();
    values.sort_unstable_by(f64::total_cmp);
    quantile(&values, 0.025).zip(quantile(&values, 0.975))
}

/// The place of each score among the distinct scores, the highest first.
fn ranks(scores: &[f32]) -> Vec<usize> {
    let mut distinct = scores.to_vec();
    distinct.sort_unstable_by(|a, b| b.total_cmp(a));
    distinct.dedup();
    scores.iter().map(|score| distinct.partition_point(|other| other > score)).collect()
}

/// As many draws with replacement as there are items, counted by rank.
fn draw(items: &[usize], distinct: usize, rng: &mut ChaCha8Rng) -> Vec<u64> {
    let mut counts = vec![0; distinct];
    for _ in items {
        counts[items[rng.random_range(0..items.len())]] += 1;
    }
    counts
}

fn auroc(negatives: &[u64], positives: &[u64]) -> Option<f64> {
    let total = Above { negatives: negatives.iter().sum(), positives: positives.iter().sum(), overlap: 0.0 };
    let (mut curve, mut above) = (Curve::over(total), Above::default());
    for (rank, (negatives, positives)) in negatives.iter().zip(positives).enumerate() {
        above.negatives += negatives;
        above.positives += positives;
        curve.step(-(rank as f32), above);
    }
    curve.auroc()
}
