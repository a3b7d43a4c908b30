//! Messages over a link: intact, in order, acknowledged, and slowed down by a slow consumer only.

use super::*;
use crate::transport::session::MESSAGE_SIZE_MAX;

#[tokio::test(start_paused = true)]
async fn a_message_is_acknowledged_when_the_consumer_has_taken_it() {
    let (world, alice, bob) = World::linked().await;
    let sent_at = Instant::now();
    let mut receipt = alice.send(message("one", 5)).unwrap();
    let waiting = tokio::time::timeout(Duration::from_secs(3), &mut receipt).await;
    assert!(waiting.is_err(), "nobody took it");
    assert_eq!(bob.receive().await, Ok(message("one", 5)));
    assert_eq!(receipt.await, Ok(()));
    assert_eq!(sent_at.elapsed().as_millis(), 3_050);
    drop(world);
}

#[tokio::test(start_paused = true)]
async fn messages_of_all_sizes_arrive_intact_and_in_order() {
    let (_world, alice, bob) = World::linked().await;
    let sizes = [0, 1, 5 << 20, 100, 4_096, 70_000, 1];
    let sent: Vec<_> = (0..).zip(sizes).map(|(id, size)| message(id, size)).collect();
    for message in &sent {
        alice.send(message.clone()).unwrap();
    }
    for message in sent {
        assert_eq!(bob.receive().await, Ok(message));
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_message_passes_and_a_larger_one_is_refused_before_it_is_sent() {
    let (_world, alice, bob) = World::linked().await;
    let too_large = alice.send(message("large", MESSAGE_SIZE_MAX + 1));
    assert!(matches!(too_large, Err(SendError::TooLarge(_))));
    let receipt = alice.send(message("largest", MESSAGE_SIZE_MAX)).unwrap();
    assert_eq!(bob.receive().await, Ok(message("largest", MESSAGE_SIZE_MAX)));
    assert_eq!(receipt.await, Ok(()));
}

/// Sends until the queue is full and stays full.
async fn fill(link: &Talk, size: usize) -> usize {
    let (mut sent, mut full_in_a_row) = (0, 0);
    while full_in_a_row < 5 {
        match link.send(message(sent, size)) {
            Ok(_) => (sent, full_in_a_row) = (sent + 1, 0),
            Err(SendError::QueueFull { .. }) => {
                full_in_a_row += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_stands_still_stops_its_sender_and_nothing_else() {
    let (_world, alice, bob) = World::linked().await;
    let sent = fill(&alice, 64 << 10).await;
    let bytes = sent * (64 << 10);
    assert!((32 << 20..64 << 20).contains(&bytes), "{bytes} bytes taken");

    assert_eq!(alice.ping().await, Ok(Duration::from_millis(100)));
    assert_eq!(bob.ping().await, Ok(Duration::from_millis(100)));
    let receipt = bob.send(message("back", 5)).unwrap();
    assert_eq!(alice.receive().await, Ok(message("back", 5)));
    assert_eq!(receipt.await, Ok(()));

    for id in 0..sent {
        assert_eq!(bob.receive().await.unwrap().id, id.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn two_sides_that_send_with_full_inboxes_do_not_block_each_other() {
    let (_world, alice, bob) = World::linked().await;
    let (from_alice, from_bob) = tokio::join!(fill(&alice, 40_000), fill(&bob, 40_000));
    // Each answers every message it takes before it takes the next, and waits for the receipt.
    let drain = async |link: &Talk, count: usize, answers: usize| {
        for _ in 0..count {
            link.receive().await.unwrap();
        }
        for _ in 0..answers {
            link.receive().await.unwrap();
        }
    };
    let answer = async |link: &Talk, count: usize| {
        let mut answered = 0;
        while answered < count {
            match link.send(message("answer", 10)) {
                Ok(receipt) => {
                    receipt.await.unwrap();
                    answered += 1;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::join!(
        drain(&alice, from_bob, 20),
        drain(&bob, from_alice, 20),
        answer(&alice, 20),
        answer(&bob, 20),
    );
}

#[tokio::test(start_paused = true)]
async fn many_small_messages_are_all_acknowledged() {
    let (_world, alice, bob) = World::linked().await;
    let consumer = tokio::spawn(async move {
        for id in 0..20_000 {
            assert_eq!(bob.receive().await.unwrap().id, id.to_string());
        }
        bob
    });
    let mut receipts = Vec::new();
    for id in 0..20_000 {
        loop {
            match alice.send(message(id, 100)) {
                Ok(receipt) => break receipts.push(receipt),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(()));
    }
    consumer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_receive_that_is_cancelled_loses_nothing() {
    let (_world, alice, bob) = World::linked().await;
    for id in 0..10 {
        alice.send(message(id, 5)).unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(20), bob.receive()).await;
        assert!(nothing.is_err());
        assert_eq!(bob.receive().await, Ok(message(id, 5)));
    }
}
