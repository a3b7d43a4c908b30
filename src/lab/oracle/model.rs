//! The network without time and numbers.
//!
//! Ports are symbols: a mapped port *is* the router, the inside endpoint and the destinations that the
//! mapping serves, so two mappings are the same exactly when the NAT would reuse one. Both sides send to
//! every endpoint of the other that they know: the host addresses, the endpoint that a STUN server
//! elsewhere saw, and every source from which a datagram has come in (*peer-reflexive* learning).
//! Mappings and filter states only ever grow here, so repeating until nothing is new yields every
//! datagram that can ever arrive.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::super::{
    nat::{Filtering, Mapping},
    topology::{HostId, Node, Place, RouterId, Step, Topology},
};

/// An endpoint whose port is a symbol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    address: IpAddr,
    port: Port,
}

impl Endpoint {
    /// Whether it stays the same whatever port its owner sends to.
    fn stands_still(&self) -> bool {
        match &self.port {
            Port::Socket(_) | Port::Server => true,
            Port::Mapped { inside, remotes, .. } => match remotes {
                Remotes::Any | Remotes::Address(_) => inside.stands_still(),
                Remotes::Endpoint(_) => false,
            },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    /// The socket of a host.
    Socket(HostId),
    /// The STUN server's.
    Server,
    /// What a router gave to an inside endpoint towards these remotes.
    Mapped { router: RouterId, inside: Box<Endpoint>, remotes: Remotes },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Remotes {
    Any,
    Address(IpAddr),
    Endpoint(Box<Endpoint>),
}

/// Rounds of probing. Each can reveal one more peer-reflexive endpoint per side and NAT level; crossed
/// paths reveal new ones for ever, and none that matters after the first few.
const ROUNDS: usize = 6;

/// Endpoints of the other that a side probes.
const KNOWN_MAX: usize = 48;

/// The network after both sides have probed whatever they could learn.
pub(super) struct Model<'a> {
    topology: &'a Topology,
    guessed: BTreeSet<RouterId>,
    /// Per router: who has sent through which outside endpoint to which remote.
    sessions: BTreeSet<(RouterId, Endpoint, Endpoint)>,
    known: [(HostId, BTreeSet<Endpoint>); 2],
}

impl<'a> Model<'a> {
    /// Lets `a` and `b` probe until nothing that matters is new. `guessed` are the routers whose next
    /// mapping the other side knows.
    pub(super) fn exhausted(
        topology: &'a Topology,
        a: HostId,
        b: HostId,
        guessed: BTreeSet<RouterId>,
    ) -> Self {
        let mut model = Self {
            topology,
            guessed,
            sessions: BTreeSet::new(),
            known: [(a, BTreeSet::new()), (b, BTreeSet::new())],
        };
        let candidates = [model.candidates(b), model.candidates(a)];
        for ((_, known), candidates) in model.known.iter_mut().zip(candidates) {
            known.extend(candidates);
        }
        for _ in 0..ROUNDS {
            model.probe();
        }
        model
    }

    /// What a host can tell about itself: its own addresses, and what STUN says of each.
    fn candidates(&mut self, host: HostId) -> Vec<Endpoint> {
        let mut candidates = Vec::new();
        for &address in self.topology.addresses(host) {
            candidates.push(Endpoint { address, port: Port::Socket(host) });
        }
        for address in STUN_SERVERS {
            let server = Endpoint { address, port: Port::Server };
            candidates.extend(self.send(host, &server).seen_from);
        }
        candidates
    }

    /// Both sides send to all that they know, and learn where datagrams come from.
    fn probe(&mut self) {
        for (host, targets) in self.known.clone() {
            for target in targets {
                let sent = self.send(host, &target);
                let (Some(to), Some(source)) = (sent.arrived_at, sent.seen_from) else {
                    continue;
                };
                for (learner, known) in &mut self.known {
                    if *learner == to && known.len() < KNOWN_MAX {
                        known.insert(source.clone());
                    }
                }
            }
        }
    }

    /// The endpoints of the other that a side has learned.
    pub(super) fn known_by(&self, host: HostId) -> &BTreeSet<Endpoint> {
        let [(first, of_first), (_, of_second)] = &self.known;
        if *first == host { of_first } else { of_second }
    }

    /// Whether the guesses on a host's own side hold towards `target`.
    ///
    /// A guess says which endpoint the host will have towards the other's. If that depends on the
    /// other's port, the host has to send to it before the other does, so that port must not come
    /// from a mapping that only the other's sending makes.
    pub(super) fn can_foresee(&self, host: HostId, target: &Endpoint) -> bool {
        target.stands_still()
            || !self.topology.routers_above(host).into_iter().any(|router| {
                self.guessed.contains(&router)
                    && self.topology.nat(router).mapping == Mapping::AddressAndPortDependent
            })
    }

    /// The source that a datagram from one side arrives at the other with, in the final state.
    pub(super) fn arrival(&self, from: HostId, target: &Endpoint) -> Option<Endpoint> {
        let mut trial = Self {
            sessions: self.sessions.clone(),
            guessed: self.guessed.clone(),
            known: self.known.clone(),
            topology: self.topology,
        };
        let sent = trial.send(from, target);
        sent.arrived_at
            .filter(|&to| to != from && self.known.iter().any(|(side, _)| *side == to))
            .and(sent.seen_from)
    }

    fn send(&mut self, from: HostId, target: &Endpoint) -> Sent {
        let mut sent = Sent::default();
        let Some(address) = self.topology.source(from, target.address) else {
            return sent;
        };
        let mut source = Endpoint { address, port: Port::Socket(from) };
        let mut place = self.topology.host_place(from);
        loop {
            match self.topology.step(place, target.address) {
                Step::To(node) => {
                    sent.arrived_at = self.descend(node, &source, target);
                    break;
                }
                Step::Hairpin(router) => {
                    if self.topology.nat(router).hairpin {
                        source = self.translate(router, source, target);
                        sent.arrived_at = self.descend(Node::Router(router), &source, target);
                    }
                    break;
                }
                Step::Out(router) => {
                    source = self.translate(router, source, target);
                    place = self.topology.router_place(router);
                }
                Step::Nowhere => break,
            }
        }
        sent.seen_from = Some(source);
        sent
    }

    /// Sends a datagram out through a router.
    fn translate(&mut self, router: RouterId, inside: Endpoint, remote: &Endpoint) -> Endpoint {
        let outside = match self.topology.translation(router, inside.address) {
            None => inside,
            Some(address) => {
                let mapping = if self.guessed.contains(&router) {
                    Mapping::EndpointIndependent
                } else {
                    self.topology.nat(router).mapping
                };
                let remotes = match mapping {
                    Mapping::EndpointIndependent => Remotes::Any,
                    Mapping::AddressDependent => Remotes::Address(remote.address),
                    Mapping::AddressAndPortDependent => Remotes::Endpoint(Box::new(remote.clone())),
                };
                Endpoint {
                    address,
                    port: Port::Mapped { router, inside: Box::new(inside), remotes },
                }
            }
        };
        self.sessions.insert((router, outside.clone(), remote.clone()));
        outside
    }

    /// Follows a datagram inwards, to the host that gets it.
    fn descend(&self, mut node: Node, source: &Endpoint, target: &Endpoint) -> Option<HostId> {
        let mut target = target.clone();
        loop {
            match node {
                Node::Host(host) => return (target.port == Port::Socket(host)).then_some(host),
                Node::Router(router) => {
                    if !self.passes(router, source, &target) {
                        return None;
                    }
                    if self.topology.public(router).contains(&target.address) {
                        target = match target.port {
                            Port::Mapped { router: by, inside, .. } if by == router => *inside,
                            Port::Mapped { .. } | Port::Socket(_) | Port::Server => return None,
                        };
                    }
                    node = self.topology.neighbour(Place::Behind(router), target.address)?;
                }
            }
        }
    }

    fn passes(&self, router: RouterId, source: &Endpoint, target: &Endpoint) -> bool {
        let translated = self.topology.public(router).contains(&target.address);
        let filtering = self.topology.nat(router).filtering;
        if !translated && filtering == Filtering::EndpointIndependent {
            return true;
        }
        self.sessions.iter().filter(|(at, outside, _)| *at == router && outside == target).any(
            |(_, _, remote)| match filtering {
                Filtering::EndpointIndependent => true,
                Filtering::AddressDependent => remote.address == source.address,
                Filtering::AddressAndPortDependent => remote == source,
            },
        )
    }
}

/// Where a STUN server would be: addresses that stay nobody's (RFC 7600, RFC 6666).
const STUN_SERVERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)),
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)),
];

/// What became of a datagram.
#[derive(Debug, Default)]
struct Sent {
    arrived_at: Option<HostId>,
    /// Its source after the translations that it met.
    seen_from: Option<Endpoint>,
}
