//! Cuts one stream while somebody watches it.

use super::watched::{Totals, Watched};
use fieldgate_hub::{Clock, Entry, Item, StreamState, Subscriber};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Entries and bytes of one round: whoever looks at the package waits no longer than one round takes.
const ROUND_ENTRIES: usize = 512;
const ROUND_BYTES: usize = 4 << 20;
/// A finished stream can be watched to its end for this many target durations.
const LINGER: u32 = 3;

/// The task of one watched stream. Runs on the mountpoint's shard.
pub(super) struct Packager {
    pub(super) watched: Arc<Watched>,
    pub(super) clock: Clock,
    /// It ends when nobody has asked for so long.
    pub(super) idle: Duration,
    pub(super) cancel: CancellationToken,
}

impl Packager {
    /// Until nobody watches any more, the stream is over, or it is told to stop.
    pub(super) async fn run(self) {
        let watched = &self.watched;
        let name = watched.mountpoint.name();
        debug!(mountpoint = name, "viewers watch: the stream is cut into segments");
        let mountpoint = watched.mountpoint.clone();
        let lag = mountpoint.limits().bound.age;
        let mut subscriber = mountpoint.subscribe(Some(lag));
        let mut state = mountpoint.state();
        let (closed, mut publication) = (mountpoint.closed(), mountpoint.publication().0);
        let mut entries = Vec::new();
        let why = loop {
            if !watched.is_valid() {
                break "the stream was cut off";
            }
            let ended = *state.borrow_and_update() == StreamState::Idle;
            let more = self.round(&mut subscriber, &mut entries, &mut publication);
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            if ended {
                self.linger(&mut state).await;
                break "the stream ended";
            }
            let idle_at = watched.asked() + self.idle;
            if idle_at <= Instant::now() {
                break "nobody watches any more";
            }
            tokio::select! {
                () = self.cancel.cancelled() => break "told to stop",
                () = closed.cancelled() => break "the mountpoint was removed",
                () = tokio::time::sleep_until(idle_at) => {}
                () = subscriber.changed() => {}
                _ = state.changed() => {}
            }
        };
        watched.gone.cancel();
        debug!(mountpoint = name, why, "no more segments");
    }

    /// Takes what is there; true if there is more.
    fn round(
        &self,
        subscriber: &mut Subscriber,
        entries: &mut Vec<Arc<Entry>>,
        publication: &mut u64,
    ) -> bool {
        let watched = &self.watched;
        let taken = subscriber.take(entries, ROUND_ENTRIES, ROUND_BYTES);
        let now = self.clock.unix_micros();
        let (present, began_at) = watched.mountpoint.publication();
        if taken.dropped_units > 0 {
            Totals::add(&watched.totals.lost_units, taken.dropped_units);
            let name = watched.mountpoint.name();
            warn!(mountpoint = name, lost = taken.dropped_units, "the segmenter was too slow for the stream");
        }
        if taken.entries > 0 {
            watched.change(|package| {
                if taken.dropped_units > 0 {
                    package.interrupt();
                }
                for entry in entries.iter() {
                    if present != *publication && entry.seq >= began_at {
                        *publication = present;
                        package.interrupt();
                    }
                    match &entry.item {
                        Item::Tracks { tracks, .. } => package.on_tracks(tracks),
                        Item::Unit { unit, .. } => package.on_unit(unit, now),
                    }
                }
            });
        }
        entries.clear();
        taken.more
    }

    /// Whoever is behind may watch to the end, unless a new stream begins.
    async fn linger(&self, state: &mut tokio::sync::watch::Receiver<StreamState>) {
        self.watched.change(|package| package.end());
        let target = Duration::from_secs(self.watched.read(|package| package.target_secs()).into());
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = tokio::time::sleep(target * LINGER) => {}
            _ = state.wait_for(|state| *state != StreamState::Idle) => {}
        }
    }
}
