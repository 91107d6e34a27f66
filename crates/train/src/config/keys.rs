//! A key that nobody reads is an error that names the nearest one: a typo must not silently mean the default.

use super::TrainConfig;
use crate::score::ScoreConfig;
use serde_json::Value;
use std::path::PathBuf;

/// The first of the `written` keys that there is not, by its whole path, and the key of its table that is most like it.
pub fn unknown(written: &Value) -> Option<(String, Option<String>)> {
    walk(written, &every_key(), "")
}

fn walk(written: &Value, known: &Value, path: &str) -> Option<(String, Option<String>)> {
    let (Value::Object(written), Value::Object(known)) = (written, known) else { return None };
    written.iter().find_map(|(key, value)| {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match known.get(key) {
            Some(next) => walk(value, next, &full),
            None => Some((full, nearest(key, known.keys()))),
        }
    })
}

/// The key that takes the fewest changes, if it takes no more than half of the longer one's letters.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    let near = known.map(|k| (strsim::damerau_levenshtein(k, key), k)).min();
    near.filter(|(distance, k)| *distance <= k.len().max(key.len()) / 2).map(|(_, k)| k.clone())
}

/// A config in which no key is left out.
fn every_key() -> Value {
    let score = ScoreConfig { error: Some(1.0), energy: Some(1.0), distance: Some(1.0), ..ScoreConfig::default() };
    let config = TrainConfig { weights: Some(PathBuf::new()), score, ..TrainConfig::default() };
    serde_json::to_value(config).expect("a config is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a schema's table, with those of the tables in it.
    fn of_schema(schema: &Value, root: &Value) -> Vec<String> {
        let target = match schema["$ref"].as_str() {
            Some(path) => root.pointer(path.trim_start_matches('#')).unwrap(),
            None => schema,
        };
        let Some(properties) = target["properties"].as_object() else { return vec![] };
        let below = |(key, value): (&String, &Value)| -> Vec<String> {
            let inner = of_schema(value, root).into_iter().map(|k| format!("{key}.{k}"));
            [key.clone()].into_iter().chain(inner).collect()
        };
        properties.iter().flat_map(below).collect()
    }

    #[test]
    fn every_key_of_the_types_is_known() {
        let schema = schemars::schema_for!(TrainConfig).to_value();
        let keys = of_schema(&schema, &schema);
        assert!(keys.len() > 60, "{keys:?}");
        for key in keys {
            let nested = key.rsplit('.').fold(Value::Bool(true), |v, k| serde_json::json!({ k: v }));
            assert_eq!(unknown(&nested), None, "{key}");
        }
    }

    #[test]
    fn the_nearest_key_is_of_the_same_table_and_near() {
        let of = |text: &str| unknown(&serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap());
        assert_eq!(of("[train]\nepoch = 3"), Some(("train.epoch".into(), Some("epochs".into()))));
        assert_eq!(of("[train]\nname = 3"), Some(("train.name".into(), None)));
        assert_eq!(of("nmae = 3"), Some(("nmae".into(), Some("name".into()))));
        assert_eq!(of("[score]\nenergy = 3"), None);
    }
}
