//! Whom a dial may turn to: what lookups bring, what is remembered, and who is heard nearby.

use std::time::Instant;

use super::{Dial, Found, LOOKUP_RETRY, Lookup, Output, State};
use crate::{
    candidate::{Candidate, listed},
    identity::PeerId,
    node::event::Stage,
};

impl Dial {
    /// Takes in a record, or the addresses out of a ticket.
    pub(in crate::node) fn handle_found(&mut self, found: Found, now: Instant) {
        self.take_found(found, "found", now);
    }

    /// Takes in what is known of a peer from before.
    pub(in crate::node) fn handle_known(&mut self, found: Found, now: Instant) {
        self.take_found(found, "remembered", now);
    }

    fn take_found(&mut self, found: Found, how: &str, now: Instant) {
        let peer = found.peer;
        if peer == self.dialler.identity.peer_id() {
            return;
        }
        let addresses = listed(&found.candidates);
        let detail = format!("record of {} {how}, {addresses}, {}", peer.short(), found.nat);
        self.stage(Some(peer), Stage::Resolve, detail);
        if self.contenders.is_news(&found) {
            self.adopt(found, now);
        }
        self.settle(now);
    }

    /// Takes in that `peer` was heard on the local network: it is tried there, too, and first.
    pub(in crate::node) fn handle_nearby(
        &mut self,
        peer: PeerId,
        candidates: Vec<Candidate>,
        now: Instant,
    ) {
        if peer == self.dialler.identity.peer_id() {
            return;
        }
        let detail = format!("{} heard on the local network", peer.short());
        self.stage(Some(peer), Stage::Resolve, detail);
        let found = self.contenders.handle_nearby(peer, candidates);
        self.adopt(found, now);
        self.settle(now);
    }

    /// Takes in that a lookup has ended, and how many DHT nodes had answered.
    pub(in crate::node) fn handle_lookup_ended(&mut self, nodes_answered: usize, now: Instant) {
        self.facts.lookups += 1;
        self.facts.dht_nodes_answered = self.facts.dht_nodes_answered.max(nodes_answered);
        self.lookup = Lookup::Waiting { again: now + LOOKUP_RETRY };
        if matches!(self.state, State::Resolving) {
            let lookup = self.facts.lookups;
            let detail =
                format!("nothing found: {nodes_answered} DHT nodes answered, lookup {lookup}");
            self.stage(None, Stage::Resolve, detail);
        }
        self.settle(now);
    }

    fn adopt(&mut self, found: Found, now: Instant) {
        let (peer, unix) = (found.peer, self.unix_at(now));
        let found = self.contenders.with_nearby(found);
        if let State::Reaching(reach) = &mut self.state
            && reach.peer == peer
            && reach.update(&found, &self.gathered, (now, unix))
        {
            let candidates = reach.candidates(&self.gathered);
            self.outputs.push_back(Output::Reach { peer, candidates });
        }
        self.forward_by_new_helpers(&found);
        self.contenders.insert(found);
    }
}
