//! What goes into a dial and comes out of it.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use crate::{
    behaviour::{Dependence, NatBehaviour},
    candidate::{Candidate, CandidateKind},
    datagram::{BoundSocket, Datagram, Family, Path, SocketIndex},
    failure::Failure,
    forwarding::Helper,
    identity::{Identity, PeerId},
    nat::{proved::Witness, strategy::Plan, volley::Leave},
    node::event::{Stage, Target},
    probe::{Probe, ProbeKeys},
    sealing::Key,
    time::UnixMillis,
};

/// A peer that may be what the dial looks for, as its record describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Found {
    /// Who it is.
    pub(in crate::node) peer: PeerId,
    /// When its record was made; zero for addresses out of a ticket.
    pub(in crate::node) made_at: UnixMillis,
    /// Where it may be reached.
    pub(in crate::node) candidates: Vec<Candidate>,
    /// How its NAT behaves.
    pub(in crate::node) nat: NatBehaviour,
    /// Who forwards offers to it.
    pub(in crate::node) helpers: Vec<Helper>,
}

/// Where we may be reached ourselves, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::node) struct Gathered {
    /// Best first.
    pub(in crate::node) candidates: Vec<Candidate>,
    /// How our NAT behaves.
    pub(in crate::node) nat: NatBehaviour,
    /// Whether the STUN servers have answered, or have had their time.
    pub(in crate::node) complete: bool,
    /// Whether STUN servers were asked, and none has answered in its time.
    pub(in crate::node) is_unanswered: bool,
}

impl Gathered {
    /// Whether nobody tells any more where the internet sees us, while the machine is where it was `before`.
    pub(in crate::node) fn is_cut_off_from(&self, before: &Self) -> bool {
        let of_host = |gathered: &Self| -> BTreeSet<SocketAddr> {
            let hosts = gathered.candidates.iter().filter(|c| c.kind == CandidateKind::Host);
            hosts.map(|c| c.address).collect()
        };
        let is_known =
            |gathered: &Self| gathered.has_public_address() && gathered.nat.mapping.is_some();
        is_known(before) && !is_known(self) && of_host(self) == of_host(before)
    }

    /// Whether it is known where the internet sees us.
    pub(in crate::node) fn has_public_address(&self) -> bool {
        let is_reflexive = |c: &Candidate| c.kind == CandidateKind::ServerReflexive;
        let has_no_nat = self.nat.mapping == Some(Dependence::None);
        has_no_nat || self.candidates.iter().any(is_reflexive)
    }
}

/// Who dials, and under which sockets.
#[derive(Clone, Debug)]
pub(in crate::node) struct Dialler {
    /// Us.
    pub(in crate::node) identity: Identity,
    /// Proves that we know the secret that admits us.
    pub(in crate::node) admission: Option<Key>,
    /// The sockets that probes can leave by.
    pub(in crate::node) sockets: Vec<BoundSocket>,
    /// STUN servers that answer over IPv4.
    pub(in crate::node) stun_servers: Vec<SocketAddr>,
    /// Whether there is a DHT to look things up in.
    pub(in crate::node) has_dht: bool,
    /// Whether it hears who is on the local network.
    pub(in crate::node) has_lan: bool,
}

impl Dialler {
    /// Who says that the peer is where `found` says. Whom the user names by its key, or who shares a secret
    /// with us, is taken at its word.
    pub(super) fn witnesses(&self, found: &Found, target: &Target) -> BTreeSet<Witness> {
        let is_recorded = found.made_at != UnixMillis::default();
        let is_trusted = target.peer().is_some() || self.admission.is_some();
        let recorded = is_recorded.then_some(Witness::Record);
        recorded.into_iter().chain(is_trusted.then_some(Witness::Owner)).collect()
    }
}

/// What a [`Dial`] asks its owner to do.
#[derive(Debug)]
pub(in crate::node) enum Output {
    /// Look the target up, and find the DHT nodes of its inbox meanwhile.
    Lookup,
    /// QUIC packets for `peer` may go to these candidates, until a path is used.
    Reach { peer: PeerId, candidates: Vec<Candidate> },
    /// Take probes of this conversation as this dial's.
    Converse { keys: ProbeKeys },
    /// Leave `sealed` in the peer's inbox, and send it by the peer's helpers.
    Offer { sealed: Vec<u8> },
    /// Send `sealed`, which lies in the inbox already, by the peer's helpers: they were not known before.
    Forward { sealed: Vec<u8> },
    /// Send a probe, with a time to live of its own if one is given.
    Transmit { path: Path, probe: Probe, hops: Option<u8> },
    /// Open a socket of this family, on any port.
    OpenSocket { family: Family },
    /// Close this socket again.
    CloseSocket(SocketIndex),
    /// Say how many datagrams a volley may send.
    AskLeave(Leave),
    /// So many of those that were granted will not be sent.
    Unspent(u32),
    /// Send a question to a STUN server, whose answer is for this dial.
    Ask(Datagram),
    /// Look how far our NAT has counted.
    Count,
    /// Look at our NAT again: it is perhaps not what it seemed.
    Doubt,
    /// The peer sees this socket there.
    SeenAt { socket: SocketIndex, observed: SocketAddr },
    /// QUIC packets for `peer` go over this path from here on.
    UsePath { peer: PeerId, path: Path },
    /// Start QUIC to `peer`, anew if nothing has been heard over it yet.
    Connect { peer: PeerId, initial_rtt: Option<Duration> },
    /// Tell the user.
    Stage { peer: Option<PeerId>, stage: Stage, detail: String },
    /// Tell the user what is tried, or that nothing is.
    Trying { peer: PeerId, plan: Plan },
    /// The dial is over without a link.
    Failed(Failure),
}
