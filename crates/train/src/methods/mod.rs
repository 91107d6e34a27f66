//! Anomaly detectors that can be trained.

pub mod ckaad;
pub mod nearest;
