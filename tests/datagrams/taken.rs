//! What becomes of a datagram of a stranger's, up to where somebody would believe it.
//!
//! `fuzz/fuzz_targets/forwarding.rs` and `fuzz/fuzz_targets/datagrams.rs` are driven by coverage; `main.rs` does a
//! bounded part of the same in every test run.

use p2p_node::{
    entropy::Entropy,
    forwarding::{self, LinkKeys, Packet},
    identity::{Ephemeral, Identity},
    nat::stun,
    offer,
    probe::{ConversationId, ProbeKeys, Side},
    sealing::Key,
    time::UnixMillis,
    transport::sockets::demux::{Fate, Kind, sift},
};
use quinn::udp::RecvMeta;

/// Whoever is attacked.
pub(crate) struct Victim {
    identity: Identity,
    served: LinkKeys,
    helper: LinkKeys,
    probes: ProbeKeys,
}

/// What was believed of what a stranger sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Believed {
    /// Datagrams for or from helpers that are well-formed, as far as they are not sealed.
    pub(crate) parsed: usize,
    /// STUN messages.
    pub(crate) stun: usize,
    /// Anything sealed: with keys that no stranger has.
    pub(crate) sealed: usize,
}

impl Victim {
    pub(crate) fn new() -> Self {
        let identity = Identity::from_seed([7; 32]);
        let ephemeral = Ephemeral::generate(&mut Entropy::from_seed(7));
        Self {
            served: LinkKeys::of_served(&ephemeral, &identity.peer_id()),
            helper: LinkKeys::of_helper(&identity, &ephemeral.public),
            probes: ProbeKeys::new(
                &Key::from_bytes([7; 32]),
                ConversationId([7; 8]),
                Side::Responder,
            ),
            identity,
        }
    }

    /// Takes a buffer as the kernel fills it: datagrams of `stride` bytes, the last one shorter if need be.
    pub(crate) fn take_buffer(&self, bytes: &[u8], stride: usize) -> Believed {
        let mut buffer = bytes.to_vec();
        let mut meta = RecvMeta { len: buffer.len(), stride, ..RecvMeta::default() };
        let (mut believed, mut removed, mut kept) = (Believed::default(), 0, Vec::new());
        sift(&mut buffer, &mut meta, |kind, datagram| {
            let is_whole = stride == 0 || datagram.len() <= stride;
            assert!(is_whole && !datagram.is_empty(), "{} of {stride} bytes", datagram.len());
            self.take(kind, datagram, &mut believed);
            match kind {
                Kind::Quic => {
                    kept.extend_from_slice(datagram);
                    Fate::Keep
                }
                Kind::Stun | Kind::Probe | Kind::Forwarding | Kind::Unknown => {
                    removed += datagram.len();
                    Fate::Remove
                }
            }
        });
        assert_eq!(
            buffer.get(..meta.len),
            Some(kept.as_slice()),
            "QUIC gets its packets as they came"
        );
        assert_eq!(meta.len + removed, bytes.len(), "every byte belongs to one datagram");
        assert!(meta.stride > 0 || meta.len == 0, "quinn would loop for ever");
        believed
    }

    fn take(&self, kind: Kind, datagram: &[u8], believed: &mut Believed) {
        match kind {
            Kind::Stun => believed.stun += usize::from(stun::decode(datagram).is_ok()),
            Kind::Probe => believed.sealed += usize::from(self.probes.decode(datagram).is_some()),
            Kind::Forwarding => self.take_forwarding(datagram, believed),
            Kind::Quic | Kind::Unknown => {}
        }
    }

    /// Takes a datagram for or from a helper. What has no seal comes out of the codec as it went in.
    pub(crate) fn take_forwarding(&self, datagram: &[u8], believed: &mut Believed) {
        let Some(packet) = forwarding::parse(datagram) else {
            return;
        };
        believed.parsed += 1;
        let is_opened = match packet {
            Packet::Ask { sealed, .. } => self.helper.open_ask(datagram, sealed).is_some(),
            Packet::Grant { sealed, .. } => self.served.open_grant(datagram, sealed).is_some(),
            Packet::Delivery { sealed } => self.served.open_delivery(datagram, sealed).is_some(),
            Packet::Answer { sealed, .. } => self.helper.open_answer(datagram, sealed).is_some(),
            Packet::Challenge { transaction, cookie } => {
                assert_eq!(forwarding::challenge(transaction, cookie), datagram);
                false
            }
            Packet::Offer { token, transaction, offer } => {
                let again = forwarding::offer(token, transaction, offer);
                assert_eq!(again.len(), datagram.len(), "what is forwarded is what was sent");
                assert_eq!(forwarding::parse(&again), Some(packet.clone()));
                offer::open(offer, &self.identity, NOW).is_ok()
            }
            Packet::Reply { transaction, seen, answer } => {
                let again = forwarding::reply(transaction, seen, answer);
                assert_eq!(again.len(), datagram.len(), "an answer is as long as it was");
                assert_eq!(forwarding::parse(&again), Some(packet.clone()));
                false
            }
        };
        believed.sealed += usize::from(is_opened);
    }
}

const NOW: UnixMillis = UnixMillis(1_763_820_000_000);
