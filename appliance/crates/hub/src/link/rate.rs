//! A token bucket with handed-in time.

use std::time::{Duration, Instant};

/// Lets `per_second` pass on average, with a burst of two seconds' worth.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u64,
    left: u64,
    filled_at: Option<Instant>,
}

impl Rate {
    pub(crate) fn new(per_second: u64) -> Self {
        Rate { per_second, left: per_second.saturating_mul(2), filled_at: None }
    }

    /// Takes `cost` if there is as much; otherwise takes nothing and says no.
    pub(crate) fn take(&mut self, cost: u64, now: Instant) -> bool {
        let since = self.filled_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        // Whole tokens only; the remainder stays on the clock, so slow trickles are not rounded away.
        let gained = since.as_nanos().saturating_mul(u128::from(self.per_second)) / 1_000_000_000;
        if gained > 0 || self.filled_at.is_none() {
            let gained = u64::try_from(gained).unwrap_or(u64::MAX);
            self.left = self.left.saturating_add(gained).min(self.per_second.saturating_mul(2));
            self.filled_at = Some(now);
        }
        match self.left.checked_sub(cost) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "tests start their time somewhere")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_burst_of_two_seconds_passes_and_no_more() {
        let at = now();
        let mut rate = Rate::new(10);
        assert_eq!((0..30).filter(|_| rate.take(1, at)).count(), 20);
    }

    #[test]
    fn the_mean_rate_passes_for_ever() {
        let start = now();
        let mut rate = Rate::new(1000);
        for n in 0..100_000_u64 {
            assert!(rate.take(1, start + Duration::from_millis(n)), "unit {n}");
        }
    }

    #[test]
    fn twice_the_rate_ends_within_the_burst() {
        let start = now();
        let mut rate = Rate::new(1000);
        let passed =
            (0..100_000_u64).take_while(|n| rate.take(1, start + Duration::from_micros(n * 500))).count();
        assert!((3_900..4_100).contains(&passed), "{passed}");
    }
}
