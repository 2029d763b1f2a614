//! One clean clock per mountpoint: whatever a source says, decode times strictly rise by bounded steps, and picture and
//! sound stay together.
//!
//! ```text
//!  source time --+ offset of its track--> stream time
//!                   moved when the source's clock jumps, stands still or lies about its speed
//! ```
//! Each track is compared with itself: a camera's clock jumps on one track before the other. The second one then
//! takes the same shift, so that what was together stays together. Only the monotonic clock is used, so steps of the
//! gateway's own wall clock change nothing here.

mod pace;

use fieldgate_media::{Ticks, TrackId, Tracks, UnitHead};
use pace::Speed;
use std::time::Duration;
use tokio::time::Instant;

/// A step back of more than this within a track is a new origin; less is disorder.
const MAX_BACK: Ticks = Ticks::from_millis(500);
/// A step further ahead than the time that passed and this is a new origin.
const MAX_AHEAD_LIVE: Ticks = Ticks::from_millis(5_000);
/// The same for sources that need not come at the speed of life.
const MAX_AHEAD: Ticks = Ticks::from_millis(30_000);
/// Spacing between the last unit before a new origin and the first after it, when no better is known.
const SEAM: Ticks = Ticks::from_millis(40);
/// Where a stream begins whose source begins below zero.
const LEAD: Ticks = Ticks::from_millis(200);
/// Two tracks whose clocks jump within this time, by the same within [`SAME_JUMP`], made one jump.
const ONE_JUMP: Duration = Duration::from_secs(10);
const SAME_JUMP: Ticks = Ticks::from_millis(1_000);
/// More never passes between two units: the timeline does not follow an outage further.
const MAX_PASSED: Duration = Duration::from_secs(3_600);
/// So far apart are the tracks of a camera at most.
const LEASH: Ticks = Ticks::from_millis(10_000);
const TICK: Ticks = Ticks::new(1);

/// How far a source's times are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Its steps are: it may come faster or slower than life (a file, a backlog). Only jumps are mended.
    #[default]
    Source,
    /// Only as far as they agree with the arrival of its units: a camera lives in real time.
    Arrival,
}

/// Maps source timestamps to the stream's clean timeline.
#[derive(Debug, Default)]
pub struct Timeline {
    pace: Pace,
    lines: [Option<Line>; Tracks::MAX],
    /// The newest output DTS over all tracks, and when it was made.
    newest: Option<(Ticks, Instant)>,
    restart: bool,
    last_jump: Option<Jump>,
    jumps: u64,
}

/// One track.
#[derive(Clone, Copy, Debug)]
struct Line {
    offset: Ticks,
    source: Ticks,
    out: Ticks,
    at: Instant,
    speed: Speed,
    /// Of the source before: the next unit begins anew.
    stale: bool,
}

#[derive(Clone, Copy, Debug)]
struct Jump {
    track: TrackId,
    shift: Ticks,
    at: Instant,
}

impl Timeline {
    /// How far the source's times are believed from here on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// A new source feeds the same mountpoint: its first unit continues where the last ended, plus the time that passed.
    pub fn restart(&mut self) {
        self.restart = self.newest.is_some();
    }

    /// The source goes on with the times that it had: nothing is moved, unless they jump by themselves.
    pub fn resume(&mut self) {
        self.restart = false;
    }

    /// How often a source's clock jumped within its stream. Both tracks of one jump count.
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// Sets `dts` and `pts` from what the source said: `source_dts` and `source_pts`.
    pub fn clean(&mut self, head: &mut UnitHead, now: Instant) {
        if std::mem::take(&mut self.restart) {
            self.lines.iter_mut().flatten().for_each(|line| line.stale = true);
        }
        let at = usize::from(head.track.0);
        let source = head.source_dts;
        let known = self.lines.get(at).copied().flatten();
        let mut line = match known {
            Some(line) if !line.stale => self.step(head.track, line, source, now),
            before => {
                let (offset, floor) = (self.origin(source, now), before.map(|line| line.out));
                let out = (source + offset).max(floor.map_or(Ticks::ZERO, |floor| floor + TICK));
                Line { offset, source, out, at: now, speed: Speed::new(source, out, now), stale: false }
            }
        };
        if self.pace == Pace::Arrival {
            line.speed.measure(source, line.out, now);
        }
        let delay = head.source_pts - source;
        let delay = delay + line.speed.stretch(delay);
        if let Some(place) = self.lines.get_mut(at) {
            *place = Some(line);
        }
        self.newest = Some(match self.newest {
            Some((newest, at)) if newest >= line.out => (newest, at),
            _ => (line.out, now),
        });
        head.dts = line.out;
        // Some players refuse a picture that is shown before it is decoded.
        head.pts = (source + delay + line.offset).max(line.out);
        if self.pace == Pace::Arrival {
            // What a camera's clock says is of no use to anybody.
            (head.source_dts, head.source_pts) = (head.dts, head.pts);
        }
    }

    /// The offset of a track that begins.
    fn origin(&self, source: Ticks, now: Instant) -> Ticks {
        // B-frames and edit lists make first times below zero, which RTMP's unsigned ones can't hold; the lead is for
        // the other track, which may begin a little earlier still.
        let Some((newest, at)) = self.newest else {
            return if source < Ticks::ZERO { LEAD - source } else { Ticks::ZERO };
        };
        let expected = newest + passed(at, now).max(SEAM);
        let together = self.lines.iter().flatten().filter(|line| !line.stale).max_by_key(|line| line.at);
        match together.map(|line| line.offset) {
            Some(offset) if self.fits(source + offset - expected) => offset,
            _ => expected - source,
        }
    }

    /// Whether a track may begin so far from where the stream is.
    fn fits(&self, apart: Ticks) -> bool {
        apart <= self.max_ahead() && apart >= -self.max_ahead()
    }

    fn max_ahead(&self) -> Ticks {
        match self.pace {
            Pace::Source => MAX_AHEAD,
            Pace::Arrival => MAX_AHEAD_LIVE,
        }
    }

    /// The next unit of a track that is under way.
    fn step(&mut self, track: TrackId, mut line: Line, source: Ticks, now: Instant) -> Line {
        let step = source - line.source;
        let elapsed = passed(line.at, now);
        let correction = line.speed.correction(step, elapsed, now);
        let slack = match self.pace {
            // The other track may be ahead in a stream that comes faster than life.
            Pace::Source => elapsed.max(self.newest.map_or(Ticks::ZERO, |(newest, _)| newest - line.out)),
            Pace::Arrival => elapsed,
        };
        let astray = self.other_than(track).and_then(|other| {
            let (out, reach) = (source + line.offset + correction, passed(other.at, now));
            let is_astray = out < other.out - LEASH || out > other.out + reach + LEASH;
            (is_astray && self.pace == Pace::Arrival).then(|| other.out + reach)
        });
        if step < -MAX_BACK || step > slack + self.max_ahead() || astray.is_some() {
            let wanted = astray.unwrap_or(line.out).max(line.out + elapsed.max(SEAM));
            let shift = self.jump(track, wanted - (source + line.offset), now);
            line.offset += shift;
            line.speed = Speed::new(source, source + line.offset, now);
        } else {
            line.offset += correction;
        }
        let out = (source + line.offset).max(line.out + TICK);
        Line { source, out, at: now, ..line }
    }

    /// Where the other track is that had a unit last.
    fn other_than(&self, track: TrackId) -> Option<&Line> {
        let others = self.lines.iter().enumerate().filter(|(at, _)| *at != usize::from(track.0));
        others.filter_map(|(_, line)| line.as_ref()).filter(|line| !line.stale).max_by_key(|line| line.at)
    }

    /// How far a track is moved whose clock jumped: as far as the other one was, if that was the same jump.
    fn jump(&mut self, track: TrackId, shift: Ticks, now: Instant) -> Ticks {
        self.jumps += 1;
        let same = self.last_jump.filter(|last| {
            let apart = last.shift - shift;
            last.track != track
                && now.saturating_duration_since(last.at) < ONE_JUMP
                && apart <= SAME_JUMP
                && apart >= -SAME_JUMP
        });
        match same {
            Some(last) => last.shift,
            None => {
                self.last_jump = Some(Jump { track, shift, at: now });
                shift
            }
        }
    }
}

/// From `then` to `now`, but not for ever.
fn passed(then: Instant, now: Instant) -> Ticks {
    Ticks::from_duration(now.saturating_duration_since(then).min(MAX_PASSED))
}

#[cfg(test)]
mod tests;
