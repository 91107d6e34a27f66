//! The place that cameras take the model in force from.

use super::model::Model;
use std::sync::{Arc, PoisonError, RwLock};

/// Where the model in force is. Whoever judges takes it anew for each frame.
pub struct ModelSlot(RwLock<Arc<Model>>);

impl ModelSlot {
    /// `model` is in force.
    pub fn new(model: Model) -> ModelSlot {
        ModelSlot(RwLock::new(Arc::new(model)))
    }

    /// The model in force.
    pub fn current(&self) -> Arc<Model> {
        // A pointer is never half written: a lock poisoned by a panic elsewhere is taken as it is.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another model in force, from the next frame on, and gives the one that was.
    pub fn swap(&self, model: Arc<Model>) -> Arc<Model> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), model)
    }
}
