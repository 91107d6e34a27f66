use crate::bundle::{ScoreRule, ScoreTerm};
use crate::engine::AnomalyMap;

/// Brings the map to `width` x `height` (bilinear, half-pixel) and smooths it with a Gaussian of `sigma` pixels, cut off at
/// four sigma, the border repeated. Sums run in a fixed order without fused operations, so that every CPU gives the same bits.
pub fn smooth(map: &AnomalyMap, width: usize, height: usize, sigma: f32) -> Vec<f32> {
    let upsampled = upsample(map, width, height);
    if sigma <= 0.0 {
        return upsampled;
    }
    let kernel = gaussian(sigma);
    let radius = kernel.len() / 2;
    let mut rows = vec![0f32; width * height];
    let mut padded = vec![0f32; width + 2 * radius];
    for (source, target) in upsampled.chunks_exact(width).zip(rows.chunks_exact_mut(width)) {
        padded[..radius].fill(source[0]);
        padded[radius..radius + width].copy_from_slice(source);
        padded[radius + width..].fill(source[width - 1]);
        for (tap, weight) in kernel.iter().enumerate() {
            add_scaled(target, &padded[tap..tap + width], *weight);
        }
    }
    let mut out = vec![0f32; width * height];
    for (y, target) in out.chunks_exact_mut(width).enumerate() {
        for (tap, weight) in kernel.iter().enumerate() {
            let row = (y + tap).saturating_sub(radius).min(height - 1);
            add_scaled(target, &rows[row * width..(row + 1) * width], *weight);
        }
    }
    out
}

/// The image score of a smoothed map under `rule`.
pub fn image_score(values: &[f32], rule: &ScoreRule) -> f32 {
    if rule.terms.is_empty() {
        return top_k_mean(values, rule.top_k as usize);
    }
    let term = |t: &ScoreTerm| f64::from(t.weight) * f64::from(top_k_mean(values, t.top_k as usize));
    rule.terms.iter().map(term).sum::<f64>() as f32
}

/// Mean of the `k` largest values; all of them when there are fewer.
pub fn top_k_mean(values: &[f32], k: usize) -> f32 {
    let mut values = values.to_vec();
    let k = k.clamp(1, values.len());
    if k < values.len() {
        values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        values.truncate(k);
    }
    (values.iter().map(|&v| f64::from(v)).sum::<f64>() / k as f64) as f32
}

fn add_scaled(target: &mut [f32], source: &[f32], weight: f32) {
    for (t, s) in target.iter_mut().zip(source) {
        *t += s * weight;
    }
}

fn gaussian(sigma: f32) -> Vec<f32> {
    let radius = (4.0 * sigma).ceil() as i32;
    let weight = |x: i32| (-0.5 * (f64::from(x) / f64::from(sigma)).powi(2)).exp();
    let sum: f64 = (-radius..=radius).map(weight).sum();
    (-radius..=radius).map(|x| (weight(x) / sum) as f32).collect()
}

fn upsample(map: &AnomalyMap, width: usize, height: usize) -> Vec<f32> {
    let columns = taps(map.width, width);
    let mut out = Vec::with_capacity(width * height);
    for (y0, y1, fy) in taps(map.height, height) {
        let (upper, lower) = (&map.values[y0 * map.width..], &map.values[y1 * map.width..]);
        out.extend(columns.iter().map(|&(x0, x1, fx)| {
            let a = upper[x0] * (1.0 - fx) + upper[x1] * fx;
            let b = lower[x0] * (1.0 - fx) + lower[x1] * fx;
            a * (1.0 - fy) + b * fy
        }));
    }
    out
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
        let map = AnomalyMap { width: 3, height: 2, values: vec![0.5; 6] };
        assert!(smooth(&map, 24, 16, 4.0).iter().all(|v| (v - 0.5).abs() < 1e-6));
    }

    #[test]
    fn smoothing_spreads_a_peak_as_the_gaussian_does() {
        let mut values = vec![0.0; 41 * 41];
        values[20 * 41 + 20] = 1.0;
        let out = smooth(&AnomalyMap { width: 41, height: 41, values }, 41, 41, 2.0);
        let peak = 1.0 / (2.0 * std::f32::consts::PI * 4.0);
        assert!((out[20 * 41 + 20] - peak).abs() < 1e-3, "{}", out[20 * 41 + 20]);
        assert!((out[20 * 41 + 24] / out[20 * 41 + 20] - (-2.0f32).exp()).abs() < 1e-3);
    }

    #[test]
    fn a_combined_score_is_the_weighted_sum_of_its_terms() {
        let terms = vec![ScoreTerm { top_k: 1, weight: 2.0 }, ScoreTerm { top_k: 5, weight: -1.0 }];
        let rule = ScoreRule { sigma_px: 0.0, top_k: 1, terms };
        assert_eq!(image_score(&[1.0, 5.0, 3.0, 4.0, 2.0], &rule), 2.0 * 5.0 - 3.0);
    }

    #[test]
    fn top_k_is_the_mean_of_the_largest() {
        let values = [1.0, 5.0, 3.0, 4.0, 2.0];
        assert_eq!(top_k_mean(&values, 1), 5.0);
        assert_eq!(top_k_mean(&values, 2), 4.5);
        assert_eq!(top_k_mean(&values, 99), 3.0);
    }
}
