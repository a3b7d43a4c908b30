//! What a dial does in the DHT: reads records, and leaves offers.

use std::sync::Arc;

use super::{clock::Clock, dial::Found};
use crate::{
    behaviour::NatBehaviour,
    dht::{
        item::Item,
        location::Name,
        record::PeerRecord,
        rendezvous::{ABSENT, PutError, Rendezvous, Stored},
        service_record::{ServiceEntry, ServiceRecord},
    },
    time::UnixMillis,
};

/// The peers that `item`, found at the record of `name`, speaks of.
pub(super) fn peers_in(item: &Item, name: &Name, now: UnixMillis) -> Vec<Found> {
    match name {
        Name::Service(_) => {
            let record = ServiceRecord::open(item.value(), name, now);
            let entries = record.map(|record| record.entries).unwrap_or_default();
            entries.into_iter().map(Found::from).collect()
        }
        Name::Peer(peer) | Name::Ticket(peer, _) => {
            let record = PeerRecord::open(item.value(), peer, &name.sealing_key(), now);
            record.map(Found::from).into_iter().collect()
        }
    }
}

/// Leaves `sealed` in the inbox of `name`; returns at how many nodes it lies.
///
/// A slot that holds somebody else's offer, so fresh that it may not have been read, is left alone as long
/// as another one is free.
pub(super) async fn leave_offer(
    rendezvous: Arc<dyn Rendezvous>,
    name: Name,
    sealed: Vec<u8>,
    clock: Clock,
) -> Result<usize, PutError> {
    let mut failure = PutError::NoNodes;
    for (index, slot) in (0..).zip(name.inbox()) {
        let lies_there = rendezvous
            .known(slot.target)
            .map_or(ABSENT, |item| item.seq());
        let now = i64::try_from(clock.unix().0).unwrap_or(i64::MAX);
        let is_last = usize::from(index) + 1 == name.inbox().len();
        if now.saturating_sub(lies_there) < UNREAD_MS && !is_last {
            continue;
        }
        let item = Item::sign(
            &name.slot_key(index),
            now.max(lies_there + 1),
            sealed.clone(),
        );
        match rendezvous.put(item, None).await {
            Ok(Stored { nodes, .. }) => return Ok(nodes),
            Err(why @ (PutError::NotNewer { .. } | PutError::CasFailed { .. })) => failure = why,
            Err(why) => return Err(why),
        }
    }
    Err(failure)
}

impl From<PeerRecord> for Found {
    fn from(record: PeerRecord) -> Self {
        let PeerRecord {
            peer,
            made_at,
            candidates,
            nat,
            ..
        } = record;
        Self {
            peer,
            made_at,
            candidates,
            nat,
        }
    }
}

impl From<ServiceEntry> for Found {
    fn from(entry: ServiceEntry) -> Self {
        let ServiceEntry {
            peer,
            made_at,
            candidates,
            ..
        } = entry;
        Self {
            peer,
            made_at,
            candidates,
            nat: NatBehaviour::default(),
        }
    }
}

/// An offer younger than this may not have been read yet: inboxes are polled twice a second.
const UNREAD_MS: i64 = 3_000;
