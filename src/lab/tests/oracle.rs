//! The oracle against a trivial hole puncher on the simulated network: they must agree on every pair.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::lab::{
    Filtering, HostId, Mapping, Nat, Ports, Verdict,
    network::Network,
    oracle,
    sockets::{Binding, SocketId},
    topology::Place,
};

/// How far two punchers came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    /// Somebody's probe was answered from the endpoint that it was sent to.
    path: bool,
    /// Both got an answer to a probe, from wherever.
    answers: bool,
}

/// Sends to all candidates every 100 ms, and answers to where a probe came from.
struct Puncher {
    host: HostId,
    socket: SocketId,
    known: BTreeSet<SocketAddr>,
    path: bool,
    answered: bool,
}

/// Crossed paths show new endpoints for ever.
const KNOWN_MAX: usize = 12;

/// What the punchers are told beyond what STUN servers see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    /// One is told where the other's probes leave the last NAT, as if it had guessed right.
    MappingsOf(HostId),
}

fn punch(network: &mut Network, alice: HostId, bob: HostId, told: Told) -> Outcome {
    network.trace.record();
    let mut servers = BTreeMap::new();
    for address in ["198.51.100.200", "2001:db8:ffff::200"] {
        let address: IpAddr = address.parse().unwrap();
        let server = network.add_host(Place::Public, vec![address]);
        servers.insert(bind(network, server, 3478), address);
    }
    let mut punchers = [alice, bob].map(|host| Puncher {
        host,
        socket: bind(network, host, 5000),
        known: BTreeSet::new(),
        path: false,
        answered: false,
    });
    for (own, other) in [(0, 1), (1, 0)] {
        let host = punchers[own].host;
        let addresses = network.topology.addresses(host).iter();
        let candidates: Vec<_> = addresses.map(|&ip| SocketAddr::new(ip, 5000)).collect();
        punchers[other].known.extend(candidates);
        for &address in servers.values() {
            let server = SocketAddr::new(address, 3478);
            let (socket, now) = (punchers[own].socket, Duration::ZERO);
            network.handle_send(socket, None, server, b"s".to_vec(), now);
        }
    }
    for round in 1..=20 {
        run(network, &mut punchers, Duration::from_millis(100 * round));
        if let Told::MappingsOf(guessed) = told {
            let rows = network.trace.rows().iter();
            let mappings = rows.filter(|row| row.sender == guessed);
            let guesser = punchers.iter_mut().find(|p| p.host != guessed).unwrap();
            guesser.known.extend(mappings.map(|row| row.seen_from));
        }
        for puncher in &punchers {
            for &target in &puncher.known {
                let now = Duration::from_millis(100 * round);
                let probe = format!("p{target}").into_bytes();
                network.handle_send(puncher.socket, None, target, probe, now);
            }
        }
    }
    Outcome {
        path: punchers.iter().any(|puncher| puncher.path),
        answers: punchers.iter().all(|puncher| puncher.answered),
    }
}

fn bind(network: &mut Network, host: HostId, port: u16) -> SocketId {
    network.sockets.bind(Binding { host, address: None, port })
}

/// Lets time pass until `end`. STUN servers tell the other side what they see; that is the signalling.
fn run(network: &mut Network, punchers: &mut [Puncher; 2], end: Duration) {
    while let Some(now) = network.poll_timeout().filter(|&now| now < end) {
        network.handle_timeout(now);
        while let Some(socket) = network.sockets.poll_readable() {
            while let Some(arrival) = network.sockets.receive(socket) {
                let text = String::from_utf8(arrival.bytes).unwrap();
                let (kind, target) = text.split_at(1);
                let own = punchers.iter().position(|p| p.socket == socket);
                let source = arrival.source;
                match (kind, own) {
                    ("s", None) => {
                        let seen = format!("r{source}").into_bytes();
                        network.handle_send(socket, None, source, seen, now);
                    }
                    ("r", Some(own)) => {
                        punchers[1 - own].known.insert(target.parse().unwrap());
                    }
                    ("p", Some(own)) => {
                        let answer = format!("a{target}").into_bytes();
                        network.handle_send(socket, None, source, answer, now);
                        if punchers[own].known.len() < KNOWN_MAX {
                            punchers[own].known.insert(source);
                        }
                    }
                    ("a", Some(own)) => {
                        punchers[own].answered = true;
                        punchers[own].path |= source == target.parse().unwrap();
                    }
                    (_, _) => panic!("unexpected {text}"),
                }
            }
        }
    }
}

/// Every mapping and filtering with these port allocations.
fn every_nat(allocations: &[Ports]) -> Vec<Nat> {
    let mut nats = Vec::new();
    for mapping in Mapping::ALL {
        for filtering in Filtering::ALL {
            for &ports in allocations {
                nats.push(Nat { mapping, filtering, ports, ..Nat::home() });
            }
        }
    }
    nats
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// A host behind a chain of NATs, the host's own first.
fn behind(network: &mut Network, side: u8, nats: &[Nat]) -> HostId {
    let mut place = Place::Public;
    let mut address = IpAddr::from([203, 0, 113, side]);
    for (level, nat) in (1..).zip(nats.iter().rev()) {
        place = Place::Behind(network.add_router(place, *nat, vec![address]));
        address = IpAddr::from([10, side, level, 1]);
    }
    network.add_host(place, vec![address])
}

/// Compares the oracle with what happens; returns whether a path opened.
fn check(network: &mut Network, alice: HostId, bob: HostId, story: &str) -> bool {
    let foretold = Outcome {
        path: oracle::verdict(&network.topology, alice, bob) == Verdict::Plain,
        answers: oracle::answers(&network.topology, alice, bob),
    };
    let happened = punch(network, alice, bob, Told::Nothing);
    assert_eq!(foretold, happened, "oracle left, network right: {story}");
    happened.path
}

#[test]
fn the_oracle_is_right_for_every_pair_of_nats() {
    let nats = every_nat(&[Ports::Preserving, Ports::Random]);
    let mut open = 0;
    for a in &nats {
        for b in &nats {
            let mut network = Network::new(7);
            let alice = behind(&mut network, 1, &[*a]);
            let bob = behind(&mut network, 2, &[*b]);
            open += usize::from(check(&mut network, alice, bob, &format!("{a:?}\n{b:?}")));
        }
    }
    assert!((1..nats.len().pow(2)).contains(&open));
}

/// What opens a path between two chains of random NATs. They can be guessed on one side only, so being
/// told of one side's mappings is what a birthday can give.
fn what_it_took(a: &[Nat], b: &[Nat]) -> Verdict {
    let opens = |whose: Option<u8>| {
        let mut network = Network::new(7);
        let alice = behind(&mut network, 1, a);
        let bob = behind(&mut network, 2, b);
        let told = match whose {
            None => Told::Nothing,
            Some(1) => Told::MappingsOf(alice),
            Some(_) => Told::MappingsOf(bob),
        };
        punch(&mut network, alice, bob, told).path
    };
    if opens(None) {
        Verdict::Plain
    } else if opens(Some(1)) || opens(Some(2)) {
        Verdict::NeedsBirthday
    } else {
        Verdict::Impossible
    }
}

#[test]
fn a_birthday_helps_exactly_where_knowing_one_side_s_mappings_would() {
    let nats = every_nat(&[Ports::Random]);
    for a in &nats {
        for b in &nats {
            let foretold = oracle::between(&[*a], &[*b]);
            assert_eq!(foretold, what_it_took(&[*a], &[*b]), "{a:?}\n{b:?}");
            for outer in &nats {
                let chain = [*a, *outer];
                let foretold = oracle::between(&chain, &[*b]);
                assert_eq!(foretold, what_it_took(&chain, &[*b]), "{chain:?}\n{b:?}");
            }
        }
    }
}

#[test]
fn the_oracle_is_right_for_every_nat_and_a_public_host() {
    for nat in every_nat(&[Ports::Preserving, Ports::Random]) {
        let mut network = Network::new(7);
        let alice = behind(&mut network, 1, &[nat]);
        let bob = behind(&mut network, 2, &[]);
        assert!(check(&mut network, alice, bob, &format!("{nat:?}")));
    }
}

#[test]
fn the_oracle_is_right_behind_chains_of_nats() {
    let nats = every_nat(&[Ports::Random]);
    for home in &nats {
        for carrier in &nats {
            for other in &nats {
                let mut network = Network::new(7);
                let alice = behind(&mut network, 1, &[*home, *carrier]);
                let bob = behind(&mut network, 2, &[*other]);
                let story = format!("{home:?}\n{carrier:?}\n{other:?}");
                check(&mut network, alice, bob, &story);
            }
        }
    }
}

#[test]
fn the_oracle_is_right_for_two_homes_behind_one_carrier() {
    let nats = every_nat(&[Ports::Random]);
    for hairpin in [true, false] {
        let mut open = 0;
        for carrier in &nats {
            for a in &nats {
                for b in &nats {
                    let mut network = Network::new(7);
                    let carrier = Nat { hairpin, ..*carrier };
                    let shared =
                        network.add_router(Place::Public, carrier, vec![ip("203.0.113.1")]);
                    let [alice, bob] =
                        [("100.64.0.1", a), ("100.64.0.2", b)].map(|(public, nat)| {
                            let place = Place::Behind(shared);
                            let home = network.add_router(place, *nat, vec![ip(public)]);
                            let inside = public.replace("100.64", "10.1");
                            network.add_host(Place::Behind(home), vec![ip(&inside)])
                        });
                    let story = format!("{carrier:?}\n{a:?}\n{b:?}");
                    open += usize::from(check(&mut network, alice, bob, &story));
                }
            }
        }
        assert_eq!(open > 0, hairpin);
    }
}

/// The one that is closer to the carrier is reached at its host address by the other.
#[test]
fn the_oracle_is_right_for_a_home_and_a_host_behind_one_carrier() {
    let nats = every_nat(&[Ports::Preserving]);
    for carrier in &nats {
        for home in &nats {
            let mut network = Network::new(7);
            let shared = network.add_router(Place::Public, *carrier, vec![ip("203.0.113.1")]);
            let place = Place::Behind(shared);
            let home_router = network.add_router(place, *home, vec![ip("100.64.0.1")]);
            let alice = network.add_host(Place::Behind(home_router), vec![ip("10.1.0.1")]);
            let bob = network.add_host(place, vec![ip("100.64.0.2")]);
            let story = format!("{carrier:?}\n{home:?}");
            assert!(check(&mut network, alice, bob, &story));
        }
    }
}

#[test]
fn neighbours_on_one_lan_always_meet() {
    for nat in every_nat(&[Ports::Preserving, Ports::Random]) {
        let mut network = Network::new(7);
        let home = network.add_router(Place::Public, nat, vec![ip("203.0.113.1")]);
        let [alice, bob] = ["192.168.1.2", "192.168.1.3"]
            .map(|address| network.add_host(Place::Behind(home), vec![ip(address)]));
        assert!(check(&mut network, alice, bob, &format!("{nat:?}")));
    }
}

#[test]
fn ipv6_firewalls_open_to_simultaneous_probes_where_ipv4_stays_closed() {
    for filtering in Filtering::ALL {
        let mut network = Network::new(7);
        let nat = Nat { filtering, ..Nat::symmetric(Ports::Random) };
        let [alice, bob] = [1, 2].map(|side| {
            let public = IpAddr::from([203, 0, 113, side]);
            let home = network.add_router(Place::Public, nat, vec![public]);
            let addresses =
                vec![IpAddr::from([10, side, 0, 1]), ip(&format!("2001:db8:{side}::1"))];
            network.add_host(Place::Behind(home), addresses)
        });
        assert!(check(&mut network, alice, bob, &format!("{filtering:?}")));
    }
}

#[test]
fn verdicts_are_what_hole_punchers_know() {
    let sequential = Nat::symmetric(Ports::Sequential { step: 1 });
    let block = Nat::symmetric(Ports::Block { size: 64 });
    let random = Nat::symmetric(Ports::Random);
    let open_symmetric = Nat { filtering: Filtering::EndpointIndependent, ..random };
    let linked = Verdict::Plain;
    for (a, b, verdict) in [
        (Nat::home(), Nat::home(), linked),
        (Nat::home(), Nat::cgnat(), linked),
        (Nat::address_restricted(), random, linked),
        (Nat::full_cone(), random, linked),
        (Nat::home(), sequential, Verdict::NeedsPrediction),
        (Nat::home(), block, Verdict::NeedsPrediction),
        (Nat::home(), random, Verdict::NeedsBirthday),
        (Nat::home(), open_symmetric, Verdict::NeedsBirthday),
        (sequential, sequential, Verdict::NeedsPrediction),
        (sequential, block, Verdict::NeedsPrediction),
        (block, block, Verdict::NeedsBirthday),
        (sequential, random, Verdict::Impossible),
        (random, random, Verdict::Impossible),
        (open_symmetric, open_symmetric, Verdict::Impossible),
    ] {
        assert_eq!(oracle::between(&[a], &[b]), verdict, "{a:?}\n{b:?}");
        assert_eq!(oracle::between(&[b], &[a]), verdict, "{b:?}\n{a:?}");
    }
    assert!(oracle::answers_between(&[open_symmetric], &[open_symmetric]));
    assert_eq!(oracle::between(&[], &[random, random]), Verdict::Plain);
}
