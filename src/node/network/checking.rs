//! Checks of the network: what is measured for them, when they are complete, and what they answer.
//!
//! A check waits until our STUN servers have answered or failed; then fresh sockets look at how the NAT gives out
//! ports, whether it hairpins and, if asked, how long it keeps a mapping. Meanwhile the DHT is asked for the record of the
//! peer that was named, or else for our own, which shows whether it can be reached. After [`CHECK_TIME`] whatever there
//! is is the answer. Checks that run at the same time share one measurement.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::extra::Holder;
use crate::{
    behaviour::{Dependence, Hairpin, Lifetime, Pooling},
    datagram::{BoundSocket, Datagram, Family, Path, SocketIndex},
    dht::location::Name,
    failure::{Code, Failure},
    nat::{
        hairpin::{self, HairpinTest, Silence},
        inference::{Observation, infer},
        lifetime::{self, Finding, LifetimeTest},
        sampler::{self, SAMPLES_FOR_KIND, Sampler},
        stun::{Request, Response},
    },
    node::{
        driver::{Driver, Outcome},
        event::Target,
        handle::Answer,
        netcheck::{Life, Netcheck, Ours, Pair, Ports, Question, Seen, judge},
        reaching::{attempt::ours_as_party, dial::Found, found},
    },
};

/// Names one check among all of this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) struct CheckId(u64);

/// All checks, and what is measured for them.
#[derive(Debug, Default)]
pub(in crate::node) struct Checking {
    checks: Vec<Check>,
    /// Checks so far.
    count: u64,
    sampler: Option<Sampler>,
    hairpin: Option<HairpinTest>,
    lifetime: Option<LifetimeTest>,
    measured: Measured,
}

/// What the measurements have shown since the oldest check began.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    /// The quick ones have begun.
    has_begun: bool,
    /// A mapping's life is being measured, or was.
    has_begun_lifetime: bool,
    ports: Option<Ports>,
    pooling: Option<Pooling>,
    lifetime: Life,
}

#[derive(Debug)]
struct Check {
    id: CheckId,
    question: Question,
    deadline: Instant,
    /// What the lookup has brought; `None` while it is under way.
    found: Option<Vec<Found>>,
    /// DHT nodes that answered it.
    nodes: usize,
    answer: Answer<Netcheck>,
}

/// A test whose sockets and datagrams the driver carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Ports,
    Hairpin,
    Lifetime,
}

/// What a test wants done.
enum Wanted {
    Socket(Family),
    Transmit(Datagram),
    Close(SocketIndex),
    Ports(Vec<Observation>),
    Hairpin(Option<Hairpin>),
    Lifetime(Finding),
}

impl Checking {
    /// When something is due.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = self.checks.iter().map(|check| check.deadline).min();
        let tests = [
            self.sampler.as_ref().and_then(Sampler::poll_timeout),
            self.hairpin.as_ref().and_then(HairpinTest::poll_timeout),
            self.lifetime.as_ref().and_then(LifetimeTest::poll_timeout),
        ];
        tests.into_iter().chain([deadlines]).flatten().min()
    }

    fn is_measuring(&self, wants_lifetime: bool) -> bool {
        let lifetime =
            wants_lifetime && (self.lifetime.is_some() || !self.measured.has_begun_lifetime);
        self.sampler.is_some() || self.hairpin.is_some() || lifetime || !self.measured.has_begun
    }
}

impl Driver {
    /// Begins to find out what the network lets through.
    pub(in crate::node) fn check_network(
        &mut self,
        question: Question,
        timeout: Option<Duration>,
        answer: Answer<Netcheck>,
    ) {
        if self.checking.checks.len() >= CHECKS_MAX {
            let failure =
                Failure::new(Code::QueueFull, "too many checks of the network are under way");
            let failure = failure.hint("wait for their answers");
            // Whoever does not wait for an answer any more needs none, here and below.
            return drop(answer.send(Err(failure)));
        }
        let now = self.clock.now();
        if self.checking.checks.is_empty() {
            self.checking.measured = Measured::default();
        }
        self.checking.count += 1;
        let id = CheckId(self.checking.count);
        let measuring = question.lifetime.map_or(Duration::ZERO, LifetimeTest::time_max);
        let time = CHECK_TIME + measuring;
        let deadline = now + timeout.map_or(time, |timeout| timeout.min(time));
        self.look_up_for_check(id, question.peer.as_ref());
        let found = self.rendezvous.is_none().then(Vec::new);
        let check = Check { id, question, deadline, found, nodes: 0, answer };
        self.checking.checks.push(check);
        // Servers that did not answer when the node began may do so now.
        self.look_for_ourselves();
    }

    /// Looks for the record of `peer`; without one, for our own, to see whether the DHT answers.
    fn look_up_for_check(&mut self, id: CheckId, peer: Option<&Target>) {
        let Some(rendezvous) = self.rendezvous.clone() else {
            return;
        };
        let name = peer.map_or(Name::Peer(self.us), |peer| self.name_of(peer).0);
        let (clock, outcomes) = (self.clock, self.outcomes());
        self.spawn(async move {
            let (item, end) = rendezvous.get(name.record()).newest().await;
            let found = item.map(|item| found::peers_in(&item, &name, clock.unix()));
            let found = Outcome::CheckedFor(id, found.unwrap_or_default(), end.answered);
            // A driver that is gone needs no answer.
            let _ = outcomes.send(found).await;
        });
    }

    /// Takes in what a lookup has brought.
    pub(in crate::node) fn handle_checked_for(
        &mut self,
        id: CheckId,
        found: Vec<Found>,
        nodes: usize,
    ) {
        if let Some(check) = self.checking.checks.iter_mut().find(|check| check.id == id) {
            check.found = Some(found);
            check.nodes = nodes;
        }
    }

    /// Begins what can be measured by now, and answers the checks that are complete or over.
    pub(in crate::node) fn go_on_checking(&mut self) {
        if self.checking.checks.is_empty() {
            return;
        }
        let now = self.clock.now();
        let is_seen = self.addresses.seen().is_some();
        if is_seen {
            self.begin_measuring(now);
        }
        let nodes = self.dht_nodes_answering();
        let checking = &mut self.checking;
        let is_over = |check: &Check| {
            let wants_lifetime = check.question.lifetime.is_some();
            let is_found = check.found.is_some();
            let is_complete = is_seen && is_found && !checking.is_measuring(wants_lifetime);
            (is_complete, is_complete || check.deadline <= now)
        };
        let over: Vec<(CheckId, bool)> = checking
            .checks
            .iter()
            .map(|check| (check.id, is_over(check)))
            .filter_map(|(id, (is_complete, is_over))| is_over.then_some((id, is_complete)))
            .collect();
        for (id, is_complete) in over {
            let Some(place) = self.checking.checks.iter().position(|check| check.id == id) else {
                continue;
            };
            let check = self.checking.checks.remove(place);
            let netcheck = self.judge_network(&check, nodes, is_complete);
            drop(check.answer.send(Ok(netcheck)));
        }
    }

    fn dht_nodes_answering(&self) -> Option<usize> {
        self.rendezvous.as_ref().map(|rendezvous| rendezvous.health().nodes_answering)
    }

    fn judge_network(&self, check: &Check, nodes: Option<usize>, is_complete: bool) -> Netcheck {
        let measured = self.checking.measured;
        let seen = self.addresses.seen_so_far();
        let seen = Seen {
            local_addresses: self.addresses.local(&self.bound_sockets),
            ports: measured.ports.unwrap_or(seen.ports),
            pooling: measured.pooling.or(seen.pooling),
            lifetime: match measured.lifetime {
                Life::NotMeasured => seen.lifetime,
                Life::NotFound | Life::PortsKept | Life::Measured(_) => measured.lifetime,
            },
            dht_configured: nodes.is_some(),
            dht_nodes: nodes.unwrap_or_default().max(check.nodes),
            helpers: self.helping.helpers().len(),
            is_helper: self.helping.serves(),
            is_complete,
            ..seen
        };
        let Some(target) = &check.question.peer else {
            return seen.judge(None);
        };
        let gathered = self.addresses.gathered();
        let ours = Ours {
            party: ours_as_party(&gathered),
            candidates: gathered.candidates,
            has_udp: seen.has_udp(),
        };
        let now = self.clock.unix();
        let mut found = check.found.clone().unwrap_or_default();
        if let (Target::Ticket(ticket), true) = (target, found.is_empty())
            && !ticket.addresses.is_empty()
        {
            found.push(Found::in_ticket(ticket.peer, &ticket.addresses));
        }
        let pairs: Vec<Pair> = found.iter().map(|found| judge(&ours, found, now)).collect();
        seen.judge(Some((target, pairs)))
    }

    fn begin_measuring(&mut self, now: Instant) {
        let wanted = self.checking.checks.iter().filter_map(|check| check.question.lifetime).max();
        let servers = self.addresses.servers_v4();
        let has_nat = self.addresses.nat().mapping != Some(Dependence::None);
        let server = servers.first().copied().filter(|_| has_nat);
        let measured = &mut self.checking.measured;
        let begins = !std::mem::replace(&mut measured.has_begun, true);
        let measures_lifetime = wanted.is_some() && !measured.has_begun_lifetime;
        measured.has_begun_lifetime |= measures_lifetime;
        let Some(server) = server else { return };
        if begins {
            self.checking.sampler = Some(Sampler::new(&servers, SAMPLES_FOR_KIND, now));
            self.begin_hairpin_test();
        }
        if let Some(longest) = wanted
            && measures_lifetime
        {
            self.checking.lifetime = Some(LifetimeTest::new(server, longest, now));
        }
        self.drain_checking();
    }

    /// Finds out whether our NAT turns back what is sent to its own public address, if that is not known: a peer is
    /// behind it, too.
    pub(in crate::node) fn look_whether_nat_hairpins(&mut self) {
        if self.addresses.hairpin().is_none() {
            self.begin_hairpin_test();
            self.drain_checking();
        }
    }

    /// Begins to find out whether our NAT turns back what is sent to its own public address, if that is not being
    /// found out already.
    fn begin_hairpin_test(&mut self) {
        let Some(inferred) = self.addresses.seen_v4() else { return };
        let is_same_for_all = inferred.behaviour.mapping == Some(Dependence::EndpointIndependent);
        let seen = inferred.evidence.observations.iter();
        let own = seen.clone().find(|seen| inferred.public.first() == Some(&seen.reflexive));
        let (Some(own), None) = (own, &self.checking.hairpin) else { return };
        let silence = match is_same_for_all {
            true => Silence::ShowsAbsence,
            false => Silence::ShowsNothing,
        };
        let (main, seen_at, server) = (own.socket, own.reflexive, own.server);
        let setup = hairpin::Setup { main, seen_at, server, silence };
        self.checking.hairpin = Some(HairpinTest::new(setup, &mut self.entropy));
    }

    /// Takes in a STUN server's answer to a socket of a check.
    pub(in crate::node) fn handle_check_response(
        &mut self,
        (socket, remote): (SocketIndex, SocketAddr),
        response: &Response,
    ) {
        let now = self.clock.now();
        let Checking { sampler, hairpin, lifetime, .. } = &mut self.checking;
        // Each knows its own sockets.
        if let Some(sampler) = sampler {
            sampler.handle_response(socket, remote, response, now);
        }
        if let Some(hairpin) = hairpin {
            hairpin.handle_response(socket, remote, response, now);
        }
        if let Some(lifetime) = lifetime {
            lifetime.handle_response(socket, remote, response, now);
        }
        self.drain_checking();
    }

    /// Whether `request` is what one of our sockets sent to another by our public address.
    pub(in crate::node) fn handle_knock(&mut self, request: Request) -> bool {
        let hairpin = self.checking.hairpin.as_mut();
        let is_knock = hairpin.is_some_and(|test| test.handle_request(request.transaction));
        if is_knock {
            self.drain_checking();
        }
        is_knock
    }

    /// Does what the tests have due.
    pub(in crate::node) fn wake_checking(&mut self, now: Instant) {
        let Checking { sampler, hairpin, lifetime, .. } = &mut self.checking;
        if let Some(sampler) = sampler {
            sampler.handle_timeout(now);
        }
        if let Some(hairpin) = hairpin {
            hairpin.handle_timeout(now);
        }
        if let Some(lifetime) = lifetime {
            lifetime.handle_timeout(now, &mut self.entropy);
        }
        self.drain_checking();
    }

    fn drain_checking(&mut self) {
        while let Some((test, wanted)) = self.checking.poll_output() {
            match wanted {
                Wanted::Socket(family) => {
                    let socket = self.open_extra(family, Holder::Check);
                    self.give_socket(test, socket);
                }
                Wanted::Transmit(Datagram { socket, remote, bytes }) => {
                    self.sockets.send(Path { socket, remote }, &bytes);
                }
                Wanted::Close(socket) => self.close_extra(socket),
                Wanted::Ports(seen) => self.take_ports(seen),
                Wanted::Hairpin(found) => {
                    tracing::debug!(?found, "whether our NAT hairpins");
                    self.checking.hairpin = None;
                    self.addresses.set_hairpin(found);
                    self.refresh_gathered();
                }
                Wanted::Lifetime(finding) => {
                    tracing::debug!(?finding, "how long our NAT keeps a mapping");
                    self.checking.lifetime = None;
                    self.checking.measured.lifetime = finding.into();
                    if let Finding::Measured(lifetime) = finding {
                        self.take_lifetime(lifetime);
                    }
                }
            }
        }
    }

    fn give_socket(&mut self, test: Test, socket: Option<BoundSocket>) {
        let (now, entropy) = (self.clock.now(), &mut self.entropy);
        let Checking { sampler, hairpin, lifetime, .. } = &mut self.checking;
        match (test, sampler, hairpin, lifetime) {
            (Test::Ports, Some(sampler), _, _) => match socket {
                Some(socket) => sampler.handle_socket_opened(socket, now, entropy),
                None => sampler.handle_socket_refused(),
            },
            (Test::Hairpin, _, Some(hairpin), _) => match socket {
                Some(socket) => hairpin.handle_socket_opened(socket, now, entropy),
                None => hairpin.handle_socket_refused(),
            },
            (Test::Lifetime, _, _, Some(lifetime)) => match socket {
                Some(socket) => lifetime.handle_socket_opened(socket, now, entropy),
                None => lifetime.handle_socket_refused(),
            },
            (Test::Ports | Test::Hairpin | Test::Lifetime, _, _, _) => {
                if let Some(socket) = socket {
                    self.close_extra(socket.index);
                }
            }
        }
    }

    /// What fresh sockets show, together with what our own ones do.
    fn take_ports(&mut self, seen: Vec<Observation>) {
        self.checking.sampler = None;
        let own = self.addresses.seen_v4().map(|own| own.evidence.observations.clone());
        let all: Vec<Observation> = own.unwrap_or_default().into_iter().chain(seen).collect();
        if let Some(inferred) = infer(Family::V4, &all) {
            self.checking.measured.ports = Some(Ports::of(&inferred));
            self.checking.measured.pooling = inferred.pooling();
        }
    }

    fn take_lifetime(&mut self, lifetime: Lifetime) {
        let now = self.clock.now();
        self.addresses.set_lifetime(lifetime, now);
        self.refresh_gathered();
    }
}

impl Checking {
    /// The next thing that a test wants, until there is none.
    fn poll_output(&mut self) -> Option<(Test, Wanted)> {
        let sampled = self.sampler.as_mut().and_then(Sampler::poll_output);
        if let Some(output) = sampled {
            let wanted = match output {
                sampler::Output::OpenSocket { family } => Wanted::Socket(family),
                sampler::Output::Transmit(datagram) => Wanted::Transmit(datagram),
                sampler::Output::CloseSocket(socket) => Wanted::Close(socket),
                sampler::Output::Done(seen) => Wanted::Ports(seen),
            };
            return Some((Test::Ports, wanted));
        }
        let knocked = self.hairpin.as_mut().and_then(HairpinTest::poll_output);
        if let Some(output) = knocked {
            let wanted = match output {
                hairpin::Output::OpenSocket { family } => Wanted::Socket(family),
                hairpin::Output::Transmit(datagram) => Wanted::Transmit(datagram),
                hairpin::Output::CloseSocket(socket) => Wanted::Close(socket),
                hairpin::Output::Done(found) => Wanted::Hairpin(found),
            };
            return Some((Test::Hairpin, wanted));
        }
        let measured = self.lifetime.as_mut().and_then(LifetimeTest::poll_output)?;
        let wanted = match measured {
            lifetime::Output::OpenSocket { family } => Wanted::Socket(family),
            lifetime::Output::Transmit(datagram) => Wanted::Transmit(datagram),
            lifetime::Output::CloseSocket(socket) => Wanted::Close(socket),
            lifetime::Output::Done(finding) => Wanted::Lifetime(finding),
        };
        Some((Test::Lifetime, wanted))
    }
}

/// How long a check takes at most, beside the measurement of a mapping's life: STUN servers have three seconds, a lookup
/// in the DHT takes one or two, and the NAT is looked at in one more.
pub(in crate::node) const CHECK_TIME: Duration = Duration::from_secs(5);

/// Checks under way at a time: each looks something up in the DHT.
const CHECKS_MAX: usize = 8;
