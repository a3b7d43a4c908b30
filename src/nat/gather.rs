//! Makes the list of candidates that we tell a peer: the addresses of our interfaces and those that
//! STUN servers saw, best first.

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::{
    candidate::{CANDIDATES_MAX, Candidate, CandidateKind, canonical},
    datagram::{BoundSocket, Family},
    nat::distance::{Distance, is_shared},
};

/// Reflexive candidates in one list.
///
/// One for each public address of our NATs; the rest of the list is for hosts on the same network.
pub const REFLEXIVE_MAX: usize = 6;

/// Whether addresses of this host alone are candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loopback {
    /// They are of no use to anybody else.
    Skip,
    /// Both sides may be on this host: tests, demos.
    Keep,
}

/// How likely a peer somewhere gets to a candidate, likeliest first.
///
/// Order decides two things: which candidates are dropped when there are too many, and whose probes
/// leave first, 2 ms apart. So what works from everywhere comes before what works on one network only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// What a STUN server saw.
    Reflexive,
    /// Of an interface, and not private.
    Public,
    /// Of an interface, and private.
    SameNetwork,
    /// Of a carrier's or an overlay network (RFC 6598).
    Shared,
    /// Looks like our own end of a network of containers or virtual machines.
    Bridge,
    /// Of this host.
    SameHost,
}

/// The candidates of `sockets` on a host with these `interfaces`, which servers see as `reflexive`:
/// best first, each address once, at most [`CANDIDATES_MAX`].
pub fn gather(
    interfaces: &[IpAddr],
    sockets: &[BoundSocket],
    reflexive: &[SocketAddr],
    loopback: Loopback,
) -> Vec<Candidate> {
    let reflexive = reflexive
        .iter()
        .take(REFLEXIVE_MAX)
        .filter_map(|address| Candidate::new(CandidateKind::ServerReflexive, *address));
    let hosts = sockets
        .iter()
        .flat_map(|socket| host_addresses(interfaces, socket))
        .filter(|address| is_usable(address.ip(), loopback))
        .filter_map(|address| Candidate::new(CandidateKind::Host, address));
    let mut candidates: Vec<Candidate> = vec![];
    for candidate in hosts.chain(reflexive) {
        let is_known = |known: &Candidate| known.address == candidate.address;
        if !candidates.iter().any(is_known) {
            candidates.push(candidate);
        }
    }
    // Stable: within one reach the owner's order stays.
    candidates.sort_by(|one, other| by_reach(interfaces, one, other));
    candidates.truncate(CANDIDATES_MAX);
    candidates
}

fn host_addresses(interfaces: &[IpAddr], socket: &BoundSocket) -> Vec<SocketAddr> {
    let local = canonical(socket.local);
    if !local.ip().is_unspecified() {
        return vec![local];
    }
    let family = Family::of(socket.local.ip());
    interfaces
        .iter()
        .filter(|ip| Family::of(**ip) == family)
        .map(|ip| canonical(SocketAddr::new(*ip, local.port())))
        .collect()
}

fn is_usable(ip: IpAddr, loopback: Loopback) -> bool {
    match ip {
        IpAddr::V4(ip) if ip.is_loopback() => loopback == Loopback::Keep,
        IpAddr::V6(ip) if ip.is_loopback() => loopback == Loopback::Keep,
        IpAddr::V4(_) => true,
        // Says nothing without its link, which differs from host to host.
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

fn by_reach(interfaces: &[IpAddr], one: &Candidate, other: &Candidate) -> Ordering {
    reach(interfaces, one).cmp(&reach(interfaces, other))
}

fn reach(interfaces: &[IpAddr], candidate: &Candidate) -> Reach {
    let ip = candidate.address.ip();
    if candidate.kind == CandidateKind::ServerReflexive {
        return Reach::Reflexive;
    }
    match Distance::of(ip) {
        Distance::SameHost => Reach::SameHost,
        Distance::SameNetwork if is_bridge(interfaces, ip) => Reach::Bridge,
        Distance::SameNetwork => Reach::SameNetwork,
        Distance::Internet if is_shared(ip) => Reach::Shared,
        Distance::Internet => Reach::Public,
    }
}

/// Whether `ip` looks like our own end of a bridge: the first address of a network that container or
/// virtual machine programs make up. A guess, so it ranks last and is not dropped; and no guess at all
/// for a host with a single address.
fn is_bridge(interfaces: &[IpAddr], ip: IpAddr) -> bool {
    let IpAddr::V4(ip) = ip else { return false };
    let is_made_up = match ip.octets() {
        // Docker: 172.17.0.1 to 172.31.0.1.
        [172, second, 0, 1] => (17..=31).contains(&second),
        _ => MADE_UP_BRIDGES.contains(&ip),
    };
    let is_other = |other: &IpAddr| {
        *other != IpAddr::V4(ip) && !other.is_loopback() && Family::of(*other) == Family::V4
    };
    is_made_up && interfaces.iter().any(is_other)
}

/// libvirt, LXC and Podman.
const MADE_UP_BRIDGES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 168, 122, 1), Ipv4Addr::new(10, 0, 3, 1), Ipv4Addr::new(10, 88, 0, 1)];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::datagram::SocketIndex;

    fn sockets(locals: &[&str]) -> Vec<BoundSocket> {
        let socket = |(index, local): (u16, &&str)| BoundSocket {
            index: SocketIndex(index),
            local: local.parse().unwrap(),
        };
        (0..).zip(locals).map(socket).collect()
    }

    fn gathered(
        interfaces: &[&str],
        locals: &[&str],
        reflexive: &[&str],
        loopback: Loopback,
    ) -> Vec<String> {
        let interfaces: Vec<IpAddr> = interfaces.iter().map(|ip| ip.parse().unwrap()).collect();
        let reflexive: Vec<SocketAddr> = reflexive.iter().map(|at| at.parse().unwrap()).collect();
        gather(&interfaces, &sockets(locals), &reflexive, loopback)
            .iter()
            .map(|candidate| format!("{:?} {}", candidate.kind, candidate.address))
            .collect()
    }

    #[test]
    fn a_laptop_behind_a_home_router_offers_what_works_from_everywhere_first() {
        let interfaces = [
            "127.0.0.1",
            "172.17.0.1",
            "192.168.1.20",
            "100.101.102.103",
            "::1",
            "fe80::1",
            "fd00::20",
            "2001:db8::20",
        ];
        let found = gathered(
            &interfaces,
            &["0.0.0.0:4000", "[::]:4001"],
            &["198.51.100.9:50112"],
            Loopback::Skip,
        );
        let expected = [
            "ServerReflexive 198.51.100.9:50112",
            "Host [2001:db8::20]:4001",
            "Host 192.168.1.20:4000",
            "Host [fd00::20]:4001",
            "Host 100.101.102.103:4000",
            "Host 172.17.0.1:4000",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_public_address_that_servers_confirm_is_a_host_candidate_once() {
        let address = "198.51.100.9:4000";
        let found = gathered(&["198.51.100.9"], &["0.0.0.0:4000"], &[address], Loopback::Skip);
        assert_eq!(found, [format!("Host {address}")]);
    }

    #[test]
    fn a_socket_bound_to_one_address_offers_only_that() {
        let interfaces = ["192.168.1.20", "192.168.2.20", "127.0.0.1"];
        let found = gathered(&interfaces, &["127.0.0.1:4000"], &[], Loopback::Keep);
        assert_eq!(found, ["Host 127.0.0.1:4000"]);
        let none = gathered(&interfaces, &["127.0.0.1:4000"], &[], Loopback::Skip);
        assert_eq!(none, Vec::<String>::new());
    }

    #[test]
    fn a_container_whose_only_address_looks_like_a_bridge_is_not_taken_for_one() {
        let ips: [IpAddr; 2] = ["127.0.0.1", "172.18.0.1"].map(|ip| ip.parse().unwrap());
        assert!(!is_bridge(&ips, ips[1]));
    }

    #[test]
    fn with_too_many_addresses_the_reflexive_ones_stay() {
        let interfaces: Vec<String> = (2..40).map(|host| format!("10.0.0.{host}")).collect();
        let interfaces: Vec<&str> = interfaces.iter().map(String::as_str).collect();
        let found =
            gathered(&interfaces, &["0.0.0.0:4000"], &["198.51.100.9:50112"], Loopback::Skip);
        assert_eq!(found.len(), CANDIDATES_MAX);
        assert_eq!(found[0], "ServerReflexive 198.51.100.9:50112");
    }

    proptest! {
        #[test]
        fn whatever_the_interfaces_the_list_is_short_and_without_repetition(
            interfaces in prop::collection::vec(any::<IpAddr>(), 0..40),
            reflexive in prop::collection::vec(any::<SocketAddr>(), 0..40),
        ) {
            let sockets = sockets(&["0.0.0.0:4000", "[::]:4000"]);
            let candidates = gather(&interfaces, &sockets, &reflexive, Loopback::Keep);
            prop_assert!(candidates.len() <= CANDIDATES_MAX);
            let mut addresses: Vec<_> = candidates.iter().map(|each| each.address).collect();
            addresses.sort();
            addresses.dedup();
            prop_assert_eq!(addresses.len(), candidates.len());
        }
    }
}
