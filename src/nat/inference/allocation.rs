//! How a NAT chooses ports: what the order of the ports that it gave out shows.

use std::collections::BTreeSet;

use super::{Evidence, Observation};
use crate::behaviour::PortAllocation;

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

/// The port of every mapping, in the order in which the NAT made them.
pub(super) fn ports_in_order(observations: &[Observation]) -> Vec<u16> {
    let mut seen = BTreeSet::new();
    observations
        .iter()
        .filter(|observation| seen.insert((observation.socket, observation.reflexive)))
        .map(|observation| observation.reflexive.port())
        .collect()
}

/// How the ports of `evidence` were chosen; `None` if too few were seen.
pub(super) fn allocation(evidence: &Evidence) -> Option<PortAllocation> {
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
