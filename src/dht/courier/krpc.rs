//! The datagrams of the BitTorrent DHT that we send and understand ourselves (BEP 5, BEP 44).
//!
//! Two queries, `get` and `put`, and whatever comes back. Strangers write these bytes, so their nesting
//! and lengths are checked before the decoder, which recurses and allocates, sees them.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};
use thiserror::Error;

use crate::{
    candidate,
    dht::{
        item::{Item, VALUE_SIZE_MAX},
        location::Target,
    },
};

/// Bytes of the largest datagram that is looked at: a value of 1000 bytes with 20 nodes fits.
pub const DATAGRAM_SIZE_MAX: usize = 2048;

/// Ties a reply to its query. Four bytes, because mainline's nodes drop every other length.
pub type TransactionId = [u8; 4];

/// A node of the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    /// Its place in the key space.
    pub id: [u8; 20],
    /// Where it is.
    pub address: SocketAddrV4,
}

/// What we ask a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query<'a> {
    /// For the item at `target`, unless it is no newer than `known`.
    Get {
        /// Where it lies.
        target: Target,
        /// The number of the item we have.
        known: Option<i64>,
    },
    /// To store an item.
    Put {
        /// What to store.
        item: &'a Item,
        /// The leave to write that the node gave us.
        token: &'a [u8],
        /// The number of the item to be replaced.
        cas: Option<i64>,
    },
}

/// A datagram that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An answer.
    Answer {
        /// The query's.
        transaction: TransactionId,
        /// What it says.
        answer: Box<Answer>,
        /// Where the node sees us (BEP 42), if it says so.
        seen_at: Option<SocketAddrV4>,
    },
    /// A refusal.
    Error {
        /// The query's.
        transaction: TransactionId,
        /// Why, in BEP 5's and BEP 44's numbers.
        code: i64,
    },
}

/// What a node answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its place in the key space.
    pub id: [u8; 20],
    /// Its leave to write, at most [`TOKEN_SIZE_MAX`] bytes.
    pub token: Option<Vec<u8>>,
    /// Nodes that it knows near the target.
    pub nodes: Vec<Contact>,
    /// The number of the item that it has, even if it does not send the item.
    pub seq: Option<i64>,
    /// The item, not verified yet.
    pub value: Option<ReturnedValue>,
}

/// An item as a stranger returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnedValue {
    /// The value, at most [`VALUE_SIZE_MAX`] bytes.
    pub value: Vec<u8>,
    /// The signature.
    pub signature: [u8; 64],
}

/// An item is not signed with the key that it was asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not signed with the key that was asked for")]
pub struct Forged;

/// Why bytes are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotAReply {
    /// They are not bencoded as a reply is.
    #[error("not a KRPC reply")]
    Malformed,
    /// They are a query: our socket is no server.
    #[error("a query")]
    Query,
    /// The value is larger than any that we store.
    #[error("a value of {0} bytes")]
    Oversized(usize),
}

impl Query<'_> {
    /// The datagram, sent as `id`, which names nobody.
    pub fn encode(&self, transaction: TransactionId, id: &[u8; 20]) -> Vec<u8> {
        let (name, target) = match self {
            Self::Get { target, .. } => ("get", *target),
            // BEP 44 has no target in a put, but mainline's nodes want it.
            Self::Put { item, .. } => ("put", item.target()),
        };
        let common = WireArguments {
            id: Bytes::new(id),
            target: Bytes::new(&target.0),
            cas: None,
            k: None,
            seq: None,
            sig: None,
            token: None,
            v: None,
        };
        let arguments = match self {
            Self::Get { known, .. } => WireArguments { seq: *known, ..common },
            Self::Put { item, token, cas } => WireArguments {
                cas: *cas,
                k: Some(Bytes::new(item.public_key())),
                seq: Some(item.seq()),
                sig: Some(Bytes::new(item.signature())),
                token: Some(Bytes::new(token)),
                v: Some(Bytes::new(item.value())),
                ..common
            },
        };
        let query = WireQuery {
            a: arguments,
            q: name,
            // BEP 43: we answer no queries, so nobody should keep us in a table.
            ro: 1,
            t: Bytes::new(&transaction),
            y: "q",
        };
        serde_bencode::to_bytes(&query).expect("strings and numbers always encode")
    }
}

impl Answer {
    /// The item that came with it, if one did and `public_key` is what it shall be signed with.
    ///
    /// # Errors
    /// When it is not signed with that key.
    pub fn verify(&self, public_key: &[u8; 32]) -> Result<Option<Item>, Forged> {
        let (Some(seq), Some(returned)) = (self.seq, &self.value) else {
            return Ok(None);
        };
        let (value, signature) = (returned.value.clone(), returned.signature);
        let item = Item::verified(*public_key, seq, value, signature);
        item.map(Some).ok_or(Forged)
    }
}

/// Reads a datagram.
///
/// # Errors
/// When it is no reply; such datagrams are counted and dropped.
pub fn decode(datagram: &[u8]) -> Result<Reply, NotAReply> {
    if datagram.len() > DATAGRAM_SIZE_MAX || !is_shallow(datagram) {
        return Err(NotAReply::Malformed);
    }
    let message: WireMessage =
        serde_bencode::from_bytes(datagram).map_err(|_| NotAReply::Malformed)?;
    let transaction = || to_array(&message.t);
    match (message.y.as_slice(), message.r, &message.e) {
        (b"r", Some(answer), _) => {
            let seen_at = message.ip.as_deref().and_then(|ip| to_endpoint(ip));
            let (transaction, answer) = (transaction()?, Box::new(answer.parse()?));
            Ok(Reply::Answer { transaction, answer, seen_at })
        }
        (b"e", _, Some((code, _))) => Ok(Reply::Error { transaction: transaction()?, code: *code }),
        (b"q", ..) => Err(NotAReply::Query),
        _ => Err(NotAReply::Malformed),
    }
}

impl WireAnswer {
    fn parse(self) -> Result<Answer, NotAReply> {
        let value = match (self.sig, self.v) {
            (Some(signature), Some(value)) => {
                if value.len() > VALUE_SIZE_MAX {
                    return Err(NotAReply::Oversized(value.len()));
                }
                Some(ReturnedValue { value: value.into_vec(), signature: to_array(&signature)? })
            }
            _ => None,
        };
        Ok(Answer {
            id: to_array(&self.id)?,
            token: self
                .token
                .map(ByteBuf::into_vec)
                .filter(|token| (1..=TOKEN_SIZE_MAX).contains(&token.len())),
            nodes: self.nodes.map_or_else(Vec::new, |nodes| to_contacts(&nodes)),
            seq: self.seq,
            value,
        })
    }
}

/// Bytes of a token that we send back: implementations use 4 to 20.
pub const TOKEN_SIZE_MAX: usize = 64;

/// Nodes of one answer that are looked at: BEP 5 says 8, mainline sends 20.
const CONTACTS_MAX: usize = 20;

/// BEP 5, "compact node info": id, IPv4 address, port.
fn to_contacts(bytes: &[u8]) -> Vec<Contact> {
    let (contacts, _) = bytes.as_chunks::<26>();
    contacts
        .iter()
        .take(CONTACTS_MAX)
        .filter_map(|contact| {
            let (id, rest) = contact.split_first_chunk::<20>()?;
            let address = to_endpoint(rest)?;
            candidate::is_unicast(SocketAddr::V4(address)).then_some(Contact { id: *id, address })
        })
        .collect()
}

/// IPv4 address and port, as BEP 5 writes them.
fn to_endpoint(bytes: &[u8]) -> Option<SocketAddrV4> {
    let (ip, port) = bytes.split_first_chunk::<4>()?;
    let port: [u8; 2] = port.try_into().ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(*ip), u16::from_be_bytes(port)))
}

fn to_array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], NotAReply> {
    bytes.try_into().map_err(|_| NotAReply::Malformed)
}

/// Whether `bytes` are bencoded with strings that end where the datagram does or before, and no deeper
/// than any reply is.
fn is_shallow(mut bytes: &[u8]) -> bool {
    let mut depth = 0_u32;
    while let Some((&first, rest)) = bytes.split_first() {
        match first {
            b'd' | b'l' if depth < DEPTH_MAX => {
                depth += 1;
                bytes = rest;
            }
            b'e' if depth > 0 => {
                depth -= 1;
                bytes = rest;
            }
            b'i' => match rest.iter().position(|&byte| byte == b'e') {
                Some(end) => bytes = rest.split_at(end + 1).1,
                None => return false,
            },
            b'0'..=b'9' => match skip_string(bytes) {
                Some(rest) => bytes = rest,
                None => return false,
            },
            _ => return false,
        }
    }
    depth == 0
}

fn skip_string(bytes: &[u8]) -> Option<&[u8]> {
    let colon = bytes.iter().take(LENGTH_DIGITS_MAX + 1).position(|&byte| byte == b':')?;
    let (digits, rest) = bytes.split_at(colon);
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    rest.split_at_checked(length + 1).map(|(_, after)| after)
}

/// A reply is a dictionary with a dictionary or list in it; extensions may go a little deeper.
const DEPTH_MAX: u32 = 6;
const LENGTH_DIGITS_MAX: usize = 4;

#[derive(Serialize)]
struct WireQuery<'a> {
    a: WireArguments<'a>,
    q: &'static str,
    ro: u8,
    t: &'a Bytes,
    y: &'static str,
}

/// Of both queries; declared in the order of the keys, as bencoding wants them.
#[derive(Serialize)]
struct WireArguments<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cas: Option<i64>,
    id: &'a Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<&'a Bytes>,
    target: &'a Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<&'a Bytes>,
}

#[derive(Deserialize)]
struct WireMessage {
    t: ByteBuf,
    y: ByteBuf,
    r: Option<WireAnswer>,
    e: Option<(i64, ByteBuf)>,
    ip: Option<ByteBuf>,
}

#[derive(Deserialize)]
struct WireAnswer {
    id: ByteBuf,
    nodes: Option<ByteBuf>,
    seq: Option<i64>,
    sig: Option<ByteBuf>,
    token: Option<ByteBuf>,
    v: Option<ByteBuf>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{dht::blinding::WriteKey, sealing::Key};

    fn item() -> Item {
        Item::sign(&WriteKey::shared(&Key::from_bytes([9; 32])), 7, b"hello".to_vec())
    }

    fn text(bytes: &[u8]) -> String {
        bytes.escape_ascii().to_string()
    }

    #[test]
    fn a_get_is_as_bep_44_writes_it() {
        let query = Query::Get { target: Target([b'T'; 20]), known: Some(5) };
        assert_eq!(
            text(&query.encode(*b"abcd", &[b'I'; 20])),
            "d1:ad2:id20:IIIIIIIIIIIIIIIIIIII3:seqi5e6:target20:TTTTTTTTTTTTTTTTTTTTe\
             1:q3:get2:roi1e1:t4:abcd1:y1:qe"
        );
        let query = Query::Get { target: Target([b'T'; 20]), known: None };
        assert!(!text(&query.encode(*b"abcd", &[b'I'; 20])).contains("seq"));
    }

    #[test]
    fn a_put_has_all_that_bep_44_asks_for_in_the_order_of_the_keys() {
        let item = item();
        let query = Query::Put { item: &item, token: b"tok", cas: Some(3) };
        let bytes = query.encode(*b"abcd", &[b'I'; 20]);
        assert!(is_shallow(&bytes));
        let expected = format!(
            "d1:ad3:casi3e2:id20:IIIIIIIIIIIIIIIIIIII1:k32:{}3:seqi7e3:sig64:{}6:target20:{}\
             5:token3:tok1:v5:helloe1:q3:put2:roi1e1:t4:abcd1:y1:qe",
            text(item.public_key()),
            text(item.signature()),
            text(&item.target().0),
        );
        assert_eq!(text(&bytes), expected);
    }

    #[test]
    fn an_answer_with_an_item_is_read_whole() {
        let item = item();
        let mut bytes =
            b"d2:ip6:\x7f\0\0\x01\x1a\xe11:rd2:id20:IIIIIIIIIIIIIIIIIIII1:k32:".to_vec();
        bytes.extend(item.public_key());
        bytes.extend(
            b"5:nodes52:NNNNNNNNNNNNNNNNNNNN\x7f\0\0\x01\x1a\xe1MMMMMMMMMMMMMMMMMMMM\0\0\0\0\0\0",
        );
        bytes.extend(b"3:seqi7e3:sig64:");
        bytes.extend(item.signature());
        bytes.extend(b"5:token3:tok1:v5:helloe1:t4:abcd1:v4:LT121:y1:re");
        let answer = Answer {
            id: [b'I'; 20],
            token: Some(b"tok".to_vec()),
            nodes: vec![Contact { id: [b'N'; 20], address: "127.0.0.1:6881".parse().unwrap() }],
            seq: Some(7),
            value: Some(ReturnedValue { value: b"hello".to_vec(), signature: *item.signature() }),
        };
        let seen_at = Some("127.0.0.1:6881".parse().unwrap());
        let expected = Reply::Answer { transaction: *b"abcd", answer: Box::new(answer), seen_at };
        assert_eq!(decode(&bytes), Ok(expected));
    }

    #[test]
    fn an_answer_without_anything_newer_is_small() {
        let bytes = b"d1:rd2:id20:IIIIIIIIIIIIIIIIIIII3:seqi7e5:token3:toke1:t4:abcd1:y1:re";
        let answer = Answer {
            id: [b'I'; 20],
            token: Some(b"tok".to_vec()),
            seq: Some(7),
            ..Answer::default()
        };
        let expected =
            Reply::Answer { transaction: *b"abcd", answer: Box::new(answer), seen_at: None };
        assert_eq!(decode(bytes), Ok(expected));
    }

    #[test]
    fn a_refusal_says_why() {
        let bytes = b"d1:eli301e12:CAS mismatche1:t4:abcd1:y1:ee";
        assert_eq!(decode(bytes), Ok(Reply::Error { transaction: *b"abcd", code: 301 }));
    }

    #[test]
    fn queries_and_oversized_values_are_told_apart_from_garbage() {
        let query = Query::Get { target: Target([0; 20]), known: None }.encode(*b"abcd", &[0; 20]);
        assert_eq!(decode(&query), Err(NotAReply::Query));
        let mut bytes = format!(
            "d1:rd2:id20:{}1:k32:{}3:sig64:{}1:v901:",
            "I".repeat(20),
            "K".repeat(32),
            "S".repeat(64)
        )
        .into_bytes();
        bytes.extend([0; 901]);
        bytes.extend(b"e1:t4:abcd1:y1:re");
        assert_eq!(decode(&bytes), Err(NotAReply::Oversized(901)));
        assert_eq!(decode(b""), Err(NotAReply::Malformed));
    }

    #[test]
    fn deep_nesting_and_lengths_without_bytes_do_not_reach_the_decoder() {
        for bytes in [
            b"l".repeat(2000),
            b"d1:a".repeat(500),
            b"d1:rd2:id999999999999:xe".to_vec(),
            b"d1:t9999:x".to_vec(),
            b"i1".to_vec(),
        ] {
            assert!(!is_shallow(&bytes), "{}", text(&bytes[..10]));
            assert_eq!(decode(&bytes), Err(NotAReply::Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_calmly(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn any_text_that_looks_like_bencoding_is_taken_calmly(text in "(d|l|e|i[0-9]{1,3}e|1:[a-z]|2:id|20:IIIIIIIIIIIIIIIIIIII|1:r|1:t4:abcd|1:y1:r){0,40}") {
            let _ = decode(text.as_bytes());
        }

        #[test]
        fn a_changed_answer_is_taken_calmly(position in 0_usize..66, byte: u8) {
            let mut bytes = b"d1:rd2:id20:IIIIIIIIIIIIIIIIIIII3:seqi7e5:token3:toke1:t4:abcd1:y1:re".to_vec();
            bytes[position] = byte;
            let _ = decode(&bytes);
        }
    }
}
