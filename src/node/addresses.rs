//! Where we are: our interfaces, how STUN servers see our sockets, and what follows for everybody who
//! wants to know.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    dial::Gathered,
    driver::{Driver, Outcome},
    environment::Interfaces,
    event::Event,
    netcheck::Seen,
    sampling::Sampling,
};
use crate::{
    behaviour::NatBehaviour,
    datagram::{BoundSocket, Datagram, Family, Path, SocketIndex},
    entropy::Entropy,
    failure::{Code, Failure},
    nat::{
        discovery::{self, Discovery, Report, Stage},
        gather::{Loopback, gather},
        stun::Response,
    },
};

/// Our addresses, as far as they are known.
pub(super) struct Addresses {
    pub(super) discovery: Discovery,
    look: Interfaces,
    interfaces: Vec<IpAddr>,
    next_look: Instant,
    servers: Vec<String>,
    gathered: Gathered,
    report: Option<Report>,
}

impl Addresses {
    /// Nothing is known but the interfaces; with no server to ask, that is all there will be.
    pub(super) fn new(
        look: Interfaces,
        sockets: &[BoundSocket],
        servers: Vec<String>,
        now: Instant,
    ) -> Self {
        let interfaces = look();
        let discovery = Discovery::new();
        let next_look = now + LOOK_INTERVAL;
        let gathered = Gathered {
            candidates: gather(&interfaces, sockets, &[], Loopback::Skip),
            nat: NatBehaviour::default(),
            complete: servers.is_empty(),
        };
        Self { discovery, look, interfaces, next_look, servers, gathered, report: None }
    }

    /// Candidates to be told to peers.
    pub(super) fn gathered(&self) -> Gathered {
        self.gathered.clone()
    }

    /// Our endpoints as the internet sees them.
    pub(super) fn public(&self) -> Vec<SocketAddr> {
        self.report.as_ref().map(Report::advertised).unwrap_or_default()
    }

    /// Our endpoints on our own interfaces.
    pub(super) fn local(&self, sockets: &[BoundSocket]) -> Vec<SocketAddr> {
        let on_host = gather(&self.interfaces, sockets, &[], Loopback::Keep);
        on_host.into_iter().map(|candidate| candidate.address).collect()
    }

    /// How our NAT behaves, in a sentence.
    pub(super) fn nat_in_words(&self) -> String {
        let known =
            self.report.as_ref().and_then(|report| report.v4.as_ref().or(report.v6.as_ref()));
        known.map_or_else(|| "not known".to_owned(), ToString::to_string)
    }

    /// What STUN has shown; `None` while servers are being asked.
    pub(super) fn seen(&self) -> Option<Seen> {
        let report = self.report.as_ref();
        if !self.gathered.complete && report.is_none_or(|report| report.stage == Stage::Asking) {
            return None;
        }
        let known = report.into_iter().flat_map(|report| [&report.v4, &report.v6]).flatten();
        let observations = known.flat_map(|inferred| &inferred.evidence.observations);
        let servers: BTreeSet<SocketAddr> = observations.map(|seen| seen.server).collect();
        Some(Seen {
            public_addresses: self.public(),
            nat: self.gathered.nat,
            stun_servers: servers.len(),
            stun_configured: !self.servers.is_empty(),
            ..Seen::default()
        })
    }

    /// How our NAT maps.
    pub(super) fn nat(&self) -> NatBehaviour {
        self.report.as_ref().map(Report::behaviour).unwrap_or_default()
    }

    /// The STUN servers that have answered over IPv4, each once.
    pub(super) fn servers_v4(&self) -> Vec<SocketAddr> {
        let known = self.report.as_ref().and_then(|report| report.v4.as_ref());
        let mut servers = vec![];
        for seen in known.into_iter().flat_map(|inferred| &inferred.evidence.observations) {
            if !servers.contains(&seen.server) {
                servers.push(seen.server);
            }
        }
        servers
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.discovery.poll_timeout().into_iter().chain([self.next_look]).min()
    }

    /// The address of ours that datagrams from a socket bound to `bound` to `remote` most likely carry.
    pub(super) fn source(&self, bound: SocketAddr, remote: SocketAddr) -> SocketAddr {
        if !bound.ip().is_unspecified() {
            return bound;
        }
        let shared = |ip: &IpAddr| common_prefix(*ip, remote.ip());
        let of_family = |ip: &&IpAddr| Family::of(**ip) == Family::of(remote.ip());
        let fits = |ip: &&IpAddr| ip.is_loopback() == remote.ip().is_loopback();
        let best =
            self.interfaces.iter().filter(of_family).filter(fits).max_by_key(|ip| shared(ip));
        SocketAddr::new(best.copied().unwrap_or_else(|| bound.ip()), bound.port())
    }

    /// Takes the report into what peers are told; says whether that changed.
    fn take_report(
        &mut self,
        report: Report,
        sockets: &[BoundSocket],
        sampling: &Sampling,
    ) -> bool {
        let candidates = gather(&self.interfaces, sockets, &report.advertised(), Loopback::Skip);
        let nat = sampling.complement(report.behaviour());
        // A mapping that can be judged was seen by two servers: the others would only confirm it.
        let is_judged = report.stage == Stage::Complete || nat.mapping.is_some();
        let complete = is_judged && (sampling.is_known() || !nat.has_dependent_mapping());
        self.report = Some(report);
        let gathered = Gathered { candidates, nat, complete };
        let is_new = gathered != self.gathered;
        self.gathered = gathered;
        is_new
    }
}

impl Driver {
    /// Begins to find out where we are.
    pub(super) fn begin_discovery(&mut self) {
        self.rediscover();
        self.drain_discovery();
    }

    fn rediscover(&mut self) {
        self.sampling.forget();
        let now = self.clock.now();
        let interfaces = self.addresses.interfaces.clone();
        let (sockets, entropy) = (&self.bound_sockets, &mut self.entropy);
        self.addresses.discovery.set_network(sockets, &interfaces, now, entropy);
        self.resolve_stun_servers();
    }

    /// Asks a STUN server now whether our addresses have changed.
    pub(super) fn look_for_ourselves(&mut self) {
        let now = self.clock.now();
        self.addresses.discovery.hurry(now);
    }

    fn resolve_stun_servers(&mut self) {
        let (names, outcomes) = (self.addresses.servers.clone(), self.outcomes());
        self.spawn(async move {
            let mut servers = Vec::new();
            for name in names {
                let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(&name).await {
                    Ok(addresses) => addresses.collect(),
                    Err(error) => {
                        tracing::warn!(%name, %error, "a STUN server's name is not known");
                        Vec::new()
                    }
                };
                servers.push((name, addresses));
            }
            // A driver that is gone needs no answer.
            let _ = outcomes.send(Outcome::StunResolved(servers)).await;
        });
    }

    /// Takes in the addresses of the STUN servers.
    pub(super) fn handle_stun_resolved(&mut self, servers: &[(String, Vec<SocketAddr>)]) {
        let now = self.clock.now();
        self.addresses.discovery.set_servers(servers, now, &mut self.entropy);
        self.drain_discovery();
    }

    /// Takes in a STUN server's answer.
    pub(super) fn handle_stun_response(
        &mut self,
        (socket, remote): (SocketIndex, SocketAddr),
        response: &Response,
    ) {
        let now = self.clock.now();
        let entropy: &mut Entropy = &mut self.entropy;
        self.addresses.discovery.handle_response(socket, remote, response, now, entropy);
        self.drain_discovery();
    }

    /// Looks at the interfaces again, and does what the discovery has due.
    pub(super) fn wake_addresses(&mut self, now: Instant) {
        if self.addresses.next_look <= now {
            self.addresses.next_look = now + LOOK_INTERVAL;
            let interfaces = (self.addresses.look)();
            if interfaces != self.addresses.interfaces {
                tracing::info!(?interfaces, "the network has changed");
                self.addresses.interfaces = interfaces;
                self.rediscover();
                if let Some(rendezvous) = &self.rendezvous {
                    rendezvous.network_changed();
                }
            }
        }
        if self.addresses.discovery.poll_timeout().is_some_and(|due| due <= now) {
            self.addresses.discovery.handle_timeout(now, &mut self.entropy);
        }
        self.drain_discovery();
    }

    fn drain_discovery(&mut self) {
        while let Some(output) = self.addresses.discovery.poll_output() {
            match output {
                discovery::Output::Transmit(datagram) => {
                    let Datagram { socket, remote, bytes } = datagram;
                    self.sockets.send(Path { socket, remote }, &bytes);
                }
                discovery::Output::Report(report) => self.handle_report(*report),
                discovery::Output::Changed { from, to, .. } => {
                    tracing::info!(%from, %to, "our public address has changed");
                }
                discovery::Output::Unanswered { servers, waited } => {
                    let failure = Failure::new(Code::StunFailed, "no STUN server answered")
                        .because(format!("asked {} for {:.1} s", servers.join(", "), waited.as_secs_f64()))
                        .hint("peers on other networks may not reach this node; does UDP leave this network? --stun HOST:PORT names another server");
                    self.events.emit(Event::Warning(failure));
                }
            }
        }
    }

    fn handle_report(&mut self, report: Report) {
        if report.behaviour().has_dependent_mapping() && !self.sampling.is_known() {
            // Of use to peers only when it is known how ports are chosen, which takes a round trip more.
            self.addresses.report = Some(report);
            self.look_at_ports();
        } else {
            self.publish_report(report);
        }
    }

    /// What we know of how our NAT gives out ports is another.
    pub(super) fn refresh_gathered(&mut self) {
        if let Some(report) = self.addresses.report.clone() {
            self.publish_report(report);
        }
    }

    fn publish_report(&mut self, report: Report) {
        if self.addresses.take_report(report, &self.bound_sockets, &self.sampling) {
            let gathered = self.addresses.gathered();
            tracing::info!(candidates = ?gathered.candidates, nat = %gathered.nat, "our addresses");
            self.tell_dials(|dial, now| dial.handle_gathered(gathered.clone(), now));
            self.tell_answers_of_ourselves();
            self.handle_presence_changed();
        }
    }
}

fn common_prefix(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    }
}

/// How often the interfaces are looked at: a few system calls.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
