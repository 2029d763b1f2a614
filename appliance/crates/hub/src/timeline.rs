//! Keeps a mountpoint's timestamps monotonic over source restarts and steps back.

use fieldgate_media::{Ticks, TrackId, Tracks, UnitHead};
use std::time::Duration;
use tokio::time::Instant;

/// A step back of more than this, or ahead of more than [`MAX_AHEAD`], is a new origin; less is disorder.
const MAX_BACK: Ticks = Ticks::from_millis(3_000);
/// See [`MAX_BACK`]. Sources may rightly pause for some seconds.
const MAX_AHEAD: Ticks = Ticks::from_millis(30_000);
/// Spacing between the last unit before a new origin and the first after it, when no better is known.
const SEAM: Ticks = Ticks::from_millis(40);

/// Where a stream begins whose source begins below zero.
const LEAD: Ticks = Ticks::from_millis(200);

/// Maps source timestamps to the stream's clean timeline: one offset for all tracks, so that sound and picture stay together.
#[derive(Debug, Default)]
pub struct Timeline {
    offset: Ticks,
    /// The newest output DTS over all tracks, and when it was made.
    newest: Option<(Ticks, Instant)>,
    last_per_track: [Option<Ticks>; Tracks::MAX],
    restart: bool,
    /// How often a new origin was taken within one stream, for the counters.
    jumps: u64,
}

impl Timeline {
    /// A new source feeds the same mountpoint: its first unit continues where the last ended, plus the time that passed.
    pub fn restart(&mut self) {
        self.restart = self.newest.is_some();
    }

    /// The source goes on with the times that it had: nothing is moved, unless they jump by themselves.
    pub fn resume(&mut self) {
        self.restart = false;
    }

    /// Times stepped so far within streams.
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// Sets `dts` and `pts` from the source's values in `head`.
    pub fn clean(&mut self, head: &mut UnitHead, now: Instant) {
        if self.newest.is_none() && head.dts < Ticks::ZERO {
            // B-frames and edit lists make first times below zero, which RTMP's unsigned ones can't hold; the lead is for
            // the other track, which may begin a little earlier still.
            self.offset = LEAD - head.dts;
        }
        let mut dts = (head.dts + self.offset).max(Ticks::ZERO);
        if let Some((newest, at)) = self.newest {
            let jumped = dts < newest - MAX_BACK || dts > newest + MAX_AHEAD;
            if self.restart || jumped {
                self.jumps += u64::from(!self.restart);
                let passed =
                    Ticks::from_duration(now.saturating_duration_since(at).min(Duration::from_secs(3600)));
                let target = newest + passed.max(SEAM);
                self.offset = target - head.dts;
                dts = target;
            }
        }
        self.restart = false;
        if let Some(last) = self.last_of(head.track) {
            if let Some(previous) = *last {
                dts = dts.max(previous);
            }
            *last = Some(dts);
        }
        self.newest = Some(match self.newest {
            Some((newest, at)) if newest >= dts => (newest, at),
            _ => (dts, now),
        });
        head.dts = dts;
        // Some players refuse a picture that is shown before it is decoded.
        head.pts = (head.pts + self.offset).max(dts);
    }

    fn last_of(&mut self, track: TrackId) -> Option<&mut Option<Ticks>> {
        self.last_per_track.get_mut(usize::from(track.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(track: TrackId, millis: i64, composition_millis: i64) -> UnitHead {
        let dts = Ticks::from_millis(millis);
        UnitHead {
            track,
            dts,
            pts: dts + Ticks::from_millis(composition_millis),
            source_dts: dts,
            source_pts: dts + Ticks::from_millis(composition_millis),
            keyframe: true,
            captured: None,
        }
    }

    fn clean(timeline: &mut Timeline, mut head: UnitHead, now: Instant) -> (i64, i64) {
        timeline.clean(&mut head, now);
        (head.dts.as_millis(), head.pts.as_millis())
    }

    #[test]
    fn a_well_behaved_source_is_passed_unchanged() {
        let (mut timeline, now) = (Timeline::default(), Instant::now());
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 1000, 80), now), (1000, 1080));
        assert_eq!(clean(&mut timeline, unit(TrackId::AUDIO, 980, 0), now), (980, 980));
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 1040, 0), now), (1040, 1040));
        assert_eq!(timeline.jumps(), 0);
    }

    #[test]
    fn what_the_source_said_stays_as_it_was() {
        let (mut timeline, now) = (Timeline::default(), Instant::now());
        let mut head = unit(TrackId::VIDEO, -10, -40);
        timeline.clean(&mut head, now);
        assert_eq!((head.dts.as_millis(), head.pts.as_millis()), (200, 200));
        assert_eq!((head.source_dts.as_millis(), head.source_pts.as_millis()), (-10, -50));
    }

    #[test]
    fn a_source_that_begins_below_zero_is_moved_above_it_with_both_tracks() {
        let (mut timeline, now) = (Timeline::default(), Instant::now());
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, -10, 80), now), (200, 280));
        assert_eq!(clean(&mut timeline, unit(TrackId::AUDIO, -21, 0), now), (189, 189));
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 30, 0), now), (240, 240));
        assert_eq!(timeline.jumps(), 0);
    }

    #[test]
    fn a_reconnected_source_continues_after_the_time_that_passed() {
        let (mut timeline, now) = (Timeline::default(), Instant::now());
        clean(&mut timeline, unit(TrackId::VIDEO, 5000, 0), now);
        clean(&mut timeline, unit(TrackId::AUDIO, 4990, 0), now);
        timeline.restart();
        let later = now + Duration::from_millis(700);
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 0, 20), later), (5700, 5720));
        // One offset for both tracks: 20 ms between them stay 20 ms.
        assert_eq!(clean(&mut timeline, unit(TrackId::AUDIO, 20, 0), later), (5720, 5720));
        assert_eq!(timeline.jumps(), 0);
    }

    #[test]
    fn a_source_that_resumes_keeps_its_times() {
        let (mut timeline, now) = (Timeline::default(), Instant::now());
        clean(&mut timeline, unit(TrackId::VIDEO, 5000, 0), now);
        timeline.restart();
        timeline.resume();
        let later = now + Duration::from_secs(60);
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 5040, 0), later), (5040, 5040));
    }

    #[test]
    fn small_steps_back_are_held_and_large_ones_are_a_new_origin() {
        let (mut timeline, now) = (Timeline::default(), Instant::now());
        clean(&mut timeline, unit(TrackId::VIDEO, 10_000, 0), now);
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 9_990, 0), now), (10_000, 10_000));
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 0, 0), now), (10_040, 10_040));
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 40, 0), now), (10_080, 10_080));
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 37_600_000, 0), now), (10_120, 10_120));
        assert_eq!(timeline.jumps(), 2);
    }
}
