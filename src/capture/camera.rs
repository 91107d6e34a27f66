//! A V4L2 camera through nokhwa.
//!
//! `frame()` of the driver blocks for as long as the camera is silent and cannot be interrupted, therefore it has a thread of
//! its own, which nobody ever waits for without a limit:
//!
//! ```text
//! grabber thread:  open ─► frame() ─► slot (the newest only; the one before counts as dropped)
//!                    ▲ backoff 0.5..10 s │ error: unplugged
//!                    └───────────────────┘
//! next():          slot ─► decode ─► the same bytes `frozen_after_frames` times? ─► Frame
//!                   └ nothing new for `frame_deadline_ms` ─► Stalled
//! ```
//!
//! A stalled camera is waited for: its driver's call stays open, and the first frame ends the condition. (Closing the device under a
//! blocked call is not possible with nokhwa.) An unplugged one is opened again with backoff.

use super::convert::to_rgb;
use super::pace::PATIENCE;
use super::{BadValue, CaptureError, Condition, Next, Source};
use ckaad_inspect::imaging::Frame;
use jiff::Timestamp;
use nokhwa::utils::{CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType, Resolution};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A camera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CameraConfig {
    /// `/dev/videoN`, or a link to it such as those in `/dev/v4l/by-id`, which stay the same when cameras are plugged in another order.
    pub device: PathBuf,
    /// Pixels; 0 is the largest size up to 1920x1080.
    pub width: u32,
    pub height: u32,
    /// Frames a second; 0 is the fastest.
    pub fps: u32,
    /// No new frame for this long: the camera is `stalled`.
    pub frame_deadline_ms: u64,
    /// The same bytes for this many frames: the camera is `frozen`; 0 never looks.
    pub frozen_after_frames: u32,
}

impl Default for CameraConfig {
    fn default() -> Self {
        CameraConfig {
            device: "/dev/video0".into(),
            width: 0,
            height: 0,
            fps: 0,
            frame_deadline_ms: 2000,
            frozen_after_frames: 50,
        }
    }
}

impl CameraConfig {
    pub(super) fn check(&self) -> Result<(), BadValue> {
        if self.device.as_os_str().is_empty() {
            return Err(BadValue {
                key: "device.device",
                reason: "is empty; expected a camera such as /dev/video0".into(),
            });
        }
        if self.frame_deadline_ms < 50 {
            let reason = format!("is {}; expected 50 or more", self.frame_deadline_ms);
            return Err(BadValue { key: "device.frame_deadline_ms", reason });
        }
        if (self.width == 0) != (self.height == 0) {
            let reason = format!("is {} and `device.height` is {}; expected both, or both 0", self.width, self.height);
            return Err(BadValue { key: "device.width", reason });
        }
        Ok(())
    }
}

/// How long a driver may take to open the device before the camera counts as stalled.
const OPENING: Duration = Duration::from_secs(10);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Formats that are converted, best first: uncompressed before JPEG, whose artefacts look like texture.
const FORMATS: [(&[u8; 4], FrameFormat); 5] = [
    (b"YUYV", FrameFormat::YUYV),
    (b"NV12", FrameFormat::NV12),
    (b"RGB3", FrameFormat::RAWRGB),
    (b"BGR3", FrameFormat::RAWBGR),
    (b"MJPG", FrameFormat::MJPEG),
];

/// A frame as the driver gave it.
struct RawFrame {
    data: Vec<u8>,
    format: CameraFormat,
    captured_at: Timestamp,
    sequence: u64,
}

#[derive(Default)]
struct Slot {
    newest: Option<RawFrame>,
    /// Why there is no camera, while there is none.
    unplugged: Option<String>,
    /// Of the newest frame, or of opening the device: what the deadline counts from.
    alive_at: Option<Instant>,
    dropped: u64,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Shared {
    /// A slot is valid after every statement, so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Slot)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

pub(super) struct CameraSource {
    config: CameraConfig,
    shared: Arc<Shared>,
    started: Instant,
    condition: Option<Condition>,
    /// A frame that waits until its change of condition was told.
    held: Option<Frame>,
    last_hash: u64,
    same: u32,
}

impl CameraSource {
    pub(super) fn new(config: &CameraConfig) -> Result<Self, CaptureError> {
        let shared = Arc::new(Shared::default());
        let (for_thread, config_of_thread) = (shared.clone(), config.clone());
        std::thread::Builder::new()
            .name(format!("grab {}", config.device.display()))
            .spawn(move || {
                grab(&config_of_thread, &for_thread);
                for_thread.set(|slot| slot.ended = true);
            })
            .map_err(|cause| CaptureError::Thread { device: config.device.clone(), cause })?;
        let (config, started) = (config.clone(), Instant::now());
        Ok(CameraSource { config, shared, started, condition: None, held: None, last_hash: 0, same: 0 })
    }

    /// Tells a change of condition once; the sentence alone is no change.
    fn becomes(&mut self, condition: Condition) -> Next {
        let kind = std::mem::discriminant(&condition);
        if self.condition.as_ref().is_some_and(|c| std::mem::discriminant(c) == kind) {
            return Next::Idle;
        }
        self.condition = Some(condition.clone());
        Next::Condition(condition)
    }

    /// True when the camera has repeated itself for too long.
    fn frozen(&mut self, data: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        let hash = hasher.finish();
        self.same = if hash == self.last_hash { self.same.saturating_add(1) } else { 0 };
        self.last_hash = hash;
        self.config.frozen_after_frames > 0 && self.same >= self.config.frozen_after_frames
    }
}

impl Source for CameraSource {
    fn next(&mut self) -> Next {
        if let Some(frame) = self.held.take() {
            return Next::Frame(frame);
        }
        let device = self.config.device.display().to_string();
        let raw = {
            let slot = self.shared.lock();
            let waited = self.shared.changed.wait_timeout_while(slot, PATIENCE, |s| s.newest.is_none());
            let (mut slot, _) = waited.unwrap_or_else(PoisonError::into_inner);
            match slot.newest.take() {
                Some(raw) => raw,
                None => {
                    let deadline = Duration::from_millis(self.config.frame_deadline_ms);
                    // A driver may also hang when it is opened for the first time.
                    let opening = || self.condition.is_none() && self.started.elapsed() > OPENING.max(deadline);
                    let late = slot.alive_at.map_or_else(opening, |at| at.elapsed() > deadline);
                    let why = slot.unplugged.clone();
                    drop(slot);
                    return match why {
                        Some(why) => self.becomes(Condition::Unplugged(why)),
                        None if late => {
                            let ms = self.config.frame_deadline_ms;
                            self.becomes(Condition::Stalled(format!("no new frame from {device} for {ms} ms")))
                        }
                        None => Next::Idle,
                    };
                }
            }
        };
        if self.frozen(&raw.data) {
            let n = self.same;
            return self.becomes(Condition::Frozen(format!("{device} has given the same frame {n} times")));
        }
        let size = raw.format.resolution();
        match to_rgb(&raw.data, size.width(), size.height(), raw.format.format()) {
            Ok(image) => {
                let id = format!("frame-{:08}", raw.sequence);
                let frame =
                    Frame { id, sequence: raw.sequence, captured_at: raw.captured_at, image, truth: None, part: None };
                match self.becomes(Condition::Running) {
                    Next::Idle => Next::Frame(frame),
                    change => {
                        self.held = Some(frame);
                        change
                    }
                }
            }
            Err(reason) => Next::Skipped(CaptureError::Frame { device, frame: raw.sequence, reason }),
        }
    }

    fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }
}

impl Drop for CameraSource {
    /// Gives the grabber a moment to stop the stream; a thread that is stuck in a silent driver ends with the process.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        drop(self.shared.changed.wait_timeout_while(self.shared.lock(), PATIENCE * 2, |s| !s.ended));
    }
}

/// The grabber: opens, reads, opens again.
fn grab(config: &CameraConfig, shared: &Shared) {
    let mut backoff = BACKOFF.0;
    let mut sequence = 0;
    while !shared.stopped() {
        let serve = |mut camera: nokhwa::Camera| {
            shared.set(|slot| {
                slot.unplugged = None;
                slot.alive_at = Some(Instant::now());
            });
            let format = camera.camera_format();
            while !shared.stopped() {
                let buffer = camera.frame().map_err(|e| format!("{} is gone: {e}", config.device.display()))?;
                let raw = RawFrame { data: buffer.buffer().to_vec(), format, captured_at: Timestamp::now(), sequence };
                sequence += 1;
                backoff = BACKOFF.0;
                shared.set(|slot| {
                    slot.alive_at = Some(Instant::now());
                    slot.dropped += u64::from(slot.newest.replace(raw).is_some());
                });
            }
            camera.stop_stream().map_err(|e| e.to_string())
        };
        // A driver's answer that nokhwa does not expect can make it panic; the camera is opened again after that, too.
        let ended = catch_unwind(AssertUnwindSafe(|| open(config).and_then(serve)))
            .unwrap_or_else(|_| Err(format!("reading from {} broke down (a panic)", config.device.display())));
        if let Err(why) = ended {
            shared.set(|slot| {
                slot.unplugged = Some(why);
                slot.newest = None;
            });
            let until = Instant::now() + backoff;
            backoff = (backoff * 2).min(BACKOFF.1);
            while Instant::now() < until && !shared.stopped() {
                drop(shared.changed.wait_timeout(shared.lock(), PATIENCE));
            }
        }
    }
}

fn open(config: &CameraConfig) -> Result<nokhwa::Camera, String> {
    let path = config.device.display();
    let index = index_of(&config.device).ok_or_else(|| format!("{path} is not there, or no /dev/videoN"))?;
    let format = choose(&Device::read(index)?, config)?;
    let wanted = [format.format()];
    let request = RequestedFormat::with_formats(RequestedFormatType::Exact(format), &wanted);
    let mut camera = nokhwa::Camera::new(CameraIndex::Index(index as u32), request)
        .map_err(|e| format!("cannot open {path}: {e}"))?;
    camera.open_stream().map_err(|e| format!("cannot start {path}: {e}"))?;
    Ok(camera)
}

/// `/dev/video7`, or a link to it → 7. Also while the device is not there, and its link leads nowhere.
pub(super) fn index_of(device: &Path) -> Option<usize> {
    let target = device.canonicalize().unwrap_or_else(|_| link_target(device));
    target.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()
}

/// Where links lead, as far as they can be followed.
fn link_target(path: &Path) -> PathBuf {
    // As many as Linux follows itself.
    const MOST_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(next) = std::fs::read_link(&target) else { break };
        target = target.parent().map_or(next.clone(), |folder| folder.join(&next));
    }
    target
}

/// The exact format to ask for: left to itself, nokhwa may switch the device to its smallest.
fn choose(device: &Device, config: &CameraConfig) -> Result<CameraFormat, String> {
    let area = |w: u32, h: u32| u64::from(w) * u64::from(h);
    let rank = |fourcc: &str| FORMATS.iter().position(|(known, _)| fourcc.as_bytes() == known.as_slice());
    let fitting = device.formats.iter().filter_map(|f| {
        let size_fits = if config.width == 0 {
            f.width <= 1920 && f.height <= 1080
        } else {
            (f.width, f.height) == (config.width, config.height)
        };
        let rate_fits = config.fps == 0 || f.fps == config.fps;
        rank(&f.fourcc).filter(|_| size_fits && rate_fits).map(|rank| (rank, f))
    });
    let best = fitting.max_by_key(|(rank, f)| (area(f.width, f.height), std::cmp::Reverse(*rank), f.fps));
    let (rank, f) = best.ok_or_else(|| {
        let (w, h, fps) = (config.width, config.height, config.fps);
        let has: Vec<String> = device.formats.iter().map(ToString::to_string).collect();
        format!(
            "{} has no format for {w}x{h} at {fps} fps that can be read (0 is any); it has: {}",
            device.path,
            has.join(", ")
        )
    })?;
    Ok(CameraFormat::new(Resolution::new(f.width, f.height), FORMATS[rank].1, f.fps))
}

/// What a device says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    pub path: String,
    pub card: String,
    pub driver: String,
    pub formats: Vec<DeviceFormat>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceFormat {
    pub fourcc: String,
    pub width: u32,
    pub height: u32,
    pub fps: u32,
}

impl std::fmt::Display for DeviceFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}x{} at {} fps", self.fourcc, self.width, self.height, self.fps)
    }
}

impl Device {
    /// Whole rates and discrete sizes only: nokhwa can ask for no others.
    fn read(index: usize) -> Result<Device, String> {
        use v4l::video::Capture;
        let path = format!("/dev/video{index}");
        let cannot = |e: std::io::Error| format!("cannot open {path}: {e}");
        let device = v4l::Device::new(index).map_err(cannot)?;
        let caps = device.query_caps().map_err(cannot)?;
        let mut formats = Vec::new();
        for kind in device.enum_formats().map_err(cannot)? {
            for size in device.enum_framesizes(kind.fourcc).unwrap_or_default() {
                let v4l::framesize::FrameSizeEnum::Discrete(size) = size.size else { continue };
                for rate in device.enum_frameintervals(kind.fourcc, size.width, size.height).unwrap_or_default() {
                    if let v4l::frameinterval::FrameIntervalEnum::Discrete(rate) = rate.interval
                        && rate.numerator == 1
                    {
                        let fourcc = kind.fourcc.to_string();
                        let fps = rate.denominator;
                        formats.push(DeviceFormat { fourcc, width: size.width, height: size.height, fps });
                    }
                }
            }
        }
        Ok(Device { path, card: caps.card, driver: caps.driver, formats })
    }
}

/// Every `/dev/videoN`, in order; what cannot be opened comes as a sentence. (nokhwa's own query panics over a
/// `/dev/video-something` without a number.)
pub fn list() -> Vec<Result<Device, String>> {
    indices_in(Path::new("/dev")).into_iter().map(Device::read).collect()
}

/// The numbers of the files `videoN`, in order.
fn indices_in(folder: &Path) -> Vec<usize> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut indices: Vec<usize> =
        entries.filter_map(|e| e.file_name().to_str()?.strip_prefix("video")?.parse().ok()).collect();
    indices.sort_unstable();
    indices
}

#[cfg(test)]
#[path = "camera_tests.rs"]
mod tests;
