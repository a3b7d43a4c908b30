//! Offers by helpers: we serve others (`desk`), others serve us (`links`, `recruiting`), and we send peers
//! offers by theirs (`errands`).

pub(super) mod desk;
pub(super) mod errands;
pub(super) mod links;
pub(super) mod reachability;
pub(super) mod recruiting;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use self::{
    desk::Desk,
    errands::Errands,
    links::{HelperLinks, Output, WayBack},
    reachability::{Reachability, is_public},
    recruiting::{Lists, Recruiting},
};
use super::{
    answering::Carrier,
    config::{HelperMode, Role},
    dial::Found,
    driver::{DialId, Driver, Outcome},
    event::Target,
    found,
};
use crate::{
    datagram::Path,
    dht::location::Name,
    entropy::Entropy,
    forwarding::{self, Helper, Packet},
    identity::{Identity, PeerId},
    transport::route::RouteId,
};

/// Everything that has to do with helpers.
#[derive(Debug)]
pub(super) struct Helping {
    desk: Option<Desk>,
    links: HelperLinks,
    recruiting: Recruiting,
    errands: Errands,
    pub(super) reachability: Reachability,
    /// Handshakes that came in unannounced.
    unannounced: BTreeMap<RouteId, IpAddr>,
    /// Our public addresses when we last looked.
    public: Vec<SocketAddr>,
    /// By whom offers reached peers that were found before, the one found last at the end.
    known: VecDeque<(PeerId, Vec<Helper>)>,
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
            unannounced: BTreeMap::new(),
            public: Vec::new(),
            known: VecDeque::new(),
        }
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let recruiting = self.recruiting.poll_timeout(self.missing());
        let due = [self.links.poll_timeout(), self.errands.poll_timeout(), recruiting];
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

    /// By whom offers reach `peer`, if it was found before.
    pub(super) fn known(&self, peer: PeerId) -> Vec<Helper> {
        let known = self.known.iter().find(|(known, _)| *known == peer);
        known.map(|(_, helpers)| helpers.clone()).unwrap_or_default()
    }

    /// Remembers by whom offers reach a peer.
    pub(super) fn remember(&mut self, found: &Found) {
        self.known.retain(|(known, _)| *known != found.peer);
        if self.known.len() >= KNOWN_MAX {
            self.known.pop_front();
        }
        self.known.push_back((found.peer, found.helpers.clone()));
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
    pub(super) fn forward_offer(&mut self, id: DialId, helpers: &[Helper], sealed: &[u8]) {
        let path = |helper: &Helper| Some((self.sockets.path_to(helper.address)?, helper.token));
        let helpers: Vec<_> = helpers.iter().filter_map(path).collect();
        let times = (self.clock.now(), &mut self.entropy);
        self.helping.errands.begin(id, &helpers, sealed, times);
        self.wake_errands();
    }

    /// The peer that a dial is reaching has read its offer.
    pub(super) fn quieten_errands(&mut self, id: DialId) {
        self.helping.errands.handle_read(id, self.clock.now());
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
        if self.config.helper_mode == HelperMode::Auto && self.helping.desk.take().is_some() {
            // Whether we can be reached at the new addresses is not known.
            self.unlist_as_helper();
        }
    }

    /// Somebody begins to dial us.
    pub(super) fn note_arrival(&mut self, route: RouteId) {
        let now = self.clock.now();
        let Some(ip) = self.sockets.paths(route).first().map(|path| path.remote.ip()) else {
            return;
        };
        let is_known = self.links.by_route.contains_key(&route);
        if !is_known
            && self.helping.reachability.is_unannounced(ip, now)
            && self.helping.unannounced.len() < UNANNOUNCED_MAX
        {
            self.helping.unannounced.insert(route, ip);
        }
    }

    /// What somebody who dialled us came to: `peer`, if it has proved who it is.
    pub(super) fn note_accepted(&mut self, route: RouteId, peer: Option<PeerId>) {
        let (Some(ip), Some(peer)) = (self.helping.unannounced.remove(&route), peer) else {
            return;
        };
        self.helping.reachability.handle_witness(peer, ip);
        let is_willing =
            self.config.helper_mode == HelperMode::Auto && self.config.role == Role::Server;
        if is_willing && self.helping.reachability.is_proved() {
            self.begin_serving();
        }
    }

    /// Tells helpers that the node stops.
    pub(super) fn end_helping(&mut self) {
        self.helping.links.end();
        self.drain_helping();
    }

    fn send_forwarding(&mut self, path: Path, datagram: &[u8]) {
        self.helping.reachability.handle_sent(path.remote.ip(), self.clock.now());
        self.sockets.send(path, datagram);
    }
}

/// Handshakes that are remembered to have come in unannounced; as many as run at a time.
const UNANNOUNCED_MAX: usize = 64;

/// Peers whose helpers are remembered.
const KNOWN_MAX: usize = 256;
