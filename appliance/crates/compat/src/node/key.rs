//! Keys, tokens and names of streams: what they may look like.

/// Tokens of broadcasters: "longer than 32" means 33 or more.
const PUBLISH_CHARS: std::ops::RangeInclusive<usize> = 33..=128;
/// Keys of viewers and nodes.
const KEY_CHARS: std::ops::RangeInclusive<usize> = 16..=128;

/// Whether this can be a broadcaster's token; no other is asked about.
pub fn is_publish_token(text: &str) -> bool {
    PUBLISH_CHARS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether this can be a viewer's or a node's key; no other is asked about.
pub fn is_key(text: &str) -> bool {
    KEY_CHARS.contains(&text.len()) && is_key_text(text)
}

/// Whether all of it are characters of keys; tables may hold shorter ones.
pub(super) fn is_key_text(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !text.is_empty() && text.len() <= *KEY_CHARS.end() && text.bytes().all(is_plain)
}

/// Whether this can be a stream's id: it stands in addresses, file names and names of mountpoints.
pub fn is_stream_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    begins && text.len() <= 64 && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_08_a_publish_token_has_33_or_more_letters_and_digits() {
        assert!(!is_publish_token(&"a".repeat(32)));
        assert!(is_publish_token(&"a".repeat(33)));
        assert!(is_publish_token(&"Z9".repeat(64)));
        assert!(!is_publish_token(&"a".repeat(129)));
        assert!(!is_publish_token(&format!("{}-", "a".repeat(40))));
        assert!(!is_publish_token(&format!("{}é", "a".repeat(40))));
        // An author's viewer key has exactly 32 hex digits.
        assert!(is_key(&"0f".repeat(16)) && is_key(&"-".repeat(16)) && !is_key(&"a".repeat(15)));
        assert!(!is_key(&"a".repeat(129)) && !is_key(&format!("{} ", "a".repeat(20))));
    }

    #[test]
    fn a_stream_id_can_stand_in_a_path() {
        for (text, good) in [("s1", true), ("a.b_c-d", true), ("", false), (".x", false), ("a/b", false)] {
            assert_eq!(is_stream_id(text), good, "{text:?}");
        }
        assert!(is_stream_id(&"a".repeat(64)) && !is_stream_id(&"a".repeat(65)));
    }
}
