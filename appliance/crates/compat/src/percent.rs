//! Text as addresses carry it: `%20` for a blank.

/// A part of a path.
pub(crate) fn of_path(text: &str) -> String {
    decode(text, b'+')
}

/// A name or a value of a query or a form: `+` is a blank, too.
pub(crate) fn of_field(text: &str) -> String {
    decode(text, b' ')
}

/// What is no escape stays as it is; what is no UTF-8 then is replaced.
fn decode(text: &str, plus: u8) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| after.split_first_chunk::<2>()).flatten();
        let value = escaped.and_then(|([high, low], after)| {
            let (high, low) = (char::from(*high).to_digit(16)?, char::from(*low).to_digit(16)?);
            Some((u8::try_from(high << 4 | low).ok()?, after))
        });
        let plain = if byte == b'+' { plus } else { byte };
        let (byte, after) = value.unwrap_or((plain, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_and_what_is_none_stays() {
        for (text, path, field) in [
            ("a%20b+c", "a b+c", "a b c"),
            ("%2E%2e%2F", "../", "../"),
            ("100%", "100%", "100%"),
            ("%zz%4", "%zz%4", "%zz%4"),
            ("%ff", "\u{fffd}", "\u{fffd}"),
            ("", "", ""),
        ] {
            assert_eq!((of_path(text).as_str(), of_field(text).as_str()), (path, field), "{text:?}");
        }
    }
}
