//! The packets that some upstream still needs, as far as they are in memory.

use super::super::packet::{PacketKind, Wire};
use std::collections::VecDeque;

/// Headers of packets that have left the window unacknowledged; more are not needed: only the newest before the
/// acknowledged position is ever asked for, and a track changes its header seldom.
const EVICTED_INFOS: usize = 64;

/// One packet of the track's queue.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// A frame's own id; for all else the id of the frame that follows.
    pub(super) id: u64,
    /// `MediaInfo`, `Frame` or `EndOfStream`.
    pub(super) kind: PacketKind,
    /// A frame with which a receiver can begin.
    pub(super) keyframe: bool,
    /// Its bytes.
    pub(super) wire: Wire,
    /// Place of its first byte in the track's queue.
    pub(super) at: u64,
}

impl Slot {
    pub(super) fn len(&self) -> u64 {
        self.wire.len() as u64
    }

    pub(super) fn end(&self) -> u64 {
        self.at.saturating_add(self.len())
    }
}

/// A run of packets without gaps. Packets are numbered by `seq`, which never goes back.
#[derive(Debug)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// Number of the first packet held.
    base: u64,
    /// Id of the frame that would be appended next.
    end_id: u64,
    /// Bytes ever appended.
    end_at: u64,
    /// Headers that were dropped from the front.
    evicted: VecDeque<Evicted>,
    /// The newest header that was appended since the window began anew.
    newest_info: Option<Wire>,
}

#[derive(Debug)]
struct Evicted {
    seq: u64,
    id: u64,
    wire: Wire,
}

impl Window {
    pub(super) fn new(first_id: u64) -> Self {
        Window {
            slots: VecDeque::new(),
            base: 0,
            end_id: first_id,
            end_at: 0,
            evicted: VecDeque::new(),
            newest_info: None,
        }
    }

    /// Appends a packet; frames use up an id.
    pub(super) fn push(&mut self, kind: PacketKind, keyframe: bool, wire: Wire) {
        if kind == PacketKind::MediaInfo {
            self.newest_info = Some(wire.clone());
        }
        let slot = Slot { id: self.end_id, kind, keyframe, wire, at: self.end_at };
        self.end_at = slot.end();
        self.end_id = self.end_id.saturating_add(u64::from(kind == PacketKind::Frame));
        self.slots.push_back(slot);
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(seq.checked_sub(self.base)?).ok()?)
    }

    /// Packets from `seq` on.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = &Slot> {
        let skip = usize::try_from(seq.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.slots.range(skip.min(self.slots.len())..)
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The number that the next packet gets.
    pub(super) fn end(&self) -> u64 {
        self.base.saturating_add(self.slots.len() as u64)
    }

    pub(super) fn end_id(&self) -> u64 {
        self.end_id
    }

    pub(super) fn end_at(&self) -> u64 {
        self.end_at
    }

    /// Id of the first frame that is not before `seq`.
    pub(super) fn id_at(&self, seq: u64) -> u64 {
        self.get(seq).map_or(self.end_id, |slot| slot.id)
    }

    /// Place of `seq`'s first byte.
    pub(super) fn at(&self, seq: u64) -> u64 {
        self.get(seq).map_or(self.end_at, |slot| slot.at)
    }

    /// Bytes from `seq` on.
    pub(super) fn bytes_from(&self, seq: u64) -> u64 {
        self.end_at.saturating_sub(self.at(seq))
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_from(self.base)
    }

    /// Drops what stands before `seq`, for good.
    pub(super) fn release(&mut self, seq: u64) {
        while self.evicted.front().is_some_and(|info| info.seq < seq) {
            self.evicted.pop_front();
        }
        while self.base < seq && self.slots.pop_front().is_some() {
            self.base = self.base.saturating_add(1);
        }
    }

    /// Drops the first packet, which is still kept elsewhere and may be asked for again.
    pub(super) fn evict(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            let seq = self.base;
            self.base = seq.saturating_add(1);
            if slot.kind == PacketKind::MediaInfo {
                if self.evicted.len() >= EVICTED_INFOS {
                    self.evicted.pop_front();
                }
                self.evicted.push_back(Evicted { seq, id: slot.id, wire: slot.wire });
            }
        }
    }

    /// The number and bytes of the newest header that was dropped, is not before `seq`, and is in force where all before
    /// the frame `id` is released: one just before that frame belongs to what is sent again, unless the frame alone is
    /// still held.
    pub(super) fn evicted_info(&self, seq: u64, id: u64) -> Option<(u64, &Wire)> {
        let frame_alone = id >= self.id_at(self.base);
        let mut infos = self.evicted.iter().rev().filter(|info| info.seq >= seq);
        let info = infos.find(|info| info.id < id || (frame_alone && info.id == id))?;
        Some((info.seq, &info.wire))
    }

    /// Empties the window; it goes on with the frame `id`.
    pub(super) fn restart(&mut self, id: u64) {
        self.base = self.end();
        self.slots.clear();
        self.evicted.clear();
        self.newest_info = None;
        self.end_id = id;
    }

    pub(super) fn newest_info(&self) -> Option<&Wire> {
        self.newest_info.as_ref()
    }

    /// Whether a receiver can begin at `seq`: a keyframe, or a header with a keyframe behind it.
    pub(super) fn is_border(&self, seq: u64) -> bool {
        match self.get(seq) {
            Some(slot) if slot.kind == PacketKind::MediaInfo => {
                self.get(seq.saturating_add(1)).is_some_and(|next| next.keyframe)
            }
            Some(slot) => slot.keyframe || slot.kind == PacketKind::EndOfStream,
            None => false,
        }
    }
}
