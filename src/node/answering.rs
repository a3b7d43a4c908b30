//! Somebody reaches us: offers from our inbox and by helpers, and the probing that answers them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    driver::{Driver, Owner},
    event::{Event, Stage, Target},
    helping::reachability::is_public,
};
use crate::{
    candidate::{CANDIDATES_MAX, Candidate, CandidateKind},
    datagram::Path,
    failure::{Code, Failure},
    identity::PeerId,
    nat::punch::{self, Opened, Punch, Setup},
    offer::{self, Offer, OpenedOffer},
    probe::{ConversationId, Probe, Urgency},
    time::UnixMillis,
};

/// All offers being answered.
#[derive(Debug, Default)]
pub(super) struct Answering {
    answers: BTreeMap<PeerId, Answer>,
    /// When the newest offer of each conversation that was read had been made.
    read: BTreeMap<ConversationId, UnixMillis>,
}

/// An offer being answered: probes go to its maker until a link is up.
#[derive(Debug)]
struct Answer {
    offer: Offer,
    punch: Punch,
    since: Instant,
    until: Instant,
    path: Option<Path>,
}

impl Answering {
    /// When an answer is due next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due =
            |answer: &Answer| answer.punch.poll_timeout().into_iter().chain([answer.until]).min();
        self.answers.values().filter_map(due).min()
    }

    /// Whether `peer` is being answered.
    pub(super) fn answers(&self, peer: PeerId) -> bool {
        self.answers.contains_key(&peer)
    }

    /// The offer of `peer`, if it is being answered.
    pub(super) fn offer_of(&self, peer: PeerId) -> Option<&Offer> {
        self.answers.get(&peer).map(|answer| &answer.offer)
    }

    /// Since when `peer` is being answered.
    pub(super) fn since(&self, peer: PeerId) -> Option<Instant> {
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
    pub(super) fn handle_offer(&mut self, sealed: &[u8], seen: Option<SocketAddr>) -> bool {
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
        let seen = seen.and_then(|seen| Candidate::new(CandidateKind::PeerReflexive, seen));
        let candidates = &mut opened.offer.candidates;
        let is_known = |seen: &Candidate| candidates.iter().any(|c| c.address == seen.address);
        let seen = seen.filter(|seen| !is_known(seen) && candidates.len() < CANDIDATES_MAX);
        candidates.extend(seen);
        self.answer(opened);
        true
    }

    fn answer(&mut self, opened: OpenedOffer) {
        let OpenedOffer { offer, keys } = opened;
        let (peer, now) = (offer.from, self.clock.now());
        let detail = format!(
            "offer of {} read, {} addresses, {}",
            peer.short(),
            offer.candidates.len(),
            offer.nat
        );
        let until = now + ANSWER_TIME;
        match self.answering.answers.get_mut(&peer) {
            Some(answer) if answer.offer.conversation == offer.conversation => {
                answer.punch.restart(&offer.candidates, until, now);
                answer.until = until;
                answer.offer = offer;
            }
            before => {
                let before = before.map(|answer| answer.offer.conversation);
                if before.is_none() && self.answering.answers.len() >= ANSWERS_MAX {
                    let failure = Failure::new(Code::TooManyPeers, "an offer was not answered")
                        .because(format!("{ANSWERS_MAX} others are being answered"));
                    self.events.emit(Event::Warning(failure));
                    return;
                }
                let setup = Setup {
                    sockets: self.bound_sockets.clone(),
                    candidates: offer.candidates.clone(),
                    urgency: Urgency::Routine,
                    deadline: until,
                };
                let punch = Punch::new(setup, now);
                self.converse(Owner::Answer(peer), keys, before);
                let candidates = offer.candidates.clone();
                let answer = Answer { offer, punch, since: now, until, path: None };
                self.answering.answers.insert(peer, answer);
                self.open_route(peer, &candidates);
            }
        }
        self.answer_stage(peer, Stage::Offer, detail);
        self.tell_answer(peer, |_, _, _| {});
        self.wake_answers(now);
    }

    /// Takes in a probe of an offer's maker.
    pub(super) fn handle_answer_probe(&mut self, peer: PeerId, path: Path, probe: Probe) {
        self.tell_answer(peer, |punch, now, entropy| {
            punch.handle_probe(path.socket, path.remote, probe, now, entropy);
        });
    }

    /// Wakes the answers that are due, and ends those that were in vain.
    pub(super) fn wake_answers(&mut self, now: Instant) {
        let peers: Vec<PeerId> = self.answering.answers.keys().copied().collect();
        for peer in peers {
            let Some(answer) = self.answering.answers.get(&peer) else {
                continue;
            };
            if answer.until <= now {
                self.end_answer(peer);
                self.release_route(peer);
            } else if answer.punch.poll_timeout().is_some_and(|due| due <= now) {
                self.tell_answer(peer, Punch::handle_timeout);
            }
        }
    }

    /// Stops answering `peer`: a link is up, or its time is over.
    pub(super) fn end_answer(&mut self, peer: PeerId) {
        if let Some(answer) = self.answering.answers.remove(&peer) {
            self.forget_conversation(answer.offer.conversation);
        }
    }

    fn tell_answer(
        &mut self,
        peer: PeerId,
        tell: impl FnOnce(&mut Punch, Instant, &mut crate::entropy::Entropy),
    ) {
        let now = self.clock.now();
        if let Some(answer) = self.answering.answers.get_mut(&peer) {
            tell(&mut answer.punch, now, &mut self.entropy);
        }
        while let Some(answer) = self.answering.answers.get_mut(&peer)
            && let Some(output) = answer.punch.poll_output()
        {
            let conversation = answer.offer.conversation;
            match output {
                punch::Output::Transmit { path, probe } => {
                    self.send_probe(conversation, path, probe);
                }
                punch::Output::Heard { path } => {
                    if answer.path.is_none() {
                        let detail = format!("probe heard from {}", path.remote);
                        self.use_answer_path(peer, path, detail);
                    }
                }
                punch::Output::Open(Opened { path, rtt, .. })
                | punch::Output::Better(Opened { path, rtt, .. }) => {
                    if answer.path != Some(path) {
                        let rtt_ms = rtt.as_millis();
                        let detail = format!("probe answered by {} in {rtt_ms} ms", path.remote);
                        self.use_answer_path(peer, path, detail);
                    }
                }
                punch::Output::GaveUp(facts) => {
                    tracing::info!(?peer, ?facts, "no path to the maker of an offer");
                }
            }
        }
    }

    fn use_answer_path(&mut self, peer: PeerId, path: Path, detail: String) {
        if let Some(answer) = self.answering.answers.get_mut(&peer) {
            answer.path = Some(path);
        }
        self.use_path(peer, path);
        self.answer_stage(peer, Stage::Path, detail);
    }

    fn answer_stage(&mut self, peer: PeerId, stage: Stage, detail: String) {
        let since = self.answering.since(peer).unwrap_or_else(|| self.clock.now());
        let elapsed = self.clock.now().saturating_duration_since(since);
        let target = Target::Peer(peer);
        self.events.emit(Event::Progress { target, peer: Some(peer), stage, elapsed, detail });
    }
}

/// How long an offer is answered; its maker repeats it every few seconds while it waits.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Offers answered at a time: each makes us probe up to 16 addresses.
const ANSWERS_MAX: usize = 64;

/// Conversations remembered, so that an offer is answered once; within the four minutes of that, more are
/// not read at the pace at which inboxes are polled.
const READ_MAX: usize = 4_096;
