//! The machine's own network, time and firmware: what is wanted of them is carried out by a small root unit.
//!
//! ```text
//!  gateway (unprivileged)                       fieldgate system-helper (root, one start for each wish)
//!  Desk --{"verb":"set_network",...}--> socket --> who asks? -> whole and bounded? -> files -> networkctl reload
//!       <------ {"done":true} ---------
//! ```
//!
//! All that the helper writes for networkd and timesyncd is in `/run`: after a power cut in the middle of a change the
//! machine comes up as its image has it, and the gateway sets the confirmed network anew.

mod desk;
mod facts;
mod files;
mod firmware;
mod helper;

pub use desk::{AskError, Desk, State};
pub use facts::{Facts, LinkFacts, Route, TimeFacts};
pub use firmware::{BundleFacts, Firmware, Slot};
pub use helper::{HelperError, Places, main};

use fieldgate_model::config::{MachineNetwork, MachineTime, StoredError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Longest request, in bytes: sixteen interfaces with all that they can have fit several times.
const MAX_REQUEST: u64 = 64 << 10;
/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 16 << 10;

/// All that can be asked of the helper.
#[derive(Debug, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
enum Wish {
    /// Make the machine's network this.
    SetNetwork {
        /// All of it; what it does not name goes back to the image's own.
        network: MachineNetwork,
    },
    /// Make the machine's time settings this.
    SetTime {
        /// All of it.
        time: MachineTime,
    },
    /// Tell what RAUC says of the machine's firmware.
    ShowFirmware,
    /// Tell what the bundle is that waits, if RAUC believes its signature.
    InspectBundle,
    /// Begin to install the bundle that waits.
    InstallBundle,
    /// Keep the slot that runs, or start it no more.
    MarkSlot {
        /// Whether it is kept.
        good: bool,
    },
    /// Start the machine anew.
    RestartMachine,
}

impl Wish {
    /// The line that asks for a network.
    fn network(network: &MachineNetwork) -> Result<Value, StoredError> {
        Ok(json!({"verb": "set_network", "network": network.stored()?}))
    }

    /// The line that asks for time settings.
    fn time(time: &MachineTime) -> Value {
        json!({"verb": "set_time", "time": time})
    }
}

/// What the helper answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Said {
    /// It is so now.
    Done(bool),
    /// What RAUC says.
    Firmware(Firmware),
    /// What the bundle is.
    Bundle(BundleFacts),
    /// Why it is not.
    Refused(String),
}
