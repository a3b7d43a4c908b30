//! What a user lives through, one story each.

use p2p_node::{lab::Nat, node::Target};
use tokio::time::Instant;

use crate::world::{run, secs, to_service};

#[test]
fn two_homes_find_each_other_by_service_name_and_talk_both_ways() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let mut server = world.server(&home);
        server.online().await;
        let mut client = world.client(&other);

        let receipt = client.say(to_service(), "hello").await.unwrap();
        assert_eq!(receipt.peer, Some(server.id()));
        let (from, message) = server.message().await;
        assert_eq!((from, &*message.payload), (client.id(), &b"hello"[..]));

        server.say(Target::Peer(client.id()), "hello yourself").await.unwrap();
        let (from, message) = client.message().await;
        assert_eq!((from, &*message.payload), (server.id(), &b"hello yourself"[..]));
    });
}

#[test]
fn stopping_takes_no_longer_than_saying_goodbye() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let mut server = world.server(&home);
        server.online().await;
        let client = world.client(&other);
        client.say(to_service(), "hello").await.unwrap();
        for node in [&client.node, &server.node] {
            let before = Instant::now();
            node.shutdown().await;
            assert!(before.elapsed() < secs(2), "{:?}", before.elapsed());
        }
    });
}
