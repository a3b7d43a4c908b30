//! Messages on their way to the user, apart from events: a user who is busy with messages still hears
//! what else happens, and the other way round.
//!
//! They stay in their sessions until the user takes them. A session in which messages have arrived stands
//! in a queue; the inbox takes from the one in front, some at a time, so that no peer waits for another.

use std::{
    collections::VecDeque,
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use super::sessions::Counts;
use crate::{
    identity::PeerId,
    proto::Message,
    transport::session::{self, Session},
};

/// A message that arrived.
#[derive(Debug)]
pub struct Received {
    /// From whom; proved by TLS.
    pub peer: PeerId,
    /// What it says.
    pub message: Message,
    /// Dropping it acknowledges the message to its sender.
    pub handover: Handover,
}

/// The promise to acknowledge a message.
#[derive(Debug)]
pub struct Handover(
    #[allow(dead_code, reason = "dropping it is its use")] Option<session::Handover>,
);

impl Received {
    pub(in crate::node) fn of(peer: PeerId, received: session::Received) -> Self {
        let session::Received { message, handover } = received;
        Self { peer, message, handover: Handover(Some(handover)) }
    }
}

/// The messages of all peers, each peer's in its order. While nobody takes them, their senders are
/// slowed down.
pub struct Inbox {
    arrivals: Arc<Arrivals>,
    /// Whose turn it is, and how many messages of it were taken in this turn.
    current: Option<(Arc<Source>, usize)>,
    #[cfg(test)]
    invented: Option<tokio::sync::mpsc::Receiver<Received>>,
}

/// The node's end of the inbox; dropping it ends the inbox.
pub(in crate::node) struct Deliveries(Arc<Arrivals>);

/// The sessions in which messages have arrived.
#[derive(Default)]
struct Arrivals {
    ready: Mutex<VecDeque<Arc<Source>>>,
    bell: Notify,
    is_over: AtomicBool,
}

/// A session whose messages go to the user.
pub(in crate::node) struct Source {
    peer: PeerId,
    session: Session,
    counts: Arc<Counts>,
    /// Whether it stands in the queue.
    is_ready: AtomicBool,
    arrivals: Arc<Arrivals>,
}

impl Inbox {
    /// An inbox, and the way into it.
    pub(in crate::node) fn new() -> (Deliveries, Self) {
        let arrivals = Arc::<Arrivals>::default();
        let inbox = Self {
            arrivals: arrivals.clone(),
            current: None,
            #[cfg(test)]
            invented: None,
        };
        (Deliveries(arrivals), inbox)
    }

    /// The next message; `None` when the node has stopped. Giving up the wait loses nothing.
    pub async fn next(&mut self) -> Option<Received> {
        #[cfg(test)]
        if let Some(invented) = &mut self.invented {
            return invented.recv().await;
        }
        loop {
            let arrivals = self.arrivals.clone();
            let mut rung = pin!(arrivals.bell.notified());
            // Counts as waiting from here on, so that nothing is missed between look and wait.
            rung.as_mut().enable();
            if let Some(received) = self.try_next() {
                return Some(received);
            }
            if arrivals.is_over.load(Ordering::Acquire) {
                return None;
            }
            rung.await;
        }
    }

    /// The next message, if one is there.
    pub fn try_next(&mut self) -> Option<Received> {
        #[cfg(test)]
        if let Some(invented) = &mut self.invented {
            return invented.try_recv().ok();
        }
        loop {
            if let Some((source, taken)) = &mut self.current {
                if *taken < TURN_LENGTH
                    && let Some(received) = source.session.try_receive()
                {
                    *taken += 1;
                    source.counts.received.fetch_add(1, Ordering::Relaxed);
                    return Some(Received::of(source.peer, received));
                }
                if *taken == TURN_LENGTH {
                    source.queue();
                }
            }
            let next = self.arrivals.lock().pop_front();
            self.current = next.map(|source| {
                // What arrives from here on makes it ready again.
                source.is_ready.store(false, Ordering::Release);
                (source, 0)
            });
            self.current.as_ref()?;
        }
    }

    /// An inbox of messages that nobody sent.
    #[cfg(test)]
    pub(crate) fn invent() -> (tokio::sync::mpsc::Sender<Received>, Self) {
        let (sender, invented) = tokio::sync::mpsc::channel(16);
        let (_, inbox) = Self::new();
        (sender, Self { invented: Some(invented), ..inbox })
    }
}

#[cfg(test)]
impl Handover {
    /// Of a message that nobody sent.
    pub(crate) fn new() -> Self {
        Self(None)
    }
}

impl Deliveries {
    /// Lets the messages of the session with `peer` reach the user for as long as the source is kept.
    pub(in crate::node) fn deliver(
        &self,
        peer: PeerId,
        session: Session,
        counts: Arc<Counts>,
    ) -> Arc<Source> {
        let source = Arc::new_cyclic(|source: &Weak<Source>| {
            let source = source.clone();
            session.on_arrival(move || {
                if let Some(source) = source.upgrade() {
                    source.queue();
                }
            });
            let (is_ready, arrivals) = (AtomicBool::new(false), self.0.clone());
            Source { peer, session, counts, is_ready, arrivals }
        });
        // For what arrived before anybody listened.
        source.queue();
        source
    }
}

impl Source {
    fn queue(self: &Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::AcqRel) {
            self.arrivals.lock().push_back(self.clone());
            self.arrivals.bell.notify_one();
        }
    }
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Source>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.bell.notify_one();
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbox({} peers)", self.arrivals.lock().len())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?})", self.peer)
    }
}

/// The metadata entry that names the message which is answered.
pub const IN_REPLY_TO: &str = session::IN_REPLY_TO;

/// Messages of one peer that are taken before it is another's turn.
const TURN_LENGTH: usize = 64;
