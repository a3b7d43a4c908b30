//! Says whether one more may happen now: a token bucket, and whose it is.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// `burst` at once, and one more each `interval`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) burst: u32,
    pub(crate) interval: Duration,
}

/// A token bucket, kept as the one moment at which it will be full again (the generic cell rate
/// algorithm).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Whether nothing would change if the bucket were forgotten.
    pub(crate) fn is_full(self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }

    /// Whether one more may happen now.
    pub(crate) fn has_room(self, limit: Limit, now: Instant) -> bool {
        let missing = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        missing <= limit.interval * limit.burst.saturating_sub(1)
    }

    /// Counts one that happens now.
    pub(crate) fn take(&mut self, limit: Limit, now: Instant) {
        let from = self.full_at.map_or(now, |full_at| full_at.max(now));
        self.full_at = Some(from + limit.interval);
    }
}

impl Bucket {
    /// Takes back `count` of those that were counted and did not happen.
    pub(super) fn put_back(&mut self, count: u32, limit: Limit) {
        self.full_at = self.full_at.and_then(|at| at.checked_sub(limit.interval * count));
    }
}

/// Whoever can send from one address can send from all of its IPv6 subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source(IpAddr);

impl Source {
    /// The one at `ip`.
    pub(crate) fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4(ip),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::story::moment;

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let limit = Limit { burst: 3, interval: Duration::from_millis(10) };
        let (mut bucket, start) = (Bucket::default(), moment());
        let mut passed = vec![];
        for millis in [0, 0, 0, 0, 9, 10, 10, 100, 100, 100, 100] {
            let now = start + Duration::from_millis(millis);
            if bucket.has_room(limit, now) {
                bucket.take(limit, now);
                passed.push(millis);
            }
        }
        assert_eq!(passed, [0, 0, 0, 10, 100, 100, 100]);
        assert!(!bucket.is_full(start + Duration::from_millis(129)));
        assert!(bucket.is_full(start + Duration::from_millis(130)));
    }
}
