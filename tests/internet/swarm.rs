//! Many random worlds: NATs in chains, poor links, several servers and clients that talk, and routers
//! that forget, change their address or lose their network meanwhile. In each, every promise is checked
//! against a model: the oracle for who can meet, a plain list for what was said.
//!
//! World `n` has seed `n`. With `P2P_NODE_SEED=n` the worlds are counted from `n`, so that the first test
//! begins with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Range,
    sync::{Arc, Mutex},
};

use p2p_node::{
    entropy::Entropy,
    failure::{Code, Failure},
    identity::PeerId,
    lab::{Filtering, Mapping, Nat, Ports, Verdict},
    node::{Event, Target, event::Receipt},
    proto::Message,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    peer::Peer,
    world::{Home, World, ms, run_for, secs, seed_from_environment, to_service},
};

#[test]
fn worlds_1_to_50() {
    explore(1..51);
}

#[test]
fn worlds_51_to_100() {
    explore(51..101);
}

#[test]
fn worlds_101_to_150() {
    explore(101..151);
}

#[test]
fn worlds_151_to_200() {
    explore(151..201);
}

fn explore(worlds: Range<u64>) {
    let first = seed_from_environment().unwrap_or(1) + worlds.start - 1;
    let mut total: BTreeMap<String, usize> = BTreeMap::new();
    for seed in first..first + (worlds.end - worlds.start) {
        // A world that never ends is the last that its test names.
        println!("world {seed}");
        for (what, count) in run_for("worlds_1_to_50", seed, live) {
            *total.entry(what).or_default() += count;
        }
    }
    println!("{total:#?}");
}

/// Builds a world, lets its nodes meet and talk while routers misbehave, and checks what came of it.
/// Returns how often what happened.
async fn live(mut world: World) -> BTreeMap<String, usize> {
    let mut chance = world.entropy.fork();
    let mut nodes = Nodes::settle(&mut world, &mut chance).await;
    nodes.meet(&world).await;
    let until = Instant::now() + secs(30);
    let (ledger, trouble) = (Arc::default(), Trouble::plan(&nodes, until, &mut chance));
    let talks = nodes.talk(&ledger, until, &mut chance);
    let seen = trouble.make(&mut world).await;
    let ends = timeout(secs(120), talks.join_all()).await;
    ends.expect("every send ends, with a receipt or a failure");
    sleep(secs(1)).await;
    ledger.lock().unwrap().check(&nodes);
    nodes.check_datagrams(&seen, ledger.lock().unwrap().size());
    let mut counts = ledger.lock().unwrap().counts();
    for (_, event) in nodes.all().flat_map(Peer::events) {
        let what = match event {
            Event::Connected(_) => "links, each end",
            Event::Disconnected { .. } => "links lost, each end",
            Event::PathChanged { .. } => "paths changed",
            _ => continue,
        };
        *counts.entry(what.to_owned()).or_default() += 1;
    }
    counts
}

/// Everybody in a world.
struct Nodes {
    servers: Vec<Peer>,
    clients: Vec<Peer>,
}

impl Nodes {
    async fn settle(world: &mut World, chance: &mut Entropy) -> Self {
        let mut servers = Vec::new();
        for _ in 0..1 + chance.below(2) {
            let home = home(world, chance);
            let mut server = world.server(&home);
            server.online().await;
            servers.push(server);
        }
        let mut clients = Vec::new();
        for _ in 0..1 + chance.below(3) {
            let home = home(world, chance);
            clients.push(world.client(&home));
        }
        Self { servers, clients }
    }

    fn all(&self) -> impl Iterator<Item = &Peer> {
        self.servers.iter().chain(&self.clients)
    }

    /// Every client dials, gets through if plain probes can open a way to a server, and never where the
    /// oracle knows none.
    async fn meet(&mut self, world: &World) {
        let dials = self.clients.iter().map(|client| {
            let node = client.node.clone();
            async move { node.connect(to_service(), None).await }
        });
        let dials: JoinSet<_> = dials.collect();
        let results = timeout(secs(21), dials.join_all()).await;
        let results = results.expect("every dial ends in its time");
        assert_eq!(results.len(), self.clients.len());
        for client in &self.clients {
            let verdicts = self.servers.iter().map(|server| {
                let hosts = (&client.home.host, &server.home.host);
                world.internet.verdict(hosts.0, hosts.1)
            });
            let verdicts: Vec<Verdict> = verdicts.collect();
            let met = client.count(|event| matches!(event, Event::Connected(_))) > 0;
            let is_told = || format!("{verdicts:?}: {:#?}", client.events());
            assert!(met || !verdicts.contains(&Verdict::Plain), "{}", is_told());
            let is_hopeless = verdicts.iter().all(|verdict| *verdict == Verdict::Impossible);
            assert!(!(met && is_hopeless), "{}", is_told());
        }
        for failure in results.into_iter().filter_map(Result::err) {
            let codes = [Code::NatIncompatible, Code::PunchTimeout];
            assert!(codes.contains(&failure.code), "{failure}");
        }
    }

    /// Clients talk to the service, servers to the clients that have come, until `until`.
    fn talk(
        &self,
        ledger: &Arc<Mutex<Ledger>>,
        until: Instant,
        chance: &mut Entropy,
    ) -> JoinSet<()> {
        let mut talks = JoinSet::new();
        for client in &self.clients {
            let plan = Speech::plan(until, chance);
            talks.spawn(plan.hold(client.node.clone(), to_service(), ledger.clone()));
        }
        for server in &self.servers {
            for (_, event) in server.events() {
                if let Event::Connected(connection) = event {
                    let plan = Speech::plan(until, chance);
                    let target = Target::Peer(connection.peer);
                    talks.spawn(plan.hold(server.node.clone(), target, ledger.clone()));
                }
            }
        }
        talks
    }

    /// Nobody sent more than a share of what was said, and nothing to anybody whose address nobody told.
    fn check_datagrams(&self, seen: &BTreeMap<PeerId, BTreeSet<IpAddr>>, size: usize) {
        let addresses = |peers: &[Peer]| -> BTreeSet<IpAddr> {
            let ids = peers.iter().map(Peer::id);
            ids.flat_map(|id| seen[&id].clone()).collect()
        };
        let (of_servers, of_clients) = (addresses(&self.servers), addresses(&self.clients));
        // A server that has been reached by others lists itself as a helper of servers.
        let of_all: BTreeSet<IpAddr> = of_servers.union(&of_clients).copied().collect();
        for server in &self.servers {
            assert_eq!(server.home.strangers(&of_all), [].into());
        }
        for client in &self.clients {
            assert_eq!(client.home.strangers(&of_servers), [].into());
        }
        let said = u64::try_from(size / DATAGRAM_PAYLOAD).unwrap();
        for peer in self.all() {
            let sent = peer.home.host.counters().sent;
            let limit = DATAGRAMS_MAX + 4 * said;
            assert!(sent <= limit, "{sent} datagrams, {limit} at most");
        }
    }
}

/// A home behind up to two NATs, on a link that may be poor.
fn home(world: &mut World, chance: &mut Entropy) -> Home {
    let count = [0, 1, 1, 1, 1, 1, 2, 2][chance.below(8)];
    let nats: Vec<Nat> = (0..count).map(|_| nat(chance)).collect();
    let home = world.behind_all(&nats);
    let delay_ms = u64::try_from(2 + chance.below(64)).unwrap();
    let jitter_ms = u64::try_from([0, 0, 5, 20][chance.below(4)]).unwrap();
    let loss = [0.0, 0.0, 0.01, 0.075][chance.below(4)];
    home.change_uplink(|link| {
        (link.delay_ms, link.jitter_ms, link.loss) = (delay_ms, jitter_ms, loss);
    });
    home
}

fn nat(chance: &mut Entropy) -> Nat {
    let common = chance.below(3) > 0;
    let ports = [
        Ports::Preserving,
        Ports::Sequential { step: 2 },
        Ports::Block { size: 512 },
        Ports::Random,
    ];
    Nat {
        mapping: match common {
            true => Mapping::EndpointIndependent,
            false => Mapping::ALL[chance.below(3)],
        },
        filtering: Filtering::ALL[chance.below(3)],
        ports: ports[chance.below(4)],
        hairpin: chance.below(2) == 0,
        ..Nat::home()
    }
}

/// What one node says to one target: moments and sizes.
struct Speech(Vec<(Instant, usize)>);

impl Speech {
    fn plan(until: Instant, chance: &mut Entropy) -> Self {
        let span = until - Instant::now();
        let count = 4 + chance.below(8);
        let mut moments: Vec<Instant> = (0..count)
            .map(|_| until - span / 1_000 * u32::try_from(chance.below(1_000)).unwrap())
            .collect();
        moments.sort();
        let mut sized = |at| {
            let size_max = [1_000, 1_000, 20_000, 200_000][chance.below(4)];
            (at, chance.below(size_max))
        };
        Self(moments.into_iter().map(&mut sized).collect())
    }

    async fn hold(self, node: p2p_node::node::Node, target: Target, ledger: Arc<Mutex<Ledger>>) {
        let mut sends = JoinSet::new();
        for (at, size) in self.0 {
            sleep_until(at).await;
            let number = ledger.lock().unwrap().note_sent(node.peer_id(), size);
            let message = Message {
                id: number.to_string(),
                payload: vec![7; size].into(),
                ..Message::default()
            };
            let (node, target, ledger) = (node.clone(), target.clone(), ledger.clone());
            sends.spawn(async move {
                let result = node.send(target, message, None).await;
                ledger.lock().unwrap().note_result(number, result);
            });
        }
        sends.join_all().await;
    }
}

/// Everything that was said, in the order in which it was.
#[derive(Default)]
struct Ledger(Vec<Entry>);

struct Entry {
    from: PeerId,
    size: usize,
    result: Option<Result<Receipt, Failure>>,
}

impl Ledger {
    fn note_sent(&mut self, from: PeerId, size: usize) -> usize {
        let result = None;
        self.0.push(Entry { from, size, result });
        self.0.len() - 1
    }

    fn note_result(&mut self, number: usize, result: Result<Receipt, Failure>) {
        self.0[number].result = Some(result);
    }

    fn size(&self) -> usize {
        self.0.iter().map(|entry| entry.size).sum()
    }

    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for result in self.0.iter().filter_map(|entry| entry.result.as_ref()) {
            let what = match result {
                Ok(_) => "messages delivered".to_owned(),
                Err(failure) => format!("messages failed: {}", failure.code),
            };
            *counts.entry(what).or_default() += 1;
        }
        counts
    }

    /// Every receipt stands for a message that arrived; whatever arrived did so once, whole, and in order.
    fn check(&self, nodes: &Nodes) {
        let mut arrived: BTreeMap<(PeerId, PeerId), Vec<usize>> = BTreeMap::new();
        for peer in nodes.all() {
            for (_, from, message) in peer.messages() {
                let number: usize = message.id.parse().unwrap();
                assert_eq!(self.0[number].from, from);
                assert_eq!(self.0[number].size, message.payload.len());
                arrived.entry((from, peer.id())).or_default().push(number);
            }
        }
        for (way, numbers) in &arrived {
            let in_order = numbers.windows(2).all(|pair| pair[0] < pair[1]);
            assert!(in_order, "doubled or out of order: {way:?} {numbers:?}");
        }
        for (number, entry) in self.0.iter().enumerate() {
            let result = entry.result.as_ref().expect("every send has ended");
            if let Ok(receipt) = result {
                let numbers = arrived.get(&(entry.from, receipt.peer.unwrap()));
                let has_arrived = numbers.is_some_and(|numbers| numbers.contains(&number));
                assert!(has_arrived, "message {number} is said to have arrived");
            }
        }
    }
}

/// What happens to the homes while the nodes talk.
struct Trouble {
    deeds: Vec<(Instant, PeerId, Home, Deed)>,
    seen: BTreeMap<PeerId, BTreeSet<IpAddr>>,
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    /// The router next to the host forgets its mappings.
    Forget,
    /// The outermost router gets another address.
    Move,
    /// The way to the internet is down from here on,
    Unplug,
    /// and up again.
    PlugIn,
}

impl Trouble {
    fn plan(nodes: &Nodes, until: Instant, chance: &mut Entropy) -> Self {
        let homes: Vec<(PeerId, Home)> =
            nodes.all().map(|peer| (peer.id(), peer.home.clone())).collect();
        let span = until - Instant::now();
        let mut deeds = Vec::new();
        for _ in 0..chance.below(4) {
            let (id, home) = homes[chance.below(homes.len())].clone();
            let at = until - span / 1_000 * u32::try_from(chance.below(1_000)).unwrap();
            match (chance.below(3), home.routers.is_empty()) {
                (0, false) => deeds.push((at, id, home, Deed::Forget)),
                (1, false) => deeds.push((at, id, home, Deed::Move)),
                _ => {
                    let back = at + ms(u64::try_from(chance.below(10_000)).unwrap());
                    deeds.push((at, id, home.clone(), Deed::Unplug));
                    deeds.push((back, id, home, Deed::PlugIn));
                }
            }
        }
        deeds.sort_by_key(|(at, ..)| *at);
        let seen = homes.iter().map(|(id, home)| (*id, home.candidates()));
        Self { deeds, seen: seen.collect() }
    }

    /// Does it all; returns where each node could be reached at one time or another.
    async fn make(mut self, world: &mut World) -> BTreeMap<PeerId, BTreeSet<IpAddr>> {
        for (at, id, home, deed) in self.deeds {
            sleep_until(at).await;
            match deed {
                Deed::Forget => home.routers[0].forget_mappings(),
                Deed::Move => home.outermost().change_public_address(world.public_address()),
                Deed::Unplug => home.unplug(),
                Deed::PlugIn => home.plug_in(),
            }
            self.seen.entry(id).or_default().extend(home.candidates());
        }
        self.seen
    }
}

/// What one node sends in a minute without saying anything: dials that fail, links that are looked after.
/// Of these, what volleys repeat is 410 a second at the most, for 35 s of the minute: in two worlds of these, those who dial a
/// server whose NAT counts take the ports at which another one, behind a block of ports, has aimed all that it has; it gives
/// them up after 25 s, and dials again.
const DATAGRAMS_MAX: u64 = 6_000 + 35 * 410;

/// Of a message, at least this much fits into a datagram.
const DATAGRAM_PAYLOAD: usize = 1_100;
