//! Says from what STUN servers saw how the NATs in front of us behave: a pure function that keeps its
//! evidence and can explain itself.
//!
//! One socket is seen by several servers. If all see one endpoint, the mapping is
//! endpoint-independent; if servers at one IP address but two ports disagree, it depends on address and
//! port. Where the order of the ports a NAT gave out is visible, so is its way of choosing them.

pub(in crate::nat) mod allocation;
mod mapping;
mod samples;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

pub use self::samples::{SAMPLE_AGE_MAX, Samples};
use self::{
    allocation::{allocation, contradicts, counted, once_in, ports_in_order},
    mapping::{by_socket, socket_mapping},
};
use crate::{
    behaviour::{
        Dependence, Hairpin, Lifetime, NatBehaviour, Pooling, PortAllocation, PortCounter,
    },
    datagram::{Family, SocketIndex},
    nat::distance::{Distance, is_shared},
    time::UnixMillis,
};

/// One answer of one server about one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The socket that asked.
    pub socket: SocketIndex,
    /// The socket's own address; with an unspecified IP address if that is not known.
    pub local: SocketAddr,
    /// The server that answered.
    pub server: SocketAddr,
    /// Where it sees the socket.
    pub reflexive: SocketAddr,
    /// When it was asked. Observations of one moment are given in the order in which they were asked.
    pub at: Instant,
    /// When this server was first asked and saw the socket there: when the mapping was made, perhaps.
    pub since: Instant,
}

/// What can be said of the NATs between us and the servers, for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// The behaviour; filtering cannot be told from Binding requests alone.
    pub behaviour: NatBehaviour,
    /// How ports are chosen; `None` if there is no NAT, or not enough was seen.
    pub allocation: Option<PortAllocation>,
    /// Where the NAT had got to, if it gives out ports in order.
    pub counted: Option<Counted>,
    /// Every endpoint that was seen: those that most servers agree on first.
    pub public: Vec<SocketAddr>,
    /// What somebody told us that Binding requests cannot show.
    pub told: Told,
    /// What it rests on.
    pub evidence: Evidence,
}

/// Where a NAT that gives out ports in order had got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The newest port.
    pub port: u16,
    /// When it was first seen.
    pub seen_at: Instant,
    /// Mappings that other hosts behind the NAT make in a minute, as far as they showed.
    pub others_per_minute: u32,
}

impl Counted {
    /// The same as peers are told, with wall-clock time: `now` is `unix`.
    pub fn to_counter(self, now: Instant, unix: UnixMillis) -> PortCounter {
        let age = now.saturating_duration_since(self.seen_at).as_millis();
        let age = u64::try_from(age).unwrap_or(u64::MAX);
        PortCounter {
            port: self.port,
            seen_at: UnixMillis(unix.0.saturating_sub(age)),
            others_per_minute: self.others_per_minute,
        }
    }
}

/// What can be known of a NAT only from somebody who tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Whose datagrams come in.
    pub filtering: Option<Dependence>,
    /// Whether hosts behind the NAT reach each other by its public address.
    pub hairpin: Option<Hairpin>,
    /// How long a mapping was seen to live without a datagram.
    pub lifetime: Lifetime,
    /// An endpoint whose port is forwarded to us: anybody reaches us there.
    pub forwarded: Option<SocketAddr>,
}

/// What an [`Inferred`] rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What was considered, in the order of asking.
    pub observations: Vec<Observation>,
    /// Servers that were passed over because they are not on the public internet, and others are.
    pub inner_servers: BTreeSet<SocketAddr>,
    /// Servers outvoted by at least twice as many that agree with each other.
    pub outvoted_servers: BTreeSet<SocketAddr>,
    /// The external ports in the order in which they were given out.
    pub ports: Vec<u16>,
}

/// What `observations` of one `family` show; `None` if there are none of it.
pub fn infer(family: Family, observations: &[Observation]) -> Option<Inferred> {
    let mut evidence = consider(family, observations);
    if evidence.observations.is_empty() {
        return None;
    }
    let mut mapping = None;
    for observations in by_socket(&evidence.observations).values() {
        let (dependence, outvoted) = socket_mapping(observations);
        evidence.outvoted_servers.extend(outvoted);
        // Sockets of one host share their NATs: the one that shows the most dependence shows the most.
        mapping = mapping.max(dependence);
    }
    let given = ports_in_order(&evidence.observations);
    evidence.ports = given.iter().map(|(port, _)| *port).collect();
    let allocation = match mapping {
        Some(Dependence::None) => None,
        _ => allocation(mapping, &evidence, &given),
    };
    let mut behaviour = NatBehaviour::new(mapping, None);
    if behaviour.has_dependent_mapping() {
        behaviour.allocation = allocation;
    }
    Some(Inferred {
        behaviour,
        allocation,
        counted: counted(allocation, &given),
        public: by_agreement(&evidence.observations),
        told: Told::default(),
        evidence,
    })
}

impl Inferred {
    /// The same with what somebody told us. Who reaches us at a forwarded port needs no guessing, however
    /// the NAT maps what we send ourselves.
    #[must_use]
    pub fn with(mut self, told: Told) -> Self {
        // Where there is no NAT, who lets everybody in has no filter either.
        self.behaviour.filtering = match (self.behaviour.mapping, told.filtering) {
            (Some(Dependence::None), Some(Dependence::EndpointIndependent)) => {
                Some(Dependence::None)
            }
            (_, filtering) => filtering,
        };
        if let Some(endpoint) = told.forwarded {
            let everybody = Some(Dependence::EndpointIndependent);
            self.behaviour = NatBehaviour::new(everybody, everybody);
            self.public.retain(|seen| *seen != endpoint);
            self.public.insert(0, endpoint);
        }
        self.told = told;
        self
    }

    /// In how many of as many NATs with random ports these would lie within a block of this size once.
    pub fn by_chance_once_in(&self) -> Option<u64> {
        match self.allocation {
            Some(PortAllocation::Block { low, high }) => {
                Some(once_in(self.evidence.ports.len(), low, high))
            }
            Some(
                PortAllocation::Preserving
                | PortAllocation::Sequential { .. }
                | PortAllocation::Random,
            )
            | None => None,
        }
    }

    /// Whether our sockets are seen at one public address or at several; `None` if there is no NAT, or too
    /// few sockets were seen to tell.
    pub fn pooling(&self) -> Option<Pooling> {
        let is_counted =
            |seen: &&Observation| !self.evidence.outvoted_servers.contains(&seen.server);
        let counted = || self.evidence.observations.iter().filter(is_counted);
        let addresses: BTreeSet<IpAddr> = counted().map(|seen| seen.reflexive.ip()).collect();
        let sockets: BTreeSet<SocketIndex> = counted().map(|seen| seen.socket).collect();
        match (self.behaviour.mapping, addresses.len(), sockets.len()) {
            (Some(Dependence::None), _, _) => None,
            (_, 2.., _) => Some(Pooling::Arbitrary),
            (_, 1, SOCKETS_FOR_POOLING..) => Some(Pooling::Paired),
            (_, _, _) => None,
        }
    }

    /// Whether a peer that saw us at `observed` saw what, by all this, cannot be.
    pub fn is_contradicted_by(&self, observed: SocketAddr) -> bool {
        match (self.behaviour.mapping, self.allocation) {
            (Some(Dependence::None | Dependence::EndpointIndependent), _) => {
                !self.public.contains(&observed)
            }
            (Some(_), Some(allocation)) => contradicts(allocation, self.counted, observed),
            (Some(_), None) | (None, _) => false,
        }
    }

    /// The endpoints worth telling a peer, best first.
    ///
    /// With a dependent mapping none of them leads to us, but a peer that probes one opens its own
    /// filter for our IP address: so one for each address, the newest.
    pub fn advertised(&self) -> Vec<SocketAddr> {
        if !self.behaviour.has_dependent_mapping() {
            return self.public.clone();
        }
        let mut newest = BTreeMap::new();
        for observation in &self.evidence.observations {
            newest.insert(observation.reflexive.ip(), observation.reflexive);
        }
        newest.into_values().collect()
    }
}

/// The observations of `family` that tell of the way to the public internet, in the order of asking.
///
/// A server within our own network or our carrier's sees us before the last NAT. It is heard only if
/// there is no other.
fn consider(family: Family, observations: &[Observation]) -> Evidence {
    let mut observations: Vec<Observation> = observations
        .iter()
        .filter(|observation| Family::of(observation.server.ip()) == family)
        .copied()
        .collect();
    observations.sort_by_key(|observation| observation.at);
    let (outer, inner): (Vec<_>, Vec<_>) =
        observations.iter().partition(|observation| !is_inner(observation.server.ip()));
    if outer.is_empty() {
        return Evidence { observations, ..Evidence::default() };
    }
    Evidence {
        observations: outer,
        inner_servers: inner.iter().map(|inner| inner.server).collect(),
        ..Evidence::default()
    }
}

/// Whether `ip` belongs to a network behind NATs: a private one, or that of a carrier's subscribers.
fn is_inner(ip: IpAddr) -> bool {
    is_shared(ip) || Distance::of(ip) != Distance::Internet
}

/// Every endpoint once: most servers first, then the one seen first.
fn by_agreement(observations: &[Observation]) -> Vec<SocketAddr> {
    let mut endpoints: Vec<(SocketAddr, usize)> = vec![];
    for observation in observations {
        let known = endpoints.iter_mut().find(|(endpoint, _)| *endpoint == observation.reflexive);
        match known {
            Some((_, count)) => *count += 1,
            None => endpoints.push((observation.reflexive, 1)),
        }
    }
    endpoints.sort_by_key(|(_, count)| Reverse(*count));
    endpoints.into_iter().map(|(endpoint, _)| endpoint).collect()
}

impl fmt::Display for Inferred {
    /// One sentence: who saw what, and what follows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let evidence = &self.evidence;
        let servers: BTreeSet<SocketAddr> =
            evidence.observations.iter().map(|observation| observation.server).collect();
        let servers = servers.len();
        let plural = if servers == 1 { "server" } else { "servers" };
        write!(f, "{servers} {plural} saw ")?;
        let shown: Vec<String> =
            self.public.iter().take(ENDPOINTS_SHOWN_MAX).map(ToString::to_string).collect();
        f.write_str(&shown.join(", "))?;
        match self.public.len().saturating_sub(shown.len()) {
            0 => {}
            more => write!(f, " and {more} more")?,
        }
        write!(f, ": {}", self.behaviour)?;
        if let Some(allocation) = self.allocation {
            write!(f, ", {allocation}")?;
        }
        if let Some(PortAllocation::Block { low, high }) = self.allocation {
            write!(f, ", by chance once in {}", once_in(evidence.ports.len(), low, high))?;
        }
        if self.counted.is_some_and(|counted| counted.others_per_minute > 0) {
            f.write_str(", others in between")?;
        }
        let told = self.told;
        if let Some(endpoint) = told.forwarded {
            write!(f, ", {endpoint} forwarded to us")?;
        }
        match told.hairpin {
            Some(Hairpin::Works) => f.write_str(", hairpins")?,
            Some(Hairpin::Missing) => f.write_str(", does not hairpin")?,
            None => {}
        }
        if !told.lifetime.is_unknown() {
            write!(f, ", mappings live {}", told.lifetime)?;
        }
        match evidence.outvoted_servers.len() {
            0 => Ok(()),
            outvoted => write!(f, " ({outvoted} outvoted)"),
        }
    }
}

/// Sockets that must be seen at one address before it is believed to be the only one: of two addresses given
/// at random, four sockets would show both in seven of eight cases.
const SOCKETS_FOR_POOLING: usize = 4;

/// Endpoints that an explanation names: with these the sentence still fits on a line or two.
const ENDPOINTS_SHOWN_MAX: usize = 4;

#[cfg(test)]
mod tests;
