//! When frames were captured and how many bytes they are, by their ids: a mark now and then, and what lies between as if
//! it came evenly.

use fieldgate_hub::backlog::{Batch, Held};
use fieldgate_hub::ledger::Stretch;
use std::collections::VecDeque;

/// Least capture time between two marks.
const MARK_MICROS: u64 = 100_000;
/// Marks kept; when there are more every second one goes.
const MAX_MARKS: usize = 65_536;

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    id: u64,
    unix_micros: i64,
    /// Bytes of all frames before it.
    at: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Marks {
    list: VecDeque<Mark>,
    /// One past the newest frame, with that one's time.
    end: Option<Mark>,
    /// Frames below are of an earlier life: what is between the marks is learned when they are read.
    early_id: u64,
    /// One past the last of those that was read, with that one's time.
    learned: Mark,
}

impl Marks {
    /// What an earlier life has left.
    pub(super) fn recovered(held: &Held) -> Marks {
        let mut marks = Marks { early_id: held.next_id, ..Marks::default() };
        if !held.ids.is_empty() {
            marks.list.push_back(Mark { id: held.ids.start, unix_micros: held.oldest_unix_micros, at: 0 });
            marks.end = Some(Mark { id: held.ids.end, unix_micros: held.newest_unix_micros, at: held.bytes });
            marks.learned = Mark { id: held.ids.start, unix_micros: held.oldest_unix_micros, at: 0 };
        }
        marks
    }

    /// A new frame; ids go up.
    pub(super) fn append(&mut self, id: u64, unix_micros: i64, bytes: usize) {
        let at = self.end.map_or(0, |end| end.at);
        let jumps = self.end.filter(|end| end.id != id);
        if let Some(end) = jumps {
            self.push(end);
        }
        let far = |last: &Mark| unix_micros.abs_diff(last.unix_micros) >= MARK_MICROS;
        if jumps.is_some() || self.list.back().is_none_or(far) {
            self.push(Mark { id, unix_micros, at });
        }
        self.end = Some(Mark { id: id.saturating_add(1), unix_micros, at: at + bytes as u64 });
    }

    fn push(&mut self, mark: Mark) {
        self.list.push_back(mark);
        if self.list.len() > MAX_MARKS {
            let mut index = 0_usize;
            self.list.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// Notes what was read of an earlier life. Ids that are missing between what is read one after the other are of
    /// frames that were damaged: they have no bytes.
    pub(super) fn learn(&mut self, batch: &Batch) {
        for packet in batch.packets.iter().filter(|packet| packet.is_frame()) {
            let read = self.learned;
            if packet.id >= self.early_id || self.list.len() >= MAX_MARKS {
                return;
            }
            let at = if packet.id >= read.id { read.at } else { self.at(packet.id) };
            let place = self.list.partition_point(|mark| mark.id <= packet.id);
            let before = place.checked_sub(1).and_then(|place| self.list.get(place)).copied();
            let has_gap = packet.id > read.id;
            let known = before.is_some_and(|mark| mark.id == packet.id);
            let far = before
                .is_none_or(|mark| packet.captured_unix_micros.abs_diff(mark.unix_micros) >= MARK_MICROS);
            // Bytes never go down from one mark to the next.
            let most = self.list.get(place).or(self.end.as_ref()).map_or(u64::MAX, |mark| mark.at);
            let at = at.min(most);
            if !known && (has_gap || far) {
                let mark = Mark { id: packet.id, unix_micros: packet.captured_unix_micros, at };
                self.list.insert(place, mark);
                if has_gap && before.is_none_or(|mark| mark.id < read.id) {
                    self.list.insert(place, Mark { at, ..read });
                }
            }
            self.learned = Mark {
                id: packet.id + 1,
                unix_micros: packet.captured_unix_micros,
                at: at + packet.bytes() as u64,
            };
        }
    }

    /// The frames from one id up to another.
    pub(super) fn stretch(&self, from_id: u64, to_id: u64) -> Stretch {
        Stretch {
            from_unix_micros: self.captured(from_id),
            to_unix_micros: self.captured(to_id.saturating_sub(1).max(from_id)),
            frames: to_id.saturating_sub(from_id),
            bytes: self.at(to_id).saturating_sub(self.at(from_id)),
        }
    }

    /// When a frame was captured.
    fn captured(&self, id: u64) -> i64 {
        let newest = self.end.map(|end| Mark { id: end.id.saturating_sub(1), ..end });
        match self.around(id, newest) {
            (Some(before), Some(after)) => {
                let span = after.unix_micros - before.unix_micros;
                before.unix_micros + (span as f64 * share(id, before.id, after.id)) as i64
            }
            (Some(mark), None) | (None, Some(mark)) => mark.unix_micros,
            (None, None) => 0,
        }
    }

    /// Bytes of the frames before this one.
    fn at(&self, id: u64) -> u64 {
        let learned = self.learned;
        let (before, after) = self.around(id, self.end);
        // What was read reaches further than its last mark.
        let before = before.map(|mark| match (mark.id..=id).contains(&learned.id) {
            true => learned,
            false => mark,
        });
        match (before, after) {
            (Some(before), Some(after)) => {
                let span = after.at.saturating_sub(before.at);
                before.at + (span as f64 * share(id, before.id, after.id)) as u64
            }
            (Some(mark), None) | (None, Some(mark)) => mark.at,
            (None, None) => 0,
        }
    }

    fn around(&self, id: u64, end: Option<Mark>) -> (Option<Mark>, Option<Mark>) {
        let after = self.list.partition_point(|mark| mark.id <= id);
        let before = after.checked_sub(1).and_then(|index| self.list.get(index)).copied();
        (before, self.list.get(after).copied().or(end))
    }

    /// Forgets what is only of use for frames before `id`.
    pub(super) fn forget(&mut self, id: u64) {
        while self.list.get(1).is_some_and(|mark| mark.id <= id) {
            self.list.pop_front();
        }
    }
}

/// How far `id` is from one id to another.
fn share(id: u64, from_id: u64, to_id: u64) -> f64 {
    let span = to_id.saturating_sub(from_id).max(1) as f64;
    (id.saturating_sub(from_id) as f64 / span).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fieldgate_hub::backlog::{Stored, StoredKind};

    fn bytes(marks: &Marks, from_id: u64, to_id: u64) -> u64 {
        marks.stretch(from_id, to_id).bytes
    }

    #[test]
    fn stretches_have_the_time_and_bytes_of_their_frames() {
        let mut marks = Marks::default();
        for number in 0..1000 {
            marks.append(50 + number, number as i64 * 40_000, 100 + number as usize);
        }
        let sum = |from: u64, to: u64| (from..to).map(|number| 100 + number).sum::<u64>();
        assert_eq!(bytes(&marks, 50, 1050), sum(0, 1000));
        // Between two marks there are two frames.
        assert!(bytes(&marks, 151, 952).abs_diff(sum(101, 902)) < 10);
        assert_eq!(bytes(&marks, 50, 151) + bytes(&marks, 151, 1050), sum(0, 1000));
        let stretch = marks.stretch(150, 950);
        assert_eq!((stretch.frames, stretch.from_unix_micros), (800, 4_000_000));
        assert!(stretch.to_unix_micros.abs_diff(899 * 40_000) <= 20_000, "{stretch:?}");
        // The next stream's ids begin elsewhere.
        marks.append(5000, 40_000_000, 7);
        assert_eq!((bytes(&marks, 50, 1050), bytes(&marks, 5000, 5001)), (sum(0, 1000), 7));
        marks.forget(700);
        assert!(bytes(&marks, 700, 1050).abs_diff(sum(650, 1000)) < 10);
    }

    #[test]
    fn what_an_earlier_life_left_is_learned_when_it_is_read() {
        let frame = |id: u64, len: usize| Stored {
            id,
            kind: StoredKind::Frame,
            keyframe: true,
            captured_unix_micros: id as i64 * 200_000,
            head: Bytes::new(),
            body: vec![0; len].into(),
        };
        let held = Held {
            ids: 10..30,
            frames: 18,
            bytes: 9 * 10 + 9 * 100,
            oldest_unix_micros: 2_000_000,
            newest_unix_micros: 29 * 200_000,
            next_id: 1_000,
        };
        let mut marks = Marks::recovered(&held);
        let first = Batch { header: None, packets: (10..19).map(|id| frame(id, 10)).collect() };
        // Two are damaged.
        let second = Batch { header: None, packets: (21..30).map(|id| frame(id, 100)).collect() };
        marks.learn(&first);
        assert_eq!(bytes(&marks, 10, 19), 90);
        marks.learn(&second);
        assert_eq!((bytes(&marks, 10, 19), bytes(&marks, 21, 30)), (90, 900));
        assert_eq!(marks.stretch(21, 30).from_unix_micros, 21 * 200_000);
        marks.append(1_000, 1 << 40, 5);
        assert_eq!((bytes(&marks, 10, 30), bytes(&marks, 1_000, 1_001)), (990, 5));
    }
}
