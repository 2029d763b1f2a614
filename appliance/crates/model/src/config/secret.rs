//! Texts that only their user may see.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A secret text. Shows as `***` and serialises as `{"set": true}`, wherever it appears.
///
/// Read from a text, or from `{"set": true}`, which means "as it was" (see [`super::Config::keep_secrets`]).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Form")]
pub struct Secret(Option<String>);

impl Secret {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(Some(text.into()))
    }

    /// The text, to be compared in constant time and never shown; empty while it is kept ([`Secret::is_kept`]).
    pub fn reveal(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether it stands for "as it was"; no validated config holds such.
    pub fn is_kept(&self) -> bool {
        self.0.is_none()
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Kept(#[expect(dead_code, reason = "only its shape matters")] Kept),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    #[expect(dead_code, reason = "only its presence matters")]
    set: bool,
}

impl From<Form> for Secret {
    fn from(form: Form) -> Self {
        match form {
            Form::Text(text) => Secret(Some(text)),
            Form::Kept(_) => Secret(None),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = serializer.serialize_struct("Secret", 1)?;
        shown.serialize_field("set", &true)?;
        shown.end()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A secret: a text when written; reads back as {\"set\": true}, and sending that keeps it.",
            "format": "fieldgate-secret",
            "anyOf": [
                { "type": "string", "writeOnly": true, "minLength": 1, "maxLength": 256 },
                {
                    "type": "object",
                    "properties": { "set": { "const": true } },
                    "required": ["set"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows() {
        let secret = Secret::new("s3cret");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#"{"set":true}"#);
        assert_eq!(secret.reveal(), "s3cret");
    }

    #[test]
    fn the_shown_form_reads_as_kept() {
        let secret: Secret = serde_json::from_str(r#"{"set":true}"#).unwrap();
        assert!(secret.is_kept());
        assert!(!serde_json::from_str::<Secret>(r#""text""#).unwrap().is_kept());
        assert!(serde_json::from_str::<Secret>("7").is_err());
    }
}
