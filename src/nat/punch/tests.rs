//! Two peers, each behind a NAT of its own, in a network of one page: enough to say which pairs of NATs
//! plain probes open, how fast, and at what cost.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    behaviour::Dependence::{self, AddressAndPortDependent, AddressDependent, EndpointIndependent},
    candidate::CandidateKind,
    nat::story::moment,
};

const ONE_WAY: Duration = Duration::from_millis(40);
const SOCKET: SocketIndex = SocketIndex(0);
const ALICE: usize = 0;
const BOB: usize = 1;

/// What RFC 4787 calls address and port dependent, and so on, with random ports if mappings depend.
#[derive(Clone, Copy, Debug)]
struct Behaviour {
    mapping: Dependence,
    filtering: Dependence,
}

const HOME: Behaviour = behaviour(EndpointIndependent, AddressAndPortDependent);
const ADDRESS_RESTRICTED: Behaviour = behaviour(EndpointIndependent, AddressDependent);
const SYMMETRIC: Behaviour = behaviour(AddressAndPortDependent, AddressAndPortDependent);

const fn behaviour(mapping: Dependence, filtering: Dependence) -> Behaviour {
    Behaviour { mapping, filtering }
}

#[derive(Debug)]
struct Nat {
    behaviour: Behaviour,
    ip: [u8; 4],
    /// Internal port and destination, as far as the mapping depends on it, to external port.
    mappings: BTreeMap<(u16, Option<SocketAddr>), u16>,
    /// External port to the destinations that were sent to from it.
    contacted: BTreeMap<u16, BTreeSet<SocketAddr>>,
}

impl Nat {
    fn new(behaviour: Behaviour, ip: [u8; 4]) -> Self {
        Self { behaviour, ip, mappings: BTreeMap::new(), contacted: BTreeMap::new() }
    }

    /// Where a datagram to `remote` appears to come from.
    fn send(&mut self, inside: u16, remote: SocketAddr) -> SocketAddr {
        let key = match self.behaviour.mapping {
            Dependence::None | EndpointIndependent => None,
            AddressDependent => Some(SocketAddr::new(remote.ip(), 0)),
            AddressAndPortDependent => Some(remote),
        };
        let next = 20_000 + 977 * u16::try_from(self.mappings.len()).unwrap();
        let port = *self.mappings.entry((inside, key)).or_insert(next);
        self.contacted.entry(port).or_default().insert(remote);
        SocketAddr::from((self.ip, port))
    }

    fn lets_in(&self, remote: SocketAddr, port: u16) -> bool {
        let Some(contacted) = self.contacted.get(&port) else {
            return false;
        };
        match self.behaviour.filtering {
            Dependence::None | EndpointIndependent => true,
            AddressDependent => contacted.iter().any(|seen| seen.ip() == remote.ip()),
            AddressAndPortDependent => contacted.contains(&remote),
        }
    }
}

struct World {
    start: Instant,
    now: Instant,
    entropy: Entropy,
    /// Of 100 datagrams, so many are lost.
    loss: usize,
    nats: [Nat; 2],
    punches: [Option<Punch>; 2],
    /// When each begins, and with which addresses.
    plans: [(Duration, Vec<SocketAddr>); 2],
    /// (arrives, order) to (to whom, from, to, what).
    flying: BTreeMap<(Instant, u64), (usize, SocketAddr, SocketAddr, Probe)>,
    sent: [u64; 2],
    /// (when, who, what) of everything but Transmit.
    story: Vec<(u128, usize, Output)>,
}

const INSIDE: u16 = 4_000;

impl World {
    /// Both know what STUN says about the other; Bob begins one way later, when Alice's offer arrives.
    fn new(alice: Behaviour, bob: Behaviour) -> Self {
        let start = moment();
        let mut nats = [Nat::new(alice, [198, 51, 100, 1]), Nat::new(bob, [198, 51, 100, 2])];
        let stun = SocketAddr::from(([203, 0, 113, 1], 3_478));
        let [of_alice, of_bob] = nats.each_mut().map(|nat| nat.send(INSIDE, stun));
        Self {
            start,
            now: start,
            entropy: Entropy::from_seed(1),
            loss: 0,
            nats,
            punches: [None, None],
            plans: [(Duration::ZERO, vec![of_bob]), (ONE_WAY, vec![of_alice])],
            flying: BTreeMap::new(),
            sent: [0, 0],
            story: vec![],
        }
    }

    fn run_until(&mut self, millis: u64) {
        let end = self.start + Duration::from_millis(millis);
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = next;
            self.step();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let arrival = self.flying.keys().next().map(|(at, _)| *at);
        let timeouts = self.punches.iter().flatten().filter_map(Punch::poll_timeout);
        let starts = self.plans.iter().zip(&self.punches);
        let starts = starts.filter(|(_, punch)| punch.is_none());
        let starts = starts.map(|((after, _), _)| self.start + *after);
        arrival.into_iter().chain(timeouts).chain(starts).min()
    }

    fn step(&mut self) {
        for who in [ALICE, BOB] {
            let (after, candidates) = &self.plans[who];
            if self.punches[who].is_none() && self.start + *after <= self.now {
                let setup = setup(candidates, self.now + Duration::from_secs(10));
                self.punches[who] = Some(Punch::new(setup, self.now));
            }
        }
        if let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (who, from, to, probe) = entry.remove();
            self.deliver(who, from, to, probe);
        }
        for punch in self.punches.iter_mut().flatten() {
            if punch.poll_timeout().is_some_and(|due| due <= self.now) {
                punch.handle_timeout(self.now, &mut self.entropy);
            }
        }
        self.drain();
    }

    fn deliver(&mut self, who: usize, from: SocketAddr, to: SocketAddr, probe: Probe) {
        let arrives = self.nats[who].lets_in(from, to.port());
        if let Some(punch) = &mut self.punches[who]
            && arrives
            && self.entropy.below(100) >= self.loss
        {
            punch.handle_probe(SOCKET, from, probe, self.now, &mut self.entropy);
        }
    }

    fn drain(&mut self) {
        for who in [ALICE, BOB] {
            while let Some(output) = self.punches[who].as_mut().and_then(Punch::poll_output) {
                let Output::Transmit { path, probe } = output else {
                    let elapsed = (self.now - self.start).as_millis();
                    self.story.push((elapsed, who, output));
                    continue;
                };
                self.sent[who] += 1;
                let from = self.nats[who].send(INSIDE, path.remote);
                let order = self.sent[ALICE] + self.sent[BOB];
                let to_whom = 1 - who;
                if path.remote.ip() == SocketAddr::from((self.nats[to_whom].ip, 0)).ip() {
                    let packet = (to_whom, from, path.remote, probe);
                    self.flying.insert((self.now + ONE_WAY, order), packet);
                }
            }
        }
    }

    fn is_open(&self, who: usize) -> bool {
        self.opened_at(who).is_some()
    }

    fn opened_at(&self, who: usize) -> Option<u128> {
        let mut story = self.story.iter();
        let open =
            story.find(|(_, whose, output)| *whose == who && matches!(output, Output::Open(_)));
        open.map(|(at, _, _)| *at)
    }

    fn heard_at(&self, who: usize) -> Option<u128> {
        let mut story = self.story.iter();
        let heard = story
            .find(|(_, whose, output)| *whose == who && matches!(output, Output::Heard { .. }));
        heard.map(|(at, _, _)| *at)
    }
}

fn setup(candidates: &[SocketAddr], deadline: Instant) -> Setup {
    Setup {
        sockets: vec![BoundSocket {
            index: SOCKET,
            local: SocketAddr::from(([0, 0, 0, 0], INSIDE)),
        }],
        candidates: candidates.iter().map(|address| candidate(*address)).collect(),
        urgency: Urgency::Routine,
        deadline,
    }
}

fn candidate(address: SocketAddr) -> Candidate {
    Candidate::new(CandidateKind::ServerReflexive, address).unwrap()
}

fn path(text: &str) -> Path {
    Path { socket: SOCKET, remote: text.parse().unwrap() }
}

fn outputs(punch: &mut Punch) -> Vec<Output> {
    std::iter::from_fn(|| punch.poll_output()).collect()
}

/// Whether plain probes can open the pair at all, see the argument beside each case.
fn can_open(one: Behaviour, other: Behaviour) -> bool {
    let is_dependent = |nat: Behaviour| nat.mapping != EndpointIndependent;
    match (is_dependent(one), is_dependent(other)) {
        // Both know where the other one is.
        (false, false) => true,
        // The dependent side reaches the other one, which must let in an unforeseen port.
        (true, false) => other.filtering != AddressAndPortDependent,
        (false, true) => one.filtering != AddressAndPortDependent,
        // One must let in a stranger at its STUN mapping, the other one the answer from an unforeseen
        // port; and one of them must then stay with its mapping when the other one's port is new.
        (true, true) => {
            let stays = one.mapping == AddressDependent || other.mapping == AddressDependent;
            let admits = |first: Behaviour, second: Behaviour| {
                first.filtering == EndpointIndependent
                    && second.filtering != AddressAndPortDependent
            };
            stays && (admits(one, other) || admits(other, one))
        }
    }
}

#[test]
fn exactly_the_pairs_that_plain_probes_can_open_are_opened_by_both_sides() {
    let all = [EndpointIndependent, AddressDependent, AddressAndPortDependent];
    let nats =
        || all.into_iter().flat_map(|mapping| all.map(|filtering| behaviour(mapping, filtering)));
    for (one, other) in nats().flat_map(|one| nats().map(move |other| (one, other))) {
        let mut world = World::new(one, other);
        world.run_until(11_000);
        let expected = can_open(one, other);
        let opened = [world.is_open(ALICE), world.is_open(BOB)];
        assert_eq!(opened, [expected; 2], "{one:?} with {other:?}");
        assert!(world.sent.iter().all(|sent| *sent < 200), "{:?} {one:?} {other:?}", world.sent);
    }
}

#[test]
fn two_homes_hear_each_other_after_one_round_trip_and_open_a_path_half_a_one_later() {
    let mut world = World::new(HOME, HOME);
    world.run_until(11_000);
    assert_eq!(world.heard_at(ALICE), Some(80));
    // Bob begins at 40 ms: Alice's first ping comes a moment too early for his NAT, her second one not.
    assert_eq!(world.opened_at(ALICE), Some(110));
    assert_eq!(world.opened_at(BOB), Some(120));
    assert!(world.sent.iter().all(|sent| *sent <= 12), "{:?}", world.sent);
}

#[test]
fn an_offer_that_takes_long_costs_the_dialler_no_time_once_it_arrives() {
    let mut world = World::new(HOME, HOME);
    world.plans[BOB].0 = Duration::from_millis(3_210);
    world.run_until(11_000);
    assert_eq!(world.heard_at(ALICE), Some(3_250));
    assert_eq!(world.opened_at(BOB), Some(3_290));
    assert_eq!(world.opened_at(ALICE), Some(3_330));
}

#[test]
fn with_15_percent_loss_nine_in_ten_open_both_ways_within_180_ms() {
    let mut opened: Vec<u128> = vec![];
    for seed in 0..400 {
        let mut world = World::new(HOME, HOME);
        world.entropy = Entropy::from_seed(seed);
        world.loss = 15;
        world.run_until(11_000);
        opened.push(world.opened_at(ALICE).unwrap().max(world.opened_at(BOB).unwrap()));
    }
    opened.sort_unstable();
    eprintln!("XX {} {} {} {}", opened[200], opened[360], opened[396], opened[399]);
    assert!(opened[200] <= 120, "median {} ms", opened[200]);
    assert!(opened[360] <= 180, "p90 {} ms", opened[360]);
    assert!(opened[396] <= 250, "p99 {} ms", opened[396]);
}

#[test]
fn whoever_cannot_be_reached_is_given_up_at_the_deadline_with_the_facts() {
    let mut world = World::new(SYMMETRIC, SYMMETRIC);
    world.run_until(11_000);
    let (at, who, output) = world.story.first().unwrap();
    assert_eq!((*at, *who), (10_000, ALICE));
    let expected = Facts {
        pings_sent: 25,
        addresses: world.plans[ALICE].1.iter().copied().collect(),
        ..Facts::default()
    };
    assert_eq!(output, &Output::GaveUp(expected));
    assert_eq!(world.punches[ALICE].as_ref().unwrap().poll_timeout(), None);
}

#[test]
fn a_path_that_is_blocked_at_first_opens_soon_after_it_is_free() {
    let mut world = World::new(HOME, HOME);
    world.loss = 100;
    world.run_until(5_000);
    world.loss = 0;
    world.run_until(11_000);
    assert!(world.opened_at(ALICE).unwrap() < 5_700);
    assert!(world.opened_at(BOB).unwrap() < 5_700);
}

#[test]
fn after_giving_up_the_peer_is_answered_and_a_restart_opens_the_path() {
    let mut world = World::new(HOME, ADDRESS_RESTRICTED);
    world.plans[BOB].0 = Duration::from_secs(12);
    world.run_until(12_100);
    let gave_up = |(_, who, output): &&(u128, usize, Output)| {
        *who == ALICE && matches!(output, Output::GaveUp(_))
    };
    assert_eq!(world.story.iter().find(gave_up).unwrap().0, 10_000);
    assert_eq!(world.heard_at(ALICE), Some(12_040));
    assert!(!world.is_open(ALICE));
    let now = world.now;
    let candidates = [candidate(world.plans[ALICE].1[0])];
    let punch = world.punches[ALICE].as_mut().unwrap();
    punch.restart(&candidates, now + Duration::from_secs(10), now);
    world.run_until(13_000);
    assert_eq!(world.opened_at(ALICE), Some(12_180));
    assert!(world.is_open(BOB));
}

/// A punch towards `candidates`, drained after its first pings.
fn probing(candidates: &[&str]) -> (Punch, Vec<(Path, Transaction)>, Instant, Entropy) {
    let (start, mut entropy) = (moment(), Entropy::from_seed(1));
    let addresses: Vec<SocketAddr> = candidates.iter().map(|text| text.parse().unwrap()).collect();
    let mut punch = Punch::new(setup(&addresses, start + Duration::from_secs(10)), start);
    let mut pings = vec![];
    let mut now = start;
    while pings.len() < addresses.len() {
        punch.handle_timeout(now, &mut entropy);
        for output in outputs(&mut punch) {
            let Output::Transmit { path, probe: Probe::Ping { transaction, .. } } = output else {
                panic!("{output:?}");
            };
            pings.push((path, transaction));
        }
        now += PACE;
    }
    (punch, pings, now, entropy)
}

#[test]
fn a_first_round_is_paced_and_begins_with_the_best_candidate() {
    let candidates: Vec<String> = (1..=16).map(|host| format!("198.51.100.{host}:4000")).collect();
    let candidates: Vec<&str> = candidates.iter().map(String::as_str).collect();
    let (_, pings, ended, _) = probing(&candidates);
    let order: Vec<Path> = pings.iter().map(|(path, _)| *path).collect();
    assert_eq!(order, candidates.iter().map(|text| path(text)).collect::<Vec<_>>());
    assert!(ended - moment() <= Duration::from_millis(32));
}

#[test]
fn the_path_of_the_same_network_is_preferred_though_it_opens_later() {
    let (mut punch, pings, now, mut entropy) = probing(&["198.51.100.2:4000", "192.168.1.20:4000"]);
    let observed: SocketAddr = "192.168.1.7:4000".parse().unwrap();
    let mut results = vec![];
    for (path, transaction) in pings {
        let pong = Probe::Pong { transaction, observed };
        punch.handle_probe(path.socket, path.remote, pong, now, &mut entropy);
        results.extend(outputs(&mut punch));
    }
    let opened = |text: &str, millis: u64| Opened {
        path: path(text),
        rtt: Duration::from_millis(millis),
        observed,
    };
    let expected = [
        Output::Open(opened("198.51.100.2:4000", 4)),
        Output::Better(opened("192.168.1.20:4000", 2)),
    ];
    assert_eq!(results, expected);
    let settled = now + SETTLE_TIME;
    punch.handle_timeout(settled, &mut entropy);
    assert_eq!((outputs(&mut punch), punch.poll_timeout()), (vec![], None));
}

#[test]
fn a_pong_from_elsewhere_opens_nothing_but_is_followed() {
    let (mut punch, pings, now, mut entropy) = probing(&["198.51.100.2:4000"]);
    let pong =
        Probe::Pong { transaction: pings[0].1, observed: "198.51.100.1:4000".parse().unwrap() };
    let elsewhere = path("198.51.100.2:5000");
    punch.handle_probe(SOCKET, elsewhere.remote, pong, now, &mut entropy);
    let results = outputs(&mut punch);
    assert!(
        matches!(results[..], [Output::Transmit { path, probe: Probe::Ping { .. } }] if path == elsewhere)
    );
    assert_eq!(punch.facts().pongs_misdirected, 1);
}

#[test]
fn a_settled_punch_still_answers_but_no_more_than_64_at_once() {
    let (mut punch, pings, now, mut entropy) = probing(&["198.51.100.2:4000"]);
    let (peer, transaction) = pings[0];
    let observed = "198.51.100.1:4000".parse().unwrap();
    let pong = Probe::Pong { transaction, observed };
    punch.handle_probe(SOCKET, peer.remote, pong, now, &mut entropy);
    let settled = now + SETTLE_TIME;
    punch.handle_timeout(settled, &mut entropy);
    outputs(&mut punch);
    let ping = Probe::Ping { transaction: Transaction(7), urgency: Urgency::Routine };
    for _ in 0..100 {
        punch.handle_probe(SOCKET, peer.remote, ping, settled, &mut entropy);
    }
    let pong = Output::Transmit {
        path: peer,
        probe: Probe::Pong { transaction: Transaction(7), observed: peer.remote },
    };
    assert_eq!(outputs(&mut punch), vec![pong; 64]);
    assert_eq!(punch.facts().pings_unanswered, 36);
}

#[test]
fn a_peer_that_forges_its_source_gets_three_datagrams_for_one_at_eight_addresses() {
    let (mut punch, _, start, mut entropy) = probing(&[]);
    let ping = Probe::Ping { transaction: Transaction(7), urgency: Urgency::Routine };
    let (mut pongs, mut pings) = (0, 0);
    for victim in 0..60_u16 {
        let from = SocketAddr::from(([203, 0, 113, 7], 1_000 + victim));
        punch.handle_probe(SOCKET, from, ping, start, &mut entropy);
    }
    let mut now = start;
    loop {
        for output in outputs(&mut punch) {
            match &output {
                Output::Transmit { probe: Probe::Pong { .. }, .. } => pongs += 1,
                Output::Transmit { probe: Probe::Ping { .. }, .. } => pings += 1,
                Output::Heard { .. } | Output::GaveUp(_) => {}
                Output::Open(_) | Output::Better(_) => panic!("{output:?}"),
            }
        }
        let Some(next) = punch.poll_timeout() else {
            break;
        };
        now = now.max(next);
        punch.handle_timeout(now, &mut entropy);
    }
    assert_eq!((pongs, pings), (60, 16));
}

proptest! {
    #[test]
    fn any_probes_in_any_order_are_taken_calmly_and_bounded(
        events in prop::collection::vec((0..4_u8, 0..4_u8, 0..5_u64, 0..200_u64), 0..200),
    ) {
        let (mut punch, pings, mut now, mut entropy) = probing(&["198.51.100.1:4000", "[2001:db8::1]:4000"][..1]);
        let mut sent = 0;
        for (kind, host, transaction, wait) in events {
            now += Duration::from_millis(wait);
            let from = SocketAddr::from(([198, 51, 100, host], 4_000));
            let guess = Transaction(transaction);
            let transaction = pings.get(usize::from(host)).map_or(guess, |ping| ping.1);
            match kind {
                0 => {
                    let ping = Probe::Ping { transaction, urgency: Urgency::PathLost };
                    punch.handle_probe(SOCKET, from, ping, now, &mut entropy);
                }
                1 => {
                    let pong = Probe::Pong { transaction, observed: from };
                    punch.handle_probe(SOCKET, from, pong, now, &mut entropy);
                }
                2 => punch.add_candidates(&[candidate(from)], now),
                _ => punch.handle_timeout(now, &mut entropy),
            }
            let transmits = outputs(&mut punch);
            sent += transmits.iter().filter(|output| matches!(output, Output::Transmit { .. })).count();
        }
        prop_assert!(sent < 800);
    }
}
