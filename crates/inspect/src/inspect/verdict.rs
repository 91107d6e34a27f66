//! What an inspection gives.

use crate::imaging::Placement;
use ndarray::Array2;
use std::fmt;
use std::time::Duration;

/// What is known of one image after inspection.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Image score; larger is more anomalous.
    pub score: f32,
    /// What the score rule made of the map.
    pub map_score: f32,
    /// The network's own score of the image, from models with an image branch.
    pub image_score: Option<f32>,
    /// Which of them, or which segment of the map, the score is owed to most.
    pub decided_by: DecidedBy,
    /// The threshold that it was held against.
    pub threshold: f32,
    /// The median score of normal images.
    pub normal_score: f32,
    /// Smoothed anomaly map at the network's input size, `[H,W]`.
    pub map: Array2<f32>,
    /// Where on the frame the network's input lies.
    pub placement: Placement,
    /// Value of the map from which a pixel belongs to a region.
    pub pixel_threshold: f32,
    /// Largest peak first; empty when the image is good.
    pub regions: Vec<Region>,
    /// Regions of fewer pixels of the frame did not count; 0: all did.
    pub smallest_region_px: f32,
    /// The score reaches the threshold by regions that are all smaller than that: without them it would not.
    pub too_small: bool,
    /// Where the time went.
    pub times: StageTimes,
}

impl Verdict {
    /// Whether the score reaches the threshold, and not only by regions that are too small to count.
    pub fn is_defective(&self) -> bool {
        self.score >= self.threshold && !self.too_small
    }

    /// The score on a scale that models share: 0 is the median of normal images, 1 the threshold.
    pub fn calibrated_score(&self) -> f32 {
        1.0 + (self.score - self.threshold) / self.distance()
    }

    /// How far above the threshold, 0 to 1, as a share of the threshold's own distance from the median of normal
    /// images: 0 at the threshold, 1 at twice that distance from the median or more.
    pub fn severity(&self) -> f32 {
        ((self.score - self.threshold) / self.distance()).clamp(0.0, 1.0)
    }

    /// From the median of normal images to the threshold. One that was set by hand may lie below the median.
    fn distance(&self) -> f32 {
        (self.threshold - self.normal_score).max(f32::EPSILON)
    }
}

/// From what on an image is defective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Image score.
    pub threshold: f32,
    /// Regions of fewer pixels of the frame do not count; 0: all do. An image that has no others is good where its score would not reach the threshold
    /// without them; what the image branch says, and what many pixels say together, is no matter of size.
    pub smallest_region_px: f32,
}

/// What a score is owed to most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecidedBy {
    /// The anomaly map as a whole.
    #[default]
    Map,
    /// The network's own score of the image.
    Image,
    /// The segment of the map with this label.
    Segment(u32),
}

/// As in events: `map`, `image`, `segment 3`.
impl fmt::Display for DecidedBy {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DecidedBy::Map => f.write_str("map"),
            DecidedBy::Image => f.write_str("image"),
            DecidedBy::Segment(label) => write!(f, "segment {label}"),
        }
    }
}

/// A connected anomalous area, in pixels of the frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// At least 1.
    pub width: u32,
    /// At least 1.
    pub height: u32,
    /// Area in frame pixels.
    pub area_px: f32,
    /// Largest value of the smoothed map inside.
    pub peak: f32,
}

/// Where the time of one inspection went.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageTimes {
    /// Resize to the network's input.
    pub resize: Duration,
    /// The network.
    pub engine: Duration,
    /// Smoothing, score and regions.
    pub score: Duration,
}
