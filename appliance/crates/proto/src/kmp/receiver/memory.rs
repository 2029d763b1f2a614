//! What is known of a track from one connection to the next. Of fixed size, whatever a sender does.

use super::{Frame, Join};
use crate::kmp::packet::{Connect, MediaInfo};

/// One frame of one session of a sender. The default is of no session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameRef {
    session: u64,
    id: u64,
}

impl FrameRef {
    /// Its id on the wire.
    pub fn id(&self) -> u64 {
        self.id
    }
}

/// Why a frame was left out. It counts as received all the same, as its id is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// It came before any media info.
    NoMediaInfo,
    /// It has no payload.
    Empty,
    /// Video that waits for a keyframe.
    NoKey,
}

/// Totals of one track over all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackCounters {
    /// Frames that were not had before.
    pub received_frames: u64,
    /// Keyframes among them; always 0 for sound.
    pub received_keyframes: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// Left out: had before a reconnect.
    pub duplicate: u64,
    /// Left out: before any media info.
    pub no_media_info: u64,
    /// Left out: without payload.
    pub empty: u64,
    /// Left out: waited for a keyframe.
    pub no_key: u64,
    /// Connections so far.
    pub connections: u64,
    /// Those among them whose frames went on where the last ended.
    pub resumed: u64,
}

/// What a track's owner keeps from one connection to the next.
#[derive(Debug, Default)]
pub struct TrackMemory {
    /// Counts the sender's sessions, so that an old frame is not taken for a new one with the same id.
    session: u64,
    /// The first id that was never had, once there was a connection.
    next_id: Option<u64>,
    /// Behind the newest unit that was handed out.
    handed_id: u64,
    /// All units before it are safe.
    safe_id: u64,
    info: Option<MediaInfo>,
    needs_key: bool,
    counters: TrackCounters,
}

impl TrackMemory {
    /// All units before and with this one are where the owner wants them: they may be acknowledged.
    ///
    /// A frame of an earlier session is of no meaning.
    pub fn safe_until(&mut self, frame: FrameRef) {
        if frame.session == self.session {
            self.safe_id = self.safe_id.max(frame.id.saturating_add(1).min(self.handed_id));
        }
    }

    /// Units that were handed out and are not safe have been thrown away: they are wanted again.
    pub fn forget_unsafe(&mut self) {
        if self.safe_id < self.handed_id {
            self.next_id = Some(self.safe_id);
            self.handed_id = self.safe_id;
            // Which one belongs to the frame that comes again is not known any more.
            self.info = None;
        }
    }

    /// The id before which nothing is missing and nothing is at risk any more.
    pub fn settled_id(&self) -> u64 {
        // What was left out behind the last unit needs nobody's care.
        if self.safe_id >= self.handed_id { self.next_id() } else { self.safe_id }
    }

    /// The first id that was never had; 0 before the first connection.
    pub fn next_id(&self) -> u64 {
        self.next_id.unwrap_or(0)
    }

    /// Totals so far.
    pub fn counters(&self) -> TrackCounters {
        self.counters
    }

    pub(super) fn join(&mut self, connect: &Connect, max_repeated: u64) -> Join {
        self.counters.connections = self.counters.connections.saturating_add(1);
        let first = connect.initial_frame_id;
        let repeated = self.next_id.and_then(|wanted| wanted.checked_sub(first));
        let join = match repeated {
            Some(repeated) if repeated <= max_repeated => Join::Resumed { repeated },
            _ if self.next_id.is_none() => Join::First,
            _ => Join::Anew,
        };
        if let Join::Resumed { .. } = join {
            self.counters.resumed = self.counters.resumed.saturating_add(1);
            // A sender whose bytes differ after a reconnect can be joined at a keyframe only.
            self.needs_key |= !connect.consistent;
        } else {
            self.session = self.session.saturating_add(1);
            (self.next_id, self.handed_id, self.safe_id) = (Some(first), first, first);
            (self.info, self.needs_key) = (None, true);
        }
        join
    }

    pub(super) fn info(&self) -> Option<&MediaInfo> {
        self.info.as_ref()
    }

    pub(super) fn set_info(&mut self, info: MediaInfo, needs_key: bool) {
        self.info = Some(info);
        self.needs_key |= needs_key;
    }

    pub(super) fn waits_for_key(&self) -> bool {
        self.needs_key
    }

    /// The frame with this id goes to the owner.
    pub(super) fn hand_out(&mut self, id: u64) -> FrameRef {
        self.needs_key = false;
        // What was left out before it needs nobody's care, once all before that is safe.
        if self.safe_id >= self.handed_id {
            self.safe_id = id;
        }
        self.handed_id = id.saturating_add(1);
        self.next_id = Some(self.handed_id);
        FrameRef { session: self.session, id }
    }

    pub(super) fn count(&mut self, frame: &Frame) {
        let counters = &mut self.counters;
        counters.received_frames = counters.received_frames.saturating_add(1);
        counters.received_keyframes =
            counters.received_keyframes.saturating_add(u64::from(frame.head.keyframe));
        counters.received_bytes = counters.received_bytes.saturating_add(frame.payload().len() as u64);
    }

    /// The frame with this id is had, but goes nowhere.
    pub(super) fn leave_out(&mut self, id: u64, why: Skip) {
        self.next_id = Some(id.saturating_add(1));
        let counter = match why {
            Skip::NoMediaInfo => &mut self.counters.no_media_info,
            Skip::Empty => &mut self.counters.empty,
            Skip::NoKey => &mut self.counters.no_key,
        };
        *counter = counter.saturating_add(1);
    }

    pub(super) fn count_duplicate(&mut self) {
        self.counters.duplicate = self.counters.duplicate.saturating_add(1);
    }
}
