//! Who a node is: an Ed25519 key pair. The public half is the peer id.

use std::{fmt, str::FromStr, sync::LazyLock};

use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, edwards::CompressedEdwardsY};
use data_encoding::{Encoding, Specification};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey, hazmat::ExpandedSecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{entropy::Entropy, sealing::Key};

/// A peer's Ed25519 public key; written as 52 characters of z-base-32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

/// Why a text or bytes are not a peer id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidPeerId {
    /// The text has another length or a character outside z-base-32.
    #[error("a peer id is 52 characters of ybndrfg8ejkmcpqxot1uwisza345h769")]
    NotZBase32,
    /// The bytes are no point of the curve's prime-order group.
    #[error("not an Ed25519 public key")]
    NotAKey,
}

impl PeerId {
    /// The id with these 32 bytes.
    ///
    /// # Errors
    /// When they are not the canonical encoding of a point of prime order, so that no two ids name the
    /// same key and no id is a key that anybody can sign for.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, InvalidPeerId> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| InvalidPeerId::NotAKey)?;
        let point = decompress(&bytes).ok_or(InvalidPeerId::NotAKey)?;
        let canonical = point.compress().to_bytes() == bytes;
        if key.is_weak() || !canonical || !point.is_torsion_free() {
            return Err(InvalidPeerId::NotAKey);
        }
        Ok(Self(bytes))
    }

    /// The id in a slice of exactly 32 bytes.
    ///
    /// # Errors
    /// As [`PeerId::from_bytes`], or another length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidPeerId> {
        Self::from_bytes(bytes.try_into().map_err(|_| InvalidPeerId::NotAKey)?)
    }

    /// The 32 bytes of the public key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key as a curve point.
    pub fn point(&self) -> EdwardsPoint {
        decompress(&self.0).expect("a peer id is a point, see from_bytes")
    }

    /// Whether `signature` by this peer covers `message` (strict verification, RFC 8032).
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else {
            return false;
        };
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }

    /// The first eight characters, for people.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Z_BASE_32.encode(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for PeerId {
    type Err = InvalidPeerId;

    fn from_str(text: &str) -> Result<Self, InvalidPeerId> {
        if text.len() != PEER_ID_CHARACTERS {
            return Err(InvalidPeerId::NotZBase32);
        }
        let bytes = Z_BASE_32.decode(text.as_bytes()).map_err(|_| InvalidPeerId::NotZBase32)?;
        Self::from_slice(&bytes)
    }
}

/// A node's own key pair, made from a 32-byte seed that is wiped when dropped.
#[derive(Clone)]
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    signing_key: SigningKey,
}

impl Identity {
    /// The identity with this seed (RFC 8032's private key).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed: Zeroizing::new(seed), signing_key: SigningKey::from_bytes(&seed) }
    }

    /// A new identity.
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self::from_seed(entropy.bytes())
    }

    /// The seed, to be stored and nothing else.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.signing_key.verifying_key().to_bytes())
    }

    /// Signs `message` (Ed25519, RFC 8032); 64 bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing_key.sign(message).to_bytes()
    }

    /// The private key as PKCS#8 (RFC 8410), as TLS libraries take it.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([PKCS8_PREFIX.as_slice(), self.seed.as_slice()].concat())
    }

    /// The secret scalar and the nonce prefix of the key pair (RFC 8032, section 5.1.5), for key blinding.
    pub fn expanded(&self) -> ExpandedSecretKey {
        ExpandedSecretKey::from(&*self.seed)
    }

    /// X25519 between this identity and somebody's ephemeral public key (RFC 7748).
    pub fn agree(&self, ephemeral: &[u8; 32]) -> Key {
        let shared = MontgomeryPoint(*ephemeral).mul_clamped(self.signing_key.to_scalar_bytes());
        Key::from_bytes(shared.to_bytes())
    }

    /// A further secret of this identity, for example the one in its ticket.
    pub fn derive(&self, purpose: &str) -> Key {
        Key::derive("p2p-node/1 identity", self.seed.as_slice(), &[purpose.as_bytes()])
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.peer_id())
    }
}

/// An X25519 key pair that is used once, to seal something to a peer.
pub struct Ephemeral {
    secret: Zeroizing<[u8; 32]>,
    /// What the peer needs to arrive at the same key.
    pub public: [u8; 32],
}

impl Ephemeral {
    /// A new key pair.
    pub fn generate(entropy: &mut Entropy) -> Self {
        let secret = Zeroizing::new(entropy.bytes());
        let public = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        Self { secret, public }
    }

    /// The key that `peer` computes with [`Identity::agree`].
    pub fn agree(&self, peer: &PeerId) -> Key {
        Key::from_bytes(peer.point().to_montgomery().mul_clamped(*self.secret).to_bytes())
    }
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ephemeral(…)")
    }
}

fn decompress(bytes: &[u8; 32]) -> Option<EdwardsPoint> {
    CompressedEdwardsY(*bytes).decompress()
}

/// Characters of a peer id.
pub const PEER_ID_CHARACTERS: usize = 52;

/// RFC 5958 version 1 with the Ed25519 algorithm identifier; the seed follows.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Zooko's base 32: no characters that people mix up.
static Z_BASE_32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("ybndrfg8ejkmcpqxot1uwisza345h769");
    specification.encoding().expect("32 distinct symbols")
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_is_52_characters_and_comes_back() {
        let id = Identity::from_seed([7; 32]).peer_id();
        let text = id.to_string();
        assert_eq!(text.len(), 52);
        assert_eq!(text.parse(), Ok(id));
    }

    #[test]
    fn texts_and_bytes_that_are_no_key_are_refused() {
        assert_eq!("nobody".parse::<PeerId>(), Err(InvalidPeerId::NotZBase32));
        assert_eq!("l".repeat(52).parse::<PeerId>(), Err(InvalidPeerId::NotZBase32));
        assert_eq!(PeerId::from_bytes([0; 32]), Err(InvalidPeerId::NotAKey));
        let mut identity_element = [0; 32];
        identity_element[0] = 1;
        assert_eq!(PeerId::from_bytes(identity_element), Err(InvalidPeerId::NotAKey));
    }

    #[test]
    fn both_sides_agree_on_the_same_key() {
        let bob = Identity::from_seed([2; 32]);
        let ephemeral = Ephemeral::generate(&mut Entropy::from_seed(1));
        assert_eq!(ephemeral.agree(&bob.peer_id()), bob.agree(&ephemeral.public));
    }

    #[test]
    fn a_signature_covers_its_message_only() {
        let bob = Identity::from_seed([2; 32]);
        let signature = bob.sign(b"hello");
        assert!(bob.peer_id().verifies(b"hello", &signature));
        assert!(!bob.peer_id().verifies(b"hellO", &signature));
        assert!(!bob.peer_id().verifies(b"hello", &signature[..63]));
    }

    #[test]
    fn an_identity_never_shows_its_seed() {
        assert!(!format!("{:?}", Identity::from_seed([7; 32])).contains("07"));
    }
}
