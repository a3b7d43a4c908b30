//! The notation for people: `[@id] verb args… rest`.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    Command, ID_RULE, Id, Rejected, Verb, credit, shown, simple_verb, text_id, unknown_command,
    unnamed, wrong,
};
use crate::{
    bridge::{
        message::{self, Composer},
        recipient::{Known, Recipient},
    },
    failure::Failure,
};

/// Reads `text`, which is `line` without the white space at its start.
pub(super) fn parse(text: &str, line: &Bytes, known: &mut Known) -> Result<Command, Rejected> {
    let (id, text) = match text.strip_prefix('@').map(split_word) {
        Some((id, rest)) => (Some(self::id(id).map_err(unnamed)?), rest.trim_start()),
        None => (None, text),
    };
    let (verb, rest) = split_word(text);
    match self::verb(verb, rest, &Composer { line }, known) {
        Ok(verb) => Ok(Command { id, timeout: None, verb }),
        Err(failure) => Err(Rejected { id, failure }),
    }
}

fn verb(
    verb: &str,
    rest: &str,
    composer: &Composer<'_>,
    known: &mut Known,
) -> Result<Verb, Failure> {
    let (first, last) = split_word(rest.trim_start());
    match verb {
        "send" => {
            let to = named(known, first, "send <peer> <json>")?;
            let message = composer.typed(json(last, &format!("send {}", shown(first)))?)?;
            Ok(Verb::Send { to, message })
        }
        "say" => {
            let to = named(known, first, "say <peer> <text>")?;
            if last.is_empty() {
                return Err(wrong("there is nothing to say").hint(format!("say {first} hello")));
            }
            let message = composer.said(last)?;
            Ok(Verb::Send { to, message })
        }
        "broadcast" => {
            let message = composer.typed(json(rest.trim_start(), "broadcast")?)?;
            Ok(Verb::Broadcast { message })
        }
        "request" => {
            let to = named(known, first, "request <peer> <json>")?;
            let message = composer.typed(json(last, &format!("request {}", shown(first)))?)?;
            Ok(Verb::Request { to, message })
        }
        "reply" => {
            let to = named(known, first, "reply <peer> <message id> <json>")?;
            let (id, last) = split_word(last.trim_start());
            let start = format!("reply {} {}", shown(first), shown(id));
            let message = message::replying(composer.typed(json(last, &start)?)?, id)?;
            Ok(Verb::Send { to, message })
        }
        "ping" => Ok(Verb::Ping { to: alone(known, "ping <peer>", first, last)? }),
        "netcheck" => Ok(Verb::Netcheck {
            with: match first.is_empty() {
                true => None,
                false => Some(alone(known, "netcheck [<peer>]", first, last)?),
            },
            lifetime: None,
        }),
        "listen" => match rest.trim() {
            "on" => Ok(Verb::Listen { enabled: true }),
            "off" => Ok(Verb::Listen { enabled: false }),
            _ => Err(wrong("listen is on or off").hint("listen on")),
        },
        "credit" => credit(number(rest, "credit 100")?),
        "cancel" => Ok(Verb::Cancel { target: id(rest.trim())? }),
        // People greet, too: that is no command.
        "hello" if first.starts_with(|c: char| c.is_ascii_digit()) => hello(first, last),
        "connect" => Ok(Verb::Connect { to: alone(known, "connect <peer>", first, last)? }),
        "disconnect" => {
            Ok(Verb::Disconnect { from: alone(known, "disconnect <peer>", first, last)? })
        }
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

fn named(known: &mut Known, peer: &str, usage: &str) -> Result<Recipient, Failure> {
    if peer.is_empty() {
        let verb = split_word(usage).0;
        return Err(wrong(format!("{verb} needs a peer")).hint(usage));
    }
    known.parse(peer)
}

fn alone(known: &mut Known, usage: &str, peer: &str, rest: &str) -> Result<Recipient, Failure> {
    let peer = named(known, peer, usage)?;
    match rest.trim().is_empty() {
        true => Ok(peer),
        false => Err(wrong("there is too much after the peer").hint(usage)),
    }
}

fn json<'a>(text: &'a str, start: &str) -> Result<&'a RawValue, Failure> {
    serde_json::from_str(text).map_err(|error| {
        let peer = start.split_once(' ').map_or("<peer>", |(_, peer)| peer);
        let hint = match text.trim().is_empty() {
            true => format!("{start} \"hello\""),
            false => format!("text needs quotes: {start} \"hello\"; or: say {peer} hello"),
        };
        wrong("what is to be sent is not JSON").because(error.to_string()).hint(hint)
    })
}

fn hello(protocol: &str, credit: &str) -> Result<Verb, Failure> {
    let usage = "hello 1, or with a credit: hello 1 100";
    let out_of_range = |_| wrong("a number is too large").hint(usage);
    let credit = match credit.trim().is_empty() {
        true => None,
        false => Some(u32::try_from(number(credit, usage)?).map_err(out_of_range)?),
    };
    let protocol = u32::try_from(number(protocol, usage)?).map_err(out_of_range)?;
    Ok(Verb::Hello { protocol, client: String::new(), credit })
}

fn number(text: &str, usage: &str) -> Result<u64, Failure> {
    let text = text.trim();
    text.parse().map_err(|_| wrong(format!("{:?} is not a number", shown(text))).hint(usage))
}

fn id(text: &str) -> Result<Id, Failure> {
    match text.is_empty() {
        true => Err(wrong(ID_RULE).hint("@7 list")),
        false => text_id(text.to_owned()).map_err(|failure| failure.hint("@7 list")),
    }
}
