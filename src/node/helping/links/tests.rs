//! Links to helpers alone: against a real desk, and against helpers that are silent or lie.

use super::*;
use crate::{
    datagram::SocketIndex, identity::Identity, node::helping::desk::Desk, offer, time::UnixMillis,
};

const UNIX: UnixMillis = UnixMillis(1_763_820_000_000);

fn path(address: &str) -> Path {
    Path { socket: SocketIndex(0), remote: address.parse().unwrap() }
}

fn helper() -> Identity {
    Identity::from_seed([7; 32])
}

fn at() -> Path {
    path("198.51.100.7:4000")
}

/// Where the helper sees us.
fn us() -> Path {
    path("203.0.113.1:4000")
}

#[expect(clippy::disallowed_methods, reason = "the zero of virtual time")]
fn start() -> Instant {
    Instant::now()
}

fn drain(links: &mut HelperLinks) -> Vec<Output> {
    std::iter::from_fn(|| links.poll_output()).collect()
}

/// Lets both talk until nobody has anything to say; returns what the links reported.
fn talk(links: &mut HelperLinks, desk: &mut Desk, now: Instant) -> Vec<Output> {
    let mut reported = Vec::new();
    while let Some(output) = links.poll_output() {
        match output {
            Output::Transmit(to, datagram) => {
                assert_eq!(to, at());
                if let Some((_, answer)) = desk.handle_datagram(us(), &datagram, (now, UNIX)) {
                    links.handle_datagram(at(), &answer, now);
                }
            }
            Output::Changed | Output::Gone(_) => reported.push(output),
        }
    }
    reported
}

fn linked(now: Instant) -> (HelperLinks, Desk) {
    let mut links = HelperLinks::new(Entropy::from_seed(1));
    let mut desk = Desk::new(helper(), Entropy::from_seed(2));
    links.ask(helper().peer_id(), vec![at()], now);
    assert_eq!(talk(&mut links, &mut desk, now), [Output::Changed]);
    (links, desk)
}

#[test]
fn a_helper_that_is_asked_serves_and_forwards() {
    let now = start();
    let (mut links, mut desk) = linked(now);
    let helpers = links.helpers();
    let [Helper { address, token }] = *helpers else { panic!("{helpers:?}") };
    assert_eq!(address, at().remote);
    let sealed = vec![3; offer::SEALED_SIZE];
    let caller = path("192.0.2.9:9");
    let bytes = forwarding::offer(token, [5; 8], &sealed);
    let (to, delivery) = desk.handle_datagram(caller, &bytes, (now, UNIX)).unwrap();
    assert_eq!(to, us());
    let forwarded = links.handle_datagram(at(), &delivery, now).unwrap();
    assert_eq!(forwarded.delivered.offer, sealed);
    assert_eq!(forwarded.delivered.seen, caller.remote);
    links.answer(&forwarded.way_back, b"here I am");
    let Some(Output::Transmit(_, answer)) = links.poll_output() else { panic!("no answer") };
    let (to, reply) = desk.handle_datagram(us(), &answer, (now, UNIX)).unwrap();
    assert_eq!((to, reply), (caller, forwarding::reply([5; 8], caller.remote, b"here I am")));
}

#[test]
fn a_link_is_kept_with_one_question_in_twenty_seconds() {
    let mut now = start();
    let (mut links, mut desk) = linked(now);
    for _ in 0..10 {
        let next = links.poll_timeout().unwrap();
        assert_eq!(next - now, KEEP_INTERVAL);
        now = next;
        links.handle_timeout(now);
        assert_eq!(talk(&mut links, &mut desk, now), []);
        assert_eq!(links.helpers().len(), 1);
    }
}

#[test]
fn a_helper_that_is_silent_is_let_go_after_ten_seconds() {
    let now = start();
    let mut links = HelperLinks::new(Entropy::from_seed(1));
    links.ask(helper().peer_id(), vec![at()], now);
    let mut asked = drain(&mut links).len();
    let mut gone = None;
    while let Some(next) = links.poll_timeout() {
        links.handle_timeout(next);
        for output in drain(&mut links) {
            match output {
                Output::Transmit(..) => asked += 1,
                Output::Gone(helper) => gone = Some((helper, next - now)),
                Output::Changed => panic!("it never served"),
            }
        }
    }
    assert_eq!((asked, gone), (6, Some((helper().peer_id(), Duration::from_secs(10)))));
    assert_eq!(links.missing(), HELPERS_MAX);
}

#[test]
fn what_a_helper_makes_up_or_repeats_changes_nothing() {
    let now = start();
    let (mut links, mut desk) = linked(now);
    let before = links.helpers();
    let mut entropy = Entropy::from_seed(3);
    // Somebody else, at the helper's address.
    let stranger = Identity::from_seed([8; 32]);
    let ephemeral = Ephemeral::generate(&mut entropy);
    let keys = LinkKeys::of_helper(&stranger, &ephemeral.public);
    let granted = forwarding::Granted { token: Token([1; 7]), seen: us().remote };
    let lies = [
        keys.grant([0; 8], granted, &mut entropy),
        forwarding::challenge([0; 8], [1; 16]),
        forwarding::reply([0; 8], us().remote, &[]),
        vec![forwarding::FIRST_BYTE; 100],
    ];
    for lie in &lies {
        assert!(links.handle_datagram(at(), lie, now).is_none());
    }
    // A helper that answers each question with another cookie gets no more questions than a silent one.
    links.handle_moved(now);
    let mut asked = 0;
    for round in 0..100 {
        for output in drain(&mut links) {
            let Output::Transmit(_, ask) = output else { panic!("{output:?}") };
            let Some(Packet::Ask { transaction, .. }) = forwarding::parse(&ask) else {
                panic!("{ask:?}");
            };
            asked += 1;
            links.handle_datagram(at(), &forwarding::challenge(transaction, [round; 16]), now);
        }
    }
    assert_eq!(asked, 6);
    assert_eq!(links.helpers(), before);
    let _ = talk(&mut links, &mut desk, now);
}

#[test]
fn a_node_that_stops_says_so() {
    let now = start();
    let (mut links, mut desk) = linked(now);
    let [Helper { token, .. }] = *links.helpers() else { panic!("none") };
    links.end();
    assert_eq!(talk(&mut links, &mut desk, now), []);
    let bytes = forwarding::offer(token, [5; 8], &[3; offer::SEALED_SIZE]);
    assert_eq!(desk.handle_datagram(path("192.0.2.9:9"), &bytes, (now, UNIX)), None);
}
