use super::ConfigError;
use super::file::{CameraTable, FileConfig};
use ckaad_inspect::keys::{self, UnknownKey};
use serde_json::{Value, json};

/// Holds every written key against the keys that there are; the first unknown one is an error with its nearest neighbour.
pub(super) fn check(written: &Value, place: &str) -> Result<(), ConfigError> {
    let mut known = serde_json::to_value(FileConfig::default()).expect("the defaults are plain data");
    // A camera has any name.
    known["camera"] = json!({ "*": CameraTable::default() });
    match keys::unknown(written, &known) {
        Some(UnknownKey { key, nearest }) => Err(ConfigError::UnknownKey { key, place: place.to_owned(), nearest }),
        None => Ok(()),
    }
}
