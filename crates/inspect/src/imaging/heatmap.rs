//! Maps as colours.

use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};
use ndarray::ArrayView2;

/// The Turbo colour map (Mikhailov, Google AI blog 2019) by its published polynomial: 0 is dark blue, 1 dark red.
pub fn turbo(value: f32) -> [u8; 3] {
    let x = value.clamp(0.0, 1.0);
    let powers = [1.0, x, x * x, x.powi(3), x.powi(4), x.powi(5)];
    let channel = |c: [f32; 6]| {
        let v: f32 = c.iter().zip(powers).map(|(c, p)| c * p).sum();
        (v.clamp(0.0, 1.0) * 255.0).round() as u8
    };
    [
        channel([0.13572138, 4.6153926, -42.660324, 132.13108, -152.94239, 59.28638]),
        channel([0.09140261, 2.1941884, 4.8429666, -14.185033, 4.2772986, 2.829566]),
        channel([0.1066733, 12.641946, -60.582048, 110.36276, -89.90311, 27.34825]),
    ]
}

/// Lays `map` (`[h,w]`, stretched over the picture, bilinear) over `image`. `low` and `high` are the map's values
/// that become transparent and fully red: below `low` the picture shows as it is.
pub fn overlay(image: &RgbImage, map: ArrayView2<f32>, low: f32, high: f32) -> RgbImage {
    let (map_height, map_width) = map.dim();
    let (w, h) = image.dimensions();
    let span = (high - low).max(f32::EPSILON);
    RgbImage::from_fn(w, h, |x, y| {
        let value = bilinear(
            map,
            (x as f32 + 0.5) * map_width as f32 / w as f32 - 0.5,
            (y as f32 + 0.5) * map_height as f32 / h as f32 - 0.5,
        );
        let t = ((value - low) / span).clamp(0.0, 1.0);
        let alpha = 0.65 * t.sqrt();
        let colour = turbo(0.25 + 0.75 * t);
        let pixel = image.get_pixel(x, y).0;
        Rgb(std::array::from_fn(|c| (f32::from(pixel[c]) * (1.0 - alpha) + f32::from(colour[c]) * alpha).round() as u8))
    })
}

/// Reads `map` at a fractional position, the border repeated.
fn bilinear(map: ArrayView2<f32>, x: f32, y: f32) -> f32 {
    let (height, width) = map.dim();
    let x = x.clamp(0.0, (width - 1) as f32);
    let y = y.clamp(0.0, (height - 1) as f32);
    let (x0, y0) = (x as usize, y as usize);
    let (x1, y1) = ((x0 + 1).min(width - 1), (y0 + 1).min(height - 1));
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let at = |x: usize, y: usize| map[[y, x]];
    (at(x0, y0) * (1.0 - fx) + at(x1, y0) * fx) * (1.0 - fy) + (at(x0, y1) * (1.0 - fx) + at(x1, y1) * fx) * fy
}

/// The picture as a PNG file.
///
/// # Errors
/// Only when memory runs out.
pub fn encode_png(image: &RgbImage) -> image::ImageResult<Vec<u8>> {
    let mut out = Vec::new();
    PngEncoder::new(&mut out).write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8)?;
    Ok(out)
}

/// The picture as a JPEG file; `quality` from 1 to 100.
///
/// # Errors
/// Only when memory runs out.
pub fn encode_jpeg(image: &RgbImage, quality: u8) -> image::ImageResult<Vec<u8>> {
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, quality).write_image(
        image,
        image.width(),
        image.height(),
        ExtendedColorType::Rgb8,
    )?;
    Ok(out)
}

/// Draws the outline of `[left, top, width, height]`, two pixels thick; what lies outside the picture is left out.
pub fn draw_box(image: &mut RgbImage, [left, top, width, height]: [i64; 4], colour: [u8; 3]) {
    let (right, bottom) = (left + width - 1, top + height - 1);
    let (image_width, image_height) = image.dimensions();
    for y in top.max(0)..=bottom.min(i64::from(image_height) - 1) {
        for x in left.max(0)..=right.min(i64::from(image_width) - 1) {
            let inside = (x - left).min(right - x) >= 2 && (y - top).min(bottom - y) >= 2;
            if !inside {
                image.put_pixel(x as u32, y as u32, Rgb(colour));
            }
        }
    }
}
