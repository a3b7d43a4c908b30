//! We reach somebody: starts dials, performs what they decide, and answers whoever waits for them.

mod answers;
mod connecting;
mod finding;
mod performing;

pub(in crate::node) use self::connecting::assumed_rtt;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use self::connecting::Unproved;
use super::{
    dial::{Dial, Dialler, Found, Gathered},
    found::Records,
};
use crate::{
    dht::{self, location::Name},
    failure::{Code, Failure},
    forwarding::Helper,
    identity::PeerId,
    nat::sampler::SAMPLE_WAIT,
    node::{
        driver::{DialId, Driver},
        event::{Connection, Event, Receipt, Target},
        explain,
        handle::Answer as AnswerTo,
        messages::outbox::Kept,
        network::extra::Holder,
    },
    probe::ConversationId,
    proto::Message,
    sealing::Key,
};

/// All dials under way.
#[derive(Debug, Default)]
pub(in crate::node) struct Dialling {
    last: u64,
    dials: BTreeMap<DialId, Entry>,
    /// What lookups have brought.
    records: Records,
    /// What our own record says, if a dial has published it.
    vouched_for: Option<Gathered>,
}

#[derive(Debug)]
struct Entry {
    dial: Dial,
    name: Name,
    admission: Option<Key>,
    /// Whom it is reaching at the moment.
    peer: Option<PeerId>,
    /// When the first offer to it was sent.
    offered_at: Option<Instant>,
    quic: Option<AbortHandle>,
    /// Looks for the peer's answer, in every slot that an offer of ours was left in: one that is on its way while we leave
    /// the next elsewhere is not lost.
    answers: BTreeMap<dht::location::Target, AbortHandle>,
    unproved: Option<Unproved>,
    purpose: Purpose,
    conversation: Option<ConversationId>,
    /// The number of our offer in the peer's inbox, which the next one replaces.
    offer_seq: Option<i64>,
    waiting: Vec<Waiting>,
    /// Somebody who was found for it is seen at our own public address.
    is_behind_our_nat: bool,
}

/// What a dial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A link.
    Link,
    /// Another path for the live link to this peer.
    Rescue(PeerId),
}

/// Somebody who waits for a dial.
#[derive(Debug)]
pub(in crate::node) struct Waiting {
    /// Until when.
    pub(in crate::node) deadline: Instant,
    /// For what.
    pub(in crate::node) wish: Wish,
}

/// What is to be done once the link is up.
#[derive(Debug)]
pub(in crate::node) enum Wish {
    /// To say so.
    Connect(AnswerTo<Connection>),
    /// To send this.
    Send(Box<Message>, AnswerTo<Receipt>),
    /// To send this message of the outbox.
    Post(Box<Message>, u64),
    /// Nothing: the session with this peer goes on by itself.
    Resume(PeerId),
    /// Nothing: the node itself wants to be connected.
    Standing,
}

impl Wish {
    /// How long the dial goes on beside what was waited for. The node's own wishes come back after a pause; what
    /// their dial has opened by then, sockets and mappings and a peer that is at work, is not to be begun anew.
    fn patience(&self) -> Duration {
        match self {
            Self::Resume(_) | Self::Standing => OWN_WISHES_PAUSE_MAX,
            Self::Connect(_) | Self::Send(..) | Self::Post(..) => Duration::ZERO,
        }
    }
}

impl Dialling {
    /// When a dial, or somebody who waits for one, is due next.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let dials = self.dials.values().filter_map(|entry| entry.dial.poll_timeout());
        let entries = self.dials.values();
        let proofs = entries.filter_map(|entry| entry.unproved.as_ref()?.poll_timeout());
        let waits = self.dials.values().flat_map(|entry| &entry.waiting);
        let waits = waits.map(|waiting| waiting.deadline);
        dials.chain(proofs).chain(waits).min()
    }

    /// Dials under way to `target`.
    fn to(&self, target: &Target) -> Option<DialId> {
        self.dials
            .iter()
            .find(|(_, entry)| entry.dial.target() == target && entry.purpose == Purpose::Link)
            .map(|(id, _)| *id)
    }

    /// When a dial began.
    pub(in crate::node) fn began(&self, id: DialId) -> Option<Instant> {
        self.dials.get(&id).map(|entry| entry.dial.started())
    }

    /// What the dial that reaches `peer` was asked for.
    pub(in crate::node) fn target_reaching(&self, peer: PeerId) -> Option<Target> {
        let wants = |entry: &&Entry| entry.peer == Some(peer) && entry.purpose == Purpose::Link;
        let entry = self.dials.values().find(wants)?;
        Some(entry.dial.target().clone())
    }

    /// What the dials under way look for.
    pub(in crate::node) fn names(&self) -> Vec<(DialId, Name)> {
        self.dials.iter().map(|(id, entry)| (*id, entry.name.clone())).collect()
    }

    /// By whom offers reach the peer that a dial is reaching.
    pub(in crate::node) fn helpers(&self, id: DialId) -> &[Helper] {
        self.dials.get(&id).map_or(&[], |entry| entry.dial.helpers())
    }

    /// Whether a dial is reaching `peer` at the moment.
    pub(in crate::node) fn reaches(&self, peer: PeerId) -> bool {
        self.dials.values().any(|entry| entry.peer == Some(peer))
    }
}

impl Driver {
    /// Does what `wish` asks once `target` is connected, dialling it first if it is not.
    pub(in crate::node) fn fulfil(
        &mut self,
        target: Target,
        timeout: Option<Duration>,
        wish: Wish,
    ) {
        let now = self.clock.now();
        let timeout = timeout.unwrap_or(self.config.connect_timeout);
        let waiting = Waiting { deadline: now + timeout, wish };
        let until = waiting.deadline + waiting.wish.patience();
        if target.peer() == Some(self.us) {
            let failure = Failure::new(Code::SelfConnect, "this is the node's own peer id")
                .hint("name the other side");
            return self.fail(waiting, failure);
        }
        if let Some(peer) = self.links.connected(&target) {
            return self.grant(peer, waiting);
        }
        if self.links.count() >= self.config.peers_max {
            return self.fail(waiting, explain::too_many_peers(self.config.peers_max));
        }
        let id = match self.dialling.to(&target) {
            Some(id) => id,
            None if self.dialling.dials.len() >= DIALS_MAX => {
                let failure =
                    Failure::new(Code::QueueFull, format!("{DIALS_MAX} dials are under way"))
                        .hint("wait for one of them");
                return self.fail(waiting, failure);
            }
            None => {
                self.events.emit(Event::Connecting { target: target.clone() });
                self.begin_dial(target, until, Purpose::Link)
            }
        };
        if let Some(entry) = self.dialling.dials.get_mut(&id) {
            if entry.waiting.len() >= WAITING_MAX {
                let failure =
                    Failure::new(Code::QueueFull, "as many messages as may wait are waiting")
                        .hint("wait for the connection, or send less at once");
                return self.fail(waiting, failure);
            }
            entry.dial.extend(until);
            entry.waiting.push(waiting);
        }
        self.drain_dial(id);
    }

    /// Begins to look for another path for the live link to `peer`.
    pub(in crate::node) fn begin_rescue_dial(
        &mut self,
        target: Target,
        peer: PeerId,
        deadline: Instant,
    ) -> Option<DialId> {
        let has_room = self.dialling.dials.len() < DIALS_MAX;
        let id = has_room.then(|| self.begin_dial(target, deadline, Purpose::Rescue(peer)))?;
        let known = self.links.neighbours.get(&peer).map(|neighbour| neighbour.candidates.clone());
        let unix = self.clock.unix();
        let found = self.dialling.records.last_known(peer, &known.unwrap_or_default(), unix);
        // The offer does not wait for the peer's record: it may be the peer that has to learn where we are.
        self.tell_dial(id, |dial, now| dial.handle_found(found, now));
        Some(id)
    }

    /// Ends a dial that nobody waits for.
    pub(in crate::node) fn drop_dial(&mut self, id: DialId) {
        self.remove_dial(id);
    }

    fn begin_dial(&mut self, target: Target, deadline: Instant, purpose: Purpose) -> DialId {
        self.dialling.last += 1;
        let id = DialId(self.dialling.last);
        let (name, admission) = self.name_of(&target);
        let dialler = Dialler {
            identity: self.config.identity.clone(),
            admission: admission.clone(),
            sockets: self.bound_sockets.clone(),
            stun_servers: self.addresses.servers_v4(),
            has_dht: self.rendezvous.is_some(),
            has_lan: self.lan.is_some(),
        };
        let is_counting = self.look_at_ports();
        let times = (self.clock.now(), self.clock.unix());
        if self.addresses.discovery.is_silent() && self.addresses.may_hurry(times.0) {
            self.look_for_ourselves();
        }
        let gathered = self.addresses.gathered();
        let mut dial =
            Dial::new(target.clone(), dialler, gathered, times, deadline, self.entropy.fork());
        match is_counting {
            true => dial.await_count(times.0 + SAMPLE_WAIT),
            false => dial.set_port_hint(self.port_hint()),
        }
        if let Target::Ticket(ticket) = &target
            && !ticket.addresses.is_empty()
        {
            dial.handle_found(Found::in_ticket(ticket.peer, &ticket.addresses), times.0);
        }
        if let Some((peer, candidates)) = self.sessions.known(&target) {
            let found = self.dialling.records.last_known(peer, candidates, times.1);
            dial.handle_known(found, times.0);
        } else if purpose == Purpose::Link {
            for found in self.dialling.records.under(&name, times.1) {
                dial.handle_known(found, times.0);
            }
        }
        let entry = Entry {
            dial,
            name,
            admission,
            peer: None,
            offered_at: None,
            quic: None,
            answers: BTreeMap::new(),
            unproved: None,
            purpose,
            conversation: None,
            offer_seq: None,
            waiting: Vec::new(),
            is_behind_our_nat: false,
        };
        let name = entry.name.clone();
        self.dialling.dials.insert(id, entry);
        self.begin_listening();
        self.tell_of_neighbours(id, &name);
        id
    }

    /// Passes something to a dial and performs what it decides.
    pub(in crate::node) fn tell_dial(&mut self, id: DialId, tell: impl FnOnce(&mut Dial, Instant)) {
        let now = self.clock.now();
        if let Some(entry) = self.dialling.dials.get_mut(&id) {
            tell(&mut entry.dial, now);
            self.drain_dial(id);
        }
    }

    /// Passes something to all dials.
    pub(in crate::node) fn tell_dials(&mut self, mut tell: impl FnMut(&mut Dial, Instant)) {
        let ids: Vec<DialId> = self.dialling.dials.keys().copied().collect();
        for id in ids {
            self.tell_dial(id, &mut tell);
        }
    }

    /// Wakes the dials that are due, and lets go of those who have waited long enough.
    pub(in crate::node) fn wake_dials(&mut self, now: Instant) {
        let due = |entry: &Entry| entry.dial.poll_timeout().is_some_and(|due| due <= now);
        let ids: Vec<DialId> =
            self.dialling.dials.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| *id).collect();
        for id in ids {
            self.tell_dial(id, Dial::handle_timeout);
        }
        let ids: Vec<DialId> = self.dialling.dials.keys().copied().collect();
        for id in ids {
            self.wake_proof(id, now);
        }
        let mut given_up = Vec::new();
        for entry in self.dialling.dials.values_mut() {
            let expired = entry.waiting.extract_if(.., |waiting| waiting.deadline <= now);
            given_up.extend(expired.map(|waiting| (waiting, entry.dial.explain(now))));
        }
        for (waiting, failure) in given_up {
            self.fail(waiting, failure);
        }
    }

    /// A link to `peer` is up: messages that waited for it go out. Returns whoever waits to hear of it.
    pub(in crate::node) fn complete_dials(&mut self, peer: PeerId) -> Vec<Waiting> {
        let to_peer =
            |entry: &Entry| entry.peer == Some(peer) || entry.dial.target().peer() == Some(peer);
        let ids: Vec<DialId> = self
            .dialling
            .dials
            .iter()
            .filter(|(_, entry)| to_peer(entry))
            .map(|(id, _)| *id)
            .collect();
        let mut to_be_told = Vec::new();
        for id in ids {
            let waiting = self.remove_dial(id).map(|entry| entry.waiting);
            for waiting in waiting.into_iter().flatten() {
                match waiting.wish {
                    Wish::Connect(_) => to_be_told.push(waiting),
                    Wish::Send(..) | Wish::Post(..) | Wish::Resume(_) | Wish::Standing => {
                        self.grant(peer, waiting);
                    }
                }
            }
        }
        to_be_told
    }

    fn end_dial(&mut self, id: DialId, failure: &Failure) {
        let Some(entry) = self.remove_dial(id) else {
            return;
        };
        if let Some(peer) = entry.peer {
            self.release_route(peer);
        }
        for waiting in entry.waiting {
            self.fail(waiting, failure.clone());
        }
    }

    /// Tells whoever waits that it was in vain.
    fn fail(&mut self, waiting: Waiting, failure: Failure) {
        // Whoever does not wait any more needs no answer.
        match waiting.wish {
            Wish::Connect(answer) => drop(answer.send(Err(failure))),
            Wish::Send(_, answer) => drop(answer.send(Err(failure))),
            Wish::Post(_, number) => self.handle_kept(Kept::Posted(number, Err(failure))),
            Wish::Resume(peer) => self.handle_resume_failed(peer, failure),
            Wish::Standing => self.handle_standing_failed(failure),
        }
    }

    fn remove_dial(&mut self, id: DialId) -> Option<Entry> {
        let entry = self.dialling.dials.remove(&id)?;
        self.end_errands(id);
        self.hand_over(Holder::Dial(id), entry.peer);
        for look in entry.answers.values() {
            look.abort();
        }
        let unproved = entry.unproved.as_ref();
        let unproved = unproved.map(|unproved| unproved.conversation());
        for conversation in entry.conversation.into_iter().chain(unproved) {
            self.forget_conversation(conversation);
        }
        Some(entry)
    }
}

/// More than a client, or a session without a link, pauses before it dials again.
const OWN_WISHES_PAUSE_MAX: Duration = Duration::from_secs(4);

/// Dials under way at a time: each probes up to 16 addresses.
const DIALS_MAX: usize = 64;

/// Commands that wait for one dial.
const WAITING_MAX: usize = 1_024;
