//! The little of a QUIC packet that anybody can read (RFC 8999): enough to let a stranger's first
//! packet in and to tell two connections of one peer apart.

/// A connection id, as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::transport) struct ConnectionId {
    size: u8,
    bytes: [u8; CONNECTION_ID_SIZE_MAX],
}

/// The connection ids of a packet with a long header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) struct LongHeader {
    /// Its receiver's id; in a client's first packets a random one.
    pub(in crate::transport) destination: ConnectionId,
    /// Its sender's id: what the receiver will put into its own packets.
    pub(in crate::transport) source: ConnectionId,
}

impl ConnectionId {
    fn new(slice: &[u8]) -> Option<Self> {
        let mut bytes = [0; CONNECTION_ID_SIZE_MAX];
        bytes.get_mut(..slice.len())?.copy_from_slice(slice);
        Some(Self { size: u8::try_from(slice.len()).ok()?, bytes })
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.size)).unwrap_or_default()
    }

    /// Whether `datagram` starts with a packet to this connection id.
    pub(in crate::transport) fn receives(&self, datagram: &[u8]) -> bool {
        let Some((&first, rest)) = datagram.split_first() else {
            return false;
        };
        if first & LONG_FORM != 0 {
            return LongHeader::read(datagram).is_some_and(|header| header.destination == *self);
        }
        // A short header does not say how long the id is; the empty one would match everything.
        self.is_unguessable() && rest.starts_with(self.as_slice())
    }

    /// Whether it is so long that nobody has it by chance.
    pub(in crate::transport) fn is_unguessable(&self) -> bool {
        self.size >= UNGUESSABLE_SIZE_MIN
    }
}

impl LongHeader {
    /// The header that `datagram` starts with; `None` if it is a short one or broken.
    pub(in crate::transport) fn read(datagram: &[u8]) -> Option<Self> {
        let (&first, rest) = datagram.split_first()?;
        if first & LONG_FORM == 0 {
            return None;
        }
        let (_version, rest) = rest.split_first_chunk::<4>()?;
        let (destination, rest) = read_connection_id(rest)?;
        let (source, _) = read_connection_id(rest)?;
        Some(Self { destination, source })
    }

    /// The header of a client's Initial packet of QUIC version 1, the only packet with which a
    /// connection can begin.
    pub(in crate::transport) fn read_first(datagram: &[u8]) -> Option<Self> {
        let (&first, rest) = datagram.split_first()?;
        let version = rest.first_chunk::<4>()?;
        let initial = first & TYPE_MASK == INITIAL && *version == VERSION_1;
        // RFC 9000, section 14.1: a server discards an Initial in a datagram of less than 1,200 bytes.
        if !initial || datagram.len() < INITIAL_DATAGRAM_SIZE_MIN {
            return None;
        }
        Self::read(datagram).filter(|header| header.destination.is_unguessable())
    }
}

/// Whether there is a Handshake packet of QUIC version 1 among the packets in `datagram`.
pub(in crate::transport) fn has_handshake(mut datagram: &[u8]) -> bool {
    loop {
        match datagram.first().map(|first| first & TYPE_MASK) {
            Some(HANDSHAKE) => return true,
            Some(INITIAL) => {}
            // What comes behind others has no length or is of no handshake.
            Some(_) | None => return false,
        }
        let Some(rest) = after_initial(datagram) else {
            return false;
        };
        datagram = rest;
    }
}

/// What follows on the Initial packet that `datagram` starts with (RFC 9000, section 17.2.2).
fn after_initial(datagram: &[u8]) -> Option<&[u8]> {
    let (_first_and_version, rest) = datagram.split_first_chunk::<5>()?;
    let (_destination, rest) = read_connection_id(rest)?;
    let (_source, rest) = read_connection_id(rest)?;
    let (token_size, rest) = read_integer(rest)?;
    let (_token, rest) = rest.split_at_checked(token_size)?;
    let (size, rest) = read_integer(rest)?;
    let (_packet, rest) = rest.split_at_checked(size)?;
    Some(rest)
}

/// An integer of variable length (RFC 9000, section 16), if it can be a size.
fn read_integer(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (more, rest) = rest.split_at_checked((1 << (first >> 6)) - 1)?;
    let begin = u64::from(first & 0x3F);
    let number = more.iter().fold(begin, |number, byte| number << 8 | u64::from(*byte));
    Some((usize::try_from(number).ok()?, rest))
}

fn read_connection_id(bytes: &[u8]) -> Option<(ConnectionId, &[u8])> {
    let (&size, rest) = bytes.split_first()?;
    let (id, rest) = rest.split_at_checked(usize::from(size))?;
    Some((ConnectionId::new(id)?, rest))
}

/// RFC 9000, section 17.2: version 1 allows no longer ones.
const CONNECTION_ID_SIZE_MAX: usize = 20;

/// RFC 9000, section 7.2: what a client calls a server first has at least 8 random bytes; quinn's own
/// ids have 8.
const UNGUESSABLE_SIZE_MIN: u8 = 8;

const LONG_FORM: u8 = 0x80;

/// Form, fixed bit and packet type of RFC 9000, section 17.2.2.
const TYPE_MASK: u8 = 0xF0;
const INITIAL: u8 = 0xC0;
const HANDSHAKE: u8 = 0xE0;

const VERSION_1: [u8; 4] = [0, 0, 0, 1];

const INITIAL_DATAGRAM_SIZE_MIN: usize = 1200;

#[cfg(test)]
pub(in crate::transport) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first datagram of a client that dials.
    pub(in crate::transport) fn initial(destination: [u8; 8], source: [u8; 8]) -> Vec<u8> {
        long(0xC3, destination, source)
    }

    /// A datagram that starts with a Handshake packet.
    pub(in crate::transport) fn handshake(destination: [u8; 8], source: [u8; 8]) -> Vec<u8> {
        long(0xE3, destination, source)
    }

    /// A datagram of an established connection.
    pub(in crate::transport) fn short(destination: [u8; 8]) -> Vec<u8> {
        [&[0x43], destination.as_slice(), &[7; 100]].concat()
    }

    fn long(first: u8, destination: [u8; 8], source: [u8; 8]) -> Vec<u8> {
        let mut datagram = vec![first, 0, 0, 0, 1, 8];
        datagram.extend(destination);
        datagram.push(8);
        datagram.extend(source);
        datagram.resize(1200, 0);
        datagram
    }

    fn id(bytes: [u8; 8]) -> ConnectionId {
        ConnectionId::new(&bytes).unwrap()
    }

    #[test]
    fn only_an_initial_of_version_1_and_full_size_begins_a_connection() {
        let first = initial([1; 8], [2; 8]);
        let header = LongHeader { destination: id([1; 8]), source: id([2; 8]) };
        assert_eq!(LongHeader::read_first(&first), Some(header));
        assert_eq!(LongHeader::read_first(&first[..1199]), None);
        assert_eq!(LongHeader::read_first(&handshake([1; 8], [2; 8])), None);
        assert_eq!(LongHeader::read_first(&short([1; 8])), None);
        let mut short_id = first.clone();
        short_id[5] = 7;
        assert_eq!(LongHeader::read_first(&short_id), None);
        let mut other_version = first;
        other_version[4] = 2;
        assert_eq!(LongHeader::read_first(&other_version), None);
    }

    /// What a dialler sends when it has the acceptor's first flight: an ack, and the end of its own handshake.
    fn coalesced(token: &[u8], padding: u8) -> Vec<u8> {
        let mut datagram = vec![0xC3, 0, 0, 0, 1, 8];
        datagram.extend([1; 8]);
        datagram.push(8);
        datagram.extend([2; 8]);
        datagram.push(u8::try_from(token.len()).unwrap());
        datagram.extend(token);
        // Two bytes tell the size.
        datagram.extend([0x40, padding]);
        datagram.extend(vec![0; padding.into()]);
        [datagram, handshake([1; 8], [2; 8])].concat()
    }

    #[test]
    fn a_handshake_packet_is_found_behind_an_initial_one() {
        assert!(has_handshake(&handshake([1; 8], [2; 8])));
        assert!(has_handshake(&coalesced(&[], 40)));
        assert!(has_handshake(&coalesced(&[9; 16], 63)));
        assert!(!has_handshake(&initial([1; 8], [2; 8])));
        assert!(!has_handshake(&short([1; 8])));
        assert!(!has_handshake(&coalesced(&[], 40)[..60]));
    }

    #[test]
    fn a_packet_is_received_by_its_destination_only() {
        for datagram in [handshake([1; 8], [2; 8]), short([1; 8])] {
            assert!(id([1; 8]).receives(&datagram));
            assert!(!id([2; 8]).receives(&datagram));
        }
        assert!(!ConnectionId::new(&[]).unwrap().receives(&short([1; 8])));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_calmly(bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
            let _ = LongHeader::read_first(&bytes);
            let _ = has_handshake(&bytes);
            if let Some(header) = LongHeader::read(&bytes) {
                prop_assert!(header.destination.receives(&bytes));
            }
        }
    }
}
