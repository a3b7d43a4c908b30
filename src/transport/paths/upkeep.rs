//! Keeping a live route alive: whether its best path still works, and which to take if it does not.
//!
//! While both sides send, QUIC's own traffic is proof enough. When we have sent and hear nothing, the
//! machine first asks on the best path (*doubt*); if that stays silent too, it asks every path and
//! candidate it knows (*search*), again and again at doubling intervals, and takes the first that
//! answers. Both kinds of ping say that the path seems lost. When a NAT rebinds, the other side hears
//! that from an address it does not know, asks back, and follows as soon as the address answers.
//!
//! Its owner decodes probes, hands in the route's [`Traffic`] when [`SocketSet::next_unanswered`] tells
//! of it and before every [`Upkeep::handle_timeout`], and does what [`Upkeep::poll_output`] says.
//!
//! [`SocketSet::next_unanswered`]: crate::transport::sockets::socket_set::SocketSet::next_unanswered

mod known;
mod patience;
mod pings;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use self::{
    known::KnownPaths,
    pings::{Allowance, PONGS_PER_SECOND_MAX, Pings},
};
use super::traffic::{Traffic, Volume};
use crate::{
    candidate::CANDIDATES_MAX,
    datagram::{Path, SocketIndex},
    entropy::Entropy,
    probe::{Probe, Transaction, Urgency},
};

/// What the owner is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Seal `probe` and send it by `path`.
    Transmit {
        /// Where to.
        path: Path,
        /// What.
        probe: Probe,
    },
    /// Take QUIC from this path for the route's.
    Admit(Path),
    /// Take QUIC from this path for the route's no more.
    Revoke(Path),
    /// Send by this path from now on.
    UseBest {
        /// The path.
        path: Path,
        /// Its round trip time.
        rtt: Duration,
    },
    /// The peer answered a ping: what was sent before is not unanswered.
    Answered,
    /// No path answers. The search goes on, slowly.
    Lost {
        /// How long nothing was heard.
        silent_for: Duration,
    },
    /// After [`Output::Lost`], the peer is heard again.
    Recovered,
}

/// The paths of one live route.
#[derive(Debug)]
pub struct Upkeep {
    best: Path,
    paths: KnownPaths,
    /// Where else the peer may be; asked when nothing else answers.
    candidates: Vec<Path>,
    state: State,
    traffic: Traffic,
    /// Of this machine's datagrams, the last.
    probed_at: Instant,
    /// When the peer last answered a ping.
    answered_at: Instant,
    /// Pings on the best path that it has not answered.
    check: Option<Check>,
    pings: Pings,
    switched_at: Option<Instant>,
    survey: Survey,
    keep_alive_after: Duration,
    pongs_allowed: Allowance,
    entropy: Entropy,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The peer was heard, or owes us nothing.
    Healthy,
    /// The best path was asked because of something unanswered.
    Doubtful { alarm_at: Instant },
    /// Every path is asked.
    Searching { since: Instant, next_round: Instant, interval: Duration },
    /// As searching, and the owner was told.
    Lost { since: Instant, next_round: Instant },
}

/// One ping may be lost, so the best path is asked twice.
#[derive(Clone, Copy, Debug)]
enum Check {
    First { due: Instant },
    Second { due: Instant },
}

/// The rare measuring of all paths.
#[derive(Clone, Copy, Debug)]
struct Survey {
    next: Instant,
    /// What went both ways until the last one; without more, there is nothing to choose a path for.
    volumes: [Volume; 2],
}

impl Upkeep {
    /// Looks after a route whose path `best`, with this round trip time, was just found to work.
    pub fn new(best: Path, rtt: Duration, mut entropy: Entropy, now: Instant) -> Self {
        Self {
            best,
            paths: KnownPaths::new(best, rtt, now),
            candidates: Vec::new(),
            state: State::Healthy,
            traffic: Traffic::default(),
            probed_at: now,
            answered_at: now,
            check: None,
            pings: Pings::new(now),
            switched_at: None,
            survey: Survey { next: now + SURVEY_EVERY, volumes: [Volume::default(); 2] },
            keep_alive_after: draw_keep_alive(&mut entropy),
            pongs_allowed: Allowance::new(PONGS_PER_SECOND_MAX, now),
            entropy,
            outputs: VecDeque::new(),
        }
    }

    /// The path in use.
    pub fn best(&self) -> Path {
        self.best
    }

    /// The best path's round trip time, smoothed.
    pub fn rtt(&self) -> Duration {
        self.paths.rtt(self.best).unwrap_or(RTT_UNKNOWN)
    }

    /// More addresses where the peer may be: each is asked once, and again in every search. Beyond
    /// [`CANDIDATES_MAX`] the oldest are forgotten.
    pub fn add_candidates(&mut self, candidates: impl IntoIterator<Item = Path>, now: Instant) {
        for path in candidates {
            if self.paths.contains(path) || self.candidates.contains(&path) {
                continue;
            }
            if self.candidates.len() == CANDIDATES_MAX {
                self.candidates.remove(0);
            }
            self.candidates.push(path);
            self.ping(path, Urgency::Routine, now);
        }
    }

    /// The peer was heard on this path by other means than this route's probes: asks it there.
    pub fn suggest(&mut self, path: Path, now: Instant) {
        if path != self.best {
            self.ping(path, Urgency::PathLost, now);
        }
    }

    /// Whether the peer is heard on no path.
    pub fn is_searching(&self) -> bool {
        matches!(self.state, State::Searching { .. } | State::Lost { .. })
    }

    /// A probe that the peer's keys opened came by `path`.
    pub fn handle_probe(&mut self, path: Path, probe: Probe, now: Instant) {
        match probe {
            Probe::Ping { transaction, urgency } => {
                self.handle_ping(path, transaction, urgency, now)
            }
            Probe::Pong { transaction, .. } => self.handle_pong(path, transaction, now),
        }
    }

    /// The route's traffic is this now.
    pub fn handle_traffic(&mut self, traffic: Traffic, now: Instant) {
        self.traffic = traffic;
        let heard_after = |since| traffic.heard_at.is_some_and(|at| at > since);
        match self.state {
            State::Healthy => {}
            State::Doubtful { .. } => {
                if traffic
                    .unanswered_since
                    .is_none_or(|at| at + patience::doubt_after(self.rtt()) > now)
                {
                    self.state = State::Healthy;
                }
            }
            State::Searching { since, .. } | State::Lost { since, .. } => {
                if heard_after(since) {
                    self.recover();
                }
            }
        }
    }

    /// Our own network changed: nothing that was known of paths holds.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.search(now);
    }

    /// The socket is gone, with all paths over it.
    pub fn handle_socket_gone(&mut self, socket: SocketIndex, now: Instant) {
        self.candidates.retain(|path| path.socket != socket);
        self.pings.forget_socket(socket);
        for path in self.paths.remove_socket(socket, self.best) {
            self.outputs.push_back(Output::Revoke(path));
        }
        if self.best.socket == socket {
            self.search(now);
        }
    }

    /// The time that [`Upkeep::poll_timeout`] said has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Healthy | State::Doubtful { .. } => self.watch(now),
            State::Searching { since, next_round, interval } => {
                if now >= since + LOST_AFTER {
                    let silent_for = now.saturating_duration_since(self.heard_at());
                    self.outputs.push_back(Output::Lost { silent_for });
                    let next_round = now + LOST_ROUND_EVERY;
                    self.state = State::Lost { since, next_round };
                } else if now >= next_round {
                    let interval = (interval * 2).min(patience::ROUND_EVERY_MAX);
                    self.state = State::Searching { since, next_round: now + interval, interval };
                    self.ask_everywhere(now);
                }
            }
            State::Lost { since, next_round } if now >= next_round => {
                let next_round = now + LOST_ROUND_EVERY;
                self.state = State::Lost { since, next_round };
                self.ask_everywhere(now);
            }
            State::Lost { .. } => {}
        }
    }

    /// What to do next, until there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Upkeep::handle_timeout`], if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Healthy => {
                let unanswered = self.traffic.unanswered_since;
                let doubt_at = unanswered.map(|at| at + patience::doubt_after(self.rtt()));
                Some(self.watch_again_at().min(doubt_at.unwrap_or(self.survey.next)))
            }
            State::Doubtful { alarm_at } => Some(self.watch_again_at().min(alarm_at)),
            State::Searching { since, next_round, .. } => Some(next_round.min(since + LOST_AFTER)),
            State::Lost { next_round, .. } => Some(next_round),
        }
    }

    /// When there is something to do though nothing is unanswered.
    fn watch_again_at(&self) -> Instant {
        let calm = self.keep_alive_at().min(self.survey.next);
        match self.check {
            None => calm,
            Some(Check::First { due } | Check::Second { due }) => calm.min(due),
        }
    }

    /// While all seems well: doubts, checks, keeps alive, measures.
    fn watch(&mut self, now: Instant) {
        if let State::Doubtful { alarm_at } = self.state
            && now >= alarm_at
        {
            return self.search(now);
        }
        let unanswered = self.traffic.unanswered_since;
        if let (State::Healthy, Some(unanswered)) = (self.state, unanswered)
            && now >= unanswered + patience::doubt_after(self.rtt())
        {
            // If we are woken late, the ping still gets its time.
            let patience = patience::alarm_after(self.rtt()) - patience::doubt_after(self.rtt());
            let alarm_at = (unanswered + patience::alarm_after(self.rtt())).max(now + patience);
            self.state = State::Doubtful { alarm_at };
            self.ping(self.best, Urgency::PathLost, now);
        }
        match self.check {
            Some(Check::First { due }) if now >= due => {
                let due = now + patience::alarm_after(self.rtt());
                self.check = Some(Check::Second { due });
                self.ping(self.best, Urgency::Routine, now);
            }
            Some(Check::Second { due }) if now >= due => return self.search(now),
            None | Some(Check::First { .. } | Check::Second { .. }) => {}
        }
        if now >= self.survey.next {
            self.survey(now);
        }
        if now >= self.keep_alive_at() {
            self.keep_alive_after = draw_keep_alive(&mut self.entropy);
            self.ping(self.best, Urgency::Routine, now);
        }
    }

    fn handle_ping(
        &mut self,
        path: Path,
        transaction: Transaction,
        urgency: Urgency,
        now: Instant,
    ) {
        if !self.pongs_allowed.take(now) {
            return;
        }
        let probe = Probe::Pong { transaction, observed: path.remote };
        self.outputs.push_back(Output::Transmit { path, probe });
        let is_new = self.learn(path, now);
        self.paths.note_heard(path, urgency, now);
        if path == self.best || (urgency == Urgency::Routine && !is_new) {
            return;
        }
        if self.paths.answered_lately(path, now) && self.should_switch(path, now) {
            self.switch(path, now);
            return self.recover();
        }
        // Ask back: an address is not to be believed before it answers.
        self.ping(path, Urgency::Routine, now);
        if urgency == Urgency::PathLost {
            self.ping(self.best, Urgency::Routine, now);
        }
    }

    fn handle_pong(&mut self, path: Path, transaction: Transaction, now: Instant) {
        let Some(ping) = self.pings.take(transaction) else {
            return;
        };
        self.learn(path, now);
        if ping.path != path {
            // It went one way and came back another: of neither way do we know that it works both ways.
            return self.ping(path, Urgency::Routine, now);
        }
        self.answered_at = now;
        self.traffic.unanswered_since = None;
        self.outputs.push_back(Output::Answered);
        let rtt = now.saturating_duration_since(ping.sent_at);
        let is_first = self.paths.note_answer(path, rtt, now) == 1;
        if path == self.best {
            self.recover();
        } else if self.should_switch(path, now) {
            self.switch(path, now);
            self.recover();
        } else if is_first {
            // A new path may mean that the old one is no more: have a look.
            self.ping(self.best, Urgency::Routine, now);
        }
    }

    fn should_switch(&self, path: Path, now: Instant) -> bool {
        match self.state {
            State::Searching { .. } | State::Lost { .. } => return true,
            State::Healthy | State::Doubtful { .. } => {}
        }
        if self.paths.pleads_against(path, self.best, now) {
            return true;
        }
        let settled = self
            .switched_at
            .is_none_or(|at| now.saturating_duration_since(at) >= SWITCH_AGAIN_AFTER);
        settled && self.paths.is_better(path, self.best)
    }

    fn switch(&mut self, path: Path, now: Instant) {
        self.best = path;
        self.check = None;
        self.switched_at = Some(now);
        let rtt = self.rtt();
        self.outputs.push_back(Output::UseBest { path, rtt });
    }

    fn recover(&mut self) {
        self.check = None;
        let before = std::mem::replace(&mut self.state, State::Healthy);
        if let State::Lost { .. } = before {
            self.outputs.push_back(Output::Recovered);
        }
    }

    fn search(&mut self, now: Instant) {
        let interval = patience::first_round_after(self.rtt());
        self.check = None;
        self.state = State::Searching { since: now, next_round: now + interval, interval };
        self.ask_everywhere(now);
    }

    fn ask_everywhere(&mut self, now: Instant) {
        let mut paths = vec![self.best];
        let others = self.paths.iter().filter(|path| *path != self.best);
        paths.extend(others.chain(self.candidates.iter().copied()));
        for path in paths {
            self.ping(path, Urgency::PathLost, now);
        }
    }

    fn survey(&mut self, now: Instant) {
        let volumes = [self.traffic.received, self.traffic.sent];
        let busy = self.survey.volumes != volumes;
        self.survey = Survey { next: now + SURVEY_EVERY, volumes };
        if busy {
            let paths: Vec<Path> = self.paths.iter().collect();
            for path in paths {
                self.ping(path, Urgency::Routine, now);
            }
        }
    }

    /// Whether the path was unknown; now it is known.
    fn learn(&mut self, path: Path, now: Instant) -> bool {
        if self.paths.contains(path) {
            return false;
        }
        self.candidates.retain(|candidate| *candidate != path);
        if let Some(forgotten) = self.paths.insert(path, self.best, now) {
            self.outputs.push_back(Output::Revoke(forgotten));
        }
        self.outputs.push_back(Output::Admit(path));
        true
    }

    fn ping(&mut self, path: Path, urgency: Urgency, now: Instant) {
        if path == self.best {
            let due = now + patience::alarm_after(self.rtt());
            self.check.get_or_insert(Check::First { due });
        }
        self.probed_at = now;
        let transaction = Transaction(self.entropy.number());
        if !self.pings.note(transaction, path, now) {
            return;
        }
        let probe = Probe::Ping { transaction, urgency };
        self.outputs.push_back(Output::Transmit { path, probe });
    }

    fn heard_at(&self) -> Instant {
        let heard = self.traffic.heard_at;
        heard.map_or(self.answered_at, |heard| heard.max(self.answered_at))
    }

    fn keep_alive_at(&self) -> Instant {
        let sent = self.traffic.sent_at;
        sent.map_or(self.probed_at, |sent| sent.max(self.probed_at)) + self.keep_alive_after
    }
}

/// Between 15 and 20 seconds: NATs keep UDP mappings for 30 at least in practice, and two nodes that
/// began together shall not stay in step.
fn draw_keep_alive(entropy: &mut Entropy) -> Duration {
    let spread = u64::try_from(entropy.below(5_000)).unwrap_or(0);
    Duration::from_secs(15) + Duration::from_millis(spread)
}

/// Taken for the round trip time of a path that was never measured (RFC 9002, section 6.2.2).
const RTT_UNKNOWN: Duration = Duration::from_millis(333);

/// Silence after which the owner should look for the peer by other means: most NATs and phones that
/// change networks are back before.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// After that, the search costs 24 datagrams of 62 bytes each so often.
const LOST_ROUND_EVERY: Duration = Duration::from_secs(5);

/// All paths are measured so often while there is traffic: below the 30 s of ordinary NATs, so that
/// the alternatives stay open.
const SURVEY_EVERY: Duration = Duration::from_secs(25);

/// Two paths that take turns at being better do not make the route flap faster than this.
const SWITCH_AGAIN_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
