//! Where things lie in the DHT: derived from a name, so that both sides arrive there unasked.
//!
//! Everything about one name comes from its *root* key. Who does not know the name (and the secret, if it
//! has one) sees keys that are unlike anything else and values that are sealed.

use std::fmt;

use super::{
    blinding::{WriteKey, blinded_public_key},
    item::target_of,
};
use crate::{
    identity::{Identity, PeerId},
    sealing::Key,
    service::Service,
    ticket::TicketSecret,
};

/// Slots of an inbox.
///
/// The first is the one that diallers use and that is watched closely; the others are for diallers that
/// find it taken. Three let three diallers in at the same moment, and each more costs every server
/// datagrams all the time.
pub const SLOTS: u8 = 3;

/// What a peer can be asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A service, with its secret if it has one.
    Service(Service),
    /// A peer id alone.
    Peer(PeerId),
    /// A ticket: a peer and the secret of its private record.
    Ticket(PeerId, TicketSecret),
}

/// A point of the DHT's 160-bit key space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(pub [u8; 20]);

/// What a location is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The record of a peer or a service.
    Record,
    /// A slot of the inbox of a service.
    ServiceSlot(u8),
    /// A slot of the inbox of a peer, found by peer id or by ticket.
    PeerSlot(u8),
}

/// A place in the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The Ed25519 key that signs what lies there.
    pub public_key: [u8; 32],
    /// Where that is.
    pub target: Target,
    /// What it is for.
    pub purpose: Purpose,
}

impl Name {
    /// Where the record is published.
    pub fn record(&self) -> Location {
        let key = match self {
            Self::Service(_) => self.shared_key("record").public_key(),
            Self::Peer(peer) | Self::Ticket(peer, _) => {
                blinded_public_key(peer, &self.key("record"))
            }
        };
        Location::new(key, Purpose::Record)
    }

    /// The key that writes the service record.
    ///
    /// Peer records are written by their peer alone, with [`Name::own_record_key`].
    pub fn service_record_key(&self) -> WriteKey {
        self.shared_key("record")
    }

    /// The key that writes the record of `identity`, which must be the peer that is named.
    pub fn own_record_key(&self, identity: &Identity) -> WriteKey {
        WriteKey::blinded(identity, &self.key("record"))
    }

    /// The key that seals the record.
    pub fn sealing_key(&self) -> Key {
        self.key("seal")
    }

    /// The key that seals what is said under this name on the local network.
    pub fn lan_key(&self) -> Key {
        self.key("lan")
    }

    /// Where offers are left; [`SLOTS`] places, the preferred one first.
    pub fn inbox(&self) -> Vec<Location> {
        (0..SLOTS).map(|index| self.slot(index)).collect()
    }

    /// The key that all who know the name write to slot `index` with.
    pub fn slot_key(&self, index: u8) -> WriteKey {
        self.shared_key(&format!("slot {index}"))
    }

    fn slot(&self, index: u8) -> Location {
        let purpose = match self {
            Self::Service(_) => Purpose::ServiceSlot(index),
            Self::Peer(_) | Self::Ticket(..) => Purpose::PeerSlot(index),
        };
        Location::new(self.slot_key(index).public_key(), purpose)
    }

    fn shared_key(&self, purpose: &str) -> WriteKey {
        WriteKey::shared(&self.key(purpose))
    }

    fn key(&self, purpose: &str) -> Key {
        let root = match self {
            Self::Service(service) => service.key("rendezvous"),
            Self::Peer(peer) => Key::derive("p2p-node/1 peer", peer.as_bytes(), &[b"rendezvous"]),
            Self::Ticket(peer, secret) => Key::derive(
                "p2p-node/1 private peer",
                secret.key("rendezvous").as_bytes(),
                &[peer.as_bytes()],
            ),
        };
        Key::derive("p2p-node/1 rendezvous", root.as_bytes(), &[purpose.as_bytes()])
    }
}

impl Location {
    /// The place where things signed with `public_key` lie.
    pub fn new(public_key: [u8; 32], purpose: Purpose) -> Self {
        Self { public_key, target: target_of(&public_key), purpose }
    }
}

impl Target {
    /// Kademlia's distance, to be compared.
    pub fn distance(&self, id: &[u8; 20]) -> [u8; 20] {
        let mut distance = self.0;
        for (byte, other) in distance.iter_mut().zip(id) {
            *byte ^= other;
        }
        distance
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ticket::Ticket;

    fn names() -> Vec<Name> {
        let bob = Identity::from_seed([2; 32]);
        let name = |text: &str| text.parse().unwrap();
        vec![
            Name::Service(Service::open(name("myapi:v1"))),
            Name::Service(Service::open(name("myapi:v2"))),
            Name::Service(Service::private(name("myapi:v1"), b"secret")),
            Name::Peer(bob.peer_id()),
            Name::Ticket(bob.peer_id(), Ticket::of(&bob, Vec::new()).secret),
            Name::Ticket(bob.peer_id(), TicketSecret([0; 16])),
        ]
    }

    #[test]
    fn every_name_has_places_of_its_own() {
        let mut targets = BTreeSet::new();
        for name in names() {
            targets.insert(name.record().target);
            targets.extend(name.inbox().iter().map(|slot| slot.target));
        }
        assert_eq!(targets.len(), 6 * (1 + usize::from(SLOTS)));
    }

    #[test]
    fn the_owner_writes_where_others_look() {
        let bob = Identity::from_seed([2; 32]);
        let name = Name::Peer(bob.peer_id());
        let key = name.own_record_key(&bob);
        assert_eq!(key.public_key(), name.record().public_key);
        let service = Name::Service(Service::open("myapi:v1".parse().unwrap()));
        let key = service.service_record_key();
        assert_eq!(key.public_key(), service.record().public_key);
        assert_eq!(service.slot_key(2).public_key(), service.inbox()[2].public_key);
    }
}
