//! What ends a session, and what the end of stdin means.

use std::{sync::mpsc, time::Duration};

use super::{
    fake_node::{Manner, carol},
    harness::{Bridge, PATIENCE, options, start_with},
};
use crate::bridge::{Options, STOP_TIME_MAX, Signal, StdinEof};

fn bridge(stdin_eof: StdinEof) -> Bridge {
    let bridge = Bridge::with(Options { stdin_eof, ..options() }, Manner::Polite, start_with);
    bridge.skip_greeting();
    bridge
}

#[test]
fn a_service_goes_on_after_the_end_of_stdin() {
    let mut bridge = bridge(StdinEof::Ignore);
    bridge.write(b"@1 ticket\n");
    bridge.close_stdin();
    assert!(bridge.read().unwrap().starts_with(r#"{"event":"ok","id":"1""#));
    bridge.signal(Signal::Terminate);
    assert_eq!(bridge.read().unwrap(), r#"{"event":"bye","reason":"signal","exit_code":0}"#);
}

#[test]
fn the_end_of_stdin_may_cut_commands_off() {
    let mut bridge = bridge(StdinEof::Abort);
    bridge.write(format!("@1 connect {}\n", carol().peer_id()).as_bytes());
    bridge.close_stdin();
    let error = bridge.read().unwrap();
    assert!(error.starts_with(r#"{"event":"error","id":"1","code":"shutting_down""#), "{error}");
    assert_eq!(bridge.read().unwrap(), r#"{"event":"bye","reason":"stdin_eof","exit_code":7}"#);
}

#[test]
fn a_panic_ends_the_session_as_a_bug() {
    let bridge = bridge(StdinEof::Drain);
    bridge.signal(Signal::Panicked);
    assert!(bridge.read().unwrap().contains(r#""id":null,"code":"internal""#));
    assert_eq!(bridge.read().unwrap(), r#"{"event":"bye","reason":"fatal","exit_code":1}"#);
    assert_eq!(bridge.exit_code(), 1);
}

#[test]
fn a_session_whose_parent_is_gone_waits_for_nobody() {
    let options = options();
    let bridge = Bridge::with(options, Manner::Stubborn, start_with);
    bridge.skip_greeting();
    bridge.signal(Signal::ParentGone);
    assert_eq!(bridge.read().unwrap(), r#"{"event":"bye","reason":"parent_gone","exit_code":0}"#);
    assert_eq!(bridge.exit_code(), 0);
}

#[test]
fn whoever_watches_over_the_end_is_told_how_long_it_takes() {
    let (limits, told) = mpsc::channel();
    let ending = Box::new(move |limit| limits.send(limit).unwrap());
    let mut bridge = Bridge::with(Options { ending, ..options() }, Manner::Polite, start_with);
    bridge.write(b"quit\n");
    assert_eq!(bridge.exit_code(), 0);
    let told: Vec<Duration> = told.iter().collect();
    assert_eq!(told, [STOP_TIME_MAX + Duration::from_secs(5), STOP_TIME_MAX]);
    assert!(STOP_TIME_MAX < PATIENCE);
}
