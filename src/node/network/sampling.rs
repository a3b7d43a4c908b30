//! How our NAT gives out ports, where that matters: behind one that gives each destination another port, a
//! few fresh sockets look at it before peers are told.
//!
//! How such a NAT chooses is looked at once and again when that is old; where one that counts has got to,
//! before every offer and every answer, because everything that this host or another one sends moves it
//! on. And at once when something contradicts what was seen: a volley that should have met and has not, a peer
//! that sees us where we should not be. What the looks cost is bounded by [`sampler::SAMPLE_WAIT`] and a handful of datagrams each.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::extra::Holder;
use crate::{
    behaviour::{Dependence, NatBehaviour, PortAllocation, PortHint},
    datagram::{Datagram, Family, Path, SocketIndex},
    nat::{
        distance::{Distance, is_shared},
        inference::{Counted, Inferred, Observation, SAMPLE_AGE_MAX, infer},
        ports_in_use::PortsInUse,
        sampler::{self, SAMPLES_FOR_COUNT, SAMPLES_FOR_KIND, Sampler},
        stun::Response,
    },
    node::driver::Driver,
};

/// What the looks have shown, and the one that is under way.
#[derive(Debug, Default)]
pub(in crate::node) struct Sampling {
    running: Option<Sampler>,
    known: Option<Known>,
    in_use: PortsInUse,
}

#[derive(Clone, Debug, Default)]
struct Known {
    allocation: Option<PortAllocation>,
    counted: Option<Counted>,
    /// What it rests on.
    inferred: Option<Inferred>,
    /// When the way of choosing was looked at; `None` if that is doubted since.
    at: Option<Instant>,
}

impl Sampling {
    /// When something is due.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        self.running.as_ref().and_then(Sampler::poll_timeout)
    }

    /// Whether a look is under way.
    pub(in crate::node) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// `nat` with what is known of how it chooses ports.
    pub(in crate::node) fn complement(&self, nat: NatBehaviour) -> NatBehaviour {
        let allocation = self.known.as_ref().and_then(|known| known.allocation);
        let is_dependent = nat.has_dependent_mapping();
        NatBehaviour { allocation: allocation.filter(|_| is_dependent), ..nat }
    }

    /// Whether it was looked how ports are chosen.
    pub(in crate::node) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Where the sockets were seen: the newest endpoint at each public address.
    pub(in crate::node) fn public(&self) -> impl Iterator<Item = SocketAddr> {
        let inferred = self.known.iter().filter_map(|known| known.inferred.as_ref());
        inferred.flat_map(newest_at_each_address)
    }

    /// Forgets everything: the network is another one.
    pub(in crate::node) fn forget(&mut self) {
        self.known = None;
        self.in_use.forget();
    }

    /// What was seen is perhaps not so: the next look is a thorough one.
    fn doubt(&mut self) {
        if let Some(known) = &mut self.known {
            known.at = None;
        }
    }

    /// Whether a peer that sees us at `observed` sees what, by the last looks, cannot be.
    fn is_contradicted_by(&self, observed: SocketAddr) -> bool {
        let inferred = self.known.as_ref().and_then(|known| known.inferred.as_ref());
        inferred.is_some_and(|inferred| inferred.is_contradicted_by(observed))
    }

    /// Fresh sockets that it takes to know what peers have to be told now.
    fn wanted(&self, nat: NatBehaviour, now: Instant) -> Option<u16> {
        if !nat.has_dependent_mapping() {
            return None;
        }
        let is_fresh = |at: Instant| now.saturating_duration_since(at) <= SAMPLE_AGE_MAX;
        match &self.known {
            Some(known) if known.at.is_some_and(is_fresh) => {
                let counts = matches!(known.allocation, Some(PortAllocation::Sequential { .. }));
                counts.then_some(SAMPLES_FOR_COUNT)
            }
            Some(_) | None => Some(SAMPLES_FOR_KIND),
        }
    }

    /// Takes in what a look has shown: all that a few sockets say of how ports are chosen, or the newest port
    /// of a NAT that counts.
    fn take(&mut self, seen: &[Observation], now: Instant) {
        for observation in seen {
            self.in_use.note(observation.reflexive.port(), now);
        }
        let inferred = infer(Family::V4, seen);
        match (&mut self.known, inferred) {
            (Some(known), Some(inferred)) if seen.len() < usize::from(SAMPLES_FOR_KIND) / 2 => {
                let newest = inferred.evidence.observations.last().copied();
                if let (Some(counted), Some(newest)) = (&mut known.counted, newest) {
                    counted.port = newest.reflexive.port();
                    counted.seen_at = newest.since;
                }
            }
            (before, Some(inferred)) => {
                let before = before.as_ref().and_then(|known| known.allocation);
                let allocation = widened(before, inferred.allocation);
                let counted = inferred.counted;
                let inferred = Some(Inferred { allocation, ..inferred });
                self.known = Some(Known { allocation, counted, inferred, at: Some(now) });
            }
            (Some(_), None) => {}
            (None, None) => self.known = Some(Known { at: Some(now), ..Known::default() }),
        }
    }
}

fn newest_at_each_address(inferred: &Inferred) -> Vec<SocketAddr> {
    let seen = inferred.evidence.observations.iter().map(|seen| seen.reflexive);
    let newest: BTreeMap<IpAddr, SocketAddr> = seen.map(|at| (at.ip(), at)).collect();
    newest.into_values().collect()
}

/// What a look has shown, together with the one before: of a block each shows a part.
fn widened(before: Option<PortAllocation>, seen: Option<PortAllocation>) -> Option<PortAllocation> {
    match (before, seen) {
        (
            Some(PortAllocation::Block { low, high }),
            Some(PortAllocation::Block { low: other_low, high: other_high }),
        ) => {
            let (low, high) = (low.min(other_low), high.max(other_high));
            let is_one = high - low < BLOCK_SIZE_MAX;
            if is_one { Some(PortAllocation::Block { low, high }) } else { seen }
        }
        (_, seen) => seen,
    }
}

/// Two parts that are farther from each other belong to two blocks: larger ones are not given to one host.
const BLOCK_SIZE_MAX: u16 = 4_096;

impl Driver {
    /// What we know of our NAT is perhaps not so, as something has not worked that should have: looks again,
    /// at once.
    pub(in crate::node) fn doubt_ports(&mut self) {
        self.sampling.doubt();
        self.look_at_ports();
        if self.addresses.may_hurry(self.clock.now()) {
            self.look_for_ourselves();
        }
    }

    /// Takes in where a peer sees one of our sockets: elsewhere than it can be, it shows that our NAT is not
    /// what it seemed.
    pub(in crate::node) fn handle_seen_at(&mut self, socket: SocketIndex, observed: SocketAddr) {
        let is_public =
            Distance::of(observed.ip()) == Distance::Internet && !is_shared(observed.ip());
        if is_public && observed.is_ipv4() {
            self.sampling.in_use.note(observed.port(), self.clock.now());
        }
        let is_own = self.bound_sockets.iter().any(|own| own.index == socket);
        let nat = self.addresses.nat();
        let stands_still =
            matches!(nat.mapping, Some(Dependence::None | Dependence::EndpointIndependent));
        let public = self.addresses.public();
        let is_known = public.is_empty() || public.contains(&observed);
        let is_wrong = match stands_still {
            true => is_own && !is_known,
            false => observed.is_ipv4() && self.sampling.is_contradicted_by(observed),
        };
        if is_public && is_wrong {
            tracing::info!(%observed, %nat, "a peer sees us where we should not be: looking again");
            self.doubt_ports();
        }
    }

    /// Looks at our NAT if peers are to be told something fresh; says whether that is under way.
    pub(in crate::node) fn look_at_ports(&mut self) -> bool {
        let now = self.clock.now();
        let nat = self.addresses.nat();
        if !self.sampling.is_running()
            && let Some(count) = self.sampling.wanted(nat, now)
        {
            let servers = self.addresses.servers_v4();
            tracing::debug!(count, "looking at how our NAT gives out ports");
            self.sampling.running = Some(Sampler::new(&servers, count, now));
            self.drain_sampler();
        }
        self.sampling.is_running()
    }

    /// Which port of our NAT comes next, as peers are told.
    pub(in crate::node) fn port_hint(&mut self) -> Option<PortHint> {
        let (now, unix) = (self.clock.now(), self.clock.unix());
        let known = self.sampling.known.as_ref()?;
        if let Some(counted) = known.counted {
            return Some(PortHint::Counter(counted.to_counter(now, unix)));
        }
        let Some(PortAllocation::Block { low, high }) = known.allocation else { return None };
        let seen_by_dht = self.rendezvous.iter().flat_map(|rendezvous| rendezvous.seen_at());
        for endpoint in self.addresses.public().into_iter().chain(seen_by_dht.map(SocketAddr::V4)) {
            self.sampling.in_use.note(endpoint.port(), now);
        }
        let free = self.sampling.in_use.free_port(low, high, now, &mut self.entropy);
        free.map(PortHint::Free)
    }

    /// Takes in a STUN server's answer to a fresh socket.
    pub(in crate::node) fn handle_sampled(
        &mut self,
        (socket, remote): (SocketIndex, SocketAddr),
        response: &Response,
    ) {
        let now = self.clock.now();
        if let Some(sampler) = &mut self.sampling.running {
            sampler.handle_response(socket, remote, response, now);
        }
        self.drain_sampler();
    }

    /// Ends a look that took too long.
    pub(in crate::node) fn wake_sampling(&mut self, now: Instant) {
        if let Some(sampler) = &mut self.sampling.running
            && sampler.poll_timeout().is_some_and(|due| due <= now)
        {
            sampler.handle_timeout(now);
        }
        self.drain_sampler();
    }

    fn drain_sampler(&mut self) {
        let now = self.clock.now();
        while let Some(sampler) = &mut self.sampling.running
            && let Some(output) = sampler.poll_output()
        {
            match output {
                sampler::Output::OpenSocket { family } => {
                    let socket = self.open_extra(family, Holder::Sampler);
                    let Some(sampler) = &mut self.sampling.running else { return };
                    match socket {
                        Some(socket) => {
                            sampler.handle_socket_opened(socket, now, &mut self.entropy);
                        }
                        None => sampler.handle_socket_refused(),
                    }
                }
                sampler::Output::Transmit(Datagram { socket, remote, bytes }) => {
                    self.sockets.send(Path { socket, remote }, &bytes);
                }
                sampler::Output::CloseSocket(socket) => self.close_extra(socket),
                sampler::Output::Done(seen) => {
                    self.sampling.running = None;
                    self.sampling.take(&seen, now);
                    self.handle_ports_known();
                }
            }
        }
    }

    /// Tells everybody who waits for it how our NAT gives out ports.
    fn handle_ports_known(&mut self) {
        self.refresh_gathered();
        let hint = self.port_hint();
        self.tell_dials(|dial, now| dial.handle_counted(hint, now));
        self.begin_waiting_answers();
    }
}
