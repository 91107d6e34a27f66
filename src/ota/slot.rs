//! The place that cameras take the model in force from.

use super::model::Model;
use super::trial::Trial;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Where the model in force is. Whoever judges takes it anew for each frame.
pub struct ModelSlot {
    current: RwLock<Arc<Model>>,
    trial: Mutex<Option<Arc<Trial>>>,
}

impl ModelSlot {
    /// `model` is in force.
    pub fn new(model: Model) -> ModelSlot {
        ModelSlot { current: RwLock::new(Arc::new(model)), trial: Mutex::new(None) }
    }

    /// The model in force.
    pub fn current(&self) -> Arc<Model> {
        // A pointer is never half written: a lock poisoned by a panic elsewhere is taken as it is.
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another model in force, from the next frame on, and gives the one that was.
    pub fn swap(&self, model: Arc<Model>) -> Arc<Model> {
        std::mem::replace(&mut *self.current.write().unwrap_or_else(PoisonError::into_inner), model)
    }

    /// What is tried beside the model in force.
    pub fn trial(&self) -> Option<Arc<Trial>> {
        self.trial.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins or ends a trial.
    pub fn set_trial(&self, trial: Option<Arc<Trial>>) {
        *self.trial.lock().unwrap_or_else(PoisonError::into_inner) = trial;
    }
}
