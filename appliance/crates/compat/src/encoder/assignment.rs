//! What a coordinator gives an encoder to do.

use super::Resolutions;
use crate::coordinator::{Message, is_id};
use crate::key::Key;

/// Longest address of a source, in bytes.
const URI_MAX: usize = 2_048;
/// Sides of a preview, pixels.
const PREVIEW_SIDES: std::ops::RangeInclusive<u32> = 16..=4_096;
/// Seconds between two previews.
const PREVIEW_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;

/// Why a task is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its files could not be named.
    #[error("the channel or the stream's id is no plain name")]
    Name,
    /// It comes in a way that is not spoken here.
    #[error("the source is neither an RTMP stream nor one by WebSocket")]
    Source,
    /// No more tasks than were told.
    #[error("there is no place for one more task")]
    Full,
}

impl Unfit {
    /// As `Error-Code` says it.
    pub fn code(self) -> &'static str {
        match self {
            Unfit::Name => "INVALID_NAME",
            Unfit::Source => "UNSUPPORTED_SOURCE",
            Unfit::Full => "NO_CAPACITY",
        }
    }
}

/// Pictures at an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previews {
    /// Pixels; the picture fits in.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// From one to the next.
    pub seconds: u32,
}

impl Previews {
    /// Reads `WxH,SECONDS`; anything else means none.
    pub fn parse(text: &str) -> Option<Previews> {
        let (size, seconds) = text.split_once(',')?;
        let (width, height) = size.trim().split_once('x')?;
        let number = |text: &str| -> Option<u32> {
            text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let previews =
            Previews { width: number(width)?, height: number(height)?, seconds: number(seconds.trim())? };
        let fits = PREVIEW_SIDES.contains(&previews.width)
            && PREVIEW_SIDES.contains(&previews.height)
            && PREVIEW_SECONDS.contains(&previews.seconds);
        fits.then_some(previews)
    }

    /// As folders and messages name it.
    pub fn name(&self) -> String {
        format!("{}x{}-{}", self.width, self.height, self.seconds)
    }

    /// How wide a picture of this shape is made to fit in.
    pub fn width_for(&self, width: u32, height: u32) -> u32 {
        let fitted = u64::from(self.height).saturating_mul(width.into()).checked_div(height.into());
        let fitted = fitted.and_then(|fitted| u32::try_from(fitted).ok()).unwrap_or(self.width);
        fitted.clamp(*PREVIEW_SIDES.start(), self.width)
    }
}

/// How a source is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// From an RTMP server.
    Rtmp,
    /// From a streaming server by WebSocket.
    WebSocket,
}

impl SourceKind {
    /// As `Stream-Source-Type` and the address say, if they say the same.
    fn read(kind: &str, uri: &str) -> Option<SourceKind> {
        let (scheme, _) = uri.split_once("://").filter(|_| uri.len() <= URI_MAX)?;
        match (kind.to_ascii_uppercase().as_str(), scheme.to_ascii_lowercase().as_str()) {
            ("RTMP", "rtmp" | "rtmps") => Some(SourceKind::Rtmp),
            ("WS", "ws" | "wss") => Some(SourceKind::WebSocket),
            _ => None,
        }
    }
}

/// A stream that shall be encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The channel.
    pub channel: String,
    /// The stream.
    pub stream_id: String,
    /// How it is played.
    pub kind: SourceKind,
    /// Where, with its key.
    pub source: Key,
    /// What is made of it.
    pub resolutions: Resolutions,
    /// Whether it is kept for later.
    pub record: bool,
    /// Whether there are pictures at an interval.
    pub previews: Option<Previews>,
}

impl Assignment {
    /// From `ENCODE-START`.
    pub(super) fn read(message: &Message, id_max: usize) -> Result<Assignment, Unfit> {
        let [channel, stream_id] = ["Stream-Channel", "Stream-ID"].map(|name| message.get(name).to_owned());
        if !is_id(&channel, id_max) || !is_id(&stream_id, id_max) {
            return Err(Unfit::Name);
        }
        let uri = message.get("Stream-Source-URI");
        let kind = SourceKind::read(message.get("Stream-Source-Type"), uri).ok_or(Unfit::Source)?;
        Ok(Assignment {
            channel,
            stream_id,
            kind,
            source: Key::new(uri),
            resolutions: Resolutions::parse(message.get("Resolutions")),
            record: message.get("Record").eq_ignore_ascii_case("true"),
            previews: Previews::parse(message.get("Previews")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_25_previews_are_a_size_and_seconds_or_none() {
        let some = |width, height, seconds| Some(Previews { width, height, seconds });
        assert_eq!(Previews::parse("256x144,3"), some(256, 144, 3));
        assert_eq!(Previews::parse("256x144 , 3"), some(256, 144, 3));
        for text in [
            "False",
            "",
            "256x144",
            "256x144,0",
            "8x8,1",
            "5000x144,3",
            "256x144,86401",
            "+256x144,3",
            "256,3",
        ] {
            assert_eq!(Previews::parse(text), None, "{text}");
        }
        assert_eq!(some(256, 144, 3).map(|previews| previews.name()), Some("256x144-3".to_owned()));
    }

    #[test]
    fn check_25_a_source_is_what_its_type_and_its_address_say() {
        let long = format!("rtmp://h/{}", "a".repeat(URI_MAX));
        for (kind, uri, read) in [
            ("RTMP", "rtmp://h:1935/c/k", Some(SourceKind::Rtmp)),
            ("rtmp", "RTMPS://h/c/k", Some(SourceKind::Rtmp)),
            ("WS", "ws://h:80/c/k", Some(SourceKind::WebSocket)),
            ("ws", "wss://h/c/k", Some(SourceKind::WebSocket)),
            ("WS", "rtmp://h/c/k", None),
            ("RTMP", "ws://h/c/k", None),
            ("RTMP", long.as_str(), None),
            ("", "rtmp://h/c/k", None),
            ("WS", "h/c/k", None),
        ] {
            assert_eq!(SourceKind::read(kind, uri), read, "{kind} {uri:.30}");
        }
    }

    #[test]
    fn check_25_previews_fit_into_their_size() {
        let previews = Previews { width: 256, height: 144, seconds: 3 };
        assert_eq!(previews.width_for(1920, 1080), 256);
        assert_eq!(previews.width_for(1080, 1920), 81);
        assert_eq!(previews.width_for(4000, 100), 256);
        assert_eq!(previews.width_for(1, 4000), 16);
        assert_eq!(previews.width_for(0, 0), 256);
    }
}
