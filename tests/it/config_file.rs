//! configs/ holds what the program does.

use ckaad_edge::agent::{CameraTable, FileConfig, Settings};
use ckaad_edge::mqtt::Protocol;
use std::path::Path;

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name)
}

fn parse(name: &str) -> (String, FileConfig) {
    let text = std::fs::read_to_string(file(name)).unwrap();
    let raw = FileConfig::parse(&text, &file(name), Vec::new()).unwrap();
    (text, raw)
}

#[test]
fn agent_toml_holds_exactly_the_defaults() {
    let defaults = FileConfig { camera: [("cam0".to_owned(), CameraTable::default())].into(), ..FileConfig::default() };
    assert_eq!(parse("agent.toml").1, defaults);
}

#[test]
fn agent_toml_mentions_every_key() {
    fn keys(value: &serde_json::Value, path: &str, written: &toml::Value) {
        let Some(table) = value.as_object() else { return };
        for (key, value) in table {
            let there = written.get(key).unwrap_or_else(|| panic!("{path}.{key} is missing"));
            keys(value, &format!("{path}.{key}"), there);
        }
    }
    let (text, raw) = parse("agent.toml");
    keys(&serde_json::to_value(raw).unwrap(), "", &toml::from_str(&text).unwrap());
}

#[test]
fn the_other_files_resolve() {
    for name in ["agent.toml", "demo.toml"] {
        Settings::resolve(&parse(name).1, &file(name)).unwrap();
    }
}

#[test]
fn a_variable_overrides_the_file() {
    let variables = [
        ("CKAAD__MQTT__PORT", "77"),
        ("CKAAD__MQTT__PROTOCOL", "5"),
        ("CKAAD__MQTT__TLS__ENABLED", "true"),
        ("CKAAD__DEVICE__NAME", "123"),
        ("CKAAD__DEVICE__LINE", "03"),
        ("CKAAD__CAMERA__LEFT__THRESHOLD", "0.5"),
    ];
    let variables = variables.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let raw = FileConfig::parse("[mqtt]\nport = 5\nprotocol = \"3.1.1\"", Path::new("x"), variables).unwrap();
    assert_eq!((raw.mqtt.port, raw.mqtt.protocol, raw.mqtt.tls.enabled), (77, Protocol::V5, true));
    assert_eq!((raw.device.name.as_str(), raw.device.line.as_str()), ("123", "03"));
    assert_eq!(raw.camera["left"].threshold, 0.5);
}

/// What `schema` prints is JSON whose references all lead somewhere.
#[test]
fn schemas_are_whole() {
    fn references(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(table) => table.iter().for_each(|(key, value)| match value.as_str() {
                Some(text) if key == "$ref" => found.push(text.to_owned()),
                _ => references(value, found),
            }),
            serde_json::Value::Array(values) => values.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    for what in ["events", "config", "asyncapi"] {
        let output = crate::util::agent(&["schema", what]).output().unwrap();
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        // Each of the payloads is a document of its own.
        let documents: Vec<_> = match what {
            "events" => printed.as_object().unwrap().values().cloned().collect(),
            _ => vec![printed],
        };
        for document in documents {
            let mut found = Vec::new();
            references(&document, &mut found);
            for reference in found {
                assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{what}: {reference}");
            }
        }
    }
}

#[test]
fn the_asyncapi_document_has_every_topic() {
    let document = ckaad_edge::events::asyncapi();
    let channels = document["channels"].as_object().unwrap();
    let addresses: Vec<&str> = channels.values().map(|c| c["address"].as_str().unwrap()).collect();
    // The table in `src/events/mod.rs`, which people read, without the spelling of its places.
    let room = std::fs::read_to_string(crate::util::in_repository("src/events/mod.rs")).unwrap();
    let rows: Vec<&str> = room.lines().filter_map(|l| l.strip_prefix("//! | `")?.split('`').next()).collect();
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        let levels = row.replace("camera/<name>", "camera/{camera}").replace("model/<name>", "model/{model}");
        let levels = levels.replace("<station>", "{station}");
        let operations = if row.contains("<operation>") { vec!["update-model", "rollback-model"] } else { vec![""] };
        for operation in operations {
            let wanted = format!("{{prefix}}/{}", levels.replace("<operation>", operation).replace("<id>", "{id}"));
            assert!(addresses.contains(&wanted.as_str()), "{wanted} is not among {addresses:?}");
        }
    }
    for (name, operation) in document["operations"].as_object().unwrap() {
        let heard = name.starts_with("receive-");
        assert_eq!(operation["action"], if heard { "receive" } else { "send" }, "{name}");
    }
}
