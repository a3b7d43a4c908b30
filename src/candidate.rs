//! Addresses where a peer may be reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Candidates of one peer that are ever tried.
///
/// Sixteen hold every interface of an ordinary host, IPv4 and IPv6, with its reflexive addresses; more
/// would let a record make us send to many strangers.
pub const CANDIDATES_MAX: usize = 16;

/// Where a candidate comes from (RFC 8445, section 5.1.1), best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// An address of one of the host's own interfaces.
    Host,
    /// What a STUN server saw.
    ServerReflexive,
    /// Where an authenticated probe of the peer came from.
    PeerReflexive,
}

/// An address where a peer may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// Where it comes from.
    pub kind: CandidateKind,
    /// The address; never IPv4-mapped IPv6.
    pub address: SocketAddr,
}

impl Candidate {
    /// A candidate at `address`, or `None` if no datagram may be sent there.
    pub fn new(kind: CandidateKind, address: SocketAddr) -> Option<Self> {
        let address = canonical(address);
        is_unicast(address).then_some(Self { kind, address })
    }
}

/// `candidates` in words: how many there are, and the first few of them.
pub fn listed(candidates: &[Candidate]) -> String {
    let shown = candidates.iter().take(LISTED_MAX).map(|candidate| candidate.address.to_string());
    let shown = shown.collect::<Vec<_>>().join(", ");
    match candidates.len() {
        0 => "no addresses".to_owned(),
        1 => format!("1 address ({shown})"),
        count if count <= LISTED_MAX => format!("{count} addresses ({shown})"),
        count => format!("{count} addresses ({shown} and {} more)", count - LISTED_MAX),
    }
}

/// `address` with an IPv4-mapped IPv6 address turned into IPv4, so that equal means equal.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether a datagram may be sent to `address` at all: a port and a unicast address.
pub fn is_unicast(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// `address` as 6 bytes (IPv4) or 18 bytes (IPv6), port last, big-endian, as in BEP 5.
pub fn encode_compact(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend(address.port().to_be_bytes());
    bytes
}

/// The address in `bytes`, or `None` if they are not a compact endpoint to which a datagram may be sent.
pub fn decode_compact(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    let address = canonical(SocketAddr::new(ip, u16::from_be_bytes(*port)));
    is_unicast(address).then_some(address)
}

/// Addresses that are named in a line for people: an ordinary host's, of one network and both families.
const LISTED_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_the_best_and_counts_all() {
        let candidate = |port| {
            let address = SocketAddr::from(([192, 0, 2, 1], port));
            Candidate { kind: CandidateKind::Host, address }
        };
        let listed = |count| listed(&(1..=count).map(candidate).collect::<Vec<_>>());
        assert_eq!(listed(0), "no addresses");
        assert_eq!(listed(1), "1 address (192.0.2.1:1)");
        assert_eq!(listed(2), "2 addresses (192.0.2.1:1, 192.0.2.1:2)");
        assert!(listed(9).starts_with("9 addresses (192.0.2.1:1, "), "{}", listed(9));
        assert!(listed(9).ends_with(", 192.0.2.1:4 and 5 more)"), "{}", listed(9));
    }

    #[test]
    fn compact_endpoints_come_back() {
        for text in ["198.51.100.9:50112", "[2001:db8::9]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode_compact(&encode_compact(address)), Some(address));
        }
    }

    #[test]
    fn addresses_that_no_datagram_may_go_to_are_refused() {
        for text in
            ["0.0.0.0:1", "198.51.100.9:0", "224.0.0.1:1", "255.255.255.255:1", "[ff02::1]:1"]
        {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode_compact(&encode_compact(address)), None, "{text}");
        }
        assert_eq!(decode_compact(&[1, 2, 3]), None);
    }
}
