//! Packets for connections of an earlier run of this program.
//!
//! Its peers go on sending to it, and would wait for their idle timeout. A stateless reset (RFC 9000,
//! section 10.3) that only this identity can make tells them in one round trip that it was restarted.

use std::time::{Duration, Instant};

use ring::hmac;

use crate::{entropy::Entropy, identity::Identity};

/// Answers stray packets.
#[derive(Debug)]
pub struct Strays {
    key: hmac::Key,
    run: RunKey,
    entropy: Entropy,
    answered_at: Option<Instant>,
}

/// The key of the resets of `identity`; it outlives the process.
pub(in crate::transport) fn reset_key(identity: &Identity) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, identity.derive("stateless reset").as_bytes())
}

/// By which a run of the program knows the connection ids that it has given: their second half is a
/// function of the first. To others they look random.
#[derive(Clone, Debug)]
pub(in crate::transport) struct RunKey(hmac::Key);

impl RunKey {
    pub(in crate::transport) fn new(secret: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// The connection id that begins with `nonce`.
    pub(in crate::transport) fn connection_id(&self, nonce: [u8; 4]) -> [u8; CONNECTION_ID_SIZE] {
        let tag = hmac::sign(&self.0, &nonce);
        let mut id = [0; CONNECTION_ID_SIZE];
        let bytes = nonce.iter().chain(tag.as_ref());
        id.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        id
    }

    fn has_given(&self, id: &[u8; CONNECTION_ID_SIZE]) -> bool {
        id.first_chunk().is_some_and(|nonce| self.connection_id(*nonce) == *id)
    }
}

/// Whether `packet`, which belongs to no connection, may be one of an earlier run: it has a short header.
pub fn may_be_stray(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & (LONG_HEADER | FIXED) == FIXED)
}

impl Strays {
    /// Of the node with `identity`.
    pub(in crate::transport) fn new(identity: &Identity, run: RunKey, entropy: Entropy) -> Self {
        Self { key: reset_key(identity), run, entropy, answered_at: None }
    }

    /// The answer to a packet that belongs to no connection: always smaller than the packet, so that two
    /// nodes cannot keep each other busy. `None` where there is none, or one was just given.
    pub fn answer(&mut self, packet: &[u8], now: Instant) -> Option<Vec<u8>> {
        let is_soon = |at: Instant| now.saturating_duration_since(at) < ANSWER_INTERVAL;
        if !may_be_stray(packet) || self.answered_at.is_some_and(is_soon) {
            return None;
        }
        let connection_id = packet.get(1..)?.first_chunk()?;
        // A peer whose NAT gave it another address: its connection lives.
        if self.run.has_given(connection_id) {
            return None;
        }
        let size = packet.len().saturating_sub(1).min(SIZE_MAX);
        let random = size.checked_sub(TOKEN_SIZE).filter(|random| *random >= UNPREDICTABLE_SIZE)?;
        let noise = self.entropy.bytes::<SIZE_MAX>();
        let mut answer: Vec<u8> = noise.into_iter().take(random).collect();
        if let Some(first) = answer.first_mut() {
            *first = (*first & !LONG_HEADER) | FIXED;
        }
        let token = hmac::sign(&self.key, connection_id);
        answer.extend(token.as_ref().iter().take(TOKEN_SIZE));
        self.answered_at = Some(now);
        Some(answer)
    }
}

/// Bytes of the ids that our connections are called by; RFC 9000, section 7.2 asks for eight at least.
pub(in crate::transport) const CONNECTION_ID_SIZE: usize = 8;

/// One answer in so long: as many as restarts need, and nothing for a flood.
pub const ANSWER_INTERVAL: Duration = Duration::from_millis(20);

/// RFC 9000, section 17.2: the bit of the first byte that long headers have.
const LONG_HEADER: u8 = 0x80;

/// The bit that all packets have.
const FIXED: u8 = 0x40;

/// RFC 9000, section 10.3: the last bytes of a reset.
const TOKEN_SIZE: usize = 16;

/// The bytes before it, at least.
const UNPREDICTABLE_SIZE: usize = 5;

/// As large as a short packet of a live connection, so that it does not stand out.
const SIZE_MAX: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;

    fn strays() -> Strays {
        Strays::new(&Identity::from_seed([1; 32]), RunKey::new([1; 32]), Entropy::from_seed(1))
    }

    fn packet(size: usize) -> Vec<u8> {
        [vec![0x41], vec![7; size - 1]].concat()
    }

    #[test]
    fn every_answer_is_smaller_than_its_packet_and_has_the_identitys_token() {
        let token = hmac::sign(&reset_key(&Identity::from_seed([1; 32])), &[7; 8]);
        for size in 1..100 {
            match strays().answer(&packet(size), tokio::time::Instant::now().into_std()) {
                None => assert!(size < 22, "{size}"),
                Some(answer) => {
                    assert!(answer.len() < size && answer.len() <= SIZE_MAX, "{size}");
                    assert!(may_be_stray(&answer));
                    assert_eq!(answer[answer.len() - 16..], token.as_ref()[..16]);
                }
            }
        }
    }

    #[test]
    fn a_live_connection_whose_peer_has_moved_is_not_reset() {
        let mut id = RunKey::new([1; 32]).connection_id([1, 2, 3, 4]);
        let packet = |id: [u8; 8]| [&[0x41][..], &id, &[0; 60]].concat();
        let now = tokio::time::Instant::now().into_std();
        assert_eq!(strays().answer(&packet(id), now), None);
        id[7] ^= 1;
        assert!(strays().answer(&packet(id), now).is_some());
    }

    #[test]
    fn only_packets_with_short_headers_are_answered_and_those_not_often() {
        let (mut strays, now) = (strays(), tokio::time::Instant::now().into_std());
        for first in [0x00, 0x80, 0xc3] {
            let mut long = packet(60);
            long[0] = first;
            assert_eq!(strays.answer(&long, now), None);
        }
        assert!(strays.answer(&packet(60), now).is_some());
        assert_eq!(strays.answer(&packet(60), now), None);
        assert!(strays.answer(&packet(60), now + ANSWER_INTERVAL).is_some());
    }
}
