//! How an image looks as a whole, by which a changed lamp or lens can be told.

/// Weights of red, green and blue in the luma (Rec. 601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// Brightness and sharpness of an image `[H,W,3]`, RGB: the mean of its luma, 0 to 255, and the variance of the luma's
/// 3x3 Laplacian (four neighbours less four times the middle) over all pixels that have four neighbours. An image that
/// has no such pixel has a sharpness of 0, one without pixels a brightness of 0.
pub fn appearance(pixels: &[u8], width: usize) -> (f32, f32) {
    let luma: Vec<f32> =
        pixels.chunks_exact(3).map(|p| p.iter().zip(LUMA).map(|(&v, w)| f32::from(v) * w).sum()).collect();
    let brightness = mean(&luma);
    if width < 3 || luma.len() < 3 * width {
        return (brightness as f32, 0.0);
    }
    let mut edges = Vec::with_capacity(luma.len());
    let rows: Vec<&[f32]> = luma.chunks_exact(width).collect();
    for rows in rows.windows(3) {
        for x in 1..width - 1 {
            edges.push(rows[0][x] + rows[2][x] + rows[1][x - 1] + rows[1][x + 1] - 4.0 * rows[1][x]);
        }
    }
    let middle = mean(&edges);
    let squares = edges.iter().map(|&v| (f64::from(v) - middle).powi(2)).sum::<f64>();
    (brightness as f32, (squares / edges.len() as f64) as f32)
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize, at: impl Fn(usize, usize) -> u8) -> Vec<u8> {
        (0..width * height).flat_map(|i| [at(i % width, i / width); 3]).collect()
    }

    #[test]
    fn brightness_is_the_mean_luma_and_a_flat_image_has_no_sharpness() {
        let (brightness, sharpness) = appearance(&grey(5, 4, |_, _| 100), 5);
        assert!((brightness - 100.0).abs() < 1e-3 && sharpness < 1e-6, "{brightness} {sharpness}");
        let (green, _) = appearance(&[0, 200, 0, 0, 200, 0], 2);
        assert!((green - 200.0 * 0.587).abs() < 1e-3, "{green}");
    }

    #[test]
    fn sharpness_is_the_variance_of_the_laplacian() {
        // A ramp has none; a single bright pixel has -4 and four times 1 of it.
        let (_, ramp) = appearance(&grey(9, 7, |x, y| (10 * x + 5 * y) as u8), 9);
        assert!(ramp < 1e-6, "{ramp}");
        let (_, peak) = appearance(&grey(7, 7, |x, y| if (x, y) == (3, 3) { 10 } else { 0 }), 7);
        assert!((peak - (1600.0 + 4.0 * 100.0) / 25.0).abs() < 1e-3, "{peak}");
        // Softer, less sharp.
        let edge = |soft: usize| appearance(&grey(12, 6, |x, _| ((x * 255 / soft).min(255)) as u8), 12).1;
        assert!(edge(1) > 2.0 * edge(4), "{} {}", edge(1), edge(4));
    }

    #[test]
    fn what_is_too_small_is_defined_too() {
        assert_eq!(appearance(&[], 0), (0.0, 0.0));
        assert_eq!(appearance(&[], 5), (0.0, 0.0));
        assert_eq!(appearance(&grey(2, 9, |_, y| y as u8), 2).1, 0.0);
        assert_eq!(appearance(&grey(9, 2, |x, _| x as u8), 9).1, 0.0);
    }
}
