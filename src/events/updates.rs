//! What is said of models that change, and of commands.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Retained at `model/<name>/state`: which bundle judges, and what becomes of a new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelState {
    pub state: ModelPhase,
    /// Why, in a sentence: of `committed`, `rolled-back` and `refused`.
    pub reason: String,
    /// The bundle that judges: as it is loaded, not as a file says.
    pub version: String,
    /// SHA-256 of the bundle that judges.
    pub digest: String,
    /// The bundle on its way; after `refused` the one that was refused, after `rolled-back` the one that was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<SlotRef>,
    /// The bundle that `rollback-model` goes back to; absent is the one of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<SlotRef>,
    /// Of the bundle on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// `downloading` only, once a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// `trial` only, once a second: live frames judged by both models, and how many are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial_frames: Option<[u32; 2]>,
    pub repository: RepositoryState,
}

/// How far a new bundle is, or what became of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelPhase {
    /// There was none yet.
    Idle,
    Downloading,
    /// Whole; signature, digest and contents checked.
    Verified,
    /// In its slot on the disk.
    Staged,
    /// It judges beside the model in force, which is what is published.
    Trial,
    Committed,
    RolledBack,
    Refused,
}

/// A bundle on the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotRef {
    pub version: String,
    /// SHA-256 of the bundle.
    pub digest: String,
}

/// What is known of the update repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RepositoryState {
    /// When it was believed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub checked_at: Option<Timestamp>,
    /// Why it is not reached or not believed now; empty when it is.
    pub trouble: String,
    /// When the first of its roles expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires: Option<Timestamp>,
    /// Less than a third of its life is left: the publisher should sign it anew.
    pub stale: bool,
    /// By how much the system's clock is behind what was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_behind_s: Option<i64>,
}

/// What may be sent to `cmd/update-model/<id>`; all may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateModel {
    /// As the repository calls it; every model of the device where it is absent.
    pub model: Option<String>,
    /// This version only.
    pub version: Option<String>,
    /// Also a bundle that is older than the one in force, or that is not tried again.
    pub force: bool,
}

/// What may be sent to `cmd/rollback-model/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RollbackModel {
    /// May be left out where the device has one.
    pub model: Option<String>,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandResult {
    /// The last level of the command's topic.
    pub id: String,
    pub operation: String,
    pub ok: bool,
    /// In a sentence.
    pub message: String,
}
