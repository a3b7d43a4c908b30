//! One route: what QUIC takes for a single remote address, and the real paths under it.
//!
//! The [path table](super::path_table) finds the route of a datagram; a route knows the rest: its
//! virtual addresses, the paths it has, where its datagrams go, and those that wait for a path.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use quinn::udp::{EcnCodepoint, Transmit};

use super::{repeats::Copies, traffic::Traffic};
use crate::{
    datagram::Path,
    transport::quic::header::{ConnectionId, LongHeader},
};

/// Names a route; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub(in crate::transport) u64);

/// A datagram that QUIC sent before there was a path, to be sent on `path` now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingDatagram {
    /// Where to.
    pub path: Path,
    /// What.
    pub bytes: Vec<u8>,
    /// With these congestion bits, so that QUIC's count of them stays right.
    pub ecn: Option<EcnCodepoint>,
}

/// Which of a peer's virtual addresses; its number in the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::transport) struct VirtualAddress(pub(in crate::transport) u64);

#[derive(Debug)]
pub(in crate::transport) struct Route {
    pub(in crate::transport) standing: Standing,
    /// The primary one first; never empty.
    pub(in crate::transport) addresses: Vec<Address>,
    /// Where the peer's datagrams may come from, longest known first.
    pub(in crate::transport) paths: Vec<Path>,
    /// Where the peer may be reached.
    pub(in crate::transport) candidates: Vec<SocketAddr>,
    pub(in crate::transport) outlet: Outlet,
    /// The path by which the last datagram came.
    pub(in crate::transport) heard_on: Option<Path>,
    pub(in crate::transport) traffic: Traffic,
    pub(in crate::transport) watch: Watch,
    /// Ids of connections that nobody answered and nobody waits for, the newest last.
    pub(in crate::transport) given_up: VecDeque<ConnectionId>,
    /// Datagrams of the newest connection that are still to be sent twice.
    repeats_left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Standing {
    /// A peer that we dialled or that proved who it is.
    Peer,
    /// Somebody whose first packet began a connection.
    Stranger,
}

#[derive(Debug)]
pub(in crate::transport) struct Address {
    pub(in crate::transport) address: VirtualAddress,
    /// Ids under which connections at this address receive, the newest last.
    own_ids: VecDeque<ConnectionId>,
    /// What the stranger that came in here called us first.
    pub(in crate::transport) first_id: Option<ConnectionId>,
}

/// Where a route's datagrams go.
#[derive(Debug)]
pub(in crate::transport) enum Outlet {
    /// To one path.
    Open(Path),
    /// To whatever may reach the peer. The last datagrams wait, oldest first, to be sent again.
    Searching(VecDeque<Waiting>),
}

#[derive(Debug)]
pub(in crate::transport) struct Waiting {
    bytes: Vec<u8>,
    ecn: Option<EcnCodepoint>,
    sent_at: Instant,
}

/// Whether the route's owner wants to hear of the next unanswered send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Watch {
    On,
    Off,
}

impl VirtualAddress {
    pub(in crate::transport) fn to_socket_addr(self) -> SocketAddr {
        let ip = Ipv6Addr::from_bits(u128::from(PREFIX) << 64 | u128::from(self.0));
        SocketAddr::new(IpAddr::V6(ip), VIRTUAL_PORT)
    }

    /// `None` for an address that is none of ours.
    pub(in crate::transport) fn from_socket_addr(address: SocketAddr) -> Option<Self> {
        let IpAddr::V6(ip) = address.ip() else {
            return None;
        };
        let [p0, p1, p2, p3, p4, p5, p6, p7, number @ ..] = ip.octets();
        let ours = u64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]) == PREFIX;
        (ours && address.port() == VIRTUAL_PORT).then_some(Self(u64::from_be_bytes(number)))
    }
}

impl Address {
    pub(in crate::transport) fn new(
        address: VirtualAddress,
        first_id: Option<ConnectionId>,
    ) -> Self {
        Self { address, own_ids: VecDeque::new(), first_id }
    }

    /// Remembers an id that we told the peer; returns the one that it makes us forget.
    pub(in crate::transport) fn note_own_id(&mut self, id: ConnectionId) -> Option<ConnectionId> {
        let forgotten = match self.own_ids.len() < OWN_IDS_MAX {
            true => None,
            false => self.own_ids.pop_front(),
        };
        self.own_ids.push_back(id);
        forgotten
    }

    pub(in crate::transport) fn own_ids(&self) -> impl Iterator<Item = &ConnectionId> {
        self.own_ids.iter()
    }

    fn receives(&self, datagram: &[u8]) -> bool {
        let mut ids = self.own_ids.iter().chain(&self.first_id);
        ids.any(|id| id.receives(datagram))
    }
}

impl Route {
    pub(in crate::transport) fn new(standing: Standing, address: Address, outlet: Outlet) -> Self {
        Self {
            standing,
            addresses: vec![address],
            paths: Vec::new(),
            candidates: Vec::new(),
            outlet,
            heard_on: None,
            traffic: Traffic::default(),
            watch: Watch::Off,
            given_up: VecDeque::new(),
            repeats_left: 0,
        }
    }

    pub(in crate::transport) fn primary(&self) -> VirtualAddress {
        let primary = self.addresses.first();
        primary.expect("a route has an address, see Route::new").address
    }

    pub(in crate::transport) fn best(&self) -> Option<Path> {
        match self.outlet {
            Outlet::Open(path) => Some(path),
            Outlet::Searching(_) => None,
        }
    }

    /// Takes the oldest address but the primary one, if there are too many.
    pub(in crate::transport) fn drop_excess_address(&mut self) -> Option<Address> {
        (self.addresses.len() > ADDRESSES_PER_ROUTE_MAX).then(|| self.addresses.remove(1))
    }

    pub(in crate::transport) fn address_mut(
        &mut self,
        address: VirtualAddress,
    ) -> Option<&mut Address> {
        self.addresses.iter_mut().find(|own| own.address == address)
    }

    /// The virtual address of the connection that receives `datagram`.
    ///
    /// A client tells a server further ids under encryption, and quinn's servers use one of those at
    /// once; clients stay with the id that they saw first. So what bears an unknown id is for the
    /// connection that we dialled, unless it begins one.
    pub(in crate::transport) fn receiver(&self, datagram: &[u8]) -> VirtualAddress {
        if let Some(known) = self.addresses.iter().find(|own| own.receives(datagram)) {
            return known.address;
        }
        let mut addresses = self.addresses.iter();
        match addresses.find(|own| own.first_id.is_none()) {
            Some(dialled) if LongHeader::read(datagram).is_none() => dialled.address,
            Some(_) | None => self.primary(),
        }
    }

    /// A connection begins.
    pub(in crate::transport) fn begin_repeating(&mut self) {
        self.repeats_left = REPEATS_PER_CONNECTION;
    }

    /// Whether `transmit`, which goes to the route's path, is to go again; counts it.
    ///
    /// Not to a stranger: whoever began a connection from there has not shown yet that it receives there, and
    /// gets no more than QUIC allows (RFC 9000, section 8.1).
    pub(in crate::transport) fn copies(&mut self, transmit: &Transmit<'_>) -> Option<Copies> {
        let segment_size = transmit.segment_size.unwrap_or(transmit.contents.len());
        let datagrams = transmit.contents.len().div_ceil(segment_size.max(1));
        let is_repeated = self.standing == Standing::Peer
            && (REPEATED_SIZE_MIN..=REPEATED_SIZE_MAX).contains(&segment_size)
            && datagrams <= self.repeats_left;
        if !is_repeated {
            return None;
        }
        self.repeats_left -= datagrams;
        Some(Copies::of(transmit.contents))
    }

    /// Forgets what waits, and the connections that it is from.
    pub(in crate::transport) fn give_up_dials(&mut self) {
        if let Outlet::Searching(waiting) = &mut self.outlet {
            waiting.clear();
        }
        self.given_up = self.addresses.iter().flat_map(Address::own_ids).copied().collect();
    }

    /// Keeps what may have to be sent again as soon as there is a path.
    pub(in crate::transport) fn keep_waiting(&mut self, transmit: &Transmit<'_>, now: Instant) {
        let Outlet::Searching(waiting) = &mut self.outlet else {
            return;
        };
        let segment_size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(segment_size) {
            if datagram.len() > WAITING_SIZE_MAX {
                continue;
            }
            if waiting.len() == WAITING_MAX {
                waiting.pop_front();
            }
            waiting.push_back(Waiting {
                bytes: datagram.to_vec(),
                ecn: transmit.ecn,
                sent_at: now,
            });
        }
    }

    /// What waits and is not too old, for each of `paths`.
    pub(in crate::transport) fn waiting_for(
        &self,
        paths: &[Path],
        now: Instant,
    ) -> Vec<WaitingDatagram> {
        let Outlet::Searching(waiting) = &self.outlet else {
            return Vec::new();
        };
        let fresh = waiting
            .iter()
            .filter(|datagram| now.saturating_duration_since(datagram.sent_at) <= WAITING_AGE_MAX);
        let on_each_path = |datagram: &Waiting| {
            let (bytes, ecn) = (datagram.bytes.clone(), datagram.ecn);
            paths.iter().map(move |&path| WaitingDatagram { path, bytes: bytes.clone(), ecn })
        };
        fresh.flat_map(on_each_path).collect()
    }
}

impl Outlet {
    /// No path is known, and nothing waits.
    pub(in crate::transport) fn searching() -> Self {
        Self::Searching(VecDeque::new())
    }
}

/// fd70:3270:6e6f:6465::/64, a unique local prefix (RFC 4193) that spells "p2pnode".
///
/// No datagram ever bears it: it exists between quinn and the path table only.
const PREFIX: u64 = 0xfd70_3270_6e6f_6465;

const VIRTUAL_PORT: u16 = 1;

/// Virtual addresses of one peer: the one that we dialled and the one that it came in on.
const ADDRESSES_PER_ROUTE_MAX: usize = 2;

/// Connections of one virtual address whose ids are known: one live, and some that are closing.
const OWN_IDS_MAX: usize = 4;

/// Datagrams of a connection that go more than once: those of a handshake, of the first message and of its
/// answer. They come to 15 KB at the most.
const REPEATS_PER_CONNECTION: usize = 8;

/// Bytes of a datagram that goes more than once. What is shorter holds nothing but acks, and the next ack says
/// the same.
const REPEATED_SIZE_MIN: usize = 40;

/// What is longer measures what the path carries.
const REPEATED_SIZE_MAX: usize = 1_200;

/// Datagrams that wait for a path.
///
/// A client's first flight is one or two; a server's, with a certificate, is three.
const WAITING_MAX: usize = 4;

/// Bytes of a waiting datagram: what an Ethernet frame holds. Handshake packets have 1,200 to 1,452.
const WAITING_SIZE_MAX: usize = 1500;

/// After this, QUIC has sent again what was lost, and the old datagram is of no use.
const WAITING_AGE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_addresses_come_back_and_others_are_none() {
        let address = VirtualAddress(0x0102_0304_0506_0708);
        let text = "[fd70:3270:6e6f:6465:102:304:506:708]:1";
        assert_eq!(address.to_socket_addr(), text.parse().unwrap());
        assert_eq!(VirtualAddress::from_socket_addr(text.parse().unwrap()), Some(address));
        for other in ["[fd70:3270:6e6f:6466::1]:1", "[fd70:3270:6e6f:6465::1]:2", "1.2.3.4:1"] {
            assert_eq!(VirtualAddress::from_socket_addr(other.parse().unwrap()), None);
        }
    }
}
