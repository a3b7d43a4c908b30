//! All sockets of a node, as the one socket that quinn sees.
//!
//! The set polls its sockets in turn, takes STUN and probes out of what they receive, and translates
//! between real and virtual addresses by the [path table](super::path_table). quinn ends an endpoint
//! at the first error that its socket reports, so none is ever reported: errors are counted.
//!
//! A set receives, and sends what had to wait, only while a [`quinn::Endpoint`] polls it. It is also
//! the one place of `transport` that reads the clock.

mod apart;
mod room;
mod table;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    net::SocketAddr,
    ops::Bound,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};

use self::{
    apart::{APART_MAX, Apart},
    room::RoomPoller,
};
use super::{
    demux::{Fate, Kind, sift},
    path_table::{Destinations, PathTable, Refusals, Source, WaitingDatagram, normal},
    route::VirtualAddress,
    slot::{Full, Slot, lock},
    stray,
    traffic::Volume,
};
use crate::datagram::{Datagram, Path, SocketIndex};

/// Why a socket cannot join the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddSocketError {
    /// All indexes are taken.
    #[error("the set has 256 sockets already")]
    TooMany,
    /// The endpoint made its buffers when it began, for less than the socket may deliver at once.
    #[error("the socket receives {wanted} datagrams at once, the buffers hold {room}")]
    ReceivesTooMuch {
        /// Datagrams in one of the socket's batches.
        wanted: usize,
        /// Datagrams that a buffer holds.
        room: usize,
    },
}

/// What a set lost or refused so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Errors of sockets while receiving.
    pub receive_errors: u64,
    /// Errors of sockets while sending.
    pub send_errors: u64,
    /// Datagrams that waited for room until younger ones took their place.
    pub unsent: u64,
    /// STUN and probes that nobody took out of the channel in time, or that are too long to be either.
    pub side_dropped: u64,
    /// Datagrams that are neither STUN, probe nor QUIC.
    pub unknown_kind: u64,
    /// Sends to a peer without any path, or by a socket that is not there.
    pub sent_nowhere: u64,
    /// Datagrams of a second connection that shared a buffer with those of the first, and found no room
    /// in the queue for a buffer of their own.
    pub mixed_connections: u64,
    /// What the path table refused.
    pub refusals: Refusals,
}

/// Sockets that share one path table and look like one socket to quinn.
pub struct SocketSet {
    state: Mutex<State>,
    side: mpsc::Sender<Datagram>,
    /// Whether a socket may be full; a hint that spares the usual send a look at all of them.
    any_full: AtomicBool,
    unanswered: Notify,
    receive_segments: usize,
    side_dropped: AtomicU64,
    unknown_kind: AtomicU64,
    sent_nowhere: AtomicU64,
    mixed_connections: AtomicU64,
}

type Slots = BTreeMap<SocketIndex, Arc<Slot>>;

struct State {
    table: PathTable,
    slots: Arc<Slots>,
    /// The socket that was received from last; the next one comes first.
    served: SocketIndex,
    /// The endpoint's task.
    receiver: Option<Waker>,
    /// What shared a buffer with another connection's datagrams and is received next, oldest first.
    apart: VecDeque<Apart>,
    /// When a packet that belongs to nobody was given on.
    stray_at: Option<Instant>,
}

impl SocketSet {
    /// A set of `sockets`, numbered from 0, and the channel of STUN messages and probes they receive.
    ///
    /// What does not fit into the channel is dropped and counted.
    pub fn new(
        sockets: Vec<Arc<dyn AsyncUdpSocket>>,
        table: PathTable,
    ) -> (Arc<Self>, mpsc::Receiver<Datagram>) {
        let (side, side_receiver) = mpsc::channel(SIDE_QUEUE_MAX);
        let receive_segments = sockets.iter().map(|socket| socket.max_receive_segments());
        let set = Self {
            receive_segments: receive_segments.max().unwrap_or(1),
            state: Mutex::new(State {
                table,
                slots: Arc::default(),
                served: SocketIndex(u16::MAX),
                receiver: None,
                apart: VecDeque::new(),
                stray_at: None,
            }),
            side,
            any_full: AtomicBool::new(false),
            unanswered: Notify::new(),
            side_dropped: AtomicU64::new(0),
            unknown_kind: AtomicU64::new(0),
            sent_nowhere: AtomicU64::new(0),
            mixed_connections: AtomicU64::new(0),
        };
        for (index, socket) in (0..=u16::MAX).map(SocketIndex).zip(sockets) {
            lock(&set.state).put(index, socket);
        }
        (Arc::new(set), side_receiver)
    }

    /// Adds a socket under the lowest free index.
    ///
    /// # Errors
    /// When the set is full, or the endpoint's buffers are too small for the socket.
    pub fn add_socket(
        &self,
        socket: Arc<dyn AsyncUdpSocket>,
    ) -> Result<SocketIndex, AddSocketError> {
        self.check_buffers(&*socket)?;
        let mut state = lock(&self.state);
        let mut indexes = (0..=u16::MAX).map(SocketIndex);
        let free = indexes.find(|index| !state.slots.contains_key(index));
        let free = free.ok_or(AddSocketError::TooMany)?;
        state.put(free, socket);
        Ok(free)
    }

    /// Takes a socket out of the set, and all paths over it out of the table.
    pub fn remove_socket(&self, index: SocketIndex) {
        let mut state = lock(&self.state);
        Arc::make_mut(&mut state.slots).remove(&index);
        state.table.remove_socket(index);
    }

    /// Puts another socket of the same IP family in a socket's place; paths over it stay.
    ///
    /// # Errors
    /// When the endpoint's buffers are too small for the socket.
    pub fn rebind(
        &self,
        index: SocketIndex,
        socket: Arc<dyn AsyncUdpSocket>,
    ) -> Result<(), AddSocketError> {
        self.check_buffers(&*socket)?;
        lock(&self.state).put(index, socket);
        Ok(())
    }

    /// The local addresses of the sockets.
    pub fn local_addresses(&self) -> Vec<(SocketIndex, SocketAddr)> {
        let slots = self.slots();
        let local = |slot: &Arc<Slot>| Some((slot.index, slot.socket.local_addr().ok()?));
        slots.values().filter_map(local).collect()
    }

    /// Sends STUN or a probe, or whatever is no business of QUIC; best effort.
    ///
    /// A socket without room keeps the datagram for a moment.
    pub fn send(&self, path: Path, bytes: &[u8]) {
        self.send_single(&self.slots(), path, bytes, None);
    }

    /// What was lost or refused so far.
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = lock(&self.state);
        let mut counters = Counters {
            side_dropped: read(&self.side_dropped),
            unknown_kind: read(&self.unknown_kind),
            sent_nowhere: read(&self.sent_nowhere),
            mixed_connections: read(&self.mixed_connections),
            refusals: state.table.refusals(),
            ..Counters::default()
        };
        for slot in state.slots.values() {
            counters.receive_errors += read(&slot.failures().receive);
            counters.send_errors += read(&slot.failures().send);
            counters.unsent += read(&slot.failures().unsent);
        }
        counters
    }

    fn check_buffers(&self, socket: &dyn AsyncUdpSocket) -> Result<(), AddSocketError> {
        let (wanted, room) = (socket.max_receive_segments(), self.receive_segments);
        match wanted <= room {
            true => Ok(()),
            false => Err(AddSocketError::ReceivesTooMuch { wanted, room }),
        }
    }

    fn slots(&self) -> Arc<Slots> {
        Arc::clone(&lock(&self.state).slots)
    }

    fn send_waiting(&self, waiting: Vec<WaitingDatagram>) {
        if waiting.is_empty() {
            return;
        }
        let slots = self.slots();
        for WaitingDatagram { path, bytes, ecn } in waiting {
            self.send_single(&slots, path, &bytes, ecn);
        }
    }

    fn send_single(&self, slots: &Slots, path: Path, bytes: &[u8], ecn: Option<EcnCodepoint>) {
        let Some(slot) = slots.get(&path.socket) else {
            self.sent_nowhere.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if slot.send_or_keep(path.remote, bytes, ecn) == Err(Full) {
            self.any_full.store(true, Ordering::Release);
            lock(&self.state).wake_receiver();
        }
    }

    /// Takes out of the buffers what is not QUIC, and puts virtual addresses to the rest.
    fn sort(
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
        if let Some(Source::Path(_)) = source {
            return Fate::Keep;
        }
        let this = state.table.identify(path, segment, now);
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
                let volume = Volume::of(segment.len(), segment.len());
                state.table.count_received(address, volume, now);
                state.apart.push_back(Apart { source: address, bytes: segment.to_vec(), ecn });
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

impl AsyncUdpSocket for SocketSet {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(RoomPoller::new(self))
    }

    /// Says `WouldBlock` only when the one destination is known and its socket has no room.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let now = now();
        let (destinations, slots) = {
            let mut state = lock(&self.state);
            let destinations = state.table.forward(transmit, now);
            (destinations, Arc::clone(&state.slots))
        };
        let segment_size = transmit.segment_size.unwrap_or(transmit.contents.len());
        match destinations {
            Destinations::One(path) => {
                let transmit =
                    Transmit { destination: path.remote, src_ip: None, ..transmit.clone() };
                if slots.get(&path.socket).map(|slot| slot.try_send(&transmit)) == Some(Err(Full)) {
                    self.any_full.store(true, Ordering::Release);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
            Destinations::Several(paths) => {
                for datagram in transmit.contents.chunks(segment_size.max(1)) {
                    for &path in &paths {
                        self.send_single(&slots, path, datagram, transmit.ecn);
                    }
                }
            }
            Destinations::Nowhere => {
                self.sent_nowhere.fetch_add(1, Ordering::Relaxed);
            }
        }
        let volume = Volume::of(transmit.contents.len(), segment_size);
        let mut state = lock(&self.state);
        if state.table.count_sent(transmit.destination, volume, now) {
            self.unanswered.notify_one();
        }
        Ok(())
    }

    /// Says how many buffers were filled; what is in them may all have been something else than QUIC.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (slots, served) = {
            let mut state = lock(&self.state);
            if let Some(apart) = state.apart.pop_front()
                && apart.fill(buffers, metas).is_some()
            {
                return Poll::Ready(Ok(1));
            }
            if !state.receiver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.receiver = Some(cx.waker().clone());
            }
            (Arc::clone(&state.slots), state.served)
        };
        let later = slots.range((Bound::Excluded(served), Bound::Unbounded));
        for (&index, slot) in later.chain(slots.range(..=served)) {
            slot.poll_unsent(cx);
            if let Poll::Ready(filled) = slot.poll_recv(cx, buffers, metas) {
                self.sort(index, buffers, metas.get_mut(..filled).unwrap_or_default());
                lock(&self.state).served = index;
                return Poll::Ready(Ok(filled));
            }
        }
        Poll::Pending
    }

    /// A virtual address: it tells quinn that IPv6 can be dialled. See
    /// [`SocketSet::local_addresses`] for the real ones.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(VirtualAddress(0).to_socket_addr())
    }

    /// The least that any socket can: quinn asks before it says where to.
    fn max_transmit_segments(&self) -> usize {
        let state = lock(&self.state);
        let segments = state.slots.values().map(|slot| slot.socket.max_transmit_segments());
        segments.min().unwrap_or(1)
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.slots().values().any(|slot| slot.socket.may_fragment())
    }
}

impl fmt::Debug for SocketSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketSet")
            .field("slots", &self.slots())
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl State {
    fn put(&mut self, index: SocketIndex, socket: Arc<dyn AsyncUdpSocket>) {
        if let Ok(local) = socket.local_addr() {
            self.table.add_socket(index, local);
        }
        Arc::make_mut(&mut self.slots).insert(index, Arc::new(Slot::new(index, socket)));
        // The endpoint must poll the new socket once to be woken by it.
        self.wake_receiver();
    }

    fn wake_receiver(&self) {
        if let Some(receiver) = &self.receiver {
            receiver.wake_by_ref();
        }
    }
}

/// tokio's clock, so that it stands still in simulations.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn count(counter: &AtomicU64) -> Fate {
    counter.fetch_add(1, Ordering::Relaxed);
    Fate::Remove
}

/// STUN messages and probes that wait to be handled: those of a birthday attack's widest volley.
const SIDE_QUEUE_MAX: usize = 1024;

/// Bytes of a STUN message or probe: what an Ethernet frame holds; both fit well into it.
const SIDE_SIZE_MAX: usize = 1500;

#[cfg(test)]
mod tests;
