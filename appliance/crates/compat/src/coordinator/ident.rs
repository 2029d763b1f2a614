//! Names of channels and keys, and ids of streams.

use std::time::Duration;

/// Whether this can be a channel, a key or a stream's id: 1 to `max` of `A-Z a-z 0-9 _ -`.
pub fn is_id(text: &str, max: usize) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=max).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Makes ids of streams that nobody has had before.
#[derive(Debug)]
pub(super) struct StreamIds {
    made: u32,
    random: u64,
}

impl StreamIds {
    pub(super) fn new(seed: u64) -> StreamIds {
        StreamIds { made: 0, random: seed | 1 }
    }

    /// 32 lower-case hex digits: milliseconds since 1970, how many there were, and chance.
    pub(super) fn next(&mut self, since_1970: Duration) -> String {
        self.made = self.made.wrapping_add(1);
        // Marsaglia's xorshift64: clocks of gateways without a battery repeat themselves.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let millis = u64::try_from(since_1970.as_millis()).unwrap_or_default();
        format!("{millis:016x}{:08x}{:08x}", self.made, self.random >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_06_names_are_plain_and_not_too_long() {
        for (text, good) in
            [("c1", true), ("A_b-9", true), ("", false), ("a b", false), ("a/b", false), ("ä", false)]
        {
            assert_eq!(is_id(text, 128), good, "{text:?}");
        }
        assert!(is_id(&"a".repeat(128), 128) && !is_id(&"a".repeat(129), 128));
    }

    #[test]
    fn ids_are_32_hex_digits_and_differ() {
        let mut ids = StreamIds::new(7);
        let at = Duration::from_millis(0x0123_4567_89ab);
        let (first, second) = (ids.next(at), ids.next(at));
        assert!(
            first.starts_with("00000123456789ab00000001") && second.starts_with("00000123456789ab00000002")
        );
        assert!(first.len() == 32 && first.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_ne!(StreamIds::new(8).next(at), first, "another start, the same clock");
    }
}
