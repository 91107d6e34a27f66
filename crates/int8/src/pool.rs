//! Threads that wait for work: spinning for a moment, then asleep.
//!
//! [`Pool::run`] lets every thread call one function. A thread that comes late (the machine is busy) finds the work
//! done by the others and nothing waits for it: the function must be written so that any number of callers finish it.
//! The caller of `run` takes part, so a pool of one has no threads at all.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, TryLockError, Weak};
use std::thread::JoinHandle;

/// How often a thread looks for work before it sleeps: half a millisecond on an AMD EPYC, whose pause is long; less
/// elsewhere.
const SPINS: u32 = 20_000;

/// Some threads of the process, the caller of [`Pool::run`] not among them. They end with the last [`Arc`] of their
/// pool.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held by the caller of `run`.
    busy: Mutex<()>,
}

type Work<'a> = dyn Fn() + Sync + 'a;

struct Shared {
    /// Number of the current or last piece of work.
    epoch: AtomicU32,
    /// Threads inside the work, and [`OPEN`] while more may enter.
    inside: AtomicUsize,
    work: Mutex<Option<&'static Work<'static>>>,
    wake: Condvar,
    sleepers: Mutex<usize>,
    stop: AtomicBool,
}

const OPEN: usize = 1 << 32;

impl Pool {
    fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            epoch: AtomicU32::new(0),
            inside: AtomicUsize::new(0),
            work: Mutex::new(None),
            wake: Condvar::new(),
            sleepers: Mutex::new(0),
            stop: AtomicBool::new(false),
        });
        let spawn = |i: usize| {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("int8-{i}")).spawn(move || shared.work())
        };
        // A thread that the system does not give is one less; the work is done without it.
        let threads = (1..threads).filter_map(|i| spawn(i).ok()).collect();
        Pool { shared, threads, busy: Mutex::new(()) }
    }

    /// The process's pool of so many threads, the caller counted; all programs that ask for as many share one.
    pub fn of(threads: usize) -> Arc<Pool> {
        static POOLS: Mutex<Vec<(usize, Weak<Pool>)>> = Mutex::new(Vec::new());
        let mut pools = POOLS.lock().unwrap_or_else(|e| e.into_inner());
        pools.retain(|(_, pool)| pool.strong_count() > 0);
        if let Some(pool) = pools.iter().find(|(n, _)| *n == threads).and_then(|(_, pool)| pool.upgrade()) {
            return pool;
        }
        let pool = Arc::new(Pool::new(threads));
        pools.push((threads, Arc::downgrade(&pool)));
        pool
    }

    /// Calls `work` here and on every thread that is awake in time; returns when all of them have returned. While
    /// another caller has the threads, `work` runs here alone.
    pub fn run(&self, work: &Work<'_>) {
        let busy = match self.busy.try_lock() {
            Ok(busy) => Some(busy),
            // Work that panicked left everything in order: `Close` saw to it.
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let Some(_busy) = busy.filter(|_| !self.threads.is_empty()) else {
            work();
            return;
        };
        // SAFETY: only the lifetime changes. The reference is gone from `shared` and no thread is inside the work when
        // the guard below is dropped, also when `work` panics here.
        let forever = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        *lock(&self.shared.work) = Some(forever);
        self.shared.inside.store(OPEN, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        if *lock(&self.shared.sleepers) > 0 {
            self.shared.wake.notify_all();
        }
        let _close = Close(&self.shared);
        work();
    }
}

/// Waits until no thread is inside.
struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        *lock(&self.0.work) = None;
        self.0.inside.fetch_sub(OPEN, Ordering::AcqRel);
        let mut waited = 0u32;
        while self.0.inside.load(Ordering::Acquire) != 0 {
            pause(&mut waited);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        drop(lock(&self.shared.sleepers));
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // It ends by itself; a panic in it was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut seen = 0;
        while !self.stop.load(Ordering::Acquire) {
            seen = self.wait_for_another(seen);
            if !self.enter() {
                continue;
            }
            let leave = Leave(self);
            let work = *lock(&self.work);
            if let Some(work) = work {
                // A panic in the work is the caller's to see: `Run` marks the run as failed, and its caller panics.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            }
            drop(leave);
        }
    }

    /// Joins those inside, if it is still open.
    fn enter(&self) -> bool {
        let join = |inside: usize| (inside >= OPEN).then_some(inside + 1);
        self.inside.fetch_update(Ordering::AcqRel, Ordering::Acquire, join).is_ok()
    }

    fn wait_for_another(&self, seen: u32) -> u32 {
        for _ in 0..SPINS {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            std::hint::spin_loop();
        }
        let mut sleepers = lock(&self.sleepers);
        *sleepers += 1;
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != seen {
                *sleepers -= 1;
                return epoch;
            }
            sleepers = self.wake.wait(sleepers).unwrap_or_else(|e| e.into_inner());
        }
    }
}

struct Leave<'a>(&'a Shared);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits a moment, the longer the more often it was called: a thread that waits for another may hold the core that the
/// other needs.
pub fn pause(waited: &mut u32) {
    *waited += 1;
    if *waited < 200 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_of_work_is_finished_before_run_returns() {
        let pool = Pool::new(4);
        for round in 0..500 {
            let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = || {
                while next.fetch_add(1, Ordering::Relaxed) < 32 {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            };
            pool.run(&work);
            assert_eq!(done.load(Ordering::Relaxed), 32, "round {round}");
        }
    }

    #[test]
    fn a_second_caller_does_not_wait_for_the_first() {
        let pool = Pool::new(2);
        let inner = AtomicUsize::new(0);
        pool.run(&|| {
            pool.run(&|| {
                inner.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert!(inner.load(Ordering::Relaxed) >= 1);
    }

    #[test]
    fn after_a_panic_the_threads_come_again() {
        let pool = Pool::new(2);
        let panics = std::panic::AssertUnwindSafe(|| pool.run(&|| panic!("as the test wants")));
        assert!(std::panic::catch_unwind(panics).is_err());
        let here = AtomicUsize::new(0);
        // Ends only when both are inside.
        pool.run(&|| {
            here.fetch_add(1, Ordering::AcqRel);
            while here.load(Ordering::Acquire) < 2 {
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn threads_are_shared_and_end_with_the_last_user() {
        let (a, b) = (Pool::of(3), Pool::of(3));
        assert!(Arc::ptr_eq(&a, &b));
        let shared = Arc::downgrade(&a.shared);
        drop((a, b));
        assert!(shared.upgrade().is_none());
    }
}
