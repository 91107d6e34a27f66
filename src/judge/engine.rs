//! The agent's threads for its networks, and whose turn it is.
//!
//! A device has so many cores, however many cameras and models there are. So the threads are the agent's: `judges` frames are judged at one time, each by
//! `threads / judges` threads. Turns are given in the order in which they are asked for. A camera asks for one turn a frame, so that none gets a second
//! one before every other that waits had its first.

use ckaad_inspect::engine::Pool;
use futures::executor::block_on;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// `[engine]`, with its numbers found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// Of all networks together.
    pub threads: usize,
    /// Frames judged at one time; at least 1, at most `threads`.
    pub judges: usize,
}

impl EngineSettings {
    /// What is not given (0) is found: a thread for each core that this process may use, and a judge for each camera, as far as threads go.
    ///
    /// One judge with all threads would have a single camera's verdict sooner where the network is large; as soon as several cameras wait, frames side by
    /// side get more done than threads that wait for each other within one (`docs/performance.md` has the numbers).
    pub fn of(threads: usize, judges: usize, cameras: usize) -> EngineSettings {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads };
        let judges = if judges == 0 { cameras } else { judges };
        EngineSettings { threads, judges: judges.clamp(1, threads) }
    }

    /// Of one judge.
    pub fn each(&self) -> usize {
        self.threads / self.judges
    }
}

/// See the module.
pub struct EnginePool {
    settings: EngineSettings,
    pool: Pool,
    turns: Semaphore,
}

impl EnginePool {
    /// Starts the threads.
    pub fn new(settings: EngineSettings) -> Arc<EnginePool> {
        let pool = Pool::new(settings.each(), settings.judges);
        Arc::new(EnginePool { settings, pool, turns: Semaphore::new(settings.judges) })
    }

    /// Its numbers.
    pub fn settings(&self) -> EngineSettings {
        self.settings
    }

    /// What models are loaded with.
    pub fn pool(&self) -> Pool {
        self.pool.clone()
    }

    /// Waits until fewer than `judges` frames are judged and everybody who asked before has had a turn. The turn ends when it is dropped.
    pub fn turn(&self) -> Turn<'_> {
        let asked = Instant::now();
        // It is never closed.
        let permit = self.turns.try_acquire().or_else(|_| block_on(self.turns.acquire())).ok();
        Turn { _permit: permit, waited: asked.elapsed() }
    }
}

/// The right to judge one frame.
pub struct Turn<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    /// For it to come.
    pub waited: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn what_is_not_given_is_found() {
        let of = |threads, judges, cameras| {
            let EngineSettings { threads, judges } = EngineSettings::of(threads, judges, cameras);
            (threads, judges)
        };
        assert_eq!(of(4, 0, 1), (4, 1));
        assert_eq!(of(4, 0, 3), (4, 3));
        assert_eq!(of(2, 0, 8), (2, 2));
        assert_eq!(of(2, 1, 8), (2, 1));
        assert_eq!(EngineSettings { threads: 6, judges: 4 }.each(), 1);
        assert!(of(0, 0, 1).0 >= 1);
    }

    #[test]
    fn no_more_frames_are_judged_at_one_time_than_there_are_judges() {
        let pool = EnginePool::new(EngineSettings { threads: 2, judges: 2 });
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _turn = pool.turn();
                        most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!((most.into_inner(), inside.into_inner()), (2, 0));
    }

    #[test]
    fn a_camera_that_never_rests_takes_no_other_cameras_turn() {
        let pool = EnginePool::new(EngineSettings { threads: 1, judges: 1 });
        let turns = Mutex::new(vec![]);
        let waiting = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let first = pool.turn();
            for camera in 0..4 {
                let (turns, waiting, pool) = (&turns, &waiting, &pool);
                scope.spawn(move || {
                    for _ in 0..25 {
                        waiting.fetch_add(1, SeqCst);
                        let _turn = pool.turn();
                        turns.lock().unwrap().push(camera);
                        // As long as the others have not come back to the queue, nothing can be said about fairness.
                        let begun = Instant::now();
                        while waiting.load(SeqCst) < turns.lock().unwrap().len() + 3 && begun.elapsed().as_millis() < 20
                        {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            while waiting.load(SeqCst) < 4 {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(20));
            drop(first);
        });
        let turns = turns.into_inner().unwrap();
        // Everybody once before anybody twice, as long as all want one.
        for (n, round) in turns.chunks(4).take(20).enumerate() {
            let mut cameras = round.to_vec();
            cameras.sort_unstable();
            assert_eq!(cameras, [0, 1, 2, 3], "round {n} of {turns:?}");
        }
    }
}
