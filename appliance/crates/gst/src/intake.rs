//! The stream that the gateway sends to this worker, until whoever looks into it takes it.
//!
//! The thread that reads the link never waits, so that commands come through: with the bound reached all waiting units
//! go and video starts again at its next keyframe.

use bytes::Bytes;
use fieldgate_media::{Ticks, TrackKind, Tracks, UnitHead};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most that may wait: some seconds of a 4K camera.
const BYTES_MAX: usize = 8 << 20;
const UNITS_MAX: usize = 1024;
/// A stream that waits longer than this is late beyond use.
const SPAN_MAX: Ticks = Ticks::from_millis(6_000);

/// One piece of the stream.
#[derive(Debug)]
pub(crate) enum Fed {
    /// All tracks from here on.
    Tracks(Tracks),
    Unit(UnitHead, Bytes),
}

/// Between the thread that reads the link and the one that takes units. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Intake(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Fed>,
    tracks: Tracks,
    units: usize,
    bytes: usize,
    /// Video waits for its next keyframe.
    waiting: bool,
    dropped: u64,
    is_over: bool,
}

impl Intake {
    pub(crate) fn tracks(&self, tracks: Tracks) {
        let mut state = self.lock();
        state.tracks = tracks.clone();
        // Of several without a unit between them the last one stays.
        if matches!(state.queue.back(), Some(Fed::Tracks(_))) {
            state.queue.pop_back();
        }
        state.queue.push_back(Fed::Tracks(tracks));
        self.0.1.notify_one();
    }

    pub(crate) fn unit(&self, head: UnitHead, payload: Bytes) {
        let mut state = self.lock();
        let oldest = state.queue.iter().find_map(|fed| match fed {
            Fed::Unit(head, _) => Some(head.dts),
            Fed::Tracks(_) => None,
        });
        let is_late = oldest.is_some_and(|oldest| head.dts - oldest > SPAN_MAX);
        if is_late || state.units >= UNITS_MAX || state.bytes + payload.len() > BYTES_MAX {
            state.drop_units();
        }
        let is_video = state.tracks.get(head.track).is_some_and(|track| track.kind() == TrackKind::Video);
        if is_video && state.waiting && !head.keyframe {
            state.dropped += 1;
            return;
        }
        state.waiting &= !is_video;
        state.units += 1;
        state.bytes += payload.len();
        state.queue.push_back(Fed::Unit(head, payload));
        self.0.1.notify_one();
    }

    /// Waits for the next piece; `None` after that time, and at once when nothing more will come.
    pub(crate) fn next(&self, patience: Duration) -> Option<Fed> {
        let state = self.lock();
        let idle = |state: &mut State| state.queue.is_empty() && !state.is_over;
        let waited = self.0.1.wait_timeout_while(state, patience, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let fed = state.queue.pop_front();
        if let Some(Fed::Unit(_, payload)) = &fed {
            state.units -= 1;
            state.bytes -= payload.len();
        }
        fed
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        self.lock().is_over = true;
        self.0.1.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Units that were dropped so far because they were taken too slowly.
    pub(crate) fn dropped_units(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_units(&mut self) {
        self.dropped += self.units as u64;
        (self.units, self.bytes, self.waiting) = (0, 0, true);
        let last = self.queue.drain(..).rfind(|fed| matches!(fed, Fed::Tracks(_)));
        self.queue.extend(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_media::{Codec, Ticks, Track, TrackId};

    fn head(track: TrackId, at: i64, keyframe: bool) -> UnitHead {
        let dts = Ticks::new(at);
        UnitHead { track, dts, pts: dts, source_dts: dts, source_pts: dts, keyframe, captured: None }
    }

    fn tracks() -> Tracks {
        Tracks::new(vec![
            Track::new(TrackId::VIDEO, Codec::Hevc, Bytes::new()),
            Track::new(TrackId::AUDIO, Codec::Aac, Bytes::new()),
        ])
    }

    fn all(intake: &Intake) -> Vec<Fed> {
        std::iter::from_fn(|| intake.next(Duration::ZERO)).collect()
    }

    #[test]
    fn what_comes_in_goes_out_in_order() {
        let intake = Intake::default();
        intake.tracks(Tracks::default());
        intake.tracks(tracks());
        intake.unit(head(TrackId::VIDEO, 0, true), Bytes::from_static(b"k"));
        intake.unit(head(TrackId::AUDIO, 5, true), Bytes::from_static(b"a"));
        let out = all(&intake);
        assert!(matches!(&out[..], [Fed::Tracks(seen), Fed::Unit(..), Fed::Unit(last, _)]
            if *seen == tracks() && last.track == TrackId::AUDIO));
    }

    #[test]
    fn over_the_bound_all_goes_and_video_begins_at_a_keyframe() {
        let intake = Intake::default();
        intake.tracks(tracks());
        for n in 0..UNITS_MAX as i64 + 10 {
            intake.unit(head(TrackId::VIDEO, n, n == 0), Bytes::from_static(b"p"));
        }
        let late = SPAN_MAX.get() + 302;
        intake.unit(head(TrackId::AUDIO, 300, true), Bytes::from_static(b"a"));
        intake.unit(head(TrackId::VIDEO, 301, true), Bytes::from_static(b"k"));
        assert_eq!(intake.dropped_units(), UNITS_MAX as u64 + 10);
        intake.unit(head(TrackId::VIDEO, late, true), Bytes::from_static(b"k"));
        assert_eq!(intake.dropped_units(), UNITS_MAX as u64 + 12, "too late");
        intake.unit(head(TrackId::AUDIO, late, true), Bytes::from_static(b"a"));
        let out = all(&intake);
        assert!(matches!(&out[..], [Fed::Tracks(_), Fed::Unit(k, _), Fed::Unit(a, _)]
            if a.track == TrackId::AUDIO && k.keyframe));
        intake.unit(head(TrackId::VIDEO, 302, true), Bytes::from(vec![0; BYTES_MAX]));
        intake.unit(head(TrackId::VIDEO, 303, true), Bytes::from_static(b"k"));
        assert_eq!(all(&intake).len(), 1);
    }

    #[test]
    fn an_end_wakes_who_waits() {
        let intake = Intake::default();
        intake.end();
        assert!(intake.next(Duration::from_secs(600)).is_none() && intake.is_over());
    }
}
