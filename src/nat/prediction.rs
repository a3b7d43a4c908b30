//! Which ports a NAT that counts will give to its next mappings, and in which order to try them.
//!
//! A mapping of such a NAT gets the last port plus the step. Between the last port that was seen and the
//! mapping that is to be met lie `a` mappings of the same host and those of others, which come like
//! raindrops: `λ` in the time that passed, give or take `√λ`. So the port is `last + step·(1 + a + λ)`,
//! and right to within `2·step·√λ` in 19 cases of 20.
//!
//! Nobody has to be that exact. The side behind the NAT opens a *run* of mappings, and whoever meets any
//! of the run has met it: a [`Comb`] with teeth half a run apart hits the run wherever it lies, after
//! `64,512 / (step · run/2)` ports at the worst, and with the first few if the forecast is good.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::inference::allocation::{PORT_COUNT, PORT_MIN};
use crate::behaviour::{NatBehaviour, PortAllocation, PortHint};

/// What is known of a NAT that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// The newest port that was seen.
    pub port: u16,
    /// When it was given out, by our clock.
    pub seen_at: Instant,
    /// The distance from one port to the next; not zero.
    pub step: i32,
    /// Mappings that other hosts make in a minute.
    pub others_per_minute: u32,
}

impl Forecast {
    /// What a peer told of its NAT in a record or an offer, if it counts. `age` is how long ago the port
    /// was seen, see [`PortCounter::age_at`](crate::behaviour::PortCounter::age_at).
    pub fn of(nat: &NatBehaviour, age: Duration, now: Instant) -> Option<Self> {
        let (Some(PortAllocation::Sequential { step }), Some(PortHint::Counter(counter))) =
            (nat.allocation, nat.hint)
        else {
            return None;
        };
        Some(Self {
            port: counter.port,
            // Clocks that began less than that ago count from their beginning.
            seen_at: now.checked_sub(age).unwrap_or(now),
            step,
            others_per_minute: counter.others_per_minute,
        })
    }

    /// The port of the mapping that comes after `ahead` others of the same host, if it is made at `now`.
    pub fn port(&self, ahead: u32, now: Instant) -> u16 {
        let steps = i64::from(ahead) + i64::from(self.others(now)) + 1;
        shifted(self.port, steps * i64::from(self.step))
    }

    /// Mappings that others have most likely made since the port was seen.
    pub fn others(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.seen_at).min(ELAPSED_MAX);
        let others = u128::from(self.others_per_minute) * elapsed.as_millis() / 60_000;
        u32::try_from(others).unwrap_or(u32::MAX)
    }

    /// By how many mappings the forecast may be wrong, in 19 cases of 20.
    pub fn spread(&self, now: Instant) -> u32 {
        2 * self.others(now).isqrt()
    }
}

/// Ports of a NAT that counts, likeliest first, none twice.
///
/// First the middle of the run and the ports right after the last one that was seen, for a peer that has
/// opened little yet; then teeth to both sides of the middle. Each pass begins in the middle again, goes
/// twice as far as the one before, and sets its teeth between those of the others: what was tried too
/// early is not lost, and a forecast that is far off is made good in the end.
#[derive(Clone, Debug)]
pub struct Comb {
    middle: u16,
    step: i32,
    /// Steps from one tooth to the next.
    tooth: u32,
    /// Ports to be tried before the teeth.
    first: Vec<u16>,
    pass: u32,
    /// Position in the pass: 0 is the middle, then one to the right, one to the left, two to the right.
    position: u32,
    tried: BTreeSet<u16>,
}

impl Comb {
    /// For a run of `run` mappings that begins about where `forecast` says at `now`.
    pub fn new(forecast: &Forecast, run: u32, now: Instant) -> Self {
        let middle = forecast.port(run / 2, now);
        let mut first: Vec<u16> = (0..NEXT_PORTS).map(|ahead| forecast.port(ahead, now)).collect();
        // Taken from the end.
        first.reverse();
        Self { first, ..Self::around(middle, forecast.step, run) }
    }

    /// For a run of `run` mappings that lies anywhere.
    pub fn around(middle: u16, step: i32, run: u32) -> Self {
        Self {
            middle,
            step: if step == 0 { 1 } else { step },
            tooth: (run / 2).max(1),
            first: vec![],
            pass: 0,
            position: 0,
            tried: BTreeSet::new(),
        }
    }

    fn next_tooth(&mut self) -> Option<u16> {
        let reach = FIRST_REACH.checked_shl(self.pass).unwrap_or(u32::MAX);
        let teeth = u32::from(PORT_COUNT) / (self.tooth * self.step.unsigned_abs()).max(1) + 1;
        if self.position > 2 * reach.min(teeth / 2 + 1) {
            self.pass += 1;
            self.position = 0;
        }
        // The passes divide a tooth ever finer, as the digits of their number turned round do.
        let shift = (u64::from(self.pass.reverse_bits()) * u64::from(self.tooth)) >> 32;
        if self.pass >= self.tooth.next_power_of_two() {
            return None;
        }
        let distance = i64::from(self.position.div_ceil(2)) * i64::from(self.tooth);
        let side = if self.position % 2 == 1 { 1 } else { -1 };
        let steps = side * distance + i64::try_from(shift).unwrap_or_default();
        self.position += 1;
        Some(shifted(self.middle, steps * i64::from(self.step)))
    }
}

impl Iterator for Comb {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if let Some(port) = self.first.pop()
            && self.tried.insert(port)
        {
            return Some(port);
        }
        loop {
            let port = self.next_tooth()?;
            if self.tried.insert(port) {
                return Some(port);
            }
        }
    }
}

/// `port` moved by `distance`, round the range of ports that NATs give out.
fn shifted(port: u16, distance: i64) -> u16 {
    let offset = i64::from(port.saturating_sub(PORT_MIN)) + distance;
    let offset = offset.rem_euclid(i64::from(PORT_COUNT));
    PORT_MIN.saturating_add(u16::try_from(offset).unwrap_or_default())
}

/// Ports right after the last one that are tried first: a peer that only probes as usual opens one
/// mapping for each of our addresses.
const NEXT_PORTS: u32 = 4;

/// Teeth to each side of the middle in the first pass.
const FIRST_REACH: u32 = 2;

/// Time beyond which the others are not counted: a count of hours says nothing.
const ELAPSED_MAX: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::story::moment;

    fn forecast(port: u16, step: i32, others_per_minute: u32) -> Forecast {
        Forecast { port, seen_at: moment(), step, others_per_minute }
    }

    #[test]
    fn the_next_port_is_one_step_on_and_others_move_it() {
        let quiet = forecast(50_000, 2, 0);
        let later = quiet.seen_at + Duration::from_secs(10);
        assert_eq!((quiet.port(0, later), quiet.port(3, later)), (50_002, 50_008));
        let busy = forecast(50_000, -1, 600);
        let later = busy.seen_at + Duration::from_secs(10);
        assert_eq!((busy.port(0, later), busy.spread(later)), (49_899, 20));
        let at_the_end = forecast(65_535, 1, 0);
        assert_eq!(at_the_end.port(0, at_the_end.seen_at), 1_024);
    }

    #[test]
    fn a_comb_begins_with_the_next_ports_and_then_spreads_from_the_middle() {
        let forecast = forecast(50_000, 1, 0);
        let comb = Comb::new(&forecast, 64, forecast.seen_at);
        let ports: Vec<u16> = comb.take(11).collect();
        let (next, middle) = ([50_001, 50_002, 50_003, 50_004], 50_033);
        assert_eq!(ports[..4], next);
        // A tooth to the left of the middle is the first of the next ports.
        assert_eq!(ports[4..8], [middle, middle + 32, middle + 64, middle - 64]);
        assert_eq!(ports[8..], [middle + 16, middle + 48, middle - 16]);
    }

    #[test]
    fn no_port_comes_twice_and_any_run_is_met_within_a_bound() {
        for (step, run) in [(1, 256), (2, 256), (-1, 64), (7, 64)] {
            let comb = Comb::around(40_000, step, run);
            let ports: Vec<u16> = comb.take(20_000).collect();
            let distinct: BTreeSet<u16> = ports.iter().copied().collect();
            assert_eq!(distinct.len(), ports.len());
        }
        let mut worst = 0;
        for start in (1_024..65_279).step_by(97) {
            let met =
                Comb::around(40_000, 1, 256).position(|port| (start..start + 256).contains(&port));
            worst = worst.max(met.unwrap());
        }
        assert!(worst < 1_100, "{worst}");
    }
}
