//! A node as the bridge sees it.
//!
//! The bridge drives whatever does this: [`Node`] in the program, a stand-in that answers by simple
//! rules where the bridge itself is tested, measured or fuzzed.

use std::{future::Future, time::Duration};

use crate::{
    failure::Failure,
    identity::PeerId,
    node::{
        Handover, Inbox, Netcheck, Node, Question, Received, Target,
        event::{Connection, PeerStatus, Pong, Receipt, Sent, Status},
    },
    proto::Message,
    ticket::Ticket,
};

/// What the bridge asks of a node. Each method is [`Node`]'s of the same name, with its errors.
#[allow(missing_docs, reason = "the methods are documented where the node has them")]
pub trait Driven: Send + Sync + 'static {
    /// Acknowledges a message to its sender by being dropped.
    type Handover: Send + 'static;
    /// Where messages arrive.
    type Inbox: Arrivals<Handover = Self::Handover>;

    fn peer_id(&self) -> PeerId;

    fn ticket(&self) -> &Ticket;

    fn connect(
        &self,
        target: Target,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<Connection, Failure>> + Send;

    fn disconnect(&self, peer: PeerId) -> impl Future<Output = Result<(), Failure>> + Send;

    fn send(
        &self,
        target: Target,
        message: Message,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<Receipt, Failure>> + Send;

    fn broadcast(
        &self,
        message: Message,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<Vec<Sent>, Failure>> + Send;

    fn request(
        &self,
        target: Target,
        message: Message,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<Arrived<Self::Handover>, Failure>> + Send;

    fn peers(&self) -> impl Future<Output = Result<Vec<PeerStatus>, Failure>> + Send;

    fn status(&self) -> impl Future<Output = Result<Status, Failure>> + Send;

    fn ping(
        &self,
        peer: PeerId,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<Pong, Failure>> + Send;

    fn netcheck(
        &self,
        question: Question,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<Netcheck, Failure>> + Send;

    fn shutdown(&self) -> impl Future<Output = ()> + Send;
}

/// Messages of all peers, in the order in which they are to be told.
pub trait Arrivals: Send + 'static {
    /// [`Driven::Handover`].
    type Handover;

    /// The next message; `None` when no more will come. Giving up the wait loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Arrived<Self::Handover>>> + Send;

    /// The next message, if one is there.
    fn try_next(&mut self) -> Option<Arrived<Self::Handover>>;
}

/// A message that arrived.
#[derive(Debug)]
pub struct Arrived<H> {
    /// From whom; proved by TLS.
    pub peer: PeerId,
    /// What it says.
    pub message: Message,
    /// To be dropped when the program behind stdout has the message.
    pub handover: H,
}

impl Driven for Node {
    type Handover = Handover;
    type Inbox = Inbox;

    fn peer_id(&self) -> PeerId {
        self.peer_id()
    }

    fn ticket(&self) -> &Ticket {
        self.ticket()
    }

    async fn connect(
        &self,
        target: Target,
        timeout: Option<Duration>,
    ) -> Result<Connection, Failure> {
        self.connect(target, timeout).await
    }

    async fn disconnect(&self, peer: PeerId) -> Result<(), Failure> {
        self.disconnect(peer).await
    }

    async fn send(
        &self,
        target: Target,
        message: Message,
        timeout: Option<Duration>,
    ) -> Result<Receipt, Failure> {
        self.send(target, message, timeout).await
    }

    async fn broadcast(
        &self,
        message: Message,
        timeout: Option<Duration>,
    ) -> Result<Vec<Sent>, Failure> {
        self.broadcast(message, timeout).await
    }

    async fn request(
        &self,
        target: Target,
        message: Message,
        timeout: Option<Duration>,
    ) -> Result<Arrived<Handover>, Failure> {
        self.request(target, message, timeout).await.map(Arrived::from)
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, Failure> {
        self.peers().await
    }

    async fn status(&self) -> Result<Status, Failure> {
        self.status().await
    }

    async fn ping(&self, peer: PeerId, timeout: Option<Duration>) -> Result<Pong, Failure> {
        self.ping(peer, timeout).await
    }

    async fn netcheck(
        &self,
        question: Question,
        timeout: Option<Duration>,
    ) -> Result<Netcheck, Failure> {
        self.netcheck(question, timeout).await
    }

    async fn shutdown(&self) {
        self.shutdown().await;
    }
}

impl Arrivals for Inbox {
    type Handover = Handover;

    async fn next(&mut self) -> Option<Arrived<Handover>> {
        self.next().await.map(Arrived::from)
    }

    fn try_next(&mut self) -> Option<Arrived<Handover>> {
        self.try_next().map(Arrived::from)
    }
}

impl From<Received> for Arrived<Handover> {
    fn from(received: Received) -> Self {
        let Received { peer, message, handover } = received;
        Self { peer, message, handover }
    }
}
