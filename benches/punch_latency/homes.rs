//! Where the two hosts of a scene are: the delay to the core of the internet is the same whatever is in
//! front of a host, so that all peers are one round trip apart.

use std::net::IpAddr;

use p2p_node::lab::{Nat, Ports};

use crate::{
    report::{
        figures::Scene,
        side::{Pair, Side},
    },
    world::{Home, World},
};

/// The client's home and the server's.
pub(crate) fn homes(scene: Scene, pair: Pair, world: &mut World) -> [Home; 2] {
    match scene {
        Scene::Helper | Scene::Inbox | Scene::Blocked => {
            [pair.client, pair.server].map(|side| home(side, world, ACCESS_MS))
        }
        Scene::Loss => {
            let client = home(pair.client, world, 8);
            client.change_uplink(|link| link.loss = 0.15);
            [client, home(pair.server, world, 9)]
        }
        Scene::SameLan => {
            let client = home(pair.client, world, ACCESS_MS);
            let server = world.neighbour_of(&client);
            [client, server]
        }
        Scene::OneCarrier => neighbours_of_one_carrier(world),
    }
}

/// A host there, so many milliseconds from the core of the internet.
pub(crate) fn home(side: Side, world: &mut World, access_ms: u64) -> Home {
    let nats = nats(side);
    // The links behind the outermost one have 1 ms each.
    let hops = u64::try_from(nats.len()).expect("two at most");
    world.behind_all(&nats).delay_ms(access_ms - hops)
}

/// The NATs from the host outwards.
fn nats(side: Side) -> Vec<Nat> {
    let sequential = Nat::symmetric(Ports::Sequential { step: 1 });
    match side {
        Side::Open => vec![],
        Side::FullCone => vec![Nat::full_cone()],
        Side::AddressRestricted => vec![Nat::address_restricted()],
        Side::PortRestricted => vec![Nat::port_restricted()],
        Side::PortChanged => vec![Nat { ports: Ports::Random, ..Nat::port_restricted() }],
        Side::CarrierAndHome => vec![Nat::home(), Nat::cgnat()],
        Side::Sequential => vec![sequential],
        Side::SequentialShared => vec![Nat { others_per_s: OTHERS_PER_S, ..sequential }],
        Side::Block => vec![Nat::symmetric(Ports::Block { size: 1_024 })],
        Side::Random => vec![Nat::symmetric(Ports::Random)],
    }
}

/// Two homes whose carrier's NAT turns datagrams back to its own customers: 14 ms from each home to the
/// carrier, 1 ms from there to the core.
fn neighbours_of_one_carrier(world: &mut World) -> [Home; 2] {
    let address = world.public_address();
    let carrier = Nat { hairpin: true, ..Nat::cgnat() };
    let carrier = world.internet.router(carrier, address).delay_ms(1);
    [1, 2].map(|number| {
        let outside = IpAddr::from([100, 64, 0, number]);
        let router = carrier.router(Nat::home(), outside).delay_ms(13);
        let host = router.host(IpAddr::from([192, 168, number, 2]));
        Home::new(host, vec![router, carrier.clone()])
    })
}

/// From a host of the matrix to the core of the internet.
pub(crate) const ACCESS_MS: u64 = 15;

/// Mappings in a second that other hosts make at a NAT that is shared: some forty homes, each of which looks
/// at a page now and then.
const OTHERS_PER_S: u32 = 5;
