//! The notation for programs: `{"cmd":"send","id":7,…}`.

use std::time::Duration;

use serde_json::value::RawValue;

use super::{
    Command, ID_CHARACTERS_MAX, ID_RULE, Id, Rejected, Verb, simple_verb, unknown_command, unnamed,
    wrong,
};
use crate::{
    bridge::{fields::Fields, message::Composer, recipient::Recipient},
    failure::{Code, Failure},
};

/// Reads a line that starts with a brace.
pub(super) fn parse(text: &str, mut composer: Composer<'_>) -> Result<Command, Rejected> {
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| {
        let failure = Failure::new(Code::BadRequest, "the line is not a JSON object")
            .because(error.to_string())
            .hint("{\"cmd\":\"list\",\"id\":1}, or a text command: list");
        unnamed(failure)
    })?;
    let id = fields.get("id").map(id).transpose().map_err(unnamed)?;
    match timeout_and_verb(&fields, &mut composer) {
        Ok((timeout, verb)) => Ok(Command { id, timeout, verb }),
        Err(failure) => Err(Rejected { id, failure }),
    }
}

fn timeout_and_verb(
    fields: &Fields<'_>,
    composer: &mut Composer<'_>,
) -> Result<(Option<Duration>, Verb), Failure> {
    let cmd = fields.get("cmd").ok_or_else(|| {
        Failure::new(Code::BadRequest, "the command has no cmd").hint("{\"cmd\":\"list\",\"id\":1}")
    })?;
    let cmd: String = string("cmd", cmd)?;
    let timeout = fields.get("timeout_ms").map(timeout).transpose()?;
    let peer = || -> Result<Recipient, Failure> {
        let Some(peer) = fields.get("peer") else {
            return Ok(Recipient::Unnamed);
        };
        Recipient::parse(&string("peer", peer)?)
    };
    let (own_fields, verb): (&[&str], Verb) = match cmd.as_str() {
        "send" => {
            let message = fields.get("message").ok_or_else(|| {
                wrong("send needs a message")
                    .hint(r#"{"cmd":"send","peer":"service","message":{"type":"text","payload":"hello"}}"#)
            })?;
            let (to, message) = (peer()?, composer.written(message)?);
            (&["peer", "message"], Verb::Send { to, message })
        }
        "connect" => (&["peer"], Verb::Connect { to: peer()? }),
        "disconnect" => (&["peer"], Verb::Disconnect { from: peer()? }),
        "say" => {
            return Err(Failure::new(Code::UnknownCommand, "say is a text command")
                .hint(r#"{"cmd":"send","message":{"type":"text","payload":"hello"}}"#));
        }
        cmd => (&[], simple_verb(cmd).ok_or_else(|| unknown_command(cmd))?),
    };
    let known = [&["cmd", "id", "timeout_ms"], own_fields].concat();
    if let Some(name) = fields.first_beyond(&known) {
        let known = known.join(", ");
        return Err(wrong(format!("{cmd} has an unknown or repeated key {name:?}"))
            .hint(format!("{cmd} has the keys {known}")));
    }
    Ok((timeout, verb))
}

fn id(value: &RawValue) -> Result<Id, Failure> {
    if let Ok(number) = serde_json::from_str::<u64>(value.get()) {
        return match number < ID_NUMBER_END {
            true => Ok(Id::Number(number)),
            false => Err(wrong(ID_RULE).hint("write large ids as strings")),
        };
    }
    let text: String = serde_json::from_str(value.get()).map_err(|_| wrong(ID_RULE))?;
    match text.chars().count() <= ID_CHARACTERS_MAX {
        true => Ok(Id::Text(text)),
        false => Err(wrong(ID_RULE)),
    }
}

fn timeout(value: &RawValue) -> Result<Duration, Failure> {
    let millis = serde_json::from_str::<u64>(value.get()).ok();
    let millis = millis.filter(|millis| (1..=TIMEOUT_MS_MAX).contains(millis));
    millis.map(Duration::from_millis).ok_or_else(|| {
        wrong(format!("timeout_ms is an integer from 1 to {TIMEOUT_MS_MAX}"))
            .hint("\"timeout_ms\":10000")
    })
}

fn string(name: &str, value: &RawValue) -> Result<String, Failure> {
    serde_json::from_str(value.get()).map_err(|_| wrong(format!("{name} is not a string")))
}

/// The first integer that a JSON reader with doubles may take for another one.
const ID_NUMBER_END: u64 = 1 << 53;

/// An hour: longer than any dial makes sense, and no timer overflows.
const TIMEOUT_MS_MAX: u64 = 3_600_000;
