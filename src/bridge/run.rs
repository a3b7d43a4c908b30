//! The shell of the bridge: says hello, starts the node, and runs a session with it.

use std::io::{Read, Write};

use tracing::error;

use super::{
    driven::Driven,
    exit::{self, exit_code},
    options::{Io, Options, Signal, Started},
    output::{Output, encoder::Encoder},
    reader::Reader,
    session::{FLUSH_TIME_MAX, Session, next_signal},
    stdin,
    stdout::{Lane, Outbox},
    values::Ending,
};
use crate::failure::{Code, Failure};

/// Runs a node over `io` until its user wants no more; returns the process's exit code.
///
/// Writes `hello` before anything else, then waits for `start`. Commands that arrive meanwhile wait, too.
pub async fn run<N, R, W>(
    io: Io<R, W>,
    mut options: Options,
    start: impl Future<Output = Result<Started<N>, Failure>>,
) -> u8
where
    N: Driven,
    R: Read + Send + 'static,
    W: Write + Send + 'static,
{
    let Io { input, output, mut signals } = io;
    let encoder = Encoder::new(options.notation, options.grease.take());
    let outbox = match Outbox::<N::Handover>::start(output, encoder) {
        Ok(outbox) => outbox,
        Err(error) => {
            error!(%error, "no thread for stdout");
            return exit::INTERNAL;
        }
    };
    outbox.put(Lane::Events, &Output::hello(options.pid, options.role), None);
    // At once: the start may keep this task busy.
    outbox.hand_over();
    let started = tokio::select! {
        biased;
        () = outbox.closed() => return exit::OK,
        signal = next_signal(&mut signals) => {
            let exit_code = if signal == Signal::Panicked { exit::INTERNAL } else { exit::OK };
            return say_bye(outbox, signal.ending(), exit_code).await;
        }
        started = start => started,
    };
    let input = stdin::start(input, Reader::new(options.notation));
    match (started, input) {
        (Ok(started), Ok(input)) => {
            let session = Session::new(started, options, input, signals, outbox);
            session.run().await
        }
        (Err(failure), _) => fail(outbox, &failure).await,
        (Ok(_), Err(error)) => {
            let failure = Failure::new(Code::Internal, "no thread for stdin");
            fail(outbox, &failure.because(error.to_string())).await
        }
    }
}

async fn fail<H: Send + 'static>(outbox: Outbox<H>, failure: &Failure) -> u8 {
    outbox.put(Lane::Events, &Output::error(None, failure, None, None), None);
    say_bye(outbox, Ending::Fatal, exit_code(failure.code)).await
}

async fn say_bye<H: Send + 'static>(outbox: Outbox<H>, reason: Ending, exit_code: u8) -> u8 {
    outbox.put(Lane::Events, &Output::Bye { reason, exit_code }, None);
    outbox.finish(FLUSH_TIME_MAX).await;
    exit_code
}
