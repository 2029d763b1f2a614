//! Puts a channel's two tracks, which come over connections of their own, in one order by time.
//!
//! ```text
//!  video lane [v v v v] --\
//!                          >-- the earlier one first; who is alone waits for the other for a bounded time
//!  audio lane [a]       --/
//! ```
//! A track that ended, or that did not come within the wait, is not waited for until it brings something again. What it
//! then brings far behind what has gone out is late: a ring has one time, and its readers would jump. An **epoch** is a
//! sender's session: its times need not go on from those of the one before.

use fieldgate_media::{Draft, Ticks, Track, TrackKind};
use fieldgate_proto::kmp::receiver::FrameRef;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The other track's newest unit may be this far behind one that goes out: slow pictures shall not hold up sound.
const SLACK: Ticks = Ticks::from_millis(500);
/// How far behind the other track a unit may be and still go out; the hub takes more for a new origin.
const MAX_BEHIND: Ticks = Ticks::from_millis(2_500);
/// A step on of more than this after a gap in the ids is another session, as is any step back.
const MAX_GAP: Ticks = Ticks::from_millis(60_000);
/// How long the first track waits for one that may not exist.
const UNSEEN_WAIT: Duration = Duration::from_secs(2);
/// Bytes that one lane holds before its connection is not read from for a while.
const MAX_LANE_BYTES: usize = 8 << 20;
/// Units that one lane holds, likewise.
const MAX_LANE_UNITS: usize = 4_096;
/// What a waiting unit costs besides its payload.
const UNIT_BYTES: usize = 256;
/// How far a catching-up stream may run ahead of its allowed rate.
const BURST: Ticks = Ticks::from_millis(2_000);
/// A longer step is a jump of the source, not a backlog.
const MAX_STEP: Ticks = Ticks::from_millis(10_000);

/// A unit that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The track is told before the unit; `resent` as in the receiver's event.
    pub(super) track: Option<(Track, bool)>,
    pub(super) frame: FrameRef,
    pub(super) draft: Draft,
    pub(super) epoch: u64,
    arrived: Instant,
}

/// What to do now.
#[derive(Debug)]
pub(super) enum Next {
    /// This goes out.
    Publish(TrackKind, Box<Waiting>),
    /// This came too late and is left out.
    Late(TrackKind, Box<Waiting>),
    /// Nothing before then, unless something comes.
    WaitUntil(Instant),
    /// Nothing waits.
    Empty,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Presence {
    /// It never came in this epoch.
    #[default]
    Unseen,
    /// It comes, or is expected back.
    Expected,
    /// It ended, or did not come for too long.
    Gone,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Waiting>,
    bytes: usize,
    presence: Presence,
    epoch: u64,
    /// Its next unit may belong to another session.
    joins: bool,
    pending_track: Option<(Track, bool)>,
    newest_in: Option<Ticks>,
    newest_out: Option<Ticks>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Merge {
    lanes: [Lane; 2],
    wait: Duration,
    pace: Pace,
}

impl Merge {
    /// `catch_up`: how many times faster than made a backlog goes out.
    pub(super) fn new(wait: Duration, catch_up: u32, now: Instant) -> Self {
        Merge { lanes: Default::default(), wait, pace: Pace::new(catch_up, now) }
    }

    /// Other settings; what waits goes by them.
    pub(super) fn set(&mut self, wait: Duration, catch_up: u32) {
        self.wait = wait;
        self.pace.rate = i64::from(catch_up.max(1));
    }

    /// A connection brings this track; `resumed`: its frames join those before.
    pub(super) fn begin(&mut self, kind: TrackKind, resumed: bool) {
        let lane = self.lane(kind);
        lane.joins |= !resumed;
        if lane.presence == Presence::Gone {
            lane.presence = Presence::Expected;
        }
    }

    /// This track has ended on purpose.
    pub(super) fn end(&mut self, kind: TrackKind) {
        self.lane(kind).presence = Presence::Gone;
    }

    /// The track of the unit that comes next.
    pub(super) fn track(&mut self, kind: TrackKind, track: Track, resent: bool) {
        // An announcement that was not made yet is not the same as before only because this one is.
        let resent = resent && self.lane(kind).pending_track.as_ref().is_none_or(|(_, resent)| *resent);
        self.lane(kind).pending_track = Some((track, resent));
    }

    /// A unit of this track has come.
    pub(super) fn push(&mut self, kind: TrackKind, frame: FrameRef, draft: Draft, now: Instant) {
        let newest_epoch = self.lanes[0].epoch.max(self.lanes[1].epoch);
        let mut begins = false;
        let lane = self.lane(kind);
        let dts = draft.head.dts;
        if std::mem::take(&mut lane.joins)
            && lane.newest_in.is_some_and(|newest| dts < newest || dts > newest + MAX_GAP)
        {
            // The first track of a new session begins an epoch, the second follows into it.
            lane.epoch = if lane.epoch < newest_epoch { newest_epoch } else { newest_epoch + 1 };
            (lane.newest_in, lane.newest_out) = (None, None);
            begins = lane.epoch > newest_epoch;
        } else if lane.newest_in.is_none() {
            lane.epoch = newest_epoch;
        }
        lane.presence = Presence::Expected;
        lane.newest_in = Some(dts);
        lane.bytes += draft.payload().len() + UNIT_BYTES;
        let (track, epoch) = (lane.pending_track.take(), lane.epoch);
        lane.queue.push_back(Waiting { track, frame, draft, epoch, arrived: now });
        let other = &mut self.lanes[1 - index(kind)];
        if begins && other.presence == Presence::Gone {
            // It may come in the new session, too.
            other.presence = Presence::Unseen;
        }
    }

    /// Whether this track's connection may be read from.
    pub(super) fn has_room(&self, kind: TrackKind) -> bool {
        let lane = &self.lanes[index(kind)];
        lane.bytes < MAX_LANE_BYTES && lane.queue.len() < MAX_LANE_UNITS
    }

    /// Whether nothing of this track waits.
    pub(super) fn is_empty(&self, kind: TrackKind) -> bool {
        self.lanes[index(kind)].queue.is_empty()
    }

    /// Takes out what is next. Call until it is neither [`Next::Publish`] nor [`Next::Late`].
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let kind = match self.choose(now) {
            Ok(kind) => kind,
            Err(next) => return next,
        };
        let other = &self.lanes[1 - index(kind)];
        let (other_out, other_epoch) = (other.newest_out, other.epoch);
        let lane = &self.lanes[index(kind)];
        let Some(head) = lane.queue.front() else { return Next::Empty };
        let dts = head.draft.head.dts;
        let goes_on = lane.newest_out.is_none_or(|newest| dts >= newest);
        let is_behind = other_out.is_some_and(|newest| dts < newest - MAX_BEHIND);
        let is_late = goes_on && is_behind && head.epoch == other_epoch;
        if !is_late && let Err(until) = self.pace.take(dts, now) {
            return Next::WaitUntil(until);
        }
        let lane = self.lane(kind);
        let Some(waiting) = lane.queue.pop_front() else { return Next::Empty };
        lane.bytes -= waiting.draft.payload().len() + UNIT_BYTES;
        if is_late {
            // What was to be told with it is told with the next.
            if let (Some(track), Some(next)) = (waiting.track.clone(), lane.queue.front_mut()) {
                next.track.get_or_insert(track);
            } else if waiting.track.is_some() {
                lane.pending_track = waiting.track.clone();
            }
            return Next::Late(kind, Box::new(waiting));
        }
        lane.newest_out = Some(dts);
        Next::Publish(kind, Box::new(waiting))
    }

    /// Forgets all that waits.
    pub(super) fn clear(&mut self) {
        for lane in &mut self.lanes {
            (lane.queue, lane.bytes, lane.pending_track) = (VecDeque::new(), 0, None);
        }
    }

    /// Which lane's head goes next.
    fn choose(&mut self, now: Instant) -> Result<TrackKind, Next> {
        let [video, audio] = &self.lanes;
        let (alone, other) = match (video.queue.front(), audio.queue.front()) {
            (None, None) => return Err(Next::Empty),
            (Some(v), Some(a)) => {
                let video_first = (v.epoch, v.draft.head.dts) <= (a.epoch, a.draft.head.dts);
                return Ok(if video_first { TrackKind::Video } else { TrackKind::Audio });
            }
            (Some(head), None) => (TrackKind::Video, (head, audio)),
            (None, Some(head)) => (TrackKind::Audio, (head, video)),
        };
        let (head, other) = other;
        let dts = head.draft.head.dts;
        let is_ahead = other.epoch > head.epoch
            || (other.epoch == head.epoch && other.newest_in.is_some_and(|newest| newest + SLACK >= dts));
        let wait = match other.presence {
            Presence::Gone => return Ok(alone),
            _ if is_ahead => return Ok(alone),
            Presence::Unseen => self.wait.min(UNSEEN_WAIT),
            Presence::Expected => self.wait,
        };
        let until = head.arrived + wait;
        if now < until {
            return Err(Next::WaitUntil(until));
        }
        self.lanes[1 - index(alone)].presence = Presence::Gone;
        Ok(alone)
    }

    fn lane(&mut self, kind: TrackKind) -> &mut Lane {
        &mut self.lanes[index(kind)]
    }
}

/// The place of a track in lists of both.
pub(super) fn index(kind: TrackKind) -> usize {
    match kind {
        TrackKind::Video => 0,
        TrackKind::Audio => 1,
    }
}

/// Bounds how fast stream time may pass.
#[derive(Debug)]
struct Pace {
    rate: i64,
    /// Stream time that may pass at once.
    credit: Ticks,
    at: Instant,
    newest: Option<Ticks>,
}

impl Pace {
    fn new(rate: u32, now: Instant) -> Self {
        Pace { rate: i64::from(rate.max(1)), credit: BURST, at: now, newest: None }
    }

    /// Lets a unit with this time pass, or says when it may.
    fn take(&mut self, dts: Ticks, now: Instant) -> Result<(), Instant> {
        let passed = Ticks::from_duration(now.saturating_duration_since(self.at));
        let earned = Ticks::new(passed.get().saturating_mul(self.rate));
        self.credit = (self.credit + earned).min(BURST);
        self.at = now;
        let step = match self.newest {
            Some(newest) if dts > newest && dts - newest <= MAX_STEP => dts - newest,
            Some(newest) if dts <= newest && newest - dts <= MAX_STEP => Ticks::ZERO,
            // The first, or a jump.
            _ => {
                self.newest = Some(dts);
                return Ok(());
            }
        };
        // A step longer than the burst passes when the credit is whole.
        let needed = step.min(BURST);
        if needed > self.credit {
            let lacking = (needed - self.credit).get();
            let span = Ticks::new(lacking / self.rate + 1).to_duration();
            // Timers count in milliseconds.
            return Err(now + span.max(Duration::from_millis(1)));
        }
        self.credit = self.credit - needed;
        self.newest = self.newest.max(Some(dts));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
