//! One upstream's packets in segment files, oldest first.
//!
//! ```text
//!  0000.seg (full, with footer)  0001.seg (full)  0002.seg <-- batches are appended here
//!  ^ removed when all is released or the budget is over     a new one begins at a keyframe
//! ```
//!
//! Calls block on the disk; one thread owns this. What is damaged is passed over and named.

mod index;
mod read;

use crate::format::{self, BatchAt, SEGMENT_MAGIC, Summary};
use crate::fs::SpoolFs;
use bytes::Bytes;
use fieldgate_hub::backlog::{Budget, Held, LossCause, Losses, Lost, Stored};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;

/// The largest file that is begun; what one file may grow to is twice that and one batch.
const MAX_SEGMENT: u64 = 8 << 20;
const MIN_SEGMENT: u64 = 64 << 10;
/// A budget is spread over so many files: so much of it at most goes when the oldest goes.
const SEGMENTS_PER_BUDGET: u64 = 32;
/// What one step of capture time, and one file, counts towards the age at most: a clock may be set.
const MAX_STEP_MICROS: i64 = 60_000_000;
const MAX_SPAN_MICROS: i64 = 3_600_000_000;
/// Ranges of damage that are remembered so as not to be named twice.
const MAX_NAMED: usize = 1_024;
/// Left free for footers.
const SPARE: usize = 4_096;
/// What a file system writes at least for each sync.
const PAGE: u64 = 4_096;

struct Segment {
    seq: u64,
    /// Of what is known to be good.
    len: u64,
    summary: Summary,
    /// Age clock at its newest frame.
    age_micros: i64,
}

/// Bytes written, and what that costs the flash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// As appended.
    pub bytes: u64,
    /// Rounded up to pages for each sync.
    pub flash_bytes: u64,
}

/// The segments of one backlog.
pub(crate) struct Segments {
    fs: Box<dyn SpoolFs>,
    budget: Budget,
    list: VecDeque<Segment>,
    /// Batches of the newest segment, while it is being written.
    active: Option<Vec<BatchAt>>,
    /// Batches of the segment that was read last.
    loaded: Option<(u64, Vec<BatchAt>)>,
    next_seq: u64,
    /// Everything below is released, or was dropped.
    floor: u64,
    persisted_floor: u64,
    end_id: u64,
    /// The newest header written, for the start of the next segment.
    header: Option<Stored>,
    /// Frames are dropped up to the next keyframe.
    waiting: Option<LossCause>,
    /// A keyframe that is itself over the budget.
    too_large: Option<u64>,
    age_micros: i64,
    last_captured: Option<i64>,
    losses: Losses,
    named: Vec<Range<u64>>,
    written: Written,
    buf: Vec<u8>,
}

fn file_name(seq: u64) -> String {
    format!("{seq:016x}.seg")
}

fn seq_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

impl Segments {
    /// Finds what is there, by footers and heads alone: the packets are checked when they are read.
    /// Everything below `floor` is released.
    pub(crate) fn open(fs: Box<dyn SpoolFs>, budget: Budget, floor: u64) -> io::Result<Segments> {
        let mut segments = Segments {
            fs,
            budget,
            list: VecDeque::new(),
            active: None,
            loaded: None,
            next_seq: 0,
            floor,
            persisted_floor: 0,
            end_id: 0,
            header: None,
            waiting: None,
            too_large: None,
            age_micros: 0,
            last_captured: None,
            losses: Losses::default(),
            named: Vec::new(),
            written: Written::default(),
            buf: Vec::new(),
        };
        let mut files: Vec<(u64, u64)> =
            segments.fs.list()?.iter().filter_map(|(name, len)| Some((seq_of(name)?, *len))).collect();
        files.sort_unstable();
        segments.next_seq = files.last().map_or(0, |(seq, _)| seq + 1);
        for (seq, len) in files {
            segments.load(seq, len)?;
        }
        segments.name_torn();
        segments.list.retain(|segment| segment.summary.frames > 0);
        segments.persisted_floor = segments.floor;
        segments.release(segments.floor);
        segments.header = segments.last_header();
        Ok(segments)
    }

    /// Writes these packets and makes them durable. Returns how many of them are done, also after an error.
    pub(crate) fn write(&mut self, packets: &[Stored]) -> (usize, io::Result<()>) {
        let mut done = 0;
        while let Some(rest) = packets.get(done..).filter(|rest| !rest.is_empty()) {
            if let Some(skipped) = self.skip_to_keyframe(rest) {
                done += skipped;
                continue;
            }
            match self.write_some(rest) {
                Ok(count) => done += count,
                Err(error) => {
                    self.give_up_file();
                    return (done, Err(error));
                }
            }
        }
        self.keep_age();
        (done, Ok(()))
    }

    /// After a failed write it is not known how much of it is there: that is cut off, and the next try begins a new file.
    fn give_up_file(&mut self) {
        if self.active.take().is_some()
            && let Some(last) = self.list.back()
        {
            // If this fails too, what is there comes back at the next start: packets that may be named lost by then.
            self.fs.truncate(&file_name(last.seq), last.len).ok();
        }
    }

    /// How many packets belong to a GOP whose keyframe was dropped; they are named.
    fn skip_to_keyframe(&mut self, packets: &[Stored]) -> Option<usize> {
        let cause = self.waiting?;
        let frame = packets.iter().position(|packet| packet.is_frame())?;
        let packet = packets.get(frame)?;
        if packet.keyframe && self.too_large.is_none_or(|id| packet.id > id) {
            self.waiting = None;
            self.too_large = None;
            return None;
        }
        self.losses.frame(packet.id, packet.captured_unix_micros, cause);
        self.header = packets.get(..frame)?.last().cloned().or(self.header.take());
        self.end_id = packet.id + 1;
        Some(frame + 1)
    }

    /// Writes as many packets as go into one file.
    fn write_some(&mut self, packets: &[Stored]) -> io::Result<usize> {
        let target = (self.budget.bytes / SEGMENTS_PER_BUDGET).clamp(MIN_SEGMENT, MAX_SEGMENT);
        let mut len = if self.active.is_some() { self.list.back().map_or(0, |last| last.len) } else { 0 };
        if self.active.is_some() && rolls(packets, 0, len, target) {
            self.seal();
            len = 0;
        }
        let mut count = 0;
        for (index, packet) in packets.iter().enumerate() {
            if index > 0 && rolls(packets, index, len, target) {
                break;
            }
            len += (packet.bytes() + format::RECORD_HEAD) as u64;
            count += 1;
        }
        let chosen = packets.get(..count).unwrap_or_default();
        if !self.make_room(chosen)? {
            return Ok(0);
        }
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        let outcome = self.append(chosen, &mut buf);
        // A large packet must not keep its memory here for ever.
        buf.shrink_to(1 << 20);
        self.buf = buf;
        outcome.map(|()| count)
    }

    fn append(&mut self, packets: &[Stored], buf: &mut Vec<u8>) -> io::Result<()> {
        let fresh = self.active.is_none();
        let offset = if fresh { 0 } else { self.list.back().map_or(0, |last| last.len) };
        if fresh {
            buf.extend_from_slice(SEGMENT_MAGIC);
        }
        let mut heads = Vec::new();
        let mut done = 0;
        while let Some(rest) = packets.get(done..).filter(|rest| !rest.is_empty()) {
            // Whoever starts reading here needs the header; not if the first packet is one.
            let starts = fresh && done == 0 && rest.first().is_some_and(Stored::is_frame);
            let repeated = self.header.as_ref().filter(|_| starts);
            let at = offset + buf.len() as u64;
            let (head, count) = format::write_batch(buf, rest.iter(), repeated, self.floor, self.end_id);
            heads.push((at, head));
            done += count;
        }
        self.put(buf, fresh)?;
        for packet in packets {
            if packet.is_frame() {
                self.end_id = packet.id + 1;
                self.count_age(packet.captured_unix_micros);
            } else {
                self.header = Some(packet.clone());
            }
        }
        let active = self.active.get_or_insert_default();
        if let Some(segment) = self.list.back_mut() {
            segment.len = offset + buf.len() as u64;
            segment.age_micros = self.age_micros;
            for (at, head) in &heads {
                segment.summary.add(head);
                active.push(BatchAt::new(u32::try_from(*at).unwrap_or(u32::MAX), head));
            }
        }
        self.persisted_floor = self.floor;
        Ok(())
    }

    /// Bytes into the newest file, or a new one; durable.
    fn put(&mut self, bytes: &[u8], fresh: bool) -> io::Result<()> {
        if fresh {
            let seq = self.next_seq;
            self.next_seq += 1;
            let name = file_name(seq);
            let begun = self.fs.create(&name).and_then(|()| {
                self.fs.append(&name, bytes)?;
                self.fs.sync_file(&name)?;
                self.fs.sync_dir()
            });
            if let Err(error) = begun {
                // Gives back the space; what can't be removed is found at the next start.
                self.fs.remove(&name).ok();
                return Err(error);
            }
            let summary = Summary::empty();
            self.list.push_back(Segment { seq, len: 0, summary, age_micros: self.age_micros });
            self.active = Some(Vec::new());
        } else if let Some(last) = self.list.back() {
            let name = file_name(last.seq);
            self.fs.append(&name, bytes)?;
            self.fs.sync_file(&name)?;
        }
        self.written.bytes += bytes.len() as u64;
        self.written.flash_bytes += (bytes.len() as u64).div_ceil(PAGE) * PAGE;
        Ok(())
    }

    fn count_age(&mut self, captured: i64) {
        let step = self.last_captured.replace(captured).map_or(0, |last| captured.saturating_sub(last));
        self.age_micros += step.clamp(0, MAX_STEP_MICROS);
    }

    /// Finishes the newest file with a footer. One without is read all the same, only slower.
    fn seal(&mut self) {
        let (Some(batches), Some(last)) = (self.active.take(), self.list.back()) else { return };
        let mut footer = Vec::new();
        format::write_footer(&mut footer, &last.summary, &batches);
        let name = file_name(last.seq);
        let len = last.len + footer.len() as u64;
        let sealed = self.fs.append(&name, &footer).and_then(|()| self.fs.sync_file(&name));
        if sealed.is_ok() {
            self.written.bytes += footer.len() as u64;
            self.written.flash_bytes += (footer.len() as u64).div_ceil(PAGE) * PAGE;
            if let Some(last) = self.list.back_mut() {
                last.len = len;
            }
        }
    }

    /// Drops the oldest files until these packets fit the budget. Returns false if their own keyframe went, or they never
    /// fit: then they are to be dropped up to the next keyframe.
    fn make_room(&mut self, packets: &[Stored]) -> io::Result<bool> {
        let repeated = self.header.as_ref().map_or(0, Stored::bytes);
        let heads = packets.len() * format::RECORD_HEAD + format::BATCH_HEAD + SPARE;
        let bytes = (packets.iter().map(Stored::bytes).sum::<usize>() + repeated + heads) as u64;
        while self.bytes() + bytes > self.budget.bytes && !self.list.is_empty() {
            self.drop_oldest(LossCause::Bytes)?;
        }
        if bytes > self.budget.bytes {
            self.waiting = Some(LossCause::Bytes);
            let frames = packets.iter().filter(|packet| packet.is_frame() && packet.keyframe);
            self.too_large = frames.map(|frame| frame.id).next_back();
        }
        let starts_anew = packets.iter().find(|packet| packet.is_frame()).is_none_or(|frame| frame.keyframe);
        if starts_anew && self.too_large.is_none() {
            self.waiting = None;
        }
        Ok(self.waiting.is_none())
    }

    /// Drops what is too old; a file that can't be removed waits for the next time.
    fn keep_age(&mut self) {
        let age = i64::try_from(self.budget.age.as_micros()).unwrap_or(i64::MAX);
        while self.list.len() > 1
            && self.list.front().is_some_and(|oldest| self.age_micros - oldest.age_micros > age)
            && self.drop_oldest(LossCause::Age).is_ok()
        {}
    }

    /// Removes the oldest file, and what follows it up to a keyframe; names the loss.
    pub(crate) fn drop_oldest(&mut self, cause: LossCause) -> io::Result<()> {
        self.remove_oldest(cause)?;
        while let Some(next) = self.list.front() {
            let (first, key, end) = (next.summary.first_id, next.summary.first_key, next.summary.end_id);
            if next.summary.frames == 0 || key <= first.max(self.floor) || self.floor > first {
                break;
            }
            if key < end {
                self.name_segment(first..key, cause);
                // As good as released: it must not come back after a restart either.
                self.floor = key;
                break;
            }
            self.remove_oldest(cause)?;
        }
        if self.list.is_empty() {
            self.waiting = Some(cause);
        }
        self.fs.sync_dir()
    }

    fn remove_oldest(&mut self, cause: LossCause) -> io::Result<()> {
        let Some(oldest) = self.list.front() else { return Ok(()) };
        let (seq, ids) = (oldest.seq, oldest.summary.first_id..oldest.summary.end_id);
        self.fs.remove(&file_name(seq))?;
        self.name_segment(ids, cause);
        self.list.pop_front();
        if self.list.is_empty() {
            self.active = None;
        }
        Ok(())
    }

    /// Names what of the oldest file had these ids and is not released.
    fn name_segment(&mut self, ids: Range<u64>, cause: LossCause) {
        let Some(oldest) = self.list.front() else { return };
        let start = ids.start.max(self.floor);
        if start >= ids.end || oldest.summary.frames == 0 {
            return;
        }
        let whole = oldest.summary.first_id..oldest.summary.end_id;
        let frames = if start == whole.start && ids.end == whole.end {
            oldest.summary.frames
        } else {
            oldest.summary.frames.min(ids.end - start)
        };
        self.losses.add(Lost {
            ids: start..ids.end,
            frames: Some(frames),
            from_unix_micros: oldest.summary.oldest_micros,
            to_unix_micros: oldest.summary.newest_micros,
            cause,
        });
    }

    /// Everything with an id below is no longer needed. Files that hold nothing else are removed.
    pub(crate) fn release(&mut self, before_id: u64) {
        self.floor = self.floor.max(before_id);
        let removable = |segments: &Segments| {
            let oldest = segments.list.front()?;
            let active = segments.active.is_some() && segments.list.len() == 1;
            (oldest.summary.end_id <= segments.floor && !active).then_some(oldest.seq)
        };
        // A file that comes back after a power cut is known to be released by what the later ones say.
        while let Some(seq) = removable(self) {
            if self.fs.remove(&file_name(seq)).is_err() {
                break;
            }
            self.list.pop_front();
        }
        self.named.retain(|range| range.end > before_id);
    }

    /// Finishes the newest file; the next write begins a new one.
    pub(crate) fn close(&mut self) {
        if self.list.iter().all(|segment| segment.summary.end_id <= self.floor) {
            self.active = None;
            self.release(self.floor);
        }
        self.seal();
    }

    /// What is released, if that is not known on disk; the caller writes it down.
    pub(crate) fn unsaved_floor(&self) -> Option<u64> {
        (self.floor > self.persisted_floor).then_some(self.floor)
    }

    /// What is released is known on disk now.
    pub(crate) fn floor_saved(&mut self) {
        self.persisted_floor = self.floor;
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.list.iter().map(|segment| segment.len).sum()
    }

    /// One past the newest frame on disk, or what its head said before it was damaged.
    pub(crate) fn end_id(&self) -> u64 {
        self.end_id.max(self.floor)
    }

    /// What is on disk and not released.
    pub(crate) fn held(&self) -> Held {
        let start = self.floor;
        let mut held = Held { ids: self.end_id()..self.end_id(), next_id: self.end_id(), ..Held::default() };
        let with_frames =
            self.list.iter().filter(|segment| segment.summary.frames > 0 && segment.summary.end_id > start);
        for segment in with_frames {
            let summary = &segment.summary;
            let frames = match summary.first_id >= start {
                true => summary.frames,
                false => summary.frames.min(summary.end_id - start),
            };
            if held.frames == 0 {
                held.ids.start = summary.first_id.max(start);
                held.oldest_unix_micros = summary.oldest_micros;
            }
            held.frames += frames;
            held.bytes += segment.len;
            held.ids.end = summary.end_id;
            held.newest_unix_micros = summary.newest_micros;
        }
        held
    }

    /// What was lost.
    pub(crate) fn losses(&mut self) -> &mut Losses {
        &mut self.losses
    }

    /// What was written since the last call.
    pub(crate) fn take_written(&mut self) -> Written {
        std::mem::take(&mut self.written)
    }

    /// The newest header on disk.
    pub(crate) fn header(&self) -> Option<&Stored> {
        self.header.as_ref()
    }

    /// Everything below is released.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Removes all files.
    pub(crate) fn drop_all(&mut self) {
        self.active = None;
        self.release(u64::MAX);
    }

    /// The folder.
    pub(crate) fn fs(&mut self) -> &mut dyn SpoolFs {
        self.fs.as_mut()
    }

    /// Names damage once.
    fn name_damage(&mut self, lost: Lost) {
        let known = self.named.iter().any(|range| range.start < lost.ids.end && lost.ids.start < range.end);
        let start = lost.ids.start.max(self.floor);
        if known || start >= lost.ids.end {
            return;
        }
        if self.named.len() < MAX_NAMED {
            self.named.push(lost.ids.clone());
        }
        let frames = lost.frames.map(|frames| frames.min(lost.ids.end - start));
        self.losses.add(Lost { ids: start..lost.ids.end, frames, ..lost });
    }

    fn read_file(&self, seq: u64, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buf = vec![0; len];
        let read = self.fs.read_at(&file_name(seq), offset, &mut buf)?;
        buf.truncate(read);
        Ok(buf.into())
    }
}

/// Whether a new file begins with this packet: at a keyframe once the file is full, anywhere at twice that.
fn rolls(packets: &[Stored], index: usize, len: u64, target: u64) -> bool {
    let frame = packets.get(index..).and_then(|rest| rest.iter().find(|packet| packet.is_frame()));
    let behind_header = index > 0 && packets.get(index - 1).is_some_and(|before| !before.is_frame());
    let border = frame.is_some_and(|frame| frame.keyframe) && !behind_header;
    (len >= target && border) || (len >= target.saturating_mul(2) && !behind_header)
}
