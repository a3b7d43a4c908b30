//! A live link hears nothing any more: its two ends meet again, as in a dial, and it goes on over another
//! path.
//!
//! When a NAT gives a node another port or address, the node's probes show its peer where it is now; but a
//! NAT in front of the peer that looks at ports does not let them in. Then both sides ask where they are
//! themselves, leave an offer for each other, and probe, all as at the first time, except that a path that
//! opens is given to the link that is there. Who dialled leaves its offer in the other's inbox; who was
//! dialled may be the only one that knows where it is now, so it leaves one, too, at a place that both have
//! drawn from the link's own secret, and the dialler looks there while it hears nothing.

use std::time::{Duration, Instant};

use super::linking::{Links, Live};
use crate::{
    dht::{location::Name, rendezvous::Pace},
    identity::PeerId,
    nat::rate::{Bucket, Limit},
    node::{
        driver::{DialId, Driver},
        event::{Direction, Target},
    },
    ticket::Ticket,
};

/// How far the rescue of one link is.
#[derive(Clone, Debug, Default)]
pub(in crate::node) enum Rescue {
    /// The peer is heard.
    #[default]
    Idle,
    /// It is not; if that lasts until `due`, we dial.
    Waiting { due: Instant },
    /// We dial, or wait for the other side to do so.
    Running { dial: Option<DialId> },
    /// The machine slept for longer than a silent connection lasts: if the peer is not heard until `due`, it
    /// has given this link up, and so do we.
    Doomed { due: Instant },
}

impl Links {
    /// When the rescue of a link is due.
    pub(in crate::node) fn poll_rescue(&self) -> Option<Instant> {
        let live = self.neighbours.values().filter_map(|n| n.live.as_ref());
        live.filter_map(|live| match live.rescue {
            Rescue::Waiting { due } | Rescue::Doomed { due } => Some(due),
            Rescue::Idle | Rescue::Running { .. } => None,
        })
        .min()
    }
}

impl Links {
    /// Rescues of links that were dialled to us for which we leave offers.
    fn rescues(&self) -> usize {
        let live = self.neighbours.values().filter_map(|n| n.live.as_ref());
        let incoming = live.filter(|live| live.direction == Direction::Incoming);
        incoming.filter(|live| matches!(live.rescue, Rescue::Running { dial: Some(_) })).count()
    }
}

/// Whether our inboxes are looked into more often: a peer that was connected may be leaving word.
#[derive(Debug, Default)]
pub(in crate::node) struct Lookout {
    until: Option<Instant>,
    times: Bucket,
    pace: Pace,
}

impl Lookout {
    /// A link hears nothing any more.
    fn begin(&mut self, now: Instant) {
        if self.times.has_room(LOOKOUT_LIMIT, now) {
            self.times.take(LOOKOUT_LIMIT, now);
            self.until = Some(now + LOOKOUT_TIME);
        }
    }

    /// When it ends.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }
}

impl Driver {
    /// Has our inboxes looked into as often as it is of use now.
    pub(in crate::node) fn pace_inboxes(&mut self, now: Instant) {
        let live = self.links.neighbours.values().filter_map(|n| n.live.as_ref());
        let is_missed = |live: &Live| !matches!(live.rescue, Rescue::Idle);
        let is_any_missed = live.into_iter().any(is_missed);
        self.lookout.until = self.lookout.until.filter(|until| now < *until && is_any_missed);
        let pace = match (self.lookout.until, self.helping.helpers().is_empty()) {
            (Some(_), _) => Pace::Urgent,
            (None, false) => Pace::Gentle,
            (None, true) => Pace::Close,
        };
        if let Some(rendezvous) = &self.rendezvous
            && std::mem::replace(&mut self.lookout.pace, pace) != pace
        {
            rendezvous.set_pace(pace);
        }
    }

    /// Does what is due.
    pub(in crate::node) fn wake_lookout(&mut self, now: Instant) {
        if self.lookout.until.is_some_and(|until| until <= now) {
            self.pace_inboxes(now);
        }
    }

    /// Begins or ends the rescue of the link to `peer`, if it is time.
    pub(in crate::node) fn look_after(&mut self, peer: PeerId) {
        let now = self.clock.now();
        let Some(live) = self.links.live(peer) else {
            return;
        };
        match (&live.rescue, live.upkeep.is_searching()) {
            (Rescue::Idle, true) => {
                let due = now + RESCUE_AFTER;
                live.rescue = Rescue::Waiting { due };
                self.lookout.begin(now);
                self.pace_inboxes(now);
                self.open_meeting(peer);
                self.look_for_ourselves();
            }
            (Rescue::Waiting { due }, true) if *due <= now => self.begin_rescue(peer),
            (Rescue::Doomed { due }, true) if *due <= now => {
                tracing::info!(?peer, "the peer has given the link up meanwhile");
                live.rescue = Rescue::Running { dial: None };
                live.link.give_up();
            }
            (Rescue::Idle, false) => {}
            (Rescue::Waiting { .. } | Rescue::Running { .. } | Rescue::Doomed { .. }, true) => {}
            (Rescue::Waiting { .. } | Rescue::Running { .. } | Rescue::Doomed { .. }, false) => {
                self.end_rescue(peer);
            }
        }
    }

    fn begin_rescue(&mut self, peer: PeerId) {
        let deadline = self.clock.now() + RESCUE_TIME;
        let Some(live) = self.links.live(peer) else {
            return;
        };
        live.rescue = Rescue::Running { dial: None };
        let target = match live.direction {
            Direction::Outgoing => live.target.clone().unwrap_or(Target::Peer(peer)),
            // Who dialled is in no list, and looks where only the two ends of this link do.
            Direction::Incoming => Target::Ticket(meeting(live, peer)),
        };
        let is_incoming = live.direction == Direction::Incoming;
        if self.rendezvous.is_none() || (is_incoming && self.links.rescues() >= RESCUES_MAX) {
            return;
        }
        tracing::info!(?peer, "the link has no path: leaving an offer");
        let dial = self.begin_rescue_dial(target, peer, deadline);
        if let Some(live) = self.links.live(peer) {
            live.rescue = Rescue::Running { dial };
        }
    }

    /// Looks for an offer of the peer where only the two ends of this link do, if it was us who dialled.
    fn open_meeting(&mut self, peer: PeerId) {
        let meetings = self.links.neighbours.values().filter_map(|n| n.live.as_ref());
        let has_room = meetings.filter(|live| live.watch.is_some()).count() < MEETINGS_MAX;
        let us = self.us;
        let (Some(rendezvous), Some(live)) = (self.rendezvous.clone(), self.links.live(peer))
        else {
            return;
        };
        if live.direction == Direction::Incoming || live.watch.is_some() || !has_room {
            return;
        }
        let name = Name::Ticket(us, live.link.meeting().clone());
        let watch = self.watch_inbox(&rendezvous, &name);
        if let Some(live) = self.links.live(peer) {
            live.watch = Some(watch);
        }
    }

    /// The link to `peer` does not need to be rescued any more, or cannot.
    pub(in crate::node) fn end_rescue(&mut self, peer: PeerId) {
        let live = self.links.live(peer);
        let before = live.map(|live| {
            if let Some(watch) = live.watch.take() {
                watch.abort();
            }
            std::mem::take(&mut live.rescue)
        });
        if before.as_ref().is_some_and(|before| !matches!(before, Rescue::Idle)) {
            self.pace_inboxes(self.clock.now());
        }
        if let Some(Rescue::Running { dial: Some(dial) }) = before {
            self.drop_dial(dial);
        }
    }
}

/// Where the two ends of this link leave word for `recipient`, one of them.
fn meeting(live: &Live, recipient: PeerId) -> Ticket {
    Ticket { peer: recipient, secret: live.link.meeting().clone(), addresses: Vec::new() }
}

/// How long a search among the known paths has: most NATs that rebind are found by it in two round trips.
const RESCUE_AFTER: Duration = Duration::from_millis(500);

/// Meetings of links that are looked for at a time: all share the polls of this node.
const MEETINGS_MAX: usize = 8;

/// Links dialled to us that are rescued by offers of ours at a time; a server with more is found by its diallers.
/// Each costs three lookups in the DHT.
const RESCUES_MAX: usize = 8;

/// How long a peer that has moved takes to leave word in the DHT, and to do so again if it was lost.
const LOOKOUT_TIME: Duration = Duration::from_secs(3);

/// Lookouts for peers that vanish one after the other: a node whose peers do so all the time is on the lookout
/// for a fifth of it.
const LOOKOUT_LIMIT: Limit = Limit { burst: 4, interval: Duration::from_secs(15) };

/// QUIC gives a silent connection up before this has passed.
const RESCUE_TIME: Duration = Duration::from_secs(45);
