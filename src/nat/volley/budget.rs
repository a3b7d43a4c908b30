//! What all volleys of a node may send together.

use std::time::{Duration, Instant};

use crate::nat::rate::{Bucket, Limit};

/// Datagrams of all volleys of one node to new ports in a minute, and at once if it was silent for one: two
/// volleys.
///
/// Each makes an entry in a router's table that lives for 30 s or more, and 4,096 entries are what the
/// smallest home routers have for everybody.
pub const DATAGRAMS_PER_MINUTE_MAX: u32 = 4_096;

/// Datagrams that all volleys of one node repeat in a minute: a crowd of 1,024 each 2.5 s, or four of those
/// that are in front of an endpoint.
///
/// They make no entries in any table; at 40 kB/s they are what a video call takes.
pub const AGAIN_PER_MINUTE_MAX: u32 = 24_576;

const NEW: Limit =
    Limit { burst: DATAGRAMS_PER_MINUTE_MAX, interval: Duration::from_micros(14_648) };

/// A second of them at once.
const AGAIN: Limit =
    Limit { burst: AGAIN_PER_MINUTE_MAX / 60, interval: Duration::from_micros(2_441) };

/// What all volleys of a node may send together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    new: Bucket,
    again: Bucket,
}

impl Budget {
    /// Sets aside as many datagrams to new ports as may be sent now, `wanted` at most, for one volley.
    pub fn grant(&mut self, wanted: u32, now: Instant) -> u32 {
        take(&mut self.new, NEW, wanted, now)
    }

    /// The same for those that repeat what was sent.
    pub fn grant_again(&mut self, wanted: u32, now: Instant) -> u32 {
        take(&mut self.again, AGAIN, wanted, now)
    }

    /// Takes back what was granted for new ports and not sent.
    pub fn put_back(&mut self, unspent: u32) {
        self.new.put_back(unspent, NEW);
    }
}

fn take(bucket: &mut Bucket, limit: Limit, wanted: u32, now: Instant) -> u32 {
    let mut granted = 0;
    while granted < wanted && bucket.has_room(limit, now) {
        bucket.take(limit, now);
        granted += 1;
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::story::moment;

    #[test]
    fn two_attempts_a_minute_are_granted() {
        let (mut budget, start) = (Budget::default(), moment());
        let grants = [0, 0, 0, 30, 60]
            .map(|seconds| budget.grant(2_048, start + Duration::from_secs(seconds)));
        assert_eq!(grants[..3], [2_048, 2_048, 0]);
        budget.put_back(1_000);
        let later = start + Duration::from_secs(60);
        assert!((1_000..=1_010).contains(&budget.grant(2_048, later)));
        assert!(grants[3..].iter().all(|granted| (2_040..=2_048).contains(granted)), "{grants:?}");
    }

    #[test]
    fn what_repeats_has_a_limit_of_its_own() {
        let (mut budget, start) = (Budget::default(), moment());
        assert_eq!(budget.grant(u32::MAX, start), DATAGRAMS_PER_MINUTE_MAX);
        let mut granted = 0;
        for slot in 0..600 {
            granted += budget.grant_again(128, start + Duration::from_millis(100) * slot);
        }
        let most = AGAIN_PER_MINUTE_MAX + AGAIN_PER_MINUTE_MAX / 60;
        assert!((AGAIN_PER_MINUTE_MAX - 128..=most + 10).contains(&granted), "{granted}");
    }
}
