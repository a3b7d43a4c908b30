//! What a peer publishes about itself: where it may be reached, and who forwards offers to it.
//!
//! A record is signed by the peer's identity, padded to one size, and sealed with a key that comes from
//! the name it is published under; the DHT sees random bytes.
//!
//! ```text
//! ┌────────────┬────────────────────────────────────────────────────┬──────────┐
//! │ nonce (12) │ sealed: protobuf PeerRecord, length-prefixed, padded│ tag (16) │
//! └────────────┴────────────────────────────────────────────────────┴──────────┘
//! ```

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use crate::{
    behaviour::NatBehaviour,
    candidate::{CANDIDATES_MAX, Candidate, CandidateKind, decode_compact, encode_compact},
    entropy::Entropy,
    forwarding::{HELPERS_MAX, Helper},
    identity::{Identity, PeerId},
    proto::rendezvous::PeerRecord as Wire,
    sealing::{Key, TAG_SIZE},
    time::UnixMillis,
};

/// Bytes of every sealed peer record: the largest one fits, and one size tells nothing of the content.
pub const SEALED_SIZE: usize = 800;

/// A record made longer ago than this is not used.
///
/// Records are renewed every 25 minutes at least (see [`super::publication`]), so this is four renewals
/// missed; some DHT nodes never forget.
pub const AGE_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// How far ahead of our clock a record may have been made: clocks of desktops differ by minutes.
pub const SKEW_MAX: Duration = Duration::from_secs(10 * 60);

/// How to reach one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// Whom.
    pub peer: PeerId,
    /// When this was true, by the peer's clock.
    pub made_at: UnixMillis,
    /// Where it may be reached, best first; at most [`CANDIDATES_MAX`].
    pub candidates: Vec<Candidate>,
    /// How its NAT behaves.
    pub nat: NatBehaviour,
    /// Who forwards offers to it; at most [`HELPERS_MAX`].
    pub helpers: Vec<Helper>,
}

/// Why bytes from the DHT are no record that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordRejected {
    /// More bytes than a record has.
    #[error("{0} bytes are more than a record has")]
    Oversized(usize),
    /// Fewer bytes than a record has.
    #[error("{0} bytes are fewer than a record has")]
    Truncated(usize),
    /// Sealed with another key, or changed since.
    #[error("not sealed with this name's key")]
    WrongKey,
    /// What was sealed is no record.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// It is about another peer than the one that was asked for.
    #[error("about another peer")]
    OtherPeer,
    /// The signature is not the peer's.
    #[error("not signed by the peer it is about")]
    Forged,
    /// It was made too long ago.
    #[error("made {} s ago", .0.as_secs())]
    Stale(Duration),
    /// It was made too far in the future: a clock is wrong.
    #[error("made {} s ahead of our clock", .0.as_secs())]
    FromTheFuture(Duration),
}

impl PeerRecord {
    /// Signs the record as `identity`, which must be the peer it is about, and seals it with `key`.
    pub fn seal(&self, identity: &Identity, key: &Key, entropy: &mut Entropy) -> Vec<u8> {
        let mut wire = self.to_wire();
        wire.signature = identity.sign(&signed_bytes(&wire)).to_vec().into();
        seal_padded(&wire, SEALED_SIZE, key, entropy)
    }

    /// Opens what [`PeerRecord::seal`] made, as the record of `peer` at the time `now`.
    ///
    /// # Errors
    /// When it is not a fresh record, signed by `peer` and sealed with `key`.
    pub fn open(
        sealed: &[u8],
        peer: &PeerId,
        key: &Key,
        now: UnixMillis,
    ) -> Result<Self, RecordRejected> {
        let wire: Wire = open_padded(sealed, SEALED_SIZE, key)?;
        let record = Self::from_wire(&wire)?;
        if record.peer != *peer {
            return Err(RecordRejected::OtherPeer);
        }
        if !peer.verifies(&signed_bytes(&wire), &wire.signature) {
            return Err(RecordRejected::Forged);
        }
        check_age(record.made_at, now)?;
        Ok(record)
    }

    fn to_wire(&self) -> Wire {
        Wire {
            peer_id: self.peer.as_bytes().to_vec().into(),
            made_at_ms: self.made_at.0,
            endpoints: to_endpoints(&self.candidates, CANDIDATES_MAX),
            nat: Some(self.nat.to_wire(self.made_at)),
            helpers: self.helpers.iter().take(HELPERS_MAX).map(|h| h.encode().into()).collect(),
            signature: Bytes::new(),
        }
    }

    fn from_wire(wire: &Wire) -> Result<Self, RecordRejected> {
        Ok(Self {
            peer: to_peer(&wire.peer_id)?,
            made_at: UnixMillis(wire.made_at_ms),
            candidates: to_candidates(&wire.endpoints, CANDIDATES_MAX)?,
            nat: NatBehaviour::from_wire(wire.nat, UnixMillis(wire.made_at_ms)),
            helpers: to_helpers(&wire.helpers)?,
        })
    }
}

/// Seals `message`, length-prefixed and padded, to exactly `size` bytes with a random nonce in front.
///
/// The nonce may be random because one key seals far fewer than 2^32 records.
pub(super) fn seal_padded(
    message: &impl Message,
    size: usize,
    key: &Key,
    entropy: &mut Entropy,
) -> Vec<u8> {
    let mut plaintext = message.encode_length_delimited_to_vec();
    let room = size - NONCE_SIZE - TAG_SIZE;
    assert!(plaintext.len() <= room, "the largest record fits, see the limits of its fields");
    plaintext.resize(room, 0);
    let nonce = entropy.bytes::<NONCE_SIZE>();
    [nonce.as_slice(), &key.seal(nonce, SEALING_CONTEXT, &plaintext)].concat()
}

/// Opens what [`seal_padded`] made.
pub(super) fn open_padded<M: Message + Default>(
    sealed: &[u8],
    size: usize,
    key: &Key,
) -> Result<M, RecordRejected> {
    if sealed.len() > size {
        return Err(RecordRejected::Oversized(sealed.len()));
    }
    let (nonce, sealed) = match sealed.split_first_chunk::<NONCE_SIZE>() {
        Some(parts) if sealed.len() == size => parts,
        Some(_) | None => return Err(RecordRejected::Truncated(sealed.len())),
    };
    let plaintext =
        key.open(*nonce, SEALING_CONTEXT, sealed).map_err(|_| RecordRejected::WrongKey)?;
    M::decode_length_delimited(plaintext.as_slice())
        .map_err(|_| RecordRejected::Malformed("protobuf"))
}

/// Whether something made at `made_at` may be used at `now`.
pub(super) fn check_age(made_at: UnixMillis, now: UnixMillis) -> Result<(), RecordRejected> {
    let (age, ahead) = (made_at.age_at(now), made_at.ahead_of(now));
    if age > AGE_MAX {
        return Err(RecordRejected::Stale(age));
    }
    if ahead > SKEW_MAX {
        return Err(RecordRejected::FromTheFuture(ahead));
    }
    Ok(())
}

/// The first `count_max` candidates as compact endpoints.
pub(super) fn to_endpoints(candidates: &[Candidate], count_max: usize) -> Vec<Bytes> {
    candidates
        .iter()
        .take(count_max)
        .map(|candidate| encode_compact(candidate.address).into())
        .collect()
}

/// The candidates that `endpoints` name, at most `count_max`.
pub(super) fn to_candidates(
    endpoints: &[Bytes],
    count_max: usize,
) -> Result<Vec<Candidate>, RecordRejected> {
    if endpoints.len() > count_max {
        return Err(RecordRejected::Malformed("too many endpoints"));
    }
    endpoints
        .iter()
        .map(|endpoint| Candidate::new(CandidateKind::ServerReflexive, decode_compact(endpoint)?))
        .collect::<Option<_>>()
        .ok_or(RecordRejected::Malformed("endpoint"))
}

/// The helpers that `fields` name.
pub(super) fn to_helpers(fields: &[Bytes]) -> Result<Vec<Helper>, RecordRejected> {
    if fields.len() > HELPERS_MAX {
        return Err(RecordRejected::Malformed("too many helpers"));
    }
    let helpers = fields.iter().map(|field| Helper::decode(field));
    helpers.collect::<Option<_>>().ok_or(RecordRejected::Malformed("helper"))
}

/// The peer id in a field.
pub(super) fn to_peer(bytes: &[u8]) -> Result<PeerId, RecordRejected> {
    PeerId::from_slice(bytes).map_err(|_| RecordRejected::Malformed("peer id"))
}

fn signed_bytes(wire: &Wire) -> Vec<u8> {
    let unsigned = Wire { signature: Bytes::new(), ..wire.clone() };
    [b"p2p-node/1 peer record".as_slice(), &unsigned.encode_to_vec()].concat()
}

const NONCE_SIZE: usize = 12;
const SEALING_CONTEXT: &[u8] = b"p2p-node/1 record";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{behaviour::Dependence, forwarding::Token};

    const NOW: UnixMillis = UnixMillis(1_763_820_000_000);

    fn alice() -> Identity {
        Identity::from_seed([1; 32])
    }

    fn key() -> Key {
        Key::from_bytes([5; 32])
    }

    fn candidates(count: usize) -> Vec<Candidate> {
        (1..=count)
            .map(|index| {
                let address = format!("[2001:db8::{index}]:50112").parse().unwrap();
                Candidate::new(CandidateKind::ServerReflexive, address).unwrap()
            })
            .collect()
    }

    fn record() -> PeerRecord {
        PeerRecord {
            peer: alice().peer_id(),
            made_at: NOW,
            candidates: candidates(CANDIDATES_MAX),
            nat: NatBehaviour::new(
                Some(Dependence::EndpointIndependent),
                Some(Dependence::AddressAndPortDependent),
            ),
            helpers: (1..=3).map(helper).collect(),
        }
    }

    fn helper(number: u8) -> Helper {
        let address = format!("[2001:db8::{number}]:4000").parse().unwrap();
        Helper { address, token: Token([number; 7]) }
    }

    fn sealed_by(identity: &Identity) -> Vec<u8> {
        record().seal(identity, &key(), &mut Entropy::from_seed(1))
    }

    fn open(sealed: &[u8], now: UnixMillis) -> Result<PeerRecord, RecordRejected> {
        PeerRecord::open(sealed, &alice().peer_id(), &key(), now)
    }

    #[test]
    fn the_largest_record_arrives() {
        let sealed = sealed_by(&alice());
        assert_eq!(sealed.len(), SEALED_SIZE);
        assert_eq!(open(&sealed, NOW), Ok(record()));
    }

    #[test]
    fn the_smallest_record_has_the_same_size() {
        let record = PeerRecord { candidates: vec![], helpers: vec![], ..record() };
        let sealed = record.seal(&alice(), &key(), &mut Entropy::from_seed(1));
        assert_eq!(sealed.len(), SEALED_SIZE);
        assert_eq!(open(&sealed, NOW), Ok(record));
    }

    #[test]
    fn a_record_signed_by_somebody_else_is_forged() {
        let sealed = sealed_by(&Identity::from_seed([4; 32]));
        assert_eq!(open(&sealed, NOW), Err(RecordRejected::Forged));
    }

    #[test]
    fn a_record_of_another_peer_is_not_taken_for_the_one_asked_for() {
        let bob = Identity::from_seed([2; 32]).peer_id();
        let opened = PeerRecord::open(&sealed_by(&alice()), &bob, &key(), NOW);
        assert_eq!(opened, Err(RecordRejected::OtherPeer));
    }

    #[test]
    fn a_record_sealed_with_another_key_stays_closed() {
        let (other, alice_id) = (Key::from_bytes([6; 32]), alice().peer_id());
        let opened = PeerRecord::open(&sealed_by(&alice()), &alice_id, &other, NOW);
        assert_eq!(opened, Err(RecordRejected::WrongKey));
    }

    #[test]
    fn old_records_and_records_from_the_future_are_refused() {
        let sealed = sealed_by(&alice());
        let hours = |count: u64| UnixMillis(NOW.0 + count * 3_600_000);
        assert_eq!(open(&sealed, hours(2)), Ok(record()));
        let late = Duration::from_secs(3 * 3600);
        assert_eq!(open(&sealed, hours(3)), Err(RecordRejected::Stale(late)));
        let early = open(&sealed, UnixMillis(NOW.0 - 3_600_000));
        assert_eq!(early, Err(RecordRejected::FromTheFuture(Duration::from_secs(3600))));
    }

    #[test]
    fn a_record_of_another_size_is_refused_unread() {
        let mut sealed = sealed_by(&alice());
        assert_eq!(open(&sealed[..100], NOW), Err(RecordRejected::Truncated(100)));
        assert_eq!(open(&[], NOW), Err(RecordRejected::Truncated(0)));
        sealed.push(0);
        assert_eq!(open(&sealed, NOW), Err(RecordRejected::Oversized(SEALED_SIZE + 1)));
    }

    #[test]
    fn what_was_sealed_but_is_no_record_is_malformed() {
        let wire = Wire { peer_id: vec![1, 2, 3].into(), ..record().to_wire() };
        let sealed = seal_padded(&wire, SEALED_SIZE, &key(), &mut Entropy::from_seed(1));
        assert_eq!(open(&sealed, NOW), Err(RecordRejected::Malformed("peer id")));
        let wire = Wire { endpoints: vec![Bytes::from_static(&[0; 6])], ..record().to_wire() };
        let sealed = seal_padded(&wire, SEALED_SIZE, &key(), &mut Entropy::from_seed(1));
        assert_eq!(open(&sealed, NOW), Err(RecordRejected::Malformed("endpoint")));
        for (helpers, why) in [
            (vec![Bytes::from_static(&[1; 9])], "helper"),
            (vec![Bytes::from_static(&[1; 13]); 4], "too many helpers"),
        ] {
            let wire = Wire { helpers, ..record().to_wire() };
            let sealed = seal_padded(&wire, SEALED_SIZE, &key(), &mut Entropy::from_seed(1));
            assert_eq!(open(&sealed, NOW), Err(RecordRejected::Malformed(why)));
        }
    }

    proptest! {
        #[test]
        fn a_changed_record_is_refused(position in 0..SEALED_SIZE, change in 1..=255_u8) {
            let mut sealed = sealed_by(&alice());
            sealed[position] ^= change;
            prop_assert_eq!(open(&sealed, NOW), Err(RecordRejected::WrongKey));
        }

        #[test]
        fn any_sealed_bytes_are_taken_calmly(
            plaintext in prop::collection::vec(any::<u8>(), SEALED_SIZE - NONCE_SIZE - TAG_SIZE),
        ) {
            let sealed = [&[0; NONCE_SIZE], &*key().seal([0; 12], SEALING_CONTEXT, &plaintext)].concat();
            prop_assert!(open(&sealed, NOW).is_err());
        }
    }
}
