//! Everything that the documents and the golden conversations show of the protocol over stdio keeps to
//! the schema that the program prints.

use std::fs;

use p2p_node::bridge::{PROTO, schema};
use serde_json::{Map, Value};

use crate::markdown::{Document, root};

#[test]
fn every_event_of_the_golden_conversations_keeps_to_the_schema() {
    let events = golden("< ", |_| true);
    assert!(events.len() > 100, "{} events", events.len());
    for event in &events {
        check("event", event).unwrap_or_else(|why| panic!("{event}: {why}"));
    }
}

#[test]
fn every_documented_event_and_command_keeps_to_the_schema() {
    let protocol = Document::read("PROTOCOL.md");
    let blocks = protocol.blocks("json");
    let quoted = protocol.quoted();
    let commands = quoted.iter().map(String::as_str).filter(|text| text.starts_with("{\"cmd\""));
    let mut checked = 0;
    for line in blocks.iter().flat_map(|block| block.lines()).chain(commands) {
        let value = unfold(line);
        let part = if value.get("cmd").is_some() { "command" } else { "event" };
        check(part, &value).unwrap_or_else(|why| panic!("{line}: {why}"));
        checked += 1;
    }
    assert!(checked > 40, "{checked} examples");
}

#[test]
fn commands_that_work_keep_to_the_schema_and_mistakes_do_not() {
    let good = golden("> {", |file| file != "mistakes.txt");
    assert!(good.len() > 25, "{} commands", good.len());
    for command in &good {
        check("command", command).unwrap_or_else(|why| panic!("{command}: {why}"));
    }
    let bad = golden("> {", |file| file == "mistakes.txt");
    // An integer written as 1e3 is one for a schema, and none for the program.
    for command in bad.iter().filter(|command| command["id"] != 1e3) {
        assert!(check("command", command).is_err(), "{command}");
    }
}

#[test]
fn the_printed_files_are_a_whole_schema() {
    let stdio = PROTO[0].1;
    assert!(stdio.contains("import \"message.proto\";") && PROTO[1].0 == "message.proto");
}

/// The lines of the conversations that begin with `start`, as far as they are JSON.
fn golden(start: &str, wanted: impl Fn(&str) -> bool) -> Vec<Value> {
    let mut values = Vec::new();
    for file in fs::read_dir(root().join("tests/transcripts")).unwrap() {
        let file = file.unwrap();
        if !wanted(file.file_name().to_str().unwrap()) {
            continue;
        }
        let text = fs::read_to_string(file.path()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(start));
        let json = lines.map(|line| line.split_at(2).1).filter(|line| {
            line.starts_with('{') && serde_json::from_str::<Value>(&expand(line)).is_ok()
        });
        values.extend(json.map(unfold));
    }
    values
}

fn unfold(line: &str) -> Value {
    serde_json::from_str(&expand(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The line with whole peer ids in the place of names and of shortened ones.
fn expand(line: &str) -> String {
    let id = format!("\"{}\"", "y".repeat(52));
    let names = ["$alice", "$bob", "$carol", "$mallory", "m2ka…", "q7x4…"];
    names.iter().fold(line.to_owned(), |line, name| line.replace(&format!("\"{name}\""), &id))
}

/// Whether `value` is one of `#/$defs/<part>`, with no key that is not named there.
fn check(part: &str, value: &Value) -> Result<(), String> {
    let schema = schema();
    let wanted = &schema["$defs"][part];
    Validator { definitions: &schema["$defs"] }.validate(wanted, value)
}

/// As much of JSON Schema as the program's own uses. What an object does not name, it may not have.
struct Validator<'a> {
    definitions: &'a Value,
}

impl Validator<'_> {
    fn validate(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let Some(rules) = schema.as_object() else {
            return if schema == &Value::Bool(true) { Ok(()) } else { Err("nothing may".into()) };
        };
        for (rule, wanted) in rules {
            self.rule(rules, rule, wanted, value).map_err(|why| format!("{value}: {why}"))?;
        }
        Ok(())
    }

    fn rule(
        &self,
        rules: &Map<String, Value>,
        rule: &str,
        wanted: &Value,
        value: &Value,
    ) -> Result<(), String> {
        let holds = match rule {
            "description" => true,
            "type" => match wanted.as_str().unwrap() {
                "null" => value.is_null(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "number" => value.is_number(),
                "integer" => value.is_i64() || value.is_u64(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                other => panic!("what is {other}?"),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "minimum" => value.as_f64() >= wanted.as_f64(),
            "maximum" => value.as_f64() <= wanted.as_f64(),
            "minLength" => characters(value) >= wanted.as_u64(),
            "maxLength" => characters(value) <= wanted.as_u64(),
            "required" => wanted
                .as_array()
                .unwrap()
                .iter()
                .all(|key| value.get(key.as_str().unwrap()).is_some()),
            "properties" => return self.members(wanted, value),
            "additionalProperties" if rules.contains_key("properties") => true,
            "additionalProperties" => {
                let members = value.as_object().into_iter().flatten();
                return members.into_iter().try_for_each(|(_, it)| self.validate(wanted, it));
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                return items.into_iter().try_for_each(|item| self.validate(wanted, item));
            }
            "anyOf" => wanted.as_array().unwrap().iter().any(|it| self.validate(it, value).is_ok()),
            "$ref" => {
                let name = wanted.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                return self.validate(&self.definitions[name], value);
            }
            other => panic!("what is {other}?"),
        };
        if holds { Ok(()) } else { Err(format!("not {rule} {wanted}")) }
    }

    fn members(&self, named: &Value, value: &Value) -> Result<(), String> {
        for (name, member) in value.as_object().into_iter().flatten() {
            let wanted = named.get(name).ok_or_else(|| format!("there is no key {name}"))?;
            self.validate(wanted, member)?;
        }
        Ok(())
    }
}

fn characters(value: &Value) -> Option<u64> {
    value.as_str().map(|text| u64::try_from(text.chars().count()).unwrap())
}
