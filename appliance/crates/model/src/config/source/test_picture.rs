//! The built-in test picture.

use super::default_keyframe_interval;
use crate::config::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The test picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TestPicture {
    /// Picture width in pixels, 16 to 8,192. Default 640.
    #[schemars(range(min = 16, max = 8192))]
    pub width: u32,
    /// Picture height in pixels, 16 to 8,192. Default 360.
    #[schemars(range(min = 16, max = 8192))]
    pub height: u32,
    /// Pictures per second, 1 to 240. Default 30.
    #[schemars(range(min = 1, max = 240))]
    pub frame_rate: u32,
    /// Bits per second, 10,000 to 200,000,000. Default 1,000,000.
    #[schemars(range(min = 10000, max = 200000000))]
    pub bitrate: u32,
    /// Whether there is a tone. Default true.
    pub audio: bool,
    /// A microphone in the tone's place, as with `v4l2`: to try it without a camera. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 71))]
    pub microphone: Option<String>,
    /// Time between keyframes. `"100ms"` to `"60s"`. Default `"2s"`.
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "60s"))]
    pub keyframe_interval: Span,
}

impl Default for TestPicture {
    fn default() -> Self {
        TestPicture {
            width: 640,
            height: 360,
            frame_rate: 30,
            bitrate: 1_000_000,
            audio: true,
            microphone: None,
            keyframe_interval: default_keyframe_interval(),
        }
    }
}
