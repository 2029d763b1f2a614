//! What the admin plane asks of the gateway, as a trait: the steward and the status fulfil it in `main`.
//!
//! All methods are called on the admin plane's own threads and may wait there, for seconds at most; [`AdminApi::health`]
//! and the page's reads must not wait at all, as a stuck one counts as a stuck HTTP server.

use serde::Serialize;
use tokio::time::Instant;

/// One thing wrong with what was sent, told so that a person can put it right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: `mountpoints.gate-2.push[0].url`; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What was there; never a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The config as it may be shown, and the revision that it has.
#[derive(Clone, Debug)]
pub struct ConfigView {
    /// Counts confirmed changes; the ETag.
    pub revision: u64,
    /// The config as JSON with secrets masked.
    pub json: Vec<u8>,
}

/// What became of a new config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is confirmed, under this revision.
    Confirmed {
        /// The new revision.
        revision: u64,
    },
    /// It runs, and goes back by itself unless it is confirmed over a new connection in time.
    AwaitingConfirm {
        /// The revision that it will have.
        revision: u64,
        /// Time left, in seconds.
        seconds: u64,
    },
    /// Only looked at: it could be applied.
    WouldApply {
        /// Whether it would need confirming.
        needs_confirm: bool,
    },
}

/// Why the config was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It is no config: 400.
    #[error("this is not a config")]
    Unreadable(Vec<Problem>),
    /// It was changed in between: 412.
    #[error("the config is at revision {current} by now; read it again and repeat the change")]
    Stale {
        /// The revision that runs.
        current: u64,
    },
    /// Another change waits for its confirmation: 409.
    #[error("another change waits for its confirmation; confirm it or wait until it went back")]
    Pending,
    /// Nothing waits, or not this: 409.
    #[error("no change waits for a confirmation")]
    NothingPending,
    /// The confirming connection is older than the change: 409.
    #[error("a change is confirmed over a connection that was opened after it was applied; open a new one")]
    OldConnection,
    /// It cannot work: 422.
    #[error("this config cannot be applied")]
    Invalid(Vec<Problem>),
    /// Too many changes at once: 503.
    #[error("the gateway is busy with other changes; try again in a moment")]
    Busy,
    /// Ours: 500.
    #[error("the config could not be kept: {0}")]
    Failed(String),
}

/// Whether the critical loops of the program are alive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The loops that are silent, with how long, for a person; empty when all is well.
    pub silent: Vec<String>,
}

/// The gateway, seen from the admin plane.
pub trait AdminApi: Send + Sync + 'static {
    /// The confirmed config.
    fn config(&self) -> Result<ConfigView, ChangeError>;
    /// Applies a new config, JSON as it was sent, over the revision that its sender had seen.
    fn put_config(&self, json: &[u8], over: u64, dry_run: bool) -> Result<Applied, ChangeError>;
    /// Confirms the change that waits; `opened` is when the asking connection was opened.
    fn confirm(&self, opened: Instant) -> Result<Applied, ChangeError>;
    /// The JSON Schema of the config.
    fn schema(&self) -> Vec<u8>;
    /// The status as JSON.
    fn status(&self) -> Vec<u8>;
    /// The counters as Prometheus text.
    fn metrics(&self) -> String;
    /// The status page as HTML, for one who asked for `host` (name without port).
    fn page(&self, host: &str) -> String;
    /// Signs of life.
    fn health(&self) -> Health;
}
