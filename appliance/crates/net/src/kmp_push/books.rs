//! What became of each frame: told to the ledger, and to the backlog where one keeps them.

use super::marks::Marks;
use bytes::Bytes;
use fieldgate_hub::backlog::{Batch, LossCause, Lost, Stored, StoredKind};
use fieldgate_hub::ledger::{Fate as Told, LedgerKey, Stretch, Why};
use fieldgate_hub::{Backlog, LedgerHandle, LedgerKeeper};
use fieldgate_proto::kmp::Wire;
use fieldgate_proto::kmp::sender::{Arrears, Cause, Fate, Owed};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// Losses whose cause is remembered.
const MAX_LOSSES: usize = 1024;

/// One track's frames and their capture times. See the module.
pub(super) struct Books {
    backlog: Option<Arc<dyn Backlog>>,
    keeper: Arc<dyn LedgerKeeper>,
    mountpoint: String,
    track: String,
    handles: BTreeMap<String, LedgerHandle>,
    pub(super) marks: Marks,
    /// What the backlog has lost of what a sender goes through.
    losses: VecDeque<Lost>,
    /// The cause that was told last.
    last_why: Option<Why>,
    /// There were losses that the senders have not heard of.
    has_news: bool,
    /// Frames that were never put in the queue and that nobody was told of.
    missed: u64,
    /// When the last frame was captured that was put in the queue, or told as missed.
    newest_unix_micros: Option<i64>,
    /// Whose the backlog is.
    upstream: String,
    /// What an earlier life has left, and a sender goes through.
    early: Range<u64>,
    /// Ids below are those of earlier lives.
    early_id: u64,
    /// Those of them that were read, as rows without a gap.
    read: VecDeque<Range<u64>>,
    /// Frames of earlier lives below may have been handed to a socket.
    early_handed_id: u64,
    /// Everything below is released.
    floor: u64,
    /// What was noted last.
    note: Bytes,
    /// Upstreams that something waits for, as was told.
    waiting: BTreeSet<String>,
    /// Why frames of an upstream that is given up are not sent any more.
    abandoned: Why,
}

impl Books {
    /// `abandoned`: why frames of an upstream that is given up are not sent any more.
    pub(super) fn new(
        backlog: Option<Arc<dyn Backlog>>,
        keeper: Arc<dyn LedgerKeeper>,
        mountpoint: String,
        track: String,
        abandoned: Why,
    ) -> Self {
        let held = backlog.as_ref().map(|backlog| backlog.held()).unwrap_or_default();
        Books {
            backlog,
            keeper,
            mountpoint,
            track,
            handles: BTreeMap::new(),
            marks: Marks::recovered(&held),
            losses: VecDeque::new(),
            last_why: None,
            has_news: false,
            missed: 0,
            newest_unix_micros: None,
            upstream: String::new(),
            early: held.ids,
            early_id: held.next_id,
            read: VecDeque::new(),
            early_handed_id: held.next_id,
            floor: 0,
            note: Bytes::new(),
            waiting: BTreeSet::new(),
            abandoned,
        }
    }

    /// The lowest id that a new stream may begin with.
    pub(super) fn next_id(&self) -> u64 {
        self.backlog.as_ref().map_or(0, |backlog| backlog.held().next_id)
    }

    /// Tells the ledger what was found of an earlier life; what of it was not settled.
    pub(super) fn resume(&mut self, upstream: &str) -> Vec<Owed> {
        let (note, in_order) = self.backlog.as_ref().map(|backlog| backlog.note()).unwrap_or_default();
        let owed = Arrears::noted(&note, in_order, self.early.clone());
        if let Some(last) = owed.last().filter(|last| last.end_id == self.early.end) {
            self.early_handed_id = last.handed_id;
        }
        let kept = self.early.clone();
        let recovered = (!kept.is_empty()).then(|| self.marks.stretch(kept.start, kept.end));
        self.handle(upstream).resume(recovered);
        self.upstream = upstream.to_owned();
        self.note_losses();
        owed
    }

    /// Remembers what is owed, for the next life.
    pub(super) fn keep_note(&mut self, note: Bytes) {
        if let Some(backlog) = self.backlog.as_ref().filter(|_| self.note != note) {
            backlog.keep_note(note.clone());
            self.note = note;
        }
    }

    /// Hears what the backlog has lost. What no sender comes upon is told at once.
    fn note_losses(&mut self) {
        let losses = self.backlog.as_ref().map(|backlog| backlog.take_losses()).unwrap_or_default();
        self.has_news |= !losses.is_empty();
        for lost in losses {
            let is_early = lost.ids.end <= self.early.start
                || (lost.ids.start >= self.early.end && lost.ids.end <= self.early_id);
            if lost.cause == LossCause::Restart || is_early {
                self.tell_early(&lost);
            } else {
                self.losses.push_back(lost);
            }
        }
        while self.losses.len() > MAX_LOSSES {
            self.losses.pop_front();
        }
    }

    fn tell_early(&mut self, lost: &Lost) {
        let fate = match lost.cause {
            // What was in memory alone may have been delivered before the stop.
            LossCause::Restart => Told::Unknown,
            cause if lost.ids.start >= self.early_handed_id => Told::Lost(Why::Backlog(cause)),
            // An earlier life may have sent them.
            cause => Told::Unconfirmed(Why::Backlog(cause)),
        };
        let (from_unix_micros, to_unix_micros) = (lost.from_unix_micros, lost.to_unix_micros);
        let stretch =
            Stretch { from_unix_micros, to_unix_micros, frames: lost.frames.unwrap_or(0), bytes: 0 };
        let upstream = self.upstream.clone();
        self.handle(&upstream).settle(fate, stretch);
    }

    /// Tells what became of frames that the backlog has not, each part by its own cause; how many they are, as far as that
    /// is known.
    fn settle_dropped(
        &mut self,
        upstream: &str,
        ids: Range<u64>,
        rest: Option<Why>,
        told: fn(Why) -> Told,
    ) -> u64 {
        let (mut next_id, mut frames) = (ids.start, 0);
        let overlaps = |lost: &&Lost| lost.ids.start < ids.end && lost.ids.end > ids.start;
        let mut losses: Vec<Lost> = self.losses.iter().filter(overlaps).cloned().collect();
        losses.sort_by_key(|lost| lost.ids.start);
        for lost in losses {
            let part = lost.ids.start.max(next_id)..lost.ids.end.min(ids.end);
            if part.is_empty() {
                continue;
            }
            let why = Why::Backlog(lost.cause);
            frames += self.settle_unnamed(upstream, next_id..part.start, rest, why, told);
            next_id = part.end;
            let stretch = self.marks.stretch(part.start, part.end);
            frames += stretch.frames;
            self.last_why = Some(why);
            self.handle(upstream).settle(told(why), stretch);
        }
        let why = self.last_why.unwrap_or(Why::Backlog(LossCause::Bytes));
        frames + self.settle_unnamed(upstream, next_id..ids.end, rest, why, told)
    }

    /// Frames that the backlog has not named as lost. What was read goes with the gap `why` that comes after it. What is not
    /// kept of an earlier life, which was killed before it told, may be any number of frames: ids were set aside.
    fn settle_unnamed(
        &mut self,
        upstream: &str,
        ids: Range<u64>,
        rest: Option<Why>,
        why: Why,
        told: fn(Why) -> Told,
    ) -> u64 {
        if let Some(rest) = rest {
            return self.settle_all(upstream, ids, told(rest));
        }
        let early_id = self.early_id.clamp(ids.start, ids.end.max(ids.start));
        let clip = |row: &Range<u64>| row.start.max(ids.start)..row.end.min(early_id);
        let rows: Vec<Range<u64>> = self.read.iter().map(clip).filter(|row| !row.is_empty()).collect();
        let (mut next_id, mut frames) = (ids.start, 0);
        for row in rows.into_iter().chain(std::iter::once(early_id..ids.end)) {
            if row.start > next_id {
                let stretch = Stretch { frames: 0, bytes: 0, ..self.marks.stretch(next_id, row.start) };
                self.handle(upstream).settle(Told::Unknown, stretch);
            }
            next_id = row.end;
            if !row.is_empty() {
                frames += self.settle_all(upstream, row, told(why));
            }
        }
        frames
    }

    /// A frame was put in the queue.
    pub(super) fn append(
        &mut self,
        id: u64,
        info: Option<&Wire>,
        frame: &Wire,
        keyframe: bool,
        unix_micros: i64,
    ) {
        self.marks.append(id, unix_micros, frame.len());
        self.newest_unix_micros = Some(unix_micros);
        let Some(backlog) = &self.backlog else { return };
        let stored = |kind, wire: &Wire| Stored {
            id,
            kind,
            keyframe: kind == StoredKind::Frame && keyframe,
            captured_unix_micros: unix_micros,
            head: wire.head.clone(),
            body: wire.body.clone(),
        };
        let header = info.map(|info| stored(StoredKind::Header, info));
        for packet in header.into_iter().chain([stored(StoredKind::Frame, frame)]) {
            if let Err(error) = backlog.append(packet) {
                // The frame is still sent from memory; only an outage would miss it, and then it is named as lost.
                tracing::warn!(mountpoint = self.mountpoint, track = self.track, %error, "frame not kept");
            }
        }
    }

    /// Notes the times of what was read.
    pub(super) fn learn(&mut self, batch: &Batch) {
        self.marks.learn(batch);
        let early = batch.packets.iter().filter(|packet| packet.is_frame() && packet.id < self.early_id);
        for id in early.map(|packet| packet.id) {
            match self.read.back_mut() {
                Some(last) if last.end == id => last.end = id + 1,
                // What is read again is known.
                Some(last) if id < last.end => {}
                _ => self.read.push_back(id..id + 1),
            }
        }
        while self.read.len() > MAX_LOSSES {
            self.read.pop_front();
        }
    }

    /// Frames were gone before they could be put in the queue.
    pub(super) fn miss(&mut self, frames: u64) {
        self.missed += frames;
    }

    /// Whether there are such frames that nobody was told of.
    pub(super) fn has_missed(&self) -> bool {
        self.missed > 0
    }

    /// Tells each upstream's page what was missed since the last frame, up to this capture time.
    pub(super) fn tell_missed(&mut self, upstreams: &[String], until: i64) {
        if upstreams.is_empty() {
            return;
        }
        let from_unix_micros = self.newest_unix_micros.unwrap_or(until);
        let to_unix_micros = until.max(from_unix_micros);
        let frames = std::mem::take(&mut self.missed);
        for upstream in upstreams {
            let stretch = Stretch { from_unix_micros, to_unix_micros, frames, bytes: 0 };
            self.handle(upstream).settle(Told::Lost(Why::TooSlow), stretch);
        }
        // What is missed next came later.
        self.newest_unix_micros = Some(to_unix_micros);
    }

    /// The fate of frames of an upstream is known; how many they are, as far as that is known.
    pub(super) fn settle(&mut self, upstream: &str, ids: Range<u64>, fate: Fate) -> u64 {
        self.note_losses();
        let (cause, told): (Cause, fn(Why) -> Told) = match fate {
            Fate::Acknowledged => return self.settle_all(upstream, ids, Told::Delivered),
            Fate::Sent => return self.settle_all(upstream, ids, Told::Sent),
            Fate::Lost(cause) => (cause, Told::Lost),
            Fate::Unconfirmed(cause) => (cause, Told::Unconfirmed),
        };
        let why = match cause {
            Cause::Backlog => return self.settle_dropped(upstream, ids, None, told),
            Cause::Headless => {
                let rest = self.last_why.unwrap_or(Why::Backlog(LossCause::Bytes));
                return self.settle_dropped(upstream, ids, Some(rest), told);
            }
            Cause::Memory => Why::Backlog(LossCause::Bytes),
            Cause::Skipped => Why::Skipped,
            Cause::Unacknowledged => Why::Unacknowledged,
            Cause::Abandoned => self.abandoned,
        };
        self.settle_all(upstream, ids, told(why))
    }

    fn settle_all(&mut self, upstream: &str, ids: Range<u64>, told: Told) -> u64 {
        if ids.is_empty() {
            return 0;
        }
        let stretch = self.marks.stretch(ids.start, ids.end);
        self.handle(upstream).settle(told, stretch);
        stretch.frames
    }

    /// Nobody needs frames before this one any more.
    pub(super) fn release(&mut self, before_id: u64) {
        if let Some(backlog) = self.backlog.as_ref().filter(|_| before_id > self.floor) {
            self.floor = before_id;
            while self.read.front().is_some_and(|row| row.end <= before_id) {
                self.read.pop_front();
            }
            backlog.release(before_id);
        }
    }

    /// What waits now, by upstream; nothing waits for others.
    pub(super) fn pending(&mut self, waiting: &BTreeMap<String, Vec<Range<u64>>>) {
        for upstream in std::mem::take(&mut self.waiting) {
            if !waiting.contains_key(&upstream) {
                self.handle(&upstream).pending(None);
            }
        }
        for (upstream, waiting) in waiting {
            let stretches = waiting.iter().filter(|ids| !ids.is_empty());
            let stretches = stretches.map(|ids| self.marks.stretch(ids.start, ids.end));
            let pending = stretches.reduce(|one, other| Stretch {
                from_unix_micros: one.from_unix_micros.min(other.from_unix_micros),
                to_unix_micros: one.to_unix_micros.max(other.to_unix_micros),
                frames: one.frames + other.frames,
                bytes: one.bytes + other.bytes,
            });
            self.waiting.insert(upstream.clone());
            self.handle(upstream).pending(pending);
        }
    }

    /// Looks for losses; the first frame that is still kept, if some before it are lost that nobody was told of.
    pub(super) fn take_losses(&mut self) -> Option<u64> {
        self.note_losses();
        let held = self.backlog.as_ref().filter(|_| std::mem::take(&mut self.has_news))?.held();
        Some(if held.ids.is_empty() { held.next_id } else { held.ids.start })
    }

    fn handle(&mut self, upstream: &str) -> &LedgerHandle {
        if !self.handles.contains_key(upstream) {
            let key = LedgerKey {
                mountpoint: self.mountpoint.clone(),
                upstream: upstream.to_owned(),
                track: self.track.clone(),
            };
            self.handles.insert(upstream.to_owned(), LedgerHandle::new(self.keeper.clone(), key));
        }
        self.handles.entry(upstream.to_owned()).or_insert_with(LedgerHandle::none)
    }
}
