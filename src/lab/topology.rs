//! Who is where: the public internet, routers in front of networks, hosts inside them, and which way an
//! address lies. A plain description; the network moves datagrams over it and the oracle reasons on it.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{nat::Nat, nat_box::public_address};

/// A host's number, in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(usize);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.0)
    }
}

/// A router's number, in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(usize);

/// A network that hosts and routers are attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The internet itself.
    Public,
    /// The inside of a router.
    Behind(RouterId),
}

/// What is attached to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Host(HostId),
    Router(RouterId),
}

/// Which way a datagram goes from a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To a host or a router attached to this network.
    To(Node),
    /// It wants the public side of the router that it is inside of.
    Hairpin(RouterId),
    /// Out through the router.
    Out(RouterId),
    /// Nobody on the public internet has this address.
    Nowhere,
}

#[derive(Debug)]
struct HostEntry {
    place: Place,
    addresses: Vec<IpAddr>,
}

#[derive(Debug)]
struct RouterEntry {
    place: Place,
    nat: Nat,
    public: Vec<IpAddr>,
}

/// The tree of networks.
#[derive(Debug, Default)]
pub(super) struct Topology {
    hosts: Vec<HostEntry>,
    routers: Vec<RouterEntry>,
    /// In each network: who answers for an address.
    tables: BTreeMap<Place, BTreeMap<IpAddr, Node>>,
}

impl Topology {
    pub(super) fn add_host(&mut self, place: Place, addresses: Vec<IpAddr>) -> HostId {
        let host = HostId(self.hosts.len());
        self.hosts.push(HostEntry { place, addresses });
        self.rebuild();
        host
    }

    /// Adds a router. It translates the families in which it has a public address and routes the
    /// others unchanged.
    pub(super) fn add_router(&mut self, place: Place, nat: Nat, public: Vec<IpAddr>) -> RouterId {
        let router = RouterId(self.routers.len());
        self.routers.push(RouterEntry { place, nat, public });
        self.rebuild();
        router
    }

    /// Moves a host to another network, another address, or both.
    pub(super) fn move_host(&mut self, host: HostId, place: Place, addresses: Vec<IpAddr>) {
        *self.host_mut(host) = HostEntry { place, addresses };
        self.rebuild();
    }

    /// Replaces a router's public addresses.
    pub(super) fn set_public(&mut self, router: RouterId, public: Vec<IpAddr>) {
        self.router_mut(router).public = public;
        self.rebuild();
    }

    pub(super) fn addresses(&self, host: HostId) -> &[IpAddr] {
        &self.host(host).addresses
    }

    pub(super) fn host_place(&self, host: HostId) -> Place {
        self.host(host).place
    }

    pub(super) fn router_place(&self, router: RouterId) -> Place {
        self.router(router).place
    }

    pub(super) fn nat(&self, router: RouterId) -> Nat {
        self.router(router).nat
    }

    pub(super) fn public(&self, router: RouterId) -> &[IpAddr] {
        &self.router(router).public
    }

    /// The public address that the router shows for an inside address, if it translates its family.
    pub(super) fn translation(&self, router: RouterId, inside: IpAddr) -> Option<IpAddr> {
        public_address(self.public(router), inside)
    }

    /// The source address that a host uses towards a destination: its first of that family.
    pub(super) fn source(&self, host: HostId, destination: IpAddr) -> Option<IpAddr> {
        self.addresses(host)
            .iter()
            .copied()
            .find(|address| address.is_ipv4() == destination.is_ipv4())
    }

    /// Which way `destination` lies from `place`.
    pub(super) fn step(&self, place: Place, destination: IpAddr) -> Step {
        if let Some(node) = self.neighbour(place, destination) {
            return Step::To(node);
        }
        match place {
            Place::Public => Step::Nowhere,
            Place::Behind(router) if self.public(router).contains(&destination) => {
                Step::Hairpin(router)
            }
            Place::Behind(router) => Step::Out(router),
        }
    }

    /// Who answers for `address` in `place` itself.
    pub(super) fn neighbour(&self, place: Place, address: IpAddr) -> Option<Node> {
        self.tables.get(&place)?.get(&address).copied()
    }

    /// The routers between a host and the public internet, the nearest first.
    pub(super) fn routers_above(&self, host: HostId) -> Vec<RouterId> {
        let mut routers = Vec::new();
        let mut place = self.host_place(host);
        while let Place::Behind(router) = place {
            routers.push(router);
            place = self.router_place(router);
        }
        routers
    }

    /// Announces every address in its own network, and in the network in front of each router that
    /// passes it on unchanged.
    ///
    /// # Panics
    ///
    /// When two nodes have the same address in one network.
    fn rebuild(&mut self) {
        self.tables.clear();
        for (index, host) in self.hosts.iter().enumerate() {
            for &address in &host.addresses {
                announce(
                    &mut self.tables,
                    &self.routers,
                    (host.place, Node::Host(HostId(index))),
                    address,
                );
            }
        }
        for (index, router) in self.routers.iter().enumerate() {
            for &address in &router.public {
                announce(
                    &mut self.tables,
                    &self.routers,
                    (router.place, Node::Router(RouterId(index))),
                    address,
                );
            }
        }
    }

    fn host(&self, id: HostId) -> &HostEntry {
        self.hosts.get(id.0).expect("ids come from add_host")
    }

    fn host_mut(&mut self, id: HostId) -> &mut HostEntry {
        self.hosts.get_mut(id.0).expect("ids come from add_host")
    }

    fn router(&self, id: RouterId) -> &RouterEntry {
        self.routers.get(id.0).expect("ids come from add_router")
    }

    fn router_mut(&mut self, id: RouterId) -> &mut RouterEntry {
        self.routers.get_mut(id.0).expect("ids come from add_router")
    }
}

fn announce(
    tables: &mut BTreeMap<Place, BTreeMap<IpAddr, Node>>,
    routers: &[RouterEntry],
    (mut place, mut node): (Place, Node),
    address: IpAddr,
) {
    loop {
        let holder = *tables.entry(place).or_default().entry(address).or_insert(node);
        assert!(
            holder == node,
            "{address} is taken by {holder:?} in {place:?}, so {node:?} cannot have it"
        );
        let Place::Behind(id) = place else { return };
        let router = routers.get(id.0).expect("ids come from add_router");
        if public_address(&router.public, address).is_some() {
            return;
        }
        (place, node) = (router.place, Node::Router(id));
    }
}
