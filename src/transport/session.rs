//! A session: everything that two running programs have between them, over any number of links.
//!
//! Messages are numbered over all links. What was written is kept until the peer's consumer has it, and is
//! written again when a link was lost; the receiver drops what it has already. So each message is delivered
//! once and in order as long as both programs run, and if one of them does not, or forgets the other, its
//! sender is told that nobody knows.
//!
//! ```text
//!  send ─▶ outbound ══▶ link ══▶ link ══▶ inbound ─▶ receive ─▶ Handover
//!  Receipt ◀── acknowledge ◀═══ link ◀═══ link ◀══════ dropped ◀───┘
//! ```
//!
//! `machine` has the rules, around its two halves `outbound` and `inbound`; `doubles` remembers durable
//! messages beyond a session. All of them are pure. This file is the shell for whoever sends and receives;
//! `carrier` is the one for links.
//!
//! How often a message is in memory: at the sender once, as the user gave it, until it is acknowledged;
//! QUIC has a copy of what it has not yet heard to have arrived, and refers to payloads from 8 KiB on instead
//! of copying them. At the receiver once: QUIC's stream window (8 MiB at most), then one buffer that becomes the
//! payload without a copy; until the consumer drops it.

mod carrier;
mod doubles;
mod inbound;
mod machine;
mod message;
mod outbound;
mod replies;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

pub(super) use carrier::{Carrier, Line};
pub use doubles::{DOUBLES_MAX, DOUBLES_TIME, Doubles};
pub(super) use inbound::AckNeed;
pub use inbound::{UNDELIVERED_MAX, WAITING_LENGTH_MAX, WAITING_SIZE_MAX};
pub use machine::Cause;
pub(super) use machine::{NotAttached, Reading, Rejected};
pub use message::{Durability, MESSAGE_SIZE_MAX, Oversize, cost as message_cost};
pub use outbound::{
    IN_FLIGHT_LENGTH_MAX, IN_FLIGHT_SIZE_MAX, QUEUE_LENGTH_MAX, QUEUE_SIZE_MAX, SendError,
};

use super::quic::Endpoint;
use crate::proto::Message;
pub use replies::{AwaitedReply, IN_REPLY_TO, REPLIES_MAX};

use machine::{Fate, Machine};
use message::Outgoing;
use replies::Asked;

/// A handle on the session with one peer. The session ends when its last handle is dropped.
#[derive(Clone)]
pub struct Session(Arc<Owner>);

/// What all handles have in common.
struct Owner(Arc<Shared>);

/// What the handles, the links and the messages under way have in common.
struct Shared {
    state: Mutex<State>,
    /// A message has arrived, or the session has ended.
    arrived: Notify,
    /// Who wants to hear of that, too.
    listener: OnceLock<Listener>,
    /// Everything was delivered, a link was lost or is wanted, or the session has ended.
    changed: Notify,
}

struct State {
    machine: Machine<Ticket>,
    /// The link that the session goes over.
    line: Option<Arc<Line>>,
    /// The link has written all there is, and waits to be woken.
    is_written: bool,
    asked: Asked,
}

type Listener = Box<dyn Fn() + Send + Sync>;

type Ticket = oneshot::Sender<Result<(), Undelivered>>;

/// What becomes of one message: ready when the peer's consumer has it, or nobody will know.
///
/// Dropping it changes nothing for the message.
pub struct Receipt {
    outcome: oneshot::Receiver<Result<(), Undelivered>>,
    number: u64,
    shared: Arc<Shared>,
}

/// Why a message is not known to be delivered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Undelivered {
    /// It was on its way: it may have been delivered or not.
    #[error("nobody knows whether the message was delivered: {cause}")]
    DeliveryUnknown {
        /// What happened meanwhile.
        cause: Cause,
    },
    /// It was withdrawn, or the session ended before a link took it: it was certainly not delivered.
    #[error("the message was not sent")]
    NotSent,
}

/// What it means to have withdrawn a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// It had not been written to any link, and will not be.
    NotSent,
    /// It had been written to a link: it goes on, and its receipt tells what becomes of it.
    MaybeDelivered,
}

/// A message for the consumer.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// To be dropped when the consumer is done with the message.
    pub handover: Handover,
}

/// Stands for a message that the consumer was given. When it is dropped, the message counts as
/// delivered, and is acknowledged when all earlier ones are delivered, too.
pub struct Handover {
    number: u64,
    shared: Arc<Shared>,
}

/// How a session fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Messages that were never written to a link.
    pub waiting: usize,
    /// Bytes of those.
    pub waiting_size: usize,
    /// Messages that were written and are not acknowledged.
    pub in_flight: usize,
    /// Bytes of those.
    pub in_flight_size: usize,
    /// Messages of the peer that wait for the consumer.
    pub arrived: usize,
    /// Bytes of those.
    pub arrived_size: usize,
    /// Messages that the consumer was handed, up to the last one that it is not done with.
    pub handed_over: usize,
    /// Links that have carried the session so far.
    pub links: u64,
}

impl Session {
    /// A session with a peer of whom nothing is known, for links of `endpoint`. Nothing is sent before a
    /// link carries it.
    ///
    /// It replaces all earlier sessions with the same peer: those are to be ended before.
    pub fn new(endpoint: &Endpoint) -> Self {
        let machine = Machine::new(endpoint.name_session());
        let state =
            Mutex::new(State { machine, line: None, is_written: false, asked: Asked::new() });
        let shared = Shared {
            state,
            arrived: Notify::new(),
            listener: OnceLock::new(),
            changed: Notify::new(),
        };
        Self(Arc::new(Owner(Arc::new(shared))))
    }

    /// Queues `message` and gives the receipt for it. Never waits, with a link or without.
    ///
    /// # Errors
    /// [`SendError::TooLarge`], [`SendError::QueueFull`], or [`SendError::Ended`]; then nothing of it
    /// was sent.
    pub fn send(&self, message: Message, durability: Durability) -> Result<Receipt, SendError> {
        let (shared, (ticket, outcome)) = (&self.0.0, oneshot::channel());
        let message = Outgoing::new(message, durability)?;
        let mut state = shared.lock();
        let number = state.machine.send(message, ticket)?;
        let line = state.line.as_ref().filter(|_| state.is_written).cloned();
        let is_apart = state.line.is_none();
        state.is_written &= line.is_none();
        drop(state);
        if let Some(line) = line {
            line.to_write.notify_one();
        }
        if is_apart {
            shared.changed.notify_waiters();
        }
        Ok(Receipt { outcome, number, shared: shared.clone() })
    }

    /// The next message from the peer; `None` when the session has ended and there is none left.
    ///
    /// Cancelling it loses nothing. Links may come and go meanwhile.
    pub async fn receive(&self) -> Option<Received> {
        loop {
            if let Some(received) = self.try_receive() {
                return Some(received);
            }
            let mut arrived = pin!(self.0.0.arrived.notified());
            // Counts as waiting from here on, so that nothing is missed between look and wait.
            arrived.as_mut().enable();
            if let Some(received) = self.try_receive() {
                return Some(received);
            }
            if self.is_ended() {
                return None;
            }
            arrived.await;
        }
    }

    /// The next message from the peer, if one has arrived.
    pub fn try_receive(&self) -> Option<Received> {
        let (message, number) = self.0.0.progress(|machine| machine.pop(Instant::now()))?;
        Some(Received { message, handover: Handover { number, shared: self.0.0.clone() } })
    }

    /// Calls `listener` whenever messages have arrived, and when the session has ended. Only the first
    /// one is kept. It must be quick.
    pub fn on_arrival(&self, listener: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.0.listener.set(Box::new(listener));
    }

    /// Whether a message is queued, or on its way and not acknowledged.
    pub fn has_waiting(&self) -> bool {
        !self.0.0.lock().machine.outbound().is_empty()
    }

    /// Whether somebody still wants to know what becomes of a message that is not delivered.
    pub fn is_awaited(&self) -> bool {
        self.0.0.lock().machine.outbound().tickets().any(|ticket| !ticket.is_closed())
    }

    /// Waits until there is something to send and no link for it; for ever when the session has ended.
    pub async fn wants_link(&self) {
        self.0.0.until(Machine::wants_link).await;
    }

    /// How the session fares.
    pub fn status(&self) -> Status {
        let state = self.0.0.lock();
        let (outbound, inbound) = (state.machine.outbound(), state.machine.inbound());
        let (waiting, waiting_size) = outbound.waiting();
        let (in_flight, in_flight_size) = outbound.in_flight();
        let (arrived, arrived_size) = inbound.waiting();
        Status {
            waiting,
            waiting_size,
            in_flight,
            in_flight_size,
            arrived,
            arrived_size,
            handed_over: inbound.handed_over(),
            links: state.machine.generation(),
        }
    }

    /// Ends the session: what was not delivered is settled with `why`, nothing more is sent, and its link
    /// carries nothing any more. What has arrived can still be received.
    pub fn end(&self, why: &str) {
        self.0.end(why);
    }

    /// Whether the session has ended.
    pub fn is_ended(&self) -> bool {
        self.0.0.lock().machine.is_ended()
    }

    /// The durable messages that the consumer has, oldest first, each with the time since it was handed
    /// over: what the session with this peer should begin with in the next run.
    pub fn export_doubles(&self) -> Vec<(String, Duration)> {
        let state = self.0.0.lock();
        let exported = state.machine.inbound().doubles.export(Instant::now());
        exported.map(|(id, age)| (id.to_owned(), age)).collect()
    }

    /// Takes in what was exported, oldest first, with the time that has passed for each until now.
    pub fn import_doubles(&self, ids: impl IntoIterator<Item = (String, Duration)>) {
        let mut state = self.0.0.lock();
        state.machine.inbound_mut().doubles.import(ids, Instant::now());
    }
}

impl Shared {
    /// Says that messages have arrived, or that none will.
    fn announce(&self) {
        self.arrived.notify_one();
        if let Some(listener) = self.listener.get() {
            listener();
        }
    }

    /// The state is never left half changed: every change is one call of the machine.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the consumer do something, and tells the link of the room and the acks that come of it.
    fn progress<R>(&self, change: impl FnOnce(&mut Machine<Ticket>) -> R) -> R {
        let mut state = self.lock();
        let before = (state.machine.inbound().has_room(), state.machine.inbound().ack_need());
        let result = change(&mut state.machine);
        let has_room = state.machine.inbound().has_room();
        let need = state.machine.inbound().ack_need();
        let is_roomy = has_room && !before.0;
        let is_due = need != AckNeed::None && (need == AckNeed::Now || need != before.1);
        let line = state.line.as_ref().filter(|_| is_roomy || is_due).cloned();
        drop(state);
        if let Some(line) = line {
            if is_roomy {
                line.to_read.notify_one();
            }
            if is_due {
                line.to_say.notify_one();
            }
        }
        result
    }

    /// Lets something happen to the session, and tells those whose messages it settled.
    fn settle<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        let settled = state.machine.take_settled();
        drop(state);
        for (ticket, fate) in settled {
            // Whoever sent the message may not care for its receipt.
            let _ = ticket.send(match fate {
                Fate::Delivered => Ok(()),
                Fate::Unknown(cause) => Err(Undelivered::DeliveryUnknown { cause }),
                Fate::NotSent => Err(Undelivered::NotSent),
            });
        }
        result
    }

    /// Waits until `is_so`, which somebody announces with `changed`.
    async fn until(&self, is_so: impl Fn(&Machine<Ticket>) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if is_so(&self.lock().machine) {
                return;
            }
            changed.await;
        }
    }
}

impl Owner {
    fn end(&self, why: &str) {
        let line = self.0.settle(|state| {
            state.machine.end(why);
            state.asked.clear();
            state.line.take()
        });
        self.0.announce();
        self.0.arrived.notify_waiters();
        self.0.changed.notify_waiters();
        if let Some(line) = line {
            line.wake_all();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end("nobody uses the session any more");
    }
}

impl Receipt {
    /// Takes the message back if it was not yet written to any link: then the receipt says
    /// [`Undelivered::NotSent`].
    pub fn withdraw(&self) -> Withdrawn {
        let was_waiting = self.shared.settle(|state| state.machine.withdraw(self.number));
        if was_waiting { Withdrawn::NotSent } else { Withdrawn::MaybeDelivered }
    }
}

impl Future for Receipt {
    type Output = Result<(), Undelivered>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = Pin::new(&mut self.outcome).poll(context);
        outcome.map(|outcome| outcome.expect("a session settles every message"))
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.shared.progress(|machine| machine.settle(self.number));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?})", self.status())
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt({})", self.number)
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handover({})", self.number)
    }
}
