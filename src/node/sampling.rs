//! How our NAT gives out ports, where that matters: behind one that gives each destination another port, a
//! few fresh sockets look at it before peers are told.
//!
//! How such a NAT chooses is looked at once and again when that is old; where one that counts has got to,
//! before every offer and every answer, because everything that this host or another one sends moves it
//! on. What the looks cost is bounded by [`sampler::SAMPLE_WAIT`] and a handful of datagrams each.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{driver::Driver, extra::Holder};
use crate::{
    behaviour::{NatBehaviour, PortAllocation, PortCounter},
    datagram::{Datagram, Family, Path, SocketIndex},
    nat::{
        inference::{Counted, Inferred, Observation, SAMPLE_AGE_MAX, infer},
        sampler::{self, SAMPLES_FOR_COUNT, SAMPLES_FOR_KIND, Sampler},
        stun::Response,
    },
};

/// What the looks have shown, and the one that is under way.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    running: Option<Sampler>,
    known: Option<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    allocation: Option<PortAllocation>,
    counted: Option<Counted>,
    /// The newest endpoint at each public address that the sockets were seen at.
    public: Vec<SocketAddr>,
    /// When the way of choosing was looked at.
    at: Instant,
}

impl Sampling {
    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.running.as_ref().and_then(Sampler::poll_timeout)
    }

    /// Whether a look is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// `nat` with what is known of how it chooses ports.
    pub(super) fn complement(&self, nat: NatBehaviour) -> NatBehaviour {
        let allocation = self.known.as_ref().and_then(|known| known.allocation);
        let is_dependent = nat.has_dependent_mapping();
        NatBehaviour { allocation: allocation.filter(|_| is_dependent), ..nat }
    }

    /// Whether it was looked how ports are chosen.
    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Where our NAT had got to, if it counts.
    pub(super) fn counted(&self) -> Option<Counted> {
        self.known.as_ref()?.counted
    }

    /// Where the sockets were seen: the newest endpoint at each public address.
    pub(super) fn public(&self) -> impl Iterator<Item = SocketAddr> {
        self.known.iter().flat_map(|known| &known.public).copied()
    }

    /// Forgets everything: the network is another one.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }

    /// Fresh sockets that it takes to know what peers have to be told now.
    fn wanted(&self, nat: NatBehaviour, now: Instant) -> Option<u16> {
        if !nat.has_dependent_mapping() {
            return None;
        }
        match &self.known {
            Some(known) if now.saturating_duration_since(known.at) <= SAMPLE_AGE_MAX => {
                let counts = matches!(known.allocation, Some(PortAllocation::Sequential { .. }));
                counts.then_some(SAMPLES_FOR_COUNT)
            }
            Some(_) | None => Some(SAMPLES_FOR_KIND),
        }
    }

    /// Takes in what a look has shown: all that a few sockets say of how ports are chosen, or the newest port
    /// of a NAT that counts.
    fn take(&mut self, seen: &[Observation], now: Instant) {
        let inferred = infer(Family::V4, seen);
        match (&mut self.known, inferred) {
            (Some(known), Some(inferred)) if seen.len() < usize::from(SAMPLES_FOR_KIND) / 2 => {
                let newest = inferred.evidence.observations.last().copied();
                if let (Some(counted), Some(newest)) = (&mut known.counted, newest) {
                    counted.port = newest.reflexive.port();
                    counted.seen_at = newest.since;
                }
            }
            (_, Some(inferred)) => {
                let (allocation, counted) = (inferred.allocation, inferred.counted);
                let public = newest_at_each_address(&inferred);
                self.known = Some(Known { allocation, counted, public, at: now });
            }
            (Some(_), None) => {}
            (None, None) => {
                let public = vec![];
                self.known = Some(Known { allocation: None, counted: None, public, at: now });
            }
        }
    }
}

fn newest_at_each_address(inferred: &Inferred) -> Vec<SocketAddr> {
    let seen = inferred.evidence.observations.iter().map(|seen| seen.reflexive);
    let newest: BTreeMap<IpAddr, SocketAddr> = seen.map(|at| (at.ip(), at)).collect();
    newest.into_values().collect()
}

impl Driver {
    /// Looks at our NAT if peers are to be told something fresh; says whether that is under way.
    pub(super) fn look_at_ports(&mut self) -> bool {
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

    /// Where our NAT has got to, as peers are told.
    pub(super) fn port_counter(&self) -> Option<PortCounter> {
        let counted = self.sampling.counted()?;
        Some(counted.to_counter(self.clock.now(), self.clock.unix()))
    }

    /// Takes in a STUN server's answer to a fresh socket.
    pub(super) fn handle_sampled(
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
    pub(super) fn wake_sampling(&mut self, now: Instant) {
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
        let counter = self.port_counter();
        self.tell_dials(|dial, now| dial.handle_counted(counter, now));
        self.begin_waiting_answers();
    }
}
