//! How a dialler leaves an offer for a peer: in the first slot that nobody else has just used.
//!
//! A watcher needs some time to see what is in a slot, so an offer of somebody else that is only seconds
//! old is not written over. Who loses a race for a slot learns of it by compare-and-swap and takes the
//! next.

use super::{
    item::Item,
    location::{Name, SLOTS},
    rendezvous::{ABSENT, PutError, Rendezvous},
};
use crate::time::UnixMillis;

/// How long an offer keeps its slot: twice the time between two looks at the last slot.
pub const FRESH_MS: u64 = 5_000;

/// Numbers further ahead of our clock than this were not put there to be replaced.
pub const AHEAD_MAX_MS: u64 = 10 * 60 * 1_000;

/// What is known of the slots of one inbox, by the numbers of their items, which are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots([Option<i64>; SLOTS_COUNT]);

/// Where an offer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which slot.
    pub index: u8,
    /// The number that the offer gets.
    pub seq: i64,
    /// The number that it may replace.
    pub cas: i64,
}

const SLOTS_COUNT: usize = 3;
const _: () = assert!(SLOTS == 3, "as many as SLOTS_COUNT");

impl Slots {
    /// What `rendezvous` knows of the slots of `name`; nothing, unless they were prepared.
    pub fn known(rendezvous: &dyn Rendezvous, name: &Name) -> Self {
        let mut slots = [None; SLOTS_COUNT];
        for (slot, location) in slots.iter_mut().zip(name.inbox()) {
            *slot = rendezvous.known(location.target).map(|item| item.seq());
        }
        Self(slots)
    }

    /// The slot for an offer made at `now`: the first that is free, else the one that was taken longest
    /// ago. `ours` is the number of an offer of ours that may be replaced at any time.
    pub fn choose(&self, ours: Option<i64>, now: UnixMillis) -> Choice {
        let now = i64::try_from(now.0).unwrap_or(i64::MAX);
        let rank = |seq: &Option<i64>| match *seq {
            None => (Rank::Free, 0),
            Some(_) if *seq == ours => (Rank::Free, 0),
            Some(seq) if seq > now.saturating_add_unsigned(AHEAD_MAX_MS) => (Rank::Blocked, seq),
            Some(seq) if seq > now.saturating_sub_unsigned(FRESH_MS) => (Rank::Fresh, seq),
            Some(_) => (Rank::Free, 0),
        };
        let best = (0_u8..).zip(&self.0).min_by_key(|(_, seq)| rank(seq));
        let (index, seq) = best.expect("an inbox has slots");
        Choice {
            index,
            seq: now.max(seq.map_or(1, |seq| seq.saturating_add(1))),
            cas: seq.unwrap_or(ABSENT),
        }
    }

    /// Slot `index` turned out to hold another item, with number `current` if that is known.
    pub fn taken(&mut self, index: u8, current: Option<i64>, now: UnixMillis) {
        let seq = current.or_else(|| i64::try_from(now.0).ok());
        if let Some(slot) = self.0.get_mut(usize::from(index)) {
            *slot = seq;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Free,
    Fresh,
    Blocked,
}

/// Leaves `offer`, sealed to a peer, in the inbox of `name`; returns the item that holds it, whose number
/// is `ours` for the next offer of the same dial.
///
/// # Errors
/// When the nodes cannot be reached, or others got every slot before us.
pub async fn leave(
    rendezvous: &dyn Rendezvous,
    name: &Name,
    offer: &[u8],
    ours: Option<i64>,
    now: UnixMillis,
) -> Result<Item, PutError> {
    let mut slots = Slots::known(rendezvous, name);
    let mut lost = PutError::Timeout;
    for attempt in 0..=SLOTS {
        let choice = slots.choose(ours, now);
        let item = Item::sign(&name.slot_key(choice.index), choice.seq, offer.to_vec());
        // Refused everywhere: nodes may lag behind what others hold, and would refuse for ever.
        let cas = (attempt < SLOTS).then_some(choice.cas);
        match rendezvous.put(item.clone(), cas).await {
            Ok(_) => return Ok(item),
            Err(PutError::CasFailed { current } | PutError::NotNewer { current }) => {
                slots.taken(choice.index, current, now);
                lost = PutError::CasFailed { current };
            }
            Err(error) => return Err(error),
        }
    }
    Err(lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dht::memory::{Conditions, MemoryDht},
        identity::Identity,
    };

    const NOW: UnixMillis = UnixMillis(1_763_820_000_000);
    const NOW_SEQ: i64 = 1_763_820_000_000;

    #[test]
    fn the_first_slot_is_taken_unless_somebody_just_did() {
        let choice = |slots| Slots(slots).choose(Some(NOW_SEQ - 7), NOW);
        let first = Choice { index: 0, seq: NOW_SEQ, cas: ABSENT };
        assert_eq!(choice([None; 3]), first);
        let old = NOW_SEQ - 6_000;
        assert_eq!(choice([Some(old), None, None]), Choice { cas: old, ..first });
        let fresh = Some(NOW_SEQ - 1_000);
        assert_eq!(choice([fresh, None, None]), Choice { index: 1, ..first });
        let ours = NOW_SEQ - 7;
        assert_eq!(choice([Some(ours), None, None]), Choice { cas: ours, ..first });
    }

    #[test]
    fn if_all_are_taken_the_one_taken_longest_ago_gives_way_and_numbers_still_grow() {
        let slots = Slots([Some(i64::MAX), Some(NOW_SEQ + 50), Some(NOW_SEQ + 20)]);
        let expected = Choice { index: 2, seq: NOW_SEQ + 21, cas: NOW_SEQ + 20 };
        assert_eq!(slots.choose(None, NOW), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn diallers_that_come_together_get_a_slot_each() {
        let dht = MemoryDht::new(Conditions::default()).rendezvous();
        let name = Name::Peer(Identity::from_seed([7; 32]).peer_id());
        let leave = |offer: &'static [u8]| leave(&*dht, &name, offer, None, NOW);
        let left = tokio::join!(leave(b"one"), leave(b"two"), leave(b"three"));
        let keys: std::collections::BTreeSet<_> =
            [left.0.unwrap(), left.1.unwrap(), left.2.unwrap()]
                .map(|item| *item.public_key())
                .into();
        assert_eq!(keys.len(), 3);
    }
}
