//! A camera that speaks RTSP.

use super::{default_stall, yes};
use crate::config::{SecretUrl, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How an RTSP camera's packets travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RtspTransport {
    /// UDP first, TCP if nothing arrives; TCP for `rtsps`.
    Auto,
    /// Inside the RTSP connection: nothing is lost on the way.
    #[default]
    Tcp,
    /// UDP: lower latency on a good network. Not for `rtsps`.
    Udp,
}

/// Which of a camera's streams is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RtspStream {
    /// That of `url`.
    #[default]
    Main,
    /// That of `sub_url`.
    Sub,
}

/// Fetches a camera's stream by RTSP; its H.264 or HEVC is passed on as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rtsp {
    /// `rtsp://` or `rtsps://` address, with `user:password@` where the camera wants it.
    pub url: SecretUrl,
    /// Address of the camera's second, smaller stream, on the same camera. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_url: Option<SecretUrl>,
    /// Which of the two is taken: `"main"` or `"sub"`. Default `"main"`.
    #[serde(default)]
    pub stream: RtspStream,
    /// Whether the camera's certificate is checked (`rtsps`). Few cameras have one that a public authority signed: name
    /// theirs in `ca`, or set this to false on a network that you trust. Default true.
    #[serde(default = "yes")]
    pub verify: bool,
    /// File with the certificate authority to trust instead of the well-known ones, PEM. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
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
    /// Longest wait between two attempts; a refused password waits five minutes all the same. `"1s"` to `"1h"`.
    /// Default `"10s"`.
    #[serde(default = "default_backoff_cap")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1h"))]
    pub backoff_cap: Span,
}

impl Rtsp {
    /// The address of the stream that is taken.
    pub fn taken_url(&self) -> &SecretUrl {
        match (self.stream, &self.sub_url) {
            (RtspStream::Sub, Some(sub)) => sub,
            _ => &self.url,
        }
    }
}

/// A camera that reboots is back within half a minute; nobody else suffers from being asked now and then.
fn default_backoff_cap() -> Span {
    Span::from_secs(10)
}

pub(super) fn default_latency() -> Span {
    Span::from_millis(200)
}
