//! The updates' thread, as a part.

use super::{Part, PartError, in_thread_with};
use crate::ota::Updater;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// Slow disks, large downloads and models that load for seconds have a thread of their own.
pub struct UpdatesPart(Arc<Mutex<Updater>>);

impl UpdatesPart {
    pub fn new(updater: Updater) -> UpdatesPart {
        UpdatesPart(Arc::new(Mutex::new(updater)))
    }
}

impl Part for UpdatesPart {
    fn name(&self) -> String {
        "updates".into()
    }

    fn run<'a>(&'a mut self, stop: &'a CancellationToken) -> BoxFuture<'a, Result<(), PartError>> {
        let stop = stop.clone();
        async move {
            let worked = in_thread_with(self.name(), &self.0, move |updater| updater.work(stop)).await?;
            worked.map_err(|e| PartError(e.to_string()))
        }
        .boxed()
    }
}
