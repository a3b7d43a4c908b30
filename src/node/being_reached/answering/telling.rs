//! What the maker of an offer is told back where ports have to be guessed, and who else says that it is
//! where its offer says.

use std::time::Duration;

use super::{Answer, Carrier};
use crate::{
    behaviour::NatBehaviour,
    dht::{item::Item, location::Name},
    identity::PeerId,
    nat::{proved::Witness, volley::Address},
    node::{
        driver::{Driver, Outcome},
        reaching::{attempt, dial::Found, found},
    },
    offer::Offer,
};

impl Driver {
    /// Tells the maker of an offer how our NAT gives out ports now, over whatever its offer came by.
    pub(super) fn tell_back(&mut self, peer: PeerId) {
        let made_at = self.clock.unix();
        let gathered = self.addresses.gathered();
        let nat = NatBehaviour { hint: self.port_hint(), ..gathered.nat };
        let Some(answer) = self.answering.answers.get(&peer) else { return };
        let offer = Offer {
            from: self.us,
            conversation: answer.offer.conversation,
            made_at,
            candidates: gathered.candidates,
            nat,
            proof: None,
        };
        let sealed = answer.key.seal(&offer, &mut self.entropy);
        match answer.carrier.clone() {
            Carrier::Inbox(slot) => {
                let Some(rendezvous) = self.rendezvous.clone() else { return };
                let now = i64::try_from(made_at.0).unwrap_or(i64::MAX);
                let seq = now.max(slot.seq.saturating_add(1));
                let item = Item::sign(&slot.name.slot_key(slot.index), seq, sealed);
                self.spawn(async move {
                    // Who takes the slot meanwhile needs it more: our answer is an advantage, no more.
                    if let Err(error) = rendezvous.put(item, Some(slot.seq)).await {
                        tracing::debug!(%error, "an offer could not be answered in its slot");
                    }
                });
            }
            Carrier::Helper(way) => self.answer_by_helper(&way, &sealed),
        }
    }

    /// Tells the maker of an offer once more, and goes by what its last one has said.
    pub(super) fn aim_anew(&mut self, peer: PeerId) {
        self.tell_back(peer);
        let (now, unix) = (self.clock.now(), self.clock.unix());
        if let Some(answer) = self.answering.answers.get_mut(&peer) {
            let described = answer.described();
            let forecast = described.forecast(now, unix);
            if let Some(engine) = &mut answer.engine {
                engine.handle_news(described.party(), forecast, vec![], now);
            }
        }
    }

    /// Looks for the record of an offer's maker: a volley goes nowhere on the offer's word alone.
    pub(super) fn look_for_witness(&mut self, peer: PeerId) {
        let Some(rendezvous) = self.rendezvous.clone() else { return };
        tracing::debug!(?peer, "looking for the record of an offer's maker");
        let (clock, outcomes) = (self.clock, self.outcomes());
        self.spawn(async move {
            let name = Name::Peer(peer);
            for _ in 0..LOOKS {
                let mut lookup = rendezvous.get(name.record());
                while let Some(item) = lookup.next().await {
                    let mut found = found::peers_in(&item, &name, clock.unix()).into_iter();
                    if let Some(found) = found.next() {
                        // A driver that is gone needs no witness.
                        let _ = outcomes.send(Outcome::Vouched(peer, found)).await;
                        return;
                    }
                }
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        });
    }

    /// Takes in the record of an offer's maker.
    pub(in crate::node) fn handle_vouched(&mut self, peer: PeerId, found: &Found) {
        let (now, unix) = (self.clock.now(), self.clock.unix());
        let Some(answer) = self.answering.answers.get_mut(&peer) else { return };
        tracing::debug!(?peer, "the record of an offer's maker is there");
        if found.peer != peer || answer.witnesses.contains(&Witness::Record) {
            return;
        }
        let recorded = |ip| found.candidates.iter().any(|known| known.address.ip() == ip);
        answer.witnesses.insert(Witness::Record);
        let peer = answer.described();
        let addresses = peer.addresses().into_iter().map(|address| match recorded(address.ip()) {
            true => address,
            false => Address::Claimed(address.ip()),
        });
        let (addresses, forecast) = (addresses.collect(), peer.forecast(now, unix));
        if let Some(engine) = &mut answer.engine {
            engine.handle_news(peer.party(), forecast, addresses, now);
        }
        self.wake_answers(now);
    }
}

impl Answer {
    /// The maker of the offer, as far as it is known.
    pub(super) fn described(&self) -> attempt::Peer {
        attempt::Peer {
            nat: self.offer.nat,
            candidates: self.offer.candidates.clone(),
            witnesses: self.witnesses.clone(),
        }
    }
}

/// How often the record of an offer's maker is looked for: it is published along with the offer, and may
/// take a little longer.
const LOOKS: u32 = 5;

/// Time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
