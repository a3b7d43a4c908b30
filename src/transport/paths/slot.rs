//! One socket of a set: it swallows errors, remembers whether it is full, and keeps a few datagrams
//! until it has room.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use quinn::{
    UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use tokio::time::Sleep;

use crate::{datagram::SocketIndex, transport::sockets::socket::Socket};

/// A socket with its index in the set.
pub(in crate::transport) struct Slot {
    pub(in crate::transport) index: SocketIndex,
    pub(in crate::transport) socket: Socket,
    full: AtomicBool,
    has_unsent: AtomicBool,
    unsent: Mutex<Unsent>,
    /// Set while the socket only fails, so that failing does not become a busy loop.
    rest: Mutex<Option<Pin<Box<Sleep>>>>,
    failures: Failures,
    attention: Option<Arc<Attention>>,
}

/// Says that a socket wants to be polled, and wakes whoever polls.
struct Attention {
    is_wanted: AtomicBool,
    receiver: Arc<Receiver>,
}

/// The task that polls all sockets of a set.
#[derive(Default)]
pub(in crate::transport) struct Receiver(Mutex<Option<Waker>>);

impl Receiver {
    /// It is this task from now on.
    pub(in crate::transport) fn set(&self, waker: &Waker) {
        let mut task = lock(&self.0);
        if !task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    /// Has it poll.
    pub(in crate::transport) fn wake(&self) {
        if let Some(task) = &*lock(&self.0) {
            task.wake_by_ref();
        }
    }
}

impl Wake for Attention {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_wanted.store(true, Ordering::Release);
        self.receiver.wake();
    }
}

/// The socket has no room for a datagram now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) struct Full;

/// What went wrong on a socket so far.
#[derive(Debug, Default)]
pub(in crate::transport) struct Failures {
    pub(in crate::transport) receive: AtomicU64,
    pub(in crate::transport) send: AtomicU64,
    pub(in crate::transport) unsent: AtomicU64,
}

#[derive(Default)]
struct Unsent {
    /// Oldest first.
    datagrams: VecDeque<UnsentDatagram>,
    room: Option<Pin<Box<dyn UdpPoller>>>,
}

struct UnsentDatagram {
    remote: SocketAddr,
    bytes: Vec<u8>,
    ecn: Option<EcnCodepoint>,
}

impl Slot {
    pub(in crate::transport) fn new(index: SocketIndex, socket: Socket) -> Self {
        Self {
            index,
            socket,
            full: AtomicBool::new(false),
            has_unsent: AtomicBool::new(false),
            unsent: Mutex::default(),
            rest: Mutex::default(),
            failures: Failures::default(),
            attention: None,
        }
    }

    /// One of many sockets, most of which have nothing to say: it is polled only when it has called.
    pub(in crate::transport) fn quiet(
        index: SocketIndex,
        socket: Socket,
        receiver: &Arc<Receiver>,
    ) -> Self {
        let attention =
            Attention { is_wanted: AtomicBool::new(true), receiver: Arc::clone(receiver) };
        Self { attention: Some(Arc::new(attention)), ..Self::new(index, socket) }
    }

    pub(in crate::transport) fn failures(&self) -> &Failures {
        &self.failures
    }

    pub(in crate::transport) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    pub(in crate::transport) fn has_room_again(&self) {
        self.full.store(false, Ordering::Release);
    }

    /// Sends now. An error is counted and the datagram is gone, as any datagram may be.
    pub(in crate::transport) fn try_send(&self, transmit: &Transmit<'_>) -> Result<(), Full> {
        match self.socket.quic.try_send(transmit) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.full.store(true, Ordering::Release);
                Err(Full)
            }
            Err(_) => {
                self.failures.send.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Sends one datagram that crosses a few routers only, now or never.
    pub(in crate::transport) fn send_within(&self, remote: SocketAddr, bytes: &[u8], hops: u8) {
        if self.socket.send_within(remote, bytes, hops).is_err() {
            self.failures.send.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends one datagram now, or keeps it until there is room; [`Slot::poll_unsent`] must be polled
    /// then.
    pub(in crate::transport) fn send_or_keep(
        &self,
        remote: SocketAddr,
        bytes: &[u8],
        ecn: Option<EcnCodepoint>,
    ) -> Result<(), Full> {
        self.try_send(&single(remote, bytes, ecn)).inspect_err(|_| {
            let mut unsent = lock(&self.unsent);
            if unsent.datagrams.len() == UNSENT_MAX {
                unsent.datagrams.pop_front();
                self.failures.unsent.fetch_add(1, Ordering::Relaxed);
            }
            let bytes = bytes.to_vec();
            unsent.datagrams.push_back(UnsentDatagram { remote, bytes, ecn });
            self.has_unsent.store(true, Ordering::Release);
        })
    }

    /// Sends what was kept, as far as there is room; if not all, wakes the task when there is more.
    pub(in crate::transport) fn poll_unsent(&self, cx: &mut Context<'_>) {
        if !self.has_unsent.load(Ordering::Acquire) {
            return;
        }
        let mut unsent = lock(&self.unsent);
        let unsent = &mut *unsent;
        for _ in 0..ATTEMPTS_MAX {
            let Some(datagram) = unsent.datagrams.front() else {
                self.has_unsent.store(false, Ordering::Release);
                return;
            };
            let transmit = single(datagram.remote, &datagram.bytes, datagram.ecn);
            if self.try_send(&transmit) == Ok(()) {
                unsent.datagrams.pop_front();
                continue;
            }
            let socket = Arc::clone(&self.socket.quic);
            let room = unsent.room.get_or_insert_with(|| socket.create_io_poller());
            if room.as_mut().poll_writable(cx).is_pending() {
                return;
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Receives datagrams; never zero of them, and never an error.
    pub(in crate::transport) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let Some(attention) = &self.attention else {
            return self.poll_recv_now(cx, buffers, metas);
        };
        if !attention.is_wanted.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(attention));
        let received = self.poll_recv_now(&mut Context::from_waker(&waker), buffers, metas);
        if received.is_ready() {
            // There may be more.
            attention.is_wanted.store(true, Ordering::Release);
        }
        received
    }

    fn poll_recv_now(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let mut rest = lock(&self.rest);
        if let Some(sleep) = rest.as_mut() {
            ready!(sleep.as_mut().poll(cx));
            *rest = None;
        }
        for _ in 0..ERRORS_IN_A_ROW_MAX {
            match ready!(self.socket.quic.poll_recv(cx, buffers, metas)) {
                Ok(count) if count > 0 => return Poll::Ready(count),
                Ok(_) | Err(_) => self.failures.receive.fetch_add(1, Ordering::Relaxed),
            };
        }
        let sleep = rest.insert(Box::pin(tokio::time::sleep(REST)));
        // A fresh sleep is never over; polling it makes it wake the task.
        let _ = sleep.as_mut().poll(cx);
        Poll::Pending
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("index", &self.index)
            .field("socket", &self.socket)
            .field("full", &self.is_full())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// The value in `mutex`. A task that panicked while it held it left a value that is still sound: every
/// section that locks one changes it in steps that each keep it so.
pub(in crate::transport) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One datagram to `destination`, not a batch.
pub(in crate::transport) fn single(
    destination: SocketAddr,
    contents: &[u8],
    ecn: Option<EcnCodepoint>,
) -> Transmit<'_> {
    Transmit { destination, ecn, contents, segment_size: None, src_ip: None }
}

/// Datagrams that wait for room: a round of probes to all candidates of some peers. What is older than
/// that is sent again by whoever wants an answer.
const UNSENT_MAX: usize = 64;

/// Sends in a row, so that a socket which is writable and full at once does not hold up the task.
const ATTEMPTS_MAX: usize = 2 * UNSENT_MAX;

/// Errors in a row that are taken for queued reports about single datagrams (Windows has those).
const ERRORS_IN_A_ROW_MAX: u32 = 16;

/// How long a socket that does nothing but fail is left alone: it costs 160 system calls a second.
const REST: Duration = Duration::from_millis(100);
