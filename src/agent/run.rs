//! The assembly of `run`: what the agent consists of, in the order in which it is built, started, waited for and ended.

use super::commands::{Commands, WAITING};
use super::config::{CameraSettings, Settings};
use super::metrics::Metrics;
use super::parts::{CameraPart, HealthPart, OutboxPart, Parts, SessionPart, Stage, UpdatesPart};
use super::pipeline::{INCIDENT_NOTE, Incidents, Publisher};
use super::progress::{CameraProgress, CameraReport};
use super::restarts::Restarts;
use super::{notify, peak_rss_bytes};
use crate::capture::{CaptureError, Source};
use crate::events::{Anomaly, Grouping, OutboxHealth, to_json};
use crate::judge::{EnginePool, Model, ModelError, ModelSlot, Taps};
use crate::mqtt::{Incoming, Session, Store, StoreHandle};
use crate::ota::{ManagedModel, Say, Surroundings, UpdaterError, Updates};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

/// What the session may take beyond its deadline: its last words and its goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why the agent did not start, or did not end as it should. A message holds its cause; there is no other source.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("camera {camera}: {cause}")]
    Model { camera: String, cause: ModelError },
    #[error("{0}")]
    Views(String),
    #[error(transparent)]
    Updates(#[from] UpdaterError),
    #[error("camera {camera}: {cause}")]
    Capture { camera: String, cause: CaptureError },
    #[error("cannot start the agent: {0}")]
    Start(std::io::Error),
    #[error("{name} failed three times within ten minutes, at last: {why}")]
    Failed { name: String, why: String },
    #[error("{0} did not end when it was told to: its thread hangs")]
    Hangs(String),
    #[error("{0} ended although nobody told it to")]
    Ended(String),
}

impl RunError {
    /// True when the machine or a part of the agent broke down: starting again may help, other than with a wrong
    /// configuration.
    pub fn is_breakdown(&self) -> bool {
        use RunError::{Ended, Failed, Hangs, Start};
        matches!(self, Start(_) | Failed { .. } | Hangs(_) | Ended(_))
    }
}

/// What came of it, once everything has ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the configuration's order.
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
/// What keeps it from starting, or a part that failed once too often.
pub fn run_until_signal(settings: Settings) -> Result<Report, RunError> {
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
        Agent::build(settings, Arc::default())?.run(stop).await
    });
    // A look-up of the broker's name that hangs in the system must not keep us.
    runtime.shutdown_background();
    result
}

/// The agent, built and not yet started: nothing has been published.
pub struct Agent {
    settings: Settings,
    engine: Arc<EnginePool>,
    taps: Arc<Taps>,
    cameras: Vec<Prepared>,
    updates: Option<Updates>,
    store: (StoreHandle, Store),
    session: Session,
    publisher: Publisher,
    /// What comes for `cmd`, where anything is allowed.
    incoming: Option<mpsc::Receiver<Incoming>>,
}

/// A camera before it starts.
struct Prepared {
    settings: CameraSettings,
    source: Box<dyn Source>,
    slot: Arc<ModelSlot>,
}

impl Agent {
    /// Loads the models and opens the sources, so that what cannot work is said before anything is published. `taps` see what is judged.
    ///
    /// # Errors
    /// What cannot work.
    pub fn build(settings: Settings, taps: Arc<Taps>) -> Result<Agent, RunError> {
        let engine = EnginePool::accelerated(settings.engine, settings.accelerator.clone());
        let updates = settings.update.clone();
        let updates = updates.map(|update| Updates::open(update, managed(&settings), &engine)).transpose()?;
        let cameras = prepare(&settings, updates.as_ref(), &engine)?;
        settle(&engine, &cameras);
        let store = StoreHandle::new(settings.outbox_path.clone(), settings.outbox_limits);
        let (topics, incarnation) = (settings.topics.clone(), Uuid::now_v7());
        let (mut session, handle) = Session::new(settings.mqtt.clone(), topics.clone(), incarnation, store.0.clone());
        let incoming = (!settings.commands.is_empty()).then(|| {
            let (sender, incoming) = mpsc::channel(WAITING);
            session.subscribe(topics.commands(), sender);
            incoming
        });
        let config_digest = settings.digest.clone();
        let publisher = Publisher { topics, store: store.0.clone(), session: handle, incarnation, config_digest };
        Ok(Agent { settings, engine, taps, cameras, updates, store, session, publisher, incoming })
    }

    /// Runs until every source has ended and all is delivered, or until `stop`; inside a runtime.
    ///
    /// # Errors
    /// A part that failed once too often, or hangs at the end.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Report, RunError> {
        let Agent { settings, engine, taps, cameras, updates, store: (store, outbox), session, publisher, incoming } =
            self;
        tokio::pin!(stop);
        let started = std::time::Instant::now();
        let restarts = Arc::<Restarts>::default();
        let mut parts = Parts::new(restarts.clone());
        let ends_at = Arc::<OnceLock<Instant>>::default();
        parts.start(Stage::Outbox, OutboxPart::new(outbox));
        let handle = publisher.session.clone();
        parts.start(Stage::Session, SessionPart { session, handle, ends_at: ends_at.clone() });

        // A slow disk may take its time to say what was open; a signal is heard meanwhile.
        let (notes, stopped) = tokio::select! {
            notes = notes(&store) => (notes, false),
            () = &mut stop => (BTreeMap::new(), true),
        };
        let mut open = open_incidents(&notes, &settings, &publisher);
        let asked = updates.map(|updates| {
            let (asked, commands) = mpsc::channel(WAITING);
            let (topics, session) = (settings.topics.clone(), publisher.session.clone());
            let say: Say = Arc::new(move |model, state| session.retain(topics.model_state(model), to_json(state)));
            let around = Surroundings { say, commands, engine: engine.clone(), taps: taps.clone() };
            parts.start(Stage::Control, UpdatesPart::new(updates.updater(around)));
            asked
        });
        if let Some(incoming) = incoming {
            parts.start(Stage::Control, Commands::new(&publisher, settings.commands.clone(), asked, incoming, &notes));
        }
        let phase_changed = Arc::<Notify>::default();
        let mut progress = vec![];
        for Prepared { settings, source, slot } in cameras {
            let camera = Arc::new(CameraProgress::new(&settings.name, phase_changed.clone()));
            progress.push(camera.clone());
            let incidents = Arc::new(Incidents::new(open.remove(&settings.name)));
            let (engine, taps, publisher) = (engine.clone(), taps.clone(), publisher.clone());
            let source = Some(source);
            let part = CameraPart { settings, source, slot, engine, taps, publisher, incidents, progress: camera };
            parts.start(Stage::Cameras, part);
        }
        let metrics = Metrics { started, cameras: progress, store, engine, taps, restarts };
        let metrics = Arc::new(metrics);
        parts.start(
            Stage::Health,
            HealthPart {
                metrics: metrics.clone(),
                topics: settings.topics.clone(),
                session: publisher.session.clone(),
                every: settings.health_interval,
                phase_changed,
                told_ready: false,
            },
        );
        let (version, cameras, prefix) = (env!("CARGO_PKG_VERSION"), metrics.cameras.len(), settings.topics.prefix());
        tracing::info!("{version} runs: {cameras} camera(s), publishing at {prefix}");

        let ending = if stopped { Ok(Why::Stopped) } else { wait(&mut parts, &settings, &publisher, stop).await };
        end(parts, ending, &settings, &metrics, &ends_at).await
    }
}

/// Cameras with the same bundle share the model; one with updates is the updates' to load.
fn prepare(settings: &Settings, updates: Option<&Updates>, engine: &EnginePool) -> Result<Vec<Prepared>, RunError> {
    let mut loaded: HashMap<&PathBuf, Arc<ModelSlot>> = HashMap::new();
    let mut prepared = vec![];
    for camera in &settings.cameras {
        let CameraSettings { name, bundle, model, source, .. } = camera;
        let managed = model.as_deref().and_then(|model| updates?.slot(model));
        let slot = match managed.or_else(|| loaded.get(bundle).cloned()) {
            Some(slot) => slot,
            None => {
                let failed = |cause| RunError::Model { camera: name.clone(), cause };
                let slot = Arc::new(ModelSlot::new(Model::load(bundle, engine).map_err(failed)?.0));
                loaded.insert(bundle, slot.clone());
                slot
            }
        };
        camera.shows(&slot.current().inspector.manifest().view_names).map_err(RunError::Views)?;
        let source = source.build().map_err(|cause| RunError::Capture { camera: name.clone(), cause })?;
        prepared.push(Prepared { settings: camera.clone(), source, slot });
    }
    Ok(prepared)
}

/// Finds the number of threads, before anybody waits for a verdict.
fn settle(engine: &EnginePool, cameras: &[Prepared]) {
    let mut models: Vec<Arc<Model>> = vec![];
    for model in cameras.iter().map(|camera| camera.slot.current()) {
        if !models.iter().any(|known| Arc::ptr_eq(known, &model)) {
            models.push(model);
        }
    }
    let inspectors: Vec<_> = models.iter().map(|model| &model.inspector).collect();
    match engine.settle(&inspectors) {
        Ok(said) => said.iter().for_each(|said| tracing::info!("{said}")),
        // Frames will say it again, camera by camera.
        Err(e) => tracing::warn!("with how many threads a picture is judged quickest could not be measured: {e}"),
    }
}

/// The models that updates are for, each once.
fn managed(settings: &Settings) -> Vec<ManagedModel> {
    let mut models: Vec<ManagedModel> = vec![];
    for camera in &settings.cameras {
        if let Some(name) = camera.model.clone().filter(|name| models.iter().all(|model| model.name != *name)) {
            models.push(ManagedModel { name, bundle: camera.bundle.clone() });
        }
    }
    models
}

/// What was kept beside the outbox when the agent ended.
async fn notes(store: &StoreHandle) -> BTreeMap<String, String> {
    store.notes().await.unwrap_or_else(|e| {
        tracing::error!("{e}; incidents that were open stay open");
        BTreeMap::new()
    })
}

/// Incidents that were open when the agent ended, by the cameras that take them up again; those that none does are closed.
fn open_incidents(
    notes: &BTreeMap<String, String>,
    settings: &Settings,
    publisher: &Publisher,
) -> BTreeMap<String, Anomaly> {
    let mut taken_up = BTreeMap::new();
    for (key, value) in notes {
        let Some(name) = key.strip_prefix(INCIDENT_NOTE) else { continue };
        let last = match serde_json::from_str(value) {
            Ok(last) => last,
            Err(e) => {
                tracing::error!("what the outbox knows of the open incident of {name} cannot be read: {e}");
                continue;
            }
        };
        match settings.cameras.iter().find(|camera| camera.name == name) {
            Some(camera) if camera.grouping == Grouping::Incident => drop(taken_up.insert(name.to_owned(), last)),
            Some(_) => publisher.close_orphan(last, "its camera groups no incidents any more"),
            None => publisher.close_orphan(last, "its camera is not inspected any more"),
        }
    }
    taken_up
}

/// Why the waiting is over, when nothing failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// By a signal.
    Stopped,
    /// Every source has ended and everything is delivered.
    Delivered,
}

/// Waits for whatever comes first.
async fn wait(
    parts: &mut Parts,
    settings: &Settings,
    publisher: &Publisher,
    mut stop: impl Future<Output = ()> + Unpin,
) -> Result<Why, RunError> {
    let mut all_given = false;
    loop {
        let ended = tokio::select! {
            () = &mut stop => return Ok(Why::Stopped),
            ended = parts.next() => ended,
        };
        let Some(ended) = ended else { return Err(RunError::Ended("everything".into())) };
        ended.result.map_err(|why| RunError::Failed { name: ended.name.clone(), why: why.to_string() })?;
        match ended.stage {
            Stage::Cameras if !parts.running(Stage::Cameras).is_empty() => {}
            // Every source has given its last frame: what is left is to deliver.
            Stage::Cameras if settings.ends() => {
                all_given = true;
                publisher.session.drain();
            }
            Stage::Cameras => return Ok(Why::Stopped),
            Stage::Session if all_given => return Ok(Why::Delivered),
            _ => return Err(RunError::Ended(ended.name)),
        }
    }
}

/// Ends stage by stage: the cameras finish their frame, the session delivers up to the deadline, the outbox closes. What failed before counts; what
/// hangs or fails meanwhile, else.
async fn end(
    mut parts: Parts,
    mut ending: Result<Why, RunError>,
    settings: &Settings,
    metrics: &Metrics,
    ends_at: &OnceLock<Instant>,
) -> Result<Report, RunError> {
    let deadline = settings.shutdown_deadline;
    let grace = deadline.max(Duration::from_secs(1));
    let at = Instant::now() + deadline;
    let _ = ends_at.set(at);
    if !matches!(ending, Ok(Why::Delivered)) {
        notify::stopping();
    }
    let left = |at: Instant| at.saturating_duration_since(Instant::now());
    for (stage, patience) in [
        (Stage::Control, grace),
        (Stage::Cameras, grace),
        (Stage::Health, grace),
        (Stage::Session, left(at) + grace + GOODBYE),
    ] {
        for ended in parts.stop(stage, patience).await {
            if let (Ok(_), Err(why)) = (&ending, ended.result) {
                ending = Err(RunError::Failed { name: ended.name, why: why.to_string() });
            }
        }
        if let (Ok(_), Some(name)) = (&ending, parts.running(stage).first()) {
            ending = Err(RunError::Hangs((*name).to_owned()));
        }
    }
    let patience = left(at).max(Duration::from_secs(1));
    if !parts.running(Stage::Outbox).is_empty() && !metrics.store.close(patience).await {
        tracing::error!("the disk did not take the last events in time; what waited in memory only is lost");
    }
    ending?;
    let cameras = metrics.cameras.iter().filter_map(|camera| camera.report()).collect();
    Ok(Report { cameras, outbox: metrics.store.health(), peak_rss_bytes: peak_rss_bytes() })
}
