//! A local camera.

use super::default_keyframe_interval;
use crate::config::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What to ask a local camera for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum V4l2Format {
    /// H.264 if the device has it, else MJPEG or raw, whichever gives the wanted size and rate.
    #[default]
    Auto,
    /// The device's own H.264, passed on as it is.
    H264,
    /// Motion JPEG, decoded and encoded here.
    Mjpeg,
    /// Raw pictures, encoded here.
    Raw,
}

/// A local camera or capture card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct V4l2 {
    /// The device file, such as `/dev/video0` or, better, a name under `/dev/v4l/by-id/`.
    #[schemars(length(min = 1, max = 4096))]
    pub device: PathBuf,
    /// Picture width in pixels, 16 to 8,192. Default: 1,280 or the device's nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 8192))]
    pub width: Option<u32>,
    /// Picture height in pixels, 16 to 8,192. Default: 720 or the device's nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 8192))]
    pub height: Option<u32>,
    /// Pictures per second, 1 to 240. Default: 30 or the device's nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 240))]
    pub frame_rate: Option<u32>,
    /// Bits per second when encoded here, 10,000 to 200,000,000. Default 2,000,000.
    #[serde(default = "default_bitrate")]
    #[schemars(range(min = 10000, max = 200000000))]
    pub bitrate: u32,
    /// What to ask the device for. Default `"auto"`.
    #[serde(default)]
    pub format: V4l2Format,
    /// Time between keyframes when encoded here. `"100ms"` to `"60s"`. Default `"2s"`.
    #[serde(default = "default_keyframe_interval")]
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "60s"))]
    pub keyframe_interval: Span,
}

fn default_bitrate() -> u32 {
    2_000_000
}
