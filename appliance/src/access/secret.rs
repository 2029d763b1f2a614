//! Random texts that open something, and the digests by which they are known.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fmt::Write as _;
use std::io;
use subtle::ConstantTimeEq as _;

/// Digits of a claim code: none that is easily taken for another.
const CODE_DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Digits of a claim code, 5 bits each.
const CODE_LEN: usize = 10;

/// What is kept of a secret of 256 random bits. Nothing can be guessed from it, so one round of SHA-256 is enough.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// Of a secret's text.
    pub(super) fn of(text: &str) -> Self {
        Digest(Sha256::digest(text.as_bytes()).into())
    }

    /// Whether it is that of this text; takes as long for each.
    pub(super) fn fits(&self, text: &str) -> bool {
        self.0.ct_eq(&Digest::of(text).0).into()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = unhex(&text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Digest).ok_or_else(|| serde::de::Error::custom("a digest has 64 hexadecimal digits"))
    }
}

/// A secret of 256 random bits, as 64 hexadecimal digits.
pub(super) fn fresh() -> io::Result<String> {
    Ok(hex(&random::<32>()?))
}

/// Random bytes of the system.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// A new claim code of 50 random bits, such as `K7Q2M-0XW9D`.
pub(super) fn claim_code() -> io::Result<String> {
    let mut code = String::with_capacity(CODE_LEN + 1);
    for (index, byte) in random::<CODE_LEN>()?.into_iter().enumerate() {
        if index == CODE_LEN / 2 {
            code.push('-');
        }
        code.push(char::from(CODE_DIGITS.get(usize::from(byte & 31)).copied().unwrap_or(b'0')));
    }
    Ok(code)
}

/// A claim code as somebody typed it, in the form in which it was made: case, spaces and dashes do not matter, and what
/// looks like a digit is one.
pub(super) fn normal_code(typed: &str) -> String {
    let digit = |c: char| match c.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        c => c,
    };
    typed.chars().filter(|c| !matches!(c, ' ' | '-')).map(digit).collect()
}

/// As hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// From hexadecimal digits.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    is_hex.then(|| (0..text.len()).step_by(2).map(pair).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_fits_its_text_alone_and_shows_nothing() {
        let secret = fresh().unwrap();
        let digest = Digest::of(&secret);
        assert_eq!(secret.len(), 64);
        assert!(digest.fits(&secret) && !digest.fits(&secret[1..]) && !digest.fits(""));
        assert_eq!(format!("{digest:?}"), "***");
        let stored = serde_json::to_string(&digest).unwrap();
        assert!(!stored.contains(&secret));
        assert_eq!(serde_json::from_str::<Digest>(&stored).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"00\"").is_err());
    }

    #[test]
    fn a_claim_code_can_be_typed_as_it_is_read() {
        let code = claim_code().unwrap();
        assert_eq!((code.len(), &code[5..6]), (11, "-"));
        assert_ne!(code, claim_code().unwrap());
        assert_eq!(normal_code(&code), normal_code(&code.to_lowercase().replace('-', " ")));
        assert_eq!(normal_code("oil"), "011");
    }
}
