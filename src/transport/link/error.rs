//! Why a link did not come up or went down, and how that is told across the wire.
//!
//! QUIC closes a connection with one number. Numbers of TLS alerts say that the handshake failed; our
//! own say why this program closed it, with a short text for people.

use quinn::{ConnectionError, TransportErrorCode, VarInt};
use thiserror::Error;

use crate::{failure::Code, identity::PeerId};

/// Why a link did not come up, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// Whoever is there has another key than the peer that was expected. Nothing was sent to it.
    #[error("expected {expected}, but another peer is there")]
    IdentityMismatch {
        /// Whom this side expected.
        expected: PeerId,
        /// Who is there, if it came so far as to say.
        found: Option<PeerId>,
    },
    /// The other side expected somebody else than this node.
    #[error("the peer expected somebody else than this node")]
    NotExpected,
    /// The acceptor does not want to talk to the dialler. Both sides get this.
    #[error("refused: {reason}")]
    Refused {
        /// Why, in the acceptor's words.
        reason: String,
    },
    /// The acceptor has no room for another peer. Both sides get this.
    #[error("the peer holds as many connections as it may")]
    Full,
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks another version of the protocol")]
    VersionMismatch {
        /// The version in its hello, if there was one that could be read.
        theirs: Option<u32>,
    },
    /// The link was not up by its deadline.
    #[error("the link was not up in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(Loss),
    /// The peer ended the link on purpose.
    #[error("the peer ended the link: {reason}")]
    ClosedByPeer {
        /// Why, in its words; may be empty.
        reason: String,
    },
    /// This side ended the link.
    #[error("the link was ended on this side")]
    Closed,
    /// The peer has another link to this node, which takes the place of this one. Its session goes on.
    #[error("another link took the place of this one")]
    Replaced,
}

/// How a connection breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Loss {
    /// Nothing was heard from the peer for the idle timeout.
    #[error("nothing was heard from the peer")]
    Silence,
    /// The peer does not know the connection any more: it was restarted.
    #[error("the peer was restarted")]
    Restarted,
    /// The peer sent what the protocol does not allow.
    #[error("the peer broke the protocol: {0}")]
    Violation(String),
    /// The peer says that this side sent what the protocol does not allow.
    #[error("the peer says that this side broke the protocol: {0}")]
    Accused(String),
    /// QUIC or TLS failed in another way.
    #[error("{0}")]
    Transport(String),
}

/// The numbers with which this program closes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCode {
    /// The node went away, or dropped the link without a word.
    Gone,
    /// Ended on purpose.
    Bye,
    /// The acceptor's rule does not admit the dialler.
    Refused,
    /// The hello names another version.
    Version,
    /// A frame was wrong, or came at the wrong time.
    Violation,
    /// No hello came in time.
    Timeout,
    /// Another link takes the place of this one.
    Replaced,
    /// The acceptor has no room for another peer.
    Full,
}

impl CloseCode {
    const ALL: [Self; 8] = [
        Self::Gone,
        Self::Bye,
        Self::Refused,
        Self::Version,
        Self::Violation,
        Self::Timeout,
        Self::Replaced,
        Self::Full,
    ];

    fn number(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Gone => 0,
            Self::Bye => 1,
            Self::Refused => 2,
            Self::Version => 3,
            Self::Violation => 4,
            Self::Timeout => 5,
            Self::Replaced => 6,
            Self::Full => 7,
        })
    }

    fn from_number(number: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Closes `connection`, with as much of `reason` as may be told.
    pub(super) fn close(self, connection: &quinn::Connection, reason: &str) {
        connection.close(self.number(), truncate(reason).as_bytes());
    }
}

impl LinkError {
    /// The link broke because the peer sent what it may not.
    pub(super) fn violation(what: impl ToString) -> Self {
        Self::Lost(Loss::Violation(what.to_string()))
    }

    /// What the end of the QUIC connection means.
    pub(super) fn of(error: ConnectionError) -> Self {
        match error {
            ConnectionError::VersionMismatch => Self::VersionMismatch { theirs: None },
            ConnectionError::TransportError(error)
                if is_alert(error.code, NO_APPLICATION_PROTOCOL) =>
            {
                Self::VersionMismatch { theirs: None }
            }
            ConnectionError::ConnectionClosed(close)
                if is_alert(close.error_code, NO_APPLICATION_PROTOCOL) =>
            {
                Self::VersionMismatch { theirs: None }
            }
            ConnectionError::ConnectionClosed(close)
                if is_alert(close.error_code, ACCESS_DENIED) =>
            {
                Self::NotExpected
            }
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                Self::Refused { reason: "the peer is busy".to_owned() }
            }
            ConnectionError::TransportError(error) => {
                Self::Lost(Loss::Transport(error.to_string()))
            }
            ConnectionError::ConnectionClosed(close) => {
                Self::Lost(Loss::Transport(close.to_string()))
            }
            ConnectionError::ApplicationClosed(close) => {
                Self::of_close(close.error_code, printable(&close.reason))
            }
            ConnectionError::Reset => Self::Lost(Loss::Restarted),
            ConnectionError::TimedOut => Self::Lost(Loss::Silence),
            ConnectionError::LocallyClosed => Self::Closed,
            ConnectionError::CidsExhausted => {
                Self::Lost(Loss::Transport("out of connection ids".to_owned()))
            }
        }
    }

    fn of_close(number: VarInt, reason: String) -> Self {
        match CloseCode::from_number(number) {
            Some(CloseCode::Gone | CloseCode::Bye) | None => Self::ClosedByPeer { reason },
            Some(CloseCode::Refused) => Self::Refused { reason },
            Some(CloseCode::Version) => Self::VersionMismatch { theirs: reason.parse().ok() },
            Some(CloseCode::Violation) => Self::Lost(Loss::Accused(reason)),
            Some(CloseCode::Timeout) => Self::TimedOut,
            Some(CloseCode::Replaced) => Self::Replaced,
            Some(CloseCode::Full) => Self::Full,
        }
    }

    /// Whether `error` is this side's refusal of the other side's key.
    pub(super) fn is_wrong_key(error: &ConnectionError) -> bool {
        matches!(error, ConnectionError::TransportError(error) if is_alert(error.code, ACCESS_DENIED))
    }

    /// The code under which programs know this.
    pub fn code(&self) -> Code {
        match self {
            Self::IdentityMismatch { .. } | Self::NotExpected => Code::PeerIdentityMismatch,
            Self::Refused { .. } => Code::Refused,
            Self::Full => Code::TooManyPeers,
            Self::VersionMismatch { .. } => Code::PeerVersionMismatch,
            Self::TimedOut => Code::HandshakeFailed,
            Self::Lost(_) | Self::Replaced => Code::ConnectionLost,
            Self::ClosedByPeer { .. } => Code::ClosedByPeer,
            Self::Closed => Code::ShuttingDown,
        }
    }
}

/// RFC 9001, section 4.8: an alert becomes an error code of QUIC.
fn is_alert(code: TransportErrorCode, alert: u8) -> bool {
    code == TransportErrorCode::crypto(alert)
}

/// Words of the peer as they may be shown: no control characters, and not many.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text: String = text
        .chars()
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect();
    truncate(&text).to_owned()
}

/// As much of `text` as [`REASON_SIZE_MAX`] allows.
pub(super) fn truncate(text: &str) -> &str {
    let whole = text.char_indices().map(|(start, it)| start + it.len_utf8());
    let end = whole.take_while(|&end| end <= REASON_SIZE_MAX).last();
    text.get(..end.unwrap_or(0)).expect("a character ends where it ends")
}

/// Bytes of a reason: a sentence or two, in any script.
const REASON_SIZE_MAX: usize = 256;

/// TLS alert 49, which our verifier sends when the other side has another key than expected.
const ACCESS_DENIED: u8 = 49;

/// TLS alert 120: no common ALPN (RFC 7301).
const NO_APPLICATION_PROTOCOL: u8 = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_code_is_read_as_it_was_meant() {
        let read =
            |code: CloseCode, reason: &str| LinkError::of_close(code.number(), reason.into());
        let reason = || "why".to_owned();
        assert_eq!(
            CloseCode::ALL.map(|code| read(code, "why")),
            [
                LinkError::ClosedByPeer { reason: reason() },
                LinkError::ClosedByPeer { reason: reason() },
                LinkError::Refused { reason: reason() },
                LinkError::VersionMismatch { theirs: None },
                LinkError::Lost(Loss::Accused(reason())),
                LinkError::TimedOut,
                LinkError::Replaced,
                LinkError::Full,
            ]
        );
        assert_eq!(read(CloseCode::Version, "7"), LinkError::VersionMismatch { theirs: Some(7) });
    }

    #[test]
    fn a_peers_words_are_short_and_printable() {
        assert_eq!(printable(b"a\nb\x1b[31m\xff"), "a\u{fffd}b\u{fffd}[31m\u{fffd}");
        assert_eq!(printable("ä".repeat(1_000).as_bytes()), "ä".repeat(128));
    }
}
