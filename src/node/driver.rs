//! The one task that owns every machine of a node and passes things between them.
//!
//! It holds no protocol decision: a datagram goes to the machine that its first bytes name, a machine's
//! outputs are performed, and whatever takes time runs as a task that reports back with an [`Outcome`].
//! What belongs together stands in a room of its own, as further methods of [`Driver`]: `reaching` (we reach
//! somebody), `being_reached` (somebody reaches us), `links` and their paths, `messages`, the `network`
//! around us, and `helping` (offers by helpers).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{sleep_until, timeout},
};

use super::{
    being_reached::{
        answering::{Answering, Carrier, Slot},
        publishing::{Published, Publishing},
    },
    clock::Clock,
    config::Config,
    event::Status,
    events::Events,
    handle::{Answer, Request},
    helping::Helping,
    links::{
        linking::{LinkEnd, Links},
        rescue::Lookout,
    },
    messages::{
        outbox::{Kept, Outbox, Seen as Noted},
        received::Deliveries,
        sessions::Sessions,
        switchboard::Switchboard,
    },
    network::{
        addresses::Addresses,
        checking::{CheckId, Checking},
        extra::Extra,
        lan::{Heard, Lan, Neighbourhood},
        roaming::{Wakefulness, changed},
        sampling::Sampling,
    },
    reaching::{
        dial::Found,
        dialling::{Dialling, Wish},
        standing::Standing,
    },
};
use crate::{
    datagram::{BoundSocket, Datagram, Path},
    dht::{
        item::Item,
        location::Name,
        rendezvous::{PutError, Rendezvous},
    },
    entropy::Entropy,
    forwarding,
    identity::PeerId,
    nat::{stun, stun_server::StunServer},
    probe::{self, ConversationId, ProbeKeys},
    transport::{
        link::{Link, LinkError},
        paths::route::RouteId,
        quic::{Arrival, Endpoint, stray},
        sockets::socket_set::SocketSet,
    },
};

/// Names one dial among all of this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DialId(pub(super) u64);

/// Whose probes a conversation carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A dial of ours.
    Dial(DialId),
    /// A dial of ours that has a link over a path that is still to be proved.
    Unproved(DialId),
    /// An offer that we answer.
    Answer(PeerId),
    /// A live link.
    Link(PeerId),
}

/// What a task reports.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A lookup found a peer.
    Found(DialId, Found),
    /// A lookup has ended, with so many DHT nodes' answers.
    LookupEnded(DialId, usize),
    /// An offer was stored, or not.
    OfferStored(DialId, Result<Item, PutError>),
    /// Something lies in our inbox, in this slot.
    Inbox(Vec<u8>, Slot),
    /// Something else lies where the offer of a dial lay, under this number.
    Answered(DialId, i64, Vec<u8>),
    /// The record of an offer's maker was found.
    Vouched(PeerId, Found),
    /// QUIC that we dialled has become a link, or not.
    Dialled(DialId, PeerId, Result<Link, LinkError>),
    /// QUIC that was dialled to us at this moment has become a link, or not.
    Accepted(RouteId, Instant, Result<Link, LinkError>),
    /// A link is gone.
    LinkEnded(LinkEnd),
    /// What became of a message in the outbox.
    Kept(Kept),
    /// A record was read or written.
    Published(Published),
    /// The peer of this link says where it is now.
    PeerMoved(PeerId, Vec<SocketAddr>),
    /// Somebody is on the local network.
    Neighbour(Heard),
    /// A lookup for helpers under this name has ended.
    HelpersFound(Name, Vec<Found>),
    /// A lookup for this check of the network has ended, with so many DHT nodes' answers.
    CheckedFor(CheckId, Vec<Found>, usize),
    /// STUN servers' names were resolved.
    StunResolved(Vec<(String, Vec<SocketAddr>)>),
}

/// Everything a node is.
pub(super) struct Driver {
    pub(super) config: Config,
    pub(super) us: PeerId,
    pub(super) clock: Clock,
    pub(super) started: Instant,
    pub(super) entropy: Entropy,
    pub(super) sockets: Arc<SocketSet>,
    pub(super) bound_sockets: Vec<BoundSocket>,
    pub(super) endpoint: Endpoint,
    pub(super) rendezvous: Option<Arc<dyn Rendezvous>>,
    pub(super) lan: Option<Arc<dyn Lan>>,
    pub(super) addresses: Addresses,
    pub(super) wakefulness: Wakefulness,
    /// Nobody out there answers.
    pub(super) is_cut_off: bool,
    pub(super) extra: Extra,
    pub(super) sampling: Sampling,
    pub(super) checking: Checking,
    pub(super) publishing: Publishing,
    pub(super) neighbourhood: Neighbourhood,
    pub(super) standing: Standing,
    pub(super) helping: Helping,
    pub(super) lookout: Lookout,
    pub(super) dialling: Dialling,
    pub(super) answering: Answering,
    pub(super) links: Links,
    pub(super) sessions: Sessions,
    pub(super) switchboard: Switchboard,
    pub(super) outbox: Option<Outbox>,
    pub(super) events: Events,
    pub(super) deliveries: Deliveries,
    pub(super) conversations: BTreeMap<ConversationId, (Owner, ProbeKeys)>,
    stun_server: StunServer,
    tasks: JoinSet<()>,
    outcomes: mpsc::Sender<Outcome>,
}

/// What arrives at the driver from outside.
pub(super) struct Inputs {
    /// The user's calls.
    pub(super) requests: mpsc::Receiver<Request>,
    /// STUN, probes, and what goes by helpers.
    pub(super) datagrams: mpsc::Receiver<Datagram>,
    /// What tasks report.
    pub(super) outcomes: mpsc::Receiver<Outcome>,
    /// The network may be another one.
    pub(super) changes: Option<watch::Receiver<()>>,
}

/// What a driver starts with.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) entropy: Entropy,
    pub(super) sockets: Arc<SocketSet>,
    pub(super) bound_sockets: Vec<BoundSocket>,
    pub(super) endpoint: Endpoint,
    pub(super) rendezvous: Option<Arc<dyn Rendezvous>>,
    pub(super) lan: Option<Arc<dyn Lan>>,
    pub(super) addresses: Addresses,
    pub(super) extra: Extra,
    pub(super) events: Events,
    pub(super) deliveries: Deliveries,
    pub(super) switchboard: Switchboard,
    pub(super) outbox: Option<Outbox>,
    /// What an earlier run was handed.
    pub(super) seen: Vec<Noted>,
    pub(super) outcomes: mpsc::Sender<Outcome>,
}

/// The one thing of all that can happen that did.
enum Happened {
    Request(Option<Request>),
    Datagram(Datagram),
    Outcome(Outcome),
    Arrival(Arrival),
    Unanswered(BTreeSet<RouteId>),
    Room,
    NetworkChanged,
    TaskEnded,
    TimePassed,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { config, clock, mut entropy, sockets, bound_sockets, .. } = parts;
        let Parts { endpoint, rendezvous, lan, addresses, extra, events, deliveries, .. } = parts;
        let Parts { switchboard, outbox, seen, outcomes, .. } = parts;
        let mut sessions = Sessions::default();
        sessions.remember(seen, (clock.now(), clock.unix()));
        Self {
            us: config.identity.peer_id(),
            helping: Helping::new(&config.identity, &mut entropy),
            lookout: Lookout::default(),
            config,
            clock,
            started: clock.now(),
            entropy,
            sockets,
            bound_sockets,
            endpoint,
            rendezvous,
            lan,
            addresses,
            wakefulness: Wakefulness::new(clock.now(), clock.unix()),
            is_cut_off: false,
            extra,
            sampling: Sampling::default(),
            checking: Checking::default(),
            publishing: Publishing::default(),
            neighbourhood: Neighbourhood::default(),
            standing: Standing::default(),
            dialling: Dialling::default(),
            answering: Answering::default(),
            links: Links::default(),
            sessions,
            switchboard,
            outbox,
            events,
            deliveries,
            conversations: BTreeMap::new(),
            stun_server: StunServer::new(),
            tasks: JoinSet::new(),
            outcomes,
        }
    }

    /// Runs until the user asks for a shutdown, or is gone.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        self.begin_publishing();
        self.begin_announcing();
        self.begin_discovery();
        self.begin_helping();
        self.begin_standing();
        self.drain_outbox();
        let answer = loop {
            match self.next(&mut inputs).await {
                Happened::Request(None) => break None,
                Happened::Request(Some(Request::Shutdown { answer })) => break Some(answer),
                Happened::Request(Some(request)) => self.handle_request(request),
                Happened::Datagram(datagram) => self.handle_datagram(&datagram),
                Happened::Outcome(outcome) => self.handle_outcome(outcome),
                Happened::Arrival(arrival) => self.handle_arrival(arrival),
                Happened::Unanswered(routes) => self.handle_unanswered(&routes),
                Happened::Room => self.events.flush(),
                Happened::NetworkChanged => self.look_at_network(),
                Happened::TaskEnded => {}
                Happened::TimePassed => self.wake(),
            }
            self.go_on_checking();
        };
        self.stop(answer).await;
    }

    async fn next(&mut self, inputs: &mut Inputs) -> Happened {
        let now = self.clock.now();
        // Something is always due: the look at the clock.
        let due = self.poll_timeout().unwrap_or(now + Duration::from_secs(60));
        let Self { endpoint, sockets, events, tasks, .. } = self;
        tokio::select! {
            biased;
            request = inputs.requests.recv() => Happened::Request(request),
            Some(datagram) = inputs.datagrams.recv() => Happened::Datagram(datagram),
            Some(outcome) = inputs.outcomes.recv() => Happened::Outcome(outcome),
            Some(arrival) = endpoint.arrival() => Happened::Arrival(arrival),
            routes = sockets.next_unanswered() => Happened::Unanswered(routes),
            () = events.room() => Happened::Room,
            () = changed(&mut inputs.changes) => Happened::NetworkChanged,
            Some(_) = tasks.join_next() => Happened::TaskEnded,
            () = sleep_until(due.into()) => Happened::TimePassed,
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = [
            self.addresses.poll_timeout(),
            Some(self.wakefulness.poll_timeout()),
            self.lookout.poll_timeout(),
            self.extra.poll_timeout(),
            self.sampling.poll_timeout(),
            self.checking.poll_timeout(),
            self.publishing.poll_timeout(),
            self.standing.poll_timeout(),
            self.helping.poll_timeout(),
            self.dialling.poll_timeout(),
            self.answering.poll_timeout(),
            self.links.poll_timeout(),
            self.sessions.poll_timeout(),
            self.outbox.as_ref().and_then(Outbox::poll_timeout),
        ];
        due.into_iter().flatten().min()
    }

    fn wake(&mut self) {
        let now = self.clock.now();
        self.wake_roaming(now);
        self.wake_addresses(now);
        self.wake_extra(now);
        self.wake_sampling(now);
        self.wake_checking(now);
        self.wake_publishing(now);
        self.wake_standing(now);
        self.wake_helping(now);
        self.wake_dials(now);
        self.wake_answers(now);
        self.wake_links(now);
        self.wake_lookout(now);
        self.wake_sessions(now);
        self.wake_outbox(now);
    }

    fn handle_request(&mut self, request: Request) {
        // Whoever does not wait for an answer any more needs none.
        match request {
            Request::Connect { target, timeout, answer } => {
                self.standing.handle_connect(&target);
                self.fulfil(target, timeout, Wish::Connect(answer));
            }
            Request::Send { target, message, timeout, answer, turn } => {
                match self.outbox {
                    Some(_) => self.keep((target, message), timeout, answer),
                    None => self.fulfil(target, timeout, Wish::Send(Box::new(message), answer)),
                }
                drop(turn);
            }
            Request::Disconnect { peer, answer } => self.disconnect(peer, answer),
            Request::Peers { answer } => drop(answer.send(Ok(self.peer_statuses()))),
            Request::Status { answer } => drop(answer.send(Ok(self.status()))),
            Request::Ping { peer, answer } => self.ping(peer, answer),
            Request::Netcheck { question, timeout, answer } => {
                self.check_network(question, timeout, answer);
            }
            Request::Shutdown { .. } => unreachable!("the loop ends with a shutdown, see run"),
        }
    }

    /// Gives a datagram that is not QUIC to whom it is for.
    fn handle_datagram(&mut self, datagram: &Datagram) {
        let Datagram { socket, remote, bytes } = datagram;
        if bytes.first() == Some(&forwarding::FIRST_BYTE) {
            return self.handle_forwarding(Path { socket: *socket, remote: *remote }, bytes);
        }
        if let Some(conversation) = probe::conversation_of(bytes) {
            let path = Path { socket: *socket, remote: *remote };
            self.handle_probe(conversation, path, bytes);
            return;
        }
        if stray::may_be_stray(bytes) {
            if let Some(answer) = self.endpoint.answer_stray(bytes, self.clock.now()) {
                tracing::debug!(%remote, "a packet of an earlier run: resetting it");
                self.sockets.send(Path { socket: *socket, remote: *remote }, &answer);
            }
            return;
        }
        match stun::decode(bytes) {
            Ok(stun::Message::Response(response)) if self.extra.is_samplers(*socket) => {
                self.handle_sampled((*socket, *remote), &response);
            }
            Ok(stun::Message::Response(response)) if self.extra.is_checks(*socket) => {
                self.handle_check_response((*socket, *remote), &response);
            }
            Ok(stun::Message::Response(response)) => {
                let from = (*socket, *remote);
                match self.extra.dial_of(*socket) {
                    Some(id) => {
                        self.tell_dial(id, |dial, now| dial.handle_response(from, &response, now));
                    }
                    None => self.handle_stun_response(from, &response),
                }
            }
            Ok(stun::Message::Request(request)) if self.handle_knock(request) => {}
            Ok(stun::Message::Request(request)) => {
                let now = self.clock.now();
                if let Some(answer) = self.stun_server.handle_request(*remote, request, now) {
                    self.sockets.send(Path { socket: *socket, remote: *remote }, &answer);
                }
            }
            Err(reason) => tracing::trace!(%remote, ?reason, "a datagram that is nothing to us"),
        }
    }

    fn handle_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Found(id, found) => {
                self.handle_found(id, found);
            }
            Outcome::LookupEnded(id, answered) => {
                self.tell_dial(id, |dial, now| dial.handle_lookup_ended(answered, now));
            }
            Outcome::OfferStored(id, stored) => self.handle_offer_stored(id, stored),
            Outcome::Inbox(sealed, slot) => {
                self.handle_offer(&sealed, Carrier::Inbox(slot), None);
            }
            Outcome::Answered(id, seq, sealed) => self.handle_answered(id, seq, &sealed),
            Outcome::Vouched(peer, found) => self.handle_vouched(peer, &found),
            Outcome::Dialled(id, peer, result) => self.handle_dialled(id, peer, result),
            Outcome::Accepted(route, began, result) => self.handle_accepted(route, began, result),
            Outcome::LinkEnded(end) => self.handle_link_ended(end),
            Outcome::Kept(kept) => self.handle_kept(kept),
            Outcome::Published(published) => self.handle_published(published),
            Outcome::PeerMoved(peer, addresses) => self.handle_peer_moved(peer, &addresses),
            Outcome::Neighbour(heard) => self.handle_neighbour(heard),
            Outcome::HelpersFound(name, found) => self.handle_helpers_found(&name, found),
            Outcome::CheckedFor(id, found, nodes) => self.handle_checked_for(id, found, nodes),
            Outcome::StunResolved(servers) => self.handle_stun_resolved(&servers),
        }
    }

    /// Runs `task` as long as the driver runs.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.spawn(task)
    }

    /// Where tasks report.
    pub(super) fn outcomes(&self) -> mpsc::Sender<Outcome> {
        self.outcomes.clone()
    }

    fn status(&self) -> Status {
        let dht = self.rendezvous.as_ref().map(|rendezvous| rendezvous.health());
        Status {
            peer_id: self.us,
            local_addresses: self.addresses.local(&self.bound_sockets),
            public_addresses: self.addresses.public(),
            nat: self.addresses.nat_in_words(),
            online: self.publishing.is_online(),
            uptime: self.clock.now().saturating_duration_since(self.started),
            peers: self.links.count(),
            dht_nodes: dht.map_or(0, |health| health.nodes_answering),
        }
    }

    async fn stop(mut self, answer: Option<Answer<()>>) {
        self.end_helping();
        let farewells = self.close_all();
        let retired = self.retire();
        tokio::join!(farewells, retired);
        tracing::debug!("peers and the DHT have been told");
        self.note_seen();
        self.sessions.end_all("the node is stopping");
        self.endpoint.close();
        // In vain, a peer finds out by itself, a little later.
        let _ = timeout(FAREWELL_TIME, self.endpoint.wait_idle()).await;
        tracing::debug!("stopped");
        self.tasks.abort_all();
        if let Some(answer) = answer {
            let _ = answer.send(Ok(()));
        }
    }
}

/// How long the last packets of closed connections are waited for.
const FAREWELL_TIME: Duration = Duration::from_millis(500);
