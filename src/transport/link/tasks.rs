//! What runs while a link is up: the state that its handle and its tasks share, and the tasks.
//!
//! Nothing here decides anything: each part moves frames between a stream and one of the pure parts, and ends
//! the link when that cannot go on. Two of them move messages and come with the session; when it has gone on
//! to another link they stand still, and keep their streams open as long as the link lasts.
//!
//! What reads is one task and what writes another: a part is polled with all others of its task, so what there
//! is to write does not make both streams be asked for something to read, and the other way round.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::pending,
    iter,
    net::SocketAddr,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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
    candidate::{CANDIDATES_MAX, decode_compact},
    identity::PeerId,
    probe::{ProbeKeys, Side},
    proto::wire::{Ack, Addresses, Bye, Control, Ping, Pong, Sequenced, control::Kind},
    ticket::TicketSecret,
    transport::{
        frame::{FrameReader, FrameWriter},
        link::{
            NotCarried,
            carrying::Carrying,
            control::Conversation,
            error::{LinkError, Loss, printable},
            handshake::{
                ControlReader, Established, accept_stream, close_because, flush, push, read_error,
            },
            wire::{MESSAGE_STREAM, control},
        },
        session::{AckNeed, Carrier, Line, NotAttached, Reading, Rejected, Session},
    },
};

/// What the handle and the tasks of one link share.
pub(super) struct Shared {
    pub(super) connection: Connection,
    pub(super) side: Side,
    pub(super) peer: PeerId,
    pub(super) agent: String,
    /// Names the run of the peer's program.
    run: NonZeroU64,
    /// Higher than those of all links that came up before.
    number: u64,
    pub(super) probe_keys: ProbeKeys,
    pub(super) meeting: TicketSecret,
    pub(super) carrying: Mutex<Carrying>,
    /// What wakes the tasks: what happens on the link, the session that comes to it, and what happens there.
    pub(super) line: Arc<Line>,
    pub(super) conversation: Mutex<Conversation<oneshot::Sender<Duration>>>,
    /// Whatever ends the link from here on, this side wanted it.
    pub(super) is_closing: AtomicBool,
    pub(super) end: watch::Sender<Option<LinkError>>,
    /// Where the peer says that it is, once it has said so on this link.
    pub(super) peer_addresses: watch::Sender<Vec<SocketAddr>>,
}

/// Starts the tasks of a link; they end when the set is dropped.
pub(super) fn start(established: Established) -> (Arc<Shared>, JoinSet<()>) {
    let Established { connection, control_out, control_in, .. } = established;
    let Established { side, peer, agent, run, number, probe_keys, meeting, .. } = established;
    let shared = Arc::new(Shared {
        connection,
        side,
        peer,
        agent,
        run,
        number,
        probe_keys,
        meeting,
        carrying: Mutex::new(Carrying::new()),
        line: Arc::default(),
        conversation: Mutex::new(Conversation::new()),
        is_closing: AtomicBool::new(false),
        end: watch::Sender::new(None),
        peer_addresses: watch::Sender::new(Vec::new()),
    });
    let mut tasks = JoinSet::new();
    let span = debug_span!("link", peer = ?shared.peer);
    tasks.spawn(shared.clone().read(control_in).instrument(span.clone()));
    tasks.spawn(shared.clone().write(control_out).instrument(span.clone()));
    tasks.spawn(shared.clone().watch_connection().instrument(span));
    (shared, tasks)
}

/// Lets `session` go over the link.
pub(super) fn carry(shared: &Shared, session: &Session) -> Result<(), NotCarried> {
    let mut carrying = lock(&shared.carrying);
    if carrying.carrier().is_some() {
        return Err(NotCarried::Taken);
    }
    let (carrier, resume) = match session.attach(shared.run, shared.number, &shared.line) {
        Ok(attached) => attached,
        Err(NotAttached::Ended) => return Err(NotCarried::SessionEnded),
        Err(NotAttached::EarlierRun) => {
            drop(carrying);
            let end = LinkError::Lost(Loss::Restarted);
            shared.fail(end.clone());
            return Err(NotCarried::LinkEnded(end));
        }
    };
    // Before anybody can see the carrier, so that no ack goes first.
    lock(&shared.conversation).say_resume(resume);
    let begun = carrying.begin(carrier.clone());
    drop(carrying);
    shared.line.wake_all();
    if let Err(error) = accepted(begun) {
        shared.fail(error);
    }
    let end = shared.end.borrow().clone();
    end.map_or(Ok(()), |end| {
        carrier.detach();
        Err(NotCarried::LinkEnded(end))
    })
}

impl Shared {
    /// The task that reads.
    async fn read(self: Arc<Self>, control_in: ControlReader) {
        let Err(error) = tokio::select! {
            biased;
            end = self.read_control(control_in) => end,
            end = self.read_messages() => end,
        };
        self.fail(error);
    }

    /// The task that writes.
    async fn write(self: Arc<Self>, control_out: FrameWriter) {
        let Err(error) = tokio::select! {
            biased;
            end = self.write_messages() => end,
            end = self.write_control(control_out) => end,
        };
        self.fail(error);
    }

    /// The task that sees the connection end. None of the others does while the session that it serves has gone
    /// on to another link.
    async fn watch_connection(self: Arc<Self>) {
        let error = self.connection.closed().await;
        self.fail(LinkError::of(error));
    }

    /// The session that comes to the link, of which `bell` tells.
    async fn carrier(&self, bell: &Notify) -> Carrier {
        loop {
            if let Some(carrier) = lock(&self.carrying).carrier() {
                return carrier;
            }
            bell.notified().await;
        }
    }

    async fn write_control(&self, mut out: FrameWriter) -> Result<Infallible, LinkError> {
        let mut ack_at = None;
        loop {
            // The carrier is looked at first: then its resume is among the frames.
            let carrier = lock(&self.carrying).carrier();
            let said = iter::from_fn(|| lock(&self.conversation).poll_frame());
            let (farewell, said): (Vec<Control>, Vec<Control>) = said.partition(is_farewell);
            for frame in said {
                push(&mut out, frame);
            }
            if !farewell.is_empty() {
                // The peer hears nothing after a farewell, so an ack does not wait any longer.
                ack_at = Some(Instant::now());
            }
            ack_at = carrier.and_then(|carrier| write_ack(&carrier, &mut out, ack_at));
            for frame in farewell {
                push(&mut out, frame);
            }
            flush(&self.connection, &mut out).await?;
            tokio::select! {
                biased;
                () = self.line.to_say.notified() => {}
                () = sleep_until(ack_at.unwrap_or_else(Instant::now)), if ack_at.is_some() => {}
            }
        }
    }

    async fn read_control(&self, mut frames: ControlReader) -> Result<Infallible, LinkError> {
        loop {
            let frame = frames.next().await;
            let frame = frame.map_err(|error| read_error(&self.connection, error))?;
            let frame = frame.ok_or_else(|| LinkError::violation("the control stream ended"))?;
            self.handle_control(frame)?;
        }
    }

    fn handle_control(&self, frame: Control) -> Result<(), LinkError> {
        match frame.kind {
            Some(Kind::Resume(resume)) => accepted(lock(&self.carrying).handle_resume(resume))?,
            Some(Kind::Ack(Ack { delivered })) => {
                accepted(lock(&self.carrying).handle_ack(delivered))?;
            }
            Some(Kind::Ping(Ping { number })) => {
                lock(&self.conversation).handle_ping(number);
                self.line.to_say.notify_one();
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
            Some(Kind::Addresses(Addresses { endpoints })) => {
                let usable = endpoints.iter().filter_map(|endpoint| decode_compact(endpoint));
                self.peer_addresses.send_replace(usable.take(CANDIDATES_MAX).collect());
            }
            Some(Kind::Hello(_) | Kind::Welcome(_)) => {
                return Err(LinkError::violation("a second hello or welcome"));
            }
            // A kind that a later version of the protocol added.
            None => {}
        }
        Ok(())
    }

    async fn write_messages(&self) -> Result<Infallible, LinkError> {
        let carrier = self.carrier(&self.line.to_write).await;
        let stream = self.connection.open_uni().await.map_err(LinkError::of)?;
        let mut out = FrameWriter::new(stream, &[MESSAGE_STREAM]);
        while let Ok(is_something) = gather(&carrier, &mut out) {
            if is_something {
                flush(&self.connection, &mut out).await?;
            } else {
                self.line.to_write.notified().await;
            }
        }
        pending().await
    }

    async fn read_messages(&self) -> Result<Infallible, LinkError> {
        let carrier = self.carrier(&self.line.to_read).await;
        self.may_read(&carrier).await;
        let stream = accept_stream(&self.connection, MESSAGE_STREAM).await?;
        let mut frames = FrameReader::<_, Sequenced>::new(stream);
        let mut batch = VecDeque::new();
        loop {
            self.may_read(&carrier).await;
            if batch.is_empty() {
                let frame = frames.next().await;
                let frame = frame.map_err(|error| read_error(&self.connection, error))?;
                let frame =
                    frame.ok_or_else(|| LinkError::violation("the message stream ended"))?;
                batch.push_back(frame);
                frames.take_ready(&mut batch);
            }
            accepted(carrier.handle_messages(&mut batch))?;
        }
    }

    /// Waits until the message stream may be read; for ever when the session has gone on.
    async fn may_read(&self, carrier: &Carrier) {
        loop {
            match carrier.reading() {
                Reading::Now => return,
                Reading::Later => self.line.to_read.notified().await,
                Reading::Never => pending().await,
            }
        }
    }

    /// Ends the link for everybody. The first reason stays: the tasks end one after the other.
    pub(super) fn fail(&self, error: LinkError) {
        if self.end.borrow().is_some() {
            return;
        }
        debug!(%error, "link ends");
        close_because(&self.connection, &error);
        self.declare_end(error);
    }

    /// Tells everybody who waits that the link has ended. The first reason stays.
    pub(super) fn declare_end(&self, error: LinkError) {
        let error = if self.is_closing.load(Ordering::Acquire) { LinkError::Closed } else { error };
        let first = self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert_with(|| error.clone());
            first
        });
        if !first {
            return;
        }
        if let Some(carrier) = lock(&self.carrying).carrier() {
            carrier.detach();
        }
    }
}

fn is_farewell(frame: &Control) -> bool {
    matches!(frame.kind, Some(Kind::Bye(_)))
}

/// Takes the next messages for a write: [`WRITE_SIZE`] bytes of them, or up to a larger one.
fn gather(carrier: &Carrier, out: &mut FrameWriter) -> Result<bool, Rejected> {
    let mut is_something = false;
    while out.pending().size() < WRITE_SIZE && carrier.pop_batch(out.pending())? > 0 {
        is_something = true;
    }
    Ok(is_something)
}

/// Writes an ack if one is due, else says when it will be.
fn write_ack(carrier: &Carrier, out: &mut FrameWriter, due: Option<Instant>) -> Option<Instant> {
    match carrier.ack_need() {
        AckNeed::None => return None,
        AckNeed::Now => {}
        AckNeed::Soon => {
            let now = Instant::now();
            let due = due.unwrap_or(now + ACK_DELAY);
            if due > now {
                return Some(due);
            }
        }
    }
    if let Some(delivered) = carrier.acknowledge() {
        push(out, control(Ack { delivered }));
    }
    None
}

/// What it means for the link that the session did not accept a frame.
fn accepted(result: Result<(), Rejected>) -> Result<(), LinkError> {
    match result {
        Ok(()) | Err(Rejected::Stale) => Ok(()),
        Err(Rejected::EarlierSession) => Err(LinkError::Lost(Loss::Restarted)),
        Err(Rejected::Violation(what)) => Err(LinkError::violation(what)),
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

/// Bytes of messages that are written at once: enough that the cost of a write does not show, little
/// enough that the next ack need not wait.
const WRITE_SIZE: usize = 64 << 10;

/// How long an ack waits for further messages while the consumer has more at hand.
const ACK_DELAY: Duration = Duration::from_millis(1);
