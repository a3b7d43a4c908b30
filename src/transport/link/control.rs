//! What waits to go out on the control stream beside acks: pings with their askers, pongs, a farewell.
//!
//! Pure: time comes in, frames go out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    proto::wire::{Addresses, Bye, Control, Ping, Pong, Resume},
    transport::link::wire::control,
};

/// The control stream's own business, with tickets of type `T` for those who ping.
#[derive(Debug)]
pub(super) struct Conversation<T> {
    ready: VecDeque<Control>,
    pongs_waiting: usize,
    asked: BTreeMap<u64, (Instant, T)>,
    next_number: u64,
    /// Our addresses, if the peer does not know them yet.
    addresses: Option<Addresses>,
}

impl<T> Conversation<T> {
    pub(super) fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            pongs_waiting: 0,
            asked: BTreeMap::new(),
            next_number: 1,
            addresses: None,
        }
    }

    /// Asks the peer for a pong. When too many are waited for, the oldest ticket is dropped; when too
    /// many frames wait to go out, this one is.
    pub(super) fn ping(&mut self, now: Instant, ticket: T) {
        if self.ready.len() >= 2 * PINGS_MAX {
            return;
        }
        if self.asked.len() >= PINGS_MAX {
            self.asked.pop_first();
        }
        let number = self.next_number;
        self.next_number += 1;
        self.asked.insert(number, (now, ticket));
        self.ready.push_back(control(Ping { number }));
    }

    /// Answers the peer's ping; not if it asks faster than answers can be sent.
    pub(super) fn handle_ping(&mut self, number: u64) {
        if self.pongs_waiting < PINGS_MAX {
            self.pongs_waiting += 1;
            self.ready.push_back(control(Pong { number }));
        }
    }

    /// Takes the peer's pong: how long it took, and whom to tell.
    pub(super) fn handle_pong(&mut self, number: u64, now: Instant) -> Option<(Duration, T)> {
        let (asked_at, ticket) = self.asked.remove(&number)?;
        Some((now.duration_since(asked_at), ticket))
    }

    /// Says what comes first of a session, after everything that waits.
    pub(super) fn say_resume(&mut self, resume: Resume) {
        self.ready.push_back(control(resume));
    }

    /// Says where we are now; of what was not said yet only the last counts.
    pub(super) fn say_addresses(&mut self, addresses: Addresses) {
        self.addresses = Some(addresses);
    }

    /// Says goodbye after everything that waits.
    pub(super) fn say_bye(&mut self, reason: &str) {
        self.ready.push_back(control(Bye { reason: reason.to_owned() }));
    }

    /// The next frame to write.
    pub(super) fn poll_frame(&mut self) -> Option<Control> {
        if let Some(addresses) = self.addresses.take() {
            return Some(control(addresses));
        }
        let frame = self.ready.pop_front();
        if self.ready.is_empty() {
            self.pongs_waiting = 0;
        }
        frame
    }
}

/// Pings that may be open, and pongs that may wait, at a time: far more than anybody has a use for.
const PINGS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pong_tells_the_round_trip_to_the_one_who_asked() {
        let mut conversation = Conversation::new();
        let start = Instant::now();
        conversation.ping(start, "first");
        conversation.ping(start, "second");
        assert_eq!(conversation.poll_frame(), Some(control(Ping { number: 1 })));
        assert_eq!(conversation.poll_frame(), Some(control(Ping { number: 2 })));
        let later = start + Duration::from_millis(80);
        let rtt = Duration::from_millis(80);
        assert_eq!(conversation.handle_pong(2, later), Some((rtt, "second")));
        assert_eq!(conversation.handle_pong(2, later), None, "doubled");
        assert_eq!(conversation.handle_pong(9, later), None, "never asked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_pings_without_end_costs_little() {
        let mut conversation = Conversation::<()>::new();
        for number in 0..10_000 {
            conversation.handle_ping(number);
        }
        let answers = std::iter::from_fn(|| conversation.poll_frame()).count();
        assert_eq!(answers, PINGS_MAX);
        conversation.handle_ping(1);
        assert_eq!(conversation.poll_frame(), Some(control(Pong { number: 1 })));
    }

    #[test]
    fn of_addresses_that_change_all_the_time_only_the_last_are_said() {
        let mut conversation = Conversation::<()>::new();
        let addresses = |byte| Addresses { endpoints: vec![vec![byte; 6].into()] };
        for byte in 0..=255 {
            conversation.say_addresses(addresses(byte));
        }
        assert_eq!(conversation.poll_frame(), Some(control(addresses(255))));
        assert_eq!(conversation.poll_frame(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_pings_are_open() {
        let mut conversation = Conversation::new();
        let start = Instant::now();
        for ticket in 0..=PINGS_MAX {
            conversation.ping(start, ticket);
        }
        assert_eq!(conversation.handle_pong(1, start), None, "forgotten");
        assert!(conversation.handle_pong(2, start).is_some());
    }
}
