//! The outbox and the session with the broker, as parts.

use super::{Part, PartError, in_thread_with};
use crate::mqtt::{Session, SessionHandle, Store};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The outbox's thread. It ends when the outbox is closed.
pub struct OutboxPart(Arc<Mutex<Store>>);

impl OutboxPart {
    pub fn new(store: Store) -> OutboxPart {
        OutboxPart(Arc::new(Mutex::new(store)))
    }
}

impl Part for OutboxPart {
    fn name(&self) -> String {
        "outbox".into()
    }

    fn run<'a>(&'a mut self, _: &'a CancellationToken) -> BoxFuture<'a, Result<(), PartError>> {
        in_thread_with(self.name(), &self.0, Store::work).boxed()
    }
}

/// The session's task. Told to stop, it delivers what it can until `ends_at`.
pub struct SessionPart {
    pub session: Session,
    pub handle: SessionHandle,
    /// Set before it is told to stop.
    pub ends_at: Arc<OnceLock<Instant>>,
}

impl Part for SessionPart {
    fn name(&self) -> String {
        "session".into()
    }

    fn run<'a>(&'a mut self, stop: &'a CancellationToken) -> BoxFuture<'a, Result<(), PartError>> {
        async move {
            let (handle, ends_at) = (&self.handle, &self.ends_at);
            let told = async {
                stop.cancelled().await;
                let left = ends_at.get().map(|at| at.saturating_duration_since(Instant::now()));
                handle.stop(left.unwrap_or_default());
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = self.session.run() => Ok(()),
                () = told => Ok(()),
            }
        }
        .boxed()
    }
}
