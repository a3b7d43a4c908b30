//! Stderr, written by a thread of its own: a reader that stands still, or is gone, holds nobody up.
//!
//! What does not fit into the queue is dropped and counted, for logs must not stop a node that works.

use std::{
    io::{self, Write},
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

/// Bytes that wait to be written: some ten thousand lines, which a terminal takes in a second.
const BYTES_WAITING_MAX: usize = 1024 * 1024;

/// How long the last lines get at the end of the process.
pub(crate) const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// Hands whatever is written to it to the thread. A write is one line, or several, and never split.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stderr;

/// The queue in front of a slow writer.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Writes that were dropped since the last that was not.
    lost: u64,
    /// Bytes are with the system, which may take its time.
    is_writing: bool,
    /// Nobody reads any more.
    is_closed: bool,
}

/// Writes `text`, or loses it, at once.
pub(crate) fn write(text: &[u8]) {
    queue().put(text);
}

/// Waits until all is written, or `limit` is over.
pub(crate) fn flush(limit: Duration) {
    queue().flush(limit);
}

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        write(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The one queue of this process; its thread starts with the first line.
fn queue() -> &'static Queue {
    static QUEUE: OnceLock<Queue> = OnceLock::new();
    static STARTED: OnceLock<()> = OnceLock::new();
    let queue = QUEUE.get_or_init(Queue::default);
    STARTED.get_or_init(|| {
        let started = thread::Builder::new()
            .name("stderr".to_owned())
            .spawn(|| queue.serve(&mut io::stderr()));
        if started.is_err() {
            // Without a thread there are no logs, but there is a node.
            queue.lock().is_closed = true;
        }
    });
    queue
}

impl Queue {
    fn put(&self, text: &[u8]) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        if state.waiting.len() + text.len() > BYTES_WAITING_MAX {
            state.lost += 1;
            return;
        }
        if state.lost > 0 {
            let lost = std::mem::take(&mut state.lost);
            let note = format!("p2p-node: {lost} log lines were lost, for nobody read stderr\n");
            state.waiting.extend_from_slice(note.as_bytes());
        }
        state.waiting.extend_from_slice(text);
        self.changed.notify_all();
    }

    fn flush(&self, limit: Duration) {
        let is_busy =
            |state: &mut State| !state.is_closed && (state.is_writing || !state.waiting.is_empty());
        // Over or not, there is no more to be done.
        let _ = self.changed.wait_timeout_while(self.lock(), limit, is_busy);
    }

    /// Writes what comes until nobody reads.
    fn serve(&self, output: &mut impl Write) {
        let mut text = Vec::new();
        loop {
            let waiting = self.changed.wait_while(self.lock(), |state| state.waiting.is_empty());
            let mut state = waiting.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut text, &mut state.waiting);
            state.is_writing = true;
            drop(state);
            let written = output.write_all(&text).and_then(|()| output.flush());
            text.clear();
            let mut state = self.lock();
            state.is_writing = false;
            state.is_closed = written.is_err();
            self.changed.notify_all();
            if state.is_closed {
                state.waiting = Vec::new();
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What panicked here left no half state: a line is appended whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        sync::Arc,
    };

    use super::*;

    fn start(mut output: io::PipeWriter) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        let served = Arc::clone(&queue);
        thread::spawn(move || served.serve(&mut output));
        queue
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up_and_learns_what_was_lost() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = start(writer);
        let line = [&[b'x'; 1_023][..], b"\n"].concat();
        // More than the queue and the pipe hold.
        for _ in 0..2_000 {
            queue.put(&line);
        }
        queue.flush(Duration::from_millis(1));
        let reading = thread::spawn(move || -> Vec<String> {
            let lines = BufReader::new(reader).lines().map(Result::unwrap);
            lines.take_while(|line| line != "last").collect()
        });
        queue.flush(Duration::from_secs(20));
        queue.put(b"last\n");
        let lines = reading.join().unwrap();
        let (full, rest): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.len() == 1_023);
        assert!((1_000..2_000).contains(&full.len()), "{}", full.len());
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert!(rest[0].ends_with("log lines were lost, for nobody read stderr"), "{rest:?}");
    }

    #[test]
    fn a_closed_stderr_takes_everything_and_keeps_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let queue = start(writer);
        queue.put(b"nobody reads this\n");
        queue.flush(Duration::from_secs(20));
        queue.put(b"nor this\n");
        let state = queue.lock();
        assert!(state.is_closed);
        assert_eq!(state.waiting.len(), 0);
    }
}
