//! Painted images to look at.

use super::{Change, Painted, Snippet, paint, paint_snippet, snippets};
use crate::datasets::{DataError, DataSet, Mask, Sample};
use ckaad_inspect::imaging::{self, DecodeError, RgbImage, draw_number, encode_png};
use image::Rgb;
use image::imageops::{crop_imm, replace};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Longest side in pixels of what is shown of an image, and the space around it.
const SHOWN: u32 = 320;
const SPACE: u32 = 8;
const CELL: u32 = SHOWN + SPACE;
/// Columns beside each other; the next ones are below them.
const BESIDE: usize = 6;
/// What a sheet shows, again and again: half of the defects are lines, as in training.
const ROTA: [Change; 6] =
    [Change::Line, Change::Blob, Change::Line, Change::CutPaste, Change::MovedEdge, Change::LightStep];

/// Labelled images that are cut from.
const CUT_FROM: usize = 32;

const GROUND: Rgb<u8> = Rgb([32, 32, 32]);
const OUTLINE: Rgb<u8> = Rgb([255, 0, 180]);

/// One column of a sheet: a normal image, as it is painted, and the outline of the mask.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// What was done; none where a labelled defect was laid into the image.
    pub change: Option<Change>,
    /// The normal image, relative to the set's folder.
    pub path: String,
    /// Whether anything came of it.
    pub changed: bool,
    /// Pixels of the mask.
    pub marked: usize,
}

/// Why a sheet cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum SheetError {
    #[error("{root} has no normal training image to paint on")]
    NoImage { root: PathBuf },
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("cannot encode the sheet: {0}")]
    Encode(image::ImageError),
    #[error("cannot write {path}: {cause}")]
    Write { path: PathBuf, cause: std::io::Error },
}

/// Writes `count` columns to `out` as PNG, numbered from 1, six beside each other: normal training images of `data` drawn by
/// `seed`, in turn with each kind of change and, where labelled images have masks, with a defect of one of them. Of a large
/// image the part around what changed is shown, every pixel of it.
///
/// # Errors
/// The set has no normal training image, one of them, a labelled one or its mask cannot be read, or the file cannot be written.
pub fn sheet(data: &DataSet, count: usize, seed: u64, out: &Path) -> Result<Vec<Column>, SheetError> {
    if data.train_normal.is_empty() {
        return Err(SheetError::NoImage { root: data.root.clone() });
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let mut draw = || &data.train_normal[rng.random_range(0..data.train_normal.len())].path;
    let drawn: Vec<(&PathBuf, &PathBuf)> = (0..count).map(|_| (draw(), draw())).collect();
    let cut = labelled_defects(data, &mut rng)?;
    let turns = ROTA.len() + usize::from(!cut.is_empty());
    // Not from the seed that it is laid by: the same one would then always be turned alike.
    let picked = |i: usize| (i % turns == ROTA.len()).then(|| cut.choose(&mut rng)).flatten();
    let picks: Vec<Option<&Snippet>> = (0..count).map(picked).collect();
    let columns = drawn.into_par_iter().zip(picks).enumerate().map(|(i, ((normal, other), pick))| {
        let (change, own) = (pick.is_none().then(|| ROTA[i % turns]), seed.wrapping_add(i as u64));
        let image = imaging::load(normal)?;
        let painted = match pick {
            Some(snippet) => paint_snippet(&image, snippet, own),
            None => paint(&image, Some(&imaging::load(other)?), ROTA[i % turns], own),
        };
        let marked = painted.mask.iter().filter(|is| **is).count();
        let column = Column { change, path: data.relative(normal), changed: painted.image != image, marked };
        Ok((column, pictures(&image, &painted, i + 1)))
    });
    let columns: Vec<(Column, [RgbImage; 3])> = columns.collect::<Result<_, SheetError>>()?;
    let (across, down) = (count.clamp(1, BESIDE) as u32, 3 * count.div_ceil(BESIDE).max(1) as u32);
    let mut sheet = RgbImage::from_pixel(across * CELL + SPACE, down * CELL + SPACE, GROUND);
    for (i, (_, pictures)) in columns.iter().enumerate() {
        for (row, picture) in pictures.iter().enumerate() {
            let (x, y) = ((i % BESIDE) as u32 * CELL, (3 * (i / BESIDE) + row) as u32 * CELL);
            replace(&mut sheet, picture, i64::from(x + SPACE), i64::from(y + SPACE));
        }
    }
    let bytes = encode_png(&sheet).map_err(SheetError::Encode)?;
    std::fs::write(out, bytes).map_err(|cause| SheetError::Write { path: out.to_owned(), cause })?;
    Ok(columns.into_iter().map(|(column, _)| column).collect())
}

/// The defects of some of the labelled images that have a mask.
fn labelled_defects(data: &DataSet, rng: &mut StdRng) -> Result<Vec<Snippet>, SheetError> {
    let masked: Vec<(&Sample, &Mask)> =
        data.train_anomalous.iter().filter_map(|sample| Some((sample, sample.mask.as_ref()?))).collect();
    let mut all = vec![];
    for &(sample, mask) in masked.choose_multiple(rng, CUT_FROM) {
        let image = imaging::load(&sample.path)?;
        all.extend(snippets(&image, &mask.of(&image)?));
    }
    Ok(all)
}

/// Normal, painted, and with its outline.
fn pictures(normal: &RgbImage, painted: &Painted, number: usize) -> [RgbImage; 3] {
    let (left, top) = corner(normal, &painted.image);
    let shown = |image: &RgbImage| crop_imm(image, left, top, SHOWN, SHOWN).to_image();
    let mut normal = shown(normal);
    draw_number(&mut normal, &number.to_string(), (0, 0), 2);
    [normal, shown(&painted.image), shown(&outlined(painted))]
}

/// Where the shown part begins, so that what changed is in its middle.
fn corner(normal: &RgbImage, painted: &RgbImage) -> (u32, u32) {
    let changed = || normal.enumerate_pixels().filter(|(x, y, p)| painted.get_pixel(*x, *y) != *p);
    let along = |of: fn((u32, u32, &Rgb<u8>)) -> u32, whole: u32| {
        let (low, high) = changed().map(of).fold((whole, 0), |(low, high), at| (low.min(at), high.max(at)));
        ((low.min(high) + high) / 2).saturating_sub(SHOWN / 2).min(whole.saturating_sub(SHOWN))
    };
    (along(|p| p.0, normal.width()), along(|p| p.1, normal.height()))
}

/// Pixels just outside the mask are coloured.
fn outlined(painted: &Painted) -> RgbImage {
    let Painted { image, mask } = painted;
    let mut out = image.clone();
    for (x, y, pixel) in out.enumerate_pixels_mut() {
        let is = |dx: usize, dy: usize| {
            let at = ((y as usize + dy).checked_sub(1), (x as usize + dx).checked_sub(1));
            matches!(at, (Some(y), Some(x)) if mask.get((y, x)) == Some(&true))
        };
        if !is(1, 1) && (is(0, 1) || is(2, 1) || is(1, 0) || is(1, 2)) {
            *pixel = OUTLINE;
        }
    }
    out
}
