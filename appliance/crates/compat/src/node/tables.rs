//! Relay tables: which stream goes where, and who may send here.
//!
//! One table goes to all nodes: a node uses the streams that it has, and never an entry that points to itself.

use super::Key;
use super::key::{is_key_text, is_stream_id};
use super::role::{Role, Roles};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The longest document, bytes.
pub(super) const DOCUMENT_MAX: usize = 1 << 20;
/// Streams in one table.
const STREAMS_MAX: usize = 2000;
/// Entries of one stream.
const ENTRIES_MAX: usize = 64;
/// Characters of an id or address.
const TEXT_MAX: usize = 512;

/// Where a stream is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// The receiver, as the master calls it; may be empty.
    pub node_id: String,
    /// `rtmp://host:port/relay`.
    pub node_url: String,
    /// Proves to the receiver who sends. Belongs to this hop alone.
    pub node_key: Key,
}

/// Who may send a stream here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The sender; may be empty.
    pub node_id: String,
    /// What it must show.
    pub node_key: Key,
    /// What the sender is, where the master says so.
    pub role: Option<Role>,
}

/// What the master says about hops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Rises with each change, within an epoch.
    pub version: u64,
    /// Another one begins when a master has forgotten its versions.
    pub epoch: Option<String>,
    ingest: BTreeMap<String, Vec<Hop>>,
    relay: BTreeMap<String, Vec<Hop>>,
    accept: BTreeMap<String, Vec<Accepted>>,
}

/// Why a table is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not a table at all.
    #[error("the table is no JSON: {0}")]
    NotJson(String),
    /// Longer than any that is read.
    #[error("the table has {len} bytes; at most {DOCUMENT_MAX} are read")]
    TooLong {
        /// Bytes of the document.
        len: usize,
    },
    /// Something in it has the wrong shape.
    #[error("{place} of the table {problem}")]
    Shape {
        /// Where.
        place: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// An older one.
    #[error("the table's version {got} is below {have}, and its epoch is the same")]
    Old {
        /// Of the table that is in force.
        have: u64,
        /// Of the refused one.
        got: u64,
    },
}

fn shape<T>(place: &str, problem: &'static str) -> Result<T, TableError> {
    // What a stranger calls things is not repeated at length.
    let place = place.chars().filter(|c| !c.is_control()).take(80).collect();
    Err(TableError::Shape { place, problem })
}

/// What a node is called, for entries that point to itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The master's id and our own.
    pub ids: BTreeSet<String>,
    /// `host:port` of our RTMP listeners as others reach them.
    pub addresses: BTreeSet<String>,
}

/// Names a push: a stream and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PushId {
    /// The stream.
    pub stream_id: String,
    /// The receiver's id and address.
    pub node_id: String,
    /// As in the table.
    pub node_url: String,
}

impl Tables {
    /// Reads the canonical form, and the odd ones: tables as lists of objects with one key, entries that name their
    /// stream themselves as `stream_id` or `steam_id`.
    pub fn parse(document: &[u8]) -> Result<Tables, TableError> {
        if document.len() > DOCUMENT_MAX {
            return Err(TableError::TooLong { len: document.len() });
        }
        let value: Value =
            serde_json::from_slice(document).map_err(|error| TableError::NotJson(error.to_string()))?;
        let Value::Object(root) = value else { return shape("the whole", "is no object") };
        let version = match root.get("version") {
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(version) = version else { return shape("version", "is missing or no whole number") };
        let epoch = match root.get("epoch") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.len() <= TEXT_MAX => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            Some(_) => return shape("epoch", "is no text"),
        };
        Ok(Tables {
            version,
            epoch,
            ingest: entries(&root, "ingest", hop)?,
            relay: entries(&root, "relay", hop)?,
            accept: entries(&root, "accept", accepted)?,
        })
    }

    /// Whether `next` may take the place of this one.
    pub fn may_become(&self, next: &Tables) -> Result<(), TableError> {
        if next.version < self.version && next.epoch == self.epoch {
            return Err(TableError::Old { have: self.version, got: next.version });
        }
        Ok(())
    }

    /// Where the streams of a node with these roles go. An ingest reads its own table alone, the others only `relay`.
    pub fn pushes<'a>(
        &self,
        roles: &Roles,
        streams: impl Iterator<Item = &'a str>,
        own: &Own,
    ) -> BTreeMap<PushId, Key> {
        let mut pushes = BTreeMap::new();
        for stream in streams {
            let ingest = self.ingest.get(stream).filter(|_| roles.has(Role::Ingest));
            let relay = self.relay.get(stream).filter(|_| roles.takes_nodes());
            for hop in ingest.into_iter().chain(relay).flatten() {
                if own.ids.contains(&hop.node_id)
                    || address(&hop.node_url).is_some_and(|at| own.addresses.contains(&at))
                {
                    continue;
                }
                let id = PushId {
                    stream_id: stream.to_owned(),
                    node_id: hop.node_id.clone(),
                    node_url: hop.node_url.clone(),
                };
                pushes.insert(id, hop.node_key.clone());
            }
        }
        pushes
    }

    /// The sender that this key makes of a peer, for a stream.
    pub fn accepts(&self, stream: &str, key: &str) -> Option<&Accepted> {
        // All are compared, so that the time says nothing of which one it was.
        let known = self.accept.get(stream)?;
        known.iter().fold(None, |found, entry| if entry.node_key.matches(key) { Some(entry) } else { found })
    }

    /// The stream that a bare key stands for, and its sender.
    pub fn stream_of(&self, key: &str) -> Option<(&str, &Accepted)> {
        let all =
            self.accept.iter().flat_map(|(stream, known)| known.iter().map(move |entry| (stream, entry)));
        all.fold(
            None,
            |found, (stream, entry)| {
                if entry.node_key.matches(key) { Some((stream.as_str(), entry)) } else { found }
            },
        )
    }
}

type Entries<T> = BTreeMap<String, Vec<T>>;

/// A table in whichever form.
fn entries<T>(
    root: &Map<String, Value>,
    name: &str,
    read: fn(&Map<String, Value>, &str) -> Result<T, TableError>,
) -> Result<Entries<T>, TableError> {
    let mut table = Entries::new();
    match root.get(name) {
        None | Some(Value::Null) => {}
        Some(Value::Object(streams)) => streams
            .iter()
            .try_for_each(|(stream, value)| add_stream(&mut table, name, stream, value, read))?,
        Some(Value::Array(items)) => {
            for item in items {
                let Value::Object(item) = item else { return shape(name, "has an item that is no object") };
                match named_stream(item) {
                    Some(stream) => add(&mut table, name, stream, read(item, name)?)?,
                    None => item
                        .iter()
                        .try_for_each(|(stream, value)| add_stream(&mut table, name, stream, value, read))?,
                }
            }
        }
        Some(_) => return shape(name, "is neither an object nor a list"),
    }
    Ok(table)
}

/// The stream that an entry names itself.
fn named_stream(entry: &Map<String, Value>) -> Option<&str> {
    let named = entry.get("stream_id").or_else(|| entry.get("steam_id"))?;
    named.as_str().filter(|_| entry.contains_key("node_key"))
}

fn add_stream<T>(
    table: &mut Entries<T>,
    name: &str,
    stream: &str,
    value: &Value,
    read: fn(&Map<String, Value>, &str) -> Result<T, TableError>,
) -> Result<(), TableError> {
    let place = format!("{name}.{stream}");
    let items = match value {
        Value::Array(items) => items.iter().collect::<Vec<_>>(),
        Value::Object(_) => vec![value],
        Value::Null => Vec::new(),
        _ => return shape(&place, "is no list of entries"),
    };
    for item in items {
        let Value::Object(item) = item else { return shape(&place, "has an entry that is no object") };
        add(table, name, named_stream(item).unwrap_or(stream), read(item, &place)?)?;
    }
    Ok(())
}

fn add<T>(table: &mut Entries<T>, name: &str, stream: &str, entry: T) -> Result<(), TableError> {
    if !is_stream_id(stream) {
        return shape(
            &format!("{name}.{stream}"),
            "is named by what is no stream id: 1 to 64 of A-Z a-z 0-9 . _ -",
        );
    }
    if table.len() >= STREAMS_MAX && !table.contains_key(stream) {
        return shape(name, "has more than 2000 streams");
    }
    let known = table.entry(stream.to_owned()).or_default();
    if known.len() >= ENTRIES_MAX {
        return shape(&format!("{name}.{stream}"), "has more than 64 entries");
    }
    known.push(entry);
    Ok(())
}

fn hop(entry: &Map<String, Value>, place: &str) -> Result<Hop, TableError> {
    let node_url = text(entry, "node_url", place)?.to_owned();
    if address(&node_url).is_none() {
        return shape(place, "has a node_url that is no rtmp:// or rtmps:// address with an application");
    }
    let node_id = text_or_empty(entry, "node_id", place)?.to_owned();
    Ok(Hop { node_id, node_url, node_key: node_key(entry, place)? })
}

fn accepted(entry: &Map<String, Value>, place: &str) -> Result<Accepted, TableError> {
    let node_id = text_or_empty(entry, "node_id", place)?.to_owned();
    let role = ["mode", "type", "role"].iter().find_map(|field| Role::parse(entry.get(*field)?.as_str()?));
    Ok(Accepted { node_id, node_key: node_key(entry, place)?, role })
}

fn node_key(entry: &Map<String, Value>, place: &str) -> Result<Key, TableError> {
    let key = text(entry, "node_key", place)?;
    if !is_key_text(key) {
        return shape(place, "has a node_key with other characters than A-Z a-z 0-9 _ -, or more than 128");
    }
    Ok(Key::new(key))
}

fn text<'a>(entry: &'a Map<String, Value>, field: &str, place: &str) -> Result<&'a str, TableError> {
    match text_or_empty(entry, field, place)? {
        "" => shape(place, if field == "node_url" { "lacks its node_url" } else { "lacks its node_key" }),
        text => Ok(text),
    }
}

fn text_or_empty<'a>(entry: &'a Map<String, Value>, field: &str, place: &str) -> Result<&'a str, TableError> {
    match entry.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) if text.len() <= TEXT_MAX => Ok(text),
        Some(_) => shape(place, "has a field that is no text of at most 512 bytes"),
    }
}

/// `host:port` of an RTMP address, in lower case; `None` if it is none that a stream can be sent to.
pub(super) fn address(url: &str) -> Option<String> {
    let (rest, port) = match (url.strip_prefix("rtmp://"), url.strip_prefix("rtmps://")) {
        (Some(rest), _) => (rest, "1935"),
        (_, Some(rest)) => (rest, "443"),
        _ => return None,
    };
    let is_plain =
        rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'@' | b'"'));
    let (host, app) = rest.split_once('/')?;
    if !is_plain || host.is_empty() || app.trim_matches('/').is_empty() {
        return None;
    }
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    Some(if has_port { host.to_ascii_lowercase() } else { format!("{}:{port}", host.to_ascii_lowercase()) })
}

#[cfg(test)]
mod tests;
