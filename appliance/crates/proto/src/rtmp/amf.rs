//! AMF0, behind a screen.
//!
//! `rml_amf0` recurses without limit, pads cut strings with zeros, knows few markers and ends on bad UTF-8. So every
//! body is walked here first, without recursion: size, nesting and count are checked, and what it does not know is
//! rewritten to what it knows (a date becomes a number, a typed object an object, a reference `undefined`).

use super::chunk_reader::kind;
use bytes::{BufMut, BytesMut};
pub use rml_amf0::Amf0Value;

/// Longest body of a command or data message.
pub const MAX_BYTES: usize = 64 << 10;
/// Deepest nesting of objects and arrays.
pub const MAX_DEPTH: usize = 16;
/// Most values in one body, nested ones included.
pub const MAX_VALUES: usize = 4096;
/// Fewest values of a command: name, transaction, command object.
pub const MIN_COMMAND_VALUES: usize = 3;

/// A command or data message that is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmfError {
    /// Longer than [`MAX_BYTES`].
    #[error("message of {len} bytes exceeds {MAX_BYTES}")]
    TooLong {
        /// Bytes.
        len: usize,
    },
    /// Deeper than [`MAX_DEPTH`].
    #[error("values nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// More than [`MAX_VALUES`].
    #[error("more than {MAX_VALUES} values in one message")]
    TooManyValues,
    /// A command with fewer than [`MIN_COMMAND_VALUES`] values, or an empty data message.
    #[error("message has {count} values, at least {need} are needed")]
    TooFewValues {
        /// How many it has.
        count: usize,
        /// How many it should have.
        need: usize,
    },
    /// A command that does not begin with its name.
    #[error("command does not begin with a name")]
    NoName,
    /// A value reaches beyond the body.
    #[error("value with marker {marker} is cut off at byte {at}")]
    Truncated {
        /// Its marker.
        marker: u8,
        /// Where in the body.
        at: usize,
    },
    /// A marker without a known length, so that nothing behind it can be read.
    #[error("marker {marker} at byte {at} is not readable")]
    Marker {
        /// The marker; 17 is AMF3.
        marker: u8,
        /// Where in the body.
        at: usize,
    },
    /// `rml_amf0` refused what the screen let pass.
    #[error("AMF0 does not decode: {text}")]
    Decode {
        /// Its words.
        text: String,
    },
}

/// Checks the body of a command or data message of type `kind`: size, nesting, count, lengths.
pub fn screen(body: &[u8], kind: u8) -> Result<(), AmfError> {
    Walk::new(body, kind)?.run()
}

/// Screens a body and reads its values.
pub fn decode(body: &[u8], kind: u8) -> Result<Vec<Amf0Value>, AmfError> {
    let mut walk = Walk::new(body, kind)?;
    walk.out = Some(Vec::with_capacity(body.len()));
    walk.run()?;
    let clean = walk.out.unwrap_or_default();
    rml_amf0::deserialize(&mut clean.as_slice()).map_err(|error| AmfError::Decode { text: error.to_string() })
}

enum Open {
    Object,
    Array { left: u32 },
}

struct Walk<'a> {
    rest: &'a [u8],
    len: usize,
    command: bool,
    stack: Vec<Open>,
    values: usize,
    /// The same values in the markers that `rml_amf0` knows.
    out: Option<Vec<u8>>,
}

impl<'a> Walk<'a> {
    fn new(body: &'a [u8], kind: u8) -> Result<Self, AmfError> {
        if body.len() > MAX_BYTES {
            return Err(AmfError::TooLong { len: body.len() });
        }
        // The AMF3 forms begin with a byte that says "AMF0 follows".
        let rest = match kind {
            kind::COMMAND_AMF3 | kind::DATA_AMF3 => body.strip_prefix(&[0]).unwrap_or(body),
            _ => body,
        };
        let command = matches!(kind, kind::COMMAND | kind::COMMAND_AMF3);
        Ok(Walk { rest, len: body.len(), command, stack: Vec::new(), values: 0, out: None })
    }

    fn run(&mut self) -> Result<(), AmfError> {
        if self.command && !matches!(self.rest, [2 | 12, ..] | []) {
            return Err(AmfError::NoName);
        }
        let mut count = 0usize;
        loop {
            match self.stack.last_mut() {
                None => {
                    // A stray end marker after metadata is an old encoder's habit.
                    while let [9, rest @ ..] = self.rest {
                        self.rest = rest;
                    }
                    if self.rest.is_empty() {
                        break;
                    }
                    count = count.saturating_add(1);
                    // AMF3 from here on: what came before it is all that can be read.
                    if self.rest.first() == Some(&17) {
                        self.put(&[6]);
                        break;
                    }
                    self.value()?;
                }
                Some(Open::Array { left: 0 }) => {
                    self.stack.pop();
                }
                Some(Open::Array { left }) => {
                    *left = left.saturating_sub(1);
                    self.value()?;
                }
                Some(Open::Object) => self.property()?,
            }
        }
        let need = if self.command { MIN_COMMAND_VALUES } else { 1 };
        if count < need { Err(AmfError::TooFewValues { count, need }) } else { Ok(()) }
    }

    /// A key and its value, or the object's end.
    fn property(&mut self) -> Result<(), AmfError> {
        // Some encoders leave out the end of the last object.
        if self.rest.is_empty() || self.rest.starts_with(&[0, 0, 9]) {
            self.rest = self.rest.get(3..).unwrap_or_default();
            self.stack.pop();
            self.put(&[0, 0, 9]);
            return Ok(());
        }
        let key = self.short_text(3)?;
        self.put_text(if key.is_empty() { b"?" } else { key });
        self.value()
    }

    fn value(&mut self) -> Result<(), AmfError> {
        self.values = self.values.saturating_add(1);
        if self.values > MAX_VALUES {
            return Err(AmfError::TooManyValues);
        }
        let at = self.len.saturating_sub(self.rest.len());
        let Some((&marker, rest)) = self.rest.split_first() else {
            return Err(AmfError::Truncated { marker: 0, at });
        };
        self.rest = rest;
        match marker {
            0 => {
                let number = self.take(marker, 8)?;
                self.put(&[0]);
                self.put(number);
            }
            1 => {
                let truth = self.take(marker, 1)?;
                self.put(&[1]);
                self.put(truth);
            }
            2 => {
                let text = self.short_text(marker)?;
                self.put(&[2]);
                self.put_text(text);
            }
            12 | 15 => {
                let len = self.u32(marker)?;
                let text = self.take(marker, len as usize)?;
                self.put(&[2]);
                self.put_text(text);
            }
            3 => self.open_object()?,
            8 => {
                self.u32(marker)?;
                self.open_object()?;
            }
            16 => {
                self.short_text(marker)?;
                self.open_object()?;
            }
            10 => {
                let left = self.u32(marker)?;
                // Each element takes a byte at least.
                if left as usize > self.rest.len() {
                    return Err(AmfError::Truncated { marker, at });
                }
                self.put(&[10]);
                self.put(&left.to_be_bytes());
                self.open(Open::Array { left })?;
            }
            5 => self.put(&[5]),
            6 | 13 => self.put(&[6]),
            7 => {
                self.take(marker, 2)?;
                self.put(&[6]);
            }
            11 => {
                let date = self.take(marker, 10)?;
                self.put(&[0]);
                self.put(date.get(..8).unwrap_or_default());
            }
            _ => return Err(AmfError::Marker { marker, at }),
        }
        Ok(())
    }

    fn open_object(&mut self) -> Result<(), AmfError> {
        self.put(&[3]);
        self.open(Open::Object)
    }

    fn open(&mut self, open: Open) -> Result<(), AmfError> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(AmfError::TooDeep);
        }
        self.stack.push(open);
        Ok(())
    }

    fn take(&mut self, marker: u8, len: usize) -> Result<&'a [u8], AmfError> {
        let at = self.len.saturating_sub(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(AmfError::Truncated { marker, at })?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self, marker: u8) -> Result<u32, AmfError> {
        let bytes = self.take(marker, 4)?;
        Ok(bytes.first_chunk().map_or(0, |&bytes| u32::from_be_bytes(bytes)))
    }

    fn short_text(&mut self, marker: u8) -> Result<&'a [u8], AmfError> {
        let len = self.take(marker, 2)?;
        let len = len.first_chunk().map_or(0, |&bytes| u16::from_be_bytes(bytes));
        self.take(marker, usize::from(len))
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(out) = &mut self.out {
            out.extend_from_slice(bytes);
        }
    }

    /// Length and text, made UTF-8 and cut to what a short string can hold.
    fn put_text(&mut self, text: &[u8]) {
        if let Some(out) = &mut self.out {
            let text = String::from_utf8_lossy(text);
            let text = cut(&text, usize::from(u16::MAX));
            put_short(out, text);
        }
    }
}

/// The longest beginning of `text` that has at most `max` bytes.
pub(super) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

fn put_short(out: &mut impl BufMut, text: &str) {
    let text = cut(text, usize::from(u16::MAX));
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

/// A value to be written, its properties in order (`rml_amf0` keeps them in a `HashMap`, in another order each run).
#[derive(Clone, Copy, Debug)]
pub enum Field<'a> {
    /// A string, cut at 65,535 bytes.
    Text(&'a str),
    /// A number.
    Number(f64),
    /// A boolean.
    Bool(bool),
    /// Null.
    Null,
    /// An object.
    Object(&'a [(&'a str, Field<'a>)]),
    /// An ECMA array: what players expect of metadata.
    Map(&'a [(&'a str, Field<'a>)]),
    /// A strict array.
    Array(&'a [Field<'a>]),
}

/// Appends one value. Recurses as deep as the caller's own value.
pub fn put(out: &mut BytesMut, field: Field<'_>) {
    match field {
        Field::Text(text) => {
            out.put_u8(2);
            put_short(out, text);
        }
        Field::Number(number) => {
            out.put_u8(0);
            out.put_f64(number);
        }
        Field::Bool(truth) => out.put_slice(&[1, u8::from(truth)]),
        Field::Null => out.put_u8(5),
        Field::Object(properties) => {
            out.put_u8(3);
            put_properties(out, properties);
        }
        Field::Map(properties) => {
            out.put_u8(8);
            out.put_u32(properties.len() as u32);
            put_properties(out, properties);
        }
        Field::Array(values) => {
            out.put_u8(10);
            out.put_u32(values.len() as u32);
            for &value in values {
                put(out, value);
            }
        }
    }
}

fn put_properties(out: &mut BytesMut, properties: &[(&str, Field<'_>)]) {
    for &(key, value) in properties {
        put_short(out, key);
        put(out, value);
    }
    out.put_slice(&[0, 0, 9]);
}

#[cfg(test)]
mod tests;
