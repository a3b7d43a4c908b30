//! The messages that have arrived and wait for the consumer, and what may be acknowledged of them.
//!
//! Pure. When there is no room the shell stops reading the message stream, and QUIC's flow control
//! slows the sender down; nothing is dropped.

use std::collections::VecDeque;

use thiserror::Error;

use crate::{
    proto::{Message, wire::Sequenced},
    transport::link::{
        outbound::cost,
        wire::{Oversize, check_size},
    },
};

/// The receiving half of a link.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    waiting: VecDeque<Message>,
    waiting_size: usize,
    /// Sequence number of the last message that arrived.
    received: u64,
    /// Sequence number of the last message that the consumer took.
    delivered: u64,
    /// Sequence number in the last ack.
    acknowledged: u64,
}

/// How soon the consumer's progress is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckNeed {
    /// There is nothing to tell.
    None,
    /// In a moment: the consumer is likely to take more at once.
    Soon,
    /// At once: the consumer has taken all there is, or much.
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
        self.waiting.len() < WAITING_LENGTH_MAX && self.waiting_size < WAITING_SIZE_MAX
    }

    /// Takes a message from the stream.
    pub(super) fn push(&mut self, frame: Sequenced) -> Result<(), BadMessage> {
        let expected = self.received + 1;
        if frame.sequence != expected {
            return Err(BadMessage::OutOfSequence { expected, found: frame.sequence });
        }
        let message = frame.message.ok_or(BadMessage::Empty)?;
        check_size(&message)?;
        self.received = expected;
        self.waiting_size += cost(&message);
        self.waiting.push_back(message);
        Ok(())
    }

    /// Hands the next message to the consumer.
    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.waiting.pop_front()?;
        self.waiting_size -= cost(&message);
        self.delivered += 1;
        Some(message)
    }

    /// Whether an ack is due.
    pub(super) fn ack_need(&self) -> AckNeed {
        match self.delivered - self.acknowledged {
            0 => AckNeed::None,
            newly if newly >= ACK_EVERY || self.waiting.is_empty() => AckNeed::Now,
            _ => AckNeed::Soon,
        }
    }

    /// What the next ack says.
    pub(super) fn acknowledge(&mut self) -> u64 {
        self.acknowledged = self.delivered;
        self.delivered
    }
}

/// Messages that may wait for the consumer.
const WAITING_LENGTH_MAX: usize = 1_024;

/// Bytes of waiting messages from which on no more are read. One message of the largest size may come
/// on top, and another may be half read.
const WAITING_SIZE_MAX: usize = 4 << 20;

/// Messages after which an ack is sent though more are waiting: small against what may be in flight.
const ACK_EVERY: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64, size: usize) -> Sequenced {
        Sequenced {
            sequence,
            message: Some(Message { payload: vec![7; size].into(), ..Message::default() }),
        }
    }

    #[test]
    fn only_what_the_consumer_took_is_acknowledged() {
        let mut inbound = Inbound::default();
        for sequence in 1..=3 {
            inbound.push(frame(sequence, 10)).unwrap();
        }
        assert_eq!(inbound.ack_need(), AckNeed::None);
        inbound.pop();
        assert_eq!(inbound.ack_need(), AckNeed::Soon);
        assert_eq!(inbound.acknowledge(), 1);
        assert_eq!(inbound.ack_need(), AckNeed::None);
        inbound.pop();
        inbound.pop();
        assert_eq!(inbound.ack_need(), AckNeed::Now);
        assert_eq!(inbound.acknowledge(), 3);
    }

    #[test]
    fn a_long_queue_is_acknowledged_in_steps() {
        let mut inbound = Inbound::default();
        for sequence in 1..=100 {
            inbound.push(frame(sequence, 10)).unwrap();
        }
        for _ in 0..63 {
            inbound.pop();
            assert_eq!(inbound.ack_need(), AckNeed::Soon);
        }
        inbound.pop();
        assert_eq!(inbound.ack_need(), AckNeed::Now);
    }

    #[test]
    fn a_slow_consumer_fills_a_bounded_queue() {
        let mut by_number = Inbound::default();
        for sequence in (1..).take_while(|&sequence| sequence <= 1_024) {
            assert!(by_number.has_room());
            by_number.push(frame(sequence, 0)).unwrap();
        }
        assert!(!by_number.has_room());
        by_number.pop();
        assert!(by_number.has_room());
        let mut by_bytes = Inbound::default();
        by_bytes.push(frame(1, WAITING_SIZE_MAX)).unwrap();
        assert!(!by_bytes.has_room());
    }

    #[test]
    fn messages_that_are_doubled_missing_or_empty_are_errors() {
        let mut inbound = Inbound::default();
        inbound.push(frame(1, 0)).unwrap();
        for found in [0, 1, 3] {
            assert_eq!(
                inbound.push(frame(found, 0)),
                Err(BadMessage::OutOfSequence { expected: 2, found })
            );
        }
        let empty = Sequenced { sequence: 2, message: None };
        assert_eq!(inbound.push(empty), Err(BadMessage::Empty));
    }
}
