//! The machine that moves datagrams: over links, through NATs, into receive queues.
//!
//! It has no clock and no sockets of its own. Time is handed in as the time since its start:
//! [`Network::handle_send`] puts a datagram on its way, [`Network::handle_timeout`] moves everything
//! that is due, [`Network::poll_timeout`] says when the next datagram moves. A datagram goes hop by hop,
//! and meets each NAT in the state that the NAT is in when it gets there. Datagrams that are due at the
//! same moment move in the order in which they were sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rand::{RngCore, SeedableRng, rngs::StdRng};

use super::{
    link::{Link, Wire},
    nat::Nat,
    nat_box::NatBox,
    sockets::{Binding, Rejected, SocketId, Sockets},
    topology::{HostId, Node, Place, RouterId, Step, Topology},
    trace::{Counters, Fate, Row, Trace},
};

/// One-way delay across the public internet, unless a test sets another.
const CORE_DELAY: Duration = Duration::from_millis(10);

/// The links of hosts and routers that are attached to the public internet.
const PUBLIC_LINK: Link = Link::with_delay_ms(10);

/// The links inside a router's network.
const LOCAL_LINK: Link = Link::with_delay_ms(1);

/// Routers that a datagram crosses on the public internet, beside those that are simulated: few paths
/// between two homes have fewer.
const CORE_HOPS: u8 = 8;

/// The time to live of datagrams that are sent without another (RFC 1700).
const HOPS_MAX: u8 = 64;

/// The whole simulated internet.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) topology: Topology,
    pub(super) sockets: Sockets,
    pub(super) trace: Trace,
    pub(super) core_delay: Duration,
    boxes: BTreeMap<RouterId, NatBox>,
    wires: BTreeMap<Node, Wire>,
    blocked: BTreeSet<(HostId, HostId)>,
    in_flight: BTreeMap<(Duration, u64), Flight>,
    last_flight: u64,
    counters: BTreeMap<HostId, Counters>,
    destinations: BTreeMap<HostId, BTreeSet<SocketAddr>>,
    rng: StdRng,
}

/// A datagram on its way.
#[derive(Debug)]
struct Flight {
    sender: HostId,
    sent_at: Duration,
    /// As the sender wrote them.
    original: (SocketAddr, SocketAddr),
    /// As they are after the translations so far.
    source: SocketAddr,
    destination: SocketAddr,
    bytes: Vec<u8>,
    /// Routers that it may still cross: its time to live.
    hops_left: u8,
    stage: Stage,
}

/// Where a datagram is when its time comes.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// In a network, looking for its way.
    In(Place),
    /// At the end of the link to a host or a router.
    At(Node),
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            topology: Topology::default(),
            sockets: Sockets::default(),
            trace: Trace::new(),
            core_delay: CORE_DELAY,
            boxes: BTreeMap::new(),
            wires: BTreeMap::new(),
            blocked: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            last_flight: 0,
            counters: BTreeMap::new(),
            destinations: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    pub(super) fn add_host(&mut self, place: Place, addresses: Vec<IpAddr>) -> HostId {
        let host = self.topology.add_host(place, addresses);
        self.add_wire(Node::Host(host), place);
        host
    }

    pub(super) fn add_router(&mut self, place: Place, nat: Nat, public: Vec<IpAddr>) -> RouterId {
        let router = self.topology.add_router(place, nat, public.clone());
        self.add_wire(Node::Router(router), place);
        let rng = StdRng::seed_from_u64(self.rng.next_u64());
        self.boxes.insert(router, NatBox::new(nat, public, rng));
        router
    }

    /// Every link draws from its own stream, so that loss on one does not change the jitter of another.
    fn add_wire(&mut self, node: Node, place: Place) {
        let link = match place {
            Place::Public => PUBLIC_LINK,
            Place::Behind(_) => LOCAL_LINK,
        };
        let rng = StdRng::seed_from_u64(self.rng.next_u64());
        self.wires.insert(node, Wire::new(link, rng));
    }

    pub(super) fn set_public(&mut self, router: RouterId, public: Vec<IpAddr>) {
        self.topology.set_public(router, public.clone());
        self.nat_box(router).set_public(public);
    }

    pub(super) fn nat_box(&mut self, router: RouterId) -> &mut NatBox {
        self.boxes.get_mut(&router).expect("every router has its box, see add_router")
    }

    pub(super) fn wire(&mut self, node: Node) -> &mut Wire {
        self.wires.get_mut(&node).expect("every node has its wire, see add_wire")
    }

    /// Keeps two hosts apart: what one sends does not reach the other, whatever the route.
    pub(super) fn block(&mut self, a: HostId, b: HostId) {
        self.blocked.insert((a.min(b), a.max(b)));
    }

    pub(super) fn unblock(&mut self, a: HostId, b: HostId) {
        self.blocked.remove(&(a.min(b), a.max(b)));
    }

    pub(super) fn counters(&self, host: HostId) -> Counters {
        self.counters.get(&host).cloned().unwrap_or_default()
    }

    /// Every endpoint that the host has sent to.
    pub(super) fn destinations(&self, host: HostId) -> BTreeSet<SocketAddr> {
        self.destinations.get(&host).cloned().unwrap_or_default()
    }

    /// The source that a socket's datagrams to `destination` leave with. `None` if the host has no such
    /// address (any more).
    pub(super) fn source(&self, binding: Binding, destination: IpAddr) -> Option<SocketAddr> {
        let addresses = self.topology.addresses(binding.host);
        let address = match binding.address {
            Some(bound) => Some(bound)
                .filter(|bound| addresses.contains(bound))
                .filter(|bound| bound.is_ipv4() == destination.is_ipv4()),
            None => self.topology.source(binding.host, destination),
        };
        address.map(|address| SocketAddr::new(address, binding.port))
    }

    /// A socket sends a datagram. `from`, if given, overrides the source address that the host would
    /// choose.
    pub(super) fn handle_send(
        &mut self,
        socket: SocketId,
        from: Option<IpAddr>,
        destination: SocketAddr,
        bytes: Vec<u8>,
        now: Duration,
    ) {
        self.handle_send_within(socket, from, destination, (bytes, HOPS_MAX), now);
    }

    /// The same with a time to live of the sender's choice.
    pub(super) fn handle_send_within(
        &mut self,
        socket: SocketId,
        from: Option<IpAddr>,
        destination: SocketAddr,
        (bytes, hops_left): (Vec<u8>, u8),
        now: Duration,
    ) {
        let Some(binding) = self.sockets.binding(socket) else {
            return;
        };
        let host = binding.host;
        self.counters.entry(host).or_default().sent += 1;
        self.destinations.entry(host).or_default().insert(destination);
        let asked = Binding { address: from.or(binding.address), ..binding };
        let source = self.source(asked, destination.ip());
        let unspecified = SocketAddr::new(unspecified_like(destination.ip()), binding.port);
        let flight = Flight {
            sender: host,
            sent_at: now,
            original: (source.unwrap_or(unspecified), destination),
            source: source.unwrap_or(unspecified),
            destination,
            bytes,
            hops_left,
            stage: Stage::In(self.topology.host_place(host)),
        };
        if source.is_none() {
            return self.finish(flight, Fate::NoSource, now);
        }
        self.launch(flight, Node::Host(host), Duration::ZERO, now);
    }

    /// When the next datagram moves.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.in_flight.keys().next().map(|&(at, _)| at)
    }

    /// Moves every datagram that is due, each at its own time even if `now` is later.
    pub(super) fn handle_timeout(&mut self, now: Duration) {
        while let Some(entry) = self.in_flight.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                return;
            }
            let flight = entry.remove();
            self.advance(flight, at);
        }
    }

    /// Moves a datagram until it is on a link again, or at its end.
    fn advance(&mut self, mut flight: Flight, now: Duration) {
        loop {
            flight.stage = match flight.stage {
                Stage::In(place) => match self.leave(&mut flight, place, now) {
                    Ok(Way::Inside(router)) => Stage::In(Place::Behind(router)),
                    Ok(Way::Link { over, to, after }) => {
                        flight.stage = to;
                        return self.launch(flight, over, after, now);
                    }
                    Err(fate) => return self.finish(flight, fate, now),
                },
                Stage::At(Node::Host(host)) => return self.arrive(flight, host, now),
                Stage::At(Node::Router(router)) => match self.enter(&mut flight, router, now) {
                    Ok(node) => {
                        flight.stage = Stage::At(node);
                        return self.launch(flight, node, Duration::ZERO, now);
                    }
                    Err(fate) => return self.finish(flight, fate, now),
                },
            };
        }
    }

    /// Where a datagram goes from a network.
    fn leave(&mut self, flight: &mut Flight, place: Place, now: Duration) -> Result<Way, Fate> {
        match self.topology.step(place, flight.destination.ip()) {
            Step::To(node) if place == Place::Public && self.is_cut_off(flight.sender, node) => {
                Err(Fate::Blocked)
            }
            Step::To(node) => {
                let (after, hops) = match place {
                    Place::Public => (self.core_delay, CORE_HOPS),
                    Place::Behind(_) => (Duration::ZERO, 0),
                };
                flight.cross(hops)?;
                Ok(Way::Link { over: node, to: Stage::At(node), after })
            }
            Step::Hairpin(router) => {
                (flight.source, flight.destination) =
                    self.nat_box(router).handle_hairpin(flight.source, flight.destination, now)?;
                Ok(Way::Inside(router))
            }
            Step::Out(router) => {
                flight.cross(1)?;
                flight.source =
                    self.nat_box(router).handle_outbound(flight.source, flight.destination, now)?;
                Ok(Way::Link {
                    over: Node::Router(router),
                    to: Stage::In(self.topology.router_place(router)),
                    after: Duration::ZERO,
                })
            }
            Step::Nowhere => Err(Fate::NoHost),
        }
    }

    /// Whether `node` is a host that `sender` is kept apart from, or a router in front of it: what is lost on
    /// the way leaves no trace in the routers behind.
    fn is_cut_off(&self, sender: HostId, node: Node) -> bool {
        self.blocked.iter().any(|&(a, b)| {
            let other = if a == sender { b } else { a };
            let is_on_its_way = match node {
                Node::Host(host) => host == other,
                Node::Router(router) => self.topology.routers_above(other).contains(&router),
            };
            (a == sender || b == sender) && is_on_its_way
        })
    }

    /// A datagram from outside at a router: whom it is for inside.
    fn enter(
        &mut self,
        flight: &mut Flight,
        router: RouterId,
        now: Duration,
    ) -> Result<Node, Fate> {
        flight.destination =
            self.nat_box(router).handle_inbound(flight.destination, flight.source, now)?;
        self.topology.neighbour(Place::Behind(router), flight.destination.ip()).ok_or(Fate::NoHost)
    }

    fn arrive(&mut self, mut flight: Flight, host: HostId, now: Duration) {
        let pair = (flight.sender.min(host), flight.sender.max(host));
        if self.blocked.contains(&pair) {
            return self.finish(flight, Fate::Blocked, now);
        }
        let length = flight.bytes.len();
        let bytes = std::mem::take(&mut flight.bytes);
        let fate = match self.sockets.deliver(host, flight.destination, flight.source, bytes) {
            Ok(()) => {
                self.counters.entry(host).or_default().received += 1;
                Fate::Delivered
            }
            Err(Rejected::NoSocket) => Fate::NoSocket,
            Err(Rejected::QueueFull) => Fate::QueueFull,
        };
        self.record(&flight, length, fate, now);
    }

    /// Puts a datagram on the link between a node and what is in front of it.
    fn launch(&mut self, flight: Flight, over: Node, after: Duration, now: Duration) {
        let length = flight.bytes.len();
        match self.wire(over).carry(length, flight.destination.ip()) {
            Ok(delay) => {
                self.last_flight += 1;
                let due = (now + after + delay, self.last_flight);
                self.in_flight.insert(due, flight);
            }
            Err(fate) => self.finish(flight, fate, now),
        }
    }

    fn finish(&mut self, flight: Flight, fate: Fate, now: Duration) {
        self.record(&flight, flight.bytes.len(), fate, now);
    }

    fn record(&mut self, flight: &Flight, length: usize, fate: Fate, now: Duration) {
        let counters = self.counters.entry(flight.sender).or_default();
        *counters.fates.entry(fate).or_default() += 1;
        self.trace.push(Row {
            sent_at: flight.sent_at,
            at: now,
            sender: flight.sender,
            source: flight.original.0,
            seen_from: flight.source,
            destination: flight.original.1,
            length,
            fate,
        });
    }
}

impl Flight {
    /// Crosses `hops` routers, if its time to live allows.
    fn cross(&mut self, hops: u8) -> Result<(), Fate> {
        // The last one that it reaches does not send it on.
        self.hops_left =
            self.hops_left.checked_sub(hops).filter(|left| *left > 0).ok_or(Fate::Expired)?;
        Ok(())
    }
}

/// The next part of a datagram's way.
enum Way {
    /// Back into the network that it came from.
    Inside(RouterId),
    /// Over a node's link, after a delay on the way there.
    Link { over: Node, to: Stage, after: Duration },
}

const fn unspecified_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}
