//! Which ports of our NAT are in use: those at which somebody has seen us lately.
//!
//! A peer that is to meet us at a port of our block needs one that our next mappings get. With the block filled that is
//! any port that was free before, and of 1,024 some dozens are not: STUN servers, nodes of the DHT, helpers and peers
//! each have one, where a NAT gives a port to one destination only. Most of them say at which they see us.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::entropy::Entropy;

/// The external ports at which we were seen, and when last.
#[derive(Clone, Debug, Default)]
pub struct PortsInUse(BTreeMap<u16, Instant>);

impl PortsInUse {
    /// We were seen at `port`; the one that was seen longest ago gives way if there are too many.
    pub fn note(&mut self, port: u16, now: Instant) {
        self.0.insert(port, now);
        if self.0.len() > PORTS_MAX
            && let Some((oldest, _)) = self.0.iter().min_by_key(|(_, at)| **at)
        {
            let oldest = *oldest;
            self.0.remove(&oldest);
        }
    }

    /// Forgets everything: the network is another one.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Any port from `low` to `high` at which we were not seen lately. `None` if there may be no such port.
    pub fn free_port(
        &self,
        low: u16,
        high: u16,
        now: Instant,
        entropy: &mut Entropy,
    ) -> Option<u16> {
        let is_free = |port: u16| self.0.get(&port).is_none_or(|at| *at + FORGOTTEN_AFTER < now);
        let count = usize::from(high.saturating_sub(low)) + 1;
        let drawn = (0..DRAWS).map(|_| u16::try_from(entropy.below(count)).unwrap_or_default());
        drawn.map(|offset| low.saturating_add(offset)).find(|port| is_free(*port))
    }
}

/// As many as are worth telling apart in the largest block that carriers give.
const PORTS_MAX: usize = 512;

/// RFC 4787, requirement 5: a mapping lives two minutes or more. Most live no longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// Of a block that is half in use they all miss once in a million times.
const DRAWS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::story::moment;

    #[test]
    fn a_port_at_which_we_were_seen_is_free_again_when_the_nat_has_forgotten_it() {
        let (begin, mut entropy) = (moment(), Entropy::from_seed(1));
        let mut ports = PortsInUse::default();
        ports.note(2_048, begin);
        ports.note(2_050, begin);
        let free = |ports: &PortsInUse, now, entropy: &mut Entropy| {
            (0..50).filter_map(|_| ports.free_port(2_048, 2_050, now, entropy)).collect::<Vec<_>>()
        };
        let alive = begin + FORGOTTEN_AFTER;
        assert!(free(&ports, alive, &mut entropy).iter().all(|port| *port == 2_049));
        assert_eq!(ports.free_port(2_050, 2_050, alive, &mut entropy), None);
        let forgotten = alive + Duration::from_millis(1);
        let drawn = free(&ports, forgotten, &mut entropy);
        assert!([2_048, 2_049, 2_050].iter().all(|port| drawn.contains(port)), "{drawn:?}");
    }

    #[test]
    fn of_too_many_ports_the_latest_are_known() {
        let (begin, mut entropy) = (moment(), Entropy::from_seed(2));
        let mut ports = PortsInUse::default();
        for (millis, port) in (10_000..).take(PORTS_MAX + 1).enumerate() {
            ports.note(port, begin + Duration::from_millis(millis.try_into().unwrap()));
        }
        let now = begin + Duration::from_secs(1);
        assert_eq!(ports.free_port(10_000, 10_000, now, &mut entropy), Some(10_000));
        assert_eq!(ports.free_port(10_001, 10_512, now, &mut entropy), None);
    }
}
