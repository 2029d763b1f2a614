//! A camera on the board's own connector.

use super::{default_bitrate, default_keyframe_interval};
use crate::config::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A camera on the board's CSI connector, by libcamera. Its pictures are raw and are encoded here. Only where libcamera's
/// GStreamer element is installed (Debian package `gstreamer1.0-libcamera`); static builds have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Csi {
    /// Which, by libcamera's name for it as `cam --list` shows it in brackets, such as
    /// `/base/soc/i2c0mux/i2c@1/imx708@1a`. Default: the first that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub camera: Option<String>,
    /// Picture width in pixels, 16 to 8,192, even. Default 1,280.
    #[serde(default = "default_width")]
    #[schemars(range(min = 16, max = 8192))]
    pub width: u32,
    /// Picture height in pixels, 16 to 8,192, even. Default 720.
    #[serde(default = "default_height")]
    #[schemars(range(min = 16, max = 8192))]
    pub height: u32,
    /// Pictures per second, 1 to 240. Default 30.
    #[serde(default = "default_frame_rate")]
    #[schemars(range(min = 1, max = 240))]
    pub frame_rate: u32,
    /// Bits per second, 10,000 to 200,000,000. Default 2,000,000.
    #[serde(default = "default_bitrate")]
    #[schemars(range(min = 10000, max = 200000000))]
    pub bitrate: u32,
    /// A microphone that belongs to it, as ALSA names it: `hw:CARD=Device` or, for other rates and channels than it has by
    /// itself, `plughw:CARD=Device`; `arecord -L` lists them. Default: none, so no sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 71))]
    pub microphone: Option<String>,
    /// Time between keyframes. `"100ms"` to `"60s"`. Default `"2s"`.
    #[serde(default = "default_keyframe_interval")]
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "60s"))]
    pub keyframe_interval: Span,
}

impl Csi {
    /// Whether `camera` may be a name of libcamera's.
    pub fn has_camera_name(&self) -> bool {
        self.camera.as_ref().is_none_or(|name| name.chars().all(|c| c == ' ' || c.is_ascii_graphic()))
    }
}

fn default_width() -> u32 {
    1_280
}

fn default_height() -> u32 {
    720
}

fn default_frame_rate() -> u32 {
    30
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_libcameras_or_none() {
        let named = |camera: Option<&str>| {
            let camera: Csi = serde_json::from_value(serde_json::json!({ "camera": camera })).unwrap();
            camera.has_camera_name()
        };
        assert!(named(None) && named(Some("/base/soc/i2c0mux/i2c@1/imx708@1a")));
        assert!(named(Some("\\_SB_.PC00.LNK1 0")));
        assert!(!named(Some("a\nb")) && !named(Some("ümlaut")));
    }
}
