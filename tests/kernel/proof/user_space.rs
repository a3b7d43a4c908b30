//! The same for the NATs in user space.

use std::{collections::BTreeSet, thread, time::Duration};

use super::{
    super::user_nat::{Filtering, Hairpin, Mapping, Ports, UserNat},
    KernelLab, Nat, PORT, Process, SOON, Seen, agent, bind, endpoint, heard, observe, or_skip,
    port_of, send,
};

/// What four destinations and three others see of a host behind this NAT.
fn seen_behind(lab: &KernelLab, nat: UserNat) -> Seen {
    observe(lab, &lab.home(Nat::InUserSpace(nat)))
}

#[test]
fn an_easy_nat_keeps_one_port_and_filters_as_it_is_told() {
    let Some(lab) = or_skip(KernelLab::new()) else { return };
    for (filtering, admitted) in [
        (Filtering::AddressAndPortDependent, &["the port asked"][..]),
        (Filtering::AddressDependent, &["another port", "the port asked"]),
        (Filtering::EndpointIndependent, &["a stranger", "another port", "the port asked"]),
    ] {
        let seen = seen_behind(&lab, UserNat { filtering, ..UserNat::EASY });
        assert_eq!(seen.ports, [PORT; 4]);
        assert_eq!(seen.admitted, admitted);
    }
}

#[test]
fn a_nat_that_changes_the_port_does_so_once() {
    let Some(lab) = or_skip(KernelLab::new()) else { return };
    let seen = seen_behind(&lab, UserNat::CHANGING);
    assert_ne!(seen.ports[0], PORT);
    assert_eq!(seen.ports, [seen.ports[0]; 4]);
    assert_eq!(seen.admitted, ["the port asked"]);
}

#[test]
fn a_symmetric_nat_gives_out_ports_as_it_is_told() {
    let Some(lab) = or_skip(KernelLab::new()) else { return };
    let in_order = seen_behind(&lab, UserNat::SEQUENTIAL);
    let first = in_order.ports[0];
    assert_eq!(in_order.ports, [first, first + 1, first + 2, first + 3]);
    assert_eq!(in_order.admitted, ["the port asked"]);

    let by_address = UserNat { mapping: Mapping::AddressDependent, ..UserNat::SEQUENTIAL };
    let by_address = seen_behind(&lab, by_address);
    let first = by_address.ports[0];
    assert_eq!(by_address.ports, [first, first, first + 1, first + 1]);

    let (low, high) = (40_000, 41_023);
    let in_a_block = seen_behind(&lab, UserNat::symmetric(Ports::Block { low, high }));
    assert!(
        in_a_block.ports.iter().all(|port| (low..=high).contains(port)),
        "{:?}",
        in_a_block.ports
    );
    let anywhere = seen_behind(&lab, UserNat::RANDOM);
    for seen in [in_a_block, anywhere] {
        // All are in use at once.
        assert_eq!(seen.ports.iter().collect::<BTreeSet<_>>().len(), 4, "{:?}", seen.ports);
        assert_eq!(seen.admitted, ["the port asked"]);
    }
}

#[test]
fn other_users_take_ports_in_between() {
    let Some(lab) = or_skip(KernelLab::new()) else { return };
    // However quick a datagram is, dozens of ports are taken between it and the next: none at all is a chance of 10⁻³⁰.
    let among_others = Ports::Sequential { step: 2, others_per_second: 100_000 };
    let seen = seen_behind(&lab, UserNat::symmetric(among_others));
    // After the last port comes the first one, an even number of ports away, as are all of them.
    let gaps: Vec<_> = seen.ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(gaps.iter().all(|gap| gap % 2 == 0), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap > 2), "{gaps:?}");
}

#[test]
fn ports_that_are_given_out_in_order_are_counted_for_all_hosts() {
    let Some(lab) = or_skip(KernelLab::new()) else { return };
    let home = lab.home(Nat::InUserSpace(UserNat::SEQUENTIAL));
    let world = lab.public_host(&["198.51.100.10"]);
    let (alice, bob) = (home.host(), home.host());
    let (world, alice, bob) = (agent(&world), agent(&alice), agent(&bob));
    let ports = [&alice, &bob].map(|host| {
        send(host, PORT, ("198.51.100.10", PORT), "question");
        port_of(&heard(&world).1)
    });
    assert_eq!(ports[1], ports[0] + 1);
}

#[test]
fn hosts_behind_one_nat_see_each_other_as_its_hairpin_lets_them() {
    let Some(lab) = or_skip(KernelLab::new()) else { return };
    let world = lab.public_host(&["198.51.100.10"]);
    let world = agent(&world);
    for hairpin in [Hairpin::FromOutside, Hairpin::FromInside, Hairpin::Off] {
        let home = lab.home(Nat::InUserSpace(UserNat { hairpin, ..UserNat::EASY }));
        let (alice, bob) = (home.host(), home.host());
        let (alice, bob) = (agent(&alice), agent(&bob));
        let other = PORT + 1;
        bind(&bob, other);
        // Bob's outside endpoint lets in those of the outside that he has sent to.
        send(&bob, other, (home.address(), PORT), "opens");
        send(&alice, PORT, (home.address(), other), "hello");
        // What comes out of the NAT after that has waited for it.
        outside_port(&alice, &world);
        let from = match hairpin {
            Hairpin::FromOutside => endpoint(home.address(), PORT),
            Hairpin::FromInside => endpoint("192.168.1.20", PORT),
            Hairpin::Off => {
                send(&alice, PORT, ("192.168.1.21", other), "nothing came before");
                assert_eq!(heard(&bob).0, "nothing came before");
                continue;
            }
        };
        assert_eq!(heard(&bob), ("hello".into(), from));
    }
}

#[test]
fn a_mapping_ends_when_it_is_not_used() {
    let Some(lab) = or_skip(KernelLab::new()) else { return };
    let lifetime = Duration::from_millis(500);
    let home = lab.home(Nat::InUserSpace(UserNat { lifetime, ..UserNat::CHANGING }));
    let world = lab.public_host(&["198.51.100.10"]);
    let host = home.host();
    let (world, host) = (agent(&world), agent(&host));
    let before = outside_port(&host, &world);
    thread::sleep(2 * lifetime);
    let after = outside_port(&host, &world);
    assert_ne!(before, after);
}

#[test]
fn a_router_that_restarts_has_forgotten_its_mappings() {
    let Some(lab) = or_skip(KernelLab::new()) else { return };
    let home = lab.home(Nat::InUserSpace(UserNat::CHANGING));
    let world = lab.public_host(&["198.51.100.10"]);
    let host = home.host();
    let (world, host) = (agent(&world), agent(&host));
    let before = outside_port(&host, &world);
    home.nat_box().forget(&["198.51.100.11/32"]);
    assert_eq!(outside_port(&host, &world), before, "somebody else was forgotten");
    home.nat_box().restart();
    assert_ne!(outside_port(&host, &world), before);
}

fn outside_port(host: &Process, world: &Process) -> u16 {
    send(host, PORT, ("198.51.100.10", PORT), "question");
    let datagram = world.wait_for("datagram", SOON);
    port_of(&datagram["from"])
}
