use super::*;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

fn message(priority: Priority, n: usize, bytes: usize) -> Message {
    Message {
        priority,
        topic: "t".into(),
        content_type: "c".into(),
        event_id: n.to_string(),
        payload: vec![n as u8; bytes],
    }
}

fn put(outbox: &mut Outbox, message: Message) -> Result<Stored, OutboxError> {
    outbox.put(vec![message], vec![]).remove(0)
}

fn ids(outbox: &mut Outbox) -> Vec<String> {
    let all = outbox.pending(|_| false, 10_000, usize::MAX).unwrap();
    all.into_iter().map(|(_, m)| m.event_id).collect()
}

#[test]
fn order_is_kept_over_a_restart_and_only_the_acknowledged_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sqlite");
    let (mut outbox, trouble) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    assert!(trouble.is_none());
    for n in 0..5 {
        assert_eq!(put(&mut outbox, message(Priority::Opened, n, 100)).unwrap(), Stored::OnDisk);
    }
    let first = outbox.pending(|_| false, 2, usize::MAX).unwrap();
    outbox.acked(&[first[1].0]).unwrap();
    drop(outbox);
    let (mut outbox, _) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    assert_eq!(ids(&mut outbox), ["0", "2", "3", "4"]);
    assert_eq!(outbox.health().waiting, 4);
}

#[test]
fn room_is_made_from_heatmaps_then_updates_and_never_from_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = Outbox::open(&dir.path().join("o.sqlite"), Limits { max_bytes: SMALLEST });
    put(&mut outbox, message(Priority::Opened, 0, 4000)).unwrap();
    put(&mut outbox, message(Priority::Updated, 1, 4000)).unwrap();
    put(&mut outbox, message(Priority::Heatmap, 2, 20_000)).unwrap();
    for n in 3..100 {
        let _ = put(&mut outbox, message(Priority::Opened, n, 4000));
        let left = ids(&mut outbox);
        assert!(left.iter().map(|id| id.parse::<usize>().unwrap()).is_sorted(), "disk before memory: {left:?}");
        let gone = |id: &str| !left.contains(&id.to_owned());
        assert!(!gone("1") || gone("2"), "the heatmap goes before the update");
        assert!(!gone("0"), "an opened never goes");
    }
    let health = outbox.health();
    assert_eq!((health.dropped_heatmaps, health.dropped_updates, health.lost_opened), (1, 1, 0));
    assert!(health.in_memory > 0, "what the disk has no room for waits in memory");
    assert!(
        put(&mut outbox, message(Priority::Heatmap, 100, 4000)).is_err(),
        "a heatmap does not push out anything better"
    );
}

#[test]
fn a_damaged_file_is_set_aside_and_never_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sqlite");
    let garbage = [vec![0x55; 9000], b"SQLite format 3\0 but no more".to_vec(), vec![]];
    for (n, bytes) in garbage.iter().enumerate() {
        std::fs::write(&path, bytes).unwrap();
        let (mut outbox, trouble) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
        assert_eq!(trouble.is_some(), !bytes.is_empty(), "an empty file is a new outbox");
        assert_eq!(outbox.health().set_aside, u64::from(!bytes.is_empty()));
        assert_eq!(put(&mut outbox, message(Priority::Opened, n, 10)).unwrap(), Stored::OnDisk);
        drop(outbox);
        std::fs::remove_file(&path).unwrap();
    }
    let aside = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().contains(".damaged-"));
    assert_eq!(aside.count(), 2);
    let newest = || {
        let names = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        names.filter(|n| n.contains(".damaged-")).max().unwrap()
    };
    let before = newest();
    for n in 0..3 {
        std::thread::sleep(Duration::from_millis(2));
        std::fs::write(&path, vec![n; 9000]).unwrap();
        drop(Outbox::open(&path, Limits { max_bytes: 1 << 20 }));
    }
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    let left = names.iter().filter(|n| n.to_string_lossy().contains(".damaged-")).count();
    assert_eq!(left, 2, "only the newest two are kept: {names:?}");
    assert!(!names.iter().any(|n| n.to_string_lossy() == before));
}

#[test]
fn another_programs_database_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sqlite");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE message (x); CREATE TABLE other (y)").unwrap();
    let (mut outbox, trouble) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    assert!(trouble.is_some());
    assert_eq!(put(&mut outbox, message(Priority::Opened, 1, 10)).unwrap(), Stored::OnDisk);
}

#[test]
fn a_disk_that_refuses_loses_nothing_while_memory_has_room() {
    let (mut outbox, trouble) = Outbox::open(Path::new("/nowhere/at/all.sqlite"), Limits { max_bytes: 1 << 20 });
    assert!(trouble.unwrap().to_string().contains("/nowhere/at/all.sqlite"));
    for n in 0..3 {
        assert_eq!(put(&mut outbox, message(Priority::Opened, n, 100)).unwrap(), Stored::InMemory);
    }
    assert_eq!(ids(&mut outbox), ["0", "1", "2"]);
    assert_eq!((outbox.health().in_memory, outbox.health().failed_writes), (3, 3));
    outbox.acked(&[-2]).unwrap();
    assert_eq!(ids(&mut outbox), ["0", "2"]);
}

/// Random puts, acknowledgements and restarts against a plain map, under a limit that is hit all the time.
#[test]
fn behaves_as_its_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sqlite");
    let limits = Limits { max_bytes: SMALLEST };
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let (mut outbox, _) = Outbox::open(&path, limits);
    let mut model: BTreeMap<usize, Priority> = BTreeMap::new();
    for n in 0..400 {
        match rng.random_range(0..10) {
            0 => {
                drop(outbox);
                outbox = Outbox::open(&path, limits).0;
            }
            1..=3 => {
                let batch = outbox.pending(|_| false, rng.random_range(1..6), usize::MAX).unwrap();
                outbox.acked(&batch.iter().map(|(id, _)| *id).collect::<Vec<_>>()).unwrap();
                for (_, m) in &batch {
                    model.remove(&m.event_id.parse().unwrap());
                }
            }
            _ => {
                let priority =
                    [Priority::Heatmap, Priority::Updated, Priority::Closed, Priority::Opened][rng.random_range(0..4)];
                if put(&mut outbox, message(priority, n, rng.random_range(1..20_000))).is_ok() {
                    model.insert(n, priority);
                }
                assert!(outbox.in_memory.is_empty(), "this mix never fills the disk with opened alone");
            }
        }
        let left: Vec<usize> = ids(&mut outbox).iter().map(|id| id.parse().unwrap()).collect();
        assert!(left.is_sorted(), "oldest first");
        assert!(left.iter().all(|id| model.contains_key(id)), "nothing comes back");
        let gone: Vec<Priority> = model.iter().filter(|(id, _)| !left.contains(id)).map(|(_, r)| *r).collect();
        assert!(!gone.contains(&Priority::Opened), "no opened is lost");
        model.retain(|id, _| left.contains(id));
        assert!(outbox.health().bytes <= limits.max_bytes);
        assert_eq!(outbox.health().failed_writes, 0, "room was made before SQLite had to say that there is none");
        assert!(path.metadata().unwrap().len() <= limits.max_bytes);
    }
}

#[test]
fn a_disk_that_comes_back_at_the_end_takes_what_waits_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later/o.sqlite");
    let (mut outbox, _) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    assert_eq!(put(&mut outbox, message(Priority::Opened, 0, 100)).unwrap(), Stored::InMemory);
    std::fs::create_dir(dir.path().join("later")).unwrap();
    outbox.flush();
    assert_eq!((outbox.health().in_memory, outbox.health().lost_opened), (0, 0));
    drop(outbox);
    assert_eq!(ids(&mut Outbox::open(&path, Limits { max_bytes: 1 << 20 }).0), ["0"]);

    let (mut outbox, _) = Outbox::open(Path::new("/nowhere/at/all.sqlite"), Limits { max_bytes: 1 << 20 });
    put(&mut outbox, message(Priority::Opened, 0, 100)).unwrap();
    put(&mut outbox, message(Priority::Heatmap, 0, 100)).unwrap();
    outbox.flush();
    let health = outbox.health();
    assert_eq!((health.in_memory, health.bytes, health.lost_opened, health.dropped_heatmaps), (0, 0, 1, 1));
}

fn note(key: &str, value: Option<&str>) -> Note {
    Note { key: key.into(), value: value.map(str::to_owned) }
}

#[test]
fn a_note_is_on_disk_with_its_message_and_survives_a_disk_that_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later/o.sqlite");
    let limits = Limits { max_bytes: 1 << 20 };
    let (mut outbox, _) = Outbox::open(&path, limits);
    outbox.put(vec![message(Priority::Opened, 0, 10)], vec![note("a", Some("1")), note("b", Some("2"))]);
    outbox.put(vec![], vec![note("b", None)]);
    assert_eq!(outbox.notes().unwrap(), [("a".to_owned(), "1".to_owned())].into());
    std::fs::create_dir(dir.path().join("later")).unwrap();
    outbox.flush();
    drop(outbox);
    let (outbox, _) = Outbox::open(&path, limits);
    assert_eq!(outbox.notes().unwrap(), [("a".to_owned(), "1".to_owned())].into());
}

/// As the first agents wrote it: the statements are theirs, word for word.
fn file_without_version(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "PRAGMA page_size=4096; PRAGMA journal_mode=WAL;
         CREATE TABLE IF NOT EXISTS message (
           id INTEGER PRIMARY KEY AUTOINCREMENT, rank INTEGER NOT NULL, topic TEXT NOT NULL, content_type TEXT NOT NULL,
           event_id TEXT NOT NULL, payload BLOB NOT NULL) STRICT;
         CREATE INDEX IF NOT EXISTS message_by_rank ON message (rank, id);
         INSERT INTO message (rank, topic, content_type, event_id, payload) VALUES (3, 't', 'c', '7', x'0102'), (0, 't', 'c', '7', x'03');",
    )
    .unwrap();
    db
}

#[test]
fn an_outbox_from_before_versions_is_brought_up_to_date_with_all_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sqlite");
    drop(file_without_version(&path));
    for _ in 0..2 {
        let (mut outbox, trouble) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
        assert!(trouble.is_none(), "{trouble:?}");
        let waiting = outbox.pending(|_| false, 10, usize::MAX).unwrap();
        assert_eq!(waiting.iter().map(|(_, m)| m.payload.clone()).collect::<Vec<_>>(), [vec![1, 2], vec![3]]);
        assert_eq!(outbox.put(vec![], vec![note("k", Some("v"))]).len(), 0);
        assert_eq!(outbox.notes().unwrap().len(), 1);
    }
    let version: i64 = Connection::open(&path).unwrap().query_row("PRAGMA user_version", [], |r| r.get(0)).unwrap();
    assert_eq!(version, 1);
}

/// Regression: such a table passed the start, failed every write, and was looked through again at each of them.
#[test]
fn a_table_that_lacks_a_column_is_set_aside_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sqlite");
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "CREATE TABLE message (id INTEGER PRIMARY KEY, rank INTEGER, topic TEXT, event_id TEXT, payload BLOB)",
        )
        .unwrap();
    let (mut outbox, trouble) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    let trouble = trouble.unwrap().to_string();
    assert!(
        trouble.contains("(id rank topic event_id payload) where (id rank topic content_type event_id payload)"),
        "{trouble}"
    );
    for n in 0..3 {
        assert_eq!(put(&mut outbox, message(Priority::Opened, n, 10)).unwrap(), Stored::OnDisk);
    }
    let health = outbox.health();
    assert_eq!((health.set_aside, health.failed_writes, health.in_memory), (1, 0, 0));
}

/// Somebody else alters the table while we have it open.
#[test]
fn a_table_that_changes_under_us_is_set_aside_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sqlite");
    let (mut outbox, _) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    Connection::open(&path).unwrap().execute_batch("ALTER TABLE message RENAME COLUMN topic TO subject").unwrap();
    for n in 0..3 {
        put(&mut outbox, message(Priority::Opened, n, 10)).unwrap();
    }
    let health = outbox.health();
    assert_eq!((health.set_aside, health.in_memory), (1, 0), "{health:?}");
    assert_eq!(ids(&mut outbox), ["1", "0", "2"], "the first was in memory meanwhile");
}

#[test]
fn the_file_of_a_newer_agent_is_set_aside_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sqlite");
    let db = file_without_version(&path);
    db.pragma_update(None, "user_version", 7).unwrap();
    drop(db);
    let (mut outbox, trouble) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    let trouble = trouble.unwrap().to_string();
    assert!(trouble.contains("a newer ckaad-agent wrote it: its schema is 7, this one knows up to 1"), "{trouble}");
    assert_eq!(put(&mut outbox, message(Priority::Opened, 0, 10)).unwrap(), Stored::OnDisk);
}

/// Regression: a look set the journal mode and made our table in whatever file it was pointed at.
#[test]
fn to_look_changes_neither_the_file_nor_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    Connection::open(at("foreign"))
        .unwrap()
        .execute_batch("CREATE TABLE other (y); INSERT INTO other VALUES (1)")
        .unwrap();
    drop(file_without_version(&at("first")));
    drop(Outbox::open(&at("closed #1?"), Limits { max_bytes: 1 << 20 }));
    std::fs::write(at("text"), b"not a database, but long enough to look like one").unwrap();
    std::fs::write(at("empty"), b"").unwrap();
    let (mut open, _) = Outbox::open(&at("open"), Limits { max_bytes: 1 << 20 });
    put(&mut open, message(Priority::Opened, 0, 10)).unwrap();
    let state = || {
        let entries = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
        // The memory that open connections share is not what is stored.
        entries
            .filter(|p| !p.to_string_lossy().ends_with("-shm"))
            .map(|p| (std::fs::read(&p).unwrap(), p))
            .collect::<std::collections::BTreeSet<_>>()
    };
    let before = state();
    assert!(Outbox::look(&at("foreign")).unwrap_err().to_string().contains("it is not an outbox of this agent"));
    assert!(Outbox::look(&at("text")).unwrap_err().to_string().contains("not a database"));
    assert!(Outbox::look(&at("nowhere")).is_err());
    assert_eq!(Outbox::look(&at("first")).unwrap().waiting, 2);
    assert_eq!(Outbox::look(&at("empty")).unwrap().waiting, 0);
    assert_eq!(Outbox::look(&at("closed #1?")).unwrap().waiting, 0);
    assert_eq!(Outbox::look(&at("open")).unwrap().waiting, 1, "beside a running agent, with what is in its log still");
    assert_eq!(state(), before);
}

/// Of so many bytes in the outbox's own count.
fn of_size(priority: Priority, n: usize, size: usize) -> Message {
    let mut message = message(priority, n, 0);
    message.payload = vec![0; size - message.size() as usize];
    message
}

/// An outbox whose disk takes nothing, with room for messages of 8 MiB.
fn without_disk() -> Outbox {
    Outbox::open(Path::new("/nowhere/at/all.sqlite"), Limits { max_bytes: 64 << 20 }).0
}

#[test]
fn a_messages_size_is_that_of_its_parts_and_a_little_more() {
    let message = Message {
        priority: Priority::Opened,
        topic: "four".into(),
        content_type: "application".into(),
        event_id: "0123456".into(),
        payload: vec![0; 100],
    };
    assert_eq!(message.size(), 4 + 11 + 7 + 100 + 64);
}

#[test]
fn memory_is_full_at_its_last_byte_and_counts_what_it_holds() {
    const QUARTER: usize = MEMORY_BYTES / 4;
    let mut outbox = without_disk();
    for n in 0..4 {
        let priority = if n == 1 { Priority::Heatmap } else { Priority::Opened };
        assert_eq!(put(&mut outbox, of_size(priority, n, QUARTER)).unwrap(), Stored::InMemory);
    }
    assert_eq!((outbox.health().bytes, outbox.health().in_memory), (MEMORY_BYTES as u64, 4), "not a byte is left");
    // The heatmap gives way, whatever came before it.
    assert_eq!(put(&mut outbox, of_size(Priority::Opened, 4, 1000)).unwrap(), Stored::InMemory);
    assert_eq!(ids(&mut outbox), ["0", "2", "3", "4"]);
    let health = outbox.health();
    assert_eq!((health.bytes, health.dropped_heatmaps), ((MEMORY_BYTES - QUARTER + 1000) as u64, 1));
    outbox.acked(&[-1, -5]).unwrap();
    assert_eq!(outbox.health().bytes, 2 * QUARTER as u64);
}

#[test]
fn in_memory_a_message_never_pushes_out_one_that_matters_more() {
    const QUARTER: usize = MEMORY_BYTES / 4;
    let mut outbox = without_disk();
    for n in 0..3 {
        put(&mut outbox, of_size(Priority::Opened, n, QUARTER)).unwrap();
    }
    put(&mut outbox, of_size(Priority::Closed, 3, QUARTER)).unwrap();
    assert!(put(&mut outbox, of_size(Priority::Updated, 4, QUARTER)).is_err(), "a closed matters more");
    assert_eq!(put(&mut outbox, of_size(Priority::Closed, 5, QUARTER)).unwrap(), Stored::InMemory);
    assert_eq!(ids(&mut outbox), ["0", "1", "2", "5"]);
    put(&mut outbox, of_size(Priority::Opened, 6, QUARTER)).unwrap();
    assert!(put(&mut outbox, of_size(Priority::Opened, 7, QUARTER)).is_err(), "no opened gives way to another");
    assert_eq!(ids(&mut outbox), ["0", "1", "2", "6"]);
    let health = outbox.health();
    assert_eq!((health.dropped_updates, health.lost_opened), (3, 1));
}

#[test]
fn one_message_may_take_an_eighth_of_the_room() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = Outbox::open(&dir.path().join("o.sqlite"), Limits { max_bytes: 1 << 20 });
    let eighth = (1 << 20) / 8;
    assert_eq!(put(&mut outbox, of_size(Priority::Opened, 0, eighth)).unwrap(), Stored::OnDisk);
    assert!(put(&mut outbox, of_size(Priority::Opened, 1, eighth + 1)).is_err());
    // Between two that fit it takes neither's place.
    let three = [(2, 100), (3, eighth + 1), (4, 100)].map(|(n, size)| of_size(Priority::Opened, n, size));
    let stored = outbox.put(three.into(), vec![]);
    assert!(matches!(stored.as_slice(), [Ok(Stored::OnDisk), Err(_), Ok(Stored::OnDisk)]), "{stored:?}");
    assert_eq!(ids(&mut outbox), ["0", "2", "4"]);
    assert_eq!(outbox.health().lost_opened, 2);
}

#[test]
fn every_message_that_the_disk_refuses_is_counted() {
    let mut outbox = without_disk();
    outbox.put((0..3).map(|n| message(Priority::Opened, n, 10)).collect(), vec![]);
    assert_eq!((outbox.health().failed_writes, outbox.health().in_memory), (3, 3));
    outbox.count_oversize(2);
    outbox.count_oversize(3);
    assert_eq!(outbox.health().dropped_oversize, 5);
}

#[test]
fn a_disk_that_refused_is_asked_again_only_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later/o.sqlite");
    let (mut outbox, trouble) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    assert!(matches!(trouble, Some(OutboxError::Closed { .. })), "no file was there to be set aside: {trouble:?}");
    std::fs::create_dir(dir.path().join("later")).unwrap();
    assert_eq!(put(&mut outbox, message(Priority::Opened, 0, 10)).unwrap(), Stored::InMemory);
    outbox.tried_at = Instant::now().checked_sub(REOPEN_EVERY).unwrap();
    assert_eq!(put(&mut outbox, message(Priority::Opened, 1, 10)).unwrap(), Stored::OnDisk);
    assert_eq!(outbox.health().in_memory, 0, "what waited was stored behind it");
    assert_eq!(outbox.health().bytes, Outbox::look(&path).unwrap().bytes);
    assert!(outbox.health().bytes > 0);
}

#[test]
fn a_note_alone_is_written_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later/o.sqlite");
    let (mut outbox, _) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    outbox.put(vec![], vec![note("a", Some("1"))]);
    std::fs::create_dir(dir.path().join("later")).unwrap();
    outbox.flush();
    drop(outbox);
    assert_eq!(Outbox::open(&path, Limits { max_bytes: 1 << 20 }).0.notes().unwrap().len(), 1);
}

#[test]
fn what_is_pending_is_bounded_in_number_and_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let on_disk = Outbox::open(&dir.path().join("o.sqlite"), Limits { max_bytes: 1 << 20 }).0;
    for mut outbox in [on_disk, without_disk()] {
        for n in 0..4 {
            put(&mut outbox, message(Priority::Closed, n, 100)).unwrap();
        }
        let mut found = |count, bytes| outbox.pending(|_| false, count, bytes).unwrap().len();
        assert_eq!([found(2, usize::MAX), found(10, 300), found(10, 299), found(10, 1)], [2, 3, 2, 1]);
        let all = outbox.pending(|_| false, 10, usize::MAX).unwrap();
        assert!(all.iter().all(|(_, m)| m.priority == Priority::Closed));
        let last = all[3].0;
        assert_eq!(outbox.pending(|id| id != last, 10, usize::MAX).unwrap().len(), 1);
    }
}

#[test]
fn what_cannot_be_deleted_stays_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sqlite");
    let (mut outbox, _) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    put(&mut outbox, message(Priority::Opened, 0, 10)).unwrap();
    let id = outbox.pending(|_| false, 1, usize::MAX).unwrap()[0].0;
    Connection::open(&path).unwrap().execute_batch("ALTER TABLE message RENAME TO hidden").unwrap();
    assert!(matches!(outbox.acked(&[id]), Err(OutboxError::Write { .. })));
    assert_eq!((outbox.health().failed_writes, outbox.health().waiting), (1, 1));
}

/// SQLite itself finds such damage only when it comes to the page.
#[test]
fn damage_in_the_middle_of_the_file_is_found_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sqlite");
    let (mut outbox, _) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    for n in 0..200 {
        put(&mut outbox, message(Priority::Opened, n, 500)).unwrap();
    }
    drop(outbox);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / database::PAGE as usize * database::PAGE as usize;
    bytes[middle..middle + 64].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    assert!(Outbox::look(&path).is_err());
    let (outbox, trouble) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    assert!(trouble.is_some());
    assert_eq!(outbox.health().set_aside, 1);
}

/// SQLite would refuse what does not fit: the room rule has to come first, and must not give up more than it has to.
#[test]
fn room_is_made_before_the_disk_is_full_and_no_sooner() {
    let dir = tempfile::tempdir().unwrap();
    let (mut outbox, _) = Outbox::open(&dir.path().join("o.sqlite"), Limits { max_bytes: SMALLEST });
    for n in 0..300 {
        let size = [100, 3000, 9000, 20_000, 500][n % 5];
        assert_eq!(put(&mut outbox, message(Priority::Heatmap, n, size)).unwrap(), Stored::OnDisk, "message {n}");
    }
    let health = outbox.health();
    assert_eq!(health.failed_writes, 0);
    // The largest message takes five pages and is given four more; the last that went made room for five at most.
    assert!(health.bytes <= SMALLEST && health.bytes >= SMALLEST - 14 * database::PAGE, "{} bytes", health.bytes);
}
