//! Records one mountpoint: cuts its stream and hands whole segments to the disk.

use super::shelf::{Budget, Shelf};
use fieldgate_hub::{Clock, Entry, Item, Mountpoint, StreamState, Subscriber};
use fieldgate_proto::segment::{Found, Package, Segment, Settings};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

const ROUND_ENTRIES: usize = 512;
const ROUND_BYTES: usize = 4 << 20;
/// Segments that may wait for the disk; more are lost and counted.
const WAITING_MAX: usize = 4;

/// Segments are numbered from the half seconds since 2025 on, so that numbers rise also over restarts.
const NUMBERS_SINCE_UNIX_MICROS: i64 = 1_735_689_600_000_000;

type Tracks = [Option<Arc<Segment>>; 2];

/// One mountpoint that is recorded.
pub struct Recorder {
    /// What is recorded.
    pub mountpoint: Arc<Mountpoint>,
    /// Where to.
    pub shelf: Arc<Shelf>,
    /// How much is kept.
    pub budget: Budget,
    /// How long a segment shall be, ticks.
    pub segment: i64,
    /// Bytes that segments may take in memory.
    pub memory_bytes: u64,
    /// Time of day.
    pub clock: Clock,
    /// Ends when no more shall be recorded; what is whole by then is kept.
    pub cancel: CancellationToken,
}

impl Recorder {
    /// Records until it is told to stop or the mountpoint goes. Runs on the mountpoint's shard.
    pub async fn run(self) {
        let since = self.clock.unix_micros().saturating_sub(NUMBERS_SINCE_UNIX_MICROS);
        let first_number = u64::try_from(since / 500_000).unwrap_or(0).max(self.shelf.next_number());
        let mut package = Package::new(Settings {
            segment: self.segment,
            part: None,
            window: self.segment,
            max_bytes: self.memory_bytes,
            first_number,
        });
        let mut subscriber = self.mountpoint.subscribe(Some(self.mountpoint.limits().bound.age));
        let mut state = self.mountpoint.state();
        let (closed, mut publication) = (self.mountpoint.closed(), self.mountpoint.publication().0);
        let mut writer = Writer {
            shelf: self.shelf.clone(),
            budget: self.budget,
            next: first_number,
            waiting: VecDeque::new(),
            writing: None,
            in_trouble: false,
        };
        let mut entries = Vec::new();
        let mut was_live = false;
        loop {
            let ended = *state.borrow_and_update() == StreamState::Idle;
            let more = self.round(&mut package, &mut subscriber, &mut entries, &mut publication);
            if ended && was_live && !more {
                // What has come is a whole; the next stream does not follow it.
                package.interrupt();
            }
            was_live = !ended || more;
            writer.take(&package);
            writer.begin();
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = self.cancel.cancelled() => break,
                () = closed.cancelled() => break,
                () = writer.done(), if writer.is_writing() => {}
                () = subscriber.changed() => {}
                _ = state.changed() => {}
            }
        }
        package.end();
        writer.take(&package);
        writer.finish().await;
    }

    /// Takes what is there; true if there is more.
    fn round(
        &self,
        package: &mut Package,
        subscriber: &mut Subscriber,
        entries: &mut Vec<Arc<Entry>>,
        publication: &mut u64,
    ) -> bool {
        let taken = subscriber.take(entries, ROUND_ENTRIES, ROUND_BYTES);
        let now = self.clock.unix_micros();
        let (present, began_at) = self.mountpoint.publication();
        if taken.dropped_units > 0 {
            let (mountpoint, lost) = (self.mountpoint.name(), taken.dropped_units);
            warn!(mountpoint, lost, "the recorder was too slow for the stream");
            package.interrupt();
        }
        for entry in entries.drain(..) {
            if present != *publication && entry.seq >= began_at {
                *publication = present;
                package.interrupt();
            }
            match &entry.item {
                Item::Tracks { tracks, .. } => package.on_tracks(tracks),
                Item::Unit { unit, .. } => package.on_unit(unit, now),
            }
        }
        taken.more
    }
}

/// What waits for the disk, and what is on its way.
struct Writer {
    shelf: Arc<Shelf>,
    budget: Budget,
    /// The first number that was not taken yet.
    next: u64,
    waiting: VecDeque<Tracks>,
    writing: Option<JoinHandle<io::Result<()>>>,
    in_trouble: bool,
}

impl Writer {
    /// Takes the segments that have become whole.
    fn take(&mut self, package: &Package) {
        loop {
            match package.together(self.next) {
                Found::Here(tracks) => {
                    if self.waiting.len() < WAITING_MAX {
                        self.waiting.push_back(tracks);
                    } else {
                        self.shelf.count_lost();
                    }
                }
                Found::Soon => return,
                // Too old to be kept in memory, or not there yet.
                Found::Never if self.next >= package.next_number() => return,
                Found::Never => {}
            }
            self.next = self.next.saturating_add(1);
        }
    }

    fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Writes the next one, unless one is being written.
    fn begin(&mut self) {
        if self.writing.is_none()
            && let Some(tracks) = self.waiting.pop_front()
        {
            let (shelf, budget) = (self.shelf.clone(), self.budget);
            self.writing = Some(tokio::task::spawn_blocking(move || shelf.write(&tracks, budget)));
        }
    }

    /// Waits until what is being written is written.
    async fn done(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        let outcome = writing.await;
        self.writing = None;
        let outcome = outcome.unwrap_or_else(|_| Err(io::Error::other("the disk's task panicked")));
        if let Err(error) = &outcome
            && !self.in_trouble
        {
            warn!(%error, "a segment could not be recorded; trying on with the next");
        }
        self.in_trouble = outcome.is_err();
    }

    async fn finish(&mut self) {
        self.done().await;
        while !self.waiting.is_empty() {
            self.begin();
            self.done().await;
        }
    }
}
