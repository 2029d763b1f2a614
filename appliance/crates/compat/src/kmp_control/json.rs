//! JSON as the connector writes and reads it: keys in a fixed order, texts escaped as little as possible, keys that come
//! twice kept apart.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt::{self, Display, Write as _};

/// Writes compact JSON, fields in the order of the calls.
#[derive(Debug, Default)]
pub struct Writer {
    out: String,
    /// Whether something stands before the next field or item.
    follows: bool,
}

impl Writer {
    /// The text of one object.
    pub fn document(fields: impl FnOnce(&mut Writer)) -> String {
        let mut writer = Writer::default();
        writer.braces(fields);
        writer.out
    }

    /// The text of one list.
    pub fn list_document<T>(items: impl IntoIterator<Item = T>, item: impl FnMut(&mut Writer, T)) -> String {
        let mut writer = Writer::default();
        writer.brackets(items, item);
        writer.out
    }

    /// A field with a text.
    pub fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.quoted(text);
    }

    /// A field with a number or a truth, written as it displays.
    pub fn plain(&mut self, key: &str, value: impl Display) {
        self.key(key);
        self.raw(value);
    }

    /// A field with a number of two decimals, given in hundredths.
    pub fn hundredths(&mut self, key: &str, hundredths: u64) {
        self.plain(key, format_args!("{}.{:02}", hundredths / 100, hundredths % 100));
    }

    /// A field with an object.
    pub fn object(&mut self, key: &str, fields: impl FnOnce(&mut Writer)) {
        self.key(key);
        self.braces(fields);
    }

    /// A field with a list.
    pub fn list<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        item: impl FnMut(&mut Writer, T),
    ) {
        self.key(key);
        self.brackets(items, item);
    }

    /// A field whose value is JSON already.
    pub fn written(&mut self, key: &str, json: &str) {
        self.key(key);
        self.raw(json);
    }

    /// An item that is an object.
    pub fn braces(&mut self, fields: impl FnOnce(&mut Writer)) {
        self.out.push('{');
        self.follows = false;
        fields(self);
        self.out.push('}');
        self.follows = true;
    }

    /// An item that is a text.
    pub fn quoted(&mut self, text: &str) {
        self.out.push('"');
        text.chars().for_each(|c| self.escaped(c));
        self.out.push('"');
    }

    fn brackets<T>(&mut self, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut Writer, T)) {
        self.out.push('[');
        for (index, value) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            item(self, value);
        }
        self.out.push(']');
        self.follows = true;
    }

    fn key(&mut self, key: &str) {
        if self.follows {
            self.out.push(',');
        }
        self.quoted(key);
        self.out.push(':');
        self.follows = true;
    }

    fn raw(&mut self, value: impl Display) {
        // A String takes all that is written to it.
        let _ = write!(self.out, "{value}");
    }

    fn escaped(&mut self, c: char) {
        match c {
            '"' => self.out.push_str("\\\""),
            '\\' => self.out.push_str("\\\\"),
            '\n' => self.out.push_str("\\n"),
            '\r' => self.out.push_str("\\r"),
            '\t' => self.out.push_str("\\t"),
            '\u{8}' => self.out.push_str("\\b"),
            '\u{c}' => self.out.push_str("\\f"),
            c if c < ' ' => self.raw(format_args!("\\u{:04X}", u32::from(c))),
            c => self.out.push(c),
        }
    }
}

/// Compact JSON with line breaks and four blanks for each level; `json` must be what [`Writer`] gives.
pub fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len().saturating_mul(2));
    let mut depth: usize = 0;
    let mut chars = json.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push('"');
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth = depth.saturating_add(1);
                        new_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    out
}

/// Any JSON, keys in their order and as often as they come.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// A truth.
    Bool(bool),
    /// A number, as far as a double holds it.
    Number(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one value; the nesting is bounded by the parser.
    pub fn parse(bytes: &[u8]) -> Result<Json, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(field) = fields.next_entry()? {
            object.push(field);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_as_little_as_json_allows() {
        let json = Writer::document(|w| w.text("k", "a\"b\\c\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}é/"));
        assert_eq!(json, "{\"k\":\"a\\\"b\\\\c\\n\\r\\t\\b\\f\\u0001\\u001F\u{7f}é/\"}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap()["k"],
            "a\"b\\c\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}é/"
        );
    }

    #[test]
    fn fields_and_items_are_parted_by_commas() {
        let json = Writer::document(|w| {
            w.object("none", |_| {});
            w.list("empty", [0; 0], |w, _| w.braces(|_| {}));
            w.list("items", [1, 2], |w, n| w.braces(|w| w.plain("n", n)));
            w.object("inner", |w| {
                w.hundredths("rate", 1500);
                w.plain("on", true);
            });
            w.hundredths("last", 5);
        });
        assert_eq!(
            json,
            r#"{"none":{},"empty":[],"items":[{"n":1},{"n":2}],"inner":{"rate":15.00,"on":true},"last":0.05}"#
        );
    }

    #[test]
    fn pretty_changes_only_blanks() {
        let json = r#"{"a":[],"b":{},"c":[{"d":"x, [y]: \"{z}\\"},2]}"#;
        let expected = "{\n    \"a\": [],\n    \"b\": {},\n    \"c\": [\n        {\n            \"d\": \
                        \"x, [y]: \\\"{z}\\\\\"\n        },\n        2\n    ]\n}";
        assert_eq!(pretty(json), expected);
        assert_eq!(Json::parse(pretty(json).as_bytes()).unwrap(), Json::parse(json.as_bytes()).unwrap());
    }
}
