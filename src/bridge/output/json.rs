//! Events as JSON lines.

use data_encoding::BASE64;
use serde::{Serialize, Serializer};

use super::{Output, encoder::Chunks, grease::Grease};
use crate::{bridge::values::Given, proto::Message};

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

pub(super) fn given<S: Serializer>(message: &&Message, serializer: S) -> Result<S::Ok, S::Error> {
    Given(message).serialize(serializer)
}
