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
//! A source is config that builds: [`SourceConfig::check`] looks at its values, [`SourceConfig::build`] gives the running thing,
//! [`SourceConfig::resource`] names what it takes, so that two pipelines on one device are refused before either starts.

mod camera;
mod convert;
mod directory;
mod pace;
mod synthetic;

pub use camera::{CameraConfig, Device, list as list_devices};
pub use convert::{FrameFormat, to_rgb};
pub use directory::{AfterInspection, DirectoryConfig, Mode};
pub use synthetic::SyntheticConfig;

use ckaad_inspect::imaging::{DecodeError, Frame};
use std::path::{Path, PathBuf};

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

    /// The frame of this sequence number was judged and what came of it is on disk: a hot folder may dispose of its file now, not
    /// earlier. Frames that are never named here were not judged, or their events are not safe.
    ///
    /// # Errors
    /// The file could not be moved or removed; it will be judged again at the next start.
    fn judged(&mut self, sequence: u64) -> Result<(), CaptureError> {
        let _ = sequence;
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
    #[error("cannot list the directory {path}: {cause}")]
    List { path: PathBuf, cause: std::io::Error },
    #[error("{path} is not a directory; `{key}` must be one that exists")]
    NotADirectory { key: &'static str, path: PathBuf },
    #[error("no image (PNG, JPEG, BMP or TIFF) lies in or under {0}")]
    Empty(PathBuf),
    #[error("cannot {what} the judged image {path}: {cause}")]
    Dispose { what: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("the frame {frame} of {device} cannot be decoded: {reason}")]
    Frame { device: String, frame: u64, reason: String },
    #[error("this build leaves the synthetic line out (the feature `demo`)")]
    LeftOut,
    #[error("cannot start a thread for {device}: {cause}")]
    Thread { device: PathBuf, cause: std::io::Error },
}

/// A value that no source can work with: the key below the camera's table, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// As `device.frame_deadline_ms`.
    pub key: &'static str,
    /// As `is 1; expected 50 or more`.
    pub reason: String,
}

/// What two pipelines cannot share, whatever it is called by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// `/dev/videoN`.
    Video(usize),
    /// A device or folder by its path, links resolved where it is there.
    Path(PathBuf),
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Resource::Video(index) => write!(f, "/dev/video{index}"),
            Resource::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A source as the configuration describes it.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceConfig {
    Camera(CameraConfig),
    Directory(DirectoryConfig),
    Synthetic(SyntheticConfig),
}

impl SourceConfig {
    /// Looks at every value; nothing outside the configuration is asked, so that what is not there *yet* is no mistake.
    ///
    /// # Errors
    /// The first value that is wrong.
    pub fn check(&self) -> Result<(), BadValue> {
        match self {
            SourceConfig::Camera(c) => c.check(),
            SourceConfig::Directory(c) => c.check(),
            SourceConfig::Synthetic(c) => c.check(),
        }
    }

    /// Starts the source. Its values were checked ([`SourceConfig::check`]).
    ///
    /// # Errors
    /// When the source can never give a frame. A camera or a hot folder that is not there *yet* is none of these: it comes
    /// as a [`Condition`].
    pub fn build(&self) -> Result<Box<dyn Source>, CaptureError> {
        Ok(match self {
            SourceConfig::Camera(c) => Box::new(camera::CameraSource::new(c)?),
            SourceConfig::Directory(c) => Box::new(directory::DirectorySource::new(c)?),
            #[cfg(feature = "demo")]
            SourceConfig::Synthetic(c) => Box::new(synthetic::SyntheticSource::new(c)),
            #[cfg(not(feature = "demo"))]
            SourceConfig::Synthetic(_) => return Err(CaptureError::LeftOut),
        })
    }

    /// What two pipelines cannot share: the device, or the hot folder whose files are disposed of.
    pub fn resource(&self) -> Option<Resource> {
        let canonical = |path: &Path| Resource::Path(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
        match self {
            SourceConfig::Camera(c) => {
                Some(camera::index_of(&c.device).map_or_else(|| canonical(&c.device), Resource::Video))
            }
            SourceConfig::Directory(c) if c.mode == Mode::Watch => Some(canonical(&c.path)),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(device: &Path) -> SourceConfig {
        SourceConfig::Camera(CameraConfig { device: device.into(), ..CameraConfig::default() })
    }

    fn directory(path: &Path, mode: Mode) -> SourceConfig {
        SourceConfig::Directory(DirectoryConfig { path: path.into(), mode, ..DirectoryConfig::default() })
    }

    #[test]
    fn two_spellings_of_one_thing_are_one_resource() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("by-id");
        std::os::unix::fs::symlink("/dev/video77", &link).unwrap();
        for device in [Path::new("/dev/video77"), Path::new("/dev/../dev/video77"), &link] {
            assert_eq!(camera(device).resource(), Some(Resource::Video(77)), "{device:?}");
        }
        assert_eq!(Resource::Video(77).to_string(), "/dev/video77");
        let (hot, same) = (folder.path().join("hot"), folder.path().join("hot/../hot"));
        let other = folder.path().join("other");
        std::fs::create_dir(&hot).unwrap();
        let resource = |path| directory(path, Mode::Watch).resource().unwrap();
        assert_eq!(resource(&hot), resource(&same));
        assert_ne!(resource(&hot), resource(&other));
        assert_eq!(resource(&other).to_string(), other.display().to_string());
        // What is only read can be shared.
        for mode in [Mode::Once, Mode::Loop] {
            assert_eq!(directory(&hot, mode).resource(), None);
        }
        assert_eq!(SourceConfig::Synthetic(SyntheticConfig::default()).resource(), None);
        // A device of another name is its path.
        let odd = folder.path().join("odd");
        assert_eq!(camera(&odd).resource(), Some(Resource::Path(odd)));
    }

    /// What a source need not say: it drops nothing, and has nothing to dispose of.
    #[test]
    fn a_plain_source_drops_nothing() {
        struct Empty;
        impl Source for Empty {
            fn next(&mut self) -> Next {
                Next::End
            }
        }
        assert_eq!(Empty.dropped(), 0);
        Empty.judged(1).unwrap();
    }

    #[test]
    fn a_source_ends_or_goes_on_for_ever() {
        let synthetic = |frames| SourceConfig::Synthetic(SyntheticConfig { frames, ..SyntheticConfig::default() });
        assert!(directory(Path::new("a"), Mode::Once).ends() && synthetic(1).ends());
        let for_ever = [
            directory(Path::new("a"), Mode::Loop),
            directory(Path::new("a"), Mode::Watch),
            synthetic(0),
            camera(Path::new("/dev/video0")),
        ];
        assert!(!for_ever.iter().any(SourceConfig::ends));
    }

    #[test]
    fn a_wrong_value_is_found_whatever_the_source() {
        let key = |source: SourceConfig| source.check().unwrap_err().key;
        assert_eq!(key(camera(Path::new(""))), "device.device");
        assert_eq!(key(directory(Path::new(""), Mode::Once)), "directory.path");
        let nowhere = SyntheticConfig { width: 1, ..SyntheticConfig::default() };
        let expected = if cfg!(feature = "demo") { "synthetic.width" } else { "source" };
        assert_eq!(key(SourceConfig::Synthetic(nowhere)), expected);
    }
}
