//! Rates of streams, from their totals.

use super::METER_EVERY;
use fieldgate_hub::Registry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Weight of the newest second in the shown rate.
const NEWEST: f64 = 0.3;

/// A stream's rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Bits per second, smoothed over some seconds.
    pub bitrate: u64,
    /// Time since the last unit, to the second.
    pub idle: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    bytes: u64,
    units: u64,
    changed: Instant,
    bitrate: f64,
}

/// Takes every stream's totals once a second.
#[derive(Debug, Default)]
pub struct Meter {
    samples: Mutex<BTreeMap<String, Sample>>,
}

impl Meter {
    /// Measures until cancelled.
    pub async fn run(&self, registry: Arc<Registry>, cancel: CancellationToken) {
        let mut rounds = tokio::time::interval(METER_EVERY);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = rounds.tick() => {
                    let mountpoints = registry.all();
                    let totals = mountpoints.iter().map(|mountpoint| {
                        let counters = mountpoint.ring().counters();
                        (mountpoint.name(), counters.bytes, counters.units)
                    });
                    self.sample(totals, Instant::now());
                }
            }
        }
    }

    fn sample<'a>(&self, totals: impl Iterator<Item = (&'a str, u64, u64)>, now: Instant) {
        let mut samples = self.lock();
        let mut seen = BTreeMap::new();
        for (name, bytes, units) in totals {
            let sample = match samples.remove(name) {
                Some(last) => {
                    let seconds = now.saturating_duration_since(last.at).as_secs_f64().max(0.001);
                    let newest = bytes.saturating_sub(last.bytes) as f64 * 8.0 / seconds;
                    let bitrate = last.bitrate + (newest - last.bitrate) * NEWEST;
                    let changed = if units == last.units { last.changed } else { now };
                    Sample { at: now, bytes, units, changed, bitrate }
                }
                None => Sample { at: now, bytes, units, changed: now, bitrate: 0.0 },
            };
            seen.insert(name.to_owned(), sample);
        }
        *samples = seen;
    }

    /// The rate of one stream.
    pub fn pace(&self, name: &str) -> Pace {
        let sample = self.lock().get(name).copied();
        sample.map_or_else(Pace::default, |sample| Pace {
            bitrate: sample.bitrate.round() as u64,
            idle: sample.changed.elapsed(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_steady_stream_shows_its_rate_and_a_silent_one_its_silence() {
        let meter = Meter::default();
        for second in 0..30 {
            meter.sample([("yard", second * 125_000, second * 25)].into_iter(), Instant::now());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((990_000..=1_000_000).contains(&meter.pace("yard").bitrate), "{:?}", meter.pace("yard"));
        for _ in 0..5 {
            meter.sample([("yard", 29 * 125_000, 29 * 25)].into_iter(), Instant::now());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(meter.pace("yard").idle, Duration::from_secs(6));
        meter.sample(std::iter::empty(), Instant::now());
        assert_eq!(meter.pace("yard"), Pace::default(), "a stream that is gone is forgotten");
    }
}
