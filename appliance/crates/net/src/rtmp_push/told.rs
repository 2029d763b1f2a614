//! What a push tells the ledger: RTMP acknowledges nothing, so "sent" means handed to the kernel, and what was published
//! while there was no connection was lost.
//!
//! Told a few times a second, never per unit. When a connection is made anew, the units from the newest keyframe on are
//! sent after all; if the outage was told before, they are in both stretches.

use crate::rtmp_client::RtmpClientError;
use fieldgate_hub::LedgerHandle;
use fieldgate_hub::ledger::{Fate, Stretch, Why};

/// How far a push has told what became of its mountpoint's units. Outlives its connections.
#[derive(Debug)]
pub(super) struct Told {
    /// Units published up to here are accounted for.
    units: u64,
    /// Up to this time, microseconds since 1970.
    until: i64,
    /// Why there is no connection.
    why: Why,
}

/// What was written since it was told last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) sent_units: u64,
    pub(super) sent_bytes: u64,
    pub(super) dropped_units: u64,
    /// Everything that is published was written or dropped.
    pub(super) caught_up: bool,
}

impl Told {
    /// Begins with a mountpoint that has published so much.
    pub(super) fn new(published: u64, now: i64) -> Told {
        Told { units: published, until: now, why: Why::Unreachable }
    }

    /// Still no connection: what was published since is lost.
    pub(super) fn outage(&mut self, ledger: &LedgerHandle, published: u64, now: i64) {
        let missed = published.saturating_sub(self.units);
        if missed > 0 {
            ledger.settle(Fate::Lost(self.why), stretch(self.until, now, missed, 0));
        }
        self.units = published.max(self.units);
        self.until = now;
    }

    /// A connection that was made at `connected` goes on.
    pub(super) fn progress(
        &mut self,
        ledger: &LedgerHandle,
        progress: Progress,
        published: u64,
        connected: i64,
        now: i64,
    ) {
        let from = self.until.max(connected);
        let Progress { sent_units, sent_bytes, dropped_units, caught_up } = progress;
        self.units = self.units.saturating_add(sent_units).saturating_add(dropped_units);
        if caught_up && published > self.units {
            // What came between two connections and before the keyframe that the new one began with.
            let to = connected.max(self.until);
            ledger.settle(Fate::Lost(self.why), stretch(self.until, to, published - self.units, 0));
        }
        if caught_up {
            self.units = published;
        }
        if dropped_units > 0 {
            ledger.settle(Fate::Lost(Why::TooSlow), stretch(from, now, dropped_units, 0));
        }
        if sent_units > 0 {
            ledger.settle(Fate::Sent, stretch(from, now, sent_units, sent_bytes));
        }
        self.until = now;
    }

    /// The connection failed, or none was made.
    pub(super) fn failed(&mut self, error: &RtmpClientError) {
        self.why = match error {
            RtmpClientError::Dial(_) => Why::Unreachable,
            RtmpClientError::Rejected { .. } | RtmpClientError::NoAcceptance(_) => Why::Refused,
            RtmpClientError::TooSlow(_) => Why::TooSlow,
            _ => Why::Disconnected,
        };
    }
}

fn stretch(from_unix_micros: i64, to_unix_micros: i64, frames: u64, bytes: u64) -> Stretch {
    Stretch { from_unix_micros, to_unix_micros: to_unix_micros.max(from_unix_micros), frames, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_hub::LedgerKeeper;
    use fieldgate_hub::ledger::LedgerKey;
    use std::sync::{Arc, Mutex};

    #[derive(Default)]
    struct Keeper(Mutex<Vec<(Fate, i64, i64, u64)>>);

    impl LedgerKeeper for Keeper {
        fn settle(&self, _: &LedgerKey, fate: Fate, stretch: Stretch) {
            let line = (fate, stretch.from_unix_micros, stretch.to_unix_micros, stretch.frames);
            self.0.lock().unwrap().push(line);
        }
        fn pending(&self, _: &LedgerKey, _: Option<Stretch>) {}
        fn resume(&self, _: &LedgerKey, _: Option<Stretch>) {}
    }

    #[test]
    fn what_is_sent_dropped_and_missed_is_what_was_published() {
        let keeper = Arc::new(Keeper::default());
        let key = LedgerKey { mountpoint: "yard".into(), upstream: "up".into(), track: String::new() };
        let ledger = LedgerHandle::new(keeper.clone(), key);
        let mut told = Told::new(100, 1_000);
        let sent = |units, dropped_units, caught_up| Progress {
            sent_units: units,
            sent_bytes: units * 10,
            dropped_units,
            caught_up,
        };
        // Connected at 2,000; ten of the thirty units since are in the ring.
        told.progress(&ledger, sent(10, 0, true), 130, 2_000, 2_500);
        told.progress(&ledger, sent(50, 0, true), 180, 2_000, 3_000);
        told.progress(&ledger, sent(5, 20, false), 210, 2_000, 3_500);
        told.failed(&RtmpClientError::Closed);
        // Five were on their way when it broke, forty more came since.
        told.outage(&ledger, 250, 5_000);
        told.outage(&ledger, 250, 6_000);
        told.progress(&ledger, sent(30, 0, true), 270, 6_500, 7_000);
        let lines = keeper.0.lock().unwrap();
        assert_eq!(
            *lines,
            [
                (Fate::Lost(Why::Unreachable), 1_000, 2_000, 20),
                (Fate::Sent, 2_000, 2_500, 10),
                (Fate::Sent, 2_500, 3_000, 50),
                (Fate::Lost(Why::TooSlow), 3_000, 3_500, 20),
                (Fate::Sent, 3_000, 3_500, 5),
                (Fate::Lost(Why::Disconnected), 3_500, 5_000, 45),
                (Fate::Sent, 6_500, 7_000, 30),
            ]
        );
    }
}
