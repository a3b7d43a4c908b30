//! Who came in without our having opened the way, until it is known who that was: then it is a witness for what our
//! filter lets in, and peers are told when enough is proved.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::reachability::Arrival;
use crate::{
    datagram::{Family, Path},
    identity::PeerId,
    node::driver::Driver,
    transport::paths::route::RouteId,
};

/// Arrivals whose makers have not proved who they are.
#[derive(Debug, Default)]
pub(in crate::node) struct Arrivals {
    /// Handshakes of QUIC, which prove the address, too.
    handshakes: BTreeMap<RouteId, (SocketAddr, Arrival)>,
    /// Probes: from where, and when. Anybody on the way can repeat one from elsewhere, so one says nothing until there
    /// is a link over that very path.
    probes: BTreeMap<SocketAddr, (Arrival, Instant)>,
}

impl Driver {
    /// Somebody begins to dial us.
    pub(in crate::node) fn note_arrival(&mut self, route: RouteId) {
        let now = self.clock.now();
        let Some(path) = self.sockets.paths(route).first().copied() else {
            return;
        };
        let is_known = self.links.by_route.contains_key(&route);
        if !is_known
            && self.is_own_socket(path)
            && self.helping.arrivals.handshakes.len() < ARRIVALS_MAX
            && let Some(arrival) = self.helping.reachability.arrival(path.remote, now)
        {
            self.helping.arrivals.handshakes.insert(route, (path.remote, arrival));
        }
    }

    /// What somebody who dialled us came to: `peer`, if it has proved who it is.
    pub(in crate::node) fn note_accepted(&mut self, route: RouteId, peer: Option<PeerId>) {
        let noted = self.helping.arrivals.handshakes.remove(&route);
        if let (Some((remote, arrival)), Some(peer)) = (noted, peer) {
            self.take_witness(peer, remote, arrival);
        }
    }

    /// An authentic probe has come in, before anything is done about it.
    pub(in crate::node) fn note_probe(&mut self, path: Path) {
        let now = self.clock.now();
        let probes = &mut self.helping.arrivals.probes;
        if probes.contains_key(&path.remote) || !self.is_own_socket(path) {
            return;
        }
        if let Some(arrival) = self.helping.reachability.arrival(path.remote, now) {
            let probes = &mut self.helping.arrivals.probes;
            probes.retain(|_, (_, at)| now < *at + LINKED_WITHIN);
            if probes.len() < ARRIVALS_MAX {
                probes.insert(path.remote, (arrival, now));
            }
        }
    }

    /// There is a link to `peer` over `path`.
    pub(in crate::node) fn note_linked(&mut self, peer: PeerId, path: Path) {
        let now = self.clock.now();
        let noted = self.helping.arrivals.probes.remove(&path.remote);
        if let Some((arrival, at)) = noted
            && now < at + LINKED_WITHIN
        {
            self.take_witness(peer, path.remote, arrival);
        }
        // From here on packets go there that nobody counts.
        self.helping.reachability.handle_sent(path.remote, now);
    }

    /// Forgets what was proved too long ago.
    pub(super) fn wake_witnessing(&mut self, now: Instant) {
        let reachability = &mut self.helping.reachability;
        if reachability.poll_timeout().is_some_and(|due| due <= now) {
            reachability.handle_timeout(now);
            self.tell_what_is_proved();
        }
    }

    fn take_witness(&mut self, peer: PeerId, remote: SocketAddr, arrival: Arrival) {
        let now = self.clock.now();
        tracing::debug!(?peer, %remote, ?arrival, "somebody came in without our having opened the way");
        self.helping.reachability.handle_witness(peer, (remote.ip(), arrival), now);
        self.tell_what_is_proved();
        self.serve_if_reachable();
    }

    /// Tells peers whom our filter lets in, if that is news.
    pub(super) fn tell_what_is_proved(&mut self) {
        let now = self.clock.now();
        let filtering = |family| self.helping.reachability.filtering(family, now);
        let (v4, v6) = (filtering(Family::V4), filtering(Family::V6));
        if self.addresses.set_filtering(v4, v6) {
            tracing::info!(?v4, ?v6, "what our filter lets in");
            self.refresh_gathered();
        }
    }

    /// Whether `path` goes over a socket whose filter is the one that peers meet: extra ones have their own.
    fn is_own_socket(&self, path: Path) -> bool {
        self.bound_sockets.iter().any(|bound| bound.index == path.socket)
    }
}

/// Handshakes, and probes, that are remembered; as many handshakes run at a time.
const ARRIVALS_MAX: usize = 64;

/// How long it takes from a first probe to a link over its path, at most: a dial has 20 s.
const LINKED_WITHIN: Duration = Duration::from_secs(20);
