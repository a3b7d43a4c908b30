//! Failures that explain themselves: what failed, why as far as it was measured, and what to do.

use std::{net::IpAddr, time::Duration};

use super::event::Target;
use crate::{
    behaviour::NatBehaviour,
    failure::{Code, Failure},
    identity::PeerId,
    transport::{link::LinkError, session::SendError},
};

/// What a dial measured before it ended without a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// How long it lasted.
    pub(super) elapsed: Duration,
    /// Lookups that ended.
    pub(super) lookups: u32,
    /// The most DHT nodes that answered one of them.
    pub(super) dht_nodes_answered: usize,
    /// Whether there is a DHT to ask at all.
    pub(super) dht_disabled: bool,
    /// The peer, if one was found.
    pub(super) peer: Option<PeerId>,
    /// Addresses at which it was tried.
    pub(super) peer_addresses: usize,
    /// How its NAT behaves.
    pub(super) peer_nat: NatBehaviour,
    /// How old its record was.
    pub(super) record_age: Option<Duration>,
    /// How our NAT behaves.
    pub(super) our_nat: NatBehaviour,
    /// Addresses that we could offer.
    pub(super) our_addresses: usize,
    /// Whether a STUN server has told us a public address.
    pub(super) has_public_address: bool,
    /// Whether STUN servers were asked, and none has answered in its time.
    pub(super) stun_silent: bool,
    /// Offers that lie in the peer's inbox.
    pub(super) offers_stored: u32,
    /// Probes sent.
    pub(super) probes_sent: u64,
    /// Whether a probe of the peer was heard.
    pub(super) path_open: bool,
    /// Why QUIC did not become a link.
    pub(super) link_failure: Option<Failure>,
}

impl Facts {
    /// Whether each side sees the other one's port change with every destination.
    pub(super) fn both_change_ports(&self) -> bool {
        self.our_nat.has_dependent_mapping() && self.peer_nat.has_dependent_mapping()
    }
}

/// Why `target` was not reached.
pub(super) fn unreached(target: &Target, facts: &Facts) -> Failure {
    let is_mismatch = |failure: &&Failure| failure.code == Code::PeerIdentityMismatch;
    let replaced = facts.link_failure.as_ref().filter(is_mismatch);
    match facts.peer {
        None if facts.dht_disabled => no_dht_configured(target),
        None if facts.lookups == 0 => too_soon(target, facts),
        None if facts.dht_nodes_answered == 0 && facts.stun_silent => udp_blocked(facts),
        None if facts.dht_nodes_answered == 0 => dht_unreachable(facts),
        None => not_found(target, facts),
        Some(_) if facts.path_open => no_handshake(target, facts),
        // A record says where the peer is: whoever else answered there lives at a private address that
        // two networks share.
        Some(peer) if facts.record_age.is_some() => no_path(&peer, facts),
        Some(peer) => replaced.cloned().unwrap_or_else(|| no_path(&peer, facts)),
    }
}

fn no_dht_configured(target: &Target) -> Failure {
    Failure::new(Code::PeerNotFound, format!("no way to look {target} up"))
        .because("this node was started without a DHT")
        .hint("use a ticket with addresses (p2p-node ticket --addrs), or drop --dht-bootstrap none")
}

fn too_soon(target: &Target, facts: &Facts) -> Failure {
    Failure::new(Code::Timeout, format!("{target} was not found in time"))
        .because(format!("no lookup has ended within {}", seconds(facts.elapsed)))
        .hint("give it longer: a lookup takes a second or two")
}

fn udp_blocked(facts: &Facts) -> Failure {
    Failure::new(Code::UdpBlocked, "UDP does not seem to leave this network")
        .because(format!(
            "no STUN server and no node of the DHT answered, {} lookups in {}",
            facts.lookups,
            seconds(facts.elapsed)
        ))
        .hint("is there a network at all? `p2p-node netcheck` says what it lets through; if UDP is blocked, use another one")
}

fn dht_unreachable(facts: &Facts) -> Failure {
    Failure::new(Code::DhtUnreachable, "no node of the DHT answered")
        .because(format!("{} lookups in {}", facts.lookups, seconds(facts.elapsed)))
        .hint(
            "check that UDP leaves this network, or name a node that you can reach: --dht-bootstrap HOST:PORT",
        )
}

fn not_found(target: &Target, facts: &Facts) -> Failure {
    let hint = match target {
        Target::Service(name) => {
            format!(
                "is a server running with --service {name}, and the same --service-secret-file? its `online` event says when it can be found"
            )
        }
        Target::Peer(_) | Target::Ticket(_) => {
            "is the peer running in server mode? its `online` event says when it can be found"
                .into()
        }
    };
    Failure::new(Code::PeerNotFound, format!("nothing is published for {target}"))
        .because(format!(
            "{} DHT nodes answered, {} lookups in {}",
            facts.dht_nodes_answered,
            facts.lookups,
            seconds(facts.elapsed)
        ))
        .hint(hint)
}

fn no_handshake(target: &Target, facts: &Facts) -> Failure {
    let cause = facts.link_failure.as_ref().map_or_else(
        || format!("a path opened, but QUIC did not answer within {}", seconds(facts.elapsed)),
        |failure| format!("{failure}"),
    );
    Failure::new(
        Code::HandshakeFailed,
        format!("{target} answers probes but no connection came up"),
    )
    .because(cause)
    .hint("try again; if it lasts, compare the versions of both nodes")
}

fn no_path(peer: &PeerId, facts: &Facts) -> Failure {
    let age = facts.record_age.map(|age| format!("; its record is {} old", seconds(age)));
    let measured = format!(
        "{} probes to {} addresses and {} offers in {}; our NAT: {}; theirs: {}{}",
        facts.probes_sent,
        facts.peer_addresses,
        facts.offers_stored,
        seconds(facts.elapsed),
        facts.our_nat,
        facts.peer_nat,
        age.unwrap_or_default()
    );
    if facts.both_change_ports() {
        return Failure::new(
            Code::NatIncompatible,
            format!("found {}, but no direct path can be opened", peer.short()),
        )
        .because(format!("both NATs use another port for every destination; {measured}"))
        .hint(format!(
            "move one side behind another NAT, forward a UDP port to it (--bind 0.0.0.0:PORT), or use IPv6; \
             `p2p-node netcheck {peer}` tells whether that has helped"
        ));
    }
    let message = format!("no answer from {} on {} addresses", peer.short(), facts.peer_addresses);
    if !facts.has_public_address && facts.our_addresses > 0 {
        return Failure::new(Code::PunchTimeout, message)
            .because(format!("no STUN server answered, so our public address is not known; {measured}"))
            .hint("check that UDP leaves this network, or name a STUN server that you can reach: --stun HOST:PORT");
    }
    Failure::new(Code::PunchTimeout, message).because(measured).hint(format!(
        "is the peer still running? `p2p-node netcheck {peer}` says which way leads to it; forward a UDP port to \
         one side (--bind 0.0.0.0:PORT) if none does"
    ))
}

/// `failure` of a dial to a peer behind our own NAT, which does not turn back what is sent to its public address.
pub(super) fn behind_one_nat(failure: Failure) -> Failure {
    if !matches!(failure.code, Code::PunchTimeout | Code::NatIncompatible) {
        return failure;
    }
    let why = format!(
        "both are behind one NAT, which does not turn back what is sent to its own public address; {}",
        failure.why
    );
    failure.because(why).hint(
        "put both on one local network, use IPv6, or move one of them elsewhere; some routers can be told to turn \
         such datagrams back (hairpinning, NAT loopback)",
    )
}

/// `error` of a link to `peer` as its user sees it.
pub(super) fn link_failed(error: &LinkError, peer: PeerId) -> Failure {
    let failure = Failure::new(error.code(), error.to_string());
    match error {
        LinkError::IdentityMismatch { .. } | LinkError::NotExpected => failure.hint(format!(
            "somebody else answers in the place of {}; check the peer id",
            peer.short()
        )),
        LinkError::Refused { .. } => failure.hint(
            "the server admits listed peers and those who know its secret: --allow there, or --service-secret-file here",
        ),
        LinkError::VersionMismatch { .. } => failure.hint("update the older of the two nodes"),
        LinkError::Lost(_) | LinkError::TimedOut => {
            failure.hint("connect again; `status` shows how this node fares")
        }
        LinkError::Full => failure.hint("try again later, or another server"),
        LinkError::ClosedByPeer { .. } | LinkError::Closed | LinkError::Replaced => failure,
    }
}

/// A socket was bound to `address`, which no interface has any more.
pub(super) fn bound_address_gone(address: IpAddr) -> Failure {
    Failure::new(Code::AddressInUse, format!("{address} is no address of this machine any more"))
        .because("a socket is bound to it, and is silent until it comes back")
        .hint("without --bind, or with 0.0.0.0 or [::], the node goes along to another network")
}

/// There is no room for another peer beside as many as these.
pub(super) fn too_many_peers(peers_max: usize) -> Failure {
    Failure::new(
        Code::TooManyPeers,
        format!("this node is connected to {peers_max} peers, as many as it may"),
    )
    .hint("`list` shows them; `disconnect` makes room")
}

/// Why a message of `size` bytes was not taken.
pub(super) fn not_taken(error: &SendError, size: usize) -> Failure {
    match error {
        SendError::TooLarge(oversize) => Failure::new(Code::MessageTooLarge, oversize.to_string())
            .because(format!("the payload has {size} bytes"))
            .hint("send it in parts of 16 MiB at most"),
        SendError::QueueFull { .. } => Failure::new(Code::QueueFull, error.to_string())
            .hint("wait for `ok` events before sending more"),
        SendError::Ended => Failure::new(Code::ConnectionLost, error.to_string()),
    }
}

/// Why nobody knows whether `peer` has a message.
pub(super) fn delivery_unknown(cause: &str, peer: PeerId) -> Failure {
    Failure::new(
        Code::DeliveryUnknown,
        format!("nobody knows whether {} has the message", peer.short()),
    )
    .because(format!("it was on its way, and {cause}"))
    .hint("it may have arrived: send it again only if the other side can tell doubles apart")
}

/// A message to `peer` was taken, and its session ended before a link took it.
pub(super) fn not_sent(peer: PeerId) -> Failure {
    Failure::new(Code::ConnectionLost, format!("the message to {} was not sent", peer.short()))
        .because("the connection ended before")
        .hint("it did not arrive: send it again")
}

/// A request to `peer` waits in the outbox.
pub(super) fn not_there_yet(peer: PeerId) -> Failure {
    Failure::new(Code::NoReply, format!("{} has not got the message yet", peer.short()))
        .because("it waits in the outbox until the peer is there")
        .hint("its answer will come as a message")
}

/// Why a request with this id cannot wait for its answer.
pub(super) fn already_asked(message_id: &str) -> Failure {
    Failure::new(
        Code::InvalidArgument,
        format!(
            "a request with the id {message_id:?} waits for its answer already, or too many do"
        ),
    )
    .hint("give each request an id of its own, or none")
}

/// `peer` has a request and has not answered it for so long.
pub(super) fn no_reply(peer: PeerId, waited: Duration) -> Failure {
    Failure::new(Code::NoReply, format!("{} has not answered", peer.short()))
        .because(format!("it has the message, and {} have passed", seconds(waited)))
        .hint("does the other program answer such messages? wait longer: timeout_ms")
}

/// The session with `peer` ended while its answer was waited for.
pub(super) fn no_session(peer: PeerId) -> Failure {
    Failure::new(Code::NoReply, format!("{} has not answered", peer.short()))
        .because("it has the message, and the connection ended")
        .hint("ask again if the other side can tell doubles apart")
}

/// A message to `peer` waited for its turn for too long.
pub(super) fn not_sent_in_time(peer: PeerId) -> Failure {
    Failure::new(Code::Timeout, format!("the message to {} was not sent in time", peer.short()))
        .because("those before it were not taken, or there was no connection")
        .hint("it did not arrive: send it again")
}

/// Why a message to `peer` is not known to have arrived in time.
pub(super) fn unacknowledged(peer: PeerId) -> Failure {
    Failure::new(Code::Timeout, format!("{} did not acknowledge the message in time", peer.short()))
        .because("the link is up, but the other side has not taken the message yet")
        .hint("it may still arrive; its reader is slow, or the network is")
}

fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..=119 => format!("{:.1} s", duration.as_secs_f64()),
        120..=7_199 => format!("{} min", duration.as_secs() / 60),
        _ => format!("{} h", duration.as_secs() / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::Dependence;

    fn service() -> Target {
        Target::Service("myapi:v1".parse().unwrap())
    }

    fn symmetric() -> NatBehaviour {
        NatBehaviour::new(Some(Dependence::AddressAndPortDependent), None)
    }

    #[test]
    fn every_kind_of_failure_has_its_code_a_cause_and_a_remedy() {
        let peer = Some(crate::identity::Identity::from_seed([1; 32]).peer_id());
        let hurried = Facts::default();
        let silent = Facts { lookups: 3, ..Facts::default() };
        let blocked = Facts { stun_silent: true, ..silent.clone() };
        let answered = Facts { lookups: 3, dht_nodes_answered: 8, ..Facts::default() };
        let unreached_peer = Facts { peer, has_public_address: true, ..answered.clone() };
        let both_hard =
            Facts { our_nat: symmetric(), peer_nat: symmetric(), ..unreached_peer.clone() };
        let half_open = Facts { path_open: true, ..unreached_peer.clone() };
        for (facts, code) in [
            (hurried, Code::Timeout),
            (blocked, Code::UdpBlocked),
            (silent, Code::DhtUnreachable),
            (answered, Code::PeerNotFound),
            (unreached_peer, Code::PunchTimeout),
            (both_hard, Code::NatIncompatible),
            (half_open, Code::HandshakeFailed),
        ] {
            let failure = unreached(&service(), &facts);
            assert_eq!(failure.code, code);
            assert!(!failure.why.is_empty() && !failure.hint.is_empty(), "{failure}");
        }
    }
}
