//! Real power cuts: ext4 on a loop device, shut down by the kernel so that neither data nor journal reaches the disk any more, before and after
//! everything that is done to the disk. Needs root and loop devices, and says so where there are none.

use crate::forge::Forge;
use ckaad_testing::volume::Volume;
use ckaad_update::disk::{Disk, RealDisk};
use ckaad_update::offer::Candidate;
use ckaad_update::slots::{SlotError, Slots, Step};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The machine's disk, whose power fails before or after one change; every change behind it fails, as it does then.
struct Cutting {
    volume: Arc<Volume>,
    at: usize,
    after: bool,
    changes: AtomicUsize,
}

impl Cutting {
    fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let now = self.changes.fetch_add(1, Ordering::Relaxed) == self.at;
        if now && !self.after {
            self.volume.cut();
        }
        let result = change();
        if now && self.after {
            self.volume.cut();
        }
        result
    }
}

impl Disk for Cutting {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.change(|| RealDisk.make_folder(path))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change(|| RealDisk.replace(path, bytes))
    }
    fn adopt(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|| RealDisk.adopt(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|| RealDisk.remove(path))
    }
    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.names(folder)
    }
    fn digest(&self, path: &Path) -> io::Result<String> {
        RealDisk.digest(path)
    }
}

fn bytes(n: u64) -> Vec<u8> {
    vec![n as u8; 30_000]
}

fn candidate(forge: &Forge, n: u64) -> Candidate {
    let digest = hex::encode(Sha256::digest(bytes(n)));
    let offer = forge.offer(n);
    Candidate { target: offer.target_name(&digest), length: 30_000, digest, offer }
}

fn install(disk: Arc<dyn Disk>, state: &Path, candidate: &Candidate) -> Result<(), SlotError> {
    let (mut slots, _) = Slots::open(disk, state, "press")?;
    match slots.begin(candidate, false) {
        Err(SlotError::InForce(_)) => return Ok(()),
        other => other?,
    }
    if slots.work().is_some_and(|work| matches!(work.step, Step::Downloading | Step::Verified)) {
        // As a download leaves it: nobody made it reach the disk.
        let part = state.join("part");
        let lost = |e: io::Error| SlotError::Unknown(e.to_string());
        std::fs::write(&part, bytes(candidate.offer.sequence)).map_err(lost)?;
        slots.verified()?;
        slots.stage(&part)?;
    }
    slots.begin_trial()?;
    slots.commit("all was well")
}

#[test]
fn a_power_cut_at_every_change_leaves_exactly_the_old_or_exactly_the_new_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let forge = Forge::new();
    let Some(volume) = Volume::make(folder.path()).map(Arc::new) else { return };
    let (old, new) = (candidate(&forge, 1), candidate(&forge, 2));
    let (mut cuts, mut kept_old, mut kept_new) = (0, 0, 0);
    for at in 0.. {
        let mut reached = true;
        for after in [false, true] {
            let state = volume.at.join(format!("{at}-{after}"));
            install(Arc::new(RealDisk), &state, &old).unwrap();
            let disk = Arc::new(Cutting { volume: volume.clone(), at, after, changes: AtomicUsize::new(0) });
            let done = install(disk.clone(), &state, &new);
            reached = disk.changes.load(Ordering::Relaxed) > at;
            if !reached {
                assert!(done.is_ok());
                break;
            }
            volume.mount_again();
            cuts += 1;
            let (slots, _) = Slots::open(Arc::new(RealDisk), &state, "press").unwrap();
            let in_force = slots.committed().unwrap_or_else(|| panic!("nothing is in force, cut at {at}, {after}"));
            assert!(slots.is_whole(in_force), "cut at {at}, {after}");
            match in_force.sequence {
                1 => kept_old += 1,
                _ => kept_new += 1,
            }
            drop(slots);
            install(Arc::new(RealDisk), &state, &new).unwrap_or_else(|e| panic!("cut at {at}, {after}: {e}"));
        }
        if !reached {
            break;
        }
    }
    println!("{cuts} power cuts: the old bundle {kept_old} times, the new one {kept_new} times");
    assert!(cuts >= 10 && kept_old > 0 && kept_new > 0, "{cuts} cuts, {kept_old} old, {kept_new} new");
}

#[test]
fn a_full_disk_leaves_the_old_bundle_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let forge = Forge::new();
    let Some(volume) = Volume::make(folder.path()) else { return };
    let state = volume.at.join("state");
    install(Arc::new(RealDisk), &state, &candidate(&forge, 1)).unwrap();
    let filler = volume.at.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    for size in [1 << 16, 1 << 10, 1] {
        while io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
    }
    let error = install(Arc::new(RealDisk), &state, &candidate(&forge, 2)).unwrap_err().to_string();
    assert!(error.contains("No space left") || error.contains("space"), "{error}");
    let (slots, found) = Slots::open(Arc::new(RealDisk), &state, "press").unwrap();
    assert_eq!((slots.committed().unwrap().sequence, found), (1, vec![]));
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    install(Arc::new(RealDisk), &state, &candidate(&forge, 2)).unwrap();
}
