//! What a bundle says: for whom, until when, and which config.

use crate::key::{KeyRing, SigningKey};
use crate::name::is_name;
use crate::refusal::Refusal;
use crate::template::{self, Variables};
use crate::text::{self, Digest};
use fieldgate_model::Timestamp;
use fieldgate_model::config::parse_strict;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The limits of a bundle's content, beside [`crate::TEXT_MAX`] for the whole.
pub struct Limits;

impl Limits {
    /// The highest number: what every JSON reader takes without loss.
    pub const NUMBER_MAX: u64 = (1 << 53) - 1;
    /// The longest time from issue to expiry.
    pub const LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);
    /// Most gateways that are named.
    pub const DEVICES_MAX: usize = 16_384;
    /// Most groups that are named.
    pub const GROUPS_MAX: usize = 256;
    /// Most variables for one gateway.
    pub const VARIABLES_MAX: usize = 256;
    /// Longest note, in bytes.
    pub const NOTE_MAX: usize = 256;
}

/// For whom a bundle is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audience {
    /// Gateways by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Groups; every gateway is in [`crate::ALL`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// What the config shall be.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// This, whole.
    Config(Value),
    /// What it is, with this JSON merge patch (RFC 7396).
    Patch(Value),
}

/// What a bundle is made from; also the JSON that is signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// Rises with each bundle that a gateway shall take.
    pub number: u64,
    /// When it was made.
    pub issued: Timestamp,
    /// Until when it may be taken.
    pub expires: Timestamp,
    /// For whom.
    pub to: Audience,
    /// For the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The whole config, or `patch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// A merge patch, or `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Value>,
    /// What `{{name}}` stands for, by gateway.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, BTreeMap<String, Value>>,
}

/// A bundle whose signature holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// The key that signed it.
    pub key: String,
    /// What tells it from others.
    pub digest: Digest,
    /// What was signed.
    pub draft: Draft,
}

impl Bundle {
    /// Reads a text, if a key of the ring signed it. Nothing of it is looked at before.
    pub fn open(text: &str, ring: &KeyRing) -> Result<Bundle, Refusal> {
        let parts = text::split(text)?;
        let payload = parts.verified(ring)?;
        Ok(Bundle { key: parts.key.to_owned(), digest: Digest::of(text), draft: read(&payload)? })
    }

    /// Reads a text, whoever signed it: to be shown, never to be acted on.
    pub fn show(text: &str) -> Result<Bundle, Refusal> {
        let parts = text::split(text)?;
        let payload = parts.unverified()?;
        Ok(Bundle { key: parts.key.to_owned(), digest: Digest::of(text), draft: read(&payload)? })
    }

    /// The config or patch that it means for one gateway, variables filled in. `built_in` are those that every gateway
    /// has; the bundle's own come before them.
    pub fn content_for(&self, device: &str, built_in: &Variables) -> Result<Content, Refusal> {
        let own = self.draft.variables.get(device);
        let lookup = |name: &str| own.and_then(|own| own.get(name)).or_else(|| built_in.get(name));
        match (&self.draft.config, &self.draft.patch) {
            (Some(config), _) => template::expand(config, &lookup).map(Content::Config),
            (None, Some(patch)) => template::expand(patch, &lookup).map(Content::Patch),
            // `read` takes none without either.
            (None, None) => Err(Refusal::Unreadable("it holds neither config nor patch".to_owned())),
        }
    }
}

impl Draft {
    /// Signs it, if no gateway would refuse it for its form.
    pub fn sign(&self, name: &str, key: &SigningKey) -> Result<String, Refusal> {
        if !is_name(name) {
            return Err(limit("the key's name", "1 to 64 of A-Z a-z 0-9 _ -", name));
        }
        let payload = serde_json::to_string(self).map_err(|error| Refusal::Unreadable(error.to_string()))?;
        read(&payload)?;
        text::seal(&payload, name, key)
    }

    fn check(&self) -> Result<(), Refusal> {
        if !(1..=Limits::NUMBER_MAX).contains(&self.number) {
            return Err(limit("number", format!("1 to {}", Limits::NUMBER_MAX), self.number));
        }
        if self.expires <= self.issued || self.expires > self.issued.plus(Limits::LIFE_MAX) {
            return Err(limit("expires", "after issued, by at most 366 days", self.expires));
        }
        let Audience { devices, groups } = &self.to;
        if devices.len() > Limits::DEVICES_MAX {
            return Err(limit("to.devices", format!("at most {}", Limits::DEVICES_MAX), devices.len()));
        }
        if groups.len() > Limits::GROUPS_MAX {
            return Err(limit("to.groups", format!("at most {}", Limits::GROUPS_MAX), groups.len()));
        }
        if devices.is_empty() && groups.is_empty() {
            return Err(limit("to", "devices, groups or both", "neither"));
        }
        if let Some(wrong) = devices.iter().chain(groups).chain(self.variables.keys()).find(|it| !is_name(it))
        {
            return Err(limit("a gateway or group", "1 to 64 of A-Z a-z 0-9 _ -", format!("{wrong:.80?}")));
        }
        if let Some(note) = self.note.as_ref().filter(|note| note.len() > Limits::NOTE_MAX) {
            return Err(limit("note", format!("at most {} bytes", Limits::NOTE_MAX), note.len()));
        }
        for variables in self.variables.values() {
            if variables.len() > Limits::VARIABLES_MAX {
                let must = format!("at most {} for one gateway", Limits::VARIABLES_MAX);
                return Err(limit("variables", must, variables.len()));
            }
            for (name, value) in variables {
                if !template::is_variable(name) {
                    return Err(limit("a variable", "1 to 64 of a-z A-Z 0-9 _", format!("{name:.80?}")));
                }
                if value.is_array() || value.is_object() || value.is_null() {
                    return Err(limit("a variable's value", "a text, a number, true or false", name));
                }
            }
        }
        match (&self.config, &self.patch) {
            (Some(Value::Object(_)), None) | (None, Some(Value::Object(_))) => Ok(()),
            _ => Err(limit("the content", "one object, config or patch", "something else")),
        }
    }
}

fn read(payload: &str) -> Result<Draft, Refusal> {
    let unreadable = |error: serde_json::Error| Refusal::Unreadable(error.to_string());
    let draft: Draft =
        serde_json::from_value(parse_strict(payload).map_err(unreadable)?).map_err(unreadable)?;
    draft.check()?;
    Ok(draft)
}

fn limit(what: &'static str, must: impl Into<String>, got: impl ToString) -> Refusal {
    Refusal::Limit { what, must: must.into(), got: got.to_string() }
}

#[cfg(test)]
pub(crate) mod tests;
