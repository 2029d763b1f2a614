//! Waiting for something to become true, with a generous end.

use std::time::{Duration, Instant};

/// Asks `probe` every 20 ms until it gives a value; panics with `what` when `within` has passed.
pub(crate) fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < within, "waited {within:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As [`until`], for a condition.
pub(crate) fn until_true(what: &str, within: Duration, mut probe: impl FnMut() -> bool) {
    until(what, within, || probe().then_some(()));
}

/// Shorthand for a duration in seconds.
pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
