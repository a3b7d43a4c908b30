//! Frames: a varint length and one protobuf message, the same on every stream and pipe.
//!
//! [`Deframer`] is the codec: bytes in, messages out, however they were cut. [`FrameReader`] feeds it
//! from anything that can be read, [`FrameWriter`] gathers frames and hands them to a QUIC stream without
//! copying a large payload.

use std::{collections::VecDeque, marker::PhantomData};

use bytes::{Buf, Bytes, BytesMut};
use quinn::SendStream;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A message that travels in frames of its own kind.
pub trait Frame: prost::Message + Default {
    /// Bytes that its encoding may have, without the length in front.
    const SIZE_MAX: usize;

    /// Looks at an encoding before it is decoded, where decoding could take far more memory than the
    /// bytes do.
    ///
    /// # Errors
    /// When it should not be decoded.
    fn inspect(_encoding: &[u8]) -> Result<(), FrameError> {
        Ok(())
    }
}

/// Why bytes are no frame, or a message cannot become one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The frame is larger than its kind may be. Told by its length alone.
    #[error("a frame of {size} bytes where {size_max} are allowed")]
    TooLarge {
        /// Bytes announced.
        size: u64,
        /// [`Frame::SIZE_MAX`].
        size_max: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The length is no varint of at most five bytes, or the rest is not the protobuf message.
    #[error("not a frame of the expected kind")]
    Malformed,
}

/// Why a frame could not be read from a stream.
#[derive(Debug, Error)]
pub enum ReadFrameError {
    /// The bytes are wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Takes bytes as they come and gives the messages in them.
#[derive(Debug)]
pub struct Deframer<M> {
    buffer: BytesMut,
    message: PhantomData<fn() -> M>,
}

impl<M: Frame> Deframer<M> {
    /// A codec that has seen nothing.
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), message: PhantomData }
    }

    /// The buffer to append received bytes to, with room for a sensible read.
    ///
    /// Who announces a large frame without sending it makes us reserve [`UNSEEN_SIZE_MAX`] at most.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let filled = self.buffer.len();
        let room = match parse_length(&self.buffer) {
            Ok(Some((header, size))) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let missing = size.saturating_add(header).saturating_sub(filled);
                if filled < UNSEEN_SIZE_MAX {
                    missing.min(UNSEEN_SIZE_MAX)
                } else {
                    missing.min(M::SIZE_MAX)
                }
            }
            Ok(None) | Err(_) => 0,
        };
        // Not more than is missing of a frame that has largely arrived: it would have to move.
        let least = if filled < READ_SIZE { READ_SIZE } else { 1 };
        self.buffer.reserve(room.max(least));
        &mut self.buffer
    }

    /// The next message that is there as a whole; `None` if more bytes are needed.
    ///
    /// # Errors
    /// After an error the stream cannot be understood any more.
    pub fn pop(&mut self) -> Result<Option<M>, FrameError> {
        let Some((header, size)) = parse_length(&self.buffer)? else {
            return Ok(None);
        };
        let Some(size) = usize::try_from(size).ok().filter(|&it| it <= M::SIZE_MAX) else {
            return Err(too_large::<M>(size));
        };
        let Some(encoding) = self.buffer.get(header..header + size) else {
            return Ok(None);
        };
        M::inspect(encoding)?;
        let decoded = if size <= COPIED_SIZE_MAX {
            let decoded = M::decode(encoding);
            self.buffer.advance(header + size);
            decoded
        } else {
            self.buffer.advance(header);
            M::decode(self.buffer.split_to(size).freeze())
        };
        decoded.map(Some).map_err(|_| FrameError::Malformed)
    }

    /// To be called when no more bytes will come.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] if they ended inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
    }
}

impl<M: Frame> Default for Deframer<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads frames from a stream of bytes.
#[derive(Debug)]
pub struct FrameReader<R, M> {
    source: R,
    deframer: Deframer<M>,
    /// Met after the last message.
    fault: Option<FrameError>,
}

impl<R: AsyncRead + Unpin, M: Frame> FrameReader<R, M> {
    /// Reads `source` from here on.
    pub fn new(source: R) -> Self {
        Self { source, deframer: Deframer::new(), fault: None }
    }

    /// The next message; `None` when the stream ended between two frames.
    ///
    /// Cancelling it loses nothing: what was read stays here.
    ///
    /// # Errors
    /// When the stream breaks, or its bytes are no frames.
    pub async fn next(&mut self) -> Result<Option<M>, ReadFrameError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault.into());
        }
        loop {
            if let Some(message) = self.deframer.pop()? {
                return Ok(Some(message));
            }
            if self.source.read_buf(self.deframer.buffer()).await? == 0 {
                self.deframer.finish()?;
                return Ok(None);
            }
        }
    }

    /// Adds to `messages` some that were read together with the last one, [`READY_MAX`] at most. A fault in
    /// what was read is told by [`next`](Self::next).
    pub fn take_ready(&mut self, messages: &mut VecDeque<M>) {
        for _ in 0..READY_MAX {
            match self.deframer.pop() {
                Ok(Some(message)) => messages.push_back(message),
                Ok(None) => return,
                Err(fault) => {
                    self.fault = Some(fault);
                    return;
                }
            }
        }
    }
}

/// Frames on their way to a stream: small ones gathered in common chunks, large payloads chunks of
/// their own.
#[derive(Debug, Default)]
pub struct Chunks {
    whole: Vec<Bytes>,
    growing: BytesMut,
}

impl Chunks {
    /// Adds a frame.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`]; then nothing is added.
    pub fn push<M: Frame>(&mut self, message: M) -> Result<(), FrameError> {
        let size = message.encoded_len();
        if size > M::SIZE_MAX {
            return Err(too_large::<M>(u64::try_from(size).unwrap_or(u64::MAX)));
        }
        self.growing.reserve(size + LENGTH_SIZE_MAX);
        message.encode_length_delimited(&mut self.growing).expect("a BytesMut grows as needed");
        Ok(())
    }

    /// Where the next bytes go that are copied.
    pub fn growing(&mut self) -> &mut BytesMut {
        &mut self.growing
    }

    /// Adds bytes as chunks of their own, so that they need not be copied.
    pub fn push_uncopied(&mut self, mut bytes: Bytes) {
        if !bytes.is_empty() {
            self.whole.push(self.growing.split().freeze());
        }
        while !bytes.is_empty() {
            self.whole.push(bytes.split_to(bytes.len().min(CHUNK_SIZE_MAX)));
        }
    }

    /// Bytes that were added since the last time.
    pub fn size(&self) -> usize {
        self.growing.len() + self.whole.iter().map(Bytes::len).sum::<usize>()
    }

    /// All that was added since the last time, in order.
    pub fn take(&mut self) -> Vec<Bytes> {
        if !self.growing.is_empty() {
            self.whole.push(self.growing.split().freeze());
        }
        std::mem::take(&mut self.whole)
    }
}

/// Writes frames to a QUIC stream.
///
/// Frames are gathered until they are flushed, so that many small ones cost one write. QUIC takes the
/// chunks as they are: a large payload is not copied on its way to the cipher.
#[derive(Debug)]
pub struct FrameWriter {
    sink: SendStream,
    pending: Chunks,
}

impl FrameWriter {
    /// Writes `preface`, which is no frame, and then frames to `sink`.
    pub fn new(sink: SendStream, preface: &[u8]) -> Self {
        let mut pending = Chunks::default();
        pending.growing().extend_from_slice(preface);
        Self { sink, pending }
    }

    /// Adds a frame to those that the next flush writes.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`].
    pub fn push<M: Frame>(&mut self, message: M) -> Result<(), FrameError> {
        self.pending.push(message)
    }

    /// What the next flush writes, for frames that are encoded already.
    pub fn pending(&mut self) -> &mut Chunks {
        &mut self.pending
    }

    /// Hands all frames to QUIC; waits as long as flow control does not let them in.
    ///
    /// Not to be cancelled: a frame cut in the middle ruins the stream.
    ///
    /// # Errors
    /// When the stream or its connection is gone.
    pub async fn flush(&mut self) -> Result<(), quinn::WriteError> {
        self.sink.write_all_chunks(&mut self.pending.take()).await
    }
}

/// Length and its own size, if they are there.
fn parse_length(bytes: &[u8]) -> Result<Option<(usize, u64)>, FrameError> {
    let mut length = 0;
    for (index, &byte) in bytes.iter().take(LENGTH_SIZE_MAX).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 1, length)));
        }
    }
    if bytes.len() < LENGTH_SIZE_MAX { Ok(None) } else { Err(FrameError::Malformed) }
}

fn too_large<M: Frame>(size: u64) -> FrameError {
    FrameError::TooLarge { size, size_max: M::SIZE_MAX }
}

/// Bytes of a length: 35 bits, far more than any frame here may have.
const LENGTH_SIZE_MAX: usize = 5;

/// Bytes asked of a stream at once when nothing is known of what comes.
const READ_SIZE: usize = 16 << 10;

/// Messages that are taken at once of what was read: a large buffer may be full of tiny ones.
pub const READY_MAX: usize = 256;

/// Bytes reserved for a frame of which nothing has been seen but the length. What comes later is
/// reserved at once: a buffer that grows in steps would be copied at each.
pub const UNSEEN_SIZE_MAX: usize = 1 << 20;

/// Bytes of a chunk. quinn counts all of a chunk as unacknowledged until all of it is acknowledged: with a
/// chunk of 16 MiB, acks on another stream waited for seconds until it had been written.
const CHUNK_SIZE_MAX: usize = 256 << 10;

/// Up to this size a message is copied out of the read buffer; a larger one keeps its part of the
/// buffer. So a small message that is kept for long never holds a large buffer in memory.
const COPIED_SIZE_MAX: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::{Message, wire::Sequenced};

    fn sequenced(sequence: u64, payload: Vec<u8>) -> Sequenced {
        Sequenced {
            sequence,
            message: Some(Message {
                id: format!("m{sequence}"),
                payload: payload.into(),
                ..Message::default()
            }),
            durable: false,
        }
    }

    fn frames_of(messages: &[Sequenced]) -> Vec<u8> {
        let mut chunks = Chunks::default();
        for message in messages {
            chunks.push(message.clone()).unwrap();
        }
        chunks.take().concat()
    }

    fn deframe(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Sequenced>, FrameError> {
        let (mut deframer, mut messages) = (Deframer::new(), Vec::new());
        let mut rest = bytes;
        for &cut in cuts.iter().chain([&usize::MAX]) {
            let (part, after) = rest.split_at(cut.min(rest.len()));
            deframer.buffer().extend_from_slice(part);
            while let Some(message) = deframer.pop()? {
                messages.push(message);
            }
            rest = after;
        }
        deframer.finish()?;
        Ok(messages)
    }

    proptest! {
        #[test]
        fn frames_arrive_as_they_were_sent_however_the_stream_is_cut(
            sizes in prop::collection::vec(0_usize..10_000, 0..8),
            cuts in prop::collection::vec(0_usize..5_000, 0..20),
        ) {
            let messages: Vec<_> = (1..).zip(sizes).map(|(n, size)| sequenced(n, vec![7; size])).collect();
            prop_assert_eq!(deframe(&frames_of(&messages), &cuts), Ok(messages));
        }

        #[test]
        fn any_bytes_are_taken_calmly(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300) {
            let whole = deframe(&bytes, &[]);
            prop_assert_eq!(deframe(&bytes, &[cut]), whole);
        }

        #[test]
        fn a_stream_that_ends_inside_a_frame_is_truncated(size in 0_usize..6_000, missing in 1_usize..20) {
            let bytes = frames_of(&[sequenced(1, vec![7; size])]);
            let end = bytes.len().saturating_sub(missing).max(1);
            prop_assert_eq!(deframe(&bytes[..end], &[]), Err(FrameError::Truncated));
        }
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused_by_its_length_alone() {
        let mut deframer = Deframer::<Sequenced>::new();
        let announced = u64::try_from(Sequenced::SIZE_MAX).unwrap() + 1;
        prost::encoding::encode_varint(announced, deframer.buffer());
        let before = deframer.buffer.capacity();
        assert_eq!(deframer.pop(), Err(too_large::<Sequenced>(announced)));
        assert_eq!(deframer.buffer.capacity(), before);
    }

    #[test]
    fn announcing_a_large_frame_reserves_little() {
        let mut deframer = Deframer::<Sequenced>::new();
        let announced = u64::try_from(Sequenced::SIZE_MAX).unwrap();
        prost::encoding::encode_varint(announced, deframer.buffer());
        assert_eq!(deframer.pop(), Ok(None));
        assert!(deframer.buffer().capacity() <= UNSEEN_SIZE_MAX + READ_SIZE);
    }

    #[test]
    fn a_length_of_six_bytes_is_malformed() {
        assert_eq!(deframe(&[0x80; 5], &[]), Err(FrameError::Malformed));
        assert_eq!(deframe(&[0x80; 4], &[]), Err(FrameError::Truncated));
    }

    #[tokio::test]
    async fn what_was_read_together_is_taken_together_up_to_the_fault() {
        let mut bytes = frames_of(&[1, 2, 3].map(|sequence| sequenced(sequence, vec![7; 10])));
        // A frame of two bytes that are no message.
        bytes.extend([2, 0xff, 0xff]);
        let mut reader = FrameReader::<_, Sequenced>::new(bytes.as_slice());
        let mut messages = VecDeque::new();
        messages.extend(reader.next().await.unwrap());
        reader.take_ready(&mut messages);
        assert_eq!(messages.len(), 3);
        assert!(reader.next().await.is_err());

        let many: Vec<_> = (0..1_000).map(|sequence| sequenced(sequence, Vec::new())).collect();
        let bytes = frames_of(&many);
        let mut reader = FrameReader::<_, Sequenced>::new(bytes.as_slice());
        reader.next().await.unwrap();
        messages.clear();
        reader.take_ready(&mut messages);
        assert_eq!(messages.len(), READY_MAX);
    }

    #[tokio::test]
    async fn a_reader_that_is_cancelled_in_the_middle_of_a_frame_goes_on_where_it_was() {
        let bytes = frames_of(&[sequenced(1, vec![7; 100])]);
        let (mut sender, receiver) = tokio::io::duplex(1_000);
        let mut reader = FrameReader::<_, Sequenced>::new(receiver);
        for byte in bytes {
            let cancelled = futures_lite::future::poll_once(reader.next()).await;
            assert!(cancelled.is_none());
            tokio::io::AsyncWriteExt::write_all(&mut sender, &[byte]).await.unwrap();
        }
        let message = reader.next().await.unwrap();
        assert_eq!(message, Some(sequenced(1, vec![7; 100])));
        drop(sender);
        assert_eq!(reader.next().await.unwrap(), None);
    }
}
