//! The thread that reads stdin.
//!
//! A thread of its own, because tokio's stdin keeps a runtime from shutting down while a read waits.
//! When nobody wants lines any more the thread stays in its read, and the process's end takes it away.

use std::{
    io::{self, Read},
    thread,
};

use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::lines::{LINE_BYTES_MAX, LineSplitter};
use crate::failure::Failure;

/// A line of input, or why it is none.
pub(super) type Line = Result<String, Failure>;

/// Lines that wait to be read as commands. Few: each may have 24 MiB, and the pipe holds the rest back.
const LINES_WAITING_MAX: usize = 4;

/// What Linux keeps in a pipe.
const CHUNK_BYTES: usize = 64 * 1024;

/// Starts the thread; the channel is closed at the end of the input.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(input: impl Read + Send + 'static) -> io::Result<mpsc::Receiver<Line>> {
    let (lines, waiting) = mpsc::channel(LINES_WAITING_MAX);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || match read(input, &lines) {
        Ok(()) => debug!("stdin has ended"),
        Err(error) => warn!(%error, "stdin cannot be read"),
    })?;
    Ok(waiting)
}

fn read(mut input: impl Read, lines: &mpsc::Sender<Line>) -> io::Result<()> {
    let mut splitter = LineSplitter::new(LINE_BYTES_MAX);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let size = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut chunk = buffer.get(..size).unwrap_or_default();
        while let Some(line) = splitter.next_line(&mut chunk) {
            if lines.blocking_send(line).is_err() {
                return Ok(());
            }
        }
    }
    if let Some(line) = splitter.finish() {
        // Nobody wants lines any more: then the last one is not missed either.
        let _ = lines.blocking_send(line);
    }
    Ok(())
}
