//! From a dial to a link: round trips, identities, admission.

use std::collections::BTreeSet;

use super::*;
use crate::{
    entropy::Entropy, probe::Side, probe::Transaction, probe::Urgency,
    transport::quic::HANDSHAKES_MAX,
};

fn only(peers: &[u8], keys: &[Key]) -> Caller {
    Caller::Unknown(Admission::Only {
        peers: peers.iter().map(|&seed| identity(seed).peer_id()).collect(),
        keys: keys.to_vec(),
    })
}

fn announced(seed: u8) -> Caller {
    Caller::Announced(identity(seed).peer_id())
}

fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

fn refused<T>(reason: &str) -> Result<T, LinkError> {
    Err(LinkError::Refused { reason: reason.to_owned() })
}

/// When the dialler and the acceptor were up, in milliseconds, or why they were not.
async fn attempt(caller: Caller, dial: Dial) -> (Result<u128, LinkError>, Result<u128, LinkError>) {
    let world = World::new();
    let accepting = world.bob_accepts(caller);
    let (alice, alice_at) = world.alice_dials(dial).await;
    let (bob, bob_at) = accepting.await.unwrap();
    // A dialler that was told welcome early may learn later that it is not.
    let alice = match alice {
        Ok(alice) if bob.is_err() => Err(alice.closed().await),
        other => other.map(|_| alice_at),
    };
    (alice, bob.map(|_| bob_at))
}

#[tokio::test(start_paused = true)]
async fn the_dialler_is_up_after_one_round_trip_where_anyone_is_welcome() {
    assert_eq!(attempt(anyone(), dial(BOB, &[])).await, (Ok(100), Ok(150)));
}

#[tokio::test(start_paused = true)]
async fn the_dialler_is_up_after_one_round_trip_where_it_was_announced() {
    let times = attempt(announced(ALICE), dial(BOB, &[])).await;
    assert_eq!(times, (Ok(100), Ok(150)));
}

#[tokio::test(start_paused = true)]
async fn the_dialler_is_up_after_two_round_trips_where_it_has_to_be_judged() {
    let by_list = attempt(only(&[ALICE], &[]), dial(BOB, &[])).await;
    assert_eq!(by_list, (Ok(200), Ok(150)));
    let by_secret = attempt(only(&[], &[key(7)]), dial(BOB, &[key(6), key(7)])).await;
    assert_eq!(by_secret, (Ok(200), Ok(150)));
}

#[tokio::test(start_paused = true)]
async fn a_dialler_that_is_not_on_the_list_or_lacks_the_secret_is_told_so() {
    let (alice, bob) = attempt(only(&[3], &[]), dial(BOB, &[])).await;
    let reason = "this peer id is not on the list of allowed peers";
    assert_eq!((alice, bob), (refused(reason), refused(reason)));
    let (alice, bob) = attempt(only(&[3], &[key(7)]), dial(BOB, &[])).await;
    let reason = "a secret is needed to connect";
    assert_eq!((alice, bob), (refused(reason), refused(reason)));
    let (alice, bob) = attempt(only(&[3], &[key(7)]), dial(BOB, &[key(8)])).await;
    let reason = "the secret is not the one that is needed";
    assert_eq!((alice, bob), (refused(reason), refused(reason)));
}

#[tokio::test(start_paused = true)]
async fn a_dialler_that_finds_somebody_else_stops_and_both_know_why() {
    let mismatch = LinkError::IdentityMismatch {
        expected: identity(3).peer_id(),
        found: Some(identity(BOB).peer_id()),
    };
    let outcome = attempt(anyone(), dial(3, &[])).await;
    assert_eq!(outcome, (Err(mismatch), Err(LinkError::NotExpected)));
}

#[tokio::test(start_paused = true)]
async fn an_acceptor_that_expects_somebody_else_stops_and_both_know_why() {
    let mismatch = LinkError::IdentityMismatch {
        expected: identity(3).peer_id(),
        found: Some(identity(ALICE).peer_id()),
    };
    let outcome = attempt(announced(3), dial(BOB, &[])).await;
    assert_eq!(outcome, (Err(LinkError::NotExpected), Err(mismatch)));
}

#[tokio::test(start_paused = true)]
async fn a_dial_into_silence_ends_at_its_deadline() {
    let world = World::new();
    world.network.unplug(BOB);
    let (alice, at) = world.alice_dials(dial(BOB, &[])).await;
    assert_eq!((alice.err(), at), (Some(LinkError::TimedOut), 10_000));
}

#[tokio::test(start_paused = true)]
async fn both_ends_know_each_other_and_share_keys_for_probes() {
    let (_world, alice, bob) = World::linked().await;
    assert_eq!(alice.peer_id(), identity(BOB).peer_id());
    assert_eq!(bob.peer_id(), identity(ALICE).peer_id());
    assert_eq!((alice.side(), bob.side()), (Side::Initiator, Side::Responder));
    assert!(alice.agent().starts_with("p2p-node/"), "{}", alice.agent());
    let ping = crate::probe::Probe::Ping { transaction: Transaction(7), urgency: Urgency::Routine };
    let mut entropy = Entropy::from_seed(1);
    let datagram = alice.probe_keys().encode(ping, &mut entropy);
    assert_eq!(bob.probe_keys().decode(&datagram), Some(ping));
}

#[tokio::test(start_paused = true)]
async fn two_links_have_different_conversations() {
    let mut conversations = BTreeSet::new();
    let world = World::new();
    for _ in 0..2 {
        let accepting = world.bob_accepts(anyone());
        let (alice, _) = world.alice_dials(dial(BOB, &[])).await;
        conversations.insert(alice.unwrap().probe_keys().conversation);
        let _ = accepting.await;
    }
    assert_eq!(conversations.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_strangers_are_let_in_at_a_time() {
    let world = World::new();
    let dials: Vec<_> = (0..HANDSHAKES_MAX + 20)
        .map(|_| {
            let alice = world.alice.clone();
            tokio::spawn(async move { Link::dial(&alice, dial(BOB, &[])).await })
        })
        .collect();
    let mut arrivals = Vec::new();
    let mut validated = 0;
    while let Ok(arrival) = tokio::time::timeout(Duration::from_secs(8), world.bob.arrival()).await
    {
        let arrival = arrival.unwrap();
        validated += usize::from(arrival.incoming.remote_address_validated());
        arrivals.push(arrival);
    }
    assert_eq!(arrivals.len(), HANDSHAKES_MAX);
    assert_eq!(validated, HANDSHAKES_MAX / 2, "the later ones had to show an address");
    for arrival in arrivals {
        let bob = world.bob.clone();
        tokio::spawn(async move { Link::accept(&bob, arrival, anyone()).await });
    }
    let mut up = 0;
    for dial in dials {
        up += usize::from(dial.await.unwrap().is_ok());
    }
    assert!(up >= HANDSHAKES_MAX, "{up}");
}

#[test]
fn the_same_seeds_give_the_same_datagrams() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (world, alice, bob) = World::linked().await;
            for id in 0..50 {
                alice.send(message(id, 10_000)).unwrap();
                bob.send(message(id, 100)).unwrap();
            }
            for _ in 0..50 {
                bob.receive().await.unwrap();
                alice.receive().await.unwrap();
            }
            alice.close("", in_seconds(5)).await;
            world.network.digest()
        })
    };
    assert_eq!(run(), run());
}
