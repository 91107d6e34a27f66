//! Where frames come from: a camera, a directory of images, the synthetic line.
//!
//! Responsible for: getting one [`Frame`] after the other, saying in which [`Condition`] the source is, and recovering
//! from what goes wrong with it. Not responsible for: what a frame shows (`inspect`) and who hears of it (`events`).
//!
//! | source | pace | when the line is slower than the source | trouble |
//! |---|---|---|---|
//! | `directory` | pulled, optionally at a rate | waits: every image is judged once | an unreadable image is named, counted, skipped |
//! | `synthetic` | pulled, optionally at a rate | waits | none |
//! | `camera` | pushed by the device | the *newest* frame is judged, the others count as dropped | stalled, frozen, unplugged: told, retried with backoff |
//!
//! A source is config that builds: [`SourceConfig::build`] gives the running thing, [`SourceConfig::resource`] names what it
//! takes, so that two pipelines on one device are refused before either starts.

mod camera;
mod convert;
mod directory;
mod pace;
mod synthetic;

pub use camera::{CameraConfig, Device, list as list_devices};
pub use directory::{AfterInspection, DirectoryConfig, Mode};
pub use synthetic::SyntheticConfig;

use ckaad_inspect::imaging::{DecodeError, Frame};
use std::path::PathBuf;

/// A source's answer to "what now?". It comes within about a fifth of a second, so that whoever asks can also look at its
/// stop flag; only decoding one image may take longer.
#[derive(Debug)]
pub enum Next {
    Frame(Frame),
    /// Nothing yet; ask again.
    Idle,
    /// One picture was passed over; the sentence says which and why.
    Skipped(CaptureError),
    /// The source's condition is another one now.
    Condition(Condition),
    /// There will never be another frame.
    End,
}

/// How a source is doing. The sentence is for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Running,
    /// No new frame within the deadline.
    Stalled(String),
    /// The same picture again and again.
    Frozen(String),
    /// The device or the hot folder is not there, or cannot be opened.
    Unplugged(String),
}

/// Something that gives frames.
pub trait Source: Send {
    fn next(&mut self) -> Next;

    /// The last frame was judged and what came of it is on disk: a hot folder may dispose of its file now, not earlier.
    ///
    /// # Errors
    /// The file could not be moved or removed; it will be judged again at the next start.
    fn judged(&mut self) -> Result<(), CaptureError> {
        Ok(())
    }

    /// Frames that the device gave and nobody judged.
    fn dropped(&self) -> u64 {
        0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error(transparent)]
    Image(#[from] DecodeError),
    #[error("cannot list the directory {path}: {source}")]
    List { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a directory; {key} must be one that exists")]
    NotADirectory { key: &'static str, path: PathBuf },
    #[error("no image (PNG, JPEG, BMP or TIFF) lies in or under {0}")]
    Empty(PathBuf),
    #[error("cannot {what} the judged image {path}: {source}")]
    Dispose { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the frame {frame} of {device} cannot be decoded: {reason}")]
    Frame { device: String, frame: u64, reason: String },
    #[error("{0}")]
    Config(String),
}

/// A source as the configuration describes it.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceConfig {
    Camera(CameraConfig),
    Directory(DirectoryConfig),
    Synthetic(SyntheticConfig),
}

impl SourceConfig {
    /// # Errors
    /// When the source can never give a frame. A camera or a hot folder that is not there *yet* is none of these: it comes
    /// as a [`Condition`].
    pub fn build(&self) -> Result<Box<dyn Source>, CaptureError> {
        Ok(match self {
            SourceConfig::Camera(c) => Box::new(camera::CameraSource::new(c)?),
            SourceConfig::Directory(c) => Box::new(directory::DirectorySource::new(c)?),
            SourceConfig::Synthetic(c) => Box::new(synthetic::SyntheticSource::new(c)?),
        })
    }

    /// What two pipelines cannot share: the device, or the hot folder whose files are disposed of.
    pub fn resource(&self) -> Option<String> {
        match self {
            SourceConfig::Camera(c) => Some(c.device.display().to_string()),
            SourceConfig::Directory(c) if c.mode == Mode::Watch => Some(c.path.display().to_string()),
            SourceConfig::Directory(_) | SourceConfig::Synthetic(_) => None,
        }
    }

    /// True when the source gives its last frame by itself.
    pub fn ends(&self) -> bool {
        match self {
            SourceConfig::Camera(_) => false,
            SourceConfig::Directory(c) => c.mode == Mode::Once,
            SourceConfig::Synthetic(c) => c.frames > 0,
        }
    }
}
