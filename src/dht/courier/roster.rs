//! Which nodes of the DHT we know, and whether one may be asked now.
//!
//! The one rule that nothing here may break: no node gets more than one query a second from us. A
//! libtorrent node stops answering an address for five minutes when it sends five a second, and behind a
//! carrier's NAT that address is not ours alone.

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use super::krpc::Contact;
use crate::dht::location::Target;

/// Between two queries to one node.
pub const QUERY_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Queries in a row that a node may leave unanswered before we leave it alone.
pub const FAILURES_MAX: u8 = 2;

/// How long a silent node is left alone: longer than a libtorrent node's ban.
pub const SILENCE: Duration = Duration::from_secs(10 * 60);

/// Nodes that are remembered: some hundred locations' closest nodes.
pub const NODES_MAX: usize = 1_024;

/// What we know of the nodes that we asked or were told of.
#[derive(Debug, Default)]
pub struct Roster {
    nodes: BTreeMap<SocketAddrV4, Standing>,
    last_answer: Option<Instant>,
}

#[derive(Debug, Default)]
struct Standing {
    id: Option<[u8; 20]>,
    asked_at: Option<Instant>,
    answered_at: Option<Instant>,
    failures: u8,
    silent_until: Option<Instant>,
}

impl Roster {
    /// Whether `node` may get a query at `now`.
    pub fn may_ask(&self, node: SocketAddrV4, now: Instant) -> bool {
        !self.is_silent(node, now) && self.askable_at(node).is_none_or(|at| at <= now)
    }

    /// When `node` may get its next query, if it had one.
    pub fn askable_at(&self, node: SocketAddrV4) -> Option<Instant> {
        Some(self.nodes.get(&node)?.asked_at? + QUERY_INTERVAL_MIN)
    }

    /// Whether `node` left our last queries unanswered.
    pub fn is_silent(&self, node: SocketAddrV4, now: Instant) -> bool {
        self.nodes
            .get(&node)
            .and_then(|standing| standing.silent_until)
            .is_some_and(|until| now < until)
    }

    /// A query was sent to `node`.
    pub fn asked(&mut self, node: SocketAddrV4, now: Instant) {
        self.make_room(now);
        self.nodes.entry(node).or_default().asked_at = Some(now);
    }

    /// `contact` answered somebody else of this process.
    pub fn met(&mut self, contact: Contact) {
        if self.nodes.len() < NODES_MAX {
            self.nodes.entry(contact.address).or_default().id = Some(contact.id);
        }
    }

    /// `contact` answered.
    pub fn answered(&mut self, contact: Contact, now: Instant) {
        let standing = self.nodes.entry(contact.address).or_default();
        standing.id = Some(contact.id);
        standing.answered_at = Some(now);
        standing.failures = 0;
        standing.silent_until = None;
        self.last_answer = Some(now);
    }

    /// `node` did not answer a query of `sent_at`.
    ///
    /// It counts only if some node answered since: otherwise it is our network that is silent.
    pub fn failed(&mut self, node: SocketAddrV4, sent_at: Instant, now: Instant) {
        if self.last_answer.is_none_or(|at| at < sent_at) {
            return;
        }
        self.misbehaved(node, now);
    }

    /// `node` answered with a refusal to be read from, or with a forgery.
    pub fn misbehaved(&mut self, node: SocketAddrV4, now: Instant) {
        if let Some(standing) = self.nodes.get_mut(&node) {
            standing.failures = standing.failures.saturating_add(1);
            if standing.failures >= FAILURES_MAX {
                standing.silent_until = Some(now + SILENCE);
            }
        }
    }

    /// Our network was changed: nobody is held to what did not arrive before.
    pub fn forgive(&mut self) {
        for standing in self.nodes.values_mut() {
            standing.failures = 0;
            standing.silent_until = None;
        }
    }

    /// The nodes nearest `target` of those that ever answered; at most `count`.
    pub fn near(&self, target: Target, count: usize, now: Instant) -> Vec<Contact> {
        let mut contacts: Vec<Contact> = self
            .nodes
            .iter()
            .filter(|(address, _)| !self.is_silent(**address, now))
            .filter_map(|(&address, standing)| Some(Contact { id: standing.id?, address }))
            .collect();
        contacts.sort_by_key(|contact| target.distance(&contact.id));
        contacts.truncate(count);
        contacts
    }

    /// Nodes that ever answered and are not silent.
    pub fn known(&self, now: Instant) -> usize {
        let known = self.nodes.iter().filter(|(address, standing)| {
            standing.answered_at.is_some() && !self.is_silent(**address, now)
        });
        known.count()
    }

    /// Nodes that answered within `span` before `now`.
    pub fn answering(&self, now: Instant, span: Duration) -> usize {
        let recent = |at: Instant| now.saturating_duration_since(at) <= span;
        self.nodes.values().filter(|standing| standing.answered_at.is_some_and(recent)).count()
    }

    /// When the last answer of any node came.
    pub fn last_answer(&self) -> Option<Instant> {
        self.last_answer
    }

    /// Forgets who was asked longest ago, but nobody who may not be asked again yet.
    fn make_room(&mut self, now: Instant) {
        if self.nodes.len() < NODES_MAX {
            return;
        }
        let mut asked: Vec<_> = self.nodes.values().filter_map(|node| node.asked_at).collect();
        asked.sort_unstable();
        let oldest_half = asked.get(asked.len() / 2).copied().unwrap_or(now);
        self.nodes.retain(|_, node| {
            node.asked_at.is_some_and(|at| at >= oldest_half || at + QUERY_INTERVAL_MIN > now)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::some_instant;

    fn node(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, 1].into(), port)
    }

    fn contact(port: u16) -> Contact {
        Contact { id: [7; 20], address: node(port) }
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_node_is_asked_once_a_second_at_most() {
        let (mut roster, start) = (Roster::default(), some_instant());
        assert!(roster.may_ask(node(1), start));
        roster.asked(node(1), start);
        assert!(!roster.may_ask(node(1), start + ms(999)));
        assert!(roster.may_ask(node(1), start + ms(1000)));
        assert!(roster.may_ask(node(2), start));
    }

    #[test]
    fn a_node_that_is_silent_twice_while_others_answer_is_left_alone() {
        let (mut roster, start) = (Roster::default(), some_instant());
        roster.asked(node(1), start);
        roster.failed(node(1), start, start + ms(500));
        roster.answered(contact(2), start + ms(600));
        for second in [1, 2] {
            let sent = start + ms(second * 1000);
            roster.asked(node(1), sent);
            assert!(!roster.is_silent(node(1), sent));
            roster.answered(contact(2), sent + ms(50));
            roster.failed(node(1), sent, sent + ms(500));
        }
        assert!(roster.is_silent(node(1), start + ms(2500)));
        assert!(!roster.is_silent(node(1), start + ms(2500) + SILENCE));
        roster.forgive();
        assert!(!roster.is_silent(node(1), start + ms(2500)));
    }

    #[test]
    fn the_table_is_bounded_and_still_remembers_whom_it_just_asked() {
        let (mut roster, start) = (Roster::default(), some_instant());
        for index in 0..3000_u16 {
            let now = start + ms(u64::from(index) * 10);
            roster.asked(node(index + 1), now);
            assert!(roster.nodes.len() <= NODES_MAX);
            assert!(!roster.may_ask(node(index.saturating_sub(50) + 1), now));
        }
    }
}
