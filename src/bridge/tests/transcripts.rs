//! Plays the conversations in `tests/transcripts` and compares every line.
//!
//! `> ` is typed, `< ` is what stdout says next, `= ` is what the node is asked next, `! ` makes the
//! node tell something, `^D` closes stdin, `^C` and `TERM` are signals, `exit N` ends the conversation.
//! Lines that have changed on purpose are written anew by `UPDATE_TRANSCRIPTS=1 cargo test transcripts`.
//! `$bob` stands for Bob's peer id and `$bob_ticket` for his ticket; times that pass as 0 or now.

use std::{fs, path::PathBuf, time::Duration};

use super::{
    fake_node::{Asked, Manner, alice, bob, carol, connection, mallory, path},
    harness::{Bridge, PATIENCE},
};
use crate::{
    bridge::Signal,
    failure::{Code, Failure},
    node::{
        Event, Handover, Received, Target,
        event::{Chosen, Receipt, SendState, Stage, Strategy},
    },
    proto::Message,
    ticket::Ticket,
};

#[test]
fn every_conversation_goes_as_it_is_written() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        let written = fs::read_to_string(&file).unwrap();
        let played = play(&written);
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            fs::write(&file, &played).unwrap();
        } else {
            assert_eq!(played, written, "{}", file.display());
        }
        count += 1;
    }
    assert!(count >= 6, "{count} conversations");
}

/// The conversation as it goes, with the test's side taken from `transcript`.
fn play(transcript: &str) -> String {
    let mut bridge = Bridge::new(Manner::Polite);
    let mut played = String::new();
    for line in transcript.lines() {
        let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
        let line = match Step::of(kind) {
            Step::Said => format!("< {}", fold(&bridge.read().expect("stdout has a line"))),
            Step::Asked => format!("= {}", fold(&asked(&bridge))),
            Step::Exit => {
                assert_eq!(bridge.read(), None, "stdout ends with bye");
                format!("exit {}", bridge.exit_code())
            }
            Step::Remark => line.to_owned(),
            step
            @ (Step::Typed | Step::Happens | Step::End | Step::Interrupt | Step::Terminate) => {
                step.perform(text, &mut bridge);
                line.to_owned()
            }
        };
        played += &(line + "\n");
    }
    played
}

/// What a line of a transcript is.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Typed,
    Said,
    Asked,
    Happens,
    End,
    Interrupt,
    Terminate,
    Exit,
    Remark,
}

impl Step {
    /// The step that begins with `kind`.
    pub(super) fn of(kind: &str) -> Self {
        match kind {
            ">" => Self::Typed,
            "<" => Self::Said,
            "=" => Self::Asked,
            "!" => Self::Happens,
            "^D" => Self::End,
            "^C" => Self::Interrupt,
            "TERM" => Self::Terminate,
            "exit" => Self::Exit,
            "#" | "" => Self::Remark,
            kind => panic!("what is {kind:?}?"),
        }
    }

    /// Does what the test has to do.
    pub(super) fn perform(self, text: &str, bridge: &mut Bridge) {
        match self {
            Self::Typed => bridge.write(format!("{}\n", unfold(text)).as_bytes()),
            Self::Happens => match message(text) {
                Some(message) => bridge.node.messages.blocking_send(message).unwrap(),
                None => bridge.node.events.blocking_send(event(text)).unwrap(),
            },
            Self::End => bridge.close_stdin(),
            Self::Interrupt => bridge.signal(Signal::Interrupt),
            Self::Terminate => bridge.signal(Signal::Terminate),
            Self::Said | Self::Asked | Self::Exit | Self::Remark => {}
        }
    }
}

pub(super) fn asked(bridge: &Bridge) -> String {
    match bridge.node.requests.recv_timeout(PATIENCE).expect("the node is asked") {
        Asked::Connect(target, timeout) => format!("connect {} {timeout:?}", shown(&target)),
        Asked::Send(target, message) => {
            let Message { id, r#type, payload, timestamp, metadata } = message;
            let timestamp = match timestamp {
                5 => "5",
                _ => "now",
            };
            format!("send {} {id} {type} {payload:?} {timestamp} {metadata:?}", shown(&target))
        }
        Asked::Disconnect(peer) => format!("disconnect {peer}"),
        Asked::Shutdown => "shutdown".to_owned(),
    }
}

fn shown(target: &Target) -> String {
    match target {
        Target::Service(name) => format!("service:{name}"),
        Target::Peer(peer) => peer.to_string(),
        Target::Ticket(ticket) => ticket.to_string(),
    }
}

fn message(text: &str) -> Option<Received> {
    let payload: &'static [u8] = match text {
        "message" => b"hello",
        "message in bytes" => b"\xff\x00",
        "message with all sorts of characters" => "\"\\\n\u{1}\u{2028}é".as_bytes(),
        _ => return None,
    };
    let message = Message {
        id: "01ab".to_owned(),
        r#type: "request".to_owned(),
        payload: payload.into(),
        timestamp: 1_763_820_000_123,
        metadata: [("lang".to_owned(), "en".to_owned())].into(),
    };
    Some(Received { peer: bob().peer_id(), message, handover: Handover::new() })
}

fn event(text: &str) -> Event {
    let peer = bob().peer_id();
    let target = Target::Peer(peer);
    match text {
        "online" => Event::Online {
            stored_at: 18,
            addresses: vec!["203.0.113.7:41641".parse().unwrap()],
            took: Duration::from_millis(1_312),
        },
        "connecting to the service" => {
            Event::Connecting { target: Target::Service("myapi:v1".parse().unwrap()) }
        }
        "connecting by ticket" => {
            Event::Connecting { target: Target::Ticket(Ticket::of(&bob(), Vec::new())) }
        }
        "progress" => Event::Progress {
            target,
            peer: Some(peer),
            stage: Stage::Punch,
            elapsed: Duration::from_millis(934),
            detail: "probe answered by 198.51.100.9:50112".to_owned(),
            chosen: None,
        },
        "progress with what is tried" => Event::Progress {
            target,
            peer: Some(peer),
            stage: Stage::Punch,
            elapsed: Duration::from_millis(82),
            detail: "guessed ports: their NAT counts ports".to_owned(),
            chosen: Some(Chosen {
                strategy: Strategy::GuessedPorts,
                why: "their NAT counts ports".to_owned(),
            }),
        },
        "connected" => Event::Connected(connection()),
        "path changed" => {
            Event::PathChanged { peer, path: path(), rtt: Duration::from_micros(8_250) }
        }
        "disconnected" => Event::Disconnected {
            peer,
            failure: Failure::new(Code::ConnectionLost, "nothing heard for 15 s").hint("wait"),
            will_retry: true,
        },
        "delivered" => Event::Delivered(Receipt {
            peer: Some(peer),
            message_id: "9f2c".to_owned(),
            state: SendState::Delivered,
            rtt: Duration::from_millis(90),
        }),
        "warning" => Event::Warning(
            Failure::new(Code::DhtUnreachable, "no DHT node answers").because("8 asked in 5 s"),
        ),
        text => panic!("what is {text:?}?"),
    }
}

fn names() -> Vec<(&'static str, String)> {
    let mut names = vec![("$version", env!("CARGO_PKG_VERSION").to_owned())];
    for (id_name, ticket_name, identity) in [
        ("$alice", "$alice_ticket", alice()),
        ("$bob", "$bob_ticket", bob()),
        ("$carol", "$carol_ticket", carol()),
        ("$mallory", "$mallory_ticket", mallory()),
    ] {
        names.push((ticket_name, Ticket::of(&identity, Vec::new()).to_string()));
        names.push((id_name, identity.peer_id().to_string()));
    }
    names
}

pub(super) fn unfold(text: &str) -> String {
    names().iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

pub(super) fn fold(text: &str) -> String {
    let text =
        names().iter().fold(text.to_owned(), |text, (name, value)| text.replace(value, name));
    let text = match text.split_once("it has the message, and ") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            format!("{before}it has the message, and 0.1{after}")
        }
        None => text,
    };
    let Some((before, after)) = text.split_once(r#","elapsed_ms":"#) else {
        return text;
    };
    // Dials are told with times that the transcript made up.
    if before.contains(r#""event":"progress""#) {
        return text;
    }
    let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!(r#"{before},"elapsed_ms":0{after}"#)
}
