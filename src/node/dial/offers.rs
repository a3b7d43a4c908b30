//! What becomes of a dial's offers: by whom they go, and who has them.

use std::time::{Duration, Instant};

use super::{Dial, State};
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
                self.facts.offers_stored += 1;
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
            self.facts.offers_stored += 1;
            self.stage(peer, Stage::Offer, "read by the peer, which had it from a helper".into());
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
}

/// An offer that could not be stored is stored again so soon.
const OFFER_RETRY: Duration = Duration::from_secs(1);
