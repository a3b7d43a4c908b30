//! The DHT on loopback: real nodes, real sockets, nothing beyond 127.0.0.1.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use p2p_node::{
    dht::{
        blinding::WriteKey,
        item::Item,
        location::{Location, Name, Purpose},
        mainline::{Config as DhtConfig, Mainline, Participation},
        rendezvous::{ABSENT, PutError, Rendezvous, Task},
        service_record::ServiceRecord,
        testnet::Testnet,
    },
    entropy::Entropy,
    identity::Identity,
    node::{Clock, Config, Environment, Node, Role, environment::ExtraSockets, stun_service},
    sealing::Key,
    service::Service,
    transport::{quic::tls::Crypto, sockets::udp::UdpSocket},
};
use quinn::AsyncUdpSocket;
use tokio::time::{Instant, sleep, timeout};

fn client(bootstrap: Vec<String>) -> Arc<dyn Rendezvous> {
    let config =
        DhtConfig { bootstrap, bind: Ipv4Addr::LOCALHOST, participation: Participation::Server };
    Arc::new(Mainline::start(config, Entropy::from_system()).expect("a socket on loopback"))
}

async fn testnet(count: usize) -> Testnet {
    Testnet::start(&[], count).await.expect("sockets on loopback")
}

fn key(seed: u8) -> WriteKey {
    WriteKey::shared(&Key::from_bytes([seed; 32]))
}

fn item(seed: u8, seq: i64) -> Item {
    Item::sign(&key(seed), seq, vec![seed; 640])
}

fn location(seed: u8) -> Location {
    Location::new(key(seed).public_key(), Purpose::Record)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().expect("something was measured")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_puts_another_finds() {
    let start = Instant::now();
    let net = testnet(20).await;
    println!("testnet of 20: {:?}", start.elapsed());
    let (alice, bob) = (client(net.bootstrap()), client(net.bootstrap()));
    let start = Instant::now();
    let stored = alice.put(item(1, 5), None).await.unwrap();
    println!("put from start: {:?}, {stored:?}", start.elapsed());
    assert!(stored.nodes >= 8, "{stored:?}");
    let start = Instant::now();
    let mut lookup = bob.get(location(1));
    assert_eq!(lookup.next().await, Some(item(1, 5)));
    println!("first item from start: {:?}", start.elapsed());
    let end = lookup.end().await;
    println!("end: {:?} {end:?}", start.elapsed());
    assert!(end.answered >= 8, "{end:?}");
    let (nothing, end) = bob.get(location(2)).newest().await;
    assert_eq!(nothing, None);
    assert!(end.answered >= 8, "{end:?}");
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for seed in 10..16 {
        // Twelve of twenty nodes were just asked, and may be asked again in a second.
        sleep(Duration::from_millis(1100)).await;
        let start = Instant::now();
        alice.put(item(seed, 5), None).await.unwrap();
        puts.push(start.elapsed());
        let start = Instant::now();
        bob.get(location(seed)).next().await.unwrap();
        gets.push(start.elapsed());
    }
    println!("median cold put {:?}, first item {:?}", median(&mut puts), median(&mut gets));
    println!("{:?}", alice.health());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_is_seen_within_half_a_second_after_its_put() {
    let net = testnet(20).await;
    let (alice, bob) = (client(net.bootstrap()), client(net.bootstrap()));
    let name = Name::Peer(Identity::from_seed([7; 32]).peer_id());
    let service = Name::Service(Service::open("myapi:v1".parse().unwrap()));
    let _other = bob.watch(service.inbox());
    let mut watch = bob.watch(name.inbox());
    sleep(Duration::from_secs(3)).await;
    name.inbox().into_iter().for_each(|slot| alice.prepare(slot));
    sleep(Duration::from_secs(2)).await;
    let (mut puts, mut sights) = (Vec::new(), Vec::new());
    for seq in 1..=20 {
        let start = Instant::now();
        let offer = Item::sign(&name.slot_key(0), seq, vec![1; 640]);
        let put = {
            let (alice, offer) = (Arc::clone(&alice), offer.clone());
            async move {
                let stored = alice.put(offer, None).await;
                (stored, start.elapsed())
            }
        };
        let put = tokio::spawn(put);
        let seen = timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap();
        assert_eq!(seen, (name.inbox()[0], offer));
        sights.push(start.elapsed());
        let (stored, took) = put.await.unwrap();
        stored.unwrap();
        puts.push(took);
        // Out of step with the polls.
        sleep(Duration::from_millis(1000 + 37 * seq.unsigned_abs())).await;
    }
    println!("puts {puts:?}\nsights {sights:?}");
    println!("median warm put {:?}, seen after {:?}", median(&mut puts), median(&mut sights));
    assert!(median(&mut sights) < Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_nodes_delay_neither_the_first_item_nor_an_offer() {
    let mut net = testnet(24).await;
    let (alice, bob) = (client(net.bootstrap()), client(net.bootstrap()));
    alice.put(item(1, 5), None).await.unwrap();
    let slot = location(2);
    let mut watch = bob.watch(vec![slot]);
    sleep(Duration::from_secs(1)).await;
    net.silence_all_but(12);
    let carol = client(net.bootstrap());
    let start = Instant::now();
    assert_eq!(carol.get(location(1)).next().await, Some(item(1, 5)));
    println!("first item with half the nodes silent: {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(500));
    carol.prepare(slot);
    sleep(Duration::from_secs(2)).await;
    let start = Instant::now();
    let stored = carol.put(item(2, 5), Some(ABSENT)).await.unwrap();
    println!("warm put with half the nodes silent: {:?}, {stored:?}", start.elapsed());
    let seen = timeout(Duration::from_secs(4), watch.next()).await.unwrap().unwrap();
    println!("seen after {:?}", start.elapsed());
    assert_eq!(seen, (slot, item(2, 5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_without_a_network_finds_it_later() {
    // A port that is free now and will be the network's first node.
    let first = testnet(1).await.addresses()[0];
    let alice = client(vec![first.to_string(), "no-such-host.invalid:1".to_owned()]);
    assert_eq!(alice.put(item(1, 5), None).await, Err(PutError::NoNodes));
    let (nothing, end) = alice.get(location(1)).newest().await;
    assert_eq!((nothing, end.answered), (None, 0));
    let net = Testnet::start_at(first.port(), 10).await.expect("the port is still free");
    let start = Instant::now();
    while alice.put(item(1, 5), None).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(200)).await;
    }
    println!("stored {:?} after the network appeared", start.elapsed());
    let bob = client(net.bootstrap());
    assert_eq!(bob.get(location(1)).next().await, Some(item(1, 5)));
    alice.network_changed();
    sleep(Duration::from_secs(1)).await;
    assert!(alice.put(item(1, 6), None).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_names() {
    let net = testnet(10).await;
    let alice = client(net.bootstrap());
    alice.put(item(1, 5), Some(ABSENT)).await.unwrap();
    sleep(Duration::from_millis(1100)).await;
    let current = None;
    assert_eq!(alice.put(item(1, 6), Some(4)).await, Err(PutError::CasFailed { current }));
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(alice.put(item(1, 4), None).await, Err(PutError::NotNewer { current }));
    let large = Item::sign(&key(1), 7, vec![0; 901]);
    assert_eq!(alice.put(large, None).await, Err(PutError::TooLarge(901)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_node_stays_within_its_budget() {
    let net = testnet(20).await;
    let bob = client(net.bootstrap());
    let peer = Name::Peer(Identity::from_seed([7; 32]).peer_id());
    let service = Name::Service(Service::open("myapi:v1".parse().unwrap()));
    let _watches = [bob.watch(peer.inbox()), bob.watch(service.inbox())];
    sleep(Duration::from_secs(3)).await;
    let before = bob.health().counters;
    let span = Duration::from_secs(10);
    sleep(span).await;
    let after = bob.health().counters;
    let (sent, received) = (after.sent - before.sent, after.received - before.received);
    println!("{sent} sent and {received} received in {span:?}");
    assert!((60..=84).contains(&sent), "{sent}");
    assert!(sent + received <= 25 * span.as_secs());
    assert_eq!(after.unexpected + after.malformed + after.forged, 0, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_register_together_all_end_up_in_the_list() {
    let net = testnet(20).await;
    let service = Service::open("myapi:v1".parse().unwrap());
    let stun = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap());
    let stun_address = stun.local_addr().unwrap().to_string();
    let _stun = Task::spawn(stun_service::serve(stun, Clock::system()));
    let start_server = |seed| {
        let mut config = Config::new(Identity::from_seed([seed; 32]), Role::Server);
        config.service = Some(service.clone());
        config.stun_servers = vec![stun_address.clone()];
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let environment = Environment {
            sockets: vec![socket.into()],
            extra_sockets: ExtraSockets::system(),
            interfaces: Arc::new(|| vec![Ipv4Addr::LOCALHOST.into()]),
            changes: None,
            lan: None,
            rendezvous: Some(client(net.bootstrap())),
            clock: Clock::system(),
            entropy: Entropy::from_seed(seed.into()),
            crypto: Crypto::system(),
            outbox: None,
        };
        Node::start(config, environment).unwrap()
    };
    let servers: Vec<_> = (1..=4).map(start_server).collect();
    let name = Name::Service(service.clone());
    let (reader, start) = (client(net.bootstrap()), Instant::now());
    let mut listed = 0;
    while listed < servers.len() {
        assert!(start.elapsed() < Duration::from_secs(60), "{listed} listed");
        sleep(Duration::from_millis(500)).await;
        if let (Some(item), _) = reader.get(name.record()).newest().await {
            let now = Clock::system().unix();
            listed = ServiceRecord::open(item.value(), &name, now).unwrap().entries.len();
        }
    }
    println!("all listed after {:?}", start.elapsed());
}

/// A datagram that nests deeper than a decoder's stack must not end the process of whoever receives it.
#[tokio::test(flavor = "multi_thread")]
async fn deeply_nested_datagrams_end_nobody() {
    let net = testnet(1).await;
    let socket = std::net::UdpSocket::from(socket2_on_loopback());
    let closed = format!("d1:z{}{}e", "l".repeat(1000), "e".repeat(1000));
    let maps = format!("d1:z{}i1e{}e", "d1:a".repeat(400), "e".repeat(400));
    let open = ["l".repeat(2000), "d1:a".repeat(500), format!("d1:z{}", "l".repeat(2000))];
    for datagram in open.into_iter().chain([closed, maps]) {
        socket.send_to(datagram.as_bytes(), net.addresses()[0]).expect("loopback");
    }
    sleep(Duration::from_secs(1)).await;
    assert!(client(net.bootstrap()).put(item(1, 5), None).await.is_ok());
}

fn socket2_on_loopback() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    socket
}

/// Against any other DHT on loopback, whose nodes are named by `P2P_TEST_DHT`:
/// `P2P_TEST_DHT=127.0.0.1:20000,127.0.0.1:20001 cargo test --test rendezvous -- --nocapture another`.
/// Seen to hold with twelve nodes of libtorrent 2.1.1.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_another_implementation_store_return_and_refuse() {
    let Ok(nodes) = std::env::var("P2P_TEST_DHT") else {
        println!("not run: P2P_TEST_DHT names no nodes of another implementation on loopback");
        return;
    };
    let bootstrap: Vec<String> = nodes.split(',').map(str::to_owned).collect();
    assert!(bootstrap.iter().all(|node| node.starts_with("127.")), "loopback only");
    let (alice, bob) = (client(bootstrap.clone()), client(bootstrap));
    let start = Instant::now();
    println!(
        "put from start: {:?} {:?}",
        alice.put(item(1, 5), Some(ABSENT)).await,
        start.elapsed()
    );
    let start = Instant::now();
    assert_eq!(bob.get(location(1)).next().await, Some(item(1, 5)));
    println!("first item from start: {:?}", start.elapsed());
    sleep(Duration::from_secs(1)).await;
    let current = None;
    assert_eq!(alice.put(item(1, 6), Some(4)).await, Err(PutError::CasFailed { current }));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(alice.put(item(1, 4), None).await, Err(PutError::NotNewer { current }));
    let name = Name::Peer(Identity::from_seed([7; 32]).peer_id());
    let mut watch = bob.watch(name.inbox());
    sleep(Duration::from_secs(5)).await;
    name.inbox().into_iter().for_each(|slot| alice.prepare(slot));
    sleep(Duration::from_secs(2)).await;
    let mut sights = Vec::new();
    for seq in 1..=15 {
        let start = Instant::now();
        let offer = Item::sign(&name.slot_key(0), seq, vec![1; 640]);
        alice.put(offer.clone(), None).await.expect("stored");
        let seen = timeout(Duration::from_secs(5), watch.next()).await.expect("in time");
        assert_eq!(seen.map(|(_, item)| item), Some(offer));
        sights.push(start.elapsed());
        sleep(Duration::from_millis(1000 + 37 * seq.unsigned_abs())).await;
    }
    println!("seen after {:?}, of {sights:?}", median(&mut sights));
    println!("{:?}", bob.health());
}
