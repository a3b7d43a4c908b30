//! What a node tells its user without being asked.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::{
    failure::Failure,
    identity::PeerId,
    nat::strategy::{Aim, Method, Order, Plan},
    service::ServiceName,
    ticket::Ticket,
};

/// How a user names the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any server of the node's own service.
    Service(ServiceName),
    /// This peer, found by its public record.
    Peer(PeerId),
    /// This peer, found by the private record that its ticket leads to.
    Ticket(Ticket),
}

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The node's record is in the DHT: others can find it.
    Online {
        /// DHT nodes that hold it.
        stored_at: usize,
        /// Endpoints that the record names.
        addresses: Vec<SocketAddr>,
        /// Since the node's start.
        took: Duration,
    },
    /// A dial begins.
    Connecting {
        /// Whom it is to reach.
        target: Target,
    },
    /// A dial has come one step further.
    Progress {
        /// Whom it is to reach.
        target: Target,
        /// The peer, once it is known.
        peer: Option<PeerId>,
        /// Which step.
        stage: Stage,
        /// Since the dial began.
        elapsed: Duration,
        /// What was learned, for people.
        detail: String,
        /// What is tried from here on, if that is what the step tells.
        chosen: Option<Chosen>,
    },
    /// A link to a peer is up, in both directions.
    Connected(Connection),
    /// A connected peer is reached over another path than before.
    PathChanged {
        /// Which peer.
        peer: PeerId,
        /// How it is reached now.
        path: PathReport,
        /// Round-trip time over it.
        rtt: Duration,
    },
    /// A link is gone.
    Disconnected {
        /// To which peer.
        peer: PeerId,
        /// Why.
        failure: Failure,
        /// Whether the node dials again by itself.
        will_retry: bool,
    },
    /// A message that was queued has been delivered.
    Delivered(Receipt),
    /// Something is wrong that the user may want to mend; the node goes on.
    Warning(Failure),
}

/// A link that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// To whom; proved by TLS.
    pub peer: PeerId,
    /// Who dialled.
    pub direction: Direction,
    /// How the peer is reached.
    pub path: PathReport,
    /// Round-trip time.
    pub rtt: Duration,
    /// From the dial's begin, or from the peer's first packet, to here.
    pub took: Duration,
}

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We did.
    Outgoing,
    /// The peer did.
    Incoming,
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// What kind of path it is.
    pub kind: PathKind,
    /// Our address on it.
    pub local: SocketAddr,
    /// The peer's address on it, as we see it.
    pub remote: SocketAddr,
}

/// Kinds of paths, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathKind {
    /// On one machine.
    Loopback,
    /// On one local network.
    Lan,
    /// Across the internet, without anybody in between.
    Direct,
}

/// The steps of a dial, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Looking the peer's record up.
    Resolve,
    /// Finding out where we may be reached ourselves.
    Gather,
    /// Telling the peer, through its inbox.
    Offer,
    /// Probing.
    Punch,
    /// A path is open.
    Path,
    /// QUIC and the hello.
    Link,
}

/// A way to a peer that is tried, and what speaks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Which way.
    pub strategy: Strategy,
    /// Why this one, for people.
    pub why: String,
}

/// The ways to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// Addresses of the local network that both are in, and the hairpin of their router.
    SameNetwork,
    /// The peer's addresses as they are.
    Direct,
    /// Probes from both sides at once.
    Simultaneous,
    /// The peer opens many ports, and we guess one of them.
    GuessedPorts,
    /// We open many ports, and the peer guesses one of them.
    Crowd,
    /// Both sides open many ports, and each guesses the other's.
    MeetingPorts,
    /// Probes that open our NAT and do not get as far as the peer's.
    QuietOpeners,
    /// There is no direct way.
    None,
}

/// How a message fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Who has it; while it is queued for any server of a service, nobody yet.
    pub peer: Option<PeerId>,
    /// Which message.
    pub message_id: String,
    /// How far it has come.
    pub state: SendState,
    /// From hand-over to the other side's acknowledgement.
    pub rtt: Duration,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendState {
    /// The other node has handed it to its consumer.
    Delivered,
    /// It lies in the outbox on this machine's disk and goes out when the peer is there.
    Queued,
}

/// What became of one copy of a message that went to several peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// To whom.
    pub peer: PeerId,
    /// How it fared.
    pub outcome: Result<Receipt, Failure>,
}

/// A connected peer's answer to a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// Who answered.
    pub peer: PeerId,
    /// Until the answer came, through queues and all.
    pub rtt: Duration,
    /// The path at the time of the answer.
    pub path: PathReport,
}

/// A connected peer, as `list` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// The link, with its current path and round-trip time.
    pub connection: Connection,
    /// How long it has been up.
    pub connected_for: Duration,
    /// How long the peer has been reached over the current path.
    pub path_for: Duration,
    /// Of the QUIC packets that we sent within the last minute or so, the share that was lost, from 0 to 1;
    /// `None` if none was sent.
    pub loss: Option<f64>,
    /// Messages sent and acknowledged, and received.
    pub messages: (u64, u64),
}

/// The node as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who it is.
    pub peer_id: PeerId,
    /// Its addresses on its own interfaces.
    pub local_addresses: Vec<SocketAddr>,
    /// Its addresses as STUN servers see them.
    pub public_addresses: Vec<SocketAddr>,
    /// How its NAT behaves, in a sentence.
    pub nat: String,
    /// Whether its record is in the DHT.
    pub online: bool,
    /// Since its start.
    pub uptime: Duration,
    /// Connected peers.
    pub peers: usize,
    /// DHT nodes that answered lately.
    pub dht_nodes: usize,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Peer(peer) => write!(f, "{}", peer.short()),
            Self::Ticket(ticket) => write!(f, "{}", ticket.peer.short()),
        }
    }
}

impl Target {
    /// The peer, unless any server of a service will do.
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Service(_) => None,
            Self::Peer(peer) => Some(*peer),
            Self::Ticket(ticket) => Some(ticket.peer),
        }
    }

    /// Whether it means a connected `peer` whom we dialled as this, if it was not the peer who dialled us.
    pub(super) fn means(&self, peer: PeerId, dialled: Option<&Self>) -> bool {
        match self.peer() {
            Some(meant) => meant == peer,
            // Who was dialled by its own name need not be a server.
            None => dialled.is_none_or(|dialled| dialled == self),
        }
    }
}

impl PathKind {
    /// As it stands in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Lan => "lan",
            Self::Direct => "direct",
        }
    }
}

impl Stage {
    /// As it stands in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Gather => "gather",
            Self::Offer => "offer",
            Self::Punch => "punch",
            Self::Path => "path",
            Self::Link => "link",
        }
    }
}

impl Strategy {
    /// All of them, as declared.
    pub const ALL: [Self; 8] = [
        Self::SameNetwork,
        Self::Direct,
        Self::Simultaneous,
        Self::GuessedPorts,
        Self::Crowd,
        Self::MeetingPorts,
        Self::QuietOpeners,
        Self::None,
    ];

    /// As it stands in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SameNetwork => "same_network",
            Self::Direct => "direct",
            Self::Simultaneous => "simultaneous",
            Self::GuessedPorts => "guessed_ports",
            Self::Crowd => "crowd",
            Self::MeetingPorts => "meeting_ports",
            Self::QuietOpeners => "quiet_openers",
            Self::None => "none",
        }
    }
}

impl From<Method> for Strategy {
    fn from(method: Method) -> Self {
        match method {
            Method::SameNetwork => Self::SameNetwork,
            Method::Direct => Self::Direct,
            Method::Simultaneous => Self::Simultaneous,
            Method::Volley(Order { crowd: 0, .. }) => Self::GuessedPorts,
            Method::Volley(Order { aim: Aim::Endpoint, .. }) => Self::Crowd,
            Method::Volley(_) => Self::MeetingPorts,
            Method::QuietOpeners => Self::QuietOpeners,
            Method::Incompatible => Self::None,
        }
    }
}

impl From<&Plan> for Chosen {
    fn from(plan: &Plan) -> Self {
        Self { strategy: plan.method.into(), why: plan.why.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_volley_does_on_our_side_has_a_word_of_its_own() {
        let volley = |crowd, aim| Strategy::from(Method::Volley(Order { crowd, aim }));
        let next = Aim::Next { step: 1, run: 32 };
        assert_eq!(volley(0, next), Strategy::GuessedPorts);
        assert_eq!(volley(0, Aim::Anywhere), Strategy::GuessedPorts);
        assert_eq!(volley(512, Aim::Endpoint), Strategy::Crowd);
        assert_eq!(volley(32, next), Strategy::MeetingPorts);
        assert_eq!(volley(1_024, Aim::Block { low: 1, high: 2 }), Strategy::MeetingPorts);
        assert_eq!(Strategy::from(Method::Incompatible), Strategy::None);
    }
}
