//! When a record is written to the DHT: at once when it has changed, again well before nodes forget it,
//! later if that failed.
//!
//! A peer's own record is simply written. A service record has several writers, so it is read first,
//! written with compare-and-swap, and looked at again a little later: two servers that write at the same
//! moment may each win at other nodes.

use std::time::{Duration, Instant};

use super::rendezvous::{ABSENT, PutError, Stored};
use crate::entropy::Entropy;

/// Between two writes of a record that did not change.
///
/// Nodes forget after two hours; with this, three renewals may fail.
pub const RENEWAL: Duration = Duration::from_secs(25 * 60);

/// Between two writes because of changes: addresses change in bursts.
pub const CHANGE_INTERVAL: Duration = Duration::from_secs(5);

/// After a write of a shared record, when it is looked at again.
pub const CHECK_AFTER: Duration = Duration::from_secs(4);

/// Between attempts when nobody answers; doubles up to the maximum.
pub const RETRY_MIN: Duration = Duration::from_secs(2);
/// See [`RETRY_MIN`].
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// Attempts in a row that others may get in the way of, before we wait as if nobody had answered.
pub const CONFLICTS_MAX: u32 = 8;

/// How long to wait after the first conflict at most; grows with every further one.
pub const CONFLICT_WAIT: Duration = Duration::from_millis(800);

/// Who writes a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// We alone: the record of a peer.
    OnlyUs,
    /// Others as well: the record of a service.
    Many,
}

/// What has to be done; [`Publication::handle_read`] or [`Publication::handle_written`] tells the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Read what is stored, to the lookup's end.
    Read,
    /// Write the record, merged with what was read if there are many writers.
    Write {
        /// What it may replace.
        cas: Option<i64>,
        /// The least number that it may have; otherwise Unix milliseconds.
        seq_min: i64,
    },
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No node answered.
    Nobody,
    /// Nodes answered, but nothing is stored.
    Nothing,
    /// A record with this number, in which our newest entry stands.
    WithUs(i64),
    /// A record with this number, in which our newest entry does not stand.
    WithoutUs(i64),
}

/// When one record is written.
#[derive(Debug)]
pub struct Publication {
    writers: Writers,
    state: State,
    changed: bool,
    /// The number of the last item that we know to be stored.
    seq: Option<i64>,
    /// The number that the last write was to replace.
    cas: Option<i64>,
    /// The same, if nodes then held another one.
    refused_cas: Option<i64>,
    written_at: Option<Instant>,
    retry: Duration,
    conflicts: u32,
    entropy: Entropy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is nothing to be published yet.
    Idle,
    Waiting {
        until: Instant,
        then: Step,
    },
    /// To be put out by `poll_output`.
    Due(Step),
    Busy(Step),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Read in order to write.
    Read,
    Write,
    /// Read in order to see whether what we wrote is still there.
    Check,
}

impl Publication {
    /// A record that does not exist yet.
    pub fn new(writers: Writers, entropy: Entropy) -> Self {
        Self {
            writers,
            state: State::Idle,
            changed: false,
            seq: None,
            cas: None,
            refused_cas: None,
            written_at: None,
            retry: RETRY_MIN,
            conflicts: 0,
            entropy,
        }
    }

    /// There is a record, or it is another one now.
    pub fn handle_changed(&mut self, now: Instant) {
        match self.state {
            State::Idle | State::Waiting { .. } => {
                let earliest = self.written_at.map_or(now, |at| at + CHANGE_INTERVAL);
                self.wait_until(earliest.max(now), self.first_step());
            }
            State::Due(_) => {}
            State::Busy(_) => self.changed = true,
        }
    }

    /// The network is another one: what failed may work now.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.retry = RETRY_MIN;
        self.conflicts = 0;
        if let State::Waiting { .. } = self.state {
            self.wait_until(now, self.first_step());
        }
    }

    /// A read asked for came to its end.
    pub fn handle_read(&mut self, found: Found, now: Instant) {
        let State::Busy(step) = self.state else {
            return;
        };
        let seq = match found {
            Found::Nobody => return self.fail(now),
            Found::Nothing => None,
            Found::WithUs(seq) | Found::WithoutUs(seq) => Some(seq),
        };
        // A lookup may meet only nodes that lag behind what an earlier one found.
        self.seq = seq.max(self.refused_cas);
        match (step, found) {
            (Step::Check, Found::WithUs(_)) if !self.changed => self.succeed(now),
            (Step::Check | Step::Read | Step::Write, _) => {
                self.changed = false;
                self.state = State::Due(Step::Write);
            }
        }
    }

    /// A write asked for came to its end; `seq` is the number that it had.
    pub fn handle_written(&mut self, seq: i64, result: &Result<Stored, PutError>, now: Instant) {
        if self.state != State::Busy(Step::Write) {
            return;
        }
        match result {
            Ok(_) => {
                self.seq = Some(seq);
                self.refused_cas = None;
                self.written_at = Some(now);
                self.conflicts = 0;
                match self.writers {
                    _ if self.changed => self.write_again(now),
                    Writers::OnlyUs => self.succeed(now),
                    Writers::Many => self.wait_until(now + CHECK_AFTER, Step::Check),
                }
            }
            Err(PutError::CasFailed { current } | PutError::NotNewer { current }) => {
                self.seq = current.or(self.seq.map(|seq| seq.saturating_add(1)));
                self.conflict(now);
            }
            Err(
                PutError::TooLarge(_)
                | PutError::NoNodes
                | PutError::Refused(_)
                | PutError::Timeout,
            ) => self.fail(now),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::Waiting { until, then } = self.state
            && until <= now
        {
            self.state = State::Due(then);
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        let State::Due(step) = self.state else {
            return None;
        };
        self.state = State::Busy(step);
        Some(match step {
            Step::Read | Step::Check => Output::Read,
            Step::Write => Output::Write {
                cas: self.next_cas(),
                seq_min: self.seq.map_or(1, |seq| seq.saturating_add(1)),
            },
        })
    }

    /// When [`Publication::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until, .. } => Some(until),
            State::Idle | State::Due(_) | State::Busy(_) => None,
        }
    }

    /// The number of the last item that is known to be stored.
    pub fn seq(&self) -> Option<i64> {
        self.seq
    }

    /// Whether the record is stored, as far as we know.
    pub fn is_published(&self) -> bool {
        self.written_at.is_some() && self.retry == RETRY_MIN && self.conflicts == 0
    }

    fn first_step(&self) -> Step {
        match self.writers {
            Writers::OnlyUs => Step::Write,
            Writers::Many => Step::Read,
        }
    }

    fn succeed(&mut self, now: Instant) {
        self.retry = RETRY_MIN;
        self.wait_until(now + RENEWAL, self.first_step());
    }

    fn write_again(&mut self, now: Instant) {
        self.changed = false;
        self.wait_until(now + CHANGE_INTERVAL, self.first_step());
    }

    fn fail(&mut self, now: Instant) {
        self.wait_until(now + self.retry, self.first_step());
        self.retry = (self.retry * 2).min(RETRY_MAX);
        self.conflicts = 0;
    }

    /// What the next write may replace: what was read, or whatever there is.
    ///
    /// If nothing newer was found after a refusal, nobody got in our way: nodes lag behind, because an
    /// earlier write did not reach them. They would refuse for ever.
    fn next_cas(&mut self) -> Option<i64> {
        let expected = self.seq.unwrap_or(ABSENT);
        let lagging = self.refused_cas == Some(expected);
        self.cas = (self.writers == Writers::Many && !lagging).then_some(expected);
        self.cas
    }

    fn conflict(&mut self, now: Instant) {
        self.conflicts += 1;
        self.refused_cas = self.cas.max(self.refused_cas);
        if self.conflicts > CONFLICTS_MAX {
            return self.fail(now);
        }
        // Whoever got in our way does what we do: only chance tells us apart.
        let percent = u32::try_from(self.entropy.below(100)).unwrap_or(0);
        let wait = CONFLICT_WAIT * self.conflicts * percent / 100;
        self.wait_until(now + wait, self.first_step());
    }

    fn wait_until(&mut self, until: Instant, then: Step) {
        self.state = State::Waiting { until, then };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::some_instant;

    const STORED: Result<Stored, PutError> = Ok(Stored { nodes: 8, conflicting: 0 });

    fn publication(writers: Writers) -> (Publication, Instant) {
        (Publication::new(writers, Entropy::from_seed(1)), some_instant())
    }

    /// Lets time pass up to the next output, and says when and what it was.
    fn next(publication: &mut Publication) -> Option<(Instant, Output)> {
        let at = publication.poll_timeout()?;
        publication.handle_timeout(at);
        Some((at, publication.poll_output()?))
    }

    fn write(cas: Option<i64>, seq_min: i64) -> Output {
        Output::Write { cas, seq_min }
    }

    #[test]
    fn our_own_record_is_written_at_once_and_renewed_in_time() {
        let (mut own, start) = publication(Writers::OnlyUs);
        assert_eq!(own.poll_timeout(), None);
        own.handle_changed(start);
        assert_eq!(next(&mut own), Some((start, write(None, 1))));
        own.handle_written(100, &STORED, start);
        assert!(own.is_published());
        assert_eq!(next(&mut own), Some((start + RENEWAL, write(None, 101))));
    }

    #[test]
    fn changes_in_a_burst_are_written_together() {
        let (mut own, start) = publication(Writers::OnlyUs);
        own.handle_changed(start);
        next(&mut own);
        own.handle_changed(start);
        own.handle_changed(start);
        own.handle_written(100, &STORED, start);
        assert_eq!(next(&mut own), Some((start + CHANGE_INTERVAL, write(None, 101))));
        own.handle_written(200, &STORED, start + CHANGE_INTERVAL);
        own.handle_changed(start + CHANGE_INTERVAL);
        assert_eq!(next(&mut own), Some((start + CHANGE_INTERVAL * 2, write(None, 201))));
    }

    #[test]
    fn failures_are_retried_ever_more_rarely() {
        let (mut own, mut now) = publication(Writers::OnlyUs);
        own.handle_changed(now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let (at, output) = next(&mut own).unwrap();
            assert_eq!(output, write(None, 1));
            waits.push((at - now).as_secs());
            now = at;
            own.handle_written(1, &Err(PutError::Timeout), now);
        }
        assert_eq!(waits, [0, 2, 4, 8, 16, 30, 30, 30, 30]);
        assert!(!own.is_published());
        own.handle_network_change(now);
        assert_eq!(next(&mut own).unwrap().0, now);
    }

    #[test]
    fn a_clock_that_went_backwards_does_not_keep_our_record_from_being_stored() {
        let (mut own, start) = publication(Writers::OnlyUs);
        own.handle_changed(start);
        next(&mut own);
        own.handle_written(100, &Err(PutError::NotNewer { current: Some(500) }), start);
        assert_eq!(next(&mut own).unwrap().1, write(None, 501));
    }

    #[test]
    fn a_shared_record_is_read_written_and_looked_at_again() {
        let (mut shared, start) = publication(Writers::Many);
        shared.handle_changed(start);
        assert_eq!(next(&mut shared), Some((start, Output::Read)));
        shared.handle_read(Found::Nothing, start);
        assert_eq!(shared.poll_output(), Some(write(Some(ABSENT), 1)));
        shared.handle_written(100, &STORED, start);
        let checked = start + CHECK_AFTER;
        assert_eq!(next(&mut shared), Some((checked, Output::Read)));
        shared.handle_read(Found::WithoutUs(150), checked);
        assert_eq!(shared.poll_output(), Some(write(Some(150), 151)));
        shared.handle_written(200, &STORED, checked);
        let checked = checked + CHECK_AFTER;
        assert_eq!(next(&mut shared), Some((checked, Output::Read)));
        shared.handle_read(Found::WithUs(200), checked);
        assert_eq!(next(&mut shared), Some((checked + RENEWAL, Output::Read)));
    }

    #[test]
    fn conflicts_are_tried_again_soon_but_not_for_ever() {
        let (mut shared, start) = publication(Writers::Many);
        let mut now = start;
        shared.handle_changed(now);
        for round in 0..=CONFLICTS_MAX {
            let (at, output) = next(&mut shared).unwrap();
            assert_eq!(output, Output::Read);
            assert!(at - now <= CONFLICT_WAIT * round);
            now = at;
            let theirs = 100 + i64::from(round);
            shared.handle_read(Found::WithoutUs(theirs), now);
            assert_eq!(shared.poll_output(), Some(write(Some(theirs), theirs + 1)));
            let conflict = Err(PutError::CasFailed { current: None });
            shared.handle_written(theirs + 1, &conflict, now);
        }
        assert_eq!(shared.poll_timeout(), Some(now + RETRY_MIN));
    }

    #[test]
    fn nodes_that_lag_behind_are_written_over() {
        let (mut shared, start) = publication(Writers::Many);
        shared.handle_changed(start);
        assert_eq!(next(&mut shared), Some((start, Output::Read)));
        shared.handle_read(Found::WithoutUs(100), start);
        assert_eq!(shared.poll_output(), Some(write(Some(100), 101)));
        shared.handle_written(101, &Err(PutError::CasFailed { current: None }), start);
        let (at, output) = next(&mut shared).unwrap();
        assert_eq!(output, Output::Read);
        shared.handle_read(Found::WithoutUs(100), at);
        assert_eq!(shared.poll_output(), Some(write(None, 101)));
        shared.handle_written(101, &STORED, at);
        assert!(shared.is_published());
    }

    #[test]
    fn when_nobody_answers_nothing_is_written_over() {
        let (mut shared, start) = publication(Writers::Many);
        shared.handle_changed(start);
        next(&mut shared);
        shared.handle_read(Found::Nobody, start);
        assert_eq!(shared.poll_output(), None);
        assert_eq!(next(&mut shared), Some((start + RETRY_MIN, Output::Read)));
    }
}
