//! How a NAT chooses ports: what the order of the ports that it gave out shows.
//!
//! Ports in order go up, or down, by multiples of one step: other hosts behind the NAT make mappings in
//! between. Random ports look like that by chance only. `n` ports of a block of `R` all rise with gaps of
//! at most `L` in about `(L/R)^(n-1)` of all cases, so the more ports were seen, the larger the gaps may
//! be: [`GAPS_MAX`] keeps a block of 512 ports, the smallest that carriers use, from being taken for a
//! sequence more often than once in a hundred, from three ports on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Counted, Evidence, Observation};
use crate::{
    behaviour::{Dependence, PortAllocation},
    datagram::SocketIndex,
};

/// The largest gap that we still call sequential, by the number of ports seen, from two on.
///
/// Two ports say little: two random ones of all lie within 32 of each other in one case of 1,000.
const GAPS_MAX: [u16; 5] = [32, 48, 96, 160, 224];

/// The widest range of ports that we call a block.
///
/// Carriers hand a subscriber 512 to 2,048 ports. Three random ports lie within one such range in 3 of
/// 1,000 cases.
const BLOCK_SPAN_MAX: u16 = 2_048;

/// Distinct ports below which nothing is said about blocks.
const BLOCK_SAMPLES_MIN: usize = 3;

/// Ports below are reserved, and no NAT gives them to a mapping (RFC 4787, section 4.2.2).
pub(in crate::nat) const PORT_MIN: u16 = 1_024;

/// Ports that a NAT can give to a mapping.
pub(in crate::nat) const PORT_COUNT: u16 = u16::MAX - PORT_MIN + 1;

/// Time below which mappings of others are not extrapolated: a few in a hundredth of a second are no
/// thousands in a minute.
const NOISE_SPAN_MIN: Duration = Duration::from_secs(1);

/// A port that the NAT gave out, and when it was first seen.
pub(super) type Given = (u16, Instant);

/// The port of every mapping, in the order in which the NAT made them.
pub(super) fn ports_in_order(observations: &[Observation]) -> Vec<Given> {
    let mut in_order: Vec<&Observation> = observations.iter().collect();
    // Stable: those of one moment stay in the order of asking.
    in_order.sort_by_key(|observation| observation.since);
    let mut seen = BTreeSet::new();
    in_order
        .into_iter()
        .filter(|observation| seen.insert((observation.socket, observation.reflexive)))
        .map(|observation| (observation.reflexive.port(), observation.since))
        .collect()
}

/// How the ports of `evidence` were chosen; `None` if too few were seen.
pub(super) fn allocation(
    mapping: Option<Dependence>,
    evidence: &Evidence,
    given: &[Given],
) -> Option<PortAllocation> {
    if is_preserving(mapping, &evidence.observations) {
        return Some(PortAllocation::Preserving);
    }
    if given.len() < 2 {
        return None;
    }
    if let Some(step) = step(given) {
        return Some(PortAllocation::Sequential { step });
    }
    let ports = || given.iter().map(|(port, _)| *port);
    let (low, high) = (ports().min()?, ports().max()?);
    let is_block = given.len() >= BLOCK_SAMPLES_MIN && high - low < BLOCK_SPAN_MAX;
    Some(if is_block { PortAllocation::Block { low, high } } else { PortAllocation::Random })
}

/// Whether every socket kept its port towards the first that it was seen by. Where the mapping depends
/// on the destination, later mappings of the same socket find the port taken, so it takes two sockets.
fn is_preserving(mapping: Option<Dependence>, observations: &[Observation]) -> bool {
    let keeps = |seen: &Observation| seen.reflexive.port() == seen.local.port();
    if observations.iter().all(keeps) {
        return true;
    }
    let is_dependent =
        matches!(mapping, Some(Dependence::AddressDependent | Dependence::AddressAndPortDependent));
    let mut firsts: BTreeMap<SocketIndex, &Observation> = BTreeMap::new();
    for observation in observations {
        let first = firsts.entry(observation.socket).or_insert(observation);
        if observation.since < first.since {
            *first = observation;
        }
    }
    is_dependent && firsts.len() >= 2 && firsts.values().all(|first| keeps(first))
}

/// The distance between consecutive mappings: what all the distances seen are multiples of.
fn step(given: &[Given]) -> Option<i32> {
    let gap_max = GAPS_MAX.get(given.len().checked_sub(2)?).or(GAPS_MAX.last())?;
    let mut step: u16 = 0;
    let mut directions = BTreeSet::new();
    for (distance, kind) in distances(given) {
        if distance == 0 || distance.unsigned_abs() > *gap_max {
            return None;
        }
        directions.insert(distance > 0);
        match kind {
            Gap::Plain => step = greatest_common_divisor(distance.unsigned_abs(), step),
            // Over the end of the range the count goes on from its beginning, wherever that is.
            Gap::OverTheEnd => {}
        }
    }
    let rising = directions.first()?;
    let step = Some(i32::from(step)).filter(|step| *step != 0)?;
    (directions.len() == 1).then_some(if *rising { step } else { -step })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    Plain,
    OverTheEnd,
}

/// From each port to the next, the short way round the range of ports.
fn distances(given: &[Given]) -> impl Iterator<Item = (i16, Gap)> {
    given.windows(2).filter_map(|pair| {
        let &[(one, _), (next, _)] = pair else { return None };
        let plain = i32::from(next) - i32::from(one);
        let around = plain - plain.signum() * i32::from(PORT_COUNT);
        let is_plain = plain.abs() <= around.abs();
        let (distance, kind) =
            if is_plain { (plain, Gap::Plain) } else { (around, Gap::OverTheEnd) };
        // Half the range at most, which fits but for one port.
        Some((i16::try_from(distance).unwrap_or(i16::MAX), kind))
    })
}

fn greatest_common_divisor(one: u16, other: u16) -> u16 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

/// Where a NAT that gives out ports in order had got to, and how many others take between ours.
pub(super) fn counted(allocation: Option<PortAllocation>, given: &[Given]) -> Option<Counted> {
    let Some(PortAllocation::Sequential { step }) = allocation else {
        return None;
    };
    let (&(_, first_at), &(port, seen_at)) = (given.first()?, given.last()?);
    let steps: u32 = distances(given)
        .map(|(distance, _)| u32::from(distance.unsigned_abs()) / step.unsigned_abs().max(1))
        .sum();
    let own = u32::try_from(given.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let others = u128::from(steps.saturating_sub(own));
    let span = seen_at.saturating_duration_since(first_at).max(NOISE_SPAN_MIN);
    let per_minute = others * 60_000 / span.as_millis();
    let others_per_minute = u32::try_from(per_minute).unwrap_or(u32::MAX);
    Some(Counted { port, seen_at, others_per_minute })
}

/// In how many of as many hosts with random ports `count` of them would lie within `low` to `high`: the
/// confidence that a block is one.
pub(super) fn once_in(count: usize, low: u16, high: u16) -> u64 {
    // n ports lie within a given width w of P in n·(w/P)^(n-1) of all cases.
    let width = u64::from(high.saturating_sub(low)) + 1;
    let others = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
    let ratio = u64::from(PORT_COUNT) / width.max(1);
    let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    ratio.saturating_pow(others) / count
}

/// Whether `observed` is no port that `allocation` would have given.
pub(super) fn contradicts(
    allocation: PortAllocation,
    counted: Option<Counted>,
    observed: SocketAddr,
) -> bool {
    let port = observed.port();
    match (allocation, counted) {
        (PortAllocation::Sequential { step }, Some(counted)) => {
            let seen = [(counted.port, counted.seen_at), (port, counted.seen_at)];
            let reach = i32::from(CONTRADICTION_STEPS) * step.abs();
            distances(&seen).all(|(distance, _)| {
                let ahead = i32::from(distance) * step.signum();
                !(0..=reach).contains(&ahead)
            })
        }
        (PortAllocation::Block { low, high }, _) => {
            let lowest = high.saturating_sub(BLOCK_SPAN_MAX);
            let highest = low.saturating_add(BLOCK_SPAN_MAX);
            !(lowest..=highest).contains(&port)
        }
        (
            PortAllocation::Preserving | PortAllocation::Sequential { .. } | PortAllocation::Random,
            _,
        ) => false,
    }
}

/// Mappings of ours and others after which a sequence may well be elsewhere than was thought.
const CONTRADICTION_STEPS: u16 = 4_096;
