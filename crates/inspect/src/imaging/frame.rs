//! A picture on its way through the agent.

use image::RgbImage;
use jiff::Timestamp;

/// One picture on its way through the agent.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Unique within its source: a file name, or a running number.
    pub id: String,
    /// Counts every frame that the source gave, from 0; a gap means that frames were dropped.
    pub sequence: u64,
    /// By this machine's clock.
    pub captured_at: Timestamp,
    /// `[H,W,3] u8` RGB.
    pub image: RgbImage,
    /// What the source knows of the part; only replayed and synthetic frames have it. Never read by `inspect`.
    pub truth: Option<Truth>,
    /// Which part it shows and from where, from sources whose parts have several views.
    pub part: Option<PartView>,
}

/// A view of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartView {
    /// Which part: of a replayed frame the folder that its file lies in.
    pub part: String,
    /// What the picture is called, without what says its format.
    pub name: String,
}

/// What is known of a part beforehand, to measure alerts against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// Nothing is wrong with it.
    Good,
    /// The kind of defect: a folder's name, or the synthetic line's.
    Defective(String),
}

impl Truth {
    /// Whether an alert is wanted.
    pub fn is_defective(&self) -> bool {
        matches!(self, Truth::Defective(_))
    }
}
