//! Encoded units on their way back to the gateway, with the times and the capture clock of what went in.

use crate::outlet::Outlet;
use crate::stream::ask_for_keyframe;
use crate::track;
use fieldgate_media::{Captured, Ticks, TrackId, Tracks, UnitHead};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// GStreamer's times are never below zero, but sound may begin a little before its source (encoders prime).
const BASE_NS: i64 = 3_600 * 1_000_000_000;
/// Units that wait until all tracks are known.
const WAITING_MAX: usize = 256;
/// Heads of what went in that are kept for what comes out.
const HEADS_MAX: usize = 512;

/// The time of a unit inside the pipeline.
pub(super) fn to_clock_time(time: Ticks) -> Option<gst::ClockTime> {
    // Rounded up, and down on the way back: the same tick comes out.
    let nanos = (i128::from(time.get()) * 100_000).div_euclid(9) + 1;
    let nanos = u64::try_from(nanos + i128::from(BASE_NS)).ok()?;
    Some(gst::ClockTime::from_nseconds(nanos))
}

fn to_ticks(time: gst::ClockTime) -> Ticks {
    let nanos = i128::from(time.nseconds()) - i128::from(BASE_NS);
    Ticks::new(i64::try_from((nanos * 9).div_euclid(100_000)).unwrap_or(0))
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Output(Arc<Shared>);

struct Shared {
    outlet: Outlet,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    expected: Vec<TrackId>,
    tracks: Tracks,
    announced: bool,
    waiting: VecDeque<(UnitHead, gst::MappedBuffer<gst::buffer::Readable>)>,
    lanes: BTreeMap<TrackId, Lane>,
}

/// What is remembered of one track.
#[derive(Default)]
struct Lane {
    /// By presentation time.
    came_in: BTreeMap<Ticks, UnitHead>,
    last_dts: Option<Ticks>,
}

impl Output {
    pub(super) fn new(outlet: Outlet) -> Output {
        Output(Arc::new(Shared { outlet, state: Mutex::default() }))
    }

    /// Remembers a unit that goes into the pipeline.
    pub(super) fn came_in(&self, head: &UnitHead) {
        self.with(|state| {
            let lane = state.lanes.entry(head.track).or_default();
            lane.came_in.insert(head.pts, *head);
            if lane.came_in.len() > HEADS_MAX {
                lane.came_in.pop_first();
            }
        });
    }

    /// Sends what arrives at `sink` as the units of track `id`.
    pub(super) fn attach(&self, sink: &gst_app::AppSink, id: TrackId) {
        self.with(|state| state.expected.push(id));
        let output = self.clone();
        let mut caps = None;
        let new_sample = move |sink: &gst_app::AppSink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            // A panic must not unwind into C code. Whatever broke is ours: end the stream, the gateway starts anew.
            let taken = catch_unwind(AssertUnwindSafe(|| output.sample(sink, id, &mut caps, sample)));
            taken.map_err(|_| gst::FlowError::Error)?;
            if output.0.outlet.is_closed() { Err(gst::FlowError::Eos) } else { Ok(gst::FlowSuccess::Ok) }
        };
        sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(new_sample).build());
    }

    fn sample(
        &self,
        sink: &gst_app::AppSink,
        id: TrackId,
        caps: &mut Option<gst::Caps>,
        mut sample: gst::Sample,
    ) {
        let outlet = &self.0.outlet;
        if sample.caps_owned() != *caps {
            *caps = sample.caps_owned();
            if let Some(track) = caps.as_ref().and_then(|caps| track::from_caps(id, caps)) {
                self.with(|state| state.know(track, outlet));
            }
        }
        let running = |time: Option<gst::ClockTime>| {
            let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
            match segment.to_running_time_full(time?)? {
                gst::Signed::Positive(time) => Some(to_ticks(time)),
                gst::Signed::Negative(_) => None,
            }
        };
        let pts = running(sample.buffer().and_then(|buffer| buffer.pts()));
        // Taken out of the sample, so that this is the only reference and mapping it copies nothing.
        let buffer = sample.buffer_owned();
        if let Some(sample) = sample.get_mut() {
            sample.set_buffer(None);
        }
        let (Some(buffer), Some(pts)) = (buffer, pts) else { return outlet.count_unusable() };
        let parser_says = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let Ok(payload) = buffer.into_mapped_buffer_readable() else { return outlet.count_unusable() };
        let taken = self.with(|state| {
            let codec = state.tracks.get(id).map(|track| track.codec)?;
            let keyframe = track::is_keyframe(codec, parser_says, &payload);
            let head = state.lanes.entry(id).or_default().place(id, pts, keyframe);
            if !state.announced {
                if state.waiting.len() < WAITING_MAX {
                    state.waiting.push_back((head, payload));
                    return Some(true);
                }
                state.announce(outlet);
            }
            Some(outlet.unit(&head, payload) || keyframe)
        });
        match taken {
            None => outlet.count_unusable(),
            Some(true) => {}
            Some(false) => ask_for_keyframe(sink),
        }
    }

    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn know(&mut self, track: fieldgate_media::Track, outlet: &Outlet) {
        if self.tracks.get(track.id) == Some(&track) {
            return;
        }
        self.tracks = self.tracks.with(track);
        if self.announced {
            outlet.tracks(&self.tracks);
        } else if self.expected.iter().all(|id| self.tracks.get(*id).is_some()) {
            self.announce(outlet);
        }
    }

    fn announce(&mut self, outlet: &Outlet) {
        self.announced = true;
        outlet.tracks(&self.tracks);
        for (head, payload) in self.waiting.drain(..) {
            outlet.unit(&head, payload);
        }
    }
}

impl Lane {
    /// The head of a unit that is presented then: what it was made of says when that was captured.
    fn place(&mut self, track: TrackId, pts: Ticks, keyframe: bool) -> UnitHead {
        // Encoders here never reorder.
        let dts = self.last_dts.map_or(pts, |last| pts.max(last));
        self.last_dts = Some(dts);
        let known = self.came_in.range(..=pts).next_back().or_else(|| self.came_in.first_key_value());
        let made_of = known.map(|(_, head)| *head);
        if let Some(made_of) = &made_of {
            // Older ones are not needed again.
            self.came_in = self.came_in.split_off(&made_of.pts);
        }
        let Some(made_of) = made_of else {
            let (source_dts, source_pts) = (dts, pts);
            return UnitHead {
                track,
                dts,
                pts: pts.max(dts),
                source_dts,
                source_pts,
                keyframe,
                captured: None,
            };
        };
        let later = pts - made_of.pts;
        let captured = made_of.captured.map(|captured| Captured {
            unix_micros: captured.unix_micros + later.get() * 100 / 9,
            by: captured.by,
        });
        let source_pts = made_of.source_pts + later;
        UnitHead { track, dts, pts: pts.max(dts), source_dts: source_pts, source_pts, keyframe, captured }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_media::ClockSource;

    #[test]
    fn every_tick_survives_the_way_through_a_pipeline() {
        for at in (-90_000..90_000).chain([1 << 33, (1 << 40) + 7]) {
            let time = to_clock_time(Ticks::new(at)).unwrap();
            assert_eq!(to_ticks(time).get(), at);
        }
    }

    #[test]
    fn what_comes_out_was_captured_when_what_went_in_was() {
        let mut lane = Lane::default();
        for n in 0..10 {
            let captured = Captured { unix_micros: 1_000_000 + n * 40_000, by: ClockSource::Camera };
            let pts = Ticks::new(n * 3600);
            let source = pts + Ticks::new(500);
            let head = UnitHead {
                track: TrackId::VIDEO,
                dts: pts,
                pts,
                source_dts: source,
                source_pts: source,
                keyframe: true,
                captured: Some(captured),
            };
            lane.came_in.insert(pts, head);
        }
        let exact = lane.place(TrackId::VIDEO, Ticks::new(7200), true);
        assert_eq!(exact.captured.unwrap().unix_micros, 1_080_000);
        assert_eq!((exact.source_pts.get(), exact.dts.get()), (7700, 7200));
        let between = lane.place(TrackId::VIDEO, Ticks::new(9000), false);
        assert_eq!(between.captured.unwrap().unix_micros, 1_100_000);
        let back = lane.place(TrackId::VIDEO, Ticks::new(8000), false);
        assert_eq!((back.dts.get(), back.pts.get()), (9000, 9000));
    }
}
