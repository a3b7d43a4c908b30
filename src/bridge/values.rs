//! What replies and other events are made of, whatever their notation: reasons, endings, messages, times.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Serialize, Serializer};

use crate::{
    failure::Failure,
    identity::PeerId,
    node::{Config, Target},
    proto::Message,
};

/// A failure's text.
#[derive(Debug, Serialize)]
pub struct Reason<'a> {
    /// From the closed list.
    pub code: &'static str,
    /// What failed.
    pub message: &'a str,
    /// Why; empty if there is nothing to add.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub why: &'a str,
    /// What to do; empty if there is nothing.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hint: &'a str,
}

/// Who may connect to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Whoever knows its name, id or ticket.
    Anyone,
    /// Whoever proves that they know the service's secret or the ticket.
    Secret,
    /// Only listed peers, and whoever proves to know a secret.
    AllowList,
}

/// Why a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Stdin was closed, and what was running has ended.
    StdinEof,
    /// `quit`.
    Shutdown,
    /// SIGTERM or SIGINT.
    Signal,
    /// Nobody reads stdout any more.
    ParentGone,
    /// The node could not start, or died.
    Fatal,
}

/// A message as an event has it: its payload is text if its bytes are UTF-8, else base 64.
#[derive(Debug)]
pub struct Given<'a>(pub &'a Message);

enum Payload<'a> {
    Utf8(&'a str),
    Base64(&'a Bytes),
}

impl Admission {
    /// As it stands in `ready`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Secret => "secret",
            Self::AllowList => "allow-list",
        }
    }

    /// Who may connect to a node with this configuration.
    pub fn of(config: &Config) -> Self {
        let has_secret = config.service.as_ref().is_some_and(|service| service.secret.is_some());
        match (config.allow.is_empty(), has_secret) {
            (false, _) => Self::AllowList,
            (true, true) => Self::Secret,
            (true, false) => Self::Anyone,
        }
    }

    /// What the user should know about it, if anything.
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Self::Anyone => Some(
                "anyone who knows this node's service name or id may connect, and a name proves \
                 nothing about who answers; --service-secret-file or --allow restricts that",
            ),
            Self::Secret | Self::AllowList => None,
        }
    }
}

impl Ending {
    /// As it stands in `bye`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StdinEof => "stdin_eof",
            Self::Shutdown => "shutdown",
            Self::Signal => "signal",
            Self::ParentGone => "parent_gone",
            Self::Fatal => "fatal",
        }
    }
}

impl<'a> From<&'a Failure> for Reason<'a> {
    fn from(failure: &'a Failure) -> Self {
        Self {
            code: failure.code.as_str(),
            message: &failure.message,
            why: &failure.why,
            hint: &failure.hint,
        }
    }
}

impl Serialize for Given<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            id: &'a str,
            r#type: &'a str,
            payload: Payload<'a>,
            encoding: &'static str,
            timestamp: i64,
            metadata: &'a BTreeMap<String, String>,
        }
        let (payload, encoding) = match std::str::from_utf8(&self.0.payload) {
            Ok(text) => (Payload::Utf8(text), "utf8"),
            Err(_) => (Payload::Base64(&self.0.payload), "base64"),
        };
        Written {
            id: &self.0.id,
            r#type: &self.0.r#type,
            payload,
            encoding,
            timestamp: self.0.timestamp,
            metadata: &self.0.metadata,
        }
        .serialize(serializer)
    }
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Utf8(text) => serializer.serialize_str(text),
            Self::Base64(bytes) => serializer.collect_str(&BASE64.encode_display(bytes)),
        }
    }
}

impl Serialize for Admission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for Ending {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

pub(super) fn display<T: Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(super) fn display_some<S: Serializer>(
    peer: &Option<PeerId>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match peer {
        Some(peer) => serializer.collect_str(peer),
        None => serializer.serialize_none(),
    }
}

/// A target as the user may write it, but without a ticket's secret.
pub(super) fn shown(target: &Target) -> String {
    match target {
        Target::Service(name) => format!("service:{name}"),
        Target::Peer(peer) => peer.to_string(),
        Target::Ticket(ticket) => ticket.peer.to_string(),
    }
}

pub(super) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A share from 0 to 1 in percent, with one digit behind the point.
pub(super) fn percent(share: f64) -> f64 {
    (share * 1_000.0).round() / 10.0
}

/// Milliseconds with microseconds behind the point.
pub(super) fn millis(duration: Duration) -> f64 {
    f64::from(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)) / 1_000.0
}
