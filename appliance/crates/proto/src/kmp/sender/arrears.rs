//! What a track owes that sends what is live first: stretches of frames that were left behind, oldest first. They are sent
//! on a channel of their own, each by a sender made with [`super::Sender::owing`].

use super::report::Kept;
use super::upstream::{Cause, Fate};
use crate::kmp::packet::Wire;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::ops::Range;

/// Stretches at most.
const MAX_OWED: usize = 1_024;
/// Bytes of heads that are held for all stretches together.
const MAX_HEAD_BYTES: usize = 16 << 20;
/// The first byte of a note.
const VERSION: u8 = 1;

/// A stretch of frames that is still to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Frames from here on are not settled; those before, in `head`, are sent once more so that a receiver can begin.
    pub from_id: u64,
    /// Frames below may have been handed to a socket.
    pub handed_id: u64,
    /// The first frame that is not owed.
    pub end_id: u64,
    /// The header in force where it begins, if that is known.
    pub info: Option<Wire>,
    /// The settled frames of the GOP in whose middle it begins, with their headers, as far as memory had them.
    pub head: Vec<Kept>,
}

impl Owed {
    /// A stretch of which nothing more is known.
    pub fn new(ids: Range<u64>, handed_id: u64) -> Owed {
        Owed {
            from_id: ids.start,
            handed_id: handed_id.min(ids.end).max(ids.start),
            end_id: ids.end,
            info: None,
            head: Vec::new(),
        }
    }

    fn head_bytes(&self) -> usize {
        self.head.iter().map(|packet| packet.wire.len()).sum()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Arrears {
    waiting: VecDeque<Owed>,
}

impl Arrears {
    /// One more stretch, newer than all others.
    pub fn add(&mut self, mut owed: Owed) {
        let held: usize = self.waiting.iter().map(Owed::head_bytes).sum();
        if held.saturating_add(owed.head_bytes()) > MAX_HEAD_BYTES {
            owed.head.clear();
        }
        match self.waiting.back_mut() {
            // One that goes on where the last ends needs no head.
            Some(last)
                if last.end_id == owed.from_id
                    && (last.handed_id == last.end_id || owed.handed_id == owed.from_id) =>
            {
                if last.handed_id == last.end_id {
                    last.handed_id = owed.handed_id;
                }
                last.end_id = owed.end_id;
            }
            _ => self.waiting.push_back(owed),
        }
    }

    /// Whether no more stretches can be told apart.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_OWED
    }

    /// Takes the oldest, which is sent now.
    pub fn take(&mut self) -> Option<Owed> {
        self.waiting.pop_front()
    }

    /// The stretches that wait.
    pub fn waiting(&self) -> impl Iterator<Item = Range<u64>> {
        self.waiting.iter().map(|owed| owed.from_id..owed.end_id)
    }

    /// Frames before `before_id` are not kept any more: those that are owed, in order, with what became of them.
    pub fn dropped(&mut self, before_id: u64) -> Vec<(Range<u64>, Fate)> {
        let mut told = Vec::new();
        for owed in self.waiting.iter_mut().filter(|owed| owed.from_id < before_id) {
            let end = before_id.min(owed.end_id);
            let handed = owed.handed_id.clamp(owed.from_id, end);
            told.push((owed.from_id..handed, Fate::Unconfirmed(Cause::Backlog)));
            told.push((handed..end, Fate::Lost(Cause::Backlog)));
            owed.from_id = end;
            owed.handed_id = owed.handed_id.max(end);
            owed.info = None;
            owed.head.clear();
        }
        self.waiting.retain(|owed| owed.from_id < owed.end_id);
        told.retain(|(ids, _)| !ids.is_empty());
        told
    }

    /// A note from which [`Arrears::noted`] knows after a restart what is owed: `before` and `after` what waits here, and of
    /// what is live all from its first unsettled frame on, and up to where it was handed to a socket. An old note does no
    /// harm: what was delivered since is sent again. `last`: nothing is handed to a socket after this.
    pub fn note(
        &self,
        before: &[Owed],
        after: &[Owed],
        (live_from, live_handed): (u64, u64),
        last: bool,
    ) -> Bytes {
        let mut note = BytesMut::new();
        note.put_u8(VERSION);
        note.put_u8(u8::from(last));
        note.put_u64_le(live_from);
        note.put_u64_le(live_handed);
        for owed in before.iter().chain(&self.waiting).chain(after) {
            for number in [owed.from_id, owed.handed_id, owed.end_id] {
                note.put_u64_le(number);
            }
        }
        note.freeze()
    }

    /// What is owed of the frames that are kept. Without a note, or with one that is none, it is all of them, and all may
    /// have been sent; so they may be where the stop was not `in_order`.
    pub fn noted(mut note: &[u8], in_order: bool, kept: Range<u64>) -> Vec<Owed> {
        let mut noted = Vec::new();
        let (mut live_from, mut live_handed, mut noted_last) = (kept.start, kept.end, false);
        if note.len() >= 18 && note.first() == Some(&VERSION) {
            note.advance(1);
            noted_last = note.get_u8() == 1;
            (live_from, live_handed) = (note.get_u64_le(), note.get_u64_le());
            while note.len() >= 24 && noted.len() <= MAX_OWED {
                let (from_id, handed_id, end_id) = (note.get_u64_le(), note.get_u64_le(), note.get_u64_le());
                noted.push((from_id..end_id, handed_id));
            }
        }
        let is_sound = noted.windows(2).all(|pair| match pair {
            [(one, _), (other, _)] => one.end <= other.start,
            _ => true,
        });
        if !is_sound || noted.iter().any(|(ids, _)| ids.start > ids.end || ids.end > live_from) {
            (noted, live_from, noted_last) = (Vec::new(), kept.start, false);
        }
        noted.push((live_from..kept.end.max(live_from), live_handed));
        let owed = noted.into_iter().map(|(ids, handed_id)| {
            let ids = ids.start.max(kept.start)..ids.end.min(kept.end);
            let handed_id = if in_order && noted_last { handed_id } else { ids.end };
            Owed::new(ids, handed_id)
        });
        owed.filter(|owed| owed.from_id < owed.end_id).collect()
    }
}
