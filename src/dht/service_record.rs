//! Who serves a service: a list that every server of it adds itself to.
//!
//! All who know the service can write the list, so each entry is signed by the server it is about, for
//! this service only. A server reads the list, merges itself in and writes it back with
//! compare-and-swap; what it finds forged or stale it leaves out. Sealed and padded as a peer record is.

use bytes::Bytes;
use prost::Message as _;

use super::{
    item::VALUE_SIZE_MAX,
    location::Name,
    record::{
        RecordRejected, check_age, open_padded, seal_padded, to_candidates, to_helpers, to_peer,
    },
};
use crate::{
    behaviour::NatBehaviour,
    candidate::{CANDIDATES_MAX, Candidate, encode_compact},
    entropy::Entropy,
    forwarding::{HELPERS_MAX, Helper},
    identity::{Identity, PeerId},
    proto::rendezvous::{ServiceEntry as WireEntry, ServiceRecord as Wire},
    time::UnixMillis,
};

/// Servers that a record lists: as many entries of [`ENTRY_SIZE`] bytes as a value of the DHT holds.
pub const ENTRIES_MAX: usize = 6;

/// Bytes of an encoded entry in a list of many: a sixth of a value after its nonce, tag and lengths.
pub const ENTRY_SIZE: usize = 142;

/// Bytes of an encoded entry in a list of few, for servers with helpers: a quarter of a value.
pub const ENTRY_SIZE_MAX: usize = 212;

/// Bytes of every sealed service record.
pub const SEALED_SIZE: usize = VALUE_SIZE_MAX;

/// One server of a service, as it described itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Which server.
    pub peer: PeerId,
    /// When it said so, by its clock, in whole seconds.
    pub made_at: UnixMillis,
    /// Where it may be reached, best first.
    pub candidates: Vec<Candidate>,
    /// How its NAT behaves.
    pub nat: NatBehaviour,
    /// Who forwards offers to it.
    pub helpers: Vec<Helper>,
    /// Signed, to be passed on as it came.
    wire: WireEntry,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// Where it may be reached, best first.
    pub candidates: &'a [Candidate],
    /// How its NAT behaves.
    pub nat: NatBehaviour,
    /// Who forwards offers to it.
    pub helpers: &'a [Helper],
    /// Bytes that its entry may have, see [`ServiceRecord::entry_size`].
    pub size_max: usize,
}

/// The servers of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Newest first; at most [`ENTRIES_MAX`], one for a peer.
    pub entries: Vec<ServiceEntry>,
    /// Why entries that were found with these were left out.
    pub rejected: Vec<RecordRejected>,
}

impl ServiceEntry {
    /// Describes `identity` as a server of the service `name`, behind a NAT that behaves so,
    /// with as many of `candidates`, which are ordered best first, as fit.
    pub fn new(
        identity: &Identity,
        name: &Name,
        (candidates, nat): (&[Candidate], NatBehaviour),
        now: UnixMillis,
    ) -> Self {
        let description = Description { candidates, nat, helpers: &[], size_max: ENTRY_SIZE };
        Self::describing(identity, name, &description, now)
    }

    /// The same with helpers.
    pub fn describing(
        identity: &Identity,
        name: &Name,
        description: &Description<'_>,
        now: UnixMillis,
    ) -> Self {
        // An entry is small and lives for hours: which port came next would be of no use.
        let nat = description.nat.without_hint();
        let mut wire = WireEntry {
            peer_id: identity.peer_id().as_bytes().to_vec().into(),
            made_at_s: u32::try_from(now.seconds()).unwrap_or(u32::MAX),
            endpoints: Vec::new(),
            nat: Some(nat.to_wire(now)),
            helpers: Vec::new(),
            signature: Bytes::from_static(&[0; 64]),
        };
        let (mut candidates, mut helpers) = (Vec::new(), Vec::new());
        // In turns: the best address, a helper, the next address.
        for index in 0..CANDIDATES_MAX {
            if let Some(&candidate) = description.candidates.get(index) {
                let endpoint: Bytes = encode_compact(candidate.address).into();
                let fits = wire.encoded_len() + FIELD_HEADER_SIZE + endpoint.len();
                if fits <= description.size_max {
                    wire.endpoints.push(endpoint);
                    candidates.push(candidate);
                }
            }
            if let Some(&helper) = description.helpers.get(index) {
                let field: Bytes = helper.encode().into();
                let fits = wire.encoded_len() + FIELD_HEADER_SIZE + field.len();
                if fits <= description.size_max && helpers.len() < HELPERS_MAX {
                    wire.helpers.push(field);
                    helpers.push(helper);
                }
            }
        }
        wire.signature = identity.sign(&signed_bytes(&wire, name)).to_vec().into();
        let made_at = UnixMillis::from_seconds(now.seconds());
        Self { peer: identity.peer_id(), made_at, candidates, nat, helpers, wire }
    }

    fn from_wire(wire: WireEntry, name: &Name, now: UnixMillis) -> Result<Self, RecordRejected> {
        if wire.encoded_len() > ENTRY_SIZE_MAX {
            return Err(RecordRejected::Oversized(wire.encoded_len()));
        }
        let peer = to_peer(&wire.peer_id)?;
        let made_at = UnixMillis::from_seconds(u64::from(wire.made_at_s));
        let candidates = to_candidates(&wire.endpoints, CANDIDATES_MAX)?;
        let helpers = to_helpers(&wire.helpers)?;
        if !peer.verifies(&signed_bytes(&wire, name), &wire.signature) {
            return Err(RecordRejected::Forged);
        }
        check_age(made_at, now)?;
        Ok(Self {
            peer,
            made_at,
            candidates,
            nat: NatBehaviour::from_wire(wire.nat, made_at),
            helpers,
            wire,
        })
    }
}

impl ServiceRecord {
    /// Opens the record of the service `name` at the time `now`; entries that are not good are left out.
    ///
    /// # Errors
    /// When the whole is not a service record, sealed with the service's key.
    pub fn open(sealed: &[u8], name: &Name, now: UnixMillis) -> Result<Self, RecordRejected> {
        let wire: Wire = open_padded(sealed, SEALED_SIZE, &name.sealing_key())?;
        let (mut entries, mut rejected) = (Vec::new(), Vec::new());
        for entry in wire.entries.into_iter().take(ENTRIES_READ_MAX) {
            match ServiceEntry::from_wire(entry, name, now) {
                Ok(entry) => entries.push(entry),
                Err(reason) => rejected.push(reason),
            }
        }
        Ok(Self { entries: newest_of_each(entries), rejected })
    }

    /// This list with `entries` in it and without what is stale at `now`.
    ///
    /// An older entry of a peer gives way to a newer one; of more than [`ENTRIES_MAX`] peers, the ones
    /// that were heard of last stay.
    pub fn merge(&self, entries: &[ServiceEntry], now: UnixMillis) -> Self {
        let all = entries.iter().chain(&self.entries);
        let fresh = all.filter(|entry| check_age(entry.made_at, now).is_ok()).cloned();
        Self { entries: newest_of_each(fresh.collect()), rejected: Vec::new() }
    }

    /// Whether `peer` is listed.
    pub fn lists(&self, peer: &PeerId) -> bool {
        self.entries.iter().any(|entry| entry.peer == *peer)
    }

    /// Bytes that an entry of `peer` may have beside those of the others.
    pub fn entry_size(&self, peer: &PeerId) -> usize {
        let others = self.entries.iter().filter(|entry| entry.peer != *peer).count();
        if others < ENTRIES_AT_MAX_SIZE { ENTRY_SIZE_MAX } else { ENTRY_SIZE }
    }

    /// Seals the list for those who know the service `name`; of entries that do not all fit, the first.
    pub fn seal(&self, name: &Name, entropy: &mut Entropy) -> Vec<u8> {
        let mut wire = Wire { entries: Vec::new() };
        for entry in self.entries.iter().take(ENTRIES_MAX) {
            wire.entries.push(entry.wire.clone());
            if wire.encoded_len() > LIST_SIZE_MAX {
                wire.entries.pop();
            }
        }
        seal_padded(&wire, SEALED_SIZE, &name.sealing_key(), entropy)
    }
}

fn newest_of_each(mut entries: Vec<ServiceEntry>) -> Vec<ServiceEntry> {
    // Sorting is stable: of entries made in the same second, the one that came first wins.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.made_at));
    let mut kept: Vec<ServiceEntry> = Vec::new();
    for entry in entries {
        if kept.len() < ENTRIES_MAX && !kept.iter().any(|other| other.peer == entry.peer) {
            kept.push(entry);
        }
    }
    kept
}

/// Entries that are looked at; each costs a signature's verification.
const ENTRIES_READ_MAX: usize = 8;

/// Entries of [`ENTRY_SIZE_MAX`] bytes that fit.
const ENTRIES_AT_MAX_SIZE: usize = 4;

/// Bytes of an encoded list: what a value holds beside nonce, tag and the length in front.
const LIST_SIZE_MAX: usize = SEALED_SIZE - 12 - 16 - 2;

/// Protobuf's tag and length of an endpoint or a helper.
const FIELD_HEADER_SIZE: usize = 2;

fn signed_bytes(wire: &WireEntry, name: &Name) -> Vec<u8> {
    let unsigned = WireEntry { signature: Bytes::new(), ..wire.clone() };
    let service_key = name.record().public_key;
    let encoding = unsigned.encode_to_vec();
    [b"p2p-node/1 service entry".as_slice(), &service_key, &encoding].concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::behaviour::Dependence;
    use crate::{candidate::CandidateKind, forwarding::Token, service::Service};

    const NOW: UnixMillis = UnixMillis(1_763_820_000_000);
    const NAT: NatBehaviour = NatBehaviour::new(
        Some(Dependence::EndpointIndependent),
        Some(Dependence::AddressAndPortDependent),
    );

    fn service(text: &str) -> Name {
        Name::Service(Service::open(text.parse().unwrap()))
    }

    fn name() -> Name {
        service("myapi:v1")
    }

    fn server(seed: u8) -> Identity {
        Identity::from_seed([seed; 32])
    }

    fn minutes_later(count: u64) -> UnixMillis {
        UnixMillis(NOW.0 + count * 60_000)
    }

    fn candidates(texts: &[&str]) -> Vec<Candidate> {
        let candidate = |text: &&str| {
            Candidate::new(CandidateKind::ServerReflexive, text.parse().unwrap()).unwrap()
        };
        texts.iter().map(candidate).collect()
    }

    fn entry(seed: u8, now: UnixMillis) -> ServiceEntry {
        let candidates = candidates(&["[2001:db8::9]:1", "198.51.100.9:1", "192.168.1.2:1"]);
        ServiceEntry::new(&server(seed), &name(), (&candidates, NAT), now)
    }

    fn sealed(entries: Vec<ServiceEntry>) -> Vec<u8> {
        let record = ServiceRecord { entries, rejected: Vec::new() };
        record.seal(&name(), &mut Entropy::from_seed(1))
    }

    fn open(sealed: &[u8], now: UnixMillis) -> Result<ServiceRecord, RecordRejected> {
        ServiceRecord::open(sealed, &name(), now)
    }

    #[test]
    fn six_of_the_largest_entries_arrive() {
        let entries: Vec<_> = (1..=6).map(|seed| entry(seed, NOW)).collect();
        assert!(entries.iter().all(|entry| entry.wire.encoded_len() == 139));
        let record = open(&sealed(entries.clone()), NOW).unwrap();
        assert_eq!(record, ServiceRecord { entries, rejected: Vec::new() });
    }

    #[test]
    fn an_entry_takes_the_best_candidates_that_fit() {
        let three = ["198.51.100.9:1", "198.51.100.9:2", "10.0.0.2:1"];
        let four = [three.as_slice(), &["10.0.0.2:2"]].concat();
        let entry = ServiceEntry::new(&server(1), &name(), (&candidates(&four), NAT), NOW);
        assert_eq!(entry.candidates, candidates(&three));
        let mixed = ["198.51.100.9:1", "[2001:db8::9]:1", "[2001:db8::8]:1", "10.0.0.2:1"];
        let entry = ServiceEntry::new(&server(1), &name(), (&candidates(&mixed), NAT), NOW);
        let fitting = candidates(&["198.51.100.9:1", "[2001:db8::9]:1"]);
        assert_eq!(entry.candidates, fitting);
    }

    fn with_helpers(seed: u8, size_max: usize) -> ServiceEntry {
        let candidates = candidates(&["198.51.100.9:1", "192.168.1.2:1", "10.0.0.2:1"]);
        let helper = |number: u8| Helper {
            address: format!("203.0.113.{number}:4000").parse().unwrap(),
            token: Token([number; 7]),
        };
        let helpers: Vec<Helper> = (1..=3).map(helper).collect();
        let description =
            Description { candidates: &candidates, nat: NAT, helpers: &helpers, size_max };
        ServiceEntry::describing(&server(seed), &name(), &description, NOW)
    }

    #[test]
    fn few_servers_list_all_their_helpers_and_many_one_each() {
        let (large, small) = (with_helpers(1, ENTRY_SIZE_MAX), with_helpers(1, ENTRY_SIZE));
        assert_eq!((large.helpers.len(), large.candidates.len()), (3, 3));
        assert_eq!((small.helpers.len(), small.candidates.len()), (1, 2));
        let mut record = ServiceRecord::default();
        for seed in 1..=6 {
            let size_max = record.entry_size(&server(seed).peer_id());
            record = record.merge(&[with_helpers(seed, size_max)], NOW);
        }
        let read = open(&sealed(record.entries), NOW).unwrap();
        let helpers: Vec<usize> = read.entries.iter().map(|entry| entry.helpers.len()).collect();
        assert_eq!(helpers.len(), 5, "the sixth comes when the first have shrunk");
        assert!(helpers.iter().all(|count| *count > 0));
    }

    #[test]
    fn merging_replaces_our_entry_and_drops_what_is_stale() {
        let (old, other) = (entry(1, NOW), entry(2, minutes_later(100)));
        let record = ServiceRecord { entries: vec![old, other.clone()], rejected: Vec::new() };
        let ours = entry(3, minutes_later(130));
        let merged = record.merge(std::slice::from_ref(&ours), minutes_later(130));
        assert_eq!(merged.entries, [ours, other.clone()]);
        let renewed = entry(2, minutes_later(131));
        let merged = merged.merge(std::slice::from_ref(&renewed), minutes_later(131));
        assert_eq!(merged.entries.first(), Some(&renewed));
        assert!(!merged.entries.contains(&other));
    }

    #[test]
    fn a_seventh_server_takes_the_place_of_the_one_heard_of_longest_ago() {
        let entries = (1..=6).map(|seed| entry(seed, minutes_later(seed.into()))).collect();
        let record = ServiceRecord { entries, rejected: Vec::new() };
        let merged = record.merge(&[entry(7, minutes_later(7))], minutes_later(7));
        let listed: Vec<_> = merged.entries.iter().map(|entry| entry.peer).collect();
        let expected: Vec<_> = (2..=7).rev().map(|seed| server(seed).peer_id()).collect();
        assert_eq!(listed, expected);
        assert!(!merged.lists(&server(1).peer_id()));
    }

    #[test]
    fn forged_stale_and_oversized_entries_are_left_out_with_the_reason() {
        let good = entry(1, NOW);
        let mut forged = entry(2, NOW);
        forged.wire.made_at_s += 1;
        let stale = entry(3, UnixMillis(NOW.0 - 3 * 3_600_000));
        let early = entry(4, minutes_later(60));
        let elsewhere = ServiceEntry::new(&server(5), &service("other"), (&[], NAT), NOW);
        let mut oversized = entry(6, NOW);
        oversized.wire.endpoints = vec![Bytes::from_static(&[1; 6]); 14];
        let mut record =
            open(&sealed(vec![good.clone(), forged, stale, early, elsewhere]), NOW).unwrap();
        record.rejected.extend(open(&sealed(vec![oversized]), NOW).unwrap().rejected);
        let expected = ServiceRecord {
            entries: vec![good],
            rejected: vec![
                RecordRejected::Forged,
                RecordRejected::Stale(Duration::from_secs(3 * 3600)),
                RecordRejected::FromTheFuture(Duration::from_secs(3600)),
                RecordRejected::Forged,
                RecordRejected::Oversized(223),
            ],
        };
        assert_eq!(record, expected);
    }

    #[test]
    fn a_record_of_another_service_stays_closed() {
        let sealed = sealed(vec![entry(1, NOW)]);
        let opened = ServiceRecord::open(&sealed, &service("other"), NOW);
        assert_eq!(opened, Err(RecordRejected::WrongKey));
        assert_eq!(open(&sealed[..899], NOW), Err(RecordRejected::Truncated(899)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_calmly(bytes in prop::collection::vec(any::<u8>(), 0..=1000)) {
            prop_assert!(open(&bytes, NOW).is_err());
        }

        #[test]
        fn any_sealed_entries_are_taken_calmly(bytes in prop::collection::vec(any::<u8>(), 0..=140)) {
            let wire = WireEntry { signature: bytes.into(), ..entry(1, NOW).wire };
            let record = Wire { entries: vec![wire] };
            let sealed = seal_padded(&record, SEALED_SIZE, &name().sealing_key(), &mut Entropy::from_seed(1));
            prop_assert_eq!(open(&sealed, NOW).unwrap().rejected.len(), 1);
        }
    }
}
