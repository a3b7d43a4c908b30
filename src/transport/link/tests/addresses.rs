//! Each side tells the other where it is, over the link itself.

use std::net::SocketAddr;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_peer_is_told_of_new_addresses_half_a_round_trip_later() {
    let (world, alice, bob) = World::linked().await;
    let mut told = bob.peer_addresses();
    assert_eq!(*told.borrow(), Vec::<SocketAddr>::new());
    let ours: Vec<SocketAddr> =
        ["203.0.113.7:5000", "[2001:db8::7]:5000"].map(|text| text.parse().unwrap()).to_vec();
    let began = world.start.elapsed();
    alice.tell_addresses(ours.clone());
    told.changed().await.unwrap();
    assert_eq!(*told.borrow(), ours);
    assert_eq!((world.start.elapsed() - began).as_millis(), 50);
}
