//! The path table's operations, on the table of a set of sockets: what waits for a path is sent at once.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{SocketSet, lock, now};
use crate::{
    datagram::Path,
    transport::paths::{
        path_table::{RouteId, TooManyRoutes},
        traffic::Traffic,
    },
};

impl SocketSet {
    /// See [`crate::transport::paths::path_table::PathTable::open_route`].
    ///
    /// # Errors
    /// When there are too many routes.
    pub fn open_route(&self, candidates: &[SocketAddr]) -> Result<RouteId, TooManyRoutes> {
        lock(&self.state).table.open_route(candidates)
    }

    /// See [`crate::transport::paths::path_table::PathTable::close_route`].
    pub fn close_route(&self, route: RouteId) {
        lock(&self.state).table.close_route(route);
    }

    /// See [`crate::transport::paths::path_table::PathTable::virtual_address`].
    pub fn virtual_address(&self, route: RouteId) -> Option<SocketAddr> {
        lock(&self.state).table.virtual_address(route)
    }

    /// See [`crate::transport::paths::path_table::PathTable::route_of`].
    pub fn route_of(&self, virtual_address: SocketAddr) -> Option<RouteId> {
        lock(&self.state).table.route_of(virtual_address)
    }

    /// See [`crate::transport::paths::path_table::PathTable::path_to`].
    pub fn path_to(&self, remote: SocketAddr) -> Option<Path> {
        lock(&self.state).table.path_to(remote)
    }

    /// See [`crate::transport::paths::path_table::PathTable::best`].
    pub fn best(&self, route: RouteId) -> Option<Path> {
        lock(&self.state).table.best(route)
    }

    /// See [`crate::transport::paths::path_table::PathTable::heard_on`].
    pub fn heard_on(&self, route: RouteId) -> Option<Path> {
        lock(&self.state).table.heard_on(route)
    }

    /// See [`crate::transport::paths::path_table::PathTable::paths`].
    pub fn paths(&self, route: RouteId) -> Vec<Path> {
        lock(&self.state).table.paths(route).to_vec()
    }

    /// See [`crate::transport::paths::path_table::PathTable::set_candidates`].
    pub fn set_candidates(&self, route: RouteId, candidates: &[SocketAddr]) {
        let mut state = lock(&self.state);
        let waiting = state.table.set_candidates(route, candidates, now());
        drop(state);
        self.send_waiting(waiting);
    }

    /// See [`crate::transport::paths::path_table::PathTable::set_best`].
    pub fn set_best(&self, route: RouteId, path: Path) {
        let waiting = lock(&self.state).table.set_best(route, path, now());
        self.send_waiting(waiting);
    }

    /// See [`crate::transport::paths::path_table::PathTable::admit`].
    pub fn admit(&self, route: RouteId, path: Path) {
        let waiting = lock(&self.state).table.admit(route, path, now());
        self.send_waiting(waiting);
    }

    /// See [`crate::transport::paths::path_table::PathTable::revoke`].
    pub fn revoke(&self, route: RouteId, path: Path) {
        lock(&self.state).table.revoke(route, path);
    }

    /// See [`crate::transport::paths::path_table::PathTable::keep`].
    pub fn keep(&self, route: RouteId) {
        lock(&self.state).table.keep(route);
    }

    /// See [`crate::transport::paths::path_table::PathTable::adopt_stranger`].
    pub fn adopt_stranger(&self, stranger: RouteId, into: RouteId) {
        lock(&self.state).table.adopt_stranger(stranger, into);
    }

    /// See [`crate::transport::paths::path_table::PathTable::give_up_dials`].
    pub fn give_up_dials(&self, route: RouteId) {
        lock(&self.state).table.give_up_dials(route);
    }

    /// See [`crate::transport::paths::path_table::PathTable::set_primary`].
    pub fn set_primary(&self, route: RouteId, virtual_address: SocketAddr) {
        lock(&self.state).table.set_primary(route, virtual_address);
    }

    /// See [`crate::transport::paths::path_table::PathTable::traffic`].
    pub fn traffic(&self, route: RouteId) -> Option<Traffic> {
        lock(&self.state).table.traffic(route)
    }

    /// See [`crate::transport::paths::path_table::PathTable::note_answered`].
    pub fn note_answered(&self, route: RouteId) {
        lock(&self.state).table.note_answered(route, now());
    }

    /// Waits until routes send something that is unanswered; tells of each route once after each
    /// [`SocketSet::traffic`] that had nothing unanswered. For one task only.
    pub async fn next_unanswered(&self) -> BTreeSet<RouteId> {
        loop {
            let told = self.unanswered.notified();
            let routes = lock(&self.state).table.take_unanswered();
            if !routes.is_empty() {
                return routes;
            }
            told.await;
        }
    }
}
