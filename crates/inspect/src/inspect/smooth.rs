//! From the network's map to the smoothed map.

use ndarray::{Array2, ArrayView2};

/// Brings the map to `[height,width]` (bilinear, half-pixel) and smooths it with a Gaussian of `sigma` pixels, cut off
/// at four sigma, the border repeated. Sums run in a fixed order without fused operations, so that every CPU gives the
/// same bits.
///
/// Both are linear along each axis, so each axis takes them in one: a position of the result is a weighted sum of the
/// few positions of the small map that its Gaussian reaches.
pub fn smooth(map: ArrayView2<f32>, (height, width): (usize, usize), sigma: f32) -> Array2<f32> {
    let kernel = gaussian(sigma);
    let (rows, columns) = (reach(map.nrows(), height, &kernel), reach(map.ncols(), width, &kernel));
    // Rows as slices are a quarter faster than rows as views.
    let small = map.as_standard_layout();
    let small = small.as_slice().expect("it is in standard layout");
    let mut wide = vec![0f32; map.nrows() * width];
    for (source, target) in small.chunks_exact(map.ncols()).zip(wide.chunks_exact_mut(width)) {
        for (value, from) in target.iter_mut().zip(&columns) {
            *value = from.weights.iter().zip(&source[from.first..]).map(|(w, s)| w * s).sum();
        }
    }
    let mut out = vec![0f32; height * width];
    for (target, from) in out.chunks_exact_mut(width).zip(&rows) {
        for (weight, source) in from.weights.iter().zip(wide[from.first * width..].chunks_exact(width)) {
            add_scaled(target, source, *weight);
        }
    }
    Array2::from_shape_vec((height, width), out).expect("height times width values")
}

/// What a position of the result is made of along one axis.
struct Reach {
    /// First position of the small map, and the weight of that and each following one.
    first: usize,
    weights: Vec<f32>,
}

/// Enlarging from `from` to `to` positions, then smoothing with `kernel`, for each position of the result.
fn reach(from: usize, to: usize, kernel: &[f32]) -> Vec<Reach> {
    let (taps, radius) = (taps(from, to), kernel.len() / 2);
    let at = |i: usize| -> Reach {
        let reached = |tap: usize| taps[(i + tap).saturating_sub(radius).min(to - 1)];
        let (first, last) = (reached(0).0, reached(kernel.len() - 1).1);
        let mut weights = vec![0f32; last - first + 1];
        for (tap, weight) in kernel.iter().enumerate() {
            let (x0, x1, share) = reached(tap);
            weights[x0 - first] += weight * (1.0 - share);
            weights[x1 - first] += weight * share;
        }
        Reach { first, weights }
    };
    (0..to).map(at).collect()
}

fn add_scaled(target: &mut [f32], source: &[f32], weight: f32) {
    for (t, s) in target.iter_mut().zip(source) {
        *t += s * weight;
    }
}

/// Weights of a Gaussian from -4 to 4 sigma; of none where sigma is 0.
fn gaussian(sigma: f32) -> Vec<f32> {
    if sigma <= 0.0 {
        return vec![1.0];
    }
    let radius = (4.0 * sigma).ceil() as i32;
    let weight = |x: i32| (-0.5 * (f64::from(x) / f64::from(sigma)).powi(2)).exp();
    let sum: f64 = (-radius..=radius).map(weight).sum();
    (-radius..=radius).map(|x| (weight(x) / sum) as f32).collect()
}

/// For each target position the two source positions and the weight of the second.
fn taps(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    (0..to)
        .map(|i| {
            let x = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
            let x0 = x as usize;
            (x0, (x0 + 1).min(from - 1), x - x0 as f32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_map_stays_constant() {
        let map = Array2::from_elem((2, 3), 0.5);
        let out = smooth(map.view(), (16, 24), 4.0);
        assert_eq!(out.dim(), (16, 24));
        assert!(out.iter().all(|v| (v - 0.5).abs() < 1e-6));
    }

    #[test]
    fn smoothing_spreads_a_peak_as_the_gaussian_does() {
        let mut map = Array2::zeros((41, 41));
        map[[20, 20]] = 1.0;
        let out = smooth(map.view(), (41, 41), 2.0);
        let peak = 1.0 / (2.0 * std::f32::consts::PI * 4.0);
        assert!((out[[20, 20]] - peak).abs() < 1e-3, "{}", out[[20, 20]]);
        assert!((out[[20, 24]] / out[[20, 20]] - (-2.0f32).exp()).abs() < 1e-3);
    }

    #[test]
    fn a_small_map_smooths_as_if_it_had_been_enlarged_first() {
        let map = Array2::from_shape_fn((5, 7), |(y, x)| (((7 * y + x) * 37) % 11) as f32);
        let large = smooth(map.view(), (40, 56), 0.0);
        let (at_once, after) = (smooth(map.view(), (40, 56), 4.0), smooth(large.view(), (40, 56), 4.0));
        assert!(at_once.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
