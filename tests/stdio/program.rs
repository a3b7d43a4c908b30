//! What the real program says before it meets anybody. It is kept off the public network, as in all tests.

use std::{
    io::{BufRead, BufReader},
    net::UdpSocket,
    process::{Command, Stdio},
};

use serde_json::Value;

/// A client that is started with `arguments`.
fn client(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2p-node"));
    command
        .args(["--mode", "client"])
        .args(arguments)
        .env("P2P_NODE_DHT_BOOTSTRAP", "none")
        .env("P2P_NODE_STUN", "none")
        .env("P2P_NODE_NO_LAN", "1");
    command
}

/// The events of a client that is started with `arguments` and whose stdin ends at once.
fn events(arguments: &[&str]) -> Vec<Value> {
    let output = client(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_address_that_is_taken_is_told_and_ends_the_program() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let events = events(&["--bind", &address]);
    let error = events.iter().find(|event| event["event"] == "error").expect("it fails");
    assert_eq!(error["code"], "address_in_use");
    let bye = events.last().unwrap();
    assert_eq!((&bye["reason"], &bye["exit_code"]), (&"fatal".into(), &3.into()));
}

#[test]
fn a_stun_server_that_does_not_answer_is_warned_of() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let mut child = client(&["--bind", "127.0.0.1:0", "--stun", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut events = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let warning = events.find(|event| event["event"] == "warning").expect("it warns");
    assert_eq!(warning["code"], "stun_failed");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
