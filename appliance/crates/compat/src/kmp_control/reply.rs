//! Controllers' replies: what they say, or why they say nothing.

use super::json::Json;
use super::upstream::{Upstream, UpstreamError};
use crate::Reply;

/// What a reply begins with when it is JSON.
const JSON_TYPE: &str = "application/json";
/// The longest channel or track id, in bytes.
const ID_BYTES: usize = 32;
/// The most upstreams that one track may have.
pub const MAX_UPSTREAMS: usize = 64;

/// Why a reply says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// None came.
    #[error("no reply: {0}")]
    None(String),
    /// Another status than 200.
    #[error("status {0}, wanted 200")]
    Status(u16),
    /// Not JSON by its header.
    #[error("content-type \"{0}\", wanted application/json")]
    ContentType(String),
    /// Longer than `buffer_bytes` allows.
    #[error("{len} bytes and more, with its header it must be less than buffer_bytes, which is {max}")]
    TooLong {
        /// Of the body.
        len: usize,
        /// The setting.
        max: u32,
    },
    /// No JSON object.
    #[error("the body is no JSON object")]
    NoObject,
    /// A field that is known came twice.
    #[error("the field {0} comes twice")]
    Twice(&'static str),
    /// Nothing in a field that must be there.
    #[error("the field {0} is missing, or is of another type")]
    Missing(&'static str),
    /// The controller says no.
    #[error("code \"{code}\", message \"{message}\"")]
    Refused {
        /// What stood in `code`, shortened.
        code: String,
        /// What stood in `message`, shortened.
        message: String,
    },
    /// A channel or track id that KMP cannot carry.
    #[error("{field} has {len} bytes or a zero byte, KMP carries at most 32 and no zero")]
    Id {
        /// Which.
        field: &'static str,
        /// Bytes.
        len: usize,
    },
    /// `upstreams` that are no objects, or too many.
    #[error("upstreams must be at most {MAX_UPSTREAMS} objects")]
    Upstreams,
    /// An upstream that cannot be used.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// Where a track goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The channel's name, 32 bytes at most.
    pub channel_id: String,
    /// The track's name, 32 bytes at most.
    pub track_id: String,
    /// Empty: the track is not wanted. An upstream that cannot be used makes the track fail, without asking again.
    pub upstreams: Result<Vec<Upstream>, UpstreamError>,
}

/// Reads replies by one application's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// A reply must be shorter, header included. The client that reads it holds to that; here only the body is known.
    pub buffer_bytes: u32,
    /// Whether upstreams are limited to what the connector takes.
    pub strict: bool,
}

impl Reader {
    /// The reply to `connect`: nothing, if it is a yes. [`ReplyError::Refused`] is final, all else is asked again.
    pub fn connect(&self, reply: &Reply) -> Result<(), ReplyError> {
        check_code(Fields(&self.object(reply)?))
    }

    /// The reply to `publish`.
    pub fn publish(&self, reply: &Reply) -> Result<Published, ReplyError> {
        let object = self.object(reply)?;
        let fields = Fields(&object);
        check_code(fields)?;
        let channel_id = id(fields, "channel_id")?;
        let track_id = id(fields, "track_id")?;
        let upstreams =
            fields.list("upstreams").map_err(ReplyError::Twice)?.ok_or(ReplyError::Missing("upstreams"))?;
        if upstreams.len() > MAX_UPSTREAMS {
            return Err(ReplyError::Upstreams);
        }
        let objects: Option<Vec<&[(String, Json)]>> = upstreams.iter().map(as_object).collect();
        let objects = objects.ok_or(ReplyError::Upstreams)?;
        let upstreams =
            objects.into_iter().map(|fields| Upstream::from_fields(fields, self.strict)).collect();
        Ok(Published { channel_id, track_id, upstreams })
    }

    /// The reply to `republish`; only its `url` and `connect_data` count.
    pub fn republish(&self, reply: &Reply) -> Result<Upstream, ReplyError> {
        let object = self.object(reply)?;
        check_code(Fields(&object))?;
        Ok(Upstream::from_fields(&object, self.strict)?)
    }

    fn object(&self, reply: &Reply) -> Result<Vec<(String, Json)>, ReplyError> {
        if reply.status != 200 {
            return Err(ReplyError::Status(reply.status));
        }
        let kind =
            reply.headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
        let kind = kind.unwrap_or_default();
        if !kind.get(..JSON_TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(JSON_TYPE)) {
            return Err(ReplyError::ContentType(short(kind)));
        }
        if reply.body.len() >= self.buffer_bytes as usize {
            return Err(ReplyError::TooLong { len: reply.body.len(), max: self.buffer_bytes });
        }
        match Json::parse(&reply.body) {
            Ok(Json::Object(fields)) => Ok(fields),
            _ => Err(ReplyError::NoObject),
        }
    }
}

fn check_code(fields: Fields<'_>) -> Result<(), ReplyError> {
    let message = fields.text("message").map_err(ReplyError::Twice)?.unwrap_or_default();
    let code = fields.text("code").map_err(ReplyError::Twice)?.ok_or(ReplyError::Missing("code"))?;
    if !code.eq_ignore_ascii_case("ok") {
        return Err(ReplyError::Refused { code: short(code), message: short(message) });
    }
    Ok(())
}

fn id(fields: Fields<'_>, key: &'static str) -> Result<String, ReplyError> {
    let text = fields.text(key).map_err(ReplyError::Twice)?.ok_or(ReplyError::Missing(key))?;
    if text.len() > ID_BYTES || text.contains('\0') {
        return Err(ReplyError::Id { field: key, len: text.len() });
    }
    Ok(text.to_owned())
}

fn as_object(value: &Json) -> Option<&[(String, Json)]> {
    match value {
        Json::Object(fields) => Some(fields),
        _ => None,
    }
}

/// Texts of strangers are repeated shortened: in logs, and to RTMP peers.
fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The fields of an object, found by name in any case. A value of another type than asked for counts as absent; two of
/// the right one are an error, which names the field.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [(String, Json)]);

impl<'a> Fields<'a> {
    pub(super) fn text(&self, key: &'static str) -> Result<Option<&'a str>, &'static str> {
        self.only(key, |value| match value {
            Json::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn truth(&self, key: &'static str) -> Result<Option<bool>, &'static str> {
        self.only(key, |value| match value {
            Json::Bool(truth) => Some(*truth),
            _ => None,
        })
    }

    fn list(&self, key: &'static str) -> Result<Option<&'a [Json]>, &'static str> {
        self.only(key, |value| match value {
            Json::List(items) => Some(items.as_slice()),
            _ => None,
        })
    }

    fn only<T>(
        &self,
        key: &'static str,
        of: impl Fn(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, &'static str> {
        let mut found =
            self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key)).filter_map(|(_, it)| of(it));
        let first = found.next();
        if found.next().is_some() { Err(key) } else { Ok(first) }
    }
}

#[cfg(test)]
mod tests;
