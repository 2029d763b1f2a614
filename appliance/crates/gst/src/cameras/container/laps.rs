//! A file that begins again and again, as one stream: right behind the demuxer all times are made to go on where the last
//! lap ended, so that decoders and encoders (which keep a rate by them) never see them go back.

use gst::prelude::*;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where times begin: those of decoding may be before those of the first picture, but none can be below zero.
const BEGINNING_NS: i64 = 3_600 * SECOND_NS;
const SECOND_NS: i64 = 1_000_000_000;
/// How far a file that begins again may be behind: what a standstill of the machine missed is not played at once.
const LATE_MAX_NS: i64 = SECOND_NS / 2;
/// How long a unit lasts when neither it nor its neighbours say so.
const USUAL_STEP_NS: i64 = SECOND_NS / 25;

/// The laps of one file. Cheap to clone.
#[derive(Clone, Default)]
pub(in crate::cameras) struct Laps(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lanes: Vec<Lane>,
    /// Added to all running times of this lap.
    shift_ns: i64,
    /// Where the newest unit ends, shift included.
    end_ns: i64,
    /// The next unit is the first of its lap.
    begins: bool,
}

/// One track.
#[derive(Default)]
struct Lane {
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// Its first unit in the first lap, in running time.
    first_ns: Option<i64>,
    newest_ns: Option<i64>,
    step_ns: Option<i64>,
    ended: bool,
}

impl Laps {
    /// Takes a track of the demuxer in, before anything came from it.
    pub(super) fn follow(&self, pad: &gst::Pad, pipeline: &gst::Pipeline) {
        let lane = {
            let mut state = self.state();
            state.lanes.push(Lane::default());
            state.lanes.len() - 1
        };
        let (laps, weak) = (self.clone(), pipeline.downgrade());
        let mask = gst::PadProbeType::BUFFER
            | gst::PadProbeType::BUFFER_LIST
            | gst::PadProbeType::EVENT_DOWNSTREAM
            | gst::PadProbeType::EVENT_FLUSH;
        pad.add_probe(mask, move |pad, info| {
            match &mut info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => laps.state().restamp(lane, buffer.make_mut()),
                Some(gst::PadProbeData::BufferList(list)) => {
                    let mut state = laps.state();
                    list.make_mut().foreach_mut(|mut buffer, _| {
                        state.restamp(lane, buffer.make_mut());
                        ControlFlow::Continue(Some(buffer))
                    });
                }
                Some(gst::PadProbeData::Event(event)) => {
                    let new = match event.view() {
                        gst::EventView::Segment(segment) => laps.state().begin(lane, segment.segment()),
                        // Of the seek that begins a lap nothing is to be seen behind this place.
                        gst::EventView::FlushStart(_)
                        | gst::EventView::FlushStop(_)
                        | gst::EventView::Gap(_) => None,
                        gst::EventView::Eos(_) => {
                            laps.end(lane, pad, weak.upgrade());
                            None
                        }
                        _ => return gst::PadProbeReturn::Ok,
                    };
                    let Some(new) = new else { return gst::PadProbeReturn::Drop };
                    *event = new;
                }
                _ => (),
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// When all tracks are at their end the next lap begins.
    fn end(&self, lane: usize, pad: &gst::Pad, pipeline: Option<gst::Pipeline>) {
        let Some(pipeline) = pipeline else { return };
        let now_ns = pipeline.current_running_time().map_or(0, nanos);
        match self.state().end(lane, now_ns) {
            Lap::GoesOn => (),
            Lap::Empty => {
                gst::element_error!(
                    pipeline,
                    gst::StreamError::Demux,
                    ["the file has no media that could be played"]
                );
            }
            Lap::Ended => {
                let pad = pad.clone();
                // Seeking stops this very thread, so another does it.
                pipeline.call_async(move |pipeline| {
                    let start = (gst::SeekType::Set, gst::ClockTime::ZERO);
                    let stop = (gst::SeekType::None, gst::ClockTime::NONE);
                    let flags = gst::SeekFlags::FLUSH;
                    if !pad.send_event(gst::event::Seek::new(1.0, flags, start.0, start.1, stop.0, stop.1)) {
                        gst::element_error!(
                            pipeline,
                            gst::ResourceError::Seek,
                            ["the file cannot begin anew"]
                        );
                    }
                });
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the end of a track means for the file.
#[derive(Debug, PartialEq, Eq)]
enum Lap {
    /// Other tracks have not ended.
    GoesOn,
    Ended,
    /// Nothing was in it: to begin again would be a loop without a pause.
    Empty,
}

impl State {
    /// The segment that all laps of this track share, when it is not known behind the demuxer yet.
    fn begin(&mut self, lane: usize, segment: &gst::Segment) -> Option<gst::Event> {
        let lane = self.lanes.get_mut(lane)?;
        let is_first = lane.segment.is_none();
        lane.segment = Some(segment.downcast_ref::<gst::ClockTime>()?.clone());
        is_first.then(|| {
            let mut plain = gst::FormattedSegment::<gst::ClockTime>::new();
            plain.set_start(clock_time(BEGINNING_NS));
            gst::event::Segment::new(&plain)
        })
    }

    fn restamp(&mut self, lane: usize, buffer: &mut gst::BufferRef) {
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        let Some(segment) = &lane.segment else { return };
        let running = |time: Option<gst::ClockTime>| match segment.to_running_time_full(time?)? {
            gst::Signed::Positive(time) => Some(nanos(time)),
            gst::Signed::Negative(time) => Some(-nanos(time)),
        };
        let (pts, dts) = (running(buffer.pts()), running(buffer.dts()));
        if let Some(at) = pts.or(dts) {
            // Some demuxers count from another zero after a seek; each lap begins with the same units.
            let first_ns = *lane.first_ns.get_or_insert(at);
            if std::mem::take(&mut self.begins) {
                self.shift_ns -= at - first_ns;
            }
            let step = lane.newest_ns.map(|newest| at - newest).filter(|step| (1..SECOND_NS).contains(step));
            lane.step_ns = step.or(lane.step_ns);
            lane.newest_ns = lane.newest_ns.max(Some(at));
            // The last may be cut short in what it says, but not in what is decoded of it.
            let length = buffer.duration().map(nanos).max(lane.step_ns).unwrap_or(USUAL_STEP_NS);
            self.end_ns = self.end_ns.max(at.saturating_add(length).saturating_add(self.shift_ns));
        }
        let placed = |time: Option<i64>| time.map(|time| clock_time(BEGINNING_NS + self.shift_ns + time));
        buffer.set_pts(placed(pts));
        buffer.set_dts(placed(dts));
    }

    fn end(&mut self, lane: usize, now_ns: i64) -> Lap {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.ended = true;
        }
        if self.lanes.iter().any(|lane| !lane.ended) {
            return Lap::GoesOn;
        }
        if self.end_ns <= self.shift_ns {
            return Lap::Empty;
        }
        self.shift_ns = self.end_ns.max(now_ns - LATE_MAX_NS);
        (self.end_ns, self.begins) = (self.shift_ns, true);
        for lane in &mut self.lanes {
            (lane.ended, lane.newest_ns) = (false, None);
        }
        Lap::Ended
    }
}

fn nanos(time: gst::ClockTime) -> i64 {
    i64::try_from(time.nseconds()).unwrap_or(i64::MAX)
}

fn clock_time(nanos: i64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn state(tracks: usize) -> State {
        gst::init().unwrap();
        let mut state = State { lanes: (0..tracks).map(|_| Lane::default()).collect(), ..State::default() };
        for lane in 0..tracks {
            assert!(state.begin(lane, &segment(0)).is_some());
        }
        state
    }

    fn segment(start_ms: u64) -> gst::Segment {
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_mseconds(start_ms));
        segment.upcast()
    }

    /// What becomes of such a unit's times, in milliseconds.
    fn placed(state: &mut State, lane: usize, pts_ms: u64, dts_ms: u64) -> (i64, i64) {
        let mut buffer = gst::Buffer::new();
        let times = buffer.get_mut().unwrap();
        times.set_pts(gst::ClockTime::from_mseconds(pts_ms));
        times.set_dts(gst::ClockTime::from_mseconds(dts_ms));
        state.restamp(lane, times);
        let since = |time: Option<gst::ClockTime>| (nanos(time.unwrap()) - BEGINNING_NS) / MS;
        (since(times.pts()), since(times.dts()))
    }

    #[test]
    fn a_lap_goes_on_where_the_longest_track_ended() {
        let mut state = state(2);
        assert_eq!(placed(&mut state, 0, 0, 0), (0, 0));
        assert_eq!(placed(&mut state, 0, 50, 50), (50, 50));
        assert_eq!(placed(&mut state, 1, 0, 0), (0, 0));
        assert_eq!(placed(&mut state, 1, 20, 20), (20, 20));
        // The end of a track may be told twice.
        assert_eq!(
            (state.end(1, 0), state.end(1, 0), state.end(0, 0)),
            (Lap::GoesOn, Lap::GoesOn, Lap::Ended)
        );
        assert!(state.begin(0, &segment(0)).is_none(), "the segment of the first lap serves all");
        assert_eq!(placed(&mut state, 0, 0, 0), (100, 100));
        assert_eq!(placed(&mut state, 1, 0, 0), (100, 100));
    }

    #[test]
    fn times_before_the_first_picture_and_edited_beginnings_are_kept() {
        let mut state = state(1);
        assert!(state.begin(0, &segment(80)).is_none());
        assert_eq!(placed(&mut state, 0, 80, 0), (0, -80));
    }

    #[test]
    fn a_demuxer_that_counts_anew_leaves_no_gap() {
        let mut state = state(1);
        placed(&mut state, 0, 0, 0);
        placed(&mut state, 0, 40, 40);
        state.end(0, 0);
        assert_eq!(placed(&mut state, 0, 150, 150), (80, 80));
        assert_eq!(placed(&mut state, 0, 190, 190), (120, 120));
    }

    #[test]
    fn an_empty_lap_is_the_end() {
        let mut state = state(1);
        assert_eq!(state.end(0, 0), Lap::Empty);
    }

    #[test]
    fn what_a_standstill_missed_is_not_played_at_once() {
        let mut state = state(1);
        placed(&mut state, 0, 0, 0);
        assert_eq!(state.end(0, 10_000 * MS), Lap::Ended);
        assert_eq!(placed(&mut state, 0, 0, 0), (9_500, 9_500));
    }
}
