//! Wall-clock time, for what leaves the process. Inside it, time is an `Instant` handed in.

use std::{fmt, time::Duration};

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// How long before `now` this moment was; zero if it lies ahead of `now`.
    pub fn age_at(self, now: Self) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }

    /// How far ahead of `now` this moment lies; zero if it is past.
    pub fn ahead_of(self, now: Self) -> Duration {
        now.age_at(self)
    }

    /// This moment in whole seconds, for formats that have no room for more.
    pub fn seconds(self) -> u64 {
        self.0 / 1_000
    }

    /// The moment `seconds` after the epoch.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
