//! How many queries other than polls may be sent at once.

use std::time::{Duration, Instant};

/// Queries that may be sent at once: bounds what many dials at the same time may cost.
pub const BURST: u32 = 64;

/// How often one more is allowed: twenty a second.
pub const BURST_REFILL: Duration = Duration::from_millis(50);

/// A bucket of allowances.
#[derive(Debug)]
pub struct Burst {
    left: u32,
    refilled_at: Instant,
}

impl Burst {
    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, refilled_at: now }
    }

    /// Takes an allowance, if one is left.
    pub fn take(&mut self, now: Instant) -> bool {
        while self.refilled_at + BURST_REFILL <= now && self.left < BURST {
            self.left += 1;
            self.refilled_at += BURST_REFILL;
        }
        if self.left == BURST {
            self.refilled_at = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::some_instant;

    #[test]
    fn after_a_burst_there_are_twenty_a_second() {
        let start = some_instant();
        let mut burst = Burst::new(start);
        let taken = |burst: &mut Burst, now| (0..200).filter(|_| burst.take(now)).count();
        assert_eq!(taken(&mut burst, start), 64);
        assert_eq!(taken(&mut burst, start + Duration::from_secs(1)), 20);
        assert_eq!(taken(&mut burst, start + Duration::from_secs(60)), 64);
    }
}
