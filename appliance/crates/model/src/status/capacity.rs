//! The machine's room for encoding, as it is shown.

use crate::plan::Shed;
use crate::{Event, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What encoding may take of the machine, what it takes, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CapacityStatus {
    /// Whether encoders were tried and measured; that happens once something needs one.
    pub measured: bool,
    /// Processor time that the plan takes, per cent of one core.
    pub planned_cpu_percent: u32,
    /// Processor time that may be taken, per cent of one core.
    pub cpu_limit_percent: u32,
    /// Processor time that the gateway with its workers takes now, per cent of one core; none where unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Sessions of hardware encoders that the plan takes.
    pub encoder_sessions: u32,
    /// Sessions of hardware encoders that may be taken.
    pub encoder_sessions_limit: u32,
    /// Of the hottest zone, degrees Celsius; none where there is no zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<i32>,
    /// From where on it is too hot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_limit_c: Option<i32>,
    /// Per cent of the last ten seconds in which some task waited for a processor; none where the kernel does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure_percent: Option<u32>,
    /// What is left out now, in the order in which it went.
    pub shed: Vec<ShedStatus>,
    /// The last things that were left out or taken back.
    pub events: Vec<Event>,
}

/// Something that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShedStatus {
    /// What and why.
    #[serde(flatten)]
    pub shed: Shed,
    /// Since when.
    pub since: Timestamp,
}
