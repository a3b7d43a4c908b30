//! A node that is not there: it delivers every message at once, and answers every request with its own
//! words. What it measures, or lets fail, is the bridge.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use p2p_node::{
    bridge::{
        Started,
        driven::{Arrivals, Arrived, Driven},
        values::Admission,
    },
    failure::{Code, Failure},
    identity::{Identity, PeerId},
    node::{
        Event, Netcheck, Question, Target,
        event::{
            Connection, Direction, PathKind, PathReport, PeerStatus, Pong, Receipt, SendState,
            Sent, Status,
        },
    },
    proto::Message,
    ticket::Ticket,
};
use tokio::sync::mpsc;

/// The node.
pub(crate) struct Echo {
    peer: PeerId,
    ticket: Ticket,
    handed_over: Arc<AtomicUsize>,
}

/// Counts messages that were handed over.
pub(crate) struct Handover(Arc<AtomicUsize>);

/// Messages that were put there.
pub(crate) struct Inbox(mpsc::Receiver<Arrived<Handover>>);

/// The hands on a node.
pub(crate) struct Hands {
    /// Makes it tell something.
    #[allow(dead_code, reason = "it keeps the node alive")]
    pub(crate) events: mpsc::Sender<Event>,
    /// Lets messages arrive.
    pub(crate) messages: mpsc::Sender<Arrived<Handover>>,
    /// Messages that were handed over.
    pub(crate) handed_over: Arc<AtomicUsize>,
}

/// The peer that every message goes to and comes from.
pub(crate) fn bob() -> PeerId {
    // To make a key takes longer than all that is measured here.
    static BOB: LazyLock<PeerId> = LazyLock::new(|| Identity::from_seed([2; 32]).peer_id());
    *BOB
}

/// A node that has started.
pub(crate) fn start() -> (Started<Echo>, Hands) {
    let alice = Identity::from_seed([1; 32]);
    let (events, told) = mpsc::channel(64);
    let (messages, inbox) = mpsc::channel(1_024);
    let handed_over = Arc::new(AtomicUsize::new(0));
    let node = Echo {
        peer: alice.peer_id(),
        ticket: Ticket::of(&alice, Vec::new()),
        handed_over: Arc::clone(&handed_over),
    };
    let inbox = Inbox(inbox);
    let admission = Admission::Anyone;
    let started = Started { node, events: told, inbox, addresses: Vec::new(), admission };
    (started, Hands { events, messages, handed_over })
}

impl Hands {
    /// `message` as it arrives from Bob.
    pub(crate) fn arriving(&self, message: Message) -> Arrived<Handover> {
        Arrived { peer: bob(), message, handover: Handover(Arc::clone(&self.handed_over)) }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Arrivals for Inbox {
    type Handover = Handover;

    async fn next(&mut self) -> Option<Arrived<Handover>> {
        self.0.recv().await
    }

    fn try_next(&mut self) -> Option<Arrived<Handover>> {
        self.0.try_recv().ok()
    }
}

impl Driven for Echo {
    type Handover = Handover;
    type Inbox = Inbox;

    fn peer_id(&self) -> PeerId {
        self.peer
    }

    fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    async fn connect(&self, _: Target, _: Option<Duration>) -> Result<Connection, Failure> {
        Ok(connection())
    }

    async fn disconnect(&self, _: PeerId) -> Result<(), Failure> {
        Err(Failure::new(Code::PeerNotFound, "not connected"))
    }

    async fn send(
        &self,
        _: Target,
        message: Message,
        _: Option<Duration>,
    ) -> Result<Receipt, Failure> {
        Ok(receipt(message))
    }

    async fn broadcast(&self, message: Message, _: Option<Duration>) -> Result<Vec<Sent>, Failure> {
        Ok(vec![Sent { peer: bob(), outcome: Ok(receipt(message)) }])
    }

    async fn request(
        &self,
        _: Target,
        message: Message,
        _: Option<Duration>,
    ) -> Result<Arrived<Handover>, Failure> {
        let handover = Handover(Arc::clone(&self.handed_over));
        Ok(Arrived { peer: bob(), message, handover })
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, Failure> {
        Ok(Vec::new())
    }

    async fn status(&self) -> Result<Status, Failure> {
        Err(Failure::new(Code::NotReady, "nobody is there"))
    }

    async fn ping(&self, peer: PeerId, _: Option<Duration>) -> Result<Pong, Failure> {
        Ok(Pong { peer, rtt: Duration::from_millis(1), path: connection().path })
    }

    async fn netcheck(&self, _: Question, _: Option<Duration>) -> Result<Netcheck, Failure> {
        Err(Failure::new(Code::UdpBlocked, "nobody is there"))
    }

    async fn shutdown(&self) {}
}

fn receipt(message: Message) -> Receipt {
    Receipt {
        peer: Some(bob()),
        message_id: message.id,
        state: SendState::Delivered,
        rtt: Duration::from_micros(1_500),
    }
}

fn connection() -> Connection {
    Connection {
        peer: bob(),
        direction: Direction::Outgoing,
        path: PathReport {
            kind: PathKind::Direct,
            local: ([192, 168, 1, 20], 41_641).into(),
            remote: ([198, 51, 100, 9], 50_112).into(),
        },
        rtt: Duration::from_millis(34),
        took: Duration::from_millis(1_021),
    }
}
