//! Texts that nobody may see: keys, tokens, passwords.

use std::fmt;
use std::hint::black_box;

/// A key that is shorter shows nothing of itself.
const SHOWN_FROM: usize = 16;

/// A text that never shows more than its last four characters.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Key {
        Key(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `offered` is the key. An empty key matches nothing. The time depends on the lengths alone.
    pub fn matches(&self, offered: &str) -> bool {
        let (own, offered) = (self.0.as_bytes(), offered.as_bytes());
        let pairs = own.iter().zip(offered);
        let differing = pairs.fold(0_u8, |sum, (own, offered)| black_box(sum | (own ^ offered)));
        !own.is_empty() && own.len() == offered.len() && differing == 0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.0.len().saturating_sub(4);
        match self.0.get(start..).filter(|_| self.0.len() >= SHOWN_FROM) {
            Some(last) => write!(f, "***{last}"),
            None => f.write_str("***"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_25_a_key_shows_its_last_four_characters_at_most() {
        assert_eq!(format!("{:?}", Key::new("abcdefghijklmnop1234")), "***1234");
        assert_eq!(format!("{:?}", Key::new("short")), "***");
        assert_eq!(format!("{:?}", Key::new("")), "***");
    }

    #[test]
    fn only_the_very_key_matches_and_an_empty_one_never_does() {
        let key = Key::new("s3cret");
        assert!(key.matches("s3cret"));
        for wrong in ["", "s3cre", "s3crets", "S3cret", "s3cret\0"] {
            assert!(!key.matches(wrong), "{wrong:?}");
        }
        assert!(!Key::default().matches("") && !Key::default().matches("x"));
    }
}
