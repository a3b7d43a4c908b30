//! Sessions: what this node and its peers have between them, over all links.
//!
//! A session begins with the first link to a peer and stays when the link is lost. While
//! somebody waits for what becomes of a message, the peer is dialled again, first where it was last, with
//! growing pauses of at most three seconds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{outbox::Seen, received::Source, switchboard::Line};
use crate::{
    candidate::Candidate,
    entropy::Entropy,
    failure::Failure,
    identity::PeerId,
    node::{
        driver::Driver,
        event::{Event, Target},
        reaching::dialling::Wish,
    },
    time::UnixMillis,
    transport::session::{DOUBLES_TIME, Session},
};

/// The sessions with all peers that are or were connected.
#[derive(Debug, Default)]
pub(in crate::node) struct Sessions {
    all: BTreeMap<PeerId, Entry>,
    /// Durable messages that were handed over in sessions that are gone: since when, and their ages then.
    remembered: BTreeMap<PeerId, (Instant, Vec<(String, Duration)>)>,
}

#[derive(Debug)]
struct Entry {
    session: Session,
    counts: Arc<Counts>,
    /// Its messages reach the user through this.
    _source: Arc<Source>,
    state: State,
    /// What was dialled to reach the peer, if it was us who dialled.
    target: Option<Target>,
    /// Where the peer was while there was a link.
    known: Vec<Candidate>,
}

#[derive(Debug)]
enum State {
    Linked,
    /// Without a link since then; after so many failed dials, the next one is due.
    Unlinked {
        since: Instant,
        failures: u32,
        redial: Option<Instant>,
        /// When the user is to be told, unless the link that takes the place of the last one is up before.
        notice: Option<(Instant, Failure)>,
    },
}

/// Messages that a session has carried.
#[derive(Debug, Default)]
pub(in crate::node) struct Counts {
    /// Ours that the peer has.
    pub(in crate::node) delivered: AtomicU64,
    /// The peer's that the user has.
    pub(in crate::node) received: AtomicU64,
}

impl Counts {
    /// Both at the moment.
    pub(in crate::node) fn now(&self) -> (u64, u64) {
        (self.delivered.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

impl Sessions {
    /// When a dial is due, or a session has been without a link for long enough.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.all.values().filter_map(|entry| match &entry.state {
            State::Linked => None,
            State::Unlinked { since, redial, notice, .. } => {
                let notice = notice.as_ref().map(|(due, _)| *due);
                [Some(*since + UNLINKED_TIME), *redial, notice].into_iter().flatten().min()
            }
        });
        due.min()
    }

    /// Whom `target` led to last, and where that peer was.
    pub(in crate::node) fn known(&self, target: &Target) -> Option<(PeerId, &[Candidate])> {
        let is_meant = |(peer, entry): &(&PeerId, &Entry)| match target.peer() {
            Some(meant) => **peer == meant,
            None => entry.target.as_ref() == Some(target),
        };
        let unlinked = self.all.iter().filter_map(|(peer, entry)| match entry.state {
            State::Unlinked { since, .. } => Some((since, (peer, entry))),
            State::Linked => None,
        });
        let meant = unlinked.filter(|(_, one)| is_meant(one) && !one.1.known.is_empty());
        let (_, (peer, entry)) = meant.max_by_key(|(since, _)| *since)?;
        Some((*peer, &entry.known))
    }

    /// The durable messages that users were handed within the last `time`.
    pub(in crate::node) fn seen_within(&self, time: Duration, now: UnixMillis) -> Vec<Seen> {
        let all = self.all.iter().flat_map(|(peer, entry)| {
            let seen = entry.session.export_doubles().into_iter();
            seen.filter(move |(_, age)| *age <= time).map(|(id, age)| (*peer, id, age))
        });
        let unix_secs = |age: Duration| now.0 / 1_000 - age.as_secs().min(now.0 / 1_000);
        all.map(|(peer, id, age)| Seen { peer, id, unix_secs: unix_secs(age) }).collect()
    }

    /// Takes in what an earlier run was handed.
    pub(in crate::node) fn remember(
        &mut self,
        seen: Vec<Seen>,
        (now, unix): (Instant, UnixMillis),
    ) {
        for Seen { peer, id, unix_secs } in seen {
            let age = Duration::from_secs((unix.0 / 1_000).saturating_sub(unix_secs));
            let (_, ids) = self.remembered.entry(peer).or_insert_with(|| (now, Vec::new()));
            ids.push((id, age));
        }
        for (_, ids) in self.remembered.values_mut() {
            ids.sort_by_key(|(_, age)| std::cmp::Reverse(*age));
        }
    }

    /// Notes as what `peer` was dialled.
    pub(in crate::node) fn set_target(&mut self, peer: PeerId, target: Option<Target>) {
        if let Some(entry) = self.all.get_mut(&peer) {
            entry.target = target;
        }
    }

    /// The network is another one: dials that wait for their time do so no longer.
    pub(in crate::node) fn hurry(&mut self, now: Instant) {
        for entry in self.all.values_mut() {
            if let State::Unlinked { failures, redial, .. } = &mut entry.state {
                *failures = 0;
                *redial = redial.map(|due| due.min(now));
            }
        }
    }

    /// What the session with `peer` has carried.
    pub(in crate::node) fn counts(&self, peer: PeerId) -> (u64, u64) {
        self.all.get(&peer).map_or((0, 0), |entry| entry.counts.now())
    }

    /// Forgets sessions that nobody needs: the one that has been without a link for longest, if there are
    /// too many.
    fn make_room(&mut self, now: Instant) {
        if self.all.len() < SESSIONS_MAX {
            return;
        }
        let unlinked = self.all.iter().filter_map(|(peer, entry)| match entry.state {
            State::Linked => None,
            State::Unlinked { since, .. } => Some((since, *peer)),
        });
        if let Some((_, oldest)) = unlinked.min() {
            self.remove(oldest, now);
        }
    }

    /// Ends all sessions.
    pub(in crate::node) fn end_all(&mut self, why: &str) {
        for entry in std::mem::take(&mut self.all).into_values() {
            entry.session.end(why);
        }
    }

    fn remove(&mut self, peer: PeerId, now: Instant) {
        // What is too old to be told apart from a new message is not worth its room.
        let is_young = |since: Instant| now.saturating_duration_since(since) < DOUBLES_TIME;
        self.remembered.retain(|_, (since, _)| is_young(*since));
        if let Some(entry) = self.all.remove(&peer) {
            let doubles = entry.session.export_doubles();
            if !doubles.is_empty() && self.remembered.len() < SESSIONS_MAX {
                self.remembered.insert(peer, (now, doubles));
            }
        }
    }
}

impl Driver {
    /// The way to the session with `peer`.
    pub(in crate::node) fn line(&self, peer: PeerId) -> Option<Line> {
        let entry = self.sessions.all.get(&peer)?;
        let target = entry.target.clone();
        Some(Line::new(entry.session.clone(), entry.counts.clone(), target, 0))
    }

    /// As what `peer` counts that was dialled as `dialled` now: an earlier dial of the service, or by a ticket,
    /// says more than one that only makes up for a lost link.
    pub(in crate::node) fn target_of(
        &self,
        peer: PeerId,
        dialled: Option<Target>,
    ) -> Option<Target> {
        let before = self.sessions.all.get(&peer).and_then(|entry| entry.target.clone());
        match dialled {
            Some(Target::Peer(_)) | None => before.or(dialled),
            Some(Target::Service(_) | Target::Ticket(_)) => dialled,
        }
    }

    /// The session with `peer`, over which a link is up from now on.
    pub(in crate::node) fn link_session(
        &mut self,
        peer: PeerId,
        target: Option<Target>,
    ) -> (Session, Arc<Counts>) {
        if let Some(entry) =
            self.sessions.all.get_mut(&peer).filter(|entry| !entry.session.is_ended())
        {
            entry.state = State::Linked;
            entry.target = target;
            return (entry.session.clone(), entry.counts.clone());
        }
        let now = self.clock.now();
        self.sessions.remove(peer, now);
        self.sessions.make_room(now);
        let session = Session::new(&self.endpoint);
        if let Some((since, doubles)) = self.sessions.remembered.remove(&peer) {
            let meanwhile = now.saturating_duration_since(since);
            session.import_doubles(doubles.into_iter().map(|(id, age)| (id, age + meanwhile)));
        }
        let counts = Arc::new(Counts::default());
        let source = self.deliveries.deliver(peer, session.clone(), counts.clone());
        let entry = Entry {
            session: session.clone(),
            counts: counts.clone(),
            _source: source,
            state: State::Linked,
            target,
            known: Vec::new(),
        };
        self.sessions.all.insert(peer, entry);
        (session, counts)
    }

    /// Takes in that the link to `peer`, which was at `known`, is gone, and another one is about to take
    /// its place. If it does not, the user is told of `failure`.
    pub(in crate::node) fn await_next_link(
        &mut self,
        peer: PeerId,
        known: Vec<Candidate>,
        failure: Failure,
    ) {
        let due = self.clock.now() + REPLACED_TIME;
        self.unlink_session(peer, known);
        if let Some(entry) = self.sessions.all.get_mut(&peer)
            && let State::Unlinked { notice, .. } = &mut entry.state
        {
            *notice = Some((due, failure));
        }
    }

    /// Takes in that the link to `peer`, which was at `known`, is gone; says whether the peer is dialled
    /// again because messages wait for it.
    pub(in crate::node) fn unlink_session(&mut self, peer: PeerId, known: Vec<Candidate>) -> bool {
        let now = self.clock.now();
        let Some(entry) = self.sessions.all.get_mut(&peer) else {
            return false;
        };
        entry.known = known;
        let wants = entry.session.is_awaited();
        let redial = wants.then(|| now + jittered(REDIAL_AFTER, &mut self.entropy));
        entry.state = State::Unlinked { since: now, failures: 0, redial, notice: None };
        wants
    }

    /// Ends the session with `peer`: what it still has to deliver is given up.
    pub(in crate::node) fn end_session(&mut self, peer: PeerId, why: &str) {
        if let Some(entry) = self.sessions.all.get(&peer) {
            entry.session.end(why);
        }
        self.note_seen();
        self.sessions.remove(peer, self.clock.now());
    }

    /// Dials peers for whom messages wait, and forgets sessions that are too old.
    pub(in crate::node) fn wake_sessions(&mut self, now: Instant) {
        let (mut due, mut over, mut notices) = (Vec::new(), Vec::new(), Vec::new());
        for (peer, entry) in &mut self.sessions.all {
            let State::Unlinked { since, redial, notice, .. } = &mut entry.state else {
                continue;
            };
            if let Some((_, failure)) = notice.take_if(|(due, _)| *due <= now) {
                notices.push((*peer, failure, redial.is_some()));
            }
            if since.checked_add(UNLINKED_TIME).is_some_and(|end| end <= now) {
                over.push(*peer);
            } else if redial.take_if(|redial| *redial <= now).is_some()
                && entry.session.is_awaited()
            {
                // This very peer, not another server of its service.
                let ticket =
                    entry.target.clone().filter(|target| matches!(target, Target::Ticket(_)));
                due.push((*peer, ticket.unwrap_or(Target::Peer(*peer))));
            }
        }
        for (peer, failure, waits) in notices {
            let stands = self.standing.handle_link_down(self.links.count(), now);
            let will_retry = waits || stands;
            self.events.emit(Event::Disconnected { peer, failure, will_retry });
        }
        for peer in over {
            self.end_session(peer, "the peer has been away for too long");
        }
        for (peer, target) in due {
            tracing::info!(?peer, "messages wait: dialling again");
            self.fulfil(target, None, Wish::Resume(peer));
        }
    }

    /// Takes in that a dial for what waits for `peer` was in vain.
    pub(in crate::node) fn handle_resume_failed(&mut self, peer: PeerId, failure: Failure) {
        let now = self.clock.now();
        let Some(entry) = self.sessions.all.get_mut(&peer) else {
            return;
        };
        if let State::Unlinked { failures, redial, .. } = &mut entry.state {
            *failures += 1;
            let doubled = REDIAL_AFTER.saturating_mul(1 << (*failures).min(8));
            *redial = Some(now + jittered(doubled.min(REDIAL_AFTER_MAX), &mut self.entropy));
            self.events.emit(Event::Warning(failure));
        }
    }
}

/// Three quarters of `pause` and a random part of the last: two nodes that lost each other do not go on
/// meeting in the same moment.
fn jittered(pause: Duration, entropy: &mut Entropy) -> Duration {
    let quarter = pause / 4;
    let millis = usize::try_from(quarter.as_millis()).unwrap_or(usize::MAX).max(1);
    let part = u64::try_from(entropy.below(millis)).unwrap_or(0);
    pause - quarter + Duration::from_millis(part)
}

/// After the loss of a link. A NAT that rebound, or a peer that was restarted, is there again.
const REDIAL_AFTER: Duration = Duration::from_millis(250);

/// Two links that were dialled at once come up no further apart.
const REPLACED_TIME: Duration = Duration::from_secs(2);

/// The longest pause between two dials for messages that wait.
const REDIAL_AFTER_MAX: Duration = Duration::from_secs(3);

/// How long a session without a link is kept: a laptop's lunch.
const UNLINKED_TIME: Duration = Duration::from_secs(3_600);

/// Sessions, with links and without. An idle one takes less than 2 KiB.
const SESSIONS_MAX: usize = 4_096;
