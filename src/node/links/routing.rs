//! Over which paths peers are reached: the routes that QUIC's packets take, and the upkeep of those in
//! use.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::linking::Neighbour;
use crate::{
    candidate::Candidate,
    datagram::Path,
    identity::PeerId,
    node::{
        driver::Driver,
        event::{Event, PathKind, PathReport},
        messages::switchboard::Hearing,
    },
    probe::Probe,
    transport::paths::{route::RouteId, upkeep},
};

impl Driver {
    /// QUIC packets for `peer` may go to `candidates` from here on.
    pub(in crate::node) fn open_route(&mut self, peer: PeerId, candidates: &[Candidate]) {
        let addresses: Vec<SocketAddr> = candidates.iter().map(|c| c.address).collect();
        for address in &addresses {
            self.helping.reachability.handle_sent(*address, self.clock.now());
        }
        if let Some(neighbour) = self.links.neighbours.get_mut(&peer) {
            candidates.clone_into(&mut neighbour.candidates);
            self.sockets.set_candidates(neighbour.route, &addresses);
            let paths = self.paths_to(candidates);
            if let Some(live) = self.links.live(peer) {
                live.upkeep.add_candidates(paths, self.clock.now());
                self.drain_upkeep(peer);
            }
            return;
        }
        match self.sockets.open_route(&addresses) {
            Ok(route) => self.adopt_route(peer, route, candidates),
            Err(error) => tracing::warn!(?peer, %error, "no route"),
        }
    }

    /// Makes `route` the one to `peer`.
    pub(in crate::node) fn adopt_route(
        &mut self,
        peer: PeerId,
        route: RouteId,
        candidates: &[Candidate],
    ) {
        let neighbour = Neighbour { route, candidates: candidates.to_vec(), live: None };
        self.links.neighbours.insert(peer, neighbour);
        self.links.by_route.insert(route, peer);
    }

    /// Forgets the route to `peer`, unless something still needs it.
    pub(in crate::node) fn release_route(&mut self, peer: PeerId) {
        let is_live = self.links.live(peer).is_some();
        if is_live || self.dialling.reaches(peer) || self.answering.answers(peer) {
            return;
        }
        if let Some(neighbour) = self.links.neighbours.remove(&peer) {
            self.links.by_route.remove(&neighbour.route);
            self.sockets.close_route(neighbour.route);
        }
    }

    /// QUIC packets for `peer` go over `path` from here on.
    pub(in crate::node) fn use_path(&mut self, peer: PeerId, path: Path) {
        let Some(neighbour) = self.links.neighbours.get_mut(&peer) else {
            return;
        };
        match &mut neighbour.live {
            None => self.sockets.set_best(neighbour.route, path),
            // A live link asks on the path itself, and takes it if it has nothing better.
            Some(live) => {
                live.upkeep.suggest(path, self.clock.now());
                if live.upkeep.is_searching() {
                    self.knock_with_link(peer, path);
                }
                self.drain_upkeep(peer);
            }
        }
    }

    /// Sends something of the link that hears nothing to where the peer was heard in another conversation: if it has
    /// been restarted, it knows the link's keys no longer, and says so with a reset.
    fn knock_with_link(&mut self, peer: PeerId, path: Path) {
        let Some(neighbour) = self.links.neighbours.get(&peer) else {
            return;
        };
        self.sockets.set_best(neighbour.route, path);
        self.poke(peer);
    }

    /// The address that QUIC dials to reach `peer`.
    pub(in crate::node) fn dial_address(&self, peer: PeerId) -> Option<SocketAddr> {
        let route = self.links.neighbours.get(&peer)?.route;
        self.sockets.virtual_address(route)
    }

    /// Where QUIC packets of `peer`, or of somebody in its place, came from.
    pub(in crate::node) fn heard_at(&self, peer: PeerId) -> Vec<SocketAddr> {
        let neighbour = self.links.neighbours.get(&peer);
        let paths = neighbour.map(|neighbour| self.sockets.paths(neighbour.route));
        paths.unwrap_or_default().iter().map(|path| path.remote).collect()
    }

    /// Whether QUIC has heard anything of `peer`.
    pub(in crate::node) fn hears_quic(&self, peer: PeerId) -> bool {
        let route = self.links.neighbours.get(&peer).map(|neighbour| neighbour.route);
        let traffic = route.and_then(|route| self.sockets.traffic(route));
        traffic.is_some_and(|traffic| traffic.heard_at.is_some())
    }
}

impl Driver {
    /// Takes QUIC from `path` for that of `peer`, who was heard there.
    pub(in crate::node) fn admit(&mut self, peer: PeerId, path: Path) {
        if let Some(neighbour) = self.links.neighbours.get(&peer) {
            self.sockets.admit(neighbour.route, path);
        }
    }

    /// `path` as users see it.
    pub(in crate::node) fn path_report(&self, path: Path) -> PathReport {
        let bound = self.bound_to(path.socket).unwrap_or(path.remote);
        let local = self.addresses.source(bound, path.remote);
        PathReport { kind: kind_of(path.remote, local), local, remote: path.remote }
    }

    /// Over which sockets `candidates` are reached.
    pub(in crate::node) fn paths_to(&self, candidates: &[Candidate]) -> Vec<Path> {
        candidates.iter().filter_map(|candidate| self.sockets.path_to(candidate.address)).collect()
    }

    /// Takes in a probe of a connected peer.
    pub(in crate::node) fn handle_link_probe(&mut self, peer: PeerId, path: Path, probe: Probe) {
        let now = self.clock.now();
        if let Some(live) = self.links.live(peer) {
            live.upkeep.handle_probe(path, probe, now);
            self.drain_upkeep(peer);
        }
    }

    /// Takes in that these routes have sent something that was not answered yet.
    pub(in crate::node) fn handle_unanswered(&mut self, routes: &BTreeSet<RouteId>) {
        let peers = routes.iter().filter_map(|route| self.links.by_route.get(route).copied());
        for peer in peers.collect::<Vec<_>>() {
            self.tell_traffic(peer);
            self.drain_upkeep(peer);
        }
    }

    /// Looks after the paths that are due.
    pub(in crate::node) fn wake_links(&mut self, now: Instant) {
        let is_due = |neighbour: &Neighbour| {
            let due = neighbour.live.as_ref().and_then(|live| live.upkeep.poll_timeout());
            due.is_some_and(|due| due <= now)
        };
        let due = self.links.neighbours.iter().filter(|(_, neighbour)| is_due(neighbour));
        for peer in due.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.tell_traffic(peer);
            if let Some(live) = self.links.live(peer) {
                live.upkeep.handle_timeout(now);
            }
            self.drain_upkeep(peer);
        }
        let live = self.links.neighbours.iter().filter(|(_, n)| n.live.is_some());
        for peer in live.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.look_after(peer);
        }
    }

    /// Tells the upkeep of the paths to `peer` what went over them; the next send without an answer will be
    /// told to us.
    pub(in crate::node) fn tell_traffic(&mut self, peer: PeerId) {
        let now = self.clock.now();
        let Some(neighbour) = self.links.neighbours.get_mut(&peer) else {
            return;
        };
        if let (Some(live), Some(traffic)) =
            (&mut neighbour.live, self.sockets.traffic(neighbour.route))
        {
            live.upkeep.handle_traffic(traffic, now);
            if live.loss.is_due(now) {
                live.loss.note(live.link.packets(), now);
            }
        }
    }

    /// Performs what the upkeep of the paths to `peer` decides.
    pub(in crate::node) fn drain_upkeep(&mut self, peer: PeerId) {
        while let Some(neighbour) = self.links.neighbours.get_mut(&peer)
            && let Some(live) = &mut neighbour.live
            && let Some(output) = live.upkeep.poll_output()
        {
            let route = neighbour.route;
            match output {
                upkeep::Output::Transmit { path, probe } => {
                    let conversation = live.conversation;
                    self.send_probe(conversation, path, probe);
                }
                upkeep::Output::Admit(path) => self.sockets.admit(route, path),
                upkeep::Output::Revoke(path) => self.sockets.revoke(route, path),
                upkeep::Output::UseBest { path, rtt } => {
                    self.sockets.set_best(route, path);
                    live.link.nudge();
                    live.path_since = self.clock.now();
                    tracing::info!(?peer, %path, "the path changes");
                    let path = self.path_report(path);
                    self.events.emit(Event::PathChanged { peer, path, rtt });
                }
                upkeep::Output::Answered => self.sockets.note_answered(route),
                upkeep::Output::Lost { silent_for } => {
                    tracing::warn!(?peer, ?silent_for, "no path answers");
                    self.switchboard.set_hearing(peer, Hearing::Silent);
                }
                upkeep::Output::Recovered => {
                    live.link.nudge();
                    tracing::info!(?peer, "a path answers again");
                    self.switchboard.set_hearing(peer, Hearing::Heard);
                }
            }
        }
        self.look_after(peer);
    }
}

fn kind_of(remote: SocketAddr, local: SocketAddr) -> PathKind {
    if remote.ip().is_loopback() || remote.ip() == local.ip() {
        return PathKind::Loopback;
    }
    match remote.ip() {
        IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() => PathKind::Lan,
        IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => PathKind::Lan,
        IpAddr::V4(_) | IpAddr::V6(_) => PathKind::Direct,
    }
}
