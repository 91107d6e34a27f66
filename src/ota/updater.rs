//! The task that keeps models up to date: it asks the repository, fetches, tries, commits, and says what it does.
//!
//! It lives in a thread of its own with a small runtime: a slow disk, a large download or a model that loads for seconds keep neither a camera nor
//! the session waiting.

use super::trial::{Trial, TrialConfig, examine};
use crate::events::{ModelPhase, ModelState, RepositoryState, SlotRef};
use crate::judge::{EnginePool, Model, ModelError, ModelSlot, Taps};
use ckaad_bundle::Bundle;
use ckaad_update::disk::{Disk, RealDisk, fails};
use ckaad_update::download::Parts;
use ckaad_update::offer::{Candidate, Device};
use ckaad_update::remote::{Remote, RemoteConfig};
use ckaad_update::slots::{Found, OutcomeKind, Slot, SlotError, Slots, Step};
use ckaad_update::trust::{Catalogue, Trust};
use jiff::Timestamp;
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The first wait after something that may go better later; it doubles up to the time between two polls.
const FIRST_RETRY: Duration = Duration::from_secs(30);
/// Below the folder of updates: a folder for each model.
pub const MODELS: &str = "models";
/// Frames that may wait for the model on trial; it need not see each.
const SHADOWS: usize = 2;
/// A download or a trial says how far it is once in so long.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Where updates come from and go to, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateSettings {
    /// The repository.
    pub remote: RemoteConfig,
    /// The root that came with the device.
    pub root_file: PathBuf,
    /// A folder of ours.
    pub state: PathBuf,
    /// Between two looks at the repository.
    pub poll: Duration,
    /// Refuse a configured bundle that is not among the repository's targets.
    pub require_signed: bool,
    /// Who this is.
    pub device: Device,
    /// What a new model must show.
    pub trial: TrialConfig,
}

/// A model that updates are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedModel {
    /// Its name in the repository.
    pub name: String,
    /// The bundle of the configuration: what judges when there is no other.
    pub bundle: PathBuf,
}

/// Why there are no updates. A message holds its cause.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is.
pub enum UpdaterError {
    #[error(transparent)]
    Trust(#[from] ckaad_update::trust::TrustError),
    #[error(transparent)]
    Remote(#[from] ckaad_update::remote::FetchError),
    #[error(transparent)]
    Slots(#[from] SlotError),
    #[error("updates: the folder {0} cannot be used: {1}")]
    State(PathBuf, std::io::Error),
    #[error("updates: another agent works in {0}")]
    Locked(PathBuf),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(
        "updates: the bundle {path} is not signed: its digest {digest} is no target of the repository (update.require_signed)"
    )]
    Unsigned { path: PathBuf, digest: String },
    #[error("updates: there can be no runtime for them: {0}")]
    Runtime(std::io::Error),
}

/// Publishes the state of the model of this name, retained.
pub type Say = Arc<dyn Fn(&str, &ModelState) + Send + Sync>;

/// What can be asked of the updater; the answer is a sentence either way.
#[derive(Debug)]
pub enum UpdateCommand {
    /// Look at the repository now. `force` takes a bundle that is older or was barred.
    Update { model: Option<String>, version: Option<String>, force: bool, answer: ReplyTo },
    /// Go back to the bundle before.
    RollBack { model: Option<String>, answer: ReplyTo },
}

/// Where the answer goes.
pub type ReplyTo = oneshot::Sender<Result<String, String>>;

/// `trust.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustFile {
    /// Digest of the root that the device was given: another one begins anew.
    origin: String,
    trust: Trust,
}

struct Managed {
    model: ManagedModel,
    slots: Slots,
    slot: Arc<ModelSlot>,
    /// Asked for by a command: this version, even if it is older or barred.
    wanted: Option<Wanted>,
    said: Option<ModelState>,
}

#[derive(Clone, Debug, Default)]
struct Wanted {
    version: Option<String>,
    force: bool,
}

/// What the updater works with beside its own.
pub struct Surroundings {
    /// Publishes what becomes of a model.
    pub say: Say,
    /// What is asked of it.
    pub commands: mpsc::Receiver<UpdateCommand>,
    /// The threads of all networks.
    pub engine: Arc<EnginePool>,
    /// Where it sees what cameras judged.
    pub taps: Arc<Taps>,
}

/// Everything that updates need, opened: what cannot work is said before the agent publishes anything.
pub struct Updates {
    settings: UpdateSettings,
    disk: Arc<dyn Disk>,
    remote: Remote,
    trust: TrustFile,
    models: Vec<Managed>,
    /// None where nothing can be written.
    lock: Option<File>,
    /// Why nothing can be written: the bundles that are there judge, and there are no updates.
    stuck: Option<String>,
}

/// See the module.
pub struct Updater {
    settings: UpdateSettings,
    disk: Arc<dyn Disk>,
    remote: Remote,
    trust: TrustFile,
    models: Vec<Managed>,
    repository: RepositoryState,
    around: Surroundings,
    stop: CancellationToken,
    /// Why nothing can be written.
    stuck: Option<String>,
    /// It ran, and panicked.
    broke: bool,
    /// A command asked for a look at the repository.
    asked: bool,
    /// Held until the end.
    _lock: Option<File>,
}

/// Looks at the repository as the agent would, and keeps nothing. Ok with a sentence.
///
/// # Errors
/// Why it is not reached or not believed.
pub async fn probe(settings: &UpdateSettings) -> Result<String, UpdaterError> {
    let remote = Remote::new(&settings.remote)?;
    let path = settings.state.join("trust.json");
    let mut trust =
        if path.exists() { read_trust(&RealDisk, settings)?.trust } else { Trust::from_root(&settings.root_file)? };
    let catalogue = trust.refresh(&remote, Timestamp::now()).await?;
    let (version, fingerprint) = trust.root()?;
    let bundles = match catalogue.candidates.len() {
        1 => "1 bundle".into(),
        n => format!("{n} bundles"),
    };
    let (role, expires) = &catalogue.expires;
    let stale = if catalogue.stale { ", which is soon: have it signed anew" } else { "" };
    let clock = catalogue
        .clock_behind
        .map_or(String::new(), |b| format!("; the system's clock is {} s behind it", b.as_secs()));
    Ok(format!(
        "{} offers {bundles}; its {role} expires at {expires}{stale}; root {version} with the fingerprint {fingerprint}{clock}",
        remote.url()
    ))
}

/// A lock on the folder that updates are kept in.
///
/// # Errors
/// Another process has it, or the folder cannot be used.
pub fn lock(state: &Path) -> Result<File, UpdaterError> {
    let failed = |e| UpdaterError::State(state.into(), e);
    RealDisk.make_folder(state).map_err(failed)?;
    let file = File::create(state.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(UpdaterError::Locked(state.into())),
        Err(std::fs::TryLockError::Error(e)) => Err(failed(e)),
    }
}

impl Updates {
    /// Opens what is kept, and loads for each model the bundle that is in force: the one that was committed last if it is whole and can be run,
    /// else the one before, else that of the configuration.
    ///
    /// # Errors
    /// The folder, the root or a configured bundle is no good.
    pub fn open(
        settings: UpdateSettings,
        models: Vec<ManagedModel>,
        engine: &EnginePool,
    ) -> Result<Updates, UpdaterError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let made = lock(&settings.state).and_then(|lock| {
            for folder in [MODELS, "parts"] {
                let path = settings.state.join(folder);
                disk.make_folder(&path).map_err(|e| UpdaterError::State(path, e))?;
            }
            Ok(lock)
        });
        // A disk that takes nothing is no reason not to inspect.
        let (lock, mut stuck) = match made {
            Ok(lock) => (Some(lock), None),
            Err(e @ UpdaterError::State(..)) => (None, Some(e.to_string())),
            Err(e) => return Err(e),
        };
        let remote = Remote::new(&settings.remote)?;
        let mut trust = match read_trust(disk.as_ref(), &settings) {
            Err(e @ UpdaterError::State(..)) => {
                stuck.get_or_insert(e.to_string());
                fresh_trust(&settings)?
            }
            read => read?,
        };
        if settings.require_signed && models.iter().any(|model| !is_known(&trust.trust, &model.bundle)) {
            first_look(&mut trust, &remote, disk.as_ref(), &settings.state);
        }
        let mut managed = vec![];
        for model in models {
            let state = settings.state.join(MODELS);
            let opened = match &stuck {
                None => Slots::open(disk.clone(), &state, &model.name),
                Some(_) => Slots::look(disk.clone(), &state, &model.name).map(|slots| (slots, vec![])),
            };
            let (mut slots, found) = opened.unwrap_or_else(|e| {
                stuck.get_or_insert_with(|| format!("updates: {e}"));
                let looked = Slots::look(disk.clone(), &state, &model.name);
                (looked.unwrap_or_else(|_| Slots::none(disk.clone(), &state, &model.name)), vec![])
            });
            for found in found {
                tracing::warn!(model = model.name, "{}", told(&found));
            }
            let loaded = in_force(&mut slots, &model, &trust.trust, settings.require_signed, engine)?;
            let slot = Arc::new(ModelSlot::new(loaded));
            managed.push(Managed { model, slots, slot, wanted: None, said: None });
        }
        if let Some(why) = &stuck {
            tracing::error!("{why}; there are no updates until the next start, and the bundles that are there judge");
        }
        Ok(Updates { settings, disk, remote, trust, models: managed, lock, stuck })
    }

    /// Where the model of this name judges from.
    pub fn slot(&self, name: &str) -> Option<Arc<ModelSlot>> {
        self.models.iter().find(|m| m.model.name == name).map(|m| m.slot.clone())
    }

    /// What keeps them, from now on.
    pub fn updater(self, around: Surroundings) -> Updater {
        let Updates { settings, disk, remote, trust, models, lock, stuck } = self;
        let repository = RepositoryState { trouble: stuck.clone().unwrap_or_default(), ..RepositoryState::default() };
        let (stop, broke, asked) = (CancellationToken::new(), false, false);
        Updater { settings, disk, remote, trust, models, repository, around, stop, stuck, broke, asked, _lock: lock }
    }
}

impl Updater {
    /// Keeps models up to date until `stop`, in the caller's thread. It may be called again after it panicked: then what is on the disk counts, as at a
    /// start.
    ///
    /// # Errors
    /// There can be no runtime, or the disk does not give what is kept.
    pub fn work(&mut self, stop: CancellationToken) -> Result<(), UpdaterError> {
        self.stop = stop;
        if std::mem::replace(&mut self.broke, true) {
            self.recover()?;
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(UpdaterError::Runtime)?;
        runtime.block_on(async {
            match self.stuck.clone() {
                None => self.run().await,
                Some(why) => self.stay(&why).await,
            }
        });
        // A name that is looked up in vain must not keep the end.
        runtime.shutdown_background();
        self.broke = false;
        Ok(())
    }

    /// What was half-way when it panicked is told by the disk; a trial counts as one that ended uncleanly.
    fn recover(&mut self) -> Result<(), UpdaterError> {
        if self.stuck.is_some() {
            return Ok(());
        }
        for m in 0..self.models.len() {
            let Managed { model, slots, slot, said, .. } = &mut self.models[m];
            let (newer, found) = Slots::open(self.disk.clone(), &self.settings.state.join(MODELS), &model.name)?;
            for found in found {
                tracing::warn!(model = model.name, "{}", told(&found));
            }
            (*slots, *said) = (newer, None);
            let in_force = slots.committed().map(|slot| slot.digest.clone());
            if in_force.is_some_and(|digest| digest != slot.current().reference.digest) {
                self.reload(m);
            }
        }
        Ok(())
    }

    /// Says why there are no updates, until the end.
    async fn stay(&mut self, why: &str) {
        for m in 0..self.models.len() {
            self.tell(m);
        }
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                Some(command) = self.around.commands.recv() => {
                    let (UpdateCommand::Update { answer, .. } | UpdateCommand::RollBack { answer, .. }) = command;
                    let _ = answer.send(Err(why.to_owned()));
                }
            }
        }
    }

    async fn run(&mut self) {
        for m in 0..self.models.len() {
            self.tell(m);
        }
        let mut retry = FIRST_RETRY;
        // Soon after the start, but not all devices of a site at one instant.
        let mut next = Instant::now() + self.settings.poll.min(Duration::from_secs(10)).mul_f64(rand::rng().random());
        loop {
            if self.stop.is_cancelled() {
                break;
            }
            if Instant::now() >= next || std::mem::take(&mut self.asked) {
                let wait = if self.poll().await {
                    retry = FIRST_RETRY;
                    self.settings.poll
                } else {
                    retry = (retry * 2).min(self.settings.poll);
                    retry.min(self.settings.poll)
                };
                next = Instant::now() + wait.mul_f64(rand::rng().random_range(0.8..1.2));
                continue;
            }
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.stop.cancelled() => break,
                command = self.around.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                }
            }
        }
        for managed in &mut self.models {
            if let Err(e) = managed.slots.suspend_trial() {
                tracing::warn!("{e}");
            }
        }
    }

    /// Looks at the repository and does what is to be done; false when it is to be tried again soon.
    async fn poll(&mut self) -> bool {
        let Some(catalogue) = self.believe().await else { return false };
        fail::fail_point!("updates", |_| false);
        let mut well = true;
        for m in 0..self.models.len() {
            match self.models[m].slots.withdraw(&catalogue.revoked) {
                Ok(true) => {
                    tracing::warn!(
                        model = self.models[m].model.name,
                        "the bundle in force was withdrawn by the publisher"
                    );
                    self.reload(m);
                }
                Ok(false) => {}
                Err(e) => tracing::error!("{e}"),
            }
            let wanted = self.models[m].wanted.take();
            match self.choose(m, &catalogue, wanted.as_ref()) {
                Some(candidate) => well &= self.install(m, &candidate, wanted.is_some_and(|wanted| wanted.force)).await,
                None if wanted.is_some() => {
                    tracing::info!(model = self.models[m].model.name, "the repository has nothing that was asked for");
                }
                // It was on its way when the agent ended, and meanwhile the publisher thought better of it.
                None if self.models[m].slots.work().is_some() => {
                    self.refuse(m, "the repository does not offer it to this device any more", false);
                }
                None => {}
            }
            self.tell(m);
            if self.stop.is_cancelled() {
                break;
            }
        }
        well
    }

    /// Fetches and checks the metadata, and keeps what was verified.
    async fn believe(&mut self) -> Option<Catalogue> {
        let (remote, mut trust) = (self.remote.clone(), self.trust.trust.clone());
        let refreshed = self
            .attend(async move {
                let result = trust.refresh(&remote, Timestamp::now()).await;
                (trust, result)
            })
            .await;
        let (trust, result) = refreshed?;
        if trust != self.trust.trust {
            let newer = TrustFile { origin: self.trust.origin.clone(), trust };
            if let Err(e) = write_trust(self.disk.as_ref(), &self.settings.state, &newer) {
                // What is not on the disk is not built upon: an older state could be served after the next start.
                self.trouble(format!("what the repository says cannot be kept: {e}"));
                return None;
            }
            self.trust = newer;
        }
        match result {
            Ok(catalogue) => {
                for why in &catalogue.refused {
                    tracing::debug!("{why}");
                }
                let clock_behind_s = catalogue.clock_behind.map(|behind| behind.as_secs());
                if let Some(behind) = clock_behind_s {
                    tracing::warn!("the system's clock is {behind} s behind what the update repository was signed at");
                }
                if catalogue.stale {
                    tracing::warn!(
                        "the update repository's {} expires at {}: the publisher should sign it anew",
                        catalogue.expires.0,
                        catalogue.expires.1
                    );
                }
                self.repository = RepositoryState {
                    checked_at: Some(Timestamp::now()),
                    trouble: String::new(),
                    expires: Some(catalogue.expires.1),
                    stale: catalogue.stale,
                    clock_behind_s,
                };
                Some(catalogue)
            }
            Err(e) => {
                self.trouble(e.to_string());
                None
            }
        }
    }

    fn trouble(&mut self, why: String) {
        if self.repository.trouble != why {
            tracing::warn!("{why}; the models in force judge on");
        }
        self.repository.trouble = why;
        for m in 0..self.models.len() {
            self.tell(m);
        }
    }

    /// The newest bundle that this device takes.
    fn choose(&self, m: usize, catalogue: &Catalogue, wanted: Option<&Wanted>) -> Option<Candidate> {
        let Managed { model, slots, .. } = &self.models[m];
        let force = wanted.is_some_and(|wanted| wanted.force);
        let version = wanted.and_then(|wanted| wanted.version.clone());
        let for_us = catalogue.candidates.iter().filter(|candidate| candidate.offer.model == model.name);
        for candidate in for_us {
            if version.as_ref().is_some_and(|version| *version != candidate.offer.version.to_string()) {
                continue;
            }
            if let Some(why) = candidate.offer.refusal(&self.settings.device, &candidate.digest) {
                tracing::debug!(model = model.name, "{} is not taken: {why}", candidate.target);
                continue;
            }
            match slots.accepts(candidate, force) {
                Ok(()) => return Some(candidate.clone()),
                // What is behind it is older still.
                Err(SlotError::InForce(_) | SlotError::Older { .. }) if !force => return None,
                Err(why) => tracing::debug!(model = model.name, "{why}"),
            }
        }
        None
    }

    /// From the repository to the verdict over it; false when it is to be tried again soon.
    async fn install(&mut self, m: usize, candidate: &Candidate, force: bool) -> bool {
        if let Err(e) = self.models[m].slots.begin(candidate, force) {
            tracing::error!("{e}");
            return false;
        }
        let name = self.models[m].model.name.clone();
        if self.models[m].slots.work().is_some_and(|work| matches!(work.step, Step::Downloading | Step::Verified)) {
            tracing::info!(model = name, "{} is fetched", candidate.target);
            match self.fetch(m, candidate).await {
                None => return true,
                Some(Err((why, passing))) => {
                    if passing {
                        // It stays on its way, and the part stays on the disk.
                        self.trouble(why);
                        return false;
                    }
                    self.refuse(m, &why, false);
                    return false;
                }
                Some(Ok(part)) => {
                    if let Err((why, bar)) = self.verify_and_stage(m, candidate, &part) {
                        self.refuse(m, &why, bar);
                        return bar;
                    }
                }
            }
            self.tell(m);
        }
        self.try_out(m).await
    }

    /// The bundle, as a file whose digest is right. None: the agent ends.
    async fn fetch(&mut self, m: usize, candidate: &Candidate) -> Option<Result<PathBuf, (String, bool)>> {
        let parts = Parts::new(self.settings.state.join("parts"));
        let (remote, wanted) = (self.remote.clone(), candidate.clone());
        let got = Arc::new(Mutex::new(0));
        let seen = got.clone();
        let mut fetching = pin!(async move {
            let progress = move |bytes| *seen.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
            let fetched = parts.fetch(&remote, &wanted, progress).await;
            fetched.map_err(|e| (e.to_string(), e.is_passing()))
        });
        loop {
            let until = Instant::now() + SAY_EVERY;
            tokio::select! {
                done = &mut fetching => return Some(done),
                () = self.stop.cancelled() => return None,
                Some(command) = self.around.commands.recv() => self.command(command),
                () = sleep_until(until) => {
                    let bytes = *got.lock().unwrap_or_else(PoisonError::into_inner);
                    self.tell_with(m, |state| state.received_bytes = Some(bytes));
                }
            }
        }
    }

    /// What is signed and whole may yet be no bundle that this agent can read.
    fn verify_and_stage(&mut self, m: usize, candidate: &Candidate, part: &Path) -> Result<(), (String, bool)> {
        let bundle = Bundle::read(part).map_err(|e| (e.to_string(), true))?;
        if bundle.manifest.version != candidate.offer.version {
            let (signed, inside) = (&candidate.offer.version, &bundle.manifest.version);
            return Err((format!("it was published as {signed} and is {inside}"), true));
        }
        let engine = &bundle.manifest.engine;
        let own = env!("CARGO_PKG_VERSION").parse().expect("cargo checks it");
        if !engine.matches(&own) {
            return Err((format!("it needs an agent {engine}, this is {own}"), true));
        }
        self.models[m].slots.verified().map_err(|e| (e.to_string(), false))?;
        self.tell(m);
        self.models[m].slots.stage(part).map_err(|e| (e.to_string(), false))
    }

    /// The trial, from its durable beginning to its durable end; false when it is to be tried again soon.
    async fn try_out(&mut self, m: usize) -> bool {
        let Managed { model, slots, slot, .. } = &mut self.models[m];
        let Some(digest) = slots.work().map(|work| work.candidate.digest.clone()) else { return true };
        if let Err(e) = slots.begin_trial() {
            tracing::error!("{e}");
            return false;
        }
        let (path, in_force) = (slots.path(&digest), slot.current());
        tracing::info!(model = model.name, "a new bundle is on trial");
        self.tell(m);
        let result = match self.load_and_examine(path, in_force.clone()).await {
            // A command may have given it up meanwhile.
            Some(Ok(candidate)) if self.on_trial(m, &digest) => {
                let trial = Trial::new(candidate.clone(), self.settings.trial.clone());
                self.watch(m, trial, in_force).await.map(|verdict| verdict.map(|why| (candidate, why)))
            }
            Some(Err(refused)) => Some(Err(refused)),
            Some(Ok(_)) | None => None,
        };
        match result {
            // The agent ends, or a command gave the trial up.
            None => true,
            Some(_) if !self.on_trial(m, &digest) => true,
            Some(Err((why, bar))) => {
                self.refuse(m, &why, bar);
                bar
            }
            Some(Ok((candidate, why))) => {
                // First on the disk, then in force.
                if let Err(e) = self.models[m].slots.commit(&why) {
                    self.refuse(m, &e.to_string(), false);
                    return false;
                }
                // Committed and not yet swapped: a place for tests to hold it, at which nothing can fail.
                let _ = fails("swap");
                self.models[m].slot.swap(candidate);
                tracing::info!(model = self.models[m].model.name, "the new bundle is in force: {why}");
                self.tell(m);
                true
            }
        }
    }

    /// Whether the bundle of this digest is on trial still.
    fn on_trial(&self, m: usize, digest: &str) -> bool {
        let work = self.models[m].slots.work();
        work.is_some_and(|work| work.step == Step::Trial && work.candidate.digest == digest)
    }

    /// What can be known of a new model before a live frame. That takes seconds on a small device: it is done in a thread of its own, so that commands
    /// are heard and the agent can end meanwhile; the thread is left to itself then. None: the agent ends.
    async fn load_and_examine(
        &mut self,
        path: PathBuf,
        in_force: Arc<Model>,
    ) -> Option<Result<Arc<Model>, (String, bool)>> {
        let (engine, config) = (self.around.engine.clone(), self.settings.trial.clone());
        let examined = tokio::task::spawn_blocking(move || {
            fail::fail_point!("examine");
            let (model, bundle) = Model::load(&path, &engine).map_err(|e| (e.to_string(), true))?;
            examine(&model, &bundle, &in_force, &config)?;
            Ok(Arc::new(model))
        });
        let examined = self.attend(examined).await?;
        // A panic is one of the updater; it is not cancelled.
        Some(examined.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())))
    }

    /// Lets the candidate judge what the model in force has judged, until it is known whether it may take its place. None: the agent ends.
    async fn watch(
        &mut self,
        m: usize,
        mut trial: Trial,
        in_force: Arc<Model>,
    ) -> Option<Result<String, (String, bool)>> {
        // The views of a part come at once.
        let views = trial.candidate.inspector.manifest().views as usize;
        let mut tap = self.around.taps.open(SHADOWS * views, move |judged| Arc::ptr_eq(&judged.model, &in_force));
        let end = Instant::now() + self.settings.trial.deadline;
        let mut say_at = Instant::now() + SAY_EVERY;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                Some(command) = self.around.commands.recv() => self.command(command),
                Some(judged) = tap.next() => trial.shadow(&judged, &self.around.engine),
                () = sleep_until(say_at) => {
                    let (frames, of) = trial.progress();
                    self.tell_with(m, |state| state.trial_frames = Some([frames, of]));
                    say_at = Instant::now() + SAY_EVERY;
                }
                () = sleep_until(end) => return Some(Err((trial.too_late(), false))),
            }
            if let Some(verdict) = trial.verdict() {
                return Some(verdict.map_err(|why| (why, true)));
            }
            if self.models[m].slots.work().is_none_or(|work| work.step != Step::Trial) {
                return Some(Err(("it was given up".into(), false)));
            }
        }
    }

    fn refuse(&mut self, m: usize, why: &str, bar: bool) {
        let Managed { model, slots, .. } = &mut self.models[m];
        tracing::warn!(model = model.name, "the new bundle is refused: {why}; the old one judges on");
        if let Err(e) = slots.refuse(why, bar) {
            tracing::error!("{e}");
        }
        self.tell(m);
    }

    /// Puts in force what the record says.
    fn reload(&mut self, m: usize) {
        let Managed { model, slots, slot, .. } = &mut self.models[m];
        match in_force(slots, model, &self.trust.trust, false, &self.around.engine) {
            Ok(loaded) => drop(slot.swap(Arc::new(loaded))),
            Err(e) => tracing::error!("{e}; the model that is loaded judges on"),
        }
        self.tell(m);
    }

    fn command(&mut self, command: UpdateCommand) {
        let known = |models: &[Managed], name: &Option<String>| -> Result<Vec<usize>, String> {
            let found: Vec<usize> =
                (0..models.len()).filter(|&m| name.as_ref().is_none_or(|name| *name == models[m].model.name)).collect();
            let names: Vec<&str> = models.iter().map(|m| m.model.name.as_str()).collect();
            let asked = name.as_deref().unwrap_or("");
            if found.is_empty() {
                Err(format!("there is no model {asked:?} here; there are: {}", names.join(", ")))
            } else {
                Ok(found)
            }
        };
        match command {
            UpdateCommand::Update { model, version, force, answer } => {
                let found = known(&self.models, &model);
                self.asked |= found.is_ok();
                for m in found.iter().flatten() {
                    self.models[*m].wanted = Some(Wanted { version: version.clone(), force });
                }
                let _ = answer.send(
                    found.map(|_| "the repository is looked at; what comes of it is said at the model's state".into()),
                );
            }
            UpdateCommand::RollBack { model, answer } => {
                let done = known(&self.models, &model).and_then(|found| match found.as_slice() {
                    [m] => self.roll_back(*m),
                    _ => Err("there are several models; name one".into()),
                });
                let _ = answer.send(done);
            }
        }
    }

    fn roll_back(&mut self, m: usize) -> Result<String, String> {
        let Managed { slots, .. } = &mut self.models[m];
        if slots.work().is_some_and(|work| work.step == Step::Trial) {
            slots.refuse("it was given up for a rollback by command", false).map_err(|e| e.to_string())?;
        }
        slots.roll_back("by command", true).map_err(|e| e.to_string())?;
        self.reload(m);
        let reference = self.models[m].slot.current().reference.clone();
        Ok(format!("{} {} is in force", reference.name, reference.version))
    }

    /// Waits for `work` and hears commands meanwhile. None: the agent ends.
    async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                () = self.stop.cancelled() => return None,
                Some(command) = self.around.commands.recv() => self.command(command),
            }
        }
    }

    fn tell(&mut self, m: usize) {
        self.tell_with(m, |_| {});
    }

    /// Publishes the state of a model if it is another one than before.
    fn tell_with(&mut self, m: usize, more: impl FnOnce(&mut ModelState)) {
        let Managed { model, slots, slot, said, .. } = &mut self.models[m];
        let reference = &slot.current().reference;
        let of = |slot: &Slot| SlotRef { version: slot.version.to_string(), digest: slot.digest.clone() };
        let work = slots.work();
        let outcome = slots.outcome();
        let (phase, reason) = match (work, outcome) {
            (Some(work), _) => (
                match work.step {
                    Step::Downloading => ModelPhase::Downloading,
                    Step::Verified => ModelPhase::Verified,
                    Step::Staged => ModelPhase::Staged,
                    Step::Trial => ModelPhase::Trial,
                },
                String::new(),
            ),
            (None, Some(outcome)) => (
                match outcome.kind {
                    OutcomeKind::Committed => ModelPhase::Committed,
                    OutcomeKind::RolledBack => ModelPhase::RolledBack,
                    OutcomeKind::Refused => ModelPhase::Refused,
                },
                outcome.reason.clone(),
            ),
            (None, None) => (ModelPhase::Idle, String::new()),
        };
        let concerned = match (work, outcome) {
            (Some(work), _) => Some(of(&work.slot())),
            (None, Some(outcome)) if outcome.kind == OutcomeKind::Refused => outcome.to.as_ref().map(of),
            (None, Some(outcome)) if outcome.kind == OutcomeKind::RolledBack => outcome.from.as_ref().map(of),
            _ => None,
        };
        let mut state = ModelState {
            state: phase,
            reason,
            version: reference.version.clone(),
            digest: reference.digest.clone(),
            other: concerned,
            previous: slots.previous().map(of),
            size_bytes: work.map(|work| work.candidate.length),
            received_bytes: None,
            trial_frames: None,
            repository: self.repository.clone(),
        };
        more(&mut state);
        if said.as_ref() != Some(&state) {
            (self.around.say)(&model.name, &state);
            *said = Some(state);
        }
    }
}

/// Loads the bundle in force. One that cannot be run any more is left for the one before.
fn in_force(
    slots: &mut Slots,
    model: &ManagedModel,
    trust: &Trust,
    signed: bool,
    engine: &EnginePool,
) -> Result<Model, UpdaterError> {
    while let Some(slot) = slots.committed().cloned() {
        match Model::load(&slots.path(&slot.digest), engine) {
            Ok((loaded, _)) => return Ok(loaded),
            Err(e) => {
                tracing::error!(model = model.name, "{e}; the device goes back to the bundle before");
                if let Err(disk) = slots.leave(&e.to_string()) {
                    tracing::error!("{disk}");
                    break;
                }
            }
        }
    }
    let (loaded, _) = Model::load(&model.bundle, engine)?;
    let digest = &loaded.reference.digest;
    if signed && !trust.knows(digest) {
        return Err(UpdaterError::Unsigned { path: model.bundle.clone(), digest: digest.clone() });
    }
    Ok(loaded)
}

fn is_known(trust: &Trust, bundle: &Path) -> bool {
    RealDisk.digest(bundle).is_ok_and(|digest| trust.knows(&digest))
}

/// A device that is to judge with signed bundles only has to know once what is signed. Without a repository it goes on with what it knew.
fn first_look(trust: &mut TrustFile, remote: &Remote, disk: &dyn Disk, state: &Path) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    // In a thread, for the caller may be in a runtime of its own.
    let looked = std::thread::scope(|scope| {
        scope.spawn(|| runtime.block_on(trust.trust.refresh(remote, Timestamp::now())).map(drop)).join()
    });
    match looked {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!("{e}"),
        Err(_) => tracing::error!("looking at the update repository panicked"),
    }
    runtime.shutdown_background();
    if let Err(e) = write_trust(disk, state, trust) {
        tracing::warn!("what the update repository says cannot be kept: {e}");
    }
}

fn told(found: &Found) -> String {
    match found {
        Found::RecordLost(why) => {
            format!(
                "what was known of its updates cannot be read ({why}); the configured bundle judges until the next update"
            )
        }
        Found::TrialInterrupted(version) => {
            format!("the agent ended while {version} was on trial; it is tried once more")
        }
        Found::TrialFailed(version) => {
            format!("the agent ended twice while {version} was on trial; it is not tried again")
        }
        Found::Damaged(version) => format!("the bundle {version} on the disk is damaged; the device went back"),
    }
}

/// Nothing but the root that the device was given.
fn fresh_trust(settings: &UpdateSettings) -> Result<TrustFile, UpdaterError> {
    let trust = Trust::from_root(&settings.root_file)?;
    let (_, origin) = trust.root()?;
    Ok(TrustFile { origin, trust })
}

fn read_trust(disk: &dyn Disk, settings: &UpdateSettings) -> Result<TrustFile, UpdaterError> {
    let path = settings.state.join("trust.json");
    let fresh = fresh_trust(settings)?;
    let bytes = match disk.read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(fresh),
        Err(e) => return Err(UpdaterError::State(path, e)),
    };
    match serde_json::from_slice::<TrustFile>(&bytes) {
        Ok(kept) if kept.origin == fresh.origin && kept.trust.root().is_ok() => Ok(kept),
        Ok(_) => {
            tracing::warn!(
                "{} is another root than before; what older repositories said is forgotten",
                settings.root_file.display()
            );
            Ok(fresh)
        }
        Err(e) => {
            let aside = path.with_extension("json.unreadable");
            let moved = disk.adopt(&path, &aside);
            tracing::error!(
                "{} cannot be read ({e}); it is set aside ({moved:?}), and trust begins anew with {}",
                path.display(),
                settings.root_file.display()
            );
            Ok(fresh)
        }
    }
}

fn write_trust(disk: &dyn Disk, state: &Path, trust: &TrustFile) -> std::io::Result<()> {
    fails("trust")?;
    disk.replace(&state.join("trust.json"), &serde_json::to_vec(trust).expect("trust is plain data"))
}
