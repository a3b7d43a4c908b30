//! Names under which servers can be found, and the secrets that keep strangers out.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::sealing::Key;

/// A service's name, for instance `myapi:v1`: 1 to 128 bytes of printable UTF-8 without spaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// Why a text is no service name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a service name is 1 to 128 bytes without spaces or control characters")]
pub struct InvalidServiceName;

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(text: &str) -> Result<Self, InvalidServiceName> {
        let printable = !text.chars().any(|c| c.is_control() || c.is_whitespace());
        let fits = (1..=SERVICE_NAME_BYTES_MAX).contains(&text.len());
        (printable && fits).then(|| Self(text.to_owned())).ok_or(InvalidServiceName)
    }
}

impl ServiceName {
    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service as both sides know it: its name, and the secret that they share if they have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it is called.
    pub name: ServiceName,
    /// Known to its members only; without one, the name is all that is needed to find the service.
    pub secret: Option<Key>,
}

impl Service {
    /// A service that anybody who knows its name can find.
    pub fn open(name: ServiceName) -> Self {
        Self { name, secret: None }
    }

    /// A service whose members share `secret`, the content of a file.
    pub fn private(name: ServiceName, secret: &[u8]) -> Self {
        let secret = Key::derive("p2p-node/1 service secret", secret, &[]);
        Self { name, secret: Some(secret) }
    }

    /// A key for `purpose` that all who know name and secret arrive at.
    pub fn key(&self, purpose: &str) -> Key {
        let secret = self.secret.as_ref().map_or([0; 32], |secret| *secret.as_bytes());
        let context = [purpose.as_bytes(), &[0], self.name.as_str().as_bytes()];
        Key::derive("p2p-node/1 service", &secret, &context)
    }

    /// The key with which a member proves that it may connect; `None` if anybody may.
    pub fn admission_key(&self) -> Option<Key> {
        self.secret.is_some().then(|| self.key("admission"))
    }
}

const SERVICE_NAME_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_or_nothing_in_them_are_refused() {
        assert!("myapi:v1".parse::<ServiceName>().is_ok());
        for text in ["", "two words", "bell\u{7}", &"x".repeat(129)] {
            assert_eq!(text.parse::<ServiceName>(), Err(InvalidServiceName), "{text:?}");
        }
    }

    #[test]
    fn name_secret_and_purpose_all_change_the_key() {
        let name: ServiceName = "myapi:v1".parse().unwrap();
        let (open, private) = (Service::open(name.clone()), Service::private(name, b"secret"));
        assert_ne!(open.key("record"), private.key("record"));
        assert_ne!(open.key("record"), open.key("inbox"));
        assert_eq!(open.admission_key(), None);
        assert!(private.admission_key().is_some());
    }
}
