//! Who may be linked to this node: anybody, peers on a list, or whoever knows a secret.
//!
//! A dialler proves that it knows a secret with an HMAC over a value exported from the TLS session,
//! keyed with the secret's admission key. The value is different for every connection and every pair of
//! peers, so a proof overheard or asked for by somebody else is worth nothing.

use std::{collections::BTreeSet, fmt};

use bytes::Bytes;

use crate::{identity::PeerId, sealing::Key};

/// Proofs that one dialler may offer: more secrets than one node has reason to try.
pub const PROOFS_MAX: usize = 4;

/// What both ends of one connection know and nobody else: exported from its TLS session.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelBinding(pub [u8; 32]);

/// The rule by which an acceptor judges diallers.
#[derive(Clone, Debug)]
pub enum Admission {
    /// Whoever dials.
    Anyone,
    /// The peers on the list, and those who prove that they know one of the secrets.
    Only {
        /// Admitted without a proof.
        peers: BTreeSet<PeerId>,
        /// Admission keys of services and tickets.
        keys: Vec<Key>,
    },
    /// Those who are linked already: there is no room for others.
    Linked(BTreeSet<PeerId>),
}

/// What became of a dialler's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may stay.
    Welcome,
    /// It may not.
    Refused(Refusal),
}

/// Why a dialler may not stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is a list, the dialler is not on it, and no secret is accepted instead.
    NotListed,
    /// A secret is asked for and the dialler offered no proof.
    NoProof,
    /// The dialler's proofs are for other secrets.
    WrongProof,
    /// As many peers are linked as may be.
    NoRoom,
}

impl Admission {
    /// Judges `peer`, whose identity TLS has proved.
    pub fn judge(&self, peer: PeerId, proofs: &[Bytes], binding: &ChannelBinding) -> Verdict {
        let (peers, keys) = match self {
            Self::Anyone => return Verdict::Welcome,
            Self::Linked(peers) if peers.contains(&peer) => return Verdict::Welcome,
            Self::Linked(_) => return Verdict::Refused(Refusal::NoRoom),
            Self::Only { peers, keys } => (peers, keys),
        };
        let proofs = proofs.iter().take(PROOFS_MAX);
        let mut pairs = proofs.clone().flat_map(|proof| keys.iter().map(move |key| (key, proof)));
        if peers.contains(&peer) || pairs.any(|(key, proof)| key.verifies(&[&binding.0], proof)) {
            return Verdict::Welcome;
        }
        Verdict::Refused(if keys.is_empty() {
            Refusal::NotListed
        } else if proofs.len() == 0 {
            Refusal::NoProof
        } else {
            Refusal::WrongProof
        })
    }
}

/// A dialler's proof that it knows the secret of `key`.
pub fn prove(key: &Key, binding: &ChannelBinding) -> Bytes {
    Bytes::copy_from_slice(&key.authenticate(&[&binding.0]))
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotListed => "this peer id is not on the list of allowed peers",
            Self::NoProof => "a secret is needed to connect",
            Self::NoRoom => "there is no room for another peer",
            Self::WrongProof => "the secret is not the one that is needed",
        })
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelBinding(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    const BINDING: ChannelBinding = ChannelBinding([9; 32]);

    fn peer(seed: u8) -> PeerId {
        Identity::from_seed([seed; 32]).peer_id()
    }

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32])
    }

    #[test]
    fn anyone_is_welcome_where_nobody_is_excluded() {
        assert_eq!(Admission::Anyone.judge(peer(1), &[], &BINDING), Verdict::Welcome);
    }

    #[test]
    fn a_list_admits_those_on_it_only() {
        let rule = Admission::Only { peers: BTreeSet::from([peer(1)]), keys: Vec::new() };
        assert_eq!(rule.judge(peer(1), &[], &BINDING), Verdict::Welcome);
        assert_eq!(
            rule.judge(peer(2), &[prove(&key(1), &BINDING)], &BINDING),
            Verdict::Refused(Refusal::NotListed)
        );
    }

    #[test]
    fn a_secret_admits_whoever_proves_it_for_this_very_connection() {
        let rule = Admission::Only { peers: BTreeSet::new(), keys: vec![key(1), key(2)] };
        let judge = |proofs: &[Bytes]| rule.judge(peer(1), proofs, &BINDING);
        let elsewhere = prove(&key(2), &ChannelBinding([8; 32]));
        assert_eq!(judge(&[]), Verdict::Refused(Refusal::NoProof));
        assert_eq!(judge(&[elsewhere]), Verdict::Refused(Refusal::WrongProof));
        let (wrong, right) = (prove(&key(3), &BINDING), prove(&key(2), &BINDING));
        assert_eq!(judge(&[wrong.clone(), right.clone()]), Verdict::Welcome);
        assert_eq!(
            judge(&[wrong.clone(), wrong.clone(), wrong.clone(), wrong, right]),
            Verdict::Refused(Refusal::WrongProof),
            "guesses are limited"
        );
    }
}
