//! Alerts against the truth.

use serde::Serialize;

/// Images by what is true of them and by whether they were alerted: the confusion matrix of a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Defective and alerted.
    pub hits: u64,
    /// Defective and not alerted.
    pub misses: u64,
    /// Good and alerted.
    pub false_alarms: u64,
    /// Good and not alerted.
    pub passed: u64,
}

impl Counts {
    /// Adds one image.
    pub fn count(&mut self, defective: bool, alerted: bool) {
        *match (defective, alerted) {
            (true, true) => &mut self.hits,
            (true, false) => &mut self.misses,
            (false, true) => &mut self.false_alarms,
            (false, false) => &mut self.passed,
        } += 1;
    }

    /// Images that are defective.
    pub fn defective(&self) -> u64 {
        self.hits + self.misses
    }

    /// Images that are good.
    pub fn good(&self) -> u64 {
        self.false_alarms + self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_is_counted_once_in_its_place() {
        let mut counts = Counts::default();
        for (defective, alerted, times) in [(true, true, 4), (true, false, 3), (false, true, 2), (false, false, 1)] {
            (0..times).for_each(|_| counts.count(defective, alerted));
        }
        assert_eq!(counts, Counts { hits: 4, misses: 3, false_alarms: 2, passed: 1 });
        assert_eq!((counts.defective(), counts.good()), (7, 3));
    }
}
