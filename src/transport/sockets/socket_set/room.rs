//! Waiting until there is room for what a connection wants to send.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use quinn::UdpPoller;

use super::{Slot, SocketSet};

/// Wakes a connection's task when no socket is full any more.
///
/// quinn asks before it says where to, so the full socket of another connection holds this one up too;
/// kernels empty a socket within a millisecond.
pub(super) struct RoomPoller {
    set: Arc<SocketSet>,
    /// The full sockets.
    waiting: Vec<Waiting>,
}

type Waiting = (Arc<Slot>, Pin<Box<dyn UdpPoller>>);

impl RoomPoller {
    pub(super) fn new(set: Arc<SocketSet>) -> Self {
        Self { set, waiting: Vec::new() }
    }
}

impl UdpPoller for RoomPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.set.any_full.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let slots = self.set.slots();
        let waiting = &mut self.waiting;
        waiting.retain(|(slot, _)| {
            let current = slots.get(&slot.index);
            slot.is_full() && current.is_some_and(|current| Arc::ptr_eq(current, slot))
        });
        for slot in slots.values().filter(|slot| slot.is_full()) {
            if !waiting.iter().any(|(known, _)| Arc::ptr_eq(known, slot)) {
                let poller = Arc::clone(&slot.socket.quic).create_io_poller();
                waiting.push((Arc::clone(slot), poller));
            }
        }
        waiting.retain_mut(|(slot, poller)| {
            let pending = poller.as_mut().poll_writable(cx).is_pending();
            if !pending {
                slot.has_room_again();
            }
            pending
        });
        if !waiting.is_empty() {
            return Poll::Pending;
        }
        // If a socket fills up right now, its sender sets this again.
        self.set.any_full.store(false, Ordering::Release);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for RoomPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomPoller({} full)", self.waiting.len())
    }
}
