//! What time it is. The only place of the node that reads a clock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::time::UnixMillis;

/// Reads tokio's clock, which tests can pause, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Wall);

/// Where wall-clock time comes from.
#[derive(Clone, Copy, Debug)]
enum Wall {
    System,
    /// It began at this time and follows tokio's clock.
    Simulated {
        started: Instant,
        started_unix: UnixMillis,
        slept_ms: Option<&'static AtomicU64>,
    },
}

impl Clock {
    /// Follows the system's clocks.
    pub fn system() -> Self {
        Self(Wall::System)
    }

    /// Claims that it is `started_unix` now and follows tokio's clock from there.
    pub fn starting_at(started_unix: UnixMillis) -> Self {
        let started = tokio::time::Instant::now().into_std();
        Self(Wall::Simulated { started, started_unix, slept_ms: None })
    }

    /// Goes ahead by as many milliseconds as `slept_ms` says: a machine that sleeps, in a test.
    #[must_use]
    pub fn sleeping(self, slept_ms: &'static AtomicU64) -> Self {
        match self.0 {
            Wall::System => self,
            Wall::Simulated { started, started_unix, .. } => {
                Self(Wall::Simulated { started, started_unix, slept_ms: Some(slept_ms) })
            }
        }
    }

    /// The current instant.
    pub fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// The current wall-clock time; after a sleep, or when the system's clock is set, it jumps.
    pub fn unix(&self) -> UnixMillis {
        let (before, elapsed) = match self.0 {
            Wall::System => (UnixMillis::default(), system_time()),
            Wall::Simulated { started, started_unix, slept_ms } => {
                let slept_ms = slept_ms.map_or(0, |slept| slept.load(Ordering::Relaxed));
                let awake = self.now().saturating_duration_since(started);
                (started_unix, awake + Duration::from_millis(slept_ms))
            }
        };
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        UnixMillis(before.0.saturating_add(elapsed_ms))
    }
}

#[allow(clippy::disallowed_methods, reason = "wall time enters the program here")]
fn system_time() -> Duration {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    unix.unwrap_or(Duration::ZERO)
}
