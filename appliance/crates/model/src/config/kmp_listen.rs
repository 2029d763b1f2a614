//! KMP taken in from other gateways and from Kaltura's connectors.

use super::{ListenTls, Network, Span, TrackIds, listen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The KMP receiver: takes tracks in, acknowledges them, and publishes them to mountpoints of kind `kmp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kmp {
    /// Addresses with port to listen on; port 0 lets the kernel choose. At most 16. Default: none; then nothing is
    /// taken in.
    #[schemars(with = "Vec<listen::Address>", length(max = 16))]
    pub listen: Vec<SocketAddr>,
    /// KMP over TLS (`kmps://`), between gateways. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenTls>,
    /// Networks that may send, such as `"10.0.0.0/8"`. KMP knows no passwords: name the senders alone. At most 64.
    /// Default: only loopback.
    #[schemars(length(max = 64))]
    pub allow: Vec<Network>,
    /// What is taken in, by `channel_id`, which is 1 to 32 printable characters; all else is refused. Default: none.
    #[schemars(extend("maxProperties" = 1024))]
    pub channels: BTreeMap<String, KmpChannel>,
    /// Connections on all KMP listeners together; more are refused. Each track has one. 1 to 65,536. Default 256.
    #[schemars(range(min = 1, max = 65536))]
    pub max_connections: u32,
    /// Connections from one address; more are refused. 1 to 65,536. Default 128.
    #[schemars(range(min = 1, max = 65536))]
    pub max_connections_per_address: u32,
    /// Time in which a new connection must have said which track it brings. `"100ms"` to `"60s"`. Default `"10s"`.
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "60s"))]
    pub handshake_timeout: Span,
    /// A connection that brings nothing, not even a sign of life, is closed after this time. `"1s"` to `"1h"`.
    /// Default `"20s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1h"))]
    pub read_timeout: Span,
    /// Longest frame taken, in bytes. 65,536 to 16,777,216. Default 16,777,216.
    #[schemars(range(min = 65536, max = 16777216))]
    pub max_frame_bytes: u32,
    /// How long one track's units wait for those of the other that come before them, so that both stay in order when a
    /// link comes back. A track that stays away for longer is not waited for, and what it then brings too late is left
    /// out. `"0s"` to `"60s"`. Default `"5s"`.
    #[schemars(extend("minSpan" = "0s", "maxSpan" = "60s"))]
    pub join_wait: Span,
    /// How many times faster than it was made a backlog is taken in, so that players can follow. 2 to 1,000.
    /// Default 10.
    #[schemars(range(min = 2, max = 1000))]
    pub catch_up: u32,
    /// Frames that a reconnected sender may repeat; with more its track starts anew. 0 to 1,000,000. Default 2,000.
    #[schemars(range(min = 0, max = 1000000))]
    pub max_repeated_frames: u32,
    /// Like the reference receiver: every media info, also one that changes nothing, makes video wait for a keyframe.
    /// Default false.
    pub strict: bool,
}

impl Default for Kmp {
    fn default() -> Self {
        Kmp {
            listen: Vec::new(),
            tls: None,
            allow: Vec::new(),
            channels: BTreeMap::new(),
            max_connections: 256,
            max_connections_per_address: 128,
            handshake_timeout: Span::from_secs(10),
            read_timeout: Span::from_secs(20),
            max_frame_bytes: 16_777_216,
            join_wait: Span::from_secs(5),
            catch_up: 10,
            max_repeated_frames: 2_000,
            strict: false,
        }
    }
}

/// One channel: which mountpoint its tracks feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KmpChannel {
    /// The mountpoint, whose source is of kind `kmp`. Only one channel may feed it.
    #[schemars(length(min = 1, max = 64))]
    pub mountpoint: String,
    /// The tracks' names. Default `{"video": "v1", "audio": "a1"}`.
    #[serde(default)]
    pub tracks: TrackIds,
    /// Networks, out of those in `kmp.allow`, that may send this channel. At most 64. Default: all of them.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub allow: Vec<Network>,
}
