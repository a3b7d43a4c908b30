//! Randomness and key exchange for TLS that repeat with their seed: what virtual time needs, and what
//! nobody else should use.

use std::sync::{Mutex, PoisonError};

use curve25519_dalek::MontgomeryPoint;
use rustls::{
    Error, NamedGroup, PeerMisbehaved,
    crypto::{ActiveKeyExchange, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup},
};
use zeroize::Zeroizing;

use crate::entropy::Entropy;

/// A seeded stream of bytes in the shape that rustls takes.
#[derive(Debug)]
pub(in crate::transport) struct Random(Mutex<Entropy>);

impl Random {
    pub(in crate::transport) fn new(entropy: Entropy) -> Self {
        Self(Mutex::new(entropy))
    }

    fn secret(&self) -> [u8; 32] {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    }
}

impl SecureRandom for Random {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        for part in buffer.chunks_mut(32) {
            for (byte, random) in part.iter_mut().zip(self.secret()) {
                *byte = random;
            }
        }
        Ok(())
    }
}

/// X25519 (RFC 7748) with secrets from a seeded stream; `ring` draws its own and cannot be told.
#[derive(Debug)]
pub(in crate::transport) struct X25519(pub(in crate::transport) &'static Random);

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = Zeroizing::new(self.0.secret());
        let public = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::from(PeerMisbehaved::InvalidKeyShare);
        let peer: [u8; 32] = peer.try_into().map_err(|_| invalid())?;
        let shared = MontgomeryPoint(peer).mul_clamped(*self.secret).to_bytes();
        // RFC 8446, section 7.4.2: an all-zero secret means a point of small order.
        if shared == [0; 32] {
            return Err(invalid());
        }
        Ok(SharedSecret::from(shared.as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
