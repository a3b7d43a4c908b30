//! The thread that owns stdout, and the bounded queue in front of it.
//!
//! Events and answers have a lane of their own in the queue. When the lane for events is full, events and
//! messages wait inside the node, which slows senders down; answers do not wait for them. What comes
//! while the thread writes is written together, and messages are handed over when it has been written.

use std::{
    convert::Infallible,
    future,
    io::{self, Write},
    pin::pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::sync::{Notify, oneshot};
use tracing::debug;

use super::output::{
    Output,
    encoder::{Chunks, Encoder},
};

/// Bytes of events that wait to be written, but for the one that goes over it: a lane that has any room
/// left takes one whole event, and the largest message has 16 MiB, or 22 MiB as a line.
const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of answers that wait to be written, but for the one that goes over it; some five thousand short
/// ones.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Bytes with which the thread is woken though more is about to come.
const BATCH_BYTES: usize = 64 * 1024;

/// The queue in front of stdout. Every entry may carry an `H`, which is dropped when the entry has been
/// written.
#[derive(Debug)]
pub(super) struct Outbox<H> {
    shared: Arc<Shared<H>>,
    finished: oneshot::Receiver<()>,
}

/// Which part of the queue an event takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// What the node tells by itself.
    Events,
    /// Answers to commands.
    Answers,
}

#[derive(Debug)]
struct Shared<H> {
    queue: Mutex<Queue<H>>,
    /// There is something to write, or nothing will come any more.
    filled: Condvar,
    /// There is room again, or nobody reads any more.
    written: Notify,
}

#[derive(Debug)]
struct Queue<H> {
    encoder: Encoder,
    batch: Batch<H>,
    /// Bytes that wait, those that are being written with them.
    waiting: Sizes,
    /// Whether the thread waits for something to write.
    is_idle: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing will come any more.
    Finishing,
    /// Nobody reads.
    Broken,
}

/// What is written at once.
#[derive(Debug)]
struct Batch<H> {
    chunks: Chunks,
    sizes: Sizes,
    handovers: Vec<H>,
}

/// Bytes in each lane.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    events: usize,
    answers: usize,
}

impl<H: Send + 'static> Outbox<H> {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(output: impl Write + Send + 'static, encoder: Encoder) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                encoder,
                batch: Batch::default(),
                waiting: Sizes::default(),
                is_idle: false,
                state: State::Open,
            }),
            filled: Condvar::new(),
            written: Notify::new(),
        });
        let (done, finished) = oneshot::channel();
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            if let Err(error) = of_thread.write_all(output) {
                debug!(%error, "stdout is closed");
                of_thread.give_up();
            }
            // The session may have given up waiting.
            let _ = done.send(());
        })?;
        Ok(Self { shared, finished })
    }

    /// Waits until `lane` has room for an event.
    pub(super) async fn room(&self, lane: Lane) {
        self.until(|queue| queue.waiting.has_room(lane)).await;
    }

    /// Whether `lane` has room for an event.
    pub(super) fn has_room(&self, lane: Lane) -> bool {
        self.shared.lock().waiting.has_room(lane)
    }

    /// Queues an event, whether there is room or not.
    ///
    /// It is written when [`Outbox::idle`] is polled, or as soon as much is queued.
    pub(super) fn put(&self, lane: Lane, output: &Output<'_>, handover: Option<H>) {
        let mut queue = self.shared.lock();
        let Queue { encoder, batch, waiting, .. } = &mut *queue;
        let size = encoder.encode(output, &mut batch.chunks);
        batch.sizes.add(lane, size);
        batch.handovers.extend(handover);
        waiting.add(lane, size);
        if queue.is_idle && queue.batch.chunks.size() >= BATCH_BYTES {
            self.shared.filled.notify_one();
        }
    }

    /// To be polled when there is nothing else to do: has what is queued written. Never done.
    pub(super) async fn idle(&self) -> Infallible {
        self.hand_over();
        future::pending().await
    }

    /// Returns when nobody reads stdout any more.
    pub(super) async fn closed(&self) {
        self.until(|queue| queue.state == State::Broken).await;
    }

    /// Has everything written, for `limit` at most.
    pub(super) async fn finish(self, limit: Duration) {
        {
            let mut queue = self.shared.lock();
            if queue.state == State::Open {
                queue.state = State::Finishing;
            }
        }
        self.shared.filled.notify_one();
        if tokio::time::timeout(limit, self.finished).await.is_err() {
            debug!("nobody has read the last events in {limit:?}");
        }
    }

    /// Has what is queued written.
    pub(super) fn hand_over(&self) {
        let queue = self.shared.lock();
        if queue.is_idle && !queue.batch.is_empty() {
            self.shared.filled.notify_one();
        }
    }

    async fn until(&self, condition: impl Fn(&Queue<H>) -> bool) {
        loop {
            let mut written = pin!(self.shared.written.notified());
            written.as_mut().enable();
            if condition(&self.shared.lock()) {
                return;
            }
            written.await;
        }
    }
}

impl<H> Shared<H> {
    fn lock(&self) -> MutexGuard<'_, Queue<H>> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until nothing will come any more, or nobody reads.
    fn write_all(&self, mut output: impl Write) -> io::Result<()> {
        let mut batch = Batch::default();
        while self.next_batch(&mut batch) {
            let outcome = batch.write(&mut output);
            if let Err(error) = outcome {
                // To drop them would tell the senders that somebody has read them.
                std::mem::forget(batch.handovers);
                return Err(error);
            }
            batch.handovers.clear();
            self.lock().waiting.subtract(batch.sizes);
            self.written.notify_waiters();
            batch.chunks.clear();
            batch.sizes = Sizes::default();
        }
        Ok(())
    }

    /// Waits for something to write and puts it in `batch`, which is empty.
    fn next_batch(&self, batch: &mut Batch<H>) -> bool {
        let mut queue = self.lock();
        while queue.batch.is_empty() && queue.state == State::Open {
            queue.is_idle = true;
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.is_idle = false;
        std::mem::swap(&mut queue.batch, batch);
        !batch.is_empty()
    }

    fn give_up(&self) {
        let mut queue = self.lock();
        queue.state = State::Broken;
        std::mem::forget(std::mem::take(&mut queue.batch.handovers));
        drop(queue);
        self.written.notify_waiters();
    }
}

impl<H> Batch<H> {
    fn is_empty(&self) -> bool {
        self.chunks.size() == 0 && self.handovers.is_empty()
    }

    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        for chunk in self.chunks.iter() {
            output.write_all(chunk)?;
        }
        output.flush()
    }
}

impl<H> Default for Batch<H> {
    fn default() -> Self {
        Self { chunks: Chunks::default(), sizes: Sizes::default(), handovers: Vec::new() }
    }
}

impl Sizes {
    fn has_room(self, lane: Lane) -> bool {
        match lane {
            Lane::Events => self.events < EVENT_BYTES_MAX,
            Lane::Answers => self.answers < ANSWER_BYTES_MAX,
        }
    }

    fn add(&mut self, lane: Lane, size: usize) {
        match lane {
            Lane::Events => self.events += size,
            Lane::Answers => self.answers += size,
        }
    }

    fn subtract(&mut self, other: Self) {
        self.events -= other.events;
        self.answers -= other.answers;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read};

    use futures_lite::future::poll_once;

    use super::*;
    use crate::{
        bridge::output::Notation,
        identity::{Identity, PeerId},
        proto::Message,
    };

    fn peer() -> PeerId {
        Identity::from_seed([1; 32]).peer_id()
    }

    fn message(size: usize) -> Message {
        Message { payload: vec![b'x'; size].into(), ..Message::default() }
    }

    fn start<H: Send + 'static>() -> (PipeReader, Outbox<H>) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, Outbox::start(writer, Encoder::new(Notation::Lines, None)).unwrap())
    }

    fn put<H: Send + 'static>(outbox: &Outbox<H>, message: &Message, handover: Option<H>) {
        outbox.put(Lane::Events, &Output::Message { peer: peer(), message }, handover);
    }

    /// Queues messages of a mebibyte until there is no room, and counts them.
    async fn fill<H: Send + 'static>(outbox: &Outbox<H>) -> usize {
        let message = message(1024 * 1024);
        let mut count = 0;
        while poll_once(outbox.room(Lane::Events)).await.is_some() {
            put(outbox, &message, None);
            count += 1;
            assert!(count < 100, "the queue has no end");
        }
        count
    }

    fn read_all(mut reader: PipeReader) -> thread::JoinHandle<usize> {
        thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text.lines().count()
        })
    }

    #[tokio::test]
    async fn events_wait_for_a_reader_and_answers_do_not_wait_for_events() {
        let (reader, outbox) = start::<()>();
        let count = fill(&outbox).await;
        assert!((8..=10).contains(&count), "{count}");
        assert!(outbox.has_room(Lane::Answers) && !outbox.has_room(Lane::Events));
        let lines = read_all(reader);
        outbox.room(Lane::Events).await;
        put(&outbox, &message(1), None);
        outbox.finish(Duration::from_secs(10)).await;
        assert_eq!(lines.join().unwrap(), count + 1);
    }

    #[tokio::test]
    async fn a_message_is_handed_over_when_it_has_been_written() {
        let (mut reader, outbox) = start();
        let (handover, handed_over) = oneshot::channel::<()>();
        let message = message(1024 * 1024);
        put(&outbox, &message, Some(handover));
        let mut handed_over = pin!(handed_over);
        assert!(poll_once(outbox.idle()).await.is_none());
        let mut start = vec![0; 512 * 1024];
        reader.read_exact(&mut start).unwrap();
        assert!(poll_once(handed_over.as_mut()).await.is_none());
        let rest = read_all(reader);
        assert!(handed_over.await.is_err());
        outbox.finish(Duration::from_secs(10)).await;
        assert_eq!(rest.join().unwrap(), 1);
    }

    #[tokio::test]
    async fn what_nobody_reads_is_not_handed_over() {
        let (reader, outbox) = start();
        drop(reader);
        let (handover, handed_over) = oneshot::channel::<()>();
        put(&outbox, &message(1), Some(handover));
        assert!(poll_once(outbox.idle()).await.is_none());
        outbox.closed().await;
        outbox.finish(Duration::from_secs(10)).await;
        assert!(poll_once(handed_over).await.is_none());
    }

    #[tokio::test]
    async fn events_go_out_in_their_order_as_soon_as_there_is_nothing_else_to_do() {
        let (mut reader, outbox) = start::<()>();
        for id in ["a", "b"] {
            put(&outbox, &Message { id: id.to_owned(), ..Message::default() }, None);
        }
        assert!(poll_once(outbox.idle()).await.is_none());
        let mut start = [0; 300];
        reader.read_exact(&mut start).unwrap();
        let text = String::from_utf8_lossy(&start);
        assert!(text.find("\"id\":\"a\"").unwrap() < text.find("\"id\":\"b\"").unwrap());
    }
}
