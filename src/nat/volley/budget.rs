//! What all volleys of a node may send together.

use std::time::{Duration, Instant};

use crate::nat::rate::{Bucket, Limit};

/// Datagrams of all volleys of one node in a minute: two attempts.
///
/// Each makes an entry in a router's table that lives for 30 s or more, and 4,096 entries are what the
/// smallest home routers have for everybody.
pub const DATAGRAMS_PER_MINUTE_MAX: u32 = 4_096;

const LIMIT: Limit =
    Limit { burst: DATAGRAMS_PER_MINUTE_MAX, interval: Duration::from_micros(14_648) };

/// What all volleys of a node may send together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget(Bucket);

impl Budget {
    /// Sets aside as many datagrams as may be sent now, `wanted` at most, for one attempt.
    pub fn grant(&mut self, wanted: u32, now: Instant) -> u32 {
        let mut granted = 0;
        while granted < wanted && self.0.has_room(LIMIT, now) {
            self.0.take(LIMIT, now);
            granted += 1;
        }
        granted
    }

    /// Takes back what was granted and not sent.
    pub fn put_back(&mut self, unspent: u32) {
        self.0.put_back(unspent, LIMIT);
    }
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
}
