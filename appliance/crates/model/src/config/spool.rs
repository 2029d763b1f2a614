//! What an upstream has not acknowledged, kept on disk.

use super::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Frames that an upstream has not acknowledged, kept on disk: they outlast a lost link, a restart and a power cut.
/// When the upstream comes back they are sent in order, the oldest first, and what is live behind them; unless the push
/// says `"order": "live_first"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// Bytes on disk per track at most; beyond, the oldest go. 8,388,608 (8 MiB) to 1,099,511,627,776 (1 TiB).
    /// Default 268,435,456 (256 MiB).
    #[schemars(range(min = 8388608, max = 1099511627776_i64))]
    pub bytes: u64,
    /// Frames older than this go. `"1m"` to `"30d"`. Default `"24h"`.
    #[schemars(extend("minSpan" = "1m", "maxSpan" = "30d"))]
    pub age: Span,
    /// Frames are written together after this time at the latest; those that are acknowledged before never are.
    /// A power cut costs so much. Longer is kinder to flash. `"100ms"` to `"60s"`. Default `"1s"`.
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "60s"))]
    pub sync: Span,
    /// How fast the backlog is sent beside what is live, in percent of the live rate, so that the live stream keeps its
    /// share of the link. 10 to 10,000. Default 300.
    #[schemars(range(min = 10, max = 10000))]
    pub backlog_percent: u32,
}

impl Default for Spool {
    fn default() -> Self {
        Spool {
            bytes: 256 << 20,
            age: Span::from_secs(24 * 3_600),
            sync: Span::from_secs(1),
            backlog_percent: 300,
        }
    }
}
