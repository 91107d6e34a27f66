use super::*;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

fn message(rank: Rank, n: usize, bytes: usize) -> Message {
    Message {
        rank,
        topic: "t".into(),
        content_type: "c".into(),
        event_id: n.to_string(),
        payload: vec![n as u8; bytes],
    }
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
        assert_eq!(outbox.put(message(Rank::Opened, n, 100)).unwrap(), Stored::OnDisk);
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
    outbox.put(message(Rank::Opened, 0, 4000)).unwrap();
    outbox.put(message(Rank::Updated, 1, 4000)).unwrap();
    outbox.put(message(Rank::Heatmap, 2, 20_000)).unwrap();
    for n in 3..100 {
        let _ = outbox.put(message(Rank::Opened, n, 4000));
        let left = ids(&mut outbox);
        assert!(left.iter().map(|id| id.parse::<usize>().unwrap()).is_sorted(), "disk before memory: {left:?}");
        let gone = |id: &str| !left.contains(&id.to_owned());
        assert!(!gone("1") || gone("2"), "the heatmap goes before the update");
        assert!(!gone("0"), "an opened never goes");
    }
    let health = outbox.health();
    assert_eq!((health.dropped_heatmaps, health.dropped_updates, health.lost_opened), (1, 1, 0));
    assert!(health.volatile > 0, "what the disk has no room for waits in memory");
    assert!(outbox.put(message(Rank::Heatmap, 100, 4000)).is_err(), "a heatmap does not push out anything better");
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
        assert_eq!(outbox.put(message(Rank::Opened, n, 10)).unwrap(), Stored::OnDisk);
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
    assert_eq!(outbox.put(message(Rank::Opened, 1, 10)).unwrap(), Stored::OnDisk);
}

#[test]
fn a_disk_that_refuses_loses_nothing_while_memory_has_room() {
    let (mut outbox, trouble) = Outbox::open(Path::new("/nowhere/at/all.sqlite"), Limits { max_bytes: 1 << 20 });
    assert!(trouble.unwrap().to_string().contains("/nowhere/at/all.sqlite"));
    for n in 0..3 {
        assert_eq!(outbox.put(message(Rank::Opened, n, 100)).unwrap(), Stored::InMemory);
    }
    assert_eq!(ids(&mut outbox), ["0", "1", "2"]);
    assert_eq!((outbox.health().volatile, outbox.health().failed_writes), (3, 3));
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
    let mut model: BTreeMap<usize, Rank> = BTreeMap::new();
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
                let rank = [Rank::Heatmap, Rank::Updated, Rank::Closed, Rank::Opened][rng.random_range(0..4)];
                if outbox.put(message(rank, n, rng.random_range(1..20_000))).is_ok() {
                    model.insert(n, rank);
                }
                outbox.volatile.is_empty().then_some(()).expect("this mix never fills the disk with opened alone");
            }
        }
        let left: Vec<usize> = ids(&mut outbox).iter().map(|id| id.parse().unwrap()).collect();
        assert!(left.is_sorted(), "oldest first");
        assert!(left.iter().all(|id| model.contains_key(id)), "nothing comes back");
        let gone: Vec<Rank> = model.iter().filter(|(id, _)| !left.contains(id)).map(|(_, r)| *r).collect();
        assert!(!gone.contains(&Rank::Opened), "no opened is lost");
        model.retain(|id, _| left.contains(id));
        assert!(outbox.health().bytes <= limits.max_bytes);
        assert!(path.metadata().unwrap().len() <= limits.max_bytes);
    }
}

#[test]
fn a_disk_that_comes_back_at_the_end_takes_what_waits_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later/o.sqlite");
    let (mut outbox, _) = Outbox::open(&path, Limits { max_bytes: 1 << 20 });
    assert_eq!(outbox.put(message(Rank::Opened, 0, 100)).unwrap(), Stored::InMemory);
    std::fs::create_dir(dir.path().join("later")).unwrap();
    outbox.flush();
    assert_eq!((outbox.health().volatile, outbox.health().lost_opened), (0, 0));
    drop(outbox);
    assert_eq!(ids(&mut Outbox::open(&path, Limits { max_bytes: 1 << 20 }).0), ["0"]);

    let (mut outbox, _) = Outbox::open(Path::new("/nowhere/at/all.sqlite"), Limits { max_bytes: 1 << 20 });
    outbox.put(message(Rank::Opened, 0, 100)).unwrap();
    outbox.put(message(Rank::Heatmap, 0, 100)).unwrap();
    outbox.flush();
    let health = outbox.health();
    assert_eq!((health.volatile, health.bytes, health.lost_opened, health.dropped_heatmaps), (0, 0, 1, 1));
}
