//! The courier against a small DHT of nodes that behave as told, in virtual time.

use std::collections::BTreeMap;

use super::*;
use super::{putting::WRITE_NODES, roster::QUERY_INTERVAL_MIN};
use crate::{
    dht::{blinding::WriteKey, location::Purpose, some_instant},
    sealing::Key,
};

/// How a node behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    Honest,
    Silent,
    /// Answers every get with an item that somebody else signed.
    Forger,
    /// Answers every query with an error.
    Refuser,
    /// Has forgotten the secret that its tokens came from.
    Forgetful,
}

struct World {
    courier: Courier,
    now: Instant,
    nodes: BTreeMap<SocketAddrV4, Node>,
    in_transit: Vec<(Instant, SocketAddrV4, Vec<u8>)>,
    queries: Vec<(Instant, SocketAddrV4)>,
    outputs: Vec<(Instant, Output)>,
}

struct Node {
    contact: Contact,
    manners: Manners,
    items: BTreeMap<Target, Item>,
    tokens_refused: usize,
}

const ONE_WAY: Duration = Duration::from_millis(40);

fn key(seed: u8) -> WriteKey {
    WriteKey::shared(&Key::from_bytes([seed; 32]))
}

fn item(seed: u8, seq: i64) -> Item {
    Item::sign(&key(seed), seq, vec![seed; 10])
}

fn location(seed: u8) -> Location {
    Location::new(key(seed).public_key(), Purpose::PeerSlot(0))
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl World {
    fn new(manners: &[Manners]) -> Self {
        let mut entropy = Entropy::from_seed(1);
        let nodes = (1_u16..).zip(manners).map(|(port, &manners)| {
            let address = SocketAddrV4::new([127, 0, 0, 1].into(), port);
            let contact = Contact { id: entropy.bytes(), address };
            let node = Node { contact, manners, items: BTreeMap::new(), tokens_refused: 0 };
            (address, node)
        });
        let nodes = nodes.collect();
        let now = some_instant();
        let courier = Courier::new(entropy, now);
        Self { courier, now, nodes, in_transit: vec![], queries: vec![], outputs: vec![] }
    }

    /// Lets mainline's lookup find every node but the silent ones, and their tokens.
    fn answer_lookup(&mut self, location: Location) {
        let answering = self.nodes.values().filter(|node| node.manners != Manners::Silent);
        let found = answering.map(|node| (node.contact, Some(b"token".to_vec()))).collect();
        self.courier.handle_neighbours(location.target, found, self.now);
    }

    /// Tells the courier of every node by hearsay.
    fn spread_rumours(&mut self, location: Location) {
        let found = self.nodes.values().map(|node| (node.contact, None)).collect();
        self.courier.handle_neighbours(location.target, found, self.now);
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.drain();
            let arrival = self.in_transit.iter().map(|(at, ..)| *at).min();
            let Some(next) = self.courier.poll_timeout().into_iter().chain(arrival).min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = next.max(self.now);
            self.deliver();
            self.courier.handle_timeout(self.now);
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(output) = self.courier.poll_output() {
            if let Output::Send { to, datagram } = &output {
                self.queries.push((self.now, *to));
                let node = self.nodes.get_mut(to).expect("only nodes that exist are asked");
                if let Some(reply) = node.reply(datagram) {
                    self.in_transit.push((self.now + ONE_WAY * 2, *to, reply));
                }
            } else {
                self.outputs.push((self.now, output));
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later) = self.in_transit.drain(..).partition(|(at, ..)| *at <= now);
        self.in_transit = later;
        for (_, from, datagram) in due {
            self.courier.handle_datagram(from, &datagram, now);
        }
    }

    fn put_result(&self) -> Option<Result<Stored, PutError>> {
        self.outputs.iter().find_map(|(_, output)| {
            let Output::PutEnded(_, result) = output else {
                return None;
            };
            Some(result.clone())
        })
    }

    fn noticed(&self) -> Vec<(Instant, Item)> {
        let noticed = self.outputs.iter().filter_map(|(at, output)| {
            let Output::Noticed(_, _, item) = output else {
                return None;
            };
            Some((*at, item.clone()))
        });
        noticed.collect()
    }

    fn store_everywhere(&mut self, item: &Item) {
        for node in self.nodes.values_mut() {
            node.items.insert(item.target(), item.clone());
        }
    }

    /// Fails if any node got two queries within a second.
    fn assert_polite(&self) {
        let mut last: BTreeMap<SocketAddrV4, Instant> = BTreeMap::new();
        for (at, to) in &self.queries {
            let before = last.insert(*to, *at);
            assert!(before.is_none_or(|before| *at - before >= QUERY_INTERVAL_MIN), "{to}");
        }
    }
}

impl Node {
    fn reply(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let transaction = after(query, b"1:t4:", 4)?;
        let is_put = query.windows(8).any(|window| window == b"1:q3:put");
        let target = Target(after(query, b"6:target20:", 20)?.try_into().ok()?);
        if self.manners == Manners::Silent {
            return None;
        }
        if self.manners == Manners::Refuser {
            return Some(error(&transaction, 202));
        }
        if is_put && self.manners == Manners::Forgetful && self.tokens_refused == 0 {
            self.tokens_refused += 1;
            return Some(error(&transaction, 203));
        }
        if is_put {
            return Some(self.store(query, target, &transaction));
        }
        let mut body = b"d1:rd2:id20:".to_vec();
        body.extend(self.contact.id);
        let forged = (self.manners == Manners::Forger).then(|| item(66, 999));
        if let Some(item) = forged.as_ref().or_else(|| self.items.get(&target)) {
            body.extend(b"1:k32:");
            body.extend(item.public_key());
            body.extend(format!("3:seqi{}e3:sig64:", item.seq()).into_bytes());
            body.extend(item.signature());
            body.extend(b"5:token5:token");
            body.extend(format!("1:v{}:", item.value().len()).into_bytes());
            body.extend(item.value());
        } else {
            body.extend(b"5:token5:token");
        }
        body.extend(b"e1:t4:");
        body.extend(transaction);
        body.extend(b"1:y1:re");
        Some(body)
    }

    fn store(&mut self, query: &[u8], target: Target, transaction: &[u8]) -> Vec<u8> {
        let seq = after_number(query, b"3:seqi").expect("a put has a number");
        if let Some(stored) = self.items.get(&target) {
            if after_number(query, b"3:casi").is_some_and(|cas| cas != stored.seq()) {
                return error(transaction, 301);
            }
            if seq < stored.seq() {
                return error(transaction, 302);
            }
        }
        let value = vec![1; 10];
        let signed = (1..=5).map(|seed| Item::sign(&key(seed), seq, vec![seed; 10]));
        let item = signed.into_iter().find(|item| item.target() == target);
        self.items.insert(target, item.unwrap_or_else(|| Item::sign(&key(1), seq, value)));
        let mut body = b"d1:rd2:id20:".to_vec();
        body.extend(self.contact.id);
        body.extend(b"e1:t4:");
        body.extend(transaction);
        body.extend(b"1:y1:re");
        body
    }
}

fn error(transaction: &[u8], code: i64) -> Vec<u8> {
    let mut body = format!("d1:eli{code}e2:noe1:t4:").into_bytes();
    body.extend(transaction);
    body.extend(b"1:y1:ee");
    body
}

fn after(bytes: &[u8], mark: &[u8], count: usize) -> Option<Vec<u8>> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)? + mark.len();
    bytes.get(at..at + count).map(<[u8]>::to_vec)
}

fn after_number(bytes: &[u8], mark: &[u8]) -> Option<i64> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)? + mark.len();
    let digits: Vec<u8> = bytes[at..].iter().copied().take_while(|byte| *byte != b'e').collect();
    String::from_utf8(digits).ok()?.parse().ok()
}

#[test]
fn a_prepared_put_takes_one_round_trip() {
    let mut world = World::new(&[Manners::Honest; 20]);
    world.courier.handle_prepare(location(1), world.now);
    world.run_for(secs(1));
    assert_eq!(world.outputs.pop().unwrap().1, Output::LookUp(location(1)));
    world.answer_lookup(location(1));
    let start = world.now;
    world.courier.handle_put(PutId(1), location(1), item(1, 5), None, start);
    world.run_for(secs(2));
    let (at, ended) = world.outputs.pop().unwrap();
    let stored = Stored { nodes: 8, conflicting: 0 };
    assert_eq!(ended, Output::PutEnded(PutId(1), Ok(stored)));
    assert_eq!(at - start, ONE_WAY * 2);
    assert_eq!(world.nodes.values().filter(|node| !node.items.is_empty()).count(), WRITE_NODES);
    world.assert_polite();
}

#[test]
fn an_unprepared_put_waits_for_the_lookup_only() {
    let mut world = World::new(&[Manners::Honest; 20]);
    world.courier.handle_put(PutId(1), location(1), item(1, 5), None, world.now);
    world.run_for(Duration::from_millis(300));
    assert_eq!(world.put_result(), None);
    world.answer_lookup(location(1));
    world.run_for(ONE_WAY * 2);
    assert!(world.put_result().unwrap().is_ok());
}

#[test]
fn a_put_without_any_node_says_so() {
    let mut world = World::new(&[]);
    world.courier.handle_put(PutId(1), location(1), item(1, 5), None, world.now);
    world.run_for(secs(1));
    world.answer_lookup(location(1));
    world.run_for(secs(1));
    assert_eq!(world.put_result(), Some(Err(PutError::NoNodes)));
}

#[test]
fn a_lost_race_is_told_as_such() {
    let mut world = World::new(&[Manners::Honest; 12]);
    world.store_everywhere(&item(1, 7));
    world.courier.handle_prepare(location(1), world.now);
    world.answer_lookup(location(1));
    world.courier.handle_put(PutId(1), location(1), item(1, 9), Some(5), world.now);
    world.run_for(secs(2));
    assert_eq!(world.put_result(), Some(Err(PutError::CasFailed { current: None })));
    world.outputs.clear();
    world.courier.handle_put(PutId(2), location(1), item(1, 6), None, world.now);
    world.run_for(secs(2));
    assert_eq!(world.put_result(), Some(Err(PutError::NotNewer { current: None })));
    world.assert_polite();
}

/// In a small DHT all places have the same nodes, each of which is asked once a second.
#[test]
fn what_is_watched_is_looked_at_though_one_put_follows_the_other() {
    let mut world = World::new(&[Manners::Honest; 8]);
    world.courier.handle_prepare(location(2), world.now);
    world.answer_lookup(location(2));
    world.courier.handle_watch(WatchId(1), vec![location(1)], world.now);
    world.answer_lookup(location(1));
    world.run_for(secs(2));
    let put_at = world.now;
    world.store_everywhere(&item(1, 7));
    for number in 1..=10 {
        world.outputs.retain(|(_, output)| !matches!(output, Output::PutEnded(..)));
        let cas = Some(i64::MAX);
        let offer = item(2, 100 + i64::try_from(number).unwrap());
        world.courier.handle_put(PutId(number), location(2), offer, cas, world.now);
        while world.put_result().is_none() {
            world.run_for(Duration::from_millis(10));
        }
    }
    let noticed = world.noticed();
    assert_eq!(noticed.len(), 1);
    assert!(noticed[0].0 - put_at <= Duration::from_millis(1_200), "{:?}", noticed[0].0 - put_at);
    world.assert_polite();
}

#[test]
fn a_node_whose_secret_changed_gets_the_item_with_a_new_token() {
    let mut world = World::new(&[Manners::Forgetful; 4]);
    world.courier.handle_prepare(location(1), world.now);
    world.answer_lookup(location(1));
    world.courier.handle_put(PutId(1), location(1), item(1, 5), None, world.now);
    world.run_for(secs(4));
    let stored = Stored { nodes: 4, conflicting: 0 };
    assert_eq!(world.put_result(), Some(Ok(stored)));
    world.assert_polite();
}

#[test]
fn a_watcher_sees_an_item_soon_though_half_the_nodes_are_silent() {
    let manners: Vec<_> =
        (0..20).map(|i| if i % 2 == 0 { Manners::Silent } else { Manners::Honest }).collect();
    let mut world = World::new(&manners);
    world.courier.handle_watch(WatchId(1), vec![location(1)], world.now);
    world.run_for(Duration::from_millis(100));
    world.spread_rumours(location(1));
    world.run_for(secs(10));
    assert_eq!(world.noticed(), []);
    let start = world.now;
    world.store_everywhere(&item(1, 7));
    world.run_for(secs(3));
    let noticed = world.noticed();
    assert_eq!(noticed.len(), 1, "told once");
    assert_eq!(noticed[0].1, item(1, 7));
    assert!(noticed[0].0 - start < Duration::from_millis(400), "{:?}", noticed[0].0 - start);
    world.assert_polite();
}

#[test]
fn polling_stays_within_its_budget_however_much_is_watched() {
    let mut world = World::new(&[Manners::Honest; 24]);
    for seed in 1..=5 {
        world.courier.handle_watch(WatchId(seed.into()), vec![location(seed)], world.now);
        world.answer_lookup(location(seed));
    }
    world.run_for(secs(60));
    let queries = world.queries.len();
    assert!((440..=500).contains(&queries), "{queries}");
    world.assert_polite();
}

#[test]
fn with_a_faster_way_to_us_one_query_a_second_is_enough() {
    let mut world = World::new(&[Manners::Honest; 24]);
    for seed in 1..=5 {
        world.courier.handle_watch(WatchId(seed.into()), vec![location(seed)], world.now);
        world.answer_lookup(location(seed));
    }
    world.courier.set_pace(Pace::Gentle, world.now);
    world.run_for(secs(60));
    let gentle = world.queries.len();
    assert!((55..=64).contains(&gentle), "{gentle}");
    world.courier.set_pace(Pace::Close, world.now);
    world.run_for(secs(60));
    let queries = world.queries.len() - gentle;
    assert!((440..=500).contains(&queries), "{queries}");
}

/// Of many nodes; none gets more than one query a second.
#[test]
fn for_a_moment_what_is_watched_is_looked_at_four_times_as_often() {
    let mut world = World::new(&[Manners::Honest; 40]);
    for seed in 1..=3 {
        world.courier.handle_watch(WatchId(seed.into()), vec![location(seed)], world.now);
        world.answer_lookup(location(seed));
    }
    world.courier.set_pace(Pace::Gentle, world.now);
    world.run_for(secs(10));
    let before = world.queries.len();
    world.courier.set_pace(Pace::Urgent, world.now);
    world.run_for(secs(3));
    let urgent = world.queries.len() - before;
    assert!((60..=100).contains(&urgent), "{urgent}");
    world.assert_polite();
}

#[test]
fn in_a_dht_of_six_nodes_each_still_gets_one_query_a_second() {
    let mut world = World::new(&[Manners::Honest; 6]);
    world.courier.handle_watch(WatchId(1), vec![location(1), location(2)], world.now);
    world.answer_lookup(location(1));
    world.answer_lookup(location(2));
    world.run_for(secs(30));
    let queries = world.queries.len();
    assert!((150..=186).contains(&queries), "{queries}");
    world.assert_polite();
}

#[test]
fn forgeries_and_refusals_are_counted_and_their_nodes_left_alone() {
    let mut manners = vec![Manners::Honest; 4];
    manners.extend([Manners::Forger; 3]);
    manners.extend([Manners::Refuser; 3]);
    let mut world = World::new(&manners);
    world.courier.handle_watch(WatchId(1), vec![location(1)], world.now);
    world.answer_lookup(location(1));
    world.run_for(secs(30));
    assert_eq!(world.noticed(), []);
    let counters = world.courier.health(world.now).counters;
    assert_eq!((counters.forged, counters.errors), (6, 6));
    let start = world.now;
    world.store_everywhere(&item(1, 7));
    world.run_for(secs(2));
    assert!(world.noticed()[0].0 - start < Duration::from_millis(500));
}

#[test]
fn when_our_own_network_is_silent_no_node_is_blamed() {
    let mut world = World::new(&[Manners::Silent; 10]);
    world.courier.handle_watch(WatchId(1), vec![location(1)], world.now);
    world.spread_rumours(location(1));
    world.run_for(secs(20));
    world.nodes.values_mut().for_each(|node| node.manners = Manners::Honest);
    world.store_everywhere(&item(1, 7));
    world.run_for(secs(2));
    assert_eq!(world.noticed().len(), 1);
}

#[test]
fn answers_to_nobodys_query_are_counted_and_dropped() {
    let mut world = World::new(&[Manners::Honest; 1]);
    let stranger = SocketAddrV4::new([127, 0, 0, 1].into(), 999);
    world.courier.handle_datagram(stranger, &error(b"abcd", 301), world.now);
    world.courier.handle_datagram(stranger, b"garbage", world.now);
    let counters = world.courier.health(world.now).counters;
    assert_eq!(counters, Counters { received: 2, malformed: 1, unexpected: 1, ..counters });
    assert_eq!(world.courier.poll_output(), None);
}

#[test]
fn the_places_in_memory_are_bounded() {
    let mut world = World::new(&[]);
    for index in 0..1000_u32 {
        let mut public_key = [0; 32];
        public_key[..4].copy_from_slice(&index.to_be_bytes());
        let place = Location::new(public_key, Purpose::Record);
        world.now += Duration::from_millis(1);
        world.courier.handle_prepare(place, world.now);
        assert!(world.courier.places.len() <= PLACES_MAX);
    }
}
