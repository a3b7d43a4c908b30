//! Who comes in although nobody knows it: a route for the first packet of a connection, within limits.

use std::time::{Duration, Instant};

use super::PathTable;
use crate::{
    datagram::Path,
    transport::{
        paths::route::{Outlet, Route, RouteId, Standing},
        quic::header::{ConnectionId, LongHeader},
    },
};

impl PathTable {
    /// The owner of a path that nobody owned, if `datagram` begins a connection and there is room.
    pub(super) fn welcome(&mut self, path: Path, datagram: &[u8], now: Instant) -> Option<RouteId> {
        let first = LongHeader::read_first(datagram);
        // An answer to us is no beginning, though a server's first packet looks like a client's.
        let first = first.filter(|first| self.routes.by_own_id(first.destination).is_none());
        let Some(header) = first else {
            self.refusals.unknown_remote += 1;
            return None;
        };
        // A dialler sends the same first packet to all our addresses, from all of its own.
        let known = self.routes.by_first_id(header.destination);
        let owner = known.or_else(|| self.welcome_stranger(path, header.destination, now))?;
        self.routes.insert_path(owner, path);
        Some(owner)
    }

    fn welcome_stranger(
        &mut self,
        path: Path,
        first_id: ConnectionId,
        now: Instant,
    ) -> Option<RouteId> {
        self.evict_idle_strangers(now);
        let outlet = Outlet::Open(path);
        let opened = match self.routes.strangers() < STRANGERS_MAX {
            true => self.routes.open(Standing::Stranger, Some(first_id), outlet).ok(),
            false => None,
        };
        if opened.is_none() {
            self.refusals.strangers += 1;
        }
        opened
    }

    /// Closes the routes of strangers that were not heard for a while.
    fn evict_idle_strangers(&mut self, now: Instant) {
        let recently = |at: Instant, age| now.saturating_duration_since(at) < age;
        if self.strangers_sifted_at.is_some_and(|at| recently(at, STRANGERS_SIFTED_EVERY)) {
            return;
        }
        self.strangers_sifted_at = Some(now);
        let is_idle = |route: &Route| {
            let heard = route.traffic.heard_at;
            route.standing == Standing::Stranger
                && !heard.is_some_and(|at| recently(at, STRANGER_IDLE_MAX))
        };
        let idle = self.routes.iter().filter(|(_, route)| is_idle(route));
        let idle: Vec<RouteId> = idle.map(|(id, _)| id).collect();
        for route in idle {
            self.close_route(route);
        }
    }
}

/// Strangers at a time: a hundred new diallers a second, each with ten seconds for its handshake.
pub(super) const STRANGERS_MAX: usize = 1024;

/// How long a stranger may be silent: longer than any step of a handshake that will succeed.
const STRANGER_IDLE_MAX: Duration = Duration::from_secs(10);

/// Looking for idle strangers walks the table, so a flood must not do it for every packet.
const STRANGERS_SIFTED_EVERY: Duration = Duration::from_secs(1);
