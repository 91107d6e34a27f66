//! The agent's threads for its networks, and whose turn it is.
//!
//! A device has so many cores, however many cameras and models there are. So the threads are the agent's: `judges` frames are judged at one time, each by
//! `threads / judges` threads. Turns are given in the order in which they are asked for. A camera asks for one turn a frame, so that none gets a second
//! one before every other that waits had its first.

use super::AcceleratorSettings;
use super::picture::grey_picture;
use ckaad_inspect::engine::Pool;
use ckaad_inspect::{InspectError, Inspector, quantile};
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
    /// Nobody has given the threads: how many of a judge's are used is measured, see [`EnginePool::settle`].
    pub measured: bool,
}

/// How long the threads are measured, about; slow models take as long as the least number of pictures does.
const SETTLING: Duration = Duration::from_millis(300);
/// Pictures for each number of threads: at least, and at most.
const PICTURES: (usize, usize) = (3, 9);
/// Fewer threads are taken for a time below this share of that of more.
const WORTH: f64 = 0.95;

impl EngineSettings {
    /// What is not given (0) is found: a thread for each core that this process may use, and a judge for each camera, as far as threads go.
    ///
    /// One judge with all threads would have a single camera's verdict sooner where the network is large; as soon as several cameras wait, frames side by
    /// side get more done than threads that wait for each other within one (`docs/performance.md` has the numbers).
    pub fn of(threads: usize, judges: usize, cameras: usize) -> EngineSettings {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let measured = threads == 0;
        let threads = if measured { cores() } else { threads };
        let judges = if judges == 0 { cameras } else { judges };
        EngineSettings { threads, judges: judges.clamp(1, threads), measured }
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
    accelerator: Option<AcceleratorSettings>,
}

impl EnginePool {
    /// Starts the threads.
    pub fn new(settings: EngineSettings) -> Arc<EnginePool> {
        EnginePool::accelerated(settings, None)
    }

    /// The same; models are offered to `accelerator` first.
    pub fn accelerated(settings: EngineSettings, accelerator: Option<AcceleratorSettings>) -> Arc<EnginePool> {
        let pool = Pool::new(settings.each(), settings.judges);
        Arc::new(EnginePool { settings, pool, turns: Semaphore::new(settings.judges), accelerator })
    }

    /// What models are offered to first.
    pub fn accelerator(&self) -> Option<&AcceleratorSettings> {
        self.accelerator.as_ref()
    }

    /// Its numbers; the threads are those that are used.
    pub fn settings(&self) -> EngineSettings {
        let EngineSettings { judges, measured, threads } = self.settings;
        let (used, each) = (self.pool.limited_to(), self.settings.each());
        EngineSettings { threads: if used < each { used * judges } else { threads }, judges, measured }
    }

    /// Where nobody has given the threads, finds out with how many a judge is quickest: two cores that share no cache can be slower together than one
    /// alone, and then one is used. A sentence of what was measured; none where there is nothing to choose.
    ///
    /// # Errors
    /// A model cannot judge a grey picture. All threads are used then.
    pub fn settle(&self, models: &[&Inspector]) -> Result<Option<String>, InspectError> {
        let each = self.settings.each();
        // Others do not use these threads.
        let models: Vec<&Inspector> = models.iter().copied().filter(|model| model.provider().is_none()).collect();
        if !self.settings.measured || each == 1 || models.is_empty() {
            return Ok(None);
        }
        let tried = self.try_threads(&models).inspect_err(|_| self.pool.limit(each))?;
        let best = quickest(&tried);
        self.pool.limit(best);
        let times: Vec<String> = tried.iter().map(|(threads, ms)| format!("{ms:.1} ms with {threads}")).collect();
        let by = if models.len() > 1 { format!(" by all {} models", models.len()) } else { String::new() };
        Ok(Some(format!("a picture takes{by} {} thread(s): {best} of {each} for each judge", times.join(", "))))
    }

    /// Numbers of threads, ascending, and milliseconds for a picture by all models with each.
    fn try_threads(&self, models: &[&Inspector]) -> Result<Vec<(usize, f64)>, InspectError> {
        // All, half of them, and so on, down to one.
        let mut tried: Vec<(usize, f64)> =
            std::iter::successors(Some(self.settings.each()), |&n| (n > 1).then_some(n / 2))
                .map(|threads| (threads, 0.0))
                .collect();
        tried.reverse();
        for inspector in models {
            let picture = grey_picture(inspector.manifest().input);
            let judge = |threads: usize| {
                self.pool.limit(threads);
                let begun = Instant::now();
                inspector.rehearse(&picture).map(|verdicts| begun.elapsed() / verdicts.len().max(1) as u32)
            };
            // The first one warms caches up.
            let slowest = judge(1)?.max(judge(1)?).max(Duration::from_micros(1));
            let room = SETTLING.as_secs_f64() / (slowest.as_secs_f64() * (tried.len() * models.len()) as f64);
            let mut times = vec![vec![]; tried.len()];
            // In turns, so that other work on the machine meets all.
            for _ in 0..(room as usize).clamp(PICTURES.0, PICTURES.1) {
                for (times, (threads, _)) in times.iter_mut().zip(&tried) {
                    times.push(judge(*threads)?.as_secs_f64() * 1e3);
                }
            }
            for (mut times, (_, sum)) in times.into_iter().zip(&mut tried) {
                times.sort_by(f64::total_cmp);
                *sum += quantile(&times, 0.5).unwrap_or(0.0);
            }
        }
        Ok(tried)
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

/// Of numbers of threads, ascending, and the time with each.
fn quickest(tried: &[(usize, f64)]) -> usize {
    let better = |best: (usize, f64), &next: &(usize, f64)| if next.1 < WORTH * best.1 { next } else { best };
    tried.iter().rev().fold((1, f64::INFINITY), better).0
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
            let EngineSettings { threads, judges, .. } = EngineSettings::of(threads, judges, cameras);
            (threads, judges)
        };
        assert_eq!(of(4, 0, 1), (4, 1));
        assert_eq!(of(4, 0, 3), (4, 3));
        assert_eq!(of(2, 0, 8), (2, 2));
        assert_eq!(of(2, 1, 8), (2, 1));
        assert_eq!(EngineSettings::of(6, 4, 1).each(), 1);
        assert!(of(0, 0, 1).0 >= 1);
        assert!(EngineSettings::of(0, 0, 1).measured && !EngineSettings::of(2, 0, 1).measured);
    }

    #[test]
    fn fewer_threads_are_used_where_they_are_clearly_quicker() {
        assert_eq!(quickest(&[(1, 10.0), (2, 6.0), (4, 3.5)]), 4);
        assert_eq!(quickest(&[(1, 0.95), (2, 1.27)]), 1);
        assert_eq!(quickest(&[(1, 10.0), (3, 6.0), (6, 6.1)]), 6);
        assert_eq!(quickest(&[(1, 10.0), (3, 6.0), (6, 7.0)]), 3);
        assert_eq!(quickest(&[(1, 7.5), (2, 10.0), (4, 8.0)]), 1);
    }

    #[test]
    fn threads_are_measured_where_nobody_gave_them() {
        let bundle = ckaad_bundle::Bundle::read(&ckaad_testing::demo_bundle()).unwrap();
        for measured in [true, false] {
            let pool = EnginePool::new(EngineSettings { threads: 2, judges: 1, measured });
            let options = ckaad_inspect::InspectOptions { pool: pool.pool(), threshold: None, runtime: None };
            let inspector = Inspector::new(&bundle, &options).unwrap();
            let said = pool.settle(&[&inspector]).unwrap();
            assert_eq!(said.is_some(), measured, "{said:?}");
            let used = pool.settings().threads;
            assert!(if measured { (1..=2).contains(&used) } else { used == 2 }, "{used}");
            assert!(said.is_none_or(|said| said.ends_with(&format!("thread(s): {used} of 2 for each judge"))));
        }
    }

    #[test]
    fn no_more_frames_are_judged_at_one_time_than_there_are_judges() {
        let pool = EnginePool::new(EngineSettings::of(2, 2, 2));
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
        let pool = EnginePool::new(EngineSettings::of(1, 1, 1));
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
