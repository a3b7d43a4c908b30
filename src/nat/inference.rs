//! Says from what STUN servers saw how the NATs in front of us behave: a pure function that keeps its
//! evidence and can explain itself.
//!
//! One socket is seen by several servers. If all see one endpoint, the mapping is
//! endpoint-independent; if servers at one IP address but two ports disagree, it depends on address and
//! port. Where the order of the ports a NAT gave out is visible, so is its way of choosing them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{
    behaviour::{Dependence, NatBehaviour, PortAllocation},
    datagram::{Family, SocketIndex},
    nat::distance::{Distance, is_shared},
};

/// Ports of one step: the largest distance between consecutive mappings that we still call sequential.
///
/// Other hosts behind the NAT open mappings in between ours; two random ports lie this close in one
/// case of 1,000.
const STEP_MAX: u16 = 32;

/// The widest range of ports that we call a block.
///
/// Carriers hand a subscriber 512 to 2,048 ports. Three random ports lie within one such range in 3 of
/// 1,000 cases.
const BLOCK_SPAN_MAX: u16 = 2_048;

/// Distinct ports below which nothing is said about blocks.
const BLOCK_SAMPLES_MIN: usize = 3;

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
}

/// What can be said of the NATs between us and the servers, for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// The behaviour; filtering cannot be told from Binding requests alone.
    pub behaviour: NatBehaviour,
    /// How ports are chosen; `None` if there is no NAT, or not enough was seen.
    pub allocation: Option<PortAllocation>,
    /// Every endpoint that was seen: those that most servers agree on first.
    pub public: Vec<SocketAddr>,
    /// What it rests on.
    pub evidence: Evidence,
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
    evidence.ports = ports_in_order(&evidence.observations);
    let allocation = match mapping {
        Some(Dependence::None) => None,
        _ => allocation(&evidence),
    };
    Some(Inferred {
        behaviour: NatBehaviour::new(mapping, None),
        allocation,
        public: by_agreement(&evidence.observations),
        evidence,
    })
}

impl Inferred {
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

fn by_socket(observations: &[Observation]) -> BTreeMap<SocketIndex, Vec<Observation>> {
    let mut sockets: BTreeMap<SocketIndex, Vec<Observation>> = BTreeMap::new();
    for &observation in observations {
        let seen = sockets.entry(observation.socket).or_default();
        // Of one server, only its last word.
        seen.retain(|earlier| earlier.server != observation.server);
        seen.push(observation);
    }
    sockets
}

/// The mapping of one socket, and who was outvoted.
fn socket_mapping(observations: &[Observation]) -> (Option<Dependence>, Vec<SocketAddr>) {
    if observations.iter().all(|observation| observation.reflexive == observation.local) {
        return (Some(Dependence::None), vec![]);
    }
    let pairs = || {
        observations.iter().enumerate().flat_map(|(index, one)| {
            let others = observations.iter().skip(index + 1);
            others.map(move |other| (one, other))
        })
    };
    let differs = |one: &Observation, other: &Observation| one.reflexive != other.reflexive;
    let same_ip = |one: &Observation, other: &Observation| one.server.ip() == other.server.ip();
    if pairs().any(|(one, other)| same_ip(one, other) && differs(one, other)) {
        return (Some(Dependence::AddressAndPortDependent), vec![]);
    }
    if let Some(outvoted) = agreement(observations) {
        return (Some(Dependence::EndpointIndependent), outvoted);
    }
    if !pairs().any(|(one, other)| differs(one, other)) {
        // One IP address asked, whatever its ports: another one may see another endpoint.
        return (None, vec![]);
    }
    let port_makes_no_difference = pairs().any(|(one, other)| same_ip(one, other));
    let dependence = if port_makes_no_difference {
        Dependence::AddressDependent
    } else {
        // Cannot be told apart; the stricter one is the commoner one, and no plan for it fails with
        // the other.
        Dependence::AddressAndPortDependent
    };
    (Some(dependence), vec![])
}

/// The servers that disagree with an agreement of at least two IP addresses and at least twice as many
/// as they are; `None` if there is no such agreement.
///
/// NATs that keep ports where they can (Linux) give another port to one destination where the port is
/// taken; every other destination still sees the usual one. A server may also simply be wrong.
fn agreement(observations: &[Observation]) -> Option<Vec<SocketAddr>> {
    let mut voters: BTreeMap<SocketAddr, BTreeSet<IpAddr>> = BTreeMap::new();
    for observation in observations {
        let ips = voters.entry(observation.reflexive).or_default();
        ips.insert(observation.server.ip());
    }
    let (endpoint, agreeing) =
        voters.iter().max_by_key(|(endpoint, ips)| (ips.len(), Reverse(**endpoint)))?;
    let outvoted: Vec<SocketAddr> = observations
        .iter()
        .filter(|observation| observation.reflexive != *endpoint)
        .map(|observation| observation.server)
        .collect();
    let holds = agreeing.len() >= 2 && outvoted.len().saturating_mul(2) <= agreeing.len();
    holds.then_some(outvoted)
}

/// The port of every mapping, in the order in which the NAT made them.
fn ports_in_order(observations: &[Observation]) -> Vec<u16> {
    let mut seen = BTreeSet::new();
    observations
        .iter()
        .filter(|observation| seen.insert((observation.socket, observation.reflexive)))
        .map(|observation| observation.reflexive.port())
        .collect()
}

fn allocation(evidence: &Evidence) -> Option<PortAllocation> {
    let mut observations = evidence.observations.iter();
    if observations.all(|observation| observation.reflexive.port() == observation.local.port()) {
        return Some(PortAllocation::Preserving);
    }
    let ports = &evidence.ports;
    if ports.len() < 2 {
        return None;
    }
    if let Some(step) = step(ports) {
        return Some(PortAllocation::Sequential { step });
    }
    let (low, high) = (*ports.iter().min()?, *ports.iter().max()?);
    let is_block = ports.len() >= BLOCK_SAMPLES_MIN && high - low < BLOCK_SPAN_MAX;
    Some(if is_block { PortAllocation::Block { low, high } } else { PortAllocation::Random })
}

/// The distance between consecutive mappings: what all the distances seen are multiples of, as
/// mappings of others may lie between.
fn step(ports: &[u16]) -> Option<i32> {
    let mut step: u16 = 0;
    let mut directions = BTreeSet::new();
    for pair in ports.windows(2) {
        let &[one, next] = pair else { continue };
        // Over the end of the port range the count goes on from its beginning, not from zero: a
        // distance that spans it is not a multiple of the step, and no step is found.
        directions.insert(next > one);
        let distance = one.abs_diff(next);
        if distance == 0 || distance > STEP_MAX {
            return None;
        }
        step = greatest_common_divisor(distance, step);
    }
    let rising = directions.first()?;
    let step = i32::from(step);
    (directions.len() == 1).then_some(if *rising { step } else { -step })
}

fn greatest_common_divisor(one: u16, other: u16) -> u16 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
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
        match self.allocation {
            None => {}
            Some(PortAllocation::Preserving) => f.write_str(", ports preserved")?,
            Some(PortAllocation::Sequential { step }) => write!(f, ", ports in steps of {step}")?,
            Some(PortAllocation::Block { low, high }) => write!(f, ", ports within {low}–{high}")?,
            Some(PortAllocation::Random) => f.write_str(", ports without order")?,
        }
        match evidence.outvoted_servers.len() {
            0 => Ok(()),
            outvoted => write!(f, " ({outvoted} outvoted)"),
        }
    }
}

/// Endpoints that an explanation names: with these the sentence still fits on a line or two.
const ENDPOINTS_SHOWN_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::nat::story::moment;

    /// Observations of one socket bound to `local`, one for each (server, reflexive), in this order.
    fn seen(local: &str, answers: &[(&str, &str)]) -> Vec<Observation> {
        seen_on(0, local, answers)
    }

    fn seen_on(socket: u16, local: &str, answers: &[(&str, &str)]) -> Vec<Observation> {
        let at = moment();
        let observation = |&(server, reflexive): &(&str, &str)| Observation {
            socket: SocketIndex(socket),
            local: local.parse().unwrap(),
            server: server.parse().unwrap(),
            reflexive: reflexive.parse().unwrap(),
            at,
        };
        answers.iter().map(observation).collect()
    }

    const LOCAL: &str = "192.168.1.20:4000";
    const ONE: &str = "203.0.113.1:3478";
    const ONE_OTHER_PORT: &str = "203.0.113.1:3479";
    const TWO: &str = "203.0.113.2:3478";
    const THREE: &str = "203.0.113.3:3478";

    fn v4(observations: &[Observation]) -> Inferred {
        infer(Family::V4, observations).unwrap()
    }

    fn explained(observations: &[Observation]) -> String {
        v4(observations).to_string()
    }

    #[test]
    fn a_host_that_is_seen_where_it_is_has_no_nat() {
        let local = "198.51.100.9:4000";
        assert_eq!(
            explained(&seen(local, &[(ONE, local)])),
            "1 server saw 198.51.100.9:4000: no NAT"
        );
    }

    #[test]
    fn two_servers_that_agree_show_an_independent_mapping() {
        let seen = seen(LOCAL, &[(ONE, "198.51.100.9:4000"), (TWO, "198.51.100.9:4000")]);
        assert_eq!(
            explained(&seen),
            "2 servers saw 198.51.100.9:4000: endpoint-independent mapping, ports preserved"
        );
    }

    #[test]
    fn one_server_says_nothing_about_the_mapping() {
        let once = seen(LOCAL, &[(ONE, "198.51.100.9:50112")]);
        assert_eq!(explained(&once), "1 server saw 198.51.100.9:50112: mapping not known");
        let same_ip = [(ONE, "198.51.100.9:50112"), (ONE_OTHER_PORT, "198.51.100.9:50112")];
        assert_eq!(
            explained(&seen(LOCAL, &same_ip)),
            "2 servers saw 198.51.100.9:50112: mapping not known"
        );
    }

    #[test]
    fn ports_that_count_up_per_destination_show_a_sequential_symmetric_nat() {
        let answers = [
            (ONE, "198.51.100.9:50112"),
            (TWO, "198.51.100.9:50114"),
            (THREE, "198.51.100.9:50118"),
        ];
        assert_eq!(
            explained(&seen(LOCAL, &answers)),
            "3 servers saw 198.51.100.9:50112, 198.51.100.9:50114, 198.51.100.9:50118: \
             address- and port-dependent mapping, ports in steps of 2"
        );
        let down = [(ONE, "198.51.100.9:9"), (TWO, "198.51.100.9:8")];
        let step = PortAllocation::Sequential { step: -1 };
        assert_eq!(v4(&seen(LOCAL, &down)).allocation, Some(step));
    }

    #[test]
    fn two_ports_of_one_server_tell_address_from_port_dependence() {
        let address = [
            (ONE, "198.51.100.9:50112"),
            (ONE_OTHER_PORT, "198.51.100.9:50112"),
            (TWO, "198.51.100.9:3111"),
        ];
        let mapping = v4(&seen(LOCAL, &address)).behaviour.mapping;
        assert_eq!(mapping, Some(Dependence::AddressDependent));
        let port = [(ONE, "198.51.100.9:50112"), (ONE_OTHER_PORT, "198.51.100.9:3111")];
        let mapping = v4(&seen(LOCAL, &port)).behaviour.mapping;
        assert_eq!(mapping, Some(Dependence::AddressAndPortDependent));
    }

    #[test]
    fn ports_close_together_are_a_block_and_ports_far_apart_are_random() {
        let block =
            [(ONE, "198.51.100.9:2500"), (TWO, "198.51.100.9:2100"), (THREE, "198.51.100.9:2900")];
        let (low, high) = (2_100, 2_900);
        let inferred = v4(&seen(LOCAL, &block));
        assert_eq!(inferred.allocation, Some(PortAllocation::Block { low, high }));
        let random = [(ONE, "198.51.100.9:2500"), (TWO, "198.51.100.9:61000")];
        let inferred = v4(&seen(LOCAL, &random));
        assert_eq!(inferred.allocation, Some(PortAllocation::Random));
    }

    #[test]
    fn one_odd_server_among_three_is_outvoted() {
        let answers =
            [(ONE, "198.51.100.9:4000"), (TWO, "198.51.100.9:1024"), (THREE, "198.51.100.9:4000")];
        let inferred = v4(&seen(LOCAL, &answers));
        let mapping = inferred.behaviour.mapping;
        assert_eq!(mapping, Some(Dependence::EndpointIndependent));
        let two = TWO.parse().unwrap();
        assert_eq!(inferred.evidence.outvoted_servers, BTreeSet::from([two]));
        assert_eq!(inferred.public[0], "198.51.100.9:4000".parse().unwrap());
    }

    #[test]
    fn a_server_on_our_own_network_says_nothing_about_our_nat() {
        let answers = [("192.168.1.1:3478", LOCAL), (ONE, "198.51.100.9:4000")];
        let inferred = v4(&seen(LOCAL, &answers));
        assert_eq!(inferred.public, ["198.51.100.9:4000".parse().unwrap()]);
        assert_eq!(inferred.behaviour.mapping, None);
        assert_eq!(inferred.evidence.inner_servers.len(), 1);
        let offline = seen(LOCAL, &[("192.168.1.1:3478", LOCAL)]);
        assert_eq!(v4(&offline).behaviour.mapping, Some(Dependence::None));
    }

    #[test]
    fn a_nat_with_several_addresses_advertises_one_endpoint_of_each() {
        let answers =
            [(ONE, "198.51.100.9:4000"), (TWO, "198.51.100.10:4000"), (THREE, "198.51.100.9:4001")];
        let inferred = v4(&seen(LOCAL, &answers));
        assert!(inferred.behaviour.has_dependent_mapping());
        let advertised = ["198.51.100.9:4001", "198.51.100.10:4000"];
        assert_eq!(inferred.advertised(), advertised.map(|text| text.parse().unwrap()));
    }

    #[test]
    fn many_sockets_sample_the_allocation_of_an_independent_nat() {
        let mut observations = vec![];
        for socket in 0..4 {
            let reflexive = format!("198.51.100.9:{}", 50_000 + socket);
            let at = moment() + Duration::from_millis(u64::from(socket));
            let answers = [(ONE, reflexive.as_str()), (TWO, reflexive.as_str())];
            let seen = seen_on(socket, &format!("192.168.1.20:{}", 4_000 + 7 * socket), &answers);
            observations.extend(seen.into_iter().map(|seen| Observation { at, ..seen }));
        }
        let inferred = v4(&observations);
        let mapping = inferred.behaviour.mapping;
        assert_eq!(mapping, Some(Dependence::EndpointIndependent));
        let step = PortAllocation::Sequential { step: 1 };
        assert_eq!(inferred.allocation, Some(step));
    }

    #[test]
    fn ipv4_and_ipv6_are_told_apart() {
        let local = "[2001:db8::9]:4000";
        let mut both = seen(LOCAL, &[(ONE, "198.51.100.9:4000")]);
        both.extend(seen_on(1, local, &[("[2001:db8:1::1]:3478", local)]));
        assert_eq!(v4(&both).behaviour.mapping, None);
        let v6 = infer(Family::V6, &both).unwrap();
        assert_eq!(v6.behaviour.mapping, Some(Dependence::None));
        assert_eq!(infer(Family::V6, &both[..1]), None);
    }

    proptest! {
        #[test]
        fn any_observations_are_taken_calmly(
            answers in prop::collection::vec((0..3_u16, 0..3_u8, 0..3_u16, 0..3_u8, any::<u16>()), 0..12),
        ) {
            let at = moment();
            let observation = |&(socket, server, server_port, ip, port): &(u16, u8, u16, u8, u16)| {
                Observation {
                    socket: SocketIndex(socket),
                    local: LOCAL.parse().unwrap(),
                    server: SocketAddr::from(([203, 0, 113, server], server_port)),
                    reflexive: SocketAddr::from(([198, 51, 100, ip], port)),
                    at,
                }
            };
            let observations: Vec<_> = answers.iter().map(observation).collect();
            let inferred = infer(Family::V4, &observations);
            prop_assert_eq!(inferred.is_none(), observations.is_empty());
            if let Some(inferred) = inferred {
                prop_assert!(!inferred.advertised().is_empty());
                prop_assert!(!inferred.to_string().is_empty());
            }
        }
    }
}
