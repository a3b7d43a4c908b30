//! Every code that a program may be told is reached by a test.

use p2p_node::{failure::Code, transport::link::LinkError};

use crate::markdown::text;

/// Where a test meets the code: a file, and what stands there.
fn reached(code: Code) -> (&'static str, String) {
    let conversation = |name| (name, format!("\"code\":\"{code}\""));
    let told = |file| (file, format!("\"{code}\""));
    let story = |file| (file, format!("Code::{code:?}"));
    match code {
        Code::BadRequest
        | Code::UnknownCommand
        | Code::InvalidArgument
        | Code::NotReady
        | Code::InvalidTicket => conversation("tests/transcripts/mistakes.txt"),
        Code::UnsupportedVersion => conversation("tests/transcripts/versions.txt"),
        Code::DuplicateId | Code::Cancelled | Code::NoReply => {
            conversation("tests/transcripts/all-commands.txt")
        }
        Code::ShuttingDown => conversation("tests/transcripts/slow-peer.txt"),
        Code::LineTooLong | Code::QueueFull | Code::Timeout | Code::Internal => {
            conversation("src/bridge/tests/mod.rs")
        }
        Code::ConfigInvalid | Code::KeyUnreadable | Code::KeyPermissions | Code::KeyInUse => {
            ("tests/cli/main.rs", code.to_string())
        }
        Code::OutboxUnusable => ("tests/cli/outbox.rs", code.to_string()),
        Code::AddressInUse | Code::StunFailed => told("tests/stdio/program.rs"),
        Code::DhtUnreachable
        | Code::PeerNotFound
        | Code::SelfConnect
        | Code::PeerIdentityMismatch
        | Code::Refused
        | Code::ConnectionLost
        | Code::ClosedByPeer
        | Code::DeliveryUnknown
        | Code::TooManyPeers
        | Code::UdpBlocked
        | Code::MessageTooLarge => story("tests/internet/failures.rs"),
        Code::PunchTimeout | Code::NatIncompatible => story("tests/internet/matrix.rs"),
        Code::HandshakeFailed | Code::PeerVersionMismatch => story("tests/docs/codes.rs"),
    }
}

#[test]
fn every_code_is_reached_by_a_test() {
    for code in Code::ALL {
        let (file, sign) = reached(code);
        assert!(text(file).contains(&sign), "{file}: {sign}");
    }
}

#[test]
fn ends_of_a_handshake_have_codes_of_their_own() {
    let version = LinkError::VersionMismatch { theirs: Some(7) };
    assert_eq!(version.code(), Code::PeerVersionMismatch);
    assert_eq!(LinkError::TimedOut.code(), Code::HandshakeFailed);
}
