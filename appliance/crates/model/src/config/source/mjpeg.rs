//! A camera that has JPEG pictures by HTTP.

use super::{default_backoff_cap, default_bitrate, default_keyframe_interval, default_stall, yes};
use crate::config::{SecretUrl, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Fetches Motion JPEG, or one JPEG picture after the other, by HTTP; the pictures are encoded here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mjpeg {
    /// `http://` or `https://` address, with `user:password@` where the camera wants it.
    pub url: SecretUrl,
    /// Asks for one picture so often, for cameras that have single JPEGs alone. `"100ms"` to `"1h"`. Default: none; the
    /// camera is asked once and sends one picture after the other (`multipart/x-mixed-replace`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "1h"))]
    pub interval: Option<Span>,
    /// Whether the password may be sent in plain text, over `http` to a camera that knows no digest. Default false.
    #[serde(default)]
    pub allow_basic: bool,
    /// Whether the camera's certificate is checked (`https`). Default true.
    #[serde(default = "yes")]
    pub verify: bool,
    /// File with the certificate authority to trust instead of the well-known ones, PEM. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// Silence after which the camera is asked anew; with `interval`, how long one picture may take. `"1s"` to `"10m"`.
    /// Default `"10s"`.
    #[serde(default = "default_stall")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "10m"))]
    pub stall_timeout: Span,
    /// Longest wait between two attempts; a refused password waits five minutes all the same. `"1s"` to `"1h"`.
    /// Default `"3s"`.
    #[serde(default = "default_backoff_cap")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1h"))]
    pub backoff_cap: Span,
    /// Bits per second, 10,000 to 200,000,000. Default 2,000,000.
    #[serde(default = "default_bitrate")]
    #[schemars(range(min = 10000, max = 200000000))]
    pub bitrate: u32,
    /// Time between keyframes. `"100ms"` to `"60s"`. Default `"2s"`.
    #[serde(default = "default_keyframe_interval")]
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "60s"))]
    pub keyframe_interval: Span,
}
