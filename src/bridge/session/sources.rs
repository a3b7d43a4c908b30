//! Where things happen that a session has to hear of, and in which order it hears of them.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    task::Poll,
};

use tokio::sync::mpsc;

use crate::{
    bridge::{
        driven::{Arrivals, Arrived},
        options::Signal,
        reader::Input,
        stdin::Batch,
        stdout::{Lane, Outbox},
        work::{Asked, Outcome, Work},
    },
    node::Event,
};

/// Everything that a session listens to besides its own work.
pub(super) struct Sources<I> {
    /// `None` when the node has no more to tell.
    events: Option<mpsc::Receiver<Event>>,
    /// `None` likewise.
    inbox: Option<I>,
    /// `None` when stdin has ended.
    input: Option<mpsc::Receiver<Batch>>,
    /// What is left of the last batch.
    batch: std::vec::IntoIter<Input>,
    signals: mpsc::Receiver<Signal>,
    /// Whether the next message comes before the next input: they take turns.
    is_messages_turn: bool,
    /// Whether commands are wanted.
    pub(super) read_input: bool,
    /// Whether messages are wanted.
    pub(super) read_messages: bool,
    /// Whether it matters that nobody reads stdout.
    pub(super) watch_output: bool,
}

/// What happened.
pub(super) enum Next<H> {
    OutputClosed,
    Signal(Signal),
    Done(Asked, Outcome<H>),
    Event(Event),
    NodeGone,
    Input(Input),
    InputEnded,
    Message(Arrived<H>),
}

impl<I: Arrivals> Sources<I>
where
    I::Handover: Send + 'static,
{
    pub(super) fn new(
        events: mpsc::Receiver<Event>,
        inbox: I,
        input: mpsc::Receiver<Batch>,
        signals: mpsc::Receiver<Signal>,
    ) -> Self {
        Self {
            events: Some(events),
            inbox: Some(inbox),
            input: Some(input),
            batch: Batch::new().into_iter(),
            signals,
            is_messages_turn: false,
            read_input: true,
            read_messages: true,
            watch_output: true,
        }
    }

    /// Waits for the next thing to happen, and has stdout written meanwhile. Nothing is lost if the wait is
    /// given up.
    pub(super) async fn next(
        &mut self,
        work: &mut Work<I::Handover>,
        outbox: &Outbox<I::Handover>,
    ) -> Next<I::Handover> {
        let Self { events, inbox, input, batch, signals, is_messages_turn, .. } = self;
        let (read_input, read_messages) = (self.read_input, self.read_messages);
        let next_input = async {
            match read_input {
                true => outbox.room(Lane::Answers).await,
                false => pending().await,
            }
            input_of(batch, input).await
        };
        let next_message = async {
            match read_messages {
                true => outbox.room(Lane::Events).await,
                false => pending().await,
            }
            Next::Message(message_of(inbox).await)
        };
        *is_messages_turn = !*is_messages_turn;
        let messages_first = *is_messages_turn;
        tokio::select! {
            biased;
            () = outbox.closed(), if self.watch_output => Next::OutputClosed,
            signal = next_signal(signals) => Next::Signal(signal),
            (asked, outcome) = after_room(outbox, Lane::Answers, work.next()) => {
                Next::Done(asked, outcome)
            }
            event = after_room(outbox, Lane::Events, event_of(events)) => match event {
                Some(event) => Next::Event(event),
                None => {
                    *events = None;
                    Next::NodeGone
                }
            },
            next = first_of(next_message, next_input, messages_first) => next,
            never = outbox.idle() => match never {},
        }
    }

    /// Returns when the user presses Ctrl-C.
    pub(super) async fn interrupted(&mut self) {
        while next_signal(&mut self.signals).await != Signal::Interrupt {}
    }

    /// The next input, if it has been read already.
    pub(super) fn input_now(&mut self) -> Option<Input> {
        self.batch.next()
    }

    /// What the node tells next, if it has told it already.
    pub(super) fn event_now(&mut self) -> Option<Event> {
        self.events.as_mut().and_then(|events| events.try_recv().ok())
    }

    /// The next message, if it is there already.
    pub(super) fn message_now(&mut self) -> Option<Arrived<I::Handover>> {
        self.inbox.as_mut().and_then(Arrivals::try_next)
    }
}

/// The next signal; never, if nobody sends any.
pub(in crate::bridge) async fn next_signal(signals: &mut mpsc::Receiver<Signal>) -> Signal {
    match signals.recv().await {
        Some(signal) => signal,
        None => pending().await,
    }
}

async fn input_of<H>(
    batch: &mut std::vec::IntoIter<Input>,
    source: &mut Option<mpsc::Receiver<Batch>>,
) -> Next<H> {
    loop {
        if let Some(input) = batch.next() {
            return Next::Input(input);
        }
        match source {
            None => pending().await,
            Some(input) => match input.recv().await {
                Some(next) => *batch = next.into_iter(),
                None => {
                    *source = None;
                    return Next::InputEnded;
                }
            },
        }
    }
}

/// The next message; never, when none will come any more.
async fn message_of<I: Arrivals>(inbox: &mut Option<I>) -> Arrived<I::Handover> {
    if let Some(arrivals) = inbox {
        if let Some(arrived) = arrivals.next().await {
            return arrived;
        }
        *inbox = None;
    }
    pending().await
}

/// What the node tells next; never, when it has no more to tell.
async fn event_of(events: &mut Option<mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => pending().await,
    }
}

async fn after_room<T, H: Send + 'static>(
    outbox: &Outbox<H>,
    lane: Lane,
    next: impl Future<Output = T>,
) -> T {
    outbox.room(lane).await;
    next.await
}

/// Whichever is done first; if both are, the first one if `first_wins`.
async fn first_of<T>(
    first: impl Future<Output = T>,
    second: impl Future<Output = T>,
    first_wins: bool,
) -> T {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if first_wins && let Poll::Ready(done) = first.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        if let Poll::Ready(done) = second.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        match first_wins {
            true => Poll::Pending,
            false => first.as_mut().poll(context),
        }
    })
    .await
}
