//! What the recipient of an offer tells back, where the way in needs it: how its own NAT gives out ports
//! now, and once more where it is.
//!
//! An answer says the same as an offer, in the other direction and in the same conversation. It is sealed
//! with a key that both sides have from the offer, so it needs no signature, and looks like another offer
//! to everybody else. Whatever carries offers can carry it.
//!
//! ```text
//!  0             32           44                                              640
//! ┌─────────────┬────────────┬────────────────────────────────────────────────┐
//! │ random (32) │ nonce (12) │ sealed: protobuf Offer, length-prefixed, padded │
//! └─────────────┴────────────┴────────────────────────────────────────────────┘
//! ```

use prost::Message as _;

use super::{AGE_MAX, Offer, OfferRejected, PLAINTEXT_SIZE, SEALED_SIZE};
use crate::{
    entropy::Entropy, identity::PeerId, probe::ConversationId, proto::rendezvous::Offer as Wire,
    sealing::Key, time::UnixMillis,
};

/// Seals the answers of one conversation; both of its sides have it.
#[derive(Clone, Debug)]
pub struct AnswerKey {
    key: Key,
    conversation: ConversationId,
}

impl AnswerKey {
    pub(super) fn new(shared: &Key, conversation: ConversationId) -> Self {
        let name = "p2p-node/1 answer sealing";
        Self { key: Key::derive(name, shared.as_bytes(), &[&conversation.0]), conversation }
    }

    /// Seals `answer`, which must be of this conversation; [`SEALED_SIZE`] bytes.
    pub fn seal(&self, answer: &Offer, entropy: &mut Entropy) -> Vec<u8> {
        let mut plaintext = answer.to_wire().encode_length_delimited_to_vec();
        plaintext.resize(PLAINTEXT_SIZE, 0);
        let mut random: [u8; 32] = entropy.bytes();
        // As in the public key that an offer has in this place.
        let [.., last] = &mut random;
        *last &= 0x7F;
        let nonce: [u8; 12] = entropy.bytes();
        let sealed = self.key.seal(nonce, &random, &plaintext);
        [random.as_slice(), &nonce, &sealed].concat()
    }

    /// Opens an answer of `from` at the time `now`.
    ///
    /// # Errors
    /// When it is not a fresh answer in this conversation.
    pub fn open(
        &self,
        sealed: &[u8],
        from: PeerId,
        now: UnixMillis,
    ) -> Result<Offer, OfferRejected> {
        if sealed.len() != SEALED_SIZE {
            return Err(OfferRejected::WrongSize);
        }
        let (random, sealed) = sealed.split_first_chunk::<32>().ok_or(OfferRejected::WrongSize)?;
        let (nonce, sealed) = sealed.split_first_chunk::<12>().ok_or(OfferRejected::WrongSize)?;
        let plaintext =
            self.key.open(*nonce, random, sealed).map_err(|_| OfferRejected::NotForUs)?;
        let wire = Wire::decode_length_delimited(plaintext.as_slice())
            .map_err(|_| OfferRejected::Malformed("protobuf"))?;
        let answer = Offer::from_wire(&wire)?;
        if answer.from != from || answer.conversation != self.conversation {
            return Err(OfferRejected::NotForUs);
        }
        let (age, ahead) = (answer.made_at.age_at(now), answer.made_at.ahead_of(now));
        match (age > AGE_MAX, ahead > AGE_MAX) {
            (true, _) => Err(OfferRejected::Stale(age)),
            (_, true) => Err(OfferRejected::FromTheFuture(ahead)),
            (false, false) => Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{behaviour::NatBehaviour, identity::Identity};

    const NOW: UnixMillis = UnixMillis(1_763_820_000_000);

    fn bob() -> PeerId {
        Identity::from_seed([2; 32]).peer_id()
    }

    fn key() -> AnswerKey {
        AnswerKey::new(&Key::from_bytes([7; 32]), ConversationId([9; 8]))
    }

    fn answer() -> Offer {
        Offer {
            from: bob(),
            conversation: ConversationId([9; 8]),
            made_at: NOW,
            candidates: vec![],
            nat: NatBehaviour::default(),
            proof: None,
        }
    }

    #[test]
    fn an_answer_opens_for_who_made_the_offer_while_it_is_fresh() {
        let sealed = key().seal(&answer(), &mut Entropy::from_seed(1));
        assert_eq!(sealed.len(), SEALED_SIZE);
        assert_eq!(key().open(&sealed, bob(), NOW), Ok(answer()));
        let late = UnixMillis(NOW.0 + 300_000);
        assert!(matches!(key().open(&sealed, bob(), late), Err(OfferRejected::Stale(_))));
        let other = AnswerKey::new(&Key::from_bytes([7; 32]), ConversationId([8; 8]));
        assert_eq!(other.open(&sealed, bob(), NOW), Err(OfferRejected::NotForUs));
        let carol = Identity::from_seed([3; 32]).peer_id();
        assert_eq!(key().open(&sealed, carol, NOW), Err(OfferRejected::NotForUs));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_calmly(bytes in prop::collection::vec(any::<u8>(), 0..=SEALED_SIZE)) {
            prop_assert!(key().open(&bytes, bob(), NOW).is_err());
        }
    }
}
