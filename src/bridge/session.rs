//! One task between stdin, the node and stdout: reads commands, lets them run, and tells what happens.

use std::{
    future::{pending, ready},
    pin::pin,
    time::Duration,
};

use tokio::{sync::mpsc, time};
use tracing::{info, warn};

use super::{
    command::{self, Command, Id, Rejected, Verb},
    exit::{self, exit_code},
    output::{Ending, Output},
    recipient::{Directory, Recipient},
    reply::Reply,
    run::{Options, Signal, Started, next_signal},
    stdin::Line,
    stdout::{Lane, Outbox, Room},
    work::{Asked, Job, Outcome, Work},
};
use crate::{
    failure::{Code, Failure},
    identity::PeerId,
    node::{Event, Inbox, Node, Received, Role, Target},
    service::ServiceName,
};

/// How long running commands get after the end of stdin, so that `echo 'send …' | p2p-node` delivers.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);

/// How long running commands get after `quit`.
const QUIT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the node gets to say goodbye to its peers and to take its record down.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a reader gets to take the last lines.
pub(super) const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a question that the node answers from memory may take.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(10);

/// A session with a started node.
pub(super) struct Session {
    node: Node,
    /// `None` when the node has no more to tell.
    events: Option<mpsc::Receiver<Event>>,
    /// `None` likewise.
    inbox: Option<Inbox>,
    lines: mpsc::Receiver<Line>,
    signals: mpsc::Receiver<Signal>,
    outbox: Outbox,
    directory: Directory,
    work: Work,
    options: Options,
    last_failure: Option<Code>,
}

/// How far the session has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Commands are read.
    Serving,
    /// No more commands are read; those that run may end.
    Draining,
    /// The node is stopping; nobody needs to read stdout any more.
    Stopping,
}

/// What happened, as far as it changes the session's course.
enum Happening {
    /// The node told something, or answered.
    Told,
    Line(Room, Line),
    InputEnded,
    NodeGone,
    Signal(Signal),
    OutputClosed,
}

/// The user pressed Ctrl-C again: there is no time for anything.
struct AtOnce;

impl Session {
    pub(super) fn new(
        started: Started,
        options: Options,
        lines: mpsc::Receiver<Line>,
        signals: mpsc::Receiver<Signal>,
        outbox: Outbox,
    ) -> Self {
        let admission = started.admission;
        outbox.put_now(&Output::Ready {
            peer_id: started.node.peer_id(),
            ticket: started.node.ticket(),
            addrs: &started.addresses,
            service: options.service.as_ref().map(ServiceName::as_str),
            admission,
            warning: match options.role {
                Role::Server => admission.warning(),
                Role::Client => None,
            },
        });
        Self {
            node: started.node,
            events: Some(started.events),
            inbox: Some(started.inbox),
            lines,
            signals,
            outbox,
            directory: Directory::new(options.service.clone(), options.connect.clone()),
            work: Work::default(),
            options,
            last_failure: None,
        }
    }

    /// Serves until the end, whoever wants it; returns the exit code.
    pub(super) async fn run(mut self) -> u8 {
        self.connect_at_start().await;
        let ending = match self.serve().await {
            Ending::StdinEof => self.drain(Ending::StdinEof, DRAIN_TIME_MAX).await,
            Ending::Shutdown => self.drain(Ending::Shutdown, QUIT_TIME_MAX).await,
            ending @ (Ending::Signal | Ending::ParentGone | Ending::Fatal) => ending,
        };
        info!(?ending, "stopping");
        let (exit_code, flush_time) = match self.stop().await {
            Ok(()) => (self.exit_code(ending), FLUSH_TIME_MAX),
            Err(AtOnce) => (exit::INTERRUPTED, AT_ONCE),
        };
        self.outbox.put_now(&Output::Bye { reason: ending, exit_code });
        self.outbox.finish(flush_time).await;
        exit_code
    }

    fn exit_code(&self, ending: Ending) -> u8 {
        match ending {
            Ending::StdinEof => self.last_failure.map_or(exit::OK, exit_code),
            Ending::Shutdown | Ending::Signal | Ending::ParentGone => exit::OK,
            Ending::Fatal => exit::INTERNAL,
        }
    }

    /// Carries commands out until somebody wants the end.
    async fn serve(&mut self) -> Ending {
        loop {
            match self.step(Phase::Serving).await {
                Happening::Told => {}
                Happening::Line(room, line) => {
                    if let Some(ending) = self.handle_line(room, line).await {
                        return ending;
                    }
                }
                Happening::InputEnded => return Ending::StdinEof,
                Happening::Signal(_) => return Ending::Signal,
                Happening::OutputClosed => return Ending::ParentGone,
                Happening::NodeGone => {
                    self.report(&Failure::new(Code::Internal, "the node has stopped by itself"));
                    return Ending::Fatal;
                }
            }
        }
    }

    /// Lets running commands end, for `limit` at most.
    async fn drain(&mut self, ending: Ending, limit: Duration) -> Ending {
        let mut over = pin!(time::sleep(limit));
        while !self.work.is_empty() {
            tokio::select! {
                () = &mut over => {
                    warn!("commands still run after {limit:?}");
                    return ending;
                }
                happening = self.step(Phase::Draining) => match happening {
                    Happening::Told | Happening::Line(..) | Happening::InputEnded => {}
                    Happening::Signal(_) => return Ending::Signal,
                    Happening::OutputClosed => return Ending::ParentGone,
                    Happening::NodeGone => return ending,
                },
            }
        }
        ending
    }

    /// Stops the node and tells what it still has to tell. Every command has its answer afterwards.
    async fn stop(&mut self) -> Result<(), AtOnce> {
        let node = self.node.clone();
        let mut shutdown = pin!(node.shutdown());
        let mut over = pin!(time::sleep(STOP_TIME_MAX));
        let mut is_down = false;
        while !is_down || !self.work.is_empty() {
            tokio::select! {
                () = &mut over => {
                    warn!("the node has not stopped after {STOP_TIME_MAX:?}");
                    break;
                }
                () = &mut shutdown, if !is_down => is_down = true,
                happening = self.step(Phase::Stopping) => {
                    if let Happening::Signal(Signal::Interrupt) = happening {
                        return Err(AtOnce);
                    }
                }
            }
        }
        for asked in self.work.abandon() {
            let failure = Failure::new(Code::ShuttingDown, "the node stopped before this was done");
            self.last_failure = Some(failure.code);
            self.outbox.put_now(&self.error(&asked, &failure));
        }
        while let Some(event) = self.events.as_mut().and_then(|events| events.try_recv().ok()) {
            self.outbox.put_now(&Output::from(&event));
        }
        while let Some(received) = self.inbox.as_mut().and_then(Inbox::try_next) {
            self.outbox.put_now(&Output::from(&received));
        }
        Ok(())
    }

    /// Waits for the next thing to happen. What only has to be told is told here.
    async fn step(&mut self, phase: Phase) -> Happening {
        let outbox = &self.outbox;
        tokio::select! {
            // Events come before messages: a peer is connected before it says something.
            biased;
            () = outbox.closed(), if phase != Phase::Stopping => Happening::OutputClosed,
            signal = next_signal(&mut self.signals) => Happening::Signal(signal),
            (room, (asked, outcome)) = with_room(outbox, Lane::Answers, self.work.next()) => {
                self.answer(room, &asked, outcome);
                Happening::Told
            }
            (room, event) = with_room(outbox, Lane::Events, next_event(&mut self.events)) => {
                let Some(event) = event else {
                    self.events = None;
                    return Happening::NodeGone;
                };
                self.directory.handle_event(&event);
                self.outbox.put(room, &Output::from(&event));
                Happening::Told
            }
            (room, line) = with_room(outbox, Lane::Answers, self.lines.recv()),
                if phase == Phase::Serving =>
            {
                line.map_or(Happening::InputEnded, |line| Happening::Line(room, line))
            }
            (room, received) = with_room(outbox, Lane::Events, next_message(&mut self.inbox)) => {
                match received {
                    None => self.inbox = None,
                    Some(received) => {
                        self.directory.handle_message(received.peer);
                        self.outbox.put(room, &Output::from(&received));
                    }
                }
                Happening::Told
            }
        }
    }

    async fn connect_at_start(&mut self) {
        if let Some(to) = self.options.connect.clone() {
            let room = self.outbox.room(Lane::Answers).await;
            let command = Command {
                id: Some(Id::Text(CONNECT_ID.to_owned())),
                timeout: None,
                verb: Verb::Connect { to },
            };
            self.handle_command(room, command).await;
        }
    }

    /// Carries one line out. Returns why the session ends, if it does.
    async fn handle_line(&mut self, room: Room, line: Line) -> Option<Ending> {
        let unread = |failure| Rejected { id: None, failure };
        let now = self.options.clock.unix();
        let command = match line.map_err(unread) {
            Ok(line) => command::parse(line, &mut self.options.entropy, now)?,
            Err(rejected) => Err(rejected),
        };
        match command {
            Ok(command) => {
                let ending = (command.verb == Verb::Quit).then_some(Ending::Shutdown);
                self.handle_command(room, command).await;
                ending
            }
            Err(Rejected { id, failure }) => {
                self.last_failure = Some(failure.code);
                self.outbox.put(room, &Output::error(id.as_ref(), &failure, None, None));
                None
            }
        }
    }

    async fn handle_command(&mut self, room: Room, command: Command) {
        let mut asked = Asked { id: command.id, peer: None, since: self.options.clock.now() };
        let job = match self.job(command.verb, command.timeout) {
            Ok((peer, job)) => {
                asked.peer = peer;
                job
            }
            Err(failure) => return self.answer(room, &asked, Err(failure)),
        };
        if let Some((asked, outcome)) = self.work.begin(asked, job).await {
            self.answer(room, &asked, outcome);
        }
    }

    /// The work that `verb` means, and the peer that it is for.
    fn job(&self, verb: Verb, timeout: Option<Duration>) -> Result<(Option<PeerId>, Job), Failure> {
        let node = self.node.clone();
        let limit = timeout.unwrap_or(QUESTION_TIME_MAX);
        let (peer, job): (_, Job) = match verb {
            Verb::Send { to, message } => {
                let target = self.resolve(&to)?;
                let peer = target.peer();
                let send =
                    async move { node.send(target, message, timeout).await.map(Reply::from) };
                (peer, Box::pin(send))
            }
            Verb::Connect { to } => {
                let target = self.resolve(&to)?;
                let peer = target.peer();
                let connect = async move {
                    let connection = node.connect(target, timeout).await?;
                    Ok(Reply::Connected((&connection).into()))
                };
                (peer, Box::pin(connect))
            }
            Verb::Disconnect { from } => {
                let peer = self.resolve(&from)?.peer().ok_or_else(|| {
                    Failure::new(Code::InvalidArgument, "a service may have several servers")
                        .hint("disconnect <peer>; list shows the connected peers")
                })?;
                let disconnect = async move {
                    in_time(limit, node.disconnect(peer)).await?;
                    Ok(Reply::Disconnected { peer })
                };
                (Some(peer), Box::pin(disconnect))
            }
            Verb::List => {
                (None, Box::pin(async move { in_time(limit, node.peers()).await.map(Reply::from) }))
            }
            Verb::Status => (
                None,
                Box::pin(async move { in_time(limit, node.status()).await.map(Reply::from) }),
            ),
            Verb::Ticket => {
                let ticket = node.ticket().to_string();
                (None, Box::pin(ready(Ok(Reply::Ticket { ticket }))))
            }
            Verb::Help => (None, Box::pin(ready(Ok(Reply::help())))),
            Verb::Quit => (None, Box::pin(ready(Ok(Reply::Nothing {})))),
        };
        Ok((peer, job))
    }

    fn resolve(&self, recipient: &Recipient) -> Result<Target, Failure> {
        self.directory.resolve(recipient, || (self.options.nearby)())
    }

    fn answer(&mut self, room: Room, asked: &Asked, outcome: Outcome) {
        match outcome {
            Ok(reply) => {
                if let Reply::Connected(link) = &reply {
                    self.directory.handle_connected(link.peer);
                }
                let id = asked.id.as_ref();
                self.outbox.put(room, &Output::Ok { id, reply: &reply });
            }
            Err(failure) => {
                self.last_failure = Some(failure.code);
                self.outbox.put(room, &self.error(asked, &failure));
            }
        }
    }

    fn error<'a>(&self, asked: &'a Asked, failure: &'a Failure) -> Output<'a> {
        let elapsed = asked.elapsed(self.options.clock.now());
        Output::error(asked.id.as_ref(), failure, asked.peer, Some(elapsed))
    }

    fn report(&self, failure: &Failure) {
        self.outbox.put_now(&Output::error(None, failure, None, None));
    }
}

async fn with_room<T>(outbox: &Outbox, lane: Lane, next: impl Future<Output = T>) -> (Room, T) {
    let room = outbox.room(lane).await;
    (room, next.await)
}

/// The next message; never, when none will come any more.
async fn next_message(inbox: &mut Option<Inbox>) -> Option<Received> {
    match inbox {
        Some(inbox) => inbox.next().await,
        None => pending().await,
    }
}

/// What the node tells next; never, when it has no more to tell.
async fn next_event(events: &mut Option<mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => pending().await,
    }
}

async fn in_time<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    time::timeout(limit, question).await.unwrap_or_else(|_| {
        let limit_ms = limit.as_millis();
        Err(Failure::new(Code::Timeout, format!("the node has not answered in {limit_ms} ms")))
    })
}

/// The id under which the connection that `--connect` asks for is answered.
const CONNECT_ID: &str = "--connect";

/// Time to write one line.
const AT_ONCE: Duration = Duration::from_millis(100);
