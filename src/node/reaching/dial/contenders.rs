//! The peers that a dial may turn to: who was found, who is out of the question, whose turn it is.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::Found;
use crate::{
    candidate::{CANDIDATES_MAX, Candidate},
    identity::PeerId,
};

/// All peers that were found, several for a service, one otherwise.
#[derive(Debug, Default)]
pub(super) struct Contenders {
    found: BTreeMap<PeerId, Found>,
    /// Where those are who were heard on the local network.
    nearby: BTreeMap<PeerId, Vec<Candidate>>,
    /// Those who do not want us, or are somebody else: for good.
    given_up: BTreeSet<PeerId>,
    /// How often each was left for another one because it stayed silent.
    silences: BTreeMap<PeerId, u32>,
}

impl Contenders {
    /// What is known of `peer`.
    pub(super) fn get(&self, peer: PeerId) -> Option<&Found> {
        self.found.get(&peer)
    }

    /// What is known of any of them.
    pub(super) fn any(&self) -> Option<&Found> {
        self.found.values().next()
    }

    /// Whether what was `found` is no older than what is known of this peer.
    pub(super) fn is_news(&self, found: &Found) -> bool {
        let known = self.found.get(&found.peer);
        known.is_none_or(|known| known.made_at <= found.made_at)
    }

    /// Takes in what was found, in place of what was known of this peer.
    pub(super) fn insert(&mut self, found: Found) {
        if self.found.len() < FOUND_MAX || self.found.contains_key(&found.peer) {
            self.found.insert(found.peer, found);
        }
    }

    /// Takes in that `peer` is on the local network; returns what is known of it now.
    pub(super) fn handle_nearby(&mut self, peer: PeerId, candidates: Vec<Candidate>) -> Found {
        if self.nearby.len() < FOUND_MAX || self.nearby.contains_key(&peer) {
            self.nearby.insert(peer, candidates.clone());
        }
        let known = self.found.get(&peer).cloned();
        known.unwrap_or_else(|| Found::there_before(peer, &candidates, Vec::new()))
    }

    /// The same peer, also at its addresses on the local network.
    pub(super) fn with_nearby(&self, found: Found) -> Found {
        let Some(nearby) = self.nearby.get(&found.peer) else {
            return found;
        };
        let mut candidates = nearby.clone();
        let is_elsewhere =
            |other: &&Candidate| nearby.iter().all(|near| near.address != other.address);
        candidates.extend(found.candidates.iter().filter(is_elsewhere));
        candidates.truncate(CANDIDATES_MAX);
        Found { candidates, ..found }
    }

    /// Does not turn to `peer` again.
    pub(super) fn give_up(&mut self, peer: PeerId) {
        self.given_up.insert(peer);
    }

    /// Lets others go first from now on, if there are any: `peer` stays silent.
    pub(super) fn pass_over(&mut self, peer: PeerId) -> bool {
        let has_others = self.has_others(peer);
        if has_others {
            *self.silences.entry(peer).or_default() += 1;
        }
        has_others
    }

    /// Whether there is somebody else to turn to.
    pub(super) fn has_others(&self, peer: PeerId) -> bool {
        self.hopeful().any(|other| other.peer != peer)
    }

    /// Whether everybody has had a turn: what harms others who share our NAT has to wait for that.
    pub(super) fn all_had_a_turn(&self) -> bool {
        let mut hopeful = self.hopeful();
        let is_alone = hopeful.clone().count() <= 1;
        is_alone || hopeful.all(|found| self.silences.contains_key(&found.peer))
    }

    /// Whose turn it is: the one that was silent least often; of several one on the local network, else the
    /// freshest.
    pub(super) fn next(&self) -> Option<PeerId> {
        let silences = |found: &Found| self.silences.get(&found.peer).copied().unwrap_or(0);
        self.hopeful()
            .min_by_key(|found| {
                let is_nearby = self.nearby.contains_key(&found.peer);
                (silences(found), !is_nearby, Reverse((found.made_at, found.peer)))
            })
            .map(|found| found.peer)
    }

    fn hopeful(&self) -> impl Iterator<Item = &Found> + Clone {
        let found = self.found.values();
        found.filter(|found| !self.given_up.contains(&found.peer))
    }
}

/// Servers remembered in one dial; a service record names up to six.
const FOUND_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{behaviour::NatBehaviour, time::UnixMillis};
    use crate::{candidate::CandidateKind, identity::Identity};

    fn found(seed: u8, made_at: u64) -> Found {
        Found {
            peer: Identity::from_seed([seed; 32]).peer_id(),
            made_at: UnixMillis(made_at),
            candidates: Vec::new(),
            nat: NatBehaviour::default(),
            helpers: Vec::new(),
        }
    }

    #[test]
    fn the_freshest_comes_first_and_who_stays_silent_comes_again_after_the_others() {
        let mut contenders = Contenders::default();
        let (old, fresh) = (found(1, 10), found(2, 20));
        contenders.insert(fresh.clone());
        assert!(!contenders.pass_over(fresh.peer), "there is nobody else");
        contenders.insert(old.clone());
        let mut turns = Vec::new();
        for _ in 0..4 {
            let next = contenders.next().unwrap();
            turns.push(next);
            assert!(contenders.pass_over(next));
        }
        assert_eq!(turns, [fresh.peer, old.peer, fresh.peer, old.peer]);
        contenders.give_up(fresh.peer);
        assert_eq!(contenders.next(), Some(old.peer));
        assert!(!contenders.pass_over(old.peer));
        contenders.give_up(old.peer);
        assert_eq!(contenders.next(), None);
    }

    #[test]
    fn who_is_on_the_local_network_comes_first_and_is_tried_there_whatever_its_record_says() {
        let candidate =
            |text: &str| Candidate::new(CandidateKind::Host, text.parse().unwrap()).unwrap();
        let (near, far) = (candidate("192.168.1.7:5000"), candidate("203.0.113.7:5000"));
        let mut contenders = Contenders::default();
        let (neighbour, fresh) = (found(1, 10), found(2, 20));
        contenders.insert(fresh);
        let known = contenders.handle_nearby(neighbour.peer, vec![near]);
        assert_eq!(known.candidates, [near]);
        contenders.insert(known);
        assert_eq!(contenders.next(), Some(neighbour.peer));
        let record = Found { candidates: vec![far, near], ..neighbour };
        assert_eq!(contenders.with_nearby(record).candidates, [near, far]);
    }

    #[test]
    fn more_servers_than_a_service_names_are_not_remembered() {
        let mut contenders = Contenders::default();
        for seed in 1..=40 {
            contenders.insert(found(seed, u64::from(seed)));
        }
        assert_eq!(contenders.found.len(), FOUND_MAX);
        let known = found(1, 99);
        assert!(contenders.is_news(&known));
        contenders.insert(known.clone());
        assert_eq!(contenders.get(known.peer), Some(&known));
        assert!(!contenders.is_news(&found(1, 98)));
    }
}
