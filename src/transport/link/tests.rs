//! Links between two nodes on a simulated wire, 50 ms one way, in virtual time.

mod addresses;
mod coming_up;
mod ending;
mod hostile;
mod messages;
mod priority;
mod relinking;

use std::{ops::Deref, sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::Instant};

use super::{
    Caller, Dial, Link, LinkError,
    admission::Admission,
    sim::{Network, address, identity},
};
use crate::{
    proto::Message,
    sealing::Key,
    transport::{
        quic::Endpoint,
        session::{Durability, Receipt, SendError, Session},
    },
};

/// Alice dials, Bob accepts.
const ALICE: u8 = 1;
const BOB: u8 = 2;

struct World {
    network: Arc<Network>,
    alice: Endpoint,
    bob: Endpoint,
    start: Instant,
}

impl World {
    fn new() -> Self {
        let network = Network::new();
        let (alice, bob) = (network.node(ALICE), network.node(BOB));
        Self { network, alice, bob, start: Instant::now() }
    }

    /// Bob lets in the next caller; gives the outcome and when it was known.
    fn bob_accepts(&self, caller: Caller) -> JoinHandle<(Result<Link, LinkError>, u128)> {
        let (bob, start) = (self.bob.clone(), self.start);
        tokio::spawn(async move {
            let arrival = bob.arrival().await.unwrap();
            let link = Link::accept(&bob, arrival, caller).await;
            (link, start.elapsed().as_millis())
        })
    }

    async fn alice_dials(&self, dial: Dial) -> (Result<Link, LinkError>, u128) {
        let link = Link::dial(&self.alice, dial).await;
        (link, self.start.elapsed().as_millis())
    }

    /// A link between the two, as it is at both.
    async fn link(&self) -> (Link, Link) {
        let accepting = self.bob_accepts(anyone());
        let (alice, _) = self.alice_dials(dial(BOB, &[])).await;
        let (bob, _) = accepting.await.unwrap();
        (alice.unwrap(), bob.unwrap())
    }

    /// Two peers whose sessions go over one link.
    async fn linked() -> (Self, Talk, Talk) {
        let world = Self::new();
        let (alice, bob) = world.link().await;
        let talks = (Talk::new(alice, &world.alice), Talk::new(bob, &world.bob));
        (world, talks.0, talks.1)
    }
}

/// One end of a link, and the session that it carries.
struct Talk {
    link: Link,
    session: Session,
}

impl Talk {
    fn new(link: Link, endpoint: &Endpoint) -> Self {
        let session = Session::new(endpoint);
        link.carry(&session).unwrap();
        Self { link, session }
    }

    fn send(&self, message: Message) -> Result<Receipt, SendError> {
        self.session.send(message, Durability::Volatile)
    }

    /// The next message, which counts as delivered at once; or how the link ended, if there is none.
    async fn receive(&self) -> Result<Message, LinkError> {
        tokio::select! {
            biased;
            Some(received) = self.session.receive() => Ok(received.message),
            end = self.link.closed() => Err(end),
        }
    }
}

impl Deref for Talk {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

fn anyone() -> Caller {
    Caller::Unknown(Admission::Anyone)
}

/// To Bob's address, expecting `peer` there.
fn dial(peer: u8, keys: &[Key]) -> Dial {
    Dial {
        address: address(BOB),
        peer: identity(peer).peer_id(),
        initial_rtt: Duration::from_millis(100),
        keys: keys.to_vec(),
        deadline: in_seconds(10),
    }
}

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

fn message(id: impl ToString, size: usize) -> Message {
    let pattern = (0..251_u8).cycle().take(size);
    Message { id: id.to_string(), payload: pattern.collect(), ..Message::default() }
}
