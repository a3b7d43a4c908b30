//! Either side's address changes while a link is up: the link survives, nothing is lost, doubled or
//! reordered, and the gap is short.
//!
//! If the router in front of the other side lets the moved side's probes in, they move the path. If it looks
//! at ports, as most do, nobody hears anybody, and the two meet again through the DHT.

use p2p_node::{
    identity::PeerId,
    lab::Nat,
    node::{Event, Target},
    proto::Message,
};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::{
    peer::Peer,
    world::{Home, World, message, ms, run, secs},
};

/// Whose router changes something.
#[derive(Clone, Copy, Debug)]
enum Side {
    Dialler,
    Acceptor,
}

/// What happens to the router.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// It restarts: the same address, other ports.
    Mappings,
    /// The provider gives it another address.
    Address,
}

/// Two linked nodes, 42 ms apart and back.
struct Pair {
    world: World,
    dialler: Peer,
    acceptor: Peer,
}

/// Both behind NATs of this kind.
async fn pair(mut world: World, nat: Nat) -> Pair {
    // 1 + 5 + 10 + 4 + 1 ms one way.
    let homes = [5, 4].map(|delay_ms| world.behind(nat).delay_ms(delay_ms));
    let mut acceptor = world.server(&homes[0]);
    acceptor.online().await;
    let dialler = world.client(&homes[1]);
    let connection = dialler.connect().await.unwrap();
    assert_eq!(connection.rtt, ms(42));
    Pair { world, dialler, acceptor }
}

impl Pair {
    fn change(&mut self, side: Side, change: Change) {
        let router = match side {
            Side::Dialler => self.dialler.home.outermost(),
            Side::Acceptor => self.acceptor.home.outermost(),
        };
        match change {
            Change::Mappings => router.forget_mappings(),
            Change::Address => router.change_public_address(self.world.public_address()),
        }
    }

    /// Panics unless the link that came up first is still there, on both sides.
    fn check_survival(&self) {
        for peer in [&self.dialler, &self.acceptor] {
            let ended = |event: &Event| matches!(event, Event::Disconnected { .. });
            let connected = |event: &Event| matches!(event, Event::Connected(_));
            assert_eq!((peer.count(ended), peer.count(connected)), (0, 1));
        }
    }
}

/// Sends a message every 20 ms, and sees that each of them arrives.
async fn stream(from: &Peer, to: PeerId) {
    let mut tasks = tokio::task::JoinSet::new();
    let began = Instant::now();
    for number in 0..STREAM_LENGTH {
        sleep_until(began + ms(20) * number).await;
        let (node, message) = (from.node.clone(), numbered(number));
        tasks.spawn(async move { node.send(Target::Peer(to), message, None).await });
    }
    for result in tasks.join_all().await {
        result.unwrap();
    }
}

fn numbered(number: u32) -> Message {
    message(&number.to_string())
}

fn arrivals(peer: &Peer) -> Vec<(Instant, String)> {
    peer.messages().into_iter().map(|(at, _, message)| (at, message.id)).collect()
}

/// The longest time without a message after `since`.
fn longest_gap(arrivals: &[(Instant, String)], since: Instant) -> Duration {
    let times = arrivals.iter().map(|(at, _)| *at);
    let times: Vec<_> = [since].into_iter().chain(times).collect();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap()
}

/// A change in the middle of two streams: how long each side hears nothing, the longer of both.
async fn gap(world: World, nat: Nat, side: Side, change: Change) -> Duration {
    let mut pair = pair(world, nat).await;
    let (one, two) = (pair.dialler.id(), pair.acceptor.id());
    sleep(secs(3)).await;
    let changed_at = Instant::now();
    pair.change(side, change);
    tokio::join!(stream(&pair.dialler, two), stream(&pair.acceptor, one));
    let mut longest = Duration::ZERO;
    for peer in [&pair.dialler, &pair.acceptor] {
        let arrivals = arrivals(peer);
        let ids: Vec<_> = arrivals.iter().map(|(_, id)| id.clone()).collect();
        let expected: Vec<_> = (0..STREAM_LENGTH).map(|number| number.to_string()).collect();
        assert_eq!(ids, expected, "{side:?} {change:?}");
        longest = longest.max(longest_gap(&arrivals, changed_at));
    }
    let told = |event: &Event| matches!(event, Event::PathChanged { .. });
    let other = match side {
        Side::Dialler => &pair.acceptor,
        Side::Acceptor => &pair.dialler,
    };
    assert!(other.count(told) >= 1, "{side:?} {change:?}");
    pair.check_survival();
    println!("{change:?} of the {side:?}: {} ms", longest.as_millis());
    longest
}

#[test]
fn where_routers_let_probes_in_a_busy_link_has_a_gap_of_half_a_second_at_most() {
    for side in [Side::Dialler, Side::Acceptor] {
        for (nat, change) in [
            (Nat::full_cone(), Change::Mappings),
            (Nat::full_cone(), Change::Address),
            (Nat::address_restricted(), Change::Mappings),
        ] {
            run(1, async |world| {
                let gap = gap(world, nat, side, change).await;
                assert!(gap <= ms(500), "{side:?} {change:?}: {gap:?}");
            });
        }
    }
}

#[test]
fn between_two_homes_a_busy_link_goes_on_after_meeting_again_through_the_dht() {
    for (side, longest) in [(Side::Dialler, ms(1_200)), (Side::Acceptor, ms(2_600))] {
        for change in [Change::Mappings, Change::Address] {
            run(1, async |world| {
                let gap = gap(world, Nat::home(), side, change).await;
                assert!(gap <= longest, "{side:?} {change:?}: {gap:?}");
            });
        }
    }
}

#[test]
fn an_idle_link_survives_every_change_of_either_side() {
    for side in [Side::Dialler, Side::Acceptor] {
        for change in [Change::Mappings, Change::Address] {
            run(1, async |world| {
                let mut pair = pair(world, Nat::home()).await;
                let (one, two) = (pair.dialler.id(), pair.acceptor.id());
                sleep(secs(40)).await;
                pair.change(side, change);
                // Nobody says anything; the upkeep finds out by itself.
                sleep(secs(60)).await;
                for (from, to) in [(&pair.acceptor, one), (&pair.dialler, two)] {
                    let began = Instant::now();
                    from.say(Target::Peer(to), "still there?").await.unwrap();
                    assert!(began.elapsed() < ms(60), "{:?}", began.elapsed());
                }
                pair.check_survival();
            });
        }
    }
}

/// The first to speak after a change is the side that did not change: it speaks to where nobody is.
#[test]
fn the_first_message_after_an_idle_change_arrives_soon_in_both_directions() {
    for side in [Side::Dialler, Side::Acceptor] {
        for change in [Change::Mappings, Change::Address] {
            run(1, async |world| {
                let mut pair = pair(world, Nat::home()).await;
                let (one, two) = (pair.dialler.id(), pair.acceptor.id());
                sleep(secs(40)).await;
                pair.change(side, change);
                let (unchanged, changed) = match side {
                    Side::Dialler => ((&pair.acceptor, one), (&pair.dialler, two)),
                    Side::Acceptor => ((&pair.dialler, two), (&pair.acceptor, one)),
                };
                for (name, (from, to)) in [("unchanged", unchanged), ("changed", changed)] {
                    let began = Instant::now();
                    from.say(Target::Peer(to), name).await.unwrap();
                    let took = began.elapsed();
                    println!(
                        "{change:?} of the idle {side:?}: {} ms from the {name} side",
                        took.as_millis()
                    );
                    assert!(took < secs(4), "{took:?}");
                }
                pair.check_survival();
            });
        }
    }
}

#[test]
fn a_link_survives_twenty_seconds_without_a_network_and_nothing_is_lost() {
    for side in [Side::Dialler, Side::Acceptor] {
        run(1, async |world| {
            let pair = pair(world, Nat::home()).await;
            let (one, two) = (pair.dialler.id(), pair.acceptor.id());
            let home: &Home = match side {
                Side::Dialler => &pair.dialler.home,
                Side::Acceptor => &pair.acceptor.home,
            };
            let (count, back) = (1_500, Instant::now() + secs(22));
            let outage = async {
                sleep(secs(2)).await;
                home.unplug();
                sleep_until(back).await;
                home.plug_in();
            };
            // Deadlines of single messages are another matter: they wait as long as they must.
            let send = async |from: &Peer, to: PeerId| {
                for number in 0..count / 50 {
                    let target = Target::Peer(to);
                    let message = numbered(number);
                    from.node.send(target, message, Some(secs(60))).await.unwrap();
                    sleep(secs(1)).await;
                }
            };
            tokio::join!(outage, send(&pair.dialler, two), send(&pair.acceptor, one));
            for peer in [&pair.dialler, &pair.acceptor] {
                let arrivals = arrivals(peer);
                let ids: Vec<_> = arrivals.iter().map(|(_, id)| id.clone()).collect();
                let expected: Vec<_> = (0..count / 50).map(|number| number.to_string()).collect();
                assert_eq!(ids, expected);
                let after = arrivals.iter().find(|(at, _)| *at > back).unwrap().0 - back;
                println!("{side:?} without a network: heard {} ms after", after.as_millis());
                assert!(after < secs(1), "{after:?}");
            }
            pair.check_survival();
        });
    }
}

/// Messages in a stream: ten seconds of them.
const STREAM_LENGTH: u32 = 500;
