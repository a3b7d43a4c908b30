//! What commands come to, as the fields of their `ok` line.

use std::{fmt::Display, net::SocketAddr, time::Duration};

use serde::{Serialize, Serializer};

use super::command::COMMANDS;
use crate::{
    identity::PeerId,
    node::event::{Connection, Direction, PathReport, PeerStatus, Receipt, SendState, Status},
};

/// What came of a command.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Of `send` and `say`.
    Delivered(Delivery),
    /// Of `connect`.
    Connected(Link),
    /// Of `disconnect`.
    Disconnected {
        /// From whom.
        #[serde(serialize_with = "display")]
        peer: PeerId,
    },
    /// Of `list`.
    Peers {
        /// The connected peers, in the order of their ids.
        peers: Vec<Peer>,
    },
    /// Of `status`.
    Status(Box<StatusReply>),
    /// Of `ticket`.
    Ticket {
        /// The node's ticket.
        ticket: String,
    },
    /// Of `help`.
    Help {
        /// All commands.
        commands: Vec<CommandHelp>,
    },
    /// Of `quit`.
    Nothing {},
}

/// What became of a message.
#[derive(Debug, Serialize)]
pub struct Delivery {
    message_id: String,
    #[serde(serialize_with = "display")]
    peer: PeerId,
    state: &'static str,
    rtt_ms: f64,
}

/// A link that is up.
#[derive(Debug, Serialize)]
pub struct Link {
    /// To whom.
    #[serde(serialize_with = "display")]
    pub peer: PeerId,
    direction: &'static str,
    path: Path,
    rtt_ms: f64,
    took_ms: u64,
}

/// How a peer is reached.
#[derive(Debug, Serialize)]
pub struct Path {
    kind: &'static str,
    local: SocketAddr,
    remote: SocketAddr,
}

/// A connected peer.
#[derive(Debug, Serialize)]
pub struct Peer {
    #[serde(flatten)]
    link: Link,
    connected_ms: u64,
    messages_sent: u64,
    messages_received: u64,
}

/// How the node fares.
#[derive(Debug, Serialize)]
pub struct StatusReply {
    #[serde(serialize_with = "display")]
    peer_id: PeerId,
    online: bool,
    nat: String,
    local_addrs: Vec<SocketAddr>,
    public_addrs: Vec<SocketAddr>,
    peers: usize,
    uptime_ms: u64,
    dht_nodes: usize,
}

/// One command, explained.
#[derive(Debug, Serialize)]
pub struct CommandHelp {
    usage: &'static str,
    does: &'static str,
}

impl From<&Connection> for Link {
    fn from(connection: &Connection) -> Self {
        Self {
            peer: connection.peer,
            direction: match connection.direction {
                Direction::Outgoing => "out",
                Direction::Incoming => "in",
            },
            path: (&connection.path).into(),
            rtt_ms: millis(connection.rtt),
            took_ms: whole_millis(connection.took),
        }
    }
}

impl From<&PathReport> for Path {
    fn from(path: &PathReport) -> Self {
        Self { kind: path.kind.as_str(), local: path.local, remote: path.remote }
    }
}

impl From<PeerStatus> for Peer {
    fn from(peer: PeerStatus) -> Self {
        let (messages_sent, messages_received) = peer.messages;
        Self {
            link: (&peer.connection).into(),
            connected_ms: whole_millis(peer.connected_for),
            messages_sent,
            messages_received,
        }
    }
}

impl From<Receipt> for Reply {
    fn from(receipt: Receipt) -> Self {
        Self::Delivered((&receipt).into())
    }
}

impl From<&Receipt> for Delivery {
    fn from(receipt: &Receipt) -> Self {
        Self {
            message_id: receipt.message_id.clone(),
            peer: receipt.peer,
            state: match receipt.state {
                SendState::Delivered => "delivered",
                SendState::Queued => "queued",
            },
            rtt_ms: millis(receipt.rtt),
        }
    }
}

impl From<Vec<PeerStatus>> for Reply {
    fn from(peers: Vec<PeerStatus>) -> Self {
        Self::Peers { peers: peers.into_iter().map(Peer::from).collect() }
    }
}

impl From<Status> for Reply {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(StatusReply {
            peer_id: status.peer_id,
            online: status.online,
            nat: status.nat,
            local_addrs: status.local_addresses,
            public_addrs: status.public_addresses,
            peers: status.peers,
            uptime_ms: whole_millis(status.uptime),
            dht_nodes: status.dht_nodes,
        }))
    }
}

impl Reply {
    /// The answer to `help`.
    pub fn help() -> Self {
        let commands = COMMANDS.iter().map(|&(usage, does)| CommandHelp { usage, does });
        Self::Help { commands: commands.collect() }
    }
}

pub(super) fn display<T: Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(super) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds with microseconds behind the point.
pub(super) fn millis(duration: Duration) -> f64 {
    f64::from(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)) / 1_000.0
}
