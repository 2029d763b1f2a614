//! Where a mountpoint's stream comes from.

use super::{Network, Secret, SecretUrl, Span};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a stream comes from, by `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// An encoder publishes to us by RTMP.
    Publish(Publish),
    /// A camera that speaks RTSP.
    Rtsp(Rtsp),
    /// A local camera or capture card (Video4Linux).
    V4l2(V4l2),
    /// A moving test picture with a clock and a tone.
    Test(TestPicture),
    /// A stream fetched from another RTMP server.
    Pull(Pull),
    /// Tracks that another gateway or Kaltura's connector sends by KMP.
    Kmp(KmpSource),
}

impl Source {
    /// The `kind` that it has in the config.
    pub fn kind(&self) -> &'static str {
        match self {
            Source::Publish(_) => "publish",
            Source::Rtsp(_) => "rtsp",
            Source::V4l2(_) => "v4l2",
            Source::Test(_) => "test",
            Source::Pull(_) => "pull",
            Source::Kmp(_) => "kmp",
        }
    }
}

/// Takes a stream that an encoder publishes to `rtmp://HOST/live/NAME?key=KEY`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Publish {
    /// Key that a publisher must show, 1 to 256 printable characters. Default: none; then only loopback and the
    /// addresses in `allow` may publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// Networks that may publish, such as `"10.0.0.0/8"`; with a key, both must fit. At most 64. Default: with a key
    /// any address, without one only loopback.
    #[schemars(length(max = 64))]
    pub allow: Vec<Network>,
}

/// How an RTSP camera's packets travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RtspTransport {
    /// UDP first, TCP if nothing arrives.
    Auto,
    /// Inside the RTSP connection: nothing is lost on the way.
    #[default]
    Tcp,
    /// UDP: lower latency on a good network.
    Udp,
}

/// Fetches a camera's stream by RTSP; its H.264 or HEVC is passed on as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rtsp {
    /// `rtsp://` or `rtsps://` address, with `user:password@` where the camera wants it.
    pub url: SecretUrl,
    /// How packets travel. Default `"tcp"`.
    #[serde(default)]
    pub transport: RtspTransport,
    /// Time given to late and disordered packets. `"0ms"` to `"10s"`. Default `"200ms"`.
    #[serde(default = "default_latency")]
    #[schemars(extend("minSpan" = "0ms", "maxSpan" = "10s"))]
    pub latency: Span,
    /// Silence after which the camera is asked anew. `"1s"` to `"10m"`. Default `"10s"`.
    #[serde(default = "default_stall")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "10m"))]
    pub stall_timeout: Span,
}

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
            keyframe_interval: default_keyframe_interval(),
        }
    }
}

/// Fetches a stream from another RTMP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// `rtmp://` or `rtmps://` address of the stream.
    pub url: SecretUrl,
    /// Whether the server's certificate is checked (`rtmps`). Default true.
    #[serde(default = "yes")]
    pub verify: bool,
    /// File with the certificate authority to trust instead of the well-known ones, PEM. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// Silence after which the server is asked anew. `"1s"` to `"10m"`. Default `"10s"`.
    #[serde(default = "default_stall")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "10m"))]
    pub stall_timeout: Span,
    /// Longest wait between two attempts. `"1s"` to `"1h"`. Default `"3s"`.
    #[serde(default = "default_backoff_cap")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1h"))]
    pub backoff_cap: Span,
}

/// Takes the tracks of the channel in `kmp.channels` that names this mountpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KmpSource {}

fn default_latency() -> Span {
    Span::from_millis(200)
}

fn default_stall() -> Span {
    Span::from_secs(10)
}

fn default_bitrate() -> u32 {
    2_000_000
}

fn default_keyframe_interval() -> Span {
    Span::from_secs(2)
}

/// Short: a link that comes back shall carry the stream again within five seconds.
pub(super) fn default_backoff_cap() -> Span {
    Span::from_secs(3)
}

pub(super) fn yes() -> bool {
    true
}
