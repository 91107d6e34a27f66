//! What an image goes through before its features are taken: mirroring, a turn, light; making anomalies of normal images; and
//! painting defects into them, with masks ([`defects`]).

mod anomalies;
pub mod defects;
mod noise;

use defects::{Change, Painted, Snippet};
use image::{Rgb, RgbImage};
use imageproc::geometric_transformations::{Border, Interpolation, rotate_about_center};
use rand::{Rng, SeedableRng, rngs::StdRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Random changes of every training image, drawn anew each epoch. With one of them on, features cannot be cached and
/// are computed while training runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Turn by up to so many degrees either way; the corners are filled with the image's mean colour.
    pub rotate_deg: f32,
    /// Lighten or darken by up to this share of the full range.
    pub brightness: f32,
    /// Stretch or shrink the distance from middle grey by up to this share.
    pub contrast: f32,
}

impl AugmentConfig {
    /// Whether an image is changed at all.
    pub fn is_on(&self) -> bool {
        self.rotate_deg > 0.0 || self.brightness > 0.0 || self.contrast > 0.0
    }

    fn apply(&self, image: &RgbImage, rng: &mut StdRng) -> RgbImage {
        let mut within = |limit: f32| if limit > 0.0 { rng.random_range(-limit..=limit) } else { 0.0 };
        let turn = within(self.rotate_deg).to_radians();
        let (offset, gain) = (within(self.brightness) * 255.0, 1.0 + within(self.contrast));
        let mut image = if turn == 0.0 {
            image.clone()
        } else {
            rotate_about_center(image, turn, Interpolation::Bilinear, Border::Constant(mean_colour(image)))
        };
        for byte in image.iter_mut() {
            *byte = ((f32::from(*byte) - 127.5) * gain + 127.5 + offset).round().clamp(0.0, 255.0) as u8;
        }
        image
    }
}

fn mean_colour(image: &RgbImage) -> Rgb<u8> {
    let count = u64::from(image.width()) * u64::from(image.height());
    let sums = image.pixels().fold([0u64; 3], |s, p| [0, 1, 2].map(|c| s[c] + u64::from(p.0[c])));
    Rgb(sums.map(|s| (s / count.max(1)) as u8))
}

/// Which coarse-labelled anomalies a discriminator learns from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnomalyConfig {
    /// Where they come from.
    pub source: AnomalySource,
    /// Labelled anomalies, as a share of the training set (the paper: 0.05); 0 takes all.
    pub share: f64,
    /// Use only so many kinds of labelled anomalies, the first by name; 0 uses all.
    pub classes: usize,
    /// Anomalies that are made, as a share of the normal training images.
    pub synthetic_share: f64,
    /// Strength of an elastic deformation: pixels at 256x256 before smoothing (the paper's code: 200).
    pub alpha: f32,
}

impl Default for AnomalyConfig {
    fn default() -> Self {
        AnomalyConfig { source: AnomalySource::Auto, share: 0.0, classes: 0, synthetic_share: 0.1, alpha: 200.0 }
    }
}

/// Where the anomalies come from that a discriminator learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnomalySource {
    /// The labelled ones; elastic deformations in a set that has none.
    Auto,
    /// None: the labelled ones are left alone as well.
    None,
    /// The labelled ones only.
    Labelled,
    /// Normal images under a random elastic deformation (Simard et al. 2003).
    Elastic,
    /// A patch of the image pasted elsewhere in it (Li et al. 2021, arXiv 2104.04015).
    CutPaste,
    /// Foreign texture blended in where Perlin noise is high (Zavrtanik et al. 2021, arXiv 2108.07610).
    Perlin,
}

impl AnomalySource {
    /// Whether it is the labelled ones, where there are any.
    pub fn is_labelled(self) -> bool {
        matches!(self, AnomalySource::Auto | AnomalySource::Labelled)
    }
}

/// What is painted into an image, from which seed.
#[derive(Clone, Debug, PartialEq)]
pub enum Paint {
    /// A change that is drawn.
    Change(Change, u64),
    /// A labelled defect of another image.
    Snippet(Arc<Snippet>, u64),
}

impl Paint {
    /// The image with it, and its mask.
    pub fn on(&self, image: &RgbImage) -> Painted {
        match self {
            Paint::Change(change, seed) => defects::paint(image, None, *change, *seed),
            Paint::Snippet(snippet, seed) => defects::paint_snippet(image, snippet, *seed),
        }
    }
}

/// One way to look at a training image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Mirrored, left to right.
    pub left_right: bool,
    /// Mirrored, top to bottom.
    pub top_bottom: bool,
    /// Painted into, before all else: at the image's own resolution.
    pub painted: Option<Paint>,
    /// Made into an anomaly of this kind, from this seed.
    pub anomaly: Option<(AnomalySource, u64)>,
    /// Strength of an elastic deformation; see [`AnomalyConfig::alpha`].
    pub alpha: f32,
    /// Augmented, from this seed.
    pub augment: Option<(AugmentConfig, u64)>,
}

impl View {
    /// Mirrored only.
    pub fn flipped((left_right, top_bottom): (bool, bool)) -> View {
        View { left_right, top_bottom, ..View::default() }
    }

    /// The image as it is seen: painted into, mirrored, made anomalous, augmented, in this order.
    pub fn apply(&self, mut image: RgbImage) -> RgbImage {
        if let Some(paint) = &self.painted {
            image = paint.on(&image).image;
        }
        if self.left_right {
            image::imageops::flip_horizontal_in_place(&mut image);
        }
        if self.top_bottom {
            image::imageops::flip_vertical_in_place(&mut image);
        }
        if let Some((kind, seed)) = self.anomaly {
            image = anomalies::make(kind, &image, self.alpha, &mut StdRng::seed_from_u64(seed));
        }
        if let Some((config, seed)) = self.augment {
            image = config.apply(&image, &mut StdRng::seed_from_u64(seed));
        }
        image
    }
}
