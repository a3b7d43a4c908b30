//! One NAT box, one behaviour after the other.

use std::{net::SocketAddr, time::Duration};

use rand::{SeedableRng, rngs::StdRng};

use super::at;
use crate::lab::{Collision, Fate, Filtering, Mapping, Nat, Pooling, Ports, nat_box::NatBox};

const START: Duration = Duration::ZERO;

fn nat_box(nat: Nat) -> NatBox {
    seeded(nat, 1)
}

fn seeded(nat: Nat, seed: u64) -> NatBox {
    let public = vec!["203.0.113.1".parse().unwrap()];
    NatBox::new(nat, public, StdRng::seed_from_u64(seed))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The public ports of one inside socket towards a peer, another port of it, and a stranger.
fn ports_towards_three(mapping: Mapping) -> [u16; 3] {
    let mut nat = nat_box(Nat { mapping, ..Nat::home() });
    ["198.51.100.7:1", "198.51.100.7:2", "198.51.100.8:1"].map(|remote| {
        nat.handle_outbound(at("192.168.1.2:5000"), at(remote), START).unwrap().port()
    })
}

#[test]
fn mapping_depends_on_what_its_name_says() {
    assert_eq!(ports_towards_three(Mapping::EndpointIndependent), [5000, 5000, 5000]);
    assert_eq!(ports_towards_three(Mapping::AddressDependent), [5000, 5000, 5001]);
    assert_eq!(ports_towards_three(Mapping::AddressAndPortDependent), [5000, 5001, 5002]);
}

/// What becomes of datagrams from the endpoint that was sent to, its neighbour port, and a stranger.
fn fates_from_three(filtering: Filtering) -> [Result<(), Fate>; 3] {
    let mut nat = nat_box(Nat { filtering, ..Nat::home() });
    let outside = nat.handle_outbound(at("192.168.1.2:5000"), at("198.51.100.7:1"), START).unwrap();
    ["198.51.100.7:1", "198.51.100.7:2", "198.51.100.8:1"].map(|remote| {
        nat.handle_inbound(outside, at(remote), START)
            .map(|inside| assert_eq!(inside, at("192.168.1.2:5000")))
    })
}

#[test]
fn filtering_depends_on_what_its_name_says() {
    let (in_, out) = (Ok(()), Err(Fate::Filtered));
    assert_eq!(fates_from_three(Filtering::EndpointIndependent), [in_, in_, in_]);
    assert_eq!(fates_from_three(Filtering::AddressDependent), [in_, in_, out]);
    assert_eq!(fates_from_three(Filtering::AddressAndPortDependent), [in_, out, out]);
}

#[test]
fn unsolicited_datagrams_are_dropped_and_leave_nothing_behind() {
    let mut nat = nat_box(Nat::full_cone());
    let remote = at("198.51.100.7:1");
    assert_eq!(nat.handle_inbound(at("203.0.113.1:5000"), remote, START), Err(Fate::NoMapping));
    let outside = nat.handle_outbound(at("192.168.1.2:5000"), remote, START);
    assert_eq!(outside, Ok(at("203.0.113.1:5000")));
}

/// The ports of the first mappings of distinct inside sockets.
fn first_ports(ports: Ports, seed: u64) -> Vec<u16> {
    let mut nat = seeded(Nat { ports, ..Nat::home() }, seed);
    (0..20)
        .map(|n| SocketAddr::new("192.168.1.2".parse().unwrap(), 7000 + n))
        .map(|inside| nat.handle_outbound(inside, at("198.51.100.7:1"), START).unwrap().port())
        .collect()
}

#[test]
fn sequential_ports_are_one_step_apart() {
    let ports = first_ports(Ports::Sequential { step: 3 }, 1);
    assert!(ports.windows(2).all(|pair| pair[1] == pair[0] + 3), "{ports:?}");
    assert_ne!(ports, first_ports(Ports::Sequential { step: 3 }, 2));
}

#[test]
fn block_ports_lie_in_one_block_but_in_no_order() {
    let ports = first_ports(Ports::Block { size: 64 }, 1);
    let (least, most) = (ports.iter().min().unwrap(), ports.iter().max().unwrap());
    assert!(most - least < 64, "{ports:?}");
    assert!(!ports.is_sorted(), "{ports:?}");
}

#[test]
fn a_full_block_gives_no_more_ports() {
    let mut nat = nat_box(Nat::symmetric(Ports::Block { size: 4 }));
    let fates: Vec<_> = (1..=5)
        .map(|port| {
            let remote = SocketAddr::new("198.51.100.7".parse().unwrap(), port);
            nat.handle_outbound(at("192.168.1.2:5000"), remote, START).map(|_| ())
        })
        .collect();
    let full = Err(Fate::NatFull);
    assert_eq!(fates, [Ok(()), Ok(()), Ok(()), Ok(()), full]);
}

#[test]
fn random_ports_follow_the_seed() {
    let ports = first_ports(Ports::Random, 1);
    assert_eq!(ports, first_ports(Ports::Random, 1));
    assert_ne!(ports, first_ports(Ports::Random, 2));
    let spread = ports.iter().max().unwrap() - ports.iter().min().unwrap();
    assert!(spread > 10_000, "{ports:?}");
}

#[test]
fn a_preserved_port_that_is_taken_becomes_the_next_one() {
    let mut nat = nat_box(Nat::home());
    let remote = at("198.51.100.7:1");
    let outside = ["192.168.1.2:5000", "192.168.1.3:5000", "192.168.1.4:5000"]
        .map(|inside| nat.handle_outbound(at(inside), remote, START).unwrap());
    let ports = outside.map(|outside| outside.port());
    assert_eq!(ports, [5000, 5001, 5002]);
}

#[test]
fn outbound_datagrams_keep_a_mapping_alive_and_inbound_ones_do_not() {
    let mut nat = nat_box(Nat::home());
    let (inside, remote) = (at("192.168.1.2:5000"), at("198.51.100.7:1"));
    let outside = nat.handle_outbound(inside, remote, START).unwrap();
    assert_eq!(nat.handle_inbound(outside, remote, secs(119)), Ok(inside));
    assert_eq!(nat.handle_inbound(outside, remote, secs(120)), Err(Fate::NoMapping));

    nat.handle_outbound(inside, remote, secs(200)).unwrap();
    nat.handle_outbound(inside, remote, secs(300)).unwrap();
    assert_eq!(nat.handle_inbound(outside, remote, secs(419)), Ok(inside));
}

#[test]
fn one_destination_keeps_the_mapping_but_not_the_permission_of_another() {
    let mut nat = nat_box(Nat::home());
    let inside = at("192.168.1.2:5000");
    let (kept, idle) = (at("198.51.100.7:1"), at("198.51.100.8:1"));
    let outside = nat.handle_outbound(inside, idle, START).unwrap();
    nat.handle_outbound(inside, kept, secs(100)).unwrap();
    assert_eq!(nat.handle_inbound(outside, kept, secs(150)), Ok(inside));
    assert_eq!(nat.handle_inbound(outside, idle, secs(150)), Err(Fate::Filtered));
}

#[test]
fn what_was_never_answered_is_forgotten_sooner() {
    let mut nat = nat_box(Nat::linux());
    let (inside, remote) = (at("192.168.1.2:5000"), at("198.51.100.7:1"));
    let outside = nat.handle_outbound(inside, remote, START).unwrap();
    assert_eq!(nat.handle_inbound(outside, remote, secs(30)), Err(Fate::NoMapping));

    nat.handle_outbound(inside, at("198.51.100.8:1"), secs(40)).unwrap();
    let outside = nat.handle_outbound(inside, at("198.51.100.8:1"), secs(40)).unwrap();
    let answered = nat.handle_inbound(outside, at("198.51.100.8:1"), secs(41));
    assert_eq!(answered, Ok(inside));
    let later = nat.handle_inbound(outside, at("198.51.100.8:1"), secs(159));
    assert_eq!(later, Ok(inside));
}

#[test]
fn a_datagram_that_came_too_early_costs_its_sender_the_known_port() {
    let mut nat = nat_box(Nat::linux());
    let (inside, hasty) = (at("192.168.1.2:5000"), at("198.51.100.7:1"));
    let known = nat.handle_outbound(inside, at("198.51.100.8:1"), START).unwrap();
    let early = nat.handle_inbound(known, hasty, secs(1));
    assert_eq!(early, Err(Fate::Filtered));

    let towards_hasty = nat.handle_outbound(inside, hasty, secs(2)).unwrap();
    assert_ne!(towards_hasty, known);
    let towards_others = nat.handle_outbound(inside, at("198.51.100.9:1"), secs(2));
    assert_eq!(towards_others, Ok(known));
    for later in [25, 50] {
        let still = nat.handle_outbound(inside, hasty, secs(later)).unwrap();
        assert_eq!(still, towards_hasty, "a flow keeps the port that it has");
    }
}

/// Distinct remote endpoints.
fn remotes(count: u32) -> impl Iterator<Item = SocketAddr> {
    (0..count).map(|n| SocketAddr::new(std::net::Ipv4Addr::from_bits(n).into(), 1))
}

#[test]
fn a_mapping_serves_so_many_remotes_at_once_and_no_more() {
    let mut nat = nat_box(Nat::home());
    let inside = at("192.168.1.2:5000");
    for remote in remotes(65_536) {
        nat.handle_outbound(inside, remote, START).unwrap();
    }
    let one_more = at("198.51.100.7:1");
    let full = nat.handle_outbound(inside, one_more, secs(119));
    assert_eq!(full, Err(Fate::NatFull));
    nat.handle_outbound(inside, at("0.0.0.0:1"), secs(119)).unwrap();
    let room = nat.handle_outbound(inside, one_more, secs(120));
    assert_eq!(room, Ok(at("203.0.113.1:5000")));
}

#[test]
fn a_punishing_nat_remembers_so_many_early_datagrams_and_no_more() {
    let mut nat = nat_box(Nat::linux());
    let (inside, outside) = (at("192.168.1.2:5000"), at("203.0.113.1:5000"));
    let one_more = at("198.51.100.7:1");
    for remote in remotes(65_536).chain([one_more]) {
        let early = nat.handle_inbound(outside, remote, START);
        assert_eq!(early, Err(Fate::NoMapping));
    }
    let unpunished = nat.handle_outbound(inside, one_more, secs(1));
    assert_eq!(unpunished, Ok(outside));
    let punished = nat.handle_outbound(inside, at("0.0.0.0:1"), secs(1));
    assert_eq!(punished, Ok(at("203.0.113.1:5001")));
}

#[test]
fn forgotten_mappings_come_back_on_other_ports() {
    for ports in [Ports::Preserving, Ports::Sequential { step: 1 }, Ports::Random] {
        let mut nat = nat_box(Nat { ports, ..Nat::home() });
        let (inside, remote) = (at("192.168.1.2:5000"), at("198.51.100.7:1"));
        let before = nat.handle_outbound(inside, remote, START).unwrap();
        nat.forget_mappings();
        assert_eq!(nat.handle_inbound(before, remote, START), Err(Fate::NoMapping));
        let after = nat.handle_outbound(inside, remote, START).unwrap();
        assert_ne!(before, after);
    }
}

#[test]
fn hairpinning_shows_the_public_endpoint_and_asks_the_filter() {
    let mut nat = nat_box(Nat { hairpin: true, ..Nat::home() });
    let (alice, bob) = (at("192.168.1.2:5000"), at("192.168.1.3:6000"));
    let stun = at("198.51.100.7:3478");
    let public_alice = nat.handle_outbound(alice, stun, START).unwrap();
    let public_bob = nat.handle_outbound(bob, stun, START).unwrap();
    let first = nat.handle_hairpin(alice, public_bob, START);
    assert_eq!(first, Err(Fate::Filtered));
    let answer = nat.handle_hairpin(bob, public_alice, START);
    assert_eq!(answer, Ok((public_bob, alice)));

    let mut without = nat_box(Nat::home());
    without.handle_outbound(bob, stun, START).unwrap();
    let refused = without.handle_hairpin(alice, public_bob, START);
    assert_eq!(refused, Err(Fate::NoHairpin));
}

#[test]
fn an_inside_address_keeps_to_one_of_several_public_ones() {
    let public = ["203.0.113.1", "203.0.113.2"].map(|address| address.parse().unwrap());
    let nat = Nat::symmetric(Ports::Random);
    let mut nat = NatBox::new(nat, public.to_vec(), StdRng::seed_from_u64(1));
    let mut seen_from = |inside: &str| {
        [1, 2, 3].map(|port| {
            let remote = SocketAddr::new("198.51.100.7".parse().unwrap(), port);
            nat.handle_outbound(at(inside), remote, START).unwrap().ip()
        })
    };
    assert_eq!(seen_from("192.168.1.2:5000"), [public[0]; 3]);
    assert_eq!(seen_from("192.168.1.3:5000"), [public[1]; 3]);
}

#[test]
fn other_hosts_take_ports_in_between_at_their_rate() {
    let mut nat =
        nat_box(Nat { others_per_s: 10, ..Nat::symmetric(Ports::Sequential { step: 1 }) });
    let mut port_at = |seconds: u64| {
        let remote = SocketAddr::new(
            "198.51.100.7".parse().unwrap(),
            1_000 + u16::try_from(seconds).unwrap(),
        );
        nat.handle_outbound(at("192.168.1.2:5000"), remote, secs(seconds)).unwrap().port()
    };
    let (first, later) = (port_at(1), port_at(101));
    let taken = later.wrapping_sub(first) - 1;
    assert!((900..1_100).contains(&taken), "{taken} in 100 s");
}

#[test]
fn a_preserved_port_that_is_taken_can_become_any() {
    let mut nat = nat_box(Nat { collision: Collision::RandomPort, ..Nat::home() });
    let remote = at("198.51.100.7:1");
    let [kept, other] = ["192.168.1.2:5000", "192.168.1.3:5000"]
        .map(|inside| nat.handle_outbound(at(inside), remote, START).unwrap().port());
    assert_eq!(kept, 5000);
    assert!(other.abs_diff(5000) > 1, "{other}");
}

#[test]
fn with_arbitrary_pooling_mappings_of_one_host_are_spread_over_the_addresses() {
    let public = ["203.0.113.1", "203.0.113.2"].map(|address| address.parse().unwrap());
    let nat = Nat { pooling: Pooling::Arbitrary, ..Nat::symmetric(Ports::Random) };
    let mut nat = NatBox::new(nat, public.to_vec(), StdRng::seed_from_u64(1));
    let seen: std::collections::BTreeSet<_> = (1..=20)
        .map(|port| {
            let remote = SocketAddr::new("198.51.100.7".parse().unwrap(), port);
            nat.handle_outbound(at("192.168.1.2:5000"), remote, START).unwrap().ip()
        })
        .collect();
    assert_eq!(seen, public.into());
}

#[test]
fn a_refusing_nat_lets_nothing_in_from_whom_it_has_heard_too_early_until_there_was_peace() {
    let mut nat = nat_box(Nat::refusing());
    let (inside, hasty, patient) =
        (at("192.168.1.2:5000"), at("198.51.100.7:1"), at("198.51.100.8:1"));
    let outside = at("203.0.113.1:5000");
    assert_eq!(nat.handle_inbound(outside, hasty, START), Err(Fate::NoMapping));
    nat.handle_outbound(inside, hasty, secs(1)).unwrap();
    nat.handle_outbound(inside, patient, secs(1)).unwrap();
    assert_eq!(nat.handle_inbound(outside, patient, secs(2)), Ok(inside));
    assert_eq!(nat.handle_inbound(outside, hasty, secs(4)), Err(Fate::Filtered));
    assert_eq!(nat.handle_inbound(outside, hasty, secs(8)), Err(Fate::Filtered));
    assert_eq!(nat.handle_inbound(outside, hasty, secs(13)), Ok(inside));
}
