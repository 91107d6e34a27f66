//! What a set of so many images can show at all, before anything is trained.

use crate::metrics::auroc_standard_error;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_rankings_are_surer_and_a_missing_class_shows_nothing() {
        assert_eq!(Ranking::of(5, 0), None);
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
