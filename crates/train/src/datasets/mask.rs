//! Pixel masks.

use super::outlines::Outlines;
use super::{DataError, listing};
use ckaad_bundle::Input;
use ckaad_inspect::imaging::{self, RgbImage};
use image::GrayImage;
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Masks of one image; MVTec LOCO AD has a few.
const MAX_MASKS: usize = 1000;

/// Which pixels of an image are anomalous.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Mask {
    /// An image in which what is not zero is anomalous; of a folder, the union of the images in it.
    File(PathBuf),
    /// Drawn when it is asked for.
    Outlines(Outlines),
}

impl From<PathBuf> for Mask {
    fn from(path: PathBuf) -> Mask {
        Mask::File(path)
    }
}

impl Mask {
    /// What says it.
    pub fn file(&self) -> &Path {
        match self {
            Mask::File(path) => path,
            Mask::Outlines(outlines) => &outlines.file,
        }
    }

    /// As an error's sentence names it.
    pub fn told(&self) -> PathBuf {
        match self {
            Mask::File(path) => path.clone(),
            Mask::Outlines(outlines) => outlines.told(),
        }
    }

    /// The same with another path.
    pub fn moved(&self, to: impl FnOnce(&Path) -> PathBuf) -> Mask {
        match self {
            Mask::File(path) => Mask::File(to(path)),
            Mask::Outlines(outlines) => {
                let mut moved = outlines.clone();
                moved.file = to(&outlines.file);
                Mask::Outlines(moved)
            }
        }
    }

    /// The mask `[H,W]`: 255 where the image is anomalous, else 0.
    ///
    /// # Errors
    /// A file cannot be decoded, the folder is empty, or its masks differ in size.
    pub fn load(&self) -> Result<GrayImage, DataError> {
        match self {
            Mask::File(path) if path.is_dir() => union(path),
            Mask::File(path) => Ok(imaging::load_mask(path)?),
            Mask::Outlines(outlines) => Ok(outlines.draw()),
        }
    }

    /// As it marks the pixels of `image`, `[H,W]`.
    ///
    /// # Errors
    /// As [`Mask::load`]; also when the mask's size is not that of its image.
    pub fn of(&self, image: &RgbImage) -> Result<Array2<bool>, DataError> {
        let mask = self.load()?;
        if mask.dimensions() != image.dimensions() {
            let (found, expected) = (mask.dimensions(), image.dimensions());
            return Err(DataError::MaskSize { mask: self.told(), found, expected });
        }
        let (width, height) = mask.dimensions();
        let marked = |(y, x)| mask.get_pixel(x as u32, y as u32).0[0] > 127;
        Ok(Array2::from_shape_fn((height as usize, width as usize), marked))
    }

    /// As the network sees `image`, `[H,W]` of `input`, nearest neighbour.
    ///
    /// # Errors
    /// As [`Mask::of`].
    pub fn at_input(&self, image: &RgbImage, input: &Input) -> Result<Array2<bool>, DataError> {
        let mask = self.of(image)?;
        let placement = imaging::resize(image, input).1;
        let at = |(y, x): (usize, usize)| {
            let (fx, fy) = placement.to_frame(x as f32 + 0.5, y as f32 + 0.5);
            fx >= 0.0 && fy >= 0.0 && mask.get((fy as usize, fx as usize)).is_some_and(|marked| *marked)
        };
        Ok(Array2::from_shape_fn((input.height as usize, input.width as usize), at))
    }
}

fn union(folder: &Path) -> Result<GrayImage, DataError> {
    let files = listing::entries(folder)?;
    if files.len() > MAX_MASKS {
        return Err(DataError::TooMany { path: folder.to_owned(), most: MAX_MASKS });
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
    union.ok_or_else(|| DataError::NoMask(folder.to_owned()))
}
