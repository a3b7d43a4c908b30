//! Which route owns which virtual address and which path: maps that never disagree.
//!
//! The [path table](super::path_table) decides what should belong to whom; this keeps the books.

use std::collections::BTreeMap;

use super::{
    path_table::TooManyRoutes,
    route::{Address, Outlet, Route, RouteId, Standing, VirtualAddress},
};
use crate::{
    datagram::{Path, SocketIndex},
    transport::quic::header::ConnectionId,
};

/// All routes, with indexes by everything that a datagram may show.
#[derive(Debug, Default)]
pub(in crate::transport) struct Routes {
    routes: BTreeMap<RouteId, Route>,
    addresses: BTreeMap<VirtualAddress, RouteId>,
    paths: BTreeMap<Path, RouteId>,
    /// How strangers called us in the first packets of their connections.
    first_ids: BTreeMap<ConnectionId, VirtualAddress>,
    /// How we called ourselves in the first packets of our connections.
    own_ids: BTreeMap<ConnectionId, VirtualAddress>,
    last_address: u64,
    strangers: usize,
}

impl Routes {
    /// Makes a route with a virtual address of its own.
    pub(in crate::transport) fn open(
        &mut self,
        standing: Standing,
        first_id: Option<ConnectionId>,
        outlet: Outlet,
    ) -> Result<RouteId, TooManyRoutes> {
        if self.routes.len() >= ROUTES_MAX {
            return Err(TooManyRoutes);
        }
        self.last_address += 1;
        let route = RouteId(self.last_address);
        let address = VirtualAddress(self.last_address);
        if standing == Standing::Stranger {
            self.strangers += 1;
        }
        if let Some(first_id) = first_id {
            self.first_ids.insert(first_id, address);
        }
        self.addresses.insert(address, route);
        self.routes.insert(route, Route::new(standing, Address::new(address, first_id), outlet));
        Ok(route)
    }

    /// Forgets a route with all that it owns.
    pub(in crate::transport) fn close(&mut self, route: RouteId) {
        let Some(closed) = self.take(route) else {
            return;
        };
        for address in closed.addresses {
            self.forget_address(&address);
        }
        for path in closed.paths {
            self.paths.remove(&path);
        }
    }

    pub(in crate::transport) fn get(&self, route: RouteId) -> Option<&Route> {
        self.routes.get(&route)
    }

    pub(in crate::transport) fn get_mut(&mut self, route: RouteId) -> Option<&mut Route> {
        self.routes.get_mut(&route)
    }

    pub(in crate::transport) fn iter(&self) -> impl Iterator<Item = (RouteId, &Route)> {
        self.routes.iter().map(|(&id, route)| (id, route))
    }

    pub(in crate::transport) fn strangers(&self) -> usize {
        self.strangers
    }

    pub(in crate::transport) fn by_address(&self, address: VirtualAddress) -> Option<RouteId> {
        self.addresses.get(&address).copied()
    }

    pub(in crate::transport) fn by_path(&self, path: Path) -> Option<RouteId> {
        self.paths.get(&path).copied()
    }

    /// The stranger, or the peer that was one, that began a connection with this id.
    pub(in crate::transport) fn by_first_id(&self, first_id: ConnectionId) -> Option<RouteId> {
        self.by_address(*self.first_ids.get(&first_id)?)
    }

    /// Whose connection receives under this id.
    pub(in crate::transport) fn by_own_id(&self, own_id: ConnectionId) -> Option<RouteId> {
        self.by_address(*self.own_ids.get(&own_id)?)
    }

    /// A connection at `address` told the peer this id.
    pub(in crate::transport) fn note_own_id(
        &mut self,
        address: VirtualAddress,
        own_id: ConnectionId,
    ) {
        let route = self.by_address(address);
        let Some(route) = route.and_then(|route| self.routes.get_mut(&route)) else {
            return;
        };
        if self.own_ids.contains_key(&own_id) {
            return;
        }
        route.begin_repeating();
        if let Some(own) = route.address_mut(address) {
            self.own_ids.insert(own_id, address);
            if let Some(forgotten) = own.note_own_id(own_id) {
                self.own_ids.remove(&forgotten);
            }
        }
    }

    /// Whether the connection that called itself this was given up.
    pub(in crate::transport) fn is_given_up(&self, route: RouteId, own_id: ConnectionId) -> bool {
        self.get(route).is_some_and(|route| route.given_up.contains(&own_id))
    }

    /// Makes a stranger a peer.
    pub(in crate::transport) fn promote(&mut self, route: RouteId) {
        if let Some(promoted) = self.routes.get_mut(&route)
            && promoted.standing == Standing::Stranger
        {
            promoted.standing = Standing::Peer;
            self.strangers -= 1;
        }
    }

    /// Gives `path` to the route, from whomever has it; with it, all that a stranger has.
    pub(in crate::transport) fn give_path(&mut self, route: RouteId, path: Path) {
        let Some(owner) = self.by_path(path) else {
            return self.insert_path(route, path);
        };
        if owner == route {
            return;
        }
        match self.get(owner).map(|other| other.standing) {
            Some(Standing::Stranger) => self.absorb(owner, route),
            Some(Standing::Peer) | None => {
                self.take_path(owner, path);
                self.insert_path(route, path);
            }
        }
    }

    /// Takes `path` from the route, if it has it.
    pub(in crate::transport) fn take_path(&mut self, route: RouteId, path: Path) {
        if let Some(robbed) = self.routes.get_mut(&route) {
            robbed.paths.retain(|own| *own != path);
        }
        if self.by_path(path) == Some(route) {
            self.paths.remove(&path);
        }
    }

    /// Forgets all paths over a socket.
    pub(in crate::transport) fn take_paths_over(&mut self, socket: SocketIndex) {
        self.paths.retain(|path, _| path.socket != socket);
        for route in self.routes.values_mut() {
            route.paths.retain(|path| path.socket != socket);
            if route.best().is_some_and(|best| best.socket == socket) {
                route.outlet = Outlet::searching();
            }
        }
    }

    /// Gives `path`, which nobody has, to the route; if that has too many, it loses the oldest.
    pub(in crate::transport) fn insert_path(&mut self, owner: RouteId, path: Path) {
        let Some(route) = self.routes.get_mut(&owner) else {
            return;
        };
        if route.paths.len() >= PATHS_PER_ROUTE_MAX {
            let best = route.best();
            let oldest = route.paths.iter().position(|own| Some(*own) != best);
            let oldest = oldest.expect("of sixteen paths one at most is the best");
            self.paths.remove(&route.paths.remove(oldest));
        }
        route.paths.push(path);
        self.paths.insert(path, owner);
    }

    /// Moves the addresses and paths of a route to another and forgets it.
    pub(in crate::transport) fn absorb(&mut self, absorbed: RouteId, into: RouteId) {
        if absorbed == into || !self.routes.contains_key(&into) {
            return;
        }
        let Some(old) = self.take(absorbed) else {
            return;
        };
        for path in old.paths {
            self.paths.remove(&path);
            self.insert_path(into, path);
        }
        for own in &old.addresses {
            self.addresses.insert(own.address, into);
        }
        let Some(grown) = self.routes.get_mut(&into) else {
            return;
        };
        grown.traffic.heard_at = grown.traffic.heard_at.max(old.traffic.heard_at);
        grown.addresses.extend(old.addresses);
        while let Some(dropped) = self.get_mut(into).and_then(Route::drop_excess_address) {
            self.forget_address(&dropped);
        }
    }

    /// Makes `primary` the route's primary address, if it has it.
    pub(in crate::transport) fn set_primary(&mut self, route: RouteId, primary: VirtualAddress) {
        if self.by_address(primary) == Some(route)
            && let Some(changed) = self.get_mut(route)
        {
            changed.addresses.sort_by_key(|own| own.address != primary);
        }
    }

    fn take(&mut self, route: RouteId) -> Option<Route> {
        let taken = self.routes.remove(&route)?;
        if taken.standing == Standing::Stranger {
            self.strangers -= 1;
        }
        Some(taken)
    }

    fn forget_address(&mut self, address: &Address) {
        self.addresses.remove(&address.address);
        if let Some(first_id) = address.first_id {
            self.first_ids.remove(&first_id);
        }
        for own_id in address.own_ids() {
            self.own_ids.remove(own_id);
        }
    }
}

/// Routes at a time: peers that we know, and strangers. With the datagrams that may wait a route has
/// at most 8 kB, so this bounds the table to 32 MB.
pub(in crate::transport) const ROUTES_MAX: usize = 4096;

/// Paths by which one peer's datagrams may come: double what upkeep keeps an eye on.
const PATHS_PER_ROUTE_MAX: usize = 16;

#[cfg(test)]
impl Routes {
    /// Panics unless the maps say the same.
    pub(in crate::transport) fn assert_consistent(&self) {
        let (mut paths, mut addresses, mut first_ids, mut own_ids) = (0, 0, 0, 0);
        for (id, route) in self.iter() {
            assert!((1..=2).contains(&route.addresses.len()), "{route:?}");
            assert!(route.paths.len() <= PATHS_PER_ROUTE_MAX, "{route:?}");
            for path in &route.paths {
                assert_eq!(self.by_path(*path), Some(id));
            }
            for own in &route.addresses {
                assert_eq!(self.by_address(own.address), Some(id));
                own_ids += own.own_ids().count();
                for own_id in own.own_ids() {
                    assert_eq!(self.by_own_id(*own_id), Some(id));
                }
                if let Some(first_id) = own.first_id {
                    assert_eq!(self.by_first_id(first_id), Some(id));
                    first_ids += 1;
                }
            }
            paths += route.paths.len();
            addresses += route.addresses.len();
        }
        let counts = [
            (self.paths.len(), paths),
            (self.addresses.len(), addresses),
            (self.first_ids.len(), first_ids),
            (self.own_ids.len(), own_ids),
        ];
        assert!(counts.iter().all(|(index, found)| index == found), "{counts:?}");
        let strangers = self.iter().filter(|(_, route)| route.standing == Standing::Stranger);
        assert_eq!(self.strangers, strangers.count());
    }
}
