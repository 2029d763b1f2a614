//! Packets in memory within a budget: what both kinds of backlog are made of.

use super::{BacklogError, Batch, Budget, Held, LossCause, Losses, Stored};
use std::collections::VecDeque;

/// The most that one step of capture time counts towards the age: a clock that is set must not empty a backlog.
const MAX_STEP_MICROS: i64 = 60_000_000;

struct Place {
    packet: Stored,
    /// Capture time with the clock's jumps taken out.
    age_micros: i64,
}

/// Packets in order, oldest first. Plain data without a lock.
pub struct PacketQueue {
    budget: Budget,
    places: VecDeque<Place>,
    /// The newest header that is no longer in `places`.
    header: Option<Stored>,
    frames: u64,
    bytes: u64,
    next_id: u64,
    /// Everything below is released.
    floor: u64,
    /// Packets with an id below are being written: they are not dropped.
    pinned: u64,
    /// Frames are dropped up to the next keyframe, for this cause.
    waiting: Option<LossCause>,
    age_micros: i64,
    last_captured: Option<i64>,
    losses: Losses,
}

impl PacketQueue {
    /// An empty queue whose first frame has at least the id `next_id`.
    pub fn new(budget: Budget, next_id: u64) -> Self {
        PacketQueue {
            budget,
            places: VecDeque::new(),
            header: None,
            frames: 0,
            bytes: 0,
            next_id,
            floor: 0,
            pinned: 0,
            waiting: None,
            age_micros: 0,
            last_captured: None,
            losses: Losses::default(),
        }
    }

    /// Appends a packet, then drops the oldest until the budget holds; `cause` is what a full byte budget is called.
    pub fn push(&mut self, packet: Stored, cause: LossCause) -> Result<(), BacklogError> {
        if packet.id < self.next_id {
            return Err(BacklogError::Order { id: packet.id, next_id: self.next_id });
        }
        if packet.head.len() > Stored::MAX_HEAD_BYTES || packet.body.len() > Stored::MAX_BODY_BYTES {
            let (head, body) = (packet.head.len(), packet.body.len());
            return Err(BacklogError::TooLong { id: packet.id, head, body });
        }
        if packet.is_frame() {
            self.next_id = packet.id.saturating_add(1);
            let last = self.last_captured.replace(packet.captured_unix_micros);
            let step = last.map_or(0, |last| packet.captured_unix_micros.saturating_sub(last));
            self.age_micros += step.clamp(0, MAX_STEP_MICROS);
            if packet.id < self.floor {
                return Ok(());
            }
            if packet.keyframe {
                self.waiting = None;
            } else if let Some(cause) = self.waiting {
                self.losses.frame(packet.id, packet.captured_unix_micros, cause);
                return Ok(());
            }
            self.frames += 1;
        }
        self.bytes += packet.bytes() as u64;
        self.places.push_back(Place { packet, age_micros: self.age_micros });
        self.keep_budget(cause);
        Ok(())
    }

    fn keep_budget(&mut self, cause: LossCause) {
        while self.bytes > self.budget.bytes && self.drop_oldest(cause) {}
        let age = i64::try_from(self.budget.age.as_micros()).unwrap_or(i64::MAX);
        // The GOP that is being written stays, however old its start is: nothing newer would be lost for something older.
        while self.places.get(self.unpinned()).is_some_and(|oldest| self.age_micros - oldest.age_micros > age)
            && let Some(border) = self.border()
        {
            self.drop_before(border, LossCause::Age);
        }
    }

    /// Keeps what has an id below from being dropped, while it is being written. 0: nothing.
    pub fn pin(&mut self, below_id: u64) {
        self.pinned = below_id;
    }

    /// Drops the oldest frames up to the next keyframe. If there is none, all go, and what comes before it too.
    /// Returns false if there is none to drop.
    pub fn drop_oldest(&mut self, cause: LossCause) -> bool {
        let before = self.frames;
        match self.border() {
            Some(border) => self.drop_before(border, cause),
            None => self.drop_before(self.places.len(), cause),
        }
        let dropped = self.frames < before;
        if dropped && self.places.back().is_none_or(|place| place.packet.id < self.pinned) {
            self.waiting = Some(cause);
        }
        dropped
    }

    fn unpinned(&self) -> usize {
        self.places.partition_point(|place| place.packet.id < self.pinned)
    }

    /// Where the first keyframe stands that is not the oldest frame, its header included.
    fn border(&self) -> Option<usize> {
        let start = self.unpinned();
        let frames = (start..).zip(self.places.range(start..)).filter(|(_, place)| place.packet.is_frame());
        let (mut index, id) = frames
            .skip(1)
            .find(|(_, place)| place.packet.keyframe)
            .map(|(at, place)| (at, place.packet.id))?;
        let is_its_header = |place: &Place| !place.packet.is_frame() && place.packet.id == id;
        while index > start && self.places.get(index - 1).is_some_and(is_its_header) {
            index -= 1;
        }
        Some(index)
    }

    fn drop_before(&mut self, border: usize, cause: LossCause) {
        let border = border.min(self.places.len());
        for place in self.places.drain(self.unpinned().min(border)..border) {
            self.bytes -= place.packet.bytes() as u64;
            if place.packet.is_frame() {
                self.frames -= 1;
                self.losses.frame(place.packet.id, place.packet.captured_unix_micros, cause);
            } else {
                self.header = Some(place.packet);
            }
        }
    }

    /// Forgets everything with an id below. A header stays for the frames that follow it.
    pub fn release(&mut self, before_id: u64) {
        self.floor = self.floor.max(before_id);
        while self.places.front().is_some_and(|place| place.packet.id < before_id) {
            self.pop();
        }
    }

    /// Sets the oldest part aside as kept elsewhere, up to and with this frame.
    pub fn forget_through(&mut self, frame_id: u64) {
        while self.places.front().is_some_and(|place| place.packet.id <= frame_id) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(Place { packet, .. }) = self.places.pop_front() else { return };
        self.bytes -= packet.bytes() as u64;
        if packet.is_frame() {
            self.frames -= 1;
        } else {
            self.header = Some(packet);
        }
    }

    /// Packets from this id on, up to about `max_bytes` but at least one.
    pub fn read(&self, from_id: u64, max_bytes: usize) -> Batch {
        let start = self.places.partition_point(|place| place.packet.id < from_id);
        let before = self.places.range(..start).rev().find(|place| !place.packet.is_frame());
        let header = before.map(|place| place.packet.clone()).or_else(|| self.header.clone());
        let mut bytes = 0;
        let mut packets = Vec::new();
        for place in self.places.range(start..) {
            bytes += place.packet.bytes();
            if bytes > max_bytes && packets.last().is_some_and(Stored::is_frame) {
                break;
            }
            packets.push(place.packet.clone());
        }
        let mut batch = Batch { header, packets };
        batch.end_with_frame();
        batch
    }

    /// All packets, oldest first.
    pub fn packets(&self) -> impl Iterator<Item = &Stored> {
        self.places.iter().map(|place| &place.packet)
    }

    /// The newest header that is no longer among the packets.
    pub fn header(&self) -> Option<&Stored> {
        self.header.as_ref()
    }

    /// What is held.
    pub fn held(&self) -> Held {
        let mut frames = self.packets().filter(|packet| packet.is_frame());
        let oldest = frames.next();
        let newest = self.places.iter().rev().map(|place| &place.packet).find(|packet| packet.is_frame());
        Held {
            ids: oldest
                .zip(newest)
                .map_or(self.next_id..self.next_id, |(oldest, newest)| oldest.id..newest.id + 1),
            frames: self.frames,
            bytes: self.bytes,
            oldest_unix_micros: oldest.map_or(0, |packet| packet.captured_unix_micros),
            newest_unix_micros: newest.map_or(0, |packet| packet.captured_unix_micros),
            next_id: self.next_id,
        }
    }

    /// The lowest id that may be appended.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Remembers a header that came before what is held.
    pub fn set_header(&mut self, header: Option<Stored>) {
        self.header = header;
    }

    /// Changes the budget; takes effect with the next packet.
    pub fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Bytes of heads and bodies held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was lost.
    pub fn losses(&mut self) -> &mut Losses {
        &mut self.losses
    }
}
