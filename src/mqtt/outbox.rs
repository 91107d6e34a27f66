//! The outbox: what waits for the broker's acknowledgement.
//!
//! # Limits
//! 1. `max_bytes` bounds the pages of the SQLite file that are in use. SQLite is told the same as `max_page_count`, so the file
//!    itself cannot grow past it; the write-ahead log beside it stays under about [`store::WAL_BYTES`] plus the largest message.
//! 2. One message is at most `max_bytes` / 8, so that a single one cannot push out everything.
//! 3. What the disk refuses waits in memory, at most [`VOLATILE_BYTES`].
//!
//! # Life of a message
//! ```text
//!            put: one transaction, synced             PubAck
//! (nothing) ─────────────────────────► stored ─────────────────► deleted
//!     │  disk refuses                     ▲
//!     └──────────────► volatile (memory) ─┘ with the next write that works
//! ```
//!
//! # Invariants
//! - A message that `put` reported as [`Stored::OnDisk`] is gone only after [`Outbox::acked`], or by the room rule.
//! - The room rule: when a message does not fit, the oldest heatmaps go first, then the oldest `updated`, then the oldest `closed`.
//!   An `opened` is never removed. A message never pushes out one of a higher rank than its own.
//! - Every message that is not delivered is counted in [`OutboxHealth`].
//! - A damaged file is renamed to `<name>.damaged-<time>` and a new one begun: it never stops the start. The newest two are kept.
//!
//! Delivery is at least once: an acknowledgement that we did not see leads to a second delivery with the same event id.

use super::store;
use crate::events::{Kind, OutboxHealth};
use rusqlite::{Connection, OptionalExtension};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is kept in memory while the disk refuses.
pub const VOLATILE_BYTES: usize = 16 << 20;
/// Room that SQLite needs for itself; a smaller limit is raised to it.
const SMALLEST: u64 = 64 * store::PAGE;
const REOPEN_EVERY: Duration = Duration::from_secs(5);
const TOLD_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error("cannot open the outbox {path}: {reason}; events are kept in memory until it can be opened")]
    Closed { path: PathBuf, reason: String },
    #[error("cannot open the outbox {path}: {reason}")]
    Open { path: PathBuf, reason: String },
    #[error("cannot write to the outbox {path}: {reason}; events are kept in memory until it can be written again")]
    Write { path: PathBuf, reason: String },
    #[error("cannot read the outbox {path}: {reason}")]
    Read { path: PathBuf, reason: String },
    #[error("the outbox {path} is full of more important messages ({max_bytes} bytes): one {rank:?} was dropped")]
    Full { path: PathBuf, max_bytes: u64, rank: Rank },
}

/// How much a message matters; the smallest goes first when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Heatmap = 0,
    Updated = 1,
    Closed = 2,
    Opened = 3,
}

impl From<Kind> for Rank {
    fn from(kind: Kind) -> Rank {
        match kind {
            Kind::Opened => Rank::Opened,
            Kind::Updated => Rank::Updated,
            Kind::Closed => Rank::Closed,
        }
    }
}

/// One message on its way, published with QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub rank: Rank,
    pub topic: String,
    pub content_type: String,
    /// The CloudEvent's id; a heatmap has the id of the event that it belongs to.
    pub event_id: String,
    pub payload: Vec<u8>,
}

impl Message {
    /// Bytes that it takes, a little over.
    pub(super) fn size(&self) -> u64 {
        (self.payload.len() + self.topic.len() + self.content_type.len() + self.event_id.len() + 64) as u64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_bytes: u64,
}

/// Where `put` left a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    OnDisk,
    InMemory,
}

/// See the module's text.
pub struct Outbox {
    path: PathBuf,
    limits: Limits,
    /// None while the file cannot be opened.
    db: Option<Connection>,
    tried_at: Instant,
    /// Ids count down from -1.
    volatile: VecDeque<(i64, Message)>,
    volatile_bytes: usize,
    next_volatile: i64,
    counts: OutboxHealth,
    /// The disk refuses, told then; told again when it is over. A disk at its limit takes one message and refuses the next:
    /// that is one trouble.
    refusing: Option<Instant>,
}

impl Outbox {
    /// Opens or creates the file. The second value is the trouble on the way, if there was any; the outbox works all the same,
    /// in memory if it has to.
    pub fn open(path: &Path, limits: Limits) -> (Outbox, Option<OutboxError>) {
        let limits = Limits { max_bytes: limits.max_bytes.max(SMALLEST) };
        let mut outbox = Outbox {
            path: path.to_owned(),
            limits,
            db: None,
            tried_at: Instant::now(),
            volatile: VecDeque::new(),
            volatile_bytes: 0,
            next_volatile: -1,
            counts: OutboxHealth::default(),
            refusing: None,
        };
        let trouble = outbox.reopen().err();
        outbox.refusing = outbox.db.is_none().then(Instant::now);
        (outbox, trouble)
    }

    /// What waits in the file at `path`, without changing it: a damaged one is reported and left where it is.
    ///
    /// # Errors
    /// It cannot be opened, or is damaged.
    pub fn look(path: &Path, limits: Limits) -> Result<OutboxHealth, OutboxError> {
        let open = |e: rusqlite::Error| OutboxError::Open { path: path.to_owned(), reason: e.to_string() };
        let db = store::connect(path, limits).map_err(open)?;
        let waiting = db.query_row("SELECT count(*) FROM message", [], |r| r.get::<_, i64>(0)).map_err(open)? as u64;
        Ok(OutboxHealth { waiting, bytes: store::used_bytes(&db).map_err(open)?, ..OutboxHealth::default() })
    }

    /// Err is also returned after a damaged file was set aside, when the new one is in place.
    fn reopen(&mut self) -> Result<(), OutboxError> {
        self.tried_at = Instant::now();
        let open = |reason: String| OutboxError::Open { path: self.path.clone(), reason };
        match store::connect(&self.path, self.limits) {
            Ok(db) => {
                self.db = Some(db);
                Ok(())
            }
            Err(e) if store::is_damage(&e) => {
                let aside = store::set_aside(&self.path)
                    .map_err(|io| open(format!("it is damaged ({e}) and cannot be renamed: {io}")))?;
                self.counts.set_aside += 1;
                self.db = Some(store::connect(&self.path, self.limits).map_err(|e| open(e.to_string()))?);
                Err(open(format!("it is damaged ({e}); it was set aside as {} and a new one begun", aside.display())))
            }
            Err(e) => Err(OutboxError::Closed { path: self.path.clone(), reason: e.to_string() }),
        }
    }

    /// Keeps `message` until it is acknowledged.
    ///
    /// # Errors
    /// [`OutboxError::Full`]: it was dropped, by the room rule. Never for an `opened` while memory has room.
    pub fn put(&mut self, message: Message) -> Result<Stored, OutboxError> {
        if message.size() > self.limits.max_bytes / 8 {
            self.count_drop(message.rank, 1);
            return Err(self.full(message.rank));
        }
        match self.put_on_disk(&message) {
            Ok(true) => {
                if self.refusing.take_if(|told| told.elapsed() >= TOLD_EVERY).is_some() {
                    tracing::info!("the outbox {} can be written again", self.path.display());
                }
                self.spill_back();
                Ok(Stored::OnDisk)
            }
            Ok(false) if message.rank != Rank::Opened => {
                self.count_drop(message.rank, 1);
                Err(self.full(message.rank))
            }
            Ok(false) => self.put_in_memory(message),
            Err(e) => {
                self.counts.failed_writes += 1;
                if self.refusing.is_none() {
                    self.refusing = Some(Instant::now());
                    tracing::error!("{e}");
                }
                self.put_in_memory(message)
            }
        }
    }

    fn full(&self, rank: Rank) -> OutboxError {
        OutboxError::Full { path: self.path.clone(), max_bytes: self.limits.max_bytes, rank }
    }

    /// False when the room rule leaves no room.
    fn put_on_disk(&mut self, message: &Message) -> Result<bool, OutboxError> {
        if self.db.is_none() && self.tried_at.elapsed() >= REOPEN_EVERY {
            self.reopen()?;
        }
        let path = self.path.clone();
        let write = |e: rusqlite::Error| OutboxError::Write { path: path.clone(), reason: e.to_string() };
        let closed = || OutboxError::Write { path: path.clone(), reason: "it is not open".into() };
        let db = self.db.as_mut().ok_or_else(closed)?;
        match store::insert(db, self.limits, message) {
            Ok(store::Insert::Done { dropped }) => {
                for (rank, n) in dropped {
                    self.count_drop(rank, n);
                }
                Ok(true)
            }
            Ok(store::Insert::NoRoom) => Ok(false),
            Err(e) if store::is_damage(&e) => {
                self.db = None;
                self.reopen()?;
                self.db.as_mut().map_or(Ok(false), |db| {
                    store::insert(db, self.limits, message)
                        .map(|i| matches!(i, store::Insert::Done { .. }))
                        .map_err(write)
                })
            }
            Err(e) => Err(write(e)),
        }
    }

    fn put_in_memory(&mut self, message: Message) -> Result<Stored, OutboxError> {
        let bytes = message.size() as usize;
        while self.volatile_bytes + bytes > VOLATILE_BYTES {
            let lowest =
                self.volatile.iter().enumerate().filter(|(_, (_, m))| m.rank != Rank::Opened && m.rank <= message.rank);
            let Some((at, _)) = lowest.min_by_key(|(at, (_, m))| (m.rank, *at)) else {
                self.count_drop(message.rank, 1);
                return Err(self.full(message.rank));
            };
            if let Some((_, gone)) = self.volatile.remove(at) {
                self.volatile_bytes -= gone.size() as usize;
                self.count_drop(gone.rank, 1);
            }
        }
        self.volatile_bytes += bytes;
        self.volatile.push_back((self.next_volatile, message));
        self.next_volatile -= 1;
        Ok(Stored::InMemory)
    }

    /// The disk works again: what waits in memory is stored after all. One that is on its way to the broker may come twice.
    fn spill_back(&mut self) {
        while let Some((_, message)) = self.volatile.front().cloned() {
            if !matches!(self.put_on_disk(&message), Ok(true)) {
                return;
            }
            self.volatile.pop_front();
            self.volatile_bytes -= message.size() as usize;
        }
    }

    /// The last chance before the process ends: opens the file if it could not be opened before, and stores what waits in
    /// memory. What the disk still refuses is lost; it is counted and logged.
    pub fn flush(&mut self) {
        if self.volatile.is_empty() {
            return;
        }
        if self.db.is_none()
            && let Err(e) = self.reopen()
        {
            tracing::error!("{e}");
        }
        self.spill_back();
        if self.volatile.is_empty() {
            return;
        }
        tracing::error!(
            "{} message(s) waited in memory only and are lost: the outbox {} does not take them",
            self.volatile.len(),
            self.path.display()
        );
        self.volatile_bytes = 0;
        for (_, message) in std::mem::take(&mut self.volatile) {
            *self.lost(message.rank) += 1;
        }
    }

    /// The oldest messages that `skip` does not hold back, in the order to send them: at most `count`, and no more than
    /// `bytes` together (but always one).
    ///
    /// # Errors
    /// When the file cannot be read, and nothing waits in memory.
    pub fn pending(
        &mut self,
        skip: impl Fn(i64) -> bool,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<(i64, Message)>, OutboxError> {
        let mut out: Vec<(i64, Message)> = Vec::new();
        let mut total = 0;
        let mut take = |id: i64, message: Message| {
            let size = message.payload.len();
            let fits = out.is_empty() || total + size <= bytes;
            if fits {
                total += size;
                out.push((id, message));
            }
            fits && out.len() < count
        };
        let mut room = true;
        let mut read = |db: &Connection| -> rusqlite::Result<()> {
            let mut ids = db.prepare_cached("SELECT id FROM message ORDER BY id")?;
            let mut one =
                db.prepare_cached("SELECT rank, topic, content_type, event_id, payload FROM message WHERE id = ?1")?;
            let mut rows = ids.query([])?;
            while let Some(row) = rows.next()? {
                let id: i64 = row.get(0)?;
                if skip(id) {
                    continue;
                }
                let message = one.query_row([id], |r| {
                    Ok(Message {
                        rank: store::rank_of(r.get(0)?),
                        topic: r.get(1)?,
                        content_type: r.get(2)?,
                        event_id: r.get(3)?,
                        payload: r.get(4)?,
                    })
                })?;
                room = take(id, message);
                if !room {
                    break;
                }
            }
            Ok(())
        };
        let mut result = self.db.as_ref().map_or(Ok(()), &mut read).map_err(|e| {
            let read = OutboxError::Read { path: self.path.clone(), reason: e.to_string() };
            (store::is_damage(&e), read)
        });
        // What is in memory came when the disk took nothing more, after what is on it.
        if room {
            self.volatile.iter().filter(|(id, _)| !skip(*id)).all(|(id, m)| take(*id, m.clone()));
        }
        if let Err((true, _)) = result {
            self.db = None;
            result = self.reopen().map_err(|e| (true, e));
        }
        match result {
            Err((_, e)) if out.is_empty() => Err(e),
            Err((_, e)) => {
                tracing::warn!("{e}");
                Ok(out)
            }
            Ok(()) => Ok(out),
        }
    }

    /// The broker has these; they are deleted.
    ///
    /// # Errors
    /// When the disk refuses: they stay, and will be delivered once more.
    pub fn acked(&mut self, ids: &[i64]) -> Result<(), OutboxError> {
        self.volatile.retain(|(id, m)| {
            let keep = !ids.contains(id);
            self.volatile_bytes -= if keep { 0 } else { m.size() as usize };
            keep
        });
        let Some(db) = self.db.as_mut() else { return Ok(()) };
        let delete = |db: &mut Connection| -> rusqlite::Result<()> {
            let tx = db.transaction()?;
            for id in ids.iter().filter(|id| **id > 0) {
                tx.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id])?;
            }
            tx.commit()
        };
        delete(db).map_err(|e| {
            self.counts.failed_writes += 1;
            OutboxError::Write { path: self.path.clone(), reason: e.to_string() }
        })
    }

    /// Gives up a message that the broker will never take.
    pub fn drop_oversize(&mut self, id: i64) -> Result<(), OutboxError> {
        self.counts.dropped_oversize += 1;
        self.acked(&[id])
    }

    fn count_drop(&mut self, rank: Rank, n: u64) {
        let before = self.counts.dropped_heatmaps + self.counts.dropped_updates + self.counts.lost_opened;
        if before == 0 || rank == Rank::Opened {
            tracing::warn!(
                "the outbox {} is full: a message ({rank:?}) was dropped; health counts them",
                self.path.display()
            );
        }
        *self.lost(rank) += n;
    }

    fn lost(&mut self, rank: Rank) -> &mut u64 {
        match rank {
            Rank::Heatmap => &mut self.counts.dropped_heatmaps,
            Rank::Updated | Rank::Closed => &mut self.counts.dropped_updates,
            Rank::Opened => &mut self.counts.lost_opened,
        }
    }

    pub fn health(&self) -> OutboxHealth {
        let on_disk = self.db.as_ref().and_then(|db| {
            let count = db.query_row("SELECT count(*) FROM message", [], |r| r.get::<_, i64>(0)).ok()?;
            Some((count as u64, store::used_bytes(db).ok()?))
        });
        let (count, bytes) = on_disk.unwrap_or((0, 0));
        let volatile = self.volatile.len() as u64;
        OutboxHealth { waiting: count + volatile, bytes: bytes + self.volatile_bytes as u64, volatile, ..self.counts }
    }

    pub fn is_empty(&self) -> bool {
        let stored = self.db.as_ref().is_some_and(|db| {
            let one = db.query_row("SELECT 1 FROM message LIMIT 1", [], |_| Ok(())).optional();
            !matches!(one, Ok(None))
        });
        self.volatile.is_empty() && !stored
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
