//! What an inspection gives.

use crate::imaging::Placement;
use ndarray::Array2;
use std::time::Duration;

/// What is known of one image after inspection.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Image score; larger is more anomalous.
    pub score: f32,
    /// The threshold that it was held against.
    pub threshold: f32,
    /// Smoothed anomaly map at the network's input size, `[H,W]`.
    pub map: Array2<f32>,
    /// Where on the frame the network's input lies.
    pub placement: Placement,
    /// Value of the map from which a pixel belongs to a region.
    pub pixel_threshold: f32,
    /// Largest peak first; empty when the image is normal.
    pub regions: Vec<Region>,
    /// Where the time went.
    pub times: StageTimes,
}

impl Verdict {
    /// Whether the score reaches the threshold.
    pub fn is_defective(&self) -> bool {
        self.score >= self.threshold
    }

    /// How far above the threshold, as a share of it: 0 at the threshold, 1 at twice the threshold or more.
    pub fn severity(&self) -> f32 {
        ((self.score - self.threshold) / self.threshold.max(f32::EPSILON)).clamp(0.0, 1.0)
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
