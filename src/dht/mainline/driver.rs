//! The task behind [`super::Mainline`]: owns the socket and the [`Courier`], runs lookups, and
//! hands everybody what they wait for.

use std::{
    collections::BTreeMap,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use futures_lite::StreamExt;
use mainline::{Id, MutableItem};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    select,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, trace};

use super::{
    Board, ITEMS_MAX,
    keeper::{CurrentDht, Reason},
};
use crate::{
    candidate::is_unicast,
    dht::{
        courier::{
            Courier, Output, PutId,
            krpc::{Contact, DATAGRAM_SIZE_MAX},
            polling::WatchId,
        },
        item::{Item, VALUE_SIZE_MAX},
        location::{Location, Purpose, Target},
        rendezvous::{LookupEnd, Pace, PutError, Stored},
    },
    entropy::Entropy,
};

/// How long a lookup waits for a node to be built: names are being resolved.
const DHT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a whole lookup may take.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(8);

/// Lookups in a row that nobody answers before a new node is built.
const UNANSWERED_MAX: u32 = 3;

/// Lookups and puts at once: those of some ten dials; each costs tens of datagrams.
const LOOKUPS_MAX: usize = 64;
/// See [`LOOKUPS_MAX`].
const PUTS_MAX: usize = 64;

/// Between two counts of the nodes that answer.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

/// Targets whose newest item is noted; more are forgotten at once.
const NOTES_MAX: usize = 256;

/// What is asked of the driver.
#[derive(Debug)]
pub(in crate::dht) enum Command {
    /// Look for items.
    Get { id: u64, location: Location, items: mpsc::Sender<Item>, end: oneshot::Sender<LookupEnd> },
    /// Store an item.
    Put { item: Item, cas: Option<i64>, end: oneshot::Sender<Result<Stored, PutError>> },
    /// Find the nodes near a location.
    Prepare(Location),
    /// Poll locations until nobody listens.
    Watch { id: WatchId, locations: Vec<Location>, items: mpsc::Sender<(Location, Item)> },
    /// Look at what is watched this often.
    SetPace(Pace),
    /// Start anew.
    NetworkChanged,
}

/// See the module.
pub(in crate::dht) struct Driver {
    bind: Ipv4Addr,
    socket: UdpSocket,
    courier: Courier,
    board: Arc<Board>,
    lookups: JoinSet<LookupResult>,
    found: (mpsc::Sender<Item>, mpsc::Receiver<Item>),
    seekers: BTreeMap<u64, Seeker>,
    watchers: BTreeMap<WatchId, mpsc::Sender<(Location, Item)>>,
    putters: BTreeMap<PutId, oneshot::Sender<Result<Stored, PutError>>>,
    last_put: u64,
    unanswered: u32,
    next_count: std::time::Instant,
}

/// Somebody who waits for a lookup.
struct Seeker {
    target: Target,
    items: mpsc::Sender<Item>,
    end: oneshot::Sender<LookupEnd>,
    told: Vec<Item>,
}

struct LookupResult {
    /// Who started it, if it was not the courier.
    seeker: Option<u64>,
    target: Target,
    answered: usize,
    nodes: Neighbours,
}

/// The closest nodes of a target that answered, with their leave to write.
type Neighbours = Vec<(Contact, Option<Vec<u8>>)>;

/// A UDP socket on a free port of `bind`.
pub(in crate::dht) fn open_socket(bind: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((bind, 0)).into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

impl Driver {
    /// A driver that runs nothing yet.
    pub(in crate::dht) fn new(
        bind: Ipv4Addr,
        socket: UdpSocket,
        entropy: Entropy,
        board: Arc<Board>,
    ) -> Self {
        Self {
            bind,
            socket,
            courier: Courier::new(entropy, Instant::now().into_std()),
            board,
            lookups: JoinSet::new(),
            found: mpsc::channel(ITEMS_MAX),
            seekers: BTreeMap::new(),
            watchers: BTreeMap::new(),
            putters: BTreeMap::new(),
            last_put: 0,
            unanswered: 0,
            next_count: now(),
        }
    }

    /// Runs until nobody can command it any more.
    pub(in crate::dht) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        dht: CurrentDht,
        rebuild: mpsc::Sender<Reason>,
    ) {
        let mut buffer = [0; DATAGRAM_SIZE_MAX + 1];
        loop {
            self.drain(&dht);
            let timeout = self.courier.poll_timeout();
            let timer = async {
                match timeout {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            // The socket comes last, so that a flood of datagrams holds up nothing that is due.
            select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command, &dht),
                    None => return,
                },
                () = timer => self.courier.handle_timeout(now()),
                Some(ended) = self.lookups.join_next() => {
                    // A lookup that panicked is one that never ends, which the courier allows for.
                    if let Ok(result) = ended {
                        self.handle_lookup_end(result, &rebuild, &dht);
                    }
                }
                Some(item) = self.found.1.recv() => {
                    self.courier.handle_item(item, now());
                }
                received = self.socket.recv_from(&mut buffer) => {
                    self.handle_received(received, &buffer);
                }
            }
        }
    }

    fn handle_command(&mut self, command: Command, dht: &CurrentDht) {
        match command {
            Command::Get { id, location, items, end } => {
                self.courier.handle_get(location, now());
                let seeker = Seeker { target: location.target, items, end, told: Vec::new() };
                self.seekers.insert(id, seeker);
                self.look_up(location, Some(id), dht);
            }
            Command::Put { item, cas, end } => {
                if self.putters.len() >= PUTS_MAX {
                    // The one who asked may have gone.
                    let _ = end.send(Err(PutError::Timeout));
                    return;
                }
                self.last_put += 1;
                let id = PutId(self.last_put);
                self.putters.insert(id, end);
                let location = Location::new(*item.public_key(), Purpose::Record);
                self.courier.handle_put(id, location, item, cas, now());
            }
            Command::Prepare(location) => self.courier.handle_prepare(location, now()),
            Command::Watch { id, locations, items } => {
                self.watchers.insert(id, items);
                self.courier.handle_watch(id, locations, now());
            }
            Command::SetPace(pace) => self.courier.set_pace(pace, now()),
            Command::NetworkChanged => {
                match open_socket(self.bind) {
                    Ok(socket) => self.socket = socket,
                    Err(error) => debug!(%error, "the old socket is kept"),
                }
                self.courier.handle_network_change(now());
            }
        }
    }

    fn handle_received(&mut self, received: io::Result<(usize, SocketAddr)>, buffer: &[u8]) {
        match received {
            Ok((size, SocketAddr::V4(from))) => {
                let datagram = buffer.get(..size).unwrap_or_default();
                self.courier.handle_datagram(from, datagram, now());
            }
            Ok((_, SocketAddr::V6(_))) => {}
            // Some systems report an earlier datagram's fate here; who is silent is found out anyway.
            Err(error) => trace!(%error, "receiving failed"),
        }
    }

    fn handle_lookup_end(
        &mut self,
        result: LookupResult,
        rebuild: &mpsc::Sender<Reason>,
        dht: &CurrentDht,
    ) {
        let LookupResult { seeker, target, answered, nodes } = result;
        debug!(%target, answered, writable = nodes.len(), "lookup ended");
        self.unanswered = if answered == 0 { self.unanswered + 1 } else { 0 };
        if self.unanswered >= UNANSWERED_MAX {
            self.unanswered = 0;
            // If it is full, a rebuild is coming anyway.
            let _ = rebuild.try_send(Reason::Unanswered);
        }
        // What the lookup found was sent before it ended.
        while let Ok(item) = self.found.1.try_recv() {
            self.courier.handle_item(item, now());
        }
        self.courier.handle_neighbours(target, nodes, now());
        // Whoever waits gets all items before it is told of the end.
        self.drain(dht);
        if let Some(seeker) = seeker.and_then(|id| self.seekers.remove(&id)) {
            // The one who asked may have gone.
            let _ = seeker.end.send(LookupEnd { answered });
        }
    }

    /// Does what the courier decided.
    fn drain(&mut self, dht: &CurrentDht) {
        for location in self.deliver() {
            self.look_up(location, None, dht);
        }
        self.watchers.retain(|id, watcher| {
            let listening = !watcher.is_closed();
            if !listening {
                self.courier.handle_unwatch(*id);
            }
            listening
        });
        self.seekers.retain(|_, seeker| !seeker.items.is_closed() || !seeker.end.is_closed());
        // Counting nodes is too much work for every datagram.
        if now() >= self.next_count {
            self.next_count = now() + COUNT_INTERVAL;
            let seen_at = self.courier.seen_at().collect();
            let mut notes = self.board.lock();
            notes.health = self.courier.health(now());
            notes.seen_at = seen_at;
        }
        let mut notes = self.board.lock();
        notes.health.counters = self.courier.counters();
        notes.last_answer = self.courier.last_answer();
    }

    /// Sends and hands over what the courier put out; returns the lookups that it wants.
    fn deliver(&mut self) -> Vec<Location> {
        let mut lookups = Vec::new();
        while let Some(output) = self.courier.poll_output() {
            match output {
                Output::Send { to, datagram } => self.send(to, &datagram),
                Output::LookUp(location) => lookups.push(location),
                Output::Found(item) => self.tell_seekers(&item),
                Output::Noticed(id, location, item) => {
                    if let Some(watcher) = self.watchers.get(&id) {
                        // A watcher that lets items pile up loses the newest; diallers offer again.
                        let _ = watcher.try_send((location, item));
                    }
                }
                Output::PutEnded(id, result) => {
                    if let Some(putter) = self.putters.remove(&id) {
                        // The one who asked may have gone.
                        let _ = putter.send(result);
                    }
                }
            }
        }
        lookups
    }

    fn send(&self, to: SocketAddrV4, datagram: &[u8]) {
        if !is_unicast(SocketAddr::V4(to)) {
            return;
        }
        trace!(%to, size = datagram.len(), "sent");
        // A datagram that cannot be sent is a datagram lost: its answer does not come.
        let _ = self.socket.try_send_to(datagram, SocketAddr::V4(to));
    }

    fn tell_seekers(&mut self, item: &Item) {
        let mut notes = self.board.lock();
        let newer = notes.newest.get(&item.target()).is_none_or(|old| old.seq() <= item.seq());
        if newer {
            notes.newest.insert(item.target(), item.clone());
        }
        if notes.newest.len() > NOTES_MAX {
            notes.newest.retain(|target, _| self.courier.newest(*target).is_some());
        }
        drop(notes);
        let interested = self.seekers.values_mut().filter(|seeker| seeker.target == item.target());
        for seeker in interested {
            if seeker.told.len() < ITEMS_MAX && !seeker.told.contains(item) {
                seeker.told.push(item.clone());
                // There is room for as many as are told.
                let _ = seeker.items.try_send(item.clone());
            }
        }
    }

    fn look_up(&mut self, location: Location, seeker: Option<u64>, dht: &CurrentDht) {
        if self.lookups.len() >= LOOKUPS_MAX {
            debug!(target = %location.target, "too many lookups at once");
            self.courier.handle_neighbours(location.target, Vec::new(), now());
            // Its end is dropped, which reads as "nobody answered".
            seeker.map(|id| self.seekers.remove(&id));
            return;
        }
        let (dht, found) = (dht.clone(), self.found.0.clone());
        self.lookups.spawn(async move {
            let target = location.target;
            let lookup = timeout(LOOKUP_TIME_MAX, look_up(dht, location, found));
            let (answered, nodes) = lookup.await.unwrap_or_default();
            LookupResult { seeker, target, answered, nodes }
        });
    }
}

/// A lookup of mainline's: sends what is found at once, returns how many nodes answered and the closest
/// ones.
async fn look_up(
    mut dht: CurrentDht,
    location: Location,
    found: mpsc::Sender<Item>,
) -> (usize, Neighbours) {
    let dht = match timeout(DHT_TIME_MAX, dht.wait_for(Option::is_some)).await {
        Ok(Ok(current)) => current.clone(),
        Ok(Err(_)) | Err(_) => None,
    };
    let Some(dht) = dht else {
        return (0, Vec::new());
    };
    let mut values = dht.get_mutable_detailed(&location.public_key, None, None);
    let hand_over = async {
        while let Some(value) = values.items.next().await {
            if let Some(item) = to_item(&value) {
                // It is received as long as the driver, which owns this task, is there.
                let _ = found.send(item).await;
            }
        }
        values.outcome.recv().await
    };
    // The same query on the wire: mainline joins queries of one target.
    let (outcome, closest) =
        tokio::join!(hand_over, dht.get_closest_nodes(Id::from(location.target.0)));
    let nodes = closest.iter().map(|node| {
        let contact = Contact { id: *node.id().as_bytes(), address: node.address() };
        (contact, node.token().map(Vec::from))
    });
    (usize::try_from(outcome.responded()).unwrap_or(usize::MAX), nodes.collect())
}

fn to_item(value: &MutableItem) -> Option<Item> {
    if value.value().len() > VALUE_SIZE_MAX {
        return None;
    }
    Item::verified(*value.key(), value.seq(), value.value().to_vec(), *value.signature())
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
