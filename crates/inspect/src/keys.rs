//! The keys of the two programs' configuration files. A key that nobody reads is an error that names the nearest one: a
//! typo must not silently mean the default.

use serde_json::Value;

/// A key that there is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// With the tables that it stands in: `train.epoch`.
    pub key: String,
    /// The key of the same table that is most like it, if one is like it at all.
    pub nearest: Option<String>,
}

/// The first key of `written` that `known` does not have, through all tables. In `known` a key `*` stands for any name.
pub fn unknown(written: &Value, known: &Value) -> Option<UnknownKey> {
    walk(written, known, "")
}

fn walk(written: &Value, known: &Value, path: &str) -> Option<UnknownKey> {
    let (Value::Object(written), Value::Object(known)) = (written, known) else { return None };
    written.iter().find_map(|(key, value)| {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match known.get(key).or_else(|| known.get("*")) {
            Some(next) => walk(value, next, &full),
            None => Some(UnknownKey { key: full, nearest: nearest(key, known.keys()) }),
        }
    })
}

/// The key that takes the fewest changes, if it takes no more than half of the longer one's letters.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    let near = known.map(|k| (strsim::damerau_levenshtein(k, key), k)).min();
    near.filter(|(distance, k)| *distance <= k.len().max(key.len()) / 2).map(|(_, k)| k.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_nearest_key_is_of_the_same_table_and_near() {
        let known = json!({"name": "", "train": {"epochs": 1, "batch": 1}, "camera": {"*": {"threshold": 1}}});
        let told = |written: Value| unknown(&written, &known).map(|u| (u.key, u.nearest));
        let is = |key: &str, nearest: Option<&str>| Some((key.to_owned(), nearest.map(str::to_owned)));
        assert_eq!(told(json!({"train": {"epoch": 3}})), is("train.epoch", Some("epochs")));
        assert_eq!(told(json!({"train": {"name": 3}})), is("train.name", None));
        assert_eq!(told(json!({"nmae": 3})), is("nmae", Some("name")));
        assert_eq!(told(json!({"camera": {"left": {"treshold": 3}}})), is("camera.left.treshold", Some("threshold")));
        assert_eq!(told(json!({"camera": {"left": {"threshold": 3}}, "train": {}})), None);
    }
}
