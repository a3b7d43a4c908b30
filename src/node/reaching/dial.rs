//! One dial: from a name to an open path. Decides; touches nothing.
//!
//! A dial looks its target up, waits briefly for our own addresses, leaves an offer in the peer's inbox,
//! and probes, all as early as each can be done:
//!
//! ```text
//! Resolving ──a record──▶ Reaching(peer): offer + probes + QUIC at once, again every ATTEMPT_INTERVAL
//!     ▲                        │ a probe heard: the path is used, QUIC goes out on it at once
//!     └──next server of the ───┘ the owner reports the link, or why there is none
//!        same service
//! ```
//!
//! The owner performs the [`Output`]s and drops the dial when the link is up.

mod contenders;
mod counting;
mod finding;
mod interface;
mod offering;
mod outlook;
mod reach;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

pub(in crate::node) use self::interface::{Dialler, Found, Gathered, Output};
use self::{contenders::Contenders, reach::Reach};
use crate::{
    behaviour::{NatBehaviour, PortHint},
    candidate::listed,
    datagram::{Path, SocketIndex},
    entropy::Entropy,
    failure::{Code, Failure},
    identity::PeerId,
    nat::stun::Response,
    node::{
        event::{Stage, Target},
        explain::{self, Facts},
    },
    probe::Probe,
    time::UnixMillis,
};

/// One attempt to reach one target, with all its retries.
#[derive(Debug)]
pub(in crate::node) struct Dial {
    target: Target,
    dialler: Dialler,
    started: Instant,
    started_unix: UnixMillis,
    deadline: Instant,
    gathered: Gathered,
    contenders: Contenders,
    lookup: Lookup,
    state: State,
    /// What the peer that was reached said, if it does not want us.
    rejection: Option<Failure>,
    facts: Facts,
    /// Which port of our NAT comes next.
    hint: Option<PortHint>,
    /// Until when the first offer waits to know that.
    counting_until: Option<Instant>,
    /// When that was last known.
    counted_at: Option<Instant>,
    /// When our first offer came to lie in the inbox of the peer that is being reached.
    offer_stored_at: Option<Instant>,
    entropy: Entropy,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Lookup {
    Running,
    Waiting { again: Instant },
}

#[derive(Debug)]
enum State {
    /// No peer is known that could be reached.
    Resolving,
    /// This one is being reached.
    Reaching(Box<Reach>),
    /// The link is up, or the dial has failed.
    Over,
}

impl Dial {
    /// Begins to reach `target`, whose record is looked up unless `known` already says where it is.
    pub(in crate::node) fn new(
        target: Target,
        dialler: Dialler,
        gathered: Gathered,
        (now, unix): (Instant, UnixMillis),
        deadline: Instant,
        entropy: Entropy,
    ) -> Self {
        let mut dial = Self {
            target,
            dialler,
            started: now,
            started_unix: unix,
            deadline,
            gathered,
            contenders: Contenders::default(),
            lookup: Lookup::Running,
            state: State::Resolving,
            rejection: None,
            facts: Facts::default(),
            hint: None,
            counting_until: None,
            counted_at: None,
            offer_stored_at: None,
            entropy,
            outputs: VecDeque::new(),
        };
        dial.outputs.push_back(Output::Lookup);
        dial
    }

    /// Whom the dial is to reach.
    pub(in crate::node) fn target(&self) -> &Target {
        &self.target
    }

    /// Why the dial has not reached its target so far.
    pub(in crate::node) fn explain(&self, now: Instant) -> Failure {
        let rejection = self.rejection.clone();
        rejection.unwrap_or_else(|| explain::unreached(&self.target, &self.facts_at(now)))
    }

    /// Goes on until `deadline` at least: somebody else waits for the same target.
    pub(in crate::node) fn extend(&mut self, deadline: Instant) {
        if self.rejection.is_none() {
            self.deadline = self.deadline.max(deadline);
        }
    }

    /// The path that answered a probe.
    pub(in crate::node) fn proved_path(&self) -> Option<Path> {
        match &self.state {
            State::Reaching(reach) => reach.proved,
            State::Resolving | State::Over => None,
        }
    }

    /// When it began.
    pub(in crate::node) fn started(&self) -> Instant {
        self.started
    }

    /// Takes in our own addresses, now and whenever they change.
    pub(in crate::node) fn handle_gathered(&mut self, gathered: Gathered, now: Instant) {
        let is_news = self.gathered
            != Gathered { is_unanswered: self.gathered.is_unanswered, ..gathered.clone() };
        if gathered.is_cut_off_from(&self.gathered) {
            // What was known is right when the network is back, or close to it.
            self.gathered.is_unanswered = gathered.is_unanswered;
            return;
        }
        self.gathered = gathered;
        if !is_news {
            return;
        }
        let addresses = listed(&self.gathered.candidates);
        let detail = format!("{addresses}, {}", self.gathered.nat);
        self.stage(None, Stage::Gather, detail);
        if let State::Reaching(reach) = &mut self.state {
            reach.handle_gathered(&self.gathered, now);
            // What the peer was told is out of date: tell it at once.
            if reach.attempts > 0 {
                reach.next_attempt = now;
            }
        }
        self.settle(now);
    }

    /// Takes in a probe of this dial's conversation.
    pub(in crate::node) fn handle_probe(&mut self, path: Path, probe: Probe, now: Instant) {
        if let State::Reaching(reach) = &mut self.state {
            reach.handle_probe(path, probe, now, &mut self.entropy);
        }
        self.settle(now);
    }

    /// Takes in a socket that was asked for, or that there is none.
    pub(in crate::node) fn handle_socket(&mut self, socket: Option<SocketIndex>, now: Instant) {
        if let State::Reaching(reach) = &mut self.state {
            reach.handle_socket(socket, now, &mut self.entropy);
        } else if let Some(socket) = socket {
            self.outputs.push_back(Output::CloseSocket(socket));
        }
        self.drain_reach(now);
    }

    /// Takes in which STUN servers answer.
    pub(in crate::node) fn handle_stun_servers(&mut self, servers: &[SocketAddr]) {
        servers.clone_into(&mut self.dialler.stun_servers);
    }

    /// Takes in a STUN server's answer to a socket of this dial.
    pub(in crate::node) fn handle_response(
        &mut self,
        from: (SocketIndex, SocketAddr),
        response: &Response,
        now: Instant,
    ) {
        if let State::Reaching(reach) = &mut self.state {
            reach.handle_response(from, response, now, &mut self.entropy);
        }
        self.settle(now);
    }

    /// Takes in how many datagrams a volley may send.
    pub(in crate::node) fn handle_leave(&mut self, datagrams: u32, now: Instant) {
        match &mut self.state {
            State::Reaching(reach) => reach.handle_leave(datagrams, now, &mut self.entropy),
            State::Resolving | State::Over => self.outputs.push_back(Output::Unspent(datagrams)),
        }
        self.drain_reach(now);
    }

    /// Takes in why QUIC did not become a link, and where it was answered.
    pub(in crate::node) fn handle_link_failed(
        &mut self,
        failure: Failure,
        answered_at: &[SocketAddr],
        now: Instant,
    ) {
        let State::Reaching(reach) = &mut self.state else {
            return;
        };
        let peer = reach.peer;
        self.facts.link_failure = Some(failure.clone());
        let is_final = matches!(
            failure.code,
            Code::PeerIdentityMismatch
                | Code::Refused
                | Code::TooManyPeers
                | Code::PeerVersionMismatch
        );
        if failure.code == Code::PeerIdentityMismatch && reach.path.is_none() {
            // Whoever answered is not the peer, who may still be elsewhere.
            if reach.exclude(answered_at, &self.gathered) {
                let candidates = reach.candidates(&self.gathered);
                self.outputs.push_back(Output::Reach { peer, candidates });
                self.outputs.push_back(Output::Connect { peer, initial_rtt: None });
            }
        } else if is_final {
            self.give_up(peer);
            // Other servers of the service get their turn; one that is gone must not hide the answer.
            self.rejection.get_or_insert_with(|| failure.clone());
            self.deadline = self.deadline.min(now + PEER_BUDGET);
            if self.contenders.next().is_none() {
                return self.fail(failure);
            }
        } else {
            reach.next_attempt = reach.next_attempt.min(now + LINK_RETRY);
        }
        self.settle(now);
    }

    /// Does what is due at `now`.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant) {
        if let State::Reaching(reach) = &mut self.state {
            let until = self.deadline;
            reach.handle_timeout(&self.gathered, (now, until), &mut self.entropy);
        }
        if let Lookup::Waiting { again } = self.lookup
            && (again..self.give_up_at()).contains(&now)
            && self.needs_lookup()
        {
            self.lookup = Lookup::Running;
            self.outputs.push_back(Output::Lookup);
        }
        self.settle(now);
    }

    /// Next thing to do, or `None` when there is nothing to do before [`Self::poll_timeout`].
    pub(in crate::node) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let lookup = match self.lookup {
            Lookup::Waiting { again } if self.needs_lookup() => Some(again),
            Lookup::Waiting { .. } | Lookup::Running => None,
        };
        let state = match &self.state {
            State::Over => return None,
            State::Resolving => None,
            State::Reaching(reach) => Some(reach.poll_timeout()),
        };
        [Some(self.give_up_at()), lookup, state, self.hopeless_at()].into_iter().flatten().min()
    }

    /// Moves on as far as what is known allows.
    fn settle(&mut self, now: Instant) {
        self.drain_reach(now);
        if let State::Reaching(reach) = &self.state
            && reach.proved.is_none()
        {
            let peer = reach.peer;
            let had_its_turn = reach.since + PEER_BUDGET <= now || self.has_no_way(reach, now);
            // The first record to arrive may be an old one, of a server that is gone.
            let is_outdated = self.contenders.next() != Some(peer);
            if is_outdated || (had_its_turn && self.contenders.pass_over(peer)) {
                self.state = State::Resolving;
            }
        }
        if matches!(self.state, State::Resolving)
            && let Some(peer) = self.contenders.next()
        {
            self.begin_reach(peer, now);
        }
        if self.attempt_is_due(now) && !self.counts_first(now) {
            self.attempt(now);
        }
        let is_over = matches!(self.state, State::Over);
        if !is_over && (self.give_up_at() <= now || self.is_hopeless(now)) {
            self.fail(self.explain(now));
        }
    }

    fn give_up(&mut self, peer: PeerId) {
        self.contenders.give_up(peer);
        self.state = State::Resolving;
    }

    /// Opens the way for QUIC at once: a peer that needs no punching answers before any offer arrives.
    fn begin_reach(&mut self, peer: PeerId, now: Instant) {
        let Some(found) = self.contenders.get(peer) else {
            return;
        };
        let first_attempt = self.gather_deadline().map_or(now, |deadline| deadline.max(now));
        let witnesses = self.dialler.witnesses(found, &self.target);
        let reach = Reach::new(found, witnesses, (now, first_attempt), &mut self.entropy);
        self.offer_stored_at = None;
        let candidates = reach.candidates(&self.gathered);
        self.state = State::Reaching(Box::new(reach));
        self.outputs.push_back(Output::Reach { peer, candidates });
        self.outputs.push_back(Output::Connect { peer, initial_rtt: None });
    }

    fn attempt_is_due(&self, now: Instant) -> bool {
        match &self.state {
            State::Reaching(reach) => {
                let first_can_start = reach.attempts == 0 && self.gather_deadline().is_none();
                first_can_start || reach.next_attempt <= now
            }
            State::Resolving | State::Over => false,
        }
    }

    /// Tells the peer where we are, probes it, and starts QUIC again if it has stayed silent.
    fn attempt(&mut self, now: Instant) {
        let made_at = self.unix_at(now);
        let State::Reaching(reach) = &mut self.state else {
            return;
        };
        let peer = reach.peer;
        let is_aimed_anew = self.hint.and_then(PortHint::counter).is_some() && reach.has_volley();
        reach.next_attempt = now + if is_aimed_anew { AIM_INTERVAL } else { ATTEMPT_INTERVAL };
        let nat = NatBehaviour { hint: self.hint, ..self.gathered.nat };
        let gathered = Gathered { nat, ..self.gathered.clone() };
        let offer = reach.offer(&self.dialler, &gathered, made_at, &mut self.entropy);
        if reach.probe(&self.dialler, &self.gathered, (now, self.deadline), made_at) {
            let addresses = listed(&reach.candidates(&self.gathered));
            self.outputs.push_back(Output::Converse { keys: offer.keys });
            self.stage(Some(peer), Stage::Punch, format!("probing {addresses}"));
        } else {
            self.outputs.push_back(Output::Connect { peer, initial_rtt: None });
        }
        self.outputs.push_back(Output::Offer { sealed: offer.bytes });
        self.drain_reach(now);
    }

    fn drain_reach(&mut self, now: Instant) {
        if let State::Reaching(reach) = &mut self.state {
            let may_fire = self.contenders.all_had_a_turn();
            for output in reach.drain(now) {
                if matches!(output, Output::AskLeave(_)) && !may_fire {
                    // Another server may need no volley. This one asks again in a second.
                    reach.handle_leave(0, now, &mut self.entropy);
                } else {
                    self.outputs.push_back(output);
                }
            }
            self.facts.path_open |= reach.proved.is_some();
        }
    }

    /// Until when the first offer waits for the STUN servers' answers.
    fn gather_deadline(&self) -> Option<Instant> {
        let gathering = (!self.gathered.complete).then_some(self.started + GATHER_WAIT);
        self.counting_until.or(gathering)
    }

    /// Records age while a dial lasts: a peer that restarts publishes a new one.
    fn needs_lookup(&self) -> bool {
        match &self.state {
            State::Resolving => true,
            State::Reaching(reach) => reach.proved.is_none(),
            State::Over => false,
        }
    }

    fn unix_at(&self, now: Instant) -> UnixMillis {
        let elapsed = now.saturating_duration_since(self.started).as_millis();
        UnixMillis(self.started_unix.0 + u64::try_from(elapsed).unwrap_or(0))
    }

    fn stage(&mut self, peer: Option<PeerId>, stage: Stage, detail: String) {
        self.outputs.push_back(Output::Stage { peer, stage, detail });
    }

    fn fail(&mut self, failure: Failure) {
        self.state = State::Over;
        self.outputs.push_back(Output::Failed(failure));
    }
}

/// How long the first offer waits for the STUN servers: an offer without a public address is of use on a
/// local network only, and a second one costs a further trip through the DHT.
const GATHER_WAIT: Duration = Duration::from_millis(500);

/// A server that starts at the same time as its client is in the DHT a second or two later.
const LOOKUP_RETRY: Duration = Duration::from_millis(1_500);

/// While somebody waits there is a new attempt at least this often.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(2_500);

/// The same where every offer says how far our NAT has counted: the rounds that follow are over by then.
const AIM_INTERVAL: Duration = Duration::from_secs(2);

/// An offer that could not be stored is stored again so soon.
const OFFER_RETRY: Duration = Duration::from_secs(1);

/// QUIC that failed over a path is tried again so soon.
const LINK_RETRY: Duration = Duration::from_millis(300);

/// How long one server of a service is tried while there are others.
const PEER_BUDGET: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
