//! `onMetaData`, as far as anyone needs it.

use crate::rtmp::amf::{self, Amf0Value, AmfError, cut};
use fieldgate_media::{AudioShape, VideoShape};
use std::collections::HashMap;

/// What was understood of an `onMetaData`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamMetadata {
    /// Picture; zeros where it says nothing.
    pub video: VideoShape,
    /// Sound; zeros where it says nothing.
    pub audio: AudioShape,
    /// Declared bits per second of the pictures; 0 unknown.
    pub video_bits_per_second: u64,
    /// Declared bits per second of the sound; 0 unknown.
    pub audio_bits_per_second: u64,
    /// The encoder's name, at most 128 bytes.
    pub encoder: Option<String>,
}

impl StreamMetadata {
    /// Reads the body of a data message of type `kind`; `None` if it is something other than metadata.
    pub fn parse(body: &[u8], kind: u8) -> Result<Option<StreamMetadata>, AmfError> {
        let values = amf::decode(body, kind)?;
        let mut values = values.iter();
        let mut name = values.next();
        if matches!(name, Some(Amf0Value::Utf8String(name)) if name == "@setDataFrame") {
            name = values.next();
        }
        match (name, values.next()) {
            (Some(Amf0Value::Utf8String(name)), Some(Amf0Value::Object(object))) if name == "onMetaData" => {
                Ok(Some(Self::of(object, rate_key(body))))
            }
            _ => Ok(None),
        }
    }

    fn of(object: &HashMap<String, Amf0Value>, rate_key: &str) -> StreamMetadata {
        let number = |name: &str, max: f64| -> f64 {
            let value = match object.get(name) {
                Some(Amf0Value::Number(number)) => *number,
                // Some encoders send numbers as text.
                Some(Amf0Value::Utf8String(text)) => text.trim().parse().unwrap_or(0.0),
                _ => 0.0,
            };
            if (0.0..=max).contains(&value) { value } else { 0.0 }
        };
        let channels = match object.get("stereo") {
            Some(Amf0Value::Boolean(true)) => 2,
            Some(Amf0Value::Boolean(false)) => 1,
            _ => 0,
        };
        let counted = number("audiochannels", 255.0) as u8;
        let encoder = match object.get("encoder") {
            Some(Amf0Value::Utf8String(text)) if !text.is_empty() => Some(cut(text, 128).to_owned()),
            _ => None,
        };
        StreamMetadata {
            video: VideoShape {
                width: number("width", 65_535.0) as u32,
                height: number("height", 65_535.0) as u32,
                frame_rate: number(rate_key, 1_000.0),
            },
            audio: AudioShape {
                sample_rate: number("audiosamplerate", 768_000.0) as u32,
                channels: if counted > 0 { counted } else { channels },
            },
            video_bits_per_second: (number("videodatarate", 1e7) * 1000.0) as u64,
            audio_bits_per_second: (number("audiodatarate", 1e7) * 1000.0) as u64,
            encoder,
        }
    }
}

/// The key that tells pictures per second: `framerate` or `fps`, the later of the two where both are there.
fn rate_key(body: &[u8]) -> &'static str {
    // The decoded object has lost the order of its keys; a key stands behind its length.
    let at = |key: &[u8]| body.windows(key.len()).rposition(|window| window == key);
    if at(b"\0\x03fps") > at(b"\0\x09framerate") { "fps" } else { "framerate" }
}
