//! A coordinator elsewhere, which this gateway is a streaming server of.

use super::source::yes;
use super::{Network, Secret, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Makes the gateway a streaming server of a coordinator elsewhere, which says who may publish channels here
/// (`rtmp://HOST/CHANNEL/KEY`) and has encoders play them from here. Cameras can be channels, too. See
/// `docs/coordinator.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Whether the gateway belongs to a coordinator elsewhere. Default false.
    pub enabled: bool,
    /// The coordinator's `ws://` or `wss://` address, such as `wss://coordinator.example/`. A path that ends in `/` is put
    /// before `/ws/control/...`; any other path is left out. 1 to 2,048 characters. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
    /// The secret that our tokens are signed with, 1 to 256 printable characters. Default: none; then no token is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Whether tokens say when they were made and end after an hour; needs a clock that is right. Default false.
    pub jwt_exp: bool,
    /// A socket on which nothing has come for so long is closed and opened again. Heartbeats go out three times as often,
    /// and every 20 s at least. Old coordinators say something every 20 s: stay well above that with them. `"3s"` to
    /// `"10m"`. Default `"60s"`.
    #[schemars(extend("minSpan" = "3s", "maxSpan" = "10m"))]
    pub silence: Span,
    /// `wss://`: whether the coordinator's certificate is checked. Default true.
    pub verify: bool,
    /// `wss://`: file with the certificate authority to trust instead of the well-known ones, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// The gateway's address as encoders reach its RTMP server. Default: none; the coordinator takes the one that we come
    /// from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_ip: Option<IpAddr>,
    /// Port of its RTMP server as encoders reach it. 1 to 65,535. Default: that of the first `rtmp.listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub external_port: Option<u16>,
    /// Whether encoders shall come by RTMPS. Default false.
    pub external_tls: bool,
    /// Networks from which channels may be played, with the key that they are published with: those of the encoders. At
    /// most 64. Default: none, and nobody may.
    #[schemars(length(max = 64))]
    pub play_allow: Vec<Network>,
    /// While the gateway is a coordinator itself (`compat.coordinator`): the channels that are not its own but belong to
    /// the coordinator elsewhere; without a coordinator of its own, all do. At most 1,024. Default: none.
    #[schemars(length(max = 1024))]
    pub channels: Vec<String>,
    /// Mountpoints that are published as channels, by channel, for as long as they have a stream. At most 1,024. Default:
    /// none.
    #[schemars(extend("maxProperties" = 1024))]
    pub cameras: BTreeMap<String, ControlCamera>,
    /// How long those who publish may stay while the coordinator is lost; it is asked for each of them again when it is
    /// back. `"0s"` to `"1d"`. Default `"0s"`: they are sent away at once, as the coordinator expects.
    #[schemars(extend("maxSpan" = "1d"))]
    pub grace: Span,
    /// Longest channel or key, in bytes. 1 to 1,024. Default 128.
    #[schemars(range(min = 1, max = 1024))]
    pub id_max_length: u32,
    /// Channels that are published here at once. 1 to 10,000. Default 1,000.
    #[schemars(range(min = 1, max = 10000))]
    pub max_streams: u32,
}

impl Default for Control {
    fn default() -> Self {
        Control {
            enabled: false,
            url: None,
            secret: None,
            jwt_exp: false,
            silence: Span::from_secs(60),
            verify: yes(),
            ca: None,
            external_ip: None,
            external_port: None,
            external_tls: false,
            play_allow: Vec::new(),
            channels: Vec::new(),
            cameras: BTreeMap::new(),
            grace: Span::from_secs(0),
            id_max_length: 128,
            max_streams: 1_000,
        }
    }
}

/// A mountpoint that is a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlCamera {
    /// The mountpoint, no template.
    pub mountpoint: String,
    /// The channel's key: the coordinator verifies it, and encoders play with it. 1 to `id_max_length` of
    /// `A-Z a-z 0-9 _ -`.
    pub key: Secret,
}
