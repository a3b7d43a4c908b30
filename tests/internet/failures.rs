//! What goes wrong, and what the user is told: a code, a reason, a remedy, in time.

use std::net::SocketAddr;

use p2p_node::{
    dht::memory::Reach,
    failure::{Code, Failure},
    lab::Nat,
    node::{Config, Event, Role, Target},
    service::Service,
    ticket::Ticket,
};
use tokio::time::{Instant, sleep};

use crate::world::{message, ms, run, secs, service, to_service};

/// Panics unless `failure` is of this kind and explains itself.
fn check(failure: &Failure, code: Code) {
    assert_eq!(failure.code, code, "{failure}");
    assert!(!failure.message.is_empty() && !failure.hint.is_empty(), "{failure}");
}

#[test]
fn a_service_that_nobody_serves_is_not_found_within_ten_seconds() {
    run(1, async |mut world| {
        let home = world.behind(Nat::home());
        let client = world.client(&home);
        let began = Instant::now();
        let failure = client.connect().await.unwrap_err();
        assert!(began.elapsed() <= secs(10), "{:?}", began.elapsed());
        check(&failure, Code::PeerNotFound);
        assert!(!failure.why.is_empty(), "{failure}");
    });
}

#[test]
fn without_a_dht_that_answers_the_user_learns_that_it_is_the_dht() {
    run(1, async |mut world| {
        let home = world.behind(Nat::home());
        world.set_dht(Reach::Offline);
        let client = world.client(&home);
        let began = Instant::now();
        let failure = client.connect().await.unwrap_err();
        assert!(began.elapsed() <= secs(10), "{:?}", began.elapsed());
        check(&failure, Code::DhtUnreachable);
    });
}

#[test]
fn where_udp_gets_nowhere_the_user_learns_that_it_is_the_network() {
    run(1, async |mut world| {
        let home = world.behind(Nat::home());
        home.unplug();
        world.set_dht(Reach::Offline);
        let client = world.client(&home);
        let began = Instant::now();
        let failure = client.connect().await.unwrap_err();
        assert!(began.elapsed() <= secs(10), "{:?}", began.elapsed());
        check(&failure, Code::UdpBlocked);
    });
}

/// Whoever is connected stays, and may come back; there is room again when somebody goes.
#[test]
fn a_server_without_room_says_so_at_once() {
    run(1, async |mut world| {
        let home = world.behind(Nat::home());
        let mut config = world.config(Role::Server);
        config.peers_max = 1;
        let mut server = world.start(&home, config);
        server.online().await;
        let (place, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let first = world.client(&place);
        first.connect().await.unwrap();
        let second = world.client(&other);
        let began = Instant::now();
        let failure = second.connect().await.unwrap_err();
        assert!(began.elapsed() <= secs(10), "{:?}", began.elapsed());
        check(&failure, Code::TooManyPeers);
        assert!(failure.code.is_retryable());
        assert_eq!(server.node.peers().await.unwrap().len(), 1);
        let stranger = Target::Peer(world.identity().peer_id());
        let failure = server.node.connect(stranger, None).await.unwrap_err();
        check(&failure, Code::TooManyPeers);
        first.node.shutdown().await;
        second.connect().await.unwrap();
    });
}

#[test]
fn nodes_that_start_while_the_dht_is_away_meet_when_it_is_back() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        world.set_dht(Reach::Offline);
        let mut server = world.server(&home);
        let mut client = world.standing_client(&other);
        sleep(secs(120)).await;
        world.set_dht(Reach::Online);
        let back = Instant::now();
        server.online().await;
        assert_eq!(client.connected().await.peer, server.id());
        assert!(back.elapsed() <= secs(75), "{:?}", back.elapsed());
    });
}

#[test]
fn a_server_that_stops_is_missed_at_once_and_its_successor_found() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let mut server = world.server(&home);
        server.online().await;
        let mut client = world.standing_client(&other);
        client.connected().await;
        drop(server);
        let gone = Instant::now();
        let (failure, will_retry) = client.disconnected().await;
        assert!(gone.elapsed() <= secs(1), "{:?}", gone.elapsed());
        assert_eq!((failure.code, will_retry), (Code::ClosedByPeer, true));
        sleep(secs(30)).await;
        let mut successor = world.server(&home);
        successor.online().await;
        let online = Instant::now();
        assert_eq!(client.connected().await.peer, successor.id());
        assert!(online.elapsed() <= secs(10), "{:?}", online.elapsed());
    });
}

#[test]
fn a_message_that_was_on_its_way_when_the_link_was_lost_may_or_may_not_have_arrived() {
    run(1, async |mut world| {
        let homes = [Nat::home(); 2].map(|nat| world.behind(nat));
        let mut server = world.server(&homes[0]);
        server.online().await;
        let mut client = world.standing_client(&homes[1]);
        client.connected().await;
        homes[0].unplug();
        let sent = client.node.send(Target::Peer(server.id()), message("hello?"), Some(secs(300)));
        let failure = sent.await.unwrap_err();
        check(&failure, Code::DeliveryUnknown);
        assert!(!failure.why.is_empty(), "{failure}");
    });
}

#[test]
fn a_server_that_dies_without_a_word_is_missed_within_a_minute_and_its_successor_found() {
    run(1, async |mut world| {
        let homes = [Nat::home(); 3].map(|nat| world.behind(nat));
        let mut server = world.server(&homes[0]);
        server.online().await;
        let mut client = world.standing_client(&homes[1]);
        client.connected().await;
        homes[0].unplug();
        let (failure, will_retry) = client.disconnected().await;
        assert_eq!((failure.code, will_retry), (Code::ConnectionLost, true));
        let mut successor = world.server(&homes[2]);
        successor.online().await;
        let online = Instant::now();
        assert_eq!(client.connected().await.peer, successor.id());
        assert!(online.elapsed() <= secs(15), "{:?}", online.elapsed());
    });
}

#[test]
fn who_is_not_on_the_list_is_refused_and_who_is_gets_in() {
    run(1, async |mut world| {
        let homes = [Nat::home(); 3].map(|nat| world.behind(nat));
        let listed = world.config(Role::Client);
        let mut config = world.config(Role::Server);
        config.allow.insert(listed.identity.peer_id());
        let mut server = world.start(&homes[0], config);
        server.online().await;
        let stranger = world.client(&homes[1]);
        let began = Instant::now();
        let failure = stranger.connect().await.unwrap_err();
        check(&failure, Code::Refused);
        assert!(began.elapsed() <= secs(3), "{:?}", began.elapsed());
        let listed = world.start(&homes[2], listed);
        listed.connect().await.unwrap();
    });
}

/// The list of a service may name servers that are gone; who was refused by the one that is there must be
/// told so, not that nobody answers.
#[test]
fn a_refusal_is_told_though_the_service_lists_servers_that_are_gone() {
    run(1, async |mut world| {
        let homes = [Nat::home(); 3].map(|nat| world.behind(nat));
        let mut gone = world.server(&homes[0]);
        gone.online().await;
        homes[0].unplug();
        sleep(secs(2)).await;
        let mut config = world.config(Role::Server);
        config.allow.insert(world.identity().peer_id());
        let mut server = world.start(&homes[1], config);
        server.online().await;
        let began = Instant::now();
        check(&world.client(&homes[2]).connect().await.unwrap_err(), Code::Refused);
        // Each of the two has its three seconds, in whichever order.
        assert!(began.elapsed() <= secs(7), "{:?}", began.elapsed());
    });
}

#[test]
fn another_secret_is_another_service() {
    run(1, async |mut world| {
        let homes = [Nat::home(); 3].map(|nat| world.behind(nat));
        let with = |mut config: Config, secret: &[u8]| {
            config.service = Some(Service::private(service().name, secret));
            config
        };
        let config = with(world.config(Role::Server), b"correct horse");
        let mut server = world.start(&homes[0], config);
        server.online().await;
        let config = with(world.config(Role::Client), b"wrong horse");
        let wrong = world.start(&homes[1], config);
        check(&wrong.connect().await.unwrap_err(), Code::PeerNotFound);
        let bare = Target::Peer(server.id());
        let failure = wrong.node.connect(bare, None).await.unwrap_err();
        check(&failure, Code::PeerNotFound);
        let config = with(world.config(Role::Client), b"correct horse");
        let right = world.start(&homes[2], config);
        right.connect().await.unwrap();
    });
}

#[test]
fn a_ticket_leads_to_a_node_without_a_service_and_past_its_list() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let nobody = world.identity().peer_id();
        let mut config = Config::new(world.identity(), Role::Server);
        config.allow.insert(nobody);
        let mut server = world.start(&home, config);
        server.online().await;
        let config = Config::new(world.identity(), Role::Client);
        let client = world.start(&other, config);
        let ticket = Target::Ticket(server.node.ticket().clone());
        let connection = client.node.connect(ticket, None).await.unwrap();
        assert_eq!(connection.peer, server.id());
        let bare = Target::Peer(server.id());
        assert!(client.node.connect(bare, None).await.is_ok(), "linked already");
    });
}

#[test]
fn a_ticket_whose_address_belongs_to_somebody_else_is_no_way_in() {
    run(1, async |mut world| {
        let (public, other) = (world.behind_all(&[]), world.behind(Nat::home()));
        let mut somebody = world.server(&public);
        somebody.online().await;
        let local = somebody.node.status().await.unwrap().local_addresses;
        let expected = world.identity();
        let ticket = Ticket::of(&expected, local);
        let client = world.client(&other);
        let target = Target::Ticket(ticket);
        let failure = client.node.connect(target, None).await.unwrap_err();
        check(&failure, Code::PeerIdentityMismatch);
        let is_linked = |event: &Event| matches!(event, Event::Connected(_));
        assert_eq!((client.count(is_linked), somebody.count(is_linked)), (0, 0));
    });
}

/// The address in a ticket is out of date, another node lives there now: the DHT knows better.
#[test]
fn a_ticket_with_an_outdated_address_is_mended_by_the_dht() {
    run(1, async |mut world| {
        let (public, home) = (world.behind_all(&[]), world.behind(Nat::home()));
        let other = world.behind(Nat::home());
        let mut somebody = world.server(&public);
        somebody.online().await;
        let outdated: Vec<SocketAddr> = somebody.node.status().await.unwrap().local_addresses;
        let config = Config::new(world.identity(), Role::Server);
        let ticket = Ticket::of(&config.identity, outdated);
        let mut server = world.start(&home, config);
        server.online().await;
        let client = world.client(&other);
        let target = Target::Ticket(ticket);
        let connection = client.node.connect(target, None).await.unwrap();
        assert_eq!(connection.peer, server.id());
    });
}

#[test]
fn nobody_connects_to_himself() {
    run(1, async |mut world| {
        let home = world.behind(Nat::home());
        let mut server = world.server(&home);
        server.online().await;
        let own = [Target::Peer(server.id()), Target::Ticket(server.node.ticket().clone())];
        for target in own {
            let failure = server.node.connect(target, None).await.unwrap_err();
            check(&failure, Code::SelfConnect);
        }
        // Of its own service it looks for other servers, and there are none.
        let failure = server.connect().await.unwrap_err();
        check(&failure, Code::PeerNotFound);
    });
}

#[test]
fn a_message_over_the_limit_is_refused_and_the_next_one_arrives() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let mut server = world.server(&home);
        server.online().await;
        let client = world.client(&other);
        let mut large = message("large");
        large.payload = vec![7; (16 << 20) + 1].into();
        let failure = client.node.send(to_service(), large, None).await;
        check(&failure.unwrap_err(), Code::MessageTooLarge);
        client.say(to_service(), "small").await.unwrap();
        assert_eq!(server.message().await.1.id, "small");
    });
}

#[test]
fn five_mebibytes_cross_intact_while_every_seventh_datagram_is_lost() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        home.change_uplink(|link| link.loss = 0.15);
        let mut server = world.server(&home);
        server.online().await;
        let client = world.client(&other);
        let mut large = message("large");
        let payload: Vec<u8> = (0..5 << 20).map(|index: u32| index.to_be_bytes()[3]).collect();
        large.payload = payload.clone().into();
        let began = Instant::now();
        let sent = client.node.send(to_service(), large, Some(secs(1_200)));
        let received = server.message_within(secs(1_200));
        let (sent, (_, received)) = tokio::join!(sent, received);
        sent.unwrap();
        assert!(received.payload == payload, "intact");
        println!("5 MiB in {} s", began.elapsed().as_secs());
    });
}

/// One link remains, the same on both sides, whatever the order in which the two came up.
#[test]
fn two_servers_that_dial_each_other_at_once_keep_one_link() {
    for (seed, later) in (1..).zip([0, 1, 30, 60, 200, 500]) {
        run(seed, async |mut world| {
            let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
            let (mut one, mut two) = (world.server(&home), world.server(&other));
            one.online().await;
            two.online().await;
            let (to_one, to_two) = (Target::Peer(one.id()), Target::Peer(two.id()));
            let dial_later = async {
                sleep(ms(later)).await;
                two.node.connect(to_one.clone(), None).await
            };
            let (first, second) = tokio::join!(one.node.connect(to_two.clone(), None), dial_later);
            first.unwrap();
            second.unwrap();
            sleep(secs(1)).await;
            let settled = Instant::now();
            for index in 0..50 {
                one.say(to_two.clone(), &format!("{index}")).await.unwrap();
                two.say(to_one.clone(), &format!("{index}")).await.unwrap();
                sleep(secs(1)).await;
            }
            for (peer, other) in [(&one, &two), (&two, &one)] {
                let peers = peer.node.peers().await.unwrap();
                assert_eq!(peers.len(), 1);
                assert_eq!(peers[0].connection.peer, other.id());
                let flapped = peer.events().into_iter().filter(|(at, event)| {
                    let changes = matches!(event, Event::Connected(_) | Event::Disconnected { .. });
                    *at > settled && changes
                });
                assert_eq!(flapped.count(), 0);
                let lost = |event: &Event| matches!(event, Event::Disconnected { .. });
                assert_eq!(peer.count(lost), 0, "a link that is replaced is not lost");
            }
            let direction =
                |peers: Vec<p2p_node::node::event::PeerStatus>| peers[0].connection.direction;
            assert_ne!(
                direction(one.node.peers().await.unwrap()),
                direction(two.node.peers().await.unwrap())
            );
        });
    }
}

#[test]
fn of_several_servers_a_living_one_is_reached_although_the_freshest_is_dead() {
    run(1, async |mut world| {
        let homes = [Nat::home(); 4].map(|nat| world.behind(nat));
        let mut living = world.server(&homes[0]);
        living.online().await;
        let mut dead = Vec::new();
        for home in &homes[1..3] {
            sleep(secs(1)).await;
            let mut server = world.server(home);
            server.online().await;
            home.unplug();
            dead.push(server);
        }
        let client = world.client(&homes[3]);
        let began = Instant::now();
        let connection = client.connect().await.unwrap();
        assert_eq!(connection.peer, living.id());
        println!("linked after {} ms", began.elapsed().as_millis());
        assert!(began.elapsed() <= secs(12), "{:?}", began.elapsed());
    });
}

#[test]
fn a_client_that_restarts_takes_the_place_of_its_former_self() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let mut server = world.server(&home);
        server.online().await;
        let config = world.config(Role::Client);
        let client = world.start(&other, config.clone());
        client.say(to_service(), "before").await.unwrap();
        // It dies without a word: its farewell is lost.
        other.host.unplug();
        drop(client);
        sleep(secs(3)).await;
        other.host.plug_in();
        let mut client = world.start(&other, config);
        let began = Instant::now();
        client.say(to_service(), "after").await.unwrap();
        assert!(began.elapsed() <= secs(5), "{:?}", began.elapsed());
        server.say(Target::Peer(client.id()), "welcome back").await.unwrap();
        assert_eq!(client.message().await.1.id, "welcome back");
        assert_eq!(server.node.peers().await.unwrap().len(), 1);
    });
}
