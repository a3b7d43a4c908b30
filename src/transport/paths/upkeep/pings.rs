//! The pings that wait for an answer, and how many may be sent.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    datagram::{Path, SocketIndex},
    probe::Transaction,
};

/// A ping that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ping {
    transaction: Transaction,
    pub(super) path: Path,
    pub(super) sent_at: Instant,
}

/// A bounded number of pings that were not answered yet.
#[derive(Debug)]
pub(super) struct Pings {
    /// Oldest first.
    unanswered: VecDeque<Ping>,
    allowed: Allowance,
}

/// So many a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    per_second: u32,
    second: Instant,
    left: u32,
}

impl Pings {
    pub(super) fn new(now: Instant) -> Self {
        Self { unanswered: VecDeque::new(), allowed: Allowance::new(PINGS_PER_SECOND_MAX, now) }
    }

    /// Notes a ping that is about to be sent; says whether it may be.
    pub(super) fn note(&mut self, transaction: Transaction, path: Path, now: Instant) -> bool {
        if !self.allowed.take(now) {
            return false;
        }
        if self.unanswered.len() == UNANSWERED_MAX {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(Ping { transaction, path, sent_at: now });
        true
    }

    /// Takes the ping that a pong answers; each is answered once.
    pub(super) fn take(&mut self, transaction: Transaction) -> Option<Ping> {
        let mut pings = self.unanswered.iter();
        let index = pings.position(|ping| ping.transaction == transaction)?;
        self.unanswered.remove(index)
    }

    pub(super) fn forget_socket(&mut self, socket: SocketIndex) {
        self.unanswered.retain(|ping| ping.path.socket != socket);
    }
}

impl Allowance {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, second: now, left: per_second }
    }

    /// Takes one of this second's, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            *self = Self::new(self.per_second, now);
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

/// Four rounds of a search over 8 paths and 16 candidates fall into its first second.
const PINGS_PER_SECOND_MAX: u32 = 100;

/// As many as a searching peer sends.
pub(super) const PONGS_PER_SECOND_MAX: u32 = 100;

/// Pings whose answers count: those of a search's last second.
const UNANSWERED_MAX: usize = 128;
