//! The text form of a bundle, one line of ASCII that fits into a file, a message, a body or a QR code:
//!
//! ```text
//! fgb1.KEY.PAYLOAD.SIGNATURE
//! ```
//!
//! KEY is the name of the key in the ring, PAYLOAD the content (JSON) and SIGNATURE the 64 bytes of Ed25519 in base64url
//! without padding. Signed is the text before the last dot, exactly as it stands there: nothing is written anew to be
//! checked, so two programs never differ over what was signed.

use crate::Refusal;
use crate::key::{KeyRing, SigningKey};
use crate::name::is_name;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest text of a bundle, in bytes.
pub const TEXT_MAX: usize = 1 << 20;
/// What the text begins with: the version of its form.
const FORM: &str = "fgb1";

/// Tells bundles apart: the first half of SHA-256 of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Of a bundle's text.
    pub fn of(text: &str) -> Self {
        let whole = ring::digest::digest(&ring::digest::SHA256, text.trim().as_bytes());
        let half = whole.as_ref().iter().take(16);
        Digest(half.map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bundle's text in its parts; nothing is checked but their form.
pub(crate) struct Parts<'a> {
    /// The key's name.
    pub(crate) key: &'a str,
    /// What is signed.
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// Takes a text apart. White space around it is fine: files end in a line break.
pub(crate) fn split(text: &str) -> Result<Parts<'_>, Refusal> {
    let text = text.trim_ascii();
    if text.len() > TEXT_MAX {
        return Err(Refusal::TooLarge { len: text.len(), max: TEXT_MAX });
    }
    let Some((signed, signature)) = text.rsplit_once('.') else {
        return Err(Refusal::NotABundle("it must be fgb1.KEY.PAYLOAD.SIGNATURE"));
    };
    let mut parts = signed.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(FORM), Some(key), Some(payload), None) if is_name(key) => {
            Ok(Parts { key, signed, payload, signature })
        }
        (Some(FORM), ..) => Err(Refusal::NotABundle("it must be fgb1.KEY.PAYLOAD.SIGNATURE")),
        _ => Err(Refusal::NotABundle("it does not begin with fgb1.")),
    }
}

impl Parts<'_> {
    /// The content, if a key of the ring signed it.
    pub(crate) fn verified(&self, ring: &KeyRing) -> Result<String, Refusal> {
        let key = ring.get(self.key).ok_or_else(|| Refusal::UnknownKey(self.key.to_owned()))?;
        let signature = URL_SAFE_NO_PAD.decode(self.signature).unwrap_or_default();
        if !key.verifies(self.signed.as_bytes(), &signature) {
            return Err(Refusal::BadSignature(self.key.to_owned()));
        }
        self.unverified()
    }

    /// The content, whoever wrote it: to be looked at, never to be acted on.
    pub(crate) fn unverified(&self) -> Result<String, Refusal> {
        let payload = URL_SAFE_NO_PAD.decode(self.payload);
        let payload = payload.map_err(|_| Refusal::NotABundle("its payload is no base64url"))?;
        String::from_utf8(payload).map_err(|_| Refusal::NotABundle("its payload is no UTF-8"))
    }
}

/// Signs a content.
pub(crate) fn seal(payload: &str, name: &str, key: &SigningKey) -> Result<String, Refusal> {
    let signed = format!("{FORM}.{name}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    let text = format!("{signed}.{signature}");
    if text.len() > TEXT_MAX { Err(Refusal::TooLarge { len: text.len(), max: TEXT_MAX }) } else { Ok(text) }
}
