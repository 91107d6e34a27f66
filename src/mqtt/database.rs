//! The outbox's file: how it is opened, how messages and notes go in, what counts as damage. The rules are `outbox`'s.
//!
//! # Schema
//! `PRAGMA user_version` says which:
//!
//! | version | tables |
//! |---|---|
//! | 0, with a table `message` | `message (id, rank, topic, content_type, event_id, payload)`, before versions were counted |
//! | 1 | the same, and `note (key, value)` |
//!
//! An older file is brought up to date in one transaction. A newer one, or one whose tables are others than its version says, is not ours
//! to write: it is set aside whole.

use super::message::{Limits, Message, Note, Priority};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Length from which SQLite folds the write-ahead log back into the file.
pub(super) const WAL_BYTES: u64 = 1 << 20;
pub(super) const PAGE: u64 = 4096;

/// The schema that this build writes.
const VERSION: i64 = 1;

/// Set-aside files that are kept for whoever wants to look into them.
const KEPT: usize = 2;

/// Opens or creates the file, brings its schema up to date, and looks at every page of it.
pub(super) fn connect(path: &Path, limits: Limits) -> rusqlite::Result<Connection> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(2))?;
    // Before anything is changed: what is not ours stays as it is.
    check_pages(&db)?;
    refuse_foreign(&db)?;
    // The page size counts only before the first write; synchronous=FULL is what "confirmed stored" rests on.
    db.execute_batch(&format!(
        "PRAGMA page_size={PAGE}; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA journal_size_limit={WAL_BYTES};
         PRAGMA wal_autocheckpoint={}; PRAGMA max_page_count={};",
        WAL_BYTES / PAGE,
        limits.max_bytes / PAGE
    ))?;
    migrate(&mut db)?;
    Ok(db)
}

/// Opens the file to look into it; not a byte beside or in it is written.
pub(super) fn connect_to_look(path: &Path) -> rusqlite::Result<Connection> {
    // Without a log beside it nobody writes the file now, and SQLite need not make one to read it.
    let quiet = !with_suffix(path, "-wal").exists();
    let name = percent_encoded(path);
    let uri = format!("file:{name}?mode=ro{}", if quiet { "&immutable=1" } else { "" });
    let db = Connection::open_with_flags(uri, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)?;
    db.busy_timeout(Duration::from_secs(2))?;
    check_pages(&db)?;
    refuse_foreign(&db)?;
    Ok(db)
}

/// A path as SQLite's file names in URI form want it.
fn percent_encoded(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-~".contains(&b);
    let one = |&b: &u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    path.as_os_str().as_bytes().iter().map(one).collect()
}

/// Only a look at every page finds damage in the middle; the file is bounded, and this is once a start.
fn check_pages(db: &Connection) -> rusqlite::Result<()> {
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(unusable(verdict)) }
}

/// What we cannot go on with, as SQLite itself would say it.
fn unusable(why: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(why))
}

fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA user_version", [], |r| r.get(0))
}

/// Columns of a table in their order, joined; empty where there is no such table.
fn columns(db: &Connection, table: &str) -> rusqlite::Result<String> {
    let mut statement = db.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
    let names = statement.query_map([table], |r| r.get::<_, String>(0))?;
    Ok(names.collect::<rusqlite::Result<Vec<_>>>()?.join(" "))
}

/// A file that is empty, or whose tables are those of its version.
fn refuse_foreign(db: &Connection) -> rusqlite::Result<()> {
    let version = version(db)?;
    if version > VERSION {
        let why = format!("a newer ckaad-agent wrote it: its schema is {version}, this one knows up to {VERSION}");
        return Err(unusable(why));
    }
    let tables: i64 =
        db.query_row("SELECT count(*) FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'", [], |r| r.get(0))?;
    if version == 0 && tables == 0 {
        return Ok(());
    }
    let note = if version == 0 { "" } else { "key value" };
    for (table, expected) in [("message", "id rank topic content_type event_id payload"), ("note", note)] {
        let found = columns(db, table)?;
        if found != expected {
            let why = format!(
                "its table `{table}` has the columns ({found}) where ({expected}) was expected: it is not an outbox of this agent"
            );
            return Err(unusable(why));
        }
    }
    Ok(())
}

fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    if version(db)? == VERSION {
        return Ok(());
    }
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS message (
           id INTEGER PRIMARY KEY AUTOINCREMENT, rank INTEGER NOT NULL, topic TEXT NOT NULL, content_type TEXT NOT NULL,
           event_id TEXT NOT NULL, payload BLOB NOT NULL) STRICT;
         CREATE INDEX IF NOT EXISTS message_by_rank ON message (rank, id);
         CREATE TABLE note (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;",
    )?;
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()
}

/// Pages in use, in bytes: what `max_bytes` bounds.
pub(super) fn used_bytes(db: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |r| r.get::<_, i64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) as u64 * PAGE)
}

/// Messages in the file; none where it is empty still.
pub(super) fn count(db: &Connection) -> rusqlite::Result<u64> {
    if columns(db, "message")?.is_empty() {
        return Ok(0);
    }
    db.query_row("SELECT count(*) FROM message", [], |r| r.get::<_, i64>(0)).map(|n| n as u64)
}

pub(super) enum Insert {
    Done { dropped: Vec<Priority> },
    NoRoom,
}

/// Makes room by the room rule, then inserts.
pub(super) fn insert(tx: &Transaction<'_>, limits: Limits, message: &Message) -> rusqlite::Result<Insert> {
    // A blob takes whole overflow pages, and the trees may split: four pages more than its bytes.
    let needed = message.size().div_ceil(PAGE - 4) * PAGE + 4 * PAGE;
    let mut dropped = Vec::new();
    while used_bytes(tx)? + needed > limits.max_bytes {
        let highest = (message.priority as i64).min(Priority::Closed as i64);
        let victim = tx
            .prepare_cached("SELECT id, rank FROM message WHERE rank <= ?1 ORDER BY rank, id LIMIT 1")?
            .query_row([highest], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)))
            .optional()?;
        let Some((id, rank)) = victim else { return Ok(Insert::NoRoom) };
        tx.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id])?;
        dropped.push(priority_of(rank));
    }
    tx.prepare_cached(
        "INSERT INTO message (rank, topic, content_type, event_id, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        message.priority as i64,
        message.topic,
        message.content_type,
        message.event_id,
        message.payload
    ])?;
    Ok(Insert::Done { dropped })
}

pub(super) fn write_note(tx: &Transaction<'_>, note: &Note) -> rusqlite::Result<()> {
    match &note.value {
        Some(value) => tx
            .prepare_cached("INSERT INTO note (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2")?
            .execute(params![note.key, value])?,
        None => tx.prepare_cached("DELETE FROM note WHERE key = ?1")?.execute([&note.key])?,
    };
    Ok(())
}

pub(super) fn notes(db: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut statement = db.prepare("SELECT key, value FROM note ORDER BY key")?;
    statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect()
}

/// The column is called `rank` in every version of the schema.
pub(super) fn priority_of(rank: i64) -> Priority {
    match rank {
        0 => Priority::Heatmap,
        1 => Priority::Updated,
        2 => Priority::Closed,
        _ => Priority::Opened,
    }
}

/// True when the file itself is no good, rather than the disk below it.
pub(super) fn is_damage(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match e {
        // Tables were compared when it was opened. A statement that SQLite does not understand since then (its plain "error") means that
        // somebody else has changed them.
        rusqlite::Error::SqliteFailure(e, _) => {
            matches!(e.code, DatabaseCorrupt | NotADatabase) || e.extended_code == rusqlite::ffi::SQLITE_ERROR
        }
        rusqlite::Error::SqlInputError { .. }
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..) => true,
        _ => false,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Renames the file with its log, which belongs to it alone.
pub(super) fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let stamp = jiff::Timestamp::now().as_millisecond();
    let aside = with_suffix(path, &format!(".damaged-{stamp}"));
    std::fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        // Most files have none.
        let _ = std::fs::rename(with_suffix(path, suffix), with_suffix(path, &format!(".damaged-{stamp}{suffix}")));
    }
    forget_older(path);
    Ok(aside)
}

/// Keeps the newest [`KEPT`] set-aside files: a disk that goes bad must not be filled with them.
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
