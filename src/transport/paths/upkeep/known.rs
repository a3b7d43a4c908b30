//! The paths of a route that were heard of, and what each has shown so far.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    datagram::{Path, SocketIndex},
    probe::Urgency,
};

/// Best first: a path of a better class is preferred to any of a worse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Within a private network; it costs nobody's uplink.
    SameNetwork,
    /// Over the internet.
    Direct,
}

/// A bounded number of paths, the best among them.
#[derive(Debug)]
pub(super) struct KnownPaths(BTreeMap<Path, Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    rtt: Option<Duration>,
    /// Pings that it answered.
    answers: u32,
    answered_at: Option<Instant>,
    /// When a probe last came by it.
    heard_at: Instant,
    /// When the peer last said on it that it hears us nowhere.
    pleaded_at: Option<Instant>,
}

impl Class {
    fn of(path: Path) -> Self {
        let private = match path.remote.ip().to_canonical() {
            IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => {
                ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local()
            }
        };
        if private { Self::SameNetwork } else { Self::Direct }
    }
}

impl Known {
    fn new(now: Instant) -> Self {
        Self { rtt: None, answers: 0, answered_at: None, heard_at: now, pleaded_at: None }
    }
}

impl KnownPaths {
    pub(super) fn new(best: Path, rtt: Duration, now: Instant) -> Self {
        let known = Known { rtt: Some(rtt), answers: 1, answered_at: Some(now), ..Known::new(now) };
        Self(BTreeMap::from([(best, known)]))
    }

    pub(super) fn contains(&self, path: Path) -> bool {
        self.0.contains_key(&path)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Path> {
        self.0.keys().copied()
    }

    pub(super) fn rtt(&self, path: Path) -> Option<Duration> {
        self.0.get(&path)?.rtt
    }

    /// Adds a path; returns the one that it replaces, if there are too many: one that never answered,
    /// else the one not heard for longest, but never `best`.
    pub(super) fn insert(&mut self, path: Path, best: Path, now: Instant) -> Option<Path> {
        let others = self.0.iter().filter(|(path, _)| **path != best);
        let least = others.min_by_key(|(_, known)| (known.answers > 0, known.heard_at));
        let forgotten = match self.0.len() < PATHS_MAX {
            true => None,
            false => least.map(|(path, _)| *path),
        };
        if let Some(path) = &forgotten {
            self.0.remove(path);
        }
        self.0.insert(path, Known::new(now));
        forgotten
    }

    /// Removes all paths over `socket` but `best`; returns them.
    pub(super) fn remove_socket(&mut self, socket: SocketIndex, best: Path) -> Vec<Path> {
        let over = self.iter().filter(|path| path.socket == socket && *path != best);
        let over: Vec<Path> = over.collect();
        self.0.retain(|path, _| !over.contains(path));
        over
    }

    /// A ping of the peer came by `path`.
    pub(super) fn note_heard(&mut self, path: Path, urgency: Urgency, now: Instant) {
        if let Some(known) = self.0.get_mut(&path) {
            known.heard_at = now;
            if urgency == Urgency::PathLost {
                known.pleaded_at = Some(now);
            }
        }
    }

    /// `path` answered a ping after `rtt`; returns how many it answered so far.
    pub(super) fn note_answer(&mut self, path: Path, rtt: Duration, now: Instant) -> u32 {
        let Some(known) = self.0.get_mut(&path) else {
            return 0;
        };
        // RFC 6298, section 2: an eighth of the new sample.
        known.rtt = Some(known.rtt.map_or(rtt, |smoothed| (smoothed * 7 + rtt) / 8));
        known.heard_at = now;
        known.answered_at = Some(now);
        known.answers = known.answers.saturating_add(1);
        known.answers
    }

    /// Whether `path` answered so lately that it need not be asked again.
    pub(super) fn answered_lately(&self, path: Path, now: Instant) -> bool {
        let answered = self.0.get(&path).and_then(|known| known.answered_at);
        answered.is_some_and(|at| now.saturating_duration_since(at) <= ANSWER_AGE_MAX)
    }

    /// Whether the peer said on `path` that it hears us nowhere, and `best` did not bring the same.
    ///
    /// A peer that is wrong about it, because it only lost some datagrams, says so on all paths, the
    /// best included; one whose address changed cannot be heard on the best any more.
    pub(super) fn pleads_against(&self, path: Path, best: Path, now: Instant) -> bool {
        let (Some(known), Some(best)) = (self.0.get(&path), self.0.get(&best)) else {
            return false;
        };
        known.pleaded_at.is_some_and(|at| {
            now.saturating_duration_since(at) <= PLEA_AGE_MAX
                && best.heard_at + PLEA_SPREAD_MAX < at
        })
    }

    /// Whether `path` is clearly better than `best`.
    pub(super) fn is_better(&self, path: Path, best: Path) -> bool {
        let class = Class::of(path).cmp(&Class::of(best));
        let (Some(known), Some(current)) = (self.0.get(&path), self.0.get(&best)) else {
            return false;
        };
        let (Some(rtt), Some(current_rtt)) = (known.rtt, current.rtt) else {
            return false;
        };
        let faster = rtt + RTT_GAIN_MIN.max(current_rtt / 4) < current_rtt;
        class.is_lt() || (class.is_eq() && faster && known.answers >= ANSWERS_TO_COMPARE)
    }
}

/// Paths of one route that are kept an eye on: two networks on each side, IPv4 and IPv6.
const PATHS_MAX: usize = 8;

/// A plea is acted upon when its path answers, which takes one round trip.
const PLEA_AGE_MAX: Duration = Duration::from_secs(3);

/// An answer proves a path for as long as a plea that follows a doubt may take: three round trips.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(1);

/// The same plea by two paths arrives within this, the difference of their delays.
const PLEA_SPREAD_MAX: Duration = Duration::from_millis(50);

/// Less is noise, and not worth the reordering that a switch brings.
const RTT_GAIN_MIN: Duration = Duration::from_millis(10);

/// One answer may be an outlier.
const ANSWERS_TO_COMPARE: u32 = 2;
