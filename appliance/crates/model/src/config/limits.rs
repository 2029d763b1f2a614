//! How much of the machine may be used before encoding is refused or left out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds for what costs much: decoding and encoding. A change that would exceed them is refused; what runs is left
/// out by `mountpoints.NAME.priority`, the least important first, when the machine gets too hot or too busy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Share of all processor cores that the gateway's decoding and encoding may take, per cent. 1 to 100. Default 80.
    #[schemars(range(min = 1, max = 100))]
    pub cpu_percent: u8,
    /// Temperature of the hottest thermal zone from which on encoding is left out, degrees Celsius, 30 to 125; taken
    /// back 5 degrees below. Default: 5 degrees below the zone's own critical point, or 90 where it names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 125))]
    pub temperature_c: Option<u8>,
    /// Sessions of the hardware encoder that may be used at once, 0 to 64. Default: as many as it was seen to open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 64))]
    pub encoder_sessions: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { cpu_percent: 80, temperature_c: None, encoder_sessions: None }
    }
}
