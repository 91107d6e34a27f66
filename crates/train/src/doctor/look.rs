//! What is kept of one image: a few numbers and a thumbnail. The image itself is let go.

use crate::datasets::{DataError, Sample};
use ckaad_inspect::imaging::{self, DecodeError, RgbImage};
use sha2::{Digest, Sha256};

/// Side of a thumbnail, in cells.
pub const SIDE: usize = 16;
/// Numbers of a thumbnail.
pub const CELLS: usize = SIDE * SIDE;
/// A picture whose channels each span at most this is called constant: a lens cap behind JPEG is not quite even.
const CONSTANT_SPAN: u8 = 2;

/// What one readable image looks like.
pub struct Look {
    /// `(width, height)` in pixels.
    pub size: (u32, u32),
    /// SHA-256 of size and decoded pixels.
    pub digest: [u8; 32],
    /// No channel spans more than two grey levels.
    pub constant: bool,
    /// See [`thumbnail`].
    pub thumbnail: Vec<f32>,
    /// What its mask is like; `None` without a mask.
    pub mask: Option<Mask>,
}

/// What the mask of one image is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Some pixels are anomalous.
    Marked,
    /// None is.
    Empty,
    /// It cannot be used with its image: the sentence that says why.
    Wrong(String),
}

impl Look {
    /// Reads the image and the mask of `sample`.
    ///
    /// # Errors
    /// The image cannot be decoded.
    pub fn at(sample: &Sample) -> Result<Look, DecodeError> {
        let image = imaging::load(&sample.path)?;
        let mask = sample.mask.as_ref().map(|of| match of.load() {
            Err(error) => Mask::Wrong(error.to_string()),
            Ok(mask) if mask.dimensions() != image.dimensions() => {
                let (mask, found, expected) = (of.told(), mask.dimensions(), image.dimensions());
                Mask::Wrong(DataError::MaskSize { mask, found, expected }.to_string())
            }
            Ok(mask) if mask.iter().all(|&value| value == 0) => Mask::Empty,
            Ok(_) => Mask::Marked,
        });
        Ok(Look {
            size: image.dimensions(),
            digest: digest(&image),
            constant: is_constant(&image),
            thumbnail: thumbnail(&image),
            mask,
        })
    }
}

fn digest(image: &RgbImage) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(image.width().to_le_bytes());
    hash.update(image.height().to_le_bytes());
    hash.update(image.as_raw());
    hash.finalize().into()
}

fn is_constant(image: &RgbImage) -> bool {
    let (mut low, mut high) = ([u8::MAX; 3], [0; 3]);
    for pixel in image.pixels() {
        for channel in 0..3 {
            low[channel] = low[channel].min(pixel.0[channel]);
            high[channel] = high[channel].max(pixel.0[channel]);
        }
        if (0..3).any(|c| high[c] - low[c] > CONSTANT_SPAN) {
            return false;
        }
    }
    true
}

/// The picture's grey values as means over 16x16 cells, row by row, less their mean and divided by their norm: 256
/// numbers that neither brightness nor contrast nor size change. All zero where the cells are alike.
pub fn thumbnail(image: &RgbImage) -> Vec<f32> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let pixels = image.as_raw();
    let cell = |side: usize, i: usize| {
        let from = i * side / SIDE;
        from..((i + 1) * side / SIDE).max(from + 1)
    };
    let mut cells = Vec::with_capacity(CELLS);
    for cy in 0..SIDE {
        for cx in 0..SIDE {
            let (rows, columns) = (cell(height, cy), cell(width, cx));
            let count = 3 * rows.len() * columns.len();
            let row = |y: usize| &pixels[3 * (y * width + columns.start)..3 * (y * width + columns.end)];
            let sum: u64 = rows.map(|y| row(y).iter().map(|&v| u64::from(v)).sum::<u64>()).sum();
            cells.push((sum as f64 / count as f64) as f32);
        }
    }
    let mean = cells.iter().sum::<f32>() / CELLS as f32;
    cells.iter_mut().for_each(|cell| *cell -= mean);
    normalise(&mut cells);
    cells
}

/// Divides by the norm; a vector that is almost none becomes zero.
pub fn normalise(vector: &mut [f32]) {
    let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    let scale = if norm > 1e-4 { 1.0 / norm } else { 0.0 };
    vector.iter_mut().for_each(|v| *v *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn gradient(width: u32, height: u32, gain: f32, offset: f32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let value = 100.0 * x as f32 / width as f32 + 40.0 * (y as f32 / height as f32 * 9.0).sin();
            Rgb([(gain * (value + 50.0) + offset) as u8; 3])
        })
    }

    #[test]
    fn a_thumbnail_is_the_same_under_another_exposure_and_size() {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let [one, darker, smaller] = [
            thumbnail(&gradient(160, 96, 1.0, 10.0)),
            thumbnail(&gradient(160, 96, 0.6, 0.0)),
            thumbnail(&gradient(80, 48, 1.0, 0.0)),
        ];
        assert!(dot(&one, &darker) > 0.999 && dot(&one, &smaller) > 0.999);
        assert!((dot(&one, &one) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn pictures_smaller_than_a_thumbnail_and_constant_ones_are_no_trouble() {
        assert_eq!(thumbnail(&RgbImage::new(1, 1)), [0.0; CELLS]);
        assert_eq!(thumbnail(&gradient(5, 40, 1.0, 0.0)).len(), CELLS);
        let mut even = RgbImage::from_pixel(30, 20, Rgb([7, 8, 9]));
        even.put_pixel(3, 3, Rgb([9, 8, 9]));
        assert!(is_constant(&even));
        even.put_pixel(3, 4, Rgb([6, 8, 9]));
        assert!(!is_constant(&even));
    }
}
