//! Which real paths stand behind the addresses that QUIC sees.
//!
//! quinn dials and hears *virtual addresses*. Each belongs to a **route**, which stands for one peer,
//! and under the route lie the real paths. So a NAT that rebinds, on either side, or a peer that
//! roams, changes a table and no connection: for QUIC the address stays.
//!
//! Outbound, a virtual address becomes the route's best path, or, while there is none, every path
//! that may reach the peer. Inbound, a path becomes the virtual address of the route that owns it. An
//! unknown remote gets a route, as a *stranger*, only by the first packet of a connection, and a path of
//! a route that has none only by an answer to what we sent. A known peer that has moved proves itself by
//! an authenticated probe, and then its new path is admitted.
//!
//! A peer may own two virtual addresses: one that we dialled and one that it came in on. Its packets
//! for both come by the same paths, so they are told apart by their connection ids.

mod strangers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use quinn::udp::Transmit;

pub use super::route::{RouteId, WaitingDatagram};
use super::{
    repeats::Copies,
    route::{Outlet, Standing, VirtualAddress, Watch},
    routes::{ROUTES_MAX, Routes},
    traffic::{Sent, Traffic, Volume},
};
use crate::{
    candidate::{CANDIDATES_MAX, canonical, is_unicast},
    datagram::{Path, SocketIndex},
    transport::quic::header::LongHeader,
};

/// Where a datagram of QUIC goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destinations {
    /// To the route's best path.
    One(Path),
    /// To the route's best path, now and again a moment later: it is one of the first of a connection.
    Repeatedly(Path, Copies),
    /// To every path that may reach the peer, because none is known to.
    Several(Vec<Path>),
    /// To nobody: the address belongs to no route, or the route has no path.
    Nowhere,
}

/// Whom a datagram of QUIC comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This virtual address, as does everything that comes by the same path.
    Path(SocketAddr),
    /// This virtual address, but another datagram of the same path may come from another.
    Datagram(SocketAddr),
    /// Nobody who may send us such a datagram.
    Refused,
}

/// What the table refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Datagrams of unknown remotes that do not begin a connection.
    pub unknown_remote: u64,
    /// Connections of strangers for which there was no room.
    pub strangers: u64,
}

/// The table has as many routes as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {ROUTES_MAX} routes already")]
pub struct TooManyRoutes;

/// All routes and their paths.
#[derive(Debug, Default)]
pub struct PathTable {
    routes: Routes,
    sockets: BTreeMap<SocketIndex, Family>,
    /// Watched routes that sent something unanswered.
    unanswered: BTreeSet<RouteId>,
    strangers_sifted_at: Option<Instant>,
    refusals: Refusals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl PathTable {
    /// A table without routes or sockets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells of a socket: candidates of its family are reached by it, if it is the family's first.
    pub fn add_socket(&mut self, socket: SocketIndex, local: SocketAddr) {
        self.sockets.insert(socket, Family::of(local));
    }

    /// Forgets a socket and all paths over it.
    pub fn remove_socket(&mut self, socket: SocketIndex) {
        self.sockets.remove(&socket);
        self.routes.take_paths_over(socket);
    }

    /// The path by which `remote` is reached when nothing speaks for another: over the first socket of
    /// its family.
    pub fn path_to(&self, remote: SocketAddr) -> Option<Path> {
        let remote = normal(remote);
        let mut sockets = self.sockets.iter();
        let (&socket, _) = sockets.find(|&(_, &family)| family == Family::of(remote))?;
        Some(Path { socket, remote })
    }

    /// Makes a route to a peer that may be reached at `candidates`, best first; see
    /// [`PathTable::set_candidates`].
    ///
    /// # Errors
    /// When there are too many routes.
    pub fn open_route(&mut self, candidates: &[SocketAddr]) -> Result<RouteId, TooManyRoutes> {
        let opened = self.routes.open(Standing::Peer, None, Outlet::searching())?;
        if let Some(route) = self.routes.get_mut(opened) {
            route.candidates = acceptable(candidates);
        }
        Ok(opened)
    }

    /// Forgets a route, its virtual addresses and its paths.
    pub fn close_route(&mut self, route: RouteId) {
        self.routes.close(route);
        self.unanswered.remove(&route);
    }

    /// The address that QUIC dials to reach the peer.
    pub fn virtual_address(&self, route: RouteId) -> Option<SocketAddr> {
        let primary = self.routes.get(route)?.primary();
        Some(primary.to_socket_addr())
    }

    /// The route that a virtual address belongs to.
    pub fn route_of(&self, virtual_address: SocketAddr) -> Option<RouteId> {
        self.routes.by_address(VirtualAddress::from_socket_addr(virtual_address)?)
    }

    /// The path that the route's datagrams take; `None` while it has none.
    pub fn best(&self, route: RouteId) -> Option<Path> {
        self.routes.get(route)?.best()
    }

    /// The path by which the last datagram of QUIC came.
    pub fn heard_on(&self, route: RouteId) -> Option<Path> {
        self.routes.get(route)?.heard_on
    }

    /// Where the peer's datagrams may come from, longest known first.
    pub fn paths(&self, route: RouteId) -> &[Path] {
        self.routes.get(route).map_or(&[], |route| &route.paths)
    }

    /// Replaces the addresses where the peer may be reached, best first; returns what waits and must
    /// be sent to the new ones now.
    ///
    /// Only unicast addresses count, and only the first [`CANDIDATES_MAX`].
    pub fn set_candidates(
        &mut self,
        route: RouteId,
        candidates: &[SocketAddr],
        now: Instant,
    ) -> Vec<WaitingDatagram> {
        let Some(changed) = self.routes.get_mut(route) else {
            return Vec::new();
        };
        let before = std::mem::replace(&mut changed.candidates, acceptable(candidates));
        let Some(changed) = self.routes.get(route) else {
            return Vec::new();
        };
        let fresh = changed.candidates.iter().filter(|new| !before.contains(new));
        let paths: Vec<Path> = fresh.filter_map(|&new| self.path_to(new)).collect();
        changed.waiting_for(&paths, now)
    }

    /// Sends the route's datagrams by `path` from now on; returns what waits and must be sent on it
    /// now. Also admits the path.
    pub fn set_best(&mut self, route: RouteId, path: Path, now: Instant) -> Vec<WaitingDatagram> {
        let path = normal_path(path);
        self.routes.give_path(route, path);
        let Some(opened) = self.routes.get_mut(route) else {
            return Vec::new();
        };
        let waiting = opened.waiting_for(&[path], now);
        opened.outlet = Outlet::Open(path);
        waiting
    }

    /// Takes QUIC from `path` for the route's: an authenticated probe came from there. Returns what
    /// waits and must be sent on it now.
    ///
    /// If a stranger began a connection from there, it was this peer, overtaking its own probe: the
    /// stranger's route becomes part of this one.
    pub fn admit(&mut self, route: RouteId, path: Path, now: Instant) -> Vec<WaitingDatagram> {
        let path = normal_path(path);
        self.routes.give_path(route, path);
        let admitted = self.routes.get(route);
        admitted.map_or_else(Vec::new, |admitted| admitted.waiting_for(&[path], now))
    }

    /// Takes `path` from the route. If it was the best, the route searches again.
    pub fn revoke(&mut self, route: RouteId, path: Path) {
        let path = normal_path(path);
        self.routes.take_path(route, path);
        if let Some(robbed) = self.routes.get_mut(route)
            && robbed.best() == Some(path)
        {
            robbed.outlet = Outlet::searching();
        }
    }

    /// Makes a stranger a peer: it is not evicted any more. The caller closes its route one day.
    pub fn keep(&mut self, route: RouteId) {
        self.routes.promote(route);
    }

    /// Makes the route of a stranger that proved to be the peer of `into` part of `into`.
    ///
    /// Afterwards both virtual addresses lead to the same paths. Of more than two, the primary one and
    /// the newest stay. A route that had no path takes the stranger's.
    pub fn adopt_stranger(&mut self, stranger: RouteId, into: RouteId) {
        let best = self.best(stranger);
        self.routes.absorb(stranger, into);
        self.unanswered.remove(&stranger);
        if let Some(grown) = self.routes.get_mut(into)
            && let (Outlet::Searching(_), Some(best)) = (&grown.outlet, best)
        {
            grown.outlet = Outlet::Open(best);
        }
    }

    /// Gives up the connections that were begun on this route so far, of which none was answered: what waits for a
    /// path is forgotten, and what they still say goes nowhere.
    pub fn give_up_dials(&mut self, route: RouteId) {
        if let Some(changed) = self.routes.get_mut(route) {
            changed.give_up_dials();
        }
    }

    /// Makes one of the route's virtual addresses the one that [`PathTable::virtual_address`] says and new
    /// connections of the peer come in on.
    pub fn set_primary(&mut self, route: RouteId, virtual_address: SocketAddr) {
        if let Some(primary) = VirtualAddress::from_socket_addr(virtual_address) {
            self.routes.set_primary(route, primary);
        }
    }

    /// The route's traffic; asks to be told by [`PathTable::take_unanswered`] of the next send, if
    /// none is unanswered now.
    pub fn traffic(&mut self, route: RouteId) -> Option<Traffic> {
        let read = self.routes.get_mut(route)?;
        read.watch = match read.traffic.unanswered_since {
            Some(_) => Watch::Off,
            None => Watch::On,
        };
        Some(read.traffic)
    }

    /// Notes that the peer answered by other means than QUIC: nothing that was sent is unanswered.
    pub fn note_answered(&mut self, route: RouteId, now: Instant) {
        if let Some(answered) = self.routes.get_mut(route) {
            answered.traffic.heard_at = Some(now);
            answered.traffic.unanswered_since = None;
            answered.watch = Watch::On;
        }
    }

    /// The routes that sent something unanswered since their traffic was read.
    pub fn take_unanswered(&mut self) -> BTreeSet<RouteId> {
        std::mem::take(&mut self.unanswered)
    }

    /// What the table refused so far.
    pub fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// Where `transmit` goes. Remembers it if it may have to be sent again.
    pub fn forward(&mut self, transmit: &Transmit<'_>, now: Instant) -> Destinations {
        let address = VirtualAddress::from_socket_addr(transmit.destination);
        let route = address.and_then(|address| self.routes.by_address(address));
        let (Some(address), Some(id)) = (address, route) else {
            return Destinations::Nowhere;
        };
        if let Some(header) = LongHeader::read(transmit.contents)
            && header.source.is_unguessable()
        {
            if self.routes.is_given_up(id, header.source) {
                return Destinations::Nowhere;
            }
            self.routes.note_own_id(address, header.source);
        }
        let Some(route) = self.routes.get_mut(id) else {
            return Destinations::Nowhere;
        };
        if let Outlet::Open(best) = route.outlet {
            let copies = route.copies(transmit);
            return copies
                .map_or(Destinations::One(best), |copies| Destinations::Repeatedly(best, copies));
        }
        route.keep_waiting(transmit, now);
        let paths = self.paths_of_search(id);
        match paths.as_slice() {
            [] => Destinations::Nowhere,
            _ => Destinations::Several(paths),
        }
    }

    /// Counts what was sent to a virtual address. Says whether [`PathTable::take_unanswered`] has news.
    pub fn count_sent(
        &mut self,
        virtual_address: SocketAddr,
        volume: Volume,
        now: Instant,
    ) -> bool {
        let Some(id) = self.route_of(virtual_address) else {
            return false;
        };
        let Some(route) = self.routes.get_mut(id) else {
            return false;
        };
        let first = route.traffic.count_sent(volume, now) == Sent::First;
        let news = first && route.watch == Watch::On;
        if news {
            route.watch = Watch::Off;
            self.unanswered.insert(id);
        }
        news
    }

    /// Whom a datagram that came by `path` is from.
    pub fn identify(&mut self, path: Path, datagram: &[u8], now: Instant) -> Source {
        let path = normal_path(path);
        self.take_answer(path, datagram);
        let known = self.routes.by_path(path);
        let Some(owner) = known.or_else(|| self.welcome(path, datagram, now)) else {
            return Source::Refused;
        };
        let Some(route) = self.routes.get_mut(owner) else {
            return Source::Refused;
        };
        route.heard_on = Some(path);
        match route.addresses.len() {
            1 => Source::Path(route.primary().to_socket_addr()),
            _ => Source::Datagram(route.receiver(datagram).to_socket_addr()),
        }
    }

    /// Counts what was received from a virtual address.
    pub fn count_received(&mut self, virtual_address: SocketAddr, volume: Volume, now: Instant) {
        let route = self.route_of(virtual_address);
        if let Some(route) = route.and_then(|route| self.routes.get_mut(route)) {
            route.traffic.count_received(volume, now);
        }
    }

    /// Where to look for a peer to which no path is known: where it was heard lately, and all
    /// candidates.
    fn paths_of_search(&self, route: RouteId) -> Vec<Path> {
        let Some(route) = self.routes.get(route) else {
            return Vec::new();
        };
        let heard = route.paths.iter().rev().take(SEARCH_HEARD_MAX);
        let mut paths: Vec<Path> = heard.copied().collect();
        for &candidate in &route.candidates {
            let path = self.path_to(candidate);
            paths.extend(path.filter(|path| !paths.contains(path)));
        }
        paths
    }

    /// If `datagram` answers a dial, it is the peer's; and if the dial has no path yet, this is its path.
    ///
    /// Only who received our first packet knows the id that it called us by. Who it is, TLS finds out. It
    /// may answer once from anywhere; a second path must be one of its candidates, or be admitted.
    fn take_answer(&mut self, path: Path, datagram: &[u8]) {
        let Some(header) = LongHeader::read(datagram) else {
            return;
        };
        let Some(route) = self.routes.by_own_id(header.destination) else {
            return;
        };
        let Some(answered) = self.routes.get(route) else {
            return;
        };
        let is_searching = answered.best().is_none();
        if !is_searching && !answered.candidates.contains(&path.remote) {
            return;
        }
        self.routes.give_path(route, path);
        if let Some(answered) = self.routes.get_mut(route)
            && is_searching
        {
            answered.outlet = Outlet::Open(path);
        }
    }
}

impl Family {
    fn of(address: SocketAddr) -> Self {
        match normal(address).ip() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// `address` as the table knows it: IPv4 as such, and no flow label. A link-local address keeps its
/// scope.
pub(in crate::transport) fn normal(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => canonical(address),
        SocketAddr::V6(mut v6) => {
            v6.set_flowinfo(0);
            SocketAddr::V6(v6)
        }
        SocketAddr::V4(_) => address,
    }
}

fn normal_path(path: Path) -> Path {
    Path { remote: normal(path.remote), ..path }
}

fn acceptable(candidates: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut accepted = Vec::new();
    for &candidate in candidates {
        let candidate = normal(candidate);
        if is_unicast(candidate) && !accepted.contains(&candidate) {
            accepted.push(candidate);
        }
    }
    accepted.truncate(CANDIDATES_MAX);
    accepted
}

/// Of the paths on which a peer was heard, those that a search includes: the latest, one per IP family
/// and socket in use, with some to spare.
const SEARCH_HEARD_MAX: usize = 4;

#[cfg(test)]
mod tests;
