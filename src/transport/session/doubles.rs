//! Which durable messages of a peer have been handed over, so that none is handed over twice, however often
//! its sender was restarted in between.
//!
//! Pure: time comes in. What was settled can be exported and imported, so that it can outlive this
//! program, too.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// The ids of the last [`DOUBLES_MAX`] durable messages of one peer, for [`DOUBLES_TIME`] each.
#[derive(Debug, Default)]
pub struct Doubles {
    ids: BTreeMap<String, Stage>,
    /// Oldest first; one entry for each id.
    ages: VecDeque<(Instant, String)>,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The consumer works on it.
    HandedOver,
    /// The consumer has it.
    Settled,
}

impl Doubles {
    /// Notes that the message `id` is handed over; `false` if one with this id was before. A message
    /// without an id is never a double.
    pub fn is_first(&mut self, id: &str, now: Instant) -> bool {
        self.expire(now);
        if id.is_empty() {
            return true;
        }
        if self.ids.contains_key(id) {
            return false;
        }
        self.insert(id, Stage::HandedOver, now);
        true
    }

    /// Notes that the consumer has the message `id`.
    pub fn settle(&mut self, id: &str) {
        if let Some(stage) = self.ids.get_mut(id) {
            *stage = Stage::Settled;
        }
    }

    /// The ids of messages that the consumer has, each with the time since it was handed over, oldest
    /// first. A message that the consumer was still at is left out: it would be lost if it were taken
    /// for a double by the next run.
    pub fn export(&self, now: Instant) -> impl Iterator<Item = (&str, Duration)> {
        let settled = |id: &String| self.ids.get(id) == Some(&Stage::Settled);
        self.ages
            .iter()
            .filter(move |(_, id)| settled(id))
            .map(move |(at, id)| (id.as_str(), now.saturating_duration_since(*at)))
    }

    /// Takes in what was exported, oldest first, with the time that has passed for each until now.
    pub fn import(&mut self, ids: impl IntoIterator<Item = (String, Duration)>, now: Instant) {
        for (id, age) in ids {
            let at = now.checked_sub(age);
            if let Some(at) = at.filter(|_| !id.is_empty() && !self.ids.contains_key(&id)) {
                self.insert(&id, Stage::Settled, at);
            }
        }
        // What was noted before the import may be younger than what came with it.
        self.ages.make_contiguous().sort_by_key(|&(at, _)| at);
        self.expire(now);
    }

    /// Ids that are kept.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no id is kept.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn insert(&mut self, id: &str, stage: Stage, at: Instant) {
        self.ids.insert(id.to_owned(), stage);
        self.ages.push_back((at, id.to_owned()));
        if self.ages.len() > DOUBLES_MAX {
            self.forget_oldest();
        }
    }

    fn expire(&mut self, now: Instant) {
        let is_old = |at: Instant| now.saturating_duration_since(at) > DOUBLES_TIME;
        while self.ages.front().is_some_and(|&(at, _)| is_old(at)) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.ages.pop_front() {
            self.ids.remove(&id);
        }
    }
}

/// Ids kept for one peer: at most 1 MiB of them. A sender has fewer durable messages under way than this.
pub const DOUBLES_MAX: usize = 4_096;

/// How long an id is kept: senders give a durable message up earlier.
pub const DOUBLES_TIME: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_is_new_once_in_an_hour() {
        let (mut doubles, start) = (Doubles::default(), Instant::now());
        assert!(doubles.is_first("a", start));
        assert!(!doubles.is_first("a", start + DOUBLES_TIME));
        assert!(doubles.is_first("b", start + DOUBLES_TIME));
        assert!(doubles.is_first("a", start + DOUBLES_TIME + seconds(1)));
        assert!(doubles.is_first("", start) && doubles.is_first("", start), "no id, no double");
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_ids_are_kept_and_the_oldest_go_first() {
        let (mut doubles, start) = (Doubles::default(), Instant::now());
        for id in 0..=DOUBLES_MAX {
            assert!(doubles.is_first(&id.to_string(), start));
        }
        assert_eq!(doubles.len(), DOUBLES_MAX);
        assert!(!doubles.is_first("1", start));
        assert!(doubles.is_first("0", start), "forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_consumer_has_outlives_the_program_and_what_it_was_at_does_not() {
        let (mut doubles, start) = (Doubles::default(), Instant::now());
        for (id, at) in [("a", 0), ("b", 10), ("c", 20)] {
            assert!(doubles.is_first(id, start + seconds(at)));
        }
        doubles.settle("a");
        doubles.settle("c");
        let exported: Vec<_> =
            doubles.export(start + seconds(30)).map(|(id, age)| (id.to_owned(), age)).collect();
        assert_eq!(exported, [("a".to_owned(), seconds(30)), ("c".to_owned(), seconds(10))]);

        let later = start + DOUBLES_TIME;
        let (mut next, aged) = (Doubles::default(), exported.into_iter());
        next.is_first("d", later);
        next.import(aged.map(|(id, age)| (id, age + seconds(3_575))), later);
        assert!(next.is_first("a", later), "too old");
        assert!(next.is_first("b", later));
        assert!(!next.is_first("c", later));
        assert!(!next.is_first("d", later));
    }
}
