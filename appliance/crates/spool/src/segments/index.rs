//! Finding what a segment holds without reading its packets.

use super::{MAX_SPAN_MICROS, MAX_STEP_MICROS, Segment, Segments, file_name};
use crate::format::{self, BATCH_HEAD, BatchAt, BatchHead, FOOTER_TAIL, SEGMENT_MAGIC, Summary};
use fieldgate_hub::backlog::{LossCause, Lost, Stored};
use std::io;

/// How much is read at once when looking for a head behind damage.
const SEARCH: usize = 256 << 10;

/// What a segment without a footer holds.
pub(super) struct Scanned {
    pub(super) summary: Summary,
    pub(super) batches: Vec<BatchAt>,
    /// Of the last batch, which a power cut may have torn.
    last: Option<(BatchAt, BatchHead)>,
    /// There is more behind it, in which no head was found.
    rest: bool,
}

impl Segments {
    /// Takes a file into the list.
    pub(super) fn load(&mut self, seq: u64, len: u64) -> io::Result<()> {
        let summary = match self.footer(seq, len)? {
            Some((summary, _)) => summary,
            None => self.scan(seq, len)?.summary,
        };
        self.floor = self.floor.max(summary.floor);
        if summary.frames == 0 {
            // Nothing can be read from it. It goes, so that it is not looked at again at each start.
            self.fs.remove(&file_name(seq)).ok();
            return Ok(());
        }
        // Times may be wrong where a head is: a clock that was set, a flipped bit.
        let gap = self.last_captured.map_or(0, |last| summary.oldest_micros.saturating_sub(last));
        let span = summary.newest_micros.saturating_sub(summary.oldest_micros);
        self.age_micros += gap.clamp(0, MAX_STEP_MICROS) + span.clamp(0, MAX_SPAN_MICROS);
        self.last_captured = Some(summary.newest_micros);
        self.end_id = self.end_id.max(summary.end_id);
        self.list.push_back(Segment { seq, len, summary, age_micros: self.age_micros });
        Ok(())
    }

    /// The batches of one segment, from its footer or by its heads.
    pub(super) fn batches(&mut self, index: usize) -> io::Result<Vec<BatchAt>> {
        let Some(segment) = self.list.get(index) else { return Ok(Vec::new()) };
        let (seq, len) = (segment.seq, segment.len);
        if let Some(active) = self.active.as_ref().filter(|_| index + 1 == self.list.len()) {
            return Ok(active.clone());
        }
        if let Some((loaded, batches)) = &self.loaded
            && *loaded == seq
        {
            return Ok(batches.clone());
        }
        let batches = match self.footer(seq, len)? {
            Some((_, batches)) => batches,
            None => self.scan(seq, len)?.batches,
        };
        self.loaded = Some((seq, batches.clone()));
        Ok(batches)
    }

    fn footer(&self, seq: u64, len: u64) -> io::Result<Option<(Summary, Vec<BatchAt>)>> {
        let Some(tail_at) = len.checked_sub(FOOTER_TAIL as u64) else { return Ok(None) };
        let tail = self.read_file(seq, tail_at, FOOTER_TAIL)?;
        let Some(footer_len) = format::footer_len(&tail) else { return Ok(None) };
        let Some(footer_at) = tail_at.checked_sub(footer_len as u64) else { return Ok(None) };
        let footer = self.read_file(seq, footer_at, footer_len)?;
        Ok(format::read_footer(&footer, &tail))
    }

    fn scan(&self, seq: u64, len: u64) -> io::Result<Scanned> {
        let mut found = Scanned { summary: Summary::empty(), batches: Vec::new(), last: None, rest: false };
        let mut at = SEGMENT_MAGIC.len() as u64;
        let mut damaged_at = None;
        while at + BATCH_HEAD as u64 <= len {
            let end_id = found.summary.end_id;
            let head = BatchHead::read(&self.read_file(seq, at, BATCH_HEAD)?);
            // Ids never go back: what says so is not ours.
            match head.filter(|head| head.first_id >= end_id) {
                Some(head) => {
                    if let Some(damaged_at) =
                        damaged_at.take().filter(|_| end_id > 0 && head.first_id > end_id)
                    {
                        found.batches.push(gone(damaged_at, end_id, head.first_id));
                    }
                    let batch = BatchAt::new(u32::try_from(at).unwrap_or(u32::MAX), &head);
                    found.summary.add(&head);
                    found.batches.push(batch);
                    found.last = Some((batch, head));
                    at += (BATCH_HEAD + head.len as usize) as u64;
                }
                None => {
                    damaged_at = damaged_at.or(Some(at));
                    match self.find_head(seq, at + 1, len)? {
                        Some(next) => at = next,
                        None => break,
                    }
                }
            }
        }
        found.rest = damaged_at.is_some();
        Ok(found)
    }

    /// The next place at which a sound head stands.
    fn find_head(&self, seq: u64, from: u64, len: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at < len {
            let piece = self.read_file(seq, at, SEARCH + BATCH_HEAD)?;
            if let Some(found) = BatchHead::find(&piece) {
                return Ok(Some(at + found as u64));
            }
            if piece.len() < SEARCH + BATCH_HEAD {
                break;
            }
            at += SEARCH as u64;
        }
        Ok(None)
    }

    /// Looks whether the last batch of each segment without footer is whole. In the newest segment what is missing was
    /// torn by the cut; in others it was written once more behind it, or named at an earlier start.
    pub(super) fn name_torn(&mut self) {
        for index in 0..self.list.len() {
            let newest = index + 1 == self.list.len();
            let next_first = self.list.get(index + 1).map(|next| next.summary.first_id);
            let Some(segment) = self.list.get(index) else { continue };
            let (seq, len) = (segment.seq, segment.len);
            if !matches!(self.footer(seq, len), Ok(None)) {
                continue;
            }
            let Ok(Scanned { last: Some((batch, head)), batches, rest, .. }) = self.scan(seq, len) else {
                continue;
            };
            if let Some(next) = next_first.filter(|next| rest && *next > batch.end_id) {
                let micros = (head.newest_micros, head.newest_micros);
                self.name_damage(lost(batch.end_id..next, next - batch.end_id, micros, LossCause::Damaged));
            }
            let Ok(bytes) =
                self.read_file(seq, u64::from(batch.offset) + BATCH_HEAD as u64, head.len as usize)
            else {
                continue;
            };
            let missing = super::read::missing(&head, &format::read_records(&head, &bytes), LossCause::Torn);
            if missing.is_empty() {
                continue;
            }
            if next_first.is_some_and(|next| next <= batch.first_id) {
                // It was written again: the torn one must not count.
                self.named.push(batch.first_id..batch.end_id);
                self.forget_batch(index, &batches, &batch);
                continue;
            }
            let lost: u64 = missing.iter().filter_map(|lost| lost.frames).sum();
            if let Some(segment) = self.list.get_mut(index) {
                segment.summary.frames = segment.summary.frames.saturating_sub(lost);
            }
            for lost in missing {
                if newest {
                    self.name_damage(lost);
                } else {
                    self.named.push(lost.ids);
                }
            }
        }
    }

    /// Takes the last batch of a segment out of what it is said to hold.
    fn forget_batch(&mut self, index: usize, batches: &[BatchAt], last: &BatchAt) {
        let end = batches.iter().rev().nth(1).map_or(last.first_id, |before| before.end_id);
        if let Some(segment) = self.list.get_mut(index) {
            segment.len = u64::from(last.offset);
            segment.summary.frames = segment.summary.frames.saturating_sub(u64::from(last.frames));
            segment.summary.end_id = end;
        }
    }

    /// The newest header on disk.
    pub(super) fn last_header(&mut self) -> Option<Stored> {
        let index = self.list.len().checked_sub(1)?;
        let batches = self.batches(index).ok()?;
        let batch = batches.iter().rev().find(|batch| batch.has_header)?;
        let (_, records) = self.read_batch(index, batch).ok()??;
        records.into_iter().rev().map(|record| record.packet).find(|packet| !packet.is_frame())
    }
}

/// A place where a head was damaged: reading it names what should be there.
fn gone(at: u64, from_id: u64, to_id: u64) -> BatchAt {
    BatchAt {
        offset: u32::try_from(at).unwrap_or(u32::MAX),
        frames: u32::try_from(to_id - from_id).unwrap_or(u32::MAX),
        first_id: from_id,
        end_id: to_id,
        has_header: false,
    }
}

/// A loss in which only the ids and their number are known.
pub(super) fn lost(ids: std::ops::Range<u64>, frames: u64, micros: (i64, i64), cause: LossCause) -> Lost {
    let frames = Some(frames);
    Lost { ids, frames, from_unix_micros: micros.0, to_unix_micros: micros.1.max(micros.0), cause }
}
