//! What a punch wants done, and what it found out.

use std::{cmp::Ordering, collections::BTreeSet, net::SocketAddr, time::Duration};

use crate::{datagram::Path, nat::distance::Distance, probe::Probe};

/// What a [`Punch`](super::Punch) wants done, or found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be sealed and sent on this path.
    Transmit {
        /// Where.
        path: Path,
        /// What.
        probe: Probe,
    },
    /// The peer was heard on this path for the first time. It may not hear us there yet, but nothing
    /// better is known: who has a first packet waiting should send it there now.
    Heard {
        /// From where to where.
        path: Path,
    },
    /// This path works both ways.
    Open(Opened),
    /// This path works too, and is to be preferred from now on.
    Better(Opened),
    /// The deadline passed and no path is open.
    GaveUp(Facts),
}

/// A path that was proved to work both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The path.
    pub path: Path,
    /// Its round trip.
    pub rtt: Duration,
    /// Where the peer sees us on it.
    pub observed: SocketAddr,
}

/// What was done and seen in this attempt, for explanations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Pings sent.
    pub pings_sent: u64,
    /// Pings sent to guessed ports, or from sockets that were opened for guesses.
    pub guesses_sent: u64,
    /// Pongs sent.
    pub pongs_sent: u64,
    /// Pings heard.
    pub pings_heard: u64,
    /// Pings not answered because there were too many.
    pub pings_unanswered: u64,
    /// Pongs that came from elsewhere than their ping went.
    pub pongs_misdirected: u64,
    /// Addresses pinged.
    pub addresses: BTreeSet<SocketAddr>,
    /// Paths on which the peer was heard.
    pub heard: BTreeSet<Path>,
}

impl Opened {
    /// Nearer, or clearly quicker: by a fifth and 2 ms, so that jitter does not decide.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        let distance = Distance::of(self.path.remote.ip());
        let quicker = (other.rtt / 5).max(Duration::from_millis(2));
        match distance.cmp(&Distance::of(other.path.remote.ip())) {
            Ordering::Less => true,
            Ordering::Equal => self.rtt + quicker < other.rtt,
            Ordering::Greater => false,
        }
    }
}
