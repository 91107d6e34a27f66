//! Every number that the agent has of itself, in one place: whoever publishes or shows one takes it from here.

use super::peak_rss_bytes;
use super::progress::CameraProgress;
use super::restarts::Restarts;
use crate::events::Health;
use crate::judge::{EnginePool, Taps};
use crate::mqtt::StoreHandle;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Instant;

/// The registry. Its numbers are counted where they arise; reading them waits for nobody.
pub(super) struct Metrics {
    pub started: Instant,
    pub cameras: Vec<Arc<CameraProgress>>,
    pub store: StoreHandle,
    pub engine: Arc<EnginePool>,
    pub taps: Arc<Taps>,
    pub restarts: Arc<Restarts>,
}

impl Metrics {
    /// All of them, as they are published.
    pub(super) fn health(&self) -> Health {
        let engine = self.engine.settings();
        Health {
            time: Timestamp::now(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.started.elapsed().as_secs(),
            peak_rss_bytes: peak_rss_bytes(),
            threads: engine.threads,
            judges: engine.judges,
            cameras: self.cameras.iter().map(|camera| camera.health()).collect(),
            outbox: self.store.health(),
            restarts: self.restarts.counts(),
            lost_by_taps: self.taps.lost(),
        }
    }
}
