//! A worker's deadlines, with handed-in time.

use super::{Deadlines, WorkerError};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Watch {
    deadlines: Deadlines,
    started: Instant,
    first_beat: Option<Instant>,
    last_beat: Option<Instant>,
    last_unit: Option<Instant>,
    stopping_since: Option<Instant>,
}

impl Watch {
    pub(super) fn new(deadlines: Deadlines, now: Instant) -> Self {
        Watch {
            deadlines,
            started: now,
            first_beat: None,
            last_beat: None,
            last_unit: None,
            stopping_since: None,
        }
    }

    pub(super) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    pub(super) fn beat(&mut self, now: Instant) {
        self.first_beat.get_or_insert(now);
        self.last_beat = Some(now);
    }

    /// Returns the time since the start at the first unit.
    pub(super) fn unit(&mut self, now: Instant) -> Option<Duration> {
        self.last_unit.replace(now).is_none().then(|| self.uptime(now))
    }

    pub(super) fn stopping(&mut self, now: Instant) {
        self.stopping_since = Some(now);
    }

    pub(super) fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Fails with the first deadline that has passed.
    pub(super) fn check(&self, now: Instant) -> Result<(), WorkerError> {
        let passed = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        let Deadlines { ready, pulse, first_unit, between_units, stop, .. } = self.deadlines;
        if let Some(since) = self.stopping_since {
            return if passed(since, stop) { Err(WorkerError::NoStop { limit: stop }) } else { Ok(()) };
        }
        let (Some(first_beat), Some(last_beat)) = (self.first_beat, self.last_beat) else {
            return if passed(self.started, ready) {
                Err(WorkerError::NotReady { limit: ready })
            } else {
                Ok(())
            };
        };
        if passed(last_beat, pulse) {
            return Err(WorkerError::NoPulse { limit: pulse });
        }
        let Some(first_unit) = first_unit else { return Ok(()) };
        match self.last_unit {
            None if passed(first_beat, first_unit) => Err(WorkerError::NoFirstUnit { limit: first_unit }),
            Some(last) if passed(last, between_units) => Err(WorkerError::Silent { limit: between_units }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn watch() -> (Watch, Instant) {
        let start = tokio::time::Instant::now().into_std();
        (Watch::new(Deadlines::default(), start), start)
    }

    #[test]
    fn each_silence_has_its_own_name() {
        let (mut watch, start) = watch();
        assert!(watch.check(start + seconds(9)).is_ok());
        assert!(matches!(watch.check(start + seconds(10)), Err(WorkerError::NotReady { .. })));
        for n in 1..=22 {
            watch.beat(start + seconds(n));
        }
        assert!(watch.check(start + seconds(20)).is_ok());
        assert!(matches!(watch.check(start + seconds(21)), Err(WorkerError::NoFirstUnit { .. })));
        assert_eq!(watch.unit(start + seconds(21)), Some(seconds(21)));
        assert_eq!(watch.unit(start + seconds(22)), None);
        assert!(matches!(watch.check(start + seconds(27)), Err(WorkerError::NoPulse { .. })));
        watch.beat(start + seconds(31));
        assert!(watch.check(start + seconds(31)).is_ok());
        assert!(matches!(watch.check(start + seconds(32)), Err(WorkerError::Silent { .. })));
    }

    #[test]
    fn only_the_stop_deadline_counts_while_stopping() {
        let (mut watch, start) = watch();
        watch.stopping(start + seconds(30));
        assert!(watch.check(start + seconds(31)).is_ok());
        assert!(matches!(watch.check(start + seconds(32)), Err(WorkerError::NoStop { .. })));
    }
}
