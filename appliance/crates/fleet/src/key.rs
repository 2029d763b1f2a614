//! Keys that sign bundles, and the ring of those that a gateway believes.

use crate::name::is_name;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Most keys in a ring.
pub const KEYS_MAX: usize = 16;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
/// Longest file with a private key.
const PEM_MAX: usize = 4 << 10;

/// Why something is no key, or no ring of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes.
    #[error("a public key is the 43 characters that fieldgate bundle keygen shows")]
    Public,
    /// Not a private key.
    #[error("this is no Ed25519 private key in PEM, as fieldgate bundle keygen and openssl genpkey write it")]
    Private,
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// Not a name.
    #[error("a key's name is 1 to 64 of the characters A-Z a-z 0-9 _ -")]
    Name,
    /// Too many.
    #[error("at most {KEYS_MAX} keys are kept")]
    TooMany,
}

/// The public half of a key.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From its text, 43 characters of base64url.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_ascii()).map_err(|_| KeyError::Public)?;
        bytes.try_into().map(PublicKey).map_err(|_| KeyError::Public)
    }

    pub(crate) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(signed, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        PublicKey::parse(&text)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl JsonSchema for PublicKey {
    fn schema_name() -> Cow<'static, str> {
        "PublicKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[A-Za-z0-9_-]{43}$",
            "description": "An Ed25519 public key, base64url without padding, as `fieldgate bundle keygen` shows it.",
        })
    }
}

/// The keys that a gateway believes, by name. Kept outside of the config and its revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, PublicKey>", into = "BTreeMap<String, PublicKey>")]
#[schemars(extend("maxProperties" = 16))]
pub struct KeyRing(BTreeMap<String, PublicKey>);

impl KeyRing {
    /// The key of this name.
    pub fn get(&self, name: &str) -> Option<&PublicKey> {
        self.0.get(name)
    }

    /// The names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether it believes nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, PublicKey>> for KeyRing {
    type Error = KeyError;

    fn try_from(keys: BTreeMap<String, PublicKey>) -> Result<Self, KeyError> {
        match keys {
            keys if keys.len() > KEYS_MAX => Err(KeyError::TooMany),
            keys if keys.keys().all(|name| is_name(name)) => Ok(KeyRing(keys)),
            _ => Err(KeyError::Name),
        }
    }
}

impl From<KeyRing> for BTreeMap<String, PublicKey> {
    fn from(ring: KeyRing) -> Self {
        ring.0
    }
}

/// The private half of a key; it stays with the fleet manager.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Makes a new key: its file's text, PEM.
    pub fn generate() -> Result<String, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        let text = STANDARD.encode(document.as_ref());
        let mut pem = format!("{PEM_BEGIN}\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str(PEM_END);
        pem.push('\n');
        Ok(pem)
    }

    /// From its file's text.
    pub fn parse(pem: &str) -> Result<Self, KeyError> {
        let body = pem.get(..pem.len().min(PEM_MAX)).and_then(|pem| pem.split_once(PEM_BEGIN));
        let body = body.and_then(|(_, rest)| rest.split_once(PEM_END)).ok_or(KeyError::Private)?.0;
        let text: String = body.split_ascii_whitespace().collect();
        let document = STANDARD.decode(text).map_err(|_| KeyError::Private)?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&document).map(SigningKey).map_err(|_| KeyError::Private)
    }

    /// What gateways are told to believe.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(self.0.public_key().as_ref()) {
            *to = *from;
        }
        PublicKey(bytes)
    }

    pub(crate) fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.0.sign(text).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_its_text() {
        let key = SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
        let public = PublicKey::parse(&key.public().to_string()).unwrap();
        assert_eq!(public, key.public());
        let signature = key.sign(b"text");
        assert!(public.verifies(b"text", &signature));
        assert!(!public.verifies(b"Text", &signature) && !public.verifies(b"text", &signature[1..]));
    }

    /// The example of RFC 8410, section 10, in the form that `openssl genpkey -algorithm ed25519` writes.
    #[test]
    fn a_key_of_openssl_is_taken() {
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let key = SigningKey::parse(pem).unwrap();
        assert_eq!(key.public().to_string(), "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for wrong in
            ["", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----AAAA-----END PRIVATE KEY-----"]
        {
            assert_eq!(SigningKey::parse(wrong).err(), Some(KeyError::Private), "{wrong}");
        }
        for wrong in ["", "AAAA", &"A".repeat(44), &"=".repeat(43)] {
            assert_eq!(PublicKey::parse(wrong), Err(KeyError::Public), "{wrong}");
        }
    }

    #[test]
    fn a_ring_has_a_limit_and_plain_names() {
        let key = "A".repeat(43);
        let ring = |count: usize| -> Result<KeyRing, serde_json::Error> {
            let keys: BTreeMap<String, &str> = (0..count).map(|n| (format!("k{n}"), key.as_str())).collect();
            serde_json::from_value(serde_json::json!(keys))
        };
        assert_eq!(ring(KEYS_MAX).unwrap().names().count(), KEYS_MAX);
        assert!(ring(KEYS_MAX + 1).unwrap_err().to_string().contains("at most 16"));
        assert!(serde_json::from_value::<KeyRing>(serde_json::json!({"a.b": key})).is_err());
    }
}
