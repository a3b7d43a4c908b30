//! The handle to one simulated router.

use std::net::IpAddr;

use super::{
    host::Host,
    internet::{Address, Internet},
    link::Link,
    nat::Nat,
    topology::{Node, Place, RouterId},
};

/// A router with a network inside: a NAT, a firewall, or both.
#[derive(Clone, Debug)]
pub struct Router {
    pub(super) internet: Internet,
    pub(super) id: RouterId,
}

impl Router {
    /// A host inside.
    pub fn host(&self, address: impl Address) -> Host {
        self.internet.host_in(self.inside(), address.to_ip())
    }

    /// A NAT inside, whose public address is one of this router's inside addresses: a home behind a
    /// carrier's NAT, a flat behind a house's.
    pub fn router(&self, nat: Nat, public: impl Address) -> Self {
        self.internet.router_in(self.inside(), nat, vec![public.to_ip()])
    }

    /// Adds a public address. Inside addresses are spread over those of their family, and each keeps to
    /// one.
    #[must_use]
    pub fn public(self, address: impl Address) -> Self {
        let mut public = self.public_addresses();
        public.push(address.to_ip());
        self.internet.lock().network.set_public(self.id, public);
        self
    }

    /// Its public addresses; none if it is only a firewall.
    pub fn public_addresses(&self) -> Vec<IpAddr> {
        let state = self.internet.lock();
        state.network.topology.public(self.id).to_vec()
    }

    /// Sets the one-way delay of its link to the outside.
    #[must_use]
    pub fn delay_ms(self, delay_ms: u64) -> Self {
        self.internet.shared().change_link(self.node(), |link| link.delay_ms = delay_ms);
        self
    }

    /// Changes its link to the outside, now: `home.change_link(|link| link.loss = 0.2)`.
    pub fn change_link(&self, change: impl FnOnce(&mut Link)) {
        self.internet.shared().change_link(self.node(), change);
    }

    /// Takes its link down: the networks inside and outside are cut apart.
    pub fn unplug(&self) {
        self.internet.lock().network.wire(self.node()).up = false;
    }

    /// Puts its link up again.
    pub fn plug_in(&self) {
        self.internet.lock().network.wire(self.node()).up = true;
    }

    /// Makes it forget all its mappings, as a restart does. New ones get other ports than those that
    /// were open.
    pub fn forget_mappings(&self) {
        let network = &mut self.internet.lock().network;
        network.nat_box(self.id).forget_mappings();
    }

    /// Gives it another public address instead of those it has, and with that new mappings.
    pub fn change_public_address(&self, address: impl Address) {
        let public = vec![address.to_ip()];
        self.internet.lock().network.set_public(self.id, public);
    }

    const fn inside(&self) -> Place {
        Place::Behind(self.id)
    }

    const fn node(&self) -> Node {
        Node::Router(self.id)
    }
}
