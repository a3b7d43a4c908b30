//! Finding the peer of a dial: under which name it is looked up, and what lookups bring.

use super::Purpose;
use crate::{
    behaviour::Hairpin,
    candidate::Candidate,
    dht::location::Name,
    failure::Failure,
    node::{
        driver::{DialId, Driver, Outcome},
        event::Target,
        explain,
        helping::reachability::is_public,
        reaching::{dial::Found, found},
    },
    sealing::Key,
    service::Service,
};

impl Driver {
    /// Where `target` is to be looked up, and the key that admits us there.
    pub(in crate::node) fn name_of(&self, target: &Target) -> (Name, Option<Key>) {
        match target {
            Target::Service(name) => {
                let service = self.config.service.clone().filter(|service| service.name == *name);
                let service = service.unwrap_or_else(|| Service::open(name.clone()));
                let admission = service.admission_key();
                (Name::Service(service), admission)
            }
            Target::Peer(peer) => {
                let admission = self.config.service.as_ref().and_then(Service::admission_key);
                (Name::Peer(*peer), admission)
            }
            Target::Ticket(ticket) => (
                Name::Ticket(ticket.peer, ticket.secret.clone()),
                Some(ticket.secret.admission_key()),
            ),
        }
    }

    pub(super) fn look_up(&mut self, id: DialId) {
        let name = self.dialling.dials.get(&id).map(|entry| entry.name.clone());
        let (Some(name), Some(rendezvous)) = (name, self.rendezvous.clone()) else {
            return self.tell_dial(id, |dial, now| dial.handle_lookup_ended(0, now));
        };
        if self.is_meeting(id) {
            // Nothing is published there: only the offer needs to know its nodes.
            for slot in name.inbox() {
                rendezvous.prepare(slot);
            }
            return self.tell_dial(id, |dial, now| dial.handle_lookup_ended(0, now));
        }
        let (clock, outcomes) = (self.clock, self.outcomes());
        self.spawn(async move {
            // The nodes around the inbox are found while the record is: the offer then takes one round trip.
            for slot in name.inbox() {
                rendezvous.prepare(slot);
            }
            let mut lookup = rendezvous.get(name.record());
            while let Some(item) = lookup.next().await {
                for found in found::peers_in(&item, &name, clock.unix()) {
                    // A driver that is gone needs no answer, here and below.
                    let _ = outcomes.send(Outcome::Found(id, found)).await;
                }
            }
            let answered = lookup.end().await.answered;
            let _ = outcomes.send(Outcome::LookupEnded(id, answered)).await;
        });
    }

    /// Takes in that a lookup has found somebody.
    pub(in crate::node) fn handle_found(&mut self, id: DialId, found: Found) {
        let Some(entry) = self.dialling.dials.get(&id) else { return };
        if let Purpose::Rescue(peer) = entry.purpose
            && peer != found.peer
        {
            return;
        }
        self.dialling.records.remember(&entry.name, &found);
        let ours = self.addresses.public();
        let is_ours = |candidate: &Candidate| {
            let ip = candidate.address.ip();
            is_public(ip) && ours.iter().any(|at| at.ip() == ip)
        };
        if found.candidates.iter().any(is_ours) && self.addresses.has_nat() {
            if let Some(entry) = self.dialling.dials.get_mut(&id) {
                entry.is_behind_our_nat = true;
            }
            self.look_whether_nat_hairpins();
        }
        self.tell_dial(id, |dial, now| dial.handle_found(found, now));
    }

    /// Says so if what keeps us apart is the NAT that we share.
    pub(super) fn explain_shared_nat(&self, id: DialId, failure: Failure) -> Failure {
        let entry = self.dialling.dials.get(&id);
        let is_shared = entry.is_some_and(|entry| entry.is_behind_our_nat);
        match self.addresses.hairpin() {
            Some(Hairpin::Missing) if is_shared => explain::behind_one_nat(failure),
            Some(Hairpin::Missing | Hairpin::Works) | None => failure,
        }
    }
}
