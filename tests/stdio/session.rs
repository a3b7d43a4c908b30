//! Promises of a session that a node's stand-in can keep.

use std::{
    io::{BufRead, BufReader, Read, Write},
    sync::atomic::Ordering,
    thread,
};

use p2p_node::{
    bridge::{Notation, Options},
    entropy::Entropy,
    proto::{
        Message,
        stdio::{self, command},
    },
};
use prost::Message as _;
use serde_json::Value;

use crate::{PATIENCE, Session, echo, options};

#[test]
fn a_request_is_answered_by_the_message_that_replies_to_it() {
    let session = Session::new(options(Notation::Lines));
    let line =
        br#"{"cmd":"request","id":7,"peer":"$","message":{"id":"m1","type":"t","payload":"hi"}}"#;
    let line = String::from_utf8_lossy(line).replace('$', &echo::bob().to_string());
    let handed_over = session.hands.handed_over.clone();
    let (output, code) = session.play(line.into_bytes());
    let output = String::from_utf8(output).unwrap();
    let answer: Value = serde_json::from_str(output.lines().nth(2).unwrap()).unwrap();
    assert_eq!((&answer["event"], &answer["id"]), (&"ok".into(), &7.into()));
    assert_eq!(answer["message"]["payload"], "hi");
    assert_eq!((code, handed_over.load(Ordering::Relaxed)), (0, 1));
}

#[test]
fn messages_are_handed_over_when_they_have_been_written_and_no_sooner() {
    let Session { stdin, mut stdout, hands, .. } = Session::new(options(Notation::Frames));
    let count = 20;
    let feeder = thread::spawn(move || {
        for _ in 0..count {
            let message = Message { payload: vec![7; 1 << 20].into(), ..Message::default() };
            hands.messages.blocking_send(hands.arriving(message)).map_err(|_| ()).unwrap();
        }
        hands
    });
    let hands = feeder.join().unwrap();
    // Nobody has read anything: a pipe holds less than one of them.
    assert_eq!(hands.handed_over.load(Ordering::Relaxed), 0);
    let mut bytes = vec![0; count * (1 << 20)];
    stdout.read_exact(&mut bytes).unwrap();
    let reader = thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    drop(stdin);
    reader.join().unwrap().unwrap();
    assert_eq!(hands.handed_over.load(Ordering::Relaxed), count);
}

#[test]
fn a_thousand_messages_in_flight_are_no_problem() {
    let session = Session::new(options(Notation::Frames));
    let commands: Vec<u8> = (1..=1_024)
        .flat_map(|id| {
            let message = Some(Message { payload: vec![7; 100].into(), ..Message::default() });
            let send = command::Send { peer: echo::bob().to_string(), message };
            let verb = Some(command::Verb::Send(send));
            stdio::Command { id, timeout_ms: 0, verb }.encode_length_delimited_to_vec()
        })
        .collect();
    let (output, code) = session.play(commands);
    let mut rest = &output[..];
    let mut answered = Vec::new();
    while !rest.is_empty() {
        let event = stdio::Event::decode_length_delimited(&mut rest).unwrap();
        if let Some(stdio::event::Kind::Ok(ok)) = event.kind {
            answered.push(ok.id);
        }
    }
    assert_eq!((answered, code), ((1..=1_024).collect(), 0));
}

#[test]
fn a_large_message_passes_in_frames_byte_for_byte() {
    let session = Session::new(options(Notation::Frames));
    let mut entropy = Entropy::from_seed(3);
    let mut payload: Vec<u8> = (0..1 << 13).flat_map(|_| entropy.bytes::<2_048>()).collect();
    payload.truncate(16 << 20);
    let message = Some(Message { payload: payload.into(), ..Message::default() });
    let request = command::Request { peer: echo::bob().to_string(), message: message.clone() };
    let verb = Some(command::Verb::Request(request));
    let command = stdio::Command { id: 7, timeout_ms: 0, verb }.encode_length_delimited_to_vec();
    let (output, code) = session.play(command);
    let mut rest = &output[..];
    let answer = (0..3).map(|_| stdio::Event::decode_length_delimited(&mut rest).unwrap()).last();
    let Some(stdio::event::Kind::Ok(ok)) = answer.unwrap().kind else {
        panic!("it is not answered");
    };
    let Some(stdio::event::ok::Reply::Received(received)) = ok.reply else {
        panic!("nothing is received");
    };
    assert!(received.message.map(|message| message.payload) == message.map(|it| it.payload));
    assert_eq!(code, 0);
}

#[test]
fn frames_that_cannot_be_told_apart_end_the_session_as_a_mistake_of_usage() {
    for garbage in [&[0xff; 12][..], b"{\"cmd\":\"list\"}\n"] {
        let Session { mut stdin, mut stdout, exit_code, hands } =
            Session::new(options(Notation::Frames));
        stdin.write_all(garbage).unwrap();
        // stdin stays open: the session has to end by itself.
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).unwrap();
        assert_eq!(exit_code.recv_timeout(PATIENCE).unwrap(), 2);
        let mut rest = &output[..];
        let events: Vec<_> =
            (0..4).map(|_| stdio::Event::decode_length_delimited(&mut rest).unwrap()).collect();
        let Some(stdio::event::Kind::Error(error)) = &events[2].kind else {
            panic!("{:?}", events[2]);
        };
        assert_eq!(error.reason.as_ref().unwrap().code, "bad_request");
        let Some(stdio::event::Kind::Bye(bye)) = &events[3].kind else {
            panic!("{:?}", events[3]);
        };
        assert_eq!((bye.reason.as_str(), bye.exit_code), ("fatal", 2));
        drop((stdin, hands));
    }
}

#[test]
fn grease_is_put_in_now_and_then_and_a_reader_that_passes_over_it_misses_nothing() {
    let seeded = |notation| Options { grease: Some(Entropy::from_seed(5)), ..options(notation) };
    let session = Session::new(seeded(Notation::Lines));
    let commands: Vec<u8> = (0..1_000).flat_map(|_| b"ticket\n".to_vec()).collect();
    let (output, _) = session.play(commands);
    let (mut known, mut unknown, mut keys) = (0, 0, 0);
    for line in BufReader::new(&output[..]).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["event"].as_str().unwrap().starts_with("grease_") {
            unknown += 1;
            continue;
        }
        known += 1;
        keys += event.as_object().unwrap().keys().filter(|key| key.starts_with("grease_")).count();
    }
    assert_eq!((known, unknown), (1_003, keys));
    assert!((25..100).contains(&keys), "{keys}");

    let session = Session::new(seeded(Notation::Frames));
    let verb = Some(command::Verb::Ticket(command::Ticket {}));
    let ticket = stdio::Command { id: 1, timeout_ms: 0, verb }.encode_length_delimited_to_vec();
    let (output, _) = session.play(ticket.repeat(1_000));
    let (mut known, mut unknown) = (0, 0);
    let mut rest = &output[..];
    while !rest.is_empty() {
        match stdio::Event::decode_length_delimited(&mut rest).unwrap().kind {
            Some(_) => known += 1,
            None => unknown += 1,
        }
    }
    assert_eq!(known, 1_003);
    assert!((25..100).contains(&unknown), "{unknown}");
}
