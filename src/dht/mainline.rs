//! [`Rendezvous`] on the BitTorrent DHT.
//!
//! The `mainline` crate finds nodes and items; [`super::courier`] talks to the nodes that were found, on
//! a socket of its own. Two tasks tie them together: the `driver` owns the socket and the courier, the
//! `keeper` keeps a `mainline` node that knows its bootstrap nodes.
//!
//! Lookups go by `mainline`, because they are Kademlia; puts and polls go directly, because `mainline`
//! sends a put only after a whole lookup has ended, cannot tell one refusal from another, and cannot ask
//! a single node.

mod driver;
mod keeper;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_lite::future::{Boxed, FutureExt};
use mainline::Dht;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use self::driver::Command;
use super::{
    courier::{polling::WatchId, putting::PUT_TIME_MAX},
    item::{Item, VALUE_SIZE_MAX},
    location::{Location, Target},
    rendezvous::{Health, Lookup, Pace, PutError, Rendezvous, Stored, Task, Watch},
};
use crate::entropy::Entropy;

/// How long `mainline` waits for one node.
///
/// A lookup ends only when every node has answered or this has passed, and on the real network some node
/// is always silent; nodes on the other side of the earth answer within 300 ms.
pub const REQUEST_TIMEOUT: Duration = Duration::from_millis(600);

/// How to reach the DHT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Names or addresses of nodes to start from, `host:port`. Nothing is ever added to them.
    pub bootstrap: Vec<String>,
    /// The address to send from; unspecified means all.
    pub bind: Ipv4Addr,
    /// Whether we answer others.
    pub participation: Participation,
}

/// Whether a node answers others' queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Participation {
    /// Only after a quarter of an hour, if it turns out to be reachable; asks others not to keep it in
    /// their tables until then.
    Client,
    /// At once: for nodes that are known to be reachable, and for networks of one's own.
    Server,
}

/// The BitTorrent DHT. Dropping it ends its tasks, its thread and its sockets.
#[derive(Debug)]
pub struct Mainline {
    commands: mpsc::Sender<Command>,
    board: Arc<Board>,
    rebuild: mpsc::Sender<keeper::Reason>,
    last_id: AtomicU64,
    _driver: Task,
    _keeper: Task,
}

/// What may be read without asking anybody.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Notes>);

#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) health: Health,
    pub(super) last_answer: Option<std::time::Instant>,
    pub(super) newest: BTreeMap<Target, Item>,
    pub(super) seen_at: Vec<SocketAddrV4>,
}

impl Mainline {
    /// Starts to reach for the DHT; works as soon as a bootstrap node answers. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When no socket can be opened on the address to bind.
    pub fn start(config: Config, entropy: Entropy) -> io::Result<Self> {
        let (commands, commands_receiver) = mpsc::channel(COMMANDS_MAX);
        let (rebuild, rebuild_receiver) = mpsc::channel(1);
        let (dht_sender, dht) = watch::channel(None);
        let board = Arc::new(Board::default());
        let socket = driver::open_socket(config.bind)?;
        let driver = driver::Driver::new(config.bind, socket, entropy, Arc::clone(&board));
        let driver = driver.run(commands_receiver, dht, rebuild.clone());
        let keeper = keeper::keep(config, dht_sender, rebuild_receiver);
        Ok(Self {
            commands,
            board,
            rebuild,
            last_id: AtomicU64::new(0),
            _driver: Task::spawn(driver),
            _keeper: Task::spawn(keeper),
        })
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands `command` to the driver. If more wait than may, the answer's channel closes with it, and
    /// whoever waits learns that nothing was found or stored.
    fn command(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }
}

impl Rendezvous for Mainline {
    fn get(&self, at: Location) -> Lookup {
        let (items, items_receiver) = mpsc::channel(ITEMS_MAX);
        let (end, end_receiver) = oneshot::channel();
        self.command(Command::Get { id: self.next_id(), location: at, items, end });
        Lookup::new(items_receiver, end_receiver, None)
    }

    fn put(&self, item: Item, cas: Option<i64>) -> Boxed<Result<Stored, PutError>> {
        let commands = self.commands.clone();
        async move {
            if item.value().len() > VALUE_SIZE_MAX {
                return Err(PutError::TooLarge(item.value().len()));
            }
            let (end, end_receiver) = oneshot::channel();
            let command = Command::Put { item, cas, end };
            let answered = async {
                commands.send(command).await.ok()?;
                end_receiver.await.ok()
            };
            let answer = timeout(PUT_TIME_MAX + Duration::from_secs(1), answered).await;
            answer.ok().flatten().unwrap_or(Err(PutError::Timeout))
        }
        .boxed()
    }

    fn prepare(&self, at: Location) {
        self.command(Command::Prepare(at));
    }

    fn watch(&self, at: Vec<Location>) -> Watch {
        let (items, items_receiver) = mpsc::channel(ITEMS_MAX);
        let id = WatchId(self.next_id());
        self.command(Command::Watch { id, locations: at, items });
        Watch::new(items_receiver, None)
    }

    fn known(&self, at: Target) -> Option<Item> {
        self.board.lock().newest.get(&at).cloned()
    }

    fn set_pace(&self, pace: Pace) {
        self.command(Command::SetPace(pace));
    }

    fn network_changed(&self) {
        self.command(Command::NetworkChanged);
        // If it is full, a rebuild is coming anyway.
        let _ = self.rebuild.try_send(keeper::Reason::NetworkChanged);
    }

    fn seen_at(&self) -> Vec<SocketAddrV4> {
        self.board.lock().seen_at.clone()
    }

    fn health(&self) -> Health {
        let now = Instant::now().into_std();
        let notes = self.board.lock();
        Health {
            last_answer: notes.last_answer.map(|at| now.saturating_duration_since(at)),
            ..notes.health
        }
    }
}

impl Board {
    pub(super) fn lock(&self) -> MutexGuard<'_, Notes> {
        // A panic while it was held leaves notes that are still notes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a `mainline` node starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is the first node of its network.
    First,
    /// It asks these; never empty, and never mainline's own list.
    From(Vec<SocketAddrV4>),
}

/// A `mainline` node to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Where it starts from.
    pub start: Start,
    /// The address to bind; unspecified means all.
    pub bind: Ipv4Addr,
    /// The port to bind; 0 means any that is free.
    pub port: u16,
    /// Whether it answers others.
    pub participation: Participation,
}

/// Builds a `mainline` node. It blocks, and it is the only place that builds one: the crate's own
/// defaults reach for public hosts.
///
/// # Errors
/// When no socket can be opened on the address to bind.
///
/// # Panics
/// When `start` is an empty list, which the crate would take for "the first of its network".
#[allow(clippy::disallowed_methods, reason = "the one factory")]
pub fn build(plan: &NodePlan) -> io::Result<Dht> {
    let mut builder = Dht::builder();
    builder.bind_address(plan.bind).port(plan.port).request_timeout(REQUEST_TIMEOUT);
    match &plan.start {
        Start::First => builder.no_bootstrap(),
        Start::From(nodes) => {
            assert!(!nodes.is_empty(), "a node that starts from others names them");
            builder.bootstrap(nodes)
        }
    };
    if plan.participation == Participation::Server {
        builder.server_mode();
    }
    if is_shared_among_nodes(plan.bind) {
        builder.public_ip(plan.bind);
    }
    builder.build()
}

/// BEP 42: `mainline` keeps one node of an address unless their ids fit it, and takes every id for fit on
/// private and loopback addresses. On others (a laboratory's) a node must be told its address.
fn is_shared_among_nodes(bind: Ipv4Addr) -> bool {
    let fits_anyway = bind.is_private() || bind.is_loopback() || bind.is_link_local();
    !bind.is_unspecified() && !fits_anyway
}

/// Commands that may wait for the driver, which takes microseconds for each.
const COMMANDS_MAX: usize = 256;

/// Items that may wait for whoever looks or watches; further ones are dropped.
pub(super) const ITEMS_MAX: usize = 16;
