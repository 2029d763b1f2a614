//! The plane on which viewers watch by HTTP, and what of a mountpoint they see there.

use super::{ListenTls, Span, listen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The HTTP server that viewers watch from, at `http://HOST/hls/NAME/master.m3u8?key=KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Addresses with port to listen on; port 0 lets the kernel choose. At most 16. Default: none; then nobody watches by
    /// HTTP.
    #[schemars(with = "Vec<listen::Address>", length(max = 16))]
    pub listen: Vec<SocketAddr>,
    /// HTTPS. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenTls>,
    /// Connections on all of these listeners together; more are refused. 1 to 65,536. Default 1,024.
    #[schemars(range(min = 1, max = 65536))]
    pub max_connections: u32,
    /// Connections from one address; more are refused. 1 to 65,536. Default 64.
    #[schemars(range(min = 1, max = 65536))]
    pub max_connections_per_address: u32,
    /// Viewers on all mountpoints together; more get 503. 1 to 65,536. Default 1,024.
    #[schemars(range(min = 1, max = 65536))]
    pub max_viewers: u32,
    /// Viewers from one address; more get 503. 1 to 65,536. Default 64.
    #[schemars(range(min = 1, max = 65536))]
    pub max_viewers_per_address: u32,
    /// A viewer who asks for nothing is forgotten after this time. `"5s"` to `"1h"`. Default `"60s"`.
    #[schemars(extend("minSpan" = "5s", "maxSpan" = "1h"))]
    pub viewer_timeout: Span,
    /// Time for a request's head, and between two requests of a connection. `"1s"` to `"10m"`. Default `"20s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "10m"))]
    pub head_timeout: Span,
    /// A viewer that has not taken a whole answer in this time is disconnected. `"1s"` to `"10m"`. Default `"60s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "10m"))]
    pub write_timeout: Span,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            listen: Vec::new(),
            tls: None,
            max_connections: 1_024,
            max_connections_per_address: 64,
            max_viewers: 1_024,
            max_viewers_per_address: 64,
            viewer_timeout: Span::from_secs(60),
            head_timeout: Span::from_secs(20),
            write_timeout: Span::from_secs(60),
        }
    }
}

/// How a mountpoint is cut into segments for viewers. That begins with the first viewer and stops after the last. Who may
/// watch is said by `play.key` and `play.allow`. A change takes effect when it next begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hls {
    /// How long a segment shall be; it ends at the next keyframe. `"1s"` to `"60s"`. Default `"2s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "60s"))]
    pub segment: Span,
    /// How long a part of a segment is, for players that know Low-Latency HLS. `"0ms"` (no parts) to `"5s"`; at most
    /// `segment`. Default `"500ms"`.
    #[schemars(extend("minSpan" = "0ms", "maxSpan" = "5s"))]
    pub part: Span,
    /// What playlists name; as much again is kept for viewers that are late. `"3s"` to `"1h"`, at least three segments.
    /// Default `"12s"`.
    #[schemars(extend("minSpan" = "3s", "maxSpan" = "1h"))]
    pub window: Span,
    /// Segments are kept for so long after the last viewer. `"5s"` to `"1h"`. Default `"30s"`.
    #[schemars(extend("minSpan" = "5s", "maxSpan" = "1h"))]
    pub idle: Span,
    /// Bytes that segments may take; the oldest go. 1 MiB to 4 GiB. Counts against `media.memory_bytes`. Default
    /// 33,554,432 (32 MiB).
    #[schemars(range(min = 1048576, max = 4_294_967_296_i64))]
    pub memory_bytes: u64,
    /// Other mountpoints that show the same scene at other sizes (a camera's second stream): players of HLS choose among
    /// them. Each has `hls` of its own; who may watch this one may watch them through it. At most 8. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub renditions: Vec<String>,
    /// Smaller sizes that the gateway makes itself, each from its first viewer on until a while after its last, as far as the
    /// machine has room beside what the config says elsewhere. At most 4. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub sizes: Vec<Size>,
}

/// A size that is made for viewers: H.264 pictures, and the sound as it is. Streams that are not larger do not have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Lines of its pictures, even; the width follows from the stream's shape. 64 to 2,160.
    #[schemars(range(min = 64, max = 2160))]
    pub height: u32,
    /// Bits per second of its pictures. 10,000 to 50,000,000. Default 600,000.
    #[serde(default = "size_bitrate")]
    #[schemars(range(min = 10000, max = 50000000))]
    pub bitrate: u32,
    /// Of more pictures a second some are left out. 1 to 60. Default: none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60))]
    pub max_frame_rate: Option<u32>,
}

impl Size {
    /// What it is called among its stream's.
    pub fn name(&self) -> String {
        format!("{}p", self.height)
    }

    /// Pixels across and down that pictures of this size have; none where the stream's own are not larger.
    pub fn of(&self, width: u32, height: u32) -> Option<(u32, u32)> {
        let across = u64::from(width) * u64::from(self.height);
        let across = across.checked_div(2 * u64::from(height)).unwrap_or(0) * 2;
        let across = u32::try_from(across).ok().filter(|across| *across > 0);
        across.filter(|_| height > self.height).map(|across| (across, self.height))
    }
}

fn size_bitrate() -> u32 {
    600_000
}

impl Default for Hls {
    fn default() -> Self {
        Hls {
            segment: Span::from_secs(2),
            part: Span::from_millis(500),
            window: Span::from_secs(12),
            idle: Span::from_secs(30),
            memory_bytes: 32 << 20,
            renditions: Vec::new(),
            sizes: Vec::new(),
        }
    }
}
