//! The messages that a session has taken and that are not yet delivered: a queue of those that were never
//! written, then those that were, each with a ticket for whoever waits.
//!
//! Pure: the shell asks for the next frames to write and reports what the peer acknowledged. What was
//! written stays here until it is acknowledged, and is written again when another link takes over.

use std::collections::VecDeque;

use thiserror::Error;

use super::message::{Outgoing, Oversize};
use crate::transport::frame::Chunks;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// A part of it is larger than it may be.
    #[error(transparent)]
    TooLarge(#[from] Oversize),
    /// [`QUEUE_LENGTH_MAX`] messages or [`QUEUE_SIZE_MAX`] bytes wait already.
    #[error("{length} messages of {size} bytes wait to be sent already")]
    QueueFull {
        /// Messages waiting.
        length: usize,
        /// Bytes waiting.
        size: usize,
    },
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

/// The sending half of a session, with tickets of type `T`.
#[derive(Debug)]
pub(super) struct Outbound<T> {
    waiting: VecDeque<Waiting<T>>,
    waiting_size: usize,
    next_number: u64,
    /// The messages from `delivered + 1` on that were written to some link.
    in_flight: VecDeque<(Outgoing, T)>,
    in_flight_size: usize,
    delivered: u64,
    gate: Gate,
}

/// A message that was never written.
#[derive(Debug)]
struct Waiting<T> {
    /// Names it until it has a sequence number.
    number: u64,
    message: Outgoing,
    ticket: T,
}

/// What may be written to the link that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// Nothing: there is no link, or the peer has yet to say what it has of the messages in flight.
    Shut,
    /// The messages in flight after the first `passed`, then those that wait.
    Open { passed: usize },
}

/// The peer speaks of messages that were never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("message {named} is said to have arrived where {sent} were sent")]
pub(super) struct NeverSent {
    named: u64,
    sent: u64,
}

impl<T> Outbound<T> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_size: 0,
            next_number: 0,
            in_flight: VecDeque::new(),
            in_flight_size: 0,
            delivered: 0,
            gate: Gate::Shut,
        }
    }

    /// Whether a message that takes `size` of the budget finds room in the queue.
    pub(super) fn check_room(&self, size: usize) -> Result<(), SendError> {
        if self.waiting.len() < QUEUE_LENGTH_MAX && self.waiting_size + size <= QUEUE_SIZE_MAX {
            return Ok(());
        }
        Err(SendError::QueueFull { length: self.waiting.len(), size: self.waiting_size })
    }

    /// Queues a message for which there is room, and gives the number by which it can be withdrawn.
    pub(super) fn push(&mut self, message: Outgoing, ticket: T) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting_size += message.cost();
        self.waiting.push_back(Waiting { number, message, ticket });
        number
    }

    /// Takes back message `number`, if it was never written.
    pub(super) fn withdraw(&mut self, number: u64) -> Option<T> {
        let index = self.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        let waiting = self.waiting.remove(index)?;
        self.waiting_size -= waiting.message.cost();
        Some(waiting.ticket)
    }

    /// Another link takes over. With nothing in flight, it may be written to at once.
    pub(super) fn attach(&mut self) {
        self.gate = if self.in_flight.is_empty() { Gate::Open { passed: 0 } } else { Gate::Shut };
    }

    /// There is no link any more.
    pub(super) fn detach(&mut self) {
        self.gate = Gate::Shut;
    }

    /// The peer has all messages up to `received`; what else is in flight from earlier links is written
    /// again.
    pub(super) fn resume(&mut self, received: u64) -> Result<(), NeverSent> {
        self.check_sent(received)?;
        if self.gate == Gate::Shut {
            let passed = usize::try_from(received.saturating_sub(self.delivered));
            self.gate = Gate::Open { passed: passed.expect("no more than are in flight") };
        }
        Ok(())
    }

    /// The tickets of what is in flight from earlier links: nobody knows what became of it.
    pub(super) fn lose_in_flight(&mut self) -> Vec<T> {
        // With the gate open, this link alone has carried what is in flight.
        if self.gate != Gate::Shut {
            return Vec::new();
        }
        self.delivered = self.sent();
        self.in_flight_size = 0;
        self.in_flight.drain(..).map(|(_, ticket)| ticket).collect()
    }

    /// Writes the next messages: [`BATCH_SIZE`] bytes of them, or a single larger one.
    pub(super) fn pop_batch(&mut self, out: &mut Chunks) -> usize {
        let Gate::Open { mut passed } = self.gate else { return 0 };
        let (mut count, mut batch_size) = (0, 0);
        while batch_size < BATCH_SIZE {
            if passed == self.in_flight.len() && !self.launch(BATCH_SIZE - batch_size, count) {
                break;
            }
            let Some((message, _)) = self.in_flight.get(passed) else { break };
            if count > 0 && batch_size + message.cost() > BATCH_SIZE {
                break;
            }
            let index = u64::try_from(passed).expect("a length fits in 64 bits");
            message.write(self.delivered + index + 1, out);
            batch_size += message.cost();
            count += 1;
            passed += 1;
        }
        self.gate = Gate::Open { passed };
        count
    }

    /// Puts the next message that waits in flight, if it may be and fits into the rest of a batch.
    fn launch(&mut self, room: usize, batch_length: usize) -> bool {
        let may =
            self.in_flight.len() < IN_FLIGHT_LENGTH_MAX && self.in_flight_size < IN_FLIGHT_SIZE_MAX;
        let next = self.waiting.front().map(|waiting| waiting.message.cost());
        if !may || next.is_none_or(|size| size > room && batch_length > 0) {
            return false;
        }
        let Some(Waiting { message, ticket, .. }) = self.waiting.pop_front() else {
            return false;
        };
        self.waiting_size -= message.cost();
        self.in_flight_size += message.cost();
        self.in_flight.push_back((message, ticket));
        true
    }

    /// Adds to `settled` the tickets of all messages that the peer's consumer has now, up to sequence
    /// number `delivered`.
    pub(super) fn acknowledge(
        &mut self,
        delivered: u64,
        mut settled: impl FnMut(T),
    ) -> Result<(), NeverSent> {
        self.check_sent(delivered)?;
        let newly = delivered.saturating_sub(self.delivered);
        self.delivered += newly;
        let newly = usize::try_from(newly).expect("no more than are in flight");
        for (message, ticket) in self.in_flight.drain(..newly) {
            self.in_flight_size -= message.cost();
            settled(ticket);
        }
        if let Gate::Open { passed } = &mut self.gate {
            *passed = passed.saturating_sub(newly);
        }
        Ok(())
    }

    /// The tickets of all messages that were never written.
    pub(super) fn abandon_waiting(&mut self) -> Vec<T> {
        self.waiting_size = 0;
        self.waiting.drain(..).map(|waiting| waiting.ticket).collect()
    }

    /// Messages and bytes that wait.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.waiting_size)
    }

    /// Messages and bytes that were written and are not acknowledged.
    pub(super) fn in_flight(&self) -> (usize, usize) {
        (self.in_flight.len(), self.in_flight_size)
    }

    /// The tickets of all messages that are not delivered.
    pub(super) fn tickets(&self) -> impl Iterator<Item = &T> {
        let in_flight = self.in_flight.iter().map(|(_, ticket)| ticket);
        in_flight.chain(self.waiting.iter().map(|waiting| &waiting.ticket))
    }

    /// Whether everything was delivered.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    fn check_sent(&self, named: u64) -> Result<(), NeverSent> {
        let sent = self.sent();
        if named <= sent { Ok(()) } else { Err(NeverSent { named, sent }) }
    }

    fn sent(&self) -> u64 {
        self.delivered + u64::try_from(self.in_flight.len()).expect("a length fits in 64 bits")
    }
}

/// Messages that may wait to be written: some tens of milliseconds of small ones.
pub const QUEUE_LENGTH_MAX: usize = 1_024;

/// Bytes that may wait to be written: one message of the largest size while another is written.
pub const QUEUE_SIZE_MAX: usize = 32 << 20;

/// Messages that may be written and not acknowledged; beyond, the queue waits. 160,000 messages a
/// second at a round trip of 100 ms.
pub const IN_FLIGHT_LENGTH_MAX: usize = 16_384;

/// Bytes written and not acknowledged from which on the queue waits. One message of the largest size may
/// come on top. They are kept to be sent again; four times what QUIC lets a peer have unread.
pub const IN_FLIGHT_SIZE_MAX: usize = 32 << 20;

/// Bytes of messages that are encoded at once, while nobody can send: some microseconds' worth.
const BATCH_SIZE: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        proto::{Message, wire::Sequenced},
        transport::{
            frame::Deframer,
            session::message::{Durability, MESSAGE_SIZE_MAX},
        },
    };

    fn message(size: usize) -> Message {
        Message { payload: vec![7; size].into(), ..Message::default() }
    }

    fn push(outbound: &mut Outbound<u32>, size: usize, ticket: u32) -> Result<u64, SendError> {
        let message = message(size);
        outbound.check_room(size)?;
        Ok(outbound.push(Outgoing::new(message, Durability::Volatile)?, ticket))
    }

    /// One that is attached to its first link, with a message of each size in its queue.
    fn linked(sizes: &[usize]) -> Outbound<u32> {
        let mut outbound = Outbound::new();
        outbound.attach();
        for (ticket, &size) in (1..).zip(sizes) {
            push(&mut outbound, size, ticket).unwrap();
        }
        outbound
    }

    fn batch(outbound: &mut Outbound<u32>) -> Vec<u64> {
        let mut chunks = Chunks::default();
        let count = outbound.pop_batch(&mut chunks);
        let mut deframer = Deframer::<Sequenced>::new();
        deframer.buffer().extend_from_slice(&chunks.take().concat());
        let frames = std::iter::from_fn(|| deframer.pop().unwrap());
        let sequences: Vec<_> = frames.map(|frame| frame.sequence).collect();
        assert_eq!(sequences.len(), count);
        sequences
    }

    fn acknowledge(outbound: &mut Outbound<u32>, delivered: u64) -> Result<Vec<u32>, NeverSent> {
        let mut tickets = Vec::new();
        outbound.acknowledge(delivered, |ticket| tickets.push(ticket))?;
        Ok(tickets)
    }

    #[test]
    fn messages_are_numbered_from_one_and_their_tickets_come_back_in_order() {
        let mut outbound = linked(&[10; 4]);
        assert_eq!(batch(&mut outbound), [1, 2, 3, 4]);
        assert_eq!(acknowledge(&mut outbound, 3), Ok(vec![1, 2, 3]));
        assert_eq!(acknowledge(&mut outbound, 3), Ok(vec![]), "again");
        assert_eq!(acknowledge(&mut outbound, 2), Ok(vec![]), "late");
        assert!(!outbound.is_empty());
        assert_eq!(acknowledge(&mut outbound, 4), Ok(vec![4]));
        assert!(outbound.is_empty());
        assert_eq!(outbound.in_flight(), (0, 0));
    }

    #[test]
    fn an_ack_of_what_was_never_sent_is_an_error() {
        let mut outbound = linked(&[10]);
        assert!(acknowledge(&mut outbound, 1).is_err(), "still waiting");
        batch(&mut outbound);
        let never_sent = NeverSent { named: u64::MAX, sent: 1 };
        assert_eq!(acknowledge(&mut outbound, u64::MAX), Err(never_sent));
        assert_eq!(outbound.resume(u64::MAX), Err(never_sent));
    }

    #[test]
    fn the_queue_is_full_by_number_or_by_bytes() {
        let mut outbound = linked(&[1; 1_024]);
        let full = SendError::QueueFull { length: 1_024, size: 1_024 };
        assert_eq!(push(&mut outbound, 1, 0), Err(full));
        let mut outbound = linked(&[MESSAGE_SIZE_MAX; 2]);
        assert!(matches!(push(&mut outbound, 1, 0), Err(SendError::QueueFull { length: 2, .. })));
        assert_eq!(batch(&mut outbound), [1]);
        assert!(push(&mut outbound, 1, 0).is_ok());
    }

    #[test]
    fn a_large_message_is_a_batch_of_its_own() {
        let mut outbound = linked(&[5_000, 2_500, 2_500, 1_000_000, 1]);
        assert_eq!(batch(&mut outbound), [1, 2]);
        assert_eq!(batch(&mut outbound), [3]);
        assert_eq!(batch(&mut outbound), [4]);
        assert_eq!(batch(&mut outbound), [5]);
        assert_eq!(batch(&mut outbound), [0; 0]);
    }

    #[test]
    fn what_is_in_flight_is_limited_by_number_and_by_bytes_so_that_the_queue_waits() {
        let mut outbound = linked(&[]);
        for ticket in 0..IN_FLIGHT_LENGTH_MAX {
            push(&mut outbound, 0, u32::try_from(ticket).unwrap()).unwrap();
            batch(&mut outbound);
        }
        push(&mut outbound, 0, 7).unwrap();
        assert_eq!(batch(&mut outbound), [0; 0]);
        acknowledge(&mut outbound, 1).unwrap();
        assert_eq!(batch(&mut outbound), [16_385]);

        let mut outbound = linked(&[IN_FLIGHT_SIZE_MAX / 2 - 1; 2]);
        assert_eq!([batch(&mut outbound), batch(&mut outbound)], [[1], [2]]);
        push(&mut outbound, MESSAGE_SIZE_MAX, 0).unwrap();
        push(&mut outbound, 0, 0).unwrap();
        assert_eq!(batch(&mut outbound), [3], "one on top");
        assert_eq!(batch(&mut outbound), [0; 0]);
        acknowledge(&mut outbound, 2).unwrap();
        assert_eq!(batch(&mut outbound), [4]);
    }

    #[test]
    fn the_next_link_goes_on_where_the_peer_says_and_not_before() {
        let mut outbound = linked(&[10; 4]);
        batch(&mut outbound);
        acknowledge(&mut outbound, 1).unwrap();
        outbound.detach();
        push(&mut outbound, 10, 5).unwrap();
        assert_eq!(batch(&mut outbound), [0; 0], "no link");
        outbound.attach();
        assert_eq!(batch(&mut outbound), [0; 0], "the peer has not said what it has");
        outbound.resume(3).unwrap();
        assert_eq!(batch(&mut outbound), [4, 5]);
        assert_eq!(acknowledge(&mut outbound, 5), Ok(vec![2, 3, 4, 5]));
    }

    #[test]
    fn what_went_out_at_once_is_not_sent_again_when_the_peer_resumes() {
        let mut outbound = linked(&[10; 2]);
        batch(&mut outbound);
        assert_eq!(outbound.lose_in_flight(), [0; 0], "it is this link's");
        outbound.resume(0).unwrap();
        assert_eq!(batch(&mut outbound), [0; 0]);
    }

    #[test]
    fn what_is_lost_leaves_the_queue_and_its_numbers_alone() {
        let mut outbound = linked(&[10; 3]);
        batch(&mut outbound);
        acknowledge(&mut outbound, 1).unwrap();
        push(&mut outbound, 10, 4).unwrap();
        outbound.detach();
        assert_eq!(outbound.lose_in_flight(), [2, 3]);
        outbound.attach();
        assert_eq!(batch(&mut outbound), [4]);
        assert_eq!(acknowledge(&mut outbound, 4), Ok(vec![4]));
    }

    #[test]
    fn a_message_can_be_withdrawn_until_it_was_written() {
        let mut outbound = linked(&[10; 1]);
        batch(&mut outbound);
        let number = push(&mut outbound, 20, 2).unwrap();
        push(&mut outbound, 30, 3).unwrap();
        assert_eq!(outbound.withdraw(0), None, "written");
        assert_eq!(outbound.withdraw(number), Some(2));
        assert_eq!(outbound.withdraw(number), None, "twice");
        assert_eq!(outbound.waiting(), (1, 30));
        assert_eq!(batch(&mut outbound), [2]);
        assert_eq!(acknowledge(&mut outbound, 2), Ok(vec![1, 3]));
    }
}
