//! What is said to helpers and through them. A helper is a reachable node that forwards sealed offers to
//! the nodes that keep a link to it.
//!
//! ```text
//!  caller                    helper                    served node
//!                              │ ◀─────────── Ask (no cookie) │
//!                              │ Challenge (cookie) ────────▶ │
//!                              │ ◀─────────── Ask (cookie)    │  again every 20 s
//!                              │ Grant (token) ─────────────▶ │  the token goes into the records
//!    │ Offer (token, offer) ─▶ │ Delivery (offer) ──────────▶ │
//!    │ ◀─────────────── Reply  │ ◀──────────────────── Answer │
//! ```
//!
//! All datagrams start with [`FIRST_BYTE`] and their kind. What passes between a helper and a node that it
//! serves is sealed with keys that only these two have ([`LinkKeys`]); no answer is larger than what it
//! answers.

mod keys;

use std::{fmt, net::SocketAddr};

pub use self::keys::LinkKeys;
use crate::{
    candidate::{canonical, decode_compact, encode_compact, is_unicast},
    offer,
};

/// The first byte of everything here; RFC 9443 leaves it to nobody.
pub const FIRST_BYTE: u8 = 0x0B;

/// Helpers that a node keeps links to, and that a record names.
///
/// One may die and another lose a datagram; each more costs datagrams all the time.
pub const HELPERS_MAX: usize = 3;

/// Bytes of a datagram with an offer: as many as are forwarded of it, and no fewer than are sent back.
pub const OFFER_SIZE: usize = 700;

/// Bytes of an answer to an offer: as many as a sealed offer has.
pub const ANSWER_SIZE_MAX: usize = offer::SEALED_SIZE;

/// Lets its holder send one served node offers through the helper that gave it.
///
/// To guess one of a thousand at the rate that a helper takes offers needs ten thousand years; with a byte
/// more, two addresses and a helper would not fit into a small entry of a service record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub [u8; 7]);

/// A way to send a peer offers, as its record names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Helper {
    /// Where the helper is.
    pub address: SocketAddr,
    /// For whom it is.
    pub token: Token,
}

/// Proves that its holder receives at the address that it was made for.
pub type Cookie = [u8; 16];

/// Names one question, so that answers can be told apart.
pub type Transaction = [u8; 8];

/// What a node wants of its helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To be served from here on.
    Keep,
    /// To be forgotten.
    End,
}

/// A datagram, parsed as far as it is not sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// To a helper: asks to be served, or to be served further.
    Ask {
        /// Repeated in the answer.
        transaction: Transaction,
        /// Zeros if there is none yet.
        cookie: Cookie,
        /// What the keys of the link follow from; names the link.
        ephemeral: [u8; 32],
        /// The [`Wish`].
        sealed: Sealed<'a>,
    },
    /// From a helper: ask again with this cookie.
    Challenge {
        /// The question's.
        transaction: Transaction,
        /// Good for the address that it was sent to.
        cookie: Cookie,
    },
    /// From a helper: the node is served.
    Grant {
        /// The question's.
        transaction: Transaction,
        /// The [`Granted`].
        sealed: Sealed<'a>,
    },
    /// To a helper: forward this.
    Offer {
        /// To whom.
        token: Token,
        /// Repeated in the reply.
        transaction: Transaction,
        /// Sealed to a peer whom the helper does not know.
        offer: &'a [u8],
    },
    /// From a helper, to a node that it serves: an offer.
    Delivery {
        /// The [`Delivered`].
        sealed: Sealed<'a>,
    },
    /// To a helper, from a node that it serves: the offer was read.
    Answer {
        /// The delivery's.
        errand: Transaction,
        /// What the caller is to be told, at most [`ANSWER_SIZE_MAX`] bytes; may be empty.
        sealed: Sealed<'a>,
    },
    /// From a helper: the peer has read the offer.
    Reply {
        /// The offer's.
        transaction: Transaction,
        /// Where the helper had the offer from.
        seen: SocketAddr,
        /// What the peer says to it; may be empty.
        answer: &'a [u8],
    },
}

/// Sealed bytes with their nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// Random.
    pub nonce: [u8; 12],
    /// With the tag at the end.
    pub bytes: &'a [u8],
}

/// What a helper grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// To be published.
    pub token: Token,
    /// Where the helper had the question from.
    pub seen: SocketAddr,
}

/// An offer that was forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Names the errand, for the answer.
    pub errand: Transaction,
    /// Where the helper had the offer from.
    pub seen: SocketAddr,
    /// As it was sent.
    pub offer: Vec<u8>,
}

/// A [`Packet::Challenge`].
pub fn challenge(transaction: Transaction, cookie: Cookie) -> Vec<u8> {
    [&[FIRST_BYTE, CHALLENGE], transaction.as_slice(), &cookie].concat()
}

/// A [`Packet::Offer`] of [`OFFER_SIZE`] bytes, with a sealed offer in it.
pub fn offer(token: Token, transaction: Transaction, sealed: &[u8]) -> Vec<u8> {
    let mut bytes = [&[FIRST_BYTE, OFFER], token.0.as_slice(), &transaction, sealed].concat();
    bytes.resize(OFFER_SIZE, 0);
    bytes
}

/// A [`Packet::Reply`].
pub fn reply(transaction: Transaction, seen: SocketAddr, answer: &[u8]) -> Vec<u8> {
    [&[FIRST_BYTE, REPLY], transaction.as_slice(), &encode_address(seen), answer].concat()
}

/// The datagram in `bytes`, unless it is none of these.
pub fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    let (&[FIRST_BYTE, kind], rest) = bytes.split_first_chunk()? else {
        return None;
    };
    if kind == DELIVERY {
        return Some(Packet::Delivery { sealed: take_sealed(rest)? });
    }
    if kind == OFFER {
        let (&token, rest) = rest.split_first_chunk()?;
        let (&transaction, rest) = rest.split_first_chunk()?;
        let offer = rest.get(..offer::SEALED_SIZE).filter(|_| bytes.len() == OFFER_SIZE)?;
        return Some(Packet::Offer { token: Token(token), transaction, offer });
    }
    let (&first, rest) = rest.split_first_chunk::<8>()?;
    match kind {
        ASK => {
            let (&cookie, rest) = rest.split_first_chunk()?;
            let (&ephemeral, rest) = rest.split_first_chunk()?;
            let sealed = take_sealed(rest)?;
            Some(Packet::Ask { transaction: first, cookie, ephemeral, sealed })
        }
        CHALLENGE => Some(Packet::Challenge { transaction: first, cookie: rest.try_into().ok()? }),
        GRANT => Some(Packet::Grant { transaction: first, sealed: take_sealed(rest)? }),
        ANSWER => Some(Packet::Answer { errand: first, sealed: take_sealed(rest)? }),
        REPLY => {
            let (seen, answer) = rest.split_at_checked(ADDRESS_SIZE)?;
            let seen = decode_address(seen)?;
            let fits = answer.len() <= ANSWER_SIZE_MAX;
            fits.then_some(Packet::Reply { transaction: first, seen, answer })
        }
        _ => None,
    }
}

impl Helper {
    /// As it stands in records: the token and a compact endpoint.
    pub fn encode(&self) -> Vec<u8> {
        [self.token.0.as_slice(), &encode_compact(self.address)].concat()
    }

    /// The helper in `bytes`, unless they are no such thing.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (token, address) = bytes.split_first_chunk()?;
        Some(Self { token: Token(*token), address: decode_compact(address)? })
    }
}

fn take_sealed(bytes: &[u8]) -> Option<Sealed<'_>> {
    let (&nonce, bytes) = bytes.split_first_chunk()?;
    Some(Sealed { nonce, bytes })
}

/// The family, the address (IPv4 with twelve zeros behind), and the port: always [`ADDRESS_SIZE`] bytes.
fn encode_address(address: SocketAddr) -> Vec<u8> {
    let mut compact = encode_compact(address);
    let port = compact.split_off(compact.len() - 2);
    let family = if compact.len() == 4 { 4 } else { 6 };
    compact.resize(16, 0);
    [&[family], compact.as_slice(), &port].concat()
}

fn decode_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first()?;
    let (ip, port) = rest.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    let address = match (family, ip) {
        (4, [a, b, c, d, rest @ ..]) if rest.iter().all(|&byte| byte == 0) => {
            SocketAddr::from(([*a, *b, *c, *d], port))
        }
        (6, ip) => canonical(SocketAddr::from((*ip, port))),
        _ => return None,
    };
    is_unicast(address).then_some(address)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

const ASK: u8 = 1;
const CHALLENGE: u8 = 2;
const GRANT: u8 = 3;
const OFFER: u8 = 4;
const DELIVERY: u8 = 5;
const ANSWER: u8 = 6;
const REPLY: u8 = 7;

const ADDRESS_SIZE: usize = 19;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        entropy::Entropy,
        identity::{Ephemeral, Identity},
    };

    fn entropy() -> Entropy {
        Entropy::from_seed(1)
    }

    fn helper() -> Identity {
        Identity::from_seed([7; 32])
    }

    fn ephemeral() -> Ephemeral {
        Ephemeral::generate(&mut entropy())
    }

    fn both() -> (LinkKeys, LinkKeys) {
        let ephemeral = ephemeral();
        let helper = helper();
        let served = LinkKeys::of_served(&ephemeral, &helper.peer_id());
        (served, LinkKeys::of_helper(&helper, &ephemeral.public))
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_one_side_seals_the_other_opens() {
        let (served, helper) = both();
        let public = ephemeral().public;
        let ask = served.ask(([1; 8], [2; 16], &public), Wish::Keep, &mut entropy());
        let Some(Packet::Ask { transaction, cookie, ephemeral, sealed }) = parse(&ask) else {
            panic!("{ask:?}");
        };
        assert_eq!((transaction, cookie, ephemeral), ([1; 8], [2; 16], public));
        assert_eq!(helper.open_ask(&ask, sealed), Some(Wish::Keep));

        for seen in ["198.51.100.9:50112", "[2001:db8::9]:1"].map(address) {
            let granted = Granted { token: Token([3; 7]), seen };
            let grant = helper.grant([1; 8], granted, &mut entropy());
            let Some(Packet::Grant { transaction: [1, ..], sealed }) = parse(&grant) else {
                panic!("{grant:?}");
            };
            assert_eq!(served.open_grant(&grant, sealed), Some(granted));
            assert!(grant.len() <= ask.len());

            let delivered = Delivered { errand: [4; 8], seen, offer: vec![5; offer::SEALED_SIZE] };
            let delivery = helper.delivery(&delivered, &mut entropy());
            let Some(Packet::Delivery { sealed }) = parse(&delivery) else {
                panic!("{delivery:?}");
            };
            assert_eq!(served.open_delivery(&delivery, sealed), Some(delivered));
            assert!(delivery.len() <= OFFER_SIZE);
        }
    }

    #[test]
    fn an_offer_and_its_two_replies_are_of_a_size() {
        let sealed = vec![5; offer::SEALED_SIZE];
        let bytes = offer(Token([1; 7]), [2; 8], &sealed);
        let expected = Packet::Offer { token: Token([1; 7]), transaction: [2; 8], offer: &sealed };
        assert_eq!(parse(&bytes), Some(expected));
        assert_eq!(parse(&bytes[..OFFER_SIZE - 1]), None);
        let seen = address("[2001:db8::9]:50112");
        let replies = [vec![], vec![9; ANSWER_SIZE_MAX]].map(|answer| reply([2; 8], seen, &answer));
        assert!(replies[0].len() + replies[1].len() <= OFFER_SIZE);
        let expected = Packet::Reply { transaction: [2; 8], seen, answer: &[] };
        assert_eq!(parse(&replies[0]), Some(expected));
        assert_eq!(parse(&reply([2; 8], seen, &[9; ANSWER_SIZE_MAX + 1])), None);
    }

    #[test]
    fn a_helper_in_a_record_comes_back() {
        for (text, size) in [("198.51.100.9:50112", 13), ("[2001:db8::9]:1", 25)] {
            let helper = Helper { address: address(text), token: Token([6; 7]) };
            assert_eq!(helper.encode().len(), size);
            assert_eq!(Helper::decode(&helper.encode()), Some(helper));
        }
        assert_eq!(Helper::decode(&[1; 9]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_calmly(mut bytes in prop::collection::vec(any::<u8>(), 0..800), kind in 0..9_u8) {
            if let [first, second, ..] = bytes.as_mut_slice() {
                (*first, *second) = (FIRST_BYTE, kind);
            }
            let (served, helper) = both();
            match parse(&bytes) {
                Some(Packet::Ask { sealed, .. }) => prop_assert_eq!(helper.open_ask(&bytes, sealed), None),
                Some(Packet::Grant { sealed, .. }) => prop_assert_eq!(served.open_grant(&bytes, sealed), None),
                Some(Packet::Delivery { sealed }) => prop_assert_eq!(served.open_delivery(&bytes, sealed), None),
                Some(Packet::Answer { sealed, .. }) => prop_assert_eq!(helper.open_answer(&bytes, sealed), None),
                Some(Packet::Challenge { .. } | Packet::Offer { .. } | Packet::Reply { .. }) | None => {}
            }
        }

        #[test]
        fn a_changed_delivery_is_not_opened(position in 0..600_usize, change in 1..=255_u8) {
            let (served, helper) = both();
            let delivered = Delivered {
                errand: [4; 8],
                seen: address("198.51.100.9:1"),
                offer: vec![5; offer::SEALED_SIZE],
            };
            let mut bytes = helper.delivery(&delivered, &mut entropy());
            bytes[position] ^= change;
            if let Some(Packet::Delivery { sealed }) = parse(&bytes) {
                prop_assert_eq!(served.open_delivery(&bytes, sealed), None);
            }
        }
    }
}
