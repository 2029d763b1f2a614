//! How a process ended, in plain words.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// How a worker process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not at all: it does not react to being killed.
    Stuck,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, meaning) = match *self {
            Exit::Code(0) => return f.write_str("ended"),
            Exit::Code(code) => return write!(f, "ended with code {code}"),
            Exit::Stuck => return f.write_str("cannot be killed, stuck in a driver"),
            Exit::Signal(libc::SIGSEGV) => ("SIGSEGV", "bad memory access"),
            Exit::Signal(libc::SIGABRT) => ("SIGABRT", "gave up: out of memory or a failed check"),
            Exit::Signal(libc::SIGBUS) => ("SIGBUS", "bad memory access"),
            Exit::Signal(libc::SIGILL) => ("SIGILL", "illegal instruction"),
            Exit::Signal(libc::SIGFPE) => ("SIGFPE", "arithmetic fault"),
            Exit::Signal(libc::SIGKILL) => ("SIGKILL", "killed"),
            Exit::Signal(libc::SIGTERM) => ("SIGTERM", "told to end"),
            Exit::Signal(libc::SIGSYS) => ("SIGSYS", "forbidden system call"),
            Exit::Signal(libc::SIGXFSZ) => ("SIGXFSZ", "wrote a file"),
            Exit::Signal(libc::SIGTRAP) => ("SIGTRAP", "a library gave up"),
            Exit::Signal(other) => return write!(f, "crashed by signal {other}"),
        };
        write!(f, "crashed by {name} ({meaning})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_is_named() {
        assert_eq!(
            Exit::from(ExitStatus::from_raw(11)).to_string(),
            "crashed by SIGSEGV (bad memory access)"
        );
        assert_eq!(Exit::from(ExitStatus::from_raw(0x300)).to_string(), "ended with code 3");
        assert_eq!(Exit::from(ExitStatus::from_raw(62)).to_string(), "crashed by signal 62");
    }
}
