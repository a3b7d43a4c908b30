//! When a dial gives up, and what it has measured by then.

use std::time::{Duration, Instant};

use super::{Dial, Reach, State};
use crate::{failure::Code, node::explain::Facts, time::UnixMillis};

impl Dial {
    /// Whether waiting longer would change nothing.
    pub(super) fn is_hopeless(&self, now: Instant) -> bool {
        let State::Reaching(reach) = &self.state else {
            return false;
        };
        let found = self.contenders.get(reach.peer);
        let has_record = found.is_some_and(|found| found.made_at != UnixMillis::default());
        let failure = self.facts.link_failure.as_ref();
        let stranger_answers =
            failure.is_some_and(|failure| failure.code == Code::PeerIdentityMismatch);
        // Somebody else is where a ticket leads, and the DHT knows nothing better.
        let is_replaced = stranger_answers && !has_record && self.facts.lookups > 0;
        let both_change_ports = self.facts_at(now).both_change_ports() && !reach.has_volley();
        let had_its_time = reach.since + HOPELESS_AFTER <= now && self.facts.offers_stored > 0;
        let is_known = self.has_no_way(reach, now) && !self.contenders.has_others(reach.peer);
        reach.proved.is_none() && (is_replaced || is_known || (both_change_ports && had_its_time))
    }

    /// Whether it is known that nothing will open the way to this peer, and what costs nothing had its time.
    pub(super) fn has_no_way(&self, reach: &Reach, now: Instant) -> bool {
        let tried_until = self.tried_until(reach);
        tried_until.is_some_and(|at| at <= now) && reach.has_no_way(&self.gathered)
    }

    pub(super) fn give_up_at(&self) -> Instant {
        match self.contenders.any() {
            // Without a DHT nothing will be found that is not known.
            None if !self.dialler.has_dht && !self.dialler.has_lan => self.started,
            None => self.deadline.min(self.started + NOT_FOUND_AFTER),
            Some(_) => self.deadline,
        }
    }

    /// What was measured, for the explanation.
    pub(super) fn facts_at(&self, now: Instant) -> Facts {
        let found = match &self.state {
            State::Reaching(reach) => self.contenders.get(reach.peer),
            State::Resolving | State::Over => self.contenders.any(),
        };
        let probes_sent = match &self.state {
            State::Reaching(reach) => reach.pings_sent(),
            State::Resolving | State::Over => 0,
        };
        Facts {
            elapsed: now.saturating_duration_since(self.started),
            peer: found.map(|found| found.peer),
            peer_addresses: found.map_or(0, |found| found.candidates.len()),
            peer_nat: found.map(|found| found.nat).unwrap_or_default(),
            record_age: found
                .filter(|found| found.made_at != UnixMillis::default())
                .map(|found| found.made_at.age_at(self.unix_at(now))),
            probes_sent,
            dht_disabled: !self.dialler.has_dht,
            has_public_address: self.gathered.has_public_address(),
            stun_silent: self.gathered.is_unanswered,
            our_nat: self.gathered.nat,
            our_addresses: self.gathered.candidates.len(),
            ..self.facts.clone()
        }
    }

    /// When plain probes from both sides have had their time.
    fn tried_until(&self, reach: &Reach) -> Option<Instant> {
        let stored = self.offer_stored_at.map(|at| at + READ_WITHIN);
        let answered = reach.answered_at.map(|at| at + CROSSED_WITHIN);
        answered.into_iter().chain(stored).min()
    }

    /// When it will be known that nothing opens the way to the peer that is being reached.
    pub(super) fn hopeless_at(&self) -> Option<Instant> {
        match &self.state {
            State::Reaching(reach)
                if reach.has_no_way(&self.gathered) && reach.proved.is_none() =>
            {
                self.tried_until(reach)
            }
            State::Over | State::Resolving | State::Reaching(_) => None,
        }
    }
}

/// With nobody found, the dial ends here: five lookups.
const NOT_FOUND_AFTER: Duration = Duration::from_secs(8);

/// How long it takes an offer to be read, and plain probes to open what they can: inboxes are looked into
/// twice a second.
const READ_WITHIN: Duration = Duration::from_millis(700);

/// How long it takes plain probes to open what they can once the peer has answered, which it does when it begins: two
/// round trips of 125 ms.
const CROSSED_WITHIN: Duration = Duration::from_millis(250);

/// How long two NATs that both change ports are tried if it is not known how: what plain probes can open,
/// they open at once.
const HOPELESS_AFTER: Duration = Duration::from_secs(4);
