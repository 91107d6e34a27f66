//! Every step with the power cut before and after each thing that is done to the disk, and with each of them failing.

use super::*;
use crate::offer::Offer;
use semver::VersionReq;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// What a disk may do at the `at`-th change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    CutBefore,
    CutAfter,
    /// This one only.
    Error,
    /// This one and all behind it.
    ErrorForEver,
}

/// A disk that holds what [`Disk`] promises and no more: each change is there whole or not at all.
#[derive(Default)]
struct Memory {
    files: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    changes: Mutex<usize>,
    fault: Mutex<Option<(usize, Fault)>>,
}

/// What the power cut panics with.
struct Cut;

impl Memory {
    fn set(&self, fault: Option<(usize, Fault)>) {
        *self.fault.lock().unwrap() = fault;
        *self.changes.lock().unwrap() = 0;
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()>) -> io::Result<()> {
        let now = {
            let mut changes = self.changes.lock().unwrap();
            *changes += 1;
            *changes - 1
        };
        let fault = self.fault.lock().unwrap().and_then(|(at, fault)| match fault {
            Fault::ErrorForEver if now >= at => Some(fault),
            _ => (now == at).then_some(fault),
        });
        match fault {
            Some(Fault::CutBefore) => std::panic::panic_any(Cut),
            Some(Fault::Error | Fault::ErrorForEver) => return Err(io::Error::other("the disk says no")),
            _ => {}
        }
        let result = change(&mut self.files.lock().unwrap());
        if fault == Some(Fault::CutAfter) {
            std::panic::panic_any(Cut);
        }
        result
    }

    fn put(&self, path: &Path, bytes: &[u8]) {
        self.files.lock().unwrap().insert(path.to_owned(), bytes.to_vec());
    }
}

impl Disk for Memory {
    fn make_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.lock().unwrap().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change(|files| {
            files.insert(path.to_owned(), bytes.to_vec());
            Ok(())
        })
    }
    fn adopt(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|files| {
            let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            files.insert(to.to_owned(), bytes);
            Ok(())
        })
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|files| {
            files.remove(path);
            Ok(())
        })
    }
    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let files = self.files.lock().unwrap();
        let below = files.keys().filter(|path| path.parent() == Some(folder));
        Ok(below.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }
    fn digest(&self, path: &Path) -> io::Result<String> {
        Ok(hex::encode(Sha256::digest(self.read(path)?)))
    }
}

const STATE: &str = "/state";
const PART: &str = "/part";

fn bytes(n: u64) -> Vec<u8> {
    format!("the bundle {n}").into_bytes()
}

fn candidate(n: u64) -> Candidate {
    let digest = hex::encode(Sha256::digest(bytes(n)));
    let offer = Offer {
        format: 1,
        model: "press".into(),
        version: Version::new(n, 0, 0),
        sequence: n,
        group: String::new(),
        hardware: String::new(),
        agent: VersionReq::STAR,
        percent: 100,
    };
    Candidate { target: offer.target_name(&digest), length: bytes(n).len() as u64, digest, offer }
}

fn open(disk: &Arc<Memory>) -> (Slots, Vec<Found>) {
    Slots::open(disk.clone(), Path::new(STATE), "press").unwrap()
}

/// As far as the slots are concerned; whatever was done before is left out.
fn install(slots: &mut Slots, disk: &Memory, n: u64) -> Result<(), SlotError> {
    let candidate = candidate(n);
    match slots.begin(&candidate, false) {
        Err(SlotError::InForce(_)) => return Ok(()),
        other => other?,
    }
    if matches!(slots.work().unwrap().step, Step::Downloading | Step::Verified) {
        disk.put(Path::new(PART), &bytes(n));
        slots.verified()?;
        slots.stage(Path::new(PART))?;
    }
    slots.begin_trial()?;
    slots.commit("all was well")
}

fn version(slots: &Slots) -> Option<u64> {
    slots.committed().map(|slot| slot.version.major)
}

/// What holds at every instant: the bundles that the record names are whole, and there are at most three.
fn assert_sound(slots: &Slots, disk: &Memory, what: &str) {
    for slot in [slots.committed(), slots.previous()].into_iter().flatten() {
        assert!(slots.is_whole(slot), "{what}: {} is in the record and not whole", slot.version);
    }
    let staged = slots.work().filter(|work| matches!(work.step, Step::Staged | Step::Trial));
    assert!(staged.is_none_or(|work| slots.is_whole(&work.slot())), "{what}: what is staged is not whole");
    let files = disk.names(&Path::new(STATE).join("press/slots")).unwrap();
    assert!(files.len() <= 3, "{what}: {files:?}");
}

#[test]
fn bundles_follow_one_another_and_the_one_before_stays() {
    let disk = Arc::new(Memory::default());
    let (mut slots, found) = open(&disk);
    assert_eq!((version(&slots), found), (None, vec![]));
    for n in 1..=4 {
        install(&mut slots, &disk, n).unwrap();
        assert_sound(&slots, &disk, "after an update");
        assert_eq!(version(&slots), Some(n));
    }
    assert_eq!(slots.previous().unwrap().version.major, 3);
    assert_eq!(disk.names(&Path::new(STATE).join("press/slots")).unwrap().len(), 2);
    let (again, found) = open(&disk);
    assert_eq!((version(&again), found), (Some(4), vec![]));
    assert_eq!(again.outcome().unwrap().kind, OutcomeKind::Committed);
}

#[test]
fn older_barred_and_present_bundles_are_refused() {
    let disk = Arc::new(Memory::default());
    let (mut slots, _) = open(&disk);
    install(&mut slots, &disk, 2).unwrap();
    let error = |slots: &mut Slots, n: u64| slots.begin(&candidate(n), false).unwrap_err().to_string();
    assert_eq!(error(&mut slots, 2), "2.0.0 is in force already");
    assert_eq!(error(&mut slots, 1), "1.0.0 was published before 2.0.0, which is in force");
    slots.begin(&candidate(3), false).unwrap();
    slots.refuse("its golden samples fail", true).unwrap();
    assert_eq!(error(&mut slots, 3), "3.0.0 is not tried again: its golden samples fail");
    assert_eq!(version(&slots), Some(2));
    // A publisher who signs the same file again does not get it in: it is barred by its digest.
    let mut again = candidate(3);
    again.offer.version = Version::new(9, 0, 0);
    again.offer.sequence = 9;
    assert!(matches!(slots.begin(&again, false), Err(SlotError::Barred { .. })));
    slots.begin(&candidate(3), true).unwrap();
    assert_eq!(slots.work().unwrap().step, Step::Downloading);
}

#[test]
fn a_rollback_goes_to_the_bundle_before_and_is_not_undone_by_the_next_poll() {
    let disk = Arc::new(Memory::default());
    let (mut slots, _) = open(&disk);
    install(&mut slots, &disk, 1).unwrap();
    install(&mut slots, &disk, 2).unwrap();
    slots.roll_back("by command", true).unwrap();
    assert_eq!(version(&slots), Some(1));
    assert!(matches!(slots.begin(&candidate(2), false), Err(SlotError::Barred { .. })));
    slots.activate("2.0.0").unwrap();
    assert_eq!(version(&slots), Some(2));
    slots.withdraw(&[candidate(2).digest]).unwrap();
    assert_eq!((version(&slots), slots.previous()), (Some(1), None));
    slots.roll_back("by command", true).unwrap();
    assert_eq!(version(&slots), None, "the configured bundle is the last resort");
    assert_eq!(slots.roll_back("by command", true), Err(SlotError::NothingBefore));
}

#[test]
fn two_unclean_ends_bar_a_bundle_and_clean_ends_do_not_count() {
    let disk = Arc::new(Memory::default());
    let (mut slots, _) = open(&disk);
    install(&mut slots, &disk, 1).unwrap();
    slots.begin(&candidate(2), false).unwrap();
    disk.put(Path::new(PART), &bytes(2));
    slots.verified().unwrap();
    slots.stage(Path::new(PART)).unwrap();
    for _ in 0..5 {
        slots.begin_trial().unwrap();
        slots.suspend_trial().unwrap();
        let (opened, found) = open(&disk);
        assert_eq!(found, []);
        slots = opened;
    }
    slots.begin_trial().unwrap();
    let (mut slots, found) = open(&disk);
    assert_eq!(found, [Found::TrialInterrupted(Version::new(2, 0, 0))]);
    slots.begin_trial().unwrap();
    let (mut slots, found) = open(&disk);
    assert_eq!(found, [Found::TrialFailed(Version::new(2, 0, 0))]);
    assert_eq!((version(&slots), slots.work()), (Some(1), None));
    assert!(matches!(slots.begin(&candidate(2), false), Err(SlotError::Barred { .. })));
}

#[test]
fn a_damaged_slot_falls_back_and_a_lost_record_is_no_reason_not_to_inspect() {
    let disk = Arc::new(Memory::default());
    let (mut slots, _) = open(&disk);
    for n in 1..=2 {
        install(&mut slots, &disk, n).unwrap();
    }
    disk.put(&slots.path(&candidate(2).digest), b"rotten");
    let (slots, found) = open(&disk);
    assert_eq!((version(&slots), found), (Some(1), vec![Found::Damaged(Version::new(2, 0, 0))]));
    disk.put(&slots.path(&candidate(1).digest), b"");
    let (slots, _) = open(&disk);
    assert_eq!(version(&slots), None);
    for bad in [&b""[..], b"{", b"[]", b"{\"format\": 2}", &[0xff; 40]] {
        disk.put(&slots.record_path(), bad);
        let (mut slots, found) = open(&disk);
        assert!(matches!(found.as_slice(), [Found::RecordLost(_)]), "{found:?}");
        install(&mut slots, &disk, 3).unwrap();
    }
}

/// Old → new, with a fault at every change to the disk; then a start without faults, and the update once more.
#[test]
fn at_every_change_a_cut_or_an_error_leaves_exactly_the_old_or_exactly_the_new_bundle() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<Cut>().is_none() {
            quiet(info);
        }
    }));
    type Step = fn(&mut Slots, &Memory) -> Result<(), SlotError>;
    let update: Step = |slots, disk| install(slots, disk, 3);
    let withdrawn: Step = |slots, _| slots.withdraw(&[candidate(2).digest]).map(drop);
    let by_hand: Step = |slots, _| slots.roll_back("by hand", true);
    let refused: Step = |slots, disk| {
        slots.begin(&candidate(3), false)?;
        disk.put(Path::new(PART), &bytes(3));
        slots.verified()?;
        slots.stage(Path::new(PART))?;
        slots.begin_trial()?;
        slots.refuse("its golden samples fail", true)
    };
    let mut cases = 0;
    for (name, step, ends) in
        [("update", update, 3), ("withdrawn", withdrawn, 1), ("by hand", by_hand, 1), ("refused", refused, 2)]
    {
        for fault in [Fault::CutBefore, Fault::CutAfter, Fault::Error, Fault::ErrorForEver] {
            for at in 0.. {
                let disk = Arc::new(Memory::default());
                let (mut slots, _) = open(&disk);
                for n in 1..=2 {
                    install(&mut slots, &disk, n).unwrap();
                }
                disk.set(Some((at, fault)));
                let what = format!("{name}, {fault:?} at {at}");
                let done = catch_unwind(AssertUnwindSafe(|| step(&mut slots, &disk)));
                let reached = *disk.changes.lock().unwrap() > at;
                if done.is_ok() {
                    // The agent goes on without a start: what it holds is what is on the disk.
                    assert_sound(&slots, &disk, &what);
                    assert!([Some(2), Some(ends)].contains(&version(&slots)), "{what}");
                    let held = version(&slots);
                    assert_eq!(version(&open_quietly(&disk)), held, "{what}");
                }
                disk.set(None);
                let (mut slots, _) = open(&disk);
                assert_sound(&slots, &disk, &what);
                let now = version(&slots).unwrap();
                assert!(now == 2 || now == ends, "{what}: neither the old nor the new bundle, but {now}");
                // It goes on from there: nothing is blocked for ever, unless it was barred.
                if name == "update" {
                    install(&mut slots, &disk, 3).unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert_eq!(version(&slots), Some(3), "{what}");
                }
                cases += 1;
                if !reached {
                    break;
                }
            }
        }
    }
    assert!(cases > 60, "{cases} cases");
}

/// Opens what is on the disk without changing it.
fn open_quietly(disk: &Arc<Memory>) -> Slots {
    let copy = Arc::new(Memory { files: Mutex::new(disk.files.lock().unwrap().clone()), ..Memory::default() });
    open(&copy).0
}
