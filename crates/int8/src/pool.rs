//! Threads that wait for work: spinning for a moment, then asleep.
//!
//! A [`Pool`] has a crew of threads for each of those who may work with it at one time. [`Pool::run`] lets every thread of a crew call one
//! function. A thread that comes late (the machine is busy) finds the work
//! done by the others and nothing waits for it: the function must be written so that any number of callers finish it.
//! The caller of `run` takes part, so a crew of one has no threads at all.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, TryLockError};
use std::thread::JoinHandle;

/// How often a thread looks for work before it sleeps: half a millisecond on an AMD EPYC, whose pause is long; less
/// elsewhere.
const SPINS: u32 = 20_000;

/// Threads of the process; cheap to clone, and shared by whatever was loaded with it. They end with the last clone.
#[derive(Clone)]
pub struct Pool(Arc<Crews>);

struct Crews {
    /// Of each crew, the caller of [`Pool::run`] counted.
    threads: usize,
    /// Of those, as many as may work: threads of a higher number stay outside.
    most: Arc<AtomicUsize>,
    crews: Vec<Crew>,
}

/// The threads that help one caller.
struct Crew {
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
    /// See [`Crews`].
    most: Arc<AtomicUsize>,
    wake: Condvar,
    sleepers: Mutex<usize>,
    stop: AtomicBool,
}

const OPEN: usize = 1 << 32;

impl Pool {
    /// So many threads for each of so many callers at one time, the callers counted. Whatever comes beyond them works alone.
    pub fn new(threads: usize, callers: usize) -> Pool {
        let threads = threads.max(1);
        let most = Arc::new(AtomicUsize::new(threads));
        let crew = |_| Crew::new(threads, most.clone());
        let crews = if threads > 1 { (0..callers.max(1)).map(crew).collect() } else { vec![] };
        Pool(Arc::new(Crews { threads, most, crews }))
    }

    /// Threads of a caller, itself counted.
    pub fn threads(&self) -> usize {
        self.0.threads
    }

    /// Lets no more than so many threads of a crew work, its caller counted: 1 at least, and all at most. What runs may end with the number before.
    pub fn limit(&self, threads: usize) {
        self.0.most.store(threads.clamp(1, self.0.threads), Ordering::Relaxed);
    }

    /// Threads of a crew that may work, its caller counted.
    pub fn limited_to(&self) -> usize {
        self.0.most.load(Ordering::Relaxed)
    }

    /// Calls `work` here and on every thread of a crew that is awake in time; returns when all of them have returned. While
    /// other callers have all crews, `work` runs here alone.
    pub fn run(&self, work: &Work<'_>) {
        match self.0.crews.iter().find_map(|crew| Some((crew, crew.take()?))) {
            Some((crew, _busy)) => crew.run(work),
            None => work(),
        }
    }
}

/// So many threads for one caller.
impl From<usize> for Pool {
    fn from(threads: usize) -> Pool {
        Pool::new(threads, 1)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads for each of {} callers)", self.0.threads, self.0.crews.len().max(1))
    }
}

impl Crew {
    fn new(threads: usize, most: Arc<AtomicUsize>) -> Crew {
        let shared = Arc::new(Shared {
            epoch: AtomicU32::new(0),
            inside: AtomicUsize::new(0),
            work: Mutex::new(None),
            most,
            wake: Condvar::new(),
            sleepers: Mutex::new(0),
            stop: AtomicBool::new(false),
        });
        let spawn = |i: usize| {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("int8-{i}")).spawn(move || shared.work(i))
        };
        // A thread that the system does not give is one less; the work is done without it.
        let threads = (1..threads).filter_map(|i| spawn(i).ok()).collect();
        Crew { shared, threads, busy: Mutex::new(()) }
    }

    /// None while another caller has it.
    fn take(&self) -> Option<MutexGuard<'_, ()>> {
        match self.busy.try_lock() {
            Ok(busy) => Some(busy),
            // Work that panicked left everything in order: `Close` saw to it.
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Of whoever has taken it.
    fn run(&self, work: &Work<'_>) {
        if self.shared.most.load(Ordering::Relaxed) == 1 {
            return work();
        }
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

impl Drop for Crew {
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
    /// `number`: of the thread in its crew, whose caller is 0.
    fn work(&self, number: usize) {
        let mut seen = 0;
        while !self.stop.load(Ordering::Acquire) {
            let counts = number < self.most.load(Ordering::Relaxed);
            seen = self.wait_for_another(seen, if counts { SPINS } else { 0 });
            if number >= self.most.load(Ordering::Relaxed) || !self.enter() {
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

    fn wait_for_another(&self, seen: u32, spins: u32) -> u32 {
        for _ in 0..spins {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_of_work_is_finished_before_run_returns() {
        let pool = Pool::new(4, 1);
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
        let pool = Pool::new(2, 1);
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
        let pool = Pool::new(2, 1);
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
    fn callers_up_to_its_number_have_a_crew_each_and_one_more_works_alone() {
        let pool = Pool::new(2, 2);
        // Each level waits for its helper, so that it has a crew for certain.
        let both = |inner: &(dyn Fn() + Sync)| {
            let here = AtomicUsize::new(0);
            pool.run(&|| {
                if here.fetch_add(1, Ordering::AcqRel) == 0 {
                    while here.load(Ordering::Acquire) < 2 {
                        std::thread::yield_now();
                    }
                    inner();
                }
            });
            here.load(Ordering::Acquire)
        };
        let (third, nested) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let outer = both(&|| {
            let inner = both(&|| {
                pool.run(&|| {
                    third.fetch_add(1, Ordering::AcqRel);
                });
            });
            nested.store(inner, Ordering::Release);
        });
        assert_eq!((outer, nested.into_inner(), third.into_inner()), (2, 2, 1));
    }

    #[test]
    fn no_more_threads_work_than_the_limit() {
        let pool = Pool::new(3, 1);
        // How many threads came; each waits until there are `wanted`, for whoever comes when the caller has left stays outside.
        let came = |wanted: usize| {
            let here = Mutex::new(std::collections::HashSet::new());
            pool.run(&|| {
                lock(&here).insert(std::thread::current().id());
                while lock(&here).len() < wanted {
                    std::thread::yield_now();
                }
                // Long enough that a thread too many would come, too.
                std::thread::sleep(std::time::Duration::from_millis(1));
            });
            lock(&here).len()
        };
        assert_eq!(came(3), 3);
        for _ in 0..200 {
            pool.limit(2);
            assert_eq!(came(2), 2);
            pool.limit(1);
            assert_eq!(came(1), 1);
        }
        pool.limit(3);
        assert_eq!(came(3), 3);
    }

    #[test]
    fn threads_end_with_the_last_clone() {
        let pool = Pool::from(3);
        let (clone, shared) = (pool.clone(), Arc::downgrade(&pool.0.crews[0].shared));
        drop(pool);
        assert!(shared.upgrade().is_some());
        drop(clone);
        assert!(shared.upgrade().is_none());
    }
}
