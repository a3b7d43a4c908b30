//! The user's side of a node: calls go in, answers and events come out.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinSet,
    time::timeout_at,
};

use super::{
    clock::Clock,
    event::{Connection, PeerStatus, Pong, Receipt, SendState, Sent, Status, Target},
    explain,
    messages::{
        received::Received,
        switchboard::{Posted, Switchboard},
    },
    netcheck::{Netcheck, Question},
};
use crate::{
    failure::{Code, Failure},
    identity::PeerId,
    proto::Message,
    ticket::Ticket,
    transport::session::{self, AwaitedReply},
};

/// A running node. Cheap to clone; the node stops when [`Node::shutdown`] is called or the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Node {
    peer_id: PeerId,
    ticket: Ticket,
    requests: mpsc::Sender<Request>,
    /// Held while a request is handed over: requests reach the node in the order in which they are made,
    /// also when its queue is full and whoever waits is woken in another order.
    turn: Arc<Mutex<()>>,
    switchboard: Switchboard,
    /// Sends that the driver has not taken yet.
    sends_queued: Arc<AtomicUsize>,
    way: Way,
    clock: Clock,
    /// What an operation may take whose caller names no time.
    patience: Duration,
}

/// What a handle is made of.
pub(super) struct Parts {
    pub(super) peer_id: PeerId,
    pub(super) ticket: Ticket,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) switchboard: Switchboard,
    pub(super) way: Way,
    pub(super) clock: Clock,
    pub(super) patience: Duration,
}

/// How messages get to their sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Straight, where there is a link.
    Short,
    /// Each is written to the outbox first.
    ThroughOutbox,
}

/// A send that the driver has not taken yet; counted until it is dropped.
#[derive(Debug)]
pub struct Turn(Arc<AtomicUsize>);

impl Turn {
    fn take(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the user asks of the node's task.
#[derive(Debug)]
#[allow(
    missing_docs,
    reason = "the fields are the arguments of the method that each variant names"
)]
pub enum Request {
    /// [`Node::connect`]
    Connect { target: Target, timeout: Option<Duration>, answer: Answer<Connection> },
    /// [`Node::send`]
    Send {
        target: Target,
        message: Message,
        timeout: Option<Duration>,
        answer: Answer<Receipt>,
        turn: Turn,
    },
    /// [`Node::disconnect`]
    Disconnect { peer: PeerId, answer: Answer<()> },
    /// [`Node::peers`]
    Peers { answer: Answer<Vec<PeerStatus>> },
    /// [`Node::status`]
    Status { answer: Answer<Status> },
    /// [`Node::ping`]
    Ping { peer: PeerId, answer: Answer<Pong> },
    /// [`Node::netcheck`]
    Netcheck { question: Question, timeout: Option<Duration>, answer: Answer<Netcheck> },
    /// [`Node::shutdown`]
    Shutdown { answer: Answer<()> },
}

/// Where the answer to a request goes.
pub type Answer<T> = oneshot::Sender<Result<T, Failure>>;

impl Node {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { peer_id, ticket, requests, switchboard, way, clock, patience } = parts;
        Self {
            peer_id,
            ticket,
            requests,
            turn: Arc::default(),
            switchboard,
            sends_queued: Arc::default(),
            way,
            clock,
            patience,
        }
    }

    /// A handle to whatever takes requests: a test's stand-in for a node.
    #[cfg(test)]
    pub(crate) fn to(peer_id: PeerId, ticket: Ticket, requests: mpsc::Sender<Request>) -> Self {
        Self::new(Parts {
            peer_id,
            ticket,
            requests,
            switchboard: Switchboard::default(),
            way: Way::Short,
            clock: Clock::system(),
            patience: super::config::CONNECT_TIMEOUT,
        })
    }

    /// Who this node is.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The ticket that leads here, without addresses.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Connects to `target`, or finds it connected. Gives up after `timeout`, or the node's own limit.
    ///
    /// # Errors
    /// Says at which stage it failed, why, and what to do: see [`Code`].
    pub async fn connect(
        &self,
        target: Target,
        timeout: Option<Duration>,
    ) -> Result<Connection, Failure> {
        self.ask(|answer| Request::Connect { target, timeout, answer }).await
    }

    /// Sends `message` to `target`, dialling it first if need be; done when the other node has handed it
    /// to its consumer.
    ///
    /// # Errors
    /// Those of [`Node::connect`]; [`Code::MessageTooLarge`], [`Code::QueueFull`],
    /// [`Code::DeliveryUnknown`], [`Code::Timeout`].
    pub async fn send(
        &self,
        target: Target,
        message: Message,
        timeout: Option<Duration>,
    ) -> Result<Receipt, Failure> {
        let deadline = self.clock.now() + timeout.unwrap_or(self.patience);
        let message = match self.short_way(&target, message) {
            Posted::Taken(posting) => return posting.outcome(deadline).await,
            Posted::NotTaken(failure) => return Err(failure),
            Posted::NotLinked(message) => message,
        };
        let turn = Turn::take(&self.sends_queued);
        self.ask(|answer| Request::Send { target, message, timeout, answer, turn }).await
    }

    /// Gives `message` to its session, unless earlier ones are still on the long way: it may not overtake
    /// them.
    fn short_way(&self, target: &Target, message: Message) -> Posted {
        match self.way {
            Way::Short if self.sends_queued.load(Ordering::Acquire) == 0 => {
                self.switchboard.post(target, message, self.clock)
            }
            Way::Short | Way::ThroughOutbox => Posted::NotLinked(message),
        }
    }

    /// Sends a copy of `message` to every connected peer; done when all copies are. Copies share one payload.
    ///
    /// # Errors
    /// When the node is stopping. How each copy fared is in the list, in the order of the peers' ids.
    pub async fn broadcast(
        &self,
        message: Message,
        timeout: Option<Duration>,
    ) -> Result<Vec<Sent>, Failure> {
        let mut copies = JoinSet::new();
        for status in self.peers().await? {
            let (node, peer, message) = (self.clone(), status.connection.peer, message.clone());
            copies.spawn(async move {
                let outcome = node.send(Target::Peer(peer), message, timeout).await;
                Sent { peer, outcome }
            });
        }
        let mut sent = Vec::with_capacity(copies.len());
        while let Some(copy) = copies.join_next().await {
            // A copy's task ends early only with the runtime.
            sent.push(copy.map_err(|_| stopping())?);
        }
        sent.sort_by_key(|sent| sent.peer);
        Ok(sent)
    }

    /// Sends `message` to `target` and waits for the answer: the first message of that peer whose metadata
    /// names this one's id under [`IN_REPLY_TO`](super::IN_REPLY_TO).
    ///
    /// # Errors
    /// Those of [`Node::send`]; [`Code::NoReply`] when the peer has the message and did not answer in time.
    pub async fn request(
        &self,
        target: Target,
        message: Message,
        timeout: Option<Duration>,
    ) -> Result<Received, Failure> {
        let began = self.clock.now();
        let deadline = began + timeout.unwrap_or(self.patience);
        let peer = match self.switchboard.peer(&target) {
            Some(linked) => linked,
            None => self.connect(target, timeout).await?.peer,
        };
        // Before it is sent: the answer may be faster than the receipt.
        let expected = self.switchboard.expect_reply(peer, &message.id)?;
        let left = deadline.saturating_duration_since(self.clock.now());
        let mut sending = pin!(self.send(Target::Peer(peer), message, Some(left)));
        let mut answer = pin!(answer_to(expected));
        let early = tokio::select! {
            biased;
            answered = &mut answer => Some(answered),
            sent = &mut sending => {
                if sent?.state == SendState::Queued {
                    return Err(explain::not_there_yet(peer));
                }
                None
            }
        };
        let answered = match early {
            None => timeout_at(deadline.into(), answer).await,
            // Then the message has arrived, too, whether its receipt is here or not.
            Some(Some(received)) => Ok(Some(received)),
            // The session has ended, and its receipt says whether the message has arrived.
            Some(None) => sending.await.map(|_| Ok(None))?,
        };
        match answered {
            Ok(Some(received)) => Ok(Received::of(peer, received)),
            Ok(None) => Err(explain::no_session(peer)),
            Err(_) => {
                let waited = self.clock.now().saturating_duration_since(began);
                Err(explain::no_reply(peer, waited))
            }
        }
    }

    /// Asks a connected peer for an answer, behind what is on its way already.
    ///
    /// # Errors
    /// [`Code::PeerNotFound`] if it is not connected, [`Code::Timeout`] if it does not answer, or how
    /// the connection ended.
    pub async fn ping(&self, peer: PeerId, timeout: Option<Duration>) -> Result<Pong, Failure> {
        let deadline = self.clock.now() + timeout.unwrap_or(self.patience);
        let pong = self.ask(|answer| Request::Ping { peer, answer });
        timeout_at(deadline.into(), pong).await.unwrap_or_else(|_| {
            Err(Failure::new(Code::Timeout, format!("{} has not answered", peer.short()))
                .hint("list shows its path; wait longer: timeout_ms"))
        })
    }

    /// Finds out what this network lets through, and what that means for the peer that is named, if one is. When the
    /// time is over, what is known by then is told; `timeout` shortens the time that it takes by itself, five
    /// seconds and as long as a mapping's lifetime is measured.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn netcheck(
        &self,
        question: Question,
        timeout: Option<Duration>,
    ) -> Result<Netcheck, Failure> {
        self.ask(|answer| Request::Netcheck { question, timeout, answer }).await
    }

    /// Ends the link to `peer`, if there is one; done when it has ended.
    ///
    /// # Errors
    /// [`Code::PeerNotFound`] if it is not connected; [`Code::Timeout`] if it has not ended within the
    /// node's own limit.
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), Failure> {
        let deadline = self.clock.now() + self.patience;
        let end = self.ask(|answer| Request::Disconnect { peer, answer });
        timeout_at(deadline.into(), end).await.unwrap_or_else(|_| {
            Err(Failure::new(
                Code::Timeout,
                format!("the link to {} has not ended yet", peer.short()),
            )
            .hint("list shows whether it has"))
        })
    }

    /// All connected peers, in the order of their ids.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, Failure> {
        self.ask(|answer| Request::Peers { answer }).await
    }

    /// How the node fares.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn status(&self) -> Result<Status, Failure> {
        self.ask(|answer| Request::Status { answer }).await
    }

    /// Tells the peers, takes the record down, and stops; a few hundred milliseconds.
    pub async fn shutdown(&self) {
        // A node that is already gone has nothing left to stop.
        let _ = self.ask(|answer| Request::Shutdown { answer }).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        let turn = self.turn.lock().await;
        self.requests.send(request(answer)).await.map_err(|_| stopping())?;
        drop(turn);
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// The answer; `None` when the session ends before it comes. Without anything expected, for the link has just
/// ended, it never does: the message is dialled for, and its answer comes as a message.
async fn answer_to(expected: Option<AwaitedReply>) -> Option<session::Received> {
    match expected {
        Some(awaited) => awaited.received().await,
        None => pending().await,
    }
}

fn stopping() -> Failure {
    Failure::new(Code::ShuttingDown, "the node is stopping")
}
