//! What goes through the outbox: the ground that its rules, its file and its thread stand on.

use crate::events::OutboxHealth;
use std::path::PathBuf;

/// How much a message matters; the smallest goes first when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A picture: the event that it belongs to says the same in numbers.
    Heatmap = 0,
    /// One more defective frame of an incident that is known.
    Updated = 1,
    /// The end of an incident.
    Closed = 2,
    /// A defect that nobody knows of yet. Never removed to make room.
    Opened = 3,
}

/// Where messages of this priority are counted that were not delivered.
pub(super) fn lost(health: &mut OutboxHealth, priority: Priority) -> &mut u64 {
    match priority {
        Priority::Heatmap => &mut health.dropped_heatmaps,
        Priority::Updated | Priority::Closed => &mut health.dropped_updates,
        Priority::Opened => &mut health.lost_opened,
    }
}

/// One message on its way, published with QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it gives way to.
    pub priority: Priority,
    /// The whole topic.
    pub topic: String,
    /// Media type of the payload.
    pub content_type: String,
    /// The CloudEvent's id; a heatmap has the id of the event that it belongs to.
    pub event_id: String,
    /// The bytes as they are published.
    pub payload: Vec<u8>,
}

impl Message {
    /// Bytes that it takes, a little over.
    pub(super) fn size(&self) -> u64 {
        (self.payload.len() + self.topic.len() + self.content_type.len() + self.event_id.len() + 64) as u64
    }
}

/// Something small that must survive our end and changes together with a message: the open incident of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whose it is; a later note of this key replaces an earlier one.
    pub key: String,
    /// None forgets it.
    pub value: Option<String>,
}

/// What the outbox may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk.
    pub max_bytes: u64,
}

/// Where a message was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Synced: it survives our end, and the machine's.
    OnDisk,
    /// The disk takes nothing; it is stored with the next write that works.
    InMemory,
}

/// Why a message or the file cannot be kept. A message holds its cause; there is no other source.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// At the start, or while it is tried again.
    #[error("cannot open the outbox {path}: {reason}; events are kept in memory until it can be opened")]
    Closed { path: PathBuf, reason: String },
    /// Damaged or foreign: the sentence says what became of it.
    #[error("cannot open the outbox {path}: {reason}")]
    Open { path: PathBuf, reason: String },
    /// The disk refuses.
    #[error("cannot write to the outbox {path}: {reason}; events are kept in memory until it can be written again")]
    Write { path: PathBuf, reason: String },
    /// The disk refuses to give back.
    #[error("cannot read the outbox {path}: {reason}")]
    Read { path: PathBuf, reason: String },
    /// The room rule left no room.
    #[error("the outbox {path} is full of more important messages ({max_bytes} bytes): one {priority:?} was dropped")]
    Full { path: PathBuf, max_bytes: u64, priority: Priority },
}
