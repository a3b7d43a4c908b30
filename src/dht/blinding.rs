//! Keys that write to the DHT without naming anybody.
//!
//! A peer record is stored under a *blinded* key, as Tor's version 3 onion services do it: from the peer
//! id A (a point) and a secret, everybody who knows both computes h and k' = h·A; only the owner of A's
//! private scalar a can sign under k', with h·a. Who sees k' learns neither A nor that two blinded keys
//! belong to the same peer. Service records and inboxes are stored under *shared* keys: whoever knows
//! the secret can write.

use std::fmt;

use curve25519_dalek::{EdwardsPoint, scalar::Scalar};
use ed25519_dalek::{Signature, VerifyingKey, hazmat::ExpandedSecretKey};
use ring::digest;

use crate::{
    identity::{Identity, PeerId},
    sealing::Key,
};

/// A key pair that signs items of the DHT; not an identity.
pub struct WriteKey {
    secret: ExpandedSecretKey,
    public: VerifyingKey,
}

impl WriteKey {
    /// The key that only `identity` can write with, and that [`blinded_public_key`] computes.
    pub fn blinded(identity: &Identity, secret: &Key) -> Self {
        let own = identity.expanded();
        let factor = blinding_factor(&identity.peer_id(), secret);
        // The nonces of signatures must differ from those that the identity itself makes.
        let prefix = sha_512(&[PREFIX_NAME, &own.hash_prefix, secret.as_bytes()]);
        let secret = ExpandedSecretKey {
            scalar: factor * own.scalar,
            hash_prefix: *prefix.first_chunk().expect("SHA-512 has 64 bytes"),
        };
        let public = VerifyingKey::from(&secret);
        Self { secret, public }
    }

    /// The key of all who know `seed`, which is used as an Ed25519 private key (RFC 8032).
    pub fn shared(seed: &Key) -> Self {
        let secret = ExpandedSecretKey::from(seed.as_bytes());
        let public = VerifyingKey::from(&secret);
        Self { secret, public }
    }

    /// The public half, under which the DHT stores what this key signs.
    pub fn public_key(&self) -> [u8; 32] {
        self.public.to_bytes()
    }

    /// A signature that every Ed25519 verifier accepts under [`WriteKey::public_key`].
    ///
    /// RFC 8032, section 5.1.6, from step 2 on: a blinded key has a scalar, but no private key that
    /// would hash to it.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let nonce = scalar(&[&self.secret.hash_prefix, message]);
        let commitment = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
        let challenge = scalar(&[&commitment, self.public.as_bytes(), message]);
        let response = nonce + challenge * self.secret.scalar;
        Signature::from_components(commitment, response.to_bytes()).to_bytes()
    }
}

impl fmt::Debug for WriteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteKey(…)")
    }
}

/// The public key under which `peer` writes, for those who know `secret`.
pub fn blinded_public_key(peer: &PeerId, secret: &Key) -> [u8; 32] {
    let point = peer.point() * blinding_factor(peer, secret);
    point.compress().to_bytes()
}

/// Whether `signature` covers `message` under `public_key` (strict verification, RFC 8032).
pub fn verifies(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public_key)
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .is_ok()
}

fn blinding_factor(peer: &PeerId, secret: &Key) -> Scalar {
    scalar(&[FACTOR_NAME, peer.as_bytes(), secret.as_bytes()])
}

fn scalar(parts: &[&[u8]]) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&sha_512(parts))
}

fn sha_512(parts: &[&[u8]]) -> [u8; 64] {
    let mut context = digest::Context::new(&digest::SHA512);
    for part in parts {
        context.update(part);
    }
    *context.finish().as_ref().first_chunk().expect("SHA-512 has 64 bytes")
}

const FACTOR_NAME: &[u8] = b"p2p-node/1 blinding factor";
const PREFIX_NAME: &[u8] = b"p2p-node/1 blinded nonce";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_owner_signs_under_the_key_that_others_compute() {
        let (identity, secret) = (Identity::from_seed([7; 32]), Key::from_bytes([1; 32]));
        let key = WriteKey::blinded(&identity, &secret);
        assert_eq!(key.public_key(), blinded_public_key(&identity.peer_id(), &secret));
        let signature = key.sign(b"hello");
        assert!(verifies(&key.public_key(), b"hello", &signature));
        assert!(!verifies(&key.public_key(), b"hellO", &signature));
    }

    #[test]
    fn peer_and_secret_both_change_the_key_and_neither_is_seen_in_it() {
        let peer = |seed| Identity::from_seed([seed; 32]).peer_id();
        let key = |seed, secret| blinded_public_key(&peer(seed), &Key::from_bytes([secret; 32]));
        assert_ne!(key(7, 1), key(7, 2));
        assert_ne!(key(7, 1), key(8, 1));
        assert_ne!(key(7, 1), *peer(7).as_bytes());
    }

    #[test]
    fn a_blinded_key_does_not_repeat_the_nonces_of_the_identity() {
        let identity = Identity::from_seed([7; 32]);
        let key = WriteKey::blinded(&identity, &Key::from_bytes([1; 32]));
        assert_ne!(key.sign(b"hello")[..32], identity.sign(b"hello")[..32]);
    }

    proptest! {
        #[test]
        fn every_blinded_key_is_a_good_key(seed: [u8; 32], secret: [u8; 32]) {
            let key = WriteKey::blinded(&Identity::from_seed(seed), &Key::from_bytes(secret));
            prop_assert!(PeerId::from_bytes(key.public_key()).is_ok());
            prop_assert!(verifies(&key.public_key(), b"x", &key.sign(b"x")));
        }
    }
}
