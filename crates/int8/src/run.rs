//! A program runs: threads take units, step after step.

use super::pack::Line;
use super::pool::{Pool, pause};
use super::program::{Program, Step};
use super::steps::{Kind, Place};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Memory of one run at a time.
pub struct Scratch {
    bytes: Vec<Line>,
    /// Of each step: the next unit that nobody has, and how many are done.
    next: Vec<AtomicUsize>,
    done: Vec<AtomicUsize>,
    failed: AtomicBool,
    /// First byte of each result that leaves, during a run.
    targets: Vec<AtomicPtr<u8>>,
}

impl Program {
    pub fn scratch(&self) -> Scratch {
        let counters = || self.steps.iter().map(|_| AtomicUsize::new(0)).collect();
        Scratch {
            bytes: vec![Line([0; 64]); self.memory.div_ceil(64)],
            next: counters(),
            done: counters(),
            failed: AtomicBool::new(false),
            targets: self.outputs.iter().map(|_| AtomicPtr::default()).collect(),
        }
    }

    /// `inputs` and `outputs` hold as many values as the shapes say that the program was compiled for: bytes, or f32 in the machine's
    /// order and aligned.
    ///
    /// # Panics
    /// When they do not, or `scratch` is another program's.
    pub fn run(&self, pool: &Pool, scratch: &mut Scratch, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        assert!(scratch.bytes.len() * 64 >= self.memory && scratch.next.len() == self.steps.len());
        assert_eq!(outputs.len(), self.outputs.len());
        for ((output, &(count, size)), target) in outputs.iter_mut().zip(&self.outputs).zip(&scratch.targets) {
            assert!(output.len() == count * size && output.as_ptr().addr().is_multiple_of(size));
            target.store(output.as_mut_ptr(), Ordering::Relaxed);
        }
        for step in &self.steps {
            if let Kind::Input { input, from: [channels, height, width], .. } = &step.kind {
                let channels = channels - usize::from(input.append.is_some());
                assert_eq!(inputs[input.index].len(), channels * height * width);
            }
        }
        for counter in scratch.next.iter().chain(&scratch.done) {
            counter.store(0, Ordering::Relaxed);
        }
        scratch.failed.store(false, Ordering::Relaxed);
        let memory = scratch.bytes.as_mut_ptr().cast();
        let run = Run {
            steps: &self.steps,
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
    steps: &'a [Step],
    next: &'a [AtomicUsize],
    done: &'a [AtomicUsize],
    failed: &'a AtomicBool,
    place: Place<'a>,
}

// SAFETY: threads share the memory and the outputs through the pointers, and each unit writes bytes that no other unit of its step touches:
// a row of a tensor, some pixels of some blocks, or the border. A step starts when all units of the step before are done (acquire
// on `done`, which each unit releases), and `layout` gives a step's result memory that none of its inputs has.
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
        for (i, step) in self.steps.iter().enumerate() {
            let all = step.units + usize::from(step.border.is_some());
            loop {
                let unit = self.next[i].fetch_add(1, Ordering::Relaxed);
                if unit >= all {
                    break;
                }
                step.unit(unit, &self.place);
                self.done[i].fetch_add(1, Ordering::Release);
            }
            let mut waited = 0;
            while self.done[i].load(Ordering::Acquire) < all {
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

impl Step {
    fn unit(&self, unit: usize, place: &Place) {
        match &self.border {
            // SAFETY: the border is nobody else's.
            Some(to) if unit == 0 => unsafe { to.fill_border(place.memory) },
            Some(_) => self.kind.unit(unit - 1, place),
            None => self.kind.unit(unit, place),
        }
    }
}
