//! Offers by helpers: reachable nodes that forward them in one round trip, found in the DHT or named by the
//! user; what becomes of a dial when they die, lose datagrams, or are not there.

use std::time::Duration;

use p2p_node::{
    dht::{location::Name, memory::Reach, service_record::ServiceEntry},
    lab::{Nat, Ports},
    node::{Event, HelperMode, Role, Target, event::Stage},
    ticket::Ticket,
};
use tokio::time::{Instant, sleep};

use crate::{
    loss::percentiles,
    peer::Peer,
    served::{entries, helpers_of, until_served},
    world::{Home, World, ms, run, secs, to_service},
};

/// 80 ms between any two homes: 15 ms to the core, 10 ms across it, 15 ms from it, and back.
const ROUND_TRIP: Duration = Duration::from_millis(80);

fn home(world: &mut World, nat: Option<Nat>) -> Home {
    match nat {
        // The link behind the NAT has 1 ms.
        Some(nat) => world.behind(nat).delay_ms(14),
        None => world.behind_all(&[]).delay_ms(15),
    }
}

/// A public node that helps.
pub(crate) async fn helper(world: &mut World) -> Peer {
    let mut config = world.config(Role::Server);
    config.service = None;
    config.helper_mode = HelperMode::On;
    let home = home(world, None);
    let mut helper = world.start(&home, config);
    helper.online().await;
    helper
}

/// A server of the service that is served by `count` helpers.
async fn served(world: &mut World, nat: Nat, count: usize) -> Peer {
    let home = home(world, Some(nat));
    let server = world.server(&home);
    until_served(world, &server, count).await;
    server
}

/// Every helper that lists itself in the DHT.
fn listed(world: &World) -> Vec<ServiceEntry> {
    let list = |index: u8| {
        let name = format!("p2p-node/helpers/{index}").parse().unwrap();
        entries(world, &Name::Service(p2p_node::service::Service::open(name)))
    };
    (0..8).flat_map(list).collect()
}

/// When the record was there, and how long after that the path and the link.
async fn dial(client: &Peer) -> (Duration, Duration) {
    client.connect().await.unwrap();
    let since = |stage| client.stage(stage).unwrap() - client.stage(Stage::Resolve).unwrap();
    (since(Stage::Path), since(Stage::Link))
}

async fn client(world: &mut World, nat: Nat) -> Peer {
    let home = home(world, Some(nat));
    let client = world.client(&home);
    // Long enough for STUN.
    sleep(secs(3)).await;
    client
}

fn round_trips(time: Duration) -> f64 {
    time.as_secs_f64() / ROUND_TRIP.as_secs_f64()
}

#[test]
fn an_offer_by_a_helper_opens_a_path_in_one_and_a_half_round_trips() {
    let (mut paths, mut links) = (Vec::new(), Vec::new());
    for seed in 0..20 {
        let (path, link) = run(seed, async |mut world| {
            let _helper = helper(&mut world).await;
            let _server = served(&mut world, Nat::home(), 1).await;
            let client = client(&mut world, Nat::home()).await;
            dial(&client).await
        });
        paths.push(path);
        links.push(link);
    }
    let (paths, links) = (percentiles(paths), percentiles(links));
    println!("record to path: half within {:?}, nine in ten within {:?}", paths[0], paths[1]);
    println!("record to link: half within {:?}, nine in ten within {:?}", links[0], links[1]);
    assert!(round_trips(paths[0]) <= 1.6, "{paths:?}");
    assert!(round_trips(links[0]) <= 2.6, "{links:?}");
}

#[test]
fn a_server_that_names_a_helper_is_found_with_it_from_the_start() {
    run(1, async |mut world| {
        let helper = helper(&mut world).await;
        let home = home(&mut world, Some(Nat::home()));
        let mut config = world.config(Role::Server);
        config.helpers = vec![Target::Peer(helper.id())];
        let mut server = world.start(&home, config);
        server.online().await;
        assert_eq!(helpers_of(&world, &server).len(), 1);
    });
}

#[test]
fn a_server_whose_helper_is_not_there_is_found_without_it() {
    run(1, async |mut world| {
        let home = home(&mut world, Some(Nat::home()));
        let mut config = world.config(Role::Server);
        let nobody = p2p_node::identity::Identity::from_seed([77; 32]);
        config.helpers = vec![Target::Peer(nobody.peer_id())];
        let began = Instant::now();
        let mut server = world.start(&home, config);
        server.online().await;
        assert!(began.elapsed() < secs(6), "{:?}", began.elapsed());
        let client = client(&mut world, Nat::home()).await;
        client.connect().await.unwrap();
    });
}

#[test]
fn both_sides_are_told_which_way_the_offer_went() {
    run(1, async |mut world| {
        let helper = helper(&mut world).await;
        let server = served(&mut world, Nat::home(), 1).await;
        let client = client(&mut world, Nat::home()).await;
        client.connect().await.unwrap();
        let told = |of: &Peer, wanted: &str| {
            let steps = of.events().into_iter().filter_map(|(at, event)| match event {
                Event::Progress { stage: Stage::Offer, detail, .. } => Some((at, detail)),
                _ => None,
            });
            let steps: Vec<_> = steps.collect();
            let step = steps.iter().find(|(_, detail)| detail.contains(wanted));
            step.unwrap_or_else(|| panic!("no {wanted} in {steps:?}")).0
        };
        let address = helper.home.candidates().first().unwrap().to_string();
        let sent = told(&client, &format!("sent to the peer's helpers: {address}:"));
        let read = told(&server, "read by a helper, 2 addresses (");
        let known = told(&client, "read by the peer, which had it from a helper");
        assert_eq!([read - sent, known - sent], [ROUND_TRIP, 2 * ROUND_TRIP]);
    });
}

#[test]
fn a_peer_that_was_linked_before_is_reached_again_without_the_dht() {
    run(1, async |mut world| {
        let _helper = helper(&mut world).await;
        let server = served(&mut world, Nat::home(), 1).await;
        let mut client = client(&mut world, Nat::home()).await;
        client.connect().await.unwrap();
        // The client's router forgets everything; QUIC gives the link up.
        client.home.unplug();
        client.disconnected().await;
        world.set_dht(Reach::Offline);
        client.home.plug_in();
        sleep(secs(5)).await;
        let began = Instant::now();
        client.node.connect(Target::Peer(server.id()), None).await.unwrap();
        assert!(round_trips(began.elapsed()) <= 2.6, "{:?}", began.elapsed());
    });
}

/// What a record has said is known in the next dial: nobody has to wait for the DHT to say it again before
/// ports are guessed.
#[test]
fn a_peer_behind_a_nat_that_changes_ports_is_reached_again_without_the_dht() {
    for (name, ports, median_max) in [
        ("easy x sequential", Ports::Sequential { step: 1 }, 6.0),
        ("easy x random", Ports::Random, 13.5),
    ] {
        let mut times: Vec<f64> = (1..=10)
            .map(|seed| {
                run(seed, async |mut world| {
                    let _helper = helper(&mut world).await;
                    let server = served(&mut world, Nat::symmetric(ports), 1).await;
                    let client = client(&mut world, Nat::home()).await;
                    client.connect().await.unwrap();
                    client.node.disconnect(server.id()).await.unwrap();
                    // The NATs forget where the last path went.
                    sleep(secs(300)).await;
                    world.set_dht(Reach::Offline);
                    let began = Instant::now();
                    client.connect().await.unwrap();
                    round_trips(began.elapsed())
                })
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{name}, linked before: link {median:.2} round trips, worst {worst:.2}");
        assert!(median <= median_max && worst <= 75.0, "{name}: {times:?}");
    }
}

#[test]
fn a_helper_is_no_peer_and_does_not_count_as_one() {
    run(1, async |mut world| {
        let helper = helper(&mut world).await;
        let server = served(&mut world, Nat::home(), 1).await;
        for node in [&helper, &server] {
            assert_eq!(node.node.peers().await.unwrap(), []);
            let connections = node.count(|event| matches!(event, Event::Connected(_)));
            assert_eq!(connections, 0);
        }
    });
}

/// One question and its answer in twenty seconds, and a second one when the cookie has run out.
#[test]
fn a_link_to_a_helper_costs_seven_datagrams_a_minute() {
    run(1, async |mut world| {
        let sent = |peer: &Peer| peer.home.host.counters().sent;
        let at = home(&mut world, Some(Nat::home()));
        let alone = world.server(&at);
        sleep(secs(60)).await;
        let before = sent(&alone);
        sleep(secs(600)).await;
        let without = sent(&alone) - before;
        alone.node.shutdown().await;
        let helper = helper(&mut world).await;
        let server = served(&mut world, Nat::home(), 1).await;
        sleep(secs(60)).await;
        let before = (sent(&server), sent(&helper));
        sleep(secs(600)).await;
        let asked = sent(&server) - before.0 - without;
        let answered = sent(&helper) - before.1;
        println!(
            "in ten minutes: {asked} questions; the helper sent {answered} for two and its own"
        );
        assert!((25..=45).contains(&asked), "{asked} beside {without}");
        assert!(answered <= 150, "{answered}");
    });
}

#[test]
fn a_dead_helper_is_replaced_and_the_inbox_serves_meanwhile() {
    run(1, async |mut world| {
        let first = helper(&mut world).await;
        let server = served(&mut world, Nat::home(), 1).await;
        let before = helpers_of(&world, &server);
        // It is gone without a word.
        first.home.unplug();
        let early = client(&mut world, Nat::home()).await;
        let began = Instant::now();
        early.connect().await.unwrap();
        assert!(began.elapsed() < secs(10), "{:?}", began.elapsed());
        let _second = helper(&mut world).await;
        for _ in 0..600 {
            if !helpers_of(&world, &server).is_empty() && helpers_of(&world, &server) != before {
                break;
            }
            sleep(secs(1)).await;
        }
        let after = helpers_of(&world, &server);
        assert_eq!(after.len(), 1);
        assert_ne!(after, before);
        let late = client(&mut world, Nat::home()).await;
        let (path, _) = dial(&late).await;
        assert!(round_trips(path) <= 1.6, "{path:?}");
    });
}

#[test]
fn three_helpers_are_kept_and_of_three_two_may_die() {
    run(1, async |mut world| {
        let mut helpers = Vec::new();
        for _ in 0..4 {
            helpers.push(helper(&mut world).await);
        }
        let server = served(&mut world, Nat::home(), 3).await;
        let addresses: Vec<_> =
            helpers_of(&world, &server).iter().map(|h| h.address.ip()).collect();
        let is_used = |helper: &&Peer| addresses.contains(&helper.home.host.addresses()[0]);
        let used: Vec<&Peer> = helpers.iter().filter(is_used).collect();
        assert_eq!(used.len(), 3);
        for helper in &used[..2] {
            helper.home.unplug();
        }
        let client = client(&mut world, Nat::home()).await;
        let (path, _) = dial(&client).await;
        assert!(round_trips(path) <= 1.6, "{path:?}");
    });
}

#[test]
fn lost_datagrams_are_sent_again_and_the_dial_is_quick_all_the_same() {
    let mut links = Vec::new();
    for seed in 0..20 {
        links.push(run(seed, async |mut world| {
            let _helper = helper(&mut world).await;
            let _server = served(&mut world, Nat::home(), 1).await;
            let client = client(&mut world, Nat::home()).await;
            client.home.change_uplink(|link| link.loss = 0.15);
            dial(&client).await.1
        }));
    }
    let links = percentiles(links);
    println!("15 % loss: half within {:?}, nine in ten within {:?}", links[0], links[1]);
    assert!(links[0] < ms(400) && links[1] < secs(2), "{links:?}");
}

/// The helper grants tokens and goes on answering, but what it is to forward does not arrive.
#[test]
fn a_helper_that_forwards_nothing_costs_the_speed_and_not_the_link() {
    run(1, async |mut world| {
        let helper = helper(&mut world).await;
        let server = served(&mut world, Nat::home(), 1).await;
        let client = client(&mut world, Nat::home()).await;
        // 700 bytes do not pass; questions and grants do.
        helper.home.change_uplink(|link| link.mtu = 528);
        let began = Instant::now();
        client.connect().await.unwrap();
        assert!(began.elapsed() < secs(10), "{:?}", began.elapsed());
        assert_eq!(helpers_of(&world, &server).len(), 1);
    });
}

/// Offers are repeated, come by the helper and lie in the inbox; they are answered once.
#[test]
fn an_offer_that_arrives_on_every_way_makes_one_link() {
    run(1, async |mut world| {
        let _helpers = [helper(&mut world).await, helper(&mut world).await];
        let server = served(&mut world, Nat::home(), 2).await;
        let client = client(&mut world, Nat::home()).await;
        client.connect().await.unwrap();
        client.say(to_service(), "once").await.unwrap();
        sleep(secs(20)).await;
        let is_link = |event: &Event| matches!(event, Event::Connected(_));
        assert_eq!((server.count(is_link), client.count(is_link)), (1, 1));
        assert_eq!(server.messages().len(), 1);
    });
}

/// The user names a helper; the DHT lists none, and the helper publishes nothing.
#[test]
fn a_helper_that_is_named_by_its_ticket_serves() {
    run(1, async |mut world| {
        let at = home(&mut world, None);
        let mut config = world.config(Role::Client);
        config.service = None;
        config.helper_mode = HelperMode::On;
        let identity = config.identity.clone();
        let helper = world.start(&at, config);
        sleep(secs(1)).await;
        let status = helper.node.status().await.unwrap();
        let ticket = Ticket::of(&identity, status.local_addresses);
        let mut config = world.config(Role::Server);
        config.helpers = vec![Target::Ticket(ticket)];
        let at = home(&mut world, Some(Nat::home()));
        let server = world.start(&at, config);
        until_served(&world, &server, 1).await;
        let client = client(&mut world, Nat::home()).await;
        let (path, _) = dial(&client).await;
        assert!(round_trips(path) <= 1.6, "{path:?}");
    });
}

#[test]
fn a_server_that_two_peers_reach_unannounced_begins_to_help_and_one_behind_a_nat_does_not() {
    for (nat, helps) in [(None, true), (Some(Nat::home()), false)] {
        run(1, async |mut world| {
            let at = home(&mut world, nat);
            let mut server = world.server(&at);
            server.online().await;
            for number in 1..=2 {
                let client = client(&mut world, Nat::home()).await;
                client.connect().await.unwrap();
                sleep(secs(10)).await;
                let is_listed = listed(&world).iter().any(|entry| entry.peer == server.id());
                assert_eq!(is_listed, helps && number == 2, "{nat:?}, {number} peers");
            }
        });
    }
}

#[test]
fn a_node_that_is_told_not_to_help_does_not() {
    run(1, async |mut world| {
        let at = home(&mut world, None);
        let mut config = world.config(Role::Server);
        config.helper_mode = HelperMode::Off;
        let mut server = world.start(&at, config);
        server.online().await;
        for _ in 0..3 {
            let client = client(&mut world, Nat::home()).await;
            client.connect().await.unwrap();
        }
        sleep(secs(10)).await;
        assert_eq!(listed(&world).len(), 0);
    });
}

#[test]
fn a_helper_that_stops_takes_itself_off_the_list() {
    run(1, async |mut world| {
        let helper = helper(&mut world).await;
        sleep(secs(10)).await;
        assert_eq!(listed(&world).len(), 1);
        helper.node.shutdown().await;
        assert_eq!(listed(&world).len(), 0);
    });
}

/// The answer that says how far the server's NAT has got comes back by the helper, too, and the helper is the
/// second witness of where the client is.
#[test]
fn ports_are_guessed_in_a_few_round_trips_where_a_helper_brings_offer_and_answer() {
    let sequential = Nat::symmetric(Ports::Sequential { step: 1 });
    let random = Nat::symmetric(Ports::Random);
    for (name, client_nat, server_nat, median_max, max) in [
        ("easy x sequential", Nat::home(), sequential, 5.0, 10.0),
        ("sequential x easy", sequential, Nat::home(), 5.0, 10.0),
        ("sequential x sequential", sequential, sequential, 8.0, 20.0),
        ("easy x random", Nat::home(), random, 12.5, 75.0),
        ("random x easy", random, Nat::home(), 12.5, 75.0),
    ] {
        let mut times: Vec<f64> = (1..=20)
            .map(|seed| {
                run(seed, async |mut world| {
                    let _helper = helper(&mut world).await;
                    let _server = served(&mut world, server_nat, 1).await;
                    let client = client(&mut world, client_nat).await;
                    let (path, _) = dial(&client).await;
                    round_trips(path)
                })
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{name}, by a helper: path {median:.2} round trips, worst {worst:.2}");
        assert!(median <= median_max && worst <= max, "{name}: {times:?}");
    }
}
