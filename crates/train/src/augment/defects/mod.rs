//! Defects painted into normal images, pixel by pixel at the image's own resolution, with the mask of what was painted; and
//! controls, changes that are no defect.
//!
//! ```text
//! image ─► foreground ─► try: line | blob | cut-paste | moved edge | snippet ─► coat ─► judged: on the part? to be seen? ─► Painted
//!                        └────────────────────────── again, 24 times at most ──────────┘
//! mask ─cells─► what each place of a network's map is to be learned as
//! ```
//! Sizes are in pixels for images of 250 pixels and more on the shorter side; below, they shrink with it (lines stay at least a
//! pixel wide, and their soft sides are a lens's and do not shrink). Nothing is larger than its image.

mod blob;
mod cells;
mod foreground;
mod line;
mod paste;
mod patch;
mod sheet;
mod snippet;

pub use cells::{Cell, cells};
pub use sheet::{Column, SheetError, sheet};
pub use snippet::{Snippet, snippets};

use foreground::Foreground;
use image::RgbImage;
use ndarray::Array2;
use patch::Coated;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Shorter side in pixels below which what is painted shrinks with the image.
const FULL_SIZE: u32 = 250;
/// Tries until a defect is on the part and to be seen.
const TRIES: usize = 24;
/// Share of a defect that has to be on the part.
const ON_PART: f32 = 0.5;
/// Grey levels that what is on the part of blobs and pasted pieces stands out by at least, as [`Coated::contrast`] has it.
const STANDS_OUT: f32 = 3.0;
/// Of a light step: how far the gain is off 1, and how many levels are added at most.
const STEP_GAIN: (f32, f32) = (0.05, 0.25);
const STEP_LEVELS: f32 = 5.0;

/// A change of a normal image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A random walk of 20 to 300 pixels, 1 to 4 wide, tapered, with up to two branches, 4 to 40 levels lighter or darker,
    /// fading in and out.
    Line,
    /// 0.05 to 3 % of the image where gradient noise of 4 to 64 cells an axis is highest around a place: texture from elsewhere
    /// at an opacity of 0.2 to 0.8.
    Blob,
    /// A square or a strip of 0.1 to 2 % of the image from elsewhere, turned, its edges soft over 2 pixels, its colour changed by
    /// up to 15 %.
    CutPaste,
    /// A control: a mark of the part's own, mirrored and laid parallel to itself elsewhere on the part where there are marks,
    /// its brightness as there.
    MovedEdge,
    /// A control: the whole image 5 to 25 % lighter or darker, and up to 5 levels.
    LightStep,
}

impl Change {
    /// Every kind, defects first.
    pub const ALL: [Change; 5] = [Change::Line, Change::Blob, Change::CutPaste, Change::MovedEdge, Change::LightStep];

    /// Draws a kind of defect: half of them lines, a quarter each blobs and pasted pieces.
    pub fn draw_defect(rng: &mut StdRng) -> Change {
        [Change::Line, Change::Line, Change::Blob, Change::CutPaste][rng.random_range(0..4)]
    }

    /// Draws a kind of control, each as often.
    pub fn draw_control(rng: &mut StdRng) -> Change {
        [Change::MovedEdge, Change::LightStep][rng.random_range(0..2)]
    }

    /// Whether what it makes is anomalous.
    pub fn is_defect(self) -> bool {
        matches!(self, Change::Line | Change::Blob | Change::CutPaste)
    }

    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Change::Line => "line",
            Change::Blob => "blob",
            Change::CutPaste => "cut-paste",
            Change::MovedEdge => "moved edge",
            Change::LightStep => "light step",
        }
    }
}

/// A changed image and which of its pixels are a defect's.
#[derive(Clone, Debug, PartialEq)]
pub struct Painted {
    /// As large as the normal image.
    pub image: RgbImage,
    /// `[H,W]`: true on the defect. All false for a control, and where no try found room for a defect that can be seen: the image
    /// is as it was then.
    pub mask: Array2<bool>,
}

/// Changes a normal image; the same `seed` does the same. Texture of a blob and pasted pieces come from the image itself or,
/// where there is an `other` normal one (of any size), as often from that.
///
/// At least half of a defect is on the part, if the part lies on a ground: flat, nearly black or white, and from the image's
/// border inwards. A mask's pixels are those of the defect that changed by two levels or more in a channel, or have such a
/// pixel at most two beside them; its soft edge is outside.
pub fn paint(image: &RgbImage, other: Option<&RgbImage>, change: Change, seed: u64) -> Painted {
    if change == Change::LightStep {
        let mut painted = Painted::unchanged(image);
        light_step(&mut painted.image, &mut StdRng::seed_from_u64(seed));
        return painted;
    }
    let takes_other = matches!(change, Change::Blob | Change::CutPaste);
    let other = other.filter(|other| takes_other && other.width() > 0 && other.height() > 0).map(Canvas::new);
    tried(image, seed, change.is_defect(), |canvas, rng| canvas.attempt(other.as_ref(), change, rng))
}

/// Lays a labelled defect into a normal image; the same `seed` does the same. As with [`paint`], half of it at least is on the part, and
/// nothing is marked where no try found room.
pub fn paint_snippet(image: &RgbImage, snippet: &Snippet, seed: u64) -> Painted {
    tried(image, seed, true, |canvas, rng| {
        let coated = snippet::laid(canvas, snippet, rng)?.on(image);
        canvas.holds(&coated).then_some(coated)
    })
}

/// The image with the first of [`TRIES`] attempts that is of use, marked if it is a defect.
fn tried(
    image: &RgbImage,
    seed: u64,
    is_defect: bool,
    attempt: impl Fn(&Canvas, &mut StdRng) -> Option<Coated>,
) -> Painted {
    let mut painted = Painted::unchanged(image);
    if painted.mask.is_empty() {
        return painted;
    }
    let (canvas, mut rng) = (Canvas::new(image), StdRng::seed_from_u64(seed));
    if let Some(coated) = (0..TRIES).find_map(|_| attempt(&canvas, &mut rng)) {
        coated.write(&mut painted.image);
        if is_defect {
            coated.masked().for_each(|(x, y)| painted.mask[[y as usize, x as usize]] = true);
        }
    }
    painted
}

impl Painted {
    fn unchanged(image: &RgbImage) -> Painted {
        let (width, height) = image.dimensions();
        Painted { image: image.clone(), mask: Array2::from_elem((height as usize, width as usize), false) }
    }
}

/// An image to paint on, and what a painter asks of it.
struct Canvas<'a> {
    image: &'a RgbImage,
    foreground: Foreground,
    /// By which sizes in pixels are multiplied, up to 1.
    scale: f32,
    /// All channels are alike, and are to stay so.
    grey: bool,
}

impl<'a> Canvas<'a> {
    fn new(image: &'a RgbImage) -> Canvas<'a> {
        Canvas {
            image,
            foreground: Foreground::of(image),
            scale: (image.width().min(image.height()) as f32 / FULL_SIZE as f32).min(1.0),
            grey: image.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]),
        }
    }

    /// One try; none if it is no use.
    fn attempt(&self, other: Option<&Canvas<'_>>, change: Change, rng: &mut StdRng) -> Option<Coated> {
        let coat = match change {
            Change::Line => line::line(self, rng),
            Change::Blob => blob::blob(self, other, rng),
            Change::CutPaste => paste::cut_paste(self, other, rng),
            Change::MovedEdge => paste::moved_edge(self, rng),
            Change::LightStep => None,
        };
        let coated = coat?.on(self.image);
        let fits = match change {
            Change::Line => self.holds(&coated),
            Change::Blob | Change::CutPaste => {
                self.holds(&coated) && coated.contrast(|x, y| self.foreground.holds(x, y)) >= STANDS_OUT
            }
            Change::MovedEdge | Change::LightStep => true,
        };
        fits.then_some(coated)
    }

    /// Something is marked, and enough of it on the part.
    fn holds(&self, coated: &Coated) -> bool {
        let (on, all) =
            coated.masked().fold((0, 0), |(on, all), (x, y)| (on + usize::from(self.foreground.holds(x, y)), all + 1));
        all > 0 && on as f32 >= ON_PART * all as f32
    }
}

/// Another lamp: black stays nearly black.
fn light_step(image: &mut RgbImage, rng: &mut StdRng) {
    let gain = 1.0 + rng.random_range(STEP_GAIN.0..=STEP_GAIN.1) * if rng.random() { 1.0 } else { -1.0 };
    let levels = rng.random_range(-STEP_LEVELS..=STEP_LEVELS);
    for byte in image.iter_mut() {
        *byte = (f32::from(*byte) * gain + levels).round().clamp(0.0, 255.0) as u8;
    }
}

#[cfg(test)]
mod tests;
