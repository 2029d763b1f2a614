//! Controllers that choose KMP upstreams for published streams, called as Kaltura's RTMP-to-KMP connector calls them.

use super::source::yes;
use super::{Aggregator, Control, Coordinator, Encoder, MeshNode, Network, Secret, SecretUrl, Span, listen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Other systems' ways to control this gateway. All are off until they are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Compat {
    /// Kaltura's RTMP-to-KMP connector: a controller says by HTTP callbacks who may publish and where each track goes.
    pub kmp: KmpControl,
    /// Media aggregators: a content manager registers cameras and says to which streaming engines they are pushed.
    pub aggregator: Aggregator,
    /// A node of an RTMP mesh whose master says who may publish, where streams go, and who may watch.
    pub node: MeshNode,
    /// The coordinator of streaming servers and encoders, which says who may publish and which encoder takes what.
    pub coordinator: Coordinator,
    /// A coordinator elsewhere, which this gateway is a streaming server of.
    pub control: Control,
    /// A coordinator elsewhere, which this gateway is an encoder of.
    pub encoder: Encoder,
}

/// Published streams whose KMP upstreams a controller chooses, and the API that shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KmpControl {
    /// RTMP applications by name. A name is 1 to 64 of the characters `A-Z a-z 0-9 . _ -`; `live` may stand here, too:
    /// its streams keep the mountpoints of the config. Default: none.
    #[schemars(extend("maxProperties" = 64))]
    pub applications: BTreeMap<String, KmpApplication>,
    /// The connector's status and session API.
    pub api: KmpControlApi,
}

/// One RTMP application under a controller. The defaults are the connector's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KmpApplication {
    /// `http://` or `https://` address asked at each RTMP `connect`. Default: none; then whom the config lets in is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_url: Option<SecretUrl>,
    /// `http://` or `https://` address asked for each track's upstreams when its first frame has come. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_url: Option<SecretUrl>,
    /// `http://` or `https://` address told when a track has ended. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpublish_url: Option<SecretUrl>,
    /// `http://` or `https://` address asked for a new upstream when one is lost. Default: none; then a lost upstream is
    /// a failed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub republish_url: Option<SecretUrl>,
    /// Headers added to each callback, in this order. At most 16. Default: none.
    #[schemars(length(max = 16))]
    pub add_header: Vec<KmpHeader>,
    /// Time for connecting to a controller and sending it a callback. `"10ms"` to `"10m"`. Default `"2s"`.
    #[schemars(extend("minSpan" = "10ms", "maxSpan" = "10m"))]
    pub timeout: Span,
    /// Time for a controller's reply. `"10ms"` to `"10m"`. Default `"20s"`.
    #[schemars(extend("minSpan" = "10ms", "maxSpan" = "10m"))]
    pub read_timeout: Span,
    /// Longest reply of a controller with its header, in bytes. 256 to 1,048,576. Default 4,096.
    #[schemars(range(min = 256, max = 1048576))]
    pub buffer_bytes: u32,
    /// How often a failed callback is tried again. 0 to 1,000. Default 5.
    #[schemars(range(min = 0, max = 1000))]
    pub retries: u32,
    /// Wait between a failed callback and the next try. `"0s"` to `"1h"`. Default `"2s"`.
    #[schemars(extend("minSpan" = "0s", "maxSpan" = "1h"))]
    pub retry_interval: Span,
    /// HTTPS callbacks and `kmps://` upstreams: whether the server's certificate is checked. Default true.
    pub verify: bool,
    /// HTTPS callbacks and `kmps://` upstreams: file with the certificate authority to trust instead of the well-known
    /// ones, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// Ticks per second of KMP times and frame ids. 1,000 to 10,000,000, a multiple of 1,000. Default 90,000.
    #[schemars(range(min = 1000, max = 10000000))]
    pub timescale: u32,
    /// Time for connecting to an upstream, and for each wait until it takes some of what is to be sent. `"100ms"` to
    /// `"10m"`. Default `"10s"`.
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "10m"))]
    pub write_timeout: Span,
    /// Free buffers kept for use again, per track. 0 to 1,024. Default 4. Taken from the connector; has no effect here,
    /// as frames are not copied into buffers.
    #[schemars(range(min = 0, max = 1024))]
    pub max_free_buffers: u32,
    /// Sizes into which free buffers are sorted. 1 to 64. Default 8. Taken from the connector; has no effect here.
    #[schemars(range(min = 1, max = 64))]
    pub buffer_bin_count: u32,
    /// Share of a track's memory, in percent, over which the oldest sent frames count as acknowledged. 1 to 100.
    /// Default 75.
    #[schemars(range(min = 1, max = 100))]
    pub mem_high_watermark: u8,
    /// Share of a track's memory, in percent, down to which they then do. 0 to 99, less than `mem_high_watermark`.
    /// Default 50.
    #[schemars(range(min = 0, max = 99))]
    pub mem_low_watermark: u8,
    /// Video frames are written at the latest when this many bytes wait. 256 to 16 MiB. Default 65,536.
    #[schemars(range(min = 256, max = 16777216))]
    pub video_buffer_bytes: u32,
    /// Memory for a video track's frames that are not acknowledged, in bytes. 4,096 to 4 GiB. Default 50,331,648
    /// (48 MiB).
    #[schemars(range(min = 4096, max = 4_294_967_296_i64))]
    pub video_mem_limit: u64,
    /// Audio frames are written at the latest when this many bytes wait. 256 to 16 MiB. Default 4,096.
    #[schemars(range(min = 256, max = 16777216))]
    pub audio_buffer_bytes: u32,
    /// Memory for an audio track's frames that are not acknowledged, in bytes. 4,096 to 4 GiB. Default 1,048,576 (1 MiB).
    #[schemars(range(min = 4096, max = 4_294_967_296_i64))]
    pub audio_mem_limit: u64,
    /// AAC times that lie within this of their place in an even row of frames are put there. `"0ms"` (off) to `"1s"`.
    /// Default `"2ms"`.
    #[schemars(extend("minSpan" = "0ms", "maxSpan" = "1s"))]
    pub audio_sync_margin: Span,
    /// Longest wait of a frame for others to be written with. `"0ms"` (none) to `"10s"`. Default `"1s"`; live video wants
    /// less, such as `"50ms"`.
    #[schemars(extend("minSpan" = "0ms", "maxSpan" = "10s"))]
    pub flush_timeout: Span,
    /// Least time between two `republish` callbacks for one upstream. `"0s"` to `"1h"`. Default `"1s"`.
    #[schemars(extend("minSpan" = "0s", "maxSpan" = "1h"))]
    pub republish_interval: Span,
    /// `republish` callbacks in a row that may come faster than that; then the upstream has failed. 0 to 10,000.
    /// Default 15.
    #[schemars(range(min = 0, max = 10000))]
    pub max_republishes: u32,
    /// A connection of this application that sends neither video nor audio for this time is closed. `"0s"` (only
    /// `rtmp.idle_timeout` counts) to `"1h"`. Default `"30s"`.
    #[schemars(extend("minSpan" = "0s", "maxSpan" = "1h"))]
    pub idle_timeout: Span,
    /// Whether each frame of a track is logged, at level info. Default false.
    pub log_frames: bool,
    /// Whether the connector's defects are kept, too: for a media cluster that counts on them. See `docs/kmp.md`.
    /// Default false.
    pub strict: bool,
    /// Streams of this application at once, other than `live`. 1 to 10,000. Default 64.
    #[schemars(range(min = 1, max = 10000))]
    pub max_streams: u32,
}

impl Default for KmpApplication {
    fn default() -> Self {
        KmpApplication {
            connect_url: None,
            publish_url: None,
            unpublish_url: None,
            republish_url: None,
            add_header: Vec::new(),
            timeout: Span::from_secs(2),
            read_timeout: Span::from_secs(20),
            buffer_bytes: 4 << 10,
            retries: 5,
            retry_interval: Span::from_secs(2),
            verify: yes(),
            ca: None,
            timescale: 90_000,
            write_timeout: Span::from_secs(10),
            max_free_buffers: 4,
            buffer_bin_count: 8,
            mem_high_watermark: 75,
            mem_low_watermark: 50,
            video_buffer_bytes: 64 << 10,
            video_mem_limit: 48 << 20,
            audio_buffer_bytes: 4 << 10,
            audio_mem_limit: 1 << 20,
            audio_sync_margin: Span::from_millis(2),
            flush_timeout: Span::from_secs(1),
            republish_interval: Span::from_secs(1),
            max_republishes: 15,
            idle_timeout: Span::from_secs(30),
            log_frames: false,
            strict: false,
            max_streams: 64,
        }
    }
}

impl KmpApplication {
    /// The callback URLs that are set, each with its setting's name.
    pub fn urls(&self) -> impl Iterator<Item = (&'static str, &SecretUrl)> {
        let all = [
            ("connect_url", &self.connect_url),
            ("publish_url", &self.publish_url),
            ("unpublish_url", &self.unpublish_url),
            ("republish_url", &self.republish_url),
        ];
        all.into_iter().filter_map(|(name, url)| Some((name, url.as_ref()?)))
    }
}

/// One header of callbacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KmpHeader {
    /// Its name, 1 to 64 characters; not one that callbacks have anyway.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Its value, 1 to 256 printable characters. Reads back masked, as it often is a key.
    pub value: Secret,
}

/// The connector's API: `rtmp_kmp_api` at `/` and `/rtmp_kmp_api/`, `kmp_out_api` at `/kmp_out_api/`. It has no login
/// and shows the arguments of stream names, which often are keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KmpControlApi {
    /// Addresses with port to listen on; port 0 lets the kernel choose. At most 16. Default: none, the API is off.
    #[schemars(with = "Vec<listen::Address>", length(max = 16))]
    pub listen: Vec<SocketAddr>,
    /// Whether sessions may be dropped and upstreams added or removed through it. Default false: it only shows.
    pub write: bool,
    /// Networks that may use it. At most 64. Default: only loopback.
    #[schemars(length(max = 64))]
    pub allow: Vec<Network>,
}
