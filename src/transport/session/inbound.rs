//! The messages of a session that have arrived: those that wait for the consumer, those that it was handed
//! and still works on, and what may be acknowledged of them.
//!
//! Pure. When there is no room the shell stops reading the message stream, and QUIC's flow control
//! slows the sender down; nothing is dropped.

use std::collections::VecDeque;

use thiserror::Error;
use tokio::time::Instant;

use super::{
    doubles::Doubles,
    message::{Oversize, check_size},
};
use crate::proto::{Message, wire::Sequenced};

/// The receiving half of a session.
///
/// Messages have two numbers: the peer's sequence number, and a count of our own that goes on when the
/// peer's begins anew.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The messages from number `delivered` on. Those in front were handed over.
    slots: VecDeque<Slot>,
    handed_over: usize,
    waiting: usize,
    waiting_size: usize,
    /// Messages that the consumer is done with, with no others before them.
    delivered: u64,
    numbering: Option<Numbering>,
    /// `delivered` as it was in the last ack.
    acknowledged: u64,
    /// The peer is to be told again.
    is_ack_lost: bool,
    pub(super) doubles: Doubles,
}

/// How the sequence numbers of the peer's session lie.
#[derive(Clone, Copy, Debug)]
struct Numbering {
    /// Our number of the first message of that session.
    first: u64,
    /// Its sequence number.
    sequence: u64,
}

#[derive(Debug)]
enum Slot {
    /// With what it takes of the budget.
    Waiting {
        message: Message,
        is_durable: bool,
        cost: usize,
    },
    HandedOver {
        durable_id: Option<String>,
    },
    Done,
}

/// How soon the consumer's progress is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum AckNeed {
    /// There is nothing to tell.
    None,
    /// In a moment: the consumer is likely to be done with more at once.
    Soon,
    /// At once: the consumer is done with all there is, or with much.
    Now,
}

/// A message that the peer should not have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum BadMessage {
    #[error("message {found} where {expected} was next")]
    OutOfSequence { expected: u64, found: u64 },
    #[error("a message frame without a message")]
    Empty,
    #[error(transparent)]
    TooLarge(#[from] Oversize),
}

impl Inbound {
    /// Whether another message may be read.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < WAITING_LENGTH_MAX
            && self.waiting_size < WAITING_SIZE_MAX
            && self.slots.len() < UNDELIVERED_MAX
    }

    /// Takes a message from the stream; drops it if it was here before.
    pub(super) fn push(&mut self, frame: Sequenced) -> Result<(), BadMessage> {
        let found = frame.sequence;
        match self.received() {
            // The peer goes on from messages that are no business of ours.
            None if found > 0 => {}
            Some(received) if found == received + 1 => {}
            Some(received) if (1..=received).contains(&found) => {
                // Whoever sends it again has not heard of our ack.
                self.is_ack_lost = true;
                return Ok(());
            }
            None => return Err(BadMessage::OutOfSequence { expected: 1, found }),
            Some(received) => {
                return Err(BadMessage::OutOfSequence { expected: received + 1, found });
            }
        }
        let message = frame.message.ok_or(BadMessage::Empty)?;
        let cost = check_size(&message)?;
        if self.numbering.is_none() {
            self.numbering = Some(Numbering { first: self.end(), sequence: found });
        }
        self.waiting += 1;
        self.waiting_size += cost;
        self.slots.push_back(Slot::Waiting { message, is_durable: frame.durable, cost });
        Ok(())
    }

    /// Hands the message that arrived last to somebody who waited for just this one, with the number by which
    /// it is settled.
    pub(super) fn take_last(&mut self, now: Instant) -> Option<(Message, u64)> {
        let number = self.end().checked_sub(1)?;
        let slot = self.slots.back_mut()?;
        let Slot::Waiting { message, is_durable, cost } = std::mem::replace(slot, Slot::Done)
        else {
            unreachable!("what has just arrived waits");
        };
        self.waiting -= 1;
        self.waiting_size -= cost;
        if is_durable && !self.doubles.is_first(&message.id, now) {
            self.advance();
            return None;
        }
        let durable_id = is_durable.then(|| message.id.clone());
        *slot = Slot::HandedOver { durable_id };
        Some((message, number))
    }

    /// The message that arrived last, if it waits.
    pub(super) fn last(&self) -> Option<&Message> {
        match self.slots.back()? {
            Slot::Waiting { message, .. } => Some(message),
            Slot::HandedOver { .. } | Slot::Done => None,
        }
    }

    /// Hands the next message to the consumer, with the number by which it is settled.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Message, u64)> {
        loop {
            let slot = self.slots.get_mut(self.handed_over)?;
            let number = self.delivered + length(self.handed_over);
            self.handed_over += 1;
            let Slot::Waiting { message, is_durable, cost } = slot else {
                // Somebody who waited for it has it, or had it.
                self.advance();
                continue;
            };
            let (message, is_durable, cost) = (std::mem::take(message), *is_durable, *cost);
            *slot = Slot::Done;
            self.waiting -= 1;
            self.waiting_size -= cost;
            if is_durable && !self.doubles.is_first(&message.id, now) {
                self.advance();
                continue;
            }
            let durable_id = is_durable.then(|| message.id.clone());
            *slot = Slot::HandedOver { durable_id };
            return Some((message, number));
        }
    }

    /// The consumer is done with message `number`.
    pub(super) fn settle(&mut self, number: u64) {
        let index =
            number.checked_sub(self.delivered).and_then(|index| usize::try_from(index).ok());
        let slot = index.and_then(|index| self.slots.get_mut(index));
        let slot = slot.expect("a message that was handed over stays until it is settled");
        if let Slot::HandedOver { durable_id: Some(id) } = std::mem::replace(slot, Slot::Done) {
            self.doubles.settle(&id);
        }
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(Slot::Done) = self.slots.front() {
            self.slots.pop_front();
            self.handed_over = self.handed_over.saturating_sub(1);
            self.delivered += 1;
        }
    }

    /// The peer's session is another one: its next message is the first. What has arrived stays.
    pub(super) fn forget_numbering(&mut self) {
        self.numbering = None;
        self.is_ack_lost = false;
    }

    /// Acks may have been lost with the link that carried them.
    pub(super) fn attach(&mut self) {
        self.is_ack_lost = true;
    }

    /// Sequence number of the last message that has arrived of the peer's session.
    pub(super) fn received(&self) -> Option<u64> {
        self.numbering.map(|numbering| numbering.sequence + (self.end() - numbering.first) - 1)
    }

    /// Whether an ack is due.
    pub(super) fn ack_need(&self) -> AckNeed {
        let Some(numbering) = self.numbering.filter(|it| self.delivered > it.first) else {
            return AckNeed::None;
        };
        match self.delivered - self.acknowledged.max(numbering.first) {
            _ if self.is_ack_lost => AckNeed::Now,
            0 => AckNeed::None,
            newly if newly >= ACK_EVERY || self.slots.is_empty() => AckNeed::Now,
            _ => AckNeed::Soon,
        }
    }

    /// What the next ack says; nothing if nothing of the peer's session is delivered.
    pub(super) fn acknowledge(&mut self) -> Option<u64> {
        let numbering = self.numbering.filter(|it| self.delivered > it.first)?;
        self.acknowledged = self.delivered;
        self.is_ack_lost = false;
        Some(numbering.sequence + (self.delivered - numbering.first) - 1)
    }

    /// Messages that wait for the consumer.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.waiting, self.waiting_size)
    }

    /// Messages that the consumer was handed, up to the last one that it is not done with.
    pub(super) fn handed_over(&self) -> usize {
        self.handed_over
    }

    /// The number of the next message to arrive.
    fn end(&self) -> u64 {
        self.delivered + length(self.slots.len())
    }
}

fn length(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits in 64 bits")
}

/// Messages that may wait for the consumer.
pub const WAITING_LENGTH_MAX: usize = 1_024;

/// Bytes of waiting messages from which on no more are read. One message of the largest size may come
/// on top, and another may be half read.
pub const WAITING_SIZE_MAX: usize = 4 << 20;

/// Messages that have arrived and that the consumer is not done with: as many as a sender may have in
/// flight, so that a consumer may hold them all.
pub const UNDELIVERED_MAX: usize = 16_384;

/// Messages after which an ack is sent though more are waiting: small against what may be in flight.
const ACK_EVERY: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64, size: usize) -> Sequenced {
        Sequenced {
            sequence,
            message: Some(Message { payload: vec![7; size].into(), ..Message::default() }),
            durable: false,
        }
    }

    fn durable(sequence: u64, id: &str) -> Sequenced {
        let message = Message { id: id.to_owned(), ..Message::default() };
        Sequenced { sequence, message: Some(message), durable: true }
    }

    fn with(sequences: impl IntoIterator<Item = u64>) -> Inbound {
        let mut inbound = Inbound::default();
        for sequence in sequences {
            inbound.push(frame(sequence, 10)).unwrap();
        }
        inbound
    }

    fn pop(inbound: &mut Inbound) -> u64 {
        inbound.pop(Instant::now()).unwrap().1
    }

    #[test]
    fn only_what_the_consumer_is_done_with_is_acknowledged() {
        let mut inbound = with(1..=3);
        let first = pop(&mut inbound);
        assert_eq!(inbound.ack_need(), AckNeed::None, "handed over is not delivered");
        inbound.settle(first);
        assert_eq!(inbound.ack_need(), AckNeed::Soon);
        assert_eq!(inbound.acknowledge(), Some(1));
        assert_eq!(inbound.ack_need(), AckNeed::None);
        let (second, third) = (pop(&mut inbound), pop(&mut inbound));
        inbound.settle(third);
        assert_eq!(inbound.ack_need(), AckNeed::None, "the second is still out");
        inbound.settle(second);
        assert_eq!(inbound.ack_need(), AckNeed::Now);
        assert_eq!(inbound.acknowledge(), Some(3));
    }

    #[test]
    fn a_long_queue_is_acknowledged_in_steps() {
        let mut inbound = with(1..=100);
        for _ in 0..63 {
            let number = pop(&mut inbound);
            inbound.settle(number);
            assert_eq!(inbound.ack_need(), AckNeed::Soon);
        }
        let number = pop(&mut inbound);
        inbound.settle(number);
        assert_eq!(inbound.ack_need(), AckNeed::Now);
    }

    #[test]
    fn a_slow_consumer_fills_a_bounded_queue() {
        let mut by_number = Inbound::default();
        for sequence in (1..).take(WAITING_LENGTH_MAX) {
            assert!(by_number.has_room());
            by_number.push(frame(sequence, 0)).unwrap();
        }
        assert!(!by_number.has_room());
        pop(&mut by_number);
        assert!(by_number.has_room());
        let mut by_bytes = Inbound::default();
        by_bytes.push(frame(1, WAITING_SIZE_MAX)).unwrap();
        assert!(!by_bytes.has_room());
    }

    #[test]
    fn a_consumer_that_keeps_all_it_was_handed_is_given_no_more_than_a_sender_may_send() {
        let mut inbound = Inbound::default();
        for sequence in (1..).take(UNDELIVERED_MAX) {
            assert!(inbound.has_room());
            inbound.push(frame(sequence, 0)).unwrap();
            pop(&mut inbound);
        }
        assert!(!inbound.has_room());
        inbound.settle(0);
        assert!(inbound.has_room());
    }

    #[test]
    fn messages_that_are_missing_or_empty_are_errors_and_doubled_ones_are_acknowledged_again() {
        let mut inbound = with([1]);
        for found in [0, 3] {
            assert_eq!(
                inbound.push(frame(found, 0)),
                Err(BadMessage::OutOfSequence { expected: 2, found })
            );
        }
        let empty = Sequenced { sequence: 2, message: None, durable: false };
        assert_eq!(inbound.push(empty), Err(BadMessage::Empty));
        let first = pop(&mut inbound);
        inbound.settle(first);
        inbound.acknowledge();
        assert_eq!(inbound.ack_need(), AckNeed::None);
        inbound.push(frame(1, 0)).unwrap();
        assert!(inbound.pop(Instant::now()).is_none(), "a double");
        assert_eq!(inbound.ack_need(), AckNeed::Now);
        assert_eq!(inbound.acknowledge(), Some(1));
    }

    #[test]
    fn with_no_memory_of_the_peer_any_number_is_the_first() {
        assert_eq!(
            Inbound::default().push(frame(0, 0)),
            Err(BadMessage::OutOfSequence { expected: 1, found: 0 })
        );
        let mut inbound = with(70..=72);
        assert_eq!(inbound.received(), Some(72));
        let number = pop(&mut inbound);
        inbound.settle(number);
        assert_eq!(inbound.acknowledge(), Some(70));
    }

    #[test]
    fn what_arrived_of_an_earlier_session_is_handed_over_but_not_acknowledged_to_the_next() {
        let mut inbound = with(8..=9);
        inbound.forget_numbering();
        assert_eq!(inbound.received(), None);
        inbound.push(frame(1, 0)).unwrap();
        for acknowledged in [None, None, Some(1)] {
            let number = pop(&mut inbound);
            inbound.settle(number);
            assert_eq!(inbound.acknowledge(), acknowledged);
        }
    }

    #[test]
    fn a_durable_message_that_was_handed_over_in_any_session_is_passed_over_and_acknowledged() {
        let mut inbound = Inbound::default();
        for (sequence, id) in [(1, "a"), (2, "a"), (3, "b")] {
            inbound.push(durable(sequence, id)).unwrap();
        }
        let a = pop(&mut inbound);
        let (b, number) = inbound.pop(Instant::now()).unwrap();
        assert_eq!(b.id, "b", "the second `a` is the first one again");
        inbound.settle(a);
        assert_eq!(inbound.acknowledge(), Some(2));
        inbound.settle(number);
        assert_eq!(inbound.acknowledge(), Some(3));
        inbound.forget_numbering();
        inbound.push(durable(1, "b")).unwrap();
        assert_eq!(inbound.pop(Instant::now()), None);
        assert_eq!(inbound.acknowledge(), Some(1));
    }
}
