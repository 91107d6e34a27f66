//! How sure an AUROC is, and a difference of two (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837).

/// Of every image the share of the other class that it is on the right side of; a tie counts half. Their mean is the
/// AUROC, their spread says how sure it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Placements {
    /// One a positive image: the share of negative ones below it.
    pub positive: Vec<f64>,
    /// One a negative image: the share of positive ones above it.
    pub negative: Vec<f64>,
}

impl Placements {
    /// `None` where a class is missing.
    pub fn of(scores: &[f32], positive: &[bool]) -> Option<Placements> {
        let of_class = |class: bool| -> Vec<f32> {
            scores.iter().zip(positive).filter(|(_, p)| **p == class).map(|(s, _)| *s).collect()
        };
        let (high, low) = (of_class(true), of_class(false));
        if high.is_empty() || low.is_empty() {
            return None;
        }
        let (above, below) = (sorted(&high), sorted(&low));
        let share = |sorted: &[f32], s: f32| {
            let less = sorted.partition_point(|v| v.total_cmp(&s).is_lt());
            let equal = sorted.partition_point(|v| v.total_cmp(&s).is_le()) - less;
            (less as f64 + 0.5 * equal as f64) / sorted.len() as f64
        };
        Some(Placements {
            positive: high.iter().map(|&s| share(&below, s)).collect(),
            negative: low.iter().map(|&s| 1.0 - share(&above, s)).collect(),
        })
    }

    /// Each image judged twice, and the mean of both; `other` is of the same images.
    pub fn mean_with(&self, other: &Placements) -> Placements {
        let mean = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a + b) / 2.0).collect();
        Placements { positive: mean(&self.positive, &other.positive), negative: mean(&self.negative, &other.negative) }
    }

    /// The area under the curve.
    pub fn auroc(&self) -> f64 {
        mean(&self.positive)
    }

    /// The standard error of [`Placements::auroc`].
    pub fn standard_error(&self) -> f64 {
        let share = |v: &[f64]| variance(v) / v.len() as f64;
        (share(&self.positive) + share(&self.negative)).sqrt()
    }

    /// By how much the AUROC is above that of `other`, which is of the same images, and the standard error of that.
    pub fn gain_over(&self, other: &Placements) -> (f64, f64) {
        let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
        let difference = Placements {
            positive: minus(&self.positive, &other.positive),
            negative: minus(&self.negative, &other.negative),
        };
        (difference.auroc(), difference.standard_error())
    }
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

fn sorted(values: &[f32]) -> Vec<f32> {
    let mut values = values.to_vec();
    values.sort_by(f32::total_cmp);
    values
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Of the population that the values are drawn from.
fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len().max(2) - 1) as f64
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
        assert_eq!(auroc_standard_error(0.9, 0, 5), None);
    }

    #[test]
    fn placements_by_hand() {
        let positive = [true, true, false, false, false];
        let one = Placements::of(&[0.9, 0.4, 0.1, 0.4, 0.5], &positive).unwrap();
        assert_eq!(one.positive, [1.0, 0.5]);
        assert_eq!(one.negative, [1.0, 0.75, 0.5]);
        assert_eq!(one.auroc(), 0.75);
        // Variances 0.125 of two and 0.0625 of three.
        assert!((one.standard_error() - (0.125 / 2.0 + 0.0625 / 3.0f64).sqrt()).abs() < 1e-12);
        let best = Placements::of(&[0.9, 0.8, 0.1, 0.4, 0.5], &positive).unwrap();
        assert_eq!(best.gain_over(&one).0, 0.25);
        assert_eq!(one.gain_over(&one), (0.0, 0.0));
        assert_eq!(one.mean_with(&best).auroc(), 0.875);
        assert_eq!(Placements::of(&[0.1, 0.2], &[false, false]), None);
    }

    /// The published example of a standard error: Hanley and McNeil's formula agrees within a tenth for a binormal pair.
    #[test]
    fn the_standard_error_is_about_hanley_and_mcneils() {
        // Normal scores by the inverse of a logistic curve, two classes 1.5 apart, 40 and 60 images.
        let spread = |n: usize, shift: f32| {
            (0..n)
                .map(move |i| ((i as f32 + 0.5) / n as f32).recip().max(1.0 + 1e-6))
                .map(move |o| shift - (o - 1.0).ln())
        };
        let scores: Vec<f32> = spread(40, 2.5).chain(spread(60, 0.0)).collect();
        let positive: Vec<bool> = (0..100).map(|i| i < 40).collect();
        let placements = Placements::of(&scores, &positive).unwrap();
        let a = placements.auroc();
        let expected = auroc_standard_error(a, 40, 60).unwrap();
        let found = placements.standard_error();
        assert!((found / expected - 1.0).abs() < 0.1, "{found} against {expected} at {a}");
    }
}
