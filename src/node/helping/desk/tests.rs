//! The desk alone: who is served, what is forwarded, and what floods come to.

use std::net::SocketAddr;

use super::*;
use crate::{datagram::SocketIndex, identity::Ephemeral, offer};

const UNIX: UnixMillis = UnixMillis(1_763_820_000_000);

fn path(address: &str) -> Path {
    Path { socket: SocketIndex(0), remote: address.parse().unwrap() }
}

fn numbered(number: u32) -> Path {
    let ip = (0xC633_0000 + number).to_be_bytes();
    Path { socket: SocketIndex(0), remote: SocketAddr::from((ip, 4_000)) }
}

/// A desk, a clock, and whoever asks it.
struct Scene {
    desk: Desk,
    helper: Identity,
    entropy: Entropy,
    start: Instant,
    elapsed: Duration,
}

struct Node {
    ephemeral: Ephemeral,
    keys: LinkKeys,
    path: Path,
}

impl Scene {
    #[expect(clippy::disallowed_methods, reason = "the zero of virtual time")]
    fn new() -> Self {
        let helper = Identity::from_seed([7; 32]);
        Self {
            desk: Desk::new(helper.clone(), Entropy::from_seed(1)),
            helper,
            entropy: Entropy::from_seed(2),
            start: Instant::now(),
            elapsed: Duration::ZERO,
        }
    }

    fn says(&mut self, path: Path, datagram: &[u8]) -> Option<Transmit> {
        let elapsed_ms = u64::try_from(self.elapsed.as_millis()).unwrap();
        let times = (self.start + self.elapsed, UnixMillis(UNIX.0 + elapsed_ms));
        let answer = self.desk.handle_datagram(path, datagram, times);
        if let Some((_, answer)) = &answer {
            assert!(answer.len() <= datagram.len(), "nothing is amplified");
        }
        answer
    }

    fn node(&mut self, path: Path) -> Node {
        let ephemeral = Ephemeral::generate(&mut self.entropy);
        let keys = LinkKeys::of_served(&ephemeral, &self.helper.peer_id());
        Node { ephemeral, keys, path }
    }

    fn ask(&mut self, node: &Node, cookie: Cookie, wish: Wish) -> Option<Transmit> {
        let head = ([1; 8], cookie, &node.ephemeral.public);
        let ask = node.keys.ask(head, wish, &mut self.entropy);
        self.says(node.path, &ask)
    }

    fn cookie(&mut self, node: &Node) -> Cookie {
        let (to, challenge) = self.ask(node, Cookie::default(), Wish::Keep).unwrap();
        assert_eq!(to, node.path);
        match forwarding::parse(&challenge) {
            Some(Packet::Challenge { cookie, .. }) => cookie,
            other => panic!("{other:?}"),
        }
    }

    fn serve(&mut self, node: &Node) -> Option<Granted> {
        let cookie = self.cookie(node);
        let (_, grant) = self.ask(node, cookie, Wish::Keep)?;
        match forwarding::parse(&grant) {
            Some(Packet::Grant { sealed, .. }) => node.keys.open_grant(&grant, sealed),
            other => panic!("{other:?}"),
        }
    }

    fn offer(&mut self, from: Path, token: Token) -> Option<Transmit> {
        let sealed = vec![9; offer::SEALED_SIZE];
        self.says(from, &forwarding::offer(token, [5; 8], &sealed))
    }

    fn delivered(&mut self, node: &Node, from: Path, token: Token) -> Option<Delivered> {
        let (to, delivery) = self.offer(from, token)?;
        assert_eq!(to, node.path);
        match forwarding::parse(&delivery) {
            Some(Packet::Delivery { sealed }) => node.keys.open_delivery(&delivery, sealed),
            other => panic!("{other:?}"),
        }
    }
}

fn served() -> (Scene, Node, Token) {
    let mut scene = Scene::new();
    let node = scene.node(path("203.0.113.1:4000"));
    let token = scene.serve(&node).unwrap().token;
    (scene, node, token)
}

#[test]
fn an_offer_goes_to_the_served_node_and_two_answers_come_back() {
    let (mut scene, node, token) = served();
    let caller = path("198.51.100.9:50112");
    let delivered = scene.delivered(&node, caller, token).unwrap();
    assert_eq!(delivered.seen, caller.remote);
    assert_eq!(delivered.offer, vec![9; offer::SEALED_SIZE]);
    for (answer, is_forwarded) in [
        (vec![], true),
        (vec![8; forwarding::ANSWER_SIZE_MAX], true),
        // No more goes back than came.
        (vec![], false),
    ] {
        let bytes = node.keys.answer(delivered.errand, &answer, &mut scene.entropy);
        let elapsed = scene.start + scene.elapsed;
        let sent = scene.desk.handle_datagram(node.path, &bytes, (elapsed, UNIX));
        let expected = forwarding::reply([5; 8], caller.remote, &answer);
        assert_eq!(sent, is_forwarded.then_some((caller, expected)));
    }
}

#[test]
fn nobody_is_served_before_it_has_shown_where_it_is() {
    let mut scene = Scene::new();
    let node = scene.node(path("203.0.113.1:4000"));
    let cookie = scene.cookie(&node);
    assert_eq!(scene.desk.served.len(), 0);
    let elsewhere = Node { path: path("203.0.113.2:4000"), ..node };
    let (_, answer) = scene.ask(&elsewhere, cookie, Wish::Keep).unwrap();
    assert!(matches!(forwarding::parse(&answer), Some(Packet::Challenge { .. })));
    scene.elapsed += Duration::from_secs(121);
    let here = Node { path: path("203.0.113.1:4000"), ..elsewhere };
    let (_, answer) = scene.ask(&here, cookie, Wish::Keep).unwrap();
    assert!(matches!(forwarding::parse(&answer), Some(Packet::Challenge { .. })));
    assert_eq!(scene.desk.served.len(), 0);
}

#[test]
fn a_node_that_moves_keeps_its_token() {
    let (mut scene, node, token) = served();
    let moved = Node { path: path("203.0.113.77:9"), ..node };
    let granted = scene.serve(&moved).unwrap();
    assert_eq!(granted, Granted { token, seen: moved.path.remote });
    assert!(scene.delivered(&moved, path("198.51.100.9:1"), token).is_some());
    assert_eq!(scene.desk.served.len(), 1);
}

#[test]
fn a_token_is_good_as_long_as_its_node_asks() {
    let (mut scene, node, token) = served();
    let caller = path("198.51.100.9:50112");
    assert_eq!(scene.offer(caller, Token([0; 7])), None);
    scene.elapsed += SERVED_TIME;
    assert_eq!(scene.offer(caller, token), None);
    assert_eq!(scene.serve(&node).map(|granted| granted.token), Some(token));
    assert!(scene.offer(caller, token).is_some());
    let cookie = scene.cookie(&node);
    assert_eq!(scene.ask(&node, cookie, Wish::End), None);
    assert_eq!(scene.offer(caller, token), None);
}

#[test]
fn a_helper_that_was_restarted_gives_the_same_token() {
    let (mut scene, node, token) = served();
    scene.desk = Desk::new(scene.helper.clone(), Entropy::from_seed(9));
    assert_eq!(scene.serve(&node).map(|granted| granted.token), Some(token));
}

#[test]
fn one_caller_and_one_node_have_their_rates() {
    let (mut scene, _, token) = served();
    let caller = path("198.51.100.9:50112");
    let other_port = path("198.51.100.9:50113");
    let sent = (0..50).filter(|_| scene.offer(caller, token).is_some()).count();
    assert_eq!(sent, 15, "one offer and its copies");
    assert_eq!(scene.offer(other_port, token), None);
    let sent = (0..50).filter(|&number| scene.offer(numbered(number), token).is_some()).count();
    assert_eq!(sent, 19, "with the first the node has had its burst of 20");
    scene.elapsed += Duration::from_secs(1);
    let sent = (50..99).filter(|&number| scene.offer(numbered(number), token).is_some()).count();
    assert_eq!(sent, 5);
}

#[test]
fn a_flood_costs_bounded_tables() {
    let (mut scene, _, token) = served();
    for number in 0..20_000 {
        scene.elapsed += Duration::from_micros(200);
        scene.offer(numbered(number), token);
        let node = scene.node(numbered(number));
        let cookie = scene.desk.cookie(node.path, UNIX.seconds() / COOKIE_SECONDS);
        scene.ask(&node, cookie, Wish::Keep);
        let desk = &scene.desk;
        assert!(desk.served.len() <= SERVED_MAX);
        assert!(desk.errands.len() <= ERRANDS_MAX && desk.callers.len() <= CALLERS_MAX);
    }
    let neighbours = (0..200).filter(|port| {
        let node = scene.node(path(&format!("203.0.113.200:{}", 1_000 + port)));
        let cookie = scene.desk.cookie(node.path, UNIX.seconds() / COOKIE_SECONDS);
        scene.elapsed += Duration::from_millis(25);
        scene.ask(&node, cookie, Wish::Keep).is_some()
    });
    assert_eq!(neighbours.count(), SERVED_AT_ONE_SOURCE_MAX);
}
