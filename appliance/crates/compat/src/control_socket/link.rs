//! The socket to a coordinator, as far as time goes: when to connect, when to say something, when it is dead.

use std::time::{Duration, Instant};

/// Between two of our heartbeats, at most.
const BEAT: Duration = Duration::from_secs(20);
/// How many of them go out while a socket without messages is not yet dead, at least.
const BEATS: u32 = 3;
/// A socket that has lived for so long was a good one: the next attempt comes at once.
const SETTLED: Duration = Duration::from_secs(10);
/// Before the next attempt, by how many have failed.
const WAITS: [u64; 5] = [0, 1, 2, 5, 10];

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Connect now.
    Connect,
    /// Send a heartbeat.
    Beat,
    /// Nothing has been heard for too long: close it.
    Silent,
}

#[derive(Debug)]
enum Stage {
    Waiting(Instant),
    Connecting,
    Up { since: Instant, silent_at: Instant, beat_at: Instant },
}

#[derive(Debug)]
pub(crate) struct Link {
    silence: Duration,
    beat: Duration,
    stage: Stage,
    failures: usize,
    random: u64,
}

fn after(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).unwrap_or(now)
}

impl Link {
    /// One that wants to connect now. A socket without messages is dead after `silence`.
    pub(crate) fn new(silence: Duration, seed: u64, now: Instant) -> Link {
        let beat = silence.checked_div(BEATS).unwrap_or_default().min(BEAT);
        Link { silence, beat, stage: Stage::Waiting(now), failures: 0, random: seed | 1 }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up { .. })
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Waiting(at) => Some(*at),
            Stage::Connecting => None,
            Stage::Up { silent_at, beat_at, .. } => Some(*silent_at.min(beat_at)),
        }
    }

    /// The next thing that is due, once.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Due> {
        match &mut self.stage {
            Stage::Waiting(at) if *at <= now => {
                self.stage = Stage::Connecting;
                Some(Due::Connect)
            }
            Stage::Up { silent_at, .. } if *silent_at <= now => Some(Due::Silent),
            Stage::Up { beat_at, .. } if *beat_at <= now => {
                *beat_at = after(now, self.beat);
                Some(Due::Beat)
            }
            _ => None,
        }
    }

    pub(crate) fn connected(&mut self, now: Instant) {
        let (silent_at, beat_at) = (after(now, self.silence), after(now, self.beat));
        self.stage = Stage::Up { since: now, silent_at, beat_at };
    }

    /// A message has come, of whatever kind.
    pub(crate) fn heard(&mut self, now: Instant) {
        if let Stage::Up { silent_at, .. } = &mut self.stage {
            *silent_at = after(now, self.silence);
        }
    }

    /// It is gone, or there was none to be had; until the next attempt.
    pub(crate) fn lost(&mut self, now: Instant) -> Duration {
        match self.stage {
            Stage::Up { since, .. } if after(since, SETTLED) <= now => self.failures = 0,
            // One that is closed as soon as it is open is no better than none.
            Stage::Up { .. } => {}
            Stage::Waiting(_) | Stage::Connecting => self.failures = self.failures.max(1),
        }
        let seconds = WAITS.get(self.failures.min(WAITS.len().saturating_sub(1))).copied().unwrap_or(10);
        self.failures = self.failures.saturating_add(1);
        // Marsaglia's xorshift64. Gateways that lost one coordinator shall not come back all at once.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let percent = (self.random >> 32).checked_rem(41).unwrap_or_default().saturating_add(80);
        let wait = Duration::from_millis(seconds.saturating_mul(10).saturating_mul(percent));
        self.stage = Stage::Waiting(after(now, wait));
        wait
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "only differences matter")]

    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn check_24_it_comes_back_at_once_then_ever_more_slowly() {
        for seed in 0..20 {
            let now = Instant::now();
            let mut link = Link::new(secs(60), seed, now);
            assert_eq!((link.poll(now), link.poll(now)), (Some(Due::Connect), None));
            link.connected(now);
            // A good one that is lost.
            assert_eq!(link.lost(now + secs(10)), Duration::ZERO);
            assert_eq!(link.poll(now + secs(10)), Some(Due::Connect));
            let waits: Vec<Duration> = (0..6).map(|_| link.lost(now)).collect();
            for (wait, wanted) in waits.iter().zip([1, 2, 5, 10, 10, 10]) {
                let within = secs(wanted) * 8 / 10..=secs(wanted) * 12 / 10;
                assert!(within.contains(wait), "{wait:?} is not about {wanted} s");
            }
            assert!(link.poll(now).is_none() && link.poll(now + secs(13)) == Some(Due::Connect));
            // The first attempt of all fails.
            let mut link = Link::new(secs(60), seed, now);
            link.poll(now);
            assert!(link.lost(now) >= Duration::from_millis(800));
        }
        let spread: std::collections::BTreeSet<Duration> = (0..20)
            .map(|seed| {
                let mut link = Link::new(secs(60), seed * 77, Instant::now());
                link.lost(Instant::now())
            })
            .collect();
        assert!(spread.len() > 5, "{spread:?}");
    }

    #[test]
    fn check_24_one_that_is_closed_as_soon_as_it_is_open_is_not_asked_for_ever() {
        let now = Instant::now();
        let mut link = Link::new(secs(60), 7, now);
        let waits: Vec<Duration> = (0..5)
            .map(|_| {
                link.connected(now);
                link.lost(now + secs(1))
            })
            .collect();
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
    }

    #[test]
    fn check_20_heartbeats_go_out_and_silence_counts() {
        let now = Instant::now();
        let mut link = Link::new(secs(60), 7, now);
        link.connected(now);
        assert_eq!(link.due(), Some(now + secs(20)));
        for seconds in [20, 40] {
            assert_eq!(link.poll(now + secs(seconds)), Some(Due::Beat));
            assert_eq!(link.poll(now + secs(seconds)), None);
        }
        link.heard(now + secs(50));
        assert_eq!(link.poll(now + secs(109)), Some(Due::Beat));
        assert_eq!(link.poll(now + secs(110)), Some(Due::Silent));
    }

    #[test]
    fn a_shorter_silence_has_faster_heartbeats_and_a_longer_one_no_slower_ones() {
        let now = Instant::now();
        for (silence, beat) in [(3, 1), (60, 20), (600, 20)] {
            let mut link = Link::new(secs(silence), 7, now);
            link.connected(now);
            assert_eq!(link.due(), Some(now + secs(beat)));
            assert_eq!(link.poll(now + secs(beat)), Some(Due::Beat));
            assert_eq!(link.due(), Some(now + secs(2 * beat)));
            assert_ne!(link.poll(now + secs(silence) - Duration::from_millis(1)), Some(Due::Silent));
            assert_eq!(link.poll(now + secs(silence)), Some(Due::Silent));
        }
    }
}
