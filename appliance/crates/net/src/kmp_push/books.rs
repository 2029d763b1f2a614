//! What became of each frame: told to the ledger, and to the backlog where one keeps them.

use super::lane::now;
use super::track::KmpBacklog;
use fieldgate_hub::backlog::{Batch, LossCause, Lost, Reading, Stored, StoredKind};
use fieldgate_hub::ledger::{Fate as Told, LedgerKey, Stretch, Why};
use fieldgate_hub::{Backlog, LedgerHandle, LedgerKeeper};
use fieldgate_proto::kmp::sender::{Fate, Kept, Sender};
use fieldgate_proto::kmp::{PacketKind, Wire};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Least capture time between two marks.
const MARK_MICROS: i64 = 100_000;
/// Marks kept; when there are more every second one goes.
const MAX_MARKS: usize = 65_536;
/// Losses whose cause is remembered.
const MAX_LOSSES: usize = 1024;
/// Bytes read from a backlog at once.
const READ_BYTES: usize = 512 << 10;
/// Pause before a read that failed is tried again.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// When a frame was captured.
#[derive(Clone, Copy, Debug)]
struct Mark {
    id: u64,
    unix_micros: i64,
}

/// One track's frames and their capture times. See the module.
pub(super) struct Books {
    backlog: Option<Arc<dyn Backlog>>,
    keeper: Arc<dyn LedgerKeeper>,
    mountpoint: String,
    track: String,
    handles: BTreeMap<String, LedgerHandle>,
    marks: VecDeque<Mark>,
    losses: VecDeque<Lost>,
    /// Frames that were never put in the queue and that nobody was told of.
    missed: u64,
    /// When the last frame was captured that was put in the queue, or told as missed.
    newest_unix_micros: Option<i64>,
    reading: Option<(u64, Reading)>,
    pace: Option<Pace>,
    /// Whose the backlog is.
    upstream: String,
    /// The first frame that is the sender's.
    first_id: u64,
    /// Frames before this one are told.
    told_id: u64,
    /// How many losses there were when the sender heard of them.
    told_losses: usize,
    /// Ids below are those of earlier lives.
    early_id: u64,
}

/// How fast a backlog may be read.
#[derive(Debug)]
struct Pace {
    percent: u32,
    /// When the present count of live bytes began, and how many they are.
    since: Instant,
    live_bytes: u64,
    /// Live bytes per second, 0 before the first count.
    live_rate: u64,
    /// When the next read may begin.
    next: Instant,
}

impl Pace {
    /// Counts for so long.
    const COUNT: Duration = Duration::from_secs(2);

    fn count(&mut self, bytes: usize) {
        let elapsed = now().saturating_duration_since(self.since);
        if elapsed >= Self::COUNT {
            let millis = elapsed.as_millis().max(1) as u64;
            self.live_rate = self.live_bytes.saturating_mul(1000) / millis;
            (self.since, self.live_bytes) = (now(), 0);
        }
        self.live_bytes += bytes as u64;
    }

    /// So much was read: puts the next read off. What is read holds the live frames too.
    fn read(&mut self, bytes: usize) {
        let idle = now().saturating_duration_since(self.since) >= Self::COUNT;
        if self.live_rate == 0 || idle {
            return;
        }
        let rate = self.live_rate.saturating_mul(100 + u64::from(self.percent)) / 100;
        self.next = self.next.max(now()) + Duration::from_millis(bytes as u64 * 1000 / rate.max(1));
    }
}

impl Books {
    pub(super) fn new(
        backlog: Option<KmpBacklog>,
        keeper: Arc<dyn LedgerKeeper>,
        mountpoint: String,
        track: String,
    ) -> Self {
        let percent = backlog.as_ref().and_then(|backlog| backlog.percent);
        let mut books = Books {
            backlog: backlog.map(|backlog| backlog.frames),
            keeper,
            mountpoint,
            track,
            handles: BTreeMap::new(),
            marks: VecDeque::new(),
            losses: VecDeque::new(),
            missed: 0,
            newest_unix_micros: None,
            reading: None,
            pace: percent.map(|percent| Pace {
                percent,
                since: now(),
                live_bytes: 0,
                live_rate: 0,
                next: now(),
            }),
            upstream: String::new(),
            first_id: 0,
            told_id: 0,
            told_losses: 0,
            early_id: 0,
        };
        if let Some(held) = books.backlog.as_ref().map(|backlog| backlog.held()) {
            books.first_id = if held.ids.is_empty() { held.next_id } else { held.ids.start };
            books.told_id = books.first_id;
            books.early_id = held.next_id;
        }
        if let Some(held) = books.backlog.as_ref().map(|backlog| backlog.held())
            && !held.ids.is_empty()
        {
            books.mark(held.ids.start, held.oldest_unix_micros);
            books.mark(held.ids.end.saturating_sub(1), held.newest_unix_micros);
        }
        books
    }

    /// Whether frames outlive their sender.
    pub(super) fn keeps(&self) -> bool {
        self.backlog.is_some()
    }

    /// The lowest id that a new stream may begin with.
    pub(super) fn next_id(&self) -> u64 {
        self.backlog.as_ref().map_or(0, |backlog| backlog.held().next_id)
    }

    /// Tells the ledger what was found of an earlier life.
    pub(super) fn resume(&mut self, upstream: &str, kept: Range<u64>) {
        let recovered = (!kept.is_empty()).then(|| self.stretch(kept.start, kept.end));
        self.handle(upstream).resume(recovered);
        self.upstream = upstream.to_owned();
        self.note_losses();
    }

    /// Hears what the backlog has lost. What the sender will not come upon is told at once; whether there was any.
    fn note_losses(&mut self) -> bool {
        let losses = self.backlog.as_ref().map(|backlog| backlog.take_losses()).unwrap_or_default();
        let any = !losses.is_empty();
        for lost in losses {
            if lost.ids.end <= self.first_id {
                self.tell_loss(&lost, lost.frames.unwrap_or(0));
            } else if lost.ids.end > self.told_id {
                self.losses.push_back(lost);
            }
            // Else it was delivered before it was dropped.
        }
        while self.losses.len() > MAX_LOSSES {
            self.losses.pop_front();
        }
        any
    }

    fn tell_loss(&mut self, lost: &Lost, frames: u64) {
        let fate = match lost.cause {
            // What was in memory alone may have been delivered before the stop.
            LossCause::Restart => Told::Unknown,
            cause => Told::Lost(Why::Backlog(cause)),
        };
        let (from_unix_micros, to_unix_micros) = (lost.from_unix_micros, lost.to_unix_micros);
        let stretch = Stretch { from_unix_micros, to_unix_micros, frames, bytes: 0 };
        let upstream = self.upstream.clone();
        self.handle(&upstream).settle(fate, stretch);
    }

    /// Tells what became of frames that the backlog has not, each part by its own cause; how many they are, as far as that
    /// is known.
    fn settle_lost(&mut self, upstream: &str, from_id: u64, to_id: u64) -> u64 {
        let (mut next_id, mut frames) = (from_id, 0);
        let overlaps = |lost: &&Lost| lost.ids.start < to_id && lost.ids.end > from_id;
        let losses: Vec<Lost> = self.losses.iter().filter(overlaps).cloned().collect();
        for lost in losses {
            let ids = lost.ids.start.max(next_id)..lost.ids.end.min(to_id);
            if ids.is_empty() {
                continue;
            }
            frames += self.settle_unnamed(upstream, next_id, ids.start);
            next_id = ids.end;
            if lost.cause == LossCause::Restart {
                self.tell_loss(&lost, lost.frames.unwrap_or(0));
                continue;
            }
            let stretch = self.stretch(ids.start, ids.end);
            frames += stretch.frames;
            self.handle(upstream).settle(Told::Lost(Why::Backlog(lost.cause)), stretch);
        }
        frames + self.settle_unnamed(upstream, next_id, to_id)
    }

    /// Frames that are not kept although the backlog has not named them. Of an earlier life, which was killed before it
    /// told, it is not known how many they are: ids were set aside.
    fn settle_unnamed(&mut self, upstream: &str, from_id: u64, to_id: u64) -> u64 {
        let early = self.early_id.clamp(from_id, to_id.max(from_id));
        if early > from_id {
            let stretch = Stretch { frames: 0, ..self.stretch(from_id, early) };
            self.handle(upstream).settle(Told::Unknown, stretch);
        }
        if to_id > early {
            let stretch = self.stretch(early, to_id);
            self.handle(upstream).settle(Told::Lost(Why::Backlog(LossCause::Bytes)), stretch);
        }
        to_id.saturating_sub(early)
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
        if self.marks.back().is_none_or(|last| unix_micros.abs_diff(last.unix_micros) >= MARK_MICROS as u64) {
            self.mark(id, unix_micros);
        }
        self.newest_unix_micros = Some(unix_micros);
        let Some(backlog) = &self.backlog else { return };
        if let Some(pace) = &mut self.pace {
            pace.count(frame.len());
        }
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
    pub(super) fn settle(&mut self, upstream: &str, from_id: u64, to_id: u64, fate: Fate) -> u64 {
        if self.backlog.is_some() {
            self.note_losses();
            // Between two streams no sender comes upon them.
            let (first_id, told_id) = (self.first_id, self.told_id);
            let (between, losses) = std::mem::take(&mut self.losses).into_iter().partition(|lost: &Lost| {
                lost.ids.end <= from_id && (lost.ids.start >= told_id || lost.ids.start < first_id)
            });
            self.losses = losses;
            let between: VecDeque<Lost> = between;
            for lost in between {
                self.tell_loss(&lost, lost.frames.unwrap_or(0));
            }
            self.told_id = self.told_id.max(to_id);
        }
        let fate = match fate {
            Fate::Acknowledged => Told::Delivered,
            Fate::Sent | Fate::Unconfirmed => Told::Sent,
            Fate::Memory => Told::Lost(Why::Backlog(LossCause::Bytes)),
            Fate::Backlog => {
                let frames = self.settle_lost(upstream, from_id, to_id);
                self.release(to_id);
                return frames;
            }
            Fate::Skipped => Told::Lost(Why::Skipped),
            Fate::Abandoned => Told::Lost(Why::Backlog(LossCause::Abandoned)),
        };
        let stretch = self.stretch(from_id, to_id);
        self.handle(upstream).settle(fate, stretch);
        self.release(to_id);
        stretch.frames
    }

    fn release(&self, to_id: u64) {
        if let Some(backlog) = &self.backlog {
            backlog.release(to_id);
        }
    }

    /// What waits for an upstream now; `all_before` is settled for every upstream.
    pub(super) fn pending(&mut self, upstream: &str, from_id: u64, to_id: u64) {
        let pending = (to_id > from_id).then(|| self.stretch(from_id, to_id));
        self.handle(upstream).pending(pending);
    }

    /// Forgets capture times of frames before `id`.
    pub(super) fn forget(&mut self, id: u64) {
        while self.marks.get(1).is_some_and(|mark| mark.id <= id) {
            self.marks.pop_front();
        }
    }

    /// Looks for losses; the first frame that is still kept, if some before it are lost.
    pub(super) fn take_losses(&mut self) -> Option<u64> {
        let unheard = self.losses.len();
        if !self.note_losses() && unheard == self.told_losses {
            return None;
        }
        self.told_losses = self.losses.len();
        let backlog = self.backlog.as_ref()?;
        let held = backlog.held();
        Some(if held.ids.is_empty() { held.next_id } else { held.ids.start })
    }

    /// Begins to read kept packets.
    pub(super) fn fetch(&mut self, from_id: u64) {
        let Some(backlog) = &self.backlog else { return };
        let reading = match &self.pace {
            Some(pace) if pace.next > now() => {
                let (backlog, next) = (backlog.clone(), pace.next.into());
                Box::pin(async move {
                    tokio::time::sleep_until(next).await;
                    backlog.read(from_id, READ_BYTES).await
                })
            }
            _ => backlog.read(from_id, READ_BYTES),
        };
        self.reading = Some((from_id, reading));
    }

    /// Hands in what was read.
    pub(super) async fn fetched(&mut self) -> (u64, Batch) {
        loop {
            let (Some(backlog), Some((from_id, reading))) = (&self.backlog, &mut self.reading) else {
                std::future::pending::<()>().await;
                continue;
            };
            let from_id = *from_id;
            match reading.await {
                Ok(batch) => {
                    self.reading = None;
                    learn(&mut self.marks, &batch);
                    if let Some(pace) = &mut self.pace {
                        pace.read(batch.packets.iter().map(Stored::bytes).sum());
                    }
                    return (from_id, batch);
                }
                Err(error) => {
                    tracing::warn!(mountpoint = self.mountpoint, track = self.track, %error, "backlog not read");
                    let backlog = backlog.clone();
                    let again = async move {
                        tokio::time::sleep(READ_AGAIN).await;
                        backlog.read(from_id, READ_BYTES).await
                    };
                    self.reading = Some((from_id, Box::pin(again)));
                }
            }
        }
    }

    fn mark(&mut self, id: u64, unix_micros: i64) {
        self.marks.push_back(Mark { id, unix_micros });
        if self.marks.len() > MAX_MARKS {
            let mut index = 0_usize;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    fn stretch(&self, from_id: u64, to_id: u64) -> Stretch {
        Stretch {
            from_unix_micros: self.captured(from_id),
            to_unix_micros: self.captured(to_id.saturating_sub(1)),
            frames: to_id.saturating_sub(from_id),
            bytes: 0,
        }
    }

    /// When a frame was captured, between two marks as if frames came evenly.
    fn captured(&self, id: u64) -> i64 {
        let after = self.marks.partition_point(|mark| mark.id <= id);
        let before = after.checked_sub(1).and_then(|index| self.marks.get(index));
        match (before, self.marks.get(after)) {
            (Some(before), Some(after)) => {
                let span = (after.id - before.id).max(1) as f64;
                let part = (id - before.id) as f64 / span;
                before.unix_micros + ((after.unix_micros - before.unix_micros) as f64 * part) as i64
            }
            (Some(mark), None) | (None, Some(mark)) => mark.unix_micros,
            (None, None) => 0,
        }
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

/// Notes the times of what was kept by an earlier life.
fn learn(marks: &mut VecDeque<Mark>, batch: &Batch) {
    let mut last: Option<&Stored> = None;
    for packet in batch.packets.iter().filter(|packet| packet.is_frame()) {
        let at = marks.partition_point(|mark| mark.id < packet.id);
        let known = marks.get(at).is_some_and(|mark| mark.id == packet.id);
        let before = at.checked_sub(1).and_then(|at| marks.get(at));
        let unix_micros = packet.captured_unix_micros;
        let near = before.is_some_and(|mark| unix_micros.abs_diff(mark.unix_micros) < MARK_MICROS as u64);
        let gap = last.is_none_or(|last| last.id + 1 != packet.id);
        if !known && (gap || !near) && marks.len() < MAX_MARKS {
            if let Some(last) = last.filter(|_| gap)
                && marks.get(at.wrapping_sub(1)).is_none_or(|mark| mark.id < last.id)
            {
                marks.insert(at, Mark { id: last.id, unix_micros: last.captured_unix_micros });
                marks.insert(at + 1, Mark { id: packet.id, unix_micros });
            } else {
                marks.insert(at, Mark { id: packet.id, unix_micros });
            }
        }
        last = Some(packet);
    }
}

/// Gives a sender what was read for it: a run of packets whose ids follow each other.
pub(super) fn hand_in(sender: &mut Sender, from_id: u64, batch: Batch, now: Instant) {
    let header = batch.header.map(|header| Wire { head: header.head, body: header.body });
    let start_id = batch.packets.first().map_or(from_id, |packet| packet.id);
    let mut next_id = start_id;
    let mut run = Vec::new();
    for packet in batch.packets {
        // Behind a gap comes the next read.
        if packet.id != next_id {
            break;
        }
        next_id = next_id.saturating_add(u64::from(packet.is_frame()));
        run.push(Kept {
            kind: if packet.is_frame() { PacketKind::Frame } else { PacketKind::MediaInfo },
            keyframe: packet.keyframe,
            wire: Wire { head: packet.head, body: packet.body },
        });
    }
    sender.loaded(from_id, start_id, header, run, now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_backlog_is_read_at_its_share_beside_what_is_live() {
        let mut pace = Pace { percent: 300, since: now(), live_bytes: 0, live_rate: 0, next: now() };
        let mut read = 0;
        let mut begun = None;
        // 100 kB of live frames a second; reads of 50 kB whenever they are allowed.
        for tick in 0..1_400 {
            tokio::time::advance(Duration::from_millis(10)).await;
            if tick % 10 == 0 {
                pace.count(10_000);
            }
            // The first counts take four seconds.
            if tick >= 400 && pace.next <= now() {
                begun.get_or_insert_with(now);
                pace.read(50_000);
                read += 50_000;
            }
        }
        let seconds = now().saturating_duration_since(begun.unwrap()).as_secs_f64();
        let share = f64::from(read) / seconds / 100_000.0;
        // What is live, and three times as much of what is not.
        assert!((3.8..=4.4).contains(&share), "{share}");
    }
}
