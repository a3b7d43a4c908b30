//! Telling apart what shares one UDP socket: STUN, our probes, what helpers forward, and QUIC, by the
//! first byte.
//!
//! RFC 9443, section 3, gives STUN the first bytes 0–3 and QUIC those above 63; probes and helpers
//! use one each of the bytes between that nobody uses. It holds as long as QUIC's fixed bit is not greased, so both
//! endpoints switch that off.
//!
//! A receive buffer may hold several datagrams of one remote address, one per *stride*, and they can
//! be of different kinds: the kernel coalesces whatever arrives in a row (GRO). So each segment is
//! looked at, never only the first byte of the buffer.

use quinn::udp::RecvMeta;

use crate::{forwarding, probe};

/// What a datagram is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A STUN message (RFC 8489).
    Stun,
    /// One of our probes.
    Probe,
    /// To or from a helper.
    Forwarding,
    /// A QUIC packet.
    Quic,
    /// None of ours.
    Unknown,
}

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays in the buffer, for quinn.
    Keep,
    /// It leaves the buffer.
    Remove,
}

/// The kind of a datagram that starts with `first`.
pub fn classify(first: u8) -> Kind {
    match first {
        0..=3 => Kind::Stun,
        probe::FIRST_BYTE => Kind::Probe,
        forwarding::FIRST_BYTE => Kind::Forwarding,
        first if first & QUIC_FIXED_BIT != 0 => Kind::Quic,
        _ => Kind::Unknown,
    }
}

/// Asks `judge` about every datagram in `buffer` and closes the gaps that the removed ones leave.
///
/// Afterwards `meta` describes what is left; if that is nothing, its length is 0, which quinn skips.
/// Its stride is never 0 while there is something: quinn would loop for ever.
pub fn sift(buffer: &mut [u8], meta: &mut RecvMeta, mut judge: impl FnMut(Kind, &[u8]) -> Fate) {
    let len = meta.len.min(buffer.len());
    let stride = match meta.stride {
        0 => len,
        stride => stride,
    };
    let (mut read, mut kept) = (0, 0);
    while read < len {
        let end = read.saturating_add(stride).min(len);
        let segment = buffer.get(read..end).unwrap_or_default();
        let kind = segment.first().map_or(Kind::Unknown, |&first| classify(first));
        if judge(kind, segment) == Fate::Keep {
            if kept != read {
                buffer.copy_within(read..end, kept);
            }
            kept += end - read;
        }
        read = end;
    }
    meta.len = kept;
    meta.stride = stride;
}

/// RFC 9000, section 17: "Fixed Bit". RFC 9287 lets endpoints grease it; ours do not.
const QUIC_FIXED_BIT: u8 = 0x40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Diverted = Vec<(Kind, Vec<u8>)>;

    fn sift_quic(segments: &[Vec<u8>], stride: usize) -> (Vec<u8>, RecvMeta, Diverted) {
        let mut buffer = segments.concat();
        let mut meta = RecvMeta { len: buffer.len(), stride, ..RecvMeta::default() };
        let mut diverted = Vec::new();
        sift(&mut buffer, &mut meta, |kind, segment| {
            if kind == Kind::Quic {
                return Fate::Keep;
            }
            diverted.push((kind, segment.to_vec()));
            Fate::Remove
        });
        buffer.truncate(meta.len);
        (buffer, meta, diverted)
    }

    #[test]
    fn every_first_byte_has_one_kind() {
        let kinds =
            [0, 3, 4, 0x0A, 0x0B, 0x20, 0x3F, 0x40, 0x7F, 0x80, 0xBF, 0xC0, 0xFF].map(classify);
        use Kind::{Forwarding, Probe, Quic, Stun, Unknown};
        assert_eq!(
            kinds,
            [
                Stun, Stun, Unknown, Probe, Forwarding, Unknown, Unknown, Quic, Quic, Unknown,
                Unknown, Quic, Quic
            ]
        );
    }

    #[test]
    fn a_probe_between_quic_packets_leaves_no_gap() {
        let segments = [vec![0x40; 9], vec![0x0A; 9], vec![0x41; 9], vec![0x00; 5]];
        let (buffer, meta, diverted) = sift_quic(&segments, 9);
        assert_eq!(buffer, [vec![0x40; 9], vec![0x41; 9]].concat());
        assert_eq!((meta.len, meta.stride), (18, 9));
        assert_eq!(diverted, [(Kind::Probe, vec![0x0A; 9]), (Kind::Stun, vec![0x00; 5])]);
    }

    #[test]
    fn a_stride_of_zero_means_one_datagram() {
        let (buffer, meta, _) = sift_quic(&[vec![0x40; 7]], 0);
        assert_eq!((buffer.len(), meta.len, meta.stride), (7, 7, 7));
        let (_, meta, _) = sift_quic(&[], 0);
        assert_eq!(meta.len, 0);
    }

    proptest! {
        /// The model: segments in a list, split by kind.
        #[test]
        fn sifting_equals_filtering(
            stride in 1_usize..40,
            firsts in prop::collection::vec(any::<u8>(), 0..70),
            last in 1_usize..40,
        ) {
            let mut segments: Vec<Vec<u8>> = firsts.iter().map(|&first| {
                let mut segment = vec![first; stride];
                segment[stride - 1] ^= 1;
                segment
            }).collect();
            if let Some(segment) = segments.last_mut() {
                segment.truncate(last);
            }
            let (quic, others): (Vec<_>, Vec<_>) = segments
                .iter()
                .cloned()
                .map(|segment| (classify(segment[0]), segment))
                .partition(|(kind, _)| *kind == Kind::Quic);
            let (buffer, meta, diverted) = sift_quic(&segments, stride);
            let quic: Vec<u8> = quic.into_iter().flat_map(|(_, segment)| segment).collect();
            prop_assert_eq!(buffer, quic);
            prop_assert_eq!(diverted, others);
            prop_assert!(meta.len == 0 || meta.stride > 0);
        }

        #[test]
        fn lengths_that_lie_are_survived(len in 0_usize..300, stride in 0_usize..300) {
            let mut buffer = [0x40; 100];
            let mut meta = RecvMeta { len, stride, ..RecvMeta::default() };
            sift(&mut buffer, &mut meta, |_, _| Fate::Keep);
            prop_assert_eq!(meta.len, len.min(100));
            prop_assert!(meta.len == 0 || meta.stride > 0);
        }
    }
}
