//! The messages that a link has taken and not yet delivered: a queue, then those on their way, each
//! with a ticket for whoever waits.
//!
//! Pure: the shell asks for the next batch to write and reports what the peer acknowledged.

use std::collections::VecDeque;

use thiserror::Error;

use crate::{
    proto::{Message, wire::Sequenced},
    transport::link::wire::{Oversize, check_size},
};

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
    /// The link has ended, or is about to.
    #[error("the link has ended")]
    Ended,
}

/// The sending half of a link, with tickets of type `T`.
#[derive(Debug)]
pub(super) struct Outbound<T> {
    state: State,
    waiting: VecDeque<(Message, T)>,
    waiting_size: usize,
    /// Tickets of the messages from `delivered + 1` on.
    in_flight: VecDeque<T>,
    delivered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closed,
}

/// The peer acknowledged messages that were never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an ack of message {acknowledged} where {sent} were sent")]
pub(super) struct AckOfUnsent {
    acknowledged: u64,
    sent: u64,
}

impl<T> Outbound<T> {
    pub(super) fn new() -> Self {
        Self {
            state: State::Open,
            waiting: VecDeque::new(),
            waiting_size: 0,
            in_flight: VecDeque::new(),
            delivered: 0,
        }
    }

    /// Queues `message`.
    pub(super) fn push(&mut self, message: Message, ticket: T) -> Result<(), SendError> {
        check_size(&message)?;
        let size = cost(&message);
        match self.state {
            State::Closed => Err(SendError::Ended),
            State::Open if !self.has_room(size) => {
                Err(SendError::QueueFull { length: self.waiting.len(), size: self.waiting_size })
            }
            State::Open => {
                self.waiting_size += size;
                self.waiting.push_back((message, ticket));
                Ok(())
            }
        }
    }

    /// Moves the next messages to `batch`: [`BATCH_SIZE`] bytes of them, or a single larger one.
    pub(super) fn pop_batch(&mut self, batch: &mut Vec<Sequenced>) {
        let mut batch_size = 0;
        while let Some((message, _)) = self.waiting.front() {
            let size = cost(message);
            let fits = batch.is_empty() || batch_size + size <= BATCH_SIZE;
            if !fits || self.in_flight.len() >= IN_FLIGHT_MAX {
                return;
            }
            let (message, ticket) = self.waiting.pop_front().expect("there is a front");
            batch_size += size;
            self.waiting_size -= size;
            self.in_flight.push_back(ticket);
            batch.push(Sequenced { sequence: self.sent(), message: Some(message) });
        }
    }

    /// The tickets of all messages that the peer has now, up to sequence number `delivered`.
    pub(super) fn acknowledge(
        &mut self,
        delivered: u64,
    ) -> Result<impl Iterator<Item = T> + use<'_, T>, AckOfUnsent> {
        if delivered > self.sent() {
            return Err(AckOfUnsent { acknowledged: delivered, sent: self.sent() });
        }
        let newly = delivered.saturating_sub(self.delivered);
        self.delivered += newly;
        let newly = usize::try_from(newly).expect("no more than are in flight");
        Ok(self.in_flight.drain(..newly))
    }

    /// Takes no more messages; those that wait still go out.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Whether everything was delivered.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Gives up: the tickets of all messages that were not acknowledged.
    pub(super) fn abandon(&mut self) -> Vec<T> {
        self.close();
        self.waiting_size = 0;
        let waiting = self.waiting.drain(..).map(|(_, ticket)| ticket);
        self.in_flight.drain(..).chain(waiting).collect()
    }

    fn sent(&self) -> u64 {
        self.delivered + u64::try_from(self.in_flight.len()).expect("a length fits in 64 bits")
    }

    fn has_room(&self, size: usize) -> bool {
        self.waiting.len() < QUEUE_LENGTH_MAX && self.waiting_size + size <= QUEUE_SIZE_MAX
    }
}

/// What a message takes of a queue's budget, in bytes.
pub(super) fn cost(message: &Message) -> usize {
    let metadata = message.metadata.iter();
    let metadata: usize = metadata.map(|(key, value)| key.len() + value.len()).sum();
    message.payload.len() + message.id.len() + message.r#type.len() + metadata
}

/// Messages that may wait to be written: some tens of milliseconds of small ones.
pub const QUEUE_LENGTH_MAX: usize = 1_024;

/// Bytes that may wait to be written: one message of the largest size while another is written.
pub const QUEUE_SIZE_MAX: usize = 32 << 20;

/// Messages that may be written and not acknowledged; beyond, the queue waits. 160,000 messages a
/// second at a round trip of 100 ms.
const IN_FLIGHT_MAX: usize = 16_384;

/// Bytes of messages that are encoded and written at once: enough that the cost of a write does not
/// show, little enough that the next ack need not wait.
const BATCH_SIZE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::link::wire::MESSAGE_SIZE_MAX;

    fn message(size: usize) -> Message {
        Message { payload: vec![7; size].into(), ..Message::default() }
    }

    fn batch(outbound: &mut Outbound<u32>) -> Vec<u64> {
        let mut batch = Vec::new();
        outbound.pop_batch(&mut batch);
        batch.iter().map(|frame| frame.sequence).collect()
    }

    fn acknowledge(outbound: &mut Outbound<u32>, delivered: u64) -> Result<Vec<u32>, AckOfUnsent> {
        outbound.acknowledge(delivered).map(Iterator::collect)
    }

    #[test]
    fn messages_are_numbered_from_one_and_their_tickets_come_back_in_order() {
        let mut outbound = Outbound::new();
        for ticket in 1..=4 {
            outbound.push(message(10), ticket).unwrap();
        }
        assert_eq!(batch(&mut outbound), [1, 2, 3, 4]);
        assert_eq!(acknowledge(&mut outbound, 3), Ok(vec![1, 2, 3]));
        assert_eq!(acknowledge(&mut outbound, 3), Ok(vec![]), "again");
        assert_eq!(acknowledge(&mut outbound, 2), Ok(vec![]), "late");
        assert!(!outbound.is_empty());
        assert_eq!(acknowledge(&mut outbound, 4), Ok(vec![4]));
        assert!(outbound.is_empty());
    }

    #[test]
    fn an_ack_of_what_was_never_sent_is_an_error() {
        let mut outbound = Outbound::new();
        outbound.push(message(10), 1).unwrap();
        assert!(acknowledge(&mut outbound, 1).is_err(), "still waiting");
        batch(&mut outbound);
        assert_eq!(
            acknowledge(&mut outbound, u64::MAX),
            Err(AckOfUnsent { acknowledged: u64::MAX, sent: 1 })
        );
    }

    #[test]
    fn the_queue_is_full_by_number_or_by_bytes() {
        let mut outbound = Outbound::new();
        for ticket in 0..1_024 {
            outbound.push(message(1), ticket).unwrap();
        }
        assert_eq!(
            outbound.push(message(1), 0),
            Err(SendError::QueueFull { length: 1_024, size: 1_024 })
        );
        let mut outbound = Outbound::new();
        outbound.push(message(MESSAGE_SIZE_MAX), 0).unwrap();
        outbound.push(message(MESSAGE_SIZE_MAX), 0).unwrap();
        assert!(matches!(
            outbound.push(message(1), 0),
            Err(SendError::QueueFull { length: 2, .. })
        ));
        assert_eq!(batch(&mut outbound), [1]);
        assert_eq!(outbound.push(message(1), 0), Ok(()));
    }

    #[test]
    fn a_large_message_is_a_batch_of_its_own() {
        let mut outbound = Outbound::new();
        for size in [40_000, 20_000, 20_000, 1_000_000, 1] {
            outbound.push(message(size), 0).unwrap();
        }
        assert_eq!(batch(&mut outbound), [1, 2]);
        assert_eq!(batch(&mut outbound), [3]);
        assert_eq!(batch(&mut outbound), [4]);
        assert_eq!(batch(&mut outbound), [5]);
        assert_eq!(batch(&mut outbound), [0; 0]);
    }

    #[test]
    fn what_is_in_flight_is_limited_so_that_the_queue_waits() {
        let mut outbound = Outbound::new();
        for ticket in 0..IN_FLIGHT_MAX {
            outbound.push(message(0), u32::try_from(ticket).unwrap()).unwrap();
            batch(&mut outbound);
        }
        outbound.push(message(0), 7).unwrap();
        assert_eq!(batch(&mut outbound), [0; 0]);
        acknowledge(&mut outbound, 1).unwrap();
        assert_eq!(batch(&mut outbound), [16_385]);
    }

    #[test]
    fn giving_up_returns_every_ticket_once() {
        let mut outbound = Outbound::new();
        for (size, ticket) in [(1, 1), (1, 2), (1_000_000, 3), (1, 4)] {
            outbound.push(message(size), ticket).unwrap();
        }
        batch(&mut outbound);
        acknowledge(&mut outbound, 1).unwrap();
        assert_eq!(outbound.abandon(), [2, 3, 4]);
        assert_eq!(outbound.abandon(), [0; 0]);
        assert_eq!(outbound.push(message(1), 5), Err(SendError::Ended));
    }
}
