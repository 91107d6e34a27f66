//! A histogram whose memory does not depend on the number or the size of the values, filled in one pass.
//!
//! The width of a bin is a power of two and doubles when a larger value comes: neighbours are added up. What comes out
//! is the histogram that a second pass with the final width would give, whatever the order of the values, so images can
//! be measured in parallel and once.

/// Bins a sign: at least 2048 of them are in use on the longer side, some eight for each step of an int8 range.
pub const BINS: usize = 4096;
const LOG_BINS: i32 = BINS.ilog2() as i32;

/// Counts of finite values; zero is kept apart, since every quantisation holds it exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    pub zeros: u64,
    /// Bin `i` counts the values whose magnitude is in `i * width .. (i + 1) * width`.
    pub positive: Vec<u64>,
    pub negative: Vec<u64>,
    /// The largest magnitude in each bin, of both signs.
    largest: [Vec<f32>; 2],
    /// The width is 2 to this; `None` before the first value that is not zero.
    exponent: Option<i32>,
}

impl Default for Histogram {
    fn default() -> Self {
        let largest = [vec![0.0; BINS], vec![0.0; BINS]];
        Histogram { zeros: 0, positive: vec![0; BINS], negative: vec![0; BINS], largest, exponent: None }
    }
}

impl Histogram {
    /// Width of a bin.
    pub fn width(&self) -> f32 {
        self.exponent.map_or(1.0, power)
    }

    /// Where a range that keeps the first `bins` of a sign ends: at the largest value in the last of them, else at its
    /// border.
    ///
    /// Borders are powers of two times small integers, and so would be the ratios of scales: sums of bytes would often
    /// fall exactly between two bytes, where every engine rounds as its last bit falls.
    pub fn end(&self, negative: bool, bins: usize) -> f32 {
        let seen = bins.checked_sub(1).map_or(0.0, |last| self.largest[usize::from(negative)][last]);
        if seen > 0.0 { seen } else { bins as f32 * self.width() }
    }

    pub fn add(&mut self, values: &[f32]) {
        let largest = values.iter().copied().filter(|v| v.is_finite()).fold(0f32, |m, v| m.max(v.abs()));
        if largest > 0.0 {
            self.widen(exponent_for(largest));
        }
        let per_width = 1.0 / self.width();
        for &value in values.iter().filter(|v| v.is_finite()) {
            if value == 0.0 {
                self.zeros += 1;
                continue;
            }
            let bin = ((value.abs() * per_width) as usize).min(BINS - 1);
            *if value > 0.0 { &mut self.positive[bin] } else { &mut self.negative[bin] } += 1;
            let largest = &mut self.largest[usize::from(value < 0.0)][bin];
            *largest = largest.max(value.abs());
        }
    }

    /// Makes the bins at least 2 to `exponent` wide.
    fn widen(&mut self, exponent: i32) {
        let Some(old) = self.exponent else {
            self.exponent = Some(exponent);
            return;
        };
        if exponent <= old {
            return;
        }
        let factor = 1usize << (exponent - old).min(LOG_BINS);
        for bins in [&mut self.positive, &mut self.negative] {
            let sums: Vec<u64> = bins.chunks(factor).map(|chunk| chunk.iter().sum()).collect();
            bins.fill(0);
            bins[..sums.len()].copy_from_slice(&sums);
        }
        for bins in &mut self.largest {
            let maxima: Vec<f32> = bins.chunks(factor).map(|c| c.iter().copied().fold(0.0, f32::max)).collect();
            bins.fill(0.0);
            bins[..maxima.len()].copy_from_slice(&maxima);
        }
        self.exponent = Some(exponent);
    }
}

/// The smallest width whose [`BINS`] bins hold `magnitude`.
fn exponent_for(magnitude: f32) -> i32 {
    let floor_log2 = (magnitude.to_bits() >> 23) as i32 - 127;
    (floor_log2 + 1 - LOG_BINS).max(-120)
}

fn power(exponent: i32) -> f32 {
    (exponent as f32).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_land_in_their_bins_and_zero_apart() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0, -0.0, 1.0, 3.5, -2.0, f32::NAN, f32::INFINITY]);
        // 3.5 < 4 = 4096 bins of 2^-10.
        assert_eq!((histogram.width(), histogram.zeros), (1.0 / 1024.0, 2));
        let places = |bins: &[u64]| -> Vec<usize> { (0..BINS).filter(|&i| bins[i] == 1).collect() };
        assert_eq!((places(&histogram.positive), places(&histogram.negative)), (vec![1024, 3584], vec![2048]));
        // Ends at what was seen, or at a border.
        histogram.add(&[3.5004]);
        assert_eq!(
            (histogram.end(false, 3585), histogram.end(false, 2048), histogram.end(true, 0)),
            (3.5004, 2.0, 0.0)
        );
    }

    #[test]
    fn the_order_of_the_values_does_not_matter() {
        let values: Vec<f32> = (0..2000).map(|i| ((i * 7919) % 2000) as f32 * 0.37 - 300.0).collect();
        let filled = |chunk: usize, reversed: bool| {
            let mut histogram = Histogram::default();
            let mut chunks: Vec<&[f32]> = values.chunks(chunk).collect();
            if reversed {
                chunks.reverse();
            }
            chunks.iter().for_each(|c| histogram.add(c));
            histogram
        };
        let mut small_first = Histogram::default();
        let mut sorted = values.clone();
        sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        sorted.iter().for_each(|&v| small_first.add(&[v]));
        assert_eq!(filled(2000, false), filled(7, true));
        assert_eq!(filled(2000, false), small_first);
    }
}
