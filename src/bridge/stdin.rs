//! The thread that reads stdin.
//!
//! A thread of its own, because tokio's stdin keeps a runtime from shutting down while a read waits.
//! When nobody wants commands any more the thread stays in its read, and the process's end takes it away.

use std::{
    io::{self, Read},
    thread,
};

use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::reader::{Input, Reader};

/// Batches that wait for the session. With the one that the session has, the one that the thread has in
/// hand, and the part of a command that is not whole yet, at most four of the largest commands are in
/// memory: 96 MiB of lines, or 65 MiB of frames.
const BATCHES_WAITING_MAX: usize = 1;

/// Inputs of a batch; they may be a hundred times as large as the bytes that they were read from.
const BATCH_INPUTS_MAX: usize = 1_024;

/// What Linux keeps in a pipe.
const CHUNK_BYTES: usize = 64 * 1024;

/// What was read at once.
pub(super) type Batch = Vec<Input>;

/// Starts the thread; the channel is closed at the end of the input.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(
    input: impl Read + Send + 'static,
    reader: Reader,
) -> io::Result<mpsc::Receiver<Batch>> {
    let (batches, waiting) = mpsc::channel(BATCHES_WAITING_MAX);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        match read(input, reader, &batches) {
            Ok(()) => debug!("stdin has ended"),
            Err(error) => warn!(%error, "stdin cannot be read"),
        }
    })?;
    Ok(waiting)
}

fn read(mut input: impl Read, mut reader: Reader, batches: &mpsc::Sender<Batch>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let size = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut chunk = buffer.get(..size).unwrap_or_default();
        while !chunk.is_empty() {
            let mut batch = Batch::new();
            reader.read(&mut chunk, &mut batch, BATCH_INPUTS_MAX);
            if !batch.is_empty() && batches.blocking_send(batch).is_err() {
                return Ok(());
            }
        }
    }
    if let Some(last) = reader.finish() {
        // Nobody wants commands any more: then the last one is not missed either.
        let _ = batches.blocking_send(vec![last]);
    }
    Ok(())
}
