//! What a user lives through, one story each.

use p2p_node::{lab::Nat, node::Target};

use crate::world::{run, to_service};

#[test]
fn two_homes_find_each_other_by_service_name_and_talk_both_ways() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let mut server = world.server(&home);
        server.online().await;
        let mut client = world.client(&other);

        let receipt = client.say(to_service(), "hello").await.unwrap();
        assert_eq!(receipt.peer, server.id());
        let (from, message) = server.message().await;
        assert_eq!((from, &*message.payload), (client.id(), &b"hello"[..]));

        server
            .say(Target::Peer(client.id()), "hello yourself")
            .await
            .unwrap();
        let (from, message) = client.message().await;
        assert_eq!(
            (from, &*message.payload),
            (server.id(), &b"hello yourself"[..])
        );
    });
}
