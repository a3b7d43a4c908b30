//! When a discovery has something due.

use std::time::Instant;

/// Timers, and how often they have come round.
#[derive(Debug, Default)]
pub(super) struct Timers {
    pub(super) keepalive: Option<Instant>,
    pub(super) recheck: Option<Instant>,
    pub(super) retry: Option<Instant>,
    /// When the last round began.
    pub(super) asked_all: Option<Instant>,
    /// Rounds lately that nobody asked for.
    pub(super) rechecks: u32,
    /// Retries lately.
    pub(super) retries: u32,
}
