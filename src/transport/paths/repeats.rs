//! The first datagrams of a connection, which go again a moment later.
//!
//! A handshake and a first message are a handful of datagrams of which each waits for the one before it. QUIC
//! sends a lost one again after a probe timeout, which takes one and a half to three round trips and doubles each
//! time; where one datagram in seven is lost, every second link waits for that. With two copies of each it is
//! one in ten, and with three of those of the handshake one in thirty. QUIC drops whatever arrives again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use quinn::udp::Transmit;

use super::route::WaitingDatagram;
use crate::{datagram::Path, transport::quic::header::LongHeader};

/// When a datagram is sent again, counted from when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies(&'static [Duration]);

impl Copies {
    /// Of a datagram with a long header, or of one without: there are more of the latter, and QUIC repairs them
    /// sooner.
    pub(in crate::transport) fn of(datagram: &[u8]) -> Self {
        match LongHeader::read(datagram) {
            Some(_) => Self(&HANDSHAKE_AGAIN),
            None => Self(&LATER_AGAIN),
        }
    }
}

/// Datagrams that are to be sent again.
#[derive(Debug, Default)]
pub(in crate::transport) struct Repeats {
    /// By when they are due, and in their order.
    due: BTreeMap<(Instant, u64), WaitingDatagram>,
    count: u64,
}

impl Repeats {
    /// `transmit` goes by `path` now, and is due again later; unless too many are.
    pub(in crate::transport) fn push(
        &mut self,
        path: Path,
        transmit: &Transmit<'_>,
        copies: Copies,
        now: Instant,
    ) {
        let segment_size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for bytes in transmit.contents.chunks(segment_size) {
            for after in copies.0 {
                if self.due.len() < REPEATS_MAX {
                    let datagram =
                        WaitingDatagram { path, bytes: bytes.to_vec(), ecn: transmit.ecn };
                    self.count += 1;
                    self.due.insert((now + *after, self.count), datagram);
                }
            }
        }
    }

    /// When the next one is due.
    pub(in crate::transport) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// The next one that is due.
    pub(in crate::transport) fn poll_transmit(&mut self, now: Instant) -> Option<WaitingDatagram> {
        self.poll_timeout().filter(|due| *due <= now)?;
        self.due.pop_first().map(|(_, datagram)| datagram)
    }
}

/// Losses come in bursts of a few milliseconds, and a round trip between two homes takes longer than this.
const LATER_AGAIN: [Duration; 1] = [Duration::from_millis(10)];

/// As above, and once more after a longer burst.
const HANDSHAKE_AGAIN: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(30)];

/// Copies that wait, of all connections: some 300 KB. Without room a datagram goes once, as usual.
const REPEATS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        datagram::SocketIndex,
        transport::{
            paths::slot::single,
            quic::header::tests::{handshake, short},
        },
    };

    #[expect(clippy::disallowed_methods, reason = "the zero of virtual time")]
    fn story() -> (Repeats, Path, Instant) {
        let path = Path { socket: SocketIndex(0), remote: ([203, 0, 113, 1], 4_000).into() };
        (Repeats::default(), path, Instant::now())
    }

    fn push(repeats: &mut Repeats, path: Path, bytes: &[u8], now: Instant) {
        repeats.push(path, &single(path.remote, bytes, None), Copies::of(bytes), now);
    }

    #[test]
    fn a_datagram_goes_again_after_10_ms_and_one_of_the_handshake_after_30_ms_too() {
        let (mut repeats, path, now) = story();
        let (first, second) = (handshake([1; 8], [2; 8]), short([1; 8]));
        push(&mut repeats, path, &first, now);
        push(&mut repeats, path, &second, now + Duration::from_millis(4));
        let mut sent = Vec::new();
        while let Some(due) = repeats.poll_timeout() {
            assert_eq!(repeats.poll_transmit(due - Duration::from_millis(1)), None);
            let datagram = repeats.poll_transmit(due).unwrap();
            assert_eq!(datagram.path, path);
            sent.push(((due - now).as_millis(), datagram.bytes));
        }
        assert_eq!(sent, [(10, first.clone()), (14, second), (30, first)]);
    }

    #[test]
    fn a_batch_is_taken_apart() {
        let (mut repeats, path, now) = story();
        let batch = [[0x43; 50], [0x44; 50]].concat();
        let transmit = Transmit { segment_size: Some(50), ..single(path.remote, &batch, None) };
        repeats.push(path, &transmit, Copies::of(&batch), now);
        let due = now + Duration::from_millis(10);
        let sent: Vec<_> = std::iter::from_fn(|| repeats.poll_transmit(due)).collect();
        assert_eq!(sent.iter().map(|it| it.bytes.len()).collect::<Vec<_>>(), [50, 50]);
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let (mut repeats, path, now) = story();
        for _ in 0..2 * REPEATS_MAX {
            push(&mut repeats, path, &short([1; 8]), now);
        }
        let due = now + Duration::from_millis(10);
        let count = std::iter::from_fn(|| repeats.poll_transmit(due)).count();
        assert_eq!(count, REPEATS_MAX);
    }
}
