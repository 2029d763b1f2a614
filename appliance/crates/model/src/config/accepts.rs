//! What an upstream's receiver takes.

use fieldgate_media::Codec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How pictures may be coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VideoCodec {
    /// H.264.
    H264,
    /// HEVC (H.265).
    Hevc,
    /// AV1.
    Av1,
    /// VP9.
    Vp9,
    /// VP8.
    Vp8,
}

impl VideoCodec {
    /// As streams name it.
    pub const fn codec(self) -> Codec {
        match self {
            VideoCodec::H264 => Codec::H264,
            VideoCodec::Hevc => Codec::Hevc,
            VideoCodec::Av1 => Codec::Av1,
            VideoCodec::Vp9 => Codec::Vp9,
            VideoCodec::Vp8 => Codec::Vp8,
        }
    }
}

/// How sound may be coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodec {
    /// AAC.
    Aac,
    /// Opus.
    Opus,
    /// MP3.
    Mp3,
    /// G.711 A-law.
    #[serde(rename = "pcma")]
    PcmA,
    /// G.711 mu-law.
    #[serde(rename = "pcmu")]
    PcmU,
    /// AC-3.
    Ac3,
    /// E-AC-3.
    Eac3,
    /// FLAC.
    Flac,
}

impl AudioCodec {
    /// As streams name it.
    pub const fn codec(self) -> Codec {
        match self {
            AudioCodec::Aac => Codec::Aac,
            AudioCodec::Opus => Codec::Opus,
            AudioCodec::Mp3 => Codec::Mp3,
            AudioCodec::PcmA => Codec::PcmA,
            AudioCodec::PcmU => Codec::PcmU,
            AudioCodec::Ac3 => Codec::Ac3,
            AudioCodec::Eac3 => Codec::Eac3,
            AudioCodec::Flac => Codec::Flac,
        }
    }
}

/// What the receiver at the other end takes, best first. What comes otherwise is encoded for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Accepts {
    /// How pictures may be coded; 1 to 5. Default: whatever the protocol carries (RTMP: `h264`, and by Enhanced RTMP
    /// `hevc`, `av1`, `vp9`, `vp8`; KMP: `h264`, `hevc`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 5))]
    pub video: Option<Vec<VideoCodec>>,
    /// How sound may be coded, at most 8; an empty list leaves sound out. Default: whatever the protocol carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub audio: Option<Vec<AudioCodec>>,
    /// Whether it refuses a stream without sound; then silence is sent where the source has none. Default false.
    pub needs_audio: bool,
}

impl Accepts {
    /// Whether nothing is asked beyond what the protocol carries.
    pub fn is_default(&self) -> bool {
        *self == Accepts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_have_the_names_that_the_status_shows() {
        let video = ["h264", "hevc", "av1", "vp9", "vp8"];
        for name in video {
            let codec: VideoCodec = serde_json::from_value(name.into()).unwrap();
            assert_eq!(codec.codec().name(), name);
        }
        for name in ["aac", "opus", "mp3", "pcma", "pcmu", "ac3", "eac3", "flac"] {
            let codec: AudioCodec = serde_json::from_value(name.into()).unwrap();
            assert_eq!(codec.codec().name(), name);
        }
    }
}
