//! The small authenticated datagrams that open a path and keep it known to be open.
//!
//! A ping asks for a pong; both are 62 bytes, so that answering amplifies nothing and nobody can tell
//! them apart. A pong repeats the ping's transaction and says which address the ping came from.
//!
//! ```text
//!  0        1                9                17                        62
//! ┌──┬──────────────────┬──────────────────┬──────────────────────────┐
//! │0A│ conversation (8) │ nonce (8)        │ sealed body (29) tag (16)│
//! └──┴──────────────────┴──────────────────┴──────────────────────────┘
//! body: kind (1) urgency (1) transaction (8) family (1) address (16) port (2)
//! ```

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{entropy::Entropy, sealing::Key};

/// First byte of every probe: in the range that RFC 9443 leaves unused, so STUN (0–3) and QUIC (bit
/// 0x40 set) can share the socket.
pub const FIRST_BYTE: u8 = 0x0A;

/// Bytes of a probe on the wire.
pub const PROBE_SIZE: usize = HEADER_SIZE + BODY_SIZE + crate::sealing::TAG_SIZE;

/// Names the keys of a probe; random, chosen by the side that offered, or exported from a link's TLS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId(pub [u8; 8]);

/// Tells a ping from every other ping of its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transaction(pub u64);

/// Which side of a conversation we are; each seals with a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Made the offer, or dialled the link.
    Initiator,
    /// Received the offer, or accepted the link.
    Responder,
}

/// How a ping's sender fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Nothing special.
    Routine,
    /// The sender hears nothing from the receiver on the paths it knows: use this one as soon as it proves open.
    PathLost,
}

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Asks for a pong.
    Ping {
        /// To be repeated in the pong.
        transaction: Transaction,
        /// How the sender fares.
        urgency: Urgency,
    },
    /// Answers a ping.
    Pong {
        /// The ping's.
        transaction: Transaction,
        /// Where the ping came from: the pinger's reflexive address on this path.
        observed: SocketAddr,
    },
}

/// Both keys of one conversation, as one side uses them.
#[derive(Clone, Debug)]
pub struct ProbeKeys {
    /// Names the conversation on the wire.
    pub conversation: ConversationId,
    seal: Key,
    open: Key,
}

impl ProbeKeys {
    /// The keys of `conversation` between two sides that share `secret`.
    pub fn new(secret: &Key, conversation: ConversationId, side: Side) -> Self {
        let key = |direction: &[u8]| {
            Key::derive("p2p-node/1 probe", secret.as_bytes(), &[&conversation.0, direction])
        };
        let (initiator, responder) = (key(b"initiator"), key(b"responder"));
        match side {
            Side::Initiator => Self { conversation, seal: initiator, open: responder },
            Side::Responder => Self { conversation, seal: responder, open: initiator },
        }
    }

    /// `probe` as a datagram.
    pub fn encode(&self, probe: Probe, entropy: &mut Entropy) -> Vec<u8> {
        let nonce: [u8; 8] = entropy.bytes();
        let mut datagram = Vec::with_capacity(PROBE_SIZE);
        datagram.push(FIRST_BYTE);
        datagram.extend(self.conversation.0);
        datagram.extend(nonce);
        let body = self.seal.seal(cipher_nonce(nonce), &datagram, &encode_body(probe));
        datagram.extend(body);
        datagram
    }

    /// The probe in `datagram`, or `None` if it is not one of this conversation from the other side.
    pub fn decode(&self, datagram: &[u8]) -> Option<Probe> {
        if datagram.len() != PROBE_SIZE || conversation_of(datagram)? != self.conversation {
            return None;
        }
        let (header, sealed) = datagram.split_at_checked(HEADER_SIZE)?;
        let nonce = header.last_chunk::<8>()?;
        decode_body(&self.open.open(cipher_nonce(*nonce), header, sealed).ok()?)
    }
}

/// The conversation that `datagram` claims to belong to, or `None` if it is no probe.
pub fn conversation_of(datagram: &[u8]) -> Option<ConversationId> {
    let (&first, rest) = datagram.split_first()?;
    let conversation = rest.first_chunk::<8>()?;
    (first == FIRST_BYTE && datagram.len() == PROBE_SIZE).then_some(ConversationId(*conversation))
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

fn encode_body(probe: Probe) -> [u8; BODY_SIZE] {
    let (kind, urgency, transaction, observed) = match probe {
        Probe::Ping { transaction, urgency: Urgency::Routine } => (PING, 0, transaction, None),
        Probe::Ping { transaction, urgency: Urgency::PathLost } => (PING, 1, transaction, None),
        Probe::Pong { transaction, observed } => (PONG, 0, transaction, Some(observed)),
    };
    let (family, address) = match observed.map(|observed| observed.ip().to_canonical()) {
        None => (0, [0; 16]),
        Some(IpAddr::V4(ip)) => (4, ip.to_ipv6_mapped().octets()),
        Some(IpAddr::V6(ip)) => (6, ip.octets()),
    };
    let port = observed.map_or(0, |observed| observed.port());
    let mut body = [0; BODY_SIZE];
    let parts = [kind, urgency]
        .into_iter()
        .chain(transaction.0.to_be_bytes())
        .chain([family])
        .chain(address)
        .chain(port.to_be_bytes());
    for (byte, part) in body.iter_mut().zip(parts) {
        *byte = part;
    }
    body
}

fn decode_body(body: &[u8]) -> Option<Probe> {
    let (&[kind, urgency], rest) = body.split_first_chunk()?;
    let (transaction, rest) = rest.split_first_chunk()?;
    let (&[family], rest) = rest.split_first_chunk()?;
    let (address, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(rest.try_into().ok()?);
    let transaction = Transaction(u64::from_be_bytes(*transaction));
    let address = Ipv6Addr::from(*address);
    match (kind, family, urgency) {
        (PING, 0, 0) => Some(Probe::Ping { transaction, urgency: Urgency::Routine }),
        (PING, 0, 1) => Some(Probe::Ping { transaction, urgency: Urgency::PathLost }),
        (PONG, 4, 0) => {
            let ip: Ipv4Addr = address.to_ipv4_mapped()?;
            Some(Probe::Pong { transaction, observed: SocketAddr::new(ip.into(), port) })
        }
        (PONG, 6, 0) => {
            Some(Probe::Pong { transaction, observed: SocketAddr::new(address.into(), port) })
        }
        _ => None,
    }
}

fn cipher_nonce(nonce: [u8; 8]) -> [u8; 12] {
    let mut whole = [0; 12];
    for (byte, part) in whole.iter_mut().skip(4).zip(nonce) {
        *byte = part;
    }
    whole
}

const HEADER_SIZE: usize = 17;
const BODY_SIZE: usize = 29;
const PING: u8 = 1;
const PONG: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sides() -> (ProbeKeys, ProbeKeys) {
        let (secret, conversation) = (Key::from_bytes([7; 32]), ConversationId([1; 8]));
        (
            ProbeKeys::new(&secret, conversation, Side::Initiator),
            ProbeKeys::new(&secret, conversation, Side::Responder),
        )
    }

    #[test]
    fn probes_arrive_as_they_were_sent_and_are_all_of_one_size() {
        let ((ours, theirs), mut entropy) = (sides(), Entropy::from_seed(1));
        let transaction = Transaction(42);
        for probe in [
            Probe::Ping { transaction, urgency: Urgency::Routine },
            Probe::Ping { transaction, urgency: Urgency::PathLost },
            Probe::Pong { transaction, observed: "198.51.100.9:50112".parse().unwrap() },
            Probe::Pong { transaction, observed: "[2001:db8::9]:50112".parse().unwrap() },
        ] {
            let datagram = ours.encode(probe, &mut entropy);
            assert_eq!(datagram.len(), PROBE_SIZE);
            assert_eq!(conversation_of(&datagram), Some(ConversationId([1; 8])));
            assert_eq!(theirs.decode(&datagram), Some(probe));
            assert_eq!(
                ours.decode(&datagram),
                None,
                "our own probe reflected is no probe of theirs"
            );
        }
    }

    proptest! {
        #[test]
        fn a_changed_probe_is_none(position in 0..PROBE_SIZE, change in 1..=255_u8) {
            let ((ours, theirs), mut entropy) = (sides(), Entropy::from_seed(1));
            let probe = Probe::Ping { transaction: Transaction(42), urgency: Urgency::Routine };
            let mut datagram = ours.encode(probe, &mut entropy);
            datagram[position] ^= change;
            prop_assert_eq!(theirs.decode(&datagram), None);
        }

        #[test]
        fn any_bytes_are_taken_calmly(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(sides().0.decode(&bytes), None);
            prop_assert_eq!(decode_body(&bytes).is_some() && bytes.len() != BODY_SIZE, false);
        }
    }
}
