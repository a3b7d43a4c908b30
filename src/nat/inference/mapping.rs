//! On what a mapping depends: what several servers say of one socket.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::Observation;
use crate::{behaviour::Dependence, datagram::SocketIndex};

/// The last word of each server, for each socket.
pub(super) fn by_socket(observations: &[Observation]) -> BTreeMap<SocketIndex, Vec<Observation>> {
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
pub(super) fn socket_mapping(
    observations: &[Observation],
) -> (Option<Dependence>, Vec<SocketAddr>) {
    let is_where_it_is = |seen: &&Observation| seen.reflexive == seen.local;
    let elsewhere: Vec<SocketAddr> = observations
        .iter()
        .filter(|seen| !is_where_it_is(seen))
        .map(|observation| observation.server)
        .collect();
    // A NAT changes what every server sees: one that sees a host elsewhere than most do is wrong, or the
    // way to it is odd. Such a host is public all the same, and must not be taken for NATed.
    if elsewhere.len().saturating_mul(2) <= observations.len().saturating_sub(elsewhere.len()) {
        return (Some(Dependence::None), elsewhere);
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
