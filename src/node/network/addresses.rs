//! Where we are: our interfaces, how STUN servers see our sockets, and what follows for everybody who
//! wants to know.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{roaming::LOOK_INTERVAL, sampling::Sampling};
use crate::{
    behaviour::{Dependence, Hairpin, Lifetime, NatBehaviour},
    datagram::{BoundSocket, Datagram, Family, Path, SocketIndex},
    entropy::Entropy,
    failure::{Code, Failure},
    nat::{
        discovery::{self, Discovery, Report, Stage},
        gather::{Loopback, gather},
        inference::{Inferred, Told},
        stun::Response,
    },
    node::{
        driver::{Driver, Outcome},
        environment::Interfaces,
        event::Event,
        netcheck::{Life, Ports, Seen, StunServer},
        reaching::dial::Gathered,
    },
};

/// Our addresses, as far as they are known.
pub(in crate::node) struct Addresses {
    pub(in crate::node) discovery: Discovery,
    look: Interfaces,
    interfaces: Vec<IpAddr>,
    /// Addresses that sockets are bound to and no interface has.
    absent: Vec<IpAddr>,
    look_interval: Duration,
    next_look: Instant,
    /// When a STUN server may be asked again because somebody says that the network has changed.
    next_hurry: Instant,
    servers: Vec<String>,
    gathered: Gathered,
    report: Option<Report>,
    /// What others have shown us, or we have measured, of our NATs: over IPv4, and over IPv6.
    told: [Told; 2],
}

impl Addresses {
    /// Nothing is known but the interfaces; with no server to ask, that is all there will be.
    pub(in crate::node) fn new(
        look: Interfaces,
        sockets: &[BoundSocket],
        servers: Vec<String>,
        (now, news): (Instant, News),
    ) -> Self {
        let interfaces = look();
        let discovery = Discovery::new();
        let look_interval = match news {
            News::Told => LOOK_INTERVAL_IF_TOLD,
            News::Polled => LOOK_INTERVAL,
        };
        let next_look = now + look_interval;
        let gathered = Gathered {
            candidates: gather(&interfaces, sockets, &[], Loopback::Skip),
            nat: NatBehaviour::default(),
            complete: servers.is_empty(),
            is_unanswered: false,
        };
        Self {
            discovery,
            look,
            interfaces,
            absent: Vec::new(),
            look_interval,
            next_look,
            next_hurry: now,
            servers,
            gathered,
            report: None,
            told: <[Told; 2]>::default(),
        }
    }

    /// Whether it is time to look at the interfaces.
    pub(in crate::node) fn look_is_due(&self, now: Instant) -> bool {
        self.next_look <= now
    }

    /// Looks at the interfaces; says whether they have changed.
    pub(in crate::node) fn look_again(&mut self, now: Instant) -> bool {
        self.next_look = now + self.look_interval;
        let interfaces = (self.look)();
        let is_new = interfaces != self.interfaces;
        self.interfaces = interfaces;
        is_new
    }

    /// The addresses that `sockets` are bound to and that have gone since this was last asked.
    pub(in crate::node) fn newly_absent(&mut self, sockets: &[BoundSocket]) -> Vec<IpAddr> {
        let bound = sockets.iter().map(|socket| socket.local.ip());
        let absent: Vec<IpAddr> = bound
            .filter(|ip| !ip.is_unspecified() && !ip.is_loopback() && !self.interfaces.contains(ip))
            .collect();
        let before = std::mem::replace(&mut self.absent, absent.clone());
        absent.into_iter().filter(|ip| !before.contains(ip)).collect()
    }

    /// Whether enough time has passed since this was last asked to look for ourselves again.
    pub(in crate::node) fn may_hurry(&mut self, now: Instant) -> bool {
        let may = self.next_hurry <= now;
        if may {
            self.next_hurry = now + LOOK_INTERVAL;
        }
        may
    }

    /// The addresses of the interfaces when they were last looked at.
    pub(in crate::node) fn interfaces(&self) -> &[IpAddr] {
        &self.interfaces
    }

    /// Candidates to be told to peers.
    pub(in crate::node) fn gathered(&self) -> Gathered {
        self.gathered.clone()
    }

    /// Our endpoints as the internet sees them.
    pub(in crate::node) fn public(&self) -> Vec<SocketAddr> {
        self.report.as_ref().map(Report::advertised).unwrap_or_default()
    }

    /// Our endpoints on our own interfaces.
    pub(in crate::node) fn local(&self, sockets: &[BoundSocket]) -> Vec<SocketAddr> {
        let on_host = gather(&self.interfaces, sockets, &[], Loopback::Keep);
        on_host.into_iter().map(|candidate| candidate.address).collect()
    }

    /// How our NAT behaves, in a sentence.
    pub(in crate::node) fn nat_in_words(&self) -> String {
        let known =
            self.report.as_ref().and_then(|report| report.v4.as_ref().or(report.v6.as_ref()));
        known.map_or_else(|| "not known".to_owned(), ToString::to_string)
    }

    /// What STUN has shown; `None` while servers are being asked.
    pub(in crate::node) fn seen(&self) -> Option<Seen> {
        let is_asking = self.report.as_ref().is_none_or(|report| report.stage == Stage::Asking);
        let is_given_up = self.gathered.complete || self.gathered.is_unanswered;
        (is_given_up || !is_asking).then(|| self.seen_so_far())
    }

    /// What STUN has shown so far.
    pub(in crate::node) fn seen_so_far(&self) -> Seen {
        let report = self.report.as_ref();
        let known = report.and_then(|report| report.v4.as_ref().or(report.v6.as_ref()));
        let ports = known.map(Ports::of).unwrap_or_default();
        let stun_servers = self.discovery.servers().map(|(name, address, rtt)| StunServer {
            name: name.to_owned(),
            address,
            rtt,
        });
        let told = self.told();
        Seen {
            public_addresses: self.public(),
            nat: self.gathered.nat,
            ports,
            pooling: known.and_then(Inferred::pooling),
            hairpin: told.hairpin,
            lifetime: match told.lifetime.is_unknown() {
                true => Life::NotMeasured,
                false => Life::Measured(told.lifetime),
            },
            keep_alive: self.discovery.keep_alive(),
            stun_servers: stun_servers.collect(),
            stun_configured: !self.servers.is_empty(),
            ..Seen::default()
        }
    }

    /// What servers have seen of our own sockets over IPv4.
    pub(in crate::node) fn seen_v4(&self) -> Option<&Inferred> {
        self.report.as_ref()?.v4.as_ref()
    }

    /// What was told of the NAT that peers are told of.
    fn told(&self) -> Told {
        let [v4, v6] = self.told;
        let has_v4 = self.report.as_ref().is_none_or(|report| report.v4.is_some());
        if has_v4 { v4 } else { v6 }
    }

    /// Whether there is a NAT in front of us, as far as it is known.
    pub(in crate::node) fn has_nat(&self) -> bool {
        let mapping = self.nat().mapping;
        mapping.is_some() && mapping != Some(Dependence::None)
    }

    /// Whether our NAT hairpins, if that is known.
    pub(in crate::node) fn hairpin(&self) -> Option<Hairpin> {
        let [v4, _] = self.told;
        v4.hairpin
    }

    /// Takes in whether our NAT hairpins.
    pub(in crate::node) fn set_hairpin(&mut self, hairpin: Option<Hairpin>) {
        let [v4, _] = &mut self.told;
        v4.hairpin = hairpin.or(v4.hairpin);
    }

    /// Takes in how long our NAT was measured to keep a mapping, and keeps ours alive accordingly.
    pub(in crate::node) fn set_lifetime(&mut self, lifetime: Lifetime, now: Instant) {
        let [v4, _] = &mut self.told;
        v4.lifetime = lifetime;
        self.discovery.set_lifetime(lifetime, now);
    }

    /// Forgets what was told of our NATs: they are others.
    fn forget_told(&mut self) {
        for told in &mut self.told {
            // Whom the filter lets in is known as long as our addresses are the same.
            *told = Told { filtering: told.filtering, ..Told::default() };
        }
    }

    /// How our NAT maps.
    pub(in crate::node) fn nat(&self) -> NatBehaviour {
        self.report.as_ref().map(Report::behaviour).unwrap_or_default()
    }

    /// The STUN servers that have answered over IPv4, each once.
    pub(in crate::node) fn servers_v4(&self) -> Vec<SocketAddr> {
        let known = self.report.as_ref().and_then(|report| report.v4.as_ref());
        let mut servers = vec![];
        for seen in known.into_iter().flat_map(|inferred| &inferred.evidence.observations) {
            if !servers.contains(&seen.server) {
                servers.push(seen.server);
            }
        }
        servers
    }

    /// Takes in whom our filters let in, over IPv4 and over IPv6; says whether that is new.
    pub(in crate::node) fn set_filtering(
        &mut self,
        v4: Option<Dependence>,
        v6: Option<Dependence>,
    ) -> bool {
        let before = self.told;
        for (told, filtering) in self.told.iter_mut().zip([v4, v6]) {
            told.filtering = filtering;
        }
        before != self.told
    }

    /// When something is due.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        self.discovery.poll_timeout().into_iter().chain([self.next_look]).min()
    }

    /// The address of ours that datagrams from a socket bound to `bound` to `remote` most likely carry.
    pub(in crate::node) fn source(&self, bound: SocketAddr, remote: SocketAddr) -> SocketAddr {
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
        let [v4, v6] = self.told;
        let report = report.with(v4, v6);
        let mut advertised = report.advertised();
        if report.behaviour().has_dependent_mapping() {
            // Fresh sockets may have been seen at addresses that this one was not: a peer that sends there opens its
            // filter for them.
            let is_other = |at: &SocketAddr| advertised.iter().all(|known| known.ip() != at.ip());
            let others: Vec<SocketAddr> = sampling.public().filter(is_other).collect();
            advertised.extend(others);
        }
        let candidates = gather(&self.interfaces, sockets, &advertised, Loopback::Skip);
        let nat = sampling.complement(report.behaviour());
        // A mapping that can be judged was seen by two servers: the others would only confirm it.
        let is_judged = report.stage == Stage::Complete || nat.mapping.is_some();
        let complete = is_judged && (sampling.is_known() || !nat.has_dependent_mapping());
        self.report = Some(report);
        let mut gathered = Gathered { candidates, nat, complete, is_unanswered: false };
        gathered.is_unanswered = self.gathered.is_unanswered && !gathered.has_public_address();
        let is_new = gathered != self.gathered;
        self.gathered = gathered;
        is_new
    }
}

impl Driver {
    /// Begins to find out where we are.
    pub(in crate::node) fn begin_discovery(&mut self) {
        self.rediscover();
    }

    /// Asks all STUN servers where we are: what was known is forgotten.
    pub(in crate::node) fn rediscover(&mut self) {
        self.sampling.forget();
        self.addresses.forget_told();
        let now = self.clock.now();
        let interfaces = self.addresses.interfaces.clone();
        let (sockets, entropy) = (&self.bound_sockets, &mut self.entropy);
        self.addresses.discovery.set_network(sockets, &interfaces, now, entropy);
        self.resolve_stun_servers();
        self.drain_discovery();
    }

    /// Asks a STUN server now whether our addresses have changed.
    pub(in crate::node) fn look_for_ourselves(&mut self) {
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
    pub(in crate::node) fn handle_stun_resolved(&mut self, servers: &[(String, Vec<SocketAddr>)]) {
        let now = self.clock.now();
        self.addresses.discovery.set_servers(servers, now, &mut self.entropy);
        self.drain_discovery();
    }

    /// Takes in a STUN server's answer.
    pub(in crate::node) fn handle_stun_response(
        &mut self,
        (socket, remote): (SocketIndex, SocketAddr),
        response: &Response,
    ) {
        let now = self.clock.now();
        let entropy: &mut Entropy = &mut self.entropy;
        self.addresses.discovery.handle_response(socket, remote, response, now, entropy);
        self.drain_discovery();
    }

    /// Does what the discovery has due.
    pub(in crate::node) fn wake_addresses(&mut self, now: Instant) {
        if self.addresses.discovery.poll_timeout().is_some_and(|due| due <= now) {
            self.addresses.discovery.handle_timeout(now, &mut self.entropy);
        }
        self.drain_discovery();
    }

    fn drain_discovery(&mut self) {
        let (mut has_moved, mut has_another_address) = (false, false);
        while let Some(output) = self.addresses.discovery.poll_output() {
            match output {
                discovery::Output::Transmit(datagram) => {
                    let Datagram { socket, remote, bytes } = datagram;
                    // A peer may be a STUN server, too, and then our filter is open to it.
                    self.helping.reachability.handle_sent(remote, self.clock.now());
                    self.sockets.send(Path { socket, remote }, &bytes);
                }
                discovery::Output::Report(report) => self.handle_report(*report),
                discovery::Output::Changed { from, to, .. } => {
                    tracing::info!(%from, %to, "our public address has changed");
                    has_moved = true;
                    has_another_address |= from.ip() != to.ip();
                }
                discovery::Output::Unanswered { servers, waited } => {
                    self.addresses.gathered.is_unanswered = true;
                    let gathered = self.addresses.gathered();
                    self.tell_dials(|dial, now| dial.handle_gathered(gathered.clone(), now));
                    let failure = Failure::new(Code::StunFailed, "no STUN server answered")
                        .because(format!("asked {} for {:.1} s", servers.join(", "), waited.as_secs_f64()))
                        .hint("peers on other networks may not reach this node; does UDP leave this network? --stun HOST:PORT names another server");
                    self.events.emit(Event::Warning(failure));
                }
            }
        }
        // The new address is known by now, so it is what peers are told.
        if has_another_address && let Some(rendezvous) = &self.rendezvous {
            // Leave to write there was given to the old one.
            rendezvous.network_changed();
        }
        if has_moved {
            self.handle_moved();
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
    pub(in crate::node) fn refresh_gathered(&mut self) {
        if let Some(report) = self.addresses.report.clone() {
            self.publish_report(report);
        }
    }

    fn publish_report(&mut self, report: Report) {
        if self.addresses.take_report(report, &self.bound_sockets, &self.sampling) {
            let (gathered, servers) = (self.addresses.gathered(), self.addresses.servers_v4());
            self.tell_dials(|dial, _| dial.handle_stun_servers(&servers));
            tracing::info!(candidates = ?gathered.candidates, nat = %gathered.nat, "our addresses");
            self.tell_dials(|dial, now| dial.handle_gathered(gathered.clone(), now));
            self.tell_answers_of_ourselves();
            self.handle_presence_changed();
            self.tell_peers_where_we_are();
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

/// Where news of the machine's network come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum News {
    /// The system tells.
    Told,
    /// It has to be asked.
    Polled,
}

/// How often the interfaces are looked at although the system tells: it may lose what it has to say.
const LOOK_INTERVAL_IF_TOLD: Duration = Duration::from_secs(30);
