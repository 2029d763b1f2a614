//! What can go wrong in a run.

use std::path::PathBuf;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The peer's bytes are not RTMP or KMP as the specification has it.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The peer said no.
    #[error("the peer refused {what}: {code}")]
    Refused {
        /// The command that was refused.
        what: &'static str,
        /// The code of its answer.
        code: String,
    },
    /// Something that had to happen did not within its time.
    #[error("{what} took longer than {seconds} s")]
    Timeout {
        /// What was waited for.
        what: String,
        /// The time it was given.
        seconds: u64,
    },
    /// A connection that must live closed.
    #[error("a {0} connection was closed by the peer")]
    Closed(&'static str),
    /// A server program ended by itself.
    #[error("{peer} ended early ({status}); its log ends: {log}")]
    ServerEnded {
        /// Which server.
        peer: &'static str,
        /// Its exit status.
        status: String,
        /// The last of what it wrote.
        log: String,
    },
    /// A program or module that a peer needs is not here.
    #[error("{0} is not there: build it, run scripts/setup run, or leave the peer out with --peers")]
    Missing(PathBuf),
    /// What is written there does not reach a disk.
    #[error("{0} is not on a disk, so nothing is written there: set TMPDIR to a folder on one")]
    NotOnDisk(PathBuf),
    /// A load that does not exist.
    #[error(
        "there is no load {0:?}: a, b, h, push, slow, join, idle, gather (or gather-a, -b, -h), kmp, spool, unacked"
    )]
    UnknownLoad(String),
    /// Some runs gave no figures; each has said why.
    #[error("{0} of the runs failed")]
    RunsFailed(usize),
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// The goals were checked and a "must" is missed.
    #[error("{0} of the goals that must hold are missed")]
    GoalsMissed(usize),
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Names the attempt that an IO error belongs to.
pub(crate) trait Attempt<T> {
    /// Turns the error into [`BenchError::Io`] with `what`.
    fn attempt(self, what: &'static str) -> Result<T, BenchError>;
}

impl<T, E: Into<std::io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, what: &'static str) -> Result<T, BenchError> {
        self.map_err(|source| BenchError::Io { what, source: source.into() })
    }
}
