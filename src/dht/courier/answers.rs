//! What becomes of the answers to our queries: items are checked, tokens kept, refusals counted.

use std::{net::SocketAddrV4, time::Instant};

use super::{
    Courier, Errand, InFlight,
    krpc::{self, Answer, Contact, NotAReply, Reply},
    putting::{PROTOCOL_ERROR, Response},
};

impl Courier {
    /// A datagram came.
    pub fn handle_datagram(&mut self, from: SocketAddrV4, datagram: &[u8], now: Instant) {
        self.counters.received += 1;
        match krpc::decode(datagram) {
            Ok(Reply::Answer { transaction, answer, seen_at }) => {
                if let Some(query) = self.take_in_flight(transaction, from) {
                    self.seen_at.note(from, seen_at);
                    self.handle_answer(query, *answer, now);
                }
            }
            Ok(Reply::Error { transaction, code }) => {
                if let Some(query) = self.take_in_flight(transaction, from) {
                    self.counters.errors += 1;
                    self.handle_refusal(query, code, now);
                }
            }
            Err(NotAReply::Malformed) => self.counters.malformed += 1,
            Err(NotAReply::Query) => self.counters.unexpected += 1,
            Err(NotAReply::Oversized(_)) => self.counters.forged += 1,
        }
        self.advance_puts(now);
    }

    fn handle_answer(&mut self, query: InFlight, answer: Answer, now: Instant) {
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

    fn handle_refusal(&mut self, query: InFlight, code: i64, now: Instant) {
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
