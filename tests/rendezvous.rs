//! The DHT on loopback: real nodes, real sockets, nothing beyond 127.0.0.1.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use p2p_node::{
    dht::{
        blinding::WriteKey,
        item::Item,
        location::{Location, Name, Purpose},
        mainline::{Config, Mainline, Participation},
        rendezvous::{ABSENT, PutError, Rendezvous},
        testnet::Testnet,
    },
    entropy::Entropy,
    identity::Identity,
    sealing::Key,
    service::Service,
};
use tokio::time::{sleep, timeout};

fn client(bootstrap: Vec<String>) -> Arc<dyn Rendezvous> {
    let config = Config {
        bootstrap,
        bind: Ipv4Addr::LOCALHOST,
        participation: Participation::Server,
    };
    Arc::new(Mainline::start(config, Entropy::from_system()).expect("a socket on loopback"))
}

async fn testnet(count: usize) -> Testnet {
    Testnet::start(&[], count)
        .await
        .expect("sockets on loopback")
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
    times[times.len() / 2]
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
    for seed in 10..20 {
        let start = Instant::now();
        alice.put(item(seed, 5), None).await.unwrap();
        puts.push(start.elapsed());
        let start = Instant::now();
        bob.get(location(seed)).next().await.unwrap();
        gets.push(start.elapsed());
    }
    println!(
        "median cold put {:?}, first item {:?}",
        median(&mut puts),
        median(&mut gets)
    );
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
    name.inbox()
        .into_iter()
        .for_each(|slot| alice.prepare(slot));
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
        let seen = timeout(Duration::from_secs(5), watch.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(seen, (name.inbox()[0], offer));
        sights.push(start.elapsed());
        let (stored, took) = put.await.unwrap();
        stored.unwrap();
        puts.push(took);
        // Out of step with the polls.
        sleep(Duration::from_millis(1000 + 37 * seq.unsigned_abs())).await;
    }
    println!("puts {puts:?}\nsights {sights:?}");
    println!(
        "median warm put {:?}, seen after {:?}",
        median(&mut puts),
        median(&mut sights)
    );
    assert!(median(&mut sights) < Duration::from_millis(500));
}
