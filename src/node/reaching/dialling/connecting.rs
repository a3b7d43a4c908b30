//! QUIC to the peer that a dial is reaching: starts it, and takes in what becomes of it.
//!
//! A dialler is done when the acceptor has answered; whether its own last words arrive, it does not see.
//! That matters if the answer came from an address that nobody named. NATs on both sides that map by
//! destination can make such *crossed* paths: each side is heard, but sends from elsewhere than it can be
//! answered at, so that no traffic keeps the way open. A link over a path that nothing has proved
//! therefore counts only when a probe has been answered on it.

use std::time::{Duration, Instant};

use crate::{
    candidate::{Candidate, CandidateKind},
    datagram::{BoundSocket, Path},
    identity::PeerId,
    nat::punch::{self, Punch, Setup},
    node::{
        driver::{DialId, Driver, Outcome, Owner},
        event::Direction,
        explain,
    },
    probe::{ConversationId, Probe, Urgency},
    sealing::Key,
    transport::{
        link::{self, Link, LinkError},
        quic,
    },
};

/// A link over a path that is being proved.
#[derive(Debug)]
pub(super) struct Unproved {
    link: Link,
    conversation: ConversationId,
    punch: Punch,
}

impl Unproved {
    /// Whose probes prove it.
    pub(super) fn conversation(&self) -> ConversationId {
        self.conversation
    }

    /// When the next probe is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.punch.poll_timeout()
    }
}

impl Driver {
    /// Starts QUIC to `peer`, unless what was started before has heard of the peer already.
    pub(super) fn dial_quic(&mut self, id: DialId, peer: PeerId, initial_rtt: Option<Duration>) {
        let now = self.clock.now();
        if self.links.live(peer).is_some() {
            // Only a path is wanted, for the link that is there.
            return;
        }
        let Some(address) = self.dial_address(peer) else {
            return;
        };
        let is_answered = self.hears_quic(peer);
        let Some(entry) = self.dialling.dials.get_mut(&id) else {
            return;
        };
        if let Some(running) = &entry.quic {
            if is_answered && !running.is_finished() {
                return;
            }
            running.abort();
            if let Some(neighbour) = self.links.neighbours.get(&peer).filter(|_| !is_answered) {
                // The peer's answer to an earlier attempt would be in vain.
                self.sockets.give_up_dials(neighbour.route);
            }
        }
        let keys: Vec<Key> = entry.admission.clone().into_iter().collect();
        let deadline = now + LINK_TIMEOUT;
        let offered_for = entry.offered_at.map(|at| now.saturating_duration_since(at));
        // An offer by a helper and the probe that answers it take one and a half round trips.
        let guessed_rtt = offered_for.map_or(INITIAL_RTT, |time| assumed_rtt(time * 2 / 3));
        let initial_rtt = initial_rtt.map_or(guessed_rtt, assumed_rtt);
        let (endpoint, outcomes) = (self.endpoint.clone(), self.outcomes());
        let task = self.spawn(async move {
            let dial = link::Dial { address, peer, initial_rtt, keys, deadline: deadline.into() };
            let result = Link::dial(&endpoint, dial).await;
            let _ = outcomes.send(Outcome::Dialled(id, peer, result)).await;
        });
        if let Some(entry) = self.dialling.dials.get_mut(&id) {
            entry.quic = Some(task);
        }
    }

    /// Takes in that QUIC which we dialled has become a link, or not.
    pub(in crate::node) fn handle_dialled(
        &mut self,
        id: DialId,
        peer: PeerId,
        result: Result<Link, LinkError>,
    ) {
        match result {
            Ok(link) => match self.path_to_prove(id, peer) {
                Some(path) => self.begin_proof(id, link, path),
                None => self.complete(id, link),
            },
            Err(error) => {
                let failure = explain::link_failed(&error, peer);
                let answered_at = self.heard_at(peer);
                self.tell_dial(id, |dial, now| dial.handle_link_failed(failure, &answered_at, now));
            }
        }
    }

    fn complete(&mut self, id: DialId, link: Link) {
        // Of two attempts of one dial the later one stays, as it does at the acceptor.
        let began = self.dialling.began(id).unwrap_or_else(|| self.clock.now());
        self.link_up(link, Direction::Outgoing, began);
    }

    /// The path to `peer`, unless it is one that the peer named itself, or that answered a probe.
    fn path_to_prove(&self, id: DialId, peer: PeerId) -> Option<Path> {
        let neighbour = self.links.neighbours.get(&peer)?;
        let best = self.sockets.best(neighbour.route)?;
        let is_named = self.paths_to(&neighbour.candidates).contains(&best);
        let dial = self.dialling.dials.get(&id).map(|entry| &entry.dial);
        let is_proved = dial.is_some_and(|dial| dial.proved_path() == Some(best));
        (!is_named && !is_proved).then_some(best)
    }

    fn begin_proof(&mut self, id: DialId, link: Link, path: Path) {
        let now = self.clock.now();
        let candidate = Candidate::new(CandidateKind::PeerReflexive, path.remote);
        let local = self.bound_to(path.socket);
        let socket = local.map(|local| BoundSocket { index: path.socket, local });
        let setup = Setup {
            sockets: socket.into_iter().collect(),
            candidates: candidate.into_iter().collect(),
            urgency: Urgency::Routine,
            deadline: now + PROOF_TIME,
        };
        let keys = link.probe_keys().clone();
        let Some(entry) = self.dialling.dials.get_mut(&id) else {
            return;
        };
        // A path that opens meanwhile does not wait for the proof.
        entry.quic = None;
        let before = entry.unproved.replace(Unproved {
            conversation: keys.conversation,
            punch: Punch::new(setup, now),
            link,
        });
        let before = before.map(|unproved| unproved.conversation);
        self.converse(Owner::Unproved(id), keys, before);
        self.wake_proof(id, now);
    }

    /// Takes in a probe of the peer whose link is being proved.
    pub(in crate::node) fn handle_proof_probe(&mut self, id: DialId, path: Path, probe: Probe) {
        let now = self.clock.now();
        let entry = self.dialling.dials.get_mut(&id);
        if let Some(unproved) = entry.and_then(|entry| entry.unproved.as_mut()) {
            let punch = &mut unproved.punch;
            punch.handle_probe(path.socket, path.remote, probe, now, &mut self.entropy);
        }
        self.drain_proof(id);
    }

    /// Sends the probe that is due.
    pub(super) fn wake_proof(&mut self, id: DialId, now: Instant) {
        let entry = self.dialling.dials.get_mut(&id);
        if let Some(unproved) = entry.and_then(|entry| entry.unproved.as_mut())
            && unproved.punch.poll_timeout().is_some_and(|due| due <= now)
        {
            unproved.punch.handle_timeout(now, &mut self.entropy);
        }
        self.drain_proof(id);
    }

    fn drain_proof(&mut self, id: DialId) {
        while let Some(entry) = self.dialling.dials.get_mut(&id)
            && let Some(unproved) = &mut entry.unproved
            && let Some(output) = unproved.punch.poll_output()
        {
            let (conversation, peer) = (unproved.conversation, unproved.link.peer_id());
            match output {
                punch::Output::Transmit { path, probe } => {
                    self.send_probe(conversation, path, probe);
                }
                punch::Output::Open(opened) | punch::Output::Better(opened) => {
                    let link = entry.unproved.take().map(|unproved| unproved.link);
                    self.use_path(peer, opened.path);
                    self.forget_conversation(conversation);
                    if let Some(link) = link {
                        self.complete(id, link);
                    }
                }
                punch::Output::GaveUp(facts) => {
                    tracing::info!(?peer, ?facts, "a link came up over a path that does not work");
                    entry.unproved = None;
                    self.forget_conversation(conversation);
                    self.handle_dialled(id, peer, Err(LinkError::TimedOut));
                }
                // That the peer is heard is nothing new.
                punch::Output::Heard { .. } => {}
            }
        }
    }
}

/// QUIC gives up a path that has opened but carries no handshake after this long; the dial goes on.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);

/// What QUIC is told to be the round trip if `measured` is about what it takes: half of that, so that what is lost
/// is sent again after one and a half round trips and not three.
pub(in crate::node) fn assumed_rtt(measured: Duration) -> Duration {
    (measured / 2).clamp(ASSUMED_RTT_MIN, quic::INITIAL_RTT)
}

/// Less would have QUIC send packets again while the peer still checks a certificate.
const ASSUMED_RTT_MIN: Duration = Duration::from_millis(5);

/// Paces QUIC's first packets before there is a path: a lost first packet then costs 0.18 s instead of quinn's
/// 1 s.
const INITIAL_RTT: Duration = Duration::from_millis(60);

/// How long a path is probed before its link is given up: a few round trips, and some of them lost.
const PROOF_TIME: Duration = Duration::from_secs(2);
