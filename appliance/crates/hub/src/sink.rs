//! The publisher's side of a stream, and the subscribers that its turn writes to.

use crate::mountpoint::{Mountpoint, PublisherInfo};
use crate::ring::{Entry, Item};
use crate::timeline::{Pace, Timeline};
use fieldgate_media::{Draft, TrackId, Tracks};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A subscriber on the publisher's shard, written to within the publisher's turn.
pub trait Sink {
    /// Writes what is new without waiting. `turn` is what was published in this turn, for those who have had all before
    /// it; `batch` is empty scratch space for those who have not. A socket that would block is left to the sink's own
    /// task.
    fn flush(&self, turn: &[Arc<Entry>], batch: &mut Vec<Arc<Entry>>);

    /// How long it gathers before it writes; zero: it writes at once.
    fn gathers_for(&self) -> Duration;
}

/// All sinks of one mountpoint on one shard.
#[derive(Default)]
pub struct SinkList {
    slots: RefCell<Vec<Option<Rc<dyn Sink>>>>,
    batch: RefCell<Vec<Arc<Entry>>>,
}

impl SinkList {
    /// Adds a sink until the guard is dropped.
    pub fn add(self: &Rc<Self>, sink: Rc<dyn Sink>) -> SinkGuard {
        let mut slots = self.slots.borrow_mut();
        let slot = match slots.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                slots.push(None);
                slots.len() - 1
            }
        };
        if let Some(place) = slots.get_mut(slot) {
            *place = Some(sink);
        }
        drop(slots);
        SinkGuard { list: self.clone(), slot }
    }

    /// Lets every sink write what is new, `turn` being what was published since the last time.
    pub fn flush(&self, turn: &[Arc<Entry>]) {
        let mut batch = self.batch.borrow_mut();
        let mut slot = 0;
        // A sink may add or remove sinks while it is flushed: no borrow is held over its call.
        while let Some(sink) = self.at(slot) {
            if let Some(sink) = sink {
                sink.flush(turn, &mut batch);
                batch.clear();
            }
            slot += 1;
        }
    }

    /// Whether nobody is listed.
    pub fn is_empty(&self) -> bool {
        self.slots.borrow().iter().all(Option::is_none)
    }

    /// For how long all that are listed gather, and how many they are.
    fn gathering(&self) -> Option<(Duration, u64)> {
        let mut gathering: Option<(Duration, u64)> = None;
        for sink in self.slots.borrow().iter().flatten() {
            let period = sink.gathers_for();
            if period.is_zero() {
                return None;
            }
            let (shortest, count) = gathering.unwrap_or((period, 0));
            gathering = Some((shortest.min(period), count + 1));
        }
        gathering
    }

    fn at(&self, slot: usize) -> Option<Option<Rc<dyn Sink>>> {
        self.slots.borrow().get(slot).cloned()
    }
}

/// Keeps a sink listed.
pub struct SinkGuard {
    list: Rc<SinkList>,
    slot: usize,
}

impl Drop for SinkGuard {
    fn drop(&mut self) {
        let removed = self.list.slots.borrow_mut().get_mut(self.slot).and_then(Option::take);
        // The sink may own more guards: drop it after the borrow.
        drop(removed);
    }
}

/// Feeds a mountpoint. One exists per mountpoint at a time; dropping it ends the stream (or begins its grace).
///
/// Lives on the mountpoint's shard: [`Publisher::flush`] writes to the sinks there.
pub struct Publisher {
    mountpoint: Arc<Mountpoint>,
    sinks: Rc<SinkList>,
    timeline: Timeline,
    kicked: CancellationToken,
    generation: u64,
    /// The ring's epoch in which it may publish.
    epoch: u64,
    /// Published since the last flush.
    turn: Vec<Arc<Entry>>,
}

impl Publisher {
    pub(crate) fn new(
        mountpoint: Arc<Mountpoint>,
        sinks: Rc<SinkList>,
        timeline: Timeline,
        kicked: CancellationToken,
        generation: u64,
        epoch: u64,
    ) -> Self {
        Publisher { mountpoint, sinks, timeline, kicked, generation, epoch, turn: Vec::new() }
    }

    /// What comes goes on where the publisher before has stopped, with the source's own times: the source has kept what
    /// was made in between. To be called before the first unit.
    pub fn resume(&mut self) {
        self.timeline.resume();
    }

    /// How far the source's times are believed; [`Pace::Source`] unless told otherwise. To be called before the first unit.
    pub fn set_pace(&mut self, pace: Pace) {
        self.timeline.set_pace(pace);
    }

    /// Announces all tracks at once, from a source that does not say which of them changed.
    pub fn announce(&mut self, tracks: Tracks) {
        self.announce_header(tracks, None);
    }

    /// Announces the tracks after the source sent a codec header of `header_of`, also an identical one.
    pub fn announce_header(&mut self, tracks: Tracks, header_of: Option<TrackId>) {
        self.mountpoint.tap().tracks(&tracks);
        let entry = self.mountpoint.ring().announce(tracks, header_of);
        self.turn.push(entry);
    }

    /// Appends a unit; its times are put on the stream's clean timeline. Never waits.
    ///
    /// Returns false, and drops it, if its track was not announced or the stream was cut since.
    pub fn publish(&mut self, mut draft: Draft) -> bool {
        let (jumps, now) = (self.timeline.jumps(), Instant::now());
        self.timeline.clean(&mut draft.head, now);
        let jumped = self.timeline.jumps() - jumps;
        if jumped > 0 {
            self.mountpoint.count_clock_jumps(jumped);
        }
        match self.mountpoint.ring().publish_in(self.epoch, draft) {
            Some(entry) => {
                if let Item::Unit { unit, .. } = &entry.item {
                    self.mountpoint.tap().unit(unit, now);
                    if self.mountpoint.epoch() != self.epoch {
                        // Cut in between: nobody may look at it either.
                        self.mountpoint.tap().end();
                    }
                }
                self.turn.push(entry);
            }
            None => return false,
        }
        true
    }

    /// Ends a turn: every subscriber may write what was published in it.
    pub fn flush(&mut self) {
        if !self.turn.is_empty() {
            self.sinks.flush(&self.turn);
            self.turn.clear();
            self.mountpoint.ring().wake();
        }
    }

    /// How long nobody wants anything new: all who read the stream gather, for this time at least. Zero: somebody wants
    /// units at once, or nobody reads.
    pub fn nobody_reads_for(&self) -> Duration {
        let Some((shortest, sinks)) = self.sinks.gathering() else { return Duration::ZERO };
        // Who reads but is no sink waits for each unit.
        if self.mountpoint.ring().counters().subscribers > sinks { Duration::ZERO } else { shortest }
    }

    /// The mountpoint that it feeds.
    pub fn mountpoint(&self) -> &Arc<Mountpoint> {
        &self.mountpoint
    }

    /// Ends when the gateway wants this publisher gone.
    pub fn kicked(&self) -> CancellationToken {
        self.kicked.clone()
    }

    /// Who this publisher said it was.
    pub fn info(&self) -> Option<PublisherInfo> {
        self.mountpoint.publisher()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.flush();
        self.mountpoint.release(std::mem::take(&mut self.timeline), self.generation);
    }
}
