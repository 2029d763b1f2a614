//! The one place where the hub asks the machine for the time of day.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall-clock time with a floor: a gateway that boots in 1970 must not believe it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    floor_unix_micros: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that never shows less than `floor_unix_micros` (build time, last time saved).
    pub fn new(floor_unix_micros: i64) -> Self {
        Clock { floor_unix_micros: Arc::new(AtomicI64::new(floor_unix_micros)) }
    }

    /// Microseconds since 1970-01-01 UTC, never less than the floor.
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn unix_micros(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        i64::try_from(now).unwrap_or(i64::MAX).max(self.floor_unix_micros.load(Ordering::Relaxed))
    }
}
