//! A program runs: threads take units, step after step.

use crate::operator::Place;
use crate::pack::CacheLine;
use crate::pool::{Pool, pause};
use crate::program::{Program, Stage};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Memory of one run at a time. It belongs to the caller, who keeps it from run to run: nothing is allocated while a
/// program runs.
pub struct Scratch {
    bytes: Vec<CacheLine>,
    /// Of each step: the next unit that nobody has, and how many are done.
    next: Vec<AtomicUsize>,
    done: Vec<AtomicUsize>,
    failed: AtomicBool,
    /// First byte of each result that leaves, during a run.
    targets: Vec<AtomicPtr<u8>>,
}

impl Program {
    /// Memory for one run at a time; a run may follow another in it.
    pub fn scratch(&self) -> Scratch {
        let counters = || self.stages.iter().map(|_| AtomicUsize::new(0)).collect();
        Scratch {
            bytes: vec![CacheLine([0; 64]); self.memory.div_ceil(64)],
            next: counters(),
            done: counters(),
            failed: AtomicBool::new(false),
            targets: self.outputs.iter().map(|_| AtomicPtr::default()).collect(),
        }
    }

    /// Runs once, on this thread and those of the pool that are free. `inputs` and `outputs` hold as many values as the
    /// shapes say that the program was compiled for: bytes, or f32 in the machine's order and aligned.
    ///
    /// # Panics
    /// When they do not, or `scratch` is another program's.
    pub fn run(&self, pool: &Pool, scratch: &mut Scratch, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        assert!(scratch.bytes.len() * 64 >= self.memory && scratch.next.len() == self.stages.len());
        assert_eq!(outputs.len(), self.outputs.len());
        for ((output, what), target) in outputs.iter_mut().zip(&self.outputs).zip(&scratch.targets) {
            assert!(output.len() == what.bytes() && output.as_ptr().addr().is_multiple_of(what.element.bytes()));
            target.store(output.as_mut_ptr(), Ordering::Relaxed);
        }
        for &(index, bytes) in &self.inputs {
            assert_eq!(inputs[index].len(), bytes);
        }
        for counter in scratch.next.iter().chain(&scratch.done) {
            counter.store(0, Ordering::Relaxed);
        }
        scratch.failed.store(false, Ordering::Relaxed);
        let memory = scratch.bytes.as_mut_ptr().cast();
        let run = Run {
            stages: &self.stages,
            next: &scratch.next,
            done: &scratch.done,
            failed: &scratch.failed,
            place: Place { isa: self.isa, memory, inputs, targets: &scratch.targets },
        };
        pool.run(&|| run.take_part());
        assert!(!scratch.failed.load(Ordering::Acquire), "a step of the int8 engine panicked");
    }
}

struct Run<'a> {
    stages: &'a [Stage],
    next: &'a [AtomicUsize],
    done: &'a [AtomicUsize],
    failed: &'a AtomicBool,
    place: Place<'a>,
}

// SAFETY: threads share the memory and the outputs through the pointers, and each unit writes bytes that no other unit
// of its step touches: a row of a tensor, some pixels of some blocks, or the border. A step starts when all units of
// the step before are done (acquire on `done`, which each unit releases), and `layout` gives a step's result memory
// that none of its inputs has.
unsafe impl Sync for Run<'_> {}

/// Marks the run as failed when a unit panics, so that nobody waits for it.
struct Guard<'a>(&'a AtomicBool, bool);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.store(true, Ordering::Release);
        }
    }
}

impl Run<'_> {
    /// What every thread does.
    fn take_part(&self) {
        let mut guard = Guard(self.failed, false);
        for (i, stage) in self.stages.iter().enumerate() {
            loop {
                let unit = self.next[i].fetch_add(1, Ordering::Relaxed);
                if unit >= stage.units {
                    break;
                }
                // SAFETY: each number is given once, and nobody comes here before the units of all stages before are
                // done.
                unsafe { stage.run(unit, &self.place) };
                self.done[i].fetch_add(1, Ordering::Release);
            }
            let mut waited = 0;
            while self.done[i].load(Ordering::Acquire) < stage.units {
                if self.failed.load(Ordering::Acquire) {
                    break;
                }
                pause(&mut waited);
            }
            if self.failed.load(Ordering::Acquire) {
                break;
            }
        }
        guard.1 = true;
    }
}

impl Stage {
    /// # Safety
    /// That of [`Step::run`](crate::operator::Step::run), with the border's unit before the others.
    unsafe fn run(&self, unit: usize, place: &Place) {
        match &self.border {
            // SAFETY: the border is this unit's alone.
            Some(to) if unit == 0 => unsafe { to.fill_border(place.memory) },
            // SAFETY: the caller's promise, passed on.
            Some(_) => unsafe { self.step.run(unit - 1, place) },
            // SAFETY: as above.
            None => unsafe { self.step.run(unit, place) },
        }
    }
}
