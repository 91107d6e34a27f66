//! The wiring of `run`: bundles and sources first, so that what cannot work is said before anything is published; then the
//! outbox, the session, the lines; then waiting.

use super::config::Settings;
use super::line::{Line, LineReport, Observer, Progress};
use super::{notify, peak_rss_bytes};
use crate::capture::{CaptureError, Source};
use crate::events::{Health, ModelRef, OutboxHealth, to_json};
use crate::mqtt::{Handle, Outbox, Session, SharedOutbox};
use ckaad_bundle::{Bundle, BundleError};
use ckaad_inspect::{InspectError, InspectOptions, Inspector};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("camera {camera}: {source}")]
    Bundle { camera: String, source: Box<BundleError> },
    #[error("camera {camera}: the bundle {bundle} cannot be run: {source}")]
    Inspect { camera: String, bundle: String, source: Box<InspectError> },
    #[error("camera {camera}: {source}")]
    Capture { camera: String, source: CaptureError },
    #[error("cannot start the agent: {0}")]
    Start(#[from] std::io::Error),
    #[error("the inspection of {0} did not end as it should: its thread panicked or hangs")]
    Line(String),
    #[error("the session with the broker ended unexpectedly; its task panicked")]
    Session,
}

impl RunError {
    /// True when the machine or a part of the agent broke down: starting again may help, other than with a wrong
    /// configuration.
    pub fn is_breakdown(&self) -> bool {
        matches!(self, RunError::Start(_) | RunError::Line(_) | RunError::Session)
    }
}

/// What came of it, once everything has ended.
#[derive(Clone, Debug)]
pub struct Report {
    pub lines: Vec<LineReport>,
    pub outbox: OutboxHealth,
    pub peak_rss_bytes: u64,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        let o = &self.outbox;
        let dropped = o.dropped_heatmaps + o.dropped_updates + o.dropped_oversize + o.lost_opened;
        write!(f, "outbox: {} wait, {} dropped, {} writes failed", o.waiting, dropped, o.failed_writes)?;
        write!(f, "; peak memory {:.1} MiB", self.peak_rss_bytes as f64 / f64::from(1 << 20))
    }
}

/// Runs until every source has ended and all is delivered, or until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting, or a line that died.
pub fn run_until_signal(settings: Settings, observer: Option<Observer>) -> Result<Report, RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        };
        run(settings, observer, stop).await
    });
    // A look-up of the broker's name that hangs in the system must not keep us.
    runtime.shutdown_background();
    result
}

struct Prepared {
    source: Box<dyn Source>,
    inspector: Inspector,
    model: ModelRef,
}

/// As [`run_until_signal`], with `stop` as the signal; inside a runtime.
///
/// # Errors
/// As [`run_until_signal`].
pub async fn run(
    settings: Settings,
    observer: Option<Observer>,
    stop: impl Future<Output = ()>,
) -> Result<Report, RunError> {
    let started = Instant::now();
    let run_id = Uuid::now_v7();
    let prepared = prepare(&settings)?;

    if let Some(folder) = settings.outbox_path.parent() {
        // What is wrong with it, the outbox will say.
        let _ = std::fs::create_dir_all(folder);
    }
    let (outbox, trouble) = Outbox::open(&settings.outbox_path, settings.outbox_limits);
    if let Some(trouble) = trouble {
        tracing::error!("{trouble}");
    }
    let outbox = SharedOutbox::new(outbox);
    let (session, handle) = Session::new(settings.mqtt.clone(), settings.topics.clone(), run_id, outbox.clone());
    let mut session = tokio::spawn(session.run());

    let stop_lines = Arc::new(AtomicBool::new(false));
    let (reports, mut ended) = mpsc::unbounded_channel();
    let mut lines = Vec::new();
    for (camera, p) in settings.cameras.iter().zip(prepared) {
        let progress = Arc::new(Progress::new(&camera.name));
        lines.push(progress.clone());
        let line = Line {
            settings: camera.clone(),
            source: p.source,
            inspector: p.inspector,
            model: p.model,
            topics: settings.topics.clone(),
            outbox: outbox.clone(),
            session: handle.clone(),
            run: run_id,
            config_digest: settings.digest.clone(),
            stop: stop_lines.clone(),
            progress,
            observer: observer.clone(),
        };
        let reports = reports.clone();
        std::thread::Builder::new().name(format!("line {}", camera.name)).spawn(move || {
            // A panic is the end of the agent, also while other cameras go on.
            let name = line.settings.name.clone();
            let _ = reports.send(catch_unwind(AssertUnwindSafe(|| line.run())).map_err(|_| name));
        })?;
    }
    drop(reports);
    tracing::info!(
        "{} runs: {} camera(s), publishing at {}",
        env!("CARGO_PKG_VERSION"),
        lines.len(),
        settings.topics.prefix()
    );
    notify::ready();

    let mut done: Vec<LineReport> = Vec::new();
    let mut session_broke = false;
    let stopped = {
        tokio::pin!(stop);
        let mut watchdog = notify::Watchdog::new();
        let mut feed = ticker(watchdog.period);
        let mut health = ticker(settings.health_interval);
        let mut all_ended = false;
        loop {
            tokio::select! {
                () = &mut stop => break true,
                report = ended.recv(), if !all_ended => match report {
                    Some(Ok(report)) => {
                        tracing::info!("{report}");
                        done.push(report);
                    }
                    // A line died. The agent ends with it, and systemd starts it anew.
                    Some(Err(name)) => {
                        tracing::error!("the inspection of {name} panicked; the agent ends");
                        break true;
                    }
                    // Every source has given its last frame: what is left is to deliver.
                    None if done.len() == lines.len() && settings.ends() => {
                        all_ended = true;
                        handle.drain();
                    }
                    None => break true,
                },
                end = &mut session => {
                    session_broke = end.is_err() || !all_ended;
                    break false;
                }
                _ = feed.tick() => watchdog.feed(&lines),
                _ = health.tick() => say_health(&settings, &handle, &outbox, &lines, started),
            }
        }
    };
    if stopped {
        notify::stopping();
        stop_lines.store(true, Ordering::Relaxed);
        let deadline = settings.shutdown_deadline;
        let begun = Instant::now();
        let finish = async {
            while let Some(report) = ended.recv().await {
                // One that died is found below.
                let Ok(report) = report else { continue };
                tracing::info!("{report}");
                done.push(report);
            }
        };
        let _ = timeout(deadline.max(Duration::from_secs(1)), finish).await;
        handle.stop(deadline.saturating_sub(begun.elapsed()));
        session_broke = session.await.is_err();
    }
    outbox.lock().flush();
    if session_broke {
        return Err(RunError::Session);
    }
    if let Some(died) = lines.iter().find(|l| !l.ended()) {
        return Err(RunError::Line(died.name.clone()));
    }
    let outbox = outbox.lock().health();
    Ok(Report { lines: done, outbox, peak_rss_bytes: peak_rss_bytes() })
}

fn prepare(settings: &Settings) -> Result<Vec<Prepared>, RunError> {
    let prepare = |c: &super::CameraSettings| {
        let camera = || c.name.clone();
        let bundle = Bundle::read(&c.bundle).map_err(|e| RunError::Bundle { camera: camera(), source: Box::new(e) })?;
        let options = InspectOptions { threads: c.threads, threshold: c.threshold };
        let inspector = Inspector::new(&bundle, &options).map_err(|e| RunError::Inspect {
            camera: camera(),
            bundle: c.bundle.display().to_string(),
            source: Box::new(e),
        })?;
        let source = c.source.build().map_err(|source| RunError::Capture { camera: camera(), source })?;
        let model = ModelRef {
            name: bundle.manifest.name.clone(),
            version: bundle.manifest.version.to_string(),
            digest: bundle.digest.clone(),
        };
        Ok(Prepared { source, inspector, model })
    };
    settings.cameras.iter().map(prepare).collect()
}

/// Ticks every `period`; never, if there is none.
fn ticker(period: Option<Duration>) -> tokio::time::Interval {
    const NEVER: Duration = Duration::from_secs(86_400 * 365);
    let mut ticker = interval(period.unwrap_or(NEVER));
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

fn say_health(settings: &Settings, session: &Handle, outbox: &SharedOutbox, lines: &[Arc<Progress>], started: Instant) {
    let health = Health {
        time: jiff::Timestamp::now(),
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s: started.elapsed().as_secs(),
        peak_rss_bytes: peak_rss_bytes(),
        cameras: lines.iter().map(|l| l.health()).collect(),
        outbox: outbox.lock().health(),
    };
    session.volatile(settings.topics.health(), to_json(&health));
}
