//! Anomaly detectors that can be trained, and what they give in the end: a [`Network`], whose maps are terms of one
//! anomaly map.

pub mod ckaad;
pub mod nearest;
mod network;

pub use network::Network;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What can be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The auto-encoder with its discriminators.
    Ckaad,
    /// A bank of normal patches, as a baseline.
    NearestNeighbour,
}
