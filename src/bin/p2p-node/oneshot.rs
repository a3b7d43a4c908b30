//! The commands for scripts: a node that does one thing and ends, with an exit code that says how it went.

mod connect;
mod listen;
mod netcheck;
mod ping;
mod send;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use p2p_node::{
    bridge::{
        self, Signal, Started, exit,
        output::Output,
        recipient::{Directory, Recipient},
        terminal::{self, Style},
    },
    failure::{Code, Failure},
    node::{Event, Inbox, Node, Role, Target},
};
use tokio::{sync::mpsc, time};
use tracing::debug;

pub(crate) use self::{
    connect::connect, listen::listen, netcheck::netcheck, ping::ping, send::send,
};
use crate::{
    args::{Colour, NodeArgs, PeerName},
    exit::complain,
    launch::{self, Held, Standing},
    panics, parent, peer_name,
    run::block_on,
    signals, stderr,
    watchdog::Watchdog,
};

/// How long the node gets to say goodbye.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(5);

/// A node at work on one thing.
struct OneShot {
    node: Node,
    inbox: Inbox,
    told: Told,
}

/// What happens besides the work itself.
struct Told {
    events: mpsc::Receiver<Event>,
    signals: mpsc::Receiver<Signal>,
    /// Whether somebody sees stderr, and wants to know what is going on.
    style: Option<Style>,
}

/// Why the work ends before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Somebody sent this.
    Signal(Signal),
    /// The node has stopped by itself.
    NodeGone,
}

/// Starts a node, lets it do `work`, and stops it.
fn run<W>(
    node: NodeArgs,
    role: Role,
    colour: Colour,
    watchdog: &Watchdog,
    work: impl FnOnce(OneShot) -> W,
) -> ExitCode
where
    W: Future<Output = Result<u8, Failure>>,
{
    block_on(async {
        let (ends, signals) = signals::listen(watchdog.clone());
        panics::tell(ends.clone());
        parent::watch(None, ends);
        let mut held = Held::default();
        let started = launch::start(node, role, Standing::Nobody, &mut held).await;
        let Started { node, events, inbox, .. } = match started {
            Ok(started) => started,
            Err(failure) => return fail(&failure),
        };
        let err = io::stderr();
        let style = if colour.is_for(&err) { Style::Coloured } else { Style::Plain };
        let told = Told { events, signals, style: err.is_terminal().then_some(style) };
        let outcome = work(OneShot { node: node.clone(), inbox, told }).await;
        watchdog.arm(bridge::STOP_TIME_MAX, exit::INTERNAL);
        if time::timeout(GOODBYE_TIME_MAX, node.shutdown()).await.is_err() {
            debug!("the node has not stopped in time");
        }
        match outcome {
            Ok(exit_code) => ExitCode::from(exit_code),
            Err(failure) => fail(&failure),
        }
    })
}

fn fail(failure: &Failure) -> ExitCode {
    complain(failure);
    ExitCode::from(exit::exit_code(failure.code))
}

/// The peer that `name` means, and `node` with the service that it may name.
fn find_peer(name: &PeerName, mut node: NodeArgs) -> Result<(Target, NodeArgs), Failure> {
    let recipient = peer_name::read(name)?;
    if let (Recipient::NamedService(service), None) = (&recipient, &node.service) {
        node.service = Some(service.clone());
    }
    let nearby = launch::nearby(Role::Client, node.service.clone());
    let mut directory = Directory::new(node.service.clone(), None);
    Ok((directory.resolve(&recipient, nearby)?, node))
}

impl Told {
    /// Waits for `work`, and tells whoever sees stderr what happens meanwhile.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let style = self.style;
        self.watching(work, |event| tell(event, style)).await
    }

    /// Waits for `work`, and hands over what happens meanwhile.
    async fn watching<T>(
        &mut self,
        work: impl Future<Output = T>,
        mut tell: impl FnMut(&Event),
    ) -> Result<T, Stop> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(signal) = self.signals.recv() => return Err(Stop::Signal(signal)),
                done = &mut work => return Ok(done),
                event = self.events.recv() => tell(&event.ok_or(Stop::NodeGone)?),
            }
        }
    }

    /// Waits for the next event.
    async fn next(&mut self) -> Result<Event, Stop> {
        tokio::select! {
            biased;
            Some(signal) = self.signals.recv() => Err(Stop::Signal(signal)),
            event = self.events.recv() => event.ok_or(Stop::NodeGone),
        }
    }
}

/// Tells whoever sees stderr, in this style.
fn tell(event: &Event, style: Option<Style>) {
    // That it is delivered, the command says itself.
    if matches!(event, Event::Delivered(_)) {
        return;
    }
    if let Some(style) = style
        && let Some(line) = terminal::render(&Output::from(event), style)
    {
        stderr::write((line + "\n").as_bytes());
    }
}

impl Stop {
    /// What becomes of work that had to be done.
    fn cut_off(self) -> Result<u8, Failure> {
        match self {
            Self::Signal(Signal::Terminate | Signal::Interrupt) => Ok(exit::INTERRUPTED),
            // Nobody is left who would want to know.
            Self::Signal(Signal::ParentGone) => Ok(exit::INTERRUPTED),
            Self::Signal(Signal::Panicked) | Self::NodeGone => {
                Err(Failure::new(Code::Internal, "the node has stopped by itself")
                    .hint("stderr says more; please report it"))
            }
        }
    }

    /// What becomes of work that goes on until somebody stops it.
    fn well_done(self) -> Result<u8, Failure> {
        match self {
            Self::Signal(Signal::Terminate | Signal::Interrupt | Signal::ParentGone) => {
                Ok(exit::OK)
            }
            Self::Signal(Signal::Panicked) | Self::NodeGone => self.cut_off(),
        }
    }
}
