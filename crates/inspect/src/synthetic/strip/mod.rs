//! Strips: large grey pictures of a machined metal part with thin cracks, hard to see among the machining marks.
//!
//! It stands for inspection tasks where the defect is a few pixels wide in a picture of half a million: good strips
//! bear marks, tool marks, scratches and pores as dark as a crack, so no single number of a picture tells.

mod defects;
mod lay;
mod marks;
mod stroke;
mod surface;

use super::dice::Dice;
use image::GrayImage;
use std::fmt;
use surface::Surface;

/// What can be wrong with a strip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StripDefect {
    /// A thin dark random walk of 60 to 400 pixels, up to two branches, its contrast coming and going.
    Crack,
    /// A cluster of three to ten dark pits, 3 to 8 pixels across.
    Pit,
}

impl StripDefect {
    /// Every kind.
    pub const ALL: [StripDefect; 2] = [StripDefect::Crack, StripDefect::Pit];

    /// In lower case, as it stands in folder names.
    pub fn name(self) -> &'static str {
        match self {
            StripDefect::Crack => "crack",
            StripDefect::Pit => "pit",
        }
    }
}

impl fmt::Display for StripDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What strips are drawn; the same config draws the same strips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripConfig {
    /// Another seed gives other strips.
    pub seed: u64,
    /// Frame size in pixels; marks and defects do not scale with it. Below 256 a side is taken as 256.
    pub width: u32,
    /// As `width`.
    pub height: u32,
}

impl Default for StripConfig {
    fn default() -> StripConfig {
        StripConfig { seed: 1, width: 500, height: 1250 }
    }
}

/// One picture with the truth about it.
#[derive(Clone, Debug)]
pub struct Strip {
    /// As a camera would see it, `[height,width]`.
    pub image: GrayImage,
    /// 255 on the defect's pixels, else 0; as large as the image.
    pub mask: GrayImage,
    /// What is wrong with it; `None` for a good strip.
    pub defect: Option<StripDefect>,
}

/// An endless row of strips.
#[derive(Clone, Debug)]
pub struct Strips {
    config: StripConfig,
    next: u64,
}

impl Strips {
    /// A row at its first strip.
    pub fn new(mut config: StripConfig) -> Strips {
        config.width = config.width.max(256);
        config.height = config.height.max(256);
        Strips { config, next: 0 }
    }

    /// The next strip with the given defect, or without any.
    pub fn make(&mut self, defect: Option<StripDefect>) -> Strip {
        let surface = Surface::new(self.config.width, self.config.height, &mut self.dice(2));
        let mut canvas = surface.paint(&marks::draw(&surface, &mut self.dice(5)));
        let mask = match defect {
            Some(defect) => defects::apply(defect, &surface, &mut canvas, &mut self.dice(3)),
            None => GrayImage::new(surface.width, surface.height),
        };
        let image = surface.expose(canvas, &mut self.dice(4));
        self.next += 1;
        Strip { image, mask, defect }
    }

    /// Randomness for one purpose of the next strip, as the line's.
    fn dice(&self, purpose: u64) -> Dice {
        Dice::new(self.config.seed, self.next * 8 + purpose)
    }
}
