//! The synthetic line: pictures of parts on a conveyor, some defective, with the pixel mask of every defect.
//!
//! It feeds the demo's source and `ckaad-train synth`; the shipped demo model is trained on it. It stands in for a
//! camera, so it answers for believable variation (position, rotation, light, focus, sensor noise), not for physics.
//!
//! ```text
//! dice(seed, n) ─► Scene: kind, pose, light, textures ─► surface ─┬─► + defect ─► focus ─► sensor ─► Part (image, mask)
//!                                                                 └─► (nothing) ─► focus ─► sensor ─► its defect-free twin
//! ```
//!
//! Beside the line there are [`Strips`], for `synth --kind strip` alone: large, grey, with defects a few pixels wide.
//!
//! Part `n` of a seed, and strip `n`, is the same on every platform and whatever was drawn before it: each part has its own ChaCha8
//! stream, and pixels are made of `+ - * / sqrt`, which IEEE 754 rounds alike everywhere; no sine, no power, no fused
//! multiply-add.

mod connector;
mod dataset;
mod defects;
mod dice;
mod scene;
mod sensor;
mod strip;
mod texture;
mod washer;

pub use dataset::{DatasetConfig, DatasetError, DatasetKind, DatasetSummary, write_dataset};
pub use strip::{Strip, StripConfig, StripDefect, Strips};

use dice::Dice;
use image::{GrayImage, RgbImage};
use scene::Scene;
use std::fmt;

/// What lies on the conveyor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartKind {
    /// A turned steel washer: concentric marks, two chamfers, a groove.
    Washer,
    /// A moulded connector housing: grained plastic, ribs, brass contacts, two mounting holes.
    Connector,
}

impl PartKind {
    /// Every kind.
    pub const ALL: [PartKind; 2] = [PartKind::Washer, PartKind::Connector];

    /// In lower case, as it stands in file names.
    pub fn name(self) -> &'static str {
        match self {
            PartKind::Washer => "washer",
            PartKind::Connector => "connector",
        }
    }
}

/// What can be wrong with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefectKind {
    /// A slightly bent line: a bright burr beside a dark furrow.
    Scratch,
    /// A round hollow, one wall bright and the other dark.
    Dent,
    /// Oil, rust or residue on the surface.
    Stain,
    /// Material missing at an edge.
    Chip,
    /// A thin jagged dark line from an edge into the material.
    Crack,
    /// A large soft patch of another colour: heat tint, bleached plastic.
    Discolouration,
}

impl DefectKind {
    /// Every kind.
    pub const ALL: [DefectKind; 6] = [
        DefectKind::Scratch,
        DefectKind::Dent,
        DefectKind::Stain,
        DefectKind::Chip,
        DefectKind::Crack,
        DefectKind::Discolouration,
    ];

    /// In lower case, as it stands in folder names.
    pub fn name(self) -> &'static str {
        match self {
            DefectKind::Scratch => "scratch",
            DefectKind::Dent => "dent",
            DefectKind::Stain => "stain",
            DefectKind::Chip => "chip",
            DefectKind::Crack => "crack",
            DefectKind::Discolouration => "discolouration",
        }
    }
}

impl fmt::Display for PartKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for DefectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a line makes; the same config makes the same parts.
#[derive(Clone, Debug, PartialEq)]
pub struct LineConfig {
    /// Another seed is another line.
    pub seed: u64,
    /// Frame size in pixels; parts scale with the shorter side. Below 64 a side is taken as 64.
    pub width: u32,
    /// As `width`.
    pub height: u32,
    /// Share of parts that are defective, 0 to 1.
    pub defect_rate: f32,
    /// What the line makes, each kind as often; empty means every kind.
    pub parts: Vec<PartKind>,
}

impl Default for LineConfig {
    fn default() -> LineConfig {
        LineConfig { seed: 1, width: 320, height: 320, defect_rate: 0.1, parts: PartKind::ALL.to_vec() }
    }
}

/// One picture with the truth about it.
#[derive(Clone, Debug)]
pub struct Part {
    /// As a camera would see it, `[height,width,3]`.
    pub image: RgbImage,
    /// 255 where the defect changed the picture, else 0; as large as the image.
    pub mask: GrayImage,
    /// What it shows.
    pub kind: PartKind,
    /// What is wrong with it; `None` for a good part.
    pub defect: Option<DefectKind>,
}

/// An endless line of parts.
#[derive(Clone, Debug)]
pub struct Line {
    config: LineConfig,
    next: u64,
}

impl Line {
    /// A line at its first part.
    pub fn new(mut config: LineConfig) -> Line {
        if config.parts.is_empty() {
            config.parts = PartKind::ALL.to_vec();
        }
        config.width = config.width.max(64);
        config.height = config.height.max(64);
        Line { config, next: 0 }
    }

    /// The next part, defective by the configured rate.
    pub fn next_part(&mut self) -> Part {
        let mut fate = self.dice(1);
        let defect = fate.chance(self.config.defect_rate).then(|| fate.pick(&DefectKind::ALL));
        self.make(defect)
    }

    /// The next part with the given defect, or without any: a data set wants so many of each.
    pub fn make(&mut self, defect: Option<DefectKind>) -> Part {
        let scene = self.scene();
        self.picture(scene, defect)
    }

    /// The next part in another finish than it comes in, which each channel of its colour is multiplied with, and where in the picture it is.
    fn finished(&mut self, finish: [f32; 3], defect: Option<DefectKind>) -> (Part, GrayImage) {
        let mut scene = self.scene();
        scene.finish = finish;
        let outline = scene.outline();
        (self.picture(scene, defect), outline)
    }

    fn scene(&self) -> Scene {
        let kind = self.dice(0).pick(&self.config.parts);
        Scene::new(kind, self.config.width, self.config.height, &mut self.dice(2))
    }

    fn picture(&mut self, scene: Scene, defect: Option<DefectKind>) -> Part {
        let kind = scene.kind;
        let mut canvas = scene.paint();
        let mask = match defect {
            Some(defect) => defects::apply(defect, &scene, &mut canvas, &mut self.dice(3)),
            None => GrayImage::new(scene.width, scene.height),
        };
        let image = scene.expose(canvas, &mut self.dice(4));
        self.next += 1;
        Part { image, mask, kind, defect }
    }

    /// Randomness for one purpose of the next part: a purpose that draws more leaves the others as they were.
    fn dice(&self, purpose: u64) -> Dice {
        Dice::new(self.config.seed, self.next * 8 + purpose)
    }
}

impl Iterator for Line {
    type Item = Part;

    /// Never `None`.
    fn next(&mut self) -> Option<Part> {
        Some(self.next_part())
    }
}
