//! A way that opens late: nothing passes between the two for 20 s, and then everything does. Whoever waits is
//! linked within three seconds of that, because both sides go on trying, and have kept something to try with.
//!
//! `cargo nextest run --test internet blocked --no-capture` prints how long each pair took.

use std::time::Duration;

use p2p_node::{
    lab::{Nat, Ports},
    node::{Event, HelperMode, Role, Target, event::Stage},
};
use tokio::time::{Instant, sleep};

use crate::{
    peer::Peer,
    world::{World, message, ms, run_for, secs, seed_from_environment, to_service},
};

/// Worlds for each pair and each way of meeting.
const WORLDS: u64 = 3;

/// Worlds in which something is said: in a quarter of them an offer crosses with the handshake.
const WORLDS_TO_TALK: u64 = 12;

/// How long nothing passes.
const BLOCKED_FOR: Duration = Duration::from_secs(20);

/// How soon after that the link is up.
const LIMIT: Duration = Duration::from_secs(3);

/// Of one side until the link is up, after 23 s: two volleys, what a crowd of 1,024 repeats, plain probes, QUIC.
const DATAGRAMS_MAX: u64 = 2 * 2_048 + 23 * 410 + 500;

/// Who waits for the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// A user whose `connect` may take a minute.
    Patient,
    /// A client that wants to be connected all the time: one dial of 20 s after the other.
    Standing,
}

/// What carries offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    ByInbox,
    ByHelper,
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// Whatever one sends to the other; the DHT, STUN servers and helpers are there.
    BetweenThem,
    /// Everything of the client.
    OfTheClient,
    /// Everything of the server.
    OfTheServer,
}

/// From the end of the block to the link, in one world.
async fn wait(
    mut world: World,
    (client, server): (Nat, Nat),
    how: (Waiting, Carried, Block),
    blocked_for: Duration,
) -> Option<Duration> {
    let (waiting, carried, block) = how;
    let homes = (world.behind(client), world.behind(server));
    let _helper = match carried {
        Carried::ByHelper => Some(helper(&mut world).await),
        Carried::ByInbox => None,
    };
    let mut listener = world.server(&homes.1);
    listener.online().await;
    if carried == Carried::ByHelper {
        // Until a helper is found and published.
        sleep(secs(60)).await;
    }
    let (internet, hosts) = (world.internet.clone(), (homes.0.host.clone(), homes.1.host.clone()));
    let sent = || [&hosts.0, &hosts.1].map(|host| host.counters().sent);
    if waiting == Waiting::Standing {
        internet.block(&hosts.0, &hosts.1);
    }
    let mut dialler = match waiting {
        Waiting::Patient => world.client(&homes.0),
        Waiting::Standing => world.standing_client(&homes.0),
    };
    // Both know their addresses.
    sleep(secs(2)).await;
    let before = sent();
    match block {
        Block::BetweenThem => internet.block(&hosts.0, &hosts.1),
        Block::OfTheClient => homes.0.unplug(),
        Block::OfTheServer => homes.1.unplug(),
    }
    let node = dialler.node.clone();
    let asked = tokio::spawn(async move {
        match waiting {
            Waiting::Patient => node.connect(to_service(), Some(secs(60))).await.map(|_| ()),
            Waiting::Standing => Ok(()),
        }
    });
    sleep(blocked_for).await;
    internet.unblock(&hosts.0, &hosts.1);
    homes.0.plug_in();
    homes.1.plug_in();
    let free = Instant::now();
    let is_linked = linked(&mut dialler).await;
    let took = free.elapsed();
    asked.abort();
    for (before, after) in before.iter().zip(sent()) {
        assert!(after - before <= DATAGRAMS_MAX, "{} datagrams", after - before);
    }
    is_linked.then_some(took)
}

/// Whether the client is linked within ten seconds.
async fn linked(client: &mut Peer) -> bool {
    let connected = client.until(|event| matches!(event, Event::Connected(_)).then_some(()));
    tokio::time::timeout(secs(10), connected).await.is_ok()
}

async fn helper(world: &mut World) -> Peer {
    let mut config = world.config(Role::Server);
    config.service = None;
    config.helper_mode = HelperMode::On;
    let home = world.behind_all(&[]);
    let mut helper = world.start(&home, config);
    helper.online().await;
    helper
}

/// Waits in several worlds for each way of meeting.
fn try_all(
    test: &str,
    name: &str,
    (client, server): (Nat, Nat),
    ways: &[(Waiting, Carried, Block)],
) {
    let mut late = Vec::new();
    for how in ways {
        let world = |seed| {
            run_for(test, seed, async |world| {
                // The block ends at another moment of their rounds in each world.
                wait(world, (client, server), *how, BLOCKED_FOR + ms(617 * seed)).await
            })
        };
        let seeds = match seed_from_environment() {
            Some(seed) => seed..=seed,
            None => 1..=WORLDS,
        };
        let times = seeds.map(world).map(|took| took.unwrap_or(Duration::MAX));
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{name}, {how:?}: median {median:?}, worst {worst:?}");
        late.extend((worst > LIMIT).then_some((how, times)));
    }
    assert!(late.is_empty(), "{name}: {late:?}");
}

const BETWEEN_THEM: [(Waiting, Carried, Block); 4] = [
    (Waiting::Patient, Carried::ByInbox, Block::BetweenThem),
    (Waiting::Patient, Carried::ByHelper, Block::BetweenThem),
    (Waiting::Standing, Carried::ByInbox, Block::BetweenThem),
    (Waiting::Standing, Carried::ByHelper, Block::BetweenThem),
];

const OF_ONE_SIDE: [(Waiting, Carried, Block); 4] = [
    (Waiting::Patient, Carried::ByInbox, Block::OfTheClient),
    (Waiting::Patient, Carried::ByHelper, Block::OfTheClient),
    (Waiting::Patient, Carried::ByInbox, Block::OfTheServer),
    (Waiting::Patient, Carried::ByHelper, Block::OfTheServer),
];

/// The two tests of one pair of NATs.
macro_rules! pair {
    ($name:ident, $client:expr, $server:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn is_linked_when_the_way_between_them_is_free() {
                let test = concat!("blocked::", stringify!($name), "::is_linked_when_the_way");
                try_all(test, stringify!($name), ($client, $server), &BETWEEN_THEM);
            }

            #[test]
            fn is_linked_when_one_side_is_back() {
                let test = concat!("blocked::", stringify!($name), "::is_linked_when_one_side");
                try_all(test, stringify!($name), ($client, $server), &OF_ONE_SIDE);
            }
        }
    };
}

const fn random() -> Nat {
    Nat::symmetric(Ports::Random)
}

const fn sequential() -> Nat {
    Nat::symmetric(Ports::Sequential { step: 1 })
}

const fn block() -> Nat {
    Nat::symmetric(Ports::Block { size: 1_024 })
}

pair!(easy_and_easy, Nat::home(), Nat::home());
pair!(easy_and_random, Nat::home(), random());
pair!(random_and_easy, random(), Nat::home());
pair!(sequential_and_easy, sequential(), Nat::home());

/// By the inbox alone, whoever counts and is cut off is late: its offers lie where they can be read although it
/// cannot look how far it has counted, and both sides aim by what they say.
mod two_that_count {
    use super::*;

    #[test]
    fn are_linked_when_the_way_between_them_is_free() {
        let pair = (sequential(), sequential());
        try_all("blocked::two_that_count", "two_that_count", pair, &BETWEEN_THEM);
    }

    #[test]
    fn are_linked_by_a_helper_when_one_side_is_back() {
        let pair = (sequential(), sequential());
        let by_helper = OF_ONE_SIDE.map(|(waiting, _, block)| (waiting, Carried::ByHelper, block));
        try_all("blocked::two_that_count", "two_that_count", pair, &by_helper[1..3]);
    }
}

/// How long after the link of a dial its message was there, and after that the answer; nothing passes between the
/// two for `blocked_for` from when the dial begins.
async fn talk(
    mut world: World,
    (client, server): (Nat, Nat),
    blocked_for: Duration,
) -> [Duration; 2] {
    let homes = (world.behind(client).delay_ms(14), world.behind(server).delay_ms(14));
    let _helper = helper(&mut world).await;
    let mut listener = world.server(&homes.1);
    listener.online().await;
    sleep(secs(60)).await;
    let mut dialler = world.client(&homes.0);
    sleep(secs(2)).await;
    let (internet, hosts) = (world.internet.clone(), (homes.0.host.clone(), homes.1.host.clone()));
    internet.block(&hosts.0, &hosts.1);
    let node = dialler.node.clone();
    tokio::spawn(async move { node.send(to_service(), message("hello"), Some(secs(60))).await });
    sleep(blocked_for).await;
    internet.unblock(&hosts.0, &hosts.1);
    let (peer, _) = listener.message_within(secs(20)).await;
    let heard = Instant::now();
    listener.say(Target::Peer(peer), "and hello").await.unwrap();
    dialler.message_within(secs(20)).await;
    let linked = dialler.stage(Stage::Link).unwrap();
    let answered = dialler.messages().first().map(|(at, _, _)| *at).unwrap();
    [heard.saturating_duration_since(linked), answered.saturating_duration_since(heard)]
}

/// Says something in worlds whose blocks end one soon after the other, the first after `begin`.
fn talk_in_all(name: &str, pair: (Nat, Nat), begin: Duration) {
    let test = "blocked::what_is_said_over_a_link_arrives_at_once";
    let seeds = match seed_from_environment() {
        Some(seed) => seed..=seed,
        None => 1..=WORLDS_TO_TALK,
    };
    for seed in seeds {
        let blocked_for = begin + ms(20 * seed);
        let took = run_for(test, seed, async |world| talk(world, pair, blocked_for).await);
        assert!(took.iter().all(|took| *took <= ms(100)), "{name}, world {seed}: {took:?}");
    }
}

/// The first: offers that were made before their makers knew of a path are read when a link is coming up over it.
/// What one of those begins anew must not take away the socket of a crowd that was hit. The second: the dialler
/// comes in from a port that keeps quiet, and hears nothing on those that answered its probes beside it.
#[test]
fn what_is_said_over_a_link_arrives_at_once() {
    talk_in_all("easy × random", (Nat::home(), random()), BLOCKED_FOR - ms(160));
    talk_in_all("random × easy", (random(), Nat::home()), BLOCKED_FOR - ms(160));
    talk_in_all("easy × easy", (Nat::home(), Nat::home()), BLOCKED_FOR + ms(1_600));
}

/// Two full blocks meet at one pair of ports, and each of the two is one that its side has named because nobody else has it.
mod two_blocks {
    use super::*;

    fn try_worlds(carried: Carried) {
        let how = (Waiting::Patient, carried, Block::BetweenThem);
        for seed in 1..=4 {
            let took = run_for("blocked::two_blocks", seed, async |world| {
                wait(world, (block(), block()), how, BLOCKED_FOR + ms(617 * seed)).await
            });
            println!("two_blocks, {how:?}, world {seed}: {took:?}");
            assert!(took.is_some_and(|took| took <= LIMIT), "{how:?}, world {seed}: {took:?}");
        }
    }

    #[test]
    fn are_linked_when_the_way_between_them_is_free() {
        try_worlds(Carried::ByInbox);
    }

    #[test]
    fn are_linked_by_a_helper_when_the_way_between_them_is_free() {
        try_worlds(Carried::ByHelper);
    }
}
