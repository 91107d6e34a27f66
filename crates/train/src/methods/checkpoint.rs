//! What a method keeps in its folder of a checkpoint: what it learned in a pass as one JSON file.

use super::MethodError;
use ckaad_bundle::replace;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::Path;

/// Writes `learned` into `file`, whole or not at all.
pub(super) fn write(file: &Path, learned: &impl Serialize) -> Result<(), MethodError> {
    let text = serde_json::to_vec(learned).map_err(|e| MethodError::checkpoint(file, e))?;
    replace(file, |out| out.write_all(&text)).map_err(|e| MethodError::checkpoint(file, e))
}

/// Reads what [`write`] wrote.
pub(super) fn read<T: DeserializeOwned>(file: &Path) -> Result<T, MethodError> {
    let text = std::fs::read(file).map_err(|e| MethodError::checkpoint(file, e))?;
    serde_json::from_slice(&text).map_err(|e| MethodError::checkpoint(file, e))
}
