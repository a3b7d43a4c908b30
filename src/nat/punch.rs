//! Opens a path to a peer while both sides are behind NATs.
//!
//! Both sides run this machine in one conversation, and send pings to every address where the other one
//! may be. A ping that leaves opens our own NATs for what comes back; a ping that arrives shows where
//! the peer can be answered, which need not be an address we were told: an answer goes to where the
//! ping *came from*, and so does a ping of our own (a peer-reflexive candidate). A pong to one of our
//! pings, from where that ping went, proves a path both ways.
//!
//! ```text
//!                first ping heard: Heard       pong: Open            500 ms later
//!    Probing ───────────────────────▶ Probing ──────────▶ Settling ──────────────▶ Settled
//!       │ deadline: GaveUp                                   Better, if a better path proves open
//!       ▼
//!    GaveUp ── restart ──▶ Probing
//! ```
//!
//! Pings are answered in every state, because the peer may still need our pongs when we are done.
//!
//! One attempt sends at most [`PINGS_PER_PATH_MAX`] pings on each of at most [`PATHS_MAX`] paths that
//! were offered, 8 pings on each of at most [`LEARNED_PATHS_MAX`] others, and one pong for each ping
//! heard, of which at most 64 at once and 64 a second are. With 4 candidates and 10 s that is 100 pings
//! if nobody answers, and some 20 datagrams if the first pings do their work.

mod attempt;
mod outcome;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    candidate::{CANDIDATES_MAX, Candidate, canonical, is_unicast},
    datagram::{BoundSocket, Path, SocketIndex},
    entropy::Entropy,
    nat::{
        distance::Distance,
        rate::{Bucket, Limit},
    },
    probe::{Probe, Transaction, Urgency},
};

use self::attempt::{Attempt, Origin};
pub use self::{
    attempt::PINGS_PER_PATH_MAX,
    outcome::{Facts, Opened, Output},
};

/// Paths that are tried because the peer offered them: all its candidates over two sockets.
pub const PATHS_MAX: usize = 2 * CANDIDATES_MAX;

/// Paths that are tried because the peer was heard there.
///
/// A peer is heard from as many places as its NATs give one socket: one for each of our addresses it
/// probes, at the worst.
pub const LEARNED_PATHS_MAX: usize = 8;

/// Time between two pings of the schedule, whichever paths they are on.
///
/// A first round to 16 candidates takes 30 ms, at 0.4 Mbit/s. RFC 8445 spaces checks by 50 ms, 5 ms at
/// the least, for agents that do not know how many they will send; we send few, best first.
const PACE: Duration = Duration::from_millis(2);

/// Pings answered: what a peer sends at most in its first half second, and then twice what it
/// sends in a second to 16 addresses.
const PONG_LIMIT: Limit = Limit { burst: 64, interval: Duration::from_micros(15_625) };

/// How long a better path is looked for after the first one opened: the time of the first pings.
pub const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Pings remembered before those too old to be answered are forgotten: those of a whole attempt, guesses
/// included.
const PINGS_PENDING_MAX: usize = 4_096;

/// How long a pong is waited for: longer than any round trip on which one could talk.
const PONG_WAIT: Duration = Duration::from_secs(5);

/// Opens a path to one peer.
#[derive(Debug)]
pub struct Punch {
    sockets: Vec<BoundSocket>,
    urgency: Urgency,
    state: State,
    attempts: BTreeMap<Path, Attempt>,
    /// Our pings that may still be answered.
    pings: BTreeMap<Transaction, Sent>,
    /// Before this moment no ping of the schedule is sent.
    next_slot: Instant,
    pongs: Bucket,
    facts: Facts,
    outputs: VecDeque<Output>,
}

/// With what an attempt begins.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Our sockets.
    pub sockets: Vec<BoundSocket>,
    /// Where the peer may be, best first; of these, [`CANDIDATES_MAX`] are tried.
    pub candidates: Vec<Candidate>,
    /// How we fare, to be told to the peer.
    pub urgency: Urgency,
    /// When to give up.
    pub deadline: Instant,
}

#[derive(Debug)]
enum State {
    Probing { deadline: Instant },
    Settling { best: Opened, until: Instant },
    Settled,
    GaveUp,
}

#[derive(Debug)]
struct Sent {
    path: Path,
    at: Instant,
}

impl Punch {
    /// Begins at once: [`Self::poll_timeout`] is `now`.
    pub fn new(setup: Setup, now: Instant) -> Self {
        let mut punch = Self {
            sockets: setup.sockets,
            urgency: setup.urgency,
            state: State::Probing { deadline: setup.deadline },
            attempts: BTreeMap::new(),
            pings: BTreeMap::new(),
            next_slot: now,
            pongs: Bucket::default(),
            facts: Facts::default(),
            outputs: VecDeque::new(),
        };
        punch.add_candidates(&setup.candidates, now);
        punch
    }

    /// Tries `candidates` too, from now on, unless a path is settled or the attempt given up.
    pub fn add_candidates(&mut self, candidates: &[Candidate], now: Instant) {
        let sockets = self.sockets.clone();
        for candidate in candidates.iter().take(CANDIDATES_MAX) {
            let reaching = sockets.iter().filter(|socket| socket.reaches(candidate.address));
            for socket in reaching.filter(|socket| socket.local != candidate.address) {
                let path = Path { socket: socket.index, remote: candidate.address };
                self.offer(path, now);
            }
        }
    }

    /// Begins another attempt, with these candidates only. What was learned so far is forgotten.
    pub fn restart(&mut self, candidates: &[Candidate], deadline: Instant, now: Instant) {
        self.state = State::Probing { deadline };
        self.attempts.clear();
        self.forget_old_pings(now);
        self.facts = Facts::default();
        self.add_candidates(candidates, now);
    }

    /// Sends one ping on `path`, off the schedule: a guess of whoever owns this machine, who also keeps
    /// the measure. An answer opens the path as any other does.
    pub fn guess(&mut self, path: Path, now: Instant, entropy: &mut Entropy) {
        if !matches!(self.state, State::Probing { .. }) || !is_sendable(path.remote) {
            return;
        }
        self.facts.guesses_sent += 1;
        self.transmit_ping(path, now, entropy);
    }

    /// Takes in an authentic probe of the peer that came from `from` to `socket`.
    pub fn handle_probe(
        &mut self,
        socket: SocketIndex,
        from: SocketAddr,
        probe: Probe,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        let path = Path { socket, remote: plain(from) };
        match probe {
            // How the peer fares matters to who keeps paths that are already in use.
            Probe::Ping { transaction, urgency: _ } => {
                self.handle_ping(path, transaction, now, entropy)
            }
            Probe::Pong { transaction, observed } => {
                self.handle_pong(path, transaction, observed, now, entropy)
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut Entropy) {
        match self.state {
            State::Probing { deadline } if deadline <= now => {
                self.state = State::GaveUp;
                self.stop();
                self.outputs.push_back(Output::GaveUp(self.facts.clone()));
            }
            State::Settling { until, .. } if until <= now => {
                self.state = State::Settled;
                self.stop();
            }
            State::Probing { .. } | State::Settling { .. } => self.ping_next(now, entropy),
            State::Settled | State::GaveUp => {}
        }
    }

    /// The next thing to do or to know, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let end = match self.state {
            State::Probing { deadline } => deadline,
            State::Settling { until, .. } => until,
            State::Settled | State::GaveUp => return None,
        };
        let due = self.attempts.values().filter_map(Attempt::next);
        let ping = due.min().map(|due| due.max(self.next_slot));
        Some(ping.map_or(end, |ping| ping.min(end)))
    }

    /// What was done and seen in this attempt.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    fn handle_ping(
        &mut self,
        path: Path,
        transaction: Transaction,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        self.facts.pings_heard += 1;
        if !self.pongs.has_room(PONG_LIMIT, now) {
            self.facts.pings_unanswered += 1;
            return;
        }
        self.pongs.take(PONG_LIMIT, now);
        self.facts.pongs_sent += 1;
        let probe = Probe::Pong { transaction, observed: path.remote };
        self.outputs.push_back(Output::Transmit { path, probe });
        let is_first = self.note_heard(path);
        match self.state {
            State::Probing { .. } => {
                if is_first {
                    self.outputs.push_back(Output::Heard { path });
                }
                self.ping_back(path, now, entropy);
            }
            State::Settling { best, .. } => {
                if Distance::of(path.remote.ip()) <= Distance::of(best.path.remote.ip()) {
                    self.ping_back(path, now, entropy);
                }
            }
            State::Settled => {}
            State::GaveUp => {
                // The peer is still trying: its owner's cue to restart.
                if is_first {
                    self.outputs.push_back(Output::Heard { path });
                }
            }
        }
    }

    fn handle_pong(
        &mut self,
        path: Path,
        transaction: Transaction,
        observed: SocketAddr,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        let Some(sent) = self.pings.get(&transaction) else {
            return;
        };
        if sent.path != path {
            // The peer's NAT sends from elsewhere than it receives (RFC 8445, section 7.2.5.2.1): this
            // proves neither path, but shows where the peer can perhaps be reached.
            self.facts.pongs_misdirected += 1;
            self.ping_back(path, now, entropy);
            return;
        }
        let rtt = now.saturating_duration_since(sent.at);
        self.pings.remove(&transaction);
        if let Some(attempt) = self.attempts.get_mut(&path) {
            attempt.handle_open();
        }
        let opened = Opened { path, rtt, observed };
        match self.state {
            State::Probing { .. } => {
                self.outputs.push_back(Output::Open(opened));
                self.settle(opened, now);
            }
            State::Settling { best, until } => {
                if opened.is_better_than(&best) {
                    let best = opened;
                    self.state = State::Settling { best, until };
                    self.outputs.push_back(Output::Better(best));
                }
            }
            State::Settled | State::GaveUp => {}
        }
    }

    /// Goes on only with what could be better than `best`.
    fn settle(&mut self, best: Opened, now: Instant) {
        let until = now + SETTLE_TIME;
        self.state = State::Settling { best, until };
        let limit = Distance::of(best.path.remote.ip());
        for (path, attempt) in &mut self.attempts {
            if Distance::of(path.remote.ip()) > limit {
                attempt.stop();
            }
        }
    }

    fn stop(&mut self) {
        self.attempts.clear();
        self.pings.clear();
    }

    /// Whether `path` was not heard before in this attempt; not remembered beyond what we would try.
    fn note_heard(&mut self, path: Path) -> bool {
        let room = self.facts.heard.len() < PATHS_MAX + LEARNED_PATHS_MAX;
        room && self.facts.heard.insert(path)
    }

    fn offer(&mut self, path: Path, now: Instant) {
        if !matches!(self.state, State::Probing { .. } | State::Settling { .. }) {
            return;
        }
        let attempts = self.attempts.values();
        let offered = attempts.filter(|attempt| attempt.origin != Origin::Learned).count();
        let is_known = self
            .attempts
            .get(&path)
            .is_some_and(|attempt| attempt.is_open() || attempt.origin != Origin::Learned);
        if is_known || offered == PATHS_MAX || !is_sendable(path.remote) {
            return;
        }
        let attempt = Attempt::new(Origin::Offered(offered), now);
        self.attempts.insert(path, attempt);
    }

    /// The peer was heard on `path`: pings it there, now and soon again, unless that is proved already.
    fn ping_back(&mut self, path: Path, now: Instant, entropy: &mut Entropy) {
        if !self.attempts.contains_key(&path) {
            let attempts = self.attempts.values();
            let learned = attempts.filter(|attempt| attempt.origin == Origin::Learned).count();
            if learned == LEARNED_PATHS_MAX || !is_sendable(path.remote) {
                return;
            }
            self.attempts.insert(path, Attempt::new(Origin::Learned, now));
        }
        let Some(attempt) = self.attempts.get_mut(&path) else {
            return;
        };
        attempt.handle_heard(now);
        if attempt.is_due(now) {
            self.ping(path, now, entropy);
        }
    }

    /// Sends the ping of the schedule that is due, if one is: one at a time, see [`PACE`].
    fn ping_next(&mut self, now: Instant, entropy: &mut Entropy) {
        if now < self.next_slot {
            return;
        }
        let due = self.attempts.iter().filter_map(|(path, attempt)| {
            let due = attempt.next().filter(|due| *due <= now)?;
            Some(((due, attempt.origin), *path))
        });
        if let Some((_, path)) = due.min_by_key(|(urgency, _)| *urgency) {
            self.next_slot = now + PACE;
            self.ping(path, now, entropy);
        }
    }

    fn ping(&mut self, path: Path, now: Instant, entropy: &mut Entropy) {
        let sent = self.attempts.get_mut(&path).is_some_and(|attempt| attempt.count_ping(now));
        if !sent {
            return;
        }
        self.facts.pings_sent += 1;
        self.facts.addresses.insert(path.remote);
        self.transmit_ping(path, now, entropy);
    }

    fn transmit_ping(&mut self, path: Path, now: Instant, entropy: &mut Entropy) {
        if self.pings.len() >= PINGS_PENDING_MAX {
            self.forget_old_pings(now);
        }
        let transaction = Transaction(entropy.number());
        self.pings.insert(transaction, Sent { path, at: now });
        let probe = Probe::Ping { transaction, urgency: self.urgency };
        self.outputs.push_back(Output::Transmit { path, probe });
    }

    fn forget_old_pings(&mut self, now: Instant) {
        self.pings.retain(|_, sent| now.saturating_duration_since(sent.at) < PONG_WAIT);
    }
}

/// `address` in the one form that equal addresses have, with the link of a link-local address.
fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => address,
        SocketAddr::V4(_) | SocketAddr::V6(_) => canonical(address),
    }
}

/// Whether a probe can go to `remote` at all. A link-local address says nothing without its link, which
/// offers do not name.
fn is_sendable(remote: SocketAddr) -> bool {
    let is_linkless = match remote {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(remote) => remote.ip().is_unicast_link_local() && remote.scope_id() == 0,
    };
    is_unicast(remote) && !is_linkless
}

#[cfg(test)]
mod tests;
