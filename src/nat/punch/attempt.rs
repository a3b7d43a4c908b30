//! When one path of a punch is pinged: the schedule, and how many pings it may cost.

use std::time::{Duration, Instant};

/// When the first pings on a path are sent, counted from the first.
///
/// The side that hears of the other first cannot know when the other one starts, and every ping before
/// that is lost at the other's NAT; so they come densely while that is likely: three within a round
/// trip of 80 ms. Each gap is about 1.4 times the one before. With 15 % of the datagrams lost each way,
/// nine paths in ten are heard after 30 ms and proved after one round trip and 30 ms.
const FIRST_PINGS_AT: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(30),
    Duration::from_millis(70),
    Duration::from_millis(130),
    Duration::from_millis(220),
    Duration::from_millis(350),
    Duration::from_millis(500),
];

/// Time between the pings after the first ones.
///
/// A path that was blocked is found open this long after it opened; mappings live 30 s and more.
const LATER_PINGS_EVERY: Duration = Duration::from_millis(500);

/// Pings on one path in one attempt before the peer is heard there: 13 s of them.
///
/// A dial takes 10 s; an owner that wants more restarts the machine with fresh candidates.
const PINGS_INTO_SILENCE_MAX: u32 = 32;

/// Pings on one path in one attempt: eight are kept for when the peer is heard there late.
pub const PINGS_PER_PATH_MAX: u32 = 40;

/// Pings that one ping heard on a path nobody offered lets us send there.
///
/// With the pong they are three datagrams for one, as large as it: whoever sends with a forged source
/// address turns them on somebody else no better than with QUIC (RFC 9000, section 8).
const PINGS_PER_PING_HEARD: u32 = 2;

/// Pings on one path that nobody offered, however many are heard there in one attempt.
///
/// Where the peer is heard, nearly all paths open with the first ping: eight fail together once in
/// 28,000 times with 15 % loss. Two NATs that give a new port to every destination and let everything
/// in would otherwise keep us both busy for ever.
const PINGS_PER_LEARNED_PATH_MAX: u32 = 8;

/// Time between two pings on one path, however many are heard on it.
const PING_GAP_MIN: Duration = Duration::from_millis(20);

/// The trying of one path.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) origin: Origin,
    /// When the schedule began.
    began: Instant,
    /// Pings sent since.
    round: u32,
    /// Pings that may still be sent on this path in this attempt.
    pings_left: u32,
    /// Those of them that may be sent before the peer is heard there again.
    allowance: u32,
    last_ping: Option<Instant>,
    state: State,
}

/// Why a path is tried; offered ones first, in the order of the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Offered(usize),
    Learned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was heard from there.
    Silent,
    /// The peer reaches us.
    Heard,
    /// And we reach the peer.
    Open,
    /// No longer wanted.
    Stopped,
}

impl Attempt {
    /// Due at once.
    pub(super) fn new(origin: Origin, now: Instant) -> Self {
        let (pings_left, allowance) = match origin {
            Origin::Offered(_) => (PINGS_PER_PATH_MAX, PINGS_INTO_SILENCE_MAX),
            Origin::Learned => (PINGS_PER_LEARNED_PATH_MAX, 0),
        };
        Self {
            origin,
            began: now,
            round: 0,
            pings_left,
            allowance,
            last_ping: None,
            state: State::Silent,
        }
    }

    /// When the next ping is due, if there is one.
    pub(super) fn next(&self) -> Option<Instant> {
        let is_wanted = matches!(self.state, State::Silent | State::Heard);
        let is_allowed = self.pings_left.min(self.allowance) > 0;
        let scheduled = self.began + ping_at(self.round);
        (is_wanted && is_allowed)
            .then(|| self.last_ping.map_or(scheduled, |last| scheduled.max(last + PING_GAP_MIN)))
    }

    /// Whether a ping is due now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next().is_some_and(|next| next <= now)
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The peer was heard there: now pings have good prospects, and the schedule begins anew. On a path
    /// that was offered it does so once, as its budget is for the whole attempt.
    pub(super) fn handle_heard(&mut self, now: Instant) {
        let is_first = match self.state {
            State::Silent => true,
            State::Heard => false,
            State::Open | State::Stopped => return,
        };
        self.state = State::Heard;
        self.allowance = match self.origin {
            Origin::Offered(_) => self.pings_left,
            Origin::Learned => PINGS_PER_PING_HEARD,
        };
        if is_first || self.origin == Origin::Learned {
            self.began = now;
            self.round = 0;
        }
    }

    /// A ping was answered.
    pub(super) fn handle_open(&mut self) {
        self.state = State::Open;
    }

    /// No more pings are wanted.
    pub(super) fn stop(&mut self) {
        if self.state != State::Open {
            self.state = State::Stopped;
        }
    }

    /// Counts a ping that is sent now; `false` if none may be.
    pub(super) fn count_ping(&mut self, now: Instant) -> bool {
        if self.pings_left.min(self.allowance) == 0 {
            return false;
        }
        self.pings_left -= 1;
        self.allowance -= 1;
        self.round += 1;
        self.last_ping = Some(now);
        true
    }
}

/// When the ping of `round` is due, counted from the first, which is round 0.
fn ping_at(round: u32) -> Duration {
    let first = usize::try_from(round).ok().and_then(|round| FIRST_PINGS_AT.get(round));
    first.copied().unwrap_or_else(|| {
        let last = FIRST_PINGS_AT.last().copied().unwrap_or_default();
        let later = u32::try_from(FIRST_PINGS_AT.len())
            .map_or(0, |first| round.saturating_sub(first).saturating_add(1));
        last + LATER_PINGS_EVERY * later
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::story::moment;

    /// When `attempt` pings, in ms from `start`, until it has no more to send.
    fn pings(attempt: &mut Attempt, start: Instant) -> Vec<u128> {
        let mut times = vec![];
        while let Some(next) = attempt.next() {
            assert!(attempt.count_ping(next));
            times.push((next - start).as_millis());
        }
        times
    }

    #[test]
    fn an_offered_path_is_pinged_densely_and_then_twice_a_second_for_13_s() {
        let start = moment();
        let times = pings(&mut Attempt::new(Origin::Offered(0), start), start);
        assert_eq!(times[..9], [0, 30, 70, 130, 220, 350, 500, 1_000, 1_500]);
        assert_eq!(times.len(), 32);
        assert_eq!(times.last(), Some(&13_000));
    }

    #[test]
    fn a_learned_path_is_pinged_twice_for_each_ping_heard_and_eight_times_in_all() {
        let start = moment();
        let mut attempt = Attempt::new(Origin::Learned, start);
        assert_eq!(pings(&mut attempt, start), Vec::<u128>::new());
        attempt.handle_heard(start);
        assert_eq!(pings(&mut attempt, start), [0, 30]);
        attempt.handle_heard(start + Duration::from_millis(40));
        assert_eq!(pings(&mut attempt, start), [50, 70]);
        for millis in [1_000, 2_000, 3_000, 4_000] {
            attempt.handle_heard(start + Duration::from_millis(millis));
            pings(&mut attempt, start);
        }
        assert_eq!(attempt.pings_left, 0);
    }

    #[test]
    fn hearing_the_peer_begins_the_schedule_anew_once() {
        let start = moment();
        let mut attempt = Attempt::new(Origin::Offered(0), start);
        for _ in 0..8 {
            attempt.count_ping(attempt.next().unwrap());
        }
        let heard = start + Duration::from_millis(1_200);
        attempt.handle_heard(heard);
        attempt.count_ping(attempt.next().unwrap());
        attempt.handle_heard(heard + Duration::from_millis(10));
        let times = pings(&mut attempt, start);
        assert_eq!(times[..3], [1_230, 1_270, 1_330]);
        assert_eq!(times.len(), 40 - 9);
    }
}
