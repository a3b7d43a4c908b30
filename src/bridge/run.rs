//! The shell of the bridge: says hello, starts the node, and runs a session with it.

use std::{
    future,
    io::{Read, Write},
    net::SocketAddr,
};

use tokio::sync::mpsc;
use tracing::error;

use super::{
    exit::{self, exit_code},
    output::{Admission, Ending, Output},
    recipient::Recipient,
    session::{FLUSH_TIME_MAX, Session},
    stdin,
    stdout::Outbox,
};
use crate::{
    entropy::Entropy,
    failure::{Code, Failure},
    node::{Event, Inbox, Node, Role, clock::Clock},
    service::ServiceName,
    ticket::Ticket,
};

/// What the bridge speaks through.
#[derive(Debug)]
pub struct Io<R, W> {
    /// Commands come from here; read by a thread of its own.
    pub input: R,
    /// Events go here; written by a thread of its own.
    pub output: W,
    /// Signals that the process gets.
    pub signals: mpsc::Receiver<Signal>,
}

/// A signal that ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop properly.
    Terminate,
    /// SIGINT: stop properly; when stopping already, stop at once.
    Interrupt,
}

/// What the bridge knows before the node has started.
#[allow(missing_debug_implementations, reason = "a closure has nothing to show")]
pub struct Options {
    /// What the node does with its service.
    pub role: Role,
    /// The process id that `hello` names.
    pub pid: u32,
    /// The node's service.
    pub service: Option<ServiceName>,
    /// Who is connected at the start, and meant by commands that name nobody.
    pub connect: Option<Recipient>,
    /// Looks for a server of the service on this machine, each time one is wanted. Must be quick.
    pub nearby: Box<dyn Fn() -> Option<Ticket> + Send + Sync>,
    /// Names messages that come without an id.
    pub entropy: Entropy,
    /// Dates messages, and measures how long commands take.
    pub clock: Clock,
}

/// A node that has started.
#[derive(Debug)]
pub struct Started {
    /// The node.
    pub node: Node,
    /// What it tells.
    pub events: mpsc::Receiver<Event>,
    /// The messages that arrive.
    pub inbox: Inbox,
    /// Its addresses on its own interfaces.
    pub addresses: Vec<SocketAddr>,
    /// Who may connect to it.
    pub admission: Admission,
}

/// Runs a node over `io` until its user wants no more; returns the process's exit code.
///
/// Writes `hello` before anything else, then waits for `start`. Lines that arrive meanwhile wait, too.
pub async fn run<R, W>(
    io: Io<R, W>,
    options: Options,
    start: impl Future<Output = Result<Started, Failure>>,
) -> u8
where
    R: Read + Send + 'static,
    W: Write + Send + 'static,
{
    let Io { input, output, mut signals } = io;
    let outbox = match Outbox::start(output) {
        Ok(outbox) => outbox,
        Err(error) => {
            error!(%error, "no thread for stdout");
            return exit::INTERNAL;
        }
    };
    outbox.put_now(&Output::hello(options.pid, options.role));
    let started = tokio::select! {
        biased;
        () = outbox.closed() => return exit::OK,
        _ = next_signal(&mut signals) => return say_bye(outbox, Ending::Signal, exit::OK).await,
        started = start => started,
    };
    let lines = stdin::start(input);
    match (started, lines) {
        (Ok(started), Ok(lines)) => {
            let session = Session::new(started, options, lines, signals, outbox);
            session.run().await
        }
        (Err(failure), _) => fail(outbox, &failure).await,
        (Ok(_), Err(error)) => {
            let failure = Failure::new(Code::Internal, "no thread for stdin");
            fail(outbox, &failure.because(error.to_string())).await
        }
    }
}

/// The next signal; never, if nobody sends any.
pub(super) async fn next_signal(signals: &mut mpsc::Receiver<Signal>) -> Signal {
    match signals.recv().await {
        Some(signal) => signal,
        None => future::pending().await,
    }
}

async fn fail(outbox: Outbox, failure: &Failure) -> u8 {
    outbox.put_now(&Output::error(None, failure, None, None));
    say_bye(outbox, Ending::Fatal, exit_code(failure.code)).await
}

async fn say_bye(outbox: Outbox, reason: Ending, exit_code: u8) -> u8 {
    outbox.put_now(&Output::Bye { reason, exit_code });
    outbox.finish(FLUSH_TIME_MAX).await;
    exit_code
}
