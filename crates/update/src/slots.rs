//! The bundles of one model on this device, and the steps by which a new one takes the place of the old.
//!
//! ```text
//! idle ─► downloading ─► staged ─► trial ─► committed
//!   ▲          │            │        │          │
//!   └──────────┴── refused ─┴────────┘     rolled back (by hand, withdrawn, or the slot is damaged)
//! ```
//!
//! Everything that must survive is in one file, `record.json`, which is replaced whole: a step is on the disk before what belongs to it begins. Bundles lie
//! beside it as `slots/DIGEST.ckaad`, at most three: the one in force, the one before, the one that is tried. At every instant the record
//! names slots that are whole, so whenever the power fails the device judges with exactly the old or exactly the new bundle.
//!
//! What a trial looks at is the agent's to say. Here is only that its beginning is written down *before* it begins: an end that nobody
//! wrote down (a crash, the watchdog, a power cut) is found at the next start and counts as one failure. The second one puts the bundle on
//! the list of those that are not tried again.

use crate::disk::{self, Disk};
use crate::offer::Candidate;
use jiff::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The format of the record that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// Trials that may end without anybody saying how.
const UNCLEAN_ENDS: u32 = 2;
/// Bundles that are remembered as not to be tried again; the oldest is forgotten.
const MOST_BARRED: usize = 64;

/// A bundle on this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// SHA-256 of the file.
    pub digest: String,
    /// The bundle's version.
    pub version: Version,
    /// Of its publication.
    pub sequence: u64,
}

/// How far a new bundle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// On its way; the part lies elsewhere.
    Downloading,
    /// Whole; signature, digest and contents checked. The part lies elsewhere still, and is looked at again when it gets its slot.
    Verified,
    /// In its slot.
    Staged,
    /// It judges beside the old one.
    Trial,
}

/// A new bundle on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// What is signed of it.
    pub candidate: Candidate,
    /// How far it is.
    pub step: Step,
    /// Trials that began and did not end as they should.
    pub unclean: u32,
}

/// What became of the last bundle that was on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Which end it was.
    pub kind: OutcomeKind,
    /// The bundle that was in force before; none is the one of the configuration.
    pub from: Option<Slot>,
    /// The bundle that it was about; none is the one of the configuration.
    pub to: Option<Slot>,
    /// In a sentence.
    pub reason: String,
    /// When it was written down, by the system's clock.
    pub at: Timestamp,
}

/// See [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    /// The new bundle is in force.
    Committed,
    /// The device went back.
    RolledBack,
    /// The old bundle stayed.
    Refused,
}

/// A bundle that is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Barred {
    /// SHA-256 of the file.
    pub digest: String,
    /// In a sentence.
    pub reason: String,
}

/// `record.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    committed: Option<Slot>,
    previous: Option<Slot>,
    work: Option<Work>,
    outcome: Option<Outcome>,
    barred: Vec<Barred>,
}

impl Record {
    fn new() -> Record {
        Record { format: FORMAT, committed: None, previous: None, work: None, outcome: None, barred: vec![] }
    }
}

/// Why a step cannot be done. A message holds its cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is.
pub enum SlotError {
    #[error("the state of the model {model} cannot be kept in {path}: {reason}")]
    Disk { model: String, path: PathBuf, reason: String },
    #[error("{0} is in force already")]
    InForce(Version),
    #[error("{version} was published before {in_force}, which is in force")]
    Older { version: Version, in_force: Version },
    #[error("{version} is not tried again: {reason}")]
    Barred { version: Version, reason: String },
    #[error("there is no bundle to go back to")]
    NothingBefore,
    #[error("no bundle {0} is on this device")]
    Unknown(String),
    #[error("the bundle {0} on this device is damaged")]
    Damaged(Version),
    #[error("a bundle is on trial")]
    OnTrial,
    #[error("no bundle is on its way")]
    Nothing,
}

/// What was found at the start, besides what is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The record could not be read; it lies beside its place now, and the device is as one that was never updated.
    RecordLost(String),
    /// A trial had begun and nobody said how it ended: it may begin once more.
    TrialInterrupted(Version),
    /// The same a second time: refused.
    TrialFailed(Version),
    /// The bundle in force is damaged: the device went back.
    Damaged(Version),
}

/// The bundles of one model; see the module.
pub struct Slots {
    model: String,
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    record: Record,
}

impl Slots {
    /// Opens what is kept of `model` below `state`, and puts in order what the last run left.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn open(disk: Arc<dyn Disk>, state: &Path, model: &str) -> Result<(Slots, Vec<Found>), SlotError> {
        let folder = state.join(model);
        let mut slots = Slots { model: model.into(), folder, disk, record: Record::new() };
        let (place, below) = (slots.folder.clone(), slots.folder.join("slots"));
        slots.disk.make_folder(&below).map_err(|e| slots.error(&place, &e))?;
        let mut found = vec![];
        let path = slots.record_path();
        match slots.disk.read(&path) {
            Ok(bytes) => match parse(&bytes) {
                Ok(record) => slots.record = record,
                Err(why) => {
                    // A record that cannot be read is no reason not to inspect.
                    let aside = slots.folder.join("record.json.unreadable");
                    slots.disk.adopt(&path, &aside).map_err(|e| slots.error(&aside, &e))?;
                    found.push(Found::RecordLost(why));
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(slots.error(&path, &e)),
        }
        slots.mend(&mut found)?;
        slots.tidy();
        Ok((slots, found))
    }

    /// Reads what is kept of `model` and changes nothing: beside an agent that runs.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn look(disk: Arc<dyn Disk>, state: &Path, model: &str) -> Result<Slots, SlotError> {
        let mut slots = Slots::none(disk, state, model);
        let path = slots.record_path();
        match slots.disk.read(&path) {
            Ok(bytes) => {
                slots.record = parse(&bytes).map_err(|why| slots.error(&path, &io::Error::other(why)))?;
                Ok(slots)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(slots),
            Err(e) => Err(slots.error(&path, &e)),
        }
    }

    /// As [`Slots::look`] where nothing was kept.
    pub fn none(disk: Arc<dyn Disk>, state: &Path, model: &str) -> Slots {
        Slots { model: model.into(), folder: state.join(model), disk, record: Record::new() }
    }

    /// What the last run left half-way.
    fn mend(&mut self, found: &mut Vec<Found>) -> Result<(), SlotError> {
        if let Some(committed) = self.record.committed.clone()
            && !self.is_whole(&committed)
        {
            let previous = self.record.previous.clone().filter(|slot| self.is_whole(slot));
            let reason = format!("the bundle {} on the disk is damaged", committed.version);
            found.push(Found::Damaged(committed.version.clone()));
            self.change("mend-damaged", |record| {
                record.committed = previous.clone();
                record.previous = None;
                record.outcome = Some(outcome(OutcomeKind::RolledBack, Some(committed), previous, reason));
            })?;
        }
        let Some(work) = self.record.work.clone() else { return Ok(()) };
        let slot = work.slot();
        match work.step {
            Step::Trial if work.unclean >= UNCLEAN_ENDS => {
                found.push(Found::TrialFailed(slot.version));
                self.refuse(&format!("the agent ended {UNCLEAN_ENDS} times while it was on trial"), true)?;
            }
            Step::Trial => {
                found.push(Found::TrialInterrupted(slot.version));
                self.change("mend-trial", |record| record.set_step(Step::Staged))?;
            }
            _ => {}
        }
        // What was staged and is not there any more is fetched again.
        if self.record.work.as_ref().is_some_and(|work| work.step == Step::Staged && !self.is_whole(&work.slot())) {
            self.change("mend-staged", |record| record.set_step(Step::Downloading))?;
        }
        Ok(())
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The bundle in force; none is the one of the configuration.
    pub fn committed(&self) -> Option<&Slot> {
        self.record.committed.as_ref()
    }

    /// The bundle to go back to; none is the one of the configuration.
    pub fn previous(&self) -> Option<&Slot> {
        self.record.previous.as_ref()
    }

    /// The bundle on its way.
    pub fn work(&self) -> Option<&Work> {
        self.record.work.as_ref()
    }

    /// What became of the last one.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.record.outcome.as_ref()
    }

    /// Bundles that are not tried again.
    pub fn barred(&self) -> &[Barred] {
        &self.record.barred
    }

    /// The file of a slot.
    pub fn path(&self, digest: &str) -> PathBuf {
        self.folder.join("slots").join(format!("{digest}.ckaad"))
    }

    /// Whether a bundle would be taken: newer than the one in force, and not barred. `force` takes older ones too.
    ///
    /// # Errors
    /// Why it would not.
    pub fn accepts(&self, candidate: &Candidate, force: bool) -> Result<(), SlotError> {
        let version = candidate.offer.version.clone();
        if self.record.work.as_ref().is_some_and(|work| work.step == Step::Trial) {
            return Err(SlotError::OnTrial);
        }
        if let Some(committed) = &self.record.committed {
            if committed.digest == candidate.digest {
                return Err(SlotError::InForce(version));
            }
            if candidate.offer.sequence <= committed.sequence && !force {
                return Err(SlotError::Older { version, in_force: committed.version.clone() });
            }
        }
        match self.record.barred.iter().find(|barred| barred.digest == candidate.digest) {
            Some(barred) if !force => Err(SlotError::Barred { version, reason: barred.reason.clone() }),
            _ => Ok(()),
        }
    }

    /// A bundle is on its way from now on. One that was on its way before and is not on trial yet is given up for it.
    ///
    /// # Errors
    /// As [`Slots::accepts`], or the disk's.
    pub fn begin(&mut self, candidate: &Candidate, force: bool) -> Result<(), SlotError> {
        self.accepts(candidate, force)?;
        if self.record.work.as_ref().is_some_and(|work| work.candidate == *candidate) {
            return Ok(());
        }
        let work = Work { candidate: candidate.clone(), step: Step::Downloading, unclean: 0 };
        self.change("begin", |record| {
            record.barred.retain(|barred| barred.digest != candidate.digest);
            record.work = Some(work);
        })?;
        self.tidy();
        Ok(())
    }

    /// The bundle on its way is whole, and what was signed.
    ///
    /// # Errors
    /// The disk's; or nothing is on its way.
    pub fn verified(&mut self) -> Result<(), SlotError> {
        let step = self.record.work.as_ref().map(|work| work.step);
        match step {
            Some(Step::Downloading) => self.change("verified", |record| record.set_step(Step::Verified)),
            Some(Step::Verified) => Ok(()),
            _ => Err(SlotError::Nothing),
        }
    }

    /// The bundle that was verified lies at `part`: it gets its slot.
    ///
    /// # Errors
    /// The disk's; or nothing was verified.
    pub fn stage(&mut self, part: &Path) -> Result<(), SlotError> {
        let work = self.record.work.as_ref().filter(|work| work.step == Step::Verified);
        let slot = work.map(Work::slot).ok_or(SlotError::Nothing)?;
        let path = self.path(&slot.digest);
        disk::fails("stage").and_then(|()| self.disk.adopt(part, &path)).map_err(|e| self.error(&path, &e))?;
        // Read back: a disk that says it wrote is believed only then.
        if !self.is_whole(&slot) {
            let _ = self.disk.remove(&path);
            return Err(SlotError::Damaged(slot.version));
        }
        self.change("staged", |record| record.set_step(Step::Staged))
    }

    /// The trial begins once this is on the disk.
    ///
    /// # Errors
    /// The disk's; or nothing is staged.
    pub fn begin_trial(&mut self) -> Result<(), SlotError> {
        if self.record.work.as_ref().is_none_or(|work| work.step != Step::Staged) {
            return Err(SlotError::Nothing);
        }
        self.change("begin-trial", |record| {
            record.set_step(Step::Trial);
            if let Some(work) = &mut record.work {
                work.unclean += 1;
            }
        })
    }

    /// The agent ends as it should while a bundle is on trial: that is no failure.
    ///
    /// # Errors
    /// The disk's.
    pub fn suspend_trial(&mut self) -> Result<(), SlotError> {
        if self.record.work.as_ref().is_none_or(|work| work.step != Step::Trial) {
            return Ok(());
        }
        self.change("suspend-trial", |record| {
            record.set_step(Step::Staged);
            if let Some(work) = &mut record.work {
                work.unclean = work.unclean.saturating_sub(1);
            }
        })
    }

    /// The bundle on trial is in force from now on.
    ///
    /// # Errors
    /// The disk's: then the old one is; or none is on trial.
    pub fn commit(&mut self, reason: &str) -> Result<(), SlotError> {
        let work = self.record.work.clone().filter(|work| work.step == Step::Trial).ok_or(SlotError::Nothing)?;
        let slot = work.slot();
        let before = self.record.committed.clone();
        self.change("commit", |record| {
            record.outcome = Some(outcome(OutcomeKind::Committed, before.clone(), Some(slot.clone()), reason.into()));
            record.previous = before;
            record.committed = Some(slot);
            record.work = None;
        })?;
        self.tidy();
        Ok(())
    }

    /// The bundle on its way is given up. `bar`: it is not tried again.
    ///
    /// # Errors
    /// The disk's; or nothing is on its way.
    pub fn refuse(&mut self, reason: &str, bar: bool) -> Result<(), SlotError> {
        let slot = self.record.work.as_ref().map(Work::slot).ok_or(SlotError::Nothing)?;
        self.change("refuse", |record| {
            if bar {
                record.bar(&slot.digest, reason);
            }
            let from = record.committed.clone();
            record.outcome = Some(outcome(OutcomeKind::Refused, from, Some(slot), reason.into()));
            record.work = None;
        })?;
        self.tidy();
        Ok(())
    }

    /// Goes back to the bundle before, or to that of the configuration where there is none. The one that is left is not taken again by
    /// itself. `keep`: it stays here, so that somebody can go forward to it again.
    ///
    /// # Errors
    /// The disk's; none is in force but that of the configuration; or the bundle before is damaged.
    pub fn roll_back(&mut self, reason: &str, keep: bool) -> Result<(), SlotError> {
        let left = self.record.committed.clone().ok_or(SlotError::NothingBefore)?;
        let to = self.record.previous.clone();
        // Looked at before the old one is left.
        if let Some(slot) = &to
            && !self.is_whole(slot)
        {
            return Err(SlotError::Damaged(slot.version.clone()));
        }
        self.change("roll-back", |record| {
            record.bar(&left.digest, reason);
            if let Some(slot) = &to {
                record.barred.retain(|barred| barred.digest != slot.digest);
            }
            record.outcome = Some(outcome(OutcomeKind::RolledBack, Some(left.clone()), to.clone(), reason.into()));
            record.committed = to;
            record.previous = keep.then_some(left);
        })?;
        self.tidy();
        Ok(())
    }

    /// Goes back from a bundle that cannot stay, to the one before if that is whole, else to that of the configuration.
    ///
    /// # Errors
    /// The disk's; or none is in force but that of the configuration.
    pub fn leave(&mut self, reason: &str) -> Result<(), SlotError> {
        match self.roll_back(reason, false) {
            Err(SlotError::Damaged(_)) => {
                self.change("leave", |record| record.previous = None)?;
                self.roll_back(reason, false)
            }
            done => done,
        }
    }

    /// Puts a bundle of this device in force, by hand.
    ///
    /// # Errors
    /// It is not there, is damaged, or the disk's.
    pub fn activate(&mut self, version: &str) -> Result<(), SlotError> {
        let known = [&self.record.committed, &self.record.previous];
        let wanted = known.into_iter().flatten().find(|s| s.version.to_string() == version || s.digest == version);
        let slot = wanted.cloned().ok_or_else(|| SlotError::Unknown(version.into()))?;
        if self.record.committed.as_ref() == Some(&slot) {
            return Err(SlotError::InForce(slot.version));
        }
        if !self.is_whole(&slot) {
            return Err(SlotError::Damaged(slot.version));
        }
        const REASON: &str = "by hand";
        self.change("activate", |record| {
            let left = record.committed.take();
            let forward = left.as_ref().is_none_or(|left| left.sequence < slot.sequence);
            if let Some(left) = left.as_ref().filter(|_| !forward) {
                record.bar(&left.digest, REASON);
            }
            record.barred.retain(|barred| barred.digest != slot.digest);
            let kind = if forward { OutcomeKind::Committed } else { OutcomeKind::RolledBack };
            let (from, to) = (left.clone(), Some(slot.clone()));
            record.outcome = Some(outcome(kind, from, to, REASON.into()));
            record.previous = left;
            record.committed = Some(slot);
        })?;
        self.tidy();
        Ok(())
    }

    /// Bundles that the publisher withdrew: none of them stays in force or on its way. Says whether the one in force changed.
    ///
    /// # Errors
    /// The disk's.
    pub fn withdraw(&mut self, revoked: &[String]) -> Result<bool, SlotError> {
        const REASON: &str = "the publisher withdrew it";
        if self.record.work.as_ref().is_some_and(|work| revoked.contains(&work.candidate.digest)) {
            self.refuse(REASON, true)?;
        }
        let is_revoked = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| revoked.contains(&slot.digest));
        if is_revoked(&self.record.previous) {
            self.change("withdraw", |record| record.previous = None)?;
        }
        if !is_revoked(&self.record.committed) {
            return Ok(false);
        }
        self.leave(REASON)?;
        Ok(true)
    }

    /// Whether a slot's file is there with the digest that it should have.
    pub fn is_whole(&self, slot: &Slot) -> bool {
        self.disk.digest(&self.path(&slot.digest)).is_ok_and(|digest| digest == slot.digest)
    }

    fn record_path(&self) -> PathBuf {
        self.folder.join("record.json")
    }

    /// Changes the record on the disk, and here only when that went well. `step` is what tests call it.
    fn change(&mut self, step: &str, change: impl FnOnce(&mut Record)) -> Result<(), SlotError> {
        let mut record = self.record.clone();
        change(&mut record);
        let bytes = serde_json::to_vec_pretty(&record).expect("a record is plain data");
        let path = self.record_path();
        disk::fails(step).and_then(|()| self.disk.replace(&path, &bytes)).map_err(|e| self.error(&path, &e))?;
        self.record = record;
        Ok(())
    }

    /// Removes bundles that the record does not name. What cannot be removed is tried again at the next step.
    fn tidy(&self) {
        let record = &self.record;
        let work = record.work.as_ref().map(|work| work.candidate.digest.as_str());
        let kept = [&record.committed, &record.previous].into_iter().flatten().map(|slot| slot.digest.as_str());
        let kept: Vec<String> = kept.chain(work).map(|digest| format!("{digest}.ckaad")).collect();
        let folder = self.folder.join("slots");
        for name in self.disk.names(&folder).unwrap_or_default() {
            if !kept.contains(&name) {
                let _ = self.disk.remove(&folder.join(name));
            }
        }
    }

    fn error(&self, path: &Path, e: &io::Error) -> SlotError {
        SlotError::Disk { model: self.model.clone(), path: path.to_owned(), reason: e.to_string() }
    }
}

impl Work {
    /// The slot that it gets.
    pub fn slot(&self) -> Slot {
        let Candidate { digest, offer, .. } = &self.candidate;
        Slot { digest: digest.clone(), version: offer.version.clone(), sequence: offer.sequence }
    }
}

impl Record {
    fn set_step(&mut self, step: Step) {
        if let Some(work) = &mut self.work {
            work.step = step;
        }
    }

    fn bar(&mut self, digest: &str, reason: &str) {
        self.barred.retain(|barred| barred.digest != digest);
        self.barred.push(Barred { digest: digest.into(), reason: reason.into() });
        let surplus = self.barred.len().saturating_sub(MOST_BARRED);
        self.barred.drain(..surplus);
    }
}

fn outcome(kind: OutcomeKind, from: Option<Slot>, to: Option<Slot>, reason: String) -> Outcome {
    Outcome { kind, from, to, reason, at: Timestamp::now() }
}

fn parse(bytes: &[u8]) -> Result<Record, String> {
    let format = |value: &serde_json::Value| value["format"].as_u64().filter(|&f| f > u64::from(FORMAT));
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if let Some(newer) = format(&value) {
        return Err(format!("it has the format {newer}; this agent reads up to {FORMAT}"));
    }
    serde_json::from_value(value).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
