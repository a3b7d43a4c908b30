//! Cuts the bytes of stdin into protobuf frames, whatever the bytes are.
//!
//! A frame is a varint length and so many bytes. One that is too large is skipped; a length that cannot
//! be meant ends it all, because nobody can tell where the next frame begins.

use bytes::Bytes;

use super::message::PAYLOAD_BYTES_MAX;
use crate::failure::{Code, Failure};

/// Bytes that a frame may have, without its length: a payload of 16 MiB and everything else.
pub const FRAME_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 128 * 1024;

/// Bytes that are skipped for a frame that is too large. No program that knows what it writes
/// announces more.
const SKIPPED_BYTES_MAX: u64 = 1 << 30;

/// Bytes of a length: 35 bits.
const LENGTH_BYTES_MAX: u32 = 5;

/// Bytes at the start of a frame that are kept though it is skipped: its id stands there.
const HEAD_BYTES: usize = 16;

/// What the bytes have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<B> {
    /// A frame, without its length.
    Frame(B),
    /// A frame of so many bytes is too large; these are its first ones. The next one is not affected.
    TooLarge(u64, B),
    /// No frame can be found any more.
    Lost,
}

/// Collects chunks of bytes until they make a frame. Holds one frame at most.
#[derive(Debug)]
pub struct FrameSplitter {
    state: State,
    limit: usize,
}

#[derive(Debug)]
enum State {
    /// So many bits of a length are there.
    Length {
        length: u64,
        bits: u32,
    },
    /// The first part of a frame of `size` bytes.
    Collecting {
        size: usize,
        bytes: Vec<u8>,
    },
    /// The first bytes of a frame that is too large.
    Judging {
        size: u64,
        head: Vec<u8>,
    },
    /// So many bytes do not matter.
    Skipping(u64),
    Lost,
}

const START: State = State::Length { length: 0, bits: 0 };

impl FrameSplitter {
    /// Cuts frames of at most `limit` bytes, or 16.
    pub fn new(limit: usize) -> Self {
        Self { state: START, limit: limit.max(HEAD_BYTES) }
    }

    /// Takes bytes from the front of `chunk` until they complete a frame or the chunk is used up (`None`).
    ///
    /// A frame that lies in the chunk as a whole is given to `read` as it lies there; one that came in
    /// parts, as bytes that `read` may keep parts of without copying.
    pub fn next_frame<T>(
        &mut self,
        chunk: &mut &[u8],
        read: impl FnOnce(Cut<Frame<'_>>) -> T,
    ) -> Option<T> {
        loop {
            match &mut self.state {
                State::Lost => {
                    *chunk = &[];
                    return None;
                }
                State::Length { length, bits } => {
                    let (&byte, rest) = chunk.split_first()?;
                    *chunk = rest;
                    *length |= u64::from(byte & 0x7f) << *bits;
                    *bits += 7;
                    let is_last = byte & 0x80 == 0;
                    if (!is_last && *bits == 7 * LENGTH_BYTES_MAX) || *length > SKIPPED_BYTES_MAX {
                        self.state = State::Lost;
                        return Some(read(Cut::Lost));
                    }
                    if is_last {
                        let length = *length;
                        self.state = self.begin(length);
                        if let State::Collecting { size, .. } = self.state
                            && let Some((frame, rest)) = chunk.split_at_checked(size)
                        {
                            *chunk = rest;
                            self.state = START;
                            return Some(read(Cut::Frame(Frame::Borrowed(frame))));
                        }
                    }
                }
                State::Collecting { size, bytes } => {
                    if bytes.is_empty() {
                        // At once: a buffer that grows in steps is copied at each.
                        bytes.reserve_exact(*size);
                    }
                    take(chunk, bytes, *size);
                    if bytes.len() < *size {
                        return None;
                    }
                    let frame = Bytes::from(std::mem::take(bytes));
                    self.state = START;
                    return Some(read(Cut::Frame(Frame::Owned(frame))));
                }
                State::Judging { size, head } => {
                    take(chunk, head, HEAD_BYTES);
                    if head.len() < HEAD_BYTES {
                        return None;
                    }
                    let (size, head) = (*size, std::mem::take(head));
                    let kept = u64::try_from(HEAD_BYTES).unwrap_or_default();
                    self.state = State::Skipping(size.saturating_sub(kept));
                    return Some(read(Cut::TooLarge(size, Frame::Borrowed(&head))));
                }
                State::Skipping(left) => {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(chunk.len());
                    *chunk = chunk.get(skipped..).unwrap_or_default();
                    *left -= u64::try_from(skipped).unwrap_or(*left);
                    if *left > 0 {
                        return None;
                    }
                    self.state = START;
                }
            }
        }
    }

    /// Nothing that follows is taken for a frame.
    pub fn give_up(&mut self) {
        self.state = State::Lost;
    }

    /// Whether the input may end here: between two frames.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Length { bits: 0, .. } | State::Lost)
    }

    fn begin(&self, length: u64) -> State {
        match usize::try_from(length) {
            Ok(size) if size <= self.limit => State::Collecting { size, bytes: Vec::new() },
            Ok(_) | Err(_) => State::Judging { size: length, head: Vec::new() },
        }
    }
}

/// Where a frame lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Among others.
    Borrowed(&'a [u8]),
    /// Alone.
    Owned(Bytes),
}

impl Frame<'_> {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Why a frame of `size` bytes was skipped.
pub(super) fn too_large(size: u64) -> Failure {
    Failure::new(
        Code::MessageTooLarge,
        format!("a frame of {size} bytes was skipped; it may have {FRAME_BYTES_MAX}"),
    )
    .hint("split the message into several")
}

/// Moves bytes from the front of `chunk` to `bytes` until there are `size`.
fn take(chunk: &mut &[u8], bytes: &mut Vec<u8>, size: usize) {
    let missing = size.saturating_sub(bytes.len()).min(chunk.len());
    let (part, rest) = chunk.split_at(missing);
    bytes.extend_from_slice(part);
    *chunk = rest;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Frame(Vec<u8>),
        TooLarge(u64, Vec<u8>),
        Lost,
    }

    fn split<'a>(limit: usize, chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Seen>, bool) {
        let mut splitter = FrameSplitter::new(limit);
        let mut frames = Vec::new();
        for mut chunk in chunks {
            let seen = |cut: Cut<Frame<'_>>| match cut {
                Cut::Frame(frame) => Seen::Frame(frame.bytes().to_vec()),
                Cut::TooLarge(size, head) => Seen::TooLarge(size, head.bytes().to_vec()),
                Cut::Lost => Seen::Lost,
            };
            while let Some(frame) = splitter.next_frame(&mut chunk, seen) {
                frames.push(frame);
            }
        }
        (frames, splitter.is_between_frames())
    }

    #[test]
    fn a_frame_that_is_too_large_does_not_spoil_the_next() {
        let mut input = vec![2, b'a', b'b', 0, 30];
        input.extend([b'x'; 30]);
        input.extend([1, b'c', 3, b'd']);
        let expected = [
            Seen::Frame(b"ab".to_vec()),
            Seen::Frame(Vec::new()),
            Seen::TooLarge(30, vec![b'x'; HEAD_BYTES]),
            Seen::Frame(b"c".to_vec()),
        ];
        assert_eq!(split(20, [&input[..]].into_iter()), (expected.to_vec(), false));
    }

    #[test]
    fn a_length_that_cannot_be_meant_ends_it_all() {
        for length in [&[0x80, 0x80, 0x80, 0x80, 0x80][..], &[0xff, 0xff, 0xff, 0xff, 0x7f]] {
            let input = [length, &[1, b'a']].concat();
            assert_eq!(split(20, [&input[..]].into_iter()), (vec![Seen::Lost], true));
        }
    }

    #[test]
    fn a_large_frame_that_comes_in_parts_is_copied_once() {
        let mut splitter = FrameSplitter::new(1_000_000);
        let kept = |cut: Cut<Frame<'_>>| match cut {
            Cut::Frame(Frame::Owned(frame)) => frame,
            cut @ (Cut::Frame(_) | Cut::TooLarge(..) | Cut::Lost) => panic!("{cut:?}"),
        };
        let mut first = &[0xc0, 0x84, 0x3d, 7][..];
        assert_eq!(splitter.next_frame(&mut first, kept), None);
        let State::Collecting { bytes, .. } = &splitter.state else {
            panic!("it collects");
        };
        let place = bytes.as_ptr();
        let rest = vec![7; 999_999];
        let frame = splitter.next_frame(&mut &rest[..], kept).unwrap();
        assert_eq!((frame.len(), frame.as_ptr()), (1_000_000, place));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_make_the_same_frames(
            bytes in prop::collection::vec(prop_oneof![9 => 0_u8..20, 1 => any::<u8>()], 0..200),
            limit in 0_usize..40,
            chunk_size in 1_usize..20,
        ) {
            let whole = split(limit, [&bytes[..]].into_iter());
            prop_assert_eq!(split(limit, bytes.chunks(chunk_size)), whole);
        }
    }
}
