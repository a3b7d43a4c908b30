//! Finds out how the internet sees our sockets, and notices when that changes.
//!
//! A *round* asks every server about every socket. Between rounds, one server per socket is asked every
//! 20 to 25 s, or more often where the NAT forgets mappings sooner (`rhythm`), which keeps the mapping alive and shows when it changed; then, or when told of a network
//! change, there is another round. Servers that do not answer are tried again, ever more rarely.
//!
//! When idle, a socket sends one datagram in 22 s, and all of them together five in ten minutes for
//! servers that failed: 0.1 a second for two sockets. With no server answering at all it is five
//! datagrams a minute for each socket.

mod report;
mod rhythm;
mod servers;
mod timers;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    candidate::canonical,
    datagram::{BoundSocket, Datagram, Family, SocketIndex},
    entropy::Entropy,
    nat::{
        inference::{Observation, infer},
        stun::Response,
        stun_client::{self, Answer, StunClient},
    },
};

use self::{report::Summary, rhythm::Rhythm, servers::choose_addresses, timers::Timers};
pub use self::{
    report::{Report, Stage},
    servers::SERVERS_MAX,
};

/// Sockets that are asked about.
pub const SOCKETS_MAX: usize = 4;

/// Least time from one round to the next that nobody asked for, doubled with each one up to six times:
/// a NAT that changes all the time costs a round in ten minutes.
const RECHECK: Duration = Duration::from_secs(10);
const RECHECK_DOUBLINGS_MAX: u32 = 6;

/// Time until servers are tried again after none answered; doubled up to a minute.
const SILENT_RETRY: Duration = Duration::from_secs(5);
const SILENT_RETRY_MAX: Duration = Duration::from_secs(60);

/// Time until a server that failed is tried again while others answer; doubled up to ten minutes.
const RETRY: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// Servers per socket that must answer before failed ones are left alone: two make an inference.
const ANSWERING_MIN: usize = 2;

/// Finds out how the internet sees our sockets.
#[derive(Debug, Default)]
pub struct Discovery {
    sockets: Vec<BoundSocket>,
    interfaces: Vec<IpAddr>,
    /// Names and addresses, in the order of asking.
    servers: Vec<(String, SocketAddr)>,
    client: StunClient,
    /// The last word of each server that answers, on each socket.
    observations: Vec<Observation>,
    /// Servers that answer, quickest first: the first one keeps the socket's mapping alive.
    answering: BTreeMap<SocketIndex, VecDeque<SocketAddr>>,
    /// Those that do not, next to be tried first.
    failing: VecDeque<(SocketIndex, SocketAddr)>,
    /// How long the last answers of each server took.
    rtts: BTreeMap<SocketAddr, Duration>,
    rhythm: Rhythm,
    /// Those that did answer before: the network was gone, perhaps.
    missed: VecDeque<(SocketIndex, SocketAddr)>,
    round: Option<Round>,
    timers: Timers,
    /// What was last reported.
    reported: Option<Summary>,
    outputs: VecDeque<Output>,
}

/// What a [`Discovery`] wants done, or found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be sent.
    Transmit(Datagram),
    /// There is something new to know. The first one comes with the first answer of a round.
    Report(Box<Report>),
    /// A server sees a socket elsewhere than before: the NAT gave it another mapping, or the network is
    /// another one. A round follows.
    Changed {
        /// The socket.
        socket: SocketIndex,
        /// Where it was seen.
        from: SocketAddr,
        /// Where it is seen now.
        to: SocketAddr,
    },
    /// None of the servers answered: their names, and how long they were waited for.
    Unanswered {
        /// Each name once, in the order of asking.
        servers: Vec<String>,
        /// How long.
        waited: Duration,
    },
}

#[derive(Debug)]
struct Round {
    began: Instant,
    outstanding: BTreeSet<(SocketIndex, SocketAddr)>,
}

impl Discovery {
    /// With nothing to ask about and nobody to ask, yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks about `sockets` (of which [`SOCKETS_MAX`] count) on a host with these `interfaces`. To be
    /// called again whenever the network changed: what was known is forgotten.
    pub fn set_network(
        &mut self,
        sockets: &[BoundSocket],
        interfaces: &[IpAddr],
        now: Instant,
        entropy: &mut Entropy,
    ) {
        self.sockets = sockets.iter().take(SOCKETS_MAX).copied().collect();
        self.interfaces = interfaces.to_vec();
        self.client.forget_all();
        self.observations.clear();
        self.answering.clear();
        self.rtts.clear();
        self.rhythm = Rhythm::default();
        self.timers = Timers::default();
        self.begin_round(now, entropy);
        self.report();
    }

    /// Asks these servers from now on: their names, and the addresses that were found for them. Of one
    /// name, two addresses of each family count, and [`SERVERS_MAX`] in all.
    pub fn set_servers(
        &mut self,
        servers: &[(String, Vec<SocketAddr>)],
        now: Instant,
        entropy: &mut Entropy,
    ) {
        let chosen = choose_addresses(servers);
        if chosen == self.servers {
            return;
        }
        self.servers = chosen;
        let addresses: Vec<SocketAddr> = self.servers.iter().map(|(_, address)| *address).collect();
        self.observations.retain(|observation| addresses.contains(&observation.server));
        for answering in self.answering.values_mut() {
            answering.retain(|server| addresses.contains(server));
        }
        self.client.forget_all();
        self.begin_round(now, entropy);
        self.report();
    }

    /// Has a look at our mappings now: a peer that was connected is not heard any more, or the network may
    /// be back.
    pub fn hurry(&mut self, now: Instant) {
        self.timers.keepalive = self.timers.keepalive.map(|due| due.min(now));
        if self.is_silent() {
            self.timers.retry = self.timers.retry.map(|due| due.min(now));
        }
    }

    /// Whether there is nobody to ask, or nobody answers.
    pub fn is_silent(&self) -> bool {
        self.observations.is_empty()
    }

    /// Takes in a response that came from `remote` to `socket`.
    pub fn handle_response(
        &mut self,
        socket: SocketIndex,
        remote: SocketAddr,
        response: &Response,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        self.client.handle_response(socket, remote, response, now);
        self.drain_client(now, entropy);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut Entropy) {
        self.client.handle_timeout(now);
        let is_due = |timer: &mut Option<Instant>| timer.take_if(|at| *at <= now).is_some();
        if is_due(&mut self.timers.recheck) {
            self.begin_round(now, entropy);
        }
        if is_due(&mut self.timers.keepalive) {
            self.send_signs_of_life(now, entropy);
        }
        if is_due(&mut self.timers.retry) {
            self.retry(now, entropy);
        }
        self.drain_client(now, entropy);
    }

    /// The next thing to do or to know, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.timers.keepalive, self.timers.recheck, self.timers.retry];
        let client = self.client.poll_timeout();
        timers.into_iter().chain([client]).flatten().min()
    }

    /// What is known now.
    pub fn current(&self) -> Report {
        Report {
            v4: infer(Family::V4, &self.observations),
            v6: infer(Family::V6, &self.observations),
            stage: match self.round {
                Some(_) => Stage::Asking,
                None => Stage::Complete,
            },
        }
    }

    /// What the client received for nothing.
    pub fn ignored(&self) -> stun_client::Ignored {
        self.client.ignored()
    }

    fn begin_round(&mut self, now: Instant, entropy: &mut Entropy) {
        let pairs: Vec<(SocketIndex, SocketAddr)> = self
            .servers
            .iter()
            .flat_map(|(_, server)| {
                let reaching = self.sockets.iter().filter(|socket| socket.reaches(*server));
                reaching.map(|socket| (socket.index, *server))
            })
            .collect();
        self.timers.recheck = None;
        self.timers.retry = None;
        self.failing.clear();
        self.missed.clear();
        if pairs.is_empty() {
            self.round = None;
            return;
        }
        for (socket, server) in &pairs {
            self.client.ask(*socket, *server, now, entropy);
        }
        self.timers.asked_all = Some(now);
        self.round = Some(Round { began: now, outstanding: pairs.into_iter().collect() });
        self.drain_client(now, entropy);
    }

    fn drain_client(&mut self, now: Instant, entropy: &mut Entropy) {
        while let Some(output) = self.client.poll_output() {
            match output {
                stun_client::Output::Transmit(datagram) => {
                    self.outputs.push_back(Output::Transmit(datagram));
                }
                stun_client::Output::Answered(answer) => {
                    self.handle_answer(&answer, now, entropy);
                }
                // Whatever the reason: it is of no use now and may be later.
                stun_client::Output::Failed { socket, server, why: _ } => {
                    self.handle_failure(socket, server, now, entropy)
                }
            }
        }
        if let Some(round) = self.round.take_if(|round| round.outstanding.is_empty()) {
            self.end_round(&round, now);
        }
    }

    fn handle_answer(&mut self, answer: &Answer, now: Instant, entropy: &mut Entropy) {
        let (socket, server) = (answer.socket, answer.server);
        // Where a request was repeated nobody knows which was answered: what it took since the first is no less.
        let rtt = answer.rtt.unwrap_or_else(|| now.saturating_duration_since(answer.asked_at));
        self.rtts.insert(server, rtt);
        let was_silent = self.observations.is_empty();
        self.note_change(answer, now);
        let known = self.observations.iter().find(|seen| {
            (seen.socket, seen.server, seen.reflexive) == (socket, server, answer.reflexive)
        });
        let since = known.map_or(answer.asked_at, |seen| seen.since);
        self.observations.retain(|seen| (seen.socket, seen.server) != (socket, server));
        self.observations.push(Observation {
            socket,
            local: self.local_address(socket, answer.reflexive),
            server,
            reflexive: answer.reflexive,
            at: answer.asked_at,
            since,
        });
        self.failing.retain(|failed| *failed != (socket, server));
        let answering = self.answering.entry(socket).or_default();
        if !answering.contains(&server) {
            answering.push_back(server);
        }
        if self.timers.keepalive.is_none() {
            self.timers.keepalive = Some(now + self.rhythm.wait(entropy));
        }
        match &mut self.round {
            Some(round) => {
                round.outstanding.remove(&(socket, server));
            }
            // A retry was answered: the network is back.
            None if was_silent => self.begin_round(now, entropy),
            None => {
                for (socket, server) in self.missed.drain(..) {
                    self.client.ask(socket, server, now, entropy);
                }
                self.plan_retry(now);
            }
        }
        self.report();
    }

    /// Notices that `answer` contradicts what the same server said before.
    fn note_change(&mut self, answer: &Answer, now: Instant) {
        let known = self
            .observations
            .iter()
            .find(|seen| (seen.socket, seen.server) == (answer.socket, answer.server));
        let Some(before) = known.map(|seen| seen.reflexive) else {
            return;
        };
        if before == answer.reflexive {
            self.rhythm.handle_kept(now);
            let quiet = RECHECK * 2_u32.pow(RECHECK_DOUBLINGS_MAX);
            let asked_all = self.timers.asked_all;
            if asked_all.is_none_or(|at| now.saturating_duration_since(at) > quiet) {
                self.timers.rechecks = 0;
            }
            return;
        }
        if before.ip() == answer.reflexive.ip() {
            self.rhythm.handle_forgotten(now);
        }
        self.outputs.push_back(Output::Changed {
            socket: answer.socket,
            from: before,
            to: answer.reflexive,
        });
        // What others said of this socket before is as old.
        self.observations.retain(|seen| seen.socket != answer.socket || seen.at >= answer.asked_at);
        if self.round.is_none() {
            self.recheck(now);
        }
    }

    /// Plans a round that nobody asked for.
    fn recheck(&mut self, now: Instant) {
        let rest = RECHECK * 2_u32.pow(self.timers.rechecks);
        let earliest = self.timers.asked_all.map_or(now, |at| at + rest);
        if self.timers.recheck.is_none() {
            self.timers.recheck = Some(earliest.max(now));
            self.timers.rechecks = (self.timers.rechecks + 1).min(RECHECK_DOUBLINGS_MAX);
        }
    }

    fn handle_failure(
        &mut self,
        socket: SocketIndex,
        server: SocketAddr,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        let failed = (socket, server);
        self.observations.retain(|seen| (seen.socket, seen.server) != failed);
        if !self.failing.contains(&failed) {
            self.failing.push_back(failed);
        }
        let answering = self.answering.entry(socket).or_default();
        let was_answering = answering.contains(&server);
        answering.retain(|other| *other != server);
        let next = answering.front().copied();
        match &mut self.round {
            Some(round) => {
                round.outstanding.remove(&failed);
            }
            None if was_answering => {
                self.missed.push_back(failed);
                // Either the server or the network is gone: the next server will tell.
                match next {
                    Some(next) => self.client.ask(socket, next, now, entropy),
                    None => self.recheck(now),
                }
                self.plan_retry(now);
            }
            None => self.plan_retry(now),
        }
        self.report();
    }

    fn end_round(&mut self, round: &Round, now: Instant) {
        if self.observations.is_empty() {
            let mut servers: Vec<String> = vec![];
            for (name, _) in &self.servers {
                if !servers.contains(name) {
                    servers.push(name.clone());
                }
            }
            let waited = now.saturating_duration_since(round.began);
            self.outputs.push_back(Output::Unanswered { servers, waited });
        } else {
            self.timers.retries = 0;
        }
        self.plan_retry(now);
        self.report();
    }

    /// Tries one server that failed; one for each socket if there is no other.
    fn retry(&mut self, now: Instant, entropy: &mut Entropy) {
        let mut tried: BTreeSet<SocketIndex> = BTreeSet::new();
        let is_silent = self.observations.is_empty();
        for _ in 0..self.failing.len() {
            let Some((socket, server)) = self.failing.pop_front() else {
                break;
            };
            self.failing.push_back((socket, server));
            if (is_silent || tried.is_empty()) && self.is_wanting(socket) && tried.insert(socket) {
                self.client.ask(socket, server, now, entropy);
            }
        }
        self.timers.retries = self.timers.retries.saturating_add(1);
    }

    fn plan_retry(&mut self, now: Instant) {
        let is_needed = self.failing.iter().any(|(socket, _)| self.is_wanting(*socket));
        if !is_needed || self.round.is_some() || self.timers.retry.is_some() {
            return;
        }
        let (first, longest) = if self.observations.is_empty() {
            (SILENT_RETRY, SILENT_RETRY_MAX)
        } else {
            (RETRY, RETRY_MAX)
        };
        let doubled = 2_u32.checked_pow(self.timers.retries);
        let wait = doubled.and_then(|factor| first.checked_mul(factor));
        self.timers.retry = Some(now + wait.map_or(longest, |wait| wait.min(longest)));
    }

    /// Whether too few servers answer about `socket`.
    fn is_wanting(&self, socket: SocketIndex) -> bool {
        let answering = self.answering.get(&socket);
        answering.is_none_or(|servers| servers.len() < ANSWERING_MIN)
    }

    /// The socket's own address, which is known if it was seen at one of the host's.
    fn local_address(&self, socket: SocketIndex, reflexive: SocketAddr) -> SocketAddr {
        let mut sockets = self.sockets.iter();
        let Some(bound) = sockets.find(|bound| bound.index == socket) else {
            return reflexive;
        };
        let local = canonical(bound.local);
        if local.ip().is_unspecified() && self.interfaces.contains(&reflexive.ip()) {
            return SocketAddr::new(reflexive.ip(), local.port());
        }
        local
    }

    fn report(&mut self) {
        let report = self.current();
        let summary = report.summary();
        let is_nothing = summary.advertised.is_empty() && self.reported.is_none();
        if !is_nothing && self.reported.as_ref() != Some(&summary) {
            self.reported = Some(summary);
            self.outputs.push_back(Output::Report(Box::new(report)));
        }
    }
}

#[cfg(test)]
mod tests;
