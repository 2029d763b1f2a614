//! A coordinator elsewhere, which this gateway is an encoder of.

use super::source::yes;
use super::{CoordinatorCall, Secret, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Makes the gateway an encoder of a coordinator elsewhere, or of its own, which gives it streams of its cluster: each is
/// played from its streaming server by RTMP (the gateway's own are taken as they are), made into the renditions that are asked for, and left as HLS segments, lists and previews in
/// `folder`, or with `http`. See `docs/coordinator.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Encoder {
    /// Whether the gateway is an encoder of a coordinator. Default false.
    pub enabled: bool,
    /// The coordinator's `ws://` or `wss://` address, such as `wss://coordinator.example/`. A path that ends in `/` is put
    /// before `/ws/control/...`; any other path is left out. 1 to 2,048 characters. Default: none; then it is an encoder of
    /// the gateway's own `compat.coordinator`.
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
    /// `wss://`, `rtmps://` and `https://`: whether certificates are checked. Default true.
    pub verify: bool,
    /// The same: file with the certificate authority to trust instead of the well-known ones, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// Streams at once. -1 tells the coordinator of no limit, and 256 are taken; 0 takes none. -1 to 256. Default 4.
    #[schemars(range(min = -1, max = 256))]
    pub capacity: i32,
    /// Whether the capacity that is left is told after each stream: old coordinators never count an encoder's load down.
    /// A gateway as coordinator does; there false is right. Default true.
    pub reregister: bool,
    /// How long a segment shall be; it ends at the next keyframe. `"1s"` to `"60s"`. Default `"3s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "60s"))]
    pub segment: Span,
    /// Segments that a live list names; of a stream that is not recorded twice as many are kept. 3 to 1,000. Default 10.
    #[schemars(range(min = 3, max = 1000))]
    pub live_segments: u32,
    /// Segments in one list of a recorded stream, then the next begins. 1 to 86,400. Default 86,400.
    #[schemars(range(min = 1, max = 86400))]
    pub vod_segments: u32,
    /// Segments of one stream in all; then it is closed. 1 to 16,777,216. Default 16,777,216.
    #[schemars(range(min = 1, max = 16777216))]
    pub max_segments: u32,
    /// Folder for the files, an absolute path. Default: none; then `encoder` in the gateway's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub folder: Option<PathBuf>,
    /// Bytes that the folder may take; the files of the streams that ended first go. 16 MiB to 1 PiB. Default 4,294,967,296
    /// (4 GiB).
    #[schemars(range(min = 16777216, max = 1_125_899_906_842_624_i64))]
    pub folder_bytes: u64,
    /// A server that takes the files by `PUT` and `DELETE` below its address, instead of a folder. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<CoordinatorCall>,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder {
            enabled: false,
            url: None,
            secret: None,
            jwt_exp: false,
            silence: Span::from_secs(60),
            verify: yes(),
            ca: None,
            capacity: 4,
            reregister: yes(),
            segment: Span::from_secs(3),
            live_segments: 10,
            vod_segments: 86_400,
            max_segments: 16_777_216,
            folder: None,
            folder_bytes: 4 << 30,
            http: None,
        }
    }
}
