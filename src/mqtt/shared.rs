use super::outbox::{Message, Outbox, OutboxError, Stored};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The outbox as inspection threads and the session share it.
#[derive(Clone)]
pub struct SharedOutbox {
    inner: Arc<Mutex<Outbox>>,
    /// Wakes the session.
    arrived: Arc<Notify>,
}

impl SharedOutbox {
    pub fn new(outbox: Outbox) -> SharedOutbox {
        SharedOutbox { inner: Arc::new(Mutex::new(outbox)), arrived: Arc::new(Notify::new()) }
    }

    /// As [`Outbox::put`]; wakes the session.
    pub fn put(&self, message: Message) -> Result<Stored, OutboxError> {
        let stored = self.lock().put(message);
        self.arrived.notify_one();
        stored
    }

    /// SQLite keeps its own consistency, so a lock poisoned by a panic elsewhere is taken as it is.
    pub fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when something was put.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
