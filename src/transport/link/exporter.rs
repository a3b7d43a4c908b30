//! Secrets that both ends of a connection draw from its TLS session, and nobody else can know.

use quinn::Connection;

use super::admission::ChannelBinding;
use crate::{
    identity::PeerId,
    probe::{ConversationId, ProbeKeys, Side},
    sealing::Key,
    ticket::TicketSecret,
    transport::link::error::{LinkError, Loss},
};

/// The value that proofs are made over: the same at both ends, different for every connection.
///
/// The exporter covers the handshake but not the dialler's certificate, so both ids go in.
pub(super) fn channel_binding(
    connection: &Connection,
    parties: [PeerId; 2],
) -> Result<ChannelBinding, LinkError> {
    export(connection, ADMISSION_LABEL, parties).map(ChannelBinding)
}

/// Keys for probes between the two ends of this connection.
pub(super) fn probe_keys(
    connection: &Connection,
    parties: [PeerId; 2],
    side: Side,
) -> Result<ProbeKeys, LinkError> {
    let conversation = ConversationId(export(connection, PROBE_CONVERSATION_LABEL, parties)?);
    let secret = Key::from_bytes(export(connection, PROBE_SECRET_LABEL, parties)?);
    Ok(ProbeKeys::new(&secret, conversation, side))
}

/// Where the two ends leave each other word when no path works any more; nobody else knows the place.
pub(super) fn meeting(
    connection: &Connection,
    parties: [PeerId; 2],
) -> Result<TicketSecret, LinkError> {
    export(connection, MEETING_LABEL, parties).map(TicketSecret)
}

/// RFC 8446, section 7.5, with the dialler's and the acceptor's id as context.
fn export<const N: usize>(
    connection: &Connection,
    label: &str,
    [dialler, acceptor]: [PeerId; 2],
) -> Result<[u8; N], LinkError> {
    let context = [*dialler.as_bytes(), *acceptor.as_bytes()].concat();
    let mut value = [0; N];
    connection
        .export_keying_material(&mut value, label.as_bytes(), &context)
        .map_err(|_| LinkError::Lost(Loss::Transport("TLS exports no keys".to_owned())))?;
    Ok(value)
}

const MEETING_LABEL: &str = "EXPORTER-p2p-node/1 meeting";
const ADMISSION_LABEL: &str = "EXPORTER-p2p-node/1 admission";
const PROBE_CONVERSATION_LABEL: &str = "EXPORTER-p2p-node/1 probe conversation";
const PROBE_SECRET_LABEL: &str = "EXPORTER-p2p-node/1 probe secret";
