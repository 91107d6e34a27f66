//! Talking to systemd: logs to the journal, readiness, the watchdog.

use super::progress::CameraProgress;
use sd_notify::NotifyState;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// To the journal when standard error goes there, else to standard error. `RUST_LOG` overrides `filter`.
pub fn init_logs(filter: &str) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(filter))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    // A second initialisation, as in tests, leaves the first one in place.
    let _ = match tracing_journald::layer().ok().filter(|_| stderr_is_journal()) {
        Some(journal) => registry.with(journal).try_init(),
        None => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi)).try_init()
        }
    };
}

/// systemd writes device and inode of the journal's socket to `JOURNAL_STREAM`; a shell below a service inherits the variable
/// but often not the socket.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|m| stream == format!("{}:{}", m.dev(), m.ino()))
}

/// What `systemctl status` shows, and with `ready` that the start is over. Errors are passed over: without systemd there is nobody to tell.
pub(super) fn status(text: &str, ready: bool) {
    let status = NotifyState::Status(text);
    let _ = if ready { sd_notify::notify(&[NotifyState::Ready, status]) } else { sd_notify::notify(&[status]) };
}

pub(super) fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Feeds systemd's watchdog while every camera's thread makes progress.
pub(super) struct Watchdog {
    pub period: Option<Duration>,
    seen: Vec<u64>,
}

impl Watchdog {
    pub(super) fn new() -> Watchdog {
        Watchdog { period: sd_notify::watchdog_enabled().map(|limit| limit / 3), seen: Vec::new() }
    }

    /// Once a period. A thread makes progress when it went round: asked its source, and if there was a frame, judged it and handed
    /// over what came of it; the disk and the broker may take their time. A camera that is stalled or unplugged goes round and says so; an engine that hangs, or fails over
    /// every frame, does not.
    pub(super) fn feed(&mut self, cameras: &[Arc<CameraProgress>]) {
        let rounds: Vec<u64> = cameras.iter().map(|c| c.rounds()).collect();
        let stuck = rounds
            .iter()
            .zip(&self.seen)
            .zip(cameras)
            .find(|((now, before), camera)| now == before && !camera.has_ended());
        match stuck {
            Some((_, camera)) => tracing::error!("{} has made no progress; the watchdog is not fed", camera.name),
            None => drop(sd_notify::notify(&[NotifyState::Watchdog])),
        }
        self.seen = rounds;
    }
}
