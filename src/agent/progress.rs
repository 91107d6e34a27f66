//! What others may see of a camera's thread while it runs: health, the watchdog, systemd's status line, the closing report.

use super::quantile;
use crate::events::{CameraHealth, CameraPhase};
use ckaad_inspect::Counts;
use ckaad_inspect::imaging::Truth;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Times kept for the median: those of the last frames.
const TIMES: usize = 4096;

/// The counts of one camera. Its thread writes them, everybody else reads.
#[derive(Debug)]
pub(super) struct CameraProgress {
    pub name: String,
    rounds: AtomicU64,
    judged: AtomicU64,
    defective: AtomicU64,
    too_small: AtomicU64,
    skipped: AtomicU64,
    dropped: AtomicU64,
    inspect_us: AtomicU64,
    wait_us: AtomicU64,
    more: Mutex<More>,
    /// Wakes whoever waits for a change of phase; shared by all cameras.
    phase_changed: Arc<Notify>,
}

/// What does not fit into a number.
#[derive(Debug)]
struct More {
    /// Milliseconds of the last frames; the oldest is overwritten.
    times: Vec<f64>,
    oldest: usize,
    truth: Option<Counts>,
    phase: CameraPhase,
    reason: String,
    /// Once it has ended.
    report: Option<CameraReport>,
}

impl CameraProgress {
    pub(super) fn new(name: &str, phase_changed: Arc<Notify>) -> CameraProgress {
        let (phase, reason) = (CameraPhase::Starting, String::new());
        CameraProgress {
            name: name.to_owned(),
            rounds: AtomicU64::new(0),
            judged: AtomicU64::new(0),
            defective: AtomicU64::new(0),
            too_small: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            inspect_us: AtomicU64::new(0),
            wait_us: AtomicU64::new(0),
            more: Mutex::new(More { times: Vec::new(), oldest: 0, truth: None, phase, reason, report: None }),
            phase_changed,
        }
    }

    /// Valid after every statement, so a lock poisoned by a panic elsewhere is taken as it is.
    fn more(&self) -> MutexGuard<'_, More> {
        self.more.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source was asked, and if there was a frame it was judged.
    pub(super) fn went_round(&self) {
        self.rounds.fetch_add(1, Relaxed);
    }

    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }

    /// `took`: from the image to the verdict, behind the time that it `waited` for its turn.
    pub(super) fn judged(&self, took: Duration, waited: Duration, defective: bool, truth: Option<&Truth>) {
        self.judged.fetch_add(1, Relaxed);
        self.defective.fetch_add(u64::from(defective), Relaxed);
        self.inspect_us.fetch_add(took.as_micros() as u64, Relaxed);
        self.wait_us.fetch_add(waited.as_micros() as u64, Relaxed);
        let mut more = self.more();
        let ms = took.as_secs_f64() * 1000.0;
        if more.times.len() < TIMES {
            more.times.push(ms);
        } else {
            let oldest = more.oldest;
            more.times[oldest] = ms;
            more.oldest = (oldest + 1) % TIMES;
        }
        if let Some(truth) = truth {
            more.truth.get_or_insert_default().count(truth.is_defective(), defective);
        }
    }

    /// A score reached the threshold by regions that do not count.
    pub(super) fn too_small(&self) {
        self.too_small.fetch_add(1, Relaxed);
    }

    pub(super) fn skipped(&self) {
        self.skipped.fetch_add(1, Relaxed);
    }

    pub(super) fn set_dropped(&self, frames: u64) {
        self.dropped.store(frames, Relaxed);
    }

    pub(super) fn set_phase(&self, phase: CameraPhase, reason: &str) {
        let mut more = self.more();
        if more.phase != phase || more.reason != reason {
            (more.phase, more.reason) = (phase, reason.to_owned());
            self.phase_changed.notify_one();
        }
    }

    /// True once it was judged a first time, or it was said why not.
    pub(super) fn has_started(&self) -> bool {
        self.more().phase != CameraPhase::Starting
    }

    /// For systemd's status line: `cam0 runs`, or the name and the trouble.
    pub(super) fn status(&self) -> String {
        let more = self.more();
        match more.phase {
            CameraPhase::Starting => format!("{} starts", self.name),
            CameraPhase::Running => format!("{} runs", self.name),
            _ => format!("{}: {}", self.name, more.reason),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.more().report.is_some()
    }

    pub(super) fn health(&self) -> CameraHealth {
        let judged = self.judged.load(Relaxed);
        let mean_ms = |us: &AtomicU64| us.load(Relaxed) as f64 / 1000.0 / judged.max(1) as f64;
        CameraHealth {
            name: self.name.clone(),
            judged,
            defective: self.defective.load(Relaxed),
            too_small: self.too_small.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            mean_inspect_ms: mean_ms(&self.inspect_us),
            mean_wait_ms: mean_ms(&self.wait_us),
        }
    }

    /// The thread has ended as it should.
    pub(super) fn ended(&self, why: &str) -> CameraReport {
        let mut more = self.more();
        let report = CameraReport {
            health: self.health(),
            median_inspect_ms: quantile(&mut more.times, 0.5),
            truth: more.truth,
            why: why.into(),
        };
        more.report = Some(report.clone());
        report
    }

    /// None before it has ended.
    pub(super) fn report(&self) -> Option<CameraReport> {
        self.more().report.clone()
    }
}

/// What a camera's thread did, once it has ended.
#[derive(Clone, Debug)]
pub struct CameraReport {
    pub health: CameraHealth,
    /// Of the last frames, from the image to the verdict.
    pub median_inspect_ms: f64,
    /// Alerts against what the source knew, when it knew.
    pub truth: Option<Counts>,
    pub why: String,
}

impl std::fmt::Display for CameraReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let h = &self.health;
        write!(
            f,
            "{}: {} frames judged, {} defective, {} skipped, {} dropped",
            h.name, h.judged, h.defective, h.skipped, h.dropped
        )?;
        if h.too_small > 0 {
            write!(f, ", {} good for their regions are too small", h.too_small)?;
        }
        write!(f, ", {:.1} ms a frame (median)", self.median_inspect_ms)?;
        if let Some(counts) = self.truth {
            let (defective, good) = (counts.defective(), counts.good());
            let Counts { hits, false_alarms, .. } = counts;
            write!(f, "; of {defective} defective by label {hits} alerted, of {good} good {false_alarms} alerted")?;
        }
        write!(f, "; {}", self.why)
    }
}
