//! What users are told of a connection: what is tried and why, how much is lost, and since when.

use std::collections::BTreeSet;

use p2p_node::{
    lab::{Nat, Ports},
    node::{
        Event, Target,
        event::{PeerStatus, Strategy},
    },
};
use tokio::time::sleep;

use crate::{
    peer::Peer,
    world::{ms, run, secs},
};

/// The only connected peer.
async fn status(of: &Peer) -> PeerStatus {
    let mut peers = of.node.peers().await.unwrap();
    assert_eq!(peers.len(), 1);
    peers.remove(0)
}

/// What was tried, each with a reason.
fn strategies(of: &Peer) -> BTreeSet<Strategy> {
    let chosen = |event| match event {
        Event::Progress { chosen: Some(chosen), detail, .. } => {
            assert!(!chosen.why.is_empty() && detail.ends_with(&chosen.why), "{chosen:?}");
            Some(chosen.strategy)
        }
        _ => None,
    };
    of.events().into_iter().filter_map(|(_, event)| chosen(event)).collect()
}

#[test]
fn both_sides_say_what_they_try_each_in_its_own_word() {
    run(1, async |mut world| {
        let home = world.behind(Nat::symmetric(Ports::Sequential { step: 1 }));
        let mut server = world.server(&home);
        server.online().await;
        let other = world.behind(Nat::home());
        let client = world.client(&other);
        sleep(secs(2)).await;
        client.connect().await.unwrap();
        use Strategy::{Crowd, Direct, GuessedPorts, Simultaneous};
        assert_eq!(strategies(&client), [Direct, Simultaneous, GuessedPorts].into());
        assert_eq!(strategies(&server), [Direct, Simultaneous, Crowd].into());
    });
}

#[test]
fn where_nothing_helps_that_is_said_too() {
    run(1, async |mut world| {
        let homes = [(); 2].map(|()| world.behind(Nat::symmetric(Ports::Random)));
        let mut server = world.server(&homes[0]);
        server.online().await;
        let client = world.client(&homes[1]);
        sleep(secs(2)).await;
        client.connect().await.unwrap_err();
        assert!(strategies(&client).contains(&Strategy::None), "{:?}", strategies(&client));
    });
}

#[test]
fn the_list_shows_what_is_lost_now_and_not_what_was_lost_before() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let mut server = world.server(&home);
        server.online().await;
        let client = world.client(&other);
        client.connect().await.unwrap();
        let talk = async |seconds: u64| {
            for number in 0..4 * seconds {
                // What becomes of it is told elsewhere.
                let _ = client.say(Target::Peer(server.id()), &number.to_string()).await;
                sleep(ms(250)).await;
            }
        };
        talk(5).await;
        assert_eq!(status(&client).await.loss, Some(0.0));
        other.change_uplink(|link| link.loss = 0.2);
        talk(60).await;
        let loss = status(&client).await.loss.unwrap();
        println!("{loss} of the packets were lost while every fifth datagram was");
        assert!((0.1..0.3).contains(&loss), "{loss}");
        other.change_uplink(|link| link.loss = 0.0);
        talk(90).await;
        assert_eq!(status(&client).await.loss, Some(0.0));
    });
}

#[test]
fn a_path_is_as_old_as_its_last_change_and_a_link_as_its_begin() {
    run(1, async |mut world| {
        let (home, other) =
            (world.behind(Nat::address_restricted()), world.behind(Nat::address_restricted()));
        let mut server = world.server(&home);
        server.online().await;
        let client = world.client(&other);
        client.connect().await.unwrap();
        sleep(secs(30)).await;
        let before = status(&server).await;
        assert_eq!(before.path_for, before.connected_for);
        other.outermost().forget_mappings();
        client.say(Target::Peer(server.id()), "from another port").await.unwrap();
        sleep(secs(5)).await;
        let after = status(&server).await;
        assert_ne!(after.connection.path.remote, before.connection.path.remote);
        assert!(after.connected_for >= secs(35), "{after:?}");
        assert!((secs(4)..secs(6)).contains(&after.path_for), "{after:?}");
    });
}
