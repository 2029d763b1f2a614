//! One mountpoint: its source, its outputs, its bounds.

use super::{Audio, Hls, Play, Push, Record, Source, Span, Truth, Video};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One stream: where it comes from, where it goes, what it may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mountpoint {
    /// Where the stream comes from.
    pub source: Source,
    /// What happens to its pictures.
    #[serde(default)]
    pub video: Video,
    /// What happens to its sound.
    #[serde(default)]
    pub audio: Audio,
    /// The servers that it is pushed to. At most 32. In a template's URLs `{name}` stands for the stream's name.
    /// Default: none.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub push: Vec<Push>,
    /// Who may play it, and how.
    #[serde(default)]
    pub play: Play,
    /// Watching by HLS, from `http.listen`. Default: off; `{}` turns it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hls: Option<Hls>,
    /// Keeping the stream on disk. Default: off; `{}` turns it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// How important it is, 0 to 100. Where the machine cannot encode all, or gets too hot, what encodes for the least
    /// important mountpoint is left out first. Default 50.
    #[serde(default = "default_priority")]
    #[schemars(range(max = 100))]
    pub priority: u8,
    /// Templates only: how many streams may exist under it at once. 1 to 10,000. Default 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max: Option<u32>,
    /// How long subscribers and pushes stay when the publisher goes; one that returns within it continues the
    /// timeline. `"0s"` to `"1h"`. Default `"15s"`.
    #[serde(default = "default_grace")]
    #[schemars(extend("minSpan" = "0s", "maxSpan" = "1h"))]
    pub grace: Span,
    /// How much of the stream is kept for late joiners and slow readers.
    #[serde(default)]
    pub ring: Ring,
    /// A subscriber that lags more than this jumps to the newest keyframe. `"100ms"` to `"60s"`, no more than
    /// `ring.age`. Default `"5s"`.
    #[serde(default = "default_max_lag")]
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "60s"))]
    pub max_lag: Span,
    /// How its picture is watched, and what is done when it is not the truth.
    #[serde(default)]
    pub truth: Truth,
}

impl Mountpoint {
    /// Streams under a template that does not say `max`.
    pub const DEFAULT_MAX: u32 = 64;

    /// A mountpoint with this source and defaults for all else.
    pub fn new(source: Source) -> Self {
        Mountpoint {
            source,
            video: Video::default(),
            audio: Audio::default(),
            push: Vec::new(),
            play: Play::default(),
            hls: None,
            record: None,
            priority: default_priority(),
            max: None,
            grace: default_grace(),
            ring: Ring::default(),
            max_lag: default_max_lag(),
            truth: Truth::default(),
        }
    }
}

fn default_priority() -> u8 {
    50
}

fn default_grace() -> Span {
    Span::from_secs(15)
}

fn default_max_lag() -> Span {
    Span::from_secs(5)
}

/// The bound of a mountpoint's ring; the oldest units go when either is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ring {
    /// Bytes. 65,536 to 1 GiB. Default 8,388,608 (8 MiB).
    #[schemars(range(min = 65536, max = 1073741824))]
    pub bytes: u64,
    /// Age. `"1s"` to `"10m"`. Default `"10s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "10m"))]
    pub age: Span,
}

impl Default for Ring {
    fn default() -> Self {
        Ring { bytes: 8 << 20, age: Span::from_secs(10) }
    }
}
