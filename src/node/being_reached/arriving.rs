//! Somebody dials us: who may come in, and what becomes of those who do.

use std::time::Instant;

use crate::{
    identity::PeerId,
    node::{
        driver::{Driver, Outcome},
        event::Direction,
        reaching::dialling::assumed_rtt,
    },
    offer::Offer,
    sealing::Key,
    service::Service,
    ticket::Ticket,
    transport::{
        link::{Caller, Link, LinkError, admission::Admission},
        paths::route::RouteId,
        quic::Arrival,
    },
};

impl Driver {
    /// Lets somebody in who dialled us, as far as it gets.
    pub(in crate::node) fn handle_arrival(&mut self, mut arrival: Arrival) {
        let Some(route) = self.sockets.route_of(arrival.address()) else {
            return;
        };
        self.note_arrival(route);
        // A dialler takes answers only from where it dials to.
        self.settled_path(route, Direction::Incoming);
        let caller = self.caller(route);
        if let Caller::Announced(peer) = &caller
            && let Some(since) = self.answering.since(*peer)
        {
            // It dials as soon as it hears our first probe: a round trip ago we sent it.
            arrival.assume_rtt(assumed_rtt(self.clock.now().saturating_duration_since(since)));
        }
        let (endpoint, outcomes) = (self.endpoint.clone(), self.outcomes());
        let began = self.clock.now();
        self.spawn(async move {
            let result = Link::accept(&endpoint, arrival, caller).await;
            // A driver that is gone needs no answer.
            let _ = outcomes.send(Outcome::Accepted(route, began, result)).await;
        });
    }

    /// What is known of whoever comes in by `route`.
    fn caller(&self, route: RouteId) -> Caller {
        let peer = self.links.by_route.get(&route).copied();
        let announced = peer.filter(|&peer| self.admits_offer_of(peer));
        announced.map_or_else(|| Caller::Unknown(self.admission()), Caller::Announced)
    }

    fn admits_offer_of(&self, peer: PeerId) -> bool {
        self.answering.offer_of(peer).is_some_and(|offer| self.admits(offer))
    }

    /// Whether the maker of `offer` may be linked to this node.
    pub(in crate::node) fn admits(&self, offer: &Offer) -> bool {
        match self.admission() {
            Admission::Anyone => true,
            Admission::Linked(peers) => peers.contains(&offer.from),
            Admission::Only { peers, keys } => {
                peers.contains(&offer.from) || keys.iter().any(|key| offer.proves(key, &self.us))
            }
        }
    }

    /// Who may be linked to this node.
    pub(in crate::node) fn admission(&self) -> Admission {
        if self.links.count() >= self.config.peers_max {
            return Admission::Linked(self.links.peers().collect());
        }
        let has_secret = self.config.service.as_ref().and_then(Service::admission_key).is_some();
        if self.config.allow.is_empty() && !has_secret {
            return Admission::Anyone;
        }
        Admission::Only { peers: self.config.allow.clone(), keys: self.admission_keys() }
    }

    /// The keys that prove knowledge of a secret of ours: that of the service, and our ticket's.
    pub(in crate::node) fn admission_keys(&self) -> Vec<Key> {
        let secret = self.config.service.as_ref().and_then(Service::admission_key);
        let ticket = Ticket::of(&self.config.identity, Vec::new()).secret.admission_key();
        secret.into_iter().chain([ticket]).collect()
    }

    /// Takes in that QUIC which somebody dialled to us has become a link, or not.
    pub(in crate::node) fn handle_accepted(
        &mut self,
        route: RouteId,
        began: Instant,
        result: Result<Link, LinkError>,
    ) {
        self.note_accepted(route, result.as_ref().ok().map(Link::peer_id));
        let link = match result {
            Ok(link) => link,
            Err(error) => {
                tracing::debug!(%error, "somebody who dialled us did not become a link");
                return;
            }
        };
        let peer = link.peer_id();
        match self.links.neighbours.get(&peer).map(|neighbour| neighbour.route) {
            Some(own) if own == route => {}
            Some(own) => {
                let came_by = self.sockets.best(route);
                self.sockets.adopt_stranger(route, own);
                // It dialled before it was heard, and takes answers only from where it dialled to: a path that
                // answered a probe meanwhile is none that it listens to.
                if let Some(path) = came_by.filter(|_| !self.links.is_live(peer)) {
                    self.sockets.set_best(own, path);
                }
            }
            None => {
                self.sockets.keep(route);
                self.adopt_route(peer, route, &[]);
            }
        }
        let began = self.answering.since(peer).unwrap_or(began);
        self.link_up(link, Direction::Incoming, began);
    }
}
