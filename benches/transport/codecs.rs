//! What one datagram or one item of the DHT costs: probes and STUN are answered to strangers, offers and
//! records are opened by whoever finds them.

use std::hint::black_box;

use criterion::Criterion;
use p2p_node::{
    behaviour::{Dependence, NatBehaviour},
    candidate::{Candidate, CandidateKind},
    dht::record::PeerRecord,
    entropy::Entropy,
    identity::{Ephemeral, Identity},
    nat::stun::{self, TransactionId},
    offer::{self, Offer},
    probe::{ConversationId, Probe, ProbeKeys, Side, Transaction, Urgency},
    sealing::Key,
    time::UnixMillis,
};

pub(crate) fn measure(criterion: &mut Criterion) {
    probes(criterion);
    offers(criterion);
    records(criterion);
    stun_messages(criterion);
}

fn probes(criterion: &mut Criterion) {
    let entropy = &mut Entropy::from_seed(1);
    let secret = Key::from_bytes([7; 32]);
    let keys = |side| ProbeKeys::new(&secret, ConversationId([1; 8]), side);
    let (ours, theirs) = (keys(Side::Initiator), keys(Side::Responder));
    let ping = Probe::Ping { transaction: Transaction(7), urgency: Urgency::Routine };
    let datagram = ours.encode(ping, entropy);
    assert_eq!(theirs.decode(&datagram), Some(ping));
    let mut forged = datagram.clone();
    forged[20] ^= 1;
    criterion.bench_function("probe: encode", |bencher| {
        bencher.iter(|| ours.encode(black_box(ping), entropy));
    });
    criterion.bench_function("probe: decode", |bencher| {
        bencher.iter(|| theirs.decode(black_box(&datagram)));
    });
    criterion.bench_function("probe: refuse a forged one", |bencher| {
        bencher.iter(|| theirs.decode(black_box(&forged)));
    });
}

fn offers(criterion: &mut Criterion) {
    let entropy = &mut Entropy::from_seed(1);
    let [us, them] = [1, 2].map(|seed| Identity::from_seed([seed; 32]));
    let ephemeral = Ephemeral::generate(entropy);
    let offer = Offer {
        from: us.peer_id(),
        conversation: ConversationId([1; 8]),
        made_at: NOW,
        candidates: candidates(),
        nat: nat(),
        proof: None,
    };
    let sealed = offer.seal(&us, &them.peer_id(), &ephemeral, entropy).bytes;
    offer::open(&sealed, &them, NOW).unwrap();
    criterion.bench_function("offer: seal", |bencher| {
        bencher.iter(|| black_box(&offer).seal(&us, &them.peer_id(), &ephemeral, entropy));
    });
    criterion.bench_function("offer: open", |bencher| {
        bencher.iter(|| offer::open(black_box(&sealed), &them, NOW));
    });
}

fn records(criterion: &mut Criterion) {
    let entropy = &mut Entropy::from_seed(1);
    let us = Identity::from_seed([1; 32]);
    let key = Key::from_bytes([7; 32]);
    let record = PeerRecord {
        peer: us.peer_id(),
        made_at: NOW,
        candidates: candidates(),
        nat: nat(),
        helpers: Vec::new(),
    };
    let sealed = record.seal(&us, &key, entropy);
    PeerRecord::open(&sealed, &us.peer_id(), &key, NOW).unwrap();
    criterion.bench_function("record: seal", |bencher| {
        bencher.iter(|| black_box(&record).seal(&us, &key, entropy));
    });
    criterion.bench_function("record: open", |bencher| {
        bencher.iter(|| PeerRecord::open(black_box(&sealed), &us.peer_id(), &key, NOW));
    });
}

fn stun_messages(criterion: &mut Criterion) {
    let transaction = TransactionId::random(&mut Entropy::from_seed(1));
    let request = stun::encode_request(transaction);
    let response = stun::encode_response(transaction, "203.0.113.7:41641".parse().unwrap());
    for (name, datagram) in [("request", request), ("response", response)] {
        stun::decode(&datagram).unwrap();
        criterion.bench_function(&format!("STUN: decode a {name}"), |bencher| {
            bencher.iter(|| stun::decode(black_box(&datagram)));
        });
    }
}

/// What a home has: a public address, a private one, and two of IPv6.
fn candidates() -> Vec<Candidate> {
    let addresses =
        ["203.0.113.7:41641", "192.168.1.2:41641", "[2001:db8::2]:41641", "[2001:db8::3]:41641"];
    let candidate = |address: &str| {
        Candidate::new(CandidateKind::ServerReflexive, address.parse().unwrap()).unwrap()
    };
    addresses.map(candidate).to_vec()
}

fn nat() -> NatBehaviour {
    NatBehaviour::new(Some(Dependence::EndpointIndependent), None)
}

const NOW: UnixMillis = UnixMillis(1_763_820_000_000);
