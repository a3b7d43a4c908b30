//! Somebody reaches us: offers from our inbox and by helpers, and the probing that answers them.

mod telling;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    candidate::{CANDIDATES_MAX, Candidate, CandidateKind, listed},
    datagram::{Family, Path},
    dht::location::Name,
    failure::{Code, Failure},
    identity::PeerId,
    nat::{
        engine::{self, Engine, Setup},
        proved::Witness,
        punch::Opened,
    },
    node::{
        driver::{Driver, Owner},
        event::{Chosen, Event, Stage, Target},
        helping::{links::WayBack, reachability::is_public},
        network::extra::Holder,
        reaching::attempt,
    },
    offer::{self, AnswerKey, Offer, OpenedOffer},
    probe::{ConversationId, Probe, Side},
    time::UnixMillis,
    transport::link::admission::Admission,
};

/// All offers being answered.
#[derive(Debug, Default)]
pub(in crate::node) struct Answering {
    answers: BTreeMap<PeerId, Answer>,
    /// When the newest offer of each conversation that was read had been made.
    read: BTreeMap<ConversationId, UnixMillis>,
}

/// What an offer came by, and its answer goes by.
#[derive(Clone, Debug)]
pub(in crate::node) enum Carrier {
    /// An inbox of ours in the DHT.
    Inbox(Slot),
    /// A helper, who waits for the answer.
    Helper(WayBack),
}

impl Carrier {
    /// Whoever saw the maker of `offer` at `seen`, if the offer names no other public address of that family.
    fn bystander(&self, offer: &Offer, seen: IpAddr) -> Option<Witness> {
        let Self::Helper(way) = self else { return None };
        is_the_only_public(seen, &offer.candidates).then(|| Witness::Bystander(way.helper()))
    }
}

/// Whether whoever vouches for `seen` vouches for all public addresses of its family.
fn is_the_only_public(seen: IpAddr, candidates: &[Candidate]) -> bool {
    let public =
        candidates.iter().map(|candidate| candidate.address.ip()).filter(|ip| is_public(*ip));
    public.into_iter().all(|ip| ip == seen || ip.is_ipv4() != seen.is_ipv4())
}

/// A slot of an inbox, with the number of the item in it.
#[derive(Clone, Debug)]
pub(in crate::node) struct Slot {
    pub(in crate::node) name: Name,
    pub(in crate::node) index: u8,
    pub(in crate::node) seq: i64,
}

/// An offer being answered: probes go to its maker until a link is up.
#[derive(Debug)]
struct Answer {
    offer: Offer,
    /// `None` while a look at our NAT is waited for.
    engine: Option<Engine>,
    key: AnswerKey,
    /// Whether its maker needs to know what a look at our NAT will show.
    is_to_be_told: bool,
    carrier: Carrier,
    /// Who says that the offer's maker is where it says.
    witnesses: BTreeSet<Witness>,
    since: Instant,
    until: Instant,
    path: Option<Path>,
}

impl Answer {
    fn poll_timeout(&self) -> Option<Instant> {
        self.engine.as_ref().and_then(Engine::poll_timeout)
    }
}

impl Answering {
    /// When an answer is due next.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let due = |answer: &Answer| answer.poll_timeout().into_iter().chain([answer.until]).min();
        self.answers.values().filter_map(due).min()
    }

    /// Whether `peer` is being answered.
    pub(in crate::node) fn answers(&self, peer: PeerId) -> bool {
        self.answers.contains_key(&peer)
    }

    /// The offer of `peer`, if it is being answered.
    pub(in crate::node) fn offer_of(&self, peer: PeerId) -> Option<&Offer> {
        self.answers.get(&peer).map(|answer| &answer.offer)
    }

    /// Since when `peer` is being answered.
    pub(in crate::node) fn since(&self, peer: PeerId) -> Option<Instant> {
        self.answers.get(&peer).map(|answer| answer.since)
    }

    /// Whether the offer is one that was not read before; remembers it.
    fn is_new(&mut self, offer: &Offer, now: UnixMillis) -> bool {
        self.read.retain(|_, made_at| made_at.age_at(now) <= 2 * offer::AGE_MAX);
        if self.read.len() >= READ_MAX {
            return false;
        }
        let before = self.read.insert(offer.conversation, offer.made_at);
        before.is_none_or(|before| before < offer.made_at)
    }
}

impl Driver {
    /// Takes in an offer, from our inbox or, if its maker was `seen` somewhere, by a helper. Returns whether
    /// it is one for us, be it new or not.
    pub(in crate::node) fn handle_offer(
        &mut self,
        sealed: &[u8],
        carrier: Carrier,
        seen: Option<SocketAddr>,
    ) -> bool {
        let unix = self.clock.unix();
        let mut opened = match offer::open(sealed, &self.config.identity, unix) {
            Ok(opened) => opened,
            Err(reason) => {
                // The inbox of a service is shared by its servers, and everybody who knows it can write to it.
                tracing::debug!(%reason, "an offer is not answered");
                return false;
            }
        };
        let from = opened.offer.from;
        if from == self.us || !self.answering.is_new(&opened.offer, unix) {
            return from != self.us;
        }
        tracing::debug!(peer = ?from, candidates = ?opened.offer.candidates, "an offer was read");
        if self.links.came_from(from, opened.offer.conversation) {
            tracing::debug!(peer = ?from, "an offer whose link is up already");
            return true;
        }
        let seen = seen.filter(|seen| is_public(seen.ip()));
        let bystander = seen.and_then(|seen| carrier.bystander(&opened.offer, seen.ip()));
        let seen = seen.and_then(|seen| Candidate::new(CandidateKind::PeerReflexive, seen));
        let candidates = &mut opened.offer.candidates;
        let is_known = |seen: &Candidate| candidates.iter().any(|c| c.address == seen.address);
        let seen = seen.filter(|seen| !is_known(seen) && candidates.len() < CANDIDATES_MAX);
        candidates.extend(seen);
        self.answer(opened, carrier, bystander);
        true
    }

    fn answer(&mut self, opened: OpenedOffer, carrier: Carrier, bystander: Option<Witness>) {
        let OpenedOffer { offer, keys, answer: key } = opened;
        let (peer, now) = (offer.from, self.clock.now());
        let way = match &carrier {
            Carrier::Inbox(_) => "in our inbox in the DHT",
            Carrier::Helper(_) => "by a helper",
        };
        let addresses = listed(&offer.candidates);
        let detail = format!("offer of {} read {way}, {addresses}, {}", peer.short(), offer.nat);
        let until = now + ANSWER_TIME;
        match self.answering.answers.get_mut(&peer) {
            Some(answer) if answer.offer.conversation == offer.conversation => {
                self.renew_answer((offer, carrier, bystander), until);
            }
            before => {
                let before = before.map(|answer| answer.offer.conversation);
                if before.is_none() && self.answering.answers.len() >= ANSWERS_MAX {
                    let failure = Failure::new(Code::TooManyPeers, "an offer was not answered")
                        .because(format!("{ANSWERS_MAX} others are being answered"));
                    self.events.emit(Event::Warning(failure));
                    return;
                }
                let mut witnesses = self.witnesses(&offer);
                witnesses.extend(bystander);
                self.converse(Owner::Answer(peer), keys, before);
                let candidates = offer.candidates.clone();
                let answer = Answer {
                    offer,
                    engine: None,
                    key,
                    is_to_be_told: false,
                    carrier,
                    witnesses,
                    since: now,
                    until,
                    path: None,
                };
                self.answering.answers.insert(peer, answer);
                self.open_route(peer, &candidates);
            }
        }
        self.answer_stage(peer, Stage::Offer, detail);
        self.begin_answer(peer);
        self.wake_answers(now);
    }

    /// Goes on with an offer that was made again.
    fn renew_answer(&mut self, again: (Offer, Carrier, Option<Witness>), until: Instant) {
        let ((offer, carrier, bystander), now) = (again, self.clock.now());
        let (peer, vouched) = (offer.from, self.witnesses(&offer));
        let Some(answer) = self.answering.answers.get_mut(&peer) else { return };
        let is_elsewhere = public_of(&answer.offer) != public_of(&offer);
        let is_other = is_elsewhere || !answer.offer.nat.is_like(offer.nat);
        if let Some(engine) = &mut answer.engine {
            engine.restart(&offer.candidates, until, now);
        }
        if is_elsewhere {
            // Whoever has said where it was says nothing of where it is now.
            answer.witnesses = vouched;
        }
        answer.carrier = carrier;
        answer.witnesses.extend(bystander);
        answer.until = until;
        answer.offer = offer;
        if is_other {
            // It knows its NAT better by now: begins anew, with other plans.
            answer.engine = None;
            self.hand_over(Holder::Answer(peer), Some(peer));
        } else if answer.engine.is_some() && answer.is_to_be_told && !self.look_at_ports() {
            self.aim_anew(peer);
        }
    }

    /// Takes in a probe of an offer's maker.
    pub(in crate::node) fn handle_answer_probe(&mut self, peer: PeerId, path: Path, probe: Probe) {
        self.tell_answer(peer, |engine, now, entropy| {
            engine.handle_probe(path.socket, path.remote, probe, now, entropy);
        });
    }

    /// Wakes the answers that are due, and ends those that were in vain.
    pub(in crate::node) fn wake_answers(&mut self, now: Instant) {
        let peers: Vec<PeerId> = self.answering.answers.keys().copied().collect();
        for peer in peers {
            let Some(answer) = self.answering.answers.get(&peer) else {
                continue;
            };
            if answer.until <= now {
                self.end_answer(peer);
                self.release_route(peer);
            } else if answer.poll_timeout().is_some_and(|due| due <= now) {
                self.tell_answer(peer, Engine::handle_timeout);
            }
        }
    }

    /// Stops answering `peer`: a link is up, or its time is over.
    pub(in crate::node) fn end_answer(&mut self, peer: PeerId) {
        if let Some(answer) = self.answering.answers.remove(&peer) {
            self.forget_conversation(answer.offer.conversation);
            self.hand_over(Holder::Answer(peer), Some(peer));
        }
    }

    fn tell_answer(
        &mut self,
        peer: PeerId,
        tell: impl FnOnce(&mut Engine, Instant, &mut crate::entropy::Entropy),
    ) {
        let now = self.clock.now();
        if let Some(answer) = self.answering.answers.get_mut(&peer)
            && let Some(engine) = &mut answer.engine
        {
            tell(engine, now, &mut self.entropy);
        }
        while let Some(answer) = self.answering.answers.get_mut(&peer)
            && let Some(output) = answer.engine.as_mut().and_then(Engine::poll_output)
        {
            let conversation = answer.offer.conversation;
            match output {
                engine::Output::Transmit { path, probe, hops } => {
                    self.send_probe_within(conversation, (path, hops), probe);
                }
                engine::Output::OpenSocket { family } => self.open_for_answer(peer, family),
                engine::Output::CloseSocket(socket) => self.close_extra(socket),
                engine::Output::AskLeave(leave) => {
                    let granted = self.extra.grant(Holder::Answer(peer), leave, now);
                    if let Some(engine) = &mut answer.engine {
                        engine.handle_leave(granted, now, &mut self.entropy);
                    }
                }
                engine::Output::Unspent(datagrams) => self.extra.put_back(datagrams),
                engine::Output::Doubtful => self.doubt_ports(),
                // Only who dials opens a socket that keeps quiet, see `attempt::setup`.
                engine::Output::Ask(_) | engine::Output::Offer(_) => {}
                engine::Output::Trying(plan) | engine::Output::Incompatible(plan) => {
                    let chosen = Some((&plan).into());
                    self.answer_step(peer, Stage::Punch, plan.to_string(), chosen);
                }
                engine::Output::Heard { path } => {
                    if answer.path.is_none() {
                        let detail = format!("probe heard from {}", path.remote);
                        self.use_answer_path(peer, path, detail);
                    }
                }
                engine::Output::Open(Opened { path, rtt, observed })
                | engine::Output::Better(Opened { path, rtt, observed }) => {
                    let is_new = answer.path != Some(path);
                    self.handle_seen_at(path.socket, observed);
                    if is_new {
                        let rtt_ms = rtt.as_millis();
                        let detail = format!("probe answered by {} in {rtt_ms} ms", path.remote);
                        self.use_answer_path(peer, path, detail);
                    }
                }
                engine::Output::GaveUp(facts) => {
                    tracing::info!(?peer, ?facts, "no path to the maker of an offer");
                }
            }
        }
    }

    fn open_for_answer(&mut self, peer: PeerId, family: Family) {
        let socket = self.open_extra(family, Holder::Answer(peer));
        let now = self.clock.now();
        let answer = self.answering.answers.get_mut(&peer);
        match (answer.and_then(|answer| answer.engine.as_mut()), socket) {
            (Some(engine), Some(socket)) => {
                engine.handle_socket_opened(socket.index, now, &mut self.entropy);
            }
            (Some(engine), None) => engine.handle_socket_refused(),
            (None, Some(socket)) => self.close_extra(socket.index),
            (None, None) => {}
        }
    }

    /// Who says that the maker of `offer` is where it says: whom we let in by name or by a secret is taken
    /// at its word.
    fn witnesses(&self, offer: &Offer) -> BTreeSet<Witness> {
        let is_trusted = match self.admission() {
            Admission::Anyone => self.knows_secret(offer),
            Admission::Only { .. } | Admission::Linked(_) => self.admits(offer),
        };
        let trusted = is_trusted.then_some(Witness::Owner);
        trusted.into_iter().chain([Witness::Peer]).collect()
    }

    /// Begins to probe, at once or when it is known where our NAT has got to: two that count have to meet.
    fn begin_answer(&mut self, peer: PeerId) {
        let Some(answer) = self.answering.answers.get(&peer).filter(|it| it.engine.is_none())
        else {
            return;
        };
        let is_met_halfway = answer.offer.nat.has_dependent_mapping();
        let is_looking = self.look_at_ports();
        if !(is_looking && is_met_halfway) {
            self.begin_engine(peer);
        }
    }

    fn begin_engine(&mut self, peer: PeerId) {
        let is_looking = self.sampling.is_running();
        let Some(answer) = self.answering.answers.get_mut(&peer) else { return };
        let (ours, described) = (self.addresses.gathered(), answer.described());
        let times = (self.clock.now(), self.clock.unix());
        let sockets = &self.bound_sockets;
        let setup =
            attempt::setup(Side::Responder, sockets, &ours, &described, times, answer.until);
        // A link that works needs no volley, only probes for a better path.
        let is_linked = self.links.live(peer).is_some_and(|live| !live.upkeep.is_searching());
        let addresses = if is_linked { vec![] } else { setup.addresses.clone() };
        let setup = Setup { addresses, ..setup };
        let has_to_guess = attempt::has_to_guess(&setup) && !is_linked;
        let Some(answer) = self.answering.answers.get_mut(&peer) else { return };
        let is_proved = answer.witnesses.len() > 1;
        answer.engine = Some(Engine::new(setup, times.0));
        answer.is_to_be_told = has_to_guess;
        if has_to_guess {
            if !is_looking {
                self.tell_back(peer);
            }
            if !is_proved {
                self.look_for_witness(peer);
            }
        }
        self.tell_answer(peer, |_, _, _| {});
    }

    /// Whether the maker of `offer` knows a secret of ours: that of the service, or our ticket's.
    fn knows_secret(&self, offer: &Offer) -> bool {
        self.admission_keys().iter().any(|key| offer.proves(key, &self.us))
    }

    /// Our own NAT is known better.
    pub(in crate::node) fn tell_answers_of_ourselves(&mut self) {
        let (ours, now) = (attempt::ours_as_party(&self.addresses.gathered()), self.clock.now());
        for answer in self.answering.answers.values_mut() {
            if let Some(engine) = &mut answer.engine {
                engine.handle_own_news(ours.clone(), now);
            }
        }
    }

    /// It is known where our NAT has got to: begins what has waited for that, and tells those who need it.
    pub(in crate::node) fn begin_waiting_answers(&mut self) {
        let peers: Vec<PeerId> = self.answering.answers.keys().copied().collect();
        for peer in peers {
            let answer = self.answering.answers.get(&peer);
            match answer.map(|answer| (answer.engine.is_some(), answer.is_to_be_told)) {
                Some((true, true)) => self.aim_anew(peer),
                Some((false, _)) => self.begin_engine(peer),
                Some((true, false)) | None => {}
            }
        }
        self.wake_answers(self.clock.now());
    }

    fn use_answer_path(&mut self, peer: PeerId, path: Path, detail: String) {
        if self.is_settled_elsewhere(peer, path) {
            return;
        }
        if let Some(answer) = self.answering.answers.get_mut(&peer) {
            answer.path = Some(path);
        }
        self.use_path(peer, path);
        self.answer_stage(peer, Stage::Path, detail);
    }

    fn answer_stage(&mut self, peer: PeerId, stage: Stage, detail: String) {
        self.answer_step(peer, stage, detail, None);
    }

    fn answer_step(&mut self, peer: PeerId, stage: Stage, detail: String, chosen: Option<Chosen>) {
        let since = self.answering.since(peer).unwrap_or_else(|| self.clock.now());
        let elapsed = self.clock.now().saturating_duration_since(since);
        let (target, peer) = (Target::Peer(peer), Some(peer));
        self.events.emit(Event::Progress { target, peer, stage, elapsed, detail, chosen });
    }
}

/// The public addresses that an offer names.
fn public_of(offer: &Offer) -> BTreeSet<IpAddr> {
    offer.candidates.iter().map(|known| known.address.ip()).filter(|ip| is_public(*ip)).collect()
}

/// How long an offer is answered; its maker repeats it every few seconds while it waits, and may be cut off for as
/// long as a dial takes: what was opened for it until then is not to be begun anew.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// Offers answered at a time: each makes us probe up to 16 addresses.
const ANSWERS_MAX: usize = 64;

/// Conversations remembered, so that an offer is answered once; within the four minutes of that, more are
/// not read at the pace at which inboxes are polled.
const READ_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_vouches_only_for_the_address_that_it_saw() {
        let seen: IpAddr = "203.0.113.9".parse().unwrap();
        let vouches = |addresses: &[&str]| {
            let candidate =
                |text: &&str| Candidate::new(CandidateKind::ServerReflexive, text.parse().unwrap());
            let candidates: Vec<Candidate> = addresses.iter().filter_map(candidate).collect();
            assert_eq!(candidates.len(), addresses.len());
            is_the_only_public(seen, &candidates)
        };
        assert!(vouches(&["203.0.113.9:5000", "192.168.1.2:5000", "203.0.113.9:6000"]));
        assert!(vouches(&["203.0.113.9:5000", "[2001:db8::1]:5000"]));
        assert!(!vouches(&["203.0.113.9:5000", "198.51.100.7:5000"]), "a victim's");
    }
}
