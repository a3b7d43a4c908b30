//! What commands come to: the fields of their `ok`.

pub mod netcheck;

use std::net::SocketAddr;

use serde::{Serialize, Serializer};

use self::netcheck::NetcheckReply;
use super::{
    grammar::COMMANDS,
    values::{Given, Reason, display, display_some, millis, percent, whole_millis},
};
use crate::{
    failure::Failure,
    identity::PeerId,
    node::{
        self,
        event::{Connection, Direction, PathReport, PeerStatus, Receipt, SendState, Sent, Status},
    },
    proto::Message,
};

/// What came of a command.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Of `send`, `say` and `reply`.
    Delivered(Delivery),
    /// Of `broadcast`.
    Broadcast {
        /// Who has it.
        sent: Vec<Delivery>,
        /// Who has not.
        failed: Vec<Failed>,
    },
    /// Of `request`: the message that answers it.
    Answered {
        /// From whom.
        #[serde(serialize_with = "display")]
        peer: PeerId,
        /// What it says.
        #[serde(serialize_with = "given")]
        message: Message,
    },
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
    /// Of `ping`.
    Pong {
        /// Who answered.
        #[serde(serialize_with = "display")]
        peer: PeerId,
        /// Through queues and all.
        rtt_ms: f64,
        /// How it is reached.
        path: Path,
    },
    /// Of `netcheck`.
    Netcheck(Box<NetcheckReply>),
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
    /// Of `hello`.
    Protocol {
        /// The version that is spoken from here on.
        protocol: u32,
    },
    /// Of `listen`, `credit`, `cancel` and `quit`.
    Nothing {},
}

/// What became of a message.
#[derive(Debug, Serialize)]
pub struct Delivery {
    /// Which message.
    pub message_id: String,
    /// Who has it; or is to have it, if that is known yet.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display_some")]
    pub peer: Option<PeerId>,
    /// `delivered` or `queued`.
    pub state: &'static str,
    /// From hand-over to acknowledgement, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// What became of a message to one of several peers.
#[derive(Debug)]
pub struct Failed {
    /// Who does not have it.
    pub peer: PeerId,
    /// Why.
    pub failure: Failure,
}

/// A link that is up.
#[derive(Debug, Serialize)]
pub struct Link {
    /// To whom.
    #[serde(serialize_with = "display")]
    pub peer: PeerId,
    /// Who dialled: `out` or `in`.
    pub direction: &'static str,
    /// How the peer is reached.
    pub path: Path,
    /// Round-trip time.
    pub rtt_ms: f64,
    /// From the dial's begin to the link.
    pub took_ms: u64,
}

/// How a peer is reached.
#[derive(Debug, Serialize)]
pub struct Path {
    /// `loopback`, `lan` or `direct`.
    pub kind: &'static str,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

/// A connected peer.
#[derive(Debug, Serialize)]
pub struct Peer {
    /// How it is connected.
    #[serde(flatten)]
    pub link: Link,
    /// For how long.
    pub connected_ms: u64,
    /// For how long over the current path.
    pub path_ms: u64,
    /// Of the packets sent to it lately, those that were lost; absent if none was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_percent: Option<f64>,
    /// Messages that it acknowledged.
    pub messages_sent: u64,
    /// Messages that it sent.
    pub messages_received: u64,
}

/// How the node fares.
#[derive(Debug, Serialize)]
pub struct StatusReply {
    /// Who it is.
    #[serde(serialize_with = "display")]
    pub peer_id: PeerId,
    /// Whether its record is in the DHT.
    pub online: bool,
    /// How its NAT behaves, for people.
    pub nat: String,
    /// Its addresses on its own interfaces.
    pub local_addrs: Vec<SocketAddr>,
    /// Its addresses as STUN servers see them.
    pub public_addrs: Vec<SocketAddr>,
    /// How many peers are connected.
    pub peers: usize,
    /// Since its start.
    pub uptime_ms: u64,
    /// DHT nodes that answered lately.
    pub dht_nodes: usize,
}

/// One command, explained.
#[derive(Debug, Serialize)]
pub struct CommandHelp {
    /// How to type it.
    pub usage: &'static str,
    /// What it does.
    pub does: &'static str,
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
            path_ms: whole_millis(peer.path_for),
            loss_percent: peer.loss.map(percent),
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
        let (state, rtt_ms) = match receipt.state {
            SendState::Delivered => ("delivered", Some(millis(receipt.rtt))),
            SendState::Queued => ("queued", None),
        };
        Self { message_id: receipt.message_id.clone(), peer: receipt.peer, state, rtt_ms }
    }
}

impl From<Vec<Sent>> for Reply {
    fn from(all: Vec<Sent>) -> Self {
        let (mut sent, mut failed) = (Vec::new(), Vec::new());
        for Sent { peer, outcome } in all {
            match outcome {
                Ok(receipt) => sent.push(Delivery::from(&receipt)),
                Err(failure) => failed.push(Failed { peer, failure }),
            }
        }
        Self::Broadcast { sent, failed }
    }
}

impl From<node::event::Pong> for Reply {
    fn from(pong: node::event::Pong) -> Self {
        Self::Pong { peer: pong.peer, rtt_ms: millis(pong.rtt), path: (&pong.path).into() }
    }
}

impl From<node::Netcheck> for Reply {
    fn from(netcheck: node::Netcheck) -> Self {
        Self::Netcheck(Box::new(netcheck.into()))
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
        let commands =
            COMMANDS.iter().map(|form| CommandHelp { usage: form.usage, does: form.does });
        Self::Help { commands: commands.collect() }
    }
}

impl Serialize for Failed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            #[serde(serialize_with = "display")]
            peer: PeerId,
            #[serde(flatten)]
            reason: Reason<'a>,
        }
        Written { peer: self.peer, reason: (&self.failure).into() }.serialize(serializer)
    }
}

fn given<S: Serializer>(message: &Message, serializer: S) -> Result<S::Ok, S::Error> {
    Given(message).serialize(serializer)
}
