use super::{
    Anomaly, CameraState, CloudEvent, CommandResult, DeviceState, FrameResult, Health, ModelState, PartEventKind,
    PartVerdict, RollbackModel, UpdateModel,
};
use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};

/// JSON Schema (2020-12) of every payload, by name.
pub fn schemas() -> Value {
    let of = |s: schemars::Schema| s.to_value();
    json!({
        "anomaly": of(schema_for!(CloudEvent<Anomaly>)),
        "state": of(schema_for!(DeviceState)),
        "camera-state": of(schema_for!(CameraState)),
        "result": of(schema_for!(FrameResult)),
        "part-verdict": of(schema_for!(CloudEvent<PartVerdict, PartEventKind>)),
        "health": of(schema_for!(Health)),
        "model-state": of(schema_for!(ModelState)),
        "update-model": of(schema_for!(UpdateModel)),
        "rollback-model": of(schema_for!(RollbackModel)),
        "command-result": of(schema_for!(CommandResult)),
    })
}

/// The topics as an AsyncAPI 3.0 document.
pub fn asyncapi() -> Value {
    let levels = [
        ("prefix", "by default ckaad/<site>/<line>/<device>"),
        ("camera", "the camera's name"),
        ("station", "where parts are looked at: the camera's name"),
        ("model", "the model's name in the update repository"),
        ("id", "chosen by who sends the command; one id is done once"),
    ];
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut components = Map::new();
    let mut add = |name: &str, address: &str, qos: u8, retain: bool, message: Value| {
        let named = levels.iter().filter(|(level, _)| address.contains(&format!("{{{level}}}")));
        let parameters: Map<String, Value> =
            named.map(|(level, what)| ((*level).to_owned(), json!({ "description": what }))).collect();
        // What is sent to `cmd` is ours to hear; all else we say.
        let to_us = address.contains("/cmd/") && !address.ends_with("/result");
        let (verb, action) = if to_us { ("receive", "receive") } else { ("publish", "send") };
        channels.insert(
            name.into(),
            json!({ "address": address, "parameters": parameters, "messages": { name: message } }),
        );
        operations.insert(
            format!("{verb}-{name}"),
            json!({
                "action": action,
                "channel": { "$ref": format!("#/channels/{name}") },
                "bindings": { "mqtt": { "qos": qos, "retain": retain } },
            }),
        );
    };
    let mut json_message = |name: &str, schema: schemars::Schema| {
        components.insert(name.to_owned(), localised(schema.to_value(), name));
        json!({ "contentType": "application/json", "payload": { "$ref": format!("#/components/schemas/{name}") } })
    };
    fn schema<T: JsonSchema>() -> schemars::Schema {
        schema_for!(T)
    }
    add("state", "{prefix}/state", 1, true, json_message("state", schema::<DeviceState>()));
    add("health", "{prefix}/health", 0, false, json_message("health", schema::<Health>()));
    let at = "{prefix}/camera/{camera}";
    add("camera-state", &format!("{at}/state"), 1, true, json_message("camera-state", schema::<CameraState>()));
    add("anomaly", &format!("{at}/anomaly"), 1, false, json_message("anomaly", schema::<CloudEvent<Anomaly>>()));
    add("result", &format!("{at}/result"), 0, false, json_message("result", schema::<FrameResult>()));
    let verdict = json_message("part-verdict", schema::<CloudEvent<PartVerdict, PartEventKind>>());
    add("part-verdict", "{prefix}/part/{station}/verdict", 1, false, verdict);
    let model_state = json_message("model-state", schema::<ModelState>());
    add("model-state", "{prefix}/model/{model}/state", 1, true, model_state);
    let answer = json_message("command-result", schema::<CommandResult>());
    for (operation, asked) in [("update-model", schema::<UpdateModel>()), ("rollback-model", schema::<RollbackModel>())]
    {
        let address = format!("{{prefix}}/cmd/{operation}/{{id}}");
        add(operation, &address, 1, false, json_message(operation, asked));
        add(&format!("{operation}-result"), &format!("{address}/result"), 1, false, answer.clone());
    }
    let picture = json!({
        "contentType": "image/png",
        "description": "The picture with the anomaly map over it. The user property `event-id` is the id of its anomaly event; with MQTT 3.1.1, which has no properties, the address ends in /<event-id>.",
    });
    add("heatmap", &format!("{at}/heatmap"), 1, false, picture);
    json!({
        "asyncapi": "3.0.0",
        "info": { "title": "ckaad-agent", "version": env!("CARGO_PKG_VERSION"), "description": "What the agent publishes, and what it hears." },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "schemas": components },
    })
}

/// References inside a schema (`#/$defs/X`) made to hold where the schema lies in the document.
fn localised(schema: Value, name: &str) -> Value {
    let text = schema.to_string().replace("\"#/$defs/", &format!("\"#/components/schemas/{name}/$defs/"));
    serde_json::from_str(&text).expect("replacing text inside a JSON string keeps it JSON")
}

#[cfg(test)]
mod tests {
    use super::super::Topics;
    use super::*;

    /// What the document says of where messages lie is where they are sent.
    #[test]
    fn the_addresses_of_the_document_are_the_topics() {
        let topics = Topics::new("site/line").unwrap();
        assert_eq!(topics.prefix(), "site/line");
        let document = asyncapi();
        let channels = document["channels"].as_object().unwrap();
        let address = |name: &str| {
            let address = channels[name]["address"].as_str().unwrap();
            [("prefix", "site/line"), ("camera", "left"), ("station", "left"), ("model", "washer"), ("id", "7")]
                .iter()
                .fold(address.to_owned(), |text, (level, value)| text.replace(&format!("{{{level}}}"), value))
        };
        let expected = [
            ("state", topics.state()),
            ("health", topics.health()),
            ("camera-state", topics.camera_state("left")),
            ("anomaly", topics.anomaly("left")),
            ("heatmap", topics.heatmap("left")),
            ("result", topics.result("left")),
            ("part-verdict", topics.part_verdict("left")),
            ("model-state", topics.model_state("washer")),
            ("update-model-result", topics.command_result("update-model", "7")),
            ("rollback-model-result", topics.command_result("rollback-model", "7")),
        ];
        for (name, topic) in &expected {
            assert_eq!(&address(name), topic, "{name}");
            assert_eq!(document["operations"][format!("publish-{name}")]["action"], "send", "{name}");
        }
        for operation in ["update-model", "rollback-model"] {
            assert_eq!(topics.command(&address(operation)), Some((operation, "7")));
            assert_eq!(document["operations"][format!("receive-{operation}")]["action"], "receive");
        }
        assert_eq!(channels.len(), expected.len() + 2, "every channel was looked at");
        assert_eq!(topics.commands(), "site/line/cmd/+/+");
        assert_eq!(topics.command("site/cmd/update-model/7"), None);
    }

    /// Whoever makes code of the document follows its references; and it says of every payload what `schema` alone says.
    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = asyncapi();
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = vec![];
        references(&document, &mut found);
        assert!(found.iter().any(|reference| reference.contains("/$defs/")), "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leaves the document"));
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let (alone, components) = (schemas(), &document["components"]["schemas"]);
        let names = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&alone), names(components));
        for (name, schema) in alone.as_object().unwrap() {
            let properties = names(&schema["properties"]);
            assert!(!properties.is_empty() && properties == names(&components[name]["properties"]), "{name}");
        }
    }
}
