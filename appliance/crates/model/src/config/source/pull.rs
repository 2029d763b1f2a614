//! A stream fetched from another RTMP server.

use super::{default_backoff_cap, default_stall, yes};
use crate::config::{SecretUrl, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
