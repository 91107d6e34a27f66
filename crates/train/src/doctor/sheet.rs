//! Contact sheets: pictures side by side for a person to decide.

use super::DoctorError;
use super::findings::NearDuplicate;
use super::suspects::{Suspect, Suspects};
use ckaad_inspect::imaging::{self, RgbImage, draw_number, encode_png, shrink};
use image::Rgb;
use image::imageops::replace;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Longest side of a picture, width of its border, and space around it, in pixels.
const PICTURE: u32 = 160;
const BORDER: u32 = 5;
const SPACE: u32 = 8;
const CELL: u32 = PICTURE + 2 * BORDER + SPACE;
/// Pictures of a row.
const COLUMNS: u32 = 8;
/// Pairs of a sheet, four a row.
const PAIRS: usize = 24;

const GROUND: Rgb<u8> = Rgb([32, 32, 32]);
/// Labelled normal, or a training image.
const GREEN: Rgb<u8> = Rgb([60, 170, 90]);
/// Labelled anomalous.
const RED: Rgb<u8> = Rgb([220, 70, 60]);
/// A test image.
const BLUE: Rgb<u8> = Rgb([70, 130, 230]);
/// What cannot be read.
const GREY: Rgb<u8> = Rgb([90, 90, 90]);

/// One picture of a sheet.
struct Tile {
    path: PathBuf,
    border: Rgb<u8>,
    number: String,
}

/// Writes pairs to `out` as PNG, at most 24, spread evenly from the most to the least alike: the training image in green,
/// at its right the test image in blue with their correlation. `root` is the set's folder.
///
/// # Errors
/// The file cannot be written.
pub fn near_duplicate_sheet(pairs: &[NearDuplicate], root: &Path, out: &Path) -> Result<(), DoctorError> {
    let shown = pairs.len().min(PAIRS);
    // The first and the last are among them.
    let spread = (0..shown).map(|i| i * (pairs.len() - 1) / (shown - 1).max(1));
    let tiles = spread.filter_map(|i| Some((i, pairs.get(i)?))).flat_map(|(i, pair)| {
        [
            Tile { path: root.join(&pair.training), border: GREEN, number: (i + 1).to_string() },
            Tile { path: root.join(&pair.test), border: BLUE, number: format!("{:.2}", pair.correlation) },
        ]
    });
    write(&[tiles.collect()], out)
}

/// Writes the suspicious labels to `out` as PNG: the normal ones in green, most suspicious first, below them the
/// anomalous ones in red. `root` is the set's folder.
///
/// # Errors
/// The file cannot be written.
pub fn suspect_sheet(suspects: &Suspects, root: &Path, out: &Path) -> Result<(), DoctorError> {
    let tiles = |suspects: &[Suspect], border| {
        let numbered = suspects.iter().enumerate();
        numbered.map(|(i, s)| Tile { path: root.join(&s.path), border, number: (i + 1).to_string() }).collect()
    };
    write(&[tiles(&suspects.normal, GREEN), tiles(&suspects.anomalous, RED)], out)
}

/// Each block begins a row of its own.
fn write(blocks: &[Vec<Tile>], out: &Path) -> Result<(), DoctorError> {
    let rows: Vec<u32> = blocks.iter().map(|block| (block.len() as u32).div_ceil(COLUMNS)).collect();
    let height = rows.iter().sum::<u32>().max(1) * CELL + SPACE * blocks.len() as u32;
    let mut sheet = RgbImage::from_pixel(COLUMNS * CELL + SPACE, height, GROUND);
    let mut top = SPACE;
    for (block, rows) in blocks.iter().zip(rows) {
        let drawn: Vec<RgbImage> = block.par_iter().map(draw).collect();
        for (i, tile) in drawn.iter().enumerate() {
            let (column, row) = (i as u32 % COLUMNS, i as u32 / COLUMNS);
            replace(&mut sheet, tile, i64::from(SPACE + column * CELL), i64::from(top + row * CELL));
        }
        top += rows * CELL + SPACE;
    }
    let bytes = encode_png(&sheet).map_err(DoctorError::Encode)?;
    std::fs::write(out, bytes).map_err(|cause| DoctorError::Write { path: out.to_owned(), cause })
}

/// The picture in its border, with its number; a grey square where it cannot be read.
fn draw(tile: &Tile) -> RgbImage {
    let picture = imaging::load(&tile.path)
        .map_or_else(|_| RgbImage::from_pixel(PICTURE, PICTURE, GREY), |image| shrink(&image, PICTURE));
    let mut framed = RgbImage::from_pixel(picture.width() + 2 * BORDER, picture.height() + 2 * BORDER, tile.border);
    replace(&mut framed, &picture, i64::from(BORDER), i64::from(BORDER));
    draw_number(&mut framed, &tile.number, (0, 0), 2);
    framed
}
