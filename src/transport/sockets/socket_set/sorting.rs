//! What becomes of a datagram that was received: quinn's, of the side channel, or nobody's.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use quinn::udp::{EcnCodepoint, RecvMeta};

use super::{
    SocketSet, State,
    apart::{APART_MAX, Apart},
    early::Verdict,
    now,
};
use crate::{
    datagram::{Datagram, Path, SocketIndex},
    transport::{
        paths::{
            path_table::{Source, normal},
            slot::lock,
            traffic::Volume,
        },
        quic::stray,
        sockets::demux::{Fate, Kind, sift},
    },
};

impl SocketSet {
    /// Takes out of the buffers what is not QUIC, and puts virtual addresses to the rest.
    pub(super) fn sort(
        &self,
        socket: SocketIndex,
        buffers: &mut [io::IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) {
        let now = now();
        let mut state = lock(&self.state);
        let state = &mut *state;
        for (meta, buffer) in metas.iter_mut().zip(buffers) {
            let path = Path { socket, remote: normal(meta.addr) };
            let (mut source, ecn) = (None, meta.ecn);
            sift(buffer, meta, |kind, segment| match kind {
                Kind::Stun | Kind::Probe | Kind::Forwarding => self.divert(path, segment),
                Kind::Unknown => count(&self.unknown_kind),
                Kind::Quic => self.admit_segment(state, path, (segment, ecn), &mut source, now),
            });
            let Some(Source::Path(address) | Source::Datagram(address)) = source else {
                continue;
            };
            meta.addr = address;
            // quinn would send from this very address, which the path may not have any more.
            meta.dst_ip = None;
            let volume = Volume::of(meta.len, meta.stride);
            state.table.count_received(address, volume, now);
        }
    }

    /// Decides about one datagram of QUIC. `source` is whom those before it in its buffer are from: all
    /// of a buffer must be from one virtual address.
    fn admit_segment(
        &self,
        state: &mut State,
        path: Path,
        (segment, ecn): (&[u8], Option<EcnCodepoint>),
        source: &mut Option<Source>,
        now: Instant,
    ) -> Fate {
        if let Some(Source::Path(_)) = source
            && !state.early.is_expected()
        {
            return Fate::Keep;
        }
        let this = state.table.identify(path, segment, now);
        let apart = |source| Apart { source, bytes: segment.to_vec(), ecn };
        let volume = Volume::of(segment.len(), segment.len());
        if let Source::Path(address) | Source::Datagram(address) = this {
            match state.early.judge(segment) {
                Verdict::Pass => {}
                Verdict::Wait => {
                    state.table.count_received(address, volume, now);
                    state.early.keep(apart(address));
                    return Fate::Remove;
                }
                Verdict::PassBefore(waited) => state.apart.extend(waited),
            }
        }
        match (this, *source) {
            (Source::Refused, _) => self.divert_stray(&mut state.stray_at, path, segment, now),
            (this, None) => {
                *source = Some(this);
                Fate::Keep
            }
            (this, Some(before)) if this == before => Fate::Keep,
            (Source::Path(_) | Source::Datagram(_), Some(_)) if state.apart.len() == APART_MAX => {
                count(&self.mixed_connections)
            }
            (Source::Path(address) | Source::Datagram(address), Some(_)) => {
                state.table.count_received(address, volume, now);
                state.apart.push_back(apart(address));
                Fate::Remove
            }
        }
    }

    /// Gives a packet that belongs to nobody to whoever answers those of an earlier run; seldom.
    fn divert_stray(
        &self,
        last: &mut Option<Instant>,
        path: Path,
        segment: &[u8],
        now: Instant,
    ) -> Fate {
        let is_soon = |at: Instant| now.saturating_duration_since(at) < stray::ANSWER_INTERVAL;
        if last.is_some_and(is_soon) || !stray::may_be_stray(segment) {
            return Fate::Remove;
        }
        *last = Some(now);
        self.divert(path, segment)
    }

    fn divert(&self, path: Path, bytes: &[u8]) -> Fate {
        let datagram =
            || Datagram { socket: path.socket, remote: path.remote, bytes: bytes.to_vec() };
        if bytes.len() > SIDE_SIZE_MAX || self.side.try_send(datagram()).is_err() {
            return count(&self.side_dropped);
        }
        Fate::Remove
    }
}

fn count(counter: &AtomicU64) -> Fate {
    counter.fetch_add(1, Ordering::Relaxed);
    Fate::Remove
}

/// Bytes of a STUN message or probe: what an Ethernet frame holds; both fit well into it.
pub(super) const SIDE_SIZE_MAX: usize = 1500;
