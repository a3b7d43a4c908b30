//! Says whether a direct path between two hosts can be opened, and what it takes.
//!
//! The oracle does not know a table of NAT kinds. It plays a tiny model of the network in which time
//! does not pass and ports are symbols: a mapped port *is* the router, the inside endpoint and the
//! destinations that the mapping serves. Both sides send to every endpoint of the other that they know:
//! the host addresses, the endpoint that a STUN server elsewhere saw, and every source from which a
//! datagram has come in (*peer-reflexive* learning). Mappings and filter states only ever grow in this
//! model, so repeating until nothing is new yields every datagram that can ever arrive.
//!
//! A **path** is a pair of endpoints that work together: what A sends to `t` reaches B from `s`, and what
//! B sends to `s` reaches A from `t`. If no path opens, the oracle lets NATs be guessed: a guessed
//! NAT counts as endpoint-independent, since the other side then knows its next mapping; but only towards
//! endpoints that stand still, since nobody sends ahead to an endpoint that arises from what is sent to
//! it. The least guessing that opens a path gives the verdict.
//!
//! The verdict holds for probes that start together, so early datagrams that a NAT would punish
//! (`punishes_early_inbound`) do not count; loss, downed links and blocked pairs do not either.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    nat::{Filtering, Mapping, Nat, Ports},
    topology::{HostId, Node, Place, RouterId, Step, Topology},
};

/// What it takes to open a direct path, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Both sides probe what they know and answer where probes come from.
    Plain,
    /// One has to predict the next mapping of a NAT: exactly where ports are preserved or sequential,
    /// or within a block on one side.
    NeedsPrediction,
    /// Many sockets and many random ports: against a random NAT on one side, or blocks on both.
    NeedsBirthday,
    /// Nothing that is worth its datagrams.
    Impossible,
}

/// What it takes between hosts behind these chains of NATs, each listed from the host outwards; an empty
/// chain is a host on the public internet. The chains share nothing.
///
/// ```
/// use p2p_node::lab::{Nat, Ports, Verdict, oracle};
///
/// let home = [Nat::home()];
/// assert_eq!(oracle::between(&home, &[Nat::home(), Nat::cgnat()]), Verdict::Plain);
/// assert_eq!(
///     oracle::between(&home, &[Nat::symmetric(Ports::Random)]),
///     Verdict::NeedsBirthday
/// );
/// ```
pub fn between(a: &[Nat], b: &[Nat]) -> Verdict {
    let mut topology = Topology::default();
    let a = chain(&mut topology, 1, a);
    let b = chain(&mut topology, 2, b);
    verdict(&topology, a, b)
}

/// Whether datagrams go both ways between such hosts when each side answers to where it was heard from,
/// path or no path.
///
/// Where no [`Verdict::Plain`] path exists this is a *crossed* path: each side is heard, but sends from
/// another endpoint than the one that it can be reached at. Its mappings are not refreshed by the
/// traffic that they carry.
pub fn answers_between(a: &[Nat], b: &[Nat]) -> bool {
    let mut topology = Topology::default();
    let a = chain(&mut topology, 1, a);
    let b = chain(&mut topology, 2, b);
    answers(&topology, a, b)
}

fn chain(topology: &mut Topology, side: u8, nats: &[Nat]) -> HostId {
    let mut place = Place::Public;
    let mut address = [198, 51, 100, side];
    for (level, nat) in (1..=u8::MAX).zip(nats.iter().rev()) {
        let router = topology.add_router(place, *nat, vec![IpAddr::from(address)]);
        place = Place::Behind(router);
        address = [10, side, level, 1];
    }
    topology.add_host(place, vec![IpAddr::from(address)])
}

/// What it takes between two hosts of a network.
pub(super) fn verdict(topology: &Topology, a: HostId, b: HostId) -> Verdict {
    let mut efforts = Vec::new();
    for of_a in Guess::ALL {
        for of_b in Guess::ALL {
            efforts.push((effort(of_a, of_b), of_a, of_b));
        }
    }
    efforts.sort_unstable();
    efforts
        .into_iter()
        .filter(|&(effort, ..)| effort < Verdict::Impossible)
        .find(|&(_, of_a, of_b)| path_opens(topology, (a, of_a), (b, of_b)))
        .map_or(Verdict::Impossible, |(effort, ..)| effort)
}

/// Whether each side can get an answer to one of its probes.
pub(super) fn answers(topology: &Topology, a: HostId, b: HostId) -> bool {
    let model = Model::exhausted(topology, (a, Guess::Nothing), (b, Guess::Nothing));
    let answered = |from: HostId, to: HostId| {
        model.known_by(from).iter().any(|target| {
            model
                .arrival(from, target)
                .is_some_and(|source| model.arrival(to, &source).is_some())
        })
    };
    answered(a, b) && answered(b, a)
}

/// Which of one side's NATs the other side guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Guess {
    Nothing,
    Next,
    InBlock,
    Random,
}

impl Guess {
    const ALL: [Self; 4] = [Self::Nothing, Self::Next, Self::InBlock, Self::Random];

    /// The guess that a NAT's port allocation asks for.
    const fn needed_for(ports: Ports) -> Self {
        match ports {
            Ports::Preserving | Ports::Sequential { .. } => Self::Next,
            Ports::Block { .. } => Self::InBlock,
            Ports::Random => Self::Random,
        }
    }
}

/// A random port is found by a birthday only if the other side stands still: guessing on both sides
/// multiplies the datagrams.
fn effort(of_a: Guess, of_b: Guess) -> Verdict {
    match (of_a.min(of_b), of_a.max(of_b)) {
        (_, Guess::Nothing) => Verdict::Plain,
        (Guess::Nothing, Guess::Random) | (Guess::InBlock, Guess::InBlock) => {
            Verdict::NeedsBirthday
        }
        (_, Guess::Random) => Verdict::Impossible,
        (_, Guess::Next | Guess::InBlock) => Verdict::NeedsPrediction,
    }
}

fn path_opens(topology: &Topology, a: (HostId, Guess), b: (HostId, Guess)) -> bool {
    let model = Model::exhausted(topology, a, b);
    model.known_by(a.0).iter().any(|target| {
        model.arrival(a.0, target).is_some_and(|source| {
            model.arrival(b.0, &source).as_ref() == Some(target)
                && model.can_foresee(a.0, target)
                && model.can_foresee(b.0, &source)
        })
    })
}

/// An endpoint whose port is a symbol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint {
    address: IpAddr,
    port: Port,
}

impl Endpoint {
    /// Whether it stays the same whatever port its owner sends to.
    fn stands_still(&self) -> bool {
        match &self.port {
            Port::Socket(_) | Port::Server => true,
            Port::Mapped {
                inside, remotes, ..
            } => match remotes {
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
    Mapped {
        router: RouterId,
        inside: Box<Endpoint>,
        remotes: Remotes,
    },
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
struct Model<'a> {
    topology: &'a Topology,
    guessed: BTreeSet<RouterId>,
    /// Per router: who has sent through which outside endpoint to which remote.
    sessions: BTreeSet<(RouterId, Endpoint, Endpoint)>,
    known: [(HostId, BTreeSet<Endpoint>); 2],
}

impl<'a> Model<'a> {
    fn exhausted(topology: &'a Topology, a: (HostId, Guess), b: (HostId, Guess)) -> Self {
        let mut guessed = BTreeSet::new();
        for (host, guess) in [a, b] {
            guessed.extend(topology.routers_above(host).into_iter().filter(|&router| {
                guess > Guess::Nothing && Guess::needed_for(topology.nat(router).ports) <= guess
            }));
        }
        let mut model = Self {
            topology,
            guessed,
            sessions: BTreeSet::new(),
            known: [(a.0, BTreeSet::new()), (b.0, BTreeSet::new())],
        };
        let candidates = [model.candidates(b.0), model.candidates(a.0)];
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
            candidates.push(Endpoint {
                address,
                port: Port::Socket(host),
            });
        }
        for address in STUN_SERVERS {
            let server = Endpoint {
                address,
                port: Port::Server,
            };
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

    fn known_by(&self, host: HostId) -> &BTreeSet<Endpoint> {
        let [(first, of_first), (_, of_second)] = &self.known;
        if *first == host { of_first } else { of_second }
    }

    /// Whether the guesses on a host's own side hold towards `target`.
    ///
    /// A guess says which endpoint the host will have towards the other's. If that depends on the
    /// other's port, the host has to send to it before the other does, so that port must not come
    /// from a mapping that only the other's sending makes.
    fn can_foresee(&self, host: HostId, target: &Endpoint) -> bool {
        target.stands_still()
            || !self.topology.routers_above(host).into_iter().any(|router| {
                self.guessed.contains(&router)
                    && self.topology.nat(router).mapping == Mapping::AddressAndPortDependent
            })
    }

    /// The source that a datagram from one side arrives at the other with, in the final state.
    fn arrival(&self, from: HostId, target: &Endpoint) -> Option<Endpoint> {
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
        let mut source = Endpoint {
            address,
            port: Port::Socket(from),
        };
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
                    port: Port::Mapped {
                        router,
                        inside: Box::new(inside),
                        remotes,
                    },
                }
            }
        };
        self.sessions
            .insert((router, outside.clone(), remote.clone()));
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
                            Port::Mapped {
                                router: by, inside, ..
                            } if by == router => *inside,
                            Port::Mapped { .. } | Port::Socket(_) | Port::Server => return None,
                        };
                    }
                    node = self
                        .topology
                        .neighbour(Place::Behind(router), target.address)?;
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
        self.sessions
            .iter()
            .filter(|(at, outside, _)| *at == router && outside == target)
            .any(|(_, _, remote)| match filtering {
                Filtering::EndpointIndependent => true,
                Filtering::AddressDependent => remote.address == source.address,
                Filtering::AddressAndPortDependent => remote == source,
            })
    }
}

/// Where a STUN server would be: addresses that stay nobody's (RFC 7600, RFC 6666).
const STUN_SERVERS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 0, 8)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)),
];

/// What became of a datagram.
#[derive(Debug, Default)]
struct Sent {
    arrived_at: Option<HostId>,
    /// Its source after the translations that it met.
    seen_from: Option<Endpoint>,
}
