//! A client wants to be connected to its service all the time: dials it at the start, and again whenever
//! the link is gone.

use std::time::{Duration, Instant};

use super::dialling::Wish;
use crate::{
    failure::Failure,
    node::{
        config::Role,
        driver::Driver,
        event::{Event, Target},
    },
};

/// The wish to be connected, and when to try again.
#[derive(Debug, Default)]
pub(in crate::node) struct Standing {
    target: Option<Target>,
    next: Option<Instant>,
    failures: u32,
    /// The user has ended the connection.
    is_paused: bool,
}

impl Standing {
    /// When the next dial is due.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Takes in that a link is up.
    pub(in crate::node) fn handle_link_up(&mut self) {
        self.next = None;
        self.failures = 0;
    }

    /// The network is another one: what waits for its time does so no longer.
    pub(in crate::node) fn hurry(&mut self, now: Instant) {
        self.failures = 0;
        self.next = self.next.map(|next| next.min(now));
    }

    /// Takes in that a link is gone and `left` are up; says whether the node dials again by itself.
    pub(in crate::node) fn handle_link_down(&mut self, left: usize, now: Instant) -> bool {
        let wants = self.target.is_some() && left == 0 && !self.is_paused;
        if wants {
            self.next = Some(now + REDIAL_AFTER);
        }
        wants
    }

    /// The user ends the connection to what was dialled as `target`: if that is what it wanted all the
    /// time, it does not until it asks for it again.
    pub(in crate::node) fn handle_disconnect(&mut self, target: Option<&Target>) {
        if target.is_some() && target == self.target.as_ref() {
            self.is_paused = true;
            self.next = None;
        }
    }

    /// The user asks for a connection to `target`.
    pub(in crate::node) fn handle_connect(&mut self, target: &Target) {
        if self.target.as_ref() == Some(target) {
            self.is_paused = false;
        }
    }

    fn handle_failed(&mut self, now: Instant) {
        self.failures += 1;
        let doubled = REDIAL_AFTER.saturating_mul(1 << self.failures.min(8));
        self.next = Some(now + doubled.min(REDIAL_AFTER_MAX));
    }
}

impl Driver {
    /// A client of a service begins to dial it.
    pub(in crate::node) fn begin_standing(&mut self) {
        if self.config.role == Role::Client
            && let Some(target) = self.config.standing.clone()
        {
            self.standing.target = Some(target);
            self.standing.next = Some(self.clock.now());
        }
    }

    /// Dials again if it is time.
    pub(in crate::node) fn wake_standing(&mut self, now: Instant) {
        let is_due = self.standing.next.take_if(|next| *next <= now).is_some();
        if is_due && let Some(target) = self.standing.target.clone() {
            self.fulfil(target, None, Wish::Standing);
        }
    }

    /// Takes in that the dial was in vain.
    pub(in crate::node) fn handle_standing_failed(&mut self, failure: Failure) {
        let now = self.clock.now();
        self.standing.handle_failed(now);
        self.events.emit(Event::Warning(failure));
    }
}

/// A server that restarts is back within a second or two.
const REDIAL_AFTER: Duration = Duration::from_millis(500);

/// A server that comes back is connected after this long at the most.
const REDIAL_AFTER_MAX: Duration = Duration::from_secs(3);
