//! What runs while a link is up: the state that its handle and its tasks share, and the tasks.
//!
//! No task decides anything: each moves frames between a stream and one of the pure parts, and ends
//! the link when that cannot go on.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    iter,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quinn::Connection;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{Instrument, debug, debug_span};

use crate::{
    identity::PeerId,
    probe::{ProbeKeys, Side},
    proto::{
        Message,
        wire::{Ack, Bye, Control, Ping, Pong, Sequenced, control::Kind},
    },
    transport::{
        frame::{FrameReader, FrameWriter},
        link::{
            control::Conversation,
            error::{LinkError, printable},
            handshake::{
                ControlReader, Established, accept_stream, close_because, flush, push, read_error,
            },
            inbound::{AckNeed, Inbound},
            outbound::Outbound,
            wire::{MESSAGE_STREAM, control},
        },
    },
};

/// What the handle and the tasks of one link share.
pub(super) struct Shared {
    pub(super) connection: Connection,
    pub(super) side: Side,
    pub(super) peer: PeerId,
    pub(super) agent: String,
    pub(super) probe_keys: ProbeKeys,
    pub(super) outbound: Mutex<Outbound<oneshot::Sender<Result<(), LinkError>>>>,
    /// There is something to write, or room for it.
    pub(super) to_send: Notify,
    /// Everything was delivered.
    drained: Notify,
    inbound: Mutex<Inbound>,
    /// A message arrived, or none will any more.
    pub(super) arrived: Notify,
    /// The consumer made room.
    room: Notify,
    pub(super) conversation: Mutex<Conversation<oneshot::Sender<Duration>>>,
    /// There is something to say on the control stream.
    pub(super) to_say: Notify,
    pub(super) end: watch::Sender<Option<LinkError>>,
}

/// Starts the tasks of a link; they end when the set is dropped.
pub(super) fn start(established: Established) -> (Arc<Shared>, JoinSet<()>) {
    let Established { connection, side, peer, agent, probe_keys, control_out, control_in } =
        established;
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
    (shared, tasks)
}

/// Runs as long as the link and says why it cannot go on.
trait Task: Future<Output = Result<Infallible, LinkError>> + Send {}
impl<T: Future<Output = Result<Infallible, LinkError>> + Send> Task for T {}

impl Shared {
    async fn write_control(self: Arc<Self>, mut out: FrameWriter) -> Result<Infallible, LinkError> {
        let mut ack_at = None;
        loop {
            let said: Vec<Control> = iter::from_fn(|| self.poll_frame()).collect();
            if !said.is_empty() {
                // An ack does not wait behind what is said now: the peer hears nothing after a farewell.
                ack_at = Some(Instant::now());
            }
            ack_at = self.write_ack(&mut out, ack_at);
            for frame in said {
                push(&mut out, frame);
            }
            flush(&self.connection, &mut out).await?;
            tokio::select! {
                biased;
                () = self.to_say.notified() => {}
                () = sleep_until(ack_at.unwrap_or_else(Instant::now)), if ack_at.is_some() => {}
            }
        }
    }

    fn poll_frame(&self) -> Option<Control> {
        lock(&self.conversation).poll_frame()
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
                return Err(LinkError::ClosedByPeer { reason: printable(reason.as_bytes()) });
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
        for ticket in outbound.acknowledge(delivered).map_err(LinkError::violation)? {
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
                out.push(frame).expect("a message within its limits fits into a frame");
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
            lock(&self.inbound).push(frame).map_err(LinkError::violation)?;
            self.arrived.notify_one();
        }
    }

    async fn watch_connection(self: Arc<Self>) -> Result<Infallible, LinkError> {
        Err(LinkError::of(self.connection.closed().await))
    }

    /// Hands the next message to the consumer, and sees to it that it is acknowledged.
    pub(super) fn take_message(&self) -> Option<Message> {
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
    pub(super) async fn drained(&self) {
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
    pub(super) fn declare_end(&self, error: LinkError) {
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
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long an ack waits for further messages while the consumer has more at hand.
const ACK_DELAY: Duration = Duration::from_millis(1);
