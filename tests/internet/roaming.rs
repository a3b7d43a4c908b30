//! Either side's address changes while a link is up: the link survives, nothing is lost, doubled or
//! reordered, and the gap is short.
//!
//! If the router in front of the other side lets the moved side's probes in, they move the path. If it looks
//! at ports, as most do, nobody hears anybody, and the two meet again through the DHT.

use std::net::Ipv6Addr;

use p2p_node::{
    dht::memory::Reach,
    failure::Code,
    identity::PeerId,
    lab::Nat,
    node::{Event, Target},
    proto::Message,
};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::{
    helpers::helper,
    peer::Peer,
    served::until_served,
    world::{Home, World, message, ms, run, run_exactly, secs},
};

/// Whose router changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    fn of<T>(self, dialler: T, acceptor: T) -> T {
        match self {
            Self::Dialler => dialler,
            Self::Acceptor => acceptor,
        }
    }
}

/// What happens to the router.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// It restarts: the same address, other ports.
    Mappings,
    /// The provider gives it another address.
    Address,
    /// The machine leaves it: it is in another network, behind another NAT of the same kind.
    Network,
}

/// Two linked nodes, 42 ms apart and back.
struct Pair {
    world: World,
    /// They run as long as this is here.
    _helpers: Vec<Peer>,
    nat: Nat,
    dialler: Peer,
    acceptor: Peer,
}

/// Both behind NATs of this kind.
async fn pair(world: World, nat: Nat) -> Pair {
    pair_served_by(world, nat, 0).await
}

/// With so many helpers that serve the acceptor.
async fn pair_served_by(mut world: World, nat: Nat, helpers: usize) -> Pair {
    let mut served_by = Vec::new();
    for _ in 0..helpers {
        served_by.push(helper(&mut world).await);
    }
    // 1 + 5 + 10 + 4 + 1 ms one way.
    let homes = [5, 4].map(|delay_ms| world.behind(nat).delay_ms(delay_ms));
    let mut acceptor = world.server(&homes[0]);
    acceptor.online().await;
    if helpers > 0 {
        until_served(&world, &acceptor, helpers).await;
    }
    let dialler = world.client(&homes[1]);
    let connection = dialler.connect().await.unwrap();
    assert_eq!(connection.rtt, ms(42));
    Pair { world, _helpers: served_by, nat, dialler, acceptor }
}

impl Pair {
    fn change(&mut self, side: Side, change: Change) {
        let home = side.of(&mut self.dialler.home, &mut self.acceptor.home);
        match change {
            Change::Mappings => home.outermost().forget_mappings(),
            Change::Address => home.outermost().change_public_address(self.world.public_address()),
            Change::Network => home.move_to(&self.world.behind(self.nat).delay_ms(5)),
        }
    }

    /// What each side says arrives as if nothing had happened.
    async fn hears_at_once(&self) {
        for (from, to) in [(&self.acceptor, &self.dialler), (&self.dialler, &self.acceptor)] {
            let began = Instant::now();
            from.say(Target::Peer(to.id()), "still there?").await.unwrap();
            assert!(began.elapsed() < ms(60), "{:?}", began.elapsed());
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
async fn gap(world: World, nat: Nat, sides: &[Side], change: Change, when: Duration) -> Duration {
    let pair = pair(world, nat).await;
    gap_of(pair, sides, change, when).await
}

async fn gap_of(mut pair: Pair, sides: &[Side], change: Change, when: Duration) -> Duration {
    let (one, two) = (pair.dialler.id(), pair.acceptor.id());
    sleep(when).await;
    let changed_at = Instant::now();
    for side in sides {
        pair.change(*side, change);
    }
    tokio::join!(stream(&pair.dialler, two), stream(&pair.acceptor, one));
    let mut longest = Duration::ZERO;
    for peer in [&pair.dialler, &pair.acceptor] {
        let arrivals = arrivals(peer);
        let ids: Vec<_> = arrivals.iter().map(|(_, id)| id.clone()).collect();
        let expected: Vec<_> = (0..STREAM_LENGTH).map(|number| number.to_string()).collect();
        assert_eq!(ids, expected, "{sides:?} {change:?}");
        longest = longest.max(longest_gap(&arrivals, changed_at));
    }
    let told = |event: &Event| matches!(event, Event::PathChanged { .. });
    // Whoever did not move sees the other elsewhere.
    for (side, other) in [(Side::Dialler, &pair.acceptor), (Side::Acceptor, &pair.dialler)] {
        assert!(sides != [side] || other.count(told) >= 1, "{sides:?} {change:?}");
    }
    pair.check_survival();
    println!("{change:?} of {sides:?}: {} ms", longest.as_millis());
    longest
}

#[test]
fn where_routers_let_probes_in_a_busy_link_has_a_gap_of_half_a_second_at_most() {
    for side in [Side::Dialler, Side::Acceptor] {
        for (nat, change) in [
            (Nat::full_cone(), Change::Mappings),
            (Nat::full_cone(), Change::Address),
            (Nat::full_cone(), Change::Network),
            (Nat::address_restricted(), Change::Mappings),
        ] {
            run(1, async |world| {
                let gap = gap(world, nat, &[side], change, secs(3)).await;
                assert!(gap <= ms(500), "{side:?} {change:?}: {gap:?}");
            });
        }
    }
}

/// Changes of all kinds at seven moments each; the longest gap.
fn longest_gap_between_homes(sides: &[Side], helpers: usize) -> Duration {
    let mut longest = Duration::ZERO;
    for change in [Change::Mappings, Change::Address, Change::Network] {
        for seed in 1..=7 {
            let gap = run_exactly(seed, async |world| {
                let pair = pair_served_by(world, Nat::home(), helpers).await;
                gap_of(pair, sides, change, secs(3) + ms(70) * u32::try_from(seed).unwrap()).await
            });
            longest = longest.max(gap);
        }
    }
    println!("{sides:?} with {helpers} helpers: {longest:?} at most");
    longest
}

#[test]
fn when_a_dialler_moves_between_homes_its_busy_link_has_a_gap_of_0_6_seconds_at_most() {
    assert!(longest_gap_between_homes(&[Side::Dialler], 0) <= ms(600));
}

#[test]
fn when_an_acceptor_moves_between_homes_its_busy_link_has_a_gap_of_0_6_seconds_at_most() {
    assert!(longest_gap_between_homes(&[Side::Acceptor], 0) <= ms(600));
}

#[test]
fn when_both_move_between_homes_their_busy_link_has_a_gap_of_a_second_at_most() {
    assert!(longest_gap_between_homes(&[Side::Dialler, Side::Acceptor], 0) <= secs(1));
}

#[test]
fn when_a_dialler_moves_whose_peer_has_a_helper_the_gap_is_0_6_seconds_at_most() {
    assert!(longest_gap_between_homes(&[Side::Dialler], 1) <= ms(600));
}

#[test]
fn when_an_acceptor_that_has_a_helper_moves_the_gap_is_0_6_seconds_at_most() {
    assert!(longest_gap_between_homes(&[Side::Acceptor], 1) <= ms(600));
}

#[test]
fn when_both_move_and_one_has_a_helper_the_gap_is_a_second_at_most() {
    assert!(longest_gap_between_homes(&[Side::Dialler, Side::Acceptor], 1) <= secs(1));
}

#[test]
fn an_idle_link_survives_every_change_of_either_side() {
    for side in [Side::Dialler, Side::Acceptor] {
        for change in [Change::Mappings, Change::Address, Change::Network] {
            run(1, async |world| {
                let mut pair = pair(world, Nat::home()).await;
                sleep(secs(40)).await;
                pair.change(side, change);
                // Nobody says anything; the upkeep finds out by itself.
                sleep(secs(60)).await;
                pair.hears_at_once().await;
                pair.check_survival();
            });
        }
    }
}

/// The first to speak after a change is the side that did not change: it speaks to where nobody is.
#[test]
fn the_first_message_after_an_idle_change_arrives_soon_in_both_directions() {
    for side in [Side::Dialler, Side::Acceptor] {
        for change in [Change::Mappings, Change::Address, Change::Network] {
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

/// Both sides send a message a second while `disturb` runs, and for a minute at least; not one is lost or
/// doubled. Returns when each side heard the first after `since` told.
async fn talk_through(
    pair: &mut Pair,
    disturb: impl AsyncFnOnce(&mut World, &mut Home, &mut Home) -> Instant,
) -> Vec<Duration> {
    let (one, two) = (pair.dialler.id(), pair.acceptor.id());
    let nodes = [(pair.dialler.node.clone(), two), (pair.acceptor.node.clone(), one)];
    let talk = nodes.map(|(node, to)| async move {
        let mut answers = tokio::task::JoinSet::new();
        for number in 0..TALK_LENGTH {
            let (node, message) = (node.clone(), numbered(number));
            let send = async move { node.send(Target::Peer(to), message, Some(secs(1_200))).await };
            answers.spawn(send);
            sleep(secs(1)).await;
        }
        for answer in answers.join_all().await {
            answer.unwrap();
        }
    });
    let [first, second] = talk;
    let Pair { world, dialler, acceptor, .. } = pair;
    let disturb = disturb(world, &mut dialler.home, &mut acceptor.home);
    let (back, (), ()) = tokio::join!(disturb, first, second);
    let heard_after = |peer: &Peer| {
        let arrivals = arrivals(peer);
        let ids: Vec<_> = arrivals.iter().map(|(_, id)| id.clone()).collect();
        let expected: Vec<_> = (0..TALK_LENGTH).map(|number| number.to_string()).collect();
        assert_eq!(ids, expected);
        arrivals.iter().find(|(at, _)| *at > back).unwrap().0 - back
    };
    vec![heard_after(&pair.dialler), heard_after(&pair.acceptor)]
}

/// Beyond the 45 s that QUIC keeps a silent connection: there is another link afterwards, and the same session.
#[test]
fn after_ten_minutes_without_a_network_messages_flow_within_five_seconds_of_its_return() {
    for side in [Side::Dialler, Side::Acceptor] {
        for moment in [ms(0), ms(1_900)] {
            run(1, async |world| {
                let mut pair = pair(world, Nat::home()).await;
                let heard = talk_through(&mut pair, async |world, dialler, acceptor| {
                    let home = side.of(dialler, acceptor);
                    sleep(secs(2)).await;
                    home.unplug();
                    world.set_dht(Reach::Offline);
                    sleep(secs(600) + moment).await;
                    // The router's link was down: no machine is told that it is up again.
                    home.plug_in();
                    world.set_dht(Reach::Online);
                    Instant::now()
                });
                let heard = heard.await;
                println!("{side:?} after ten minutes without a network: {heard:?}");
                assert!(heard.iter().all(|time| *time <= secs(5)), "{side:?}: {heard:?}");
            });
        }
    }
}

/// It forgets its mappings and gets another address from its provider.
#[test]
fn a_router_may_restart() {
    for side in [Side::Dialler, Side::Acceptor] {
        for (down, longest) in [(secs(5), secs(2)), (secs(30), secs(3)), (secs(90), secs(5))] {
            run(1, async |world| {
                let mut pair = pair(world, Nat::home()).await;
                let heard = talk_through(&mut pair, async |world, dialler, acceptor| {
                    let home = side.of(dialler, acceptor);
                    sleep(secs(2)).await;
                    home.unplug();
                    world.set_dht(Reach::Offline);
                    sleep(down).await;
                    world.set_dht(Reach::Online);
                    home.outermost().forget_mappings();
                    home.outermost().change_public_address(world.public_address());
                    home.plug_in();
                    Instant::now()
                });
                let heard = heard.await;
                println!("router of the {side:?} down for {down:?}: {heard:?}");
                assert!(heard.iter().all(|time| *time <= longest), "{side:?} {down:?}: {heard:?}");
            });
        }
    }
}

/// While it slept, its router forgot its mappings, and nobody sends anything that would show it. It dialled, so
/// the other side looks for word of it all the time.
#[test]
fn a_machine_that_wakes_up_finds_its_idle_link_again_before_anybody_needs_it() {
    run(1, async |world| {
        let mut pair = pair(world, Nat::home()).await;
        sleep(secs(31)).await;
        pair.change(Side::Dialler, Change::Address);
        pair.dialler.home.sleep_for(secs(40));
        sleep(secs(5)).await;
        pair.hears_at_once().await;
        pair.check_survival();
    });
}

/// Its peer gave the link up after 45 s. The sleeper's monotonic clock knows nothing of that time.
#[test]
fn a_machine_that_slept_for_long_does_not_wait_for_links_that_are_over() {
    run(1, async |mut world| {
        let homes = [5, 4].map(|delay_ms| world.behind(Nat::home()).delay_ms(delay_ms));
        let mut server = world.server(&homes[0]);
        server.online().await;
        let mut client = world.standing_client(&homes[1]);
        client.connected().await;
        sleep(secs(10)).await;
        homes[0].unplug();
        client.home.sleep_for(secs(3_600));
        let woken = Instant::now();
        client.disconnected().await;
        let given_up = woken.elapsed();
        homes[0].plug_in();
        client.connected().await;
        println!("given up after {given_up:?}, linked again after {:?}", woken.elapsed());
        assert!(given_up <= secs(4), "{given_up:?}");
        assert!(woken.elapsed() <= secs(5), "{:?}", woken.elapsed());
    });
}

/// The user wanted it to be there and nowhere else, so the node does not take another address.
#[test]
fn a_node_that_is_bound_to_an_address_says_once_that_it_is_gone_and_goes_on_when_it_is_back() {
    run(1, async |mut world| {
        let behind = world.behind(Nat::home());
        // Only a host of both families binds its addresses, here.
        let host = behind.host.clone().address(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9));
        let home = Home::new(host, behind.routers.clone());
        let mut server = world.server(&home);
        server.online().await;
        let (address, elsewhere) = (home.host.addresses()[0], world.behind(Nat::home()));
        let gone = |server: &Peer| {
            server.count(|event| match event {
                Event::Warning(failure) => {
                    failure.code == Code::AddressInUse
                        && failure.message.contains(&address.to_string())
                }
                _ => false,
            })
        };
        server.home.move_to(&elsewhere);
        sleep(secs(10)).await;
        server.home.move_to(&elsewhere);
        sleep(secs(60)).await;
        assert_eq!(gone(&server), 1);
        server.home.move_back(&behind.routers, address);
        sleep(secs(5)).await;
        let at = world.behind(Nat::home());
        let client = world.client(&at);
        client.connect().await.unwrap();
        assert_eq!(gone(&server), 1);
    });
}

/// As benches/README.md states. Two or three of them go to a STUN server, as every node's do.
#[test]
fn an_idle_link_costs_each_side_twenty_datagrams_a_minute_at_most() {
    run(1, async |world| {
        let pair = pair(world, Nat::home()).await;
        sleep(secs(60)).await;
        let hosts = [&pair.dialler.home.host, &pair.acceptor.home.host];
        let before = hosts.map(|host| host.counters().sent);
        sleep(secs(600)).await;
        let sent = [0, 1].map(|side| hosts[side].counters().sent - before[side]);
        println!("datagrams in ten idle minutes: {sent:?}");
        // More often than every 30 s, after which Linux forgets a mapping.
        assert!(sent.iter().all(|sent| (20..=200).contains(sent)), "{sent:?}");
        pair.check_survival();
    });
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

/// Seconds of a talk: longer than the longest outage.
const TALK_LENGTH: u32 = 640;

/// Messages in a stream: four seconds of them, which is longer than any gap.
const STREAM_LENGTH: u32 = 200;
