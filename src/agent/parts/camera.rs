//! One camera's thread, as a part.

use super::{Part, PartError, in_thread};
use crate::agent::config::CameraSettings;
use crate::agent::pipeline::{CameraPipeline, Incidents, Publisher};
use crate::agent::progress::CameraProgress;
use crate::capture::Source;
use crate::events::{CameraPhase, to_json};
use crate::judge::{EnginePool, ModelSlot, Taps};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Started again, a camera opens its source anew; its incident, the numbers of its events and its counts go on.
pub struct CameraPart {
    pub settings: CameraSettings,
    /// Opened before anything was published; taken by the first start.
    pub source: Option<Box<dyn Source>>,
    pub slot: Arc<ModelSlot>,
    pub engine: Arc<EnginePool>,
    pub taps: Arc<Taps>,
    pub publisher: Publisher,
    pub incidents: Arc<Incidents>,
    pub progress: Arc<CameraProgress>,
}

impl Part for CameraPart {
    fn name(&self) -> String {
        format!("camera {}", self.settings.name)
    }

    fn run<'a>(&'a mut self, stop: &'a CancellationToken) -> BoxFuture<'a, Result<(), PartError>> {
        async move {
            let source = self.source.take();
            let (slot, engine, taps) = (self.slot.clone(), self.engine.clone(), self.taps.clone());
            let (publisher, incidents) = (self.publisher.clone(), self.incidents.clone());
            let (settings, progress, stop) = (self.settings.clone(), self.progress.clone(), stop.clone());
            let work = move || {
                let source = match source {
                    Some(source) => source,
                    None => settings.source.build().map_err(|e| PartError(e.to_string()))?,
                };
                let camera = settings.name.as_str().into();
                CameraPipeline { settings, camera, source, slot, engine, taps, publisher, incidents, stop, progress }
                    .run();
                Ok(())
            };
            in_thread(self.name(), work).await?
        }
        .boxed()
    }

    fn rests(&mut self, why: &str) {
        let reason = format!("its inspection failed and is started again: {why}");
        self.progress.set_phase(CameraPhase::Disabled, &reason);
        let said = self.slot.current().camera_state(CameraPhase::Disabled, reason, 0.0, Timestamp::now());
        self.publisher.session.retain(self.publisher.topics.camera_state(&self.settings.name), to_json(&said));
    }
}
