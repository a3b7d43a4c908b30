//! A host, a NAT that can change, and servers that can fall silent, in virtual time.

use super::*;
use crate::{
    behaviour::Dependence,
    nat::{
        story::moment,
        stun::{self, Message},
    },
};

const SOCKET: SocketIndex = SocketIndex(0);
const RTT: Duration = Duration::from_millis(40);

struct World {
    discovery: Discovery,
    entropy: Entropy,
    start: Instant,
    now: Instant,
    /// What servers see.
    reflexive: SocketAddr,
    silent: BTreeSet<SocketAddr>,
    flying: VecDeque<(Instant, SocketAddr, Response)>,
    sent: usize,
    /// (when in ms, what) of everything but Transmit.
    story: Vec<(u128, Output)>,
}

fn server(number: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, number], 3_478))
}

fn endpoint(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 9], port))
}

impl World {
    /// Three servers that answer after 40 ms.
    fn new() -> Self {
        let mut world = Self {
            discovery: Discovery::new(),
            entropy: Entropy::from_seed(1),
            start: moment(),
            now: moment(),
            reflexive: endpoint(4_000),
            silent: BTreeSet::new(),
            flying: VecDeque::new(),
            sent: 0,
            story: vec![],
        };
        world.now = world.start;
        world
    }

    fn begin(&mut self) {
        let servers: Vec<_> =
            (1..=3).map(|number| (format!("stun{number}.example"), vec![server(number)])).collect();
        let discovery = &mut self.discovery;
        discovery.set_servers(&servers, self.now, &mut self.entropy);
        self.change_network();
    }

    fn change_network(&mut self) {
        let socket = BoundSocket { index: SOCKET, local: "0.0.0.0:4000".parse().unwrap() };
        let interfaces = ["192.168.1.20".parse().unwrap()];
        let discovery = &mut self.discovery;
        discovery.set_network(&[socket], &interfaces, self.now, &mut self.entropy);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.discovery.poll_output() {
            let Output::Transmit(datagram) = output else {
                let elapsed = (self.now - self.start).as_millis();
                self.story.push((elapsed, output));
                continue;
            };
            self.sent += 1;
            let Ok(Message::Request(request)) = stun::decode(&datagram.bytes) else {
                panic!("not a request: {datagram:?}");
            };
            let response =
                Response { transaction: request.transaction, outcome: Ok(self.reflexive) };
            if !self.silent.contains(&datagram.remote) {
                let answer = (self.now + RTT, datagram.remote, response);
                self.flying.push_back(answer);
            }
        }
    }

    fn run_for(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let arrival = self.flying.front().map(|(at, _, _)| *at);
            let timeout = self.discovery.poll_timeout();
            let Some(next) = arrival.into_iter().chain(timeout).min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, from, response) = self.flying.pop_front().unwrap();
                let (discovery, entropy) = (&mut self.discovery, &mut self.entropy);
                discovery.handle_response(SOCKET, from, &response, self.now, entropy);
            } else {
                self.discovery.handle_timeout(self.now, &mut self.entropy);
            }
            self.drain();
        }
        self.now = end;
    }

    /// The story so far in words, and forgets it.
    fn told(&mut self) -> Vec<String> {
        let story = std::mem::take(&mut self.story);
        let words = |(at, output): &(u128, Output)| match output {
            Output::Transmit(_) => unreachable!("drained"),
            Output::Report(report) => {
                let mapping = report.behaviour().mapping;
                let seen = report.advertised();
                let mapping = mapping.map_or_else(|| "unknown".into(), |known| known.to_string());
                format!("{at}: {:?} {seen:?} {mapping}", report.stage)
            }
            Output::Changed { from, to, .. } => format!("{at}: changed {from} {to}"),
            Output::Unanswered { servers, waited } => {
                format!("{at}: {} silent for {} ms", servers.len(), waited.as_millis())
            }
        };
        story.iter().map(words).collect()
    }
}

#[test]
fn the_first_answer_is_reported_at_once_and_the_behaviour_with_the_second() {
    let mut world = World::new();
    world.begin();
    world.run_for(10);
    let expected = [
        "40: Asking [198.51.100.9:4000] unknown",
        "40: Asking [198.51.100.9:4000] endpoint-independent",
        "40: Complete [198.51.100.9:4000] endpoint-independent",
    ];
    assert_eq!(world.told(), expected);
    assert_eq!(world.sent, 3);
}

#[test]
fn an_idle_hour_costs_one_datagram_in_22_s_and_tells_nothing_new() {
    let mut world = World::new();
    world.begin();
    world.run_for(10);
    world.told();
    world.sent = 0;
    world.run_for(3_600);
    assert!((144..=180).contains(&world.sent), "{}", world.sent);
    assert_eq!(world.told(), Vec::<String>::new());
}

#[test]
fn a_mapping_that_changed_is_noticed_within_25_s_and_all_are_asked_again() {
    let mut world = World::new();
    world.begin();
    world.run_for(60);
    world.told();
    world.reflexive = endpoint(5_000);
    let (before, sent) = (world.now, world.sent);
    world.run_for(26);
    let noticed = match &world.story[..] {
        [(at, Output::Changed { socket: SOCKET, from, to }), ..] => {
            assert_eq!((*from, *to), (endpoint(4_000), endpoint(5_000)));
            *at
        }
        other => panic!("{other:?}"),
    };
    assert!(noticed <= (before - world.start).as_millis() + 25_040);
    let story = world.told();
    let last = story.last().unwrap();
    assert!(last.ends_with("Complete [198.51.100.9:5000] endpoint-independent"), "{last}");
    assert!(world.sent - sent <= 6);
}

#[test]
fn a_nat_that_changes_all_the_time_costs_a_bounded_number_of_rounds() {
    let mut world = World::new();
    world.begin();
    for port in 0..180 {
        world.reflexive = endpoint(10_000 + port);
        world.run_for(20);
    }
    // 160 keepalives, and rounds 20, 40, … 640 s apart.
    assert!(world.sent < 250, "{}", world.sent);
}

#[test]
fn after_a_network_change_the_old_endpoint_is_withdrawn_and_all_are_asked_at_once() {
    let mut world = World::new();
    world.begin();
    world.run_for(10);
    world.told();
    world.reflexive = "192.0.2.7:4000".parse().unwrap();
    world.change_network();
    world.run_for(1);
    let expected = [
        "10000: Asking [] unknown",
        "10040: Asking [192.0.2.7:4000] unknown",
        "10040: Asking [192.0.2.7:4000] endpoint-independent",
        "10040: Complete [192.0.2.7:4000] endpoint-independent",
    ];
    assert_eq!(world.told(), expected);
}

#[test]
fn silence_is_told_after_3_s_and_ended_by_a_single_answer() {
    let mut world = World::new();
    world.silent = (1..=3).map(server).collect();
    world.begin();
    world.run_for(4);
    assert_eq!(world.told(), ["3000: 3 silent for 3000 ms"]);
    assert_eq!(world.sent, 15);
    world.run_for(3_600);
    assert!(world.sent < 15 + 3_600 / 12, "five a minute: {}", world.sent);
    assert_eq!(world.told(), Vec::<String>::new());
    world.silent.clear();
    world.run_for(65);
    let story = world.told();
    let last = story.last().unwrap();
    assert!(last.ends_with("Complete [198.51.100.9:4000] endpoint-independent"), "{last}");
}

#[test]
fn when_the_server_that_keeps_the_mapping_falls_silent_another_takes_over() {
    let mut world = World::new();
    world.begin();
    world.run_for(10);
    world.silent.insert(server(1));
    world.told();
    world.run_for(600);
    assert_eq!(world.told(), Vec::<String>::new());
    let report = world.discovery.current();
    assert_eq!(report.behaviour().mapping, Some(Dependence::EndpointIndependent));
    let servers: Vec<SocketAddr> =
        report.v4.unwrap().evidence.observations.iter().map(|seen| seen.server).collect();
    assert!(!servers.contains(&server(1)) && servers.len() == 2);
}

#[test]
fn a_server_that_was_down_at_first_completes_the_inference_when_it_is_up() {
    let mut world = World::new();
    world.silent = [server(2), server(3)].into();
    world.begin();
    world.run_for(10);
    let expected =
        ["40: Asking [198.51.100.9:4000] unknown", "3000: Complete [198.51.100.9:4000] unknown"];
    assert_eq!(world.told(), expected);
    world.silent.clear();
    world.run_for(120);
    let expected = ["63040: Complete [198.51.100.9:4000] endpoint-independent"];
    assert_eq!(world.told(), expected);
}

#[test]
fn when_all_fall_silent_the_endpoint_is_withdrawn() {
    let mut world = World::new();
    world.begin();
    world.run_for(10);
    world.told();
    world.silent = (1..=3).map(server).collect();
    world.run_for(60);
    let story = world.told();
    assert!(story.iter().any(|told| told.contains("3 silent for 3000 ms")), "{story:?}");
    assert_eq!(world.discovery.current().advertised(), []);
}

#[test]
fn a_host_with_a_public_address_has_no_nat_though_its_socket_listens_everywhere() {
    let mut world = World::new();
    world.reflexive = "192.168.1.20:4000".parse().unwrap();
    world.begin();
    world.run_for(1);
    let behaviour = world.discovery.current().behaviour();
    assert_eq!(behaviour.mapping, Some(Dependence::None));
}

#[test]
fn of_one_name_two_addresses_of_each_family_are_asked_and_16_in_all() {
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let many = addresses(&[
        "203.0.113.1:1",
        "[2001:db8::1]:1",
        "203.0.113.2:1",
        "203.0.113.3:1",
        "[::ffff:203.0.113.1]:1",
    ]);
    let chosen = choose_addresses(&[("one".into(), many), ("two".into(), vec![server(1)])]);
    let expected = [
        ("one", "203.0.113.1:1"),
        ("one", "203.0.113.2:1"),
        ("one", "[2001:db8::1]:1"),
        ("two", "203.0.113.1:3478"),
    ];
    let expected = expected.map(|(name, text)| (name.to_owned(), text.parse().unwrap()));
    assert_eq!(chosen, expected);
    let names: Vec<_> = (0..40).map(|number| (number.to_string(), vec![server(number)])).collect();
    assert_eq!(choose_addresses(&names).len(), SERVERS_MAX);
}
