//! What becomes of an offer: whether it was left or read, and what the peer answers.

use std::time::{Duration, Instant};

use super::{Dial, Found, OFFER_RETRY, Output, State};
use crate::{forwarding::Helper, node::event::Stage};

impl Dial {
    /// Takes in that the offer lies in the peer's inbox, or why it does not.
    pub(in crate::node) fn handle_offer_stored(
        &mut self,
        stored: Result<(), String>,
        now: Instant,
    ) {
        let State::Reaching(reach) = &mut self.state else {
            return;
        };
        let peer = Some(reach.peer);
        match stored {
            Ok(()) => {
                reach.handle_offer_stored(&self.gathered, now);
                reach.expect_to_be_heard(now + HEARD_AFTER_STORED);
                self.facts.offers_stored += 1;
                self.offer_stored_at.get_or_insert(now);
                self.stage(peer, Stage::Offer, "left in the peer's inbox in the DHT".to_owned());
            }
            Err(why) => {
                reach.next_attempt = reach.next_attempt.min(now + OFFER_RETRY);
                self.stage(peer, Stage::Offer, format!("could not be left in the inbox: {why}"));
            }
        }
    }

    /// Takes in that the peer has read the offer, as a helper says.
    pub(in crate::node) fn handle_offer_forwarded(&mut self, now: Instant) {
        if let State::Reaching(reach) = &mut self.state {
            let peer = Some(reach.peer);
            reach.handle_offer_stored(&self.gathered, now);
            reach.expect_to_be_heard(now + HEARD_AFTER_READ);
            self.facts.offers_stored += 1;
            self.stage(peer, Stage::Offer, "read by the peer, which had it from a helper".into());
            self.count_again_if_stale(now);
        }
    }

    /// Sends what lies in the peer's inbox by helpers that were not known before `found`: by them it takes a round
    /// trip, and the next attempt may be seconds away.
    pub(super) fn forward_by_new_helpers(&mut self, found: &Found) {
        let known = self.contenders.get(found.peer).map_or(&[][..], |known| &known.helpers);
        if found.helpers.iter().any(|helper| !known.contains(helper))
            && let State::Reaching(reach) = &self.state
            && reach.peer == found.peer
            && reach.path.is_none()
            && let Some(sealed) = reach.told.clone()
        {
            self.outputs.push_back(Output::Forward { sealed });
        }
    }

    /// By whom offers reach the peer that is being reached.
    pub(in crate::node) fn helpers(&self) -> &[Helper] {
        let found = match &self.state {
            State::Reaching(reach) => self.contenders.get(reach.peer),
            State::Resolving | State::Over => None,
        };
        found.map_or(&[], |found| &found.helpers)
    }

    /// Whether the peer's answer to our offer is worth waiting for.
    pub(in crate::node) fn wants_answer(&self) -> bool {
        match &self.state {
            State::Reaching(reach) => reach.wants_answer() && reach.path.is_none(),
            State::Resolving | State::Over => false,
        }
    }

    /// Takes in what lies where our offer lay.
    pub(in crate::node) fn handle_answer(&mut self, sealed: &[u8], now: Instant) {
        let unix = self.unix_at(now);
        let State::Reaching(reach) = &mut self.state else {
            return;
        };
        let peer = reach.peer;
        match reach.handle_answer(sealed, (now, unix)) {
            Ok(()) => {
                self.stage(Some(peer), Stage::Offer, "answered by the peer".to_owned());
                self.count_again_if_stale(now);
            }
            Err(reason) => tracing::debug!(%reason, "no answer to our offer"),
        }
        self.settle(now);
    }
}

/// A peer that has read our offer is heard at the same time as the helper that says so, if it is at all; of
/// its first six probes in this time five may be lost.
const HEARD_AFTER_READ: Duration = Duration::from_millis(250);

/// One that looks into its inbox twice a second has found it by then.
const HEARD_AFTER_STORED: Duration = Duration::from_millis(1_000);
