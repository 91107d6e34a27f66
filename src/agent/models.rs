//! `model`: the bundles of this device, by hand.

use super::Outcome;
use super::config::{ConfigError, Settings};
use crate::ota::{MODELS, UpdaterError, lock};
use ckaad_inspect::console::{OutputError, say};
use ckaad_update::disk::RealDisk;
use ckaad_update::slots::{Slot, SlotError, Slots};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `model` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelCommand {
    /// Print what there is.
    List,
    /// Put another bundle of this device in force: its version or digest.
    Activate(String),
    /// Go back to the bundle before.
    RollBack,
}

#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0} has no updates: `update.url` is empty")]
    NoUpdates(PathBuf),
    #[error("there is no model {given:?} here; there are: {known}")]
    Unknown { given: String, known: String },
    #[error("there are several models ({0}); name one with --model")]
    Several(String),
    #[error("the agent runs; ask it by the command rollback-model (`commands.allow`), or stop it first")]
    Runs,
    #[error(transparent)]
    State(UpdaterError),
    #[error(transparent)]
    Slots(#[from] SlotError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Looks at or changes the bundles of `model`, or of the only one.
///
/// # Errors
/// What was asked for cannot be done; nothing has changed then.
pub fn models(config: &Path, command: &ModelCommand, model: Option<&str>) -> Result<Outcome, ModelsError> {
    let settings = Settings::read(config)?;
    let Some(update) = &settings.update else { return Err(ModelsError::NoUpdates(config.into())) };
    let mut names: Vec<&str> = settings.cameras.iter().filter_map(|camera| camera.model.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    let known = names.join(", ");
    if let Some(given) = model {
        names.retain(|name| *name == given);
        if names.is_empty() {
            return Err(ModelsError::Unknown { given: given.into(), known });
        }
    }
    let state = update.state.join(MODELS);
    if *command == ModelCommand::List {
        for name in names {
            list(&Slots::look(Arc::new(RealDisk), &state, name)?)?;
        }
        return Ok(Outcome::Well);
    }
    let [name] = names.as_slice() else { return Err(ModelsError::Several(known)) };
    let _lock = lock(&update.state).map_err(|e| match e {
        UpdaterError::Locked(_) => ModelsError::Runs,
        e => ModelsError::State(e),
    })?;
    let (mut slots, _) = Slots::open(Arc::new(RealDisk), &state, name)?;
    match command {
        ModelCommand::Activate(version) => slots.activate(version)?,
        _ => slots.roll_back("by hand", true)?,
    }
    match slots.committed() {
        Some(slot) => say(format_args!("{name}: {} is in force from the next start on", slot.version))?,
        None => say(format_args!("{name}: the bundle of the configuration is in force from the next start on"))?,
    }
    Ok(Outcome::Well)
}

fn list(slots: &Slots) -> Result<(), OutputError> {
    let name = slots.model();
    let line = |what: &str, slot: Option<&Slot>| match slot {
        Some(slot) => {
            let whole = if slots.is_whole(slot) { "" } else { "  DAMAGED" };
            say(format_args!("{name}  {what:<10} {}  {}{whole}", slot.version, slot.digest))
        }
        None => say(format_args!("{name}  {what:<10} the bundle of the configuration")),
    };
    line("in force", slots.committed())?;
    if slots.committed().is_some() {
        line("before", slots.previous())?;
    }
    if let Some(work) = slots.work() {
        say(format_args!("{name}  on its way {}  {}  {:?}", work.slot().version, work.slot().digest, work.step))?;
    }
    if let Some(outcome) = slots.outcome() {
        say(format_args!("{name}  last       {:?}: {}", outcome.kind, outcome.reason))?;
    }
    for barred in slots.barred() {
        say(format_args!("{name}  barred     {}: {}", barred.digest, barred.reason))?;
    }
    Ok(())
}
