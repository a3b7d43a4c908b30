//! How far our NAT has counted, where that matters: an offer waits for a look at it, and says what it showed.

use std::time::{Duration, Instant};

use super::{Dial, Output, State};
use crate::{
    behaviour::{PortCounter, PortHint},
    nat::sampler::SAMPLE_WAIT,
};

impl Dial {
    /// Waits for [`Self::handle_counted`] before the first offer, until `deadline` at most.
    pub(in crate::node) fn await_count(&mut self, deadline: Instant) {
        self.counting_until = Some(deadline);
    }

    /// Our offers say from now on that this port of our NAT comes next, though nobody has looked at it anew.
    pub(in crate::node) fn set_port_hint(&mut self, hint: Option<PortHint>) {
        self.hint = hint;
    }

    /// Takes in which port of our NAT comes next, by a look just now.
    pub(in crate::node) fn handle_counted(&mut self, hint: Option<PortHint>, now: Instant) {
        self.hint = hint;
        self.counted_at = Some(now);
        if self.counting_until.take().is_some()
            && let State::Reaching(reach) = &mut self.state
            && reach.attempts > 0
        {
            reach.next_attempt = now;
        }
        self.settle(now);
    }

    /// The peer has read an offer. If that one said what had been seen long before, because nobody answered a look,
    /// there is soon another one: the network is back.
    pub(super) fn count_again_if_stale(&mut self, now: Instant) {
        let unix = self.unix_at(now);
        let is_stale = self.counter().is_some_and(|counter| counter.age_at(unix) > STALE_AFTER);
        let is_looking = self.counting_until.is_some();
        if let State::Reaching(reach) = &mut self.state
            && is_stale
            && !is_looking
            && reach.has_volley()
        {
            reach.next_attempt = reach.next_attempt.min(now + STALE_PAUSE);
            // The last look was in vain, and this one will not be.
            self.counted_at = None;
        }
    }

    /// Whether the next offer waits for how far our NAT has counted meanwhile: what the one before said is of no
    /// use any more.
    pub(super) fn counts_first(&mut self, now: Instant) -> bool {
        let is_known = self.counted_at.is_some_and(|at| now < at + COUNT_AGE_MAX);
        let is_counted = self.counter().is_some();
        let State::Reaching(reach) = &mut self.state else { return false };
        let is_wanted = is_counted && reach.has_volley() && reach.attempts > 0;
        if is_known || !is_wanted {
            return false;
        }
        let until = now + SAMPLE_WAIT;
        // In vain, it goes out without.
        self.counted_at = Some(until);
        self.counting_until = Some(until);
        reach.next_attempt = until;
        self.outputs.push_back(Output::Count);
        true
    }

    /// Where our NAT had got to, if it counts.
    fn counter(&self) -> Option<PortCounter> {
        self.hint.and_then(PortHint::counter)
    }
}

/// A count in an offer is half a second old at the most when the peer's helper tells of it, and two in an inbox.
const STALE_AFTER: Duration = Duration::from_secs(4);

/// Until the look that such an offer makes up for.
const STALE_PAUSE: Duration = Duration::from_millis(100);

/// A count that was looked at longer ago is looked at again before it is told.
const COUNT_AGE_MAX: Duration = Duration::from_secs(1);
