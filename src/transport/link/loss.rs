//! How many of the packets that a link sent lately were lost.
//!
//! QUIC counts over the whole life of a connection: an hour of quiet hides a minute in which nothing gets
//! through. The meter remembers how far the counts had come at some moments of the last minute, and compares.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What a link has sent since it came up, and what of it was lost, as its sender sees it (RFC 9002).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// All that were sent.
    pub sent: u64,
    /// Those that were given up.
    pub lost: u64,
}

/// The counts of one link at some moments of the last minute.
#[derive(Debug)]
pub struct LossMeter {
    /// Oldest first; never empty.
    marks: VecDeque<(Instant, Packets)>,
}

impl LossMeter {
    /// For a link that came up at `now`: its handshake counts.
    pub fn new(now: Instant) -> Self {
        Self { marks: VecDeque::from([(now, Packets::default())]) }
    }

    /// Whether [`Self::note`] wants to know the counts again.
    pub fn is_due(&self, now: Instant) -> bool {
        let newest = self.marks.back();
        newest.is_none_or(|(at, _)| now.saturating_duration_since(*at) >= MARK_EVERY)
    }

    /// Takes in how far the counts have come.
    pub fn note(&mut self, packets: Packets, now: Instant) {
        if !self.is_due(now) {
            return;
        }
        self.marks.push_back((now, packets));
        // Of those that are older than the window, the newest is what later counts are compared with.
        while self.marks.get(1).is_some_and(|(at, _)| is_past(*at, now)) {
            self.marks.pop_front();
        }
    }

    /// The share of packets, from 0 to 1, that was lost of those sent since a minute ago or a little longer,
    /// if the counts are `packets` now; `None` if none was sent.
    pub fn recent(&self, packets: Packets, now: Instant) -> Option<f64> {
        let past = self.marks.iter().rev().find(|(at, _)| is_past(*at, now));
        let (_, before) = past.or_else(|| self.marks.front())?;
        let sent = packets.sent.saturating_sub(before.sent);
        // What is given up now may have been sent before.
        let lost = packets.lost.saturating_sub(before.lost).min(sent);
        let [sent, lost] = [sent, lost].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        (sent > 0).then(|| f64::from(lost) / f64::from(sent))
    }
}

fn is_past(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) >= WINDOW
}

/// What counts as lately: long enough for an idle link, which sends some packets in it, and short enough that
/// a bad minute shows while it is one.
const WINDOW: Duration = Duration::from_secs(60);

/// Eight marks at the most, and a window that is ten seconds too long at the worst, if somebody notes as
/// often.
const MARK_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the zero of virtual time")]
    fn zero() -> Instant {
        Instant::now()
    }

    fn packets(sent: u64, lost: u64) -> Packets {
        Packets { sent, lost }
    }

    #[test]
    fn a_young_link_is_judged_by_its_whole_life() {
        let start = zero();
        let meter = LossMeter::new(start);
        assert_eq!(meter.recent(packets(0, 0), start), None);
        assert_eq!(meter.recent(packets(40, 1), start + Duration::from_secs(5)), Some(0.025));
    }

    #[test]
    fn what_was_lost_long_ago_does_not_count() {
        let start = zero();
        let mut meter = LossMeter::new(start);
        // A bad half minute: 100 packets a second, every other one lost.
        for second in 1..=30 {
            meter.note(packets(100 * second, 50 * second), start + Duration::from_secs(second));
        }
        // Then a good one.
        for second in 31..=60 {
            meter.note(packets(100 * second, 1_500), start + Duration::from_secs(second));
        }
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(meter.recent(packets(6_000, 1_500), at(60)), Some(0.25));
        for second in 61..=95 {
            meter.note(packets(100 * second, 1_500), at(second));
        }
        assert_eq!(meter.recent(packets(9_500, 1_500), at(95)), Some(0.0));
    }

    #[test]
    fn a_link_that_sends_nothing_any_more_has_no_loss() {
        let start = zero();
        let mut meter = LossMeter::new(start);
        for minute in 1..=3 {
            meter.note(packets(10, 5), start + Duration::from_secs(60 * minute));
        }
        assert_eq!(meter.recent(packets(10, 5), start + Duration::from_secs(180)), None);
    }

    #[test]
    fn losses_never_exceed_what_was_sent() {
        let start = zero();
        let mut meter = LossMeter::new(start);
        let later = start + Duration::from_secs(60);
        meter.note(packets(1_000, 0), later);
        // A thousand that were sent before are given up now.
        let now = later + Duration::from_secs(61);
        assert_eq!(meter.recent(packets(1_010, 1_000), now), Some(1.0));
    }

    #[test]
    fn a_year_of_notes_costs_eight_marks() {
        let start = zero();
        let mut meter = LossMeter::new(start);
        for second in 0..100_000 {
            meter.note(packets(second, 0), start + Duration::from_secs(second));
            assert!(meter.marks.len() <= 8, "{}", meter.marks.len());
        }
    }
}
