//! Signs of life of the loops that must not stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
struct Beats {
    name: String,
    max_silence: Duration,
    epoch: Instant,
    last_millis: AtomicU64,
}

/// Owned by one critical loop, which beats after each finished round. When dropped, the loop is no longer watched.
#[derive(Debug)]
pub struct Pulse {
    beats: Arc<Beats>,
    registry: Pulses,
}

impl Pulse {
    /// A round was finished.
    pub fn beat(&self) {
        let millis = u64::try_from(self.beats.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beats.last_millis.store(millis, Ordering::Relaxed);
    }

    /// The silence after which the loop counts as stuck; an idle loop must wake well before.
    pub fn max_silence(&self) -> Duration {
        self.beats.max_silence
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.registry.lock().retain(|beats| !Arc::ptr_eq(beats, &self.beats));
    }
}

/// A loop that has been silent for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The loop.
    pub name: String,
    /// Time since its last beat.
    pub age: Duration,
    /// What it had promised.
    pub max_silence: Duration,
}

/// All pulses of the process.
#[derive(Clone, Debug, Default)]
pub struct Pulses {
    all: Arc<Mutex<Vec<Arc<Beats>>>>,
}

impl Pulses {
    /// Starts to watch a loop, which counts as alive now.
    pub fn watch(&self, name: impl Into<String>, max_silence: Duration) -> Pulse {
        let beats = Arc::new(Beats {
            name: name.into(),
            max_silence,
            epoch: Instant::now(),
            last_millis: AtomicU64::new(0),
        });
        self.lock().push(beats.clone());
        Pulse { beats, registry: self.clone() }
    }

    /// The loops that broke their promise; empty when all is well.
    pub fn silent(&self) -> Vec<Silence> {
        let all = self.lock();
        let stale = all.iter().filter_map(|beats| {
            let last = Duration::from_millis(beats.last_millis.load(Ordering::Relaxed));
            let age = beats.epoch.elapsed().saturating_sub(last);
            (age > beats.max_silence).then(|| Silence {
                name: beats.name.clone(),
                age,
                max_silence: beats.max_silence,
            })
        });
        stale.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Beats>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stops_beating_is_named_with_its_age() {
        let pulses = Pulses::default();
        let steady = pulses.watch("steady", Duration::from_secs(5));
        let stuck = pulses.watch("stuck", Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(6)).await;
        steady.beat();
        let silent = pulses.silent();
        assert_eq!(silent.len(), 1);
        assert_eq!((silent[0].name.as_str(), silent[0].age), ("stuck", Duration::from_secs(6)));
        drop(stuck);
        assert!(pulses.silent().is_empty());
    }
}
