//! What outlives a link: messages wait for the network, arrive once, and whoever sent them learns how
//! it went.

use std::collections::BTreeMap;

use p2p_node::{
    failure::Code,
    identity::Identity,
    lab::Nat,
    node::{Config, Event, IN_REPLY_TO, Question, Role, Target},
    proto::Message,
};
use tokio::time::{Instant, sleep};

use crate::{
    peer::Peer,
    world::{Home, World, message, ms, run, secs, service, to_service},
};

/// Of the first socket of a host.
const SERVER_PORT: u16 = 49_152;

/// A server and a client at homes of their own, linked.
struct Pair {
    server: Peer,
    client: Peer,
    server_identity: Identity,
}

async fn pair(world: &mut World) -> Pair {
    let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
    let server_identity = world.identity();
    let mut server = world.start(&home, server_config(&server_identity));
    server.online().await;
    let mut client = world.client(&other);
    client.connect().await.unwrap();
    client.connected().await;
    server.connected().await;
    Pair { server, client, server_identity }
}

fn server_config(identity: &Identity) -> Config {
    let mut config = Config::new(identity.clone(), Role::Server);
    config.service = Some(service());
    config
}

fn ids(peer: &Peer) -> Vec<String> {
    peer.messages().into_iter().map(|(_, _, message)| message.id).collect()
}

/// Longer than QUIC's idle timeout: the link is lost, the session is not.
#[test]
fn messages_wait_for_a_network_that_was_away_and_arrive_once_within_seconds() {
    for is_server in [false, true] {
        run(1, async |mut world| {
            let Pair { server, client, .. } = pair(&mut world).await;
            let (from, to) = if is_server { (server, client) } else { (client, server) };
            let cut: Home = from.home.clone();
            cut.unplug();
            let target = Target::Peer(to.id());
            let mut sends = tokio::task::JoinSet::new();
            for number in 0..20 {
                let (node, target) = (from.node.clone(), target.clone());
                let message = message(&number.to_string());
                sends.spawn(async move { node.send(target, message, Some(secs(600))).await });
                sleep(ms(10)).await;
            }
            sleep(secs(120)).await;
            cut.plug_in();
            let back = Instant::now();
            for result in sends.join_all().await {
                result.unwrap();
            }
            assert!(back.elapsed() < secs(6), "{:?}", back.elapsed());
            let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
            assert_eq!(ids(&to), expected);
        });
    }
}

#[test]
fn a_lost_link_says_why_and_that_the_node_tries_again_while_messages_wait() {
    run(1, async |mut world| {
        let Pair { server, mut client, .. } = pair(&mut world).await;
        server.home.unplug();
        let node = client.node.clone();
        let waiting = tokio::spawn(async move {
            node.send(to_service(), message("waits"), Some(secs(300))).await
        });
        let (failure, will_retry) = client.disconnected().await;
        assert_eq!((failure.code, will_retry), (Code::ConnectionLost, true));
        server.home.plug_in();
        waiting.await.unwrap().unwrap();
        assert_eq!(ids(&server), ["waits"]);
    });
}

/// The dead server cannot say what it had: what was in flight is unknown, what comes after arrives.
#[test]
fn a_server_that_was_restarted_makes_what_was_in_flight_unknown_and_nothing_else() {
    for has_its_port_again in [true, false] {
        restart(has_its_port_again);
    }
}

fn restart(has_its_port_again: bool) {
    run(1, async |mut world| {
        let Pair { server, client, server_identity } = pair(&mut world).await;
        client.say(to_service(), "before").await.unwrap();
        // Its last words reach nobody: as if it had been killed.
        let home = server.home.clone();
        home.unplug();
        let node = client.node.clone();
        let in_flight = tokio::spawn(async move {
            node.send(to_service(), message("in flight"), Some(secs(300))).await
        });
        sleep(secs(1)).await;
        drop(server);
        sleep(secs(5)).await;
        home.plug_in();
        // Of whoever was faster.
        let _taken = (!has_its_port_again).then(|| home.host.bind(SERVER_PORT));
        let back = Instant::now();
        let server = world.start(&home, server_config(&server_identity));
        let failure = in_flight.await.unwrap().unwrap_err();
        assert_eq!(failure.code, Code::DeliveryUnknown, "{failure}");
        client.say(to_service(), "after").await.unwrap();
        assert!(back.elapsed() < secs(8), "{:?}", back.elapsed());
        assert_eq!(ids(&server), ["after"]);
    });
}

/// What was never written to a link can be taken back for certain; what was may have arrived.
#[test]
fn a_send_that_runs_out_of_time_says_whether_the_message_may_have_arrived() {
    run(1, async |mut world| {
        let Pair { server, client, .. } = pair(&mut world).await;
        server.home.unplug();
        let target = Target::Peer(server.id());
        let on_its_way =
            client.node.send(target.clone(), message("on its way"), Some(secs(1))).await;
        assert_eq!(on_its_way.unwrap_err().code, Code::Timeout);
        let unknown = client.node.send(target.clone(), message("lost"), Some(secs(30))).await;
        assert_eq!(unknown.unwrap_err().code, Code::DeliveryUnknown);
        sleep(secs(60)).await;
        let unreached = client.node.send(target, message("never sent"), Some(secs(10))).await;
        assert!(unreached.is_err());
        server.home.plug_in();
        sleep(secs(60)).await;
        assert!(!ids(&server).contains(&"never sent".to_owned()));
    });
}

#[test]
fn a_request_is_answered_by_the_peer_that_was_asked() {
    run(1, async |mut world| {
        let Pair { mut server, client, .. } = pair(&mut world).await;
        let node = client.node.clone();
        let asking = tokio::spawn(async move {
            node.request(to_service(), message("what time is it?"), None).await
        });
        let (from, question) = server.message().await;
        server.say(Target::Peer(from), "something else").await.unwrap();
        let metadata = BTreeMap::from([(IN_REPLY_TO.to_owned(), question.id)]);
        let reply = Message { metadata, ..message("noon") };
        let answering = server.node.send(Target::Peer(from), reply, None);
        let asking = async {
            let answer = asking.await.unwrap().unwrap();
            assert_eq!((answer.peer, answer.message.id.as_str()), (server.id(), "noon"));
        };
        let (receipt, ()) = tokio::join!(answering, asking);
        receipt.unwrap();
        assert_eq!(ids(&client), ["something else"], "the answer is no message besides");

        let unanswered = client.node.request(to_service(), message("hello?"), Some(secs(2))).await;
        assert_eq!(unanswered.unwrap_err().code, Code::NoReply);
    });
}

#[test]
fn a_broadcast_has_a_receipt_from_every_connected_peer() {
    run(1, async |mut world| {
        let Pair { mut server, client, .. } = pair(&mut world).await;
        let home = world.behind(Nat::home());
        let other = world.client(&home);
        other.connect().await.unwrap();
        server.connected().await;
        let sent = server.node.broadcast(message("to all"), None).await.unwrap();
        let mut peers: Vec<_> = sent.iter().map(|sent| sent.peer).collect();
        peers.sort();
        let mut expected = vec![client.id(), other.id()];
        expected.sort();
        assert_eq!(peers, expected);
        assert!(sent.iter().all(|sent| sent.outcome.is_ok()));
        assert_eq!((ids(&client), ids(&other)), (vec!["to all".into()], vec!["to all".into()]));
    });
}

#[test]
fn a_ping_measures_the_round_trip_and_needs_a_connected_peer() {
    run(1, async |mut world| {
        let Pair { server, client, .. } = pair(&mut world).await;
        let pong = client.node.ping(server.id(), None).await.unwrap();
        let rtt = client.node.peers().await.unwrap()[0].connection.rtt;
        assert!(pong.rtt.abs_diff(rtt) <= ms(2), "{:?} {rtt:?}", pong.rtt);
        let stranger = client.node.ping(client.id(), None).await;
        assert_eq!(stranger.unwrap_err().code, Code::PeerNotFound);
        server.home.unplug();
        let unanswered = client.node.ping(server.id(), Some(secs(3))).await;
        assert_eq!(unanswered.unwrap_err().code, Code::Timeout);
    });
}

#[test]
fn a_network_check_tells_the_mapping_and_what_it_means() {
    run(1, async |mut world| {
        let home = world.behind(Nat::home());
        let client = world.client(&home);
        let check = client.node.netcheck(Question::default(), None).await.unwrap();
        assert!(check.udp && check.is_complete && check.stun_servers_answering() == 2, "{check:?}");
        assert!(check.verdicts[0].contains("keeps one port"), "{check:?}");
    });
}

/// While a message waits for a peer that is gone, something is tried at least every five seconds.
#[test]
fn attempts_to_reach_a_lost_peer_are_never_far_apart() {
    run(1, async |mut world| {
        let Pair { server, mut client, .. } = pair(&mut world).await;
        server.home.unplug();
        let node = client.node.clone();
        let waiting = tokio::spawn(async move {
            node.send(to_service(), message("waits"), Some(secs(600))).await
        });
        client.disconnected().await;
        let lost = Instant::now();
        sleep(secs(200)).await;
        waiting.abort();
        let tries: Vec<Instant> = client
            .events()
            .into_iter()
            .filter(|(at, event)| {
                *at >= lost && matches!(event, Event::Connecting { .. } | Event::Progress { .. })
            })
            .map(|(at, _)| at)
            .collect();
        let pauses = tries.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = pauses.max().unwrap();
        assert!(longest <= secs(5), "{longest:?}");
        assert!(lost + secs(190) < *tries.last().unwrap(), "it goes on");
    });
}

#[test]
fn a_service_that_leads_to_a_connected_peer_needs_no_other_link() {
    run(1, async |mut world| {
        let (home, other) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let identity = world.identity();
        let mut server = world.start(&home, server_config(&identity));
        server.online().await;
        let mut client = world.client(&other);
        client.node.connect(Target::Peer(server.id()), None).await.unwrap();
        client.connected().await;
        for id in ["by its service", "again"] {
            let receipt =
                client.node.send(to_service(), message(id), Some(secs(10))).await.unwrap();
            assert_eq!(receipt.peer, Some(server.id()));
        }
        assert_eq!(client.node.peers().await.unwrap().len(), 1);
        assert_eq!(ids(&server), ["by its service", "again"]);
    });
}

#[test]
fn what_is_for_a_service_does_not_go_to_whoever_else_is_connected() {
    run(1, async |mut world| {
        let (home, third) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let place = world.behind(Nat::home());
        let (identity, other) = (world.identity(), world.identity());
        let mut server = world.start(&home, server_config(&identity));
        server.online().await;
        let mut friend = world.start(&third, Config::new(other, Role::Server));
        friend.online().await;
        let mut client = world.client(&place);
        client.node.send(to_service(), message("1"), None).await.unwrap();
        client.node.connect(Target::Peer(friend.id()), None).await.unwrap();
        client.connected().await;
        client.node.send(to_service(), message("2"), None).await.unwrap();
        assert_eq!(ids(&server), ["1", "2"]);
        assert!(ids(&friend).is_empty());
    });
}
