//! From the appsinks of one pipeline, or a session of our own, to the link: tracks first, then units, in order.
//!
//! Units that come before all expected tracks are known wait for a moment, so that the first tracks frame is complete
//! and the first keyframe is not lost.

use crate::outlet::{Outlet, Payload};
use crate::timeline::{DecodeTimes, Timeline};
use crate::track;
use fieldgate_media::{Captured, ClockSource, Track, TrackId, Tracks, UnitHead};
use gst::prelude::*;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// How long a stream waits for a track that was promised.
const WAIT_FOR_TRACKS_NS: i64 = 1_000_000_000;
const WAITING_MAX: usize = 256;
/// Of a camera's pictures so many, or so much time, are looked at before the first is placed.
const HELD_UNITS: usize = 8;
const HELD_NS: i64 = 250_000_000;
/// 1900 to 1970.
const NTP_TO_UNIX_MICROS: i64 = 2_208_988_800 * 1_000_000;

/// One stream towards the gateway. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stream(Arc<Shared>);

struct Shared {
    outlet: Outlet,
    state: Mutex<State>,
}

struct State {
    expected: Vec<TrackId>,
    tracks: Tracks,
    announced: bool,
    waiting: VecDeque<Waiting>,
    first_ns: Option<i64>,
}

type Waiting = (UnitHead, Payload);

impl Stream {
    pub(crate) fn new(outlet: Outlet) -> Stream {
        let state = State {
            expected: Vec::new(),
            tracks: Tracks::default(),
            announced: false,
            waiting: VecDeque::new(),
            first_ns: None,
        };
        Stream(Arc::new(Shared { outlet, state: Mutex::new(state) }))
    }

    /// Promises a track: the first announcement waits for it.
    pub(crate) fn expect(&self, id: TrackId) {
        self.with(|state| state.expected.push(id));
    }

    /// Sends what arrives at `sink` as the units of track `id`.
    pub(crate) fn attach(&self, sink: &gst_app::AppSink, id: TrackId, times: DecodeTimes) {
        let stream = self.clone();
        let (mut feed, mut caps) = (Feed::new(id, times), None);
        let new_sample = move |sink: &gst_app::AppSink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            // A panic must not unwind into C code. Whatever broke is ours: end the stream, the gateway starts anew.
            let taken = catch_unwind(AssertUnwindSafe(|| stream.sample(&mut feed, &mut caps, sink, sample)));
            taken.map_err(|_| gst::FlowError::Error)?;
            if stream.0.outlet.is_closed() { Err(gst::FlowError::Eos) } else { Ok(gst::FlowSuccess::Ok) }
        };
        sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(new_sample).build());
    }

    fn sample(
        &self,
        feed: &mut Feed,
        caps: &mut Option<gst::Caps>,
        sink: &gst_app::AppSink,
        mut sample: gst::Sample,
    ) {
        let outlet = &self.0.outlet;
        let new_caps = sample.caps_owned();
        if new_caps != *caps {
            *caps = new_caps;
            if let Some(track) = caps.as_ref().and_then(|caps| track::from_caps(feed.id, caps)) {
                self.describe(track);
            }
        }
        let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::ClockTime>()).cloned();
        // Taken out of the sample, so that this is the only reference and mapping it copies nothing.
        let buffer = sample.buffer_owned();
        if let Some(sample) = sample.get_mut() {
            sample.set_buffer(None);
        }
        let (Some(buffer), Some(segment)) = (buffer, segment) else { return outlet.count_unusable() };
        let running = |time: Option<gst::ClockTime>| {
            time.and_then(|time| segment.to_running_time_full(time)).map(signed_nanos)
        };
        let (pts, dts) = (running(buffer.pts()), running(buffer.dts()));
        let captured = captured(&buffer, sink, pts.or(dts).filter(|_| feed.times == DecodeTimes::Given));
        let parser_says_keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let Ok(payload) = buffer.into_mapped_buffer_readable() else { return outlet.count_unusable() };
        let payload = Payload::Mapped(payload);
        let wants_keyframe = self.take(feed, Timed { pts, dts, captured, parser_says_keyframe, payload });
        if wants_keyframe {
            ask_for_keyframe(sink);
        }
    }

    /// A track's codec and shape, from here on.
    pub(crate) fn describe(&self, track: Track) {
        self.with(|state| {
            if state.tracks.get(track.id) == Some(&track) {
                return;
            }
            state.tracks = state.tracks.with(track);
            if state.announced {
                self.0.outlet.tracks(&state.tracks);
            } else if state.is_complete() {
                state.announce(&self.0.outlet);
            }
        });
    }

    /// Places a unit of the feed's track and sends it; `true` when one was dropped and a keyframe would help.
    pub(crate) fn take(&self, feed: &mut Feed, timed: Timed) -> bool {
        let Some(held) = &mut feed.held else { return self.forward(feed, timed) };
        held.push(timed);
        let times: Vec<i64> = held.iter().filter_map(|timed| timed.pts).collect();
        let span = times.iter().max().zip(times.iter().min()).map_or(0, |(max, min)| max - min);
        if held.len() < HELD_UNITS && span < HELD_NS {
            return false;
        }
        feed.timeline.learn(&times);
        let held = feed.held.take().unwrap_or_default();
        let mut wants_keyframe = false;
        for timed in held {
            wants_keyframe |= self.forward(feed, timed);
        }
        wants_keyframe
    }

    fn forward(&self, feed: &mut Feed, timed: Timed) -> bool {
        let outlet = &self.0.outlet;
        let Timed { pts, dts, captured, parser_says_keyframe, payload } = timed;
        let Some(placed) = feed.timeline.place(pts, dts) else {
            outlet.count_unusable();
            return false;
        };
        self.with(|state| {
            let Some(codec) = state.tracks.get(feed.id).map(|track| track.codec) else {
                outlet.count_unusable();
                return false;
            };
            let head = UnitHead {
                track: feed.id,
                dts: placed.dts,
                pts: placed.pts,
                source_dts: placed.source_dts,
                source_pts: placed.pts,
                keyframe: track::is_keyframe(codec, parser_says_keyframe, payload.as_ref()),
                captured,
            };
            let now_ns = pts.or(dts).unwrap_or(0);
            let first_ns = *state.first_ns.get_or_insert(now_ns);
            if !state.announced {
                let late = now_ns.saturating_sub(first_ns) > WAIT_FOR_TRACKS_NS;
                if !state.is_complete() && !late && state.waiting.len() < WAITING_MAX {
                    state.waiting.push_back((head, payload));
                    return false;
                }
                state.announce(outlet);
            }
            !outlet.unit(&head, payload) && !head.keyframe
        })
    }

    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn is_complete(&self) -> bool {
        self.expected.iter().all(|id| self.tracks.get(*id).is_some())
    }

    fn announce(&mut self, outlet: &Outlet) {
        self.announced = true;
        outlet.tracks(&self.tracks);
        for (head, payload) in self.waiting.drain(..) {
            outlet.unit(&head, payload);
        }
    }
}

/// What is remembered of one track's source.
pub(crate) struct Feed {
    id: TrackId,
    times: DecodeTimes,
    timeline: Timeline,
    /// The first units, until their order has shown how decode times are to be made.
    held: Option<Vec<Timed>>,
}

impl Feed {
    pub(crate) fn new(id: TrackId, times: DecodeTimes) -> Feed {
        // Sound is never reordered.
        let learning = times == DecodeTimes::Made && id == TrackId::VIDEO;
        Feed { id, times, timeline: Timeline::new(times), held: learning.then(Vec::new) }
    }

    pub(crate) fn id(&self) -> TrackId {
        self.id
    }
}

/// A unit with its running times in nanoseconds.
pub(crate) struct Timed {
    pub(crate) pts: Option<i64>,
    pub(crate) dts: Option<i64>,
    pub(crate) captured: Option<Captured>,
    pub(crate) parser_says_keyframe: bool,
    pub(crate) payload: Payload,
}

fn signed_nanos(time: gst::Signed<gst::ClockTime>) -> i64 {
    let nanos = |time: gst::ClockTime| i64::try_from(time.nseconds()).unwrap_or(i64::MAX);
    match time {
        gst::Signed::Positive(time) => nanos(time),
        gst::Signed::Negative(time) => -nanos(time),
    }
}

/// The wall clock at capture: as the camera said it, else now minus the age of the buffer. Without a running time
/// (network cameras: theirs follow another clock, which drifts from ours) it is the time of arrival.
fn captured(buffer: &gst::BufferRef, sink: &gst_app::AppSink, running_ns: Option<i64>) -> Option<Captured> {
    for meta in buffer.iter_meta::<gst::ReferenceTimestampMeta>() {
        if meta.reference().structure(0).is_some_and(|s| s.name() == "timestamp/x-ntp") {
            let micros = i64::try_from(meta.timestamp().useconds()).ok()?;
            return Some(Captured { unix_micros: micros - NTP_TO_UNIX_MICROS, by: ClockSource::Camera });
        }
    }
    let now_ns = sink.current_running_time().and_then(|now| i64::try_from(now.nseconds()).ok());
    let age_ns = now_ns.zip(running_ns).map_or(0, |(now, then)| now.saturating_sub(then).max(0));
    Some(Captured { unix_micros: gst::glib::real_time() - age_ns / 1000, by: ClockSource::Arrival })
}

/// Upstream, to an encoder if there is one; cameras ignore it.
pub(crate) fn ask_for_keyframe(sink: &gst_app::AppSink) {
    let fields = gst::Structure::builder("GstForceKeyUnit").field("all-headers", true).build();
    let _ = sink.send_event(gst::event::CustomUpstream::new(fields));
}
