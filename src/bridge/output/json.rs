//! Events as JSON lines.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Serialize, Serializer};

use super::{Output, encoder::Chunks, grease::Grease};
use crate::proto::Message;

/// Appends the line of `output`, with its line feed; `grease` adds a key that means nothing.
pub(super) fn encode(output: &Output<'_>, chunks: &mut Chunks, grease: Option<&mut Grease>) {
    let line = chunks.growing();
    line.reserve(size_guess(output));
    serde_json::to_writer(&mut *line, output)
        .expect("all keys are strings and a Vec takes all bytes");
    if let Some(grease) = grease {
        line.pop();
        line.extend_from_slice(format!(",{}}}", grease.json_member()).as_bytes());
    }
    line.push(b'\n');
}

/// Room for the whole line in the usual case, so that large payloads are written in one go.
fn size_guess(output: &Output<'_>) -> usize {
    let payload =
        output.message().map_or(0, |message| match std::str::from_utf8(&message.payload) {
            Ok(text) => text.len() + text.len() / 16,
            Err(_) => BASE64.encode_len(message.payload.len()),
        });
    payload + 512
}

/// A message as an event has it: its payload is text if its bytes are UTF-8, else base 64.
#[derive(Debug)]
pub struct Given<'a>(pub &'a Message);

enum Payload<'a> {
    Utf8(&'a str),
    Base64(&'a Bytes),
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

pub(super) fn given<S: Serializer>(message: &&Message, serializer: S) -> Result<S::Ok, S::Error> {
    Given(message).serialize(serializer)
}
