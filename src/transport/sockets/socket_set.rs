//! All sockets of a node, as the one socket that quinn sees.
//!
//! The set polls its sockets in turn, takes STUN and probes out of what they receive, and translates
//! between real and virtual addresses by the [path table](crate::transport::paths::path_table). quinn ends an endpoint
//! at the first error that its socket reports, so none is ever reported: errors are counted.
//!
//! A set receives, and sends what had to wait, only while a [`quinn::Endpoint`] polls it. It is also
//! the one place of `transport` that reads the clock.

mod apart;
mod early;
mod room;
mod sorting;
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
    task::{Context, Poll},
    time::Instant,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use thiserror::Error;
use tokio::{
    sync::{Notify, mpsc},
    time::{Sleep, sleep_until},
};

use self::{apart::Apart, early::Early, room::RoomPoller};
use super::socket::Socket;
use crate::{
    datagram::{Datagram, Path, SocketIndex},
    transport::paths::{
        path_table::{Destinations, PathTable, Refusals, WaitingDatagram},
        repeats::Repeats,
        route::VirtualAddress,
        slot::{Full, Receiver, Slot, lock},
        traffic::Volume,
    },
};

/// Why a socket cannot join the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddSocketError {
    /// All indexes are taken.
    #[error("the set has {SOCKETS_MAX} sockets already")]
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
    /// The index of the socket that was added last.
    added: SocketIndex,
    /// The endpoint's task.
    receiver: Arc<Receiver>,
    /// What shared a buffer with another connection's datagrams and is received next, oldest first.
    apart: VecDeque<Apart>,
    early: Early,
    /// When a packet that belongs to nobody was given on.
    stray_at: Option<Instant>,
    repeats: Repeats,
    /// Rings when one of them is due.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl SocketSet {
    /// A set of `sockets`, numbered from 0, and the channel of STUN messages and probes they receive.
    ///
    /// What does not fit into the channel is dropped and counted.
    pub fn new(sockets: Vec<Socket>, table: PathTable) -> (Arc<Self>, mpsc::Receiver<Datagram>) {
        let (side, side_receiver) = mpsc::channel(SIDE_QUEUE_MAX);
        let receive_segments = sockets.iter().map(|socket| socket.quic.max_receive_segments());
        let set = Self {
            receive_segments: receive_segments.max().unwrap_or(1),
            state: Mutex::new(State {
                table,
                slots: Arc::default(),
                served: SocketIndex(u16::MAX),
                added: SocketIndex(ADDED_FROM - 1),
                receiver: Arc::default(),
                apart: VecDeque::new(),
                early: Early::default(),
                stray_at: None,
                repeats: Repeats::default(),
                alarm: None,
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

    /// Adds a socket beside those that the set began with, under an index that was not given out for as
    /// long as possible: what arrived on a socket that is closed is not taken for another one's.
    ///
    /// # Errors
    /// When the set is full, or the endpoint's buffers are too small for the socket.
    pub fn add_socket(&self, socket: Socket) -> Result<SocketIndex, AddSocketError> {
        self.check_buffers(&*socket.quic)?;
        let mut state = lock(&self.state);
        if state.slots.len() >= SOCKETS_MAX {
            return Err(AddSocketError::TooMany);
        }
        let begin = state.added.0.checked_add(1).unwrap_or(ADDED_FROM);
        let mut indexes = (begin..=u16::MAX).chain(ADDED_FROM..begin).map(SocketIndex);
        let free = indexes.find(|index| !state.slots.contains_key(index));
        let free = free.ok_or(AddSocketError::TooMany)?;
        state.added = free;
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
    pub fn rebind(&self, index: SocketIndex, socket: Socket) -> Result<(), AddSocketError> {
        self.check_buffers(&*socket.quic)?;
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

    /// Sends one probe that crosses at most `hops - 1` routers; best effort.
    pub fn send_within(&self, path: Path, bytes: &[u8], hops: u8) {
        match self.slots().get(&path.socket) {
            Some(slot) => slot.send_within(path.remote, bytes, hops),
            None => drop(self.sent_nowhere.fetch_add(1, Ordering::Relaxed)),
        }
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

    /// Sends what is due again, and wakes the task when there is more.
    fn poll_repeats(&self, cx: &mut Context<'_>) {
        loop {
            let datagram = {
                let mut state = lock(&self.state);
                let Some(due) = state.repeats.poll_timeout() else {
                    return;
                };
                let due = tokio::time::Instant::from_std(due);
                let alarm = state.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
                if alarm.deadline() != due {
                    alarm.as_mut().reset(due);
                }
                if alarm.as_mut().poll(cx).is_pending() {
                    return;
                }
                state.repeats.poll_transmit(due.into_std())
            };
            self.send_waiting(datagram.into_iter().collect());
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
            state.early.handle_sent(transmit.contents, now);
            let destinations = state.table.forward(transmit, now);
            (destinations, Arc::clone(&state.slots))
        };
        let segment_size = transmit.segment_size.unwrap_or(transmit.contents.len());
        match destinations {
            Destinations::One(path) | Destinations::Repeatedly(path, _) => {
                let transmit =
                    Transmit { destination: path.remote, src_ip: None, ..transmit.clone() };
                if slots.get(&path.socket).map(|slot| slot.try_send(&transmit)) == Some(Err(Full)) {
                    self.any_full.store(true, Ordering::Release);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                if let Destinations::Repeatedly(path, copies) = destinations {
                    let mut state = lock(&self.state);
                    state.repeats.push(path, &transmit, copies, now);
                    // It sets the alarm.
                    state.wake_receiver();
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
            state.receiver.set(cx.waker());
            (Arc::clone(&state.slots), state.served)
        };
        self.poll_repeats(cx);
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
        let segments = state.slots.values().map(|slot| slot.socket.quic.max_transmit_segments());
        segments.min().unwrap_or(1)
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.slots().values().any(|slot| slot.socket.quic.may_fragment())
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
    fn put(&mut self, index: SocketIndex, socket: Socket) {
        if let Ok(local) = socket.local_addr() {
            self.table.add_socket(index, local);
        }
        let slot = match index.0 < ADDED_FROM {
            true => Slot::new(index, socket),
            false => Slot::quiet(index, socket, &self.receiver),
        };
        Arc::make_mut(&mut self.slots).insert(index, Arc::new(slot));
        // The endpoint must poll the new socket once to be woken by it.
        self.wake_receiver();
    }

    fn wake_receiver(&self) {
        self.receiver.wake();
    }
}

/// tokio's clock, so that it stands still in simulations.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Sockets of one set: the node's own, a crowd of 1,024 that make mappings in a NAT with random ports, and
/// those that became paths of a few peers.
pub const SOCKETS_MAX: usize = 1_280;

/// The lowest index of a socket that was added.
const ADDED_FROM: u16 = 256;

/// STUN messages and probes that wait to be handled: those of a birthday attack's widest volley.
const SIDE_QUEUE_MAX: usize = 1024;

#[cfg(test)]
mod tests;
