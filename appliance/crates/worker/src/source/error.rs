//! Why a worker's run ended badly, and what to do about it.

use crate::exit::Exit;
use crate::spawner::SpawnError;
use fieldgate_hub::Retry;
use fieldgate_hub::link::LinkError;
use std::time::Duration;

/// Why a worker's run ended. Its texts are for people and hold no secrets.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The link broke, or the worker broke its bounds.
    #[error("worker stopped: {0}")]
    Link(#[from] LinkError),
    /// The process ended by itself.
    #[error("worker {exit}{}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Ended {
        /// How.
        exit: Exit,
        /// The last that it wrote to standard error.
        stderr: String,
    },
    /// The worker said what went wrong and ended.
    #[error("{cause}")]
    Failed {
        /// In its words.
        cause: String,
        /// Trying again changes nothing.
        permanent: bool,
    },
    /// No pulse after the start.
    #[error("worker not ready after {limit:?}, stopped")]
    NotReady {
        /// The deadline.
        limit: Duration,
    },
    /// Its control loop hangs.
    #[error("worker hangs: no pulse for {limit:?}, stopped")]
    NoPulse {
        /// The deadline.
        limit: Duration,
    },
    /// It does not take commands.
    #[error("worker took no command for {limit:?}, stopped")]
    Deaf {
        /// The deadline.
        limit: Duration,
    },
    /// Nothing came.
    #[error("no picture or sound within {limit:?} of the start")]
    NoFirstUnit {
        /// The deadline.
        limit: Duration,
    },
    /// The source went silent.
    #[error("no picture or sound for {limit:?}")]
    Silent {
        /// The deadline.
        limit: Duration,
    },
    /// It was asked to stop and did not.
    #[error("worker did not stop within {limit:?}, killed")]
    NoStop {
        /// The deadline.
        limit: Duration,
    },
    /// Its status cannot be read: another version, or it runs wild.
    #[error("worker stopped: its status cannot be read")]
    BadStatus,
    /// It cannot be killed.
    #[error("{after}; process {pid} cannot be killed and is left alone: a driver hangs, a reboot is advised")]
    Stuck {
        /// Its process id.
        pid: u32,
        /// What had happened before.
        after: Box<WorkerError>,
    },
}

impl WorkerError {
    /// What to do about it.
    pub fn retry(&self) -> Retry {
        match self {
            WorkerError::Failed { permanent: true, .. } => Retry::Never,
            // Its device is still held by the process that hangs.
            WorkerError::Stuck { .. } => Retry::Never,
            _ => Retry::Backoff,
        }
    }
}
