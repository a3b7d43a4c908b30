//! What went wrong, for people and for programs: a stable code, what, why, and what to do.

use std::fmt;

/// Every way an operation can fail, as programs see it. The list is closed and documented in PROTOCOL.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The line or frame is no command.
    BadRequest,
    /// No such command.
    UnknownCommand,
    /// A command's argument is wrong.
    InvalidArgument,
    /// A line is longer than a line may be.
    LineTooLong,
    /// The program speaks a version of the protocol over stdio that this one does not.
    UnsupportedVersion,
    /// A command with this id is running.
    DuplicateId,
    /// The program gave the command up.
    Cancelled,
    /// The command needs something that is not there yet.
    NotReady,
    /// A flag or an environment variable is wrong.
    ConfigInvalid,
    /// The identity file cannot be read or made.
    KeyUnreadable,
    /// Others than its owner can read the identity file.
    KeyPermissions,
    /// Another node runs with this identity.
    KeyInUse,
    /// The outbox's directory or file cannot be used.
    OutboxUnusable,
    /// The address to bind is taken or not ours.
    AddressInUse,
    /// No STUN server answered: our public address is not known.
    StunFailed,
    /// UDP does not get out of this network at all.
    UdpBlocked,
    /// No DHT node answered.
    DhtUnreachable,
    /// The ticket is damaged.
    InvalidTicket,
    /// Nothing is published under this name, or nobody behind it answers.
    PeerNotFound,
    /// The target is this node itself.
    SelfConnect,
    /// Probes were sent, none was answered.
    PunchTimeout,
    /// Both NATs change ports per destination: no plain probe can get through.
    NatIncompatible,
    /// A path is open but QUIC did not come up over it.
    HandshakeFailed,
    /// Whoever answered has another key than the peer that was asked for.
    PeerIdentityMismatch,
    /// The peer speaks another version of the protocol.
    PeerVersionMismatch,
    /// The peer does not want to talk to us.
    Refused,
    /// The connection was lost.
    ConnectionLost,
    /// The peer ended the connection.
    ClosedByPeer,
    /// This node holds as many peers as it may.
    TooManyPeers,
    /// The message is larger than a message may be.
    MessageTooLarge,
    /// As many messages as may wait for this peer are waiting.
    QueueFull,
    /// It was not done in time.
    Timeout,
    /// The connection was lost with the message in flight: it may or may not have arrived.
    DeliveryUnknown,
    /// The peer has the request, and did not answer it in time.
    NoReply,
    /// The node is stopping.
    ShuttingDown,
    /// A bug in this program.
    Internal,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 36] = [
        Self::BadRequest,
        Self::UnknownCommand,
        Self::InvalidArgument,
        Self::LineTooLong,
        Self::UnsupportedVersion,
        Self::DuplicateId,
        Self::Cancelled,
        Self::NotReady,
        Self::ConfigInvalid,
        Self::KeyUnreadable,
        Self::KeyPermissions,
        Self::KeyInUse,
        Self::OutboxUnusable,
        Self::AddressInUse,
        Self::StunFailed,
        Self::UdpBlocked,
        Self::DhtUnreachable,
        Self::InvalidTicket,
        Self::PeerNotFound,
        Self::SelfConnect,
        Self::PunchTimeout,
        Self::NatIncompatible,
        Self::HandshakeFailed,
        Self::PeerIdentityMismatch,
        Self::PeerVersionMismatch,
        Self::Refused,
        Self::ConnectionLost,
        Self::ClosedByPeer,
        Self::TooManyPeers,
        Self::MessageTooLarge,
        Self::QueueFull,
        Self::Timeout,
        Self::DeliveryUnknown,
        Self::NoReply,
        Self::ShuttingDown,
        Self::Internal,
    ];

    /// The code as it stands in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::UnknownCommand => "unknown_command",
            Self::InvalidArgument => "invalid_argument",
            Self::LineTooLong => "line_too_long",
            Self::UnsupportedVersion => "unsupported_version",
            Self::DuplicateId => "duplicate_id",
            Self::Cancelled => "cancelled",
            Self::NotReady => "not_ready",
            Self::ConfigInvalid => "config_invalid",
            Self::KeyUnreadable => "key_unreadable",
            Self::KeyPermissions => "key_permissions",
            Self::KeyInUse => "key_in_use",
            Self::OutboxUnusable => "outbox_unusable",
            Self::AddressInUse => "address_in_use",
            Self::StunFailed => "stun_failed",
            Self::UdpBlocked => "udp_blocked",
            Self::DhtUnreachable => "dht_unreachable",
            Self::InvalidTicket => "invalid_ticket",
            Self::PeerNotFound => "peer_not_found",
            Self::SelfConnect => "self_connect",
            Self::PunchTimeout => "punch_timeout",
            Self::NatIncompatible => "nat_incompatible",
            Self::HandshakeFailed => "handshake_failed",
            Self::PeerIdentityMismatch => "peer_identity_mismatch",
            Self::PeerVersionMismatch => "peer_version_mismatch",
            Self::Refused => "refused",
            Self::ConnectionLost => "connection_lost",
            Self::ClosedByPeer => "closed_by_peer",
            Self::TooManyPeers => "too_many_peers",
            Self::MessageTooLarge => "message_too_large",
            Self::QueueFull => "queue_full",
            Self::Timeout => "timeout",
            Self::DeliveryUnknown => "delivery_unknown",
            Self::NoReply => "no_reply",
            Self::ShuttingDown => "shutting_down",
            Self::Internal => "internal",
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::NotReady
                | Self::StunFailed
                | Self::DhtUnreachable
                | Self::PeerNotFound
                | Self::PunchTimeout
                | Self::HandshakeFailed
                | Self::ConnectionLost
                | Self::TooManyPeers
                | Self::QueueFull
                | Self::Timeout
                | Self::NoReply
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure that explains itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// What failed.
    pub message: String,
    /// Why, as far as it was measured: probes sent, NAT kinds, ages. Empty if there is nothing to add.
    pub why: String,
    /// What to do about it. Empty if there is nothing.
    pub hint: String,
}

impl Failure {
    /// A failure that says what, but not yet why or what to do.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), why: String::new(), hint: String::new() }
    }

    /// The same failure with its cause.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// The same failure with its remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if !self.why.is_empty() {
            write!(f, " ({})", self.why)?;
        }
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
