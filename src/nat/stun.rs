//! STUN Binding messages (RFC 8489) to and from bytes: what a server is asked, and what it answers.
//!
//! `stun-types` knows the format; this file keeps of it the three messages that a node needs. A request
//! is a bare header of 20 bytes, which every server understands, RFC 3489 ones included.

use std::net::SocketAddr;

use stun_types::{
    attribute::{
        Attribute as _, AttributeStaticType as _, AttributeType, ErrorCode, Fingerprint,
        MappedSocketAddr, Software, XorMappedAddress,
    },
    message::{
        BINDING, Message as Stun, MessageClass, MessageHeader, MessageType, MessageWrite as _,
        MessageWriteExt as _, MessageWriteVec, StunParseError,
    },
};
use thiserror::Error;

use crate::{
    candidate::{canonical, is_unicast},
    entropy::Entropy,
};

/// Tells a request from every other; 96 random bits, so that nobody off the path can forge the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId([u8; 12]);

/// A Binding message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// "From which address do you see me?"
    Request(Request),
    /// The answer.
    Response(Response),
}

/// A Binding request that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// To be repeated in the response.
    pub transaction: TransactionId,
    /// Bytes of the request, for the bound on the answer's.
    pub size: usize,
}

/// The answer to a Binding request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's.
    pub transaction: TransactionId,
    /// The address the server saw, or its refusal.
    pub outcome: Result<SocketAddr, Refusal>,
}

/// A Binding error response (RFC 8489, section 14.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the server refused with STUN error {code}")]
pub struct Refusal {
    /// 300 to 699: 300 names another server, 401 wants credentials, 500 is the server's own trouble.
    pub code: u16,
}

/// Why bytes are no Binding message for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The fixed bits or the magic cookie are not there.
    #[error("not STUN")]
    NotStun,
    /// The lengths inside do not fit the datagram's.
    #[error("STUN lengths do not fit the datagram")]
    WrongLength,
    /// The checksum is wrong: something on the way changed the datagram, or it is not STUN at all.
    #[error("the FINGERPRINT is wrong")]
    WrongFingerprint,
    /// Another method than Binding, or an indication.
    #[error("not a Binding request or response")]
    NotBinding,
    /// A request wants what we do not do, for example CHANGE-REQUEST. Answering it as if it did not
    /// would make the asker draw wrong conclusions.
    #[error("the request carries attribute {0:#06x}, which must be understood")]
    Unsupported(u16),
    /// A response without what a response is for.
    #[error("the response carries neither an address nor an error code")]
    NoAddress,
    /// A response names an address that cannot be anybody's.
    #[error("the response names {0}, which is nobody's address")]
    ImpossibleAddress(SocketAddr),
    /// An attribute that we need cannot be read.
    #[error("a STUN attribute is malformed")]
    Malformed,
}

impl TransactionId {
    /// A new one.
    pub fn random(entropy: &mut Entropy) -> Self {
        Self(entropy.bytes())
    }

    fn to_stun(self) -> stun_types::message::TransactionId {
        let mut bytes = [0; 16];
        for (byte, part) in bytes.iter_mut().skip(4).zip(self.0) {
            *byte = part;
        }
        u128::from_be_bytes(bytes).into()
    }

    fn from_stun(transaction: stun_types::message::TransactionId) -> Self {
        let bytes = u128::from(transaction).to_be_bytes();
        Self(*bytes.last_chunk().expect("12 bytes are the end of 16 bytes"))
    }
}

/// A Binding request as a datagram of 20 bytes.
pub fn encode_request(transaction: TransactionId) -> Vec<u8> {
    let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
    Stun::builder(kind, transaction.to_stun(), MessageWriteVec::new()).finish()
}

/// A Binding success response that says `reflexive`: 40 bytes for IPv4, 52 for IPv6.
///
/// It fits three times the smallest request, so that answering strangers amplifies next to nothing.
pub fn encode_response(transaction: TransactionId, reflexive: SocketAddr) -> Vec<u8> {
    let transaction = transaction.to_stun();
    let kind = MessageType::from_class_method(MessageClass::Success, BINDING);
    let mut message = Stun::builder(kind, transaction, MessageWriteVec::new());
    message
        .add_attribute(&XorMappedAddress::new(canonical(reflexive), transaction))
        .and_then(|()| message.add_fingerprint())
        .expect("an empty message takes one address and then a fingerprint");
    message.finish()
}

/// The Binding message in `datagram`.
///
/// # Errors
/// When it is no Binding message, or one that we cannot answer or learn from.
pub fn decode(datagram: &[u8]) -> Result<Message, DecodeError> {
    // Looked at before the attributes, so that what is not STUN costs nothing.
    let header = MessageHeader::from_bytes(datagram).map_err(decode_error)?;
    let length = usize::from(header.data_length()).saturating_add(MessageHeader::LENGTH);
    if length != datagram.len() {
        return Err(DecodeError::WrongLength);
    }
    let message = Stun::from_bytes(datagram).map_err(decode_error)?;
    if !message.has_method(BINDING) {
        return Err(DecodeError::NotBinding);
    }
    let transaction = TransactionId::from_stun(message.transaction_id());
    let response = |outcome| Message::Response(Response { transaction, outcome });
    match message.class() {
        MessageClass::Request => {
            refuse_unsupported(&message)?;
            let size = datagram.len();
            Ok(Message::Request(Request { transaction, size }))
        }
        MessageClass::Success => mapped_address(&message).map(|address| response(Ok(address))),
        MessageClass::Error => refusal(&message).map(|refusal| response(Err(refusal))),
        MessageClass::Indication => Err(DecodeError::NotBinding),
    }
}

/// RFC 8489, section 6.3.1: a request with an unknown comprehension-required attribute gets no success.
fn refuse_unsupported(message: &Stun<'_>) -> Result<(), DecodeError> {
    let known = [Software::TYPE, Fingerprint::TYPE];
    let unsupported = message
        .iter_attributes()
        .map(|(_, attribute)| attribute.get_type())
        .find(|kind| kind.comprehension_required() && !known.contains(kind));
    unsupported.map_or(Ok(()), |kind| Err(DecodeError::Unsupported(kind.value())))
}

/// The address in a success response.
///
/// RFC 8489, section 6.3.3, discards a response with an unknown comprehension-required attribute. We
/// do not look: old servers put SOURCE-ADDRESS and CHANGED-ADDRESS (RFC 3489) beside the address, and
/// nothing that could stand there changes what the address means.
fn mapped_address(message: &Stun<'_>) -> Result<SocketAddr, DecodeError> {
    let address = if message.has_attribute(XorMappedAddress::TYPE) {
        message
            .attribute::<XorMappedAddress>()
            .map(|attribute| attribute.addr(message.transaction_id()))
    } else if let Some(attribute) = message.raw_attribute(MAPPED_ADDRESS) {
        MappedSocketAddr::from_raw(&attribute).map(|attribute| attribute.addr())
    } else {
        return Err(DecodeError::NoAddress);
    };
    let address = canonical(address.map_err(|_| DecodeError::Malformed)?);
    is_unicast(address).then_some(address).ok_or(DecodeError::ImpossibleAddress(address))
}

fn refusal(message: &Stun<'_>) -> Result<Refusal, DecodeError> {
    if !message.has_attribute(ErrorCode::TYPE) {
        return Err(DecodeError::NoAddress);
    }
    let code = message.attribute::<ErrorCode>().map_err(|_| DecodeError::Malformed)?.code();
    Ok(Refusal { code })
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the library may add variants")]
fn decode_error(error: StunParseError) -> DecodeError {
    match error {
        StunParseError::NotStun => DecodeError::NotStun,
        StunParseError::Truncated { .. } | StunParseError::TooLarge { .. } => {
            DecodeError::WrongLength
        }
        StunParseError::FingerprintMismatch => DecodeError::WrongFingerprint,
        _ => DecodeError::Malformed,
    }
}

/// What servers older than RFC 5389 answer with.
const MAPPED_ADDRESS: AttributeType = AttributeType::new(0x0001);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 5769, section 2.2: sample IPv4 response.
    const SAMPLE_V4: [u8; 80] = [
        0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6,
        0x86, 0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76,
        0x65, 0x63, 0x74, 0x6f, 0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1,
        0x12, 0xa6, 0x43, 0x00, 0x08, 0x00, 0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3,
        0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7, 0x80, 0x28, 0x00,
        0x04, 0xc0, 0x7d, 0x4c, 0x96,
    ];

    /// RFC 5769, section 2.3: sample IPv6 response.
    const SAMPLE_V6: [u8; 92] = [
        0x01, 0x01, 0x00, 0x48, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6,
        0x86, 0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76,
        0x65, 0x63, 0x74, 0x6f, 0x72, 0x20, 0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01,
        0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
        0x00, 0x08, 0x00, 0x14, 0xa3, 0x82, 0x95, 0x4e, 0x4b, 0xe6, 0x7b, 0xf1, 0x17, 0x84, 0xc9,
        0x7c, 0x82, 0x92, 0xc2, 0x75, 0xbf, 0xe3, 0xed, 0x41, 0x80, 0x28, 0x00, 0x04, 0xc8, 0xfb,
        0x0b, 0x4c,
    ];

    const SAMPLE_TRANSACTION: TransactionId =
        TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn transaction() -> TransactionId {
        TransactionId::random(&mut Entropy::from_seed(1))
    }

    /// A datagram with the given type and attributes, made without the library.
    fn datagram(kind: [u8; 2], attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
        let cookie = [0x21, 0x12, 0xa4, 0x42];
        [&kind[..], &length, &cookie, &[9; 12], attributes].concat()
    }

    fn answered(text: &str, transaction: TransactionId) -> Result<Message, DecodeError> {
        Ok(Message::Response(Response { transaction, outcome: Ok(address(text)) }))
    }

    #[test]
    fn the_samples_of_rfc_5769_are_read_and_their_fingerprints_checked() {
        let v4 = decode(&SAMPLE_V4);
        assert_eq!(v4, answered("192.0.2.1:32853", SAMPLE_TRANSACTION));
        let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
        assert_eq!(decode(&SAMPLE_V6), answered(v6, SAMPLE_TRANSACTION));
        for (sample, position) in [(&SAMPLE_V4[..], 30), (&SAMPLE_V6[..], 45)] {
            let mut changed = sample.to_vec();
            changed[position] ^= 1;
            assert_eq!(decode(&changed), Err(DecodeError::WrongFingerprint));
        }
    }

    #[test]
    fn a_request_is_answered_with_the_address_it_came_from_in_at_most_thrice_its_size() {
        let request = encode_request(transaction());
        let expected = Request { transaction: transaction(), size: 20 };
        assert_eq!(decode(&request), Ok(Message::Request(expected)));
        for text in ["198.51.100.9:50112", "[2001:db8::9]:1"] {
            let response = encode_response(transaction(), address(text));
            assert_eq!(decode(&response), answered(text, transaction()));
            assert!(response.len() <= 3 * request.len());
        }
    }

    #[test]
    fn a_server_of_rfc_3489_is_understood() {
        let mapped = [0, 1, 0, 8, 0, 1, 0xc3, 0xc0, 198, 51, 100, 9];
        let source = [0, 4, 0, 8, 0, 1, 0x0d, 0x96, 203, 0, 113, 1];
        let changed = [0, 5, 0, 8, 0, 1, 0x0d, 0x97, 203, 0, 113, 2];
        let response = datagram([1, 1], &[mapped, source, changed].concat());
        let expected = answered("198.51.100.9:50112", TransactionId([9; 12]));
        assert_eq!(decode(&response), expected);
    }

    #[test]
    fn refusals_are_recognised() {
        for (code, class, number) in [(300, 3, 0), (401, 4, 1), (500, 5, 0)] {
            let response = datagram([1, 0x11], &[0, 9, 0, 4, 0, 0, class, number]);
            let expected = Message::Response(Response {
                transaction: TransactionId([9; 12]),
                outcome: Err(Refusal { code }),
            });
            assert_eq!(decode(&response), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_binding_message_for_us_is_named_precisely() {
        let nowhere = [0, 1, 0, 8, 0, 1, 0, 0, 198, 51, 100, 9];
        let short = [0, 0x20, 0, 4, 0, 1, 1, 1];
        let mut too_long = encode_request(transaction());
        too_long.push(0);
        let cases = [
            (b"GET / HTTP/1.1".to_vec(), DecodeError::NotStun),
            (datagram([0, 1], &[])[..19].to_vec(), DecodeError::WrongLength),
            (too_long, DecodeError::WrongLength),
            (datagram([0, 3], &[]), DecodeError::NotBinding),
            (datagram([0, 0x11], &[]), DecodeError::NotBinding),
            (datagram([0, 1], &[0, 3, 0, 4, 0, 0, 0, 4]), DecodeError::Unsupported(3)),
            (datagram([1, 1], &[]), DecodeError::NoAddress),
            (datagram([1, 0x11], &[]), DecodeError::NoAddress),
            (datagram([1, 1], &short), DecodeError::Malformed),
            (datagram([1, 1], &nowhere), DecodeError::ImpossibleAddress(address("198.51.100.9:0"))),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decode(&bytes), Err(expected), "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_calmly(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_attributes_are_taken_calmly(
            class in 0..=1_u8,
            kind in 0..=0x11_u8,
            attributes in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let _ = decode(&datagram([class, kind], &attributes));
        }

        #[test]
        fn a_damaged_sample_never_names_another_address(
            position in 0..SAMPLE_V6.len(), change in 1..=255_u8,
        ) {
            let mut bytes = SAMPLE_V6;
            bytes[position] ^= change;
            // A fingerprint whose own header is hit goes unchecked, and then nothing else was hit.
            if let Ok(message) = decode(&bytes) {
                prop_assert_eq!(Ok(message), decode(&SAMPLE_V6));
            }
        }
    }
}
