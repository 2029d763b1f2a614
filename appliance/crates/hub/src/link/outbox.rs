//! What a worker still has to send: bounded, and honest about what it dropped.

use super::tracks::encode_tracks;
use super::wire::{CONTROL_MAX, HEAD_LEN, Head, Health, Kind, LogLevel};
use bytes::Bytes;
use fieldgate_media::{TrackKind, Tracks, UnitHead};
use std::collections::VecDeque;

/// More commands than this may not wait: who takes none is dead.
const COMMANDS_MAX: usize = 64;

/// The most that may wait for a slow gateway.
#[derive(Clone, Copy, Debug)]
pub struct OutboxBound {
    /// Bytes of payload.
    pub bytes: usize,
    /// Units.
    pub units: usize,
    /// Status, log and health frames; the oldest go first.
    pub control: usize,
}

impl Default for OutboxBound {
    fn default() -> Self {
        OutboxBound { bytes: 8 << 20, units: 1024, control: 32 }
    }
}

/// The frames that wait for the socket, in order. `B` owns a unit's payload (a mapped GStreamer buffer, a `Bytes`).
///
/// When the bound is hit all waiting units go and video starts again at its next keyframe. Tracks are never lost:
/// of several that wait without a unit between them the last one stays.
#[derive(Debug)]
pub struct Outbox<B> {
    bound: OutboxBound,
    queue: VecDeque<Entry<B>>,
    units: usize,
    control: usize,
    front_sent: usize,
    tracks: Tracks,
    /// Video waits for a keyframe, because it has not begun or because of a drop.
    waiting: Option<Waiting>,
    counters: Health,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    ToBegin,
    AfterDrop,
}

#[derive(Debug)]
struct Entry<B> {
    kind: Kind,
    head: [u8; HEAD_LEN],
    body: Body<B>,
}

#[derive(Debug)]
enum Body<B> {
    Unit(B),
    Control(Bytes),
}

impl<B: AsRef<[u8]>> Entry<B> {
    fn body(&self) -> &[u8] {
        match &self.body {
            Body::Unit(payload) => payload.as_ref(),
            Body::Control(bytes) => bytes,
        }
    }
}

/// What the next write should hold: the rest of the first frame's head and body.
#[derive(Debug)]
pub struct Sending<'a> {
    /// May be empty.
    pub head: &'a [u8],
    /// May be empty.
    pub body: &'a [u8],
}

impl<B: AsRef<[u8]>> Outbox<B> {
    /// An empty one.
    pub fn new(bound: OutboxBound) -> Self {
        Outbox {
            bound,
            queue: VecDeque::new(),
            units: 0,
            control: 0,
            front_sent: 0,
            tracks: Tracks::default(),
            waiting: Some(Waiting::ToBegin),
            counters: Health::default(),
        }
    }

    /// Queues one unit. Returns whether it was taken; `false` also asks the caller for a keyframe if it can make one.
    pub fn push_unit(&mut self, head: &UnitHead, payload: B) -> bool {
        let video = self.tracks.get(head.track).map(|track| track.kind() == TrackKind::Video);
        let len = payload.as_ref().len();
        let (Some(video), Some(wire)) = (video, Head::unit(head, len)) else {
            self.counters.unusable_units += 1;
            return false;
        };
        if self.units >= self.bound.units || self.queued_bytes().saturating_add(len) > self.bound.bytes {
            self.drop_units();
        }
        // A frame that is half on its way cannot be dropped, so one unit may still fill the bound.
        let full = self.queued_bytes().saturating_add(len) > self.bound.bytes;
        let waits = video && !head.keyframe && self.waiting.is_some();
        if full || waits {
            match self.waiting {
                Some(Waiting::ToBegin) => self.counters.unusable_units += 1,
                _ => self.counters.dropped_units += 1,
            }
            if full && video {
                self.waiting = Some(Waiting::AfterDrop);
            }
            return false;
        }
        if video {
            self.waiting = None;
        }
        self.units += 1;
        self.counters.queued_bytes += len as u64;
        self.queue.push_back(Entry { kind: Kind::Unit, head: wire.encode(), body: Body::Unit(payload) });
        true
    }

    /// Queues new tracks; units from here on may be of them.
    pub fn push_tracks(&mut self, tracks: &Tracks) {
        self.tracks = tracks.clone();
        let body = encode_tracks(tracks);
        let Some(head) = Head::control(Kind::Tracks, body.len()) else { return };
        let half_sent = self.queue.len() == 1 && self.front_sent > 0;
        if self.queue.back().is_some_and(|last| last.kind == Kind::Tracks) && !half_sent {
            self.queue.pop_back();
        }
        self.queue.push_back(Entry { kind: Kind::Tracks, head: head.encode(), body: Body::Control(body) });
    }

    /// Queues a pulse with the counters of this moment.
    pub fn push_pulse(&mut self) {
        let head = Head::health(&self.counters);
        self.push_control(Kind::Health, head, Bytes::new());
    }

    /// Queues opaque status bytes; `false` if they exceed [`CONTROL_MAX`].
    pub fn push_status(&mut self, status: Bytes) -> bool {
        let head = Head::control(Kind::Status, status.len());
        head.map(|head| self.push_control(Kind::Status, head, status)).is_some()
    }

    /// Queues the answer to an ask; `false` if it exceeds [`super::ASK_MAX`].
    pub fn push_answer(&mut self, answer: Bytes) -> bool {
        let head = Head::control(Kind::Answer, answer.len());
        // Not under the bound of control frames: who asks waits for it, with nothing else asked.
        let entry =
            head.map(|head| Entry { kind: Kind::Answer, head: head.encode(), body: Body::Control(answer) });
        entry.map(|entry| self.queue.push_back(entry)).is_some()
    }

    /// Queues a log line; a long one is cut.
    pub fn push_log(&mut self, level: LogLevel, line: &str) {
        let cut = line.floor_char_boundary(line.len().min(CONTROL_MAX / 32));
        let line = Bytes::copy_from_slice(line.get(..cut).unwrap_or_default().as_bytes());
        if let Some(head) = Head::log(level, line.len()) {
            self.push_control(Kind::Log, head, line);
        }
    }

    /// Queues a command before all units that wait; `false` if too many commands wait or it exceeds [`CONTROL_MAX`].
    pub fn push_command(&mut self, command: Bytes) -> bool {
        self.push_order(Kind::Command, command)
    }

    /// The same for an ask, which may be as long as [`super::ASK_MAX`].
    pub fn push_ask(&mut self, ask: Bytes) -> bool {
        self.push_order(Kind::Ask, ask)
    }

    fn push_order(&mut self, kind: Kind, order: Bytes) -> bool {
        let Some(head) = Head::control(kind, order.len()) else { return false };
        let is_order = |entry: &Entry<B>| matches!(entry.kind, Kind::Command | Kind::Ask);
        let waiting = self.queue.iter().filter(|entry| is_order(entry)).count();
        if waiting >= COMMANDS_MAX {
            return false;
        }
        // What is half sent comes first, then older commands.
        let from = usize::from(self.front_sent > 0);
        let after = self.queue.iter().rposition(is_order).map_or(from, |at| at + 1);
        let entry = Entry { kind, head: head.encode(), body: Body::Control(order) };
        self.queue.insert(after.max(from), entry);
        true
    }

    /// What to write next, `None` when all is sent.
    pub fn sending(&self) -> Option<Sending<'_>> {
        let front = self.queue.front()?;
        let head = front.head.get(self.front_sent..).unwrap_or_default();
        let body = front.body().get(self.front_sent.saturating_sub(HEAD_LEN)..).unwrap_or_default();
        Some(Sending { head, body })
    }

    /// Tells that `sent` bytes of `sending()` are gone.
    pub fn advance(&mut self, sent: usize) {
        self.front_sent = self.front_sent.saturating_add(sent);
        let whole = self.queue.front().map_or(usize::MAX, |front| HEAD_LEN + front.body().len());
        if self.front_sent < whole {
            return;
        }
        self.front_sent = 0;
        if let Some(gone) = self.queue.pop_front() {
            self.forget(&gone);
            if gone.kind == Kind::Unit {
                self.counters.sent_units += 1;
            }
        }
    }

    /// Totals so far.
    pub fn counters(&self) -> Health {
        self.counters
    }

    /// One more unit that came from the source and cannot be sent.
    pub fn count_unusable(&mut self) {
        self.counters.unusable_units += 1;
    }

    /// So many more units that came from the source were taken too slowly to be looked into.
    pub fn count_dropped(&mut self, units: u64) {
        self.counters.dropped_units += units;
    }

    /// The tracks as last announced.
    pub fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    fn queued_bytes(&self) -> usize {
        usize::try_from(self.counters.queued_bytes).unwrap_or(usize::MAX)
    }

    fn push_control(&mut self, kind: Kind, head: Head, body: Bytes) {
        if self.control >= self.bound.control {
            // The first may be half sent; the one after it is the oldest that can go.
            let from = usize::from(self.front_sent > 0);
            let oldest = (from..self.queue.len()).find(|at| self.queue.get(*at).is_some_and(is_control));
            if let Some(gone) = oldest.and_then(|at| self.queue.remove(at)) {
                self.forget(&gone);
            }
        }
        self.control += 1;
        self.queue.push_back(Entry { kind, head: head.encode(), body: Body::Control(body) });
    }

    fn forget(&mut self, gone: &Entry<B>) {
        match gone.kind {
            Kind::Unit => {
                self.units -= 1;
                self.counters.queued_bytes =
                    self.counters.queued_bytes.saturating_sub(gone.body().len() as u64);
            }
            Kind::Tracks | Kind::Answer | Kind::Command | Kind::Ask => {}
            Kind::Health | Kind::Status | Kind::Log => self.control -= 1,
        }
    }

    fn drop_units(&mut self) {
        let half_sent = self.front_sent > 0;
        let before = std::mem::take(&mut self.queue);
        let last_tracks = before.iter().rposition(|entry| entry.kind == Kind::Tracks);
        for (at, entry) in before.into_iter().enumerate() {
            let keep = match entry.kind {
                _ if at == 0 && half_sent => true,
                Kind::Unit => false,
                Kind::Tracks => Some(at) == last_tracks,
                _ => true,
            };
            if keep {
                self.queue.push_back(entry);
                continue;
            }
            self.forget(&entry);
            if entry.kind == Kind::Unit {
                self.counters.dropped_units += 1;
            }
        }
        self.waiting = Some(Waiting::AfterDrop);
    }
}

fn is_control<B>(entry: &Entry<B>) -> bool {
    matches!(entry.kind, Kind::Health | Kind::Status | Kind::Log)
}
