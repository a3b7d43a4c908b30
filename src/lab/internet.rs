//! The handle to a simulated internet: where worlds are built.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, MutexGuard},
    time::Duration,
};

use super::{
    driver::{Shared, State},
    host::Host,
    nat::{Filtering, Nat},
    network::Network,
    oracle::{self, Verdict},
    router::Router,
    topology::Place,
    trace::Trace,
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
        self.parse().unwrap_or_else(|_| panic!("{self:?} is not an IP address"))
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
        Self(Shared::start(Network::new(seed.0)))
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
        self.lock().network.core_delay = Duration::from_millis(delay_ms);
    }

    /// Drops whatever one of these hosts sends to the other, until [`Self::unblock`].
    pub fn block(&self, a: &Host, b: &Host) {
        self.lock().network.block(a.id, b.id);
    }

    /// Ends [`Self::block`].
    pub fn unblock(&self, a: &Host, b: &Host) {
        self.lock().network.unblock(a.id, b.id);
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.now()
    }

    /// Keeps a row for every datagram from now on, for [`Self::trace`].
    pub fn record_trace(&self) {
        self.lock().network.trace.record();
    }

    /// What happened so far.
    pub fn trace(&self) -> Trace {
        self.lock().network.trace.clone()
    }

    /// The same number for the same run, see [`Trace::digest`].
    pub fn digest(&self) -> u64 {
        self.lock().network.trace.digest()
    }

    /// Whether and how a direct path between two hosts can be opened, see [`oracle`].
    pub fn verdict(&self, a: &Host, b: &Host) -> Verdict {
        oracle::verdict(&self.lock().network.topology, a.id, b.id)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    pub(super) fn host_in(&self, place: Place, address: IpAddr) -> Host {
        Host { id: self.lock().network.add_host(place, vec![address]), internet: self.clone() }
    }

    pub(super) fn router_in(&self, place: Place, nat: Nat, public: Vec<IpAddr>) -> Router {
        Router { id: self.lock().network.add_router(place, nat, public), internet: self.clone() }
    }
}
