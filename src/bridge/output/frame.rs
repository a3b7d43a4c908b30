//! Events as protobuf frames: `Event` of `proto/stdio.proto`.

mod netcheck;

use bytes::Bytes;
use prost::{
    Message as _,
    encoding::{self, WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use super::{Output, encoder::Chunks, grease::Grease};
use crate::{
    bridge::{
        command::Id,
        reply::{Delivery, Failed, Link, Path, Peer, Reply, StatusReply},
        values::{Ending, Reason, shown},
    },
    identity::PeerId,
    proto::{
        Message,
        stdio::{Event, event, event::Kind},
    },
};

/// Appends the frame of `output`; `grease` adds a field that means nothing.
pub(super) fn encode(output: &Output<'_>, chunks: &mut Chunks, grease: Option<&mut Grease>) {
    let extra = grease.map(Grease::field).unwrap_or_default();
    if let Output::Message { peer, message } = output {
        let received = Received::new(*peer, message);
        let size = received.size();
        begin_frame(field_size(MESSAGE_EVENT, size), &extra, chunks.growing());
        begin_field(MESSAGE_EVENT, size, chunks.growing());
        return received.encode(chunks);
    }
    if let Output::Ok { id, reply: Reply::Answered { peer, message } } = output {
        let received = Received::new(*peer, message);
        let (id, size) = (number(*id), received.size());
        let ok_size = encoding::uint64::encoded_len(OK_ID, &id) + field_size(OK_RECEIVED, size);
        let head = chunks.growing();
        begin_frame(field_size(OK_EVENT, ok_size), &extra, head);
        begin_field(OK_EVENT, ok_size, head);
        encoding::uint64::encode(OK_ID, &id, head);
        begin_field(OK_RECEIVED, size, head);
        return received.encode(chunks);
    }
    let event = Event { kind: kind(output) };
    begin_frame(event.encoded_len(), &extra, chunks.growing());
    event.encode_raw(chunks.growing());
}

fn begin_frame(size: usize, extra: &[u8], head: &mut Vec<u8>) {
    encode_varint(wide(extra.len() + size), head);
    head.extend_from_slice(extra);
}

/// `Event.Received`, written by hand so that neither the message nor its payload is copied: the payload
/// stands last, and goes out as it is.
struct Received<'a> {
    peer: String,
    message: &'a Message,
}

impl<'a> Received<'a> {
    fn new(peer: PeerId, message: &'a Message) -> Self {
        Self { peer: peer.to_string(), message }
    }

    fn size(&self) -> usize {
        encoding::string::encoded_len(RECEIVED_PEER, &self.peer)
            + field_size(RECEIVED_MESSAGE, self.message.encoded_len())
    }

    fn encode(&self, chunks: &mut Chunks) {
        let head = chunks.growing();
        encoding::string::encode(RECEIVED_PEER, &self.peer, head);
        begin_field(RECEIVED_MESSAGE, self.message.encoded_len(), head);
        let payload = &self.message.payload;
        let Message { id, r#type, payload: _, timestamp, metadata } = self.message;
        // What is empty is not written, as everywhere in proto3.
        let small = Shell { id, r#type, timestamp: *timestamp };
        small.encode(head);
        encoding::btree_map::encode(
            encoding::string::encode,
            encoding::string::encoded_len,
            encoding::string::encode,
            encoding::string::encoded_len,
            MESSAGE_METADATA,
            metadata,
            head,
        );
        if payload.is_empty() {
            return;
        }
        begin_field(MESSAGE_PAYLOAD, payload.len(), head);
        match payload.len() <= COPIED_BYTES_MAX {
            true => head.extend_from_slice(payload),
            false => chunks.push(Bytes::clone(payload)),
        }
    }
}

/// The small fields of a message.
struct Shell<'a> {
    id: &'a String,
    r#type: &'a String,
    timestamp: i64,
}

impl Shell<'_> {
    fn encode(&self, head: &mut Vec<u8>) {
        if !self.id.is_empty() {
            encoding::string::encode(MESSAGE_ID, self.id, head);
        }
        if !self.r#type.is_empty() {
            encoding::string::encode(MESSAGE_TYPE, self.r#type, head);
        }
        if self.timestamp != 0 {
            encoding::int64::encode(MESSAGE_TIMESTAMP, &self.timestamp, head);
        }
    }
}

fn begin_field(number: u32, size: usize, head: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, head);
    encode_varint(wide(size), head);
}

fn field_size(number: u32, size: usize) -> usize {
    key_len(number) + encoded_len_varint(wide(size)) + size
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

fn kind(output: &Output<'_>) -> Option<Kind> {
    Some(match output {
        Output::Hello { node, version, protocols, pid, mode } => Kind::Hello(event::Hello {
            node: (*node).to_owned(),
            version: (*version).to_owned(),
            protocols: protocols.map(u32::from).to_vec(),
            pid: *pid,
            mode: (*mode).to_owned(),
        }),
        Output::Ready { peer_id, ticket, addrs, service, admission, warning } => {
            Kind::Ready(event::Ready {
                peer_id: peer_id.to_string(),
                ticket: ticket.to_string(),
                addrs: texts(addrs),
                service: service.unwrap_or_default().to_owned(),
                admission: admission.as_str().to_owned(),
                warning: warning.unwrap_or_default().to_owned(),
            })
        }
        Output::Online { dht_nodes, addrs, took_ms } => Kind::Online(event::Online {
            dht_nodes: count(*dht_nodes),
            addrs: texts(addrs),
            took_ms: *took_ms,
        }),
        Output::Connecting { target, peer } => {
            Kind::Connecting(event::Connecting { target: shown(target), peer: named(*peer) })
        }
        Output::Progress { peer, target, stage, elapsed_ms, detail, strategy, why } => {
            Kind::Progress(event::Progress {
                peer: named(*peer),
                target: shown(target),
                stage: (*stage).to_owned(),
                elapsed_ms: *elapsed_ms,
                detail: (*detail).to_owned(),
                strategy: strategy.unwrap_or_default().to_owned(),
                why: why.unwrap_or_default().to_owned(),
            })
        }
        Output::Connected(link) => Kind::Connected(link.into()),
        Output::PathChanged { peer, path, rtt_ms } => Kind::PathChanged(event::PathChanged {
            peer: peer.to_string(),
            path: Some(path.into()),
            rtt_ms: *rtt_ms,
        }),
        Output::Disconnected { peer, reason, will_retry } => {
            Kind::Disconnected(event::Disconnected {
                peer: peer.to_string(),
                reason: Some(reason.into()),
                will_retry: *will_retry,
            })
        }
        Output::Delivered(delivery) => Kind::Delivered(delivery.into()),
        Output::Message { .. } => return None,
        Output::Ok { id, reply } => {
            Kind::Ok(event::Ok { id: number(*id), reply: self::reply(reply) })
        }
        Output::Error { id, reason, retryable, peer, elapsed_ms } => Kind::Error(event::Error {
            id: number(*id),
            reason: Some(reason.into()),
            retryable: *retryable,
            peer: named(*peer),
            elapsed_ms: elapsed_ms.unwrap_or_default(),
        }),
        Output::Warning(reason) => Kind::Warning(event::Warning { reason: Some(reason.into()) }),
        Output::Bye { reason, exit_code } => Kind::Bye(bye(*reason, *exit_code)),
    })
}

fn bye(reason: Ending, exit_code: u8) -> event::Bye {
    event::Bye { reason: reason.as_str().to_owned(), exit_code: exit_code.into() }
}

fn reply(reply: &Reply) -> Option<event::ok::Reply> {
    use event::ok::Reply as Written;
    Some(match reply {
        Reply::Delivered(delivery) => Written::Receipt(delivery.into()),
        Reply::Broadcast { sent, failed } => Written::Broadcast(event::Broadcast {
            sent: sent.iter().map(event::Receipt::from).collect(),
            failed: failed.iter().map(event::broadcast::Failed::from).collect(),
        }),
        Reply::Answered { .. } | Reply::Nothing {} => return None,
        Reply::Connected(link) => Written::Link(link.into()),
        Reply::Disconnected { peer } => Written::Peer(peer.to_string()),
        Reply::Peers { peers } => Written::Peers(event::Peers {
            peers: peers.iter().map(event::peers::Peer::from).collect(),
        }),
        Reply::Status(status) => Written::Status((&**status).into()),
        Reply::Pong { peer, rtt_ms, path } => Written::Pong(event::Pong {
            peer: peer.to_string(),
            rtt_ms: *rtt_ms,
            path: Some(path.into()),
        }),
        Reply::Netcheck(netcheck) => Written::Netcheck((&**netcheck).into()),
        Reply::Ticket { ticket } => Written::Ticket(ticket.clone()),
        Reply::Help { commands } => Written::Commands(event::Commands {
            commands: commands
                .iter()
                .map(|command| event::commands::Usage {
                    usage: command.usage.to_owned(),
                    does: command.does.to_owned(),
                })
                .collect(),
        }),
        Reply::Protocol { protocol } => Written::Protocol(*protocol),
    })
}

impl From<&Reason<'_>> for event::Reason {
    fn from(reason: &Reason<'_>) -> Self {
        Self {
            code: reason.code.to_owned(),
            message: reason.message.to_owned(),
            why: reason.why.to_owned(),
            hint: reason.hint.to_owned(),
        }
    }
}

impl From<&Failed> for event::broadcast::Failed {
    fn from(failed: &Failed) -> Self {
        let reason = Reason::from(&failed.failure);
        Self { peer: failed.peer.to_string(), reason: Some((&reason).into()) }
    }
}

impl From<&Path> for event::Path {
    fn from(path: &Path) -> Self {
        Self {
            kind: path.kind.to_owned(),
            local: path.local.to_string(),
            remote: path.remote.to_string(),
        }
    }
}

impl From<&Link> for event::Link {
    fn from(link: &Link) -> Self {
        Self {
            peer: link.peer.to_string(),
            direction: link.direction.to_owned(),
            path: Some((&link.path).into()),
            rtt_ms: link.rtt_ms,
            took_ms: link.took_ms,
        }
    }
}

impl From<&Delivery> for event::Receipt {
    fn from(delivery: &Delivery) -> Self {
        Self {
            message_id: delivery.message_id.clone(),
            peer: named(delivery.peer),
            state: delivery.state.to_owned(),
            rtt_ms: delivery.rtt_ms.unwrap_or_default(),
        }
    }
}

impl From<&Peer> for event::peers::Peer {
    fn from(peer: &Peer) -> Self {
        Self {
            link: Some((&peer.link).into()),
            connected_ms: peer.connected_ms,
            path_ms: peer.path_ms,
            loss_percent: peer.loss_percent,
            messages_sent: peer.messages_sent,
            messages_received: peer.messages_received,
        }
    }
}

impl From<&StatusReply> for event::Status {
    fn from(status: &StatusReply) -> Self {
        Self {
            peer_id: status.peer_id.to_string(),
            online: status.online,
            nat: status.nat.clone(),
            local_addrs: texts(&status.local_addrs),
            public_addrs: texts(&status.public_addrs),
            peers: count(status.peers),
            uptime_ms: status.uptime_ms,
            dht_nodes: count(status.dht_nodes),
        }
    }
}

/// Ids that are text exist in lines only.
fn number(id: Option<&Id>) -> u64 {
    match id {
        Some(Id::Number(number)) => *number,
        Some(Id::Text(_)) | None => 0,
    }
}

fn named(peer: Option<PeerId>) -> String {
    peer.map(|peer| peer.to_string()).unwrap_or_default()
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Payloads up to this size are copied among their neighbours: cheaper than a write of their own.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// `Event.message`.
const MESSAGE_EVENT: u32 = 9;

/// `Event.ok`.
const OK_EVENT: u32 = 11;

/// `Event.Ok.id`.
const OK_ID: u32 = 1;

/// `Event.Ok.received`.
const OK_RECEIVED: u32 = 4;

/// `Event.Received.peer`.
const RECEIVED_PEER: u32 = 1;

/// `Event.Received.message`.
const RECEIVED_MESSAGE: u32 = 2;

/// `Message.id`.
const MESSAGE_ID: u32 = 1;

/// `Message.type`.
const MESSAGE_TYPE: u32 = 2;

/// `Message.payload`.
const MESSAGE_PAYLOAD: u32 = 3;

/// `Message.timestamp`.
const MESSAGE_TIMESTAMP: u32 = 4;

/// `Message.metadata`.
const MESSAGE_METADATA: u32 = 5;

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{bridge::output::encoder::Chunks, entropy::Entropy, identity::Identity};

    fn message(payload: Vec<u8>) -> Message {
        Message {
            id: "01ab".to_owned(),
            r#type: "t".to_owned(),
            payload: payload.into(),
            timestamp: -5,
            metadata: [("k".to_owned(), "v".to_owned()), (String::new(), String::new())].into(),
        }
    }

    fn encoded(output: &Output<'_>, grease: Option<&mut Grease>) -> Chunks {
        let mut chunks = Chunks::default();
        encode(output, &mut chunks, grease);
        chunks
    }

    fn decoded(chunks: &Chunks) -> Event {
        let bytes: Vec<u8> = chunks.iter().flatten().copied().collect();
        Event::decode_length_delimited(&bytes[..]).unwrap()
    }

    #[test]
    fn what_is_written_by_hand_is_what_the_schema_says() {
        let peer = Identity::from_seed([1; 32]).peer_id();
        let mut grease = Grease::new(Entropy::from_seed(1));
        for message in [message(vec![7; 100]), message(vec![7; 100_000]), Message::default()] {
            for greased in [false, true] {
                let output = Output::Message { peer, message: &message };
                let chunks = encoded(&output, greased.then_some(&mut grease));
                let received =
                    event::Received { peer: peer.to_string(), message: Some(message.clone()) };
                assert_eq!(decoded(&chunks).kind, Some(Kind::Message(received.clone())));
                let reply = Reply::Answered { peer, message: message.clone() };
                let output = Output::Ok { id: Some(&Id::Number(300)), reply: &reply };
                let chunks = encoded(&output, greased.then_some(&mut grease));
                let ok = event::Ok { id: 300, reply: Some(event::ok::Reply::Received(received)) };
                assert_eq!(decoded(&chunks).kind, Some(Kind::Ok(ok)));
            }
        }
    }

    #[test]
    fn a_large_payload_is_not_copied_on_its_way_out() {
        let peer = Identity::from_seed([1; 32]).peer_id();
        let message = message(vec![7; 1 << 20]);
        let chunks = encoded(&Output::Message { peer, message: &message }, None);
        assert_eq!(chunks.iter().last().unwrap().as_ptr(), message.payload.as_ptr());
    }
}
