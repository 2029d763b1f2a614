//! Comparing the keys that peers offer for publishing and playing.

use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// A configured key, ready to be compared.
///
/// Only its hash is kept, and hashes are compared: the time a comparison takes depends on the offered key's length
/// alone, neither on how much of it is right nor on the configured key's length.
#[derive(Clone)]
pub struct KeyCheck([u8; 32]);

impl KeyCheck {
    /// For the key `expected`.
    pub fn new(expected: &str) -> Self {
        KeyCheck(digest(expected))
    }

    /// Whether `offered` is the key.
    pub fn matches(&self, offered: &str) -> bool {
        self.0.ct_eq(&digest(offered)).into()
    }
}

impl fmt::Debug for KeyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_key_matches() {
        let check = KeyCheck::new("s3cret");
        assert!(check.matches("s3cret"));
        for wrong in ["", "s", "s3cre", "s3cret ", "s3creT", "s3crets3cret", "S3CRET", "s3cret\0"] {
            assert!(!check.matches(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn an_empty_key_matches_only_itself() {
        assert!(KeyCheck::new("").matches(""));
        assert!(!KeyCheck::new("").matches("x"));
    }

    #[test]
    fn a_key_check_shows_nothing_of_its_key() {
        assert_eq!(format!("{:?}", KeyCheck::new("s3cret")), "***");
    }
}
