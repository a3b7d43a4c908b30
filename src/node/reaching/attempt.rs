//! With what an attempt at a peer begins, for the side that dials and the side that answers: what is known
//! of both NATs, and which addresses a volley may go to.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::dial::Gathered;
use crate::{
    behaviour::{NatBehaviour, PortHint},
    candidate::Candidate,
    datagram::{BoundSocket, Family},
    nat::{
        distance::{Distance, is_shared},
        engine::{Openers, Setup},
        prediction::Forecast,
        proved::{Proved, Witness},
        punch,
        strategy::{Method, Party, plans},
        volley::Address,
    },
    probe::{Side, Urgency},
    time::UnixMillis,
};

/// The peer, as its record, its offer or its answer describes it.
#[derive(Clone, Debug)]
pub(in crate::node) struct Peer {
    /// How its NAT behaves.
    pub(in crate::node) nat: NatBehaviour,
    /// Where it may be.
    pub(in crate::node) candidates: Vec<Candidate>,
    /// Who says so.
    pub(in crate::node) witnesses: BTreeSet<Witness>,
}

impl Peer {
    /// How the peer's NAT behaves, and where the internet sees it.
    pub(in crate::node) fn party(&self) -> Party {
        Party { nat: self.nat, public: public_addresses(&self.candidates) }
    }

    /// Where its NAT had got to.
    pub(in crate::node) fn forecast(&self, now: Instant, unix: UnixMillis) -> Option<Forecast> {
        let counter = self.nat.hint.and_then(PortHint::counter);
        let age = counter.map(|counter| counter.age_at(unix)).unwrap_or_default();
        Forecast::of(&self.nat, age, now)
    }

    /// Where a volley may go: its public addresses of the family that NATs are in front of.
    pub(in crate::node) fn addresses(&self) -> Vec<Address> {
        let public = public_addresses(&self.candidates);
        let v4 = public.into_iter().filter(|ip| Family::of(*ip) == Family::V4);
        v4.map(|ip| self.address(ip)).collect()
    }

    fn address(&self, ip: IpAddr) -> Address {
        let mut witnesses = self.witnesses.iter();
        let (one, other) = (witnesses.next(), witnesses.next());
        let proved = one.zip(other).and_then(|(one, other)| Proved::by(ip, *one, *other));
        proved.map_or(Address::Claimed(ip), Address::Proved)
    }
}

/// What an engine is to know when it begins at `now`.
pub(in crate::node) fn setup(
    side: Side,
    sockets: &[BoundSocket],
    ours: &Gathered,
    peer: &Peer,
    (now, unix): (Instant, UnixMillis),
    deadline: Instant,
) -> Setup {
    Setup {
        punch: punch::Setup {
            sockets: sockets.to_vec(),
            candidates: peer.candidates.clone(),
            urgency: Urgency::Routine,
            deadline,
        },
        side,
        ours: ours_as_party(ours),
        theirs: peer.party(),
        forecast: peer.forecast(now, unix),
        addresses: peer.addresses(),
        peer_begins: now + READ_AFTER,
        openers: Openers::Loud,
        servers: vec![],
    }
}

/// How our own NATs behave, and where the internet sees us.
pub(in crate::node) fn ours_as_party(ours: &Gathered) -> Party {
    Party { nat: ours.nat, public: public_addresses(&ours.candidates) }
}

/// Whether ports have to be guessed, or nothing helps: then the other side is told what it cannot know.
pub(in crate::node) fn has_to_guess(setup: &Setup) -> bool {
    let plans = plans(&setup.ours, &setup.theirs);
    plans.iter().any(|plan| matches!(plan.method, Method::Volley(_) | Method::Incompatible))
}

/// When a peer will have read an offer that goes by its inbox, more likely than not: it looks into it twice
/// a second.
const READ_AFTER: Duration = Duration::from_millis(400);

/// Those of `candidates` that are on the public internet, each once.
pub(in crate::node) fn public_addresses(candidates: &[Candidate]) -> Vec<IpAddr> {
    let mut public = vec![];
    for ip in candidates.iter().map(|candidate| candidate.address).map(|at: SocketAddr| at.ip()) {
        let is_public = Distance::of(ip) == Distance::Internet && !is_shared(ip);
        if is_public && !public.contains(&ip) {
            public.push(ip);
        }
    }
    public
}
