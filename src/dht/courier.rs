//! What is asked of which node, and when: the machine behind our own socket.
//!
//! mainline finds the nodes closest to a target; from then on they are asked directly. The courier keeps
//! what is known of every target in use (its closest nodes, their leave to write, the newest item), and
//! does three things with it: it sends items, reads what was asked for, and polls what is watched. All
//! of it obeys [`Roster`]'s one query a second to any node, and each has a budget.

pub mod burst;
pub mod krpc;
pub mod neighbourhood;
pub mod place;
pub mod polling;
pub mod putting;
pub mod roster;

mod answers;
mod seen;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use self::{
    burst::Burst,
    krpc::{Contact, Query, TransactionId},
    place::Place,
    polling::{POLL_INTERVAL, Polling, WatchId},
    putting::{Putting, Response},
    roster::Roster,
    seen::SeenAt,
};
use super::{
    item::Item,
    location::{Location, Target},
    rendezvous::{Counters, Health, Pace, PutError, Stored},
};
use crate::entropy::Entropy;

/// How long an answer is waited for before its node counts as silent.
///
/// Nodes on the other side of the earth answer within 300 ms; late answers are still taken.
pub const ANSWER_TIME: Duration = Duration::from_millis(500);

/// How long a late answer is still taken.
pub const LATE_ANSWER_TIME: Duration = Duration::from_secs(3);

/// Between lookups for the sake of watching, over all targets: each is a query and a ping of mainline's
/// to some twenty nodes, in a small DHT always to the same.
pub const LOOKUP_SPACING: Duration = Duration::from_secs(1);

/// Targets that something is known of: a dial needs some ten.
pub const PLACES_MAX: usize = 128;

/// Closest nodes that are read from directly while mainline's lookup runs.
const DIRECT_READS: usize = 4;

/// Between two looks at a put that waits for nodes that may not be asked yet.
const PUT_CHECK: Duration = Duration::from_millis(100);

/// Time until a look that found nobody who may be asked is tried again: shorter than [`PUT_CHECK`].
const POLL_RETRY: Duration = Duration::from_millis(50);

/// Names one put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PutId(pub u64);

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Send {
        /// Whereto.
        to: SocketAddrV4,
        /// What.
        datagram: Vec<u8>,
    },
    /// Find the nodes closest to a location; [`Courier::handle_neighbours`] awaits the end.
    LookUp(Location),
    /// An item was found, possibly again.
    Found(Item),
    /// An item was found that this watch was not told of.
    Noticed(WatchId, Location, Item),
    /// A put came to its end.
    PutEnded(PutId, Result<Stored, PutError>),
}

/// The machine.
#[derive(Debug)]
pub struct Courier {
    id: [u8; 20],
    entropy: Entropy,
    roster: Roster,
    places: BTreeMap<Target, Place>,
    polling: Polling,
    puts: BTreeMap<PutId, Putting>,
    in_flight: BTreeMap<TransactionId, InFlight>,
    burst: Burst,
    next_poll: Instant,
    pace: Pace,
    next_lookup: Instant,
    next_put_check: Option<Instant>,
    outputs: VecDeque<Output>,
    counters: Counters,
    seen_at: SeenAt,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    to: SocketAddrV4,
    sent_at: Instant,
    late: bool,
    purpose: Errand,
}

#[derive(Clone, Copy, Debug)]
enum Errand {
    Get(Target),
    Put(PutId),
}

impl Courier {
    /// A courier that knows nobody yet.
    pub fn new(mut entropy: Entropy, now: Instant) -> Self {
        Self {
            id: entropy.bytes(),
            entropy,
            roster: Roster::default(),
            places: BTreeMap::new(),
            polling: Polling::default(),
            puts: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            burst: Burst::new(now),
            next_poll: now,
            pace: Pace::default(),
            next_lookup: now,
            next_put_check: None,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            seen_at: SeenAt::default(),
        }
    }

    /// Looks at what is watched this often from now on.
    pub fn set_pace(&mut self, pace: Pace, now: Instant) {
        self.pace = pace;
        self.next_poll = self.next_poll.min(now + pace.interval(POLL_INTERVAL));
    }

    /// Somebody looks for what lies at `location`; mainline's lookup was started already.
    pub fn handle_get(&mut self, location: Location, now: Instant) {
        self.place(location, now).start_lookup(now);
        let Some(place) = self.places.get(&location.target) else {
            return;
        };
        let closest = place.neighbourhood.closest(&self.roster, now).take(DIRECT_READS);
        let askable = closest.filter(|node| self.roster.may_ask(node.address, now));
        let nodes: Vec<SocketAddrV4> = askable.map(|node| node.address).collect();
        for node in nodes {
            if self.burst.take(now) {
                self.send_get(location.target, node, None, now);
            }
        }
    }

    /// Something will be put at `location` soon.
    pub fn handle_prepare(&mut self, location: Location, now: Instant) {
        if !self.place(location, now).is_prepared(now) {
            self.look_up(location.target, now);
        }
    }

    /// Puts `item`, which is small enough, at `location`.
    pub fn handle_put(
        &mut self,
        id: PutId,
        location: Location,
        item: Item,
        cas: Option<i64>,
        now: Instant,
    ) {
        self.handle_prepare(location, now);
        self.puts.insert(id, Putting::new(item, cas, now));
        self.advance_puts(now);
    }

    /// Watches `locations`.
    pub fn handle_watch(&mut self, id: WatchId, locations: Vec<Location>, now: Instant) {
        for location in &locations {
            self.place(*location, now);
        }
        if self.polling.in_turn().is_empty() {
            self.next_poll = now;
        }
        self.polling.add(id, locations, &mut self.entropy);
        self.look_up_watched(now);
    }

    /// Nobody watches any more.
    pub fn handle_unwatch(&mut self, id: WatchId) {
        self.polling.remove(id);
    }

    /// A lookup of mainline ended: the closest nodes that answered it, with their leave to write.
    pub fn handle_neighbours(
        &mut self,
        target: Target,
        nodes: Vec<(Contact, Option<Vec<u8>>)>,
        now: Instant,
    ) {
        let Some(place) = self.places.get_mut(&target) else {
            return;
        };
        for (contact, _) in &nodes {
            self.roster.met(*contact);
        }
        place.end_lookup(nodes, now);
        self.advance_puts(now);
    }

    /// A lookup of mainline found `item`.
    pub fn handle_item(&mut self, item: Item, now: Instant) {
        let Some(place) = self.places.get_mut(&item.target()) else {
            return;
        };
        place.found(&item);
        for (id, location) in self.polling.found(item.target(), item.seq(), now) {
            self.outputs.push_back(Output::Noticed(id, location, item.clone()));
        }
        self.outputs.push_back(Output::Found(item));
    }

    /// Our address may be another one now: no token holds, and nobody is to blame for silence.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.roster.forgive();
        self.in_flight.clear();
        self.seen_at.clear();
        for place in self.places.values_mut() {
            place.forget_network();
        }
        self.next_lookup = now;
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_queries(now);
        self.look_up_watched(now);
        self.advance_puts(now);
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Courier::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiries = self
            .in_flight
            .values()
            .map(|query| query.sent_at + if query.late { LATE_ANSWER_TIME } else { ANSWER_TIME });
        let watching = !self.polling.in_turn().is_empty();
        let deadlines = self.puts.values().map(|put| put.deadline);
        expiries
            .chain(deadlines)
            .chain(self.next_put_check)
            .chain(watching.then_some(self.next_poll))
            .min()
    }

    /// The newest item known to lie at `target`.
    pub fn newest(&self, target: Target) -> Option<&Item> {
        self.places.get(&target)?.newest.as_ref()
    }

    /// What was sent and received so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Where nodes see us, by those that answered last.
    pub fn seen_at(&self) -> impl Iterator<Item = SocketAddrV4> {
        self.seen_at.endpoints()
    }

    /// When the last answer of any node came.
    pub fn last_answer(&self) -> Option<Instant> {
        self.roster.last_answer()
    }

    /// How well it works.
    pub fn health(&self, now: Instant) -> Health {
        let since = |at: Instant| now.saturating_duration_since(at);
        Health {
            nodes_known: self.roster.known(now),
            nodes_answering: self.roster.answering(now, Duration::from_secs(60)),
            last_answer: self.roster.last_answer().map(since),
            counters: self.counters,
        }
    }

    fn place(&mut self, location: Location, now: Instant) -> &mut Place {
        self.make_room(location.target);
        let new = || Place::new(location, &self.roster, now);
        let place = self.places.entry(location.target).or_insert_with(new);
        place.used_at = now;
        place
    }

    fn make_room(&mut self, target: Target) {
        if self.places.len() < PLACES_MAX || self.places.contains_key(&target) {
            return;
        }
        let in_use = |target: Target| {
            self.polling.is_watched(target)
                || self.puts.values().any(|put| put.item.target() == target)
        };
        let idle = self.places.iter().filter(|(target, _)| !in_use(**target));
        let oldest = idle.min_by_key(|(_, place)| place.used_at).map(|(target, _)| *target);
        if let Some(oldest) = oldest {
            self.places.remove(&oldest);
        }
    }

    fn look_up(&mut self, target: Target, now: Instant) {
        let Some(place) = self.places.get_mut(&target) else {
            return;
        };
        if place.start_lookup(now) {
            self.outputs.push_back(Output::LookUp(place.location));
        }
    }

    fn look_up_watched(&mut self, now: Instant) {
        if now < self.next_lookup {
            return;
        }
        let due =
            self.polling.in_turn().into_iter().find(|target| {
                self.places.get(target).is_some_and(|place| place.is_lookup_due(now))
            });
        if let Some(target) = due {
            self.next_lookup = now + LOOKUP_SPACING;
            self.look_up(target, now);
        }
    }

    fn poll_watched(&mut self, now: Instant) {
        if now < self.next_poll {
            return;
        }
        // A quarter more or less, so that nodes and watchers do not fall into step.
        let percent = u32::try_from(75 + self.entropy.below(51)).unwrap_or(100);
        self.next_poll = now + self.pace.interval(POLL_INTERVAL) * percent / 100;
        let mut knows_nodes = false;
        for target in self.polling.in_turn() {
            let Some(place) = self.places.get(&target) else {
                continue;
            };
            knows_nodes |= place.neighbourhood.closest(&self.roster, now).next().is_some();
            let (roster, entropy) = (&self.roster, &mut self.entropy);
            if let Some(node) = place.neighbourhood.next_to_ask(roster, entropy, now) {
                let known = place.newest.as_ref().map(Item::seq);
                self.polling.looked(target, &mut self.entropy, now);
                self.send_get(target, node, known, now);
                return;
            }
        }
        if knows_nodes {
            // All have been asked within a second, and soon one may be asked again.
            self.next_poll = now + POLL_RETRY;
        }
    }

    /// Sends every item to the nodes that it may be sent to by now, and tells what puts came to.
    ///
    /// What is watched is looked at first. Where nodes are few, one put after the other would have them all each second, and
    /// an answer for which somebody makes offer after offer would never be read.
    fn advance_puts(&mut self, now: Instant) {
        self.poll_watched(now);
        self.next_put_check = None;
        let ids: Vec<PutId> = self.puts.keys().copied().collect();
        for id in ids {
            let waiting = self.advance_put(id, now);
            let Some(put) = self.puts.get_mut(&id) else {
                continue;
            };
            let current =
                self.places.get(&put.item.target()).and_then(|place| place.newest.as_ref());
            let current = current.map(Item::seq);
            if let Some(result) = put.verdict(waiting, current, now) {
                self.outputs.push_back(Output::PutEnded(id, result));
            }
            if put.is_over(now) || (put.was_reported() && !waiting) {
                self.puts.remove(&id);
            } else if waiting {
                self.next_put_check = Some(now + PUT_CHECK);
            }
        }
    }

    /// Whether more nodes may yet be sent the item.
    fn advance_put(&mut self, id: PutId, now: Instant) -> bool {
        let Some(put) = self.puts.get(&id) else {
            return false;
        };
        let target = put.item.target();
        let Some(place) = self.places.get(&target) else {
            return false;
        };
        let step = place.next_step(put, &self.roster, now);
        for (node, token) in step.send {
            if !self.burst.take(now) {
                return true;
            }
            self.send_put(id, node, &token, now);
        }
        for node in step.ask {
            if !self.burst.take(now) {
                return true;
            }
            self.send_get(target, node, None, now);
        }
        step.more_later
    }

    fn expire_queries(&mut self, now: Instant) {
        let mut late = Vec::new();
        self.in_flight.retain(|_, query| {
            if !query.late && now >= query.sent_at + ANSWER_TIME {
                query.late = true;
                late.push(*query);
            }
            now < query.sent_at + LATE_ANSWER_TIME
        });
        for query in late {
            self.roster.failed(query.to, query.sent_at, now);
            match query.purpose {
                Errand::Get(_) => {}
                Errand::Put(id) => {
                    if let Some(put) = self.puts.get_mut(&id) {
                        put.note(query.to, Response::Late);
                    }
                }
            }
        }
    }

    fn send_get(&mut self, target: Target, to: SocketAddrV4, known: Option<i64>, now: Instant) {
        if let Some(place) = self.places.get_mut(&target) {
            place.neighbourhood.asked(to, now);
        }
        let transaction = self.entropy.bytes();
        let datagram = Query::Get { target, known }.encode(transaction, &self.id);
        self.send(transaction, to, Errand::Get(target), datagram, now);
    }

    fn send_put(&mut self, id: PutId, to: SocketAddrV4, token: &[u8], now: Instant) {
        let transaction = self.entropy.bytes();
        let Some(put) = self.puts.get_mut(&id) else {
            return;
        };
        put.note(to, Response::Awaited);
        let query = Query::Put { item: &put.item, token, cas: put.cas };
        let datagram = query.encode(transaction, &self.id);
        self.send(transaction, to, Errand::Put(id), datagram, now);
    }

    fn send(
        &mut self,
        transaction: TransactionId,
        to: SocketAddrV4,
        purpose: Errand,
        datagram: Vec<u8>,
        now: Instant,
    ) {
        self.roster.asked(to, now);
        self.counters.sent += 1;
        let query = InFlight { to, sent_at: now, late: false, purpose };
        self.in_flight.insert(transaction, query);
        self.outputs.push_back(Output::Send { to, datagram });
    }

    fn take_in_flight(
        &mut self,
        transaction: TransactionId,
        from: SocketAddrV4,
    ) -> Option<InFlight> {
        if self.in_flight.get(&transaction).is_some_and(|query| query.to == from) {
            return self.in_flight.remove(&transaction);
        }
        self.counters.unexpected += 1;
        None
    }
}

#[cfg(test)]
mod tests;
