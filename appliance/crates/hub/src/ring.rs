//! One stream's recent units: GOP cache, fan-out and drop policy in one.
//!
//! A [`Subscriber`] is a position in the ring. It takes what is there up to the head and is never queued for: who is too
//! slow jumps to the newest keyframe, and what it missed is counted. Memory is the ring's bound, however many read.

mod state;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use fieldgate_media::{Draft, Ticks, TrackId, Tracks, Unit};
use state::State;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

use crate::WireForm;

/// How much a ring may hold at most; the oldest go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Payload bytes with their heads.
    pub bytes: usize,
    /// Span of stream time.
    pub age: Duration,
}

impl Default for Bound {
    fn default() -> Self {
        Bound { bytes: 8 << 20, age: Duration::from_secs(10) }
    }
}

/// What a ring holds, in order.
#[derive(Clone, Debug)]
pub enum Item {
    /// An access unit.
    Unit {
        /// The unit.
        unit: Unit,
        /// Its head and payload in the form that RTMP subscribers share, in one piece; the payload is a slice of it.
        wire: Bytes,
    },
    /// The tracks, or a codec header, from here on.
    Tracks {
        /// All tracks as they are now.
        tracks: Tracks,
        /// Whether they are the same media as before (a sequence header that was repeated).
        same: bool,
        /// The track whose codec header came from the source; none if a source tells all tracks at once, or if this is
        /// told to a subscriber that joins.
        header_of: Option<TrackId>,
        /// The stream's time when they came.
        at: Ticks,
    },
}

/// One place in a ring. Shared by all subscribers.
#[derive(Debug)]
pub struct Entry {
    /// Position since the ring was made.
    pub seq: u64,
    /// Media units published up to this entry, with itself.
    pub(crate) units_through: Units,
    /// What it holds.
    pub item: Item,
}

impl Entry {
    /// The entry's time on the stream's timeline.
    pub fn dts(&self) -> Ticks {
        match &self.item {
            Item::Unit { unit, .. } => unit.head.dts,
            Item::Tracks { at, .. } => *at,
        }
    }

    fn bytes(&self) -> usize {
        match &self.item {
            Item::Unit { wire, .. } => wire.len(),
            Item::Tracks { .. } => 0,
        }
    }
}

/// A count of media units.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Units {
    pub(crate) all: u64,
    /// How many of these are sound.
    pub(crate) audio: u64,
}

impl Units {
    fn since(self, before: Units) -> Units {
        Units { all: self.all.saturating_sub(before.all), audio: self.audio.saturating_sub(before.audio) }
    }
}

/// Where a new subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the newest keyframe, or at the next if there is none.
    Keyframe,
    /// At the next keyframe to come: nothing that is already there.
    NextKeyframe,
}

/// What happened in one [`Subscriber::take`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Entries handed out.
    pub entries: usize,
    /// Media units that this subscriber has missed since its last take.
    pub dropped_units: u64,
    /// How many of these are sound.
    pub dropped_audio: u64,
    /// There is more to take.
    pub more: bool,
}

/// Totals of one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Media units published.
    pub units: u64,
    /// Their payload and head bytes.
    pub bytes: u64,
    /// Keyframes of the video track (audio-only streams: all units).
    pub keyframes: u64,
    /// Units that subscribers missed, summed over all of them.
    pub dropped_units: u64,
    /// Jumps by which they were missed.
    pub jumps: u64,
    /// GOPs that outgrew the ring's bound, so that nobody could join in them.
    pub oversized_gops: u64,
    /// Units in the ring now.
    pub held_units: u64,
    /// Bytes in the ring now.
    pub held_bytes: u64,
    /// Subscribers now.
    pub subscribers: u64,
}

/// One stream's recent units.
pub struct Ring {
    state: Mutex<State>,
    wire: Arc<dyn WireForm>,
    /// For subscribers that are not written to by the publisher's turn.
    pub(crate) changed: Notify,
}

impl Ring {
    /// An empty ring. `wire` makes the form that RTMP subscribers share.
    pub fn new(bound: Bound, wire: Arc<dyn WireForm>) -> Self {
        Ring { state: Mutex::new(State::new(bound)), wire, changed: Notify::new() }
    }

    /// Changes the bound; what is over it goes at the next publish.
    pub fn set_bound(&self, bound: Bound) {
        self.lock().bound = bound;
    }

    /// Appends a unit and returns its entry. Units of tracks that were never announced are refused (`None`).
    pub fn publish(&self, draft: Draft) -> Option<Arc<Entry>> {
        let epoch = self.epoch();
        self.publish_in(epoch, draft)
    }

    /// Drops all that is kept; subscribers go on at the next keyframe. Units of the epoch that ends by this are refused
    /// from now on, however far on their way they are.
    pub fn cut(&self) {
        self.lock().cut();
    }

    /// How often it was cut.
    pub fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Like [`Ring::publish`]; refuses all units if the ring was cut since `epoch`.
    pub(crate) fn publish_in(&self, epoch: u64, draft: Draft) -> Option<Arc<Entry>> {
        let mut state = self.lock();
        if state.epoch != epoch {
            return None;
        }
        let track = state.tracks.get(draft.head.track)?;
        let (head, len, kind) = (draft.head, draft.payload().len(), track.kind());
        let (unit, wire) = draft.finish(|room| self.wire.write_head(room, &head, track, len));
        Some(state.push_unit(unit, wire, kind))
    }

    /// Announces tracks or a codec header.
    pub fn announce(&self, tracks: Tracks, header_of: Option<TrackId>) -> Arc<Entry> {
        self.lock().push_tracks(tracks, header_of)
    }

    /// The place that the next entry gets.
    pub(crate) fn head(&self) -> u64 {
        self.lock().head()
    }

    /// Wakes subscribers that wait in [`Subscriber::changed`].
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// The tracks as they are at the head.
    pub fn tracks(&self) -> Tracks {
        self.lock().tracks.clone()
    }

    /// Adds a reader.
    pub fn subscribe(self: &Arc<Self>, start: Start, max_lag: Duration) -> Subscriber {
        let slot = self.lock().add_cursor(start, Ticks::from_duration(max_lag));
        Subscriber { ring: self.clone(), slot }
    }

    /// Totals so far.
    pub fn counters(&self) -> Counters {
        self.lock().counters()
    }

    /// The newest time on the stream's timeline, once there is one.
    pub fn newest_dts(&self) -> Option<Ticks> {
        self.lock().newest_dts()
    }

    /// The stream has ended for good: nobody can join it any more, and who reads it may read on to its end.
    pub(crate) fn end(&self) {
        self.lock().end();
        self.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// A reader's place in a ring.
#[derive(Debug)]
pub struct Subscriber {
    ring: Arc<Ring>,
    slot: usize,
}

impl Subscriber {
    /// Appends to `out` what is there, at most `max_entries` and about `max_bytes` (at least one entry).
    ///
    /// After a jump, and at the very start, the first entry is the tracks as they are at that keyframe.
    pub fn take(&mut self, out: &mut Vec<Arc<Entry>>, max_entries: usize, max_bytes: usize) -> Taken {
        self.ring.lock().take(self.slot, out, max_entries, max_bytes)
    }

    /// Takes all of `turn`, the newest entries of the ring, if this reader has had everything before them: then they are
    /// what a [`Subscriber::take`] would give, and need not be handed out one by one. False: nothing was taken.
    pub fn follow(&mut self, turn: &[Arc<Entry>]) -> bool {
        self.ring.lock().follow(self.slot, turn)
    }

    /// Whether a take would give something (also a jump that is due).
    pub fn has_more(&self) -> bool {
        self.ring.lock().has_more(self.slot)
    }

    /// Waits until something was published since the last take. Never resolves early for want of a wake-up.
    pub async fn changed(&self) {
        loop {
            let notified = self.ring.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.has_more() {
                return;
            }
            notified.await;
        }
    }

    /// Units that this subscriber has missed so far.
    pub fn dropped_units(&self) -> u64 {
        self.ring.lock().dropped_units(self.slot)
    }

    /// The ring that it reads.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.ring.lock().remove_cursor(self.slot);
    }
}
