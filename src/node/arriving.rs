//! Somebody dials us: who may come in, and what becomes of those who do.

use std::time::Instant;

use super::{
    driver::{Driver, Outcome},
    event::Direction,
};
use crate::{
    identity::PeerId,
    service::Service,
    ticket::Ticket,
    transport::{
        admission::Admission,
        link::{Caller, Link, LinkError},
        quic::Arrival,
        route::RouteId,
    },
};

impl Driver {
    /// Lets somebody in who dialled us, as far as it gets.
    pub(super) fn handle_arrival(&mut self, arrival: Arrival) {
        let Some(route) = self.sockets.route_of(arrival.address()) else {
            return;
        };
        self.note_arrival(route);
        let caller = self.caller(route);
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
        let Some(offer) = self.answering.offer_of(peer) else {
            return false;
        };
        match self.admission() {
            Admission::Anyone => true,
            Admission::Linked(peers) => peers.contains(&peer),
            Admission::Only { peers, keys } => {
                peers.contains(&peer) || keys.iter().any(|key| offer.proves(key, &self.us))
            }
        }
    }

    /// Who may be linked to this node.
    fn admission(&self) -> Admission {
        if self.links.count() >= self.config.peers_max {
            return Admission::Linked(self.links.peers().collect());
        }
        let secret = self.config.service.as_ref().and_then(Service::admission_key);
        if self.config.allow.is_empty() && secret.is_none() {
            return Admission::Anyone;
        }
        let ticket = Ticket::of(&self.config.identity, Vec::new()).secret.admission_key();
        let keys = secret.into_iter().chain([ticket]).collect();
        Admission::Only { peers: self.config.allow.clone(), keys }
    }

    /// Takes in that QUIC which somebody dialled to us has become a link, or not.
    pub(super) fn handle_accepted(
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
            Some(own) => self.sockets.adopt_stranger(route, own),
            None => {
                self.sockets.keep(route);
                self.adopt_route(peer, route, &[]);
            }
        }
        let began = self.answering.since(peer).unwrap_or(began);
        self.link_up(link, Direction::Incoming, began);
    }
}
