use super::pace::{PATIENCE, Pace, valid_rate};
use super::{CaptureError, Next, Source};
use crate::imaging::{self, Frame, Truth};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// What becomes of the images in the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every image once, in the order of their paths; then the source ends.
    #[default]
    Once,
    /// As `once`, again and again.
    Loop,
    /// A hot folder: every image that is there or comes, as soon as its size no longer changes.
    Watch,
}

/// What a hot folder does with an image that was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AfterInspection {
    /// Leaves it; it is judged again after a restart.
    #[default]
    Keep,
    Remove,
    /// Moves it to `move_to`.
    Move,
}

/// Images from a directory, with all below it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DirectoryConfig {
    /// The directory.
    pub path: PathBuf,
    pub mode: Mode,
    /// Images a second; 0 is as fast as they are judged.
    pub fps: f64,
    /// `watch` only: what happens to a judged image.
    pub after: AfterInspection,
    /// `after = "move"` only: where to.
    pub move_to: PathBuf,
    /// `watch` only: how long an image's size must stay the same before it counts as complete, in milliseconds.
    pub settle_ms: u64,
    /// Folder names tell the truth, as in the MVTec layout: `good` is good, any other a kind of defect. Only for counting.
    pub labelled: bool,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        DirectoryConfig {
            path: PathBuf::new(),
            mode: Mode::Once,
            fps: 0.0,
            after: AfterInspection::Keep,
            move_to: PathBuf::new(),
            settle_ms: 500,
            labelled: false,
        }
    }
}

pub(super) struct DirectorySource {
    config: DirectoryConfig,
    pace: Pace,
    queue: VecDeque<PathBuf>,
    /// `watch`: size when last looked at, and since when it is that.
    settling: HashMap<PathBuf, (u64, Option<SystemTime>, Instant)>,
    /// `watch` with `keep`: what was queued already.
    seen: HashSet<PathBuf>,
    /// The image that is being judged.
    current: Option<PathBuf>,
    sequence: u64,
    last_scan: Option<Instant>,
}

impl DirectorySource {
    pub(super) fn new(config: &DirectoryConfig) -> Result<Self, CaptureError> {
        if !config.path.is_dir() {
            return Err(CaptureError::NotADirectory(config.path.clone()));
        }
        if !valid_rate(config.fps) {
            return Err(CaptureError::Config(format!(
                "directory.fps is {}; expected 0 or a rate up to 10000",
                config.fps
            )));
        }
        if config.after != AfterInspection::Keep && config.mode != Mode::Watch {
            return Err(CaptureError::Config(
                "directory.after works in the mode \"watch\" only; it is a hot folder's setting".into(),
            ));
        }
        if config.after == AfterInspection::Move && !config.move_to.is_dir() {
            return Err(CaptureError::NotADirectory(config.move_to.clone()));
        }
        let mut source = DirectorySource {
            pace: Pace::new(config.fps),
            config: config.clone(),
            queue: VecDeque::new(),
            settling: HashMap::new(),
            seen: HashSet::new(),
            current: None,
            sequence: 0,
            last_scan: None,
        };
        if config.mode != Mode::Watch {
            source.queue = images_under(&config.path)?.into();
            if source.queue.is_empty() {
                return Err(CaptureError::Empty(config.path.clone()));
            }
        }
        Ok(source)
    }

    /// Queues what has settled since the last look.
    fn scan(&mut self) -> Result<(), CaptureError> {
        let due = self.last_scan.is_none_or(|at| at.elapsed() >= PATIENCE);
        if !due {
            return Ok(());
        }
        self.last_scan = Some(Instant::now());
        let found = images_under(&self.config.path)?;
        let there: HashSet<&PathBuf> = found.iter().collect();
        self.settling.retain(|path, _| there.contains(path));
        self.seen.retain(|path| there.contains(path));
        for path in found {
            if self.seen.contains(&path)
                || path.starts_with(&self.config.move_to) && self.config.after == AfterInspection::Move
            {
                continue;
            }
            let Ok(meta) = path.metadata() else { continue };
            let now = (meta.len(), meta.modified().ok());
            let entry = self.settling.entry(path.clone()).or_insert((now.0, now.1, Instant::now()));
            if (entry.0, entry.1) != now {
                *entry = (now.0, now.1, Instant::now());
            } else if now.0 > 0 && entry.2.elapsed().as_millis() >= u128::from(self.config.settle_ms) {
                self.settling.remove(&path);
                self.seen.insert(path.clone());
                self.queue.push_back(path);
            }
        }
        Ok(())
    }
}

impl Source for DirectorySource {
    fn next(&mut self) -> Next {
        if self.queue.is_empty() {
            match self.config.mode {
                Mode::Once => return Next::End,
                Mode::Loop => match images_under(&self.config.path) {
                    Ok(images) => self.queue = images.into(),
                    Err(e) => {
                        std::thread::sleep(PATIENCE);
                        return Next::Skipped(e);
                    }
                },
                Mode::Watch => {
                    if let Err(e) = self.scan() {
                        std::thread::sleep(PATIENCE);
                        return Next::Skipped(e);
                    }
                }
            }
        }
        if self.queue.is_empty() {
            std::thread::sleep(PATIENCE / 4);
            return Next::Idle;
        }
        if !self.pace.wait() {
            return Next::Idle;
        }
        let Some(path) = self.queue.pop_front() else { return Next::Idle };
        let sequence = self.sequence;
        self.sequence += 1;
        match imaging::load(&path) {
            Ok(image) => {
                let id = path.strip_prefix(&self.config.path).unwrap_or(&path).display().to_string();
                let truth = self.config.labelled.then(|| truth_of(&path));
                self.current = Some(path);
                Next::Frame(Frame { id, sequence, captured_at: Timestamp::now(), image, truth })
            }
            Err(e) => Next::Skipped(e.into()),
        }
    }

    fn judged(&mut self) -> Result<(), CaptureError> {
        let Some(path) = self.current.take() else { return Ok(()) };
        match self.config.after {
            AfterInspection::Keep => Ok(()),
            AfterInspection::Remove => {
                std::fs::remove_file(&path).map_err(|source| CaptureError::Dispose { what: "remove", path, source })
            }
            AfterInspection::Move => {
                let target = self.config.move_to.join(path.strip_prefix(&self.config.path).unwrap_or(&path));
                let done =
                    target.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| rename(&path, &target));
                done.map_err(|source| CaptureError::Dispose { what: "move", path, source })
            }
        }
    }
}

/// A rename that also works across file systems.
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => {
            std::fs::copy(from, to)?;
            std::fs::remove_file(from)
        }
        other => other,
    }
}

/// The truth by the name of the image's folder.
fn truth_of(path: &Path) -> Truth {
    match path.parent().and_then(Path::file_name).and_then(|n| n.to_str()) {
        Some("good") | None => Truth::Good,
        Some(kind) => Truth::Defective(kind.to_owned()),
    }
}

/// Every image file in and below `root`, sorted by path. Hidden files and folders are passed over; folder links are not
/// followed, so there is no way round in a circle.
fn images_under(root: &Path) -> Result<Vec<PathBuf>, CaptureError> {
    let mut images = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let list = |source| CaptureError::List { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(list)? {
            let entry = entry.map_err(list)?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(_) if is_image(&path) => images.push(path),
                _ => {}
            }
        }
    }
    images.sort();
    Ok(images)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    matches!(extension.as_str(), "png" | "jpg" | "jpeg" | "bmp" | "tif" | "tiff")
}
