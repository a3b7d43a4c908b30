//! Keys derived from secrets, and bytes sealed with them: HKDF-SHA256 (RFC 5869), HMAC-SHA256 and
//! ChaCha20-Poly1305 (RFC 8439), all by `ring`.

use std::fmt;

use ring::{aead, hkdf, hmac};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes that [`Key::seal`] adds: the Poly1305 tag.
pub const TAG_SIZE: usize = aead::MAX_TAG_LEN;

/// A 32-byte symmetric key. Never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<[u8; 32]>);

/// The bytes were not sealed with this key, nonce and context, or were changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("cannot be opened with this key")]
pub struct NotSealedForUs;

impl Key {
    /// A key that is already as random as a key must be.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// HKDF with `salt` as the protocol's name for the key, `secret` as input keying material and the
    /// concatenation of `context` as info.
    pub fn derive(salt: &str, secret: &[u8], context: &[&[u8]]) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt.as_bytes())
            .extract(secret)
            .expand(context, hkdf::HKDF_SHA256)
            .and_then(|expanded| expanded.fill(key.as_mut_slice()))
            .expect("32 bytes are within what HKDF-SHA256 gives");
        Self(key)
    }

    /// The key itself, for a further derivation.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals `plaintext`; `nonce` must not repeat under one key, `context` must be given again to open.
    pub fn seal(&self, nonce: [u8; 12], context: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut bytes = plaintext.to_vec();
        self.cipher()
            .seal_in_place_append_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(context),
                &mut bytes,
            )
            .expect("datagrams and records are far below the cipher's 256 GiB");
        bytes
    }

    /// Opens what [`Key::seal`] made.
    ///
    /// # Errors
    /// When key, nonce, context or a byte differs.
    pub fn open(
        &self,
        nonce: [u8; 12],
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, NotSealedForUs> {
        let mut bytes = sealed.to_vec();
        let size = self
            .cipher()
            .open_in_place(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(context),
                &mut bytes,
            )
            .map_err(|_| NotSealedForUs)?
            .len();
        bytes.truncate(size);
        Ok(bytes)
    }

    /// HMAC-SHA256 over the concatenation of `parts`.
    pub fn authenticate(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*self.0));
        for part in parts {
            context.update(part);
        }
        let mut code = [0; 32];
        code.copy_from_slice(context.sign().as_ref());
        code
    }

    /// Whether `code` is [`Key::authenticate`] of `parts`, in constant time.
    pub fn verifies(&self, parts: &[&[u8]], code: &[u8]) -> bool {
        let whole = parts.concat();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &*self.0), &whole, code).is_ok()
    }

    fn cipher(&self) -> aead::LessSafeKey {
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &*self.0)
            .expect("the cipher takes 32-byte keys");
        aead::LessSafeKey::new(key)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_nonce_and_context_only() {
        let key = Key::from_bytes([7; 32]);
        let sealed = key.seal([1; 12], b"context", b"hello");
        assert_eq!(key.open([1; 12], b"context", &sealed), Ok(b"hello".to_vec()));
        assert_eq!(key.open([2; 12], b"context", &sealed), Err(NotSealedForUs));
        assert_eq!(key.open([1; 12], b"contexT", &sealed), Err(NotSealedForUs));
        assert_eq!(
            Key::from_bytes([8; 32]).open([1; 12], b"context", &sealed),
            Err(NotSealedForUs)
        );
        assert_eq!(key.open([1; 12], b"context", &sealed[..3]), Err(NotSealedForUs));
    }

    #[test]
    fn a_code_is_good_for_its_parts_only() {
        let key = Key::from_bytes([7; 32]);
        let code = key.authenticate(&[b"ab", b"c"]);
        assert!(key.verifies(&[b"a", b"bc"], &code));
        assert!(!key.verifies(&[b"abd"], &code));
        assert!(!key.verifies(&[b"abc"], &code[..31]));
    }
}
