//! The JSON Schema of commands and events, made from the [`grammar`](super::grammar).

use serde_json::{Map, Value, json};

use super::grammar::{
    COMMANDS, COMMON_KEYS, CommandForm, EVENTS, EventForm, Key, Kind, Need, PARTS, Shape,
};
use crate::{failure::Code, identity::PEER_ID_CHARACTERS};

/// A JSON Schema (draft 2020-12) of every line on stdin that is JSON, and of every line on stdout.
///
/// `#/$defs/command` and `#/$defs/event` are the two; a command has no key beyond those named, an event
/// may have.
pub fn schema() -> Value {
    let mut parts: Map<String, Value> =
        PARTS.iter().map(|part| (part.name.to_owned(), shape(&part.shape))).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    parts.insert("code".to_owned(), json!({ "enum": codes }));
    parts.insert("nothing".to_owned(), json!({ "type": "null" }));
    let length = PEER_ID_CHARACTERS;
    parts.insert(
        "peer_id".to_owned(),
        json!({ "type": "string", "minLength": length, "maxLength": length }),
    );
    let commands: Vec<Value> = COMMANDS.iter().filter_map(command).collect();
    let events: Vec<Value> = EVENTS.iter().map(event).collect();
    parts.insert("command".to_owned(), json!({ "anyOf": commands }));
    parts.insert("event".to_owned(), json!({ "anyOf": events }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "p2p-stdio/1",
        "anyOf": [{ "$ref": "#/$defs/command" }, { "$ref": "#/$defs/event" }],
        "$defs": parts,
    })
}

/// The protobuf schemas of the same: the names and texts of two files that belong in one folder.
pub const PROTO: [(&str, &str); 2] = [
    ("stdio.proto", include_str!("../../proto/stdio.proto")),
    ("message.proto", include_str!("../../proto/message.proto")),
];

fn command(form: &CommandForm) -> Option<Value> {
    let names: Vec<&str> = [Some(form.cmd), form.also].into_iter().flatten().collect();
    let keys = COMMON_KEYS.iter().chain(form.keys?);
    let mut schema = object(("cmd", json!({ "enum": names })), keys);
    schema.insert("description".to_owned(), form.does.into());
    schema.insert("additionalProperties".to_owned(), false.into());
    Some(schema.into())
}

fn event(form: &EventForm) -> Value {
    let mut schema = object(("event", json!({ "const": form.event })), form.keys.iter());
    schema.insert("description".to_owned(), form.when.into());
    schema.into()
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Object(keys) => members(keys.iter()).into(),
        Shape::Either(kinds) => {
            let kinds: Vec<Value> = kinds.iter().map(|&it| kind(it)).collect();
            json!({ "anyOf": kinds })
        }
    }
}

/// An object with these members, and first the one that says what it is.
fn object<'a>(
    (name, named): (&str, Value),
    keys: impl Iterator<Item = &'a Key> + Clone,
) -> Map<String, Value> {
    let mut schema = members(keys);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert(name.to_owned(), named);
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.insert(0, name.into());
    }
    schema
}

fn members<'a>(keys: impl Iterator<Item = &'a Key> + Clone) -> Map<String, Value> {
    let properties: Map<String, Value> =
        keys.clone().map(|key| (key.name.to_owned(), kind(key.kind))).collect();
    let required: Vec<Value> =
        keys.filter(|key| key.need == Need::Always).map(|key| key.name.into()).collect();
    [
        ("type".to_owned(), "object".into()),
        ("properties".to_owned(), properties.into()),
        ("required".to_owned(), required.into()),
    ]
    .into_iter()
    .collect()
}

fn kind(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::ShortText(characters_max) => {
            json!({ "type": "string", "maxLength": characters_max })
        }
        Kind::OneOf(texts) => json!({ "enum": texts }),
        Kind::Integer(min, u64::MAX) => json!({ "type": "integer", "minimum": min }),
        Kind::Integer(min, max) => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        Kind::Signed => json!({ "type": "integer" }),
        Kind::Decimal => json!({ "type": "number", "minimum": 0 }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Texts => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        Kind::Anything => json!(true),
        Kind::List(item) => json!({ "type": "array", "items": self::kind(*item) }),
        Kind::Part(name) => json!({ "$ref": format!("#/$defs/{name}") }),
    }
}
