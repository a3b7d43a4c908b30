//! Nonsense on the UDP socket, drawn from a seed: it is taken apart without a panic, and nothing sealed is
//! believed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod seed;
mod taken;

use p2p_node::{
    entropy::Entropy,
    forwarding::{self, FIRST_BYTE, LinkKeys, OFFER_SIZE, Token, Wish},
    identity::{Ephemeral, Identity},
    nat::stun,
    offer, probe,
};
use seed::seed;
use taken::{Believed, Victim};

/// Buffers that are taken.
const BUFFERS: usize = 20_000;

#[test]
fn no_buffer_of_strangers_datagrams_upsets_what_takes_it_apart() {
    let (victim, mut entropy) = (Victim::new(), Entropy::from_seed(seed()));
    let (mut parsed, mut stun) = (0, 0);
    for _ in 0..BUFFERS {
        let datagrams: Vec<u8> =
            (0..=entropy.below(4)).flat_map(|_| datagram(&mut entropy)).collect();
        let stride = [0, 1, 62, OFFER_SIZE, 1 + entropy.below(1_500)][entropy.below(5)];
        let believed = victim.take_buffer(&datagrams, stride);
        assert_eq!(believed.sealed, 0, "{datagrams:02x?}");
        parsed += believed.parsed;
        stun += believed.stun;
    }
    let few = BUFFERS / 50;
    assert!(parsed > few && stun > few, "{parsed} and {stun} among them were well-formed");
}

#[test]
fn no_datagram_for_a_helper_upsets_the_codec() {
    let (victim, mut entropy) = (Victim::new(), Entropy::from_seed(seed()));
    let mut believed = Believed::default();
    for _ in 0..BUFFERS {
        let mut bytes = forwarded(&mut entropy);
        damage(&mut bytes, &mut entropy);
        victim.take_forwarding(&bytes, &mut believed);
    }
    assert_eq!(believed.sealed, 0);
    assert!(believed.parsed > BUFFERS / 4, "{believed:?}");
}

/// A datagram, more or less.
fn datagram(entropy: &mut Entropy) -> Vec<u8> {
    let mut bytes = match entropy.below(5) {
        0 => stun::encode_request(stun::TransactionId::random(entropy)),
        1 => {
            let address = ([203, 0, 113, entropy.bytes::<1>()[0]], 4_000);
            let transaction = stun::TransactionId::random(entropy);
            stun::encode_response(transaction, address.into())
        }
        2 => [&[probe::FIRST_BYTE][..], &entropy.bytes::<61>()].concat(),
        3 => forwarded(entropy),
        _ => entropy.bytes::<300>().to_vec(),
    };
    damage(&mut bytes, entropy);
    bytes
}

/// What a stranger would send to a helper or a node that one serves: well-formed, but sealed with other keys.
fn forwarded(entropy: &mut Entropy) -> Vec<u8> {
    let (token, transaction) = (Token(entropy.bytes()), entropy.bytes());
    match entropy.below(5) {
        0 => forwarding::challenge(transaction, entropy.bytes()),
        1 => forwarding::offer(token, transaction, &entropy.bytes::<{ offer::SEALED_SIZE }>()),
        2 => {
            let answer = vec![9; entropy.below(offer::SEALED_SIZE + 2)];
            forwarding::reply(transaction, ([203, 0, 113, 9], 4_000).into(), &answer)
        }
        3 => {
            let (stranger, ephemeral) = (Identity::generate(entropy), Ephemeral::generate(entropy));
            let keys = LinkKeys::of_served(&ephemeral, &stranger.peer_id());
            keys.ask((transaction, entropy.bytes(), &ephemeral.public), Wish::Keep, entropy)
        }
        _ => {
            let kind = u8::try_from(entropy.below(9)).unwrap();
            [&[FIRST_BYTE, kind][..], &entropy.bytes::<200>()].concat()
        }
    }
}

/// Changes, cuts or stretches half of all inputs.
fn damage(bytes: &mut Vec<u8>, entropy: &mut Entropy) {
    match entropy.below(6) {
        0 => {
            let place = entropy.below(bytes.len());
            bytes[place] = entropy.bytes::<1>()[0];
        }
        1 => bytes.truncate(entropy.below(bytes.len())),
        2 => {
            let place = entropy.below(bytes.len());
            bytes.splice(place..place, entropy.bytes::<5>());
        }
        _ => {}
    }
}
