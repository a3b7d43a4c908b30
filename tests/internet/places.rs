//! Where nodes live, beyond a pair of simple NATs: punishing routers, carriers, shared networks, public
//! hosts, IPv6.

use p2p_node::{
    failure::Code,
    lab::{Filtering, Nat, Ports, Verdict},
    node::event::{Connection, PathKind, Stage},
};
use tokio::time::{Instant, sleep};

use crate::{
    matrix::dial,
    world::{Home, World, ms, run, secs},
};

/// Dials, and panics unless the oracle agrees and a link came up.
async fn link(world: &mut World, client: &Home, server: &Home) -> Connection {
    let verdict = world.internet.verdict(&client.host, &server.host);
    assert_eq!(verdict, Verdict::Plain);
    dial(world, client, server).await.result.unwrap()
}

/// The server sends only after it has heard of the client, so nothing reaches the client's router early.
#[test]
fn a_client_behind_a_router_that_punishes_early_datagrams_is_linked() {
    run(1, async |mut world| {
        let (client, server) = (world.behind(Nat::linux()), world.behind(Nat::home()));
        let connection = link(&mut world, &client, &server).await;
        assert_eq!(connection.path.kind, PathKind::Direct);
    });
}

/// The client's first probes reach the server's router before the server has read the offer, and that router then
/// leads the server's through another port, or lets nothing pass. The second offer names a port of the client
/// that the router has not heard of, and nothing leaves it that gets so far, until the server is heard.
#[test]
fn a_server_behind_a_router_that_punishes_early_datagrams_is_linked() {
    for router in [Nat::linux(), Nat::refusing()] {
        for nat in
            [Nat::home(), Nat::linux(), Nat::refusing(), Nat::cgnat(), Nat::address_restricted()]
        {
            for seed in 1..=3 {
                let (took, told) = run(seed, async |mut world| {
                    let (client, server) = (world.behind(nat), world.behind(router));
                    let verdict = world.internet.verdict(&client.host, &server.host);
                    assert_eq!(verdict, Verdict::Plain);
                    let trial = dial(&mut world, &client, &server).await;
                    trial.result.unwrap();
                    (trial.link.unwrap(), trial.datagrams)
                });
                println!(
                    "{nat:?} to {router:?}: linked {took:?} after the offer was read, {told:?}"
                );
                assert!(took <= secs(3), "{took:?}");
            }
        }
    }
}

#[test]
fn two_homes_behind_carriers_of_their_own_are_linked() {
    run(1, async |mut world| {
        let chain = [Nat::home(), Nat::cgnat()];
        let (client, server) = (world.behind_all(&chain), world.behind_all(&chain));
        let connection = link(&mut world, &client, &server).await;
        assert_eq!(connection.path.kind, PathKind::Direct);
    });
}

/// Two homes inside one carrier's network: their candidates are the carrier's public address, which only a
/// hairpinning carrier turns back, and private addresses that mean nothing to each other.
fn neighbours_of_one_carrier(world: &mut World, carrier: Nat) -> (Home, Home) {
    let address = world.public_address();
    let carrier = world.internet.router(carrier, address);
    let home = |number: u8| {
        let outside = std::net::IpAddr::from([100, 64, 0, number]);
        let router = carrier.router(Nat::home(), outside);
        let host = router.host(std::net::IpAddr::from([192, 168, number, 2]));
        Home::new(host, vec![router, carrier.clone()])
    };
    (home(1), home(2))
}

#[test]
fn two_homes_behind_one_carrier_that_hairpins_are_linked() {
    run(1, async |mut world| {
        let carrier = Nat { hairpin: true, ..Nat::cgnat() };
        let (client, server) = neighbours_of_one_carrier(&mut world, carrier);
        link(&mut world, &client, &server).await;
    });
}

#[test]
fn two_homes_behind_one_carrier_that_does_not_hairpin_are_told_why_there_is_no_link() {
    run(1, async |mut world| {
        let (client, server) = neighbours_of_one_carrier(&mut world, Nat::cgnat());
        let trial = dial(&mut world, &client, &server).await;
        let verdict = world.internet.verdict(&client.host, &server.host);
        assert_eq!(verdict, Verdict::Impossible);
        let failure = trial.result.unwrap_err();
        assert_eq!(failure.code, Code::PunchTimeout);
        assert!(failure.why.contains("does not turn back"), "{failure}");
        assert!(failure.hint.contains("local network"), "{failure}");
    });
}

#[test]
fn two_hosts_in_one_network_are_linked_inside_it() {
    run(1, async |mut world| {
        let client = world.behind(Nat::home());
        let server = world.neighbour_of(&client);
        let connection = link(&mut world, &client, &server).await;
        assert_eq!(connection.path.kind, PathKind::Lan);
        assert_eq!(connection.path.remote.ip(), server.host.addresses()[0]);
    });
}

/// No offer is waited for: the first packet of QUIC finds the server, and a client in its way takes no
/// longer than a round trip.
#[test]
fn a_public_server_is_linked_one_round_trip_after_its_record_is_found() {
    let random = Nat::symmetric(Ports::Random);
    for client in [None, Some(Nat::home()), Some(Nat::cgnat()), Some(random)] {
        run(1, async |mut world| {
            let client = world.behind_all(client.as_slice());
            let home = world.behind_all(&[]);
            let mut server = world.server(&home);
            server.online().await;
            let dialler = world.client(&client);
            sleep(secs(1)).await;
            let connection = dialler.connect().await.unwrap();
            let resolved = dialler.stage(Stage::Resolve).unwrap();
            let linked = dialler.stage(Stage::Link).unwrap();
            assert_eq!(linked - resolved, connection.rtt);
            assert_eq!(connection.path.remote.ip(), home.host.addresses()[0]);
            let nat = server.node.status().await.unwrap().nat;
            assert!(nat.ends_with("no NAT"), "{nat}");
        });
    }
}

#[test]
fn a_client_without_a_nat_is_linked_to_any_home() {
    for nat in [Nat::home(), Nat::symmetric(Ports::Random)] {
        run(1, async |mut world| {
            let (client, server) = (world.behind_all(&[]), world.behind(nat));
            link(&mut world, &client, &server).await;
        });
    }
}

#[test]
fn firewalls_before_ipv6_are_opened_and_beat_hopeless_ipv4() {
    run(1, async |mut world| {
        let home = |world: &mut World, v6: &str| {
            let home = world.behind(Nat::symmetric(Ports::Random));
            let host = home.host.clone().address(v6);
            Home { host, ..home }
        };
        let client = home(&mut world, "2001:db8:a::2");
        let server = home(&mut world, "2001:db8:b::2");
        let connection = link(&mut world, &client, &server).await;
        assert!(connection.path.remote.is_ipv6(), "{connection:?}");
        assert_eq!(connection.path.kind, PathKind::Direct);
    });
}

#[test]
fn hosts_with_ipv6_only_meet_through_their_firewalls() {
    run(1, async |mut world| {
        let home = |world: &mut World, address: &str| {
            let router = world.internet.firewall(Filtering::AddressAndPortDependent);
            Home::new(router.host(address), vec![router])
        };
        let client = home(&mut world, "2001:db8:a::2");
        let server = home(&mut world, "2001:db8:b::2");
        let connection = link(&mut world, &client, &server).await;
        assert!(connection.path.remote.is_ipv6(), "{connection:?}");
    });
}

/// A node that starts without a network finds its addresses when there is one, and both sides talk.
#[test]
fn a_host_that_gets_its_network_late_is_found_all_the_same() {
    run(1, async |mut world| {
        let (client, server) = (world.behind(Nat::home()), world.behind(Nat::home()));
        server.unplug();
        let mut listener = world.server(&server);
        sleep(secs(3)).await;
        server.plug_in();
        let plugged = Instant::now();
        listener.online().await;
        assert!(plugged.elapsed() < secs(15));
        let dialler = world.client(&client);
        dialler.connect().await.unwrap();
        sleep(ms(100)).await;
    });
}
