//! How long to wait for an answer before doubting a path, and before asking all others.

use std::time::Duration;

/// From the first unanswered datagram until the best path is asked.
///
/// One and a half round trips: QUIC answers within one, and 25 ms of delayed acknowledgement. An
/// acknowledgement itself is never answered, so this happens at the end of every burst, and must be
/// cheap: one ping.
pub(super) fn doubt_after(rtt: Duration) -> Duration {
    (rtt * 3 / 2 + DOUBT_MARGIN).max(DOUBT_AFTER_MIN)
}

/// From the first unanswered datagram until all paths are asked.
///
/// Three round trips: by then the doubt's ping is answered, unless the path is broken or lost it.
pub(super) fn alarm_after(rtt: Duration) -> Duration {
    (rtt * 3 + ALARM_MARGIN).max(ALARM_AFTER_MIN)
}

/// Between the first two rounds of a search: a round trip. Each later interval is double the one before.
pub(super) fn first_round_after(rtt: Duration) -> Duration {
    (rtt + ROUND_MARGIN).clamp(ROUND_EVERY_MIN, ROUND_EVERY_MAX)
}

/// Rounds of a search are never further apart, until the peer counts as lost.
pub(super) const ROUND_EVERY_MAX: Duration = Duration::from_secs(1);

const ROUND_EVERY_MIN: Duration = Duration::from_millis(50);

/// So that an answer which takes a little longer than the last ones does not meet a second question.
const ROUND_MARGIN: Duration = Duration::from_millis(20);

const DOUBT_MARGIN: Duration = Duration::from_millis(10);

/// Delayed acknowledgements and a busy scheduler on each side, three times over.
const DOUBT_AFTER_MIN: Duration = Duration::from_millis(75);

const ALARM_MARGIN: Duration = Duration::from_millis(20);

/// Double the doubt's, so that its ping has as long again.
const ALARM_AFTER_MIN: Duration = Duration::from_millis(150);
