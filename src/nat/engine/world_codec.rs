//! What the hosts of a [`World`](super::world::World) send each other, in the clear.

use crate::probe::{Probe, Transaction, Urgency};

pub(super) const SEEN: u8 = 0;
pub(super) const DATA: u8 = 3;

pub(super) fn encode(probe: Probe) -> Vec<u8> {
    match probe {
        Probe::Ping { transaction, .. } => [&[1], &transaction.0.to_be_bytes()[..]].concat(),
        Probe::Pong { transaction, observed } => {
            [&[2], &transaction.0.to_be_bytes()[..], observed.to_string().as_bytes()].concat()
        }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Probe {
    let transaction = Transaction(u64::from_be_bytes(bytes[1..9].try_into().unwrap()));
    match bytes[0] {
        1 => Probe::Ping { transaction, urgency: Urgency::Routine },
        _ => {
            let observed = std::str::from_utf8(&bytes[9..]).unwrap().parse().unwrap();
            Probe::Pong { transaction, observed }
        }
    }
}
