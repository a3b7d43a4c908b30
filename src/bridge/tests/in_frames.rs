//! Plays the conversations in `tests/transcripts` once more, in protobuf frames.
//!
//! Every command that a frame can express is written as one, and every event has to say what its line
//! says: the same values under the same names, however they are nested. What frames leave out because it
//! is empty, lines may leave out, too.

use std::{collections::BTreeMap, fs, path::PathBuf};

use data_encoding::BASE64;
use prost::Message as _;
use serde_json::Value;

use super::{
    fake_node::Manner,
    harness::{Bridge, options, start_with},
    transcripts::{Step, asked, fold, unfold},
};
use crate::{
    bridge::{
        Notation, Options,
        command::{self, Command, Id, Verb},
        recipient::{Known, Recipient},
    },
    proto::stdio::{self, command as written},
};

#[test]
fn every_conversation_goes_the_same_way_in_frames() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut compared = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        let transcript = fs::read_to_string(&file).unwrap();
        compared += play(&transcript, &file.display().to_string());
    }
    assert!(compared > 80, "{compared} events were compared");
}

/// Plays `transcript` and returns how many events were compared.
fn play(transcript: &str, file: &str) -> usize {
    let options = Options { notation: Notation::Frames, ..options() };
    let mut bridge = Bridge::with(options, Manner::Polite, start_with);
    let mut ids = Ids::default();
    let (mut compared, mut refused) = (0, 0);
    for line in transcript.lines() {
        let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
        match Step::of(kind) {
            Step::Typed => match command::parse(unfold(text), &mut Known::default()) {
                Some(Ok(command)) => bridge.write(&frame(command, &mut ids)),
                // What no frame can say wrong; its answer is the next line.
                Some(Err(_)) => refused += 1,
                None => {}
            },
            Step::Said if refused > 0 => refused -= 1,
            Step::Said => {
                let event = bridge.read().expect("stdout has an event");
                let expected = said(&unfold(text), &mut ids);
                assert_eq!(framed(&event), expected, "{file}: {line}");
                compared += 1;
            }
            Step::Asked => assert_eq!(fold(&asked(&bridge)), text, "{file}"),
            Step::Exit => {
                assert_eq!(bridge.read(), None, "{file}: stdout ends with bye");
                assert_eq!(bridge.exit_code().to_string(), text, "{file}");
            }
            step @ (Step::Happens | Step::End | Step::Interrupt | Step::Terminate) => {
                step.perform(text, &mut bridge);
            }
            Step::Remark => {}
        }
    }
    compared
}

/// Numbers for ids that are text.
#[derive(Default)]
struct Ids(BTreeMap<String, u64>);

impl Ids {
    fn number(&mut self, id: &Id) -> u64 {
        match id {
            Id::Number(number) => *number,
            Id::Text(text) => {
                let next = 1_000 + u64::try_from(self.0.len()).unwrap();
                *self.0.entry(text.clone()).or_insert(next)
            }
        }
    }
}

fn frame(command: Command, ids: &mut Ids) -> Vec<u8> {
    use written::Verb as Written;
    let verb = match command.verb {
        Verb::Hello { protocol, client, credit } => {
            Written::Hello(written::Hello { protocol, client, credit })
        }
        Verb::Send { to, mut message } => match message.metadata.remove("in-reply-to") {
            Some(id) => {
                Written::Reply(written::Reply { peer: named(&to), to: id, message: Some(message) })
            }
            None => Written::Send(written::Send { peer: named(&to), message: Some(message) }),
        },
        Verb::Broadcast { message } => {
            Written::Broadcast(written::Broadcast { message: Some(message) })
        }
        Verb::Request { to, message } => {
            Written::Request(written::Request { peer: named(&to), message: Some(message) })
        }
        Verb::Listen { enabled } => Written::Listen(written::Listen { enabled }),
        Verb::Credit { messages } => Written::Credit(written::Credit { messages }),
        Verb::Connect { to } => Written::Connect(written::Connect { peer: named(&to) }),
        Verb::Disconnect { from } => {
            Written::Disconnect(written::Disconnect { peer: named(&from) })
        }
        Verb::Ping { to } => Written::Ping(written::Ping { peer: named(&to) }),
        Verb::List => Written::List(written::List {}),
        Verb::Status => Written::Status(written::Status {}),
        Verb::Netcheck { with, lifetime } => {
            let lifetime_ms = lifetime.map_or(0, |lifetime| lifetime.as_millis());
            Written::Netcheck(written::Netcheck {
                peer: with.as_ref().map(named).unwrap_or_default(),
                lifetime_ms: u32::try_from(lifetime_ms).unwrap(),
            })
        }
        Verb::Ticket => Written::Ticket(written::Ticket {}),
        Verb::Cancel { target } => Written::Cancel(written::Cancel { target: ids.number(&target) }),
        Verb::Help => Written::Help(written::Help {}),
        Verb::Quit => Written::Shutdown(written::Shutdown {}),
    };
    let timeout_ms = command.timeout.map_or(0, |timeout| timeout.as_millis());
    let command = stdio::Command {
        id: command.id.map_or(0, |id| ids.number(&id)),
        timeout_ms: u32::try_from(timeout_ms).unwrap(),
        verb: Some(verb),
    };
    command.encode_length_delimited_to_vec()
}

fn named(recipient: &Recipient) -> String {
    match recipient {
        Recipient::Unnamed => String::new(),
        Recipient::Service => "service".to_owned(),
        Recipient::NamedService(name) => format!("service:{name}"),
        Recipient::Peer(peer) => peer.to_string(),
        Recipient::Ticket(ticket) => ticket.to_string(),
        Recipient::Last => "@last".to_owned(),
        Recipient::Word(word) => word.clone(),
    }
}

/// An event's name, and its values with their names, in order.
type Said = (String, Vec<(String, String)>);

/// What a line says.
fn said(line: &str, ids: &mut Ids) -> Said {
    let Ok(Value::Object(mut event)) = serde_json::from_str(line) else {
        panic!("not an object: {line}");
    };
    let name = event.remove("event").unwrap().as_str().unwrap().replace('_', "");
    if let Some(id) = event.get_mut("id").filter(|id| !id.is_null()) {
        let number = ids.number(&match id.as_str() {
            Some(text) => Id::Text(text.to_owned()),
            None => Id::Number(id.as_u64().unwrap()),
        });
        *id = number.into();
    }
    if let Some(Value::Object(message)) = event.get_mut("message") {
        let payload = message["payload"].as_str().unwrap();
        let bytes = match message["encoding"].as_str().unwrap() {
            "base64" => BASE64.decode(payload.as_bytes()).unwrap(),
            _ => payload.as_bytes().to_vec(),
        };
        message.insert("payload".to_owned(), bytes.into());
        message.remove("encoding");
    }
    (name, values(&event.into()))
}

/// What a frame says, given as JSON that has one more object around every choice.
fn framed(event: &str) -> Said {
    let event: Value = serde_json::from_str(event).unwrap();
    let (name, event) = event["kind"].as_object().unwrap().iter().next().unwrap();
    (name.to_lowercase(), values(event))
}

fn values(event: &Value) -> Vec<(String, String)> {
    fn collect(name: &str, value: &Value, all: &mut Vec<(String, String)>) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(name, value)| collect(name, value, all));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(name, item, all)),
            Value::Null | Value::Bool(false) => {}
            Value::String(text) if text.is_empty() => {}
            Value::Number(number) if number.as_f64() == Some(0.0) && name != "payload" => {}
            // Real time passes.
            _ if name == "elapsed_ms" => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                all.push((name.to_lowercase(), fold(&value.to_string())));
            }
        }
    }
    let mut all = Vec::new();
    collect("", event, &mut all);
    all.sort();
    all
}
