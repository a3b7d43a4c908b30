//! What a check of the network says, against the network that is there; and what it says of a pair, against what a dial
//! comes to.

use std::time::Duration;

use p2p_node::{
    behaviour::{Dependence, Hairpin, Lifetime, Pooling, PortAllocation},
    dht::memory::Reach,
    failure::Code,
    lab::{Mapping, Nat, Ports},
    node::{Life, Netcheck, Outlook, Question, Target},
};
use tokio::time::{Instant, sleep};

use crate::{
    peer::Peer,
    world::{World, run, secs, to_service},
};

async fn check(peer: &Peer) -> Netcheck {
    peer.node.netcheck(Question::default(), None).await.unwrap()
}

async fn check_with(peer: &Peer, target: Target) -> Netcheck {
    let question = Question { peer: Some(target), lifetime: None };
    peer.node.netcheck(question, None).await.unwrap()
}

/// Mapping and allocation as they are told of a host behind `nat`, a second after it began.
async fn told(world: &mut World, nat: Nat) -> Netcheck {
    let home = world.behind(nat);
    let client = world.client(&home);
    let check = check(&client).await;
    assert!(check.udp && check.is_complete, "{check:?}");
    assert_eq!(home.strangers(&home.candidates()), [].into());
    check
}

#[test]
fn each_kind_of_nat_is_told() {
    const SYMMETRIC: Option<Dependence> = Some(Dependence::AddressAndPortDependent);
    const ONE_FOR_ALL: Option<Dependence> = Some(Dependence::EndpointIndependent);
    let by_address = Nat { mapping: Mapping::AddressDependent, ..Nat::symmetric(Ports::Random) };
    type IsRight = fn(PortAllocation) -> bool;
    let kinds: [(Nat, Option<Dependence>, IsRight); 7] = [
        (Nat::home(), ONE_FOR_ALL, |it| it == PortAllocation::Preserving),
        (Nat::full_cone(), ONE_FOR_ALL, |it| it == PortAllocation::Preserving),
        (Nat::cgnat(), ONE_FOR_ALL, |it| matches!(it, PortAllocation::Block { .. })),
        (Nat::symmetric(Ports::Random), SYMMETRIC, |it| it == PortAllocation::Random),
        // Seen by servers at two addresses, which the stricter kind fits as well.
        (by_address, SYMMETRIC, |it| it == PortAllocation::Random),
        (Nat::symmetric(Ports::Sequential { step: 3 }), SYMMETRIC, |it| {
            it == PortAllocation::Sequential { step: 3 }
        }),
        (
            Nat::symmetric(Ports::Block { size: 1_024 }),
            SYMMETRIC,
            |it| matches!(it, PortAllocation::Block { low, high } if high - low < 1_024),
        ),
    ];
    for (nat, mapping, is_right) in kinds {
        run(3, async |mut world| {
            let check = told(&mut world, nat).await;
            assert_eq!(check.mapping, mapping, "{nat:?}");
            assert!(check.ports.allocation.is_some_and(is_right), "{nat:?}: {:?}", check.ports);
            assert!(check.ports.seen >= 6, "{:?}", check.ports);
            assert_eq!(check.pooling, Some(Pooling::Paired));
        });
    }
}

#[test]
fn a_nat_with_several_addresses_is_told() {
    run(1, async |mut world| {
        let nat = Nat { pooling: p2p_node::lab::Pooling::Arbitrary, ..Nat::home() };
        let mut home = world.behind(nat);
        let address = world.public_address();
        home.routers[0] = home.routers[0].clone().public(address);
        let client = world.client(&home);
        let check = check(&client).await;
        assert_eq!(check.pooling, Some(Pooling::Arbitrary), "{check:?}");
    });
}

#[test]
fn a_nat_that_hairpins_is_told_from_one_that_does_not() {
    for hairpin in [true, false] {
        run(1, async |mut world| {
            let check = told(&mut world, Nat { hairpin, ..Nat::home() }).await;
            let expected = if hairpin { Hairpin::Works } else { Hairpin::Missing };
            assert_eq!(check.hairpin, Some(expected));
        });
    }
    // The carrier's NAT is the one that matters for its customers, and the home's is in the way of neither.
    run(1, async |mut world| {
        let carrier = Nat { hairpin: true, ..Nat::cgnat() };
        let home = world.behind_all(&[Nat::home(), carrier]);
        let client = world.client(&home);
        assert_eq!(check(&client).await.hairpin, Some(Hairpin::Works));
    });
    // Where an endpoint is for one server alone, nothing that does not arrive shows anything.
    run(1, async |mut world| {
        let check = told(&mut world, Nat::symmetric(Ports::Random)).await;
        assert_eq!(check.hairpin, None);
    });
}

#[test]
fn a_host_without_nat_is_told_and_nothing_is_measured_that_is_not_there() {
    run(1, async |mut world| {
        let home = world.behind_all(&[]);
        let client = world.client(&home);
        let check = check(&client).await;
        assert_eq!(check.mapping, Some(Dependence::None));
        assert_eq!((check.ports.allocation, check.pooling, check.hairpin), (None, None, None));
        assert_eq!(check.verdicts.len(), 1, "{check:?}");
    });
}

/// The silences are around what the NAT does; a running node then keeps its own mapping alive accordingly.
#[test]
fn how_long_a_mapping_lives_is_measured_from_both_sides() {
    let behind = |ports: Ports, lifetime: u64| Nat {
        ports,
        lifetime: secs(lifetime),
        unreplied_lifetime: secs(lifetime),
        ..Nat::home()
    };
    for (lifetime, at_least, less_than, keep_alive) in [
        (20, Some(secs(15)), Some(secs(30)), Duration::from_millis(9_375)),
        (40, Some(secs(30)), Some(secs(45)), Duration::from_millis(18_750)),
        (300, Some(secs(120)), None, secs(25)),
    ] {
        run(1, async |mut world| {
            let home = world.behind(behind(Ports::Random, lifetime));
            let client = world.client(&home);
            let question = Question { peer: None, lifetime: Some(secs(120)) };
            let began = Instant::now();
            let check = client.node.netcheck(question, None).await.unwrap();
            let took = began.elapsed();
            assert!(secs(120) <= took && took < secs(123), "{took:?}");
            assert_eq!(check.lifetime, Life::Measured(Lifetime { at_least, less_than }));
            assert_eq!(check.keep_alive, keep_alive);
        });
    }
    run(1, async |mut world| {
        let home = world.behind(behind(Ports::Preserving, 20));
        let client = world.client(&home);
        let question = Question { peer: None, lifetime: Some(secs(60)) };
        let check = client.node.netcheck(question, None).await.unwrap();
        assert_eq!(check.lifetime, Life::PortsKept);
    });
}

#[test]
fn without_a_network_a_check_ends_in_five_seconds_and_says_so() {
    run(1, async |mut world| {
        let home = world.behind(Nat::home());
        home.unplug();
        world.set_dht(Reach::Offline);
        let client = world.client(&home);
        let began = Instant::now();
        let check = check_with(&client, to_service()).await;
        assert!(began.elapsed() <= secs(5), "{:?}", began.elapsed());
        assert!(!check.udp && check.pairs.is_empty(), "{check:?}");
        assert!(check.verdicts[0].contains("UDP does not leave"), "{check:?}");
    });
}

#[test]
fn a_check_that_may_not_take_its_time_tells_what_it_has() {
    run(1, async |mut world| {
        let home = world.behind(Nat::home());
        let client = world.client(&home);
        let began = Instant::now();
        let question = Question::default();
        let check = client.node.netcheck(question, Some(secs(1))).await.unwrap();
        // Whether the NAT hairpins takes a second of silence to tell.
        assert!(check.udp && !check.is_complete, "{check:?}");
        assert_eq!(began.elapsed(), secs(1));
    });
}

/// Verdicts are promises: of each pair, whether it meets is said before, and then a dial tries.
#[test]
fn what_is_said_of_a_pair_is_what_a_dial_comes_to() {
    let sequential = Nat::symmetric(Ports::Sequential { step: 1 });
    let random = Nat::symmetric(Ports::Random);
    for (client, server, said) in [
        (None, Some(Nat::home()), Outlook::Opens),
        (Some(Nat::home()), None, Outlook::Likely),
        (Some(random), None, Outlook::Likely),
        (Some(Nat::home()), Some(Nat::home()), Outlook::Opens),
        (Some(Nat::home()), Some(Nat::cgnat()), Outlook::Opens),
        (Some(Nat::home()), Some(random), Outlook::Opens),
        (Some(random), Some(Nat::home()), Outlook::Opens),
        (Some(sequential), Some(Nat::home()), Outlook::Opens),
        (Some(sequential), Some(sequential), Outlook::Likely),
        (Some(random), Some(random), Outlook::Impossible),
        (Some(random), Some(sequential), Outlook::Impossible),
    ] {
        run(1, async |mut world| {
            let (home, place) =
                (world.behind_all(client.as_slice()), world.behind_all(server.as_slice()));
            let mut listener = world.server(&place);
            listener.online().await;
            let dialler = world.client(&home);
            sleep(secs(1)).await;
            let check = check_with(&dialler, to_service()).await;
            let [pair] = &check.pairs[..] else { panic!("{check:?}") };
            assert_eq!(pair.peer, listener.id());
            let is_right = match said {
                // More than one way is known.
                Outlook::Likely => pair.outlook <= Outlook::Likely,
                said => pair.outlook == said,
            };
            assert!(is_right, "{client:?} × {server:?}: {pair:#?}");
            let dialled = dialler.node.connect(to_service(), None).await;
            match said {
                Outlook::Impossible => {
                    assert_eq!(dialled.unwrap_err().code, Code::NatIncompatible);
                }
                _ => drop(dialled.unwrap_or_else(|failure| panic!("{client:?}: {failure}"))),
            }
        });
    }
}

#[test]
fn a_peer_that_has_published_nothing_is_told_to_be_unknown() {
    run(1, async |mut world| {
        let home = world.behind(Nat::home());
        let client = world.client(&home);
        let check = check_with(&client, to_service()).await;
        assert!(check.udp && check.pairs.is_empty(), "{check:?}");
        let last = check.verdicts.last().unwrap();
        assert!(last.contains("nothing is published"), "{last}");
    });
}
