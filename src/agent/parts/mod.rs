//! What the agent consists of while it runs: parts that are started, watched, started anew when they fail, and told to stop.
//!
//! A part that panics or gives an error is started again after a while, and the others go on; one that fails the third time within ten minutes ends the
//! process, which systemd starts anew. All parts are told to stop in one way, by their stage's token, in the order of [`Stage`].

mod camera;
mod delivery;
mod health;
mod updates;

pub use camera::CameraPart;
pub use delivery::{OutboxPart, SessionPart};
pub use health::HealthPart;
pub use updates::UpdatesPart;

use super::restarts::Restarts;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// Failures within [`WITHIN`] that end the process.
const FAILURES: usize = 3;
const WITHIN: Duration = Duration::from_secs(600);
/// How long a part that failed rests: after its first failure within [`WITHIN`], and after its second.
const REST: [Duration; FAILURES - 1] = [Duration::from_secs(1), Duration::from_secs(10)];

/// Why a part does not go on, in a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PartError(pub String);

/// A part of the agent that runs until it is told to stop, or its work is done.
pub trait Part: Send + 'static {
    /// What it is called in logs and in `health`.
    fn name(&self) -> String;

    /// Called once, and again after each failure: what it keeps in `self` must be good for another start.
    fn run<'a>(&'a mut self, stop: &'a CancellationToken) -> BoxFuture<'a, Result<(), PartError>>;

    /// It failed, and will be started again.
    fn rests(&mut self, _why: &str) {}
}

/// When a part is told to stop: the first first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Whatever changes what the others do: updates, commands.
    Control,
    /// The cameras.
    Cameras,
    /// Whatever tells how the others are.
    Health,
    /// The session with the broker.
    Session,
    /// The outbox.
    Outbox,
}

/// A part that will not be started any more.
#[derive(Debug)]
pub struct Ended {
    pub stage: Stage,
    pub name: String,
    /// An error: it failed once too often, and that is the last failure.
    pub result: Result<(), PartError>,
}

/// Those that run.
pub struct Parts {
    tasks: JoinSet<Ended>,
    /// Their names, by stage.
    running: Vec<(Stage, String)>,
    stops: BTreeMap<Stage, CancellationToken>,
    restarts: Arc<Restarts>,
}

impl Parts {
    pub fn new(restarts: Arc<Restarts>) -> Parts {
        Parts { tasks: JoinSet::new(), running: vec![], stops: BTreeMap::new(), restarts }
    }

    /// Starts a part and keeps it running.
    pub fn start(&mut self, stage: Stage, part: impl Part) {
        let stop = self.stops.entry(stage).or_default().clone();
        let restarts = self.restarts.clone();
        self.running.push((stage, part.name()));
        self.tasks.spawn(async move {
            let name = part.name();
            let result = supervise(part, &stop, &restarts).await;
            Ended { stage, name, result }
        });
    }

    /// Names of the parts of a stage that have not ended.
    pub fn running(&self, stage: Stage) -> Vec<&str> {
        self.running.iter().filter(|(of, _)| *of == stage).map(|(_, name)| name.as_str()).collect()
    }

    /// The next part that ends; none when all have.
    pub async fn next(&mut self) -> Option<Ended> {
        // What runs in a task catches its panics, and nobody aborts one.
        let ended = self.tasks.join_next().await?.ok()?;
        self.running.retain(|(stage, name)| (*stage, name) != (ended.stage, &ended.name));
        Some(ended)
    }

    /// Tells a stage to stop and waits for it until `patience` is over. Gives back those parts that ended meanwhile; [`Parts::running`] tells whether
    /// some hang.
    pub async fn stop(&mut self, stage: Stage, patience: Duration) -> Vec<Ended> {
        if let Some(stop) = self.stops.get(&stage) {
            stop.cancel();
        }
        let (until, mut ended) = (Instant::now() + patience, vec![]);
        while !self.running(stage).is_empty() {
            match timeout_at(until, self.next()).await {
                Ok(Some(part)) => ended.push(part),
                Ok(None) | Err(_) => break,
            }
        }
        ended
    }
}

/// Runs a part until it ends as it should, or fails once too often.
async fn supervise(mut part: impl Part, stop: &CancellationToken, restarts: &Restarts) -> Result<(), PartError> {
    let mut failures: VecDeque<Instant> = VecDeque::new();
    loop {
        let why = match AssertUnwindSafe(part.run(stop)).catch_unwind().await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(e)) => e.to_string(),
            Err(panic) => format!("it panicked: {}", message(&*panic)),
        };
        let name = part.name();
        failures.push_back(Instant::now());
        failures.retain(|failure| failure.elapsed() < WITHIN);
        let Some(rest) = REST.get(failures.len() - 1) else {
            tracing::error!("{name}: {why}; it was the third time within ten minutes, and the agent ends");
            return Err(PartError(why));
        };
        tracing::error!("{name}: {why}; it is started again in {} s", rest.as_secs());
        restarts.count(&name);
        part.rests(&why);
        tokio::select! {
            () = sleep(*rest) => {}
            // It has nothing to finish.
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it does not say why")
}

/// Does blocking work in a thread of its own; a panic in there is one here. When nobody waits any more, the thread goes on until it is done.
async fn in_thread<T: Send + 'static>(name: String, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PartError> {
    let (sender, done) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
    });
    thread.map_err(|e| PartError(format!("there can be no thread: {e}")))?;
    match done.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(PartError("its thread is gone".into())),
    }
}

/// As [`in_thread`], with something that outlives a failure: it is good for another start, and its lock is taken as it is.
async fn in_thread_with<K: Send + 'static, T: Send + 'static>(
    name: String,
    kept: &Arc<Mutex<K>>,
    work: impl FnOnce(&mut K) -> T + Send + 'static,
) -> Result<T, PartError> {
    let kept = kept.clone();
    in_thread(name, move || work(&mut kept.lock().unwrap_or_else(PoisonError::into_inner))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// Fails as often as it is told to, and then waits to be told to stop.
    struct Clumsy {
        failures: usize,
        runs: Arc<AtomicUsize>,
        rests: Arc<AtomicUsize>,
    }

    impl Part for Clumsy {
        fn name(&self) -> String {
            "clumsy".into()
        }

        fn run<'a>(&'a mut self, stop: &'a CancellationToken) -> BoxFuture<'a, Result<(), PartError>> {
            async move {
                if self.runs.fetch_add(1, SeqCst) < self.failures {
                    panic!("as the test wants");
                }
                stop.cancelled().await;
                Ok(())
            }
            .boxed()
        }

        fn rests(&mut self, why: &str) {
            assert_eq!(why, "it panicked: as the test wants");
            self.rests.fetch_add(1, SeqCst);
        }
    }

    fn clumsy(failures: usize) -> (Clumsy, Arc<AtomicUsize>, Arc<AtomicUsize>) {
        let (runs, rests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        (Clumsy { failures, runs: runs.clone(), rests: rests.clone() }, runs, rests)
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_fails_twice_is_started_again_twice() {
        let restarts = Arc::<Restarts>::default();
        let mut parts = Parts::new(restarts.clone());
        let (part, runs, rests) = clumsy(2);
        parts.start(Stage::Cameras, part);
        while runs.load(SeqCst) < 3 {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!((rests.load(SeqCst), restarts.counts()), (2, BTreeMap::from([("clumsy".into(), 2)])));
        let ended = parts.stop(Stage::Cameras, Duration::from_secs(5)).await;
        assert!(ended.len() == 1 && ended[0].result.is_ok(), "{ended:?}");
        assert!(parts.next().await.is_none());
    }

    #[tokio::test]
    async fn a_panic_in_a_thread_is_one_of_the_part() {
        assert_eq!(in_thread("adds".into(), || 1 + 1).await.unwrap(), 2);
        let work = in_thread("panics".into(), || panic!("number {}", 7));
        let panic = AssertUnwindSafe(work).catch_unwind().await.map(Result::<(), _>::ok).unwrap_err();
        assert_eq!(message(&*panic), "number 7");
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_failure_within_ten_minutes_is_the_last() {
        let mut parts = Parts::new(Arc::default());
        let (part, runs, _) = clumsy(usize::MAX);
        parts.start(Stage::Cameras, part);
        let ended = parts.next().await.unwrap();
        assert_eq!(ended.result.unwrap_err().to_string(), "it panicked: as the test wants");
        assert_eq!(runs.load(SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_rests_is_stopped_at_once_and_one_that_hangs_is_left() {
        struct Hangs;
        impl Part for Hangs {
            fn name(&self) -> String {
                "hangs".into()
            }

            fn run<'a>(&'a mut self, _: &'a CancellationToken) -> BoxFuture<'a, Result<(), PartError>> {
                std::future::pending().boxed()
            }
        }
        let mut parts = Parts::new(Arc::default());
        let (part, _, rests) = clumsy(1);
        parts.start(Stage::Control, part);
        parts.start(Stage::Cameras, Hangs);
        while rests.load(SeqCst) < 1 {
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(parts.stop(Stage::Control, Duration::from_millis(1)).await.len(), 1);
        assert!(parts.stop(Stage::Cameras, Duration::from_secs(60)).await.is_empty());
        assert_eq!(parts.running(Stage::Cameras), ["hangs"]);
    }
}
