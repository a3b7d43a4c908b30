//! What must not wait behind messages: acks and pings, on a line that is slow and full.

use super::*;
use crate::transport::{link::sim::Weather, session::MESSAGE_SIZE_MAX};

/// 10 Mbit/s with a queue of 100 ms: 16 MiB take 13 s.
fn slow_line() -> Weather {
    Weather { bytes_per_second: Some(1_250_000), ..Weather::default() }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_16_mib_delays_neither_acks_nor_pings() {
    let (world, alice, bob) = World::linked().await;
    world.network.set_weather(slow_line());
    let start = Instant::now();
    let large = alice.send(message("large", MESSAGE_SIZE_MAX)).unwrap();
    let consumer = async {
        let arrived = bob.receive().await.unwrap();
        assert_eq!(arrived.payload.len(), MESSAGE_SIZE_MAX);
        start.elapsed()
    };
    // Bob's messages go the empty way; their acks have to pass the large message.
    let (mut acks, mut pings) = (Vec::new(), Vec::new());
    let prober = async {
        while start.elapsed() < Duration::from_secs(12) {
            let sent_at = Instant::now();
            let receipt = bob.send(message("small", 100)).unwrap();
            alice.receive().await.unwrap();
            receipt.await.unwrap();
            acks.push(sent_at.elapsed());
            pings.push(alice.ping().await.unwrap());
        }
    };
    let (took, ()) = tokio::join!(consumer, prober);
    assert_eq!(large.await, Ok(()));
    let figures = |times: &mut Vec<Duration>| {
        times.sort();
        (times.len(), times[times.len() / 2], times[times.len() - 1])
    };
    let (acks, pings) = (figures(&mut acks), figures(&mut pings));
    println!("16 MiB took {took:?}; acks and pings (count, median, worst): {acks:?}, {pings:?}");
    assert!(took > Duration::from_secs(12), "the line was full: {took:?}");
    // The round trip is 100 ms, and what is in the line's queue goes first, another 100 ms.
    for (_, median, worst) in [acks, pings] {
        assert!(median <= Duration::from_millis(210), "{median:?}");
        assert!(worst <= Duration::from_millis(210), "{worst:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_16_mib_that_was_cut_is_sent_again_from_its_start() {
    let (world, alice, bob) = World::linked().await;
    world.network.set_weather(slow_line());
    let receipt = alice.send(message("large", MESSAGE_SIZE_MAX)).unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (Talk { link, session: from_alice }, Talk { link: other, session: to_bob }) = (alice, bob);
    drop((link, other));
    from_alice.wants_link().await;
    let status = from_alice.status();
    assert_eq!((status.in_flight, status.in_flight_size), (1, MESSAGE_SIZE_MAX + 5));

    let (link, other) = world.link().await;
    link.carry(&from_alice).unwrap();
    other.carry(&to_bob).unwrap();
    let received = to_bob.receive().await.unwrap();
    assert_eq!(received.message, message("large", MESSAGE_SIZE_MAX));
    drop(received);
    assert_eq!(receipt.await, Ok(()));
    assert!(!from_alice.has_waiting());
}
