//! Links and their paths: which peers are connected, over which path, and what becomes of their messages.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::AbortHandle, time::timeout};

use super::rescue::Rescue;
use crate::{
    candidate::{CANDIDATES_MAX, Candidate, CandidateKind},
    failure::{Code, Failure},
    identity::PeerId,
    node::{
        driver::{Driver, Outcome, Owner},
        event::{Connection, Direction, Event, PeerStatus, Pong, Stage, Target},
        explain,
        handle::Answer,
        messages::{
            outbox::Kept,
            switchboard::{Line, Posting},
        },
        reaching::dialling::{Waiting, Wish},
    },
    probe::ConversationId,
    proto::Message,
    transport::{
        link::{Link, LinkError, loss::LossMeter},
        paths::{route::RouteId, upkeep::Upkeep},
        session::Durability,
    },
};

/// All peers that QUIC packets go to or come from.
#[derive(Debug, Default)]
pub(in crate::node) struct Links {
    pub(in crate::node) neighbours: BTreeMap<PeerId, Neighbour>,
    pub(in crate::node) by_route: BTreeMap<RouteId, PeerId>,
    generations: u64,
    /// Who waits for the end of a link.
    farewells: BTreeMap<PeerId, Vec<Answer<()>>>,
}

#[derive(Debug)]
pub(in crate::node) struct Neighbour {
    pub(in crate::node) route: RouteId,
    pub(in crate::node) candidates: Vec<Candidate>,
    pub(in crate::node) live: Option<Live>,
}

/// A link that is up.
#[derive(Debug)]
pub(in crate::node) struct Live {
    pub(in crate::node) link: Arc<Link>,
    pub(in crate::node) upkeep: Upkeep,
    generation: u64,
    pub(in crate::node) direction: Direction,
    /// The conversation of the offer that led here, if one did.
    offered: Option<ConversationId>,
    pub(in crate::node) conversation: ConversationId,
    /// What was dialled, if it was us.
    pub(in crate::node) target: Option<Target>,
    pub(in crate::node) rescue: Rescue,
    /// The look at where the peer leaves word.
    pub(in crate::node) watch: Option<AbortHandle>,
    since: Instant,
    /// Since when the peer is reached over the path in use.
    pub(in crate::node) path_since: Instant,
    pub(in crate::node) loss: LossMeter,
    took: Duration,
}

/// A link is gone.
#[derive(Debug)]
pub(in crate::node) struct LinkEnd {
    peer: PeerId,
    generation: u64,
    error: LinkError,
}

impl Links {
    /// The connected peer that `target` names, if there is one.
    pub(in crate::node) fn connected(&self, target: &Target) -> Option<PeerId> {
        if let Some(peer) = target.peer() {
            return Some(peer)
                .filter(|peer| self.neighbours.get(peer).is_some_and(|n| n.live.is_some()));
        }
        let live = self.neighbours.iter().filter_map(|(peer, n)| Some((*peer, n.live.as_ref()?)));
        let meant = live.filter(|(peer, live)| target.means(*peer, live.target.as_ref()));
        // Of several servers the one that was connected last.
        meant.max_by_key(|(_, live)| live.generation).map(|(peer, _)| peer)
    }

    /// Connected peers.
    pub(in crate::node) fn count(&self) -> usize {
        self.peers().count()
    }

    /// Their ids, in order.
    pub(in crate::node) fn peers(&self) -> impl Iterator<Item = PeerId> {
        let live = self.neighbours.iter().filter(|(_, neighbour)| neighbour.live.is_some());
        live.map(|(peer, _)| *peer)
    }

    /// Whether the live link to `peer` came of the offer with this conversation.
    pub(in crate::node) fn came_from(&self, peer: PeerId, conversation: ConversationId) -> bool {
        let live = self.neighbours.get(&peer).and_then(|neighbour| neighbour.live.as_ref());
        live.is_some_and(|live| live.offered == Some(conversation))
    }

    /// When a path is due for a look.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let live = self.neighbours.values().filter_map(|neighbour| neighbour.live.as_ref());
        let upkeep = live.filter_map(|live| live.upkeep.poll_timeout());
        upkeep.chain(self.poll_rescue()).min()
    }

    /// Whether there is a live link to `peer`.
    pub(in crate::node) fn is_live(&self, peer: PeerId) -> bool {
        self.neighbours.get(&peer).is_some_and(|neighbour| neighbour.live.is_some())
    }

    /// The live link to `peer`.
    pub(in crate::node) fn live(&mut self, peer: PeerId) -> Option<&mut Live> {
        self.neighbours.get_mut(&peer).and_then(|neighbour| neighbour.live.as_mut())
    }
}

impl Driver {
    /// A link is up; it is announced unless there is a better one, or no room for it.
    pub(in crate::node) fn link_up(&mut self, link: Link, direction: Direction, began: Instant) {
        let (peer, now) = (link.peer_id(), self.clock.now());
        if self.links.count() >= self.config.peers_max && self.links.live(peer).is_none() {
            return link.refuse();
        }
        // Both sides dialled at once: the link that the lower id dialled stays, on both sides.
        let winner = if self.us < peer { Direction::Outgoing } else { Direction::Incoming };
        if let Some(before) = self.links.live(peer) {
            let crossing = (before.link.rtt() * 3).max(GLARE_TIME_MIN);
            let is_glare = before.direction != direction && now < before.since + crossing;
            if is_glare && before.direction == winner {
                return link.give_way();
            }
        }
        let Some(neighbour) = self.links.neighbours.get(&peer) else {
            return;
        };
        let route = neighbour.route;
        let Some(path) = self.settled_path(route, direction) else {
            return self.close_link(Arc::new(link), "no path");
        };
        self.note_linked(peer, path);
        let candidates = self.links.neighbours.get(&peer).map(|n| n.candidates.clone());
        let candidates = self.paths_to(&candidates.unwrap_or_default());
        self.replace_link(peer);
        self.converse(Owner::Link(peer), link.probe_keys().clone(), None);
        let mut upkeep = Upkeep::new(path, link.rtt(), self.entropy.fork(), now);
        upkeep.add_candidates(candidates, now);
        self.links.generations += 1;
        let live = Live {
            conversation: link.probe_keys().conversation,
            offered: self.answering.offer_of(peer).map(|offer| offer.conversation),
            link: Arc::new(link),
            upkeep,
            generation: self.links.generations,
            direction,
            target: self.target_of(peer, self.dialling.target_reaching(peer)),
            rescue: Rescue::default(),
            watch: None,
            since: now,
            path_since: now,
            loss: LossMeter::new(now),
            took: now.saturating_duration_since(began),
        };
        self.announce_link(peer, &live);
        let line = self.carry_session(peer, &live);
        self.hear_of_moves(&live.link);
        if let Some(neighbour) = self.links.neighbours.get_mut(&peer) {
            neighbour.live = Some(live);
        }
        // From here on sends that are not answered are told of.
        self.tell_traffic(peer);
        self.end_answer(peer);
        // What the outbox holds back is older than what waits for the dial.
        let target = self.links.live(peer).and_then(|live| live.target.clone());
        self.tell_outbox(peer, target);
        let to_be_told = self.complete_dials(peer);
        // Only now do messages take the short way: those that have waited go first.
        self.switchboard.enter(peer, line);
        for waiting in to_be_told {
            self.grant(peer, waiting);
        }
        self.drain_upkeep(peer);
        self.standing.handle_link_up();
        if self.links.farewells.contains_key(&peer)
            && let Some(live) = self.links.live(peer)
        {
            // The user has ended the link that this one takes the place of.
            let link = live.link.clone();
            self.close_link(link, "disconnected");
        }
    }

    fn announce_link(&mut self, peer: PeerId, live: &Live) {
        self.events.emit(Event::Progress {
            target: self.dialling.target_reaching(peer).unwrap_or(Target::Peer(peer)),
            peer: Some(peer),
            stage: Stage::Link,
            elapsed: live.took,
            detail: format!("identity proved over {}", live.upkeep.best().remote),
            chosen: None,
        });
    }

    /// Lets the session with `peer` go over its new link from the moment on at which the user has been told
    /// of it.
    fn carry_session(&mut self, peer: PeerId, live: &Live) -> Line {
        let (link, generation) = (live.link.clone(), live.generation);
        let (session, counts) = self.link_session(peer, live.target.clone());
        let line = Line::new(session.clone(), counts, live.target.clone(), generation);
        let connected = Event::Connected(self.connection(peer, live));
        let (events, outcomes) = (self.events.sender(), self.outcomes());
        self.spawn(async move {
            // A user or a driver that is gone needs no events; the node is about to stop.
            let _ = events.send(connected).await;
            if let Err(error) = link.carry(&session) {
                // A link that has ended says so below.
                tracing::debug!(?peer, %error, "a link does not carry its session");
            }
            let end = LinkEnd { peer, generation, error: link.closed().await };
            let _ = outcomes.send(Outcome::LinkEnded(end)).await;
        });
        line
    }

    /// Takes in that a link is gone.
    pub(in crate::node) fn handle_link_ended(&mut self, end: LinkEnd) {
        let LinkEnd { peer, generation, error } = end;
        let Some(live) = self.links.live(peer).filter(|live| live.generation == generation) else {
            return;
        };
        let (conversation, path) = (live.conversation, live.upkeep.best());
        self.forget_conversation(conversation);
        self.end_rescue(peer);
        let mut known: Vec<Candidate> =
            Candidate::new(CandidateKind::PeerReflexive, path.remote).into_iter().collect();
        if let Some(neighbour) = self.links.neighbours.get_mut(&peer) {
            neighbour.live = None;
            known.extend(neighbour.candidates.iter().filter(|c| c.address != path.remote));
        }
        known.truncate(CANDIDATES_MAX);
        self.release_route(peer);
        self.switchboard.remove(peer);
        let failure = explain::link_failed(&error, peer);
        let wants = match &error {
            LinkError::Closed | LinkError::ClosedByPeer { .. } => {
                self.end_session(peer, &error.to_string());
                false
            }
            LinkError::Replaced => return self.await_next_link(peer, known, failure),
            LinkError::Lost(_)
            | LinkError::TimedOut
            | LinkError::IdentityMismatch { .. }
            | LinkError::NotExpected
            | LinkError::Refused { .. }
            | LinkError::Full
            | LinkError::VersionMismatch { .. } => self.unlink_session(peer, known),
        };
        let stands = self.standing.handle_link_down(self.links.count(), self.clock.now());
        self.events.emit(Event::Disconnected { peer, failure, will_retry: wants || stands });
        for answer in self.links.farewells.remove(&peer).into_iter().flatten() {
            let _ = answer.send(Ok(()));
        }
    }

    /// Lets go of the link to `peer`, if there is one, without an event: another takes its place.
    fn replace_link(&mut self, peer: PeerId) {
        self.end_rescue(peer);
        let Some(neighbour) = self.links.neighbours.get_mut(&peer) else {
            return;
        };
        let Some(live) = neighbour.live.take() else {
            return;
        };
        self.forget_conversation(live.conversation);
        live.link.give_way();
    }

    /// Takes in that `target` leads to `peer`, who has a link already.
    pub(in crate::node) fn retarget(&mut self, peer: PeerId, target: Target) {
        let target = self.target_of(peer, Some(target));
        if let Some(live) = self.links.live(peer) {
            live.target.clone_from(&target);
        }
        self.switchboard.set_target(peer, target.clone());
        self.sessions.set_target(peer, target);
    }

    /// Ends the link to `peer` because the user wants it; answers when it has ended.
    pub(in crate::node) fn disconnect(&mut self, peer: PeerId, answer: Answer<()>) {
        let Some(live) = self.links.live(peer) else {
            // Whoever does not wait any more needs no answer, here and below.
            return drop(answer.send(Err(not_connected(peer))));
        };
        let (link, target) = (live.link.clone(), live.target.clone());
        self.links.farewells.entry(peer).or_default().push(answer);
        self.standing.handle_disconnect(target.as_ref());
        self.close_link(link, "disconnected");
    }

    /// Asks a connected peer for an answer.
    pub(in crate::node) fn ping(&mut self, peer: PeerId, answer: Answer<Pong>) {
        let Some(live) = self.links.live(peer) else {
            // Whoever does not wait any more needs no answer, here and below.
            return drop(answer.send(Err(not_connected(peer))));
        };
        let (link, path) = (live.link.clone(), live.upkeep.best());
        let path = self.path_report(path);
        self.spawn(async move {
            let rtt = link.ping().await;
            let pong = rtt.map(|rtt| Pong { peer, rtt, path });
            let _ = answer.send(pong.map_err(|error| explain::link_failed(&error, peer)));
        });
    }

    /// Lets the link to `peer` send something at once.
    pub(in crate::node) fn poke(&mut self, peer: PeerId) {
        if let Some(live) = self.links.live(peer) {
            let link = live.link.clone();
            // What matters is what becomes of the link, and that is told elsewhere.
            self.spawn(async move { drop(timeout(POKE_TIME, link.ping()).await) });
        }
    }

    fn close_link(&mut self, link: Arc<Link>, reason: &'static str) {
        let deadline = self.clock.now() + CLOSE_TIME;
        self.spawn(async move { link.close(reason, deadline.into()).await });
    }

    /// Says goodbye to every peer; the future ends when all have heard it, or had their time.
    pub(in crate::node) fn close_all(&mut self) -> impl Future<Output = ()> + use<> {
        let deadline = self.clock.now() + CLOSE_TIME;
        let live = self.links.neighbours.values().filter_map(|neighbour| neighbour.live.as_ref());
        let links: Vec<Arc<Link>> = live.map(|live| live.link.clone()).collect();
        async move {
            let mut closing = tokio::task::JoinSet::new();
            for link in links {
                closing.spawn(
                    async move { link.close("the node is stopping", deadline.into()).await },
                );
            }
            while closing.join_next().await.is_some() {}
        }
    }
}

impl Driver {
    /// Gives a connected peer to somebody who waited for it.
    pub(in crate::node) fn grant(&mut self, peer: PeerId, waiting: Waiting) {
        let Some(neighbour) = self.links.neighbours.get(&peer) else {
            return;
        };
        let Some(live) = &neighbour.live else { return };
        match waiting.wish {
            Wish::Standing | Wish::Resume(_) => {}
            // Whoever does not wait any more needs no answer, here and below.
            Wish::Connect(answer) => drop(answer.send(Ok(self.connection(peer, live)))),
            Wish::Send(message, answer) => {
                match self.post(peer, *message, Durability::Volatile) {
                    Err(failure) => drop(answer.send(Err(failure))),
                    Ok(posting) => drop(self.spawn(async move {
                        let mut answer = answer;
                        // Whoever gives up takes the message back, if it was not sent yet.
                        tokio::select! {
                            outcome = posting.outcome(waiting.deadline) => drop(answer.send(outcome)),
                            () = answer.closed() => {}
                        }
                    })),
                }
            }
            Wish::Post(message, number) => {
                let deadline = self.clock.now() + POST_TIME;
                match self.post(peer, *message, Durability::Durable) {
                    Err(failure) => self.handle_kept(Kept::Posted(number, Err(failure))),
                    Ok(posting) => {
                        let outcomes = self.outcomes();
                        self.spawn(async move {
                            let outcome = posting.outcome(deadline).await;
                            let kept = Kept::Posted(number, outcome);
                            // A driver that is gone needs no answer.
                            let _ = outcomes.send(Outcome::Kept(kept)).await;
                        });
                    }
                }
            }
        }
    }

    /// Gives `message` to the session with a linked peer.
    fn post(
        &self,
        peer: PeerId,
        message: Message,
        durability: Durability,
    ) -> Result<Posting, Failure> {
        let Some(line) = self.line(peer) else {
            return Err(explain::not_sent(peer));
        };
        line.post(peer, message, durability, (self.clock, &self.switchboard))
    }

    fn connection(&self, peer: PeerId, live: &Live) -> Connection {
        Connection {
            peer,
            direction: live.direction,
            path: self.path_report(live.upkeep.best()),
            rtt: live.link.rtt(),
            took: live.took,
        }
    }

    /// All connected peers.
    pub(in crate::node) fn peer_statuses(&self) -> Vec<PeerStatus> {
        let now = self.clock.now();
        let status = |(peer, neighbour): (&PeerId, &Neighbour)| {
            let live = neighbour.live.as_ref()?;
            Some(PeerStatus {
                connection: self.connection(*peer, live),
                connected_for: now.saturating_duration_since(live.since),
                path_for: now.saturating_duration_since(live.path_since),
                loss: live.loss.recent(live.link.packets(), now),
                messages: self.sessions.counts(*peer),
            })
        };
        self.links.neighbours.iter().filter_map(status).collect()
    }
}

fn not_connected(peer: PeerId) -> Failure {
    Failure::new(Code::PeerNotFound, format!("{} is not connected", peer.short()))
        .hint("`list` shows who is")
}

/// Two dials that cross are no further apart than their links take to come up: three round trips, and this at
/// least. A peer whose dial ends later has never heard of the link that we have.
const GLARE_TIME_MIN: Duration = Duration::from_millis(500);

/// How long a message of the outbox has once it is with its session; then it is tried anew.
const POST_TIME: Duration = Duration::from_secs(600);

/// How long a poke is remembered: a peer that was restarted resets the link within a round trip.
const POKE_TIME: Duration = Duration::from_secs(2);

/// How long a link that is closed waits for what was sent on it.
const CLOSE_TIME: Duration = Duration::from_secs(1);
