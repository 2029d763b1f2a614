//! AMF0, as far as commands need it.

/// One AMF0 value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Amf {
    Number(f64),
    Bool(bool),
    Text(String),
    Object(Vec<(String, Amf)>),
    List(Vec<Amf>),
    Null,
}

impl Amf {
    /// A text.
    pub(crate) fn text(text: &str) -> Amf {
        Amf::Text(text.to_owned())
    }

    /// An object of these properties.
    pub(crate) fn object<const N: usize>(properties: [(&str, Amf); N]) -> Amf {
        Amf::Object(properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The property of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Amf> {
        match self {
            Amf::Object(properties) => properties.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Its text.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Amf::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Its number.
    pub(crate) fn as_number(&self) -> Option<f64> {
        match self {
            Amf::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Amf::Number(number) => {
                out.push(0);
                out.extend(number.to_be_bytes());
            }
            Amf::Bool(value) => out.extend([1, u8::from(*value)]),
            Amf::Text(text) => {
                out.push(2);
                write_name(text, out);
            }
            Amf::Object(properties) => {
                out.push(3);
                for (name, value) in properties {
                    write_name(name, out);
                    value.write(out);
                }
                out.extend([0, 0, 9]);
            }
            Amf::List(values) => {
                out.push(10);
                out.extend((values.len() as u32).to_be_bytes());
                for value in values {
                    value.write(out);
                }
            }
            Amf::Null => out.push(5),
        }
    }
}

/// The bytes of these values, one after the other.
pub(crate) fn encode(values: &[Amf]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        value.write(&mut out);
    }
    out
}

/// All values that can be read; stops at the first that can't.
pub(crate) fn decode(mut bytes: &[u8]) -> Vec<Amf> {
    let mut values = Vec::new();
    while let Some(value) = read(&mut bytes) {
        values.push(value);
    }
    values
}

fn write_name(name: &str, out: &mut Vec<u8>) {
    out.extend((name.len() as u16).to_be_bytes());
    out.extend(name.as_bytes());
}

fn read(bytes: &mut &[u8]) -> Option<Amf> {
    Some(match take::<1>(bytes)?[0] {
        0 => Amf::Number(f64::from_be_bytes(take(bytes)?)),
        1 => Amf::Bool(take::<1>(bytes)?[0] != 0),
        2 => Amf::Text(read_name(bytes)?),
        3 => Amf::Object(read_properties(bytes)?),
        8 => {
            take::<4>(bytes)?;
            Amf::Object(read_properties(bytes)?)
        }
        10 => {
            let len = u32::from_be_bytes(take(bytes)?);
            Amf::List((0..len).map(|_| read(bytes)).collect::<Option<_>>()?)
        }
        5 | 6 => Amf::Null,
        _ => return None,
    })
}

fn read_properties(bytes: &mut &[u8]) -> Option<Vec<(String, Amf)>> {
    let mut properties = Vec::new();
    loop {
        let name = read_name(bytes)?;
        if name.is_empty() {
            return (take::<1>(bytes)? == [9]).then_some(properties);
        }
        properties.push((name, read(bytes)?));
    }
}

fn read_name(bytes: &mut &[u8]) -> Option<String> {
    let len = usize::from(u16::from_be_bytes(take(bytes)?));
    let (name, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    String::from_utf8(name.to_vec()).ok()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}
