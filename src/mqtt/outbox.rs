//! The outbox: what waits for the broker's acknowledgement. Its thread is `store`'s, its file is `database`'s.
//!
//! # Limits
//! 1. `max_bytes` bounds the pages of the SQLite file that are in use. SQLite is told the same as `max_page_count`, so the file
//!    itself cannot grow past it; the write-ahead log beside it stays under about [`database::WAL_BYTES`] plus the largest message.
//! 2. One message is at most `max_bytes` / 8, so that a single one cannot push out everything.
//! 3. What the disk refuses waits in memory, at most [`MEMORY_BYTES`].
//!
//! # Life of a message
//! ```text
//!            put: one transaction, synced             PubAck
//! (nothing) ─────────────────────────► on disk ────────────────► deleted
//!     │  disk refuses                     ▲
//!     └──────────────► in memory ─────────┘ with the next write that works
//! ```
//!
//! # Invariants
//! - A message that was reported as [`Stored::OnDisk`] is gone only after [`Outbox::acked`], or by the room rule.
//! - The room rule: when a message does not fit, the oldest heatmaps go first, then the oldest `updated`, then the oldest `closed`.
//!   An `opened` is never removed. A message never pushes out one of a higher priority than its own.
//! - A note is on disk with or before the messages that it was put with, never after them.
//! - Every message that is not delivered is counted in [`OutboxHealth`].
//! - A file that is damaged, or not ours, is renamed to `<name>.damaged-<time>` and a new one begun: it never stops the start. The
//!   newest two are kept.
//!
//! Delivery is at least once: an acknowledgement that we did not see leads to a second delivery with the same event id.

use super::database::{self, Insert};
use super::message::{Limits, Message, Note, OutboxError, Priority, Stored, lost};
use crate::events::OutboxHealth;
use rusqlite::{Connection, TransactionBehavior};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is kept in memory while the disk refuses.
pub const MEMORY_BYTES: usize = 16 << 20;
/// Room that SQLite needs for itself; a smaller limit is raised to it.
const SMALLEST: u64 = 64 * database::PAGE;
const REOPEN_EVERY: Duration = Duration::from_secs(5);
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// See the module's text.
pub struct Outbox {
    path: PathBuf,
    limits: Limits,
    /// None while the file cannot be opened.
    db: Option<Connection>,
    tried_at: Instant,
    /// Messages in the file: counted once when it is opened, so that nobody has to ask the disk for it.
    on_disk: u64,
    /// Ids count down from -1.
    in_memory: VecDeque<(i64, Message)>,
    in_memory_bytes: usize,
    next_in_memory: i64,
    /// Notes that the next write that works takes with it.
    unwritten: BTreeMap<String, Option<String>>,
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
            on_disk: 0,
            in_memory: VecDeque::new(),
            in_memory_bytes: 0,
            next_in_memory: -1,
            unwritten: BTreeMap::new(),
            counts: OutboxHealth::default(),
            refusing: None,
        };
        let trouble = outbox.reopen().err();
        outbox.refusing = outbox.db.is_none().then(Instant::now);
        (outbox, trouble)
    }

    /// What waits in the file at `path`. Neither it nor anything beside it is changed: a damaged one is reported and left where it is.
    ///
    /// # Errors
    /// It cannot be opened, is damaged, or is no outbox.
    pub fn look(path: &Path) -> Result<OutboxHealth, OutboxError> {
        let open = |e: rusqlite::Error| OutboxError::Open { path: path.to_owned(), reason: e.to_string() };
        let db = database::connect_to_look(path).map_err(open)?;
        let waiting = database::count(&db).map_err(open)?;
        Ok(OutboxHealth { waiting, bytes: database::used_bytes(&db).map_err(open)?, ..OutboxHealth::default() })
    }

    /// Err is also returned after an unusable file was set aside, when the new one is in place.
    fn reopen(&mut self) -> Result<(), OutboxError> {
        self.tried_at = Instant::now();
        match self.connect() {
            Ok(()) => Ok(()),
            Err(e) if database::is_damage(&e) => Err(self.begin_anew(&e)),
            Err(e) => Err(self.closed(&e)),
        }
    }

    fn connect(&mut self) -> rusqlite::Result<()> {
        (self.db, self.on_disk) = (None, 0);
        let db = database::connect(&self.path, self.limits)?;
        self.on_disk = database::count(&db)?;
        self.db = Some(db);
        Ok(())
    }

    /// Sets the file aside and begins a new one; gives the sentence to be told.
    fn begin_anew(&mut self, why: &rusqlite::Error) -> OutboxError {
        (self.db, self.on_disk) = (None, 0);
        let told = |reason: String| OutboxError::Open { path: self.path.clone(), reason };
        let aside = match database::set_aside(&self.path) {
            Ok(aside) => aside,
            Err(e) => return told(format!("it cannot be used ({why}) nor renamed: {e}")),
        };
        let told =
            told(format!("it cannot be used ({why}); it was set aside as {} and a new one begun", aside.display()));
        self.counts.set_aside += 1;
        self.connect().map_or_else(|e| self.closed(&e), |()| told)
    }

    fn closed(&self, e: &rusqlite::Error) -> OutboxError {
        OutboxError::Closed { path: self.path.clone(), reason: e.to_string() }
    }

    /// Every note, also those that no write has taken yet.
    ///
    /// # Errors
    /// The file is open and cannot be read.
    pub fn notes(&self) -> Result<BTreeMap<String, String>, OutboxError> {
        let read = |e: rusqlite::Error| OutboxError::Read { path: self.path.clone(), reason: e.to_string() };
        let mut notes = self.db.as_ref().map_or(Ok(BTreeMap::new()), |db| database::notes(db).map_err(read))?;
        for (key, value) in &self.unwritten {
            notes.remove(key);
            notes.extend(value.clone().map(|value| (key.clone(), value)));
        }
        Ok(notes)
    }

    /// Keeps `messages` until they are acknowledged, and `notes` for ever: in one transaction if the disk lets us. One answer a message.
    ///
    /// # Errors
    /// [`OutboxError::Full`]: it was dropped, by the room rule. Never for an `opened` while memory has room.
    pub fn put(&mut self, messages: Vec<Message>, notes: Vec<Note>) -> Vec<Result<Stored, OutboxError>> {
        self.unwritten.extend(notes.into_iter().map(|note| (note.key, note.value)));
        let largest = self.limits.max_bytes / 8;
        let fitting: Vec<&Message> = messages.iter().filter(|m| m.size() <= largest).collect();
        let together = self.put_on_disk(&fitting);
        let mut written: VecDeque<Result<bool, OutboxError>> = match together {
            Ok(written) => written.into_iter().map(Ok).collect(),
            // What the disk refuses for all together it may take for some, one by one.
            Err(_) if fitting.len() > 1 => {
                fitting.iter().map(|m| self.put_on_disk(&[m]).map(|written| written == [true])).collect()
            }
            Err(e) => [Err(e)].into(),
        };
        let answers = messages.into_iter().map(|message| {
            let written = if message.size() <= largest { written.pop_front().unwrap_or(Ok(false)) } else { Ok(false) };
            self.place(message, written)
        });
        answers.collect()
    }

    /// What becomes of a message after the attempt to write it; `Ok(false)` when the room rule left it no room.
    fn place(&mut self, message: Message, written: Result<bool, OutboxError>) -> Result<Stored, OutboxError> {
        match written {
            Ok(true) => {
                if self.refusing.take_if(|told| told.elapsed() >= TOLD_EVERY).is_some() {
                    tracing::info!("the outbox {} can be written again", self.path.display());
                }
                self.spill_back();
                Ok(Stored::OnDisk)
            }
            Ok(false) if message.priority != Priority::Opened || message.size() > self.limits.max_bytes / 8 => {
                self.count_drop(message.priority);
                Err(self.full(message.priority))
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

    fn full(&self, priority: Priority) -> OutboxError {
        OutboxError::Full { path: self.path.clone(), max_bytes: self.limits.max_bytes, priority }
    }

    /// Unwritten notes and these messages, all or nothing. For each message, false when the room rule leaves no room.
    fn put_on_disk(&mut self, messages: &[&Message]) -> Result<Vec<bool>, OutboxError> {
        if self.db.is_none() && self.tried_at.elapsed() >= REOPEN_EVERY {
            self.reopen()?;
        }
        match self.transaction(messages) {
            Err(e) if database::is_damage(&e) => {
                self.reopen()?;
                self.transaction(messages).map_err(|e| match database::is_damage(&e) {
                    // It looked sound when it was opened: looking once more would find the same, for ever.
                    true => self.begin_anew(&e),
                    false => self.refused(&e),
                })
            }
            result => result.map_err(|e| self.refused(&e)),
        }
    }

    fn refused(&self, e: &rusqlite::Error) -> OutboxError {
        let reason = if self.db.is_some() { e.to_string() } else { "it is not open".into() };
        OutboxError::Write { path: self.path.clone(), reason }
    }

    fn transaction(&mut self, messages: &[&Message]) -> rusqlite::Result<Vec<bool>> {
        let db = self.db.as_mut().ok_or(rusqlite::Error::InvalidQuery)?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (key, value) in &self.unwritten {
            database::write_note(&tx, &Note { key: key.clone(), value: value.clone() })?;
        }
        let (mut written, mut dropped) = (vec![], vec![]);
        for message in messages {
            match database::insert(&tx, self.limits, message)? {
                Insert::Done { dropped: these } => {
                    dropped.extend(these);
                    written.push(true);
                }
                Insert::NoRoom => written.push(false),
            }
        }
        tx.commit()?;
        self.unwritten.clear();
        self.on_disk += written.iter().filter(|written| **written).count() as u64;
        self.on_disk = self.on_disk.saturating_sub(dropped.len() as u64);
        dropped.into_iter().for_each(|priority| self.count_drop(priority));
        Ok(written)
    }

    fn put_in_memory(&mut self, message: Message) -> Result<Stored, OutboxError> {
        let bytes = message.size() as usize;
        while self.in_memory_bytes + bytes > MEMORY_BYTES {
            let gives_way = |m: &Message| m.priority != Priority::Opened && m.priority <= message.priority;
            let lowest = self.in_memory.iter().enumerate().filter(|(_, (_, m))| gives_way(m));
            let Some((at, _)) = lowest.min_by_key(|(at, (_, m))| (m.priority, *at)) else {
                self.count_drop(message.priority);
                return Err(self.full(message.priority));
            };
            if let Some((_, gone)) = self.in_memory.remove(at) {
                self.in_memory_bytes -= gone.size() as usize;
                self.count_drop(gone.priority);
            }
        }
        self.in_memory_bytes += bytes;
        self.in_memory.push_back((self.next_in_memory, message));
        self.next_in_memory -= 1;
        Ok(Stored::InMemory)
    }

    /// The disk works again: what waits in memory is stored after all. One that is on its way to the broker may come twice.
    fn spill_back(&mut self) {
        while let Some((_, message)) = self.in_memory.front().cloned() {
            if !matches!(self.put_on_disk(&[&message]).as_deref(), Ok([true])) {
                return;
            }
            self.in_memory.pop_front();
            self.in_memory_bytes -= message.size() as usize;
        }
    }

    /// The last chance before the process ends: opens the file if it could not be opened before, and stores what waits in
    /// memory. What the disk still refuses is lost; it is counted and logged.
    pub fn flush(&mut self) {
        if self.in_memory.is_empty() && self.unwritten.is_empty() {
            return;
        }
        if self.db.is_none()
            && let Err(e) = self.reopen()
        {
            tracing::error!("{e}");
        }
        self.spill_back();
        if !self.unwritten.is_empty()
            && let Err(e) = self.put_on_disk(&[])
        {
            tracing::error!("{e}");
        }
        if self.in_memory.is_empty() {
            return;
        }
        tracing::error!(
            "{} message(s) waited in memory only and are lost: the outbox {} does not take them",
            self.in_memory.len(),
            self.path.display()
        );
        self.in_memory_bytes = 0;
        for (_, message) in std::mem::take(&mut self.in_memory) {
            *lost(&mut self.counts, message.priority) += 1;
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
                        priority: database::priority_of(r.get(0)?),
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
            (database::is_damage(&e), read)
        });
        // What is in memory came when the disk took nothing more, after what is on it.
        if room {
            self.in_memory.iter().filter(|(id, _)| !skip(*id)).all(|(id, m)| take(*id, m.clone()));
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
        self.in_memory.retain(|(id, m)| {
            let keep = !ids.contains(id);
            self.in_memory_bytes -= if keep { 0 } else { m.size() as usize };
            keep
        });
        let Some(db) = self.db.as_mut() else { return Ok(()) };
        let delete = |db: &mut Connection| -> rusqlite::Result<usize> {
            let tx = db.transaction()?;
            let mut gone = 0;
            for id in ids.iter().filter(|id| **id > 0) {
                gone += tx.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id])?;
            }
            tx.commit()?;
            Ok(gone)
        };
        match delete(db) {
            Ok(gone) => {
                self.on_disk = self.on_disk.saturating_sub(gone as u64);
                Ok(())
            }
            Err(e) => {
                self.counts.failed_writes += 1;
                Err(OutboxError::Write { path: self.path.clone(), reason: e.to_string() })
            }
        }
    }

    fn count_drop(&mut self, priority: Priority) {
        let before = self.counts.dropped_heatmaps + self.counts.dropped_updates + self.counts.lost_opened;
        if before == 0 || priority == Priority::Opened {
            tracing::warn!(
                "the outbox {} is full: a message ({priority:?}) was dropped; health counts them",
                self.path.display()
            );
        }
        *lost(&mut self.counts, priority) += 1;
    }

    /// Counts messages that the broker takes from nobody, before they are given up.
    pub fn count_oversize(&mut self, messages: u64) {
        self.counts.dropped_oversize += messages;
    }

    /// What waits and what was given up; the disk is asked for the pages in use only.
    pub fn health(&self) -> OutboxHealth {
        let on_disk = self.db.as_ref().and_then(|db| database::used_bytes(db).ok());
        let in_memory = self.in_memory.len() as u64;
        OutboxHealth {
            waiting: self.on_disk + in_memory,
            bytes: on_disk.unwrap_or(0) + self.in_memory_bytes as u64,
            in_memory,
            ..self.counts
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
