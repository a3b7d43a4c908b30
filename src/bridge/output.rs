//! What stdout is told: what happens, and the answers to commands. One model for all notations, each of
//! which has an encoder of its own.
//!
//! The order of the fields is that of the keys in JSON, with `event` first. New keys and new events may
//! be added; none is renamed or removed within `p2p-stdio/1`.

pub(super) mod encoder;
mod frame;
mod grease;
mod json;

use std::{net::SocketAddr, time::Duration};

use serde::{Serialize, Serializer};

use self::encoder::{Chunks, Encoder};
use super::{
    command::Id,
    driven::Arrived,
    reply::{Delivery, Link, Path, Reply},
    values::{Admission, Ending, Reason, display, display_some, millis, shown, whole_millis},
};
use crate::{
    failure::Failure,
    identity::PeerId,
    node::{Event, Role, Target},
    proto::Message,
    ticket::Ticket,
};

/// One event.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Output<'a> {
    /// The first event: who speaks.
    Hello {
        /// Always `p2p-node`.
        node: &'static str,
        /// The program's version.
        version: &'static str,
        /// Versions of `p2p-stdio` that it speaks.
        protocols: [u8; 1],
        /// Its process id.
        pid: u32,
        /// `server` or `client`.
        mode: &'static str,
    },
    /// The node has started: commands work.
    Ready {
        /// Who it is.
        #[serde(serialize_with = "display")]
        peer_id: PeerId,
        /// The ticket that leads to it.
        #[serde(serialize_with = "display")]
        ticket: &'a Ticket,
        /// Its addresses on its own interfaces.
        addrs: &'a [SocketAddr],
        /// Its service.
        #[serde(skip_serializing_if = "Option::is_none")]
        service: Option<&'a str>,
        /// Who may connect.
        admission: Admission,
        /// What to know about that.
        #[serde(skip_serializing_if = "Option::is_none")]
        warning: Option<&'static str>,
    },
    /// The record is in the DHT.
    Online {
        /// DHT nodes that hold it.
        dht_nodes: usize,
        /// Addresses that it names.
        addrs: &'a [SocketAddr],
        /// Since the node's start.
        took_ms: u64,
    },
    /// A dial begins.
    Connecting {
        /// Whom it is to reach.
        #[serde(serialize_with = "display_target")]
        target: &'a Target,
        /// The same as a peer id, if it is known.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display_some")]
        peer: Option<PeerId>,
    },
    /// A dial has come one step further.
    Progress {
        /// Whom it has found.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display_some")]
        peer: Option<PeerId>,
        /// Whom it is to reach.
        #[serde(serialize_with = "display_target")]
        target: &'a Target,
        /// Which step: `resolve`, `gather`, `offer`, `punch`, `path` or `link`.
        stage: &'static str,
        /// Since the dial began.
        elapsed_ms: u64,
        /// For people.
        detail: &'a str,
        /// What is tried from here on, as a word of a closed list.
        #[serde(skip_serializing_if = "Option::is_none")]
        strategy: Option<&'static str>,
        /// What speaks for it, for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<&'a str>,
    },
    /// A link is up.
    Connected(Link),
    /// A peer is reached over another path than before.
    PathChanged {
        /// Which peer.
        #[serde(serialize_with = "display")]
        peer: PeerId,
        /// How.
        path: Path,
        /// Round-trip time over it.
        rtt_ms: f64,
    },
    /// A link is gone.
    Disconnected {
        /// To whom.
        #[serde(serialize_with = "display")]
        peer: PeerId,
        /// Why.
        #[serde(flatten)]
        reason: Reason<'a>,
        /// Whether the node dials again by itself.
        will_retry: bool,
    },
    /// A message that was queued has been delivered.
    Delivered(Delivery),
    /// A message arrived.
    Message {
        /// From whom.
        #[serde(serialize_with = "display")]
        peer: PeerId,
        /// What it says.
        #[serde(serialize_with = "json::given")]
        message: &'a Message,
    },
    /// A command is done.
    Ok {
        /// Which.
        id: Option<&'a Id>,
        /// What came of it.
        #[serde(flatten)]
        reply: &'a Reply,
    },
    /// A command failed, or (without id) something else.
    Error {
        /// Which command.
        id: Option<&'a Id>,
        /// Why.
        #[serde(flatten)]
        reason: Reason<'a>,
        /// Whether the same command may succeed later.
        retryable: bool,
        /// Whom the command was for.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display_some")]
        peer: Option<PeerId>,
        /// Since the command was read.
        #[serde(skip_serializing_if = "Option::is_none")]
        elapsed_ms: Option<u64>,
    },
    /// Something is wrong that the user may want to mend; the node goes on.
    Warning(Reason<'a>),
    /// The last event.
    Bye {
        /// Why the node ends.
        reason: Ending,
        /// The process's exit code.
        exit_code: u8,
    },
}

/// How commands and events are written.
#[derive(Clone, Copy, Debug)]
pub enum Notation {
    /// Text commands and JSON lines in, JSON lines out.
    Lines,
    /// Protobuf frames in and out.
    Frames,
    /// Text commands and JSON lines in; out, what this makes of an event, for a person to read.
    Terminal(Render),
}

/// Makes a line for people, without its line feed; `None` for what they need not see.
pub type Render = fn(&Output<'_>) -> Option<String>;

impl Output<'_> {
    /// The event as bytes of `notation`, with all that frames it.
    pub fn encode(&self, notation: Notation) -> Vec<u8> {
        let mut chunks = Chunks::default();
        Encoder::new(notation, None).encode(self, &mut chunks);
        chunks.iter().flatten().copied().collect()
    }

    /// The message that the event brings.
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Message { message, .. } => Some(*message),
            Self::Ok { reply: Reply::Answered { message, .. }, .. } => Some(message),
            Self::Hello { .. }
            | Self::Ready { .. }
            | Self::Online { .. }
            | Self::Connecting { .. }
            | Self::Progress { .. }
            | Self::Connected(_)
            | Self::PathChanged { .. }
            | Self::Disconnected { .. }
            | Self::Delivered(_)
            | Self::Ok { .. }
            | Self::Error { .. }
            | Self::Warning(_)
            | Self::Bye { .. } => None,
        }
    }

    /// The first line of a process `pid` in `role`.
    pub fn hello(pid: u32, role: Role) -> Self {
        Self::Hello {
            node: "p2p-node",
            version: env!("CARGO_PKG_VERSION"),
            protocols: [1],
            pid,
            mode: match role {
                Role::Server => "server",
                Role::Client => "client",
            },
        }
    }
}

impl<'a> Output<'a> {
    /// The answer to a command that failed.
    pub fn error(
        id: Option<&'a Id>,
        failure: &'a Failure,
        peer: Option<PeerId>,
        elapsed: Option<Duration>,
    ) -> Self {
        Self::Error {
            id,
            reason: Reason::from(failure),
            retryable: failure.code.is_retryable(),
            peer,
            elapsed_ms: elapsed.map(whole_millis),
        }
    }
}

impl<'a> From<&'a Event> for Output<'a> {
    fn from(event: &'a Event) -> Self {
        match event {
            Event::Online { stored_at, addresses, took } => Self::Online {
                dht_nodes: *stored_at,
                addrs: addresses,
                took_ms: whole_millis(*took),
            },
            Event::Connecting { target } => Self::Connecting { target, peer: target.peer() },
            Event::Progress { target, peer, stage, elapsed, detail, chosen } => Self::Progress {
                peer: *peer,
                target,
                stage: stage.as_str(),
                elapsed_ms: whole_millis(*elapsed),
                detail,
                strategy: chosen.as_ref().map(|chosen| chosen.strategy.as_str()),
                why: chosen.as_ref().map(|chosen| chosen.why.as_str()),
            },
            Event::Connected(connection) => Self::Connected(connection.into()),
            Event::PathChanged { peer, path, rtt } => {
                Self::PathChanged { peer: *peer, path: path.into(), rtt_ms: millis(*rtt) }
            }
            Event::Disconnected { peer, failure, will_retry } => {
                Self::Disconnected { peer: *peer, reason: failure.into(), will_retry: *will_retry }
            }
            Event::Delivered(receipt) => Self::Delivered(receipt.into()),
            Event::Warning(failure) => Self::Warning(failure.into()),
        }
    }
}

impl<'a, H> From<&'a Arrived<H>> for Output<'a> {
    fn from(arrived: &'a Arrived<H>) -> Self {
        Self::Message { peer: arrived.peer, message: &arrived.message }
    }
}

fn display_target<S: Serializer>(target: &&Target, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(target))
}
