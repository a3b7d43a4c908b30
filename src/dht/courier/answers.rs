//! What becomes of the answers to our queries: items are checked, tokens kept, refusals counted.

use std::time::Instant;

use super::{
    Courier, Errand, InFlight,
    krpc::{Answer, Contact},
    putting::{PROTOCOL_ERROR, Response},
};

impl Courier {
    pub(super) fn handle_answer(&mut self, query: InFlight, answer: Answer, now: Instant) {
        let contact = Contact { id: answer.id, address: query.to };
        match query.purpose {
            Errand::Put(id) => {
                self.roster.answered(contact, now);
                if let Some(put) = self.puts.get_mut(&id) {
                    put.note(query.to, Response::Stored);
                }
            }
            Errand::Get(target) => {
                let Some(place) = self.places.get_mut(&target) else {
                    return;
                };
                let Ok(item) = answer.verify(&place.location.public_key) else {
                    self.counters.forged += 1;
                    self.roster.misbehaved(query.to, now);
                    return;
                };
                self.roster.answered(contact, now);
                place.answered(contact, answer, now);
                if let Some(item) = item {
                    self.handle_item(item, now);
                }
            }
        }
    }

    pub(super) fn handle_refusal(&mut self, query: InFlight, code: i64, now: Instant) {
        match query.purpose {
            Errand::Get(_) => self.roster.misbehaved(query.to, now),
            Errand::Put(id) => {
                let Some(put) = self.puts.get_mut(&id) else {
                    return;
                };
                put.note(query.to, Response::Refused(code));
                let target = put.item.target();
                if code == PROTOCOL_ERROR
                    && put.retry(query.to)
                    && let Some(place) = self.places.get_mut(&target)
                {
                    place.neighbourhood.drop_token(query.to);
                }
            }
        }
    }
}
