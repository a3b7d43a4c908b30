//! What all handles and sockets share, and the task that lets time pass for it.
//!
//! One lock protects everything; it is never held while other code runs. The driver sleeps until the
//! next datagram is due, and ends with the last handle or socket.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::Waker,
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{link::Link, network::Network, sockets::SocketId, topology::Node};

/// What handles, sockets and the driver share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Tells the driver that something is due earlier than it thought.
    earlier: Arc<Notify>,
    started: Instant,
    driver: OnceLock<AbortHandle>,
}

/// What the lock protects.
#[derive(Debug)]
pub(super) struct State {
    pub(super) network: Network,
    /// Tasks that wait for a datagram.
    pub(super) readers: BTreeMap<SocketId, Vec<Waker>>,
}

impl Shared {
    /// Starts a network's time, and the driver.
    pub(super) fn start(network: Network) -> Arc<Self> {
        let shared = Arc::new(Self {
            state: Mutex::new(State { network, readers: BTreeMap::new() }),
            earlier: Arc::new(Notify::new()),
            started: clock(),
            driver: OnceLock::new(),
        });
        let driver = tokio::spawn(drive(Arc::downgrade(&shared), Arc::clone(&shared.earlier)));
        let _ = shared.driver.set(driver.abort_handle()); // The cell was empty: it is ours alone.
        shared
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        clock().duration_since(self.started)
    }

    /// Does something that may put datagrams on their way, and tells the driver.
    pub(super) fn send(&self, deed: impl FnOnce(&mut Network, Duration)) {
        let now = self.now();
        let mut state = self.lock();
        let before = state.network.poll_timeout();
        deed(&mut state.network, now);
        let after = state.network.poll_timeout();
        drop(state);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.earlier.notify_one();
        }
    }

    /// Changes a node's link. The change is made on a copy, since it may look at the world itself.
    pub(super) fn change_link(&self, node: Node, change: impl FnOnce(&mut Link)) {
        let mut link = self.lock().network.wire(node).link;
        change(&mut link);
        self.lock().network.wire(node).link = link;
    }

    /// Moves what is due and wakes who got something. Returns when to come back.
    fn step(&self) -> Option<Instant> {
        let now = self.now();
        let mut wake = Vec::new();
        let mut state = self.lock();
        state.network.handle_timeout(now);
        while let Some(socket) = state.network.sockets.poll_readable() {
            wake.extend(state.readers.remove(&socket).unwrap_or_default());
        }
        let next = state.network.poll_timeout();
        // Waking, or dropping, a waker can drop a task that holds a socket, which needs the lock.
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        next.map(|at| self.started + at)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
    }
}

/// Moves datagrams when they are due, until the internet is gone.
async fn drive(shared: Weak<Shared>, earlier: Arc<Notify>) {
    loop {
        let Some(next) = shared.upgrade().map(|shared| shared.step()) else {
            return;
        };
        match next {
            None => earlier.notified().await,
            Some(at) => tokio::select! {
                biased;
                () = earlier.notified() => {}
                () = sleep_until(at) => {}
            },
        }
    }
}

/// The only place where the lab reads a clock.
fn clock() -> Instant {
    Instant::now()
}
