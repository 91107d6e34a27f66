//! ADer's pixel metrics, which look at evenly spaced thresholds only (arXiv 2406.03262, `util/metric.py` of its public
//! code).
//!
//! Scores are min-max-normalised over the whole test set and held against `k/100` with `>`. All of ADer's thresholds
//! are among these: 0 to 1 by 0.05 for the best F1 and IoU, 0.2 to 0.8 by 0.1 for the means, and the 100 of its AUPRO.

use super::curve::{Above, Area};
use serde::Serialize;

/// Thresholds are `0/STEPS ..= STEPS/STEPS`.
const STEPS: usize = 100;

/// Pixel metrics at ADer's thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GridMetrics {
    /// mF1-max_P and mIoU-max: the best of the thresholds 0, 0.05, ... 1.
    pub f1_max: f64,
    /// The best intersection over union.
    pub iou_max: f64,
    /// mF1, mAcc and mIoU of .2 to .8: the mean over the thresholds 0.2, 0.3, ... 0.8. Acc is the share of anomalous
    /// pixels found.
    pub f1_mean: f64,
    /// The same of the share of anomalous pixels that are found.
    pub acc_mean: f64,
    /// The same of the intersection over union.
    pub iou_mean: f64,
    /// From the 100 thresholds 0, 0.01, ... 0.99, of those with a false-positive rate below 0.3, which is then
    /// stretched to 0..1. `None` where fewer than two different rates remain.
    pub aupro_30: Option<f64>,
}

/// What lies above each threshold, filled in while scores sink.
pub struct Grid {
    low: f64,
    span: f64,
    above: [Above; STEPS + 1],
    /// Thresholds below this one are still to be filled in.
    open: usize,
}

impl Grid {
    /// For scores from `low` to `high`.
    pub fn between(low: f32, high: f32) -> Grid {
        let span = f64::from(high) - f64::from(low);
        Grid { low: f64::from(low), span, above: [Above::default(); STEPS + 1], open: STEPS + 1 }
    }

    /// The next lower score, and what lies above it, itself not counted.
    pub fn step(&mut self, score: f32, above: Above) {
        // A map that is flat over the whole set says nothing; all of it counts as its lowest value.
        let normalised = if self.span > 0.0 { (f64::from(score) - self.low) / self.span } else { 0.0 };
        while self.open > 0 && (self.open - 1) as f64 / STEPS as f64 >= normalised {
            self.open -= 1;
            self.above[self.open] = above;
        }
    }

    /// `total` is the whole set, `total.overlap` the number of regions. `None` when a class is empty.
    pub fn metrics(&self, total: Above) -> Option<GridMetrics> {
        if total.negatives == 0 || total.positives == 0 {
            return None;
        }
        let all = |from: usize, to: usize, by: usize, metric: fn(&Above, u64) -> f64| {
            (from..=to).step_by(by).map(move |k| metric(&self.above[k], total.positives)).collect::<Vec<_>>()
        };
        let best = |metric| all(0, 100, 5, metric).into_iter().fold(0.0, f64::max);
        let mean = |metric| {
            let values = all(20, 80, 10, metric);
            values.iter().sum::<f64>() / values.len() as f64
        };
        Some(GridMetrics {
            f1_max: best(Above::f1),
            iou_max: best(Above::iou),
            f1_mean: mean(Above::f1),
            acc_mean: mean(Above::recall),
            iou_mean: mean(Above::iou),
            aupro_30: self.aupro(total, 0.3),
        })
    }

    fn aupro(&self, total: Above, limit: f64) -> Option<f64> {
        let point = |a: &Above| (a.negatives as f64 / total.negatives as f64, a.overlap / total.overlap);
        let points: Vec<(f64, f64)> =
            self.above[..STEPS].iter().rev().map(point).filter(|(rate, _)| *rate < limit).collect();
        let (first, last) = (points.first()?, points.last()?);
        let span = last.0 - first.0;
        if span <= 0.0 {
            return None;
        }
        let mut area = Area::from(first.1, 1.0);
        points.iter().for_each(|(rate, overlap)| area.add((rate - first.0) / span, *overlap));
        Some(area.share())
    }
}
