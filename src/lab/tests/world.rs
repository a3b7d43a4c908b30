//! Hosts, links and routers as tests see them.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::timeout;

use super::{at, in_virtual_time};
use crate::lab::{
    Fate, Filtering, Host, Internet, LabSocket, Nat, Ports, Seed, Verdict,
    network::Network,
    sockets::{Binding, SocketId},
    topology::Place,
};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What a socket hears within a second, from whom.
async fn hear(socket: &LabSocket) -> Option<(String, String)> {
    let (bytes, from) = timeout(ms(1_000), socket.recv_from()).await.ok()?;
    Some((String::from_utf8(bytes).unwrap(), from.to_string()))
}

fn said(text: &str, from: &str) -> Option<(String, String)> {
    Some((text.to_owned(), from.to_owned()))
}

#[test]
fn a_round_trip_takes_the_sum_of_the_delays() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        world.set_core_delay_ms(25);
        let server = world.host("198.51.100.7").delay_ms(5).bind(3478);
        let home = world.router(Nat::home(), "203.0.113.1").delay_ms(8);
        let alice = home.host("192.168.1.2").delay_ms(2).bind(5000);

        alice.send_to(at("198.51.100.7:3478"), b"hello");
        assert_eq!(hear(&server).await, said("hello", "203.0.113.1:5000"));
        assert_eq!(world.elapsed(), ms(40));
        server.send_to(at("203.0.113.1:5000"), b"hi");
        assert_eq!(hear(&alice).await, said("hi", "198.51.100.7:3478"));
        assert_eq!(world.elapsed(), ms(80));
    });
}

#[test]
fn lan_neighbours_meet_on_private_addresses_without_leaving_home() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let home = world.router(Nat::home(), "203.0.113.1");
        let alice = home.host("192.168.1.2").bind(5000);
        let bob = home.host("192.168.1.3").bind(5000);
        alice.send_to(at("192.168.1.3:5000"), b"hello");
        assert_eq!(hear(&bob).await, said("hello", "192.168.1.2:5000"));
        assert_eq!(world.elapsed(), ms(2));
    });
}

#[test]
fn a_host_behind_two_nats_is_seen_from_the_outer_one() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let server = world.host("198.51.100.7").bind(3478);
        let carrier = world.router(Nat::home(), "203.0.113.1");
        let flat = carrier.router(Nat::home(), "100.64.0.9");
        let alice = flat.host("192.168.1.2").bind(5000);
        let neighbour = carrier.host("100.64.0.10").bind(5000);

        alice.send_to(at("198.51.100.7:3478"), b"hello");
        assert_eq!(hear(&server).await, said("hello", "203.0.113.1:5000"));
        server.send_to(at("203.0.113.1:5000"), b"hi");
        assert_eq!(hear(&alice).await, said("hi", "198.51.100.7:3478"));
        alice.send_to(at("100.64.0.10:5000"), b"over here");
        assert_eq!(hear(&neighbour).await, said("over here", "100.64.0.9:5000"));
    });
}

#[test]
fn a_restart_of_the_nat_shows_another_port_and_a_new_address_another_address() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let server = world.host("198.51.100.7").bind(3478);
        let home = world.router(Nat::home(), "203.0.113.1");
        let alice = home.host("192.168.1.2").bind(5000);
        let mut seen_from = Vec::new();
        let changes: [&dyn Fn(); 3] =
            [&|| {}, &|| home.forget_mappings(), &|| home.change_public_address("203.0.113.99")];
        for change in changes {
            change();
            alice.send_to(at("198.51.100.7:3478"), b"hello");
            seen_from.push(hear(&server).await.unwrap().1);
        }
        assert_eq!(seen_from, ["203.0.113.1:5000", "203.0.113.1:5001", "203.0.113.99:5000"]);
    });
}

#[test]
fn a_host_takes_its_open_sockets_along_when_it_moves() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let server = world.host("198.51.100.7").bind(3478);
        let home = world.router(Nat::home(), "203.0.113.1");
        let cafe = world.router(Nat::home(), "203.0.113.2");
        let alice = home.host("192.168.1.2");
        let roaming = alice.bind(5000);
        let fixed = alice.bind_address("192.168.1.2", 6000);

        alice.move_behind(&cafe, "10.0.0.2");
        assert_eq!(alice.addresses(), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        roaming.send_to(at("198.51.100.7:3478"), b"moved");
        assert_eq!(hear(&server).await, said("moved", "203.0.113.2:5000"));
        fixed.send_to(at("198.51.100.7:3478"), b"lost");
        assert_eq!(hear(&server).await, None);
        assert_eq!(alice.counters().count(Fate::NoSource), 1);
    });
}

#[test]
fn unplugged_blocked_and_too_big_datagrams_are_counted_and_not_delivered() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let (alice, bob) = (world.host("198.51.100.1"), world.host("198.51.100.2"));
        let (from, to) = (alice.bind(1), bob.bind(2));
        let send = |length: usize| from.send_to(at("198.51.100.2:2"), &vec![b'x'; length]);

        bob.unplug();
        send(1);
        assert_eq!(hear(&to).await, None);
        bob.plug_in();
        world.block(&bob, &alice);
        send(1);
        assert_eq!(hear(&to).await, None);
        world.unblock(&alice, &bob);
        send(1_473);
        assert_eq!(hear(&to).await, None);
        send(1_472);
        assert!(hear(&to).await.is_some());
        bob.change_link(|link| link.mtu = 1_400);
        send(1_472);
        assert_eq!(hear(&to).await, None);

        let counters = alice.counters();
        let fates = [Fate::LinkDown, Fate::Blocked, Fate::TooBig].map(|fate| counters.count(fate));
        assert_eq!(fates, [1, 1, 2]);
        assert_eq!((counters.sent, counters.dropped()), (5, 4));
        assert_eq!(bob.counters().received, 1);
    });
}

#[test]
fn an_ipv6_host_is_reached_through_its_firewall_only_after_it_has_sent() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let server = world.host("2001:db8:1::7").bind(3478);
        let firewall = world.firewall(Filtering::AddressAndPortDependent);
        let alice = firewall.host("2001:db8:2::2").bind(5000);

        server.send_to(at("[2001:db8:2::2]:5000"), b"early");
        assert_eq!(hear(&alice).await, None);
        alice.send_to(at("[2001:db8:1::7]:3478"), b"hello");
        assert_eq!(hear(&server).await, said("hello", "[2001:db8:2::2]:5000"));
        server.send_to(at("[2001:db8:2::2]:5000"), b"hi");
        assert_eq!(hear(&alice).await, said("hi", "[2001:db8:1::7]:3478"));
    });
}

#[test]
fn one_socket_serves_both_families_and_several_addresses() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let server = world.host("198.51.100.7").address("198.51.100.8");
        let (first, second) =
            (server.bind_address("198.51.100.7", 3478), server.bind_address("198.51.100.8", 3478));
        let router = world.router(Nat::home(), "203.0.113.1");
        let alice = router.host("192.168.1.2").address("2001:db8:2::2").bind(0);
        let other = world.host("2001:db8:1::7").bind(1);

        alice.send_to(at("198.51.100.7:3478"), b"a");
        alice.send_to(at("198.51.100.8:3478"), b"b");
        alice.send_to(at("[2001:db8:1::7]:1"), b"c");
        assert_eq!(hear(&first).await, said("a", "203.0.113.1:49152"));
        assert_eq!(hear(&second).await, said("b", "203.0.113.1:49152"));
        assert_eq!(hear(&other).await, said("c", "[2001:db8:2::2]:49152"));
    });
}

#[test]
fn strangers_are_the_addresses_that_nobody_gave_us() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let alice = world.host("198.51.100.1");
        let socket = alice.bind(1);
        socket.send_to(at("198.51.100.2:2"), b"known");
        socket.send_to(at("198.51.100.3:3"), b"unknown");
        let known = BTreeSet::from([IpAddr::from([198, 51, 100, 2])]);
        assert_eq!(alice.strangers(&known), BTreeSet::from([at("198.51.100.3:3")]));
    });
}

/// Sends numbered datagrams over a bad link; returns the digest and what arrived.
fn over_a_bad_link(seed: u64) -> (u64, Vec<usize>) {
    in_virtual_time(async {
        let world = Internet::new(Seed(seed));
        world.record_trace();
        let bob = world.host("198.51.100.2");
        bob.change_link(|link| (link.loss, link.jitter_ms) = (0.25, 40));
        let to = bob.bind(2);
        let from = world.host("198.51.100.1").bind(1);
        for length in 1..=400 {
            from.send_to(at("198.51.100.2:2"), &vec![0; length]);
        }
        let mut arrived = Vec::new();
        while let Ok((bytes, _)) = timeout(ms(500), to.recv_from()).await {
            arrived.push(bytes.len());
        }
        assert_eq!(world.trace().rows().len(), 400);
        (world.digest(), arrived)
    })
}

#[test]
fn loss_and_jitter_follow_the_seed() {
    let (digest, arrived) = over_a_bad_link(3);
    assert_eq!((digest, arrived.clone()), over_a_bad_link(3));
    assert_ne!(digest, over_a_bad_link(4).0);
    assert!((250..350).contains(&arrived.len()), "{}", arrived.len());
    assert!(!arrived.is_sorted(), "jitter lets datagrams overtake");
}

/// The number changes with `rand`'s generator, with the defaults of links, and with what rows hold.
#[test]
fn a_digest_is_the_same_in_every_process() {
    assert_eq!(over_a_bad_link(3).0, 2_109_004_363_527_256_009);
}

#[test]
fn a_receive_queue_has_an_end() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let alice = world.host("198.51.100.1");
        let socket = alice.bind(1);
        let _deaf = world.host("198.51.100.2").bind(2);
        for _ in 0..5_000 {
            socket.send_to(at("198.51.100.2:2"), b"hello");
        }
        tokio::time::sleep(ms(1_000)).await;
        assert_eq!(alice.counters().count(Fate::QueueFull), 5_000 - 4_096);
    });
}

#[test]
fn the_driver_ends_with_the_last_handle() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let socket = world.host("198.51.100.1").bind(1);
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        drop(world);
        tokio::task::yield_now().await;
        assert_eq!(tasks(), 1, "a socket still needs it");
        drop(socket);
        tokio::task::yield_now().await;
        assert_eq!(tasks(), 0);
    });
}

/// A hundred hosts behind ten NATs send a hundred thousand datagrams to one server.
#[test]
fn a_hundred_thousand_datagrams_move_fast() {
    let mut network = Network::new(1);
    let mut draw = StdRng::seed_from_u64(1);
    let (server, senders) = crowd(&mut network);
    let mut received = 0;
    for tick in 0..1_000 {
        let now = ms(tick);
        for _ in 0..100 {
            let sender = senders[draw.random_range(0..senders.len())];
            network.handle_send(sender, None, at("198.51.100.7:1"), vec![7; 100], now);
        }
        network.handle_timeout(now);
        received += std::iter::from_fn(|| network.sockets.receive(server)).count();
    }
    network.handle_timeout(ms(2_000));
    received += std::iter::from_fn(|| network.sockets.receive(server)).count();
    assert_eq!(received, 100_000);
}

fn crowd(network: &mut Network) -> (SocketId, Vec<SocketId>) {
    let bind = |network: &mut Network, place, address: [u8; 4]| {
        let host = network.add_host(place, vec![address.into()]);
        network.sockets.bind(Binding { host, address: None, port: 1 })
    };
    let server = bind(network, Place::Public, [198, 51, 100, 7]);
    let mut senders = Vec::new();
    for home in 0..10 {
        let public = IpAddr::from([203, 0, 113, home]);
        let nat = Nat::symmetric(Ports::Random);
        let router = network.add_router(Place::Public, nat, vec![public]);
        for host in 0..10 {
            senders.push(bind(network, Place::Behind(router), [10, 0, home, host]));
        }
    }
    (server, senders)
}

#[test]
fn a_world_knows_its_verdicts_as_it_stands() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let home = world.router(Nat::home(), "203.0.113.1");
        let office = world.router(Nat::symmetric(Ports::Random), "203.0.113.2");
        let (alice, bob) = (home.host("192.168.1.2"), office.host("10.0.0.2"));
        assert_eq!(world.verdict(&alice, &bob), Verdict::NeedsBirthday);
        bob.move_behind(&home, "192.168.1.3");
        assert_eq!(world.verdict(&alice, &bob), Verdict::Plain);
    });
}

#[test]
fn the_lab_runs_in_real_time_too() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = Internet::new(Seed(1));
        let server = world.host("198.51.100.7").bind(1);
        let client = world.host("198.51.100.8").bind(1);
        client.send_to(server.local_endpoint(), b"hello");
        assert_eq!(hear(&server).await, said("hello", "198.51.100.8:1"));
        assert!(world.elapsed() >= ms(30));
    });
}

#[test]
fn handles_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Internet>();
    shared::<Host>();
}
