//! The keys of a training config.

use super::{BudgetConfig, MethodKind, TrainConfig};
use crate::score::ScoreConfig;
use ckaad_inspect::keys::{self, UnknownKey};
use serde_json::Value;
use std::path::PathBuf;

/// The first of the `written` keys that there is not.
pub fn unknown(written: &Value) -> Option<UnknownKey> {
    keys::unknown(written, &every_key())
}

/// A config in which no key is left out.
fn every_key() -> Value {
    let terms = MethodKind::ALL.iter().flat_map(|kind| kind.map_terms());
    let weights = terms.map(|term| ((*term).to_owned(), 1.0)).collect();
    let score = ScoreConfig { weights, ..ScoreConfig::default() };
    let budget = Some(BudgetConfig { ms: 1.0, factor: 1.0 });
    let config = TrainConfig { weights: Some(PathBuf::new()), budget, score, ..TrainConfig::default() };
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
}
