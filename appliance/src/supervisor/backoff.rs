//! When a child that failed is tried again.

use std::time::Duration;

/// One child's waits: 1 s, doubling to the cap, 20 % more or less; from the start again after a good run.
#[derive(Clone, Debug)]
pub struct Backoff {
    attempts: u32,
    cap: Duration,
}

impl Backoff {
    /// The first wait.
    pub const FLOOR: Duration = Duration::from_secs(1);
    /// The longest wait, where the settings name none.
    pub const CAP: Duration = Duration::from_secs(60);
    /// Time of good running after which the waits begin from the start again.
    pub const GOOD_RUN: Duration = Duration::from_secs(60);

    /// With this longest wait.
    pub fn new(cap: Duration) -> Self {
        Backoff { attempts: 0, cap: cap.max(Self::FLOOR) }
    }

    /// Failures since the last good run.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The wait after one more failure. `ran` is how long the child was ready, `jitter` a number from 0 to 1.
    pub fn next(&mut self, ran: Duration, jitter: f64) -> Duration {
        if ran >= Self::GOOD_RUN {
            self.attempts = 0;
        }
        let doubled = Self::FLOOR.saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX));
        self.attempts = self.attempts.saturating_add(1);
        doubled.min(self.cap).mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(waits: impl Iterator<Item = Duration>) -> Vec<u64> {
        waits.map(|wait| wait.as_millis() as u64).collect()
    }

    #[test]
    fn waits_double_from_one_second_to_the_cap() {
        let mut backoff = Backoff::new(Backoff::CAP);
        let waits = secs((0..9).map(|_| backoff.next(Duration::ZERO, 0.5)));
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        let mut short = Backoff::new(Duration::from_secs(5));
        assert_eq!(
            secs((0..5).map(|_| short.next(Duration::ZERO, 0.5))),
            [1_000, 2_000, 4_000, 5_000, 5_000]
        );
    }

    #[test]
    fn waits_are_spread_by_a_fifth() {
        assert_eq!(Backoff::new(Backoff::CAP).next(Duration::ZERO, 0.0), Duration::from_millis(800));
        assert_eq!(Backoff::new(Backoff::CAP).next(Duration::ZERO, 1.0), Duration::from_millis(1_200));
        assert_eq!(
            Backoff::new(Backoff::CAP).next(Duration::ZERO, f64::NAN.max(9.0)),
            Duration::from_millis(1_200)
        );
    }

    #[test]
    fn a_good_run_begins_anew_and_a_long_outage_never_overflows() {
        let mut backoff = Backoff::new(Backoff::CAP);
        for _ in 0..100 {
            backoff.next(Duration::from_secs(59), 0.5);
        }
        assert_eq!(backoff.attempts(), 100);
        assert_eq!(backoff.next(Duration::from_secs(60), 0.5), Duration::from_secs(1));
        assert_eq!(backoff.attempts(), 1);
    }
}
