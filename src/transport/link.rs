//! A link: one QUIC connection between two peers who have proved who they are and agreed to talk.
//!
//! It carries messages both ways, each acknowledged when the other side's consumer has taken it. Pure
//! parts decide ([`outbound`], [`inbound`], [`control`]); four small tasks move bytes between them and
//! the two streams of each direction. Acks and pings have a stream of their own, so a consumer that
//! stands still stops the messages of one direction and nothing else:
//!
//! ```text
//!  send ─▶ outbound ─▶ write_messages ══ message stream ══▶ read_messages ─▶ inbound ─▶ receive
//!  Receipt ◀─ acknowledge ◀─ read_control ◀══ control stream ══ write_control ◀─ acknowledge ─┘
//! ```
//!
//! The tasks belong to the [`Link`]: dropping it ends everything.

mod control;
mod error;
mod handshake;
mod inbound;
mod outbound;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use quinn::Connection;
use thiserror::Error;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{Instrument, debug, debug_span};

pub use error::{LinkError, Loss};
pub use handshake::{Caller, Dial};
pub use outbound::{QUEUE_LENGTH_MAX, QUEUE_SIZE_MAX, SendError};
pub use wire::{MESSAGE_SIZE_MAX, Oversize};

use crate::{
    identity::PeerId,
    probe::{ProbeKeys, Side},
    proto::{
        Message,
        wire::{Ack, Bye, Control, Ping, Pong, Sequenced, control::Kind},
    },
    transport::{
        frame::{FrameReader, FrameWriter},
        quic::{Arrival, Endpoint},
    },
};

use control::Conversation;
use error::{CloseCode, printable};
use handshake::{
    ControlReader, Established, accept_stream, close_because, flush, push, read_error,
};
use inbound::{AckNeed, Inbound};
use outbound::Outbound;
use wire::{MESSAGE_STREAM, control};

/// An authenticated connection to one peer. Dropping it closes it at once.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    /// Aborted when the link is dropped.
    _tasks: JoinSet<()>,
}

/// What becomes of one message: ready when the peer's consumer has taken it.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<(), LinkError>>);

/// The link ended before the message was acknowledged: it may have been delivered or not.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the link ended before the peer acknowledged the message: {cause}")]
pub struct DeliveryUnknown {
    /// How the link ended.
    pub cause: LinkError,
}

struct Shared {
    connection: Connection,
    side: Side,
    peer: PeerId,
    agent: String,
    probe_keys: ProbeKeys,
    outbound: Mutex<Outbound<oneshot::Sender<Result<(), LinkError>>>>,
    /// There is something to write, or room for it.
    to_send: Notify,
    /// Everything was delivered.
    drained: Notify,
    inbound: Mutex<Inbound>,
    /// A message arrived, or none will any more.
    arrived: Notify,
    /// The consumer made room.
    room: Notify,
    conversation: Mutex<Conversation<oneshot::Sender<Duration>>>,
    /// There is something to say on the control stream.
    to_say: Notify,
    end: watch::Sender<Option<LinkError>>,
}

impl Link {
    /// Dials a peer; the link is up when the peer has said that we are welcome.
    ///
    /// Takes one round trip if the peer awaits us or admits anybody, else two.
    ///
    /// # Errors
    /// Every [`LinkError`] but [`LinkError::Closed`].
    pub async fn dial(endpoint: &Endpoint, dial: Dial) -> Result<Self, LinkError> {
        let span = debug_span!("dial", peer = ?dial.peer, address = %dial.address);
        let established = handshake::dial(endpoint, dial).instrument(span).await?;
        Ok(Self::start(established))
    }

    /// Lets in somebody who dialled us; the link is up when it has proved who it is and was found
    /// welcome. Gives up after ten seconds.
    ///
    /// # Errors
    /// Every [`LinkError`] but [`LinkError::Closed`]; [`LinkError::Refused`] when `caller`'s rule says
    /// so.
    pub async fn accept(
        endpoint: &Endpoint,
        arrival: Arrival,
        caller: Caller,
    ) -> Result<Self, LinkError> {
        let span = debug_span!("accept", address = %arrival.address());
        let accepting = handshake::accept(endpoint, arrival, caller);
        Ok(Self::start(accepting.instrument(span).await?))
    }

    /// Who is at the other end; proved by TLS.
    pub fn peer_id(&self) -> PeerId {
        self.shared.peer
    }

    /// Whether we dialled ([`Side::Initiator`]) or accepted.
    pub fn side(&self) -> Side {
        self.shared.side
    }

    /// The peer's software, for people.
    pub fn agent(&self) -> &str {
        &self.shared.agent
    }

    /// Keys for probes that only the two ends of this link can make; the same conversation at both.
    pub fn probe_keys(&self) -> &ProbeKeys {
        &self.shared.probe_keys
    }

    /// QUIC's current estimate of the round trip.
    pub fn rtt(&self) -> Duration {
        self.shared.connection.rtt()
    }

    /// Queues `message` and gives the receipt for it. Never waits.
    ///
    /// # Errors
    /// [`SendError::TooLarge`], [`SendError::QueueFull`], or [`SendError::Ended`]; then nothing of it
    /// was sent.
    pub fn send(&self, message: Message) -> Result<Receipt, SendError> {
        let (ticket, receipt) = oneshot::channel();
        lock(&self.shared.outbound).push(message, ticket)?;
        self.shared.to_send.notify_one();
        Ok(Receipt(receipt))
    }

    /// The next message from the peer. Taking it acknowledges it.
    ///
    /// Cancelling it loses nothing. After the end of the link, the messages that had arrived before
    /// still come.
    ///
    /// # Errors
    /// How the link ended, when there are no messages left.
    pub async fn receive(&self) -> Result<Message, LinkError> {
        loop {
            let mut arrived = pin!(self.shared.arrived.notified());
            // Counts as waiting from here on, so that nothing is missed between look and wait.
            arrived.as_mut().enable();
            let end = self.ended();
            if let Some(message) = self.shared.take_message() {
                return Ok(message);
            }
            if let Some(end) = end {
                return Err(end);
            }
            arrived.await;
        }
    }

    /// Asks the peer for an answer: the time until it came, through queues and all.
    ///
    /// # Errors
    /// How the link ended, if it did before the answer. Without an end it waits as long as the link
    /// lasts, so put a limit on it.
    pub async fn ping(&self) -> Result<Duration, LinkError> {
        let (ticket, pong) = oneshot::channel();
        lock(&self.shared.conversation).ping(Instant::now(), ticket);
        self.shared.to_say.notify_one();
        tokio::select! {
            biased;
            Ok(rtt) = pong => Ok(rtt),
            end = self.closed() => Err(end),
        }
    }

    /// Waits until the link has ended, and says how.
    pub async fn closed(&self) -> LinkError {
        let mut end = self.shared.end.subscribe();
        let end = end.wait_for(Option::is_some).await;
        end.ok()
            .and_then(|end| end.clone())
            .unwrap_or(LinkError::Closed)
    }

    /// How the link ended, if it did.
    pub fn ended(&self) -> Option<LinkError> {
        self.shared.end.borrow().clone()
    }

    /// Ends the link in peace: takes no more messages, waits until `deadline` for those that were
    /// taken to be delivered, then tells the peer `reason`.
    ///
    /// What the peer had on its way to us and we had not received, its sender learns as
    /// [`DeliveryUnknown`].
    pub async fn close(&self, reason: &str, deadline: Instant) {
        let shared = &self.shared;
        lock(&shared.outbound).close();
        let drained = timeout_at(deadline, shared.drained()).await.is_ok();
        shared.declare_end(LinkError::Closed);
        if drained {
            lock(&shared.conversation).say_bye(error::truncate(reason));
            shared.to_say.notify_one();
            // The peer closes the connection when it reads the farewell. If it does not, we do.
            let _ = timeout_at(deadline, shared.connection.closed()).await;
        }
        CloseCode::Bye.close(&shared.connection, reason);
    }

    fn start(established: Established) -> Self {
        let Established {
            connection,
            side,
            peer,
            agent,
            probe_keys,
            control_out,
            control_in,
        } = established;
        let span = debug_span!("link", ?peer);
        let shared = Arc::new(Shared {
            connection,
            side,
            peer,
            agent,
            probe_keys,
            outbound: Mutex::new(Outbound::new()),
            to_send: Notify::new(),
            drained: Notify::new(),
            inbound: Mutex::new(Inbound::default()),
            arrived: Notify::new(),
            room: Notify::new(),
            conversation: Mutex::new(Conversation::new()),
            to_say: Notify::new(),
            end: watch::Sender::new(None),
        });
        let mut tasks = JoinSet::new();
        let mut run = |task: Pin<Box<dyn Task>>| {
            let shared = shared.clone();
            let until_the_end = async move {
                let Err(error) = task.await;
                shared.fail(error);
            };
            tasks.spawn(until_the_end.instrument(span.clone()));
        };
        run(Box::pin(shared.clone().write_control(control_out)));
        run(Box::pin(shared.clone().read_control(control_in)));
        run(Box::pin(shared.clone().write_messages()));
        run(Box::pin(shared.clone().read_messages()));
        run(Box::pin(shared.clone().watch_connection()));
        Self {
            shared,
            _tasks: tasks,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.declare_end(LinkError::Closed);
        CloseCode::Gone.close(&self.shared.connection, "");
    }
}

impl Future for Receipt {
    type Output = Result<(), DeliveryUnknown>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = Pin::new(&mut self.0).poll(context);
        outcome.map(|outcome| {
            let outcome = outcome.unwrap_or(Err(LinkError::Closed));
            outcome.map_err(|cause| DeliveryUnknown { cause })
        })
    }
}

/// Runs as long as the link and says why it cannot go on.
trait Task: Future<Output = Result<Infallible, LinkError>> + Send {}
impl<T: Future<Output = Result<Infallible, LinkError>> + Send> Task for T {}

impl Shared {
    async fn write_control(self: Arc<Self>, mut out: FrameWriter) -> Result<Infallible, LinkError> {
        let mut ack_at = None;
        loop {
            while let Some(frame) = lock(&self.conversation).poll_frame() {
                push(&mut out, frame);
            }
            ack_at = self.write_ack(&mut out, ack_at);
            flush(&self.connection, &mut out).await?;
            tokio::select! {
                biased;
                () = self.to_say.notified() => {}
                () = sleep_until(ack_at.unwrap_or_else(Instant::now)), if ack_at.is_some() => {}
            }
        }
    }

    /// Writes an ack if one is due, else says when it will be.
    fn write_ack(&self, out: &mut FrameWriter, due: Option<Instant>) -> Option<Instant> {
        let (mut inbound, now) = (lock(&self.inbound), Instant::now());
        let due = match inbound.ack_need() {
            AckNeed::None => return None,
            AckNeed::Now => now,
            AckNeed::Soon => due.unwrap_or(now + ACK_DELAY),
        };
        if due > now {
            return Some(due);
        }
        let delivered = inbound.acknowledge();
        push(out, control(Ack { delivered }));
        None
    }

    async fn read_control(
        self: Arc<Self>,
        mut frames: ControlReader,
    ) -> Result<Infallible, LinkError> {
        loop {
            let frame = frames.next().await;
            let frame = frame.map_err(|error| read_error(&self.connection, error))?;
            let frame = frame.ok_or_else(|| LinkError::violation("the control stream ended"))?;
            self.handle_control(frame)?;
        }
    }

    fn handle_control(&self, frame: Control) -> Result<(), LinkError> {
        match frame.kind {
            Some(Kind::Ack(Ack { delivered })) => self.handle_ack(delivered)?,
            Some(Kind::Ping(Ping { number })) => {
                lock(&self.conversation).handle_ping(number);
                self.to_say.notify_one();
            }
            Some(Kind::Pong(Pong { number })) => {
                let answered = lock(&self.conversation).handle_pong(number, Instant::now());
                if let Some((rtt, ticket)) = answered {
                    // Whoever asked may have stopped waiting.
                    let _ = ticket.send(rtt);
                }
            }
            Some(Kind::Bye(Bye { reason })) => {
                return Err(LinkError::ClosedByPeer {
                    reason: printable(reason.as_bytes()),
                });
            }
            Some(Kind::Hello(_) | Kind::Welcome(_)) => {
                return Err(LinkError::violation("a second hello or welcome"));
            }
            // A kind that a later version of the protocol added.
            None => {}
        }
        Ok(())
    }

    fn handle_ack(&self, delivered: u64) -> Result<(), LinkError> {
        let mut outbound = lock(&self.outbound);
        for ticket in outbound
            .acknowledge(delivered)
            .map_err(LinkError::violation)?
        {
            // Whoever sent the message may not care for its receipt.
            let _ = ticket.send(Ok(()));
        }
        if outbound.is_empty() {
            self.drained.notify_waiters();
        }
        self.to_send.notify_one();
        Ok(())
    }

    async fn write_messages(self: Arc<Self>) -> Result<Infallible, LinkError> {
        self.to_send.notified().await;
        let stream = self.connection.open_uni().await.map_err(LinkError::of)?;
        let mut out = FrameWriter::new(stream, &[MESSAGE_STREAM]);
        let mut batch: Vec<Sequenced> = Vec::new();
        loop {
            lock(&self.outbound).pop_batch(&mut batch);
            if batch.is_empty() {
                self.to_send.notified().await;
                continue;
            }
            for frame in batch.drain(..) {
                out.push(frame)
                    .expect("a message within its limits fits into a frame");
            }
            flush(&self.connection, &mut out).await?;
        }
    }

    async fn read_messages(self: Arc<Self>) -> Result<Infallible, LinkError> {
        let stream = accept_stream(&self.connection, MESSAGE_STREAM).await?;
        let mut frames = FrameReader::<_, Sequenced>::new(stream);
        loop {
            while !lock(&self.inbound).has_room() {
                self.room.notified().await;
            }
            let frame = frames.next().await;
            let frame = frame.map_err(|error| read_error(&self.connection, error))?;
            let frame = frame.ok_or_else(|| LinkError::violation("the message stream ended"))?;
            lock(&self.inbound)
                .push(frame)
                .map_err(LinkError::violation)?;
            self.arrived.notify_one();
        }
    }

    async fn watch_connection(self: Arc<Self>) -> Result<Infallible, LinkError> {
        Err(LinkError::of(self.connection.closed().await))
    }

    fn take_message(&self) -> Option<Message> {
        let mut inbound = lock(&self.inbound);
        let (had_room, had_need) = (inbound.has_room(), inbound.ack_need());
        let message = inbound.pop()?;
        if !had_room && inbound.has_room() {
            self.room.notify_one();
        }
        let need = inbound.ack_need();
        if need == AckNeed::Now || need != had_need {
            self.to_say.notify_one();
        }
        Some(message)
    }

    /// Waits until all messages are delivered, or the link has ended.
    async fn drained(&self) {
        loop {
            let mut drained = pin!(self.drained.notified());
            drained.as_mut().enable();
            if lock(&self.outbound).is_empty() {
                return;
            }
            drained.await;
        }
    }

    fn fail(&self, error: LinkError) {
        debug!(%error, "link ends");
        close_because(&self.connection, &error);
        self.declare_end(error);
    }

    /// Tells everybody who waits that the link has ended. The first reason stays.
    fn declare_end(&self, error: LinkError) {
        let first = self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert_with(|| error.clone());
            first
        });
        if !first {
            return;
        }
        for ticket in lock(&self.outbound).abandon() {
            // Whoever sent the message may not care for its receipt.
            let _ = ticket.send(Err(error.clone()));
        }
        self.drained.notify_waiters();
        self.arrived.notify_waiters();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with {:?}", self.side, self.peer)
    }
}

/// The state behind a mutex is never left half changed: every change is one call of a pure part.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long an ack waits for further messages while the consumer has more at hand.
const ACK_DELAY: Duration = Duration::from_millis(1);
