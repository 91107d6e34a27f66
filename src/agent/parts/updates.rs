//! The updates' thread, as a part.

use super::{Part, PartError, in_thread};
use crate::ota::Updater;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex, PoisonError};
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
        let (updater, stop) = (self.0.clone(), stop.clone());
        async move {
            // It is good for another start after a panic, and takes the lock as it is.
            let work = move || updater.lock().unwrap_or_else(PoisonError::into_inner).work(stop);
            in_thread("updates".into(), work).await?.map_err(|e| PartError(e.to_string()))
        }
        .boxed()
    }
}
