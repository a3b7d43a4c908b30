//! What a message may be, and how it travels.

use bytes::BytesMut;
use prost::{
    Message as _,
    encoding::{
        DecodeContext, WireType, bool, btree_map, decode_key, decode_varint, encode_key,
        encode_varint, encoded_len_varint, int64, key_len, skip_field, string, uint64,
    },
};
use thiserror::Error;

use crate::{
    proto::{Message, wire::Sequenced},
    transport::frame::{Chunks, Frame, FrameError},
};

/// Bytes of a payload.
pub const MESSAGE_SIZE_MAX: usize = 16 << 20;

/// The part of a message that is larger than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the {part} of a message is {size}, {size_max} are allowed")]
pub struct Oversize {
    /// For people.
    pub part: &'static str,
    /// Bytes, or entries.
    pub size: usize,
    /// The limit.
    pub size_max: usize,
}

/// Whether a message may be sent again in another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It lives as long as its session.
    Volatile,
    /// Its sender keeps it beyond the session. The receiver hands over each message id once, see
    /// [`Doubles`](super::Doubles).
    Durable,
}

/// Checks what message.proto promises, and says what the message takes of a queue's budget, in bytes.
pub(super) fn check_size(message: &Message) -> Result<usize, Oversize> {
    let metadata_size = metadata_size(message);
    let parts = [
        ("payload", message.payload.len(), MESSAGE_SIZE_MAX),
        ("id", message.id.len(), NAME_SIZE_MAX),
        ("type", message.r#type.len(), NAME_SIZE_MAX),
        ("number of metadata entries", message.metadata.len(), METADATA_ENTRIES_MAX),
        ("metadata", metadata_size, METADATA_SIZE_MAX),
    ];
    match parts.into_iter().find(|&(_, size, size_max)| size > size_max) {
        None => Ok(cost_with(message, metadata_size)),
        Some((part, size, size_max)) => Err(Oversize { part, size, size_max }),
    }
}

/// What a message takes of a queue's budget, in bytes.
pub fn cost(message: &Message) -> usize {
    cost_with(message, metadata_size(message))
}

fn cost_with(message: &Message, metadata_size: usize) -> usize {
    message.payload.len() + message.id.len() + message.r#type.len() + metadata_size
}

fn metadata_size(message: &Message) -> usize {
    message.metadata.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// A message as it is kept for sending: as the user gave it.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    message: Message,
    durability: Durability,
    cost: usize,
}

impl Outgoing {
    /// A message that is not larger than it may be.
    pub(super) fn new(message: Message, durability: Durability) -> Result<Self, Oversize> {
        let cost = check_size(&message)?;
        Ok(Self { message, durability, cost })
    }

    /// What it takes of a queue's budget, in bytes.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// Writes the frame in which this is message number `sequence`.
    pub(super) fn write(&self, sequence: u64, out: &mut Chunks) {
        let message_size = self.message.encoded_len();
        let mut size = uint64::encoded_len(SEQUENCED_SEQUENCE, &sequence)
            + key_len(SEQUENCED_MESSAGE)
            + encoded_len_varint(wide(message_size))
            + message_size;
        let durable = self.durability == Durability::Durable;
        if durable {
            size += bool::encoded_len(SEQUENCED_DURABLE, &durable);
        }
        let growing = out.growing();
        encode_varint(wide(size), growing);
        uint64::encode(SEQUENCED_SEQUENCE, &sequence, growing);
        if durable {
            bool::encode(SEQUENCED_DURABLE, &durable, growing);
        }
        encode_key(SEQUENCED_MESSAGE, WireType::LengthDelimited, growing);
        encode_varint(wide(message_size), growing);
        if self.message.payload.len() < UNCOPIED_SIZE_MIN {
            self.message.encode_raw(growing);
        } else {
            encode_but_payload(&self.message, growing);
            out.push_uncopied(self.message.payload.clone());
        }
    }
}

/// Encodes all of a message up to the bytes of its payload. Protobuf allows fields in any order: with the
/// payload last, it need not be copied to become part of the frame.
fn encode_but_payload(message: &Message, out: &mut BytesMut) {
    let Message { id, r#type, payload, timestamp, metadata } = message;
    if !id.is_empty() {
        string::encode(MESSAGE_ID, id, out);
    }
    if !r#type.is_empty() {
        string::encode(MESSAGE_TYPE, r#type, out);
    }
    if *timestamp != 0 {
        int64::encode(MESSAGE_TIMESTAMP, timestamp, out);
    }
    btree_map::encode(
        string::encode,
        string::encoded_len,
        string::encode,
        string::encoded_len,
        MESSAGE_METADATA,
        metadata,
        out,
    );
    encode_key(MESSAGE_PAYLOAD, WireType::LengthDelimited, out);
    encode_varint(wide(payload.len()), out);
}

impl Frame for Sequenced {
    const SIZE_MAX: usize = MESSAGE_SIZE_MAX + OVERHEAD_SIZE_MAX;

    /// A frame full of tiny metadata entries would become a map of many times its size.
    fn inspect(encoding: &[u8]) -> Result<(), FrameError> {
        let payload = payload_size(encoding).ok_or(FrameError::Malformed)?;
        let overhead = encoding.len().saturating_sub(payload);
        if overhead <= OVERHEAD_SIZE_MAX {
            return Ok(());
        }
        Err(FrameError::TooLarge { size: wide(overhead), size_max: OVERHEAD_SIZE_MAX })
    }
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).expect("a size fits in 64 bits")
}

/// Bytes of all payload fields in an encoded `Sequenced`.
fn payload_size(sequenced: &[u8]) -> Option<usize> {
    let mut size = 0;
    each_field(sequenced, |tag, content| {
        if tag == SEQUENCED_MESSAGE {
            each_field(content, |tag, content| {
                if tag == MESSAGE_PAYLOAD {
                    size += content.len();
                }
                Some(())
            })?;
        }
        Some(())
    })?;
    Some(size)
}

/// Visits the length-delimited fields of a message; `None` if it is malformed.
fn each_field<'a>(
    mut rest: &'a [u8],
    mut visit: impl FnMut(u32, &'a [u8]) -> Option<()>,
) -> Option<()> {
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).ok()?;
        if wire_type == WireType::LengthDelimited {
            let size = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let (content, after) = rest.split_at_checked(size)?;
            visit(tag, content)?;
            rest = after;
        } else {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).ok()?;
        }
    }
    Some(())
}

/// Bytes of everything in a message frame but the payload: the metadata, both names, and room to grow.
const OVERHEAD_SIZE_MAX: usize = 128 << 10;

/// Bytes of `id` and of `type`.
const NAME_SIZE_MAX: usize = 128;

/// Entries of `metadata`.
const METADATA_ENTRIES_MAX: usize = 64;

/// Bytes of `metadata`, keys and values together.
const METADATA_SIZE_MAX: usize = 64 << 10;

/// Bytes of payload from which on a chunk of its own is cheaper than a copy.
const UNCOPIED_SIZE_MIN: usize = 8 << 10;

const SEQUENCED_SEQUENCE: u32 = 1;
const SEQUENCED_MESSAGE: u32 = 2;
const SEQUENCED_DURABLE: u32 = 3;
const MESSAGE_ID: u32 = 1;
const MESSAGE_TYPE: u32 = 2;
const MESSAGE_PAYLOAD: u32 = 3;
const MESSAGE_TIMESTAMP: u32 = 4;
const MESSAGE_METADATA: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::frame::Deframer;

    #[test]
    fn the_limits_of_a_message_are_inclusive() {
        let message = |payload: usize, id: usize, entries: usize| Message {
            id: "i".repeat(id),
            payload: vec![0; payload].into(),
            metadata: (0..entries).map(|n| (n.to_string(), String::new())).collect(),
            ..Message::default()
        };
        let within = message(MESSAGE_SIZE_MAX, 128, 64);
        assert_eq!(check_size(&within), Ok(cost(&within)));
        let part = |message| check_size(&message).map_err(|oversize| oversize.part);
        assert_eq!(part(message(MESSAGE_SIZE_MAX + 1, 0, 0)), Err("payload"));
        assert_eq!(part(message(0, 129, 0)), Err("id"));
        assert_eq!(part(message(0, 0, 65)), Err("number of metadata entries"));
    }

    fn largest() -> Message {
        Message {
            id: "i".repeat(NAME_SIZE_MAX),
            r#type: "t".repeat(NAME_SIZE_MAX),
            payload: vec![0; MESSAGE_SIZE_MAX].into(),
            timestamp: i64::MIN,
            metadata: (10..74).map(|n| (n.to_string(), "v".repeat(1_022))).collect(),
        }
    }

    #[test]
    fn the_largest_message_fits_into_a_frame() {
        assert_eq!(check_size(&largest()), Ok(cost(&largest())));
        let frame = Sequenced { sequence: u64::MAX, message: Some(largest()), durable: true };
        assert!(frame.encoded_len() <= Sequenced::SIZE_MAX);
        assert_eq!(Sequenced::inspect(&frame.encode_to_vec()), Ok(()));
    }

    #[test]
    fn a_frame_of_many_tiny_entries_is_refused_before_it_is_decoded() {
        let message = Message {
            metadata: (0..20_000).map(|n| (n.to_string(), String::new())).collect(),
            ..Message::default()
        };
        let frame = Sequenced { sequence: 1, message: Some(message), durable: false };
        assert!(matches!(
            Sequenced::inspect(&frame.encode_to_vec()),
            Err(FrameError::TooLarge { .. })
        ));
    }

    #[test]
    fn what_is_written_is_the_frame_of_the_schema() {
        let sizes = [0, 1, UNCOPIED_SIZE_MIN - 1, UNCOPIED_SIZE_MIN, MESSAGE_SIZE_MAX];
        for (size, rest) in
            sizes.into_iter().flat_map(|size| [(size, largest()), (size, Message::default())])
        {
            let message = Message { payload: vec![7; size].into(), ..rest };
            let mut chunks = Chunks::default();
            Outgoing::new(message.clone(), Durability::Durable).unwrap().write(300, &mut chunks);
            Outgoing::new(message.clone(), Durability::Volatile).unwrap().write(301, &mut chunks);
            let mut deframer = Deframer::<Sequenced>::new();
            deframer.buffer().extend_from_slice(&chunks.take().concat());
            let frame =
                |sequence, durable| Sequenced { sequence, message: Some(message.clone()), durable };
            assert_eq!(deframer.pop(), Ok(Some(frame(300, true))));
            assert_eq!(deframer.pop(), Ok(Some(frame(301, false))));
            assert_eq!(deframer.finish(), Ok(()));
        }
    }

    #[test]
    fn a_large_payload_is_not_copied_however_often_it_is_sent() {
        let message = Message { payload: vec![7; 1 << 20].into(), ..Message::default() };
        let payload = message.payload.as_ptr();
        let outgoing = Outgoing::new(message, Durability::Volatile).unwrap();
        for sequence in [1, 1] {
            let mut chunks = Chunks::default();
            outgoing.write(sequence, &mut chunks);
            assert_eq!(chunks.take()[1].as_ptr(), payload);
        }
    }
}
