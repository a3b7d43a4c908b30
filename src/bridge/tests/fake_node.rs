//! A node that is not there: it answers the bridge's requests by simple rules.
//!
//! Bob is connected and answers at once, Mallory cannot be reached, Carol never answers.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    behaviour::{Dependence, Hairpin, Lifetime, NatBehaviour, Pooling, PortAllocation},
    bridge::{Started, values::Admission},
    failure::{Code, Failure},
    identity::{Identity, PeerId},
    node::{
        Event, Inbox, Life, Netcheck, Node, Outlook, Pair, Ports, Received, Request, StunServer,
        Target, Way,
        event::{
            Connection, Direction, PathKind, PathReport, PeerStatus, Pong, Receipt, SendState,
            Status,
        },
    },
    proto::Message,
    ticket::Ticket,
};

/// The node's own identity.
pub(super) fn alice() -> Identity {
    Identity::from_seed([1; 32])
}

pub(super) fn bob() -> Identity {
    Identity::from_seed([2; 32])
}

/// Never answers.
pub(super) fn carol() -> Identity {
    Identity::from_seed([3; 32])
}

/// Cannot be reached.
pub(super) fn mallory() -> Identity {
    Identity::from_seed([4; 32])
}

/// The test's hands on the fake node.
pub(super) struct Control {
    /// Makes the node tell something.
    pub(super) events: mpsc::Sender<Event>,
    /// Lets messages arrive.
    pub(super) messages: mpsc::Sender<Received>,
    /// What was asked of the node, in order.
    pub(super) requests: Receiver<Asked>,
}

/// What was asked of the node.
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    Connect(Target, Option<Duration>),
    Send(Target, Message),
    Disconnect(PeerId),
    Shutdown,
}

/// How the node takes the end.
#[derive(Clone, Copy)]
pub(super) enum Manner {
    /// Stops when asked to.
    Polite,
    /// Does not answer when asked to stop.
    Stubborn,
    /// Does not answer when asked who is connected.
    Reticent,
}

/// A started node, run by a task of the current runtime.
pub(super) fn start(manner: Manner) -> (Started, Control) {
    let (requests, queue) = mpsc::channel(16);
    let (events, told) = mpsc::channel(4);
    let (messages, inbox) = Inbox::invent();
    let (log, requests_seen) = channel();
    tokio::spawn(serve(queue, log, manner));
    let started = Started {
        node: Node::to(alice().peer_id(), Ticket::of(&alice(), Vec::new()), requests),
        events: told,
        inbox,
        addresses: vec!["192.168.1.20:41641".parse().unwrap()],
        admission: Admission::Anyone,
    };
    let control = Control { events, messages, requests: requests_seen };
    (started, control)
}

async fn serve(mut queue: mpsc::Receiver<Request>, log: Sender<Asked>, manner: Manner) {
    let seen = |asked| {
        // A test that does not look drops its end.
        let _ = log.send(asked);
    };
    let mut sends_held = Vec::new();
    let mut connects_held = Vec::new();
    let mut lists_held = Vec::new();
    while let Some(request) = queue.recv().await {
        match request {
            Request::Connect { target, timeout, answer } => {
                seen(Asked::Connect(target.clone(), timeout));
                match reach(&target) {
                    Some(outcome) => drop(answer.send(outcome.map(|()| connection()))),
                    None => connects_held.push(answer),
                }
            }
            Request::Send { target, message, answer, .. } => {
                let message_id = message.id.clone();
                seen(Asked::Send(target.clone(), message));
                match reach(&target) {
                    Some(outcome) => drop(answer.send(outcome.map(|()| receipt(message_id)))),
                    None => sends_held.push(answer),
                }
            }
            Request::Disconnect { peer, answer } => {
                seen(Asked::Disconnect(peer));
                let _ = answer.send(match peer == bob().peer_id() {
                    true => Ok(()),
                    false => Err(Failure::new(Code::PeerNotFound, "not connected")),
                });
            }
            Request::Peers { answer } => match manner {
                Manner::Polite | Manner::Stubborn => drop(answer.send(Ok(vec![peer_status()]))),
                Manner::Reticent => lists_held.push(answer),
            },
            Request::Status { answer } => drop(answer.send(Ok(status()))),
            Request::Ping { peer, answer } => {
                let pong = Pong { peer, rtt: Duration::from_millis(35), path: path() };
                drop(answer.send(reach(&Target::Peer(peer)).unwrap_or(Ok(())).map(|()| pong)));
            }
            Request::Netcheck { question, answer, .. } => {
                drop(answer.send(Ok(netcheck(question.peer))));
            }
            Request::Shutdown { answer } => match manner {
                Manner::Polite | Manner::Reticent => {
                    seen(Asked::Shutdown);
                    // The answers that are held are dropped with the queue.
                    drop((sends_held, connects_held, lists_held));
                    return drop(answer.send(Ok(())));
                }
                Manner::Stubborn => std::future::pending().await,
            },
        }
    }
}

fn reach(target: &Target) -> Option<Result<(), Failure>> {
    let peer = target.peer().unwrap_or_else(|| bob().peer_id());
    if peer == carol().peer_id() {
        return None;
    }
    let failure = Failure::new(Code::PunchTimeout, "no answer on 3 addresses")
        .because("312 probes in 10.0 s")
        .hint("try a network with IPv6");
    Some(if peer == mallory().peer_id() { Err(failure) } else { Ok(()) })
}

pub(super) fn connection() -> Connection {
    Connection {
        peer: bob().peer_id(),
        direction: Direction::Outgoing,
        path: path(),
        rtt: Duration::from_micros(34_100),
        took: Duration::from_millis(1_021),
    }
}

pub(super) fn path() -> PathReport {
    PathReport {
        kind: PathKind::Direct,
        local: "192.168.1.20:41641".parse().unwrap(),
        remote: "198.51.100.9:50112".parse().unwrap(),
    }
}

fn receipt(message_id: String) -> Receipt {
    Receipt {
        peer: Some(bob().peer_id()),
        message_id,
        state: SendState::Delivered,
        rtt: Duration::from_millis(35),
    }
}

fn peer_status() -> PeerStatus {
    PeerStatus {
        connection: connection(),
        connected_for: Duration::from_secs(60),
        path_for: Duration::from_secs(20),
        loss: Some(0.0123),
        messages: (3, 2),
    }
}

fn netcheck(peer: Option<Target>) -> Netcheck {
    let way = Way {
        method: "probes from both sides".to_owned(),
        why: "neither NAT is known to give each destination another port".to_owned(),
        outlook: Outlook::Opens,
        takes: "one or two round trips".to_owned(),
    };
    let pair = Pair {
        peer: bob().peer_id(),
        addresses: vec!["198.51.100.9:50112".parse().unwrap()],
        nat: NatBehaviour::new(Some(Dependence::EndpointIndependent), None),
        record_age: Some(Duration::from_secs(90)),
        helpers: 2,
        ways: vec![way],
        outlook: Outlook::Opens,
        verdict: "It takes one or two round trips.".to_owned(),
    };
    Netcheck {
        udp: true,
        local_addresses: vec!["192.168.1.20:41641".parse().unwrap()],
        public_addresses: vec!["203.0.113.7:41641".parse().unwrap()],
        mapping: Some(Dependence::EndpointIndependent),
        filtering: None,
        ports: Ports {
            allocation: Some(PortAllocation::Block { low: 41_000, high: 41_900 }),
            seen: 8,
            by_chance_once_in: Some(900),
        },
        pooling: Some(Pooling::Paired),
        hairpin: Some(Hairpin::Missing),
        lifetime: Life::Measured(Lifetime {
            at_least: Some(Duration::from_secs(60)),
            less_than: Some(Duration::from_secs(90)),
        }),
        keep_alive: Duration::from_secs(25),
        stun_servers: vec![
            StunServer {
                name: "stun.example:3478".to_owned(),
                address: "198.51.100.10:3478".parse().unwrap(),
                rtt: Some(Duration::from_micros(20_500)),
            },
            StunServer {
                name: "stun.example.net:3478".to_owned(),
                address: "198.51.100.11:3478".parse().unwrap(),
                rtt: None,
            },
        ],
        dht_nodes: 18,
        helpers: 1,
        is_helper: false,
        is_complete: true,
        verdicts: vec!["peers behind home routers will work".to_owned()],
        pairs: peer.map(|_| pair).into_iter().collect(),
    }
}

fn status() -> Status {
    Status {
        peer_id: alice().peer_id(),
        local_addresses: vec!["192.168.1.20:41641".parse().unwrap()],
        public_addresses: vec!["203.0.113.7:41641".parse().unwrap()],
        nat: "one mapping for all destinations".to_owned(),
        online: true,
        uptime: Duration::from_secs(90),
        peers: 1,
        dht_nodes: 18,
    }
}
