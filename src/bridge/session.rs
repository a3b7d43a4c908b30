//! One task between stdin, the node and stdout: reads commands, lets them run, and tells what happens.

mod sources;

use std::{pin::pin, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use tokio::{sync::mpsc, time};
use tracing::{info, warn};

pub(super) use self::sources::next_signal;
use self::sources::{Next, Sources};
use super::{
    command::{Command, Id, Rejected, Verb},
    driven::{Arrived, Driven},
    exit::{self, exit_code},
    intake::Intake,
    options::{Options, Signal, Started, StdinEof},
    output::Output,
    perform::{self, Names},
    reader::Input,
    recipient::Directory,
    reply::Reply,
    stdin::Batch,
    stdout::{Lane, Outbox},
    values::Ending,
    work::{Asked, Outcome, Work},
};
use crate::{
    failure::{Code, Failure},
    node::{Event, Role},
    proto::Message,
    service::ServiceName,
};

/// How long running commands get after the end of stdin, so that `echo 'send …' | p2p-node` delivers.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);

/// How long running commands get after `quit`.
const QUIT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the node gets to say goodbye to its peers and to take its record down.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(5);

/// The same when nobody is left who waits for this process: it is gone within two seconds.
const GOODBYE_TIME_MAX_ALONE: Duration = Duration::from_secs(1);

/// How long a reader gets to take the last events.
pub(super) const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

/// The same when nobody is left who waits.
const FLUSH_TIME_MAX_ALONE: Duration = Duration::from_millis(500);

/// From the moment that nothing may run any more to the end of the process, with some time to spare.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(8);

/// The version of `p2p-stdio` that is spoken.
const PROTOCOL: u32 = 1;

/// A session with a started node.
pub(super) struct Session<N: Driven> {
    node: Arc<N>,
    sources: Sources<N::Inbox>,
    outbox: Outbox<N::Handover>,
    directory: Directory,
    work: Work<N::Handover>,
    intake: Intake,
    options: Options,
    /// Whether a command has come.
    has_heard: bool,
    last_failure: Option<Code>,
}

/// How far the session has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No more commands are read; those that run may end.
    Draining,
    /// The node is stopping; nobody needs to read stdout any more.
    Stopping,
}

/// The user pressed Ctrl-C again: there is no time for anything.
struct AtOnce;

impl<N: Driven> Session<N> {
    pub(super) fn new(
        started: Started<N>,
        options: Options,
        input: mpsc::Receiver<Batch>,
        signals: mpsc::Receiver<Signal>,
        outbox: Outbox<N::Handover>,
    ) -> Self {
        let admission = started.admission;
        let ready = Output::Ready {
            peer_id: started.node.peer_id(),
            ticket: started.node.ticket(),
            addrs: &started.addresses,
            service: options.service.as_ref().map(ServiceName::as_str),
            admission,
            warning: match options.role {
                Role::Server => admission.warning(),
                Role::Client => None,
            },
        };
        outbox.put(Lane::Events, &ready, None);
        Self {
            node: Arc::new(started.node),
            sources: Sources::new(started.events, started.inbox, input, signals),
            outbox,
            directory: Directory::new(options.service.clone(), options.connect.clone()),
            work: Work::default(),
            intake: Intake::default(),
            options,
            has_heard: false,
            last_failure: None,
        }
    }

    /// Serves until the end, whoever wants it; returns the exit code.
    pub(super) async fn run(mut self) -> u8 {
        self.connect_at_start();
        let ending = match (self.serve().await, self.options.stdin_eof) {
            (Ending::StdinEof, StdinEof::Drain | StdinEof::Ignore) => {
                self.drain(Ending::StdinEof, DRAIN_TIME_MAX).await
            }
            (Ending::Shutdown, _) => self.drain(Ending::Shutdown, QUIT_TIME_MAX).await,
            (ending, _) => ending,
        };
        info!(?ending, "stopping");
        (self.options.ending)(STOP_TIME_MAX);
        let fatal = self.last_failure;
        let (goodbye_time, flush_time) = match ending {
            Ending::ParentGone => (GOODBYE_TIME_MAX_ALONE, FLUSH_TIME_MAX_ALONE),
            Ending::StdinEof | Ending::Shutdown | Ending::Signal | Ending::Fatal => {
                (GOODBYE_TIME_MAX, FLUSH_TIME_MAX)
            }
        };
        let (exit_code, flush_time) = match self.stop(goodbye_time).await {
            Ok(()) => (self.exit_code(ending, fatal), flush_time),
            Err(AtOnce) => (exit::INTERRUPTED, AT_ONCE),
        };
        self.outbox.put(Lane::Events, &Output::Bye { reason: ending, exit_code }, None);
        tokio::select! {
            () = self.outbox.finish(flush_time) => exit_code,
            () = self.sources.interrupted() => exit::INTERRUPTED,
        }
    }

    /// `fatal` is what failed before the node was stopped.
    fn exit_code(&self, ending: Ending, fatal: Option<Code>) -> u8 {
        match ending {
            Ending::StdinEof => self.last_failure.map_or(exit::OK, exit_code),
            Ending::Shutdown | Ending::Signal | Ending::ParentGone => exit::OK,
            Ending::Fatal => fatal.map_or(exit::INTERNAL, exit_code),
        }
    }

    /// Carries commands out until somebody wants the end.
    async fn serve(&mut self) -> Ending {
        loop {
            self.sources.read_input = true;
            let ending = match self.next().await {
                Next::Input(input) => self.handle_inputs(input),
                Next::InputEnded => match self.options.stdin_eof {
                    StdinEof::Ignore => None,
                    StdinEof::Drain | StdinEof::Abort => Some(Ending::StdinEof),
                },
                Next::Signal(signal) => Some(self.handle_signal(signal)),
                Next::OutputClosed => Some(Ending::ParentGone),
                Next::NodeGone => {
                    self.report(Failure::new(Code::Internal, "the node has stopped by itself"));
                    Some(Ending::Fatal)
                }
                Next::Done(asked, outcome) => self.handle_done(asked, outcome),
                Next::Event(event) => self.handle_event(&event),
                Next::Message(arrived) => self.handle_messages(arrived),
            };
            if let Some(ending) = ending {
                return ending;
            }
        }
    }

    /// Lets running commands end, for `limit` at most.
    async fn drain(&mut self, ending: Ending, limit: Duration) -> Ending {
        (self.options.ending)(limit + STOP_TIME_MAX);
        let mut over = pin!(time::sleep(limit));
        while !self.work.is_empty() {
            tokio::select! {
                () = &mut over => {
                    warn!("commands still run after {limit:?}");
                    return ending;
                }
                next = self.tell(Phase::Draining) => match next {
                    Some(Next::Signal(signal)) => return self.handle_signal(signal),
                    Some(Next::OutputClosed) => return Ending::ParentGone,
                    Some(Next::NodeGone) => return ending,
                    Some(_) | None => {}
                },
            }
        }
        ending
    }

    /// Stops the node and tells what it still has to tell. Every command has its answer afterwards.
    async fn stop(&mut self, limit: Duration) -> Result<(), AtOnce> {
        let node = Arc::clone(&self.node);
        let mut shutdown = pin!(node.shutdown());
        let mut over = pin!(time::sleep(limit));
        let mut is_down = false;
        while !is_down || !self.work.is_empty() {
            tokio::select! {
                () = &mut over => {
                    warn!("the node has not stopped after {limit:?}");
                    break;
                }
                () = &mut shutdown, if !is_down => is_down = true,
                next = self.tell(Phase::Stopping) => {
                    if let Some(Next::Signal(Signal::Interrupt)) = next {
                        return Err(AtOnce);
                    }
                }
            }
        }
        for asked in self.work.abandon() {
            let failure = Failure::new(Code::ShuttingDown, "the node stopped before this was done");
            self.answer(&asked, Err(failure));
        }
        while let Some(event) = self.sources.event_now() {
            self.handle_event(&event);
        }
        while self.intake.is_open()
            && let Some(arrived) = self.sources.message_now()
        {
            self.handle_message(arrived);
        }
        Ok(())
    }

    /// Waits for the next thing to happen, which is told. What changes the session's course comes back.
    async fn tell(&mut self, phase: Phase) -> Option<Next<N::Handover>> {
        self.sources.read_input = false;
        self.sources.watch_output = phase == Phase::Draining;
        match self.next().await {
            Next::Done(asked, outcome) => self.handle_done(asked, outcome),
            Next::Event(event) => self.handle_event(&event),
            Next::Message(arrived) => self.handle_messages(arrived),
            next @ (Next::Input(_)
            | Next::InputEnded
            | Next::NodeGone
            | Next::Signal(_)
            | Next::OutputClosed) => return Some(next),
        };
        None
    }

    async fn next(&mut self) -> Next<N::Handover> {
        self.sources.read_messages = self.intake.is_open();
        self.sources.next(&mut self.work, &self.outbox).await
    }

    fn connect_at_start(&mut self) {
        if let Some(to) = self.options.connect.clone() {
            let id = Some(Id::Text(CONNECT_ID.to_owned()));
            let asked = Asked { id, peer: None, since: self.options.clock.now() };
            self.begin(asked, Verb::Connect { to }, None);
        }
    }

    /// Handles `first` and what was read along with it. Returns why the session ends, if it does.
    fn handle_inputs(&mut self, first: Input) -> Option<Ending> {
        let mut input = Some(first);
        for _ in 0..IN_ONE_GO_MAX {
            let Some(next) = input else {
                break;
            };
            if let Some(ending) = self.handle_input(next) {
                return Some(ending);
            }
            input = match self.outbox.has_room(Lane::Answers) {
                true => self.sources.input_now(),
                false => None,
            };
        }
        // The last one of a full round was taken and has to be handled, too.
        input.and_then(|input| self.handle_input(input))
    }

    fn handle_input(&mut self, input: Input) -> Option<Ending> {
        match input {
            Input::Command(command) => {
                let ending = (command.verb == Verb::Quit).then_some(Ending::Shutdown);
                self.handle_command(command);
                ending
            }
            Input::Rejected(Rejected { id, failure }) => {
                self.has_heard = true;
                self.last_failure = Some(failure.code);
                let error = Output::error(id.as_ref(), &failure, None, None);
                self.outbox.put(Lane::Answers, &error, None);
                None
            }
            Input::Lost(failure) => {
                self.report(failure);
                Some(Ending::Fatal)
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        let Command { id, timeout, verb } = command;
        let is_first = !std::mem::replace(&mut self.has_heard, true);
        let asked = Asked { id, peer: None, since: self.options.clock.now() };
        if let Some(id) = &asked.id
            && self.work.is_running(id)
        {
            return self.answer(&asked, Err(duplicate()));
        }
        let outcome = match verb {
            Verb::Hello { protocol, client, credit } => {
                self.handle_hello(is_first, protocol, &client, credit)
            }
            Verb::Listen { enabled } => {
                self.intake.handle_listen(enabled);
                Ok(Reply::Nothing {})
            }
            Verb::Credit { messages } => {
                self.intake.handle_credit(messages).map(|()| Reply::Nothing {})
            }
            Verb::Cancel { target } => {
                if let Some(cancelled) = self.work.cancel(&target) {
                    let failure = Failure::new(Code::Cancelled, "the program gave this up");
                    self.answer(&cancelled, Err(failure));
                }
                Ok(Reply::Nothing {})
            }
            Verb::Ticket => Ok(Reply::Ticket { ticket: self.node.ticket().to_string() }),
            Verb::Help => Ok(Reply::help()),
            Verb::Quit => Ok(Reply::Nothing {}),
            verb @ (Verb::Send { .. }
            | Verb::Broadcast { .. }
            | Verb::Request { .. }
            | Verb::Connect { .. }
            | Verb::Disconnect { .. }
            | Verb::Ping { .. }
            | Verb::List
            | Verb::Status
            | Verb::Netcheck { .. }) => return self.begin(asked, verb, timeout),
        };
        self.answer(&asked, outcome.map(Into::into));
    }

    fn handle_hello(
        &mut self,
        is_first: bool,
        protocol: u32,
        client: &str,
        credit: Option<u32>,
    ) -> Result<Reply, Failure> {
        if !is_first {
            return Err(Failure::new(
                Code::BadRequest,
                "hello comes before all other commands, and once",
            )
            .hint("leave it out: it is needed for credit only"));
        }
        if protocol != PROTOCOL {
            // It may say hello again.
            self.has_heard = false;
            return Err(Failure::new(
                Code::UnsupportedVersion,
                format!("version {protocol} of p2p-stdio is not spoken here"),
            )
            .because(format!("this program speaks version {PROTOCOL}"))
            .hint("the event hello lists the versions; update the older of the two programs"));
        }
        info!(client, ?credit, "the program says hello");
        if let Some(credit) = credit {
            self.intake.handle_first_credit(credit);
        }
        Ok(Reply::Protocol { protocol })
    }

    fn begin(&mut self, mut asked: Asked, mut verb: Verb, timeout: Option<Duration>) {
        if let Verb::Send { message, .. }
        | Verb::Broadcast { message }
        | Verb::Request { message, .. } = &mut verb
        {
            self.complete(message);
        }
        let mut names = Names { directory: &mut self.directory, nearby: &self.options.nearby };
        let task = match perform::task(&self.node, &mut names, verb, timeout) {
            Ok(task) => task.expect("the session itself does the others"),
            Err(failure) => return self.answer(&asked, Err(failure)),
        };
        asked.peer = task.peer;
        if let Some((asked, outcome)) = self.work.begin(asked, task.bytes, task.job) {
            self.answer(&asked, outcome);
        }
    }

    /// Names and dates a message that has no name or date.
    fn complete(&mut self, message: &mut Message) {
        if message.id.is_empty() {
            message.id = HEXLOWER.encode(&self.options.entropy.bytes::<8>());
        }
        if message.timestamp == 0 {
            message.timestamp = i64::try_from(self.options.clock.unix().0).unwrap_or(i64::MAX);
        }
    }

    /// Why the session ends after `signal`.
    fn handle_signal(&mut self, signal: Signal) -> Ending {
        if signal == Signal::Panicked {
            let failure = Failure::new(Code::Internal, "a part of the program has panicked");
            self.report(failure.hint("stderr says more; please report it"));
        }
        signal.ending()
    }

    fn handle_done(&mut self, asked: Asked, outcome: Outcome<N::Handover>) -> Option<Ending> {
        self.answer(&asked, outcome);
        None
    }

    fn handle_event(&mut self, event: &Event) -> Option<Ending> {
        self.directory.handle_event(event);
        self.outbox.put(Lane::Events, &Output::from(event), None);
        None
    }

    /// Tells `first` and the messages that are there with it.
    fn handle_messages(&mut self, first: Arrived<N::Handover>) -> Option<Ending> {
        // What the node told before: a peer is connected before it says something.
        while let Some(event) = self.sources.event_now() {
            self.handle_event(&event);
        }
        self.handle_message(first);
        for _ in 0..IN_ONE_GO_MAX {
            if !self.intake.is_open() || !self.outbox.has_room(Lane::Events) {
                break;
            }
            let Some(arrived) = self.sources.message_now() else {
                break;
            };
            while let Some(event) = self.sources.event_now() {
                self.handle_event(&event);
            }
            self.handle_message(arrived);
        }
        None
    }

    fn handle_message(&mut self, arrived: Arrived<N::Handover>) {
        self.directory.handle_message(arrived.peer);
        self.intake.handle_message();
        let Arrived { peer, message, handover } = arrived;
        self.outbox.put(Lane::Events, &Output::Message { peer, message: &message }, Some(handover));
    }

    fn answer(&mut self, asked: &Asked, outcome: Outcome<N::Handover>) {
        match outcome {
            Ok(answer) => {
                if let Reply::Connected(link) = &answer.reply {
                    self.directory.handle_connected(link.peer);
                }
                let ok = Output::Ok { id: asked.id.as_ref(), reply: &answer.reply };
                self.outbox.put(Lane::Answers, &ok, answer.handover);
            }
            Err(failure) => {
                self.last_failure = Some(failure.code);
                let elapsed = asked.elapsed(self.options.clock.now());
                let error = Output::error(asked.id.as_ref(), &failure, asked.peer, Some(elapsed));
                self.outbox.put(Lane::Answers, &error, None);
            }
        }
    }

    fn report(&mut self, failure: Failure) {
        self.last_failure = Some(failure.code);
        self.outbox.put(Lane::Events, &Output::error(None, &failure, None, None), None);
    }
}

fn duplicate() -> Failure {
    Failure::new(Code::DuplicateId, "a command with this id is running")
        .hint("give each command an id of its own, or wait for the answer")
}

/// The id under which the connection that `--connect` asks for is answered.
const CONNECT_ID: &str = "--connect";

/// Time to write one event.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Inputs, or messages, that are handled before everything else has its turn.
const IN_ONE_GO_MAX: usize = 64;
