//! The thread that owns stdout, and the bounded queue in front of it.
//!
//! The queue has two lanes. When its lane is full, an event waits inside the node, which slows senders
//! down; answers have room of their own, so that a flood of messages does not hold them up.

use std::{
    io::{self, BufWriter, Write},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::debug;

use super::output::Output;

/// Bytes of events that wait to be written: a third of the largest message's line. A lane that has any
/// room left takes one whole line, so three quarters of a lane and one line are the most it holds.
const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of answers that wait to be written; some five thousand short ones.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The queue in front of stdout.
#[derive(Debug)]
pub(super) struct Outbox {
    lines: mpsc::UnboundedSender<Queued>,
    events: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    finished: oneshot::Receiver<()>,
}

/// Which part of the queue a line takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// What the node tells by itself.
    Events,
    /// Answers to commands.
    Answers,
}

/// The right to queue one line.
#[derive(Debug)]
pub(super) struct Room {
    permit: OwnedSemaphorePermit,
}

/// A line and the room that it gives back when it is written.
#[derive(Debug)]
struct Queued {
    line: Vec<u8>,
    _room: Option<Room>,
}

impl Outbox {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        // Bounded by the two semaphores, in bytes.
        let (lines, queue) = mpsc::unbounded_channel();
        let (done, finished) = oneshot::channel();
        thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            if let Err(error) = write(output, queue) {
                debug!(%error, "stdout is closed");
            }
            // The session may have given up waiting.
            let _ = done.send(());
        })?;
        Ok(Self {
            lines,
            events: Arc::new(Semaphore::new(EVENT_BYTES_MAX)),
            answers: Arc::new(Semaphore::new(ANSWER_BYTES_MAX)),
            finished,
        })
    }

    /// Waits until `lane` has room for a line. Giving up the wait, or dropping the room, gives it back.
    pub(super) async fn room(&self, lane: Lane) -> Room {
        let lane = match lane {
            Lane::Events => &self.events,
            Lane::Answers => &self.answers,
        };
        let permit = Arc::clone(lane).acquire_owned().await.expect("never closed");
        Room { permit }
    }

    /// Queues a line.
    pub(super) fn put(&self, mut room: Room, output: &Output<'_>) {
        let line = output.encode();
        let lane = Arc::clone(room.permit.semaphore());
        // The last line may overdraw its lane; only this task takes permits, so what is counted is there.
        let more = line.len().saturating_sub(1).min(lane.available_permits());
        let more = u32::try_from(more).expect("a lane has fewer bytes than u32 counts");
        if let Ok(more) = lane.try_acquire_many_owned(more) {
            room.permit.merge(more);
        }
        self.queue(line, Some(room));
    }

    /// Queues one of the few lines at the beginning and the end of a session, which wait for nothing.
    pub(super) fn put_now(&self, output: &Output<'_>) {
        self.queue(output.encode(), None);
    }

    /// Returns when nobody reads stdout any more.
    pub(super) async fn closed(&self) {
        self.lines.closed().await;
    }

    /// Waits until all is written, or `limit` is over.
    pub(super) async fn finish(self, limit: Duration) {
        drop(self.lines);
        // A reader that has stopped reading gets no more time.
        let _ = tokio::time::timeout(limit, self.finished).await;
    }

    fn queue(&self, line: Vec<u8>, room: Option<Room>) {
        // A closed stdout is noticed through `closed`.
        let _ = self.lines.send(Queued { line, _room: room });
    }
}

/// Writes until the queue is closed and empty, or nobody reads. Flushes whenever the queue is empty.
fn write(output: impl Write, mut queue: mpsc::UnboundedReceiver<Queued>) -> io::Result<()> {
    let mut output = BufWriter::new(output);
    while let Some(first) = queue.blocking_recv() {
        output.write_all(&first.line)?;
        drop(first);
        while let Ok(next) = queue.try_recv() {
            output.write_all(&next.line)?;
        }
        output.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read};

    use futures_lite::future::poll_once;

    use super::*;
    use crate::{
        identity::Identity,
        node::{Handover, Received},
        proto::Message,
    };

    fn message(size: usize) -> Received {
        Received {
            peer: Identity::from_seed([1; 32]).peer_id(),
            message: Message { payload: vec![b'x'; size].into(), ..Message::default() },
            handover: Handover::new(),
        }
    }

    /// Queues messages of a mebibyte until there is no room, and counts them.
    async fn fill(outbox: &Outbox) -> usize {
        let event = message(1024 * 1024);
        let mut count = 0;
        while let Some(room) = poll_once(outbox.room(Lane::Events)).await {
            outbox.put(room, &Output::from(&event));
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
        let (reader, writer) = io::pipe().unwrap();
        let outbox = Outbox::start(writer).unwrap();
        let count = fill(&outbox).await;
        assert!((8..=10).contains(&count), "{count}");
        assert!(poll_once(outbox.room(Lane::Answers)).await.is_some());
        let lines = read_all(reader);
        let room = outbox.room(Lane::Events).await;
        outbox.put(room, &Output::from(&message(1)));
        outbox.finish(Duration::from_secs(10)).await;
        assert_eq!(lines.join().unwrap(), count + 1);
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_is_noticed() {
        let (reader, writer) = io::pipe().unwrap();
        let outbox = Outbox::start(writer).unwrap();
        drop(reader);
        outbox.put_now(&Output::from(&message(1)));
        outbox.closed().await;
    }
}
