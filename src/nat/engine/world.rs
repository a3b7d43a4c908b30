//! Two hosts with an engine each, behind the laboratory's NATs: they ask STUN servers, exchange an offer
//! and an answer, and open a path. 40 ms one way between them, and to the servers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::world_codec::{DATA, SEEN, decode, encode};
use super::*;
use crate::{
    candidate::CandidateKind,
    datagram::{BoundSocket, Datagram, Path},
    lab::{HostId, Nat, Pooling, Seed, SocketId, SteppedInternet},
    nat::{
        inference::{Inferred, Observation, infer},
        proved::{Proved, Witness},
        story::moment,
        strategy::Plan,
        stun::{self, Message, encode_response},
        volley::Leave,
    },
    probe::Urgency,
};

pub(super) const RTT: Duration = Duration::from_millis(80);
const ONE_WAY: Duration = Duration::from_millis(40);
pub(super) const ALICE: usize = 0;
pub(super) const BOB: usize = 1;
/// When Alice's offer leaves: the samples are 4 s old then, but for the last one.
const OFFER_AT: Duration = Duration::from_secs(5);
const STUN_PORT: u16 = 3_478;

/// One side.
pub(super) struct Host {
    id: HostId,
    sockets: BTreeMap<SocketIndex, SocketId>,
    next_index: u16,
    observations: Vec<Observation>,
    pub(super) engine: Option<Engine>,
    pub(super) path: Option<Path>,
    pub(super) opened_at: Option<Duration>,
    pub(super) plans: Vec<Plan>,
    pub(super) incompatible: bool,
    /// Most sockets open at a time.
    pub(super) crowd: usize,
    /// Data that came in over a socket of ours.
    pub(super) data: Vec<(SocketIndex, SocketAddr)>,
    sent_before: u64,
}

/// Both sides and what is between them.
pub(super) struct World {
    internet: SteppedInternet,
    start: Instant,
    now: Duration,
    entropy: Entropy,
    servers: BTreeMap<SocketId, SocketAddr>,
    pub(super) hosts: [Host; 2],
    /// What is to happen, and when.
    script: BTreeMap<Duration, Vec<Deed>>,
    openers: Openers,
    /// Whether Bob can tell Alice anything but by probes.
    pub(super) bob_answers: bool,
    /// Whether Alice can make another offer.
    pub(super) offers_again: bool,
}

#[derive(Clone, Debug)]
enum Deed {
    /// Asks a server from a fresh socket.
    Sample(usize),
    /// Alice begins; her offer is under way.
    Offer,
    /// Bob has read the offer.
    Read,
    /// Bob begins.
    Begin,
    /// Alice reads Bob's answer.
    Answer,
    /// Bob has read another offer, with this endpoint in it.
    ReadAgain(SocketAddr),
    /// Datagrams get lost from now on.
    Lose(f64),
}

impl World {
    pub(super) fn new(seed: u64, alice: &[Nat], bob: &[Nat], openers: Openers) -> Self {
        let mut internet = SteppedInternet::new(Seed(seed));
        // 1 ms in the home, 10 ms to the internet, and the same on the other side.
        internet.set_core_delay(ONE_WAY - Duration::from_millis(22));
        let mut servers = BTreeMap::new();
        for last in [1, 2] {
            let ip = IpAddr::from([203, 0, 113, last]);
            let host = internet.host(&[], ip);
            for port in [STUN_PORT, STUN_PORT + 1] {
                servers.insert(internet.bind(host, port), SocketAddr::new(ip, port));
            }
        }
        let mut side = |number: u8, nats: &[Nat]| {
            let public = |level: u8| match level {
                0 => IpAddr::from([198, 51, 100, number]),
                _ => IpAddr::from([100, 64, level, number]),
            };
            let levels = (0..u8::try_from(nats.len()).unwrap()).rev();
            let addresses = |nat: &Nat, level| match nat.pooling {
                Pooling::Paired => vec![public(level)],
                Pooling::Arbitrary => vec![public(level), IpAddr::from([198, 51, 101, number])],
            };
            let chain: Vec<_> =
                nats.iter().zip(levels).map(|(nat, level)| (*nat, addresses(nat, level))).collect();
            let inside = match nats {
                [] => public(0),
                _ => IpAddr::from([192, 168, number, 2]),
            };
            let id = internet.host(&chain, inside);
            let main = internet.bind(id, 5_000 + u16::from(number));
            Host {
                id,
                sockets: BTreeMap::from([(SocketIndex(0), main)]),
                next_index: 1,
                observations: vec![],
                engine: None,
                path: None,
                opened_at: None,
                plans: vec![],
                incompatible: false,
                crowd: 0,
                data: vec![],
                sent_before: 0,
            }
        };
        let hosts = [side(1, alice), side(2, bob)];
        let mut world = Self {
            internet,
            start: moment(),
            now: Duration::ZERO,
            entropy: Entropy::from_seed(seed),
            servers,
            hosts,
            script: BTreeMap::new(),
            openers,
            bob_answers: true,
            offers_again: true,
        };
        for who in [ALICE, BOB] {
            world.sample_all(who);
        }
        world.at(OFFER_AT - RTT, Deed::Sample(ALICE));
        world.at(OFFER_AT, Deed::Offer);
        world.at(OFFER_AT + ONE_WAY, Deed::Read);
        world
    }

    /// Loses this part of all datagrams on their way, from the offer on.
    pub(super) fn lose(&mut self, fraction: f64) {
        self.at(OFFER_AT, Deed::Lose(fraction));
    }

    /// Lets time pass until both have a path, or it is this late after Bob has read the offer.
    pub(super) fn run(&mut self, seconds: u64) {
        let end = OFFER_AT + ONE_WAY + Duration::from_secs(seconds);
        self.run_until(end, |world| world.hosts.iter().all(|host| host.path.is_some()));
    }

    /// Whether data goes both ways over Alice's path, now and when all is settled. Bob answers where it
    /// comes from, as a link does.
    pub(super) fn alices_path_carries_data(&mut self) -> bool {
        (0..2).all(|_| {
            let works = self.data_is_echoed();
            self.run_until(self.now + Duration::from_secs(4), |_| false);
            works
        })
    }

    fn data_is_echoed(&mut self) -> bool {
        self.hosts.iter_mut().for_each(|host| host.data.clear());
        for who in [ALICE, BOB] {
            let Some(path) = self.hosts[who].path else { return false };
            let Some(socket) = self.hosts[who].sockets.get(&path.socket) else { return false };
            self.internet.send(*socket, path.remote, vec![DATA], None, self.now);
            self.run_until(self.now + RTT, |_| false);
            let (other, data) = (1 - who, self.hosts[1 - who].data.clone());
            let [(socket, remote)] = data[..] else { return false };
            self.hosts[other].path = Some(Path { socket, remote });
            self.hosts[other].engine.as_mut().unwrap().handle_used(socket);
            self.drain(other);
        }
        true
    }

    /// From Bob's reading of the offer until both have a path.
    pub(super) fn took(&self) -> Option<Duration> {
        let [alice, bob] = &self.hosts;
        let both = alice.opened_at?.max(bob.opened_at?);
        Some(both.saturating_sub(OFFER_AT + ONE_WAY))
    }

    /// Datagrams that each has sent since the offer.
    pub(super) fn datagrams(&self) -> [u64; 2] {
        [ALICE, BOB].map(|who| {
            let host = &self.hosts[who];
            self.internet.counters(host.id).sent - host.sent_before
        })
    }

    fn at(&mut self, at: Duration, deed: Deed) {
        self.script.entry(at).or_default().push(deed);
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn run_until(&mut self, end: Duration, is_over: impl Fn(&Self) -> bool) {
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.step();
            if is_over(self) {
                return;
            }
        }
        self.now = self.now.max(end);
    }

    fn next(&self) -> Option<Duration> {
        let engines = self.hosts.iter().filter_map(|host| host.engine.as_ref());
        let engines = engines.filter_map(Engine::poll_timeout);
        let engines = engines.map(|at| at.saturating_duration_since(self.start));
        let script = self.script.keys().next().copied();
        engines.chain(script).chain(self.internet.poll_timeout()).min()
    }

    fn step(&mut self) {
        while let Some(entry) = self.script.first_entry().filter(|entry| *entry.key() <= self.now) {
            for deed in entry.remove() {
                self.perform(deed);
            }
        }
        self.internet.handle_timeout(self.now);
        while let Some(heard) = self.internet.poll_heard() {
            self.receive(heard.socket, heard.from, &heard.bytes);
        }
        let now = self.instant();
        for who in [ALICE, BOB] {
            if let Some(engine) = &mut self.hosts[who].engine
                && engine.poll_timeout().is_some_and(|due| due <= now)
            {
                engine.handle_timeout(now, &mut self.entropy);
            }
            self.drain(who);
        }
    }

    fn receive(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        if self.servers.contains_key(&socket) {
            if let Ok(Message::Request(request)) = stun::decode(bytes) {
                let answer = encode_response(request.transaction, from);
                return self.internet.send(socket, from, answer, None, self.now);
            }
            let seen = [&[SEEN], from.to_string().as_bytes()].concat();
            return self.internet.send(socket, from, seen, None, self.now);
        }
        let now = self.instant();
        for who in [ALICE, BOB] {
            let host = &mut self.hosts[who];
            let Some((&index, _)) = host.sockets.iter().find(|(_, id)| **id == socket) else {
                continue;
            };
            match bytes {
                [SEEN, seen @ ..] => {
                    let port = self.internet.port(socket).unwrap();
                    let asked = now - RTT;
                    host.observations.push(Observation {
                        socket: index,
                        local: SocketAddr::from(([192, 168, 0, 2], port)),
                        server: from,
                        reflexive: std::str::from_utf8(seen).unwrap().parse().unwrap(),
                        at: asked,
                        since: asked,
                    });
                }
                [DATA] => host.data.push((index, from)),
                probe => {
                    if let Some(engine) = &mut host.engine {
                        if let Ok(Message::Response(response)) = stun::decode(probe) {
                            let of = (index, from);
                            engine.handle_response(of, &response, now, &mut self.entropy);
                            continue;
                        }
                        let probe = decode(probe);
                        engine.handle_probe(index, from, probe, now, &mut self.entropy);
                    }
                }
            }
            self.drain(who);
        }
    }

    fn drain(&mut self, who: usize) {
        let now = self.instant();
        loop {
            let host = &mut self.hosts[who];
            let Some(output) = host.engine.as_mut().and_then(Engine::poll_output) else { return };
            match output {
                Output::Transmit { path, probe, hops } => {
                    if let Some(socket) = host.sockets.get(&path.socket) {
                        let bytes = encode(probe);
                        self.internet.send(*socket, path.remote, bytes, hops, self.now);
                    }
                }
                Output::OpenSocket { .. } => {
                    let index = self.open(who);
                    let host = &mut self.hosts[who];
                    host.crowd = host.crowd.max(host.sockets.len());
                    let engine = host.engine.as_mut().unwrap();
                    engine.handle_socket_opened(index, now, &mut self.entropy);
                }
                Output::AskLeave(Leave::New { datagrams, .. } | Leave::Again { datagrams }) => {
                    let engine = host.engine.as_mut().unwrap();
                    engine.handle_leave(datagrams, now, &mut self.entropy);
                }
                Output::Ask(question) => {
                    if let Some(socket) = host.sockets.get(&question.socket) {
                        let Datagram { remote, bytes, .. } = question;
                        self.internet.send(*socket, remote, bytes.to_vec(), None, self.now);
                    }
                }
                Output::Offer(endpoint) => {
                    self.at(self.now + ONE_WAY, Deed::ReadAgain(endpoint));
                }
                Output::Unspent(_) | Output::Doubtful => {}
                Output::CloseSocket(index) => {
                    let socket = host.sockets.remove(&index).unwrap();
                    self.internet.close(socket);
                }
                Output::Open(opened) => {
                    host.opened_at = Some(self.now);
                    host.path = Some(opened.path);
                }
                Output::Better(opened) => host.path = Some(opened.path),
                Output::Trying(plan) => host.plans.push(plan),
                Output::Incompatible(plan) => {
                    host.incompatible = true;
                    host.plans.push(plan);
                }
                Output::Heard { .. } | Output::GaveUp(_) => {}
            }
        }
    }

    fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Sample(who) => {
                let index = self.open(who);
                self.ask(who, index, 0);
            }
            Deed::Offer => {
                for who in [ALICE, BOB] {
                    let id = self.hosts[who].id;
                    self.hosts[who].sent_before = self.internet.counters(id).sent;
                }
                self.begin(ALICE, Side::Initiator);
            }
            Deed::Read => {
                // A NAT that counts is asked once more how far it has got.
                let counted = self.inferred(BOB).and_then(|inferred| inferred.counted);
                let counts_twice = counted.is_some() && self.is_dependent(ALICE);
                let begins = if counts_twice { self.now + RTT } else { self.now };
                if counted.is_some() {
                    self.perform(Deed::Sample(BOB));
                    if self.bob_answers {
                        self.at(self.now + RTT + ONE_WAY, Deed::Answer);
                    }
                }
                self.at(begins, Deed::Begin);
            }
            Deed::ReadAgain(endpoint) => {
                let now = self.instant();
                let mut candidates = self.candidates_of(ALICE);
                candidates.extend(Candidate::new(CandidateKind::ServerReflexive, endpoint));
                if let Some(engine) = &mut self.hosts[BOB].engine {
                    engine.restart(&candidates, now + Duration::from_secs(20), now);
                }
                self.drain(BOB);
            }
            Deed::Lose(fraction) => {
                for host in &self.hosts {
                    self.internet.set_loss(host.id, fraction / 2.0);
                }
            }
            Deed::Begin => self.begin(BOB, Side::Responder),
            Deed::Answer => {
                let (theirs, forecast) = self.told(BOB);
                let now = self.instant();
                if let Some(engine) = &mut self.hosts[ALICE].engine {
                    engine.handle_news(theirs, forecast, vec![], now);
                }
                self.drain(ALICE);
            }
        }
    }

    fn begin(&mut self, who: usize, side: Side) {
        let now = self.instant();
        let ((ours, _), (theirs, forecast)) = (self.told(who), self.told(1 - who));
        let candidates = self.candidates_of(1 - who);
        let helper = Witness::Bystander([203, 0, 113, 9].into());
        let addresses = theirs.public.iter();
        let addresses = addresses.filter_map(|ip| Proved::by(*ip, Witness::Peer, helper));
        let addresses = addresses.map(Address::Proved).collect();
        let local = "0.0.0.0:5000".parse().unwrap();
        let setup = Setup {
            punch: punch::Setup {
                sockets: vec![BoundSocket { index: SocketIndex(0), local }],
                candidates,
                urgency: Urgency::Routine,
                deadline: now + Duration::from_secs(20),
            },
            side,
            ours,
            theirs,
            forecast,
            addresses,
            peer_begins: now + ONE_WAY,
            openers: if side == Side::Initiator { self.openers } else { Openers::Loud },
            servers: if self.offers_again {
                self.servers.values().copied().collect()
            } else {
                vec![]
            },
        };
        self.hosts[who].engine = Some(Engine::new(setup, now));
        self.drain(who);
    }

    /// Where a side says that it is.
    fn candidates_of(&self, who: usize) -> Vec<Candidate> {
        let advertised = self.inferred(who).map(|inferred| inferred.advertised());
        let addresses = advertised.unwrap_or_default().into_iter();
        addresses
            .filter_map(|address| Candidate::new(CandidateKind::ServerReflexive, address))
            .collect()
    }

    pub(super) fn inferred(&self, who: usize) -> Option<Inferred> {
        infer(Family::V4, &self.hosts[who].observations)
    }

    fn is_dependent(&self, who: usize) -> bool {
        self.inferred(who).is_some_and(|inferred| inferred.behaviour.has_dependent_mapping())
    }

    /// What a side can say of itself.
    fn told(&self, who: usize) -> (Party, Option<Forecast>) {
        let Some(inferred) = self.inferred(who) else { return (Party::default(), None) };
        let mut public: Vec<IpAddr> = inferred.public.iter().map(|seen| seen.ip()).collect();
        public.sort_unstable();
        public.dedup();
        let forecast = match (inferred.allocation, inferred.counted) {
            (Some(crate::behaviour::PortAllocation::Sequential { step }), Some(counted)) => {
                Some(Forecast {
                    port: counted.port,
                    seen_at: counted.seen_at,
                    step,
                    others_per_minute: counted.others_per_minute,
                })
            }
            _ => None,
        };
        (Party { nat: inferred.behaviour, public }, forecast)
    }

    fn open(&mut self, who: usize) -> SocketIndex {
        let host = &mut self.hosts[who];
        let index = SocketIndex(host.next_index);
        host.next_index += 1;
        host.sockets.insert(index, self.internet.bind(host.id, 0));
        index
    }

    /// The main socket asks all servers, six fresh ones one each.
    fn sample_all(&mut self, who: usize) {
        for server in 0..4 {
            self.ask(who, SocketIndex(0), server);
        }
        for server in [0, 1, 2, 3, 0, 1] {
            let index = self.open(who);
            self.ask(who, index, server);
        }
    }

    fn ask(&mut self, who: usize, socket: SocketIndex, server: usize) {
        let server = *self.servers.values().nth(server).unwrap();
        let socket = self.hosts[who].sockets[&socket];
        self.internet.send(socket, server, vec![SEEN], None, self.now);
    }
}
