//! How often parts failed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How often each part was started anew, for whoever asks.
#[derive(Debug, Default)]
pub struct Restarts(Mutex<BTreeMap<String, u64>>);

impl Restarts {
    pub fn count(&self, part: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(part.to_owned()).or_default() += 1;
    }

    /// By the part's name; those that never failed are not there.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
