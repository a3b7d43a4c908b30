//! What a dial learns from the DHT, a ticket or an earlier link: peers, and where they may be.

use std::net::SocketAddr;

use super::dial::Found;
use crate::{
    behaviour::NatBehaviour,
    candidate::{Candidate, CandidateKind},
    dht::{
        item::Item,
        location::Name,
        record::PeerRecord,
        service_record::{ServiceEntry, ServiceRecord},
    },
    identity::PeerId,
    time::UnixMillis,
};

/// The peers that `item`, found at the record of `name`, speaks of.
pub(super) fn peers_in(item: &Item, name: &Name, now: UnixMillis) -> Vec<Found> {
    match name {
        Name::Service(_) => {
            let record = ServiceRecord::open(item.value(), name, now);
            let entries = record.map(|record| record.entries).unwrap_or_default();
            entries.into_iter().map(Found::from).collect()
        }
        Name::Peer(peer) | Name::Ticket(peer, _) => {
            let record = PeerRecord::open(item.value(), peer, &name.sealing_key(), now);
            record.map(Found::from).into_iter().collect()
        }
    }
}

impl From<PeerRecord> for Found {
    fn from(record: PeerRecord) -> Self {
        let PeerRecord { peer, made_at, candidates, nat, .. } = record;
        Self { peer, made_at, candidates, nat }
    }
}

impl From<ServiceEntry> for Found {
    fn from(entry: ServiceEntry) -> Self {
        let ServiceEntry { peer, made_at, candidates, nat, .. } = entry;
        Self { peer, made_at, candidates, nat }
    }
}

/// The peer of a ticket, at the addresses that stand in it.
pub(super) fn in_ticket(peer: PeerId, addresses: &[SocketAddr]) -> Found {
    let candidate = |&address| Candidate::new(CandidateKind::Host, address);
    Found {
        peer,
        made_at: UnixMillis::default(),
        candidates: addresses.iter().filter_map(candidate).collect(),
        nat: NatBehaviour::default(),
    }
}

/// Where a peer was when it was last connected.
pub(super) fn there_before(peer: PeerId, candidates: &[Candidate]) -> Found {
    let (made_at, nat) = (UnixMillis::default(), NatBehaviour::default());
    Found { peer, made_at, candidates: candidates.to_vec(), nat }
}
