//! What the rest of the program asks of a DHT: to find, store and watch signed items.
//!
//! [`super::mainline::Mainline`] does it on the BitTorrent DHT, [`super::memory::MemoryDht`] in virtual
//! time. Both are used as `Arc<dyn Rendezvous>`.

use std::{fmt, net::SocketAddrV4, time::Duration};

use futures_lite::future::Boxed;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    item::Item,
    location::{Location, Target},
};

/// A place to leave and find signed items. Everything it starts ends when it is dropped.
pub trait Rendezvous: Send + Sync + fmt::Debug + 'static {
    /// Looks for the items at `at` and hands them over as nodes return them, the first at once.
    fn get(&self, at: Location) -> Lookup;

    /// Stores `item`; with `cas` only where the item that it replaces has exactly that number, or where
    /// there is none ([`ABSENT`] says that there must be none).
    ///
    /// The future does the work: dropping it may stop what was not sent yet.
    fn put(&self, item: Item, cas: Option<i64>) -> Boxed<Result<Stored, PutError>>;

    /// Finds the nodes near `at` and asks them for leave to write, so that a put within the next
    /// minutes takes one round trip.
    fn prepare(&self, at: Location);

    /// Hands over what is put at any of `at` from now on, and what lies there already, until it is
    /// dropped. All watches share one budget of datagrams.
    fn watch(&self, at: Vec<Location>) -> Watch;

    /// Looks at what is watched as often as `pace` says from now on.
    fn set_pace(&self, pace: Pace);

    /// The newest item known to lie at `at`, without asking anybody: what a dialler looks at before it
    /// chooses a slot.
    fn known(&self, at: Target) -> Option<Item>;

    /// The network was changed: resolves the bootstrap nodes again and starts anew.
    fn network_changed(&self);

    /// How well it works.
    fn health(&self) -> Health;

    /// Where its nodes say that they see us (BEP 42), [`SEEN_MAX`] of them, those that answered last. Any one of them may
    /// lie.
    fn seen_at(&self) -> Vec<SocketAddrV4>;
}

/// More than there are nodes that one keeps in touch with.
pub const SEEN_MAX: usize = 64;

/// How often watched locations are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As often as the budget of datagrams allows: what is watched is the only way to us.
    #[default]
    Close,
    /// An eighth of that: there is a faster way.
    Gentle,
    /// Four times as often, for a moment: a peer that was connected may be leaving word.
    Urgent,
}

impl Pace {
    /// The time between two looks, where it is `close` at [`Pace::Close`].
    pub fn interval(self, close: Duration) -> Duration {
        match self {
            Self::Close => close,
            Self::Gentle => close * 8,
            Self::Urgent => close / 4,
        }
    }
}

/// As `cas`, says that nothing may be stored yet: numbers are Unix milliseconds, so none is zero.
pub const ABSENT: i64 = 0;

/// A lookup under way; dropping it ends it.
#[derive(Debug)]
pub struct Lookup {
    items: mpsc::Receiver<Item>,
    end: oneshot::Receiver<LookupEnd>,
    _task: Option<Task>,
}

/// How a lookup ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupEnd {
    /// Nodes that answered. None at all means that there is no DHT to be reached, rather than no item.
    pub answered: usize,
}

impl Lookup {
    /// A lookup that `task`, if there is one of its own, sends found items to and says how it went.
    pub fn new(
        items: mpsc::Receiver<Item>,
        end: oneshot::Receiver<LookupEnd>,
        task: Option<Task>,
    ) -> Self {
        Self { items, end, _task: task }
    }

    /// The next item, different from those before it but not always newer; `None` at the lookup's end.
    pub async fn next(&mut self) -> Option<Item> {
        self.items.recv().await
    }

    /// Waits for the end and says how the lookup went; items that were not taken are gone.
    pub async fn end(mut self) -> LookupEnd {
        self.items.close();
        self.end.await.unwrap_or_default()
    }

    /// The newest of all items and how the lookup went; waits for the end.
    pub async fn newest(mut self) -> (Option<Item>, LookupEnd) {
        let mut newest: Option<Item> = None;
        while let Some(item) = self.next().await {
            if newest.as_ref().is_none_or(|best| best.seq() < item.seq()) {
                newest = Some(item);
            }
        }
        (newest, self.end().await)
    }
}

/// Locations being watched; dropping it ends that.
#[derive(Debug)]
pub struct Watch {
    items: mpsc::Receiver<(Location, Item)>,
    _task: Option<Task>,
}

impl Watch {
    /// A watch that `task`, if there is one of its own, sends found items to.
    pub fn new(items: mpsc::Receiver<(Location, Item)>, task: Option<Task>) -> Self {
        Self { items, _task: task }
    }

    /// The next item that was not seen before, and where it lay; `None` when the DHT is gone.
    pub async fn next(&mut self) -> Option<(Location, Item)> {
        self.items.recv().await
    }
}

/// Where an item was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Nodes that said they stored it.
    pub nodes: usize,
    /// Nodes that refused because they hold another item than `cas` says.
    pub conflicting: usize,
}

/// Why an item was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PutError {
    /// Its value is larger than [`super::item::VALUE_SIZE_MAX`]; nothing was sent.
    #[error("{0} bytes are more than the DHT stores")]
    TooLarge(usize),
    /// No node near its target is known: there is no DHT to be reached.
    #[error("no node of the DHT answers")]
    NoNodes,
    /// Nodes hold an item with a greater number.
    #[error("a newer item is stored")]
    NotNewer {
        /// Its number, if it is known.
        current: Option<i64>,
    },
    /// Nodes hold another item than `cas` says.
    #[error("another item was stored meanwhile")]
    CasFailed {
        /// Its number, if it is known.
        current: Option<i64>,
    },
    /// The nodes refused it for another reason.
    #[error("refused with error {0}")]
    Refused(i64),
    /// Nodes are known, but none answered in time.
    #[error("no node answered in time")]
    Timeout,
}

/// How well a DHT works, for people and for tests of its thrift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Nodes that ever answered us and are not known to be silent.
    pub nodes_known: usize,
    /// Nodes that answered within the last minute.
    pub nodes_answering: usize,
    /// How long ago the last answer came.
    pub last_answer: Option<Duration>,
    /// Datagrams we sent and received ourselves.
    pub counters: Counters,
}

/// What was sent and received, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Queries sent.
    pub sent: u64,
    /// Datagrams received, whatever they were.
    pub received: u64,
    /// Of these: not KRPC.
    pub malformed: u64,
    /// Of these: no answer to a query of ours.
    pub unexpected: u64,
    /// Of these: with an item that is not signed by the key that was asked for, or is too large.
    pub forged: u64,
    /// Of these: error replies.
    pub errors: u64,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub struct Task(JoinHandle<()>);

impl Task {
    /// Runs `future` until it ends or this is dropped.
    pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
