//! A mountpoint: the name under which one stream is published and watched.
//!
//! ```text
//!  Idle --claim--> Live --publisher gone--> Interrupted --claim--> Live (same timeline, subscribers kept)
//!   ^                |                          |
//!   |                +--- grace is zero --------+-- grace over: stream ended --> Idle
//! ```

use crate::ring::{Bound, Ring, Start, Subscriber};
use crate::rtmp::RtmpSession;
use crate::shard::LocalShard;
use crate::sink::Publisher;
use crate::timeline::{Pace, Timeline};
use crate::truth::Tap;
use crate::wire::WireForm;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a mountpoint's settings say about its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How much the ring may hold.
    pub bound: Bound,
    /// How long subscribers wait for a lost publisher before the stream counts as ended.
    pub grace: Duration,
    /// A subscriber further behind than this jumps to the newest keyframe.
    pub max_lag: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bound: Bound::default(), grace: Duration::from_secs(10), max_lag: Duration::from_secs(4) }
    }
}

/// Who feeds a mountpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherInfo {
    /// `rtmp`, `pull`, `worker`...
    pub kind: &'static str,
    /// Address or device, without secrets.
    pub from: String,
    /// Microseconds since 1970 UTC.
    pub since_unix_micros: i64,
    /// Of a publication over RTMP: its connection and stream.
    pub rtmp: Option<Arc<RtmpSession>>,
}

/// Where a mountpoint's stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Nobody feeds it.
    Idle,
    /// It has a publisher; the number counts publications since the start.
    Live(u64),
    /// Its publisher is gone since then, and may come back within the grace.
    Interrupted(Instant),
}

/// Why a mountpoint can't be claimed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MountpointError {
    /// It has a publisher already.
    #[error("mountpoint {name} is already being published by {by}")]
    Busy {
        /// The mountpoint.
        name: String,
        /// The one who has it.
        by: String,
    },
    /// It has privacy masks, which nobody who publishes as it is can have burnt in.
    #[error(
        "mountpoint {name} has privacy masks, which are burnt in for cameras of the gateway alone: remove them, or take the camera in by itself"
    )]
    Masked {
        /// The mountpoint.
        name: String,
    },
    /// Its stream was cut since the publisher asked for its settings.
    #[error("the settings of mountpoint {name} changed meanwhile")]
    Cut {
        /// The mountpoint.
        name: String,
    },
    /// It is being removed.
    #[error("mountpoint {name} has been removed from the config")]
    Closed {
        /// The mountpoint.
        name: String,
    },
}

struct Feed {
    publisher: Option<PublisherInfo>,
    timeline: Timeline,
    kicked: CancellationToken,
    generation: u64,
    /// The place in the ring of what the present or last publisher brought first.
    began_at: u64,
    limits: Limits,
    is_masked: bool,
}

/// The name under which one stream is published and watched.
pub struct Mountpoint {
    name: String,
    shard: usize,
    ring: Arc<Ring>,
    feed: Mutex<Feed>,
    state: watch::Sender<StreamState>,
    closed: CancellationToken,
    tap: Tap,
    malformed_units: AtomicU64,
    stalled_subscribers: AtomicU64,
    clock_jumps: AtomicU64,
}

impl Mountpoint {
    /// A mountpoint that nobody feeds yet, living on the shard of that number.
    pub fn new(name: String, shard: usize, limits: Limits, wire: Arc<dyn WireForm>) -> Arc<Self> {
        Arc::new(Mountpoint {
            name,
            shard,
            ring: Arc::new(Ring::new(limits.bound, wire)),
            feed: Mutex::new(Feed {
                publisher: None,
                timeline: Timeline::default(),
                kicked: CancellationToken::new(),
                generation: 0,
                began_at: 0,
                limits,
                is_masked: false,
            }),
            state: watch::Sender::new(StreamState::Idle),
            closed: CancellationToken::new(),
            tap: Tap::new(Instant::now()),
            malformed_units: AtomicU64::new(0),
            stalled_subscribers: AtomicU64::new(0),
            clock_jumps: AtomicU64::new(0),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the shard on which it lives.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Its ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Where its picture is watched.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Its limits as they are now.
    pub fn limits(&self) -> Limits {
        self.lock().limits.clone()
    }

    /// Changes its limits without touching the stream.
    pub fn set_limits(&self, limits: Limits) {
        self.ring.set_bound(limits.bound);
        self.lock().limits = limits;
    }

    /// Where the stream stands, and every change of that.
    pub fn state(&self) -> watch::Receiver<StreamState> {
        self.state.subscribe()
    }

    /// Who feeds it now.
    pub fn publisher(&self) -> Option<PublisherInfo> {
        self.lock().publisher.clone()
    }

    /// The present or last publication: how many there were with it, and the place in the ring where it begins.
    pub fn publication(&self) -> (u64, u64) {
        let feed = self.lock();
        (feed.generation, feed.began_at)
    }

    /// Becomes its publisher, with a stream as it comes from elsewhere. Must be called on its shard.
    pub fn claim(
        self: &Arc<Self>,
        shard: &LocalShard,
        info: PublisherInfo,
    ) -> Result<Publisher, MountpointError> {
        if self.lock().is_masked {
            return Err(MountpointError::Masked { name: self.name.clone() });
        }
        self.claim_in(self.epoch(), shard, info)
    }

    /// The same with a stream that has its masks burnt in as they were asked for in that epoch; refused if the stream
    /// was cut since.
    pub fn claim_in(
        self: &Arc<Self>,
        epoch: u64,
        shard: &LocalShard,
        info: PublisherInfo,
    ) -> Result<Publisher, MountpointError> {
        let mut feed = self.lock();
        if self.epoch() != epoch {
            return Err(MountpointError::Cut { name: self.name.clone() });
        }
        if self.closed.is_cancelled() {
            return Err(MountpointError::Closed { name: self.name.clone() });
        }
        if let Some(holder) = &feed.publisher {
            return Err(MountpointError::Busy { name: self.name.clone(), by: holder.from.clone() });
        }
        feed.publisher = Some(info);
        feed.generation += 1;
        feed.began_at = self.ring.head();
        feed.kicked = self.closed.child_token();
        let mut timeline = std::mem::take(&mut feed.timeline);
        timeline.restart();
        timeline.set_pace(Pace::Source);
        let (kicked, generation) = (feed.kicked.clone(), feed.generation);
        self.tap.begin(Instant::now());
        drop(feed);
        self.state.send_replace(StreamState::Live(generation));
        Ok(Publisher::new(self.clone(), shard.sinks(&self.name), timeline, kicked, generation, epoch))
    }

    /// Adds a reader that starts at the newest keyframe, with the mountpoint's own `max_lag` unless told otherwise.
    pub fn subscribe(&self, max_lag: Option<Duration>) -> Subscriber {
        let max_lag = max_lag.unwrap_or(self.lock().limits.max_lag);
        self.ring.subscribe(Start::Keyframe, max_lag)
    }

    /// How often the stream was cut. Asked for before its masks are read, it proves to [`Mountpoint::claim_in`] that they
    /// are still the same.
    pub fn epoch(&self) -> u64 {
        self.ring.epoch()
    }

    /// Whether streams as they come from elsewhere are refused. A change takes effect with [`Mountpoint::cut`].
    pub fn set_masked(&self, is_masked: bool) {
        self.lock().is_masked = is_masked;
    }

    /// Sends the present publisher away at once and drops all that is kept of its stream: when this returns nobody gets
    /// any more of it, whatever is still on its way here.
    pub fn cut(&self) {
        let feed = self.lock();
        self.ring.cut();
        self.tap.end();
        feed.kicked.cancel();
    }

    /// Sends the present publisher away (its source was replaced, an operator asked).
    pub fn kick(&self) {
        self.lock().kicked.cancel();
    }

    /// Counts units of its publishers that did not parse and were left out.
    pub fn count_malformed(&self, units: u64) {
        self.malformed_units.fetch_add(units, Ordering::Relaxed);
    }

    /// Units of its publishers that did not parse and were left out.
    pub fn malformed_units(&self) -> u64 {
        self.malformed_units.load(Ordering::Relaxed)
    }

    /// Counts a subscriber that was closed because it took nothing.
    pub fn count_stalled(&self) {
        self.stalled_subscribers.fetch_add(1, Ordering::Relaxed);
    }

    /// Subscribers that were closed because they took nothing.
    pub fn stalled_subscribers(&self) -> u64 {
        self.stalled_subscribers.load(Ordering::Relaxed)
    }

    pub(crate) fn count_clock_jumps(&self, jumps: u64) {
        self.clock_jumps.fetch_add(jumps, Ordering::Relaxed);
    }

    /// Jumps of its sources' clocks that the clean timeline does not show; each track counts.
    pub fn clock_jumps(&self) -> u64 {
        self.clock_jumps.load(Ordering::Relaxed)
    }

    /// Ends when the mountpoint is removed.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Removes it: publisher and subscribers go.
    pub fn close(&self) {
        self.closed.cancel();
        self.ring.wake();
    }

    /// Watches over the grace: ends the stream when its publisher does not come back. Runs until the mountpoint is closed.
    pub async fn keep(&self) {
        let mut state = self.state.subscribe();
        loop {
            let now = *state.borrow_and_update();
            let StreamState::Interrupted(since) = now else {
                tokio::select! {
                    () = self.closed.cancelled() => return,
                    changed = state.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                }
            };
            let grace = self.lock().limits.grace;
            tokio::select! {
                () = self.closed.cancelled() => return,
                () = tokio::time::sleep_until(since + grace) => self.end(since),
                _ = state.changed() => {}
            }
        }
    }

    /// Ends the stream for good, unless somebody has claimed the mountpoint since.
    fn end(&self, since: Instant) {
        let mut feed = self.lock();
        if feed.publisher.is_some() {
            return;
        }
        feed.timeline = Timeline::default();
        self.ring.end();
        self.state.send_if_modified(|state| {
            let ours = *state == StreamState::Interrupted(since);
            if ours {
                *state = StreamState::Idle;
            }
            ours
        });
    }

    pub(crate) fn release(&self, timeline: Timeline, generation: u64) {
        let mut feed = self.lock();
        if feed.generation != generation {
            return;
        }
        feed.publisher = None;
        feed.timeline = timeline;
        self.tap.end();
        drop(feed);
        self.state.send_replace(StreamState::Interrupted(Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Mountpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mountpoint")
            .field("name", &self.name)
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
