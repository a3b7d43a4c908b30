//! What the program's exit code says.

use crate::failure::Code;

/// All went well, or the user asked for the end.
pub const OK: u8 = 0;
/// A bug in this program.
pub const INTERNAL: u8 = 1;
/// A flag, a command or one of its arguments is wrong.
pub const USAGE: u8 = 2;
/// The configuration or the identity file is wrong.
pub const CONFIG: u8 = 3;
/// There is no network, or it lets no UDP through, or no DHT node answers.
pub const NETWORK: u8 = 4;
/// The peer was not found, or found and not reached.
pub const PEER: u8 = 5;
/// The peer does not want us, or is not who it should be.
pub const REFUSED: u8 = 6;
/// It was not done in time.
pub const TIMEOUT: u8 = 7;
/// Interrupted twice (128 and the number of SIGINT, as shells count).
pub const INTERRUPTED: u8 = 130;

/// The exit code of a program whose last failure was `code`.
pub fn exit_code(code: Code) -> u8 {
    match code {
        Code::Internal => INTERNAL,
        Code::BadRequest
        | Code::UnknownCommand
        | Code::InvalidArgument
        | Code::LineTooLong
        | Code::UnsupportedVersion
        | Code::DuplicateId
        | Code::InvalidTicket
        | Code::SelfConnect
        | Code::MessageTooLarge => USAGE,
        Code::ConfigInvalid
        | Code::KeyUnreadable
        | Code::KeyPermissions
        | Code::KeyInUse
        | Code::OutboxUnusable
        | Code::AddressInUse => CONFIG,
        Code::StunFailed | Code::UdpBlocked | Code::DhtUnreachable => NETWORK,
        Code::NotReady
        | Code::PeerNotFound
        | Code::PunchTimeout
        | Code::NatIncompatible
        | Code::HandshakeFailed
        | Code::ConnectionLost
        | Code::ClosedByPeer
        | Code::TooManyPeers
        | Code::DeliveryUnknown => PEER,
        Code::PeerIdentityMismatch | Code::PeerVersionMismatch | Code::Refused => REFUSED,
        Code::Cancelled | Code::QueueFull | Code::Timeout | Code::NoReply | Code::ShuttingDown => {
            TIMEOUT
        }
    }
}
