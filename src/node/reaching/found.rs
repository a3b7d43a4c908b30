//! What a dial learns: the peers that a record speaks of, and those that it knows of without one.

use std::{collections::VecDeque, net::SocketAddr};

use super::dial::Found;
use crate::{
    behaviour::NatBehaviour,
    candidate::{CANDIDATES_MAX, Candidate, CandidateKind},
    dht::{
        item::Item,
        location::Name,
        record::{self, PeerRecord},
        service_record::{ServiceEntry, ServiceRecord},
    },
    forwarding::Helper,
    identity::PeerId,
    time::UnixMillis,
};

/// The peers that `item`, found at the record of `name`, speaks of.
pub(in crate::node) fn peers_in(item: &Item, name: &Name, now: UnixMillis) -> Vec<Found> {
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
        let PeerRecord { peer, made_at, candidates, nat, helpers } = record;
        Self { peer, made_at, candidates, nat, helpers }
    }
}

impl From<ServiceEntry> for Found {
    fn from(entry: ServiceEntry) -> Self {
        let ServiceEntry { peer, made_at, candidates, nat, helpers, .. } = entry;
        Self { peer, made_at, candidates, nat, helpers }
    }
}

impl Found {
    /// A peer at the addresses in its ticket.
    pub(in crate::node) fn in_ticket(peer: PeerId, addresses: &[SocketAddr]) -> Self {
        let candidate = |&address| Candidate::new(CandidateKind::Host, address);
        let candidates: Vec<Candidate> = addresses.iter().filter_map(candidate).collect();
        Self::there_before(peer, &candidates, Vec::new())
    }

    /// A peer where it was when it was last connected.
    pub(in crate::node) fn there_before(
        peer: PeerId,
        candidates: &[Candidate],
        helpers: Vec<Helper>,
    ) -> Self {
        let (made_at, nat) = (UnixMillis::default(), NatBehaviour::default());
        Self { peer, made_at, candidates: candidates.to_vec(), nat, helpers }
    }
}

/// What lookups have brought lately: a dial begins with it, and does not wait for the DHT to say the same
/// again.
#[derive(Debug, Default)]
pub(in crate::node) struct Records {
    /// By what was looked up, the one found last at the end.
    found: VecDeque<(Name, Found)>,
}

impl Records {
    /// Takes in what a lookup of `name` has brought.
    pub(in crate::node) fn remember(&mut self, name: &Name, found: &Found) {
        let is_same = |(of, known): &(Name, Found)| known.peer == found.peer && of == name;
        let known = self.found.iter().position(is_same);
        let before = known.and_then(|known| self.found.remove(known));
        // A lookup may bring what lay there before.
        let newest = before.filter(|(_, before)| before.made_at > found.made_at);
        if self.found.len() >= RECORDS_MAX {
            self.found.pop_front();
        }
        self.found.push_back(newest.unwrap_or_else(|| (name.clone(), found.clone())));
    }

    /// The records that were found under `name` and would count if they were found now.
    pub(in crate::node) fn under(&self, name: &Name, now: UnixMillis) -> Vec<Found> {
        let named = self.found.iter().filter(|(of, found)| of == name && counts(found, now));
        named.map(|(_, found)| found.clone()).collect()
    }

    /// Where `peer` may be: at `candidates`, where it was while it was connected, and where its newest record
    /// says, if that would count if it was found now.
    pub(in crate::node) fn last_known(
        &self,
        peer: PeerId,
        candidates: &[Candidate],
        now: UnixMillis,
    ) -> Found {
        let all = self.found.iter().map(|(_, found)| found);
        let newest = all.filter(|found| found.peer == peer).max_by_key(|found| found.made_at);
        let Some(record) = newest else {
            return Found::there_before(peer, candidates, Vec::new());
        };
        if !counts(record, now) {
            return Found::there_before(peer, candidates, record.helpers.clone());
        }
        let mut all = candidates.to_vec();
        let is_elsewhere =
            |other: &&Candidate| candidates.iter().all(|known| known.address != other.address);
        all.extend(record.candidates.iter().filter(is_elsewhere));
        all.truncate(CANDIDATES_MAX);
        Found { candidates: all, ..record.clone() }
    }
}

fn counts(found: &Found, now: UnixMillis) -> bool {
    found.made_at.age_at(now) <= record::AGE_MAX
}

/// Records that are remembered; what is forgotten costs a lookup.
const RECORDS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{behaviour::Dependence, entropy::Entropy, identity::Identity};

    fn candidate(port: u16) -> Candidate {
        let address = SocketAddr::from(([203, 0, 113, 1], port));
        Candidate::new(CandidateKind::ServerReflexive, address).unwrap()
    }

    fn peer(seed: u64) -> PeerId {
        Identity::generate(&mut Entropy::from_seed(seed)).peer_id()
    }

    fn record(peer: PeerId, made_at: u64, port: u16) -> Found {
        Found {
            peer,
            made_at: UnixMillis(made_at),
            candidates: vec![candidate(port)],
            nat: NatBehaviour::new(Some(Dependence::AddressAndPortDependent), None),
            helpers: Vec::new(),
        }
    }

    fn alices() -> Name {
        Name::Peer(peer(1))
    }

    #[test]
    fn the_newest_record_of_a_peer_is_what_the_next_dial_begins_with() {
        let (mut records, alice) = (Records::default(), peer(1));
        records.remember(&alices(), &record(alice, 2_000, 2));
        records.remember(&alices(), &record(alice, 1_000, 1));
        let now = UnixMillis(3_000);
        assert_eq!(records.under(&alices(), now), [record(alice, 2_000, 2)]);
        let known = records.last_known(alice, &[candidate(9)], now);
        let expected = vec![candidate(9), candidate(2)];
        assert_eq!(known, Found { candidates: expected, ..record(alice, 2_000, 2) });
    }

    #[test]
    fn what_was_found_under_one_name_is_not_told_under_another() {
        let (mut records, alice) = (Records::default(), peer(1));
        records.remember(&alices(), &record(alice, 1_000, 1));
        assert_eq!(records.under(&Name::Peer(peer(2)), UnixMillis(1_000)), []);
    }

    #[test]
    fn a_record_that_is_too_old_to_count_says_only_who_helps() {
        let (mut records, alice) = (Records::default(), peer(1));
        records.remember(&alices(), &record(alice, 0, 1));
        let age = u64::try_from(record::AGE_MAX.as_millis()).unwrap();
        let known = |now| records.last_known(alice, &[candidate(9)], UnixMillis(now));
        assert_eq!(known(age).candidates.len(), 2);
        assert_eq!(known(age + 1), Found::there_before(alice, &[candidate(9)], Vec::new()));
        assert_eq!(records.under(&alices(), UnixMillis(age + 1)), []);
    }

    #[test]
    fn the_record_that_was_found_longest_ago_is_forgotten_first() {
        let mut records = Records::default();
        for seed in 0..=u64::try_from(RECORDS_MAX).unwrap() {
            records.remember(&Name::Peer(peer(seed)), &record(peer(seed), 1_000, 1));
        }
        assert_eq!(records.found.len(), RECORDS_MAX);
        let known = |seed| records.under(&Name::Peer(peer(seed)), UnixMillis(1_000)).len();
        assert_eq!([known(0), known(1)], [0, 1]);
    }
}
