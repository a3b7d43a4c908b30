//! Whether this program still arrives where PROTOCOL.md says: derivations and bytes for fixed inputs, in
//! `tests/vectors/rendezvous.json`, for whoever writes another implementation.
//!
//! `UPDATE_VECTORS=1 cargo test vectors` writes the file anew.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{
    blinding::WriteKey,
    item::Item,
    location::{Location, Name},
    record::PeerRecord,
    service_record::{Description, ENTRY_SIZE_MAX, ServiceEntry, ServiceRecord},
};
use crate::{
    behaviour::{Dependence, NatBehaviour, PortAllocation, PortCounter, PortHint},
    candidate::{Candidate, CandidateKind},
    entropy::Entropy,
    forwarding::{Helper, Token},
    identity::Identity,
    service::Service,
    ticket::Ticket,
    time::UnixMillis,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/rendezvous.json");
const NOW: UnixMillis = UnixMillis(1_763_820_000_000);

fn identity() -> Identity {
    Identity::from_seed([7; 32])
}

fn candidates() -> Vec<Candidate> {
    let candidate =
        |text: &str| Candidate::new(CandidateKind::ServerReflexive, text.parse().unwrap()).unwrap();
    ["198.51.100.9:50112", "192.168.1.20:41641", "[2001:db8::9]:50112"].map(candidate).into()
}

fn record() -> PeerRecord {
    PeerRecord {
        peer: identity().peer_id(),
        made_at: NOW,
        candidates: candidates(),
        nat: NatBehaviour::new(
            Some(Dependence::EndpointIndependent),
            Some(Dependence::AddressAndPortDependent),
        ),
        helpers: vec![helper("203.0.113.3:4000", 3), helper("[2001:db8::3]:4000", 4)],
    }
}

fn helper(address: &str, token: u8) -> Helper {
    Helper { address: address.parse().unwrap(), token: Token([token; 7]) }
}

/// The same behind a NAT whose next ports a peer can foresee.
fn symmetric_record() -> PeerRecord {
    let counter =
        PortCounter { port: 50_112, seen_at: UnixMillis(NOW.0 - 1_500), others_per_minute: 90 };
    let nat = NatBehaviour {
        allocation: Some(PortAllocation::Sequential { step: 2 }),
        hint: Some(PortHint::Counter(counter)),
        ..NatBehaviour::new(Some(Dependence::AddressAndPortDependent), None)
    };
    PeerRecord { nat, ..record() }
}

fn service(secret: Option<&[u8]>) -> Name {
    let name = "myapi:v1".parse().unwrap();
    Name::Service(secret.map_or_else(
        || Service::open(name),
        |secret| Service::private("myapi:v1".parse().unwrap(), secret),
    ))
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn place(location: Location) -> Value {
    json!({ "public_key": hex(&location.public_key), "target": location.target.to_string() })
}

fn name_vector(name: &Name) -> Value {
    json!({
        "record": place(name.record()),
        "sealing_key": hex(name.sealing_key().as_bytes()),
        "inbox": name.inbox().into_iter().map(place).collect::<Vec<_>>(),
    })
}

fn item_vector(key: &WriteKey) -> Value {
    let item = Item::sign(key, 1_763_820_000_000, b"hello".to_vec());
    json!({
        "seq": item.seq(), "value": hex(item.value()),
        "public_key": hex(item.public_key()), "signature": hex(item.signature()),
    })
}

fn helper_vectors() -> Vec<Value> {
    let vector = |helper: &Helper| json!({ "address": helper.address.to_string(), "token": hex(&helper.token.0) });
    record().helpers.iter().map(vector).collect()
}

/// Sealing draws a nonce, so sealed bytes are given and opened; everything else is derived.
fn vectors(sealed_record: &str, sealed_symmetric: &str, sealed_service_record: &str) -> Value {
    let (peer, ticket) = (identity().peer_id(), Ticket::of(&identity(), Vec::new()));
    let peer_name = Name::Peer(peer);
    json!({
        "identity_seed": hex(identity().seed()),
        "peer_id": hex(peer.as_bytes()),
        "ticket_secret": hex(&ticket.secret.0),
        "service_name": "myapi:v1",
        "service_secret_file": "secret",
        "names": {
            "peer": name_vector(&peer_name),
            "ticket": name_vector(&Name::Ticket(peer, ticket.secret)),
            "open_service": name_vector(&service(None)),
            "private_service": name_vector(&service(Some(b"secret"))),
        },
        "blinded_item": item_vector(&peer_name.own_record_key(&identity())),
        "slot_item": item_vector(&peer_name.slot_key(0)),
        "peer_record": {
            "made_at_ms": NOW.0,
            "endpoints": candidates().iter().map(|c| c.address.to_string()).collect::<Vec<_>>(),
            "helpers": helper_vectors(),
            "sealed": sealed_record,
        },
        "symmetric_peer_record": {
            "made_at_ms": NOW.0,
            "ports": {
                "kind": "SEQUENTIAL", "step": 2, "last_port": 50_112, "last_port_age_ms": 1_500,
                "others_per_minute": 90,
            },
            "sealed": sealed_symmetric,
        },
        "open_service_record": {
            "made_at_s": NOW.seconds(),
            "endpoints": candidates().iter().map(|c| c.address.to_string()).collect::<Vec<_>>(),
            "helpers": helper_vectors(),
            "sealed": sealed_service_record,
        },
    })
}

fn fresh_vectors() -> Value {
    let mut entropy = Entropy::from_seed(1);
    let key = Name::Peer(identity().peer_id()).sealing_key();
    let sealed = record().seal(&identity(), &key, &mut entropy);
    let list = ServiceRecord { entries: vec![entry()], rejected: Vec::new() };
    let list = list.seal(&service(None), &mut entropy);
    let symmetric = symmetric_record().seal(&identity(), &key, &mut entropy);
    vectors(&hex(&sealed), &hex(&symmetric), &hex(&list))
}

fn entry() -> ServiceEntry {
    let description = Description {
        candidates: &candidates(),
        nat: record().nat,
        helpers: &record().helpers,
        size_max: ENTRY_SIZE_MAX,
    };
    ServiceEntry::describing(&identity(), &service(None), &description, NOW)
}

#[test]
fn the_vectors_hold() {
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&fresh_vectors()).unwrap();
        std::fs::write(FILE, text + "\n").unwrap();
    }
    let file: Value = serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    let sealed = |name: &str| file[name]["sealed"].as_str().unwrap().to_owned();
    let bytes = |name: &str| HEXLOWER.decode(sealed(name).as_bytes()).unwrap();
    let [record_hex, symmetric_hex, list_hex] =
        ["peer_record", "symmetric_peer_record", "open_service_record"].map(sealed);
    assert_eq!(file, vectors(&record_hex, &symmetric_hex, &list_hex));
    let (peer, name) = (identity().peer_id(), Name::Peer(identity().peer_id()));
    let opened = PeerRecord::open(&bytes("peer_record"), &peer, &name.sealing_key(), NOW);
    assert_eq!(opened, Ok(record()));
    let opened = PeerRecord::open(&bytes("symmetric_peer_record"), &peer, &name.sealing_key(), NOW);
    assert_eq!(opened, Ok(symmetric_record()));
    let list = ServiceRecord::open(&bytes("open_service_record"), &service(None), NOW).unwrap();
    assert_eq!(list.entries, [entry()]);
}
