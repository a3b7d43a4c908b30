//! `p2p-node send`: one message, delivered or not.

use std::{
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use p2p_node::{
    bridge::{exit, reply::Reply},
    entropy::Entropy,
    failure::{Code, Failure},
    node::{
        Clock, Role,
        event::{Receipt, SendState},
    },
    proto::Message,
};

use super::{OneShot, fail, find_peer, run};
use crate::{
    args::{Colour, SendArgs, Text},
    watchdog::Watchdog,
};

/// Bytes that a payload may have, as PROTOCOL.md says; the node would refuse more, but only when all is read.
const PAYLOAD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Sends what `args` say.
pub(crate) fn send(args: SendArgs, colour: Colour, watchdog: &Watchdog) -> ExitCode {
    // Before there is a node, because whoever writes to stdin may take long.
    let payload = match payload(&args.text) {
        Ok(payload) => payload,
        Err(failure) => return fail(&failure),
    };
    let (target, node) = match find_peer(&args.peer, args.node) {
        Ok(found) => found,
        Err(failure) => return fail(&failure),
    };
    let message = message(payload, args.r#type);
    run(node, Role::Client, colour, watchdog, |OneShot { node, mut told, .. }| async move {
        match told.during(node.send(target, message, args.timeout)).await {
            Ok(receipt) => print(receipt?, args.json),
            Err(stop) => stop.cut_off(),
        }
    })
}

fn payload(text: &Text) -> Result<Bytes, Failure> {
    match text {
        Text::Given(text) => Ok(Bytes::from(text.clone())),
        Text::Piped if io::stdin().is_terminal() => {
            Err(Failure::new(Code::InvalidArgument, "there is nothing to send")
                .because("no message was given, and stdin is a terminal")
                .hint("p2p-node send <peer> hello; or - to type the message, up to Ctrl-D"))
        }
        Text::Piped | Text::Stdin => read(io::stdin()),
    }
}

fn read(input: impl Read) -> Result<Bytes, Failure> {
    let mut payload = Vec::new();
    input.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut payload).map_err(|error| {
        Failure::new(Code::InvalidArgument, "stdin cannot be read").because(error.to_string())
    })?;
    if u64::try_from(payload.len()).unwrap_or(u64::MAX) > PAYLOAD_BYTES_MAX {
        let failure = Failure::new(Code::MessageTooLarge, "stdin has more than a message may");
        return Err(failure
            .because(format!("a payload has at most {PAYLOAD_BYTES_MAX} bytes"))
            .hint("split it into several messages"));
    }
    Ok(Bytes::from(payload))
}

fn message(payload: Bytes, r#type: Option<String>) -> Message {
    let usual = if std::str::from_utf8(&payload).is_ok() { "text" } else { "bytes" };
    Message {
        id: HEXLOWER.encode(&Entropy::from_system().bytes::<8>()),
        r#type: r#type.unwrap_or_else(|| usual.to_owned()),
        payload,
        timestamp: i64::try_from(Clock::system().unix().0).unwrap_or(i64::MAX),
        metadata: std::collections::BTreeMap::new(),
    }
}

fn print(receipt: Receipt, json: bool) -> Result<u8, Failure> {
    let peer = receipt.peer.map(|peer| peer.short()).unwrap_or_default();
    let (words, exit_code) = match receipt.state {
        SendState::Delivered => {
            (format!("delivered to {peer} after {} ms", receipt.rtt.as_millis()), exit::OK)
        }
        SendState::Queued => (
            format!("queued for {peer}: it goes out when a node runs with this outbox"),
            exit::TIMEOUT,
        ),
    };
    let line = match json {
        true => serde_json::to_string(&Reply::from(receipt)).expect("all keys are strings"),
        false => words,
    };
    // It is as it is, whether anybody reads that or not.
    let _ = writeln!(io::stdout(), "{line}");
    Ok(exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdin_is_taken_byte_by_byte_up_to_the_limit() {
        assert_eq!(read(&b"a\r\n\0\xff"[..]).unwrap(), &b"a\r\n\0\xff"[..]);
        let full = io::repeat(7).take(PAYLOAD_BYTES_MAX);
        assert_eq!(read(full).unwrap().len(), 16 * 1024 * 1024);
        assert_eq!(read(io::repeat(7)).unwrap_err().code, Code::MessageTooLarge);
    }

    #[test]
    fn the_type_says_whether_it_is_text() {
        let of = |payload: &'static [u8], given: Option<&str>| {
            message(Bytes::from_static(payload), given.map(str::to_owned)).r#type
        };
        assert_eq!(of("grüß".as_bytes(), None), "text");
        assert_eq!(of(b"\xff", None), "bytes");
        assert_eq!(of(b"\xff", Some("image")), "image");
    }
}
