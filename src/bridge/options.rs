//! What the bridge is told before it runs, and what a start hands over to it.

use std::{fmt, net::SocketAddr, time::Duration};

use tokio::sync::mpsc;

use super::{
    driven::Driven,
    output::Notation,
    recipient::Recipient,
    values::{Admission, Ending},
};
use crate::{
    entropy::Entropy,
    node::{Event, Node, Role, clock::Clock},
    service::ServiceName,
    ticket::Ticket,
};

/// What the bridge speaks through.
#[derive(Debug)]
pub struct Io<R, W> {
    /// Commands come from here; read by a thread of its own.
    pub input: R,
    /// Events go here; written by a thread of its own, in pieces as large as they come.
    pub output: W,
    /// Signals that the process gets.
    pub signals: mpsc::Receiver<Signal>,
}

/// What ends the session from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop properly.
    Terminate,
    /// SIGINT: stop properly; when stopping already, stop at once.
    Interrupt,
    /// Whoever started the process is gone: stop soon, for nobody waits.
    ParentGone,
    /// A part of the program has panicked: stop while the rest still can.
    Panicked,
}

/// What the end of stdin means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdinEof {
    /// What runs may end, then the session ends.
    Drain,
    /// Nothing: a service goes on without anybody who gives it commands.
    Ignore,
    /// The session ends at once.
    Abort,
}

/// What the bridge knows before the node has started.
pub struct Options {
    /// How commands and events are written.
    pub notation: Notation,
    /// What the node does with its service.
    pub role: Role,
    /// The process id that `hello` names.
    pub pid: u32,
    /// The node's service.
    pub service: Option<ServiceName>,
    /// Who is connected at the start, and meant by commands that name nobody.
    pub connect: Option<Recipient>,
    /// What the end of stdin means.
    pub stdin_eof: StdinEof,
    /// Told when the session begins to end, and how long that takes at most.
    pub ending: Box<dyn Fn(Duration) + Send + Sync>,
    /// Looks for a server of the service on this machine, each time one is wanted. Must be quick.
    pub nearby: Box<dyn Fn() -> Option<Ticket> + Send + Sync>,
    /// Names messages that come without an id.
    pub entropy: Entropy,
    /// If there, events and keys that do not exist are made up out of it now and then, so that
    /// programs that cannot pass over unknown ones are found out before there are new ones.
    pub grease: Option<Entropy>,
    /// Dates messages, and measures how long commands take.
    pub clock: Clock,
}

/// A node that has started.
#[derive(Debug)]
pub struct Started<N: Driven = Node> {
    /// The node.
    pub node: N,
    /// What it tells.
    pub events: mpsc::Receiver<Event>,
    /// The messages that it gets.
    pub inbox: N::Inbox,
    /// Its addresses on its own interfaces.
    pub addresses: Vec<SocketAddr>,
    /// Who may connect to it.
    pub admission: Admission,
}

impl Options {
    /// For a node without a service and without servers nearby, with no process id, drained at the end of
    /// stdin.
    pub fn new(notation: Notation, role: Role, entropy: Entropy, clock: Clock) -> Self {
        Self {
            notation,
            role,
            pid: 0,
            service: None,
            connect: None,
            stdin_eof: StdinEof::Drain,
            ending: Box::new(|_| {}),
            nearby: Box::new(|| None),
            entropy,
            grease: None,
            clock,
        }
    }
}

impl Signal {
    /// Why the session ends then.
    pub(super) fn ending(self) -> Ending {
        match self {
            Self::Terminate | Self::Interrupt => Ending::Signal,
            Self::ParentGone => Ending::ParentGone,
            Self::Panicked => Ending::Fatal,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("notation", &self.notation)
            .field("role", &self.role)
            .field("service", &self.service)
            .field("connect", &self.connect)
            .finish_non_exhaustive()
    }
}
