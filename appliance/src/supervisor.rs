//! The running side: every part of the config that has a task, started, watched, restarted, stopped.
//!
//! ```text
//!  reconcile: [gone or differs] --cancel--> leaving --ended--> [new ones start] --> ready | retrying
//!                                              | 5 s: aborted
//!                                              | 1 s more: stuck, named, left behind
//!
//!  child:  Starting --ready--> Running --fails--> Retrying --backoff--> Starting
//!             \--- fails with Retry::Never ---> Failed (until its settings change)
//! ```
//!
//! It knows no protocol: what a child does comes from [`Start`]. A child whose settings are equal in the old and the
//! new config is not touched. Only here is anything restarted.

mod backoff;
mod blips;
mod children;
mod desk;
mod handle;
#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use blips::{Blip, blips};
pub use children::{
    ChildKey, ChildSettings, Handling, Made, MadeSound, MountpointSettings, RenditionKey, Stage, children_of,
    stream_children_of,
};
pub use handle::{InstantiateError, Snapshot, Supervised, SupervisorHandle};

use desk::Desk;
use fieldgate_hub::{Clock, Pulse, Retry};
use fieldgate_model::Config;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Time that a child has to end after it was told to; then it is aborted.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Time after which an aborted child that still has not ended is left behind.
pub const ABORT_WITHIN: Duration = Duration::from_secs(1);
/// Time that a new or changed child has to be ready before a change counts as not started.
pub const START_WITHIN: Duration = Duration::from_secs(10);
/// Time that a source or push has to show how it does before a change goes on without it.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(2);
/// How often an idle supervisor shows that it lives.
const IDLE_BEAT: Duration = Duration::from_secs(2);
/// Asks that may wait in the inbox.
const INBOX: usize = 64;

/// Why a child ended.
#[derive(Debug)]
pub struct ChildError {
    retry: Retry,
    text: String,
    not_before: Duration,
}

impl ChildError {
    /// With the whole chain of causes in `text`; never a secret.
    pub fn new(retry: Retry, text: impl Into<String>) -> Self {
        ChildError { retry, text: text.into(), not_before: Duration::ZERO }
    }

    /// From an error of a library, with its causes.
    pub fn of(retry: Retry, error: &dyn std::error::Error) -> Self {
        ChildError::new(retry, crate::steward::chain(error))
    }

    /// The next try comes after this at the earliest.
    pub fn not_before(mut self, wait: Duration) -> Self {
        self.not_before = wait;
        self
    }

    /// What to do about it.
    pub fn retry(&self) -> Retry {
        self.retry
    }
}

impl fmt::Display for ChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ChildError {}

/// A child's way to say that it is ready to work: port bound, pipeline built, push on its way.
#[derive(Clone, Debug)]
pub struct Ready {
    is_ready: Arc<AtomicBool>,
    wake: Arc<Notify>,
}

impl Ready {
    /// Says so; again is fine.
    pub fn ready(&self) {
        if !self.is_ready.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }
}

/// What a child is handed.
#[derive(Clone, Debug)]
pub struct ChildContext {
    /// Cancelled when the child shall end; it has [`STOP_WITHIN`] for that.
    pub cancel: CancellationToken,
    /// To be told once it is ready.
    pub ready: Ready,
}

/// A child's life: `Ok` after it was cancelled; ending by itself counts as a failure.
pub type ChildFuture = Pin<Box<dyn Future<Output = Result<(), ChildError>> + Send>>;

/// Makes children. What must live on a media shard is proxied by the future, which ends when that ended; when the
/// future is dropped, what it stands for must end too.
pub trait Start: Send + Sync + 'static {
    /// The child's whole life. Called in the supervisor's task: must not wait.
    fn start(&self, key: &ChildKey, settings: &ChildSettings, context: ChildContext) -> ChildFuture;
}

/// What the supervisor is made with.
pub struct Supervisor {
    /// Makes the children.
    pub start: Arc<dyn Start>,
    /// For times that are shown.
    pub clock: Clock,
    /// Beaten after every round.
    pub pulse: Pulse,
    /// For the budget of rings where the config names none.
    pub machine_memory_bytes: Option<u64>,
    /// Spreads retries: numbers from 0 to 1.
    pub jitter: Box<dyn FnMut() -> f64 + Send>,
}

impl Supervisor {
    /// Puts the supervisor to work, with nothing running. When `cancel` comes, all children are stopped in order
    /// (inputs, outputs, mountpoints, admin) and the returned task ends.
    pub fn run(self, cancel: CancellationToken) -> (SupervisorHandle, impl Future<Output = ()> + Send) {
        let (inbox, asks) = mpsc::channel(INBOX);
        let (shown, snapshot) = watch::channel(Arc::new(Snapshot::default()));
        let (config, running) =
            watch::channel(Arc::new(Config { mountpoints: Default::default(), ..Config::default() }));
        let desk = Desk::new(self, shown, config);
        (SupervisorHandle::new(inbox, snapshot, running), desk.run(asks, cancel))
    }
}

/// Jitter from the system's random numbers.
pub fn random_jitter() -> Box<dyn FnMut() -> f64 + Send> {
    Box::new(|| {
        let mut bytes = [0_u8; 4];
        // Without random numbers retries are only less spread.
        getrandom::fill(&mut bytes)
            .map_or(0.5, |()| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
    })
}
