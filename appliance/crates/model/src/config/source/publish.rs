//! An encoder that publishes to us.

use crate::config::{Network, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
