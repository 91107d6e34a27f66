use super::{DataError, listing};
use ckaad_inspect::imaging;
use image::GrayImage;
use std::path::Path;

/// Masks of one image; MVTec LOCO AD has a few.
const MAX_MASKS: usize = 1000;

/// A sample's mask `[H,W]`: 255 where it is anomalous, else 0. Any value that is not zero counts; of a folder, the union.
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
