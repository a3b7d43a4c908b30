//! What we tell a peer before there is a path: who we are, where we may be reached, and the
//! conversation that our probes will belong to.
//!
//! An offer is signed by its maker, padded, and sealed to the recipient with a key pair that is used
//! for one dial only (X25519, HKDF, ChaCha20-Poly1305). The same agreement keys the probes, so that the
//! recipient needs not answer before it probes. A dial that repeats its offer, with fresher addresses,
//! keeps the key pair and the conversation.
//!
//! ```text
//!  0                    32           44                                              640
//! ┌────────────────────┬────────────┬────────────────────────────────────────────────┐
//! │ ephemeral key (32) │ nonce (12) │ sealed: protobuf Offer, length-prefixed, padded │
//! └────────────────────┴────────────┴────────────────────────────────────────────────┘
//! ```

mod answer;

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

pub use self::answer::AnswerKey;
use crate::{
    behaviour::NatBehaviour,
    candidate::{CANDIDATES_MAX, Candidate, CandidateKind, decode_compact, encode_compact},
    entropy::Entropy,
    identity::{Ephemeral, Identity, PeerId},
    probe::{ConversationId, ProbeKeys, Side},
    proto::rendezvous::Offer as Wire,
    sealing::Key,
    time::UnixMillis,
};

/// Bytes of every sealed offer: the DHT's limit leaves 900, and one size tells nothing of the content.
pub const SEALED_SIZE: usize = 640;

/// An offer made longer ago than this is not answered.
///
/// The dialler waits some ten seconds for an answer; the rest is room for clocks that differ. What a
/// recipient that restarts finds of old offers costs it a few probes at most.
pub const AGE_MAX: Duration = Duration::from_secs(120);

/// What a dialler tells the peer it wants to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The dialler.
    pub from: PeerId,
    /// Names the keys of the probes.
    pub conversation: ConversationId,
    /// When it was made, by the dialler's clock.
    pub made_at: UnixMillis,
    /// Where the dialler may be reached, best first.
    pub candidates: Vec<Candidate>,
    /// How the dialler's NAT behaves.
    pub nat: NatBehaviour,
    /// Proof that the dialler may connect, see [`Offer::proof`].
    pub proof: Option<[u8; 32]>,
}

/// An offer made for one recipient.
#[derive(Debug)]
pub struct SealedOffer {
    /// What to send or store; [`SEALED_SIZE`] bytes.
    pub bytes: Vec<u8>,
    /// The dialler's keys for the probes of this conversation.
    pub keys: ProbeKeys,
    /// Opens the answer.
    pub answer: AnswerKey,
}

/// An offer that was received and is what it claims to be.
#[derive(Debug)]
pub struct OpenedOffer {
    /// What it says.
    pub offer: Offer,
    /// The recipient's keys for the probes of this conversation.
    pub keys: ProbeKeys,
    /// Seals the answer.
    pub answer: AnswerKey,
}

/// Why bytes are no offer for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OfferRejected {
    /// They have another size than every offer has.
    #[error("not the size of an offer")]
    WrongSize,
    /// They are sealed to somebody else, or were changed.
    #[error("not sealed to us")]
    NotForUs,
    /// What was sealed is no offer.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not the dialler's.
    #[error("not signed by whom it claims to come from")]
    Forged,
    /// It was made too long ago.
    #[error("made {} s ago", .0.as_secs())]
    Stale(Duration),
    /// It was made too far in the future: a clock is wrong.
    #[error("made {} s ahead of our clock", .0.as_secs())]
    FromTheFuture(Duration),
}

impl Offer {
    /// Proof for `to` that the maker of an offer knows `admission`, bound to this conversation.
    pub fn proof(
        admission: &Key,
        from: &PeerId,
        to: &PeerId,
        conversation: ConversationId,
    ) -> [u8; 32] {
        admission.authenticate(&[PROOF_NAME, from.as_bytes(), to.as_bytes(), &conversation.0])
    }

    /// Whether the offer's proof shows that its maker knows `admission`.
    pub fn proves(&self, admission: &Key, to: &PeerId) -> bool {
        let parts = [PROOF_NAME, self.from.as_bytes(), to.as_bytes(), &self.conversation.0];
        self.proof.is_some_and(|proof| admission.verifies(&parts, &proof))
    }

    /// Signs the offer as `identity`, which must be its maker, and seals it to `to` with the dial's key pair.
    pub fn seal(
        &self,
        identity: &Identity,
        to: &PeerId,
        ephemeral: &Ephemeral,
        entropy: &mut Entropy,
    ) -> SealedOffer {
        let shared = ephemeral.agree(to);
        let mut wire = self.to_wire();
        wire.signature = identity.sign(&signed_bytes(&wire, to, &ephemeral.public)).to_vec().into();
        let mut plaintext = wire.encode_length_delimited_to_vec();
        assert!(
            plaintext.len() <= PLAINTEXT_SIZE,
            "16 candidates of 18 bytes fit, see SEALED_SIZE"
        );
        plaintext.resize(PLAINTEXT_SIZE, 0);
        let nonce: [u8; 12] = entropy.bytes();
        let sealed = sealing_key(&shared, to).seal(nonce, &ephemeral.public, &plaintext);
        let keys = ProbeKeys::new(&shared, self.conversation, Side::Initiator);
        let answer = AnswerKey::new(&shared, self.conversation);
        SealedOffer { bytes: [ephemeral.public.as_slice(), &nonce, &sealed].concat(), keys, answer }
    }

    fn to_wire(&self) -> Wire {
        Wire {
            from: self.from.as_bytes().to_vec().into(),
            conversation: self.conversation.0.to_vec().into(),
            made_at_ms: self.made_at.0,
            endpoints: self
                .candidates
                .iter()
                .take(CANDIDATES_MAX)
                .map(|candidate| encode_compact(candidate.address).into())
                .collect(),
            nat: Some(self.nat.to_wire(self.made_at)),
            proof: self.proof.map_or_else(Default::default, |proof| proof.to_vec().into()),
            signature: Bytes::new(),
        }
    }

    fn from_wire(wire: &Wire) -> Result<Self, OfferRejected> {
        let malformed = OfferRejected::Malformed;
        if wire.endpoints.len() > CANDIDATES_MAX {
            return Err(malformed("too many endpoints"));
        }
        let candidates = wire
            .endpoints
            .iter()
            .map(|endpoint| {
                let address = decode_compact(endpoint)?;
                Candidate::new(CandidateKind::ServerReflexive, address)
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| malformed("endpoint"))?;
        let conversation = <[u8; 8]>::try_from(&*wire.conversation);
        let proof = match wire.proof.len() {
            0 => None,
            _ => Some(<[u8; 32]>::try_from(&*wire.proof).map_err(|_| malformed("proof"))?),
        };
        Ok(Self {
            from: PeerId::from_slice(&wire.from).map_err(|_| malformed("from"))?,
            conversation: ConversationId(conversation.map_err(|_| malformed("conversation"))?),
            made_at: UnixMillis(wire.made_at_ms),
            candidates,
            nat: NatBehaviour::from_wire(wire.nat, UnixMillis(wire.made_at_ms)),
            proof,
        })
    }
}

/// Opens `sealed` as `identity`, its recipient, at the time `now`.
///
/// # Errors
/// When it is not a fresh, signed offer for us.
pub fn open(
    sealed: &[u8],
    identity: &Identity,
    now: UnixMillis,
) -> Result<OpenedOffer, OfferRejected> {
    if sealed.len() != SEALED_SIZE {
        return Err(OfferRejected::WrongSize);
    }
    let us = identity.peer_id();
    let (ephemeral, sealed) = sealed.split_first_chunk::<32>().ok_or(OfferRejected::WrongSize)?;
    let (nonce, sealed) = sealed.split_first_chunk::<12>().ok_or(OfferRejected::WrongSize)?;
    let shared = identity.agree(ephemeral);
    let plaintext = sealing_key(&shared, &us)
        .open(*nonce, ephemeral, sealed)
        .map_err(|_| OfferRejected::NotForUs)?;
    let wire = Wire::decode_length_delimited(plaintext.as_slice())
        .map_err(|_| OfferRejected::Malformed("protobuf"))?;
    let offer = Offer::from_wire(&wire)?;
    if !offer.from.verifies(&signed_bytes(&wire, &us, ephemeral), &wire.signature) {
        return Err(OfferRejected::Forged);
    }
    let (age, ahead) = (offer.made_at.age_at(now), offer.made_at.ahead_of(now));
    if age > AGE_MAX {
        return Err(OfferRejected::Stale(age));
    }
    if ahead > AGE_MAX {
        return Err(OfferRejected::FromTheFuture(ahead));
    }
    let keys = ProbeKeys::new(&shared, offer.conversation, Side::Responder);
    let answer = AnswerKey::new(&shared, offer.conversation);
    Ok(OpenedOffer { offer, keys, answer })
}

fn sealing_key(shared: &Key, to: &PeerId) -> Key {
    Key::derive("p2p-node/1 offer sealing", shared.as_bytes(), &[to.as_bytes()])
}

fn signed_bytes(wire: &Wire, to: &PeerId, ephemeral: &[u8; 32]) -> Vec<u8> {
    let unsigned = Wire { signature: Bytes::new(), ..wire.clone() };
    [b"p2p-node/1 offer".as_slice(), to.as_bytes(), ephemeral, &unsigned.encode_to_vec()].concat()
}

const PROOF_NAME: &[u8] = b"p2p-node/1 offer";
const PLAINTEXT_SIZE: usize = SEALED_SIZE - 32 - 12 - crate::sealing::TAG_SIZE;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::{Probe, Transaction, Urgency};

    const NOW: UnixMillis = UnixMillis(1_763_820_000_000);

    fn alice() -> Identity {
        Identity::from_seed([1; 32])
    }

    fn bob() -> Identity {
        Identity::from_seed([2; 32])
    }

    fn offer() -> Offer {
        let address = |index: usize| format!("[2001:db8::{index}]:50112").parse().unwrap();
        Offer {
            from: alice().peer_id(),
            conversation: ConversationId([9; 8]),
            made_at: NOW,
            candidates: (0..CANDIDATES_MAX)
                .map(|index| {
                    Candidate::new(CandidateKind::ServerReflexive, address(index + 1)).unwrap()
                })
                .collect(),
            nat: NatBehaviour::default(),
            proof: Some([3; 32]),
        }
    }

    fn seal_as(identity: &Identity) -> SealedOffer {
        let mut entropy = Entropy::from_seed(1);
        let ephemeral = Ephemeral::generate(&mut entropy);
        offer().seal(identity, &bob().peer_id(), &ephemeral, &mut entropy)
    }

    fn sealed() -> SealedOffer {
        seal_as(&alice())
    }

    #[test]
    fn the_largest_offer_arrives_and_both_sides_can_probe() {
        let (sealed, mut entropy) = (sealed(), Entropy::from_seed(2));
        let opened = open(&sealed.bytes, &bob(), NOW).unwrap();
        assert_eq!(opened.offer, offer());
        let ping = Probe::Ping { transaction: Transaction(1), urgency: Urgency::Routine };
        assert_eq!(sealed.keys.decode(&opened.keys.encode(ping, &mut entropy)), Some(ping));
    }

    #[test]
    fn an_offer_opens_for_its_recipient_only() {
        let carol = Identity::from_seed([3; 32]);
        assert_eq!(open(&sealed().bytes, &carol, NOW).unwrap_err(), OfferRejected::NotForUs);
    }

    #[test]
    fn an_offer_in_somebody_elses_name_is_forged() {
        let mallory = Identity::from_seed([4; 32]);
        let forged = seal_as(&mallory);
        assert_eq!(open(&forged.bytes, &bob(), NOW).unwrap_err(), OfferRejected::Forged);
    }

    #[test]
    fn old_offers_and_offers_from_the_future_are_refused() {
        let minutes = |count: u64| UnixMillis(NOW.0 + count * 60_000);
        let late = open(&sealed().bytes, &bob(), minutes(5)).unwrap_err();
        assert_eq!(late, OfferRejected::Stale(Duration::from_secs(300)));
        let early = open(&sealed().bytes, &bob(), UnixMillis(NOW.0 - 300_000)).unwrap_err();
        assert_eq!(early, OfferRejected::FromTheFuture(Duration::from_secs(300)));
    }

    #[test]
    fn a_proof_is_for_one_recipient_and_one_conversation() {
        let (admission, bob) = (Key::from_bytes([5; 32]), bob().peer_id());
        let mut offer = offer();
        offer.proof = Some(Offer::proof(&admission, &offer.from, &bob, offer.conversation));
        assert!(offer.proves(&admission, &bob));
        assert!(!offer.proves(&Key::from_bytes([6; 32]), &bob));
        offer.conversation = ConversationId([8; 8]);
        assert!(!offer.proves(&admission, &bob));
    }

    proptest! {
        #[test]
        fn a_changed_offer_is_refused(position in 0..SEALED_SIZE, change in 1..=255_u8) {
            let mut bytes = sealed().bytes;
            bytes[position] ^= change;
            prop_assert!(open(&bytes, &bob(), NOW).is_err());
        }

        #[test]
        fn any_bytes_are_taken_calmly(bytes in prop::collection::vec(any::<u8>(), 0..=SEALED_SIZE)) {
            prop_assert!(open(&bytes, &bob(), NOW).is_err());
        }
    }
}
