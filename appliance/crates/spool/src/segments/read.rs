//! Reading packets back, each checked; what is damaged is passed over and named.

use super::index::lost;
use super::{Segments, file_name};
use crate::format::{self, BATCH_HEAD, BatchAt, BatchHead, MAX_BATCH, Record};
use fieldgate_hub::backlog::{Batch, LossCause, Lost, Stored};
use std::io;

/// What was asked for and what was found so far.
struct Collected {
    from_id: u64,
    max_bytes: usize,
    bytes: usize,
    batch: Batch,
    full: bool,
}

impl Collected {
    fn take(&mut self, record: Record) {
        let packet = record.packet;
        if self.full {
            return;
        }
        if !packet.is_frame() && (record.repeated || packet.id < self.from_id) {
            if self.batch.packets.is_empty() {
                self.batch.header = Some(packet);
            }
            return;
        }
        if packet.id < self.from_id {
            return;
        }
        self.bytes += packet.bytes();
        if self.bytes > self.max_bytes && self.batch.packets.last().is_some_and(Stored::is_frame) {
            self.full = true;
            return;
        }
        if packet.is_frame() {
            // A frame that was written twice, after a write of which it was not known how far it came, is read once.
            self.from_id = packet.id + 1;
        }
        self.batch.packets.push(packet);
    }
}

impl Segments {
    /// Packets from this id on, up to about `max_bytes` but at least one.
    pub(crate) fn read(&mut self, from_id: u64, max_bytes: usize) -> io::Result<Batch> {
        let from_id = from_id.max(self.floor);
        let mut collected = Collected { from_id, max_bytes, bytes: 0, batch: Batch::default(), full: false };
        let mut index = self.list.partition_point(|segment| segment.summary.end_id <= from_id);
        while index < self.list.len() && !collected.full {
            self.read_segment(index, &mut collected)?;
            index += 1;
        }
        collected.batch.end_with_frame();
        Ok(collected.batch)
    }

    fn read_segment(&mut self, index: usize, collected: &mut Collected) -> io::Result<()> {
        let batches = self.batches(index)?;
        let start = batches.partition_point(|batch| batch.end_id <= collected.from_id);
        if collected.batch.packets.is_empty() {
            let before = batches.get(..start).unwrap_or_default().iter().rev().find(|batch| batch.has_header);
            if let Some(before) = before
                && let Some((_, records)) = self.read_batch(index, before)?
            {
                let headers = records.into_iter().filter(|record| !record.packet.is_frame());
                collected.batch.header = headers.last().map(|record| record.packet);
            }
        }
        for batch in batches.iter().skip(start) {
            if collected.full {
                break;
            }
            if batch.frames == 0 && !batch.has_header {
                continue;
            }
            match self.read_batch(index, batch)? {
                Some((head, records)) => {
                    for lost in missing(&head, &records, LossCause::Damaged) {
                        self.name_damage(lost);
                    }
                    records.into_iter().for_each(|record| collected.take(record));
                }
                None => {
                    let micros = self.list.get(index).map_or((0, 0), |segment| {
                        (segment.summary.oldest_micros, segment.summary.newest_micros)
                    });
                    let ids = batch.first_id..batch.end_id;
                    self.name_damage(lost(ids, u64::from(batch.frames), micros, LossCause::Damaged));
                }
            }
        }
        Ok(())
    }

    /// A batch's head and its sound records; `None` if its head is damaged or it can't be read from the disk.
    pub(super) fn read_batch(
        &self,
        index: usize,
        batch: &BatchAt,
    ) -> io::Result<Option<(BatchHead, Vec<Record>)>> {
        let Some(segment) = self.list.get(index) else { return Ok(None) };
        let offset = u64::from(batch.offset);
        let mut bytes = [0; BATCH_HEAD];
        let read = self.fs.read_at(&file_name(segment.seq), offset, &mut bytes);
        let head = match unless_worn(read)? {
            Some(BATCH_HEAD) => BatchHead::read(&bytes),
            _ => None,
        };
        let Some(head) = head.filter(|head| head.len as usize <= MAX_BATCH) else { return Ok(None) };
        let records = self.read_file(segment.seq, offset + BATCH_HEAD as u64, head.len as usize);
        let Some(records) = unless_worn(records)? else { return Ok(None) };
        Ok(Some((head, format::read_records(&head, &records))))
    }
}

/// A place of the flash that can't be read any more is damage; other errors may pass.
fn unless_worn<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    const WORN: i32 = rustix::io::Errno::IO.raw_os_error();
    match read {
        Err(error) if error.raw_os_error() == Some(WORN) => Ok(None),
        read => read.map(Some),
    }
}

/// The frames that a batch should have and these records lack.
pub(super) fn missing(head: &BatchHead, records: &[Record], cause: LossCause) -> Vec<Lost> {
    let frames = records.iter().map(|record| &record.packet).filter(|packet| packet.is_frame());
    let mut left = u64::from(head.frames).saturating_sub(frames.clone().count() as u64);
    let mut found = Vec::new();
    let mut next = (head.first_id, head.first_micros);
    let mut gap = |next: (u64, i64), to: (u64, i64)| {
        let frames = left.min(to.0.saturating_sub(next.0));
        if frames > 0 {
            left -= frames;
            found.push(lost(next.0..to.0, frames, (next.1, to.1), cause));
        }
    };
    for Stored { id, captured_unix_micros, .. } in frames {
        gap(next, (*id, *captured_unix_micros));
        next = (id + 1, *captured_unix_micros);
    }
    gap(next, (head.end_id, head.newest_micros));
    found
}
