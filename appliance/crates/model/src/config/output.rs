//! Where a mountpoint's stream goes: players and upstreams.

use super::source::{default_backoff_cap, yes};
use super::{Accepts, Network, Secret, SecretUrl, Span, Spool};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a player gets that comes before the publisher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenAbsent {
    /// It waits for the stream.
    #[default]
    Wait,
    /// `NetStream.Play.StreamNotFound`.
    Refuse,
}

/// Who may play a mountpoint from `rtmp://HOST/live/NAME?key=KEY`, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Play {
    /// Key that a player must show, 1 to 256 printable characters. Default: none; then only loopback and the
    /// addresses in `allow` may play.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// Networks that may play, such as `"10.0.0.0/8"`; with a key, both must fit. At most 64. Default: with a key
    /// any address, without one only loopback.
    #[schemars(length(max = 64))]
    pub allow: Vec<Network>,
    /// What a player gets while nobody publishes. Default `"wait"`.
    pub when_absent: WhenAbsent,
    /// Collects units for this time before each write: saves a third of the processor time, costs latency.
    /// `"0ms"` to `"1s"`. Default `"0ms"`: every unit at once.
    #[schemars(extend("minSpan" = "0ms", "maxSpan" = "1s"))]
    pub gather: Span,
    /// RTMP chunk size towards players, in bytes. 128 to 16,777,215. Default 1,048,576; 4,096 helps very old players.
    #[schemars(range(min = 128, max = 16777215))]
    pub chunk_len: u32,
}

impl Default for Play {
    fn default() -> Self {
        Play {
            key: None,
            allow: Vec::new(),
            when_absent: WhenAbsent::default(),
            gather: Span::ZERO,
            chunk_len: 1 << 20,
        }
    }
}

/// One upstream that a mountpoint is pushed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Where to: `rtmp://`, `rtmps://`, `kmp://`, or `kmps://` (KMP over TLS, between gateways).
    pub url: SecretUrl,
    /// Name of this push in status and commands, 1 to 64 of `A-Z a-z 0-9 . _ -`, unique in its mountpoint.
    /// Default: a hash of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub id: Option<String>,
    /// Whether it runs. Default true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Collects units for this time before each write: saves a third of the processor time, costs latency.
    /// `"0ms"` to `"1s"`. Default `"0ms"`: every unit at once.
    #[serde(default)]
    #[schemars(extend("minSpan" = "0ms", "maxSpan" = "1s"))]
    pub gather: Span,
    /// RTMP only: chunk size in bytes. 128 to 65,536, as some servers refuse more. Default 65,536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 128, max = 65536))]
    pub chunk_len: Option<u32>,
    /// Longest wait between two attempts. `"1s"` to `"1h"`. Default `"3s"`.
    #[serde(default = "default_backoff_cap")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1h"))]
    pub backoff_cap: Span,
    /// An upstream that takes nothing for this time is connected anew. `"1s"` to `"10m"`. Default `"10s"`.
    #[serde(default = "default_write_timeout")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "10m"))]
    pub write_timeout: Span,
    /// TLS only: whether the server's certificate is checked. Default true.
    #[serde(default = "yes")]
    pub verify: bool,
    /// TLS only: file with the certificate authority to trust instead of the well-known ones, PEM. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// What the receiver takes. Default: whatever the protocol carries.
    #[serde(default, skip_serializing_if = "Accepts::is_default")]
    pub accepts: Accepts,
    /// KMP only, required there: the channel's name, 1 to 32 printable characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub channel_id: Option<String>,
    /// KMP only: the tracks' names. Default `{"video": "v1", "audio": "a1"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track_ids: Option<TrackIds>,
    /// KMP only: keeps what the upstream has not acknowledged on disk. Default: off, in memory alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<Spool>,
    /// KMP only, without `spool`: how much of what the upstream has not acknowledged is kept in memory. Default:
    /// `{"video_bytes": 16777216, "audio_bytes": 1048576}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<PushMemory>,
    /// KMP only: what is sent first after an outage. Default `"oldest_first"`.
    #[serde(default)]
    pub order: PushOrder,
    /// KMP only, required with `"order": "live_first"`: the channel for what is not live, 1 to 32 printable characters. The
    /// upstream must take it as it takes `channel_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub backlog_channel_id: Option<String>,
}

impl Push {
    /// RTMP chunk size where the config names none.
    pub const DEFAULT_CHUNK_LEN: u32 = 65_536;

    /// A push to this URL with defaults for all else.
    pub fn new(url: SecretUrl) -> Self {
        Push {
            url,
            id: None,
            enabled: true,
            gather: Span::ZERO,
            chunk_len: None,
            backoff_cap: default_backoff_cap(),
            write_timeout: default_write_timeout(),
            verify: true,
            ca: None,
            accepts: Accepts::default(),
            channel_id: None,
            track_ids: None,
            spool: None,
            memory: None,
            order: PushOrder::default(),
            backlog_channel_id: None,
        }
    }

    /// What the ids of an aggregator's pushes to streaming engines begin with: their application follows the camera's
    /// type.
    pub const ENGINE_ID: &'static str = "engine-";

    /// Whether its application follows the type of the camera that it belongs to.
    pub fn is_to_engine(&self) -> bool {
        self.id.as_deref().is_some_and(|id| id.starts_with(Push::ENGINE_ID))
    }

    /// Bytes that it keeps in memory at most, if it is a KMP push without a spool.
    pub fn memory_bytes(&self) -> u64 {
        let is_kmp = self.url.reveal().get(..3).is_some_and(|start| start.eq_ignore_ascii_case("kmp"));
        if !is_kmp || self.spool.is_some() || !self.enabled {
            return 0;
        }
        let memory = self.memory.clone().unwrap_or_default();
        memory.video_bytes.saturating_add(memory.audio_bytes)
    }

    /// `id`, or where it is not set twelve hex digits of a hash of the URL.
    ///
    /// The URL is hashed with its secrets masked: the id then tells nothing about them and stays when they change.
    pub fn effective_id(&self) -> String {
        match &self.id {
            Some(id) => id.clone(),
            None => format!("{:012x}", fnv1a(self.url.redacted().as_bytes()) & 0xffff_ffff_ffff),
        }
    }
}

/// What a KMP push sends first after an outage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushOrder {
    /// Everything in order, what is live last.
    #[default]
    OldestFirst,
    /// What is live goes on at once; what is older follows on `backlog_channel_id`.
    LiveFirst,
}

/// Memory for what a KMP upstream has not acknowledged; beyond it the oldest GOPs go, and the ledger names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PushMemory {
    /// Bytes of pictures. 262,144 (256 KiB) to 1,073,741,824 (1 GiB). Default 16,777,216 (16 MiB).
    #[schemars(range(min = 262144, max = 1073741824))]
    pub video_bytes: u64,
    /// Bytes of sound. 16,384 (16 KiB) to 67,108,864 (64 MiB). Default 1,048,576 (1 MiB).
    #[schemars(range(min = 16384, max = 67108864))]
    pub audio_bytes: u64,
    /// How fast the backlog is sent beside what is live, in percent of the live rate. 10 to 10,000. Default 300.
    #[schemars(range(min = 10, max = 10000))]
    pub backlog_percent: u32,
}

impl Default for PushMemory {
    fn default() -> Self {
        PushMemory { video_bytes: 16 << 20, audio_bytes: 1 << 20, backlog_percent: 300 }
    }
}

/// Names of the tracks of a KMP upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrackIds {
    /// The video track's name, 1 to 32 printable characters. Default `"v1"`.
    #[schemars(length(min = 1, max = 32))]
    pub video: String,
    /// The audio track's name, 1 to 32 printable characters. Default `"a1"`.
    #[schemars(length(min = 1, max = 32))]
    pub audio: String,
}

impl Default for TrackIds {
    fn default() -> Self {
        TrackIds { video: "v1".to_owned(), audio: "a1".to_owned() }
    }
}

fn default_write_timeout() -> Span {
    Span::from_secs(10)
}

/// FNV-1a, 64 bits: stable for ever, which the standard library's hashers do not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_when_only_the_password_changes() {
        let id = |url: &str| Push::new(SecretUrl::new(url)).effective_id();
        assert_eq!(id("rtmp://u:one@h/live/a"), id("rtmp://u:two@h/live/a"));
        assert_ne!(id("rtmp://h/live/a"), id("rtmp://h/live/b"));
        assert_eq!(id("rtmp://127.0.0.1:2935/live/yard"), "74df127733fa");
    }
}
