//! The notation for speed: `Command` of `proto/stdio.proto`.

use std::time::Duration;

use prost::Message as _;

use super::{Command, Id, Rejected, Verb, credit, silence, timeout, wrong};
use crate::{
    bridge::{
        frames::Frame,
        message,
        recipient::{Known, Recipient},
    },
    failure::{Code, Failure},
    proto::{Message, stdio},
};

/// Reads a frame without its length.
pub(super) fn parse(frame: Frame<'_>, known: &mut Known) -> Result<Command, Rejected> {
    let id = id_at(frame.bytes());
    let decoded = match frame {
        Frame::Borrowed(bytes) => stdio::Command::decode(bytes),
        Frame::Owned(bytes) => stdio::Command::decode(bytes),
    };
    let command = decoded.map_err(|error| {
        let failure = Failure::new(Code::BadRequest, "the frame is no Command")
            .because(error.to_string())
            .hint("a varint length, then a Command of proto/stdio.proto");
        Rejected { id, failure }
    })?;
    let id = id_of(command.id);
    match timeout_and_verb(command, known) {
        Ok((timeout, verb)) => Ok(Command { id, timeout, verb }),
        Err(failure) => Err(Rejected { id, failure }),
    }
}

/// The id at the start of a frame, where every encoder puts it.
pub(super) fn id_at(mut start: &[u8]) -> Option<Id> {
    if !start.starts_with(&[ID_KEY]) {
        return None;
    }
    start = start.get(1..)?;
    prost::encoding::decode_varint(&mut start).ok().and_then(id_of)
}

fn id_of(id: u64) -> Option<Id> {
    (id != 0).then_some(Id::Number(id))
}

fn timeout_and_verb(
    command: stdio::Command,
    known: &mut Known,
) -> Result<(Option<Duration>, Verb), Failure> {
    let timeout = match command.timeout_ms {
        0 => None,
        millis => Some(timeout(u64::from(millis))?),
    };
    let verb = command.verb.ok_or_else(|| {
        Failure::new(Code::UnknownCommand, "the frame has no command that this node knows")
            .hint("set one of the fields of Command.verb; `p2p-node schema --proto` prints them")
    })?;
    Ok((timeout, self::verb(verb, known)?))
}

fn verb(verb: stdio::command::Verb, known: &mut Known) -> Result<Verb, Failure> {
    use stdio::command::Verb as Written;
    Ok(match verb {
        Written::Hello(hello) => Verb::Hello {
            protocol: hello.protocol,
            client: message::client(hello.client)?,
            credit: hello.credit,
        },
        Written::Send(send) => {
            Verb::Send { to: peer(known, &send.peer)?, message: whole(send.message)? }
        }
        Written::Broadcast(broadcast) => Verb::Broadcast { message: whole(broadcast.message)? },
        Written::Request(request) => {
            Verb::Request { to: peer(known, &request.peer)?, message: whole(request.message)? }
        }
        Written::Reply(reply) => {
            let message = message::replying(whole(reply.message)?, &reply.to)?;
            Verb::Send { to: peer(known, &reply.peer)?, message }
        }
        Written::Listen(listen) => Verb::Listen { enabled: listen.enabled },
        Written::Credit(more) => credit(u64::from(more.messages))?,
        Written::Connect(connect) => Verb::Connect { to: peer(known, &connect.peer)? },
        Written::Disconnect(disconnect) => {
            Verb::Disconnect { from: peer(known, &disconnect.peer)? }
        }
        Written::List(_) => Verb::List,
        Written::Status(_) => Verb::Status,
        Written::Ping(ping) => Verb::Ping { to: peer(known, &ping.peer)? },
        Written::Netcheck(netcheck) => Verb::Netcheck {
            with: match netcheck.peer.is_empty() {
                true => None,
                false => Some(known.parse(&netcheck.peer)?),
            },
            lifetime: match netcheck.lifetime_ms {
                0 => None,
                millis => Some(silence(u64::from(millis))?),
            },
        },
        Written::Ticket(_) => Verb::Ticket,
        Written::Cancel(cancel) => Verb::Cancel {
            target: id_of(cancel.target).ok_or_else(|| wrong("target is the id of a command"))?,
        },
        Written::Help(_) => Verb::Help,
        Written::Shutdown(_) => Verb::Quit,
    })
}

fn peer(known: &mut Known, text: &str) -> Result<Recipient, Failure> {
    match text.is_empty() {
        true => Ok(Recipient::Unnamed),
        false => known.parse(text),
    }
}

fn whole(message: Option<Message>) -> Result<Message, Failure> {
    let message = message.ok_or_else(|| wrong("the command needs a message"))?;
    message::check(&message)?;
    Ok(message)
}

/// Field 1, a varint.
const ID_KEY: u8 = 1 << 3;
