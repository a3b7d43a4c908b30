//! One peer being reached: what it was told, what was tried, and which path was found.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Dialler, Found, Gathered, Output};
use crate::{
    behaviour::NatBehaviour,
    candidate::{CANDIDATES_MAX, Candidate, CandidateKind},
    datagram::{Path, SocketIndex},
    entropy::Entropy,
    identity::{Ephemeral, PeerId},
    nat::{
        engine::{self, Engine, Setup},
        proved::Witness,
        punch::Opened,
        strategy::{Method, Plan},
        stun::Response,
        volley::Address,
    },
    node::{
        event::Stage,
        reaching::attempt::{self, Peer},
    },
    offer::{AnswerKey, Offer, OfferRejected, SealedOffer},
    probe::{ConversationId, Probe, Side},
    time::UnixMillis,
};

/// The way to one peer, with one key pair and one conversation for all attempts.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) peer: PeerId,
    pub(super) since: Instant,
    pub(super) next_attempt: Instant,
    pub(super) attempts: u32,
    pub(super) path: Option<Path>,
    /// A path that answered a probe.
    pub(super) proved: Option<Path>,
    /// Why no direct way is known.
    pub(super) incompatible: Option<Plan>,
    candidates: Vec<Candidate>,
    nat: NatBehaviour,
    /// Who says that the peer is there.
    witnesses: BTreeSet<Witness>,
    /// Whether a volley is planned, so that time may help.
    has_volley: bool,
    /// Where somebody else answered in the peer's place: private networks are numbered alike, so an
    /// address out of a record may belong to a neighbour of ours.
    strangers: BTreeSet<SocketAddr>,
    ephemeral: Ephemeral,
    conversation: ConversationId,
    /// Where a socket is seen that the peer's router has not heard of.
    fresh: Option<Candidate>,
    engine: Option<Engine>,
    knocking: Option<Knocking>,
    answer_key: Option<AnswerKey>,
    /// The newest offer, sealed.
    pub(super) told: Option<Vec<u8>>,
    /// When the peer's answer came.
    pub(super) answered_at: Option<Instant>,
    /// Offers that were knocked for.
    knocks: u32,
    /// In all attempts but the current one.
    pings_before: u64,
}

/// Probing at a steady beat while the peer is likely to read the offer.
///
/// A peer cannot reach us behind a NAT with dependent mapping: no address that it knows is right for it.
/// It hears the first probe of ours that arrives after it has opened its own filter, so its wait is
/// the time between two of our probes.
#[derive(Debug)]
struct Knocking {
    next: Instant,
    until: Instant,
}

impl Reach {
    /// Nothing was tried yet.
    pub(super) fn new(
        found: &Found,
        witnesses: BTreeSet<Witness>,
        (now, first_attempt): (Instant, Instant),
        entropy: &mut Entropy,
    ) -> Self {
        Self {
            peer: found.peer,
            since: now,
            next_attempt: first_attempt,
            attempts: 0,
            path: None,
            proved: None,
            incompatible: None,
            candidates: found.candidates.clone(),
            nat: found.nat,
            witnesses,
            has_volley: false,
            strangers: BTreeSet::new(),
            ephemeral: Ephemeral::generate(entropy),
            conversation: ConversationId(entropy.bytes()),
            fresh: None,
            engine: None,
            knocking: None,
            answer_key: None,
            told: None,
            answered_at: None,
            knocks: 0,
            pings_before: 0,
        }
    }

    /// Where the peer may be: not where we are ourselves, nor where somebody else is.
    pub(super) fn candidates(&self, ours: &Gathered) -> Vec<Candidate> {
        let is_ours = |address| ours.candidates.iter().any(|own| own.address == address);
        let is_hopeful = |candidate: &&Candidate| {
            !is_ours(candidate.address) && !self.strangers.contains(&candidate.address)
        };
        self.candidates.iter().filter(is_hopeful).copied().collect()
    }

    /// Takes in that we are elsewhere, or that our NAT is known better.
    pub(super) fn handle_gathered(&mut self, ours: &Gathered, now: Instant) {
        if let Some(engine) = &mut self.engine {
            engine.handle_own_news(attempt::ours_as_party(ours), now);
        }
    }

    /// Takes in where the peer says that it is now; returns whether that is new.
    pub(super) fn update(
        &mut self,
        found: &Found,
        ours: &Gathered,
        (now, unix): (Instant, UnixMillis),
    ) -> bool {
        let candidates = &found.candidates;
        if self.nat.without_hint() != found.nat && self.answered_at.is_none() {
            self.nat = found.nat;
            self.witnesses.insert(Witness::Record);
            let candidates = candidates.clone();
            let peer = Peer { nat: self.nat, candidates, witnesses: self.witnesses.clone() };
            let (addresses, forecast) = (peer.addresses(), peer.forecast(now, unix));
            if let Some(engine) = &mut self.engine {
                engine.handle_news(peer.party(), forecast, addresses, now);
            }
        }
        let is_new = self.candidates != *candidates;
        candidates.clone_into(&mut self.candidates);
        let hopeful = self.candidates(ours);
        if let Some(engine) = self.engine.as_mut().filter(|_| is_new) {
            engine.add_candidates(&hopeful, now);
        }
        is_new
    }

    /// Takes in that somebody else answered at these addresses; returns whether hopeful ones are left.
    pub(super) fn exclude(&mut self, strangers: &[SocketAddr], ours: &Gathered) -> bool {
        let before = self.candidates(ours).len();
        self.strangers.extend(strangers);
        (1..before).contains(&self.candidates(ours).len())
    }

    /// What the peer is to be told.
    pub(super) fn offer(
        &mut self,
        dialler: &Dialler,
        ours: &Gathered,
        made_at: UnixMillis,
        entropy: &mut Entropy,
    ) -> SealedOffer {
        let us = dialler.identity.peer_id();
        let prove = |key| Offer::proof(key, &us, &self.peer, self.conversation);
        let mut candidates = ours.candidates.clone();
        candidates.truncate(CANDIDATES_MAX - self.fresh.iter().len());
        candidates.extend(self.fresh);
        let offer = Offer {
            from: us,
            conversation: self.conversation,
            made_at,
            candidates,
            nat: ours.nat,
            proof: dialler.admission.as_ref().map(prove),
        };
        let sealed = offer.seal(&dialler.identity, &self.peer, &self.ephemeral, entropy);
        self.answer_key = Some(sealed.answer.clone());
        self.told = Some(sealed.bytes.clone());
        sealed
    }

    /// Takes in the peer's answer to our offer, if it is one.
    pub(super) fn handle_answer(
        &mut self,
        sealed: &[u8],
        (now, unix): (Instant, UnixMillis),
    ) -> Result<(), OfferRejected> {
        let key = self.answer_key.as_ref().ok_or(OfferRejected::NotForUs)?;
        let answer = key.open(sealed, self.peer, unix)?;
        self.answered_at.get_or_insert(now);
        self.nat = answer.nat;
        self.witnesses.insert(Witness::Peer);
        let peer = Peer {
            nat: self.nat,
            candidates: answer.candidates,
            witnesses: self.witnesses.clone(),
        };
        let addresses = self.addresses_of(&peer);
        if let Some(engine) = &mut self.engine {
            engine.add_candidates(&peer.candidates, now);
            let forecast = peer.forecast(now, unix);
            engine.handle_news(peer.party(), forecast, addresses, now);
        }
        Ok(())
    }

    /// Where a volley may go: the record's word holds for the addresses that it names, not for others.
    fn addresses_of(&self, peer: &Peer) -> Vec<Address> {
        let recorded = |ip| self.candidates.iter().any(|known| known.address.ip() == ip);
        let addresses = peer.addresses().into_iter();
        let addresses = addresses.map(|address| match recorded(address.ip()) {
            true => address,
            false => Address::Claimed(address.ip()),
        });
        addresses.collect()
    }

    /// Starts to probe, or starts anew; returns whether it was the first time.
    pub(super) fn probe(
        &mut self,
        dialler: &Dialler,
        ours: &Gathered,
        (now, deadline): (Instant, Instant),
        unix: UnixMillis,
    ) -> bool {
        let candidates = self.candidates(ours);
        self.attempts += 1;
        match &mut self.engine {
            Some(engine) => {
                self.pings_before += pings(engine);
                engine.restart(&candidates, deadline, now);
                false
            }
            None => {
                let times = (now, unix);
                let witnesses = self.witnesses.clone();
                let peer = Peer { nat: self.nat, candidates, witnesses };
                let sockets = &dialler.sockets;
                let setup = attempt::setup(Side::Initiator, sockets, ours, &peer, times, deadline);
                let setup = Setup { servers: dialler.stun_servers.clone(), ..setup };
                self.engine = Some(Engine::new(setup, now));
                true
            }
        }
    }

    /// Takes in a probe of the peer.
    pub(super) fn handle_probe(
        &mut self,
        path: Path,
        probe: Probe,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        if let Some(engine) = &mut self.engine {
            engine.handle_probe(path.socket, path.remote, probe, now, entropy);
        }
    }

    /// Takes in a socket that was asked for, or that there is none.
    pub(super) fn handle_socket(
        &mut self,
        socket: Option<SocketIndex>,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        match (&mut self.engine, socket) {
            (Some(engine), Some(socket)) => engine.handle_socket_opened(socket, now, entropy),
            (Some(engine), None) => engine.handle_socket_refused(),
            (None, _) => {}
        }
    }

    /// Takes in a STUN server's answer to a socket of the engine's.
    pub(super) fn handle_response(
        &mut self,
        from: (SocketIndex, SocketAddr),
        response: &Response,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        if let Some(engine) = &mut self.engine {
            engine.handle_response(from, response, now, entropy);
        }
    }

    /// Takes in when the peer should have been heard, as it has our offer.
    pub(super) fn expect_to_be_heard(&mut self, by: Instant) {
        if let Some(engine) = &mut self.engine {
            engine.handle_read(by);
        }
    }

    /// Takes in how many datagrams a volley may send.
    pub(super) fn handle_leave(&mut self, datagrams: u32, now: Instant, entropy: &mut Entropy) {
        if let Some(engine) = &mut self.engine {
            engine.handle_leave(datagrams, now, entropy);
        }
    }

    /// The offer lies where the peer will find it: begins to knock, if it cannot reach us by itself.
    pub(super) fn handle_offer_stored(&mut self, ours: &Gathered, now: Instant) {
        let is_cut_off = ours.nat.has_dependent_mapping() && self.path.is_none();
        if is_cut_off && self.knocks < KNOCKS_MAX {
            self.knocks += 1;
            self.knocking = Some(Knocking { next: now, until: now + KNOCK_TIME });
        }
    }

    /// Probes as it is due.
    pub(super) fn handle_timeout(
        &mut self,
        ours: &Gathered,
        (now, deadline): (Instant, Instant),
        entropy: &mut Entropy,
    ) {
        self.knock(ours, (now, deadline));
        if let Some(engine) = &mut self.engine {
            engine.handle_timeout(now, entropy);
        }
    }

    fn knock(&mut self, ours: &Gathered, (now, deadline): (Instant, Instant)) {
        let is_due = |knocking: &&mut Knocking| knocking.next <= now;
        let Some(knocking) = self.knocking.as_mut().filter(is_due) else { return };
        knocking.next = now + KNOCK_INTERVAL;
        let is_over = knocking.until <= now || self.path.is_some();
        if is_over {
            self.knocking = None;
            return;
        }
        let candidates = self.candidates(ours);
        if let Some(engine) = &mut self.engine {
            self.pings_before += pings(engine);
            engine.restart(&candidates, deadline, now);
        }
    }

    /// Whether nothing will open this pair: neither a volley nor another family of addresses.
    pub(super) fn has_no_way(&self, ours: &Gathered) -> bool {
        let has_v6 = |all: &[Candidate]| all.iter().any(|known| known.address.is_ipv6());
        let both_have_v6 = has_v6(&ours.candidates) && has_v6(&self.candidates(ours));
        self.incompatible.is_some() && !both_have_v6
    }

    /// Whether the peer's answer would be of use: ports have to be guessed, or nothing helps.
    pub(super) fn wants_answer(&self) -> bool {
        self.has_volley || self.incompatible.is_some()
    }

    /// Whether a volley may open it still.
    pub(super) fn has_volley(&self) -> bool {
        self.has_volley
    }

    /// When the next attempt or probe is due.
    pub(super) fn poll_timeout(&self) -> Instant {
        let engine = self.engine.as_ref().and_then(Engine::poll_timeout);
        let knock = self.knocking.as_ref().map(|knocking| knocking.next);
        engine.into_iter().chain(knock).fold(self.next_attempt, Instant::min)
    }

    /// Pings sent in all attempts.
    pub(super) fn pings_sent(&self) -> u64 {
        self.pings_before + self.engine.as_ref().map_or(0, pings)
    }

    /// What the probing came to so far, as the dial's own outputs.
    pub(super) fn drain(&mut self, now: Instant) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(output) = self.engine.as_mut().and_then(Engine::poll_output) {
            match output {
                engine::Output::Transmit { path, probe, hops } => {
                    outputs.push(Output::Transmit { path, probe, hops });
                }
                engine::Output::OpenSocket { family } => {
                    outputs.push(Output::OpenSocket { family })
                }
                engine::Output::CloseSocket(socket) => outputs.push(Output::CloseSocket(socket)),
                engine::Output::AskLeave(leave) => outputs.push(Output::AskLeave(leave)),
                engine::Output::Unspent(datagrams) => outputs.push(Output::Unspent(datagrams)),
                engine::Output::Ask(datagram) => outputs.push(Output::Ask(datagram)),
                engine::Output::Offer(seen) => {
                    self.fresh = Candidate::new(CandidateKind::ServerReflexive, seen);
                    self.next_attempt = now;
                }
                engine::Output::Doubtful => outputs.push(Output::Doubt),
                engine::Output::Trying(plan) => {
                    self.incompatible = None;
                    outputs.push(self.trying(&plan));
                }
                engine::Output::Incompatible(plan) => {
                    outputs.push(self.trying(&plan));
                    self.incompatible = Some(plan);
                }
                // Its packets come in, and those that it let out let ours in: the path is good enough for
                // QUIC's first packet, and nothing better is known.
                engine::Output::Heard { path } if self.path.is_none() => {
                    let detail = format!("probe heard from {}", path.remote);
                    outputs.extend(self.take_path(path, None, detail));
                }
                engine::Output::Open(Opened { path, rtt, observed })
                | engine::Output::Better(Opened { path, rtt, observed }) => {
                    self.proved = Some(path);
                    outputs.push(Output::SeenAt { socket: path.socket, observed });
                    if self.path != Some(path) {
                        let detail = format!("probe answered by {}", path.remote);
                        outputs.extend(self.take_path(path, Some(rtt), detail));
                    }
                }
                engine::Output::GaveUp(facts) => {
                    let detail = format!("{} probes, none answered", facts.pings_sent);
                    let peer = Some(self.peer);
                    outputs.push(Output::Stage { peer, stage: Stage::Punch, detail });
                }
                engine::Output::Heard { .. } => {}
            }
        }
        outputs
    }

    fn trying(&mut self, plan: &Plan) -> Output {
        self.has_volley |= matches!(plan.method, Method::Volley(_));
        Output::Trying { peer: self.peer, plan: plan.clone() }
    }

    fn take_path(&mut self, path: Path, rtt: Option<Duration>, detail: String) -> [Output; 3] {
        let peer = self.peer;
        self.path = Some(path);
        [
            Output::Stage { peer: Some(peer), stage: Stage::Path, detail },
            // In this order: what an earlier attempt of QUIC has left waiting is not sent.
            Output::Connect { peer, initial_rtt: rtt },
            Output::UsePath { peer, path },
        ]
    }
}

/// Pings to named addresses and to guessed ones.
fn pings(engine: &Engine) -> u64 {
    engine.facts().pings_sent + engine.facts().guesses_sent
}

/// As often as one path is probed at all: the peer hears us 10 ms after it can, in the middle.
const KNOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Inboxes are looked into twice a second, and an offer takes a moment to get there: 60 probes to each
/// address at the most.
const KNOCK_TIME: Duration = Duration::from_millis(1_200);

/// Offers of one dial that are knocked for: the first may be lost; a third would meet what two have met.
const KNOCKS_MAX: u32 = 2;
