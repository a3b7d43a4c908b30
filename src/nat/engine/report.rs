//! What goes into an engine and comes out of it.

use std::{net::SocketAddr, time::Instant};

use crate::{
    datagram::{Datagram, Family, Path, SocketIndex},
    nat::{
        prediction::Forecast,
        punch::{self, Facts, Opened},
        strategy::{Party, Plan},
        volley::{Address, Leave},
    },
    probe::{Probe, Side},
};

/// With what an attempt begins.
#[derive(Clone, Debug)]
pub struct Setup {
    /// For the plain probes: our sockets, the peer's candidates, the deadline.
    pub punch: punch::Setup,
    /// Whether we made the offer or received it.
    pub side: Side,
    /// Our NATs.
    pub ours: Party,
    /// The peer's, by its record or its offer.
    pub theirs: Party,
    /// Where the peer's NAT had got to, if it counts and the peer said so.
    pub forecast: Option<Forecast>,
    /// Where a volley may go: the peer's public addresses, all of one family. None is fired without.
    pub addresses: Vec<Address>,
    /// When the peer will have read our offer and begins too: half a round trip from now over a helper,
    /// a second or so by its inbox.
    pub peer_begins: Instant,
    /// How our first probes leave.
    pub openers: Openers,
    /// STUN servers over IPv4, quickest first, which say where a fresh socket is seen; none is opened
    /// without.
    pub servers: Vec<SocketAddr>,
}

/// How the first probes of the side that made the offer leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openers {
    /// As far as they get: one of them may arrive.
    Loud,
    /// Far enough to open our own NATs. A router that punishes datagrams that nobody asked for sees none.
    Quiet,
}

/// What an [`Engine`](super::Engine) wants done, or found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be sealed and sent on this path.
    Transmit {
        /// Where.
        path: Path,
        /// What.
        probe: Probe,
        /// The time to live of this datagram, if it is not the usual one.
        hops: Option<u8>,
    },
    /// A volley wants to send so much: [`handle_leave`](super::Engine::handle_leave) says how many datagrams
    /// it may, out of what all volleys of the node may ([`Budget`](crate::nat::volley::Budget)).
    AskLeave(Leave),
    /// So many datagrams of those that were granted for new ports will not be sent.
    Unspent(u32),
    /// A socket of this family, bound to any port, is wanted:
    /// [`handle_socket_opened`](super::Engine::handle_socket_opened) or
    /// [`handle_socket_refused`](super::Engine::handle_socket_refused). Probes that come to it are the
    /// engine's.
    OpenSocket {
        /// IPv4 or IPv6.
        family: Family,
    },
    /// This socket is needed no longer.
    CloseSocket(SocketIndex),
    /// A question to a STUN server, to be sent; the answer is for
    /// [`handle_response`](super::Engine::handle_response).
    Ask(Datagram),
    /// A socket of ours that the peer has not heard of is seen here: another offer should say so, at once.
    Offer(SocketAddr),
    /// What should have opened has not: how our own NAT behaves is worth another look.
    Doubtful,
    /// The peer was heard on this path for the first time, see [`punch::Output::Heard`].
    Heard {
        /// From where to where.
        path: Path,
    },
    /// This path works both ways. If its socket was opened for the engine, it is to be kept.
    Open(Opened),
    /// This path works too, and is to be preferred from now on.
    Better(Opened),
    /// For people: what is tried, and why.
    Trying(Plan),
    /// Nothing that is known opens this pair; for people, with what would help. What costs next to nothing
    /// is tried all the same.
    Incompatible(Plan),
    /// The deadline passed and no path is open.
    GaveUp(Facts),
}
