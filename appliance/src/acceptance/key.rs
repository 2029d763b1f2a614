//! The device's own key: made here at first need, never shown, kept for its owner alone.

use crate::store::{StoreFs, write_whole};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use std::io;

/// PKCS#8, DER.
const FILE: &str = "device-key.der";
/// Longest document that is verified, in bytes.
pub const DOCUMENT_MAX: usize = 4 << 20;

/// Why there is no key, or no good signature.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The folder.
    #[error("the device key cannot be kept: {0}")]
    Io(#[from] io::Error),
    /// What is in the file is none. It is not replaced: whoever trusts the old one must know.
    #[error("the device key in {FILE} cannot be read; move it away to have a new one made")]
    Damaged,
    /// No random numbers.
    #[error("a device key cannot be made")]
    Random,
    /// Not a document of ours.
    #[error("this is no signed document: {0}")]
    Document(&'static str),
    /// Somebody else's key.
    #[error("it is signed by another key, {0}")]
    OtherKey(String),
    /// Changed since, or never signed by that key.
    #[error("the signature does not fit: it was changed after it was signed")]
    Forged,
}

/// Signs for this device.
pub struct DeviceKey {
    pair: Ed25519KeyPair,
}

impl DeviceKey {
    /// The key that is kept, or a new one.
    pub fn open(files: &mut dyn StoreFs) -> Result<Self, KeyError> {
        if let Some(bytes) = files.read(FILE)? {
            let pair = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| KeyError::Damaged)?;
            return Ok(DeviceKey { pair });
        }
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        write_whole(files, FILE, made.as_ref())?;
        let pair = Ed25519KeyPair::from_pkcs8(made.as_ref()).map_err(|_| KeyError::Damaged)?;
        Ok(DeviceKey { pair })
    }

    /// Its public half, 64 hexadecimal digits.
    pub fn public(&self) -> String {
        hex(self.pair.public_key().as_ref())
    }

    /// A text with its signature: `{"signed", "public_key", "signature"}`.
    pub fn document(&self, text: &str) -> serde_json::Value {
        let signature = hex(self.pair.sign(text.as_bytes()).as_ref());
        serde_json::json!({"signed": text, "public_key": self.public(), "signature": signature})
    }
}

/// The text of a signed document, if its signature fits; `trusted` is the public key that it must be of.
pub fn verify(document: &[u8], trusted: Option<&str>) -> Result<(String, String), KeyError> {
    if document.len() > DOCUMENT_MAX {
        return Err(KeyError::Document("it is too long"));
    }
    let value: serde_json::Value =
        serde_json::from_slice(document).map_err(|_| KeyError::Document("it is no JSON"))?;
    let field = |name: &str| value.get(name).and_then(serde_json::Value::as_str);
    let text = field("signed").ok_or(KeyError::Document("signed is missing"))?;
    let public = field("public_key").ok_or(KeyError::Document("public_key is missing"))?;
    let signature = field("signature").and_then(unhex).ok_or(KeyError::Document("signature is missing"))?;
    if trusted.is_some_and(|trusted| !trusted.eq_ignore_ascii_case(public)) {
        return Err(KeyError::OtherKey(public.chars().take(64).collect()));
    }
    let key = unhex(public).ok_or(KeyError::Document("public_key is no hexadecimal number"))?;
    let checked = UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature);
    checked.map_err(|_| KeyError::Forged)?;
    Ok((text.to_owned(), public.to_owned()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).ok().filter(|digits| digits.len() == 2)?;
        u8::from_str_radix(digits, 16).ok()
    };
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sim::SimFs;

    #[test]
    fn the_key_is_made_once_and_what_it_signs_verifies() {
        let mut files = SimFs::default();
        let key = DeviceKey::open(&mut files).unwrap();
        assert_eq!(DeviceKey::open(&mut files).unwrap().public(), key.public());
        let document = key.document("{\"a\": 1, \u{e4}}").to_string();
        let public = key.public();
        let (text, by) = verify(document.as_bytes(), Some(&public)).unwrap();
        assert_eq!((text.as_str(), &by), ("{\"a\": 1, \u{e4}}", &public));
        assert!(!document.contains("PRIVATE") && public.len() == 64);
        files.damage(FILE, b"odd");
        assert!(
            matches!(DeviceKey::open(&mut files), Err(KeyError::Damaged)),
            "it is never replaced unasked"
        );
    }

    #[test]
    fn what_was_changed_or_signed_by_another_is_refused() {
        let key = DeviceKey::open(&mut SimFs::default()).unwrap();
        let other = DeviceKey::open(&mut SimFs::default()).unwrap();
        let mut document = key.document("passed");
        let bytes = |value: &serde_json::Value| value.to_string().into_bytes();
        assert!(matches!(verify(&bytes(&document), Some(&other.public())), Err(KeyError::OtherKey(_))));
        document["signed"] = "Passed".into();
        assert!(matches!(verify(&bytes(&document), None), Err(KeyError::Forged)));
        document["signature"] = "zz".into();
        assert!(matches!(verify(&bytes(&document), None), Err(KeyError::Document(_))));
        document["signature"] = "00".into();
        assert!(matches!(verify(&bytes(&document), None), Err(KeyError::Forged)));
        for odd in [&b""[..], b"[]", b"{\"signed\": 1}", &vec![b' '; DOCUMENT_MAX + 1]] {
            assert!(matches!(verify(odd, None), Err(KeyError::Document(_))));
        }
    }
}
