//! What is read off while the threshold sinks from the highest score to the lowest, one distinct score a step.

/// How much of the set lies at or above a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Above {
    pub negatives: u64,
    pub positives: u64,
    /// Sum over regions of the covered share of each; 0 where there are no regions.
    pub overlap: f64,
}

impl Above {
    /// `2·TP / (2·TP + FP + FN)`, 0 where nothing is positive.
    pub fn f1(&self, positives: u64) -> f64 {
        share(2 * self.positives, positives + self.positives + self.negatives)
    }

    /// `TP / (TP + FP + FN)`, 0 where nothing is positive.
    pub fn iou(&self, positives: u64) -> f64 {
        share(self.positives, positives + self.negatives)
    }

    pub fn recall(&self, positives: u64) -> f64 {
        share(self.positives, positives)
    }

    pub fn precision(&self) -> f64 {
        share(self.positives, self.positives + self.negatives)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Trapezoids under a curve that runs to the right, up to `limit`.
pub struct Area {
    limit: f64,
    last: (f64, f64),
    sum: f64,
}

impl Area {
    /// Of a curve that starts at (0, `y`).
    pub fn from(y: f64, limit: f64) -> Area {
        Area { limit, last: (0.0, y), sum: 0.0 }
    }

    pub fn add(&mut self, x: f64, y: f64) {
        let (x0, y0) = self.last;
        self.last = (x, y);
        if x0 >= self.limit || x == x0 {
            return;
        }
        let end = x.min(self.limit);
        let y_end = y0 + (y - y0) * (end - x0) / (x - x0);
        self.sum += (end - x0) * (y0 + y_end) / 2.0;
    }

    /// The area as a share of `limit`.
    pub fn share(&self) -> f64 {
        self.sum / self.limit
    }
}

/// AUROC, average precision and the largest F1 of one descent.
pub struct Curve {
    total: Above,
    last: Above,
    roc: Area,
    average_precision: f64,
    best: Option<(f64, f32)>,
}

impl Curve {
    pub fn over(total: Above) -> Curve {
        Curve { total, last: Above::default(), roc: Area::from(0.0, 1.0), average_precision: 0.0, best: None }
    }

    /// The next lower score, and what lies at or above it.
    pub fn step(&mut self, score: f32, above: Above) {
        let positives = self.total.positives;
        self.roc.add(share(above.negatives, self.total.negatives), above.recall(positives));
        self.average_precision += (above.recall(positives) - self.last.recall(positives)) * above.precision();
        let f1 = above.f1(positives);
        if self.best.is_none_or(|(best, _)| f1 > best) {
            self.best = Some((f1, score));
        }
        self.last = above;
    }

    /// `None` when a class is empty.
    pub fn auroc(&self) -> Option<f64> {
        (self.total.negatives > 0 && self.total.positives > 0).then(|| self.roc.share())
    }

    /// As scikit-learn defines it: `Σ (R_n - R_{n-1}) P_n` over distinct thresholds. `None` without positives.
    pub fn average_precision(&self) -> Option<f64> {
        (self.total.positives > 0).then_some(self.average_precision)
    }

    /// The F1 of calling everything anomalous: what a largest F1 has to be held against. `None` without positives.
    pub fn f1_trivial(&self) -> Option<f64> {
        (self.total.positives > 0).then(|| self.total.f1(self.total.positives))
    }

    /// The largest F1 over all thresholds, and the highest threshold (`score >= threshold`) that reaches it. `None`
    /// without positives.
    pub fn f1_max(&self) -> Option<(f64, f32)> {
        self.best.filter(|_| self.total.positives > 0)
    }
}
