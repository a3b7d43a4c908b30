//! The user's side of a node: calls go in, answers and events come out.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, mpsc, oneshot};

use super::event::{Connection, PeerStatus, Receipt, Status, Target};
use crate::{
    failure::{Code, Failure},
    identity::PeerId,
    proto::Message,
    ticket::Ticket,
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
    Send { target: Target, message: Message, timeout: Option<Duration>, answer: Answer<Receipt> },
    /// [`Node::disconnect`]
    Disconnect { peer: PeerId, answer: Answer<()> },
    /// [`Node::peers`]
    Peers { answer: Answer<Vec<PeerStatus>> },
    /// [`Node::status`]
    Status { answer: Answer<Status> },
    /// [`Node::shutdown`]
    Shutdown { answer: Answer<()> },
}

/// Where the answer to a request goes.
pub type Answer<T> = oneshot::Sender<Result<T, Failure>>;

impl Node {
    pub(crate) fn new(peer_id: PeerId, ticket: Ticket, requests: mpsc::Sender<Request>) -> Self {
        Self { peer_id, ticket, requests, turn: Arc::default() }
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
        self.ask(|answer| Request::Send { target, message, timeout, answer }).await
    }

    /// Ends the link to `peer`, if there is one.
    ///
    /// # Errors
    /// [`Code::PeerNotFound`] if it is not connected.
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), Failure> {
        self.ask(|answer| Request::Disconnect { peer, answer }).await
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
        let gone = || Failure::new(Code::ShuttingDown, "the node is stopping");
        let turn = self.turn.lock().await;
        self.requests.send(request(answer)).await.map_err(|_| gone())?;
        drop(turn);
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}
