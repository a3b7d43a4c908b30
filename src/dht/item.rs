//! What the DHT stores: a signed value under a public key (BEP 44, mutable items).

use std::fmt;

use ring::digest;

use super::{
    blinding::{self, WriteKey},
    location::Target,
};

/// Bytes of a value that we store.
///
/// BEP 44 says 1000, libtorrent counts the bencoding and takes 996; the rest is room for implementations
/// that count more.
pub const VALUE_SIZE_MAX: usize = 900;

/// A signed value. There is no way to make one whose signature is wrong.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    public_key: [u8; 32],
    seq: i64,
    value: Vec<u8>,
    signature: [u8; 64],
}

impl Item {
    /// Signs `value` as number `seq`: Unix milliseconds, and more than the number it replaces.
    pub fn sign(key: &WriteKey, seq: i64, value: Vec<u8>) -> Self {
        Self {
            public_key: key.public_key(),
            seq,
            signature: key.sign(&signed_bytes(seq, &value)),
            value,
        }
    }

    /// The item that a node returned, or `None` if it is not signed by `public_key`.
    pub fn verified(
        public_key: [u8; 32],
        seq: i64,
        value: Vec<u8>,
        signature: [u8; 64],
    ) -> Option<Self> {
        blinding::verifies(&public_key, &signed_bytes(seq, &value), &signature).then_some(Self {
            public_key,
            seq,
            value,
            signature,
        })
    }

    /// The key that it is signed with.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// Its number; greater is newer.
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// What it says.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The Ed25519 signature.
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    /// The point of the DHT's key space that it is stored near.
    pub fn target(&self) -> Target {
        target_of(&self.public_key)
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seq, value, .. } = self;
        write!(f, "Item({} seq {seq}, {} B)", self.target(), value.len())
    }
}

/// BEP 44: the target of a mutable item is the SHA-1 of its key; we use no salt.
pub(crate) fn target_of(public_key: &[u8; 32]) -> Target {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, public_key);
    Target(*hash.as_ref().first_chunk().expect("SHA-1 has 20 bytes"))
}

/// BEP 44: the signature covers the bencoded `seq` and `v` entries of the dictionary.
fn signed_bytes(seq: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = format!("3:seqi{seq}e1:v{}:", value.len()).into_bytes();
    bytes.extend(value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::Key;

    #[test]
    fn the_signature_is_the_one_that_bep_44_asks_for() {
        assert_eq!(signed_bytes(4, b"Hello world!"), b"3:seqi4e1:v12:Hello world!");
        let key = WriteKey::shared(&Key::from_bytes([9; 32]));
        let ours = Item::sign(&key, 1, b"Hello world!".to_vec());
        let signer = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
        let theirs = mainline::MutableItem::new(signer, b"Hello world!", 1, None);
        assert_eq!(ours.public_key(), theirs.key());
        assert_eq!(ours.signature(), theirs.signature());
        assert_eq!(ours.target().0, *theirs.target().as_bytes());
    }

    #[test]
    fn an_item_with_another_number_value_or_key_is_not_verified() {
        let key = WriteKey::shared(&Key::from_bytes([9; 32]));
        let item = Item::sign(&key, 1, b"x".to_vec());
        let verified =
            |key, seq, value: &[u8]| Item::verified(key, seq, value.to_vec(), item.signature);
        assert_eq!(verified(item.public_key, 1, b"x"), Some(item.clone()));
        assert_eq!(verified(item.public_key, 2, b"x"), None);
        assert_eq!(verified(item.public_key, 1, b"y"), None);
        assert_eq!(verified([3; 32], 1, b"x"), None);
    }
}
