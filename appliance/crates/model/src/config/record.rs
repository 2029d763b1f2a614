//! Keeping a mountpoint's stream on disk.

use super::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A stream kept on disk as segments, watched at `http://HOST/rec/NAME/master.m3u8?key=KEY&from=TIME&to=TIME`. Who may
/// watch is said by `play.key` and `play.allow`. What was recorded before a mask was added is deleted with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Record {
    /// Bytes that recordings may take; the oldest segments go. 16 MiB to 1 PiB. Default 1,073,741,824 (1 GiB).
    #[schemars(range(min = 16777216, max = 1_125_899_906_842_624_i64))]
    pub bytes: u64,
    /// Segments older than this go. `"1m"` to `"3650d"`. Default `"7d"`.
    #[schemars(extend("minSpan" = "1m", "maxSpan" = "3650d"))]
    pub age: Span,
    /// How long a segment shall be; it ends at the next keyframe. A power cut costs at most one. `"1s"` to `"60s"`.
    /// Default `"6s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "60s"))]
    pub segment: Span,
}

impl Record {
    /// Bytes of segments that a recorder keeps in memory at most; counts against `media.memory_bytes`.
    pub const MEMORY_BYTES: u64 = 16 << 20;
}

impl Default for Record {
    fn default() -> Self {
        Record { bytes: 1 << 30, age: Span::from_secs(7 * 86_400), segment: Span::from_secs(6) }
    }
}
