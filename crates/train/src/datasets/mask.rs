//! Pixel masks.

use super::{DataError, listing};
use ckaad_bundle::Input;
use ckaad_inspect::imaging::{self, RgbImage};
use image::GrayImage;
use ndarray::Array2;
use std::path::Path;

/// Masks of one image; MVTec LOCO AD has a few.
const MAX_MASKS: usize = 1000;

/// A sample's mask `[H,W]`: 255 where it is anomalous, else 0. Any value that is not zero counts; of a folder, the
/// union.
///
/// # Errors
/// A file cannot be decoded, the folder is empty, or its masks differ in size.
pub fn load_mask(mask: &Path) -> Result<GrayImage, DataError> {
    if !mask.is_dir() {
        return Ok(imaging::load_mask(mask)?);
    }
    let files = listing::entries(mask)?;
    if files.len() > MAX_MASKS {
        return Err(DataError::TooMany { path: mask.to_owned(), most: MAX_MASKS });
    }
    let mut union: Option<GrayImage> = None;
    for file in files {
        let next = imaging::load_mask(&file)?;
        union = Some(match union {
            None => next,
            Some(sum) if sum.dimensions() != next.dimensions() => {
                return Err(DataError::MaskSizes { mask: file, found: next.dimensions(), expected: sum.dimensions() });
            }
            Some(mut sum) => {
                sum.iter_mut().zip(next.iter()).for_each(|(sum, next)| *sum |= next);
                sum
            }
        });
    }
    union.ok_or_else(|| DataError::NoMask(mask.to_owned()))
}

/// The mask at `path` as it marks the pixels of `image`, `[H,W]`.
///
/// # Errors
/// As [`load_mask`]; also when the mask's size is not that of its image.
pub fn mask_of(path: &Path, image: &RgbImage) -> Result<Array2<bool>, DataError> {
    let mask = load_mask(path)?;
    if mask.dimensions() != image.dimensions() {
        let (found, expected) = (mask.dimensions(), image.dimensions());
        return Err(DataError::MaskSize { mask: path.to_owned(), found, expected });
    }
    let (width, height) = mask.dimensions();
    Ok(Array2::from_shape_fn((height as usize, width as usize), |(y, x)| mask.get_pixel(x as u32, y as u32).0[0] > 127))
}

/// The mask at `path` as the network sees `image`, `[H,W]` of `input`, nearest neighbour.
///
/// # Errors
/// As [`mask_of`].
pub fn mask_at_input(path: &Path, image: &RgbImage, input: &Input) -> Result<Array2<bool>, DataError> {
    let mask = mask_of(path, image)?;
    let placement = imaging::resize(image, input).1;
    let at = |(y, x): (usize, usize)| {
        let (fx, fy) = placement.to_frame(x as f32 + 0.5, y as f32 + 0.5);
        fx >= 0.0 && fy >= 0.0 && mask.get((fy as usize, fx as usize)).is_some_and(|marked| *marked)
    };
    Ok(Array2::from_shape_fn((input.height as usize, input.width as usize), at))
}
