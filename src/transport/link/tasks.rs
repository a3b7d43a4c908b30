//! What runs while a link is up: the state that its handle and its tasks share, and the tasks.
//!
//! No task decides anything: each moves frames between a stream and one of the pure parts, and ends
//! the link when that cannot go on. Two of them move messages and come with the session; when it has gone on
//! to another link they stand still, and keep their streams open as long as the link lasts.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::{Future, pending},
    num::NonZeroU64,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quinn::Connection;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{Instrument, debug, debug_span};

use crate::{
    identity::PeerId,
    probe::{ProbeKeys, Side},
    proto::wire::{Ack, Bye, Control, Ping, Pong, Sequenced, control::Kind},
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
    pub(super) carrying: Mutex<Carrying>,
    /// What wakes the tasks; a session that the link carries does so, too.
    pub(super) line: Arc<Line>,
    pub(super) conversation: Mutex<Conversation<oneshot::Sender<Duration>>>,
    pub(super) end: watch::Sender<Option<LinkError>>,
}

/// Starts the tasks of a link; they end when the set is dropped.
pub(super) fn start(established: Established) -> (Arc<Shared>, JoinSet<()>) {
    let Established { connection, control_out, control_in, .. } = established;
    let Established { side, peer, agent, run, number, probe_keys, .. } = established;
    let shared = Arc::new(Shared {
        connection,
        side,
        peer,
        agent,
        run,
        number,
        probe_keys,
        carrying: Mutex::new(Carrying::new()),
        line: Arc::default(),
        conversation: Mutex::new(Conversation::new()),
        end: watch::Sender::new(None),
    });
    let mut tasks = JoinSet::new();
    spawn(&mut tasks, &shared, shared.clone().write_control(control_out));
    spawn(&mut tasks, &shared, shared.clone().read_control(control_in));
    spawn(&mut tasks, &shared, shared.clone().watch_connection());
    (shared, tasks)
}

/// Lets `session` go over the link, and starts the tasks that move its messages.
pub(super) fn carry(
    shared: &Arc<Shared>,
    session: &Session,
    tasks: &mut JoinSet<()>,
) -> Result<(), NotCarried> {
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
    shared.line.to_say.notify_one();
    if let Err(error) = accepted(begun) {
        shared.fail(error);
    }
    spawn(tasks, shared, shared.clone().write_messages(carrier.clone()));
    spawn(tasks, shared, shared.clone().read_messages(carrier.clone()));
    let end = shared.end.borrow().clone();
    end.map_or(Ok(()), |end| {
        carrier.detach();
        Err(NotCarried::LinkEnded(end))
    })
}

fn spawn(tasks: &mut JoinSet<()>, shared: &Arc<Shared>, task: impl Task + 'static) {
    let span = debug_span!("link", peer = ?shared.peer);
    let shared = shared.clone();
    let until_the_end = async move {
        let Err(error) = task.await;
        shared.fail(error);
    };
    tasks.spawn(until_the_end.instrument(span));
}

/// Runs as long as the link and says why it cannot go on.
trait Task: Future<Output = Result<Infallible, LinkError>> + Send {}
impl<T: Future<Output = Result<Infallible, LinkError>> + Send> Task for T {}

impl Shared {
    async fn write_control(self: Arc<Self>, mut out: FrameWriter) -> Result<Infallible, LinkError> {
        let mut ack_at = None;
        loop {
            // The carrier is looked at first: then its resume is among the frames.
            let carrier = lock(&self.carrying).carrier();
            while let Some(frame) = lock(&self.conversation).poll_frame() {
                push(&mut out, frame);
            }
            ack_at = carrier.and_then(|carrier| write_ack(&carrier, &mut out, ack_at));
            flush(&self.connection, &mut out).await?;
            tokio::select! {
                biased;
                () = self.line.to_say.notified() => {}
                () = sleep_until(ack_at.unwrap_or_else(Instant::now)), if ack_at.is_some() => {}
            }
        }
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
            Some(Kind::Hello(_) | Kind::Welcome(_)) => {
                return Err(LinkError::violation("a second hello or welcome"));
            }
            // A kind that a later version of the protocol added.
            None => {}
        }
        Ok(())
    }

    async fn write_messages(self: Arc<Self>, carrier: Carrier) -> Result<Infallible, LinkError> {
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

    async fn read_messages(self: Arc<Self>, carrier: Carrier) -> Result<Infallible, LinkError> {
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

    async fn watch_connection(self: Arc<Self>) -> Result<Infallible, LinkError> {
        Err(LinkError::of(self.connection.closed().await))
    }

    pub(super) fn fail(&self, error: LinkError) {
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
        if let Some(carrier) = lock(&self.carrying).carrier() {
            carrier.detach();
        }
    }
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
    let now = Instant::now();
    let due = match carrier.ack_need() {
        AckNeed::None => return None,
        AckNeed::Now => now,
        AckNeed::Soon => due.unwrap_or(now + ACK_DELAY),
    };
    if due > now {
        return Some(due);
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
