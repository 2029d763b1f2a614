//! Names of gateways, groups, keys and variables.

/// Longest name, in bytes.
pub const NAME_MAX: usize = 64;

/// Whether this can name a gateway, a group or a key: 1 to [`NAME_MAX`] of the characters `A-Z a-z 0-9 _ -`. None of them
/// means anything in an MQTT topic, a path or a bundle's text.
pub fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert!(is_name("fg-0A1b_2") && is_name(&"x".repeat(NAME_MAX)));
        for wrong in ["", "a b", "a/b", "a.b", "a+b", "#", "ä", &"x".repeat(NAME_MAX + 1)] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }
}
