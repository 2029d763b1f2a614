//! Standard base64, as controllers write `connect_data`.

/// The bytes; `None` for other characters, or a length that no bytes give. Padding may be missing; what stands after it
/// is not looked at.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.split('=').next().unwrap_or_default();
    if text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    for group in text.as_bytes().chunks(4) {
        let mut bits: u32 = 0;
        for at in 0..4 {
            let value = group.get(at).map_or(Some(0), |byte| value(*byte))?;
            bits = (bits << 6) | u32::from(value);
        }
        let [_, one, two, three] = bits.to_be_bytes();
        out.extend([one, two, three].iter().take(group.len().saturating_sub(1)));
    }
    Some(out)
}

fn value(byte: u8) -> Option<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    ALPHABET.iter().position(|known| *known == byte).and_then(|at| u8::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn what_is_base64_is_decoded_with_or_without_padding() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zg", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("eyJoZWxsbyI6ImttcCJ9", "{\"hello\":\"kmp\"}"),
            ("c2Vjb25k", "second"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode("+/+/"), Some(vec![0xFB, 0xFF, 0xBF]));
    }

    #[test]
    fn what_is_not_is_refused() {
        for text in ["A", "AAAAA", "Zm9-", "Zm 9", "Zm9\u{e9}"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
