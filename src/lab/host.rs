//! The handle to one simulated machine.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    internet::{Address, Internet},
    link::Link,
    router::Router,
    socket::LabSocket,
    sockets::Binding,
    topology::{HostId, Node, Place},
    trace::Counters,
};

/// A machine with addresses and sockets.
#[derive(Clone, Debug)]
pub struct Host {
    pub(super) internet: Internet,
    pub(super) id: HostId,
}

impl Host {
    /// The internet that it is part of.
    pub fn internet(&self) -> &Internet {
        &self.internet
    }

    /// Its number, as traces show it.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// Adds an address.
    #[must_use]
    pub fn address(self, address: impl Address) -> Self {
        let mut addresses = self.addresses();
        addresses.push(address.to_ip());
        let place = self.internet.lock().network.topology.host_place(self.id);
        self.move_to(place, addresses);
        self
    }

    /// Sets the one-way delay of its link.
    #[must_use]
    pub fn delay_ms(self, delay_ms: u64) -> Self {
        self.internet.shared().change_link(self.node(), |link| link.delay_ms = delay_ms);
        self
    }

    /// Changes its link, now: `host.change_link(|link| link.loss = 0.2)`.
    pub fn change_link(&self, change: impl FnOnce(&mut Link)) {
        self.internet.shared().change_link(self.node(), change);
    }

    /// Takes its link down: nothing comes in or goes out.
    pub fn unplug(&self) {
        self.internet.lock().network.wire(self.node()).up = false;
    }

    /// Puts its link up again.
    pub fn plug_in(&self) {
        self.internet.lock().network.wire(self.node()).up = true;
    }

    /// Its addresses, as a program on it would list them.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let state = self.internet.lock();
        state.network.topology.addresses(self.id).to_vec()
    }

    /// Gives it another address on the public internet instead of those it has. Its sockets move along,
    /// except those that are bound to one address.
    pub fn move_to_public(&self, address: impl Address) {
        self.move_to(Place::Public, vec![address.to_ip()]);
    }

    /// Moves it behind a router, with one new address.
    pub fn move_behind(&self, router: &Router, address: impl Address) {
        self.move_to(Place::Behind(router.id), vec![address.to_ip()]);
    }

    /// Opens a socket on all its addresses. Port 0 takes the next free one from 49152 on: one that was closed
    /// comes again when all others had their turn.
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
        self.internet.lock().network.counters(self.id)
    }

    /// Every endpoint that it has sent to.
    pub fn destinations(&self) -> BTreeSet<SocketAddr> {
        self.internet.lock().network.destinations(self.id)
    }

    /// The endpoints that it has sent to although their addresses are not among those it may know.
    pub fn strangers(&self, known: &BTreeSet<IpAddr>) -> BTreeSet<SocketAddr> {
        let mut destinations = self.destinations();
        destinations.retain(|destination| !known.contains(&destination.ip()));
        destinations
    }

    fn open(&self, address: Option<IpAddr>, port: u16) -> Arc<LabSocket> {
        let socket =
            self.internet.lock().network.sockets.bind(Binding { host: self.id, address, port });
        Arc::new(LabSocket::new(self.internet.clone(), socket))
    }

    fn move_to(&self, place: Place, addresses: Vec<IpAddr>) {
        let topology = &mut self.internet.lock().network.topology;
        topology.move_host(self.id, place, addresses);
    }

    const fn node(&self) -> Node {
        Node::Host(self.id)
    }
}
