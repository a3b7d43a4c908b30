//! What is known of one target in use: its closest nodes, the newest item, and whether a lookup runs.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use super::{
    krpc::{Answer, Contact},
    neighbourhood::{Neighbourhood, READ_NODES},
    putting::{Putting, WRITE_NODES},
    roster::Roster,
};
use crate::dht::{item::Item, location::Location};

/// How long a lookup may take before we take it for lost.
pub const LOOKUP_TIME_MAX: Duration = Duration::from_secs(10);

/// Between two lookups of the closest nodes of a watched target; answers to polls name new nodes, too.
pub const LOOKUP_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Between lookups of a watched target while nobody near it is known.
pub const LOOKUP_RETRY: Duration = Duration::from_secs(5);

/// How long a lookup that found fewer nodes than wanted is taken to have found all there are.
const LOOKUP_FRESH: Duration = Duration::from_secs(60);

/// Nodes that must have given leave to write before a target counts as prepared.
const PREPARED_NODES: usize = 8;

/// A target in use.
#[derive(Debug)]
pub struct Place {
    /// Which one, and whose signature counts there.
    pub location: Location,
    /// The nodes that are asked about it.
    pub neighbourhood: Neighbourhood,
    /// The newest item that was found.
    pub newest: Option<Item>,
    /// When it was last of interest.
    pub used_at: Instant,
    lookup: Lookup,
}

/// What to do for an item on its way.
#[derive(Debug, Default)]
pub struct PutStep {
    /// Nodes to send it to, with their leave.
    pub send: Vec<(SocketAddrV4, Vec<u8>)>,
    /// Nodes to ask for leave.
    pub ask: Vec<SocketAddrV4>,
    /// Whether more nodes may take it later.
    pub more_later: bool,
}

#[derive(Clone, Copy, Debug)]
enum Lookup {
    Never,
    Running { until: Instant },
    Ended { at: Instant, next: Instant },
}

impl Place {
    /// A target that nothing is known of, but for nodes that `roster` knows to be near.
    ///
    /// In a small DHT these are the closest there are; in a large one they lead there.
    pub fn new(location: Location, roster: &Roster, now: Instant) -> Self {
        let mut neighbourhood = Neighbourhood::new(location.target);
        for contact in roster.near(location.target, READ_NODES, now) {
            neighbourhood.learn(contact);
        }
        Self { location, neighbourhood, newest: None, used_at: now, lookup: Lookup::Never }
    }

    /// Notes that a lookup runs; whether there was none.
    pub fn start_lookup(&mut self, now: Instant) -> bool {
        let running = self.is_looked_up(now);
        if !running {
            self.lookup = Lookup::Running { until: now + LOOKUP_TIME_MAX };
        }
        !running
    }

    /// Notes that a lookup ended, with the nodes that answered it.
    pub fn end_lookup(&mut self, nodes: Vec<(Contact, Option<Vec<u8>>)>, now: Instant) {
        let wait = if nodes.is_empty() { LOOKUP_RETRY } else { LOOKUP_INTERVAL };
        self.lookup = Lookup::Ended { at: now, next: now + wait };
        for (contact, token) in nodes {
            self.neighbourhood.answered(contact, token, now);
        }
    }

    /// Whether a lookup is due, if somebody watches.
    pub fn is_lookup_due(&self, now: Instant) -> bool {
        match self.lookup {
            Lookup::Never => true,
            Lookup::Running { until } => until <= now,
            Lookup::Ended { next, .. } => next <= now,
        }
    }

    /// Whether enough nodes gave leave to write, or all there are.
    pub fn is_prepared(&self, now: Instant) -> bool {
        let writable = self.neighbourhood.writable(now);
        let looked = matches!(self.lookup, Lookup::Ended { at, .. } if now < at + LOOKUP_FRESH);
        writable >= PREPARED_NODES || (writable > 0 && looked)
    }

    /// Our address is another one: no leave holds, and nothing is known to be up to date.
    pub fn forget_network(&mut self) {
        self.neighbourhood.drop_tokens();
        self.lookup = Lookup::Never;
    }

    /// `contact` answered a question about this place.
    pub fn answered(&mut self, contact: Contact, answer: Answer, now: Instant) {
        self.neighbourhood.answered(contact, answer.token, now);
        for contact in answer.nodes.into_iter().filter(has_an_honest_id) {
            self.neighbourhood.learn(contact);
        }
    }

    /// `item` was found here.
    pub fn found(&mut self, item: &Item) {
        if self.newest.as_ref().is_none_or(|newest| newest.seq() < item.seq()) {
            self.newest = Some(item.clone());
        }
    }

    /// Whom to send the item of `put` now, and whom to ask for leave.
    pub fn next_step(&self, put: &Putting, roster: &Roster, now: Instant) -> PutStep {
        let looking_up = self.is_looked_up(now);
        let mut step = PutStep { more_later: looking_up, ..PutStep::default() };
        let closest = self.neighbourhood.closest(roster, now).take(WRITE_NODES).enumerate();
        for (index, node) in closest.filter(|(_, node)| !put.was_sent(node.address)) {
            let may_ask = roster.may_ask(node.address, now);
            match node.token(now) {
                Some(token) if may_ask && step.send.len() < put.wanted() => {
                    step.send.push((node.address, token.to_vec()));
                }
                Some(_) => step.more_later = true,
                None if looking_up || index >= READ_NODES => {}
                // Known by hearsay or asked too long ago: its answer to a get gives leave to write.
                None => {
                    step.more_later = true;
                    if may_ask {
                        step.ask.push(node.address);
                    }
                }
            }
        }
        step
    }

    fn is_looked_up(&self, now: Instant) -> bool {
        matches!(self.lookup, Lookup::Running { until } if now < until)
    }
}

/// BEP 42: whether a node's id fits its address, so that nobody can choose to be closest to a target.
///
/// Only hearsay is held to it; what mainline's lookup returns was judged there.
fn has_an_honest_id(contact: &Contact) -> bool {
    mainline::Id::from(contact.id).is_valid_for_ip(*contact.address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::{location::Purpose, some_instant};

    fn place(now: Instant) -> Place {
        let location = Location::new([1; 32], Purpose::Record);
        Place::new(location, &Roster::default(), now)
    }

    fn contact(ip: [u8; 4]) -> Contact {
        let address = SocketAddrV4::new(ip.into(), 6881);
        Contact { id: [7; 20], address }
    }

    #[test]
    fn a_lookup_runs_once_and_comes_again() {
        let now = some_instant();
        let mut place = place(now);
        assert!(place.is_lookup_due(now));
        assert!(place.start_lookup(now));
        assert!(!place.start_lookup(now));
        assert!(!place.is_lookup_due(now));
        assert!(place.is_lookup_due(now + LOOKUP_TIME_MAX), "it was lost");
        place.end_lookup(vec![(contact([127, 0, 0, 1]), None)], now);
        assert!(!place.is_lookup_due(now + LOOKUP_RETRY));
        assert!(place.is_lookup_due(now + LOOKUP_INTERVAL));
        place.end_lookup(Vec::new(), now);
        assert!(place.is_lookup_due(now + LOOKUP_RETRY));
    }

    #[test]
    fn hearsay_of_nodes_whose_id_does_not_fit_their_address_is_ignored() {
        let now = some_instant();
        let mut place = place(now);
        let hearsay = [contact([198, 51, 100, 9]), contact([192, 168, 1, 9])];
        let answer = Answer { nodes: hearsay.to_vec(), ..Answer::default() };
        let answering = Contact { id: [8; 20], ..contact([127, 0, 0, 1]) };
        place.answered(answering, answer, now);
        let roster = Roster::default();
        let known = place.neighbourhood.closest(&roster, now).count();
        assert_eq!(known, 2, "the one that answered, and the one on a private address");
    }
}
