//! The wiring of `run`: bundles and sources first, so that what cannot work is said before anything is published; then the
//! outbox, the session, the cameras; then waiting.

use super::commands::{Commands, WAITING};
use super::config::{CameraSettings, Settings};
use super::pipeline::{CameraPipeline, INCIDENT_NOTE, Observer, Publisher};
use super::progress::{CameraProgress, CameraReport};
use super::{notify, peak_rss_bytes};
use crate::capture::{CaptureError, Source};
use crate::events::{Anomaly, Grouping, Health, OutboxHealth, to_json};
use crate::mqtt::{Session, SessionHandle, StoreEnded, StoreHandle};
use crate::ota::{ManagedModel, Model, ModelError, ModelSlot, Say, UpdateCommand, UpdaterError, Updates};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

/// Why the agent did not start, or did not end as it should. A message holds its cause; there is no other source.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("camera {camera}: {cause}")]
    Model { camera: String, cause: ModelError },
    #[error(transparent)]
    Updates(#[from] UpdaterError),
    #[error("camera {camera}: {cause}")]
    Capture { camera: String, cause: CaptureError },
    #[error("cannot start the agent: {0}")]
    Start(std::io::Error),
    #[error("the inspection of {0} did not end as it should: its thread panicked or hangs")]
    Camera(String),
    #[error("the session with the broker ended unexpectedly; its task panicked")]
    Session,
    #[error("the outbox ended unexpectedly; its thread panicked")]
    Outbox,
    #[error("the updates ended unexpectedly; their thread panicked")]
    UpdatesEnded,
}

impl RunError {
    /// True when the machine or a part of the agent broke down: starting again may help, other than with a wrong
    /// configuration.
    pub fn is_breakdown(&self) -> bool {
        use RunError::{Camera, Outbox, Session, Start, UpdatesEnded};
        matches!(self, Start(_) | Camera(_) | Session | Outbox | UpdatesEnded)
    }
}

/// What came of it, once everything has ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order in which they ended.
    pub cameras: Vec<CameraReport>,
    pub outbox: OutboxHealth,
    pub peak_rss_bytes: u64,
}

impl Report {
    /// The last line: what became of the events.
    pub fn outbox_line(&self) -> String {
        let o = &self.outbox;
        let dropped = o.dropped_heatmaps + o.dropped_updates + o.dropped_oversize + o.lost_opened;
        format!(
            "outbox: {} wait, {dropped} dropped, {} writes failed; peak memory {:.1} MiB",
            o.waiting,
            o.failed_writes,
            self.peak_rss_bytes as f64 / f64::from(1 << 20)
        )
    }
}

/// Runs until every source has ended and all is delivered, or until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting, or a part that died.
pub fn run_until_signal(settings: Settings, observer: Option<Observer>) -> Result<Report, RunError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(RunError::Start)?;
    let result = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).map_err(RunError::Start)?;
        let mut int = signal(SignalKind::interrupt()).map_err(RunError::Start)?;
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

/// As [`run_until_signal`], with `stop` as the signal; inside a runtime.
///
/// # Errors
/// As [`run_until_signal`].
pub async fn run(
    settings: Settings,
    observer: Option<Observer>,
    stop: impl Future<Output = ()>,
) -> Result<Report, RunError> {
    tokio::pin!(stop);
    let (mut prepared, updates) = prepare(&settings)?;
    let (store, store_ended) =
        StoreHandle::open(settings.outbox_path.clone(), settings.outbox_limits).map_err(RunError::Start)?;
    let incarnation = Uuid::now_v7();
    let (mut session, handle) =
        Session::new(settings.mqtt.clone(), settings.topics.clone(), incarnation, store.clone());
    let incoming = (!settings.commands.is_empty()).then(|| {
        let (sender, incoming) = mpsc::channel(WAITING);
        session.subscribe(settings.topics.commands(), sender);
        incoming
    });
    let publisher = Publisher {
        topics: settings.topics.clone(),
        store: store.clone(),
        session: handle,
        incarnation,
        config_digest: settings.digest.clone(),
    };
    let session = tokio::spawn(session.run());
    // A slow disk may take its time to say what was open; a signal is heard meanwhile.
    let (notes, stopped) = tokio::select! {
        notes = notes(&store) => (notes, false),
        () = &mut stop => (BTreeMap::new(), true),
    };
    take_up(open_incidents(&notes), &settings, &mut prepared, &publisher);
    let updating = updates.map(|updates| Updating::start(updates, &settings, &publisher.session)).transpose()?;
    if let Some(incoming) = incoming {
        let asked = updating.as_ref().map(|updating| updating.commands.clone());
        let (topics, session) = (settings.topics.clone(), publisher.session.clone());
        let commands = Commands::new(topics, session, store, settings.commands.clone(), asked, notes.into_iter());
        // It ends with the session, which holds the other end.
        tokio::spawn(commands.run(incoming));
    }
    let mut running = Running::start(&settings, publisher, session, store_ended, prepared, updating, observer)?;
    let ending = if stopped { Ending::Stopped } else { running.wait(stop).await };
    running.end(ending).await
}

struct Prepared {
    source: Box<dyn Source>,
    slot: Arc<ModelSlot>,
    open_incident: Option<Anomaly>,
}

/// Cameras with the same bundle share the model; one with updates is the updates' to load.
fn prepare(settings: &Settings) -> Result<(Vec<Prepared>, Option<Updates>), RunError> {
    let updates = settings.update.clone().map(|update| Updates::open(update, managed(settings))).transpose()?;
    let mut loaded: HashMap<(&PathBuf, usize), Arc<ModelSlot>> = HashMap::new();
    let mut prepared = vec![];
    for CameraSettings { name, bundle, threads, model, source, .. } in &settings.cameras {
        let managed = model.as_deref().and_then(|model| updates.as_ref()?.slot(model));
        let slot = match managed.or_else(|| loaded.get(&(bundle, *threads)).cloned()) {
            Some(slot) => slot,
            None => {
                let failed = |cause| RunError::Model { camera: name.clone(), cause };
                let slot = Arc::new(ModelSlot::new(Model::load(bundle, *threads).map_err(failed)?.0));
                loaded.insert((bundle, *threads), slot.clone());
                slot
            }
        };
        let source = source.build().map_err(|cause| RunError::Capture { camera: name.clone(), cause })?;
        prepared.push(Prepared { source, slot, open_incident: None });
    }
    Ok((prepared, updates))
}

/// The models that updates are for, each once.
fn managed(settings: &Settings) -> Vec<ManagedModel> {
    let mut models: Vec<ManagedModel> = vec![];
    for camera in &settings.cameras {
        if let Some(name) = camera.model.clone().filter(|name| models.iter().all(|model| model.name != *name)) {
            models.push(ManagedModel { name, bundle: camera.bundle.clone(), threads: camera.threads });
        }
    }
    models
}

/// The updates' thread, and what is said to it.
struct Updating {
    commands: mpsc::Sender<UpdateCommand>,
    stop: watch::Sender<bool>,
    /// Its other end is dropped when the thread ends.
    ended: oneshot::Receiver<()>,
}

impl Updating {
    fn start(updates: Updates, settings: &Settings, session: &SessionHandle) -> Result<Updating, RunError> {
        let (commands, asked) = mpsc::channel(WAITING);
        let (stop, stopped) = watch::channel(false);
        let (alive, ended) = oneshot::channel();
        let (topics, session) = (settings.topics.clone(), session.clone());
        let say: Say = Arc::new(move |model, state| {
            // Held here so that it is dropped with the thread, however that ends.
            let _ = &alive;
            session.retain(topics.model_state(model), to_json(state));
        });
        updates.start(say, asked, stopped)?;
        Ok(Updating { commands, stop, ended })
    }

    /// Asks the thread to end, and waits for it a little.
    async fn end(self, patience: Duration) {
        let _ = self.stop.send(true);
        if timeout(patience, self.ended).await.is_err() {
            tracing::warn!("the updates did not end in time");
        }
    }
}

/// What was kept beside the outbox when the agent ended.
async fn notes(store: &StoreHandle) -> BTreeMap<String, String> {
    store.notes().await.unwrap_or_else(|e| {
        tracing::error!("{e}; incidents that were open stay open");
        BTreeMap::new()
    })
}

/// Incidents that were open when the agent ended, by their cameras.
fn open_incidents(notes: &BTreeMap<String, String>) -> BTreeMap<String, Anomaly> {
    let incident = |(key, value): (&String, &String)| {
        let camera = key.strip_prefix(INCIDENT_NOTE)?.to_owned();
        match serde_json::from_str(value) {
            Ok(last) => Some((camera, last)),
            Err(e) => {
                tracing::error!("what the outbox knows of the open incident of {camera} cannot be read: {e}");
                None
            }
        }
    };
    notes.iter().filter_map(incident).collect()
}

/// Gives each open incident to its camera, and closes those that no camera takes up again.
fn take_up(
    incidents: BTreeMap<String, Anomaly>,
    settings: &Settings,
    prepared: &mut [Prepared],
    publisher: &Publisher,
) {
    for (name, last) in incidents {
        let camera = settings.cameras.iter().zip(prepared.iter_mut()).find(|(camera, _)| camera.name == name);
        match camera {
            Some((camera, prepared)) if camera.grouping == Grouping::Incident => prepared.open_incident = Some(last),
            Some(_) => publisher.close_orphan(last, "its camera groups no incidents any more"),
            None => publisher.close_orphan(last, "its camera is not inspected any more"),
        }
    }
}

/// Why the waiting is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// By a signal, or because a camera's thread died.
    Stopped,
    /// Every source has ended and everything is delivered.
    Delivered,
    /// The session's task died.
    SessionBroke,
    /// The outbox's thread died.
    OutboxBroke,
    /// The updates' thread died.
    UpdatesBroke,
}

/// The agent while it runs: its parts, and what came of those that have ended.
struct Running<'a> {
    settings: &'a Settings,
    publisher: Publisher,
    session: JoinHandle<()>,
    store_ended: StoreEnded,
    updating: Option<Updating>,
    stop_cameras: Arc<AtomicBool>,
    cameras: Vec<Arc<CameraProgress>>,
    phase_changed: Arc<Notify>,
    /// A report for each camera's thread that ends, or the name of one that panicked.
    reports: mpsc::UnboundedReceiver<Result<CameraReport, String>>,
    done: Vec<CameraReport>,
    started: Instant,
    told_ready: bool,
}

impl<'a> Running<'a> {
    /// Starts a thread for each camera.
    fn start(
        settings: &'a Settings,
        publisher: Publisher,
        session: JoinHandle<()>,
        store_ended: StoreEnded,
        prepared: Vec<Prepared>,
        updating: Option<Updating>,
        observer: Option<Observer>,
    ) -> Result<Running<'a>, RunError> {
        let stop_cameras = Arc::new(AtomicBool::new(false));
        let phase_changed = Arc::new(Notify::new());
        let (sender, reports) = mpsc::unbounded_channel();
        let mut cameras = Vec::new();
        for (camera, prepared) in settings.cameras.iter().zip(prepared) {
            let progress = Arc::new(CameraProgress::new(&camera.name, phase_changed.clone()));
            cameras.push(progress.clone());
            let pipeline = CameraPipeline {
                settings: camera.clone(),
                source: prepared.source,
                slot: prepared.slot,
                publisher: publisher.clone(),
                open_incident: prepared.open_incident,
                stop: stop_cameras.clone(),
                progress,
                observer: observer.clone(),
            };
            let sender = sender.clone();
            let thread = std::thread::Builder::new().name(format!("camera {}", camera.name)).spawn(move || {
                // A panic is the end of the agent, also while other cameras go on.
                let name = pipeline.settings.name.clone();
                let _ = sender.send(catch_unwind(AssertUnwindSafe(|| pipeline.run())).map_err(|_| name));
            });
            thread.map_err(RunError::Start)?;
        }
        tracing::info!(
            "{} runs: {} camera(s), publishing at {}",
            env!("CARGO_PKG_VERSION"),
            cameras.len(),
            settings.topics.prefix()
        );
        let (done, started, told_ready) = (Vec::new(), Instant::now(), false);
        Ok(Running {
            settings,
            publisher,
            session,
            store_ended,
            updating,
            stop_cameras,
            cameras,
            phase_changed,
            reports,
            done,
            started,
            told_ready,
        })
    }

    /// Waits for whatever comes first. Nothing in here waits for a disk or a network.
    async fn wait(&mut self, mut stop: impl Future<Output = ()> + Unpin) -> Ending {
        let mut watchdog = notify::Watchdog::new();
        let mut feed = ticker(watchdog.period);
        let mut health = ticker(self.settings.health_interval);
        let mut all_ended = false;
        loop {
            tokio::select! {
                () = &mut stop => return Ending::Stopped,
                report = self.reports.recv(), if !all_ended => match report {
                    Some(Ok(report)) => self.note(report),
                    // A camera's thread died. The agent ends with it, and systemd starts it anew.
                    Some(Err(name)) => {
                        tracing::error!("the inspection of {name} panicked; the agent ends");
                        return Ending::Stopped;
                    }
                    // Every source has given its last frame: what is left is to deliver.
                    None if self.done.len() == self.cameras.len() && self.settings.ends() => {
                        all_ended = true;
                        self.publisher.session.drain();
                    }
                    None => return Ending::Stopped,
                },
                end = &mut self.session => {
                    return if end.is_ok() && all_ended { Ending::Delivered } else { Ending::SessionBroke };
                }
                _ = &mut self.store_ended => return Ending::OutboxBroke,
                () = ended(&mut self.updating) => return Ending::UpdatesBroke,
                () = self.phase_changed.notified() => self.say_status(),
                _ = feed.tick() => watchdog.feed(&self.cameras),
                _ = health.tick() => self.say_health(),
            }
        }
    }

    fn note(&mut self, report: CameraReport) {
        tracing::info!("{report}");
        self.done.push(report);
    }

    /// Systemd's status line; ready once every camera has judged a frame, or has said why not.
    fn say_status(&mut self) {
        let status: Vec<String> = self.cameras.iter().map(|c| c.status()).collect();
        let ready = !self.told_ready && self.cameras.iter().all(|c| c.has_started());
        notify::status(&status.join("; "), ready);
        self.told_ready |= ready;
    }

    fn say_health(&self) {
        let health = Health {
            time: jiff::Timestamp::now(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.started.elapsed().as_secs(),
            peak_rss_bytes: peak_rss_bytes(),
            cameras: self.cameras.iter().map(|c| c.health()).collect(),
            outbox: self.publisher.store.health(),
        };
        self.publisher.session.best_effort(self.settings.topics.health(), to_json(&health));
    }

    /// Stops the cameras, lets the session deliver until the deadline, and closes the outbox.
    async fn end(mut self, mut ending: Ending) -> Result<Report, RunError> {
        let begun = Instant::now();
        let deadline = self.settings.shutdown_deadline;
        if let Some(updating) = self.updating.take() {
            updating.end(deadline.max(Duration::from_secs(1))).await;
        }
        if matches!(ending, Ending::Stopped | Ending::UpdatesBroke) {
            notify::stopping();
            self.stop_cameras.store(true, Ordering::Relaxed);
            let _ = timeout(deadline.max(Duration::from_secs(1)), async {
                while let Some(report) = self.reports.recv().await {
                    // One that died is found below.
                    if let Ok(report) = report {
                        self.note(report);
                    }
                }
            })
            .await;
            self.publisher.session.stop(deadline.saturating_sub(begun.elapsed()));
            if (&mut self.session).await.is_err() {
                ending = Ending::SessionBroke;
            }
        }
        let patience = deadline.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
        if ending != Ending::OutboxBroke && !self.publisher.store.close(patience).await {
            tracing::error!("the disk did not take the last events in time; what waited in memory only is lost");
        }
        match ending {
            Ending::SessionBroke => return Err(RunError::Session),
            Ending::OutboxBroke => return Err(RunError::Outbox),
            Ending::UpdatesBroke => return Err(RunError::UpdatesEnded),
            Ending::Stopped | Ending::Delivered => {}
        }
        if let Some(died) = self.cameras.iter().find(|c| !c.has_ended()) {
            return Err(RunError::Camera(died.name.clone()));
        }
        Ok(Report { cameras: self.done, outbox: self.publisher.store.health(), peak_rss_bytes: peak_rss_bytes() })
    }
}

/// The updates' thread has ended; never, if there is none.
async fn ended(updating: &mut Option<Updating>) {
    match updating {
        Some(updating) => drop((&mut updating.ended).await),
        None => std::future::pending().await,
    }
}

/// Ticks every `period`; never, if there is none.
fn ticker(period: Option<Duration>) -> tokio::time::Interval {
    const NEVER: Duration = Duration::from_secs(86_400 * 365);
    let mut ticker = interval(period.unwrap_or(NEVER));
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}
