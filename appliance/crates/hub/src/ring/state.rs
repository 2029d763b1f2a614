//! What stands behind a ring's lock.

use super::{Bound, Counters, Entry, Item, Start, Taken, Units};
use bytes::Bytes;
use fieldgate_media::{Ticks, TrackId, TrackKind, Tracks, Unit};
use std::collections::VecDeque;
use std::sync::Arc;

/// The start of the newest GOP that can still be joined.
#[derive(Clone, Debug)]
struct Gop {
    seq: u64,
    units_before: Units,
    tracks: Tracks,
}

#[derive(Debug)]
struct Cursor {
    next: u64,
    /// Media units before `next`, to count what a jump leaves out.
    units_before: Units,
    /// Nothing may be handed out before the next keyframe.
    awaits_keyframe: bool,
    /// It was there before the stream's first unit: it begins with that, whatever it is.
    from_start: bool,
    /// It has been given something: what it waits for before that is not a loss.
    joined: bool,
    /// The tracks to tell before the next unit: those in force where a join or a jump ended.
    tell: Option<Tracks>,
    max_lag: Ticks,
    dropped: Units,
    reported_dropped: Units,
}

impl Cursor {
    /// Goes on at another place; returns how many units it misses by that.
    fn jump(&mut self, seq: u64, units_before: Units) -> u64 {
        // Who has not had its first unit yet is joining, not losing.
        let missed = if self.joined { units_before.since(self.units_before) } else { Units::default() };
        self.dropped.all += missed.all;
        self.dropped.audio += missed.audio;
        self.next = seq;
        self.units_before = units_before;
        self.awaits_keyframe = false;
        self.from_start = false;
        missed.all
    }
}

impl Counters {
    fn count(&mut self, missed: u64) {
        self.dropped_units += missed;
        self.jumps += u64::from(missed > 0);
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) bound: Bound,
    pub(super) tracks: Tracks,
    entries: VecDeque<Arc<Entry>>,
    /// Position that the next entry gets.
    head: u64,
    bytes: usize,
    gop: Option<Gop>,
    /// The GOP now at the head has lost its keyframe to the bound.
    gop_cut: bool,
    newest_dts: Option<Ticks>,
    cursors: Vec<Option<Cursor>>,
    totals: Counters,
    /// Units published.
    units: Units,
    /// How often the stream was cut; units of before are refused.
    pub(super) epoch: u64,
}

impl State {
    pub(super) fn new(bound: Bound) -> Self {
        State {
            bound,
            tracks: Tracks::default(),
            entries: VecDeque::new(),
            head: 0,
            bytes: 0,
            gop: None,
            gop_cut: false,
            newest_dts: None,
            cursors: Vec::new(),
            totals: Counters::default(),
            units: Units::default(),
            epoch: 0,
        }
    }

    /// Drops all that is kept: every cursor waits for the next keyframe.
    pub(super) fn cut(&mut self) {
        self.epoch += 1;
        self.gop = None;
        self.gop_cut = true;
        while self.pop_oldest() {}
        for cursor in self.cursors.iter_mut().flatten() {
            let missed = cursor.jump(self.head, self.units);
            self.totals.count(missed);
            cursor.awaits_keyframe = true;
        }
    }

    pub(super) fn push_unit(&mut self, unit: Unit, wire: Bytes, kind: TrackKind) -> Arc<Entry> {
        let joinable = match kind {
            TrackKind::Video => unit.head.keyframe,
            // Without pictures any sound is a place to begin.
            TrackKind::Audio => self.tracks.first(TrackKind::Video).is_none(),
        };
        if joinable {
            self.gop = Some(Gop { seq: self.head, units_before: self.units, tracks: self.tracks.clone() });
            self.gop_cut = false;
            self.totals.keyframes += 1;
        }
        let (seq, units_before) = (self.head, self.units);
        let waiting = self.cursors.iter_mut().flatten().filter(|cursor| cursor.awaits_keyframe);
        for cursor in waiting.filter(|cursor| joinable || cursor.from_start) {
            self.totals.count(cursor.jump(seq, units_before));
            cursor.tell = Some(self.tracks.clone());
        }
        self.newest_dts = Some(self.newest_dts.map_or(unit.head.dts, |newest| newest.max(unit.head.dts)));
        self.units.all += 1;
        self.units.audio += u64::from(kind == TrackKind::Audio);
        self.totals.units += 1;
        self.totals.bytes += wire.len() as u64;
        self.append(Entry { seq: self.head, units_through: self.units, item: Item::Unit { unit, wire } })
    }

    pub(super) fn push_tracks(&mut self, tracks: Tracks, header_of: Option<TrackId>) -> Arc<Entry> {
        let same = tracks.same_media(&self.tracks);
        self.tracks = tracks.clone();
        let at = self.newest_dts.unwrap_or_default();
        self.append(Entry {
            seq: self.head,
            units_through: self.units,
            item: Item::Tracks { tracks, same, header_of, at },
        })
    }

    fn append(&mut self, entry: Entry) -> Arc<Entry> {
        self.trim();
        self.bytes += entry.bytes();
        self.head += 1;
        let entry = Arc::new(entry);
        self.entries.push_back(entry.clone());
        self.enforce_bound();
        entry
    }

    /// Lets go of what nobody needs: all before the newest GOP that every cursor has passed.
    fn trim(&mut self) {
        let keep = self.gop.as_ref().map_or(self.head, |gop| gop.seq);
        if self.base() >= keep {
            return;
        }
        let slowest = self.cursors.iter().flatten().map(|cursor| cursor.next).min().unwrap_or(keep);
        let keep = keep.min(slowest);
        while self.base() < keep && self.pop_oldest() {}
    }

    fn enforce_bound(&mut self) {
        let max_age = Ticks::from_duration(self.bound.age);
        while self.entries.len() > 1 {
            let oldest = self.entries.front().map(|entry| entry.dts());
            let age = match (self.newest_dts, oldest) {
                (Some(newest), Some(oldest)) => newest - oldest,
                _ => Ticks::ZERO,
            };
            if self.bytes <= self.bound.bytes && age <= max_age {
                return;
            }
            self.pop_oldest();
        }
    }

    fn pop_oldest(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else { return false };
        self.bytes -= entry.bytes();
        if self.gop.as_ref().is_some_and(|gop| gop.seq == entry.seq) {
            self.gop = None;
            if !self.gop_cut {
                self.gop_cut = true;
                self.totals.oversized_gops += 1;
            }
        }
        true
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    fn base(&self) -> u64 {
        self.head - self.entries.len() as u64
    }

    /// The stream has ended: nobody can join it any more; who reads it may read on to its end.
    pub(super) fn end(&mut self) {
        self.gop = None;
        self.newest_dts = None;
        self.tracks = Tracks::default();
        for cursor in self.cursors.iter_mut().flatten().filter(|cursor| cursor.awaits_keyframe) {
            let missed = cursor.jump(self.head, self.units);
            self.totals.count(missed);
            cursor.awaits_keyframe = true;
            cursor.from_start = true;
        }
        self.trim();
    }

    /// Whether no unit of the present stream has come yet.
    fn is_before_stream(&self) -> bool {
        self.newest_dts.is_none()
    }

    pub(super) fn add_cursor(&mut self, start: Start, max_lag: Ticks) -> usize {
        let from = self.gop.as_ref().filter(|_| start == Start::Keyframe);
        let cursor = Cursor {
            next: from.map_or(self.head, |gop| gop.seq),
            units_before: from.map_or(self.units, |gop| gop.units_before),
            awaits_keyframe: from.is_none(),
            from_start: self.is_before_stream(),
            joined: false,
            tell: from.map(|gop| gop.tracks.clone()),
            max_lag,
            dropped: Units::default(),
            reported_dropped: Units::default(),
        };
        let slot = self.cursors.iter().position(Option::is_none).unwrap_or(self.cursors.len());
        match self.cursors.get_mut(slot) {
            Some(free) => *free = Some(cursor),
            None => self.cursors.push(Some(cursor)),
        }
        slot
    }

    pub(super) fn remove_cursor(&mut self, slot: usize) {
        if let Some(cursor) = self.cursors.get_mut(slot) {
            *cursor = None;
        }
    }

    pub(super) fn follow(&mut self, slot: usize, turn: &[Arc<Entry>]) -> bool {
        let (Some(first), Some(last)) = (turn.first(), turn.last()) else { return false };
        let Some(Some(cursor)) = self.cursors.get_mut(slot) else { return false };
        let at_head = cursor.next == first.seq && cursor.tell.is_none() && !cursor.awaits_keyframe;
        if at_head && last.seq + 1 == self.head {
            cursor.next = self.head;
            cursor.units_before = self.units;
            return true;
        }
        false
    }

    pub(super) fn has_more(&self, slot: usize) -> bool {
        let Some(Some(cursor)) = self.cursors.get(slot) else { return false };
        !cursor.awaits_keyframe && cursor.next < self.head
    }

    pub(super) fn dropped_units(&self, slot: usize) -> u64 {
        self.cursors.get(slot).and_then(Option::as_ref).map_or(0, |cursor| cursor.dropped.all)
    }

    pub(super) fn take(
        &mut self,
        slot: usize,
        out: &mut Vec<Arc<Entry>>,
        max_entries: usize,
        max_bytes: usize,
    ) -> Taken {
        let base = self.base();
        let Some(Some(cursor)) = self.cursors.get_mut(slot) else { return Taken::default() };

        let lag = match (self.newest_dts, cursor.next.checked_sub(base)) {
            (Some(newest), Some(index)) => {
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                self.entries.get(index).map_or(Ticks::ZERO, |entry| newest - entry.dts())
            }
            _ => Ticks::ZERO,
        };
        let lost_its_place = cursor.next < base;
        if !cursor.awaits_keyframe && (lost_its_place || lag > cursor.max_lag) {
            match &self.gop {
                Some(gop) if gop.seq > cursor.next => {
                    self.totals.count(cursor.jump(gop.seq, gop.units_before));
                    cursor.tell = Some(gop.tracks.clone());
                }
                // Too slow within the newest GOP, or there is none to join: on to the next keyframe.
                _ => {
                    let missed = cursor.jump(self.head, self.units);
                    self.totals.count(missed);
                    cursor.awaits_keyframe = true;
                }
            }
        }

        let dropped = cursor.dropped.since(cursor.reported_dropped);
        let mut taken =
            Taken { dropped_units: dropped.all, dropped_audio: dropped.audio, ..Taken::default() };
        cursor.reported_dropped = cursor.dropped;
        if cursor.awaits_keyframe {
            return taken;
        }
        cursor.joined = true;
        if let Some(tracks) = cursor.tell.take() {
            let index = usize::try_from(cursor.next - base).unwrap_or(usize::MAX);
            let at = self
                .entries
                .get(index)
                .map_or_else(|| self.newest_dts.unwrap_or_default(), |entry| entry.dts());
            let item = Item::Tracks { tracks, same: false, header_of: None, at };
            out.push(Arc::new(Entry { seq: cursor.next, units_through: cursor.units_before, item }));
            taken.entries += 1;
        }
        let mut bytes = 0;
        let from = usize::try_from(cursor.next - base).unwrap_or(usize::MAX);
        for entry in self.entries.range(from.min(self.entries.len())..) {
            if taken.entries >= max_entries || (bytes > 0 && bytes + entry.bytes() > max_bytes) {
                break;
            }
            bytes += entry.bytes();
            out.push(entry.clone());
            cursor.next = entry.seq + 1;
            cursor.units_before = entry.units_through;
            taken.entries += 1;
        }
        taken.more = cursor.next < self.head;
        taken
    }

    pub(super) fn newest_dts(&self) -> Option<Ticks> {
        self.newest_dts
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            held_units: self.entries.len() as u64,
            held_bytes: self.bytes as u64,
            subscribers: self.cursors.iter().flatten().count() as u64,
            ..self.totals
        }
    }
}
