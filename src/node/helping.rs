//! Offers by helpers: we serve others (`desk`), others serve us (`links`, `recruiting`), and we send peers
//! offers by theirs (`errands`). Whether we can be reached, so that we can serve, others have to show (`reachability`,
//! `witnessing`).

pub(super) mod desk;
pub(super) mod errands;
pub(super) mod links;
pub(super) mod reachability;
pub(super) mod recruiting;
pub(super) mod witnessing;

use std::{net::SocketAddr, time::Instant};

use self::{
    desk::Desk,
    errands::Errands,
    links::{HelperLinks, Output, WayBack},
    reachability::{Reachability, is_public},
    recruiting::{Lists, Recruiting},
    witnessing::Arrivals,
};
use super::{
    being_reached::answering::Carrier,
    config::{HelperMode, Role},
    driver::{DialId, Driver, Outcome},
    event::{Stage, Target},
    reaching::{dial::Found, found},
};
use crate::{
    datagram::Path,
    dht::location::Name,
    entropy::Entropy,
    forwarding::{self, Helper, Packet},
    identity::Identity,
};

/// Everything that has to do with helpers.
#[derive(Debug)]
pub(super) struct Helping {
    desk: Option<Desk>,
    links: HelperLinks,
    recruiting: Recruiting,
    errands: Errands,
    pub(super) reachability: Reachability,
    arrivals: Arrivals,
    /// Our public addresses when we last looked.
    public: Vec<SocketAddr>,
}

impl Helping {
    /// Neither serves nor is served.
    pub(super) fn new(identity: &Identity, entropy: &mut Entropy) -> Self {
        Self {
            desk: None,
            links: HelperLinks::new(entropy.fork()),
            recruiting: Recruiting::new(identity.peer_id(), entropy.fork()),
            errands: Errands::default(),
            reachability: Reachability::default(),
            arrivals: Arrivals::default(),
            public: Vec::new(),
        }
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let recruiting = self.recruiting.poll_timeout(self.missing());
        let proofs = self.reachability.poll_timeout();
        let due = [self.links.poll_timeout(), self.errands.poll_timeout(), recruiting, proofs];
        due.into_iter().flatten().min()
    }

    /// Helpers that we should have beside those that we have.
    fn missing(&self) -> usize {
        match self.desk {
            // Who can be reached needs none.
            Some(_) => 0,
            None => self.links.missing(),
        }
    }

    /// What our records are to say.
    pub(super) fn helpers(&self) -> Vec<Helper> {
        self.links.helpers()
    }

    /// Whether we forward offers to others.
    pub(super) fn serves(&self) -> bool {
        self.desk.is_some()
    }
}

impl Driver {
    /// Serves, and looks for helpers, as the user wants it.
    pub(super) fn begin_helping(&mut self) {
        let now = self.clock.now();
        if self.config.helper_mode == HelperMode::On {
            self.begin_serving();
        }
        if self.config.role == Role::Client {
            return;
        }
        let helpers = self.config.helpers.clone();
        let named = helpers.iter().map(|target| self.name_of(target).0).collect();
        let lists = match self.rendezvous {
            Some(_) => Lists::Used,
            None => Lists::Unused,
        };
        self.helping.recruiting.begin(named, lists, now);
        for target in helpers {
            if let Target::Ticket(ticket) = target {
                let found = Found::in_ticket(ticket.peer, &ticket.addresses);
                let name = Name::Ticket(ticket.peer, ticket.secret);
                self.handle_helpers_found(&name, vec![found]);
            }
        }
    }

    /// Forwards offers from here on, and says so in the DHT.
    fn begin_serving(&mut self) {
        if self.helping.desk.is_none() {
            tracing::info!("serving as a helper");
            let entropy = self.entropy.fork();
            self.helping.desk = Some(Desk::new(self.config.identity.clone(), entropy));
            self.list_as_helper();
        }
    }

    /// Gives a datagram to or from a helper to whom it is for.
    pub(super) fn handle_forwarding(&mut self, path: Path, bytes: &[u8]) {
        let (now, unix) = (self.clock.now(), self.clock.unix());
        match forwarding::parse(bytes) {
            Some(Packet::Ask { .. } | Packet::Offer { .. } | Packet::Answer { .. }) => {
                let desk = self.helping.desk.as_mut();
                let answer = desk.and_then(|desk| desk.handle_datagram(path, bytes, (now, unix)));
                if let Some((path, datagram)) = answer {
                    self.send_forwarding(path, &datagram);
                }
            }
            Some(Packet::Challenge { .. } | Packet::Grant { .. } | Packet::Delivery { .. }) => {
                let forwarded = self.helping.links.handle_datagram(path, bytes, now);
                if let Some(forwarded) = forwarded {
                    let seen = forwarded.delivered.seen;
                    tracing::debug!(helper = %path.remote, %seen, "an offer was forwarded to us");
                    let carrier = Carrier::Helper(forwarded.way_back.clone());
                    if self.handle_offer(&forwarded.delivered.offer, carrier, Some(seen)) {
                        self.helping.links.answer(&forwarded.way_back, &[]);
                    }
                }
                self.drain_helping();
            }
            Some(Packet::Reply { transaction, seen, answer }) => {
                tracing::debug!(helper = %path.remote, %seen, size = answer.len(), "an offer was answered");
                let reply = self.helping.errands.handle_reply(path, transaction, now);
                if let Some((id, is_news)) = reply {
                    if is_news {
                        self.tell_dial(id, |dial, now| dial.handle_offer_forwarded(now));
                    }
                    if !answer.is_empty() {
                        self.tell_dial(id, |dial, now| dial.handle_answer(answer, now));
                    }
                }
            }
            None => tracing::trace!(remote = %path.remote, "nothing that helpers say"),
        }
    }

    /// Tells the maker of an offer, by the helper that brought it, how our NAT gives out ports now.
    pub(super) fn answer_by_helper(&mut self, way: &WayBack, sealed: &[u8]) {
        self.helping.links.answer(way, sealed);
        self.drain_helping();
    }

    /// Sends the offer of a dial by the helpers that the peer names.
    pub(super) fn forward_offer(&mut self, id: DialId, sealed: &[u8]) {
        let helpers = self.dialling.helpers(id);
        let path = |helper: &Helper| Some((self.sockets.path_to(helper.address)?, helper.token));
        let helpers: Vec<_> = helpers.iter().filter_map(path).collect();
        let times = (self.clock.now(), &mut self.entropy);
        self.helping.errands.begin(id, &helpers, sealed, times);
        self.wake_errands();
        if !helpers.is_empty() {
            let ways: Vec<_> = helpers.iter().map(|(path, _)| path.remote.to_string()).collect();
            let detail = format!("sent to the peer's helpers: {}", ways.join(", "));
            self.tell_step(id, (None, Stage::Offer, detail), None);
        }
    }

    /// The peer that a dial is reaching is heard.
    pub(super) fn quieten_errands(&mut self, id: DialId) {
        self.helping.errands.handle_heard(id, self.clock.now());
    }

    /// Forgets the offers of a dial that is over.
    pub(super) fn end_errands(&mut self, id: DialId) {
        self.helping.errands.end(id);
    }

    fn wake_errands(&mut self) {
        let now = self.clock.now();
        while let Some((path, datagram)) = self.helping.errands.poll_transmit(now) {
            self.send_forwarding(path, &datagram);
        }
    }

    /// Does what is due.
    pub(super) fn wake_helping(&mut self, now: Instant) {
        self.wake_errands();
        self.wake_witnessing(now);
        self.helping.links.handle_timeout(now);
        self.drain_helping();
        let missing = self.helping.missing();
        if let Some(name) = self.helping.recruiting.next_source(missing, now) {
            self.look_for_helpers(name);
        }
    }

    fn look_for_helpers(&mut self, name: Name) {
        let Some(rendezvous) = self.rendezvous.clone() else {
            return;
        };
        let (clock, outcomes) = (self.clock, self.outcomes());
        self.spawn(async move {
            let (item, _) = rendezvous.get(name.record()).newest().await;
            let found = item.map(|item| found::peers_in(&item, &name, clock.unix()));
            let found = Outcome::HelpersFound(name, found.unwrap_or_default());
            // A driver that is gone needs no answer.
            let _ = outcomes.send(found).await;
        });
    }

    /// Takes in who was found; asks some of them to serve us.
    pub(super) fn handle_helpers_found(&mut self, name: &Name, found: Vec<Found>) {
        let now = self.clock.now();
        let chosen = self.helping.recruiting.choose(name, found, &self.helping.links, now);
        for Found { peer, candidates, .. } in chosen {
            let paths = self.paths_to(&candidates);
            self.helping.links.ask(peer, paths, now);
        }
        self.drain_helping();
    }

    fn drain_helping(&mut self) {
        let now = self.clock.now();
        while let Some(output) = self.helping.links.poll_output() {
            match output {
                Output::Transmit(path, datagram) => self.send_forwarding(path, &datagram),
                Output::Gone(helper) => {
                    tracing::info!(?helper, "a helper does not answer");
                    self.helping.recruiting.handle_gone(helper, now);
                }
                Output::Changed => {
                    self.pace_inboxes(now);
                    if self.helping.links.missing() > 0 {
                        self.helping.recruiting.hurry(now);
                    }
                    self.renew_records();
                }
            }
        }
    }

    /// Our addresses are others than before, or known for the first time.
    pub(super) fn handle_own_addresses(&mut self) {
        let now = self.clock.now();
        let candidates = self.addresses.gathered().candidates;
        let addresses = candidates.into_iter().map(|candidate| candidate.address);
        let public: Vec<SocketAddr> = addresses.filter(|at| is_public(at.ip())).collect();
        if self.helping.public == public {
            return;
        }
        self.helping.public = public;
        self.helping.links.handle_moved(now);
        self.drain_helping();
        self.helping.reachability.handle_moved();
        self.tell_what_is_proved();
        if self.config.helper_mode == HelperMode::Auto && self.helping.desk.take().is_some() {
            // Whether we can be reached at the new addresses is not known.
            self.unlist_as_helper();
        }
    }

    /// Serves from here on, if everybody can reach us and the user leaves it to us.
    pub(super) fn serve_if_reachable(&mut self) {
        let is_willing =
            self.config.helper_mode == HelperMode::Auto && self.config.role == Role::Server;
        if is_willing && self.helping.reachability.is_proved(self.clock.now()) {
            self.begin_serving();
        }
    }

    /// Tells helpers that the node stops.
    pub(super) fn end_helping(&mut self) {
        self.helping.links.end();
        self.drain_helping();
    }

    fn send_forwarding(&mut self, path: Path, datagram: &[u8]) {
        self.helping.reachability.handle_sent(path.remote, self.clock.now());
        self.sockets.send(path, datagram);
    }
}
