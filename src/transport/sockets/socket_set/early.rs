//! Datagrams that overtake the end of their connection's handshake.
//!
//! A dialler sends its first message right behind the last packet of its handshake. If that one is lost, or comes
//! later, quinn drops the message as too early, and as it has noted the packet's number, a second copy of it, too;
//! then it comes a probe timeout later. RFC 9001, section 5.7, has it wait instead, and so it does here: until a
//! datagram with a Handshake packet arrives, which tells that its sender has all keys.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::apart::Apart;
use crate::transport::quic::header::{ConnectionId, LongHeader, has_handshake};

/// The connections that have begun lately.
#[derive(Default)]
pub(super) struct Early {
    /// The newest last.
    begun: VecDeque<Begun>,
}

struct Begun {
    /// How we call ourselves in it.
    own_id: ConnectionId,
    since: Instant,
    state: State,
}

enum State {
    /// No Handshake packet has come; these have.
    Handshaking(Vec<Apart>),
    /// What comes is not early any more.
    Over,
}

/// What becomes of a datagram that has arrived.
pub(super) enum Verdict {
    /// It goes on.
    Pass,
    /// It waits, if there is room.
    Wait,
    /// It goes on, and so do these, which have waited for it.
    PassBefore(Vec<Apart>),
}

impl Early {
    /// Takes in a datagram of QUIC that we send: an Initial packet begins a connection.
    pub(super) fn handle_sent(&mut self, datagram: &[u8], now: Instant) {
        let Some(header) = LongHeader::read(datagram) else { return };
        let is_known = self.begun.iter().any(|begun| begun.own_id == header.source);
        if is_known || !header.source.is_unguessable() {
            return;
        }
        self.begun.retain(|begun| now.saturating_duration_since(begun.since) < HANDSHAKE_TIME);
        if self.begun.len() >= BEGUN_MAX {
            self.begun.pop_front();
        }
        let state = State::Handshaking(Vec::new());
        self.begun.push_back(Begun { own_id: header.source, since: now, state });
    }

    /// Whether any datagram may be early.
    pub(super) fn is_expected(&self) -> bool {
        self.begun.iter().any(|begun| matches!(begun.state, State::Handshaking(_)))
    }

    /// Decides about a datagram of QUIC that has arrived.
    pub(super) fn judge(&mut self, datagram: &[u8]) -> Verdict {
        let Some(begun) = self.begun_with(datagram) else {
            return Verdict::Pass;
        };
        let State::Handshaking(waiting) = &mut begun.state else {
            return Verdict::Pass;
        };
        if LongHeader::read(datagram).is_none() {
            return Verdict::Wait;
        }
        if !has_handshake(datagram) {
            return Verdict::Pass;
        }
        let waiting = std::mem::take(waiting);
        begun.state = State::Over;
        Verdict::PassBefore(waiting)
    }

    /// Keeps a datagram that is to wait.
    pub(super) fn keep(&mut self, datagram: Apart) {
        if let Some(Begun { state: State::Handshaking(waiting), .. }) =
            self.begun_with(&datagram.bytes)
            && waiting.len() < WAITING_MAX
        {
            waiting.push(datagram);
        }
    }

    fn begun_with(&mut self, datagram: &[u8]) -> Option<&mut Begun> {
        self.begun.iter_mut().find(|begun| begun.own_id.receives(datagram))
    }
}

/// Connections that are remembered: twice as many as may be shaking hands with us at a time.
const BEGUN_MAX: usize = 128;

/// How long: what is not over by then fails.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Datagrams of one connection that wait: what a dialler sends at once, twice. With those of all connections some
/// 1.5 MB.
const WAITING_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::quic::header::tests::{handshake, initial, short};

    const OURS: [u8; 8] = [1; 8];
    const THEIRS: [u8; 8] = [2; 8];

    #[expect(clippy::disallowed_methods, reason = "the zero of virtual time")]
    fn begun() -> Early {
        let mut early = Early::default();
        early.handle_sent(&initial(THEIRS, OURS), Instant::now());
        early
    }

    fn apart(bytes: Vec<u8>) -> Apart {
        Apart { source: ([203, 0, 113, 1], 4_000).into(), bytes, ecn: None }
    }

    #[test]
    fn what_comes_before_the_handshake_packet_goes_on_behind_it() {
        let mut early = begun();
        assert!(matches!(early.judge(&initial(OURS, THEIRS)), Verdict::Pass));
        let message = short(OURS);
        assert!(matches!(early.judge(&message), Verdict::Wait));
        early.keep(apart(message.clone()));
        let Verdict::PassBefore(waited) = early.judge(&handshake(OURS, THEIRS)) else {
            panic!("a handshake packet ends the wait");
        };
        assert_eq!(waited.len(), 1);
        assert_eq!(waited[0].bytes, message);
        assert!(matches!(early.judge(&message), Verdict::Pass));
        assert!(!early.is_expected());
        // Its last Initial packets do not begin it anew.
        early.handle_sent(&initial(THEIRS, OURS), early.begun[0].since);
        assert!(!early.is_expected());
    }

    #[test]
    fn other_connections_wait_for_nothing() {
        let mut early = begun();
        assert!(matches!(early.judge(&short([7; 8])), Verdict::Pass));
        assert!(matches!(early.judge(&handshake([7; 8], THEIRS)), Verdict::Pass));
        assert!(early.is_expected());
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut early = begun();
        for _ in 0..2 * WAITING_MAX {
            early.keep(apart(short(OURS)));
        }
        let Verdict::PassBefore(waited) = early.judge(&handshake(OURS, THEIRS)) else {
            panic!("a handshake packet ends the wait");
        };
        assert_eq!(waited.len(), WAITING_MAX);
        let now = early.begun[0].since;
        for number in 0..=u8::MAX {
            early.handle_sent(&initial(THEIRS, [number; 8]), now);
        }
        assert_eq!(early.begun.len(), BEGUN_MAX);
        early.handle_sent(&initial(THEIRS, [0; 8]), now + HANDSHAKE_TIME);
        assert_eq!(early.begun.len(), 1);
    }
}
