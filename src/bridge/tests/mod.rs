//! Stories of a bridge between two pipes and a fake node.

mod endings;
mod fake_node;
mod harness;
mod in_frames;
mod transcripts;

use std::{
    future::{pending, ready},
    io::{Read, Write},
    thread,
    time::Duration,
};

use fake_node::{Asked, Manner, bob, carol};
use harness::{Bridge, io, options, start_with};

use super::{
    Notation, Signal, lines::LINE_BYTES_MAX, reader::Reader, recipient::Recipient, run,
    work::COMMANDS_RUNNING_MAX,
};
use crate::{
    entropy::Entropy,
    failure::{Code, Failure},
    node::{Handover, Received, Target},
    proto::Message,
    ticket::Ticket,
};

#[test]
fn hello_does_not_wait_for_the_start() {
    let bridge = Bridge::with(options(), Manner::Polite, |_| pending());
    assert!(bridge.read().unwrap().starts_with(r#"{"event":"hello","node":"p2p-node""#));
    bridge.signal(Signal::Terminate);
    assert_eq!(bridge.read().unwrap(), r#"{"event":"bye","reason":"signal","exit_code":0}"#);
    assert_eq!(bridge.exit_code(), 0);
}

#[test]
fn a_start_that_fails_is_told_and_ends_the_program() {
    let bridge = Bridge::with(options(), Manner::Polite, |_| {
        let failure = Failure::new(Code::KeyInUse, "another node runs with this identity");
        ready(Err(failure.hint("--ephemeral")))
    });
    bridge.read();
    assert_eq!(
        bridge.read().unwrap(),
        r#"{"event":"error","id":null,"code":"key_in_use","message":"another node runs with this identity","hint":"--ephemeral","retryable":false}"#
    );
    assert_eq!(bridge.read().unwrap(), r#"{"event":"bye","reason":"fatal","exit_code":3}"#);
    assert_eq!(bridge.exit_code(), 3);
}

#[test]
fn a_megabyte_of_noise_does_no_harm() {
    let mut entropy = Entropy::from_seed(7);
    let mut noise: Vec<u8> = (0..128 * 1024).flat_map(|_| entropy.bytes::<8>()).collect();
    noise.push(b'\n');
    let expected = answers_to(&noise);
    let mut bridge = Bridge::new(Manner::Polite);
    bridge.skip_greeting();
    let mut stdin = bridge.take_stdin();
    let writer = thread::spawn(move || {
        stdin.write_all(&noise).unwrap();
        stdin.write_all(b"@after list\n").unwrap();
        stdin
    });
    let mut errors = 0;
    loop {
        let line = bridge.read().unwrap();
        if line.starts_with(r#"{"event":"ok","id":"after""#) {
            break;
        }
        assert!(line.starts_with(r#"{"event":"error","id":"#), "{line}");
        errors += 1;
    }
    assert_eq!(errors, expected);
    assert!(errors > 1_000);
    drop(writer.join().unwrap());
}

#[test]
fn a_line_without_end_is_skipped() {
    let mut bridge = Bridge::new(Manner::Polite);
    bridge.skip_greeting();
    bridge.write(&vec![b'x'; LINE_BYTES_MAX + 1]);
    assert!(bridge.read().unwrap().contains(r#""code":"line_too_long""#));
    bridge.write(b"x\n@1 ticket\n");
    assert!(bridge.read().unwrap().starts_with(r#"{"event":"ok","id":"1","ticket":"#));
}

#[test]
fn messages_to_one_peer_keep_their_order() {
    const COUNT: usize = 2_000;
    let mut bridge = Bridge::new(Manner::Polite);
    bridge.skip_greeting();
    let mut stdin = bridge.take_stdin();
    let writer = thread::spawn(move || {
        for number in 0..COUNT {
            writeln!(stdin, "send service {number}").unwrap();
        }
        stdin
    });
    let mut refused = 0;
    for _ in 0..COUNT {
        refused += usize::from(bridge.read().unwrap().contains("queue_full"));
    }
    let payload = |asked| match asked {
        Asked::Send(_, message) => std::str::from_utf8(&message.payload).unwrap().parse().unwrap(),
        other @ (Asked::Connect(..) | Asked::Disconnect(_) | Asked::Shutdown) => {
            panic!("not a send: {other:?}")
        }
    };
    let sent: Vec<usize> = bridge.node.requests.try_iter().map(payload).collect();
    assert_eq!(sent.len(), COUNT - refused);
    assert!(sent.is_sorted(), "{sent:?}");
    drop(writer.join().unwrap());
}

#[test]
fn more_commands_than_may_run_are_refused_at_once() {
    let mut bridge = Bridge::new(Manner::Polite);
    bridge.skip_greeting();
    let carol = carol().peer_id();
    for _ in 0..COMMANDS_RUNNING_MAX {
        bridge.write(format!("connect {carol}\n").as_bytes());
    }
    bridge.write(b"@extra status\n");
    let answer = bridge.read().unwrap();
    assert!(answer.starts_with(r#"{"event":"error","id":"extra","code":"queue_full""#), "{answer}");
}

#[test]
fn a_command_has_as_much_time_as_it_says() {
    let mut bridge = Bridge::new(Manner::Reticent);
    bridge.skip_greeting();
    bridge.write(b"{\"cmd\":\"list\",\"id\":7,\"timeout_ms\":5}\n");
    let answer = bridge.read().unwrap();
    assert!(answer.starts_with(r#"{"event":"error","id":7,"code":"timeout""#), "{answer}");
}

#[test]
fn a_node_that_dies_is_a_bug_and_said_to_be_one() {
    let mut bridge = Bridge::new(Manner::Polite);
    bridge.skip_greeting();
    let (nobody, _) = tokio::sync::mpsc::channel(1);
    bridge.node.events = nobody;
    let error = bridge.read().unwrap();
    assert!(error.starts_with(r#"{"event":"error","id":null,"code":"internal""#), "{error}");
    assert_eq!(bridge.read().unwrap(), r#"{"event":"bye","reason":"fatal","exit_code":1}"#);
    assert_eq!(bridge.exit_code(), 1);
}

#[test]
fn a_cancelled_command_takes_its_message_back() {
    let mut bridge = Bridge::new(Manner::Polite);
    bridge.skip_greeting();
    let carol = carol().peer_id();
    bridge.write(format!("@slow send {carol} 1\ncancel slow\n@slow ticket\n").as_bytes());
    for start in [
        r#"{"event":"error","id":"slow","code":"cancelled""#,
        r#"{"event":"ok","id":null}"#,
        r#"{"event":"ok","id":"slow","ticket""#,
    ] {
        let answer = bridge.read().unwrap();
        assert!(answer.starts_with(start), "{answer}");
    }
}

#[test]
fn messages_wait_for_credit_and_answers_do_not() {
    let mut bridge = Bridge::new(Manner::Polite);
    bridge.skip_greeting();
    bridge.write(b"hello 1 2\n");
    bridge.read();
    for number in 0..5 {
        let message = Message { id: number.to_string(), ..Message::default() };
        let peer = bob().peer_id();
        let received = Received { peer, message, handover: Handover::new() };
        bridge.node.messages.blocking_send(received).unwrap();
    }
    let next = |bridge: &Bridge| bridge.read().unwrap();
    assert!(next(&bridge).contains(r#""message":{"id":"0""#));
    assert!(next(&bridge).contains(r#""message":{"id":"1""#));
    bridge.write(b"@a ticket\n");
    assert!(next(&bridge).starts_with(r#"{"event":"ok","id":"a""#));
    bridge.write(b"@b credit 1\n");
    assert!(next(&bridge).starts_with(r#"{"event":"ok","id":"b""#));
    assert!(next(&bridge).contains(r#""message":{"id":"2""#));
    bridge.write(b"@c ticket\n");
    assert!(next(&bridge).starts_with(r#"{"event":"ok","id":"c""#));
}

#[test]
fn senders_wait_while_nobody_reads_stdout() {
    let (io, mut ends) = io();
    let (handle, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (started, control) = fake_node::start(Manner::Polite);
            handle.send(control).unwrap();
            run(io, options(), start_with(started)).await
        });
    });
    let node = told.recv().unwrap();
    let message = |number: usize| Received {
        peer: bob().peer_id(),
        message: Message {
            id: number.to_string(),
            payload: vec![b'x'; 1024 * 1024].into(),
            ..Message::default()
        },
        handover: Handover::new(),
    };
    // What the bridge takes in a second without a reader is all that it takes.
    let mut taken = 0;
    let waiter = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    waiter.block_on(async {
        let second = Duration::from_secs(1);
        while node.messages.send_timeout(message(taken), second).await.is_ok() {
            taken += 1;
            assert!(taken < 50, "the bridge takes whatever comes");
        }
    });
    let reader = thread::spawn(move || {
        let mut text = String::new();
        ends.stdout.read_to_string(&mut text).unwrap();
        text
    });
    drop(ends.stdin);
    let text = reader.join().unwrap();
    let ids: Vec<String> =
        (0..taken).map(|number| format!(r#""message":{{"id":"{number}""#)).collect();
    let messages: Vec<&str> =
        text.lines().filter(|line| line.contains(r#""event":"message""#)).collect();
    assert_eq!(messages.len(), taken);
    assert!(messages.iter().zip(&ids).all(|(line, id)| line.contains(id.as_str())));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_stdin_waits_for_running_commands_but_not_for_ever() {
    let (io, mut ends) = io();
    let (started, _control) = fake_node::start(Manner::Polite);
    writeln!(ends.stdin, "@7 send {} 1", carol().peer_id()).unwrap();
    drop(ends.stdin);
    let begun = tokio::time::Instant::now();
    assert_eq!(run(io, options(), start_with(started)).await, 7);
    // The commands' 30 s, and up to 2 s for whoever reads the last lines.
    assert!((30..=32).contains(&begun.elapsed().as_secs()));
    let mut text = String::new();
    ends.stdout.read_to_string(&mut text).unwrap();
    let last: Vec<&str> = text.lines().skip(2).collect();
    assert!(last[0].starts_with(r#"{"event":"error","id":"7","code":"shutting_down""#), "{text}");
    assert_eq!(last[1], r#"{"event":"bye","reason":"stdin_eof","exit_code":7}"#);
}

#[test]
fn nobody_reading_stdout_ends_the_node() {
    let (io, ends) = io();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    drop(ends.stdout);
    let exit_code = runtime.block_on(async {
        let (started, _control) = fake_node::start(Manner::Polite);
        run(io, options(), start_with(started)).await
    });
    assert_eq!(exit_code, 0);
}

#[test]
fn a_second_interrupt_ends_a_node_that_does_not_stop() {
    let bridge = Bridge::new(Manner::Stubborn);
    bridge.skip_greeting();
    bridge.signal(Signal::Interrupt);
    bridge.signal(Signal::Interrupt);
    assert_eq!(bridge.exit_code(), 130);
    assert_eq!(bridge.read().unwrap(), r#"{"event":"bye","reason":"signal","exit_code":130}"#);
}

#[test]
fn the_peer_that_the_node_was_started_for_is_connected_and_meant() {
    let mut options = options();
    options.connect = Some(Recipient::Peer(bob().peer_id()));
    let mut bridge = Bridge::with(options, Manner::Polite, start_with);
    bridge.skip_greeting();
    assert!(bridge.read().unwrap().starts_with(r#"{"event":"ok","id":"--connect","peer":"#));
    bridge.write(b"{\"cmd\":\"connect\",\"timeout_ms\":9}\n");
    bridge.read();
    let bob = Target::Peer(bob().peer_id());
    let asked: Vec<Asked> = bridge.node.requests.try_iter().collect();
    let timeout = Some(Duration::from_millis(9));
    assert_eq!(asked, [Asked::Connect(bob.clone(), None), Asked::Connect(bob, timeout)]);
}

#[test]
fn a_server_on_this_machine_is_asked_before_the_dht() {
    let ticket = Ticket::of(&bob(), vec!["127.0.0.1:41641".parse().unwrap()]);
    let mut options = options();
    let nearby = ticket.clone();
    options.nearby = Box::new(move || Some(nearby.clone()));
    let mut bridge = Bridge::with(options, Manner::Polite, start_with);
    bridge.skip_greeting();
    bridge.write(b"connect service\n");
    bridge.read();
    let asked: Vec<Asked> = bridge.node.requests.try_iter().collect();
    assert_eq!(asked, [Asked::Connect(Target::Ticket(ticket), None)]);
}

/// How many lines of `bytes` want an answer.
fn answers_to(bytes: &[u8]) -> usize {
    let mut inputs = Vec::new();
    Reader::new(Notation::Lines).read(&mut &bytes[..], &mut inputs, usize::MAX);
    inputs.len()
}
