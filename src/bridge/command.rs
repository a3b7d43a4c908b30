//! What the user can tell the node, and its three notations: a line of text, a line of JSON, or a
//! protobuf frame.

mod frame;
mod json;
mod text;

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::{
    frames::Frame,
    grammar::{self, ID_CHARACTERS_MAX},
    recipient::{Known, Recipient},
};
use crate::{
    failure::{Code, Failure},
    proto::Message,
};

/// One command, however it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Echoed in the answer.
    pub id: Option<Id>,
    /// How long the command may take.
    pub timeout: Option<Duration>,
    /// What to do.
    pub verb: Verb,
}

/// What to do.
///
/// A message without an id has an empty one, and one without a timestamp has 0: the session fills them in.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// Says what the program wants, before anything else.
    Hello {
        /// The version of `p2p-stdio` that it speaks.
        protocol: u32,
        /// Who it is.
        client: String,
        /// How many messages it takes before it says `credit`.
        credit: Option<u32>,
    },
    /// Sends a message, dialling if need be.
    Send {
        /// To whom.
        to: Recipient,
        /// What.
        message: Message,
    },
    /// Sends a message to every connected peer.
    Broadcast {
        /// What.
        message: Message,
    },
    /// Sends a message and waits for the one that answers it.
    Request {
        /// To whom.
        to: Recipient,
        /// What.
        message: Message,
    },
    /// Lets message events come, or wait.
    Listen {
        /// Whether they come.
        enabled: bool,
    },
    /// Allows more message events.
    Credit {
        /// How many.
        messages: u32,
    },
    /// Connects to a peer.
    Connect {
        /// To whom.
        to: Recipient,
    },
    /// Ends the link to a peer.
    Disconnect {
        /// To whom.
        from: Recipient,
    },
    /// Measures how long a connected peer takes to answer.
    Ping {
        /// Whom.
        to: Recipient,
    },
    /// Lists the connected peers.
    List,
    /// Tells how the node fares.
    Status,
    /// Finds out what the network lets through.
    Netcheck {
        /// A peer that it is judged for, too.
        with: Option<Recipient>,
        /// The longest silence after which it is looked whether the NAT has forgotten a mapping.
        lifetime: Option<Duration>,
    },
    /// Tells the node's ticket.
    Ticket,
    /// Gives a running command up.
    Cancel {
        /// Which.
        target: Id,
    },
    /// Lists the commands.
    Help,
    /// Stops the node.
    Quit,
}

/// A name for a command, chosen by the user and echoed as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// Below 2⁵³ in JSON, so that every reader keeps it exact; in frames, any but 0.
    Number(u64),
    /// At most 64 characters.
    Text(String),
}

/// Why a line or frame is no command, and the id to say so under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The id, if it could be read.
    pub id: Option<Id>,
    /// What is wrong.
    pub failure: Failure,
}

/// Reads one line. `None` for a line that asks for nothing: an empty one, or a comment.
///
/// # Errors
/// What is wrong with the line, with a hint at what to write instead.
pub fn parse(line: String, known: &mut Known) -> Option<Result<Command, Rejected>> {
    let line = Bytes::from(line);
    let text = std::str::from_utf8(&line).expect("it was a String");
    let start = text.trim_start();
    if start.is_empty() || start.starts_with('#') {
        return None;
    }
    Some(match start.starts_with('{') {
        true => json::parse(start, &line, known),
        false => text::parse(start, &line, known),
    })
}

/// Reads one frame.
///
/// # Errors
/// What is wrong with it.
pub fn parse_frame(frame: Frame<'_>, known: &mut Known) -> Result<Command, Rejected> {
    frame::parse(frame, known)
}

/// The id at the start of a frame, where every encoder of protobuf puts it.
pub fn frame_id(start: &[u8]) -> Option<Id> {
    frame::id_at(start)
}

/// A command that stands alone.
fn simple_verb(word: &str) -> Option<Verb> {
    match word {
        "list" | "peers" => Some(Verb::List),
        "status" => Some(Verb::Status),
        "ticket" => Some(Verb::Ticket),
        "help" => Some(Verb::Help),
        "quit" | "shutdown" => Some(Verb::Quit),
        _ => None,
    }
}

fn credit(messages: u64) -> Result<Verb, Failure> {
    match u32::try_from(messages) {
        Ok(messages) if (1..=grammar::CREDIT_MAX).contains(&u64::from(messages)) => {
            Ok(Verb::Credit { messages })
        }
        Ok(_) | Err(_) => {
            Err(wrong(format!("messages is an integer from 1 to {}", grammar::CREDIT_MAX)))
        }
    }
}

/// How long a mapping may be left silent.
fn silence(millis: u64) -> Result<Duration, Failure> {
    let (least, most) = grammar::LIFETIME_MS;
    match (least..=most).contains(&millis) {
        true => Ok(Duration::from_millis(millis)),
        false => Err(wrong(format!("lifetime_ms is an integer from {least} to {most}"))
            .hint("\"lifetime_ms\":120000")),
    }
}

fn timeout(millis: u64) -> Result<Duration, Failure> {
    match (1..=grammar::TIMEOUT_MS_MAX).contains(&millis) {
        true => Ok(Duration::from_millis(millis)),
        false => Err(wrong_timeout()),
    }
}

fn wrong_timeout() -> Failure {
    wrong(format!("timeout_ms is an integer from 1 to {}", grammar::TIMEOUT_MS_MAX))
        .hint("\"timeout_ms\":10000")
}

fn text_id(text: String) -> Result<Id, Failure> {
    let characters = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    match characters <= ID_CHARACTERS_MAX {
        true => Ok(Id::Text(text)),
        false => Err(wrong(ID_RULE)),
    }
}

fn unknown_command(word: &str) -> Failure {
    let word = shown(word);
    Failure::new(Code::UnknownCommand, format!("there is no command {word:?}"))
        .hint("help lists the commands; to send text: say <peer> <text>")
}

fn shown(word: &str) -> String {
    word.chars().take(SHOWN_CHARACTERS_MAX).collect()
}

fn unnamed(failure: Failure) -> Rejected {
    Rejected { id: None, failure }
}

fn wrong(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidArgument, message)
}

const ID_RULE: &str = "an id is a string of at most 64 characters or an integer from 0 to 2^53 - 1";

/// Characters of the user's own text that an error repeats; a ticket has 88.
const SHOWN_CHARACTERS_MAX: usize = 96;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{Identity, PeerId};

    fn read(line: &str) -> Option<Result<Command, Rejected>> {
        parse(line.to_owned(), &mut Known::default())
    }

    fn command(line: &str) -> Command {
        read(line).unwrap().unwrap()
    }

    fn rejected(line: &str) -> (Option<Id>, Code) {
        let rejected = read(line).unwrap().unwrap_err();
        (rejected.id, rejected.failure.code)
    }

    fn bob() -> PeerId {
        Identity::from_seed([2; 32]).peer_id()
    }

    #[test]
    fn empty_lines_and_comments_ask_for_nothing() {
        for line in ["", "  \t ", "# send", "   # {"] {
            assert_eq!(read(line), None, "{line:?}");
        }
    }

    #[test]
    fn both_notations_make_the_same_command() {
        let bob = bob();
        for (text, json) in [
            ("@a list", r#"{"cmd":"list","id":"a"}"#.to_owned()),
            ("@a peers", r#" {"id":"a","cmd":"peers"}"#.to_owned()),
            ("@a status", r#"{"cmd":"status","id":"a"}"#.to_owned()),
            ("@a ticket", r#"{"cmd":"ticket","id":"a"}"#.to_owned()),
            ("  @a   help", r#"{"cmd":"help","id":"a"}"#.to_owned()),
            ("@a quit", r#"{"cmd":"shutdown","id":"a"}"#.to_owned()),
            (
                &format!("@a connect {bob}"),
                format!(r#"{{"cmd":"connect","id":"a","peer":"{bob}"}}"#),
            ),
            (
                &format!("@a disconnect\t{bob} "),
                format!(r#"{{"cmd":"disconnect","id":"a","peer":"{bob}"}}"#),
            ),
            (&format!("@a ping {bob}"), format!(r#"{{"cmd":"ping","id":"a","peer":"{bob}"}}"#)),
            ("@a netcheck", r#"{"cmd":"netcheck","id":"a"}"#.to_owned()),
            ("@a listen off", r#"{"cmd":"listen","id":"a","enabled":false}"#.to_owned()),
            ("@a credit 5", r#"{"cmd":"credit","id":"a","messages":5}"#.to_owned()),
            ("@a cancel b", r#"{"cmd":"cancel","id":"a","target":"b"}"#.to_owned()),
            ("@a hello 1", r#"{"cmd":"hello","id":"a","protocol":1}"#.to_owned()),
            ("@a hello 1 8", r#"{"cmd":"hello","id":"a","protocol":1,"credit":8}"#.to_owned()),
            (
                "@a broadcast 1",
                r#"{"cmd":"broadcast","id":"a","message":{"type":"json","payload":1}}"#.to_owned(),
            ),
            (
                &format!("@a request {bob} 1"),
                format!(
                    r#"{{"cmd":"request","id":"a","peer":"{bob}","message":{{"type":"json","payload":1}}}}"#
                ),
            ),
            (
                &format!("@a reply {bob} 01ab 1"),
                format!(
                    r#"{{"cmd":"reply","id":"a","peer":"{bob}","to":"01ab","message":{{"type":"json","payload":1}}}}"#
                ),
            ),
            (
                &format!(r#"@a send {bob} {{"type":"chat","payload":"hi"}}"#),
                format!(
                    r#"{{"cmd":"send","id":"a","peer":"{bob}","message":{{"type":"chat","payload":"hi"}}}}"#
                ),
            ),
            (
                &format!("@a say {bob}  hi there "),
                format!(
                    r#"{{"cmd":"send","id":"a","peer":"{bob}","message":{{"type":"text","payload":" hi there "}}}}"#
                ),
            ),
        ] {
            assert_eq!(command(text), command(&json), "{text}");
        }
    }

    #[test]
    fn the_asked_form_sends_a_message() {
        let line = format!(r#"send {} {{"type": "request", "payload": "hello"}}"#, bob());
        let Verb::Send { to, message } = command(&line).verb else {
            panic!("not a send");
        };
        assert_eq!(to, Recipient::Peer(bob()));
        assert_eq!((message.r#type.as_str(), &message.payload[..]), ("request", &b"hello"[..]));
    }

    #[test]
    fn a_json_command_without_peer_is_for_the_service() {
        assert_eq!(
            command(r#"{"cmd":"connect","timeout_ms":250}"#),
            Command {
                id: None,
                timeout: Some(Duration::from_millis(250)),
                verb: Verb::Connect { to: Recipient::Unnamed },
            }
        );
    }

    #[test]
    fn ids_are_echoed_as_they_were_written() {
        assert_eq!(
            command(r#"{"cmd":"list","id":9007199254740991}"#).id,
            Some(Id::Number((1 << 53) - 1))
        );
        assert_eq!(command(r#"{"cmd":"list","id":"7"}"#).id, Some(Id::Text("7".to_owned())));
        assert_eq!(command(r#"{"cmd":"list","id":null}"#).id, None);
        assert_eq!(command("@7 list").id, Some(Id::Text("7".to_owned())));
        for id in ["9007199254740992", "-1", "1.5", "true", "[1]", &format!("{:?}", "x".repeat(65))]
        {
            let line = format!(r#"{{"cmd":"list","id":{id}}}"#);
            assert_eq!(rejected(&line), (None, Code::InvalidArgument), "{id}");
        }
        assert_eq!(rejected("@ list"), (None, Code::InvalidArgument));
    }

    #[test]
    fn wrong_lines_are_answered_under_their_id() {
        let id = Some(Id::Number(7));
        for (line, code) in [
            (r#"{"id":7}"#, Code::BadRequest),
            (r#"{"cmd":5,"id":7}"#, Code::InvalidArgument),
            (r#"{"cmd":"dance","id":7}"#, Code::UnknownCommand),
            (r#"{"cmd":"say","id":7}"#, Code::UnknownCommand),
            (r#"{"cmd":"send","id":7}"#, Code::InvalidArgument),
            (r#"{"cmd":"send","id":7,"message":"hi"}"#, Code::InvalidArgument),
            (r#"{"cmd":"connect","id":7,"peer":"p2p1x"}"#, Code::InvalidTicket),
            (r#"{"cmd":"connect","id":7,"peer":null,"timeout":5}"#, Code::InvalidArgument),
            (r#"{"cmd":"connect","id":7,"timeout_ms":0}"#, Code::InvalidArgument),
            (r#"{"cmd":"connect","id":7,"timeout_ms":3600001}"#, Code::InvalidArgument),
            (r#"{"cmd":"list","cmd":"list","id":7}"#, Code::InvalidArgument),
        ] {
            assert_eq!(rejected(line), (id.clone(), code), "{line}");
        }
        for (line, code) in [
            ("{", Code::BadRequest),
            ("{} x", Code::BadRequest),
            ("hello world", Code::UnknownCommand),
            ("send", Code::InvalidArgument),
            ("send service", Code::InvalidArgument),
            ("send service hello", Code::InvalidArgument),
            ("send service \"a\" \"b\"", Code::InvalidArgument),
            ("say service", Code::InvalidArgument),
            ("list all", Code::InvalidArgument),
            ("connect", Code::InvalidArgument),
            ("connect a b", Code::InvalidArgument),
        ] {
            assert_eq!(rejected(line), (None, code), "{line}");
        }
    }

    #[test]
    fn every_rejection_says_what_to_type_instead() {
        for line in [
            "send",
            "send service hello",
            "say service",
            "dance",
            "{",
            "{}",
            "connect a b",
            "list x",
        ] {
            let hint = read(line).unwrap().unwrap_err().failure.hint;
            assert!(!hint.is_empty(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_taken_calmly(line in any::<String>()) {
            let _ = read(&line);
        }

        #[test]
        fn anything_like_a_command_is_taken_calmly(
            line in r#"(@[a-z]{0,3} )?(send|say|list|connect|[{]"cmd":"send",)[ "{}a-z:,\[\]0-9@]{0,60}"#,
        ) {
            let _ = read(&line);
        }

        #[test]
        fn said_text_arrives_verbatim(text in r"\PC+") {
            let line = format!("say service {text}");
            let Verb::Send { message, .. } = command(&line).verb else {
                panic!("not a send");
            };
            prop_assert_eq!(&message.payload, text.as_bytes());
        }
    }
}
