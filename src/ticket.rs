//! One word that lets somebody reach a peer: who it is, and the secret under which it can be found.

use std::{fmt, net::SocketAddr, str::FromStr};

use data_encoding::BASE32_NOPAD;
use ring::digest;
use thiserror::Error;

use crate::{
    candidate::{decode_compact, encode_compact},
    identity::{Identity, PeerId},
    sealing::Key,
};

/// A peer's name, the secret that its private record is kept under, and where it may be if it said so.
///
/// Written as `p2p1` and lower-case base 32 of: peer id (32 bytes), rendezvous secret (16), then for
/// each address a length byte and the compact endpoint, then the first four bytes of the SHA-256 of
/// all that. Upper case is accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Whom it leads to; proved by TLS.
    pub peer: PeerId,
    /// Where its private record lies, and the proof that the holder may connect.
    pub secret: TicketSecret,
    /// Addresses to try at once; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
}

/// Sixteen bytes, derived from the identity, that only the holders of a ticket know.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret(pub [u8; 16]);

/// Addresses that a ticket holds.
pub const ADDRESSES_MAX: usize = 8;

/// Why a text is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidTicket {
    /// It does not start with `p2p1`.
    #[error("a ticket starts with p2p1")]
    NotATicket,
    /// A character is wrong or missing.
    #[error("the ticket is damaged; copy it again, as a whole")]
    Damaged,
    /// The checksum is right but not what it covers: made by something that is not p2p-node.
    #[error("the ticket does not name a peer")]
    Malformed,
}

impl Ticket {
    /// The ticket of `identity`; the same as long as the identity is the same.
    pub fn of(identity: &Identity, addresses: Vec<SocketAddr>) -> Self {
        let secret = identity.derive("ticket");
        let secret = secret.as_bytes().first_chunk().expect("a key has 32 bytes");
        let peer = identity.peer_id();
        let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
        Self { peer, secret: TicketSecret(*secret), addresses }
    }
}

impl TicketSecret {
    /// A key for `purpose` that all holders of the ticket arrive at.
    pub fn key(&self, purpose: &str) -> Key {
        Key::derive("p2p-node/1 ticket", &self.0, &[purpose.as_bytes()])
    }

    /// The key with which a holder proves that it may connect.
    pub fn admission_key(&self) -> Key {
        self.key("admission")
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.peer.as_bytes().to_vec();
        bytes.extend(self.secret.0);
        for &address in &self.addresses {
            let compact = encode_compact(address);
            bytes.extend(u8::try_from(compact.len()));
            bytes.extend(compact);
        }
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = InvalidTicket;

    fn from_str(text: &str) -> Result<Self, InvalidTicket> {
        let lower = text.trim().to_ascii_lowercase();
        let body = lower.strip_prefix(PREFIX).ok_or(InvalidTicket::NotATicket)?;
        let bytes = BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| InvalidTicket::Damaged)?;
        let (content, sum) = bytes.split_last_chunk::<4>().ok_or(InvalidTicket::Damaged)?;
        if checksum(content) != *sum {
            return Err(InvalidTicket::Damaged);
        }
        parse_content(content).ok_or(InvalidTicket::Malformed)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({:?})", self.peer)
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(…)")
    }
}

fn parse_content(content: &[u8]) -> Option<Ticket> {
    let (peer, rest) = content.split_first_chunk::<32>()?;
    let (secret, mut rest) = rest.split_first_chunk::<16>()?;
    let mut addresses = Vec::new();
    while let Some((&size, after)) = rest.split_first() {
        let (compact, after) = after.split_at_checked(usize::from(size))?;
        addresses.push(decode_compact(compact)?);
        rest = after;
    }
    if addresses.len() > ADDRESSES_MAX {
        return None;
    }
    let peer = PeerId::from_bytes(*peer).ok()?;
    Some(Ticket { peer, secret: TicketSecret(*secret), addresses })
}

fn checksum(content: &[u8]) -> [u8; 4] {
    let sum = digest::digest(&digest::SHA256, content);
    *sum.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

const PREFIX: &str = "p2p1";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ticket_is_one_word_that_comes_back_in_either_case() {
        let addresses =
            vec!["192.168.1.20:41641".parse().unwrap(), "[2001:db8::9]:1".parse().unwrap()];
        for addresses in [Vec::new(), addresses] {
            let ticket = Ticket::of(&Identity::from_seed([7; 32]), addresses);
            let text = ticket.to_string();
            assert!(text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{text}");
            assert_eq!(text.parse(), Ok(ticket.clone()));
            assert_eq!(text.to_uppercase().parse(), Ok(ticket));
        }
    }

    #[test]
    fn a_ticket_without_addresses_is_88_characters() {
        let text = Ticket::of(&Identity::from_seed([7; 32]), Vec::new()).to_string();
        assert_eq!(text.len(), 88);
    }

    proptest! {
        #[test]
        fn a_mistyped_ticket_is_refused(position in 4_usize..88, letter in "[a-z2-7]") {
            let text = Ticket::of(&Identity::from_seed([7; 32]), Vec::new()).to_string();
            let mut mistyped = text.clone();
            mistyped.replace_range(position..=position, &letter);
            prop_assert_eq!(mistyped.parse::<Ticket>().is_ok(), mistyped == text);
        }

        #[test]
        fn any_text_is_taken_calmly(text in "(p2p1)?[a-z2-7]{0,200}") {
            prop_assert!(text.parse::<Ticket>().is_err());
        }
    }
}
