//! What a dial decides, done: routes, probes, offers, sockets, and the word to the user.

use super::Purpose;
use crate::{
    datagram::{Datagram, Path},
    dht::{inbox, item::Item, rendezvous::PutError},
    identity::PeerId,
    node::{
        driver::{DialId, Driver, Outcome, Owner},
        event::{Chosen, Direction, Event, Stage},
        reaching::dial,
    },
};

impl Driver {
    pub(super) fn drain_dial(&mut self, id: DialId) {
        while let Some(entry) = self.dialling.dials.get_mut(&id) {
            let Some(output) = entry.dial.poll_output() else {
                return;
            };
            self.perform_dial(id, output);
        }
    }

    fn perform_dial(&mut self, id: DialId, output: dial::Output) {
        match output {
            dial::Output::Lookup => self.look_up(id),
            dial::Output::Reach { peer, candidates } => {
                let entry = self.dialling.dials.get_mut(&id);
                let purpose = entry.as_ref().map(|entry| entry.purpose);
                let before = entry.and_then(|entry| entry.peer.replace(peer));
                if let Some(before) = before.filter(|before| *before != peer) {
                    self.release_route(before);
                    if let Some(entry) = self.dialling.dials.get_mut(&id) {
                        entry.offered_at = None;
                    }
                }
                match self.links.live(peer).is_some() && purpose == Some(Purpose::Link) {
                    true => self.join(id, peer),
                    false => self.open_route(peer, &candidates),
                }
            }
            dial::Output::Converse { keys } => {
                let entry = self.dialling.dials.get_mut(&id);
                let before = entry.and_then(|entry| entry.conversation.replace(keys.conversation));
                self.converse(Owner::Dial(id), keys, before);
            }
            dial::Output::Offer { sealed } => {
                self.vouch(id);
                let now = self.clock.now();
                if let Some(entry) = self.dialling.dials.get_mut(&id) {
                    entry.offered_at.get_or_insert(now);
                }
                self.forward_offer(id, &sealed);
                self.leave_offer(id, sealed);
            }
            dial::Output::Forward { sealed } => self.forward_offer(id, &sealed),
            dial::Output::Transmit { path, probe, hops } => {
                let conversation =
                    self.dialling.dials.get(&id).and_then(|entry| entry.conversation);
                if let Some(conversation) = conversation {
                    self.send_probe_within(conversation, (path, hops), probe);
                }
            }
            dial::Output::OpenSocket { family } => self.open_for_dial(id, family),
            dial::Output::CloseSocket(socket) => self.close_extra(socket),
            dial::Output::AskLeave(leave) => self.give_leave(id, leave),
            dial::Output::Unspent(datagrams) => self.extra.put_back(datagrams),
            dial::Output::Ask(Datagram { socket, remote, bytes }) => {
                self.sockets.send(Path { socket, remote }, &bytes);
            }
            dial::Output::Count => self.count_for_dial(id),
            dial::Output::Doubt => self.doubt_ports(),
            dial::Output::SeenAt { socket, observed } => self.handle_seen_at(socket, observed),
            dial::Output::UsePath { peer, path } => {
                // Whoever is heard has read the offer.
                self.quieten_errands(id);
                self.use_path(peer, path);
            }
            dial::Output::Connect { peer, initial_rtt } => self.dial_quic(id, peer, initial_rtt),
            dial::Output::Stage { peer, stage, detail } => {
                self.tell_step(id, (peer, stage, detail), None);
            }
            dial::Output::Trying { peer, plan } => {
                let step = (Some(peer), Stage::Punch, plan.to_string());
                self.tell_step(id, step, Some((&plan).into()));
            }
            dial::Output::Failed(failure) => {
                let failure = self.explain_shared_nat(id, failure);
                self.end_dial(id, &failure);
            }
        }
    }

    /// Tells the user of a dial's step, if it is one that leads to a link.
    pub(in crate::node) fn tell_step(
        &mut self,
        id: DialId,
        (peer, stage, detail): (Option<PeerId>, Stage, String),
        chosen: Option<Chosen>,
    ) {
        let now = self.clock.now();
        if let Some(entry) = self.dialling.dials.get(&id)
            && entry.purpose == Purpose::Link
        {
            let peer = peer.or(entry.peer);
            let elapsed = now.saturating_duration_since(entry.dial.started());
            let target = entry.dial.target().clone();
            self.events.emit(Event::Progress { target, peer, stage, elapsed, detail, chosen });
        }
    }

    /// The dial has found a peer who is connected already, under another name.
    fn join(&mut self, id: DialId, peer: PeerId) {
        if let Some(entry) = self.dialling.dials.get(&id) {
            self.retarget(peer, entry.dial.target().clone());
        }
        for waiting in self.complete_dials(peer) {
            self.grant(peer, waiting);
        }
    }

    /// Whether a dial leaves its offer where only the two ends of a link look.
    pub(super) fn is_meeting(&mut self, id: DialId) -> bool {
        let purpose = self.dialling.dials.get(&id).map(|entry| entry.purpose);
        let Some(Purpose::Rescue(peer)) = purpose else {
            return false;
        };
        self.links.live(peer).is_some_and(|live| live.direction == Direction::Incoming)
    }

    fn leave_offer(&mut self, id: DialId, sealed: Vec<u8>) {
        let Some(entry) = self.dialling.dials.get(&id) else {
            return;
        };
        let (name, ours) = (entry.name.clone(), entry.offer_seq);
        let Some(rendezvous) = self.rendezvous.clone() else {
            return;
        };
        let (now, outcomes) = (self.clock.unix(), self.outcomes());
        self.spawn(async move {
            let stored = inbox::leave(&*rendezvous, &name, &sealed, ours, now).await;
            let _ = outcomes.send(Outcome::OfferStored(id, stored)).await;
        });
    }

    /// Takes in that an offer lies in the inbox under this number, or why it does not.
    pub(in crate::node) fn handle_offer_stored(
        &mut self,
        id: DialId,
        stored: Result<Item, PutError>,
    ) {
        let seq = stored.as_ref().map(Item::seq);
        tracing::debug!(dial = id.0, ?seq, "an offer was left");
        if let (Some(entry), Ok(item)) = (self.dialling.dials.get_mut(&id), &stored) {
            entry.offer_seq = Some(item.seq());
            self.await_answer(id, item);
        }
        let stored = stored.map(|_| ()).map_err(|error| error.to_string());
        self.tell_dial(id, |dial, now| dial.handle_offer_stored(stored, now));
    }
}
