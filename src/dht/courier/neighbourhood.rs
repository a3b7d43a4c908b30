//! The nodes closest to one target, as far as we know them, and their leave to write.

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use super::{krpc::Contact, roster::Roster};
use crate::{dht::location::Target, entropy::Entropy};

/// Nodes kept for a target: those that store there, and some to take their place.
pub const NEIGHBOURS_MAX: usize = 24;

/// Nodes that are asked for what lies at a target: as many as BEP 5 stores at.
pub const READ_NODES: usize = 8;

/// How long a token is used. BEP 5 promises ten minutes, implementations change their secret every five.
pub const TOKEN_AGE_MAX: Duration = Duration::from_secs(4 * 60);

/// The nodes closest to one target.
#[derive(Debug)]
pub struct Neighbourhood {
    target: Target,
    /// By distance, closest first.
    nodes: BTreeMap<[u8; 20], Neighbour>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Which node.
    pub address: SocketAddrV4,
    token: Option<(Vec<u8>, Instant)>,
    asked_at: Option<Instant>,
}

impl Neighbour {
    /// Its leave to write, if it gave us one lately.
    pub fn token(&self, now: Instant) -> Option<&[u8]> {
        let (token, received_at) = self.token.as_ref()?;
        let fresh = now.saturating_duration_since(*received_at) <= TOKEN_AGE_MAX;
        fresh.then_some(token)
    }
}

impl Neighbourhood {
    /// Nobody known near `target` yet.
    pub fn new(target: Target) -> Self {
        Self { target, nodes: BTreeMap::new() }
    }

    /// A node that may be close, by hearsay.
    pub fn learn(&mut self, contact: Contact) {
        let distance = self.target.distance(&contact.id);
        let known = self.nodes.values().any(|node| node.address == contact.address);
        if known || self.nodes.contains_key(&distance) {
            return;
        }
        let neighbour = Neighbour { address: contact.address, token: None, asked_at: None };
        self.nodes.insert(distance, neighbour);
        if self.nodes.len() > NEIGHBOURS_MAX {
            self.nodes.pop_last();
        }
    }

    /// A node answered us, as `contact`, and gave leave to write if `token` is there.
    pub fn answered(&mut self, contact: Contact, token: Option<Vec<u8>>, now: Instant) {
        let distance = self.target.distance(&contact.id);
        // Who told us of it may have been wrong about its id.
        self.nodes.retain(|at, node| node.address != contact.address || *at == distance);
        self.learn(contact);
        if let (Some(node), Some(token)) = (self.nodes.get_mut(&distance), token) {
            node.token = Some((token, now));
        }
    }

    /// `node` was asked for what lies here.
    pub fn asked(&mut self, node: SocketAddrV4, now: Instant) {
        for neighbour in self.nodes.values_mut().filter(|neighbour| neighbour.address == node) {
            neighbour.asked_at = Some(now);
        }
    }

    /// The leave of `node` turned out to be worthless.
    pub fn drop_token(&mut self, node: SocketAddrV4) {
        for neighbour in self.nodes.values_mut().filter(|neighbour| neighbour.address == node) {
            neighbour.token = None;
        }
    }

    /// All leave to write was given to an address that is not ours any more.
    pub fn drop_tokens(&mut self) {
        for neighbour in self.nodes.values_mut() {
            neighbour.token = None;
        }
    }

    /// The closest nodes that are not silent, closest first.
    pub fn closest<'a>(
        &'a self,
        roster: &'a Roster,
        now: Instant,
    ) -> impl Iterator<Item = &'a Neighbour> {
        self.nodes.values().filter(move |node| !roster.is_silent(node.address, now))
    }

    /// Nodes that gave leave to write.
    pub fn writable(&self, now: Instant) -> usize {
        self.nodes.values().filter(|node| node.token(now).is_some()).count()
    }

    /// Whom to ask next for what lies here: of the closest that may be asked, the one asked longest ago.
    pub fn next_to_ask(
        &self,
        roster: &Roster,
        entropy: &mut Entropy,
        now: Instant,
    ) -> Option<SocketAddrV4> {
        self.closest(roster, now)
            .take(READ_NODES)
            .filter(|node| roster.may_ask(node.address, now))
            .map(|node| (node.asked_at, entropy.number(), node.address))
            .min()
            .map(|(_, _, address)| address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::some_instant;

    fn contact(id: u8) -> Contact {
        let address = SocketAddrV4::new([127, 0, 0, id].into(), 6881);
        Contact { id: [id; 20], address }
    }

    fn addresses(neighbourhood: &Neighbourhood) -> Vec<SocketAddrV4> {
        neighbourhood.nodes.values().map(|node| node.address).collect()
    }

    #[test]
    fn the_closest_nodes_stay() {
        let mut neighbourhood = Neighbourhood::new(Target([0; 20]));
        (1..=100).rev().for_each(|id| neighbourhood.learn(contact(id)));
        let expected: Vec<_> = (1..=24).map(|id| contact(id).address).collect();
        assert_eq!(addresses(&neighbourhood), expected);
    }

    #[test]
    fn a_node_that_answers_under_another_id_is_moved_not_doubled() {
        let mut neighbourhood = Neighbourhood::new(Target([0; 20]));
        neighbourhood.learn(contact(1));
        let real = Contact { id: [9; 20], ..contact(1) };
        neighbourhood.answered(real, Some(b"tok".to_vec()), some_instant());
        assert_eq!(addresses(&neighbourhood), [contact(1).address]);
        assert!(neighbourhood.nodes.contains_key(&[9; 20]));
    }

    #[test]
    fn leave_to_write_ends_after_minutes() {
        let (mut neighbourhood, now) = (Neighbourhood::new(Target([0; 20])), some_instant());
        neighbourhood.answered(contact(1), Some(b"tok".to_vec()), now);
        assert_eq!(neighbourhood.writable(now + TOKEN_AGE_MAX), 1);
        assert_eq!(neighbourhood.writable(now + TOKEN_AGE_MAX + Duration::from_secs(1)), 0);
    }

    #[test]
    fn the_closest_nodes_are_asked_in_turn() {
        let (mut roster, mut entropy) = (Roster::default(), Entropy::from_seed(1));
        let mut neighbourhood = Neighbourhood::new(Target([0; 20]));
        (1..=12).for_each(|id| neighbourhood.learn(contact(id)));
        let now = some_instant();
        let mut asked = Vec::new();
        while let Some(node) = neighbourhood.next_to_ask(&roster, &mut entropy, now) {
            roster.asked(node, now);
            neighbourhood.asked(node, now);
            asked.push(node);
        }
        asked.sort_unstable();
        let expected: Vec<_> = (1..=8).map(|id| contact(id).address).collect();
        assert_eq!(asked, expected);
    }
}
