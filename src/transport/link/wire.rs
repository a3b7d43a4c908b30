//! The frames of a link, and what a message may be.

use std::mem;

use bytes::{Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{
        DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint,
        encoded_len_varint, key_len, skip_field, uint64,
    },
};
use thiserror::Error;

use crate::{
    proto::{
        Message,
        wire::{Ack, Bye, Control, Hello, Ping, Pong, Sequenced, Welcome, control::Kind},
    },
    transport::frame::{Frame, FrameError},
};

/// Bytes of a payload.
pub const MESSAGE_SIZE_MAX: usize = 16 << 20;

/// The version of the protocol in every hello.
pub(super) const VERSION: u32 = 1;

/// First byte of a control stream.
pub(super) const CONTROL_STREAM: u8 = 1;

/// First byte of a message stream.
pub(super) const MESSAGE_STREAM: u8 = 2;

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

/// Checks what message.proto promises.
pub(super) fn check_size(message: &Message) -> Result<(), Oversize> {
    let metadata = message.metadata.iter();
    let metadata_size = metadata.map(|(key, value)| key.len() + value.len()).sum();
    let parts = [
        ("payload", message.payload.len(), MESSAGE_SIZE_MAX),
        ("id", message.id.len(), NAME_SIZE_MAX),
        ("type", message.r#type.len(), NAME_SIZE_MAX),
        ("number of metadata entries", message.metadata.len(), METADATA_ENTRIES_MAX),
        ("metadata", metadata_size, METADATA_SIZE_MAX),
    ];
    match parts.into_iter().find(|&(_, size, size_max)| size > size_max) {
        None => Ok(()),
        Some((part, size, size_max)) => Err(Oversize { part, size, size_max }),
    }
}

impl Frame for Control {
    const SIZE_MAX: usize = 64 << 10;
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

    /// Protobuf allows fields in any order: with the payload last, it need not be copied to become part
    /// of the frame.
    fn encode_parts(self, out: &mut BytesMut) -> Bytes {
        let Self { sequence, message } = self;
        let mut message = message.unwrap_or_default();
        let mut payload = Bytes::new();
        let mut payload_head = BytesMut::new();
        if message.payload.len() >= UNCOPIED_SIZE_MIN {
            payload = mem::take(&mut message.payload);
            encode_key(MESSAGE_PAYLOAD, WireType::LengthDelimited, &mut payload_head);
            encode_varint(wide(payload.len()), &mut payload_head);
        }
        let message_size = message.encoded_len() + payload_head.len() + payload.len();
        let size = uint64::encoded_len(SEQUENCED_SEQUENCE, &sequence)
            + key_len(SEQUENCED_MESSAGE)
            + encoded_len_varint(wide(message_size))
            + message_size;
        out.reserve(size - payload.len() + 5);
        encode_varint(wide(size), out);
        uint64::encode(SEQUENCED_SEQUENCE, &sequence, out);
        encode_key(SEQUENCED_MESSAGE, WireType::LengthDelimited, out);
        encode_varint(wide(message_size), out);
        message.encode(out).expect("a BytesMut grows as needed");
        out.extend_from_slice(&payload_head);
        payload
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

/// A control frame.
pub(super) fn control(kind: impl Into<Kind>) -> Control {
    Control { kind: Some(kind.into()) }
}

macro_rules! kind_from {
    ($($kind:ident),*) => {
        $(impl From<$kind> for Kind {
            fn from(kind: $kind) -> Self {
                Self::$kind(kind)
            }
        })*
    };
}
kind_from!(Hello, Welcome, Ack, Bye, Ping, Pong);

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
const MESSAGE_PAYLOAD: u32 = 3;

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_limits_of_a_message_are_inclusive() {
        let message = |payload: usize, id: usize, entries: usize| Message {
            id: "i".repeat(id),
            payload: vec![0; payload].into(),
            metadata: (0..entries).map(|n| (n.to_string(), String::new())).collect(),
            ..Message::default()
        };
        assert_eq!(check_size(&message(MESSAGE_SIZE_MAX, 128, 64)), Ok(()));
        let part = |message| check_size(&message).map_err(|oversize| oversize.part);
        assert_eq!(part(message(MESSAGE_SIZE_MAX + 1, 0, 0)), Err("payload"));
        assert_eq!(part(message(0, 129, 0)), Err("id"));
        assert_eq!(part(message(0, 0, 65)), Err("number of metadata entries"));
    }

    #[test]
    fn the_largest_message_fits_into_a_frame() {
        let message = Message {
            id: "i".repeat(NAME_SIZE_MAX),
            r#type: "t".repeat(NAME_SIZE_MAX),
            payload: vec![0; MESSAGE_SIZE_MAX].into(),
            timestamp: i64::MIN,
            metadata: (10..74).map(|n| (n.to_string(), "v".repeat(1_022))).collect(),
        };
        assert_eq!(check_size(&message), Ok(()));
        let frame = Sequenced { sequence: u64::MAX, message: Some(message) };
        assert!(frame.encoded_len() <= Sequenced::SIZE_MAX);
        assert_eq!(Sequenced::inspect(&frame.encode_to_vec()), Ok(()));
    }

    #[test]
    fn a_frame_of_many_tiny_entries_is_refused_before_it_is_decoded() {
        let message = Message {
            metadata: (0..20_000).map(|n| (n.to_string(), String::new())).collect(),
            ..Message::default()
        };
        let frame = Sequenced { sequence: 1, message: Some(message) };
        assert!(matches!(
            Sequenced::inspect(&frame.encode_to_vec()),
            Err(FrameError::TooLarge { .. })
        ));
    }
}
