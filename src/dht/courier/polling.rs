//! Which watched location is looked at next: a budget of queries shared by weight.
//!
//! Stride scheduling: every location has a *pass* that grows by the inverse of its weight whenever it is
//! looked at, and the least pass is next. So a location of weight 4 is looked at four times as often as
//! one of weight 1, whatever else is watched. Chance spreads the passes: otherwise all rare locations
//! would be due together, and the frequent ones unwatched meanwhile.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    dht::location::{Location, Purpose, Target},
    entropy::Entropy,
};

/// Between two looks at watched locations, over all of them: eight queries a second.
///
/// With the answers that is 16 datagrams a second, which leaves 9 of the 25 that a serving node may cost
/// for publishing and for mainline's upkeep.
pub const POLL_INTERVAL: Duration = Duration::from_millis(125);

/// How long all slots of an inbox are looked at closely after something was found in one of them:
/// diallers that come together take the other slots.
pub const BUSY: Duration = Duration::from_secs(10);

/// Names one watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(pub u64);

/// What is being watched.
#[derive(Debug, Default)]
pub struct Polling {
    watches: BTreeMap<WatchId, Watched>,
    passes: BTreeMap<Target, u64>,
}

#[derive(Debug)]
struct Watched {
    /// With the number of the newest item that was handed over.
    locations: BTreeMap<Target, (Location, Option<i64>)>,
    busy_until: Option<Instant>,
}

impl Polling {
    /// Watches `locations`.
    pub fn add(&mut self, id: WatchId, locations: Vec<Location>, entropy: &mut Entropy) {
        let least = self.passes.values().min().copied().unwrap_or_default();
        for location in &locations {
            let phase =
                least.saturating_add(entropy.number() % (STRIDE / weight(location.purpose)));
            self.passes.entry(location.target).or_insert(phase);
        }
        let locations =
            locations.into_iter().map(|location| (location.target, (location, None))).collect();
        self.watches.insert(id, Watched { locations, busy_until: None });
    }

    /// Ends a watch.
    pub fn remove(&mut self, id: WatchId) {
        self.watches.remove(&id);
        let watches = &self.watches;
        self.passes.retain(|target, _| {
            watches.values().any(|watched| watched.locations.contains_key(target))
        });
    }

    /// Whether anybody watches `target`.
    pub fn is_watched(&self, target: Target) -> bool {
        self.passes.contains_key(&target)
    }

    /// Everything that is watched, the one to look at first in front.
    pub fn in_turn(&self) -> Vec<Target> {
        let mut targets: Vec<_> =
            self.passes.iter().map(|(target, pass)| (*pass, *target)).collect();
        targets.sort_unstable();
        targets.into_iter().map(|(_, target)| target).collect()
    }

    /// `target` was looked at.
    pub fn looked(&mut self, target: Target, entropy: &mut Entropy, now: Instant) {
        let stride = STRIDE / self.weight(target, now);
        // A quarter more or less.
        let stride = stride * 3 / 4 + entropy.number() % (stride / 2);
        if let Some(pass) = self.passes.get_mut(&target) {
            *pass = pass.saturating_add(stride);
        }
    }

    /// An item with number `seq` was found at `target`: who has not been told of it yet.
    pub fn found(&mut self, target: Target, seq: i64, now: Instant) -> Vec<(WatchId, Location)> {
        let mut to_tell = Vec::new();
        for (id, watched) in &mut self.watches {
            let Some((location, told)) = watched.locations.get_mut(&target) else {
                continue;
            };
            if told.is_none_or(|told| told < seq) {
                *told = Some(seq);
                watched.busy_until = Some(now + BUSY);
                to_tell.push((*id, *location));
            }
        }
        to_tell
    }

    fn weight(&self, target: Target, now: Instant) -> u64 {
        let weights = self.watches.values().filter_map(|watched| {
            let (location, _) = watched.locations.get(&target)?;
            let busy = watched.busy_until.is_some_and(|until| now < until);
            let weight = weight(location.purpose);
            Some(if busy { weight.max(BUSY_WEIGHT) } else { weight })
        });
        weights.max().unwrap_or(1)
    }
}

/// How often a location is looked at, compared with others.
///
/// With the inboxes of a service, a peer id and a ticket watched, of 8 queries a second the first slot
/// of the service gets 2.4, those of the peer 1.6 each, and every other slot 0.4.
fn weight(purpose: Purpose) -> u64 {
    match purpose {
        Purpose::ServiceSlot(0) => 6,
        Purpose::PeerSlot(0) => 4,
        Purpose::ServiceSlot(_) | Purpose::PeerSlot(_) | Purpose::Record => 1,
    }
}

/// The least weight of a slot whose inbox is in use.
const BUSY_WEIGHT: u64 = 2;

/// Large, so that chance can divide it finely.
const STRIDE: u64 = 12_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::some_instant;

    fn location(byte: u8, purpose: Purpose) -> Location {
        Location { public_key: [byte; 32], target: Target([byte; 20]), purpose }
    }

    /// How often each location is looked at in `count` looks.
    fn looks(polling: &mut Polling, count: usize, now: Instant) -> Vec<usize> {
        let mut entropy = Entropy::from_seed(2);
        let mut looks: BTreeMap<Target, usize> = BTreeMap::new();
        for _ in 0..count {
            let target = polling.in_turn()[0];
            polling.looked(target, &mut entropy, now);
            *looks.entry(target).or_default() += 1;
        }
        looks.into_values().collect()
    }

    fn assert_close(looks: &[usize], expected: &[usize]) {
        assert_eq!(looks.len(), expected.len());
        let close =
            |(looks, expected): (&usize, &usize)| looks.abs_diff(*expected) <= expected / 10;
        assert!(looks.iter().zip(expected).all(close), "{looks:?} {expected:?}");
    }

    fn inbox() -> Vec<Location> {
        (0..3).map(|index| location(index + 1, Purpose::ServiceSlot(index))).collect()
    }

    #[test]
    fn the_first_slot_of_a_service_is_looked_at_most() {
        let mut polling = Polling::default();
        polling.add(WatchId(1), inbox(), &mut Entropy::from_seed(1));
        assert_close(&looks(&mut polling, 800, some_instant()), &[600, 100, 100]);
    }

    #[test]
    fn when_one_slot_is_used_the_others_are_watched_closely_for_a_while() {
        let (mut polling, now) = (Polling::default(), some_instant());
        polling.add(WatchId(1), inbox(), &mut Entropy::from_seed(1));
        polling.found(Target([1; 20]), 7, now);
        assert_close(&looks(&mut polling, 1000, now), &[600, 200, 200]);
        assert_close(&looks(&mut polling, 800, now + BUSY), &[600, 100, 100]);
    }

    #[test]
    fn every_watch_is_told_of_an_item_once() {
        let (mut polling, now) = (Polling::default(), some_instant());
        let (slot, mut entropy) = (location(1, Purpose::PeerSlot(0)), Entropy::from_seed(1));
        polling.add(WatchId(1), vec![slot], &mut entropy);
        assert_eq!(polling.found(slot.target, 7, now), [(WatchId(1), slot)]);
        polling.add(WatchId(2), vec![slot], &mut entropy);
        assert_eq!(polling.found(slot.target, 7, now), [(WatchId(2), slot)]);
        assert_eq!(polling.found(slot.target, 6, now), []);
        polling.remove(WatchId(1));
        assert!(polling.is_watched(slot.target));
        polling.remove(WatchId(2));
        assert!(!polling.is_watched(slot.target));
    }
}
