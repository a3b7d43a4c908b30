//! What happens when a node is killed: real processes on loopback, SIGKILL at random moments, and every
//! message accounted for.
//!
//! A failure prints its seed; `P2P_NODE_SEED=<seed>` runs that round alone.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says how each round went"
)]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod ledger;
mod process;

use std::{fs, path::PathBuf, thread, time::Duration};

use ledger::check;
use p2p_node::entropy::Entropy;
use process::{Node, Talk, ticket};

/// Rounds of one run: a hundred, in four tests that can run side by side.
const ROUNDS: u64 = 25;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Server,
    Client,
}

#[test]
fn every_message_is_accounted_for_when_a_node_is_killed() {
    rounds(0);
}

#[test]
fn every_message_is_accounted_for_when_a_node_is_killed_again() {
    rounds(ROUNDS);
}

#[test]
fn every_message_is_accounted_for_when_a_node_is_killed_once_more() {
    rounds(2 * ROUNDS);
}

#[test]
fn every_message_is_accounted_for_however_often_a_node_is_killed() {
    rounds(3 * ROUNDS);
}

fn rounds(first: u64) {
    match std::env::var("P2P_NODE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => println!("{} delivered", round(seed)),
        None => {
            let delivered: usize = (first..first + ROUNDS).map(round).sum();
            assert!(delivered > 0, "a test that delivers nothing shows nothing");
        }
    }
}

/// Two nodes talk both ways; one is killed and comes back; then both stop in peace.
fn round(seed: u64) -> usize {
    let mut entropy = Entropy::from_seed(seed);
    let mut some_ms = |max: u8| Duration::from_millis(u64::from(entropy.bytes::<1>()[0] % max));
    let victim = if seed.is_multiple_of(2) { Victim::Server } else { Victim::Client };
    let home = home(seed);

    let server_identity = home.join("server.key");
    let mut server = Node::server(&server_identity, 0, "s0");
    let port = server.port();
    let ticket = ticket(&server_identity, port);
    let client_identity = home.join("client.key");
    let mut client = Node::client(&client_identity, &ticket, "c0");
    client.await_connected();
    let server_talks = Talk::begin(&server, &client.peer_id());
    let client_talks = Talk::begin(&client, &server.peer_id());
    thread::sleep(some_ms(200));

    let mut dead = Vec::new();
    let delivered = match victim {
        Victim::Server => {
            server.kill();
            dead.push((server, server_talks));
            thread::sleep(some_ms(200));
            server = Node::server(&server_identity, port, "s1");
            let talks = Talk::begin(&server, &client.peer_id());
            thread::sleep(some_ms(250));
            finish(seed, dead, vec![(server, talks), (client, client_talks)])
        }
        Victim::Client => {
            client.kill();
            dead.push((client, client_talks));
            thread::sleep(some_ms(200));
            client = Node::client(&client_identity, &ticket, "c1");
            client.await_connected();
            let talks = Talk::begin(&client, &server.peer_id());
            thread::sleep(some_ms(250));
            finish(seed, dead, vec![(server, server_talks), (client, talks)])
        }
    };
    // What is left behind would only take room.
    let _ = fs::remove_dir_all(home);
    delivered
}

fn finish(seed: u64, dead: Vec<(Node, Talk)>, alive: Vec<(Node, Talk)>) -> usize {
    for (_, talk) in &alive {
        talk.stop();
    }
    let alive: Vec<_> = alive.into_iter().map(|(node, talk)| (node, talk.finish())).collect();
    let records: Vec<_> = dead
        .into_iter()
        .map(|(node, talk)| (node, talk.finish()))
        .chain(alive)
        .map(|(node, sent)| node.end(sent))
        .collect();
    check(seed, &records)
}

fn home(seed: u64) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{seed}"));
    // What an earlier run left.
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}
