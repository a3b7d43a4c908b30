//! A live link hears nothing any more: its two ends meet again, as in a dial, and it goes on over another
//! path.
//!
//! When a NAT gives a node another port or address, the node's probes show its peer where it is now; but a
//! NAT in front of the peer that looks at ports does not let them in. Then both sides ask where they are
//! themselves, and the one that dialled leaves an offer in the other's inbox, looks its record up, and
//! probes, all as at the first time, except that a path that opens is given to the link that is there.

use std::time::{Duration, Instant};

use super::{
    driver::{DialId, Driver},
    event::{Direction, Target},
    linking::Links,
};
use crate::identity::PeerId;

/// How far the rescue of one link is.
#[derive(Clone, Debug, Default)]
pub(super) enum Rescue {
    /// The peer is heard.
    #[default]
    Idle,
    /// It is not; if that lasts until `due`, we dial.
    Waiting { due: Instant },
    /// We dial, or wait for the other side to do so.
    Running { dial: Option<DialId> },
}

impl Links {
    /// When the rescue of a link is due.
    pub(super) fn poll_rescue(&self) -> Option<Instant> {
        let live = self.neighbours.values().filter_map(|n| n.live.as_ref());
        live.filter_map(|live| match live.rescue {
            Rescue::Waiting { due } => Some(due),
            Rescue::Idle | Rescue::Running { .. } => None,
        })
        .min()
    }
}

impl Driver {
    /// Begins or ends the rescue of the link to `peer`, if it is time.
    pub(super) fn look_after(&mut self, peer: PeerId) {
        let now = self.clock.now();
        let Some(live) = self.links.live(peer) else {
            return;
        };
        match (&live.rescue, live.upkeep.is_searching()) {
            (Rescue::Idle, true) => {
                let due = now + RESCUE_AFTER;
                live.rescue = Rescue::Waiting { due };
                self.look_for_ourselves();
            }
            (Rescue::Waiting { due }, true) if *due <= now => self.begin_rescue(peer),
            (Rescue::Waiting { .. } | Rescue::Running { .. }, false) => self.end_rescue(peer),
            (Rescue::Idle, false) | (Rescue::Waiting { .. } | Rescue::Running { .. }, true) => {}
        }
    }

    fn begin_rescue(&mut self, peer: PeerId) {
        let deadline = self.clock.now() + RESCUE_TIME;
        let Some(live) = self.links.live(peer) else {
            return;
        };
        live.rescue = Rescue::Running { dial: None };
        let target = live.target.clone().unwrap_or(Target::Peer(peer));
        if live.direction == Direction::Incoming || self.rendezvous.is_none() {
            return;
        }
        tracing::info!(?peer, "the link has no path: leaving an offer");
        let dial = self.begin_rescue_dial(target, peer, deadline);
        if let Some(live) = self.links.live(peer) {
            live.rescue = Rescue::Running { dial };
        }
    }

    /// The link to `peer` does not need to be rescued any more, or cannot.
    pub(super) fn end_rescue(&mut self, peer: PeerId) {
        let live = self.links.live(peer);
        let before = live.map(|live| std::mem::take(&mut live.rescue));
        if let Some(Rescue::Running { dial: Some(dial) }) = before {
            self.drop_dial(dial);
        }
    }
}

/// How long a search among the known paths has: most NATs that rebind are found by it in two round trips.
const RESCUE_AFTER: Duration = Duration::from_millis(500);

/// QUIC gives a silent connection up before this has passed.
const RESCUE_TIME: Duration = Duration::from_secs(45);
