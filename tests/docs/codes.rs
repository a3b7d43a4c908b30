//! Every code that a program may be told is reached by a test.

use p2p_node::{failure::Code, transport::link::LinkError};

use crate::markdown::{root, text};

/// Nothing comes to these yet: they are kept because programs may name them already.
const NOT_YET: [Code; 2] = [
    // The tests' worlds are too small for as many offers at once as a node answers.
    Code::TooManyPeers,
    // Not told apart from `stun_failed` and `dht_unreachable`.
    Code::UdpBlocked,
];

/// Where a test meets the code: a file, and what stands there.
fn reached(code: Code) -> Option<(&'static str, String)> {
    let conversation = |name| Some((name, format!("\"code\":\"{code}\"")));
    let told = |file| Some((file, format!("\"{code}\"")));
    let story = |file| Some((file, format!("Code::{code:?}")));
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
            Some(("src/bridge/tests/mod.rs", format!("\"code\":\"{code}\"")))
        }
        Code::ConfigInvalid | Code::KeyUnreadable | Code::KeyPermissions | Code::KeyInUse => {
            Some(("tests/cli/main.rs", code.to_string()))
        }
        Code::OutboxUnusable => Some(("tests/cli/outbox.rs", code.to_string())),
        Code::AddressInUse | Code::StunFailed => told("tests/stdio/program.rs"),
        Code::DhtUnreachable
        | Code::PeerNotFound
        | Code::SelfConnect
        | Code::PeerIdentityMismatch
        | Code::Refused
        | Code::ConnectionLost
        | Code::ClosedByPeer
        | Code::DeliveryUnknown
        | Code::MessageTooLarge => story("tests/internet/failures.rs"),
        Code::PunchTimeout | Code::NatIncompatible => story("tests/internet/matrix.rs"),
        Code::HandshakeFailed | Code::PeerVersionMismatch => story("tests/docs/codes.rs"),
        Code::TooManyPeers | Code::UdpBlocked => None,
    }
}

#[test]
fn every_code_is_reached_by_a_test() {
    for code in Code::ALL {
        match reached(code) {
            Some((file, sign)) => assert!(text(file).contains(&sign), "{file}: {sign}"),
            None => assert!(NOT_YET.contains(&code), "{code}"),
        }
    }
}

#[test]
fn a_code_that_nothing_comes_to_is_said_to_be_so() {
    let row = text("PROTOCOL.md");
    let row = row.lines().find(|line| line.starts_with("| `udp_blocked`")).unwrap();
    assert!(row.contains("not told apart") && row.ends_with('|'));
    let produced = ["src/node", "src/transport", "src/bin/p2p-node"].iter().any(|folder| {
        let files = std::fs::read_dir(root().join(folder)).unwrap().flatten();
        files
            .filter_map(|file| std::fs::read_to_string(file.path()).ok())
            .any(|source| source.contains(&format!("Code::{:?}", Code::UdpBlocked)))
    });
    assert!(!produced, "then a test has to meet it");
}

#[test]
fn ends_of_a_handshake_have_codes_of_their_own() {
    let version = LinkError::VersionMismatch { theirs: Some(7) };
    assert_eq!(version.code(), Code::PeerVersionMismatch);
    assert_eq!(LinkError::TimedOut.code(), Code::HandshakeFailed);
}
