//! Sockets beside the node's own: opened when a volley or a look at our NAT asks for them, closed again
//! when it is done, and kept only while a path of a peer goes over them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    datagram::{BoundSocket, Family, Path, SocketIndex},
    identity::PeerId,
    nat::volley::{Budget, Leave},
    node::{
        driver::{DialId, Driver},
        environment::{EXTRA_SOCKETS_MAX, ExtraSockets},
        event::Direction,
    },
    transport::paths::route::RouteId,
};

/// All extra sockets, and what volleys may send.
pub(in crate::node) struct Extra {
    source: ExtraSockets,
    open: BTreeMap<SocketIndex, Held>,
    budget: Budget,
    /// Whose crowd it is, and since when.
    crowd: Option<(Holder, Instant)>,
    /// When somebody else last asked for one.
    crowd_wanted: Option<Instant>,
}

struct Held {
    local: SocketAddr,
    holder: Holder,
}

/// What an extra socket is open for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Holder {
    /// The volley of a dial.
    Dial(DialId),
    /// The volley of an answer to this peer's offer.
    Answer(PeerId),
    /// A look at how our NAT gives out ports.
    Sampler,
    /// A check of the network.
    Check,
    /// A path to this peer, if one still goes over it at this moment.
    Path(PeerId, Instant),
}

impl Extra {
    /// None is open yet.
    pub(in crate::node) fn new(source: ExtraSockets) -> Self {
        let budget = Budget::default();
        Self { source, open: BTreeMap::new(), budget, crowd: None, crowd_wanted: None }
    }

    /// When a socket is due for a look.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let looks = self.open.values().filter_map(|held| match held.holder {
            Holder::Path(_, look) => Some(look),
            Holder::Dial(_) | Holder::Answer(_) | Holder::Sampler | Holder::Check => None,
        });
        looks.min()
    }

    /// What an extra socket is bound to.
    pub(in crate::node) fn local(&self, index: SocketIndex) -> Option<SocketAddr> {
        self.open.get(&index).map(|held| held.local)
    }

    /// Whether `index` is open for looks at our NAT.
    pub(in crate::node) fn is_samplers(&self, index: SocketIndex) -> bool {
        self.open.get(&index).is_some_and(|held| held.holder == Holder::Sampler)
    }

    /// Whether `index` is open for a check of the network.
    pub(in crate::node) fn is_checks(&self, index: SocketIndex) -> bool {
        self.open.get(&index).is_some_and(|held| held.holder == Holder::Check)
    }

    /// For which dial `index` is open, if it is for one.
    pub(in crate::node) fn dial_of(&self, index: SocketIndex) -> Option<DialId> {
        match self.open.get(&index)?.holder {
            Holder::Dial(id) => Some(id),
            Holder::Answer(_) | Holder::Sampler | Holder::Check | Holder::Path(..) => None,
        }
    }

    /// Datagrams that a volley of `holder` may send now. There is one crowd at a time: behind one NAT a
    /// second one would take the ports that the first one needs. Who has had one for [`CROWD_TURN`] is held
    /// up while others wait, until it gives its sockets back.
    pub(in crate::node) fn grant(&mut self, holder: Holder, leave: Leave, now: Instant) -> u32 {
        let open = &self.open;
        let is_a_crowd = |(holder, _): &(Holder, Instant)| {
            open.values().filter(|held| held.holder == *holder).count() > 1
        };
        let crowd = self.crowd.filter(is_a_crowd);
        match leave {
            Leave::New { crowd: 1.., .. } if crowd.is_some_and(|(other, _)| other != holder) => {
                self.crowd_wanted = Some(now);
                0
            }
            Leave::New { datagrams, crowd } => {
                let granted = self.budget.grant(datagrams, now);
                if crowd > 0 && granted > 0 {
                    self.crowd = Some((holder, now));
                }
                granted
            }
            Leave::Again { datagrams } => {
                let had_its_turn =
                    crowd.is_some_and(|(own, since)| own == holder && since + CROWD_TURN <= now);
                let is_wanted = self.crowd_wanted.is_some_and(|at| now < at + WANTED_FOR);
                if had_its_turn && is_wanted {
                    return 0;
                }
                self.budget.grant_again(datagrams, now)
            }
        }
    }

    /// Takes back what was granted and not sent.
    pub(in crate::node) fn put_back(&mut self, unspent: u32) {
        self.budget.put_back(unspent);
    }
}

impl Driver {
    /// Opens a socket of `family` for `holder`, on the address that the node's own one has; `None` if there
    /// is no such family, or no room.
    pub(in crate::node) fn open_extra(
        &mut self,
        family: Family,
        holder: Holder,
    ) -> Option<BoundSocket> {
        let of_family = |socket: &&BoundSocket| Family::of(socket.local.ip()) == family;
        let ip = self.bound_sockets.iter().find(of_family)?.local.ip();
        let extra = &mut self.extra;
        if extra.open.len() >= extra.source.count_max.min(EXTRA_SOCKETS_MAX) {
            tracing::debug!(open = extra.open.len(), "no room for another socket");
            return None;
        }
        let socket = (extra.source.open)(ip)
            .inspect_err(|error| tracing::info!(%error, "no more sockets can be opened"))
            .ok()?;
        let local = socket.local_addr().ok()?;
        let index = self
            .sockets
            .add_socket(socket)
            .inspect_err(|error| tracing::info!(%error, "a socket is of no use"))
            .ok()?;
        extra.open.insert(index, Held { local, holder });
        Some(BoundSocket { index, local })
    }

    /// Closes an extra socket that nobody needs.
    pub(in crate::node) fn close_extra(&mut self, index: SocketIndex) {
        if self.extra.open.remove(&index).is_some() {
            self.sockets.remove_socket(index);
        }
    }

    /// `holder` is done: what it has left stays for a moment, for what is on its way, and then as long as
    /// paths to `peer` go over it.
    pub(in crate::node) fn hand_over(&mut self, holder: Holder, peer: Option<PeerId>) {
        let look = self.clock.now() + LOOK_INTERVAL;
        let mut left = Vec::new();
        for (index, held) in &mut self.extra.open {
            match (held.holder == holder, peer) {
                (true, Some(peer)) => held.holder = Holder::Path(peer, look),
                (true, None) => left.push(*index),
                (false, _) => {}
            }
        }
        for index in left {
            self.close_extra(index);
        }
    }

    /// Closes those that no path goes over any more.
    pub(in crate::node) fn wake_extra(&mut self, now: Instant) {
        let mut left = Vec::new();
        for (index, held) in &mut self.extra.open {
            let Holder::Path(peer, look) = held.holder else { continue };
            if look > now {
                continue;
            }
            let route = self.links.neighbours.get(&peer).map(|neighbour| neighbour.route);
            let best = route.and_then(|route| self.sockets.best(route));
            match best {
                Some(path) if path.socket == *index => {
                    held.holder = Holder::Path(peer, now + LOOK_INTERVAL);
                }
                Some(_) | None => left.push(*index),
            }
        }
        for index in left {
            self.close_extra(index);
        }
    }

    /// The path that a link goes over which has come up by `route`. Where volleys have hit several ports at
    /// once, each side may have proved another path first: that of whoever dialled is the one.
    pub(in crate::node) fn settled_path(
        &self,
        route: RouteId,
        direction: Direction,
    ) -> Option<Path> {
        let best = self.sockets.best(route)?;
        let peer = self.links.by_route.get(&route);
        let is_live = peer.is_some_and(|peer| self.links.is_live(*peer));
        let heard = self.sockets.heard_on(route).filter(|heard| *heard != best);
        let is_extra = |path: Path| self.extra.local(path.socket).is_some();
        match (direction, heard) {
            (Direction::Incoming, Some(heard))
                if !is_live && (is_extra(heard) || is_extra(best)) =>
            {
                self.sockets.set_best(route, heard);
                Some(heard)
            }
            (Direction::Incoming | Direction::Outgoing, _) => Some(best),
        }
    }

    /// Whether the link that `peer` is dialling should stay on the path that it comes in by, rather than go
    /// over to `path`. It does not where that has gone silent, or its socket is closed.
    pub(in crate::node) fn is_settled_elsewhere(&self, peer: PeerId, path: Path) -> bool {
        let route = self.links.neighbours.get(&peer).map(|neighbour| neighbour.route);
        let (Some(route), false) = (route, self.links.is_live(peer)) else { return false };
        let heard_at = self.sockets.traffic(route).and_then(|traffic| traffic.heard_at);
        let is_heard = heard_at.is_some_and(|at| self.clock.now() < at + HANDSHAKE_GAP_MAX);
        let is_extra = |path: Path| self.extra.local(path.socket).is_some();
        let best = self.sockets.best(route);
        best.is_some_and(|best| is_heard && (is_extra(path) || is_extra(best)))
    }

    /// What a socket is bound to, one of the node's own or an extra one.
    pub(in crate::node) fn bound_to(&self, index: SocketIndex) -> Option<SocketAddr> {
        let own = self.bound_sockets.iter().find(|socket| socket.index == index);
        own.map(|socket| socket.local).or_else(|| self.extra.local(index))
    }
}

/// How often it is seen to that sockets are still in use, and how long those that are not are kept for
/// what is on its way: the two ends of a link may settle on different ones of several paths.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// Between two datagrams of a handshake that comes in: what is lost is sent again so soon, or a little later.
const HANDSHAKE_GAP_MAX: Duration = Duration::from_secs(1);

/// How long a crowd may stay in the way of another one: a volley, and what it repeats.
const CROWD_TURN: Duration = Duration::from_secs(12);

/// How long a wish for a crowd that was not granted holds: it is repeated every second.
const WANTED_FOR: Duration = Duration::from_secs(2);
