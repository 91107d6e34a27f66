//! Histogram → the range that an int8 tensor should cover.
//!
//! A step of a range is its width / 255. Narrower ranges round less and cut off more; the two rules here weigh one
//! against the other differently.

use super::histogram::{BINS, Histogram};

/// Steps of a range.
const STEPS: f64 = 255.0;
/// Candidates a side for the end of the range, evenly between zero and the extreme.
const CANDIDATES: usize = 128;

/// The range with the smallest expected squared error: `step² / 12` for a value inside (rounding errors spread evenly
/// over a step), the squared distance to the range for one outside, nothing for zero. Both ends are searched together.
pub fn mse(histogram: &Histogram) -> (f32, f32) {
    let width = f64::from(histogram.width());
    let (below, above) = (Tail::of(&histogram.negative, width), Tail::of(&histogram.positive, width));
    let mut best = (f64::INFINITY, 0, 0);
    for (low, low_clipped, low_error) in below.candidates() {
        for (high, high_clipped, high_error) in above.candidates() {
            let step = (low + high) as f64 * width / STEPS;
            let inside = below.count() + above.count() - low_clipped - high_clipped;
            let error = inside * step * step / 12.0 + low_error + high_error;
            // Of equals the widest: nothing is gained by cutting off.
            if error <= best.0 {
                best = (error, low, high);
            }
        }
    }
    (-histogram.end(true, best.1), histogram.end(false, best.2))
}

/// One side of a histogram: sums over the bins from each one outwards.
struct Tail {
    width: f64,
    /// Bins in use.
    bins: usize,
    /// Count, sum and sum of squares of the magnitudes (bin centres) in bin `i` and beyond.
    beyond: Vec<[f64; 3]>,
}

impl Tail {
    fn of(bins: &[u64], width: f64) -> Tail {
        let used = used(bins);
        let mut beyond = vec![[0.0; 3]; used + 1];
        for i in (0..used).rev() {
            let (count, magnitude) = (bins[i] as f64, (i as f64 + 0.5) * width);
            let [n, sum, squares] = beyond[i + 1];
            beyond[i] = [n + count, sum + count * magnitude, squares + count * magnitude * magnitude];
        }
        Tail { width, bins: used, beyond }
    }

    fn count(&self) -> f64 {
        self.beyond[0][0]
    }

    /// Ends of the range on this side in bins, with the number of values beyond and the sum of their squared distances
    /// to the end.
    fn candidates(&self) -> Vec<(usize, f64, f64)> {
        let at = |bin: usize| {
            let end = bin as f64 * self.width;
            let [count, sum, squares] = self.beyond[bin];
            (bin, count, (squares - 2.0 * end * sum + end * end * count).max(0.0))
        };
        if self.bins == 0 {
            return vec![at(0)];
        }
        let mut ends: Vec<usize> = (1..=CANDIDATES).map(|i| (self.bins * i).div_ceil(CANDIDATES)).collect();
        ends.dedup();
        ends.into_iter().map(at).collect()
    }
}

/// Candidate thresholds of [`entropy`] lie so many bins apart.
const STRIDE: usize = 16;

/// The threshold on the magnitude for which what int8 makes of the values' distribution diverges least from it
/// (Kullback and Leibler; the rule that TensorRT's entropy calibrator made known). The distribution up to the
/// threshold, with everything beyond added to its last bin, is compared with itself at int8's resolution: 255 levels
/// where all values have one sign, else 128 for each sign, since the two share the range.
pub fn entropy(histogram: &Histogram) -> (f32, f32) {
    let (below, above) = (used(&histogram.negative), used(&histogram.positive));
    let levels = if below == 0 || above == 0 { 255 } else { 128 };
    let magnitudes: Vec<u64> = histogram.negative.iter().zip(&histogram.positive).map(|(a, b)| a + b).collect();
    let top = below.max(above);
    let mut best = (f64::INFINITY, top);
    let mut bins = top;
    // From the widest on; a narrower threshold must be better, not as good.
    while bins > levels {
        let divergence = divergence(&magnitudes[..top], bins, levels);
        if divergence < best.0 {
            best = (divergence, bins);
        }
        bins = bins.saturating_sub(STRIDE);
    }
    (-histogram.end(true, below.min(best.1)), histogram.end(false, above.min(best.1)))
}

/// `Σ p ln(p / q)` over the first `bins` of `counts`: p has the rest of the counts in its last bin; q is the first
/// `bins` in `levels` groups, each of which spreads its counts evenly over those of its bins that hold any. Infinite
/// where q is zero and p is not.
fn divergence(counts: &[u64], bins: usize, levels: usize) -> f64 {
    let beyond: u64 = counts[bins..].iter().sum();
    let (kept, total): (u64, u64) = (counts[..bins].iter().sum(), counts.iter().sum());
    if kept == 0 || (beyond > 0 && counts[bins - 1] == 0) {
        return f64::INFINITY;
    }
    let mut sum = 0.0;
    for level in 0..levels {
        let (from, to) = (level * bins / levels, (level + 1) * bins / levels);
        let group = &counts[from..to];
        let held = group.iter().filter(|&&c| c > 0).count();
        if held == 0 {
            continue;
        }
        let q = group.iter().sum::<u64>() as f64 / held as f64 / kept as f64;
        for (i, &count) in group.iter().enumerate().filter(|(_, c)| **c > 0) {
            let last = if from + i == bins - 1 { beyond } else { 0 };
            let p = (count + last) as f64 / total as f64;
            sum += p * (p / q).ln();
        }
    }
    sum
}

/// Number of bins up to the last that holds something.
fn used(bins: &[u64]) -> usize {
    bins.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1).min(BINS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[(f32, usize)]) -> Histogram {
        let mut histogram = Histogram::default();
        for &(value, count) in values {
            histogram.add(&vec![value; count]);
        }
        histogram
    }

    #[test]
    fn one_far_value_among_many_is_cut_off_by_mse_as_far_as_it_pays() {
        // n values near 0 and one at 100: the end T minimises n (T/255)²/12 + (100 - T)², which is at T = 100 / (1 + n
        // / 780300).
        for (n, end) in [(1_000, 99.9), (780_300, 50.0), (3 * 780_300, 25.0)] {
            let (low, high) = mse(&of(&[(0.5, n), (100.0, 1)]));
            // A candidate lies every 100/128.
            assert!(low == 0.0 && (high - end).abs() < 1.0, "{n}: {low} to {high}, expected {end}");
        }
    }

    #[test]
    fn mse_finds_both_ends_on_their_own() {
        let (low, high) = mse(&of(&[(-1.0, 10_000), (0.5, 10_000_000), (100.0, 1)]));
        assert!((-1.01..=-0.9).contains(&low) && high < 20.0, "{low} to {high}");
        assert_eq!(mse(&of(&[(0.0, 5)])), (0.0, 0.0));
        let (low, high) = mse(&of(&[(-2.0, 5)]));
        assert!((-2.001..=-1.99).contains(&low) && high == 0.0, "{low} to {high}");
    }

    #[test]
    fn zeros_do_not_pay_for_resolution() {
        // Rectified tensors are mostly zero; however many, they change nothing.
        assert_eq!(mse(&of(&[(0.0, 1 << 20), (0.5, 1000), (100.0, 1)])), mse(&of(&[(0.5, 1000), (100.0, 1)])));
    }

    #[test]
    fn divergence_is_what_pencil_and_paper_give() {
        // 4 bins in 2 levels: p = (1, 3, 4, 0)/8, q = (2, 2, 4, 0)/8.
        let expected = 1.0 / 8.0 * (0.5f64).ln() + 3.0 / 8.0 * (1.5f64).ln();
        assert!((divergence(&[1, 3, 4, 0], 4, 2) - expected).abs() < 1e-12);
        // The first 2 of 3 bins in 2 levels: p = (1, 1+2)/4, q = (1, 1)/2.
        let expected = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        assert!((divergence(&[1, 1, 2], 2, 2) - expected).abs() < 1e-12);
        // Nothing is lost: no divergence. And what was cut off has no bin to stand for it.
        assert_eq!(divergence(&[5, 5, 5], 3, 3), 0.0);
        assert_eq!(divergence(&[1, 0, 2], 2, 2), f64::INFINITY);
    }

    #[test]
    fn entropy_keeps_an_even_distribution_and_cuts_a_thin_tail() {
        let even: Vec<(f32, usize)> = (0..4000).map(|i| (i as f32 + 0.5, 10)).collect();
        let (low, high) = entropy(&of(&even));
        assert!(low == 0.0 && high >= 3900.0, "{low} to {high}");
        // A ragged mass below 500 and one value for every tenth bin up to 4000.
        let ragged: Vec<(f32, usize)> = (0..500)
            .map(|i| (i as f32 + 0.5, 100 + (i * 7919) % 1000))
            .chain((50..400).map(|i| (i as f32 * 10.0 + 0.5, 1)))
            .collect();
        let (_, high) = entropy(&of(&ragged));
        assert!((255.0..2000.0).contains(&high), "{high}");
        // Few distinct values are kept as they are.
        let (low, high) = entropy(&of(&[(0.0, 9), (-1.0, 3), (1.0, 4)]));
        assert!(low <= -1.0 && high >= 1.0, "{low} to {high}");
    }
}
