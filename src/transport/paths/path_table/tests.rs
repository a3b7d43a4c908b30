//! Stories of routes: dialling, moving, strangers, two connections at once.

use std::time::Duration;

use proptest::prelude::*;

use super::strangers::STRANGERS_MAX;
use super::*;
use crate::transport::quic::header::tests::{handshake, initial, short};

const V4: SocketIndex = SocketIndex(0);
const V6: SocketIndex = SocketIndex(1);

/// A table on a host with an IPv4 and an IPv6 socket, and a clock that moves when told to.
struct World {
    table: PathTable,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut table = PathTable::new();
        table.add_socket(V4, addr("0.0.0.0:41641"));
        table.add_socket(V6, addr("[::]:41641"));
        Self { table, now: tokio::time::Instant::now().into_std() }
    }

    fn open(&mut self, candidates: &[&str]) -> (RouteId, SocketAddr) {
        let candidates: Vec<_> = candidates.iter().map(|text| addr(text)).collect();
        let route = self.table.open_route(&candidates).unwrap();
        (route, self.table.virtual_address(route).unwrap())
    }

    fn wait_ms(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// QUIC sends `contents`; where do they go?
    fn send(&mut self, destination: SocketAddr, contents: &[u8]) -> Destinations {
        let transmit =
            Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
        let destinations = self.table.forward(&transmit, self.now);
        let volume = Volume::of(contents.len(), contents.len());
        self.table.count_sent(destination, volume, self.now);
        destinations
    }

    /// A datagram arrives; from whom?
    fn hear(&mut self, from: &str, datagram: &[u8]) -> Source {
        let source = self.table.identify(path(from), datagram, self.now);
        if let Source::Path(address) | Source::Datagram(address) = source {
            let volume = Volume::of(datagram.len(), datagram.len());
            self.table.count_received(address, volume, self.now);
        }
        source
    }

    /// As [`World::hear`], of somebody whom the table knows or welcomes.
    fn hear_address(&mut self, from: &str, datagram: &[u8]) -> SocketAddr {
        match self.hear(from, datagram) {
            Source::Path(address) | Source::Datagram(address) => address,
            Source::Refused => panic!("refused {from}"),
        }
    }

    fn set_best(&mut self, route: RouteId, remote: &str) -> Vec<Vec<u8>> {
        bytes(self.table.set_best(route, path(remote), self.now))
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn path(remote: &str) -> Path {
    let remote = addr(remote);
    let socket = if remote.is_ipv4() { V4 } else { V6 };
    Path { socket, remote }
}

fn bytes(waiting: Vec<WaitingDatagram>) -> Vec<Vec<u8>> {
    waiting.into_iter().map(|waiting| waiting.bytes).collect()
}

#[test]
fn a_dial_goes_to_every_candidate_until_a_path_is_known() {
    let mut world = World::new();
    let (route, address) =
        world.open(&["192.0.2.1:1", "[2001:db8::1]:1", "224.0.0.1:1", "192.0.2.1:0"]);
    let everywhere = vec![path("192.0.2.1:1"), path("[2001:db8::1]:1")];
    assert_eq!(world.send(address, b"initial"), Destinations::Several(everywhere));
    world.set_best(route, "[2001:db8::1]:1");
    assert_eq!(world.send(address, b"more"), Destinations::One(path("[2001:db8::1]:1")));
}

/// A message of 100 bytes; its datagram goes twice, one of the handshake three times.
fn is_repeated(world: &mut World, address: SocketAddr, contents: &[u8]) -> bool {
    matches!(world.send(address, contents), Destinations::Repeatedly(..))
}

#[test]
fn the_first_eight_datagrams_of_every_connection_go_again() {
    let mut world = World::new();
    let (route, address) = world.open(&["192.0.2.1:1"]);
    world.send(address, &initial([9; 8], [1; 8]));
    world.set_best(route, "192.0.2.1:1");
    for connection in 2..4 {
        assert!(is_repeated(&mut world, address, &initial([9; 8], [connection; 8])));
        assert!(!is_repeated(&mut world, address, &[0x43; 39]), "an ack");
        assert!(!is_repeated(&mut world, address, &[0x43; 1_201]), "a measurement");
        for _ in 1..8 {
            assert!(is_repeated(&mut world, address, &short([9; 8])));
        }
        assert!(!is_repeated(&mut world, address, &short([9; 8])));
        assert!(!is_repeated(&mut world, address, &initial([9; 8], [connection; 8])));
    }
}

/// It has not shown that it receives where it says that it is.
#[test]
fn a_stranger_is_sent_everything_once() {
    let mut world = World::new();
    let address = world.hear_address("192.0.2.1:1", &initial([1; 8], [2; 8]));
    let flight = initial([2; 8], [3; 8]);
    assert!(!is_repeated(&mut world, address, &flight));
    let route = world.table.route_of(address).unwrap();
    world.table.keep(route);
    assert!(is_repeated(&mut world, address, &flight));
}

#[test]
fn a_dial_that_was_given_up_says_nothing_more() {
    let mut world = World::new();
    let (route, address) = world.open(&["192.0.2.1:1"]);
    let (before, after) = (initial([9; 8], [1; 8]), initial([9; 8], [2; 8]));
    world.send(address, &before);
    world.table.give_up_dials(route);
    world.send(address, &after);
    assert_eq!(world.set_best(route, "192.0.2.1:1"), std::slice::from_ref(&after));
    assert_eq!(world.send(address, &before), Destinations::Nowhere, "its farewell");
    assert!(is_repeated(&mut world, address, &after));
}

#[test]
fn candidates_of_a_family_without_a_socket_are_passed_over() {
    let mut world = World::new();
    world.table.remove_socket(V6);
    let (_, address) = world.open(&["[2001:db8::1]:1"]);
    assert_eq!(world.send(address, b"initial"), Destinations::Nowhere);
}

#[test]
fn the_first_path_gets_the_last_four_waiting_datagrams_that_are_fresh() {
    let mut world = World::new();
    let (route, address) = world.open(&["192.0.2.1:1"]);
    world.send(address, b"stale");
    world.wait_ms(1001);
    world.send(address, &[0; 1501]);
    for number in [b"1", b"2", b"3"] {
        world.send(address, number);
    }
    world.wait_ms(1000);
    assert_eq!(world.set_best(route, "192.0.2.1:9"), [b"1", b"2", b"3"]);
    assert!(world.set_best(route, "192.0.2.1:1").is_empty());

    let (route, address) = world.open(&[]);
    for number in [b"1", b"2", b"3", b"4", b"5"] {
        assert_eq!(world.send(address, number), Destinations::Nowhere);
    }
    assert_eq!(world.set_best(route, "192.0.2.1:9"), [b"2", b"3", b"4", b"5"]);
}

#[test]
fn waiting_datagrams_go_to_new_candidates_and_to_where_the_peer_was_heard() {
    let mut world = World::new();
    let (route, address) = world.open(&["192.0.2.1:1"]);
    world.send(address, b"initial");
    let candidates = [addr("192.0.2.1:1"), addr("192.0.2.2:2")];
    let waiting = world.table.set_candidates(route, &candidates, world.now);
    assert_eq!(
        waiting,
        [WaitingDatagram { path: path("192.0.2.2:2"), bytes: b"initial".to_vec(), ecn: None }]
    );
    let waiting = world.table.admit(route, path("198.51.100.7:7"), world.now);
    assert_eq!(bytes(waiting), [b"initial"]);
    let heard_first = ["198.51.100.7:7", "192.0.2.1:1", "192.0.2.2:2"].map(path);
    assert_eq!(world.send(address, b"more"), Destinations::Several(heard_first.to_vec()));
}

#[test]
fn a_batch_waits_as_the_datagrams_it_holds() {
    let mut world = World::new();
    let (route, address) = world.open(&["192.0.2.1:1"]);
    let transmit = Transmit {
        destination: address,
        ecn: None,
        contents: b"aaabbbc",
        segment_size: Some(3),
        src_ip: None,
    };
    world.table.forward(&transmit, world.now);
    assert_eq!(world.set_best(route, "192.0.2.1:1"), [&b"aaa"[..], b"bbb", b"c"]);
}

#[test]
fn a_peer_that_moved_is_heard_once_a_probe_proved_it() {
    let mut world = World::new();
    let (route, address) = world.open(&[]);
    world.set_best(route, "192.0.2.1:1000");
    assert_eq!(world.hear("192.0.2.1:1000", &short([1; 8])), Source::Path(address));
    assert_eq!(world.hear("192.0.2.1:2000", &short([1; 8])), Source::Refused);
    assert_eq!(world.table.refusals().unknown_remote, 1);
    world.table.admit(route, path("192.0.2.1:2000"), world.now);
    assert_eq!(world.hear("192.0.2.1:2000", &short([1; 8])), Source::Path(address));
    assert_eq!(world.table.best(route), Some(path("192.0.2.1:1000")));
    world.table.revoke(route, path("192.0.2.1:1000"));
    assert_eq!(world.hear("192.0.2.1:1000", &short([1; 8])), Source::Refused);
    assert_eq!(world.table.best(route), None);
}

#[test]
fn an_ipv4_mapped_remote_is_the_ipv4_one() {
    let mut world = World::new();
    let (route, address) = world.open(&[]);
    let mapped = Path { socket: V4, remote: addr("[::ffff:192.0.2.1]:1000") };
    world.table.set_best(route, mapped, world.now);
    assert_eq!(world.hear("192.0.2.1:1000", &short([1; 8])), Source::Path(address));
}

#[test]
fn a_stranger_comes_in_by_the_first_packet_of_a_connection_only() {
    let mut world = World::new();
    for datagram in [handshake([1; 8], [2; 8]), short([1; 8]), vec![0x40], vec![]] {
        assert_eq!(world.hear("192.0.2.1:1", &datagram), Source::Refused);
    }
    let address = world.hear_address("192.0.2.1:1", &initial([1; 8], [2; 8]));
    assert_eq!(world.send(address, b"answer"), Destinations::One(path("192.0.2.1:1")));
    assert_eq!(world.hear("192.0.2.1:1", &short([3; 8])), Source::Path(address));
}

#[test]
fn the_same_first_packet_by_two_ways_is_one_stranger() {
    let mut world = World::new();
    let first = initial([1; 8], [2; 8]);
    let address = world.hear_address("192.168.1.2:1", &first);
    assert_eq!(world.hear_address("192.0.2.1:1", &first), address);
    // No reply is multiplied: answers go where the first one came from.
    assert_eq!(world.send(address, b"answer"), Destinations::One(path("192.168.1.2:1")));
}

#[test]
fn a_flood_of_strangers_is_bounded_and_idle_ones_make_room() {
    let mut world = World::new();
    let stranger = |number: usize| {
        let port = u16::try_from(number).unwrap() + 1;
        let mut id = [9; 8];
        id[..2].copy_from_slice(&port.to_be_bytes());
        (format!("192.0.2.1:{port}"), initial(id, [2; 8]))
    };
    let kept = world.hear_address(&stranger(0).0, &stranger(0).1);
    world.table.keep(world.table.route_of(kept).unwrap());
    for number in 1..=STRANGERS_MAX {
        let (from, first) = stranger(number);
        world.hear_address(&from, &first);
    }
    let (from, first) = stranger(5000);
    assert_eq!(world.hear(&from, &first), Source::Refused);
    assert_eq!(world.table.refusals().strangers, 1);
    world.wait_ms(10_000);
    world.hear_address(&from, &first);
    assert_eq!(world.table.routes.strangers(), 1);
    assert!(world.table.route_of(kept).is_some(), "a kept stranger stays");
}

#[test]
fn a_stranger_that_proves_to_be_a_known_peer_becomes_part_of_its_route() {
    let mut world = World::new();
    let (route, dialled) = world.open(&["192.0.2.1:1"]);
    world.set_best(route, "192.0.2.1:1");
    let came_in = world.hear_address("192.0.2.1:2", &initial([1; 8], [2; 8]));
    let stranger = world.table.route_of(came_in).unwrap();
    world.table.adopt_stranger(stranger, route);
    for address in [dialled, came_in] {
        assert_eq!(world.table.route_of(address), Some(route));
        assert_eq!(world.send(address, b"x"), Destinations::One(path("192.0.2.1:1")));
    }
    world.table.set_primary(route, came_in);
    assert_eq!(world.table.virtual_address(route), Some(came_in));
    world.table.admit(route, path("192.0.2.1:3"), world.now);
    let next = initial([7; 8], [8; 8]);
    assert_eq!(world.hear_address("192.0.2.1:3", &next), came_in);
    world.table.close_route(route);
    for address in [dialled, came_in] {
        assert_eq!(world.send(address, b"x"), Destinations::Nowhere);
    }
}

#[test]
fn a_dial_that_overtakes_its_own_probe_goes_on_undisturbed() {
    let mut world = World::new();
    let (route, _) = world.open(&["192.0.2.1:1"]);
    let first = initial([1; 8], [2; 8]);
    let address = world.hear_address("192.0.2.1:1", &first);
    world.table.admit(route, path("192.0.2.1:1"), world.now);
    world.set_best(route, "192.0.2.1:1");
    // The stranger's connection began at `address` and must hear the rest of its handshake from there.
    assert_eq!(world.hear_address("192.0.2.1:1", &first), address);
    world.send(address, &handshake([2; 8], [3; 8]));
    assert_eq!(world.hear_address("192.0.2.1:1", &handshake([3; 8], [2; 8])), address);
    assert_eq!(world.table.route_of(address), Some(route));
}

#[test]
fn two_peers_that_dial_each_other_at_once_keep_their_connections_apart() {
    let mut world = World::new();
    let (route, dialled) = world.open(&["192.0.2.1:1"]);
    let ours = initial([8; 8], [10; 8]);
    world.send(dialled, &ours);
    let came_in = world.hear_address("192.0.2.1:1", &initial([1; 8], [2; 8]));
    world.table.admit(route, path("192.0.2.1:1"), world.now);
    world.send(came_in, &handshake([2; 8], [20; 8]));
    // One path, two connections: the id in the packet tells which. Of ours, the peer knows more ids.
    for datagram in [handshake([10; 8], [5; 8]), short([10; 8]), short([11; 8])] {
        assert_eq!(world.hear("192.0.2.1:1", &datagram), Source::Datagram(dialled));
    }
    for datagram in [handshake([20; 8], [2; 8]), short([20; 8])] {
        assert_eq!(world.hear("192.0.2.1:1", &datagram), Source::Datagram(came_in));
    }
}

#[test]
fn the_answer_to_a_dial_opens_its_path() {
    let mut world = World::new();
    let (_, address) = world.open(&["192.0.2.1:1", "192.0.2.2:1"]);
    world.send(address, &initial([8; 8], [10; 8]));
    let guess = initial([11; 8], [66; 8]);
    assert_ne!(world.hear_address("192.0.2.6:6", &guess), address);
    // The peer answers from a port that nobody knew, behind a NAT.
    let answer = initial([10; 8], [5; 8]);
    assert_eq!(world.hear("192.0.2.2:7", &answer), Source::Path(address));
    let path = path("192.0.2.2:7");
    assert_eq!(world.send(address, b"more"), Destinations::One(path));
    // One answer is enough: another path has to prove itself by a probe.
    assert_eq!(world.hear("192.0.2.2:8", &answer), Source::Refused);
}

/// Two nodes with two ways between them may each choose another one.
#[test]
fn a_peer_may_answer_from_any_of_its_candidates() {
    let mut world = World::new();
    let (route, address) = world.open(&["192.0.2.1:1", "10.0.0.1:1"]);
    world.send(address, &initial([8; 8], [10; 8]));
    world.set_best(route, "10.0.0.1:1");
    let answer = initial([10; 8], [5; 8]);
    assert_eq!(world.hear("192.0.2.1:1", &answer), Source::Path(address));
    assert_eq!(world.table.best(route), Some(path("10.0.0.1:1")));
}

#[test]
fn of_three_virtual_addresses_the_primary_and_the_newest_stay() {
    let mut world = World::new();
    let (route, dialled) = world.open(&[]);
    let mut came_in = Vec::new();
    for port in 1..=2_u8 {
        let from = format!("192.0.2.1:{port}");
        let address = world.hear_address(&from, &initial([port; 8], [2; 8]));
        world.table.adopt_stranger(world.table.route_of(address).unwrap(), route);
        came_in.push(address);
    }
    assert_eq!(world.table.route_of(came_in[0]), None);
    assert_eq!(world.table.route_of(came_in[1]), Some(route));
    assert_eq!(world.hear_address("192.0.2.1:1", &short([7; 8])), dialled);
}

#[test]
fn an_unanswered_send_is_told_once_and_only_when_asked_for() {
    let mut world = World::new();
    let (route, address) = world.open(&[]);
    world.set_best(route, "192.0.2.1:1");
    world.send(address, b"nobody asked");
    assert!(world.table.take_unanswered().is_empty());
    world.hear("192.0.2.1:1", &short([1; 8]));
    assert_eq!(world.table.traffic(route).unwrap().unanswered_since, None);
    world.send(address, b"first");
    world.send(address, b"again");
    assert_eq!(world.table.take_unanswered(), BTreeSet::from([route]));
    assert_eq!(world.table.traffic(route).unwrap().unanswered_since, Some(world.now));
    world.send(address, b"more");
    assert!(world.table.take_unanswered().is_empty());
}

#[test]
fn a_lost_socket_takes_its_paths_along() {
    let mut world = World::new();
    let (route, address) = world.open(&["192.0.2.1:1", "[2001:db8::1]:1"]);
    world.set_best(route, "[2001:db8::1]:1");
    world.table.remove_socket(V6);
    let rest = vec![path("192.0.2.1:1")];
    assert_eq!(world.send(address, b"x"), Destinations::Several(rest));
    assert_eq!(world.hear("[2001:db8::1]:1", &short([1; 8])), Source::Refused);
}

#[derive(Clone, Debug)]
enum Deed {
    Open,
    Close(u64),
    SetBest(u64, u16),
    Admit(u64, u16),
    Revoke(u64, u16),
    Hear(u16, u8),
    Adopt(u64, u64),
    Send(u64, u8),
    Answer(u16, u8),
    Keep(u64),
    SetPrimary(u64, u64),
    RemoveSocket,
    Wait,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let (route, port) = (1_u64..12, 1_u16..40);
    let deed = prop_oneof![
        Just(Deed::Open),
        route.clone().prop_map(Deed::Close),
        (route.clone(), port.clone()).prop_map(|(route, port)| Deed::SetBest(route, port)),
        (route.clone(), port.clone()).prop_map(|(route, port)| Deed::Admit(route, port)),
        (route.clone(), port.clone()).prop_map(|(route, port)| Deed::Revoke(route, port)),
        (port.clone(), 0_u8..8).prop_map(|(port, id)| Deed::Hear(port, id)),
        (route.clone(), route.clone()).prop_map(|(from, into)| Deed::Adopt(from, into)),
        (route.clone(), 0_u8..8).prop_map(|(address, id)| Deed::Send(address, id)),
        (port, 0_u8..8).prop_map(|(port, id)| Deed::Answer(port, id)),
        route.clone().prop_map(Deed::Keep),
        (route.clone(), route).prop_map(|(route, address)| Deed::SetPrimary(route, address)),
        Just(Deed::RemoveSocket),
        Just(Deed::Wait),
    ];
    prop::collection::vec(deed, 0..120)
}

proptest! {
    #[test]
    fn whatever_happens_the_books_agree(deeds in deeds()) {
        let mut world = World::new();
        let path = |port| path(&format!("192.0.2.1:{port}"));
        for deed in deeds {
            let (table, now) = (&mut world.table, world.now);
            match deed {
                Deed::Open => drop(table.open_route(&[])),
                Deed::Close(route) => table.close_route(RouteId(route)),
                Deed::SetBest(route, port) => drop(table.set_best(RouteId(route), path(port), now)),
                Deed::Admit(route, port) => drop(table.admit(RouteId(route), path(port), now)),
                Deed::Revoke(route, port) => table.revoke(RouteId(route), path(port)),
                Deed::Hear(port, id) => {
                    table.identify(path(port), &initial([id; 8], [2; 8]), now);
                }
                Deed::Adopt(from, into) => table.adopt_stranger(RouteId(from), RouteId(into)),
                Deed::Send(address, id) => {
                    let first = initial([id; 8], [100 + id; 8]);
                    world.send(VirtualAddress(address).to_socket_addr(), &first);
                }
                Deed::Answer(port, id) => {
                    table.identify(path(port), &handshake([100 + id; 8], [2; 8]), now);
                }
                Deed::Keep(route) => table.keep(RouteId(route)),
                Deed::SetPrimary(route, address) => {
                    table.set_primary(RouteId(route), VirtualAddress(address).to_socket_addr());
                }
                Deed::RemoveSocket => table.remove_socket(V4),
                Deed::Wait => world.wait_ms(3_000),
            }
            world.table.routes.assert_consistent();
        }
    }
}
