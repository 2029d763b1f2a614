//! What a driver's error asks of whoever runs the driver.

/// Whether and when to try again; only the supervisor waits and restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At once: the peer asked for it.
    Now,
    /// After a growing pause: the fault is outside and may pass.
    Backoff,
    /// Not before the settings change: they cannot work.
    Never,
}
