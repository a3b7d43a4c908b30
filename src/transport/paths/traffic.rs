//! What has gone over a route, and when: the facts that tell whether it still works.

use std::time::Instant;

/// Datagrams and bytes that went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// UDP datagrams.
    pub datagrams: u64,
    /// Their UDP payload.
    pub bytes: u64,
}

/// QUIC's traffic over one route; probes are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What the peer sent us.
    pub received: Volume,
    /// What we sent to the peer.
    pub sent: Volume,
    /// When the peer was last heard.
    pub heard_at: Option<Instant>,
    /// When we last sent.
    pub sent_at: Option<Instant>,
    /// When we sent the first datagram since the peer was last heard; `None` if we sent none since.
    pub unanswered_since: Option<Instant>,
}

/// Whether a send is the first since the peer was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Sent {
    /// It is: from now on the peer owes us an answer.
    First,
    /// Others went before it.
    Again,
}

impl Traffic {
    /// Counts datagrams of the peer.
    pub(in crate::transport) fn count_received(&mut self, volume: Volume, now: Instant) {
        self.received.add(volume);
        self.heard_at = Some(now);
        self.unanswered_since = None;
    }

    /// Counts datagrams to the peer.
    pub(in crate::transport) fn count_sent(&mut self, volume: Volume, now: Instant) -> Sent {
        self.sent.add(volume);
        self.sent_at = Some(now);
        match self.unanswered_since {
            Some(_) => Sent::Again,
            None => {
                self.unanswered_since = Some(now);
                Sent::First
            }
        }
    }
}

impl Volume {
    /// What a buffer of datagrams of `segment_size` bytes holds; the last one may be shorter.
    pub(in crate::transport) fn of(bytes: usize, segment_size: usize) -> Self {
        let datagrams = bytes.div_ceil(segment_size.max(1));
        Self {
            datagrams: u64::try_from(datagrams).unwrap_or(u64::MAX),
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        }
    }

    fn add(&mut self, other: Self) {
        self.datagrams = self.datagrams.saturating_add(other.datagrams);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_send_after_hearing_the_peer_waits_for_an_answer() {
        // The only clock of the test; all moments are relative to it.
        let start = tokio::time::Instant::now().into_std();
        let at = |ms| start + Duration::from_millis(ms);
        let one = Volume::of(1200, 1200);
        let mut traffic = Traffic::default();
        assert_eq!(traffic.count_sent(one, at(1)), Sent::First);
        assert_eq!(traffic.count_sent(Volume::of(2500, 1200), at(2)), Sent::Again);
        assert_eq!(traffic.unanswered_since, Some(at(1)));
        traffic.count_received(one, at(3));
        assert_eq!(traffic.unanswered_since, None);
        assert_eq!(traffic.count_sent(one, at(4)), Sent::First);
        let expected = Traffic {
            received: one,
            sent: Volume { datagrams: 5, bytes: 4900 },
            heard_at: Some(at(3)),
            sent_at: Some(at(4)),
            unanswered_since: Some(at(4)),
        };
        assert_eq!(traffic, expected);
    }
}
