//! Answers: JSON with a blank after each comma and colon, as the old API wrote it.

use crate::Reply;
use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Value, json};
use std::io::{self, Write};

/// Why a request is not carried out: the HTTP status and what the caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) text: String,
    /// Methods that the path knows, where the one that came is not among them.
    pub(super) allow: Option<&'static str>,
}

impl Refused {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Self {
        Refused { status, text: text.into(), allow: None }
    }

    pub(super) fn reply(&self, legacy_content_type: bool) -> Reply {
        let body = json!({"code": self.status, "type": "error", "message": self.text, "error": self.text});
        let mut reply = json_reply(self.status, &body, legacy_content_type);
        reply.headers.extend(self.allow.map(|allow| ("allow".to_owned(), allow.to_owned())));
        if self.status == 401 {
            reply.headers.push(("www-authenticate".to_owned(), "Bearer".to_owned()));
        }
        reply
    }
}

pub(super) fn json_reply(status: u16, body: &Value, legacy_content_type: bool) -> Reply {
    let kind = if legacy_content_type { "text/html; charset=utf-8" } else { "application/json" };
    let headers =
        [("content-type", kind), ("x-content-type-options", "nosniff"), ("cache-control", "no-store")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Reply { status, headers: headers.into(), body: spaced(body) }
}

fn spaced(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    // A Vec takes all that is written, and a Value has only texts for keys.
    let _ = value.serialize(&mut serializer);
    bytes
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_colons_are_followed_by_a_blank() {
        let json = json!({"a": [1, 2, {"b": null}], "c": "x, y: z"});
        assert_eq!(
            String::from_utf8(spaced(&json)).unwrap(),
            r#"{"a": [1, 2, {"b": null}], "c": "x, y: z"}"#
        );
    }

    #[test]
    fn the_old_content_type_is_for_those_who_insist() {
        for (legacy, kind) in [(false, "application/json"), (true, "text/html; charset=utf-8")] {
            let reply = Refused::new(404, "no").reply(legacy);
            assert_eq!(reply.headers[0], ("content-type".to_owned(), kind.to_owned()));
            let body = r#"{"code": 404, "error": "no", "message": "no", "type": "error"}"#;
            assert_eq!(reply.body, body.as_bytes());
        }
    }
}
