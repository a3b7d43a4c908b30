//! Nodes on one local network: they meet there, with or without an internet, whatever their router does.

use p2p_node::{
    dht::memory::Reach,
    failure::Code,
    lab::Nat,
    node::{Role, Target, event::PathKind},
    service::Service,
};
use tokio::time::{Instant, sleep};

use crate::{
    multicast::Multicast,
    world::{Home, World, ms, run, secs},
};

/// A network that leads nowhere: two hosts.
fn island(world: &mut World) -> [Home; 2] {
    world.lan = Some(Multicast::default());
    world.set_dht(Reach::Offline);
    let home = world.behind(Nat::home());
    home.unplug();
    let other = world.neighbour_of(&home);
    [home, other]
}

#[test]
fn without_an_internet_a_service_is_found_within_a_second() {
    run(1, async |mut world| {
        let [here, there] = island(&mut world);
        let _server = world.server(&here);
        let client = world.client(&there);
        let began = Instant::now();
        let connection = client.connect().await.unwrap();
        println!("found and linked after {:?}", began.elapsed());
        assert!(began.elapsed() < secs(1));
        assert_eq!(connection.path.kind, PathKind::Lan);
        assert_eq!(connection.path.remote.ip(), here.host.addresses()[0]);
    });
}

/// A server that comes later is heard by a client that waits for it.
#[test]
fn a_server_that_comes_later_and_a_peer_id_are_found_too() {
    run(1, async |mut world| {
        let [here, there] = island(&mut world);
        let config = world.config(Role::Server);
        let id = config.identity.peer_id();
        let client = world.client(&there);
        let dial = client.node.connect(Target::Peer(id), None);
        let start = async {
            sleep(secs(3)).await;
            world.start(&here, config)
        };
        let (connected, _server) = tokio::join!(dial, start);
        assert_eq!(connected.unwrap().path.kind, PathKind::Lan);
    });
}

/// On a network that has an internet, too, nobody waits for the DHT.
#[test]
fn with_an_internet_the_short_way_is_taken_at_once() {
    for hairpin in [false, true] {
        run(1, async |mut world| {
            world.lan = Some(Multicast::default());
            let home = world.behind(Nat { hairpin, ..Nat::home() });
            let other = world.neighbour_of(&home);
            let mut server = world.server(&home);
            server.online().await;
            let client = world.client(&other);
            let connection = client.connect().await.unwrap();
            assert_eq!(connection.path.kind, PathKind::Lan, "hairpin: {hairpin}");
            assert!(connection.rtt <= ms(10), "hairpin: {hairpin}: {connection:?}");
        });
    }
}

/// Without multicast, as many Wi-Fi networks are: the addresses in the record are enough.
#[test]
fn behind_one_nat_local_addresses_are_used_whether_it_turns_datagrams_back_or_not() {
    for hairpin in [false, true] {
        run(1, async |mut world| {
            let home = world.behind(Nat { hairpin, ..Nat::home() });
            let other = world.neighbour_of(&home);
            let mut server = world.server(&home);
            server.online().await;
            let client = world.client(&other);
            let connection = client.connect().await.unwrap();
            // A link may begin by way of the router, and moves when the local way has answered.
            sleep(secs(2)).await;
            let peers = client.node.peers().await.unwrap();
            let path = peers[0].connection.path;
            assert_eq!(path.kind, PathKind::Lan, "hairpin: {hairpin}: {connection:?}");
            assert_eq!(path.remote.ip(), home.host.addresses()[0]);
        });
    }
}

#[test]
fn who_is_announced_under_another_name_is_sent_nothing() {
    run(1, async |mut world| {
        let [here, there] = island(&mut world);
        let mut config = world.config(Role::Server);
        config.service = Some(Service::open("another:v1".parse().unwrap()));
        let _server = world.start(&here, config);
        let client = world.client(&there);
        let failure = client.connect().await.unwrap_err();
        assert_eq!(failure.code, Code::UdpBlocked, "{failure:?}");
        let sent_to = there.host.destinations();
        assert!(sent_to.iter().all(|to| to.ip() != here.host.addresses()[0]), "{sent_to:?}");
    });
}
