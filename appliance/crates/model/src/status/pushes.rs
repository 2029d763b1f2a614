//! What leaves the gateway: the pushes, the forms of a stream that they need, and what waits for them on disk.

use super::{Activity, Counters, EncoderStatus, StreamStatus};
use crate::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One push.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PushStatus {
    /// Its address, secrets masked.
    pub url: String,
    /// Whether the config wants it to run.
    pub enabled: bool,
    /// How it does.
    #[serde(flatten)]
    pub activity: Activity,
    /// What it sent.
    pub counters: Counters,
    /// KMP only: what its receiver has acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kmp: Option<KmpPushStatus>,
    /// The rendition that it sends; absent: the mountpoint's own stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendition: Option<String>,
    /// What waits on disk, by track; only with a spool.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub spool: BTreeMap<String, SpoolStatus>,
}

/// A form of a stream that some pushes need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RenditionStatus {
    /// How it does.
    #[serde(flatten)]
    pub activity: Activity,
    /// Why it is made.
    pub reason: String,
    /// What would make it needless, or possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What it costs, as planned: encoder sessions.
    pub encoder_sessions: u32,
    /// What it costs, as planned: per cent of a core.
    pub cpu_percent: u32,
    /// The encoder at work, where pictures are encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderStatus>,
    /// The stream that comes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamStatus>,
    /// Units that its worker, the one that runs now, was too slow for.
    pub dropped_units: u64,
}

/// One track's frames on disk that its upstream has not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SpoolStatus {
    /// Frames that wait.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest was captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Timestamp>,
    /// Why frames are kept in memory alone for now, if the disk can't take them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Bytes of frames handed in since the start.
    pub appended_bytes: u64,
    /// Bytes written to disk since the start; what is acknowledged in time never is.
    pub written_bytes: u64,
    /// Bytes written to flash in the last 24 hours, in whole pages.
    pub flash_bytes_per_day: u64,
}

/// What a KMP receiver has acknowledged, pictures and sound together, since the push is in the config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KmpPushStatus {
    /// Frames that it acknowledged.
    pub acked_frames: u64,
    /// Frames that were sent to the end of a stream, without an ack of theirs.
    pub unconfirmed_frames: u64,
    /// Frames that wait to be acknowledged.
    pub unacked_frames: u64,
    /// Frames that will not be delivered.
    pub lost_frames: u64,
    /// Connections that came up.
    pub connections: u64,
    /// Why there is no connection now, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
