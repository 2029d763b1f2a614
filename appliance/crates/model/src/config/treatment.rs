//! What happens to a mountpoint's pictures and sound.

use super::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a camera's pictures are encoded here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VideoMode {
    /// Only where they must be: raw and JPEG pictures, masks, an overlay, bounds that they exceed.
    #[default]
    Auto,
    /// Always.
    Encode,
}

/// What happens to pictures. Masks are no part of it: they have a place of their own,
/// `/api/v1/mountpoints/NAME/masks`, where no rollback touches them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Video {
    /// When a camera's pictures are encoded here. Default `"auto"`.
    pub mode: VideoMode,
    /// Bits per second of what is encoded here, 10,000 to 200,000,000; a change reaches a running encoder. Default: the
    /// source's own `bitrate` where it has one, else 2,500,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10000, max = 200000000))]
    pub bitrate: Option<u32>,
    /// Time between keyframes of what is encoded here. `"100ms"` to `"60s"`. Default: the source's own
    /// `keyframe_interval` where it has one, else `"2s"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "60s"))]
    pub keyframe_interval: Option<Span>,
    /// Wider pictures are encoded smaller, pixels, 16 to 8,192. Default: as they come.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 8192))]
    pub max_width: Option<u32>,
    /// Higher pictures are encoded smaller, pixels, 16 to 8,192. Default: as they come.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 8192))]
    pub max_height: Option<u32>,
    /// Of more pictures per second some are left out, 1 to 240. Default: as they come.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 240))]
    pub max_frame_rate: Option<u32>,
    /// What is written into the picture; forces encoding. Default: nothing.
    pub overlay: Overlay,
}

/// What is written into the top left corner of the picture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Overlay {
    /// The gateway's date and time, UTC. Default false.
    pub clock: bool,
    /// A text such as the camera's name, at most 64 characters: letters, digits and simple signs. Default: none.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub text: String,
}

impl Overlay {
    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        *self == Overlay::default()
    }
}

/// What happens to a camera's sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AudioMode {
    /// AAC passes, anything else is made AAC.
    #[default]
    Auto,
    /// It is left out.
    Off,
    /// It passes as it comes.
    Pass,
    /// It is made AAC.
    Aac,
    /// It is made Opus.
    Opus,
}

/// What happens to sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audio {
    /// What happens to a camera's sound. Default `"auto"`.
    pub mode: AudioMode,
    /// Bits per second of what is encoded here, 8,000 to 320,000. Default 96,000.
    #[schemars(range(min = 8000, max = 320000))]
    pub bitrate: u32,
    /// Amplification, decibels, -60 to 30; anything but 0 forces encoding. Default 0.
    #[schemars(range(min = -60, max = 30))]
    pub gain_db: i8,
    /// Whether it is silenced; forces encoding. Default false.
    pub mute: bool,
}

impl Default for Audio {
    fn default() -> Self {
        Audio { mode: AudioMode::Auto, bitrate: 96_000, gain_db: 0, mute: false }
    }
}
