//! What time it is. The only place of the node that reads a clock.

use std::time::{Duration, Instant};

use crate::time::UnixMillis;

/// Reads tokio's clock, which tests can pause, and counts wall-clock time along with it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_unix: UnixMillis,
}

impl Clock {
    /// Follows the system's clocks.
    #[allow(clippy::disallowed_methods, reason = "wall time enters the program here")]
    pub fn system() -> Self {
        let unix = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self::starting_at(UnixMillis(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Claims that it is `started_unix` now and follows tokio's clock from there.
    pub fn starting_at(started_unix: UnixMillis) -> Self {
        Self { started: tokio::time::Instant::now().into_std(), started_unix }
    }

    /// The current instant.
    pub fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// The current wall-clock time.
    ///
    /// A system clock that is set while the node runs is followed only after a restart; everything that
    /// compares wall-clock times allows for minutes.
    pub fn unix(&self) -> UnixMillis {
        let elapsed = self.now().saturating_duration_since(self.started);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        UnixMillis(self.started_unix.0.saturating_add(elapsed_ms))
    }
}
