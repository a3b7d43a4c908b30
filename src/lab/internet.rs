//! The handles that tests hold ([`Internet`], [`Host`], [`Router`]), and the task that lets time pass.
//!
//! All handles and sockets share one [`Network`] behind one lock, which is never held while other code
//! runs. The driver sleeps until the next datagram is due; it ends with the last handle or socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::Waker,
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{
    link::Link,
    nat::{Filtering, Nat},
    network::Network,
    oracle::{self, Verdict},
    socket::LabSocket,
    sockets::{Binding, SocketId},
    topology::{HostId, Node, Place, RouterId},
    trace::{Counters, Trace},
};

/// Decides everything that is left to chance in an [`Internet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

/// What an IP address is written as: text or one of the address types.
///
/// Text that is no address panics: worlds are written by hand.
pub trait Address {
    /// The address.
    fn to_ip(self) -> IpAddr;
}

impl Address for &str {
    fn to_ip(self) -> IpAddr {
        self.parse()
            .unwrap_or_else(|_| panic!("{self:?} is not an IP address"))
    }
}

impl Address for IpAddr {
    fn to_ip(self) -> IpAddr {
        self
    }
}

impl Address for Ipv4Addr {
    fn to_ip(self) -> IpAddr {
        self.into()
    }
}

impl Address for Ipv6Addr {
    fn to_ip(self) -> IpAddr {
        self.into()
    }
}

/// A simulated internet. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Internet(Arc<Shared>);

impl Internet {
    /// An empty internet whose time starts now.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, which runs the task that moves the datagrams.
    pub fn new(seed: Seed) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                network: Network::new(seed.0),
                readers: BTreeMap::new(),
            }),
            earlier: Arc::new(Notify::new()),
            started: clock(),
            driver: OnceLock::new(),
        });
        let driver = tokio::spawn(drive(Arc::downgrade(&shared), Arc::clone(&shared.earlier)));
        let _ = shared.driver.set(driver.abort_handle()); // The cell was empty: it is ours alone.
        Self(shared)
    }

    /// A host on the public internet, with nothing in front of it.
    pub fn host(&self, address: impl Address) -> Host {
        self.host_in(Place::Public, address.to_ip())
    }

    /// A NAT on the public internet. It translates addresses of the family of its public address, and
    /// filters the other family without translating it.
    pub fn router(&self, nat: Nat, public: impl Address) -> Router {
        self.router_in(Place::Public, nat, vec![public.to_ip()])
    }

    /// A router on the public internet that translates nothing: what is inside has public addresses.
    pub fn firewall(&self, filtering: Filtering) -> Router {
        self.router_in(Place::Public, Nat::firewall(filtering), Vec::new())
    }

    /// Sets the one-way delay across the public internet, which comes on top of the links' (10 ms if
    /// never set).
    pub fn set_core_delay_ms(&self, delay_ms: u64) {
        self.0.lock().network.core_delay = Duration::from_millis(delay_ms);
    }

    /// Drops whatever one of these hosts sends to the other, until [`Self::unblock`].
    pub fn block(&self, a: &Host, b: &Host) {
        self.0.lock().network.block(a.id, b.id);
    }

    /// Ends [`Self::block`].
    pub fn unblock(&self, a: &Host, b: &Host) {
        self.0.lock().network.unblock(a.id, b.id);
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.now()
    }

    /// Keeps a row for every datagram from now on, for [`Self::trace`].
    pub fn record_trace(&self) {
        self.0.lock().network.trace.record();
    }

    /// What happened so far.
    pub fn trace(&self) -> Trace {
        self.0.lock().network.trace.clone()
    }

    /// The same number for the same run, see [`Trace::digest`].
    pub fn digest(&self) -> u64 {
        self.0.lock().network.trace.digest()
    }

    /// Whether and how a direct path between two hosts can be opened, see [`oracle`].
    pub fn verdict(&self, a: &Host, b: &Host) -> Verdict {
        oracle::verdict(&self.0.lock().network.topology, a.id, b.id)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    fn host_in(&self, place: Place, address: IpAddr) -> Host {
        Host {
            id: self.0.lock().network.add_host(place, vec![address]),
            internet: self.clone(),
        }
    }

    fn router_in(&self, place: Place, nat: Nat, public: Vec<IpAddr>) -> Router {
        Router {
            id: self.0.lock().network.add_router(place, nat, public),
            internet: self.clone(),
        }
    }
}

/// A machine with addresses and sockets.
#[derive(Clone, Debug)]
pub struct Host {
    internet: Internet,
    id: HostId,
}

impl Host {
    /// Its number, as traces show it.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// Adds an address.
    #[must_use]
    pub fn address(self, address: impl Address) -> Self {
        {
            let network = &mut self.internet.0.lock().network;
            let mut addresses = network.topology.addresses(self.id).to_vec();
            addresses.push(address.to_ip());
            let place = network.topology.host_place(self.id);
            network.topology.move_host(self.id, place, addresses);
        }
        self
    }

    /// Sets the one-way delay of its link.
    #[must_use]
    pub fn delay_ms(self, delay_ms: u64) -> Self {
        self.internet
            .0
            .wire(self.node(), |link| link.delay_ms = delay_ms);
        self
    }

    /// Changes its link, now: `host.change_link(|link| link.loss = 0.2)`.
    pub fn change_link(&self, change: impl FnOnce(&mut Link)) {
        self.internet.0.wire(self.node(), change);
    }

    /// Takes its link down: nothing comes in or goes out.
    pub fn unplug(&self) {
        self.internet.0.lock().network.wire(self.node()).up = false;
    }

    /// Puts its link up again.
    pub fn plug_in(&self) {
        self.internet.0.lock().network.wire(self.node()).up = true;
    }

    /// Its addresses, as a program on it would list them.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let state = self.internet.0.lock();
        state.network.topology.addresses(self.id).to_vec()
    }

    /// Gives it another address on the public internet instead of those it has. Its sockets move along,
    /// except those that are bound to one address.
    pub fn move_to_public(&self, address: impl Address) {
        self.move_to_place(Place::Public, address.to_ip());
    }

    /// Moves it behind a router, with one new address.
    pub fn move_behind(&self, router: &Router, address: impl Address) {
        self.move_to_place(Place::Behind(router.id), address.to_ip());
    }

    /// Opens a socket on all its addresses. Port 0 takes the lowest free one from 49152 on.
    ///
    /// # Panics
    ///
    /// When the port is taken.
    pub fn bind(&self, port: u16) -> Arc<LabSocket> {
        self.open(None, port)
    }

    /// Opens a socket on one of its addresses.
    ///
    /// # Panics
    ///
    /// When the port is taken on this address.
    pub fn bind_address(&self, address: impl Address, port: u16) -> Arc<LabSocket> {
        self.open(Some(address.to_ip()), port)
    }

    /// Datagrams sent, received, and what became of those sent.
    pub fn counters(&self) -> Counters {
        self.internet.0.lock().network.counters(self.id)
    }

    /// Every endpoint that it has sent to.
    pub fn destinations(&self) -> BTreeSet<SocketAddr> {
        self.internet.0.lock().network.destinations(self.id)
    }

    /// The endpoints that it has sent to although their addresses are not among those it may know.
    pub fn strangers(&self, known: &BTreeSet<IpAddr>) -> BTreeSet<SocketAddr> {
        let mut destinations = self.destinations();
        destinations.retain(|destination| !known.contains(&destination.ip()));
        destinations
    }

    fn open(&self, address: Option<IpAddr>, port: u16) -> Arc<LabSocket> {
        let socket = self.internet.0.lock().network.sockets.bind(Binding {
            host: self.id,
            address,
            port,
        });
        Arc::new(LabSocket::new(self.internet.clone(), socket))
    }

    fn move_to_place(&self, place: Place, address: IpAddr) {
        let network = &mut self.internet.0.lock().network;
        network.topology.move_host(self.id, place, vec![address]);
    }

    const fn node(&self) -> Node {
        Node::Host(self.id)
    }
}

/// A router with a network inside: a NAT, a firewall, or both.
#[derive(Clone, Debug)]
pub struct Router {
    internet: Internet,
    id: RouterId,
}

impl Router {
    /// A host inside.
    pub fn host(&self, address: impl Address) -> Host {
        self.internet.host_in(self.inside(), address.to_ip())
    }

    /// A NAT inside, whose public address is one of this router's inside addresses: a home behind a
    /// carrier's NAT, a flat behind a house's.
    pub fn router(&self, nat: Nat, public: impl Address) -> Self {
        self.internet
            .router_in(self.inside(), nat, vec![public.to_ip()])
    }

    /// Adds a public address. Inside addresses are spread over those of their family, and each keeps to
    /// one.
    #[must_use]
    pub fn public(self, address: impl Address) -> Self {
        {
            let network = &mut self.internet.0.lock().network;
            let mut public = network.topology.public(self.id).to_vec();
            public.push(address.to_ip());
            network.set_public(self.id, public);
        }
        self
    }

    /// Sets the one-way delay of its link to the outside.
    #[must_use]
    pub fn delay_ms(self, delay_ms: u64) -> Self {
        self.internet
            .0
            .wire(self.node(), |link| link.delay_ms = delay_ms);
        self
    }

    /// Changes its link to the outside, now: `home.change_link(|link| link.loss = 0.2)`.
    pub fn change_link(&self, change: impl FnOnce(&mut Link)) {
        self.internet.0.wire(self.node(), change);
    }

    /// Takes its link down: the networks inside and outside are cut apart.
    pub fn unplug(&self) {
        self.internet.0.lock().network.wire(self.node()).up = false;
    }

    /// Puts its link up again.
    pub fn plug_in(&self) {
        self.internet.0.lock().network.wire(self.node()).up = true;
    }

    /// Makes it forget all its mappings, as a restart does. New ones get other ports than those that
    /// were open.
    pub fn forget_mappings(&self) {
        let network = &mut self.internet.0.lock().network;
        network.nat_box(self.id).forget_mappings();
    }

    /// Gives it another public address instead of those it has, and with that new mappings.
    pub fn change_public_address(&self, address: impl Address) {
        let network = &mut self.internet.0.lock().network;
        network.set_public(self.id, vec![address.to_ip()]);
    }

    const fn inside(&self) -> Place {
        Place::Behind(self.id)
    }

    const fn node(&self) -> Node {
        Node::Router(self.id)
    }
}

/// What handles, sockets and the driver share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Tells the driver that something is due earlier than it thought.
    earlier: Arc<Notify>,
    started: Instant,
    driver: OnceLock<AbortHandle>,
}

/// What the lock protects.
#[derive(Debug)]
pub(super) struct State {
    pub(super) network: Network,
    /// Tasks that wait for a datagram.
    pub(super) readers: BTreeMap<SocketId, Vec<Waker>>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        clock().duration_since(self.started)
    }

    /// Does something that may put datagrams on their way, and tells the driver.
    pub(super) fn send(&self, deed: impl FnOnce(&mut Network, Duration)) {
        let now = self.now();
        let mut state = self.lock();
        let before = state.network.poll_timeout();
        deed(&mut state.network, now);
        let after = state.network.poll_timeout();
        drop(state);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.earlier.notify_one();
        }
    }

    fn wire(&self, node: Node, change: impl FnOnce(&mut Link)) {
        change(&mut self.lock().network.wire(node).link);
    }

    /// Moves what is due and wakes who got something. Returns when to come back.
    fn step(&self) -> Option<Instant> {
        let now = self.now();
        let mut wake = Vec::new();
        let mut state = self.lock();
        state.network.handle_timeout(now);
        while let Some(socket) = state.network.sockets.poll_readable() {
            wake.extend(state.readers.remove(&socket).unwrap_or_default());
        }
        let next = state.network.poll_timeout();
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        next.map(|at| self.started + at)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
    }
}

/// Moves datagrams when they are due, until the internet is gone.
async fn drive(shared: Weak<Shared>, earlier: Arc<Notify>) {
    loop {
        let Some(next) = shared.upgrade().map(|shared| shared.step()) else {
            return;
        };
        match next {
            None => earlier.notified().await,
            Some(at) => tokio::select! {
                biased;
                () = earlier.notified() => {}
                () = sleep_until(at) => {}
            },
        }
    }
}

/// The only place where the lab reads a clock.
fn clock() -> Instant {
    Instant::now()
}
