//! A camera that speaks RTSP.

use super::default_stall;
use crate::config::{SecretUrl, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

fn default_latency() -> Span {
    Span::from_millis(200)
}
