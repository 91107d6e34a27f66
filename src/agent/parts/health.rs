//! What the agent says of itself: systemd's status and watchdog, and `health`.

use super::{Part, PartError};
use crate::agent::metrics::Metrics;
use crate::agent::notify::{self, Watchdog};
use crate::events::{Topics, to_json};
use crate::mqtt::SessionHandle;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Nothing in here waits for a disk or a network.
pub struct HealthPart {
    pub metrics: Arc<Metrics>,
    pub topics: Topics,
    pub session: SessionHandle,
    /// Of `health`; none: it is not said.
    pub every: Option<Duration>,
    /// A camera's phase has changed.
    pub phase_changed: Arc<Notify>,
    pub told_ready: bool,
}

impl Part for HealthPart {
    fn name(&self) -> String {
        "health".into()
    }

    fn run<'a>(&'a mut self, stop: &'a CancellationToken) -> BoxFuture<'a, Result<(), PartError>> {
        async move {
            let mut watchdog = Watchdog::new();
            let mut feed = ticker(watchdog.period);
            let mut health = ticker(self.every);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = self.phase_changed.notified() => self.say_status(),
                    _ = feed.tick() => watchdog.feed(&self.metrics.cameras),
                    _ = health.tick() => self.say_health(),
                }
            }
        }
        .boxed()
    }
}

impl HealthPart {
    /// Systemd's status line; ready once every camera has judged a frame, or has said why not.
    fn say_status(&mut self) {
        let cameras = &self.metrics.cameras;
        let status: Vec<String> = cameras.iter().map(|camera| camera.status()).collect();
        let ready = !self.told_ready && cameras.iter().all(|camera| camera.has_started());
        notify::status(&status.join("; "), ready);
        self.told_ready |= ready;
    }

    fn say_health(&self) {
        fail::fail_point!("health");
        self.session.best_effort(self.topics.health(), to_json(&self.metrics.health()));
    }
}

/// Ticks every `period`; never, if there is none.
fn ticker(period: Option<Duration>) -> Interval {
    const NEVER: Duration = Duration::from_secs(86_400 * 365);
    let mut ticker = interval(period.unwrap_or(NEVER));
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}
