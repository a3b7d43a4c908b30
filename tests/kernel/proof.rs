//! The lab is what it says: every kind of NAT maps and filters as its name promises.

mod user_space;

use std::{
    collections::BTreeSet,
    iter, panic,
    process::{self, Command},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    command::ip,
    lab::{Distance, Host, KernelLab, Router, or_skip},
    namespace::names_of,
    nat::Nat,
    process::Process,
};

/// What a host sends from, and what the world listens on.
const PORT: u16 = 4000;

/// The second port of the world's addresses.
const OTHER_PORT: u16 = 5000;

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn masquerade_keeps_the_port_and_admits_only_who_was_asked() {
    let Some(lab) = or_skip(KernelLab::new()) else {
        return;
    };
    let seen = observe(&lab, &lab.home(Nat::Masquerade));
    assert_eq!(seen.ports, [PORT; 4]);
    assert_eq!(seen.admitted, ["the port asked"]);
}

#[test]
fn an_address_restricted_nat_admits_all_ports_of_who_was_asked() {
    let Some(lab) = or_skip(KernelLab::new()) else {
        return;
    };
    let seen = observe(&lab, &lab.home(Nat::AddressRestricted));
    assert_eq!(seen.ports, [PORT; 4]);
    assert_eq!(seen.admitted, ["another port", "the port asked"]);
}

#[test]
fn a_full_cone_admits_everybody() {
    let Some(lab) = or_skip(KernelLab::new()) else {
        return;
    };
    let seen = observe(&lab, &lab.home(Nat::FullCone));
    assert_eq!(seen.ports, [PORT; 4]);
    assert_eq!(seen.admitted, ["a stranger", "another port", "the port asked"]);
}

#[test]
fn fully_random_takes_another_port_for_every_destination() {
    let Some(lab) = or_skip(KernelLab::new()) else {
        return;
    };
    let seen = observe(&lab, &lab.home(Nat::FullyRandom));
    let different: BTreeSet<_> = seen.ports.iter().filter(|port| **port != PORT).collect();
    // One coincidence among 64,512 ports may happen, two do not.
    assert!(different.len() >= 3, "{:?}", seen.ports);
    assert_eq!(seen.admitted, ["the port asked"]);
}

#[test]
fn behind_two_nats_the_outer_one_is_seen_and_both_filter() {
    let Some(lab) = or_skip(KernelLab::new()) else {
        return;
    };
    let carrier = lab.carrier(Nat::Masquerade);
    let seen = observe(&lab, &carrier.home(Nat::Masquerade));
    assert_eq!(seen.ports, [PORT; 4]);
    assert_eq!(seen.admitted, ["the port asked"]);

    let generous = lab.carrier(Nat::FullCone);
    let seen = observe(&lab, &generous.home(Nat::Masquerade));
    assert_eq!(seen.admitted, ["the port asked"], "the home filters");
    let seen = observe(&lab, &carrier.home(Nat::FullCone));
    assert_eq!(seen.admitted, ["the port asked"], "the carrier filters");
}

#[test]
fn two_homes_open_a_path_though_the_first_datagram_is_dropped() {
    let Some(lab) = or_skip(KernelLab::new()) else {
        return;
    };
    let (alices, bobs) = (lab.home(Nat::Masquerade), lab.home(Nat::Masquerade));
    let (alice, bob) = (alices.host(), bobs.host());
    let (alice, bob) = (agent(&alice), agent(&bob));
    // Each home got the next public address.
    let (alice_seen, bob_seen) = ("203.0.113.1", "203.0.113.2");

    send(&alice, PORT, (bob_seen, PORT), "too early");
    send(&bob, PORT, (alice_seen, PORT), "in time");
    assert_eq!(heard(&alice), ("in time".into(), endpoint(bob_seen, PORT)));
    send(&alice, PORT, (bob_seen, PORT), "now");
    assert_eq!(heard(&bob), ("now".into(), endpoint(alice_seen, PORT)));
}

#[test]
fn two_hosts_of_one_home_see_each_other_unchanged() {
    let Some(lab) = or_skip(KernelLab::new()) else {
        return;
    };
    let home = lab.home(Nat::Masquerade);
    let (alice, bob) = (home.host(), home.host());
    let (alice, bob) = (agent(&alice), agent(&bob));
    send(&alice, PORT, ("192.168.1.21", PORT), "hello");
    assert_eq!(heard(&bob), ("hello".into(), endpoint("192.168.1.20", PORT)));
}

#[test]
fn packets_take_the_time_they_are_told_to() {
    let round_trip = Duration::from_millis(60);
    let distance = Distance { round_trip, percent_lost: 0 };
    let Some(lab) = or_skip(KernelLab::with(distance)) else {
        return;
    };
    let world = lab.public_host(&["198.51.100.10"]);
    let host = lab.home(Nat::Masquerade).host();
    let (world, host) = (agent(&world), agent(&host));

    let took = (0..10).map(|_| {
        let sent = Instant::now();
        send(&host, PORT, ("198.51.100.10", PORT), "ping");
        let (_, seen) = heard(&world);
        world.tell(&json!({"cmd": "send", "port": PORT, "to": seen, "text": "pong"}));
        assert_eq!(heard(&host).0, "pong");
        sent.elapsed()
    });
    // Whatever else the machine is busy with, it does not hold up all ten.
    let took = took.min().expect("there are ten");
    assert!(round_trip <= took && took < round_trip * 3, "{took:?}");
}

#[test]
fn packets_are_lost_as_often_as_they_are_told_to() {
    let distance = Distance { round_trip: Duration::from_millis(2), percent_lost: 20 };
    let Some(lab) = or_skip(KernelLab::with(distance)) else {
        return;
    };
    let world = lab.public_host(&["198.51.100.10"]);
    let host = lab.home(Nat::Masquerade).host();
    let (world, host) = (agent(&world), agent(&host));

    for _ in 0..300 {
        send(&host, PORT, ("198.51.100.10", PORT), "one of many");
    }
    // Of twenty last ones, not all are lost.
    for _ in 0..20 {
        send(&host, PORT, ("198.51.100.10", PORT), "the last");
    }
    let texts = iter::repeat_with(|| heard(&world).0);
    let arrived = texts.take_while(|text| text != "the last").count();
    // 240 on average; five times the deviation of 7 to each side.
    assert!((205..=275).contains(&arrived), "{arrived} of 300");
}

#[test]
fn nothing_is_left_behind() {
    let Some(lab) = or_skip(KernelLab::new()) else {
        return;
    };
    let mut ended = Command::new("true").spawn().expect("every system has it");
    ended.wait().expect("it ends at once");
    let orphan = format!("p2p{}-0-orphan", ended.id());
    ip(&format!("netns add {orphan}"));

    let made = Mutex::new(String::new());
    let failed = panic::catch_unwind(|| {
        let lab = KernelLab::new().expect("there is one already");
        let host = lab.home(Nat::FullCone).host();
        made.lock().expect("it is ours").push_str(host.name());
        let _running = agent(&host);
        panic!("as a failing test does");
    });
    assert!(failed.is_err());

    let made = made.into_inner().expect("nobody panicked while holding it");
    assert!(made.ends_with("host"));
    assert!(!names_of(process::id()).contains(&made), "{made}");
    assert_eq!(names_of(ended.id()), Vec::<String>::new(), "{orphan}");
    drop(lab);
}

/// How a host behind a NAT looks from outside.
struct Seen {
    /// Its ports as four destinations see them.
    ports: [u16; 4],
    /// Which datagrams came in at the endpoint that the first destination saw.
    admitted: Vec<String>,
}

/// Asks one port of the world, lets the world answer from there and from elsewhere, then asks three more.
fn observe(lab: &KernelLab, home: &Router) -> Seen {
    let [asked, other, strangers] = ["198.51.100.10", "198.51.100.11", "198.51.100.12"];
    let host = home.host();
    let world = lab.public_host(&[asked, other]);
    let stranger = lab.public_host(&[strangers]);
    let (host, world, stranger) = (agent(&host), agent(&world), agent(&stranger));
    bind(&world, OTHER_PORT);

    send(&host, PORT, (asked, PORT), "question");
    let (_, outside) = heard(&world);
    let outside_ip = outside[0].as_str().expect("addresses are text");
    let outside = (outside_ip, port_of(&outside));
    send(&stranger, PORT, outside, "a stranger");
    send(&world, OTHER_PORT, outside, "another port");
    // The last to be sent is the one that always arrives, so nothing is still under way after it.
    send(&world, PORT, outside, "the port asked");
    let mut admitted = Vec::new();
    while admitted.last().is_none_or(|text| text != "the port asked") {
        admitted.push(heard(&host).0);
    }

    let more = [(asked, OTHER_PORT), (other, PORT), (other, OTHER_PORT)];
    let [second, third, fourth] = more.map(|destination| {
        send(&host, PORT, destination, "question");
        port_of(&heard(&world).1)
    });
    Seen { ports: [outside.1, second, third, fourth], admitted }
}

fn port_of(endpoint: &Value) -> u16 {
    let port = endpoint[1].as_u64().expect("ports are numbers");
    u16::try_from(port).expect("ports are small")
}

/// An agent on this host, bound to [`PORT`].
fn agent(host: &Host) -> Process {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/agent.py");
    let agent = host.spawn("python3", &[script]);
    bind(&agent, PORT);
    agent
}

fn bind(agent: &Process, port: u16) {
    agent.tell(&json!({"cmd": "bind", "port": port}));
    agent.wait_for("bound", SOON);
}

fn send(agent: &Process, port: u16, to: (&str, u16), text: &str) {
    agent.tell(&json!({"cmd": "send", "port": port, "to": to, "text": text}));
    agent.wait_for("sent", SOON);
}

/// The next datagram's text, and where it came from.
fn heard(agent: &Process) -> (String, Value) {
    let datagram = agent.wait_for("datagram", SOON);
    let text = datagram["text"].as_str().expect("agents send text");
    (text.to_owned(), datagram["from"].clone())
}

fn endpoint(host: &str, port: u16) -> Value {
    json!([host, port])
}
