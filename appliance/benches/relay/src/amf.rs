//! The little of AMF0 that commands need: numbers, strings, objects, null.
//! Source: "Action Message Format -- AMF 0".

/// One value of a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A double.
    Number(f64),
    /// A boolean.
    Bool(bool),
    /// A string of at most 65,535 bytes.
    Text(String),
    /// An object's or ECMA array's properties, in order.
    Object(Vec<(String, Value)>),
    /// Null or undefined.
    Null,
}

impl Value {
    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The named property's text, if this is an object that has one.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        match self {
            Self::Object(properties) => properties.iter().find(|(key, _)| key == name)?.1.text(),
            _ => None,
        }
    }
}

/// A text value.
pub(crate) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// The bytes of `values`, one after another.
pub(crate) fn encode(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        encode_value(&mut out, value);
    }
    out
}

fn encode_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) => {
            out.push(0);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Bool(flag) => out.extend_from_slice(&[1, u8::from(*flag)]),
        Value::Text(text) => {
            out.push(2);
            encode_key(out, text);
        }
        Value::Object(properties) => {
            out.push(3);
            for (key, value) in properties {
                encode_key(out, key);
                encode_value(out, value);
            }
            out.extend_from_slice(&[0, 0, 9]);
        }
        Value::Null => out.push(5),
    }
}

fn encode_key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(key.as_bytes());
}

/// Reads values until the end or the first thing that is not understood.
pub(crate) fn decode(mut bytes: &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    while let Some(value) = decode_value(&mut bytes, 0) {
        values.push(value);
    }
    values
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

fn decode_key(bytes: &mut &[u8]) -> Option<String> {
    let len = take(bytes, 2)?;
    let key = take(bytes, usize::from(u16::from_be_bytes([len[0], len[1]])))?;
    Some(String::from_utf8_lossy(key).into_owned())
}

fn decode_value(bytes: &mut &[u8], depth: u8) -> Option<Value> {
    if depth > 8 {
        return None;
    }
    match take(bytes, 1)?[0] {
        0 => Some(Value::Number(f64::from_be_bytes(take(bytes, 8)?.try_into().ok()?))),
        1 => Some(Value::Bool(take(bytes, 1)?[0] != 0)),
        2 => Some(Value::Text(decode_key(bytes)?)),
        kind @ (3 | 8) => {
            if kind == 8 {
                take(bytes, 4)?;
            }
            let mut properties = Vec::new();
            loop {
                let key = decode_key(bytes)?;
                if key.is_empty() && bytes.first() == Some(&9) {
                    take(bytes, 1)?;
                    return Some(Value::Object(properties));
                }
                properties.push((key, decode_value(bytes, depth + 1)?));
            }
        }
        5 | 6 => Some(Value::Null),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_the_round_trip() {
        let values = vec![
            text("connect"),
            Value::Number(1.0),
            Value::Object(vec![("app".into(), text("live")), ("fpad".into(), Value::Bool(false))]),
            Value::Null,
        ];
        let bytes = encode(&values);
        assert_eq!(decode(&bytes), values);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).len() < values.len());
        }
        assert_eq!(values[2].property("app"), Some("live"));
    }

    #[test]
    fn deep_nesting_ends_the_reading_quietly() {
        let mut bytes = Vec::new();
        for _ in 0..100_000 {
            bytes.extend_from_slice(&[3, 0, 1, b'a']);
        }
        assert!(decode(&bytes).is_empty());
    }
}
