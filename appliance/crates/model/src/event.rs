//! What happened, for those who listen: the API's event stream, the compat APIs, the page.

use crate::Timestamp;
use crate::config::Problem;
use crate::plan::Shed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that happened. Ids rise by one, so that who missed some knows how many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its number since the program started, from 1.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A config was confirmed.
    ConfigConfirmed {
        /// Its revision.
        revision: u64,
        /// Who sent it.
        by: String,
    },
    /// A change runs and waits for confirmation.
    ConfigAwaitsConfirm {
        /// Undone if not confirmed by then.
        deadline: Timestamp,
        /// Who sent it.
        by: String,
    },
    /// A change was undone.
    ConfigRolledBack {
        /// Why.
        causes: Vec<Problem>,
        /// Who had sent it.
        by: String,
    },
    /// A stream began.
    StreamStarted {
        /// The mountpoint.
        mountpoint: String,
        /// Who publishes.
        publisher: String,
    },
    /// A stream ended.
    StreamEnded {
        /// The mountpoint.
        mountpoint: String,
        /// Why.
        cause: String,
    },
    /// A supervised part is ready (again).
    ChildReady {
        /// Which, as in logs: `push yard/9b35b8bb5b05`.
        child: String,
    },
    /// A supervised part failed.
    ChildFailed {
        /// Which.
        child: String,
        /// Why.
        cause: String,
        /// When it is tried again; never, if only other settings help.
        next_attempt: Option<Timestamp>,
    },
    /// Something is not encoded any more, for want of capacity, for heat or load.
    LoadShed(Shed),
    /// What was left out is encoded again.
    LoadTakenBack(Shed),
    /// A part did not stop when told to and was left behind.
    ChildStuck {
        /// Which.
        child: String,
    },
}
