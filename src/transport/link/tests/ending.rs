//! How links end, and what becomes of messages on their way.

use super::*;
use crate::transport::{
    link::{Loss, NotCarried},
    session::{Cause, Undelivered},
};

fn unknown(cause: Cause) -> Result<(), Undelivered> {
    Err(Undelivered::DeliveryUnknown { cause })
}

#[tokio::test(start_paused = true)]
async fn when_the_peer_falls_silent_its_unacknowledged_messages_stay_until_the_session_ends() {
    let (world, alice, bob) = World::linked().await;
    let delivered = alice.send(message(1, 5)).unwrap();
    bob.receive().await.unwrap();
    assert_eq!(delivered.await, Ok(()));
    world.network.unplug(BOB);
    let lost: Vec<_> = (2..2_000).filter_map(|id| alice.send(message(id, 5)).ok()).collect();
    assert!(lost.len() > 1_000);
    let silence = LinkError::Lost(Loss::Silence);
    assert_eq!(alice.receive().await, Err(silence.clone()));
    assert_eq!(alice.ping().await, Err(silence));
    let status = alice.session.status();
    assert_eq!(status.in_flight + status.waiting, lost.len());
    alice.session.wants_link().await;

    alice.session.end("enough of it");
    assert_eq!(alice.send(message(9, 5)).err(), Some(SendError::Ended));
    let mut outcomes = Vec::new();
    for receipt in lost {
        outcomes.push(receipt.await);
    }
    let (in_flight, waiting) = outcomes.split_at(status.in_flight);
    let ended = unknown(Cause::Ended("enough of it".to_owned()));
    assert!(in_flight.iter().all(|outcome| *outcome == ended));
    assert!(waiting.iter().all(|outcome| *outcome == Err(Undelivered::NotSent)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_twenty_seconds_is_survived() {
    let (world, alice, bob) = World::linked().await;
    // The worst moment: just before a keep-alive was due.
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    world.network.unplug(BOB);
    let receipt = alice.send(message(1, 5)).unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.network.plug_in(BOB);
    assert_eq!(bob.receive().await, Ok(message(1, 5)));
    assert_eq!(receipt.await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_lives_on() {
    let (_world, alice, bob) = World::linked().await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!((alice.ended(), bob.ended()), (None, None));
    assert_eq!(alice.ping().await, Ok(Duration::from_millis(100)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_restarted_is_noticed_after_one_round_trip() {
    let (world, alice, bob) = World::linked().await;
    world.network.unplug(BOB);
    drop(bob);
    world.bob.close();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let restarted = world.network.node(BOB);
    world.network.plug_in(BOB);
    let restarted_at = Instant::now();
    let receipt = alice.send(message(1, 5)).unwrap();
    assert_eq!(alice.closed().await, LinkError::Lost(Loss::Restarted));
    assert_eq!(restarted_at.elapsed().as_millis(), 100);

    // It was written, to whichever run: the next link tells that the run is another one.
    let world = World { bob: restarted, ..world };
    let (link, _bob) = world.link().await;
    link.carry(&alice.session).unwrap();
    assert_eq!(receipt.await, unknown(Cause::PeerRestarted));
}

#[tokio::test(start_paused = true)]
async fn a_link_to_an_earlier_run_is_not_used_any_more() {
    let (world, alice, _bob) = World::linked().await;
    let (spare, _) = world.link().await;
    let restarted = world.network.node(BOB);
    let world = World { bob: restarted, ..world };
    let (link, bob) = world.link().await;
    link.carry(&alice.session).unwrap();
    let over = NotCarried::LinkEnded(LinkError::Lost(Loss::Restarted));
    assert_eq!(spare.carry(&alice.session), Err(over));
    assert_eq!(link.carry(&alice.session), Err(NotCarried::Taken));
    let bob = Talk::new(bob, &world.bob);
    alice.send(message(1, 5)).unwrap();
    assert_eq!(bob.receive().await, Ok(message(1, 5)));
    alice.session.end("");
    let (link, _bob) = world.link().await;
    assert_eq!(link.carry(&alice.session), Err(NotCarried::SessionEnded));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_link_ends_at_once_on_both_sides() {
    let (_world, alice, bob) = World::linked().await;
    let _receipt = bob.send(message(1, 5)).unwrap();
    let Talk { link, session } = bob;
    drop(link);
    assert!(session.has_waiting());
    let closed = LinkError::ClosedByPeer { reason: String::new() };
    assert_eq!(alice.closed().await, closed);
}

#[tokio::test(start_paused = true)]
async fn a_close_in_peace_delivers_what_is_queued_first() {
    let (_world, alice, bob) = World::linked().await;
    let receipts: Vec<_> = (0..500).map(|id| alice.send(message(id, 10_000)).unwrap()).collect();
    let consumer = tokio::spawn(async move {
        let mut count = 0;
        loop {
            match bob.receive().await {
                Ok(_) => count += 1,
                Err(end) => return (count, end),
            }
        }
    });
    alice.close("enough for today", in_seconds(30)).await;
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(()));
    }
    assert_eq!(alice.ended(), Some(LinkError::Closed));
    let farewell = LinkError::ClosedByPeer { reason: "enough for today".to_owned() };
    assert_eq!(consumer.await.unwrap(), (500, farewell));
}

#[tokio::test(start_paused = true)]
async fn what_the_consumer_took_is_acknowledged_before_the_farewell() {
    let (_world, alice, bob) = World::linked().await;
    let receipt = alice.send(message(1, 5)).unwrap();
    bob.receive().await.unwrap();
    bob.close("heard enough", in_seconds(3)).await;
    assert_eq!(receipt.await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_close_gives_up_at_its_deadline_when_the_consumer_stands_still() {
    let (_world, alice, bob) = World::linked().await;
    let receipt = alice.send(message(1, 5)).unwrap();
    let start = Instant::now();
    alice.close("", in_seconds(3)).await;
    assert_eq!(start.elapsed().as_secs(), 3);
    assert_eq!(alice.session.status().in_flight, 1);
    drop(alice);
    let ended = Cause::Ended("nobody uses the session any more".to_owned());
    assert_eq!(receipt.await, unknown(ended));
    assert_eq!(bob.receive().await, Ok(message(1, 5)), "it had arrived");
    assert!(bob.receive().await.is_err());
}
