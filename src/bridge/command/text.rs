//! The notation for people: `[@id] verb args… rest`.

use serde_json::value::RawValue;

use super::{
    Command, ID_CHARACTERS_MAX, ID_RULE, Id, Rejected, Verb, shown, simple_verb, unknown_command,
    unnamed, wrong,
};
use crate::{
    bridge::{message::Composer, recipient::Recipient},
    failure::Failure,
};

/// Reads a line without the white space at its start.
pub(super) fn parse(text: &str, mut composer: Composer<'_>) -> Result<Command, Rejected> {
    let (id, text) = match text.strip_prefix('@').map(split_word) {
        Some((id, rest)) => (Some(self::id(id).map_err(unnamed)?), rest.trim_start()),
        None => (None, text),
    };
    let (verb, rest) = split_word(text);
    match self::verb(verb, rest, &mut composer) {
        Ok(verb) => Ok(Command { id, timeout: None, verb }),
        Err(failure) => Err(Rejected { id, failure }),
    }
}

fn verb(verb: &str, rest: &str, composer: &mut Composer<'_>) -> Result<Verb, Failure> {
    let (first, last) = split_word(rest.trim_start());
    match verb {
        "send" => {
            let to = named(first, "send <peer> <json>")?;
            let message = composer.typed(json(last, first)?)?;
            Ok(Verb::Send { to, message })
        }
        "say" => {
            let to = named(first, "say <peer> <text>")?;
            if last.is_empty() {
                return Err(wrong("there is nothing to say").hint(format!("say {first} hello")));
            }
            let message = composer.said(last)?;
            Ok(Verb::Send { to, message })
        }
        "connect" => Ok(Verb::Connect { to: alone("connect <peer>", first, last)? }),
        "disconnect" => Ok(Verb::Disconnect { from: alone("disconnect <peer>", first, last)? }),
        _ => {
            let simple = simple_verb(verb).ok_or_else(|| unknown_command(verb))?;
            match first.is_empty() {
                true => Ok(simple),
                false => Err(wrong(format!("{verb} takes nothing after it")).hint(verb)),
            }
        }
    }
}

/// The first word of `text`, and what stands after the one space that ends it.
fn split_word(text: &str) -> (&str, &str) {
    text.split_once([' ', '\t']).unwrap_or((text, ""))
}

fn named(peer: &str, usage: &str) -> Result<Recipient, Failure> {
    if peer.is_empty() {
        let verb = split_word(usage).0;
        return Err(wrong(format!("{verb} needs a peer")).hint(usage));
    }
    Recipient::parse(peer)
}

fn alone(usage: &str, peer: &str, rest: &str) -> Result<Recipient, Failure> {
    let peer = named(peer, usage)?;
    match rest.trim().is_empty() {
        true => Ok(peer),
        false => Err(wrong("there is too much after the peer").hint(usage)),
    }
}

fn json<'a>(text: &'a str, peer: &str) -> Result<&'a RawValue, Failure> {
    serde_json::from_str(text).map_err(|error| {
        let peer = shown(peer);
        let hint = match text.trim().is_empty() {
            true => format!("send {peer} \"hello\""),
            false => format!("text needs quotes: send {peer} \"hello\"; or: say {peer} hello"),
        };
        wrong("what is to be sent is not JSON").because(error.to_string()).hint(hint)
    })
}

fn id(text: &str) -> Result<Id, Failure> {
    if (1..=ID_CHARACTERS_MAX).contains(&text.chars().count()) {
        return Ok(Id::Text(text.to_owned()));
    }
    Err(wrong(ID_RULE).hint("@7 list"))
}
