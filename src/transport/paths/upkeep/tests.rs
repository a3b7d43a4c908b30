//! Two machines and the network between them: addresses that change, die, and answer late.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use proptest::prelude::*;

use super::*;
use crate::transport::paths::traffic::Volume;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Alice,
    Bob,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Probe(Probe),
    Quic,
}

/// One node: its sockets, as the world sees them, and what it did.
struct Host {
    upkeep: Upkeep,
    addresses: Vec<SocketAddr>,
    admitted: BTreeSet<Path>,
    traffic: Traffic,
    /// When QUIC was received.
    heard: Vec<Duration>,
    pings: Vec<Urgency>,
    events: Vec<Output>,
}

type Arrival = (Side, Path, Content);

struct World {
    start: Instant,
    now: Instant,
    hosts: BTreeMap<Side, Host>,
    wire: BTreeMap<(Instant, u64), Arrival>,
    sent: u64,
    one_way: Duration,
    /// Added to what goes to or comes from these addresses.
    slow: BTreeMap<SocketAddr, Duration>,
    talk_every: Option<Duration>,
}

const ALICE: [&str; 2] = ["192.0.2.1:1000", "198.51.100.1:1000"];
const BOB: [&str; 2] = ["192.0.2.2:2000", "198.51.100.2:2000"];

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Alice => Self::Bob,
            Self::Bob => Self::Alice,
        }
    }
}

impl World {
    fn new(one_way_ms: u64) -> Self {
        let start = tokio::time::Instant::now().into_std();
        let host = |addresses: [&str; 2], best: &str, seed| {
            let best = path(0, best);
            Host {
                upkeep: Upkeep::new(best, ms(2 * one_way_ms), Entropy::from_seed(seed), start),
                addresses: addresses.map(|text| text.parse().unwrap()).to_vec(),
                admitted: BTreeSet::from([best]),
                traffic: Traffic::default(),
                heard: Vec::new(),
                pings: Vec::new(),
                events: Vec::new(),
            }
        };
        Self {
            start,
            now: start,
            hosts: BTreeMap::from([
                (Side::Alice, host(ALICE, BOB[0], 1)),
                (Side::Bob, host(BOB, ALICE[0], 2)),
            ]),
            wire: BTreeMap::new(),
            sent: 0,
            one_way: ms(one_way_ms),
            slow: BTreeMap::new(),
            talk_every: None,
        }
    }

    fn host(&mut self, side: Side) -> &mut Host {
        self.hosts.get_mut(&side).unwrap()
    }

    /// Both sides send QUIC so often from now on.
    fn talk(&mut self, every_ms: u64) {
        self.talk_every = Some(ms(every_ms));
    }

    /// The NAT of `side` maps its first socket to another port from now on.
    fn rebind(&mut self, side: Side, port: u16) {
        self.host(side).addresses[0].set_port(port);
    }

    fn send(&mut self, from: Side, by: Path, content: Content) {
        let source = self.host(from).addresses[usize::from(by.socket.0)];
        let receiver = &self.hosts[&from.other()];
        let mut sockets = receiver.addresses.iter();
        let Some(socket) = sockets.position(|own| *own == by.remote) else {
            return;
        };
        let arrival = Path { socket: SocketIndex(u16::try_from(socket).unwrap()), remote: source };
        let extra = |address| self.slow.get(&address).copied().unwrap_or_default();
        let at = self.now + self.one_way + extra(source) + extra(by.remote);
        self.sent += 1;
        self.wire.insert((at, self.sent), (from.other(), arrival, content));
    }

    fn send_quic(&mut self, side: Side) {
        let now = self.now;
        let host = self.host(side);
        host.traffic.count_sent(Volume::of(100, 100), now);
        let best = host.upkeep.best();
        self.send(side, best, Content::Quic);
        self.settle(side);
    }

    fn receive(&mut self, (side, path, content): Arrival) {
        let (now, at) = (self.now, self.now - self.start);
        let host = self.host(side);
        match content {
            Content::Probe(probe) => host.upkeep.handle_probe(path, probe, now),
            Content::Quic if host.admitted.contains(&path) => {
                host.traffic.count_received(Volume::of(100, 100), now);
                host.heard.push(at);
            }
            Content::Quic => {}
        }
        self.settle(side);
    }

    /// Tells the machine of its traffic and does what it says.
    fn settle(&mut self, side: Side) {
        let now = self.now;
        let host = self.host(side);
        let traffic = host.traffic;
        host.upkeep.handle_traffic(traffic, now);
        while let Some(output) = self.host(side).upkeep.poll_output() {
            let host = self.host(side);
            match output {
                Output::Transmit { path, probe } => {
                    if let Probe::Ping { urgency, .. } = probe {
                        host.pings.push(urgency);
                    }
                    self.send(side, path, Content::Probe(probe));
                }
                Output::Admit(path) => drop(host.admitted.insert(path)),
                Output::Revoke(path) => drop(host.admitted.remove(&path)),
                Output::Answered => {
                    host.traffic.unanswered_since = None;
                    host.traffic.heard_at = Some(now);
                }
                Output::UseBest { .. } | Output::Lost { .. } | Output::Recovered => {
                    host.events.push(output);
                }
            }
        }
    }

    fn run_ms(&mut self, duration_ms: u64) {
        let end = self.now + ms(duration_ms);
        let mut talk_at = self.talk_every.map(|every| self.now + every);
        loop {
            let timeouts = self.hosts.values().map(|host| host.upkeep.poll_timeout().unwrap());
            let timeout = timeouts.min().unwrap();
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let next = arrival.into_iter().chain(talk_at).fold(timeout, Instant::min);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, arrival) = self.wire.pop_first().unwrap();
                self.receive(arrival);
            } else if talk_at == Some(next) {
                talk_at = self.talk_every.map(|every| next + every);
                self.send_quic(Side::Alice);
                self.send_quic(Side::Bob);
            } else {
                for side in [Side::Alice, Side::Bob] {
                    let now = self.now;
                    let host = self.host(side);
                    if host.upkeep.poll_timeout().unwrap() <= now {
                        host.upkeep.handle_traffic(host.traffic, now);
                        host.upkeep.handle_timeout(now);
                        assert!(host.upkeep.poll_timeout().unwrap() > now, "a busy loop");
                    }
                    self.settle(side);
                }
            }
        }
        self.now = end;
    }

    /// The longest time that `side` heard no QUIC.
    fn longest_gap(&self, side: Side) -> Duration {
        let heard = &self.hosts[&side].heard;
        let last = (self.now - self.start) - *heard.last().unwrap();
        let gaps = heard.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap().max(last)
    }

    fn pings(&self, side: Side, urgency: Urgency) -> usize {
        let pings = self.hosts[&side].pings.iter();
        pings.filter(|sent| **sent == urgency).count()
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn path(socket: u16, remote: &str) -> Path {
    Path { socket: SocketIndex(socket), remote: remote.parse().unwrap() }
}

#[test]
fn an_idle_route_costs_a_ping_every_fifteen_to_twenty_seconds() {
    let mut world = World::new(30);
    world.run_ms(600_000);
    for side in [Side::Alice, Side::Bob] {
        let pings = world.pings(side, Urgency::Routine);
        assert!((30..=40).contains(&pings), "{pings}");
        assert_eq!(world.pings(side, Urgency::PathLost), 0);
    }
}

#[test]
fn a_busy_route_is_measured_rarely() {
    let mut world = World::new(30);
    world.talk(10);
    world.run_ms(100_000);
    for side in [Side::Alice, Side::Bob] {
        assert_eq!(world.hosts[&side].pings, [Urgency::Routine; 4]);
        assert_eq!(world.host(side).upkeep.rtt(), ms(60));
    }
}

#[test]
fn the_end_of_a_burst_costs_one_ping_and_no_alarm() {
    for one_way_ms in [1, 10, 40, 150, 300] {
        let mut world = World::new(one_way_ms);
        world.talk(10);
        world.run_ms(1000);
        world.talk_every = None;
        // The last datagram is never answered, like an acknowledgement.
        world.send_quic(Side::Alice);
        world.run_ms(5000);
        for side in [Side::Alice, Side::Bob] {
            assert!(world.hosts[&side].pings.len() <= 1, "{one_way_ms}");
            assert!(world.hosts[&side].events.is_empty(), "{one_way_ms}");
        }
    }
}

#[test]
fn when_a_nat_rebinds_under_traffic_the_gap_is_the_alarm_and_a_round_trip() {
    for one_way_ms in [1, 10, 25, 50, 100, 200] {
        for side in [Side::Alice, Side::Bob] {
            let mut world = World::new(one_way_ms);
            world.talk(10);
            world.run_ms(2000);
            world.rebind(side, 5555);
            world.run_ms(8000);
            let rtt = ms(2 * one_way_ms);
            let alarm = (rtt * 3 + ms(20)).max(ms(150));
            for hearer in [Side::Alice, Side::Bob] {
                let gap = world.longest_gap(hearer);
                assert!(gap <= alarm + rtt + ms(30), "{one_way_ms} {hearer:?}: {gap:?}");
            }
            let mover = world.hosts[&side].addresses[0];
            assert_eq!(world.host(side.other()).upkeep.best().remote, mover);
            assert!(world.hosts[&side].events.is_empty(), "the mover's own best is the same");
        }
    }
}

#[test]
fn when_a_nat_rebinds_while_idle_the_other_side_follows_by_itself() {
    let mut world = World::new(30);
    world.run_ms(1000);
    world.rebind(Side::Alice, 5555);
    world.run_ms(25_000);
    assert_eq!(world.host(Side::Bob).upkeep.best(), path(0, "192.0.2.1:5555"));
    world.talk(10);
    world.run_ms(1000);
    assert_eq!(world.longest_gap(Side::Alice), ms(10));
    assert_eq!(world.longest_gap(Side::Bob), ms(10));
}

#[test]
fn a_false_alarm_moves_nobody() {
    let mut world = World::new(30);
    let alternative = path(1, BOB[1]);
    let now = world.now;
    world.host(Side::Alice).upkeep.add_candidates([alternative], now);
    world.settle(Side::Alice);
    world.run_ms(10_000);
    let now = world.now;
    world.host(Side::Alice).upkeep.handle_network_change(now);
    world.settle(Side::Alice);
    world.run_ms(5000);
    assert!(world.pings(Side::Alice, Urgency::PathLost) >= 2);
    for side in [Side::Alice, Side::Bob] {
        assert_eq!(world.hosts[&side].events, [], "{side:?}");
    }
}

#[test]
fn a_dead_path_is_left_for_another_known_one() {
    let mut world = World::new(30);
    let now = world.now;
    world.host(Side::Alice).upkeep.add_candidates([path(1, BOB[1])], now);
    world.settle(Side::Alice);
    world.talk(10);
    world.run_ms(2000);
    for side in [Side::Alice, Side::Bob] {
        world.host(side).addresses[0] = "203.0.113.1:1".parse().unwrap();
    }
    world.run_ms(5000);
    assert_eq!(world.host(Side::Alice).upkeep.best(), path(1, BOB[1]));
    assert_eq!(world.host(Side::Bob).upkeep.best(), path(1, ALICE[1]));
    for side in [Side::Alice, Side::Bob] {
        let gap = world.longest_gap(side);
        assert!(gap <= ms(200 + 60 + 60 + 30), "{gap:?}");
    }
}

#[test]
fn a_peer_that_vanishes_is_reported_lost_once_and_recovered_once() {
    let mut world = World::new(30);
    world.talk(100);
    world.run_ms(2000);
    let home = std::mem::take(&mut world.host(Side::Bob).addresses);
    world.host(Side::Bob).addresses = vec!["203.0.113.1:1".parse().unwrap()];
    world.host(Side::Alice).pings.clear();
    // Bob's datagrams do not arrive either: Alice left too.
    let alice = std::mem::replace(
        &mut world.host(Side::Alice).addresses,
        vec!["203.0.113.2:1".parse().unwrap(); 2],
    );
    world.run_ms(60_000);
    assert!(world.hosts[&Side::Alice].pings.len() < 40, "a search is bounded");
    world.host(Side::Bob).addresses = home;
    world.host(Side::Alice).addresses = alice;
    world.run_ms(20_000);
    for side in [Side::Alice, Side::Bob] {
        match world.hosts[&side].events.as_slice() {
            [Output::Lost { silent_for }, Output::Recovered] => {
                assert!((ms(10_000)..ms(11_000)).contains(silent_for), "{silent_for:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_path_in_the_same_network_is_preferred_and_a_little_faster_one_is_not() {
    let mut world = World::new(30);
    let lan: SocketAddr = "192.168.1.2:2000".parse().unwrap();
    world.host(Side::Bob).addresses.push(lan);
    world.slow.insert(BOB[0].parse().unwrap(), ms(4));
    world.talk(10);
    world.run_ms(60_000);
    let now = world.now;
    world.host(Side::Alice).upkeep.add_candidates([path(1, BOB[1])], now);
    world.settle(Side::Alice);
    world.run_ms(60_000);
    assert_eq!(world.host(Side::Alice).upkeep.best(), path(0, BOB[0]));
    let now = world.now;
    world.host(Side::Alice).upkeep.add_candidates([path(0, "192.168.1.2:2000")], now);
    world.settle(Side::Alice);
    world.run_ms(1000);
    let rtt = ms(60);
    let path = path(0, "192.168.1.2:2000");
    assert_eq!(world.hosts[&Side::Alice].events, [Output::UseBest { path, rtt }]);
}

#[test]
fn a_much_faster_path_is_taken_after_two_measurements() {
    let mut world = World::new(30);
    world.slow.insert(BOB[0].parse().unwrap(), ms(40));
    world.talk(10);
    world.run_ms(60_000);
    let now = world.now;
    world.host(Side::Alice).upkeep.add_candidates([path(1, BOB[1])], now);
    world.settle(Side::Alice);
    world.run_ms(1000);
    assert_eq!(world.host(Side::Alice).upkeep.best(), path(0, BOB[0]));
    world.run_ms(30_000);
    assert_eq!(world.host(Side::Alice).upkeep.best(), path(1, BOB[1]));
}

#[test]
fn a_socket_that_is_gone_takes_its_paths_along() {
    let mut world = World::new(30);
    let now = world.now;
    let alice = &mut world.host(Side::Alice).upkeep;
    alice.handle_probe(path(1, BOB[1]), pong(7), now);
    let ping = Probe::Ping { transaction: Transaction(7), urgency: Urgency::Routine };
    alice.handle_probe(path(1, BOB[1]), ping, now);
    alice.handle_socket_gone(SocketIndex(1), now);
    world.settle(Side::Alice);
    assert_eq!(world.host(Side::Alice).admitted, BTreeSet::from([path(0, BOB[0])]));
}

fn pong(transaction: u64) -> Probe {
    Probe::Pong {
        transaction: Transaction(transaction),
        observed: "192.0.2.1:1000".parse().unwrap(),
    }
}

#[test]
fn a_flood_of_pings_from_everywhere_is_answered_to_a_bound_and_moves_nothing() {
    let mut world = World::new(30);
    let now = world.now;
    let alice = world.host(Side::Alice);
    for number in 0..1000_u16 {
        let probe =
            Probe::Ping { transaction: Transaction(u64::from(number)), urgency: Urgency::PathLost };
        alice.upkeep.handle_probe(path(0, &format!("192.0.2.7:{}", number + 1)), probe, now);
    }
    let (mut pongs, mut pings) = (0, 0);
    let mut admitted = 1_i32;
    while let Some(output) = alice.upkeep.poll_output() {
        match output {
            Output::Transmit { probe: Probe::Pong { .. }, .. } => pongs += 1,
            Output::Transmit { probe: Probe::Ping { .. }, .. } => pings += 1,
            Output::Admit(_) => admitted += 1,
            Output::Revoke(_) => admitted -= 1,
            Output::UseBest { .. } | Output::Answered | Output::Lost { .. } | Output::Recovered => {
                panic!("{output:?}")
            }
        }
        assert!(admitted <= 9);
    }
    assert_eq!((pongs, pings, admitted), (100, 100, 8));
    assert_eq!(alice.upkeep.best(), path(0, BOB[0]));
}

proptest! {
    /// Inputs in any order: limits hold, time goes on, the best path is never revoked.
    #[test]
    fn whatever_comes_the_machine_keeps_its_limits(
        inputs in prop::collection::vec((0_u8..6, 0_u16..20, 0_u64..3000), 0..200),
    ) {
        let start = tokio::time::Instant::now().into_std();
        let best = path(0, BOB[0]);
        let mut upkeep = Upkeep::new(best, ms(50), Entropy::from_seed(1), start);
        let (mut now, mut traffic) = (start, Traffic::default());
        let mut pings = VecDeque::new();
        for (kind, port, wait) in inputs {
            now += ms(wait);
            let from = path(u16::from(port % 2 == 0), &format!("192.0.2.9:{}", port + 1));
            let ping = |urgency| Probe::Ping { transaction: Transaction(1), urgency };
            match kind {
                0 => upkeep.handle_probe(from, ping(Urgency::Routine), now),
                1 => upkeep.handle_probe(from, ping(Urgency::PathLost), now),
                2 => if let Some((path, transaction)) = pings.pop_front() {
                    upkeep.handle_probe(path, pong(transaction), now);
                },
                3 => drop(traffic.count_sent(Volume::of(9, 9), now)),
                4 => traffic.count_received(Volume::of(9, 9), now),
                _ => upkeep.add_candidates([from], now),
            }
            upkeep.handle_traffic(traffic, now);
            if upkeep.poll_timeout().unwrap() <= now {
                upkeep.handle_timeout(now);
                prop_assert!(upkeep.poll_timeout().unwrap() > now);
            }
            while let Some(output) = upkeep.poll_output() {
                match output {
                    Output::Transmit { path, probe: Probe::Ping { transaction, .. } } => {
                        pings.push_back((path, transaction.0));
                    }
                    Output::Revoke(path) => prop_assert_ne!(path, upkeep.best()),
                    Output::UseBest { path, .. } => prop_assert_eq!(path, upkeep.best()),
                    Output::Transmit { .. }
                    | Output::Admit(_)
                    | Output::Answered
                    | Output::Lost { .. }
                    | Output::Recovered => {}
                }
            }
            prop_assert!(upkeep.paths.iter().count() <= 8);
            prop_assert!(upkeep.paths.contains(upkeep.best()));
            prop_assert!(upkeep.candidates.len() <= CANDIDATES_MAX);
        }
    }
}
