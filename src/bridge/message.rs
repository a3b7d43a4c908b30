//! The message in a command: its envelope, its payload, and the limits of both.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::Fields;
use crate::{
    failure::{Code, Failure},
    node::IN_REPLY_TO,
    proto::Message,
};

/// Bytes that a payload may have: 16 MiB.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Entries that a message's metadata may have.
pub(super) const METADATA_ENTRIES_MAX: usize = 64;

/// Bytes that all names and values of a message's metadata may have together.
pub(super) const METADATA_BYTES_MAX: usize = 64 * 1024;

/// Bytes that a message's id and its type may have each.
pub(super) const NAME_BYTES_MAX: usize = 128;

/// Makes messages out of one line of input. Payloads share the line's memory where they can.
///
/// What the user left out of a message stays empty: the session names and dates it.
#[derive(Debug)]
pub(super) struct Composer<'a> {
    /// The line that everything else is a part of.
    pub(super) line: &'a Bytes,
}

/// A JSON string, borrowed from the line unless it contains escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Composer<'_> {
    /// The message of `send <peer> <json>`: an envelope if it looks like one, else `json` is the payload.
    ///
    /// An envelope is an object that has both `type` and `payload` and nothing that a message has not.
    pub(super) fn typed(&self, json: &RawValue) -> Result<Message, Failure> {
        let object =
            json.get().starts_with('{').then(|| serde_json::from_str::<Fields<'_>>(json.get()));
        if let Some(Ok(fields)) = object
            && fields.len() <= MESSAGE_FIELDS.len()
            && fields.first_beyond(|| MESSAGE_FIELDS.into_iter()).is_none()
            && fields.get_even_null("type").is_some()
            && fields.get_even_null("payload").is_some()
        {
            return self.envelope(&fields);
        }
        self.bare("json", json.get())
    }

    /// The message of `say <peer> <text>`.
    pub(super) fn said(&self, text: &str) -> Result<Message, Failure> {
        self.bare("text", text)
    }

    /// The message in a JSON command: nothing about it is guessed.
    pub(super) fn written(&self, json: &RawValue) -> Result<Message, Failure> {
        let fields: Fields<'_> = serde_json::from_str(json.get()).map_err(|_| {
            wrong("message is not an object").hint(r#""message":{"type":"text","payload":"hello"}"#)
        })?;
        if let Some(name) = fields.first_beyond(|| MESSAGE_FIELDS.into_iter()) {
            return Err(wrong(format!("message has an unknown or repeated key {name:?}"))
                .hint(format!("a message has the keys {}", MESSAGE_FIELDS.join(", "))));
        }
        self.envelope(&fields)
    }

    fn envelope(&self, fields: &Fields<'_>) -> Result<Message, Failure> {
        let r#type = fields.get("type").ok_or_else(|| missing("type"))?;
        let r#type = short_text("type", r#type)?;
        let payload = fields.get_even_null("payload").ok_or_else(|| missing("payload"))?;
        let payload = self.payload(payload, fields.get("encoding"))?;
        let id = fields.get("id").map(|id| short_text("id", id)).transpose()?;
        let timestamp = fields.get("timestamp").map(number).transpose()?;
        let metadata = fields.get("metadata").map(metadata).transpose()?.unwrap_or_default();
        Ok(Message {
            id: id.unwrap_or_default(),
            r#type,
            payload,
            timestamp: timestamp.unwrap_or_default(),
            metadata,
        })
    }

    fn bare(&self, r#type: &str, payload: &str) -> Result<Message, Failure> {
        let payload = self.line.slice_ref(payload.as_bytes());
        check_payload_size(&payload)?;
        Ok(Message { r#type: r#type.to_owned(), payload, ..Message::default() })
    }

    fn payload(&self, value: &RawValue, encoding: Option<&RawValue>) -> Result<Bytes, Failure> {
        let encoding = encoding.map_or(Ok(Encoding::Utf8), Encoding::parse)?;
        let is_string = value.get().starts_with('"');
        let payload = match encoding {
            Encoding::Utf8 if is_string => match text("payload", value)? {
                Cow::Borrowed(text) => self.line.slice_ref(text.as_bytes()),
                Cow::Owned(text) => Bytes::from(text),
            },
            // Bytes are never re-serialised, so that large integers survive.
            Encoding::Utf8 => self.line.slice_ref(value.get().as_bytes()),
            Encoding::Base64 if is_string => decode_base64(&text("payload", value)?)?,
            Encoding::Base64 => {
                return Err(wrong("a base64 payload is a string")
                    .hint(r#""payload":"aGVsbG8=","encoding":"base64""#));
            }
        };
        check_payload_size(&payload)?;
        Ok(payload)
    }
}

/// How a payload is written in JSON.
enum Encoding {
    Utf8,
    Base64,
}

impl Encoding {
    fn parse(value: &RawValue) -> Result<Self, Failure> {
        match value.get() {
            r#""utf8""# => Ok(Self::Utf8),
            r#""base64""# => Ok(Self::Base64),
            _ => Err(wrong("encoding is neither \"utf8\" nor \"base64\"")
                .hint("leave encoding out for text")),
        }
    }
}

fn decode_base64(text: &str) -> Result<Bytes, Failure> {
    let bytes = BASE64.decode(text.as_bytes()).map_err(|error| {
        wrong("payload is not base64")
            .because(error.to_string())
            .hint("standard alphabet, padded (RFC 4648, section 4), without line breaks")
    })?;
    Ok(Bytes::from(bytes))
}

/// A message that answers the one with the id `to`.
pub(super) fn replying(mut message: Message, to: &str) -> Result<Message, Failure> {
    check_name("to", to)?;
    if to.is_empty() {
        return Err(wrong("to is the id of the message that is answered"));
    }
    message.metadata.insert(IN_REPLY_TO.to_owned(), to.to_owned());
    check_metadata(&message.metadata)?;
    Ok(message)
}

/// The program's name for itself.
pub(super) fn client(name: String) -> Result<String, Failure> {
    check_name("client", &name)?;
    Ok(name)
}

/// Whether a message that came as a whole keeps to all limits.
pub(super) fn check(message: &Message) -> Result<(), Failure> {
    check_name("id", &message.id)?;
    check_name("type", &message.r#type)?;
    check_payload_size(&message.payload)?;
    check_metadata(&message.metadata)
}

fn check_name(name: &str, text: &str) -> Result<(), Failure> {
    let size = text.len();
    match size <= NAME_BYTES_MAX {
        true => Ok(()),
        false => Err(wrong(format!("{name} has {size} bytes; it may have {NAME_BYTES_MAX}"))),
    }
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Failure> {
    check_entries(metadata.len())?;
    let size: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    match size <= METADATA_BYTES_MAX {
        true => Ok(()),
        false => Err(wrong(format!("metadata has {size} bytes; it may have {METADATA_BYTES_MAX}"))),
    }
}

fn check_entries(entries: usize) -> Result<(), Failure> {
    match entries <= METADATA_ENTRIES_MAX {
        true => Ok(()),
        false => Err(wrong(format!(
            "metadata has {entries} entries; it may have {METADATA_ENTRIES_MAX}"
        ))),
    }
}

fn check_payload_size(payload: &Bytes) -> Result<(), Failure> {
    if payload.len() <= PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    let size = payload.len();
    Err(Failure::new(
        Code::MessageTooLarge,
        format!("the payload has {size} bytes; it may have {PAYLOAD_BYTES_MAX}"),
    )
    .hint("split it into several messages"))
}

fn text<'a>(name: &str, value: &'a RawValue) -> Result<Cow<'a, str>, Failure> {
    serde_json::from_str::<Text<'a>>(value.get())
        .map(|text| text.0)
        .map_err(|error| wrong(format!("{name} is not a string")).because(error.to_string()))
}

fn short_text(name: &str, value: &RawValue) -> Result<String, Failure> {
    let text = text(name, value)?;
    check_name(name, &text)?;
    Ok(text.into_owned())
}

fn number(value: &RawValue) -> Result<i64, Failure> {
    serde_json::from_str(value.get())
        .map_err(|_| wrong("timestamp is not an integer").hint("Unix time in milliseconds"))
}

fn metadata(value: &RawValue) -> Result<BTreeMap<String, String>, Failure> {
    let hint = r#""metadata":{"key":"value"}"#;
    let fields: Fields<'_> = serde_json::from_str(value.get())
        .map_err(|_| wrong("metadata is not an object").hint(hint))?;
    check_entries(fields.len())?;
    if let Some(name) = fields.first_repeated() {
        return Err(wrong(format!("metadata names {name:?} twice")));
    }
    let mut metadata = BTreeMap::new();
    for (name, value) in fields.iter() {
        let value = text("a metadata value", value).map_err(|failure| failure.hint(hint))?;
        metadata.insert(name.to_owned(), value.into_owned());
    }
    check_metadata(&metadata)?;
    Ok(metadata)
}

fn missing(name: &str) -> Failure {
    wrong(format!("message has no {name}")).hint(r#""message":{"type":"text","payload":"hello"}"#)
}

fn wrong(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidArgument, message)
}

const MESSAGE_FIELDS: [&str; 6] = ["id", "type", "payload", "encoding", "timestamp", "metadata"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compose(
        json: &str,
        make: impl FnOnce(&Composer<'_>, &RawValue) -> Result<Message, Failure>,
    ) -> Result<Message, Failure> {
        let line = Bytes::from(json.to_owned());
        let composer = Composer { line: &line };
        let json = serde_json::from_str(std::str::from_utf8(&line).unwrap()).unwrap();
        make(&composer, json)
    }

    fn typed(json: &str) -> Result<Message, Failure> {
        compose(json, |composer, json| composer.typed(json))
    }

    fn written(json: &str) -> Result<Message, Failure> {
        compose(json, |composer, json| composer.written(json))
    }

    fn kind_and_payload(message: &Message) -> (&str, &[u8]) {
        (&message.r#type, &message.payload)
    }

    #[test]
    fn an_object_with_type_and_payload_is_an_envelope() {
        let json = r#"{"id":"a1","type":"chat","payload":"hi\nthere","timestamp":5,"metadata":{"lang":"en"}}"#;
        let expected = Message {
            id: "a1".to_owned(),
            r#type: "chat".to_owned(),
            payload: Bytes::from_static(b"hi\nthere"),
            timestamp: 5,
            metadata: [("lang".to_owned(), "en".to_owned())].into(),
        };
        assert_eq!(typed(json), Ok(expected.clone()));
        assert_eq!(written(json), Ok(expected));
    }

    #[test]
    fn any_other_json_is_a_payload_byte_for_byte() {
        for json in [
            r#""hi""#,
            "12345678901234567890",
            "null",
            r#"{ "n" : 1.0e5 }"#,
            r#"{"type":"a"}"#,
            r#"{"type":"a","payload":1,"colour":2}"#,
            r#"[ {"type":"a","payload":1} ]"#,
        ] {
            let message = typed(json).unwrap();
            assert_eq!(kind_and_payload(&message), ("json", json.as_bytes()));
        }
    }

    #[test]
    fn a_payload_that_is_no_string_keeps_its_bytes() {
        for payload in ["12345678901234567890", "null", r#"{ "a" : [1, 2] }"#] {
            let message = written(&format!(r#"{{"type":"t","payload":{payload}}}"#)).unwrap();
            assert_eq!(message.payload, payload.as_bytes());
        }
    }

    #[test]
    fn an_answer_names_what_it_answers_and_keeps_to_the_limits() {
        let message = written(r#"{"type":"t","payload":"","metadata":{"a":"b"}}"#).unwrap();
        let answer = replying(message.clone(), "01ab").unwrap();
        assert_eq!(answer.metadata["in-reply-to"], "01ab");
        assert_eq!(answer.metadata.len(), 2);
        for to in ["", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(replying(message.clone(), to).is_err(), "{to}");
        }
        let full = (0..64).map(|n| (n.to_string(), String::new())).collect();
        assert!(replying(Message { metadata: full, ..message }, "01ab").is_err());
    }

    #[test]
    fn messages_beyond_the_limits_are_refused_with_their_size() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let payload = "x".repeat(PAYLOAD_BYTES_MAX + 1);
        let entries: Vec<String> = (0..65).map(|n| format!("\"{n}\":\"\"")).collect();
        let entries = entries.join(",");
        let value = "x".repeat(METADATA_BYTES_MAX);
        for (json, message) in [
            (
                format!(r#"{{"type":"t","payload":"{payload}"}}"#),
                "the payload has 16777217 bytes; it may have 16777216",
            ),
            (format!(r#"{{"type":"{long}","payload":""}}"#), "type has 129 bytes; it may have 128"),
            (
                format!(r#"{{"id":"{long}","type":"t","payload":""}}"#),
                "id has 129 bytes; it may have 128",
            ),
            (
                format!(r#"{{"type":"t","payload":"","metadata":{{{entries}}}}}"#),
                "metadata has 65 entries; it may have 64",
            ),
            (
                format!(r#"{{"type":"t","payload":"","metadata":{{"a":"{value}"}}}}"#),
                "metadata has 65537 bytes; it may have 65536",
            ),
        ] {
            assert_eq!(written(&json).unwrap_err().message, message);
        }
    }

    #[test]
    fn wrong_messages_are_explained() {
        let repeated = "message has an unknown or repeated key \"type\"";
        for (json, message) in [
            ("5", "message is not an object"),
            (r#"{"payload":""}"#, "message has no type"),
            (r#"{"type":"t"}"#, "message has no payload"),
            (r#"{"type":"t","type":"t"}"#, repeated),
            (r#"{"type":5,"payload":""}"#, "type is not a string"),
            (r#"{"type":"t","payload":"\ud800"}"#, "payload is not a string"),
            (r#"{"type":"t","payload":"","id":5}"#, "id is not a string"),
            (r#"{"type":"t","payload":"","metadata":[]}"#, "metadata is not an object"),
            (r#"{"type":"t","payload":"","metadata":{"a":1}}"#, "a metadata value is not a string"),
            (r#"{"type":"t","payload":"","timestamp":1.5}"#, "timestamp is not an integer"),
            (r#"{"type":"t","payload":"a","encoding":"base64"}"#, "payload is not base64"),
            (r#"{"type":"t","payload":1,"encoding":"base64"}"#, "a base64 payload is a string"),
        ] {
            let failure = written(json).unwrap_err();
            assert_eq!(failure.message, message, "{json}");
            assert_eq!(failure.code, Code::InvalidArgument);
        }
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let json = format!(r#"{{"type":"t","payload":"{}"}}"#, "x".repeat(100_000));
        let line = Bytes::from(json);
        let composer = Composer { line: &line };
        let json = serde_json::from_str(std::str::from_utf8(&line).unwrap()).unwrap();
        let message = composer.written(json).unwrap();
        assert!(line.as_ptr_range().contains(&message.payload.as_ptr()));
    }

    proptest! {
        #[test]
        fn bytes_survive_as_base64_and_text_as_text(bytes in any::<Vec<u8>>(), text in any::<String>()) {
            let base64 = BASE64.encode(&bytes);
            let message = written(&format!(r#"{{"type":"t","payload":"{base64}","encoding":"base64"}}"#)).unwrap();
            prop_assert_eq!(&message.payload, &bytes);
            let quoted = serde_json::to_string(&text).unwrap();
            let message = written(&format!(r#"{{"type":"t","payload":{quoted}}}"#)).unwrap();
            prop_assert_eq!(&message.payload, text.as_bytes());
        }
    }
}
