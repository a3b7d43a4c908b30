//! Sessions that go from link to link: what they promise, over real links, in bad weather, with connections
//! killed at random moments.
//!
//! A schedule follows from its seed. One that fails prints it; `P2P_NODE_SEED` begins with that one.

use std::{collections::VecDeque, env};

use super::*;
use crate::{
    entropy::Entropy,
    transport::{
        link::sim::Weather,
        session::{Received, Undelivered, Withdrawn},
    },
};

const SCHEDULES: u64 = 200;

struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "to replay: P2P_NODE_SEED={} cargo nextest run --lib killed_at_random",
                self.0
            );
        }
    }
}

#[test]
fn nothing_is_lost_doubled_or_reordered_when_links_are_killed_at_random() {
    let given = env::var("P2P_NODE_SEED").ok().map(|seed| seed.parse().unwrap());
    let mut links = 0;
    for seed in given.map_or(1..=SCHEDULES, |seed: u64| seed..=seed) {
        let _replay = Replay(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        links += runtime.block_on(schedule(seed));
    }
    assert!(given.is_some() || links > SCHEDULES * 2, "{links} links");
    println!("{links} links");
}

/// Both send to each other, with consumers of their own pace, while links come and go.
async fn schedule(seed: u64) -> u64 {
    let mut entropy = Entropy::from_seed(seed);
    let world = World::new();
    world.network.set_weather(Weather {
        loss: entropy.below(6),
        doubled: entropy.below(6),
        jitter_ms: entropy.number() % 30,
        bytes_per_second: None,
        entropy: entropy.fork(),
    });
    let sessions = [&world.alice, &world.bob].map(Session::new);
    let [alice, bob] = &sessions;
    let [one, two, three, four, five] = [(); 5].map(|()| entropy.fork());
    let talk = async {
        tokio::join!(speak(alice, one), speak(bob, two), listen(alice, three), listen(bob, four))
    };
    let (said_by_alice, said_by_bob, heard_by_alice, heard_by_bob) = tokio::select! {
        talk = talk => talk,
        () = relink(&world, &sessions, five) => unreachable!("links come for ever"),
    };
    assert_eq!(heard_by_bob, said_by_alice);
    assert_eq!(heard_by_alice, said_by_bob);
    assert!(!alice.has_waiting() && !bob.has_waiting());
    alice.status().links
}

/// Sends messages up to the one that says the end, and gives the ids of those that were not withdrawn.
async fn speak(session: &Session, mut entropy: Entropy) -> Vec<String> {
    let (mut said, mut receipts) = (Vec::new(), Vec::new());
    for id in 0..25 {
        let size = [0, 10, 1_000, 10_000, 60_000][entropy.below(5)];
        let receipt = session.send(message(id, size), Durability::Volatile).unwrap();
        if entropy.below(3) == 0 {
            tokio::time::sleep(Duration::from_millis(entropy.number() % 400)).await;
        }
        if entropy.below(10) == 0 && receipt.withdraw() == Withdrawn::NotSent {
            assert_eq!(receipt.await, Err(Undelivered::NotSent));
        } else {
            said.push(id.to_string());
            receipts.push(receipt);
        }
    }
    receipts.push(session.send(message("end", 0), Durability::Volatile).unwrap());
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(()));
    }
    said
}

/// Takes messages up to the one that says the end, and holds a few at a time.
async fn listen(session: &Session, mut entropy: Entropy) -> Vec<String> {
    let (mut heard, mut held) = (Vec::new(), VecDeque::new());
    loop {
        let Received { message: arrived, handover } = session.receive().await.unwrap();
        if arrived.id == "end" {
            return heard;
        }
        let size = arrived.payload.len();
        assert_eq!(arrived, message(&arrived.id, size));
        heard.push(arrived.id);
        held.push_back(handover);
        while held.len() > entropy.below(4) {
            held.swap_remove_back(entropy.below(held.len()));
        }
        if entropy.below(5) == 0 {
            tokio::time::sleep(Duration::from_millis(entropy.number() % 200)).await;
        }
    }
}

/// Makes link after link; kills some, overlaps others, and lets the two sides come in either order.
async fn relink(world: &World, [alice, bob]: &[Session; 2], mut entropy: Entropy) {
    let mut before: VecDeque<(Link, Link)> = VecDeque::new();
    loop {
        let accepting = world.bob_accepts(anyone());
        let (link, _) = world.alice_dials(dial(BOB, &[])).await;
        let (Ok(link), Ok(other)) = (link, accepting.await.unwrap().0) else { continue };
        let pause = Duration::from_millis(entropy.number() % 120);
        let mut ends = [(&link, alice), (&other, bob)];
        if entropy.below(2) == 0 {
            ends.reverse();
        }
        for (end, session) in ends {
            // A link that has died meanwhile is replaced like any other.
            let _ = end.carry(session);
            tokio::time::sleep(pause).await;
        }
        before.push_back((link, other));
        // Long enough for something to get through, short enough to die in the middle of it.
        tokio::time::sleep(Duration::from_millis(300 + entropy.number() % 1_500)).await;
        match entropy.below(4) {
            // The path dies without a word: nobody hears anything until somebody gives up.
            0 => {
                world.network.unplug(BOB);
                tokio::time::sleep(Duration::from_millis(100)).await;
                before.clear();
                world.network.plug_in(BOB);
            }
            // One side closes it.
            1 => drop(before.pop_back()),
            // The next one takes over while this one lives.
            _ => drop(before.drain(..before.len() - 1)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_fresh_session_goes_out_at_once() {
    let world = World::new();
    let (alice, bob) = (Session::new(&world.alice), Session::new(&world.bob));
    alice.send(message(1, 5), Durability::Volatile).unwrap();
    let accepting = world.bob_accepts(anyone());
    let (link, up) = world.alice_dials(dial(BOB, &[])).await;
    let link = link.unwrap();
    link.carry(&alice).unwrap();
    let other = accepting.await.unwrap().0.unwrap();
    other.carry(&bob).unwrap();
    assert_eq!(bob.receive().await.unwrap().message, message(1, 5));
    assert_eq!((up, world.start.elapsed().as_millis()), (100, 150));
}

#[tokio::test(start_paused = true)]
async fn a_link_without_a_session_answers_pings_and_can_be_closed() {
    let world = World::new();
    let (alice, bob) = world.link().await;
    assert_eq!(alice.ping().await, Ok(Duration::from_millis(100)));
    assert_eq!(bob.ping().await, Ok(Duration::from_millis(100)));
    alice.close("not needed", in_seconds(1)).await;
    let farewell = LinkError::ClosedByPeer { reason: "not needed".to_owned() };
    assert_eq!(bob.closed().await, farewell);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_link_is_closed_wants_another_as_soon_as_there_is_something_to_send() {
    let (world, alice, bob) = World::linked().await;
    alice.close("", in_seconds(1)).await;
    let wants = tokio::time::timeout(Duration::from_secs(1), alice.session.wants_link()).await;
    assert!(wants.is_err(), "there is nothing to send");
    let receipt = alice.send(message(1, 5)).unwrap();
    alice.session.wants_link().await;
    let (link, other) = world.link().await;
    link.carry(&alice.session).unwrap();
    other.carry(&bob.session).unwrap();
    drop(bob.session.receive().await.unwrap());
    assert_eq!(receipt.await, Ok(()));
    assert_eq!(alice.session.status().links, 2);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_ended_its_session_is_found_out_within_the_same_run() {
    let (world, alice, bob) = World::linked().await;
    let before = alice.send(message("before", 5)).unwrap();
    let held = bob.session.receive().await.unwrap();
    bob.session.end("disconnected");
    let after = alice.send(message("after", 5)).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(held);
    let (link, other) = world.link().await;
    let anew = Talk::new(other, &world.bob);
    link.carry(&alice.session).unwrap();
    let cause = crate::transport::session::Cause::PeerForgot;
    let unknown = Err(Undelivered::DeliveryUnknown { cause });
    assert_eq!((before.await, after.await), (unknown.clone(), unknown));
    alice.send(message("anew", 5)).unwrap();
    assert_eq!(anew.receive().await, Ok(message("anew", 5)));
    anew.send(message("back", 5)).unwrap();
    assert_eq!(alice.receive().await, Ok(message("back", 5)));
}

/// Each side sends as fast as it may, and hands on at most 64 messages that its user has not credited.
#[tokio::test(start_paused = true)]
async fn twenty_thousand_messages_both_ways_with_a_window_of_64_do_not_block_each_other() {
    const COUNT: usize = 20_000;
    const WINDOW: usize = 64;
    async fn side(session: &Session, mut entropy: Entropy) {
        let (mut sent, mut received) = (0, 0);
        let (mut receipts, mut held) = (VecDeque::new(), VecDeque::new());
        while received < COUNT || sent < COUNT {
            // Sends while its own inbox is full, as far as the queue takes it.
            while sent < COUNT {
                match session.send(message(sent, 20), Durability::Volatile) {
                    Ok(receipt) => receipts.push_back(receipt),
                    Err(_) => break,
                }
                sent += 1;
            }
            while held.len() < WINDOW
                && let Some(Received { message, handover }) = session.try_receive()
            {
                assert_eq!(message.id, received.to_string());
                received += 1;
                held.push_back(handover);
            }
            assert!(session.status().handed_over <= WINDOW);
            // The user gives back some credit, a little later.
            held.drain(..entropy.below(held.len() + 1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(held);
        for receipt in receipts {
            assert_eq!(receipt.await, Ok(()));
        }
    }
    let (_world, alice, bob) = World::linked().await;
    tokio::join!(
        side(&alice.session, Entropy::from_seed(1)),
        side(&bob.session, Entropy::from_seed(2)),
    );
}
