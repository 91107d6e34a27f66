//! Anomalies made of normal images, for sets that have none labelled.

use super::AnomalySource;
use super::noise::Noise;
use image::{Luma, Rgb, RgbImage};
use imageproc::definitions::Image;
use imageproc::filter::gaussian_blur_f32;
use imageproc::geometric_transformations::{Border, Interpolation, warp_with};
use rand::{Rng, rngs::StdRng};

/// `image` with a defect of `kind`, the same for the same state of `rng`.
pub fn make(kind: AnomalySource, image: &RgbImage, alpha: f32, rng: &mut StdRng) -> RgbImage {
    match kind {
        AnomalySource::Elastic | AnomalySource::Auto => elastic(image, alpha, rng),
        AnomalySource::CutPaste => cut_paste(image, rng),
        AnomalySource::Perlin => perlin(image, rng),
        AnomalySource::None | AnomalySource::Labelled => image.clone(),
    }
}

/// Each pixel is fetched from beside its place: a random field, smoothed with a Gaussian of 4 % of the longer side and
/// scaled by `alpha` (which is meant for 256 pixels).
fn elastic(image: &RgbImage, alpha: f32, rng: &mut StdRng) -> RgbImage {
    let (width, height) = image.dimensions();
    let side = width.max(height) as f32;
    // A field of a quarter of the size is as smooth, and 16 times as cheap.
    let (w, h) = (width.div_ceil(4).max(2), height.div_ceil(4).max(2));
    let mut field = || {
        let noise: Image<Luma<f32>> = Image::from_fn(w, h, |_, _| Luma([rng.random_range(-1.0..=1.0)]));
        blur(&noise, side * 0.04 / 4.0)
    };
    let (across, down) = (field(), field());
    // The Gaussian averages over 16 times fewer values than at full size, which leaves the field 4 times as strong.
    let scale = alpha * side / 256.0 / 4.0;
    let at = |field: &Image<Luma<f32>>, x: f32, y: f32| {
        let (x, y) = ((x / 4.0) as u32, (y / 4.0) as u32);
        field.get_pixel(x.min(w - 1), y.min(h - 1)).0[0] * scale
    };
    warp_with(
        image,
        |x, y| {
            let clamp = |v: f32, length: u32| v.clamp(0.0, length as f32 - 1.0);
            (clamp(x + at(&across, x, y), width), clamp(y + at(&down, x, y), height))
        },
        Interpolation::Bilinear,
        Border::Replicate,
    )
}

fn blur(noise: &Image<Luma<f32>>, sigma: f32) -> Image<Luma<f32>> {
    gaussian_blur_f32(noise, sigma.max(0.5))
}

/// A rectangle of 2 to 15 % of the area, sides up to 1:3.3, its light changed a little, pasted elsewhere.
fn cut_paste(image: &RgbImage, rng: &mut StdRng) -> RgbImage {
    let (width, height) = image.dimensions();
    let area = width as f32 * height as f32 * rng.random_range(0.02..0.15);
    let aspect = if rng.random() { rng.random_range(0.3..1.0) } else { rng.random_range(1.0..3.3) };
    let w = ((area * aspect).sqrt() as u32).clamp(1, width);
    let h = ((area / aspect).sqrt() as u32).clamp(1, height);
    let mut place = || (rng.random_range(0..=width - w), rng.random_range(0..=height - h));
    let ((from_x, from_y), (to_x, to_y)) = (place(), place());
    let gain = rng.random_range(0.8..1.2);
    let mut out = image.clone();
    for (x, y) in (0..h).flat_map(|y| (0..w).map(move |x| (x, y))) {
        let pixel = image.get_pixel(from_x + x, from_y + y).0;
        out.put_pixel(to_x + x, to_y + y, Rgb(pixel.map(|v| (f32::from(v) * gain).min(255.0) as u8)));
    }
    out
}

/// Where gradient noise is above a half, the image's own texture, turned and moved and with its light changed, is
/// blended in.
fn perlin(image: &RgbImage, rng: &mut StdRng) -> RgbImage {
    let (width, height) = image.dimensions();
    let cells = 1u32 << rng.random_range(1..=4);
    let noise = Noise::new((cells, cells), rng);
    let (shift_x, shift_y) = (rng.random_range(0..width), rng.random_range(0..height));
    let opacity = rng.random_range(0.3..1.0f32);
    let light = rng.random_range(-80.0..80.0f32);
    let values: Vec<f32> = (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .map(|(x, y)| noise.at(x as f32 / width as f32, y as f32 / height as f32))
        .collect();
    // The highest 2 to 15 % of the noise, so that every image gets a defect of a plausible size.
    let mut sorted = values.clone();
    sorted.sort_by(f32::total_cmp);
    let limit = sorted[(sorted.len() as f32 * rng.random_range(0.85..0.98)) as usize];
    let mut out = image.clone();
    for (pixel, ((x, y, _), value)) in out.pixels_mut().zip(image.enumerate_pixels().zip(&values)) {
        if *value >= limit {
            let other = image.get_pixel((y + shift_x) % width, (x + shift_y) % height).0;
            pixel.0 = [0, 1, 2].map(|c| {
                let foreign = (f32::from(other[c]) + light).clamp(0.0, 255.0);
                (f32::from(pixel.0[c]) * (1.0 - opacity) + foreign * opacity) as u8
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn normal() -> RgbImage {
        RgbImage::from_fn(96, 64, |x, y| Rgb([(x * 2) as u8, (y * 3) as u8, ((x / 8 + y / 8) % 2 * 90) as u8]))
    }

    #[test]
    fn every_kind_changes_the_image_and_the_same_seed_changes_it_the_same_way() {
        for kind in [AnomalySource::Elastic, AnomalySource::CutPaste, AnomalySource::Perlin] {
            let make = |seed| make(kind, &normal(), 200.0, &mut StdRng::seed_from_u64(seed));
            assert_eq!(make(1), make(1), "{kind:?}");
            assert_ne!(make(1), make(2), "{kind:?}");
            let changed = make(3).pixels().zip(normal().pixels()).filter(|(a, b)| a != b).count();
            assert!(changed > 50, "{kind:?} changed {changed} pixels");
        }
    }

    #[test]
    fn a_pasted_patch_leaves_most_of_the_part_as_it_was() {
        for seed in 0..20 {
            let made = make(AnomalySource::CutPaste, &normal(), 0.0, &mut StdRng::seed_from_u64(seed));
            let changed = made.pixels().zip(normal().pixels()).filter(|(a, b)| a != b).count();
            assert!(changed <= 96 * 64 * 16 / 100, "seed {seed}: {changed}");
        }
    }

    #[test]
    fn no_image_is_too_small() {
        for kind in [AnomalySource::Elastic, AnomalySource::CutPaste, AnomalySource::Perlin] {
            make(kind, &RgbImage::new(1, 1), 200.0, &mut StdRng::seed_from_u64(1));
        }
    }
}
