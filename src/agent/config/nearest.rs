use super::ConfigError;
use super::file::{CameraTable, FileConfig};
use serde_json::Value;

/// Holds every written key against the keys that there are; the first unknown one is an error with its nearest neighbour.
pub(super) fn check(written: &Value, place: &str) -> Result<(), ConfigError> {
    let known = serde_json::to_value(FileConfig::default()).expect("the defaults are plain data");
    walk(written, &known, "", place)
}

fn walk(written: &Value, known: &Value, path: &str, place: &str) -> Result<(), ConfigError> {
    let (Value::Object(written), Value::Object(known)) = (written, known) else { return Ok(()) };
    for (key, value) in written {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if path == "camera" {
            let camera = serde_json::to_value(CameraTable::default()).expect("the defaults are plain data");
            walk(value, &camera, &full, place)?;
            continue;
        }
        let Some(next) = known.get(key) else {
            let near = known.keys().map(|k| (strsim::damerau_levenshtein(k, key), k)).min();
            let nearest = near.filter(|(distance, k)| *distance <= k.len().max(key.len()) / 2).map(|(_, k)| k.clone());
            return Err(ConfigError::UnknownKey { key: full, place: place.to_owned(), nearest });
        };
        walk(value, next, &full, place)?;
    }
    Ok(())
}
