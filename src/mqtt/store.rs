//! The outbox's file: how it is opened, how one message goes in, and what counts as damage. The rules are `outbox`'s.

use super::outbox::{Limits, Message, Rank};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Length from which SQLite folds the write-ahead log back into the file.
pub(super) const WAL_BYTES: u64 = 1 << 20;
pub(super) const PAGE: u64 = 4096;

/// Damaged files that are kept for whoever wants to look into them.
const KEPT: usize = 2;

pub(super) fn connect(path: &Path, limits: Limits) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(2))?;
    // The page size counts only before the first write; synchronous=FULL is what "confirmed stored" rests on.
    db.execute_batch(&format!(
        "PRAGMA page_size={PAGE}; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA journal_size_limit={WAL_BYTES};
         PRAGMA wal_autocheckpoint={}; PRAGMA max_page_count={};",
        WAL_BYTES / PAGE,
        limits.max_bytes / PAGE
    ))?;
    // Only a look at every page finds damage in the middle; the file is bounded, and this is once a start.
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
    if verdict != "ok" {
        let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(corrupt, Some(verdict)));
    }
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS message (
           id INTEGER PRIMARY KEY AUTOINCREMENT, rank INTEGER NOT NULL, topic TEXT NOT NULL, content_type TEXT NOT NULL,
           event_id TEXT NOT NULL, payload BLOB NOT NULL) STRICT;
         CREATE INDEX IF NOT EXISTS message_by_rank ON message (rank, id);",
    )?;
    Ok(db)
}

/// Pages in use, in bytes: what `max_bytes` bounds.
pub(super) fn used_bytes(db: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |r| r.get::<_, i64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) as u64 * PAGE)
}

pub(super) enum Insert {
    Done { dropped: Vec<(Rank, u64)> },
    NoRoom,
}

/// One transaction: makes room by the room rule, then inserts.
pub(super) fn insert(db: &mut Connection, limits: Limits, message: &Message) -> rusqlite::Result<Insert> {
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // A blob takes whole overflow pages, and the trees may split: four pages more than its bytes.
    let needed = message.size().div_ceil(PAGE - 4) * PAGE + 4 * PAGE;
    let mut dropped = Vec::new();
    while used_bytes(&tx)? + needed > limits.max_bytes {
        let highest = (message.rank as i64).min(Rank::Closed as i64);
        let victim = tx
            .prepare_cached("SELECT id, rank FROM message WHERE rank <= ?1 ORDER BY rank, id LIMIT 1")?
            .query_row([highest], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)))
            .optional()?;
        let Some((id, rank)) = victim else { return Ok(Insert::NoRoom) };
        tx.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id])?;
        dropped.push((rank_of(rank), 1));
    }
    tx.prepare_cached(
        "INSERT INTO message (rank, topic, content_type, event_id, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        message.rank as i64,
        message.topic,
        message.content_type,
        message.event_id,
        message.payload
    ])?;
    tx.commit()?;
    Ok(Insert::Done { dropped })
}

pub(super) fn rank_of(value: i64) -> Rank {
    match value {
        0 => Rank::Heatmap,
        1 => Rank::Updated,
        2 => Rank::Closed,
        _ => Rank::Opened,
    }
}

pub(super) fn is_damage(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    // A table of another shape is damage too: our columns are not there.
    let foreign = |text: &str| {
        text.contains("no such column") || text.contains("has no column") || text.contains("no such table")
    };
    match e {
        rusqlite::Error::SqliteFailure(e, text) => {
            matches!(e.code, DatabaseCorrupt | NotADatabase) || text.as_deref().is_some_and(foreign)
        }
        rusqlite::Error::SqlInputError { msg, .. } => foreign(msg),
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..) => true,
        _ => false,
    }
}

/// Renames the file and drops its log, which belongs to it alone.
pub(super) fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let stamp = jiff::Timestamp::now().as_millisecond();
    let aside = with(&format!(".damaged-{stamp}"));
    std::fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::rename(with(suffix), with(&format!(".damaged-{stamp}{suffix}")));
    }
    forget_older(path);
    Ok(aside)
}

/// Keeps the newest [`KEPT`] damaged files: a disk that goes bad must not be filled with them.
fn forget_older(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else { return };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let begin = format!("{name}.damaged-");
    let names =
        std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let stamp = |name: &str| name.strip_prefix(&begin)?.split('-').next()?.parse::<i64>().ok();
    let ours: Vec<(i64, String)> = names.filter_map(|name| Some((stamp(&name)?, name))).collect();
    let stamps: BTreeSet<i64> = ours.iter().map(|(stamp, _)| *stamp).collect();
    let Some(oldest) = stamps.iter().rev().nth(KEPT - 1) else { return };
    for (_, name) in ours.iter().filter(|(stamp, _)| stamp < oldest) {
        let _ = std::fs::remove_file(folder.join(name));
    }
}
