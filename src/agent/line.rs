//! One camera's thread: source → inspector → events → outbox.

use super::config::{CameraSettings, PictureFormat};
use super::quantile;
use crate::capture::{Condition, Next, Source};
use crate::events::{
    CameraHealth, CameraPhase, CameraState, Change, CloudEvent, FrameResult, Grouper, Kind, ModelRef, Topics, to_json,
};
use crate::mqtt::{Handle, Message, Rank, SharedOutbox, Stored};
use ckaad_bundle::{Filter, Input, ResizeMode};
use ckaad_inspect::imaging::{self, Frame, RgbImage};
use ckaad_inspect::{Counts, Inspector, Verdict};
use jiff::Timestamp;
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Sees every judged frame, in the line's thread: the demo measures with it.
pub type Observer = Arc<dyn Fn(&Frame, &Verdict) + Send + Sync>;

/// What others may see of a line while it runs.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub name: String,
    rounds: AtomicU64,
    judged: AtomicU64,
    defective: AtomicU64,
    skipped: AtomicU64,
    dropped: AtomicU64,
    inspect_us: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    pub(super) fn new(name: &str) -> Progress {
        Progress { name: name.to_owned(), ..Progress::default() }
    }

    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    pub(super) fn health(&self) -> CameraHealth {
        let judged = self.judged.load(Relaxed);
        CameraHealth {
            name: self.name.clone(),
            judged,
            defective: self.defective.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            mean_inspect_ms: self.inspect_us.load(Relaxed) as f64 / 1000.0 / judged.max(1) as f64,
        }
    }
}

/// What a line did, once it has ended.
#[derive(Clone, Debug)]
pub struct LineReport {
    pub health: CameraHealth,
    /// Of the last frames, from the image to the verdict.
    pub median_inspect_ms: f64,
    /// Alerts against what the source knew, when it knew.
    pub truth: Option<Counts>,
    pub why: String,
}

impl std::fmt::Display for LineReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let h = &self.health;
        write!(
            f,
            "{}: {} frames judged, {} defective, {} skipped, {} dropped",
            h.name, h.judged, h.defective, h.skipped, h.dropped
        )?;
        write!(f, ", {:.1} ms a frame (median)", self.median_inspect_ms)?;
        if let Some(counts) = self.truth {
            write!(
                f,
                "; of {} defective by label {} alerted, of {} good {} alerted",
                counts.defective(),
                counts.hits,
                counts.good(),
                counts.false_alarms
            )?;
        }
        write!(f, "; {}", self.why)
    }
}

/// Everything a line works with.
pub(super) struct Line {
    pub settings: CameraSettings,
    pub source: Box<dyn Source>,
    pub inspector: Inspector,
    pub model: ModelRef,
    pub topics: Topics,
    pub outbox: SharedOutbox,
    pub session: Handle,
    pub run: Uuid,
    pub config_digest: String,
    pub stop: Arc<AtomicBool>,
    pub progress: Arc<Progress>,
    pub observer: Option<Observer>,
}

/// Times kept for the median.
const TIMES: usize = 4096;
/// How often the camera's state is published while nothing changes, for its frame rate.
const STATE_EVERY: Duration = Duration::from_secs(30);

/// After so many frames in a row that the network could not judge, the camera counts as not inspected.
const FAILURES: u32 = 5;

struct Running {
    /// Frames in a row that could not be judged.
    failures: u32,
    grouper: Grouper,
    sequence: u64,
    times: Vec<f64>,
    truth: Option<Counts>,
    phase: (CameraPhase, String, Timestamp),
    said_at: Instant,
    said_judged: u64,
}

impl Line {
    /// Runs until the source ends or the stop flag is set.
    pub(super) fn run(mut self) -> LineReport {
        let mut running = Running {
            failures: 0,
            grouper: Grouper::new(self.settings.grouping, self.settings.close_after),
            sequence: 0,
            times: Vec::new(),
            truth: None,
            phase: (CameraPhase::Running, String::new(), Timestamp::now()),
            said_at: Instant::now(),
            said_judged: 0,
        };
        self.say_state(&mut running);
        let why = loop {
            if self.stop.load(Relaxed) {
                break "the agent stopped";
            }
            match self.source.next() {
                Next::Frame(frame) => self.judge(&frame, &mut running),
                Next::Idle => {}
                Next::Skipped(why) => self.skip(&why.to_string()),
                Next::Condition(condition) => self.condition(condition, &mut running),
                Next::End => break "the source ended",
            }
            if running.said_at.elapsed() >= STATE_EVERY {
                self.say_state(&mut running);
            }
            self.progress.dropped.store(self.source.dropped(), Relaxed);
            // A model that fails is no progress: the watchdog starts us anew.
            if running.failures < FAILURES {
                self.progress.rounds.fetch_add(1, Relaxed);
            }
        };
        running.phase = (CameraPhase::Disabled, why.into(), Timestamp::now());
        self.say_state(&mut running);
        self.progress.ended.store(true, Relaxed);
        LineReport {
            health: self.progress.health(),
            median_inspect_ms: quantile(&mut running.times, 0.5),
            truth: running.truth,
            why: why.into(),
        }
    }

    fn skip(&self, why: &str) {
        self.progress.skipped.fetch_add(1, Relaxed);
        tracing::warn!(camera = self.settings.name, "{why}; it was skipped");
    }

    /// The model could not judge a frame: told for each at first, then once for all.
    fn failed(&self, why: &str, running: &mut Running) {
        running.failures = running.failures.saturating_add(1);
        match running.failures.cmp(&FAILURES) {
            Ordering::Less => self.skip(why),
            Ordering::Equal => {
                self.progress.skipped.fetch_add(1, Relaxed);
                let reason = format!("{FAILURES} frames in a row could not be judged, this is the last: {why}");
                tracing::error!(camera = self.settings.name, "{reason}");
                running.phase = (CameraPhase::Disabled, reason, Timestamp::now());
                self.say_state(running);
            }
            Ordering::Greater => drop(self.progress.skipped.fetch_add(1, Relaxed)),
        }
    }

    fn judge(&mut self, frame: &Frame, running: &mut Running) {
        let begun = Instant::now();
        let verdict = match self.inspector.inspect(&frame.image) {
            Ok(verdict) => verdict,
            Err(why) => return self.failed(&format!("the frame {} could not be judged: {why}", frame.id), running),
        };
        if std::mem::take(&mut running.failures) >= FAILURES {
            self.condition(Condition::Running, running);
        }
        let took = begun.elapsed();
        let defective = verdict.is_defective();
        self.progress.judged.fetch_add(1, Relaxed);
        self.progress.defective.fetch_add(u64::from(defective), Relaxed);
        self.progress.inspect_us.fetch_add(took.as_micros() as u64, Relaxed);
        if running.times.len() == TIMES {
            running.times.swap_remove((frame.sequence as usize * 31) % TIMES);
        }
        running.times.push(took.as_secs_f64() * 1000.0);
        if let Some(truth) = &frame.truth {
            running.truth.get_or_insert_default().count(truth.is_defective(), defective);
        }
        if let Some(observer) = &self.observer {
            observer(frame, &verdict);
        }
        let change = running.grouper.judge(defective, verdict.score);
        let safe = change.is_none_or(|change| self.publish(change, frame, &verdict, running));
        if self.settings.results {
            let result = FrameResult {
                frame_id: frame.id.clone(),
                captured_at: frame.captured_at,
                score: verdict.score,
                threshold: verdict.threshold,
                defective,
                inspect_ms: took.as_secs_f64() * 1000.0,
            };
            self.session.volatile(self.topics.result(&self.settings.name), to_json(&result));
        }
        // Only now may a hot folder dispose of the file, and only if what came of it would survive our end.
        if safe && let Err(why) = self.source.judged() {
            tracing::warn!(camera = self.settings.name, "{why}");
        }
    }

    /// The event first, its heatmap behind it. True when the event is on disk; a heatmap may be lost to make room.
    fn publish(&self, change: Change, frame: &Frame, verdict: &Verdict, running: &mut Running) -> bool {
        let with_heatmap = self.settings.heatmap.enabled && change.kind == Kind::Opened;
        let (name, prefix) = (&self.settings.name, self.topics.prefix());
        let stamp = (self.run, running.sequence);
        running.sequence += 1;
        let event = CloudEvent::anomaly(
            prefix,
            name,
            change,
            frame,
            verdict,
            &self.model,
            stamp,
            &self.config_digest,
            with_heatmap,
        );
        tracing::info!(
            camera = name,
            frame = frame.id,
            score = verdict.score,
            threshold = verdict.threshold,
            "{:?}",
            change.kind
        );
        let event_id = event.id.to_string();
        let safe = self.store(Message {
            rank: change.kind.into(),
            topic: self.topics.anomaly(name),
            content_type: "application/json".into(),
            event_id: event_id.clone(),
            payload: to_json(&event),
        });
        if with_heatmap {
            match self.picture(frame, verdict) {
                Ok((content_type, payload)) => {
                    let topic = self.topics.heatmap(name);
                    let _ = self.store(Message {
                        rank: Rank::Heatmap,
                        topic,
                        content_type: content_type.into(),
                        event_id,
                        payload,
                    });
                }
                Err(why) => tracing::warn!(camera = name, "the heatmap of {} could not be made: {why}", frame.id),
            }
        }
        safe
    }

    /// True when it is on disk.
    fn store(&self, message: Message) -> bool {
        // Dropped messages are counted by the outbox, which also says so.
        let stored = self.outbox.put(message);
        if let Err(why) = &stored {
            tracing::debug!(camera = self.settings.name, "{why}");
        }
        matches!(stored, Ok(Stored::OnDisk))
    }

    fn picture(&self, frame: &Frame, verdict: &Verdict) -> image::ImageResult<(&'static str, Vec<u8>)> {
        let picture = shrink(
            ckaad_inspect::heatmap(&frame.image, verdict, &self.inspector.manifest().input),
            self.settings.heatmap.max_side,
        );
        Ok(match self.settings.heatmap.format {
            PictureFormat::Png => ("image/png", imaging::encode_png(&picture)?),
            PictureFormat::Jpeg => ("image/jpeg", imaging::encode_jpeg(&picture, self.settings.heatmap.jpeg_quality)?),
        })
    }

    fn condition(&self, condition: Condition, running: &mut Running) {
        let (phase, reason) = match condition {
            Condition::Running => (CameraPhase::Running, String::new()),
            Condition::Stalled(why) => (CameraPhase::Stalled, why),
            Condition::Frozen(why) => (CameraPhase::Frozen, why),
            Condition::Unplugged(why) => (CameraPhase::Unplugged, why),
        };
        match phase {
            CameraPhase::Running => tracing::info!(camera = self.settings.name, "the camera runs"),
            _ => tracing::warn!(camera = self.settings.name, "{reason}"),
        }
        running.phase = (phase, reason, Timestamp::now());
        self.say_state(running);
    }

    fn say_state(&self, running: &mut Running) {
        let judged = self.progress.judged.load(Relaxed);
        let seconds = running.said_at.elapsed().as_secs_f64();
        let fps = if seconds > 0.5 { (judged - running.said_judged) as f64 / seconds } else { 0.0 };
        (running.said_at, running.said_judged) = (Instant::now(), judged);
        let (state, reason, since) = running.phase.clone();
        let state = CameraState { state, reason, fps, since, model: self.model.clone() };
        self.session.retain(self.topics.camera_state(&self.settings.name), to_json(&state));
    }
}

/// Reduced so that the longer side is at most `max_side`.
pub(super) fn shrink(picture: RgbImage, max_side: u32) -> RgbImage {
    let (w, h) = picture.dimensions();
    let longer = w.max(h);
    if longer <= max_side {
        return picture;
    }
    let side = |s: u32| (u64::from(s) * u64::from(max_side) / u64::from(longer)).max(1) as u32;
    let (w, h) = (side(w), side(h));
    let (bytes, _) =
        imaging::resize(&picture, &Input { width: w, height: h, fit: ResizeMode::Stretch, filter: Filter::Bilinear });
    RgbImage::from_raw(w, h, bytes).expect("resize gives width x height x 3 bytes")
}
