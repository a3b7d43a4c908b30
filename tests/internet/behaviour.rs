//! What a node finds out about the NAT or firewall in front of it, against the one that is there.

use p2p_node::{
    failure::Failure,
    lab::{Filtering, Mapping, Nat, Ports},
    node::event::Connection,
};
use tokio::time::sleep;

use crate::{
    peer::Peer,
    world::{Home, World, run, secs, to_service},
};

/// Lets a client of its own dial from each of `homes`, one after the other: what came of it.
async fn dial_from(world: &mut World, homes: &[Home]) -> Vec<Result<Connection, Failure>> {
    let mut outcomes = Vec::new();
    for home in homes {
        let client = world.client(home);
        sleep(secs(1)).await;
        outcomes.push(client.node.connect(to_service(), None).await);
        client.node.shutdown().await;
        sleep(secs(1)).await;
    }
    outcomes
}

async fn nat_of(peer: &Peer) -> String {
    peer.node.status().await.unwrap().nat
}

/// Two peers come in by QUIC's first packet, before the server has heard of them: then its record says so, and the
/// third needs nothing but the address.
#[test]
fn a_nat_that_lets_everybody_in_is_known_for_it_after_two_peers() {
    run(1, async |mut world| {
        let home = world.behind(Nat::full_cone());
        let mut server = world.server(&home);
        server.online().await;
        let clients = [0; 3].map(|_| world.behind(Nat::symmetric(Ports::Random)));
        let first = dial_from(&mut world, &clients[..1]).await;
        assert!(first[0].is_ok());
        assert!(!nat_of(&server).await.contains("filtering"), "one may have been let in by a rule");
        let second = dial_from(&mut world, &clients[1..2]).await;
        assert!(second[0].is_ok());
        let nat = nat_of(&server).await;
        assert!(nat.contains("endpoint-independent filtering"), "{nat}");
    });
}

/// What was proved holds for the addresses that it was proved at.
#[test]
fn what_is_known_of_a_filter_ends_when_the_network_is_another_one() {
    run(1, async |mut world| {
        let mut home = world.behind(Nat::full_cone());
        let other = world.behind(Nat::home());
        let mut server = world.server(&home);
        server.online().await;
        let clients = [0; 2].map(|_| world.behind(Nat::home()));
        dial_from(&mut world, &clients).await;
        assert!(nat_of(&server).await.contains("filtering"));
        home.move_to(&other);
        sleep(secs(5)).await;
        let nat = nat_of(&server).await;
        assert!(nat.contains("mapping") && !nat.contains("filtering"), "{nat}");
    });
}

#[test]
fn a_nat_that_filters_is_never_taken_for_an_open_one() {
    for nat in [Nat::home(), Nat::linux(), Nat::cgnat(), Nat::symmetric(Ports::Random)] {
        run(1, async |mut world| {
            let home = world.behind(nat);
            let mut server = world.server(&home);
            server.online().await;
            let kinds = [Nat::home(), Nat::full_cone(), Nat::address_restricted(), Nat::home()];
            let clients = kinds.map(|kind| world.behind(kind));
            dial_from(&mut world, &clients).await;
            let found = nat_of(&server).await;
            assert!(!found.contains("filtering"), "{nat:?}: {found}");
        });
    }
}

/// Two peers whose NATs take another port for each destination come in from ports that the server never sent to.
#[test]
fn a_nat_that_filters_by_address_is_known_for_it_after_two_peers_that_change_ports() {
    run(1, async |mut world| {
        let home = world.behind(Nat::address_restricted());
        let mut server = world.server(&home);
        server.online().await;
        let clients = [0; 2].map(|_| world.behind(Nat::symmetric(Ports::Random)));
        let outcomes = dial_from(&mut world, &clients).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        let nat = nat_of(&server).await;
        assert!(nat.contains(", address-dependent filtering"), "{nat}");
    });
}

/// A host whose address is public may still have a filter: its own, or one in front of it.
#[test]
fn a_public_host_with_a_firewall_is_not_taken_for_one_behind_a_nat_and_is_reached_by_everybody() {
    for client in [None, Some(Nat::home()), Some(Nat::symmetric(Ports::Random))] {
        run(1, async |mut world| {
            let router = world.internet.firewall(Filtering::AddressAndPortDependent);
            let address = world.public_address();
            let home = Home::new(router.host(address), vec![router]);
            let mut server = world.server(&home);
            server.online().await;
            let place = world.behind_all(client.as_slice());
            let outcomes = dial_from(&mut world, &[place]).await;
            assert!(outcomes[0].is_ok(), "{client:?}: {outcomes:?}");
            let nat = nat_of(&server).await;
            assert!(nat.ends_with("no NAT"), "{nat}");
        });
    }
}

/// Each destination sees the host at another of several addresses: peers are told of more than one.
#[test]
fn a_nat_with_several_addresses_is_told_with_several() {
    run(1, async |mut world| {
        let nat = Nat {
            pooling: p2p_node::lab::Pooling::Arbitrary,
            mapping: Mapping::AddressAndPortDependent,
            ..Nat::home()
        };
        let mut home = world.behind(nat);
        let others = [0; 3].map(|_| world.public_address());
        for address in others {
            home.routers[0] = home.routers[0].clone().public(address);
        }
        let mut server = world.server(&home);
        server.online().await;
        let addresses = server.node.status().await.unwrap().public_addresses;
        let ips: std::collections::BTreeSet<_> = addresses.iter().map(|at| at.ip()).collect();
        assert!(ips.len() > 1, "{addresses:?}");
        assert!(ips.iter().all(|ip| home.routers[0].public_addresses().contains(ip)));
    });
}
