//! What passes between a helper and a node that it serves, under the keys that only these two have.

#[cfg(doc)]
use super::Packet;
use super::{
    ADDRESS_SIZE, ANSWER, ANSWER_SIZE_MAX, ASK, Cookie, DELIVERY, Delivered, FIRST_BYTE, GRANT,
    Granted, Sealed, Token, Transaction, Wish, decode_address, encode_address,
};
use crate::{
    entropy::Entropy,
    identity::{Ephemeral, Identity, PeerId},
    sealing::Key,
};

/// The keys between a helper and a node that it serves, one for each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkKeys {
    to_helper: Key,
    to_served: Key,
}

impl LinkKeys {
    /// Those of a node that asks `helper` with `ephemeral`.
    pub fn of_served(ephemeral: &Ephemeral, helper: &PeerId) -> Self {
        Self::derive(&ephemeral.agree(helper), &ephemeral.public, helper)
    }

    /// Those of the helper `identity`, which was asked with this ephemeral key.
    pub fn of_helper(identity: &Identity, ephemeral: &[u8; 32]) -> Self {
        Self::derive(&identity.agree(ephemeral), ephemeral, &identity.peer_id())
    }

    fn derive(shared: &Key, ephemeral: &[u8; 32], helper: &PeerId) -> Self {
        let key = |direction: &[u8]| {
            let context = [ephemeral.as_slice(), helper.as_bytes(), direction];
            Key::derive("p2p-node/1 helper link", shared.as_bytes(), &context)
        };
        Self { to_helper: key(b"to helper"), to_served: key(b"to served") }
    }

    /// An [`Packet::Ask`].
    pub fn ask(
        &self,
        (transaction, cookie, ephemeral): (Transaction, Cookie, &[u8; 32]),
        wish: Wish,
        entropy: &mut Entropy,
    ) -> Vec<u8> {
        let mut bytes = vec![FIRST_BYTE, ASK];
        bytes.extend(transaction);
        bytes.extend(cookie);
        bytes.extend(ephemeral);
        let wish = match wish {
            Wish::Keep => 1,
            Wish::End => 2,
        };
        append_sealed(&self.to_helper, bytes, &[wish], entropy)
    }

    /// What an [`Packet::Ask`] wants; `datagram` is all of it.
    pub fn open_ask(&self, datagram: &[u8], sealed: Sealed<'_>) -> Option<Wish> {
        match self.to_helper.open_in(datagram, sealed)?.as_slice() {
            [1] => Some(Wish::Keep),
            [2] => Some(Wish::End),
            _ => None,
        }
    }

    /// A [`Packet::Grant`].
    pub fn grant(
        &self,
        transaction: Transaction,
        granted: Granted,
        entropy: &mut Entropy,
    ) -> Vec<u8> {
        let mut bytes = vec![FIRST_BYTE, GRANT];
        bytes.extend(transaction);
        let mut body = granted.token.0.to_vec();
        body.extend(encode_address(granted.seen));
        append_sealed(&self.to_served, bytes, &body, entropy)
    }

    /// What a [`Packet::Grant`] grants.
    pub fn open_grant(&self, datagram: &[u8], sealed: Sealed<'_>) -> Option<Granted> {
        let body = self.to_served.open_in(datagram, sealed)?;
        let (token, seen) = body.split_first_chunk()?;
        Some(Granted { token: Token(*token), seen: decode_address(seen)? })
    }

    /// A [`Packet::Delivery`].
    pub fn delivery(&self, delivered: &Delivered, entropy: &mut Entropy) -> Vec<u8> {
        let mut body = delivered.errand.to_vec();
        body.extend(encode_address(delivered.seen));
        body.extend(&delivered.offer);
        append_sealed(&self.to_served, vec![FIRST_BYTE, DELIVERY], &body, entropy)
    }

    /// What a [`Packet::Delivery`] delivers.
    pub fn open_delivery(&self, datagram: &[u8], sealed: Sealed<'_>) -> Option<Delivered> {
        let body = self.to_served.open_in(datagram, sealed)?;
        let (errand, rest) = body.split_first_chunk()?;
        let (seen, offer) = rest.split_at_checked(ADDRESS_SIZE)?;
        Some(Delivered { errand: *errand, seen: decode_address(seen)?, offer: offer.to_vec() })
    }

    /// A [`Packet::Answer`].
    pub fn answer(&self, errand: Transaction, answer: &[u8], entropy: &mut Entropy) -> Vec<u8> {
        let mut bytes = vec![FIRST_BYTE, ANSWER];
        bytes.extend(errand);
        append_sealed(&self.to_helper, bytes, answer, entropy)
    }

    /// What a [`Packet::Answer`] says.
    pub fn open_answer(&self, datagram: &[u8], sealed: Sealed<'_>) -> Option<Vec<u8>> {
        self.to_helper.open_in(datagram, sealed).filter(|answer| answer.len() <= ANSWER_SIZE_MAX)
    }
}

impl Key {
    /// Opens what [`append_sealed`] put at the end of `datagram`.
    fn open_in(&self, datagram: &[u8], sealed: Sealed<'_>) -> Option<Vec<u8>> {
        let context = datagram.get(..datagram.len().checked_sub(12 + sealed.bytes.len())?)?;
        self.open(sealed.nonce, context, sealed.bytes).ok()
    }
}

/// `bytes` in the clear, and a nonce and `body` sealed behind them, with what is clear as context.
fn append_sealed(key: &Key, mut bytes: Vec<u8>, body: &[u8], entropy: &mut Entropy) -> Vec<u8> {
    let nonce = entropy.bytes();
    let sealed = key.seal(nonce, &bytes, body);
    bytes.extend(nonce);
    bytes.extend(sealed);
    bytes
}
