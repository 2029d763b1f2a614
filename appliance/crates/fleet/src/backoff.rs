//! How long a gateway waits before it calls its fleet manager again.

use std::time::Duration;

/// The least ceiling after a try in vain, before it is doubled.
const LEAST: Duration = Duration::from_secs(1);

/// Waits with full jitter: anything from nothing to a ceiling that doubles with each try in vain.
///
/// Ten thousand gateways lose one broker in the same moment; what keeps them from coming back in one moment is that the
/// first ceiling is the time over which the fleet shall spread, and that no two waits are alike.
#[derive(Clone, Debug)]
pub struct Backoff {
    spread: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    /// `spread`: the first ceiling; `max`: the last.
    pub fn new(spread: Duration, max: Duration) -> Self {
        Backoff { spread, max: max.max(spread).max(LEAST), tries: 0 }
    }

    /// The next wait; `chance` is any number, evenly distributed.
    pub fn wait(&mut self, chance: u32) -> Duration {
        // Without a spread the first try is at once; those after it are not, or a dead broker would be hammered.
        let first = if self.tries == 0 { self.spread } else { self.spread.max(LEAST) };
        let ceiling = first.saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(self.max);
        self.tries = self.tries.saturating_add(1);
        ceiling.mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }

    /// A session has held: the next trouble is a new one.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Duration = Duration::from_secs(30);
    const MAX: Duration = Duration::from_secs(300);

    #[test]
    fn the_ceiling_doubles_to_its_end_and_begins_anew() {
        let mut backoff = Backoff::new(SPREAD, MAX);
        let seconds: Vec<u64> = (0..6).map(|_| backoff.wait(u32::MAX).as_secs()).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 300, 300]);
        for _ in 0..100 {
            assert!(backoff.wait(u32::MAX) <= MAX);
        }
        assert_eq!(backoff.wait(0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.wait(u32::MAX), SPREAD);
    }

    #[test]
    fn without_a_spread_the_first_try_is_at_once_and_no_other() {
        let mut backoff = Backoff::new(Duration::ZERO, MAX);
        let seconds: Vec<u64> = (0..4).map(|_| backoff.wait(u32::MAX).as_secs()).collect();
        assert_eq!(seconds, [0, 2, 4, 8]);
    }

    /// Ten thousand gateways, a broker that is gone for a while: connections that it sees in any one second.
    fn busiest_second(outage: Duration) -> (usize, Duration) {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut chance = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 32) as u32
        };
        let (mut per_second, mut last) = (std::collections::BTreeMap::new(), Duration::ZERO);
        for _ in 0..10_000 {
            let (mut backoff, mut at) = (Backoff::new(SPREAD, MAX), Duration::ZERO);
            loop {
                at += backoff.wait(chance());
                *per_second.entry(at.as_secs()).or_insert(0_usize) += 1;
                if at >= outage {
                    break;
                }
            }
            last = last.max(at);
        }
        (per_second.into_values().max().unwrap(), last.saturating_sub(outage))
    }

    #[test]
    fn ten_thousand_gateways_do_not_storm() {
        // A broker that restarts: 10,000 over 30 s are 333 a second.
        let (busiest, _) = busiest_second(Duration::ZERO);
        assert!(busiest < 450, "{busiest}");
        // Gone for an hour: far fewer tries at once, and all are back within the longest wait.
        let (busiest, last) = busiest_second(Duration::from_secs(3_600));
        assert!(busiest < 600, "{busiest}");
        assert!(last <= MAX, "{last:?}");
    }
}
