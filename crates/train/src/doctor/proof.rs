//! What a set of so many images can show at all, before anything is trained.

use ckaad_inspect::{Prospect, expected};
use serde::Serialize;

/// Shares of normal images that may alert, for which [`Proof::false_alarms`] says what can be shown.
const BUDGETS: [f32; 2] = [0.005, 0.02];

/// How sure the numbers of a set can be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// The AUROC of the test set; none where it lacks a class.
    pub test: Option<Ranking>,
    /// The AUROC of the training images, each judged by a model that did not see it, by which the terms are weighed.
    pub training: Option<Ranking>,
    /// Where parts or patients are known and have several images: as `test`, counted by parts.
    pub test_by_part: Option<Ranking>,
    /// As `training`, counted by parts.
    pub training_by_part: Option<Ranking>,
    /// What the normal training images say of the threshold's false alarms.
    pub false_alarms: Vec<FalseAlarms>,
}

/// The standard error of an AUROC.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ranking {
    /// Anomalous images, or parts.
    pub anomalous: usize,
    /// Normal images, or parts.
    pub normal: usize,
    /// Standard error of an AUROC of 0.9.
    pub at_90: f64,
    /// Standard error of an AUROC of 0.98.
    pub at_98: f64,
}

/// What is to be expected of a threshold for a budget of false alarms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FalseAlarms {
    /// Share of normal images that may alert.
    pub budget: f32,
    /// Normal images that the threshold is learned from.
    pub normal: usize,
    /// The place of the threshold among their scores, counted from the largest; none where so few cannot show the
    /// budget.
    pub rank: Option<u32>,
    /// Share of new normal images that is to be expected to alert.
    pub expected: f32,
    /// Interval that holds the true share with a probability of 90 %.
    pub interval_90: [f32; 2],
}

impl Ranking {
    /// Of so many images; none where a class has none.
    pub fn of(anomalous: usize, normal: usize) -> Option<Ranking> {
        let at = |auroc| auroc_standard_error(auroc, anomalous, normal);
        Some(Ranking { anomalous, normal, at_90: at(0.9)?, at_98: at(0.98)? })
    }
}

/// What `normal` images can show, for each of the budgets 0.5 % and 2 %.
pub fn false_alarms(normal: usize) -> Vec<FalseAlarms> {
    let of = |budget| {
        let Prospect { rank, expected_rate, interval } = expected(normal, budget);
        FalseAlarms { budget, normal, rank, expected: expected_rate, interval_90: interval }
    };
    BUDGETS.map(of).to_vec()
}

/// The standard error of an AUROC over so many anomalous and normal images, by Hanley and McNeil (Radiology 143, 1982),
/// who take the scores of both classes as exponentially distributed. None where a class has no image.
pub fn auroc_standard_error(auroc: f64, anomalous: usize, normal: usize) -> Option<f64> {
    if anomalous == 0 || normal == 0 {
        return None;
    }
    let (m, n) = (anomalous as f64, normal as f64);
    // Two anomalous images both above one normal image, and one anomalous image above two normal ones.
    let (two_above, above_two) = (auroc / (2.0 - auroc), 2.0 * auroc * auroc / (1.0 + auroc));
    let square = auroc * auroc;
    let variance =
        (auroc * (1.0 - auroc) + (m - 1.0) * (two_above - square) + (n - 1.0) * (above_two - square)) / (m * n);
    Some(variance.max(0.0).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_errors_are_those_of_hanley_and_mcneil() {
        for (anomalous, normal, expected) in [(10, 73, 0.067), (42, 104, 0.033), (3, 50, 0.12)] {
            let found = auroc_standard_error(0.9, anomalous, normal).unwrap();
            assert!((found - expected).abs() < 0.0015, "{anomalous} + {normal}: {found}");
        }
        assert_eq!(auroc_standard_error(1.0, 5, 5), Some(0.0));
        assert_eq!((auroc_standard_error(0.9, 0, 5), Ranking::of(5, 0)), (None, None));
        let ranking = Ranking::of(10, 73).unwrap();
        assert!(ranking.at_98 < ranking.at_90 / 2.0, "{ranking:?}");
    }

    #[test]
    fn budgets_are_those_of_the_calibration() {
        let [half, two] = false_alarms(104)[..] else { panic!() };
        assert_eq!((half.rank, two.rank), (None, Some(2)));
        assert!((two.expected - 2.0 / 105.0).abs() < 1e-6 && half.interval_90[1] > 0.02, "{half:?} {two:?}");
    }
}
