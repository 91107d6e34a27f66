//! How good scores and maps are. Every curve is exact: all thresholds, ties taken together.
//!
//! | question | answer |
//! |---|---|
//! | do image scores tell normal from anomalous, and how sure is that? | [`ImageMetrics`], [`auroc_interval`]; of two kinds of scores, which are better: [`Placements`] |
//! | do maps show where? | [`Pixels`] → [`PixelMetrics`], of them ADer's coarser ones in [`GridMetrics`] |
//! | and for parts that are seen from several sides? | [`by_part`] |
//!
//! Definitions and how they were tested: `docs/metrics.md`.

mod bootstrap;
mod curve;
mod grid;
mod pixels;
mod placements;
mod runs;

pub use bootstrap::auroc_interval;
pub use grid::GridMetrics;
pub use pixels::{MEMORY_BYTES, PixelError, PixelMetrics, Pixels};
pub use placements::{Placements, auroc_standard_error};

use curve::{Above, Curve};
use serde::Serialize;
use std::collections::BTreeMap;

/// Metrics of one score an item: an image, or a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ImageMetrics {
    /// Area under the ROC; `None`, like all below, when a class is empty.
    pub auroc: Option<f64>,
    /// 95 % bootstrap interval of the AUROC.
    pub auroc_95: Option<(f64, f64)>,
    /// See [`average_precision`].
    pub average_precision: Option<f64>,
    /// Over all thresholds.
    pub f1_max: Option<f64>,
    /// Of calling everything anomalous.
    pub f1_trivial: Option<f64>,
}

impl ImageMetrics {
    /// One score and one label an item.
    pub fn of(scores: &[f32], anomalous: &[bool]) -> ImageMetrics {
        let curve = curve(scores, anomalous);
        ImageMetrics {
            auroc: curve.auroc(),
            auroc_95: auroc_interval(scores, anomalous),
            average_precision: curve.average_precision(),
            f1_max: curve.f1_max().map(|(f1, _)| f1),
            f1_trivial: curve.f1_trivial(),
        }
    }
}

/// Area under the ROC; `None` when a class is empty.
pub fn auroc(scores: &[f32], anomalous: &[bool]) -> Option<f64> {
    curve(scores, anomalous).auroc()
}

/// Average precision as scikit-learn defines it: `Σ (R_n - R_{n-1}) P_n` over distinct thresholds.
pub fn average_precision(scores: &[f32], anomalous: &[bool]) -> Option<f64> {
    curve(scores, anomalous).average_precision()
}

/// The largest F1 over all thresholds, and that threshold.
pub fn f1_max(scores: &[f32], anomalous: &[bool]) -> Option<(f64, f32)> {
    curve(scores, anomalous).f1_max()
}

/// What a threshold at one of the scores (`score >= threshold`) makes of the items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperatingPoint {
    /// The score.
    pub threshold: f32,
    /// Share of the normal items at or above it.
    pub false_positive_rate: f64,
    /// The true-positive rate.
    pub recall: f64,
    /// Share of the items at or above it that are anomalous.
    pub precision: f64,
}

/// One point a distinct score, the highest first; empty when a class is empty.
pub fn operating_points(scores: &[f32], anomalous: &[bool]) -> Vec<OperatingPoint> {
    let (total, steps) = descent(scores, anomalous);
    if total.negatives == 0 || total.positives == 0 {
        return vec![];
    }
    let point = |(threshold, above): (f32, Above)| OperatingPoint {
        threshold,
        false_positive_rate: above.negatives as f64 / total.negatives as f64,
        recall: above.recall(total.positives),
        precision: above.precision(),
    };
    steps.into_iter().map(point).collect()
}

/// The largest score of each part and whether any of its images is anomalous; an image without a part stands for
/// itself. All three slices have one entry an image.
pub fn by_part(parts: &[Option<String>], scores: &[f32], anomalous: &[bool]) -> (Vec<f32>, Vec<bool>) {
    let mut seen: BTreeMap<(Option<&str>, usize), (f32, bool)> = BTreeMap::new();
    for (index, ((part, &score), &anomalous)) in parts.iter().zip(scores).zip(anomalous).enumerate() {
        let alone = if part.is_none() { index } else { 0 };
        let entry = seen.entry((part.as_deref(), alone)).or_insert((f32::NEG_INFINITY, false));
        *entry = (entry.0.max(score), entry.1 || anomalous);
    }
    seen.into_values().unzip()
}

fn curve(scores: &[f32], anomalous: &[bool]) -> Curve {
    let (total, steps) = descent(scores, anomalous);
    let mut curve = Curve::over(total);
    steps.into_iter().for_each(|(score, above)| curve.step(score, above));
    curve
}

/// The whole set, and what lies at or above each distinct score, the highest first.
fn descent(scores: &[f32], anomalous: &[bool]) -> (Above, Vec<(f32, Above)>) {
    let mut sorted: Vec<(f32, bool)> = scores.iter().copied().zip(anomalous.iter().copied()).collect();
    sorted.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut above, mut steps) = (Above::default(), vec![]);
    for (i, (score, positive)) in sorted.iter().enumerate() {
        *if *positive { &mut above.positives } else { &mut above.negatives } += 1;
        if sorted.get(i + 1).is_none_or(|next| next.0 != *score) {
            steps.push((*score, above));
        }
    }
    (above, steps)
}

#[cfg(test)]
mod tests;
