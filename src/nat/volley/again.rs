//! What a volley has tried, tried again: at a pace that comes round in time, in slices that are asked for.

use std::time::{Duration, Instant};

use super::LATE_MAX;
use crate::datagram::Path;

/// Datagrams that are asked for at a time: those of a third of a second, at the quickest.
pub(super) const SLICE: u32 = 128;

/// Time until leave that was refused is asked for again.
const LEAVE_RETRY: Duration = Duration::from_secs(1);

/// Refusals in a row after which somebody else had better have the sockets.
const REFUSALS_MAX: u32 = 3;

/// A way round what was tried.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// Position of the next one.
    next: usize,
    /// Those that may be sent before leave is asked for again.
    left: u32,
    /// Those that are to go as fast as at first.
    hurried: usize,
    refusals: u32,
}

impl Again {
    /// The next `count` are urgent.
    pub(super) fn hurry(&mut self, count: usize) {
        self.hurried = count;
    }

    /// Takes in how many may be sent; returns when the next one is due.
    pub(super) fn handle_leave(&mut self, datagrams: u32, now: Instant) -> Instant {
        self.left = datagrams;
        match datagrams {
            0 => {
                self.refusals += 1;
                now + LEAVE_RETRY
            }
            _ => {
                self.refusals = 0;
                now
            }
        }
    }

    /// Whether leave was refused for some time.
    pub(super) fn is_held_up(&self) -> bool {
        self.refusals >= REFUSALS_MAX
    }

    /// Those of `tried` that are due since `slot`, and when the next one is; `None` if it takes leave.
    pub(super) fn take(
        &mut self,
        tried: &[Path],
        (first_pace, every): (Duration, Duration),
        (mut slot, now): (Instant, Instant),
    ) -> (Vec<Path>, Option<Instant>) {
        let usual = every / u32::try_from(tried.len()).unwrap_or(u32::MAX).max(1);
        let mut due = Vec::new();
        while slot <= now && due.len() < LATE_MAX {
            if self.left == 0 {
                return (due, None);
            }
            self.left -= 1;
            due.extend(tried.get(self.next % tried.len().max(1)));
            self.next = (self.next + 1) % tried.len().max(1);
            slot += if self.hurried > 0 { first_pace.min(usual) } else { usual };
            self.hurried = self.hurried.saturating_sub(1);
        }
        (due, Some(slot.max(now)))
    }
}
