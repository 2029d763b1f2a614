//! One track's samples on their way into parts and segments, and the segments that are kept.

use super::fragment;
use super::{Init, Origin, Part, SECOND, Sample, Segment};
use fieldgate_media::TrackKind;
use std::collections::VecDeque;
use std::sync::Arc;

/// Duration of a unit after which none came, while no other is known.
const DEFAULT_DURATION: u32 = 3_000;
/// Sound that pauses for longer begins a new fragment, as a fragment has no gaps.
const PAUSE: i64 = SECOND / 2;

/// How far from a segment's time it is found, ticks: far less than any lasts.
const NEXT_SLACK: u64 = SECOND.unsigned_abs() / 10;

/// Where a segment begins; the same in both lanes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    pub(super) number: u64,
    pub(super) period: u64,
    pub(super) is_discontinuity: bool,
    pub(super) dts: i64,
    pub(super) unix_micros: i64,
    pub(super) origin: Origin,
}

/// The segment that grows.
#[derive(Debug)]
struct Open {
    begin: Begin,
    parts: Vec<Arc<Part>>,
    samples: Vec<Sample>,
    /// Of `samples`, ticks.
    span: i64,
    bytes: u64,
}

/// What stands at a place in a lane.
#[derive(Clone, Debug)]
pub enum Found<T> {
    /// It is there.
    Here(T),
    /// It comes next.
    Soon,
    /// It was there and is no more, or will never be.
    Never,
}

/// One track of a package.
#[derive(Debug)]
pub struct Lane {
    kind: TrackKind,
    init: Arc<Init>,
    segments: VecDeque<Arc<Segment>>,
    open: Option<Open>,
    held: Option<Sample>,
    last_duration: u32,
    fragments: u32,
    /// Longest part, ticks; none: a segment is one part.
    part_target: Option<i64>,
}

impl Lane {
    pub(super) fn new(kind: TrackKind, init: Arc<Init>) -> Self {
        Lane {
            kind,
            init,
            segments: VecDeque::new(),
            open: None,
            held: None,
            last_duration: DEFAULT_DURATION,
            fragments: 0,
            part_target: None,
        }
    }

    /// Picture or sound.
    pub fn kind(&self) -> TrackKind {
        self.kind
    }

    /// The initialisation segment of what comes next.
    pub fn init(&self) -> &Arc<Init> {
        &self.init
    }

    /// The initialisation segment of that number, as long as a segment needs it.
    pub fn init_numbered(&self, number: u32) -> Option<Arc<Init>> {
        let kept = self.segments.iter().map(|segment| &segment.init);
        kept.chain([&self.init]).find(|init| init.number == number).cloned()
    }

    /// The whole segments that are kept, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> + Clone {
        self.segments.iter()
    }

    /// Number and finished parts of the segment that grows.
    pub fn growing(&self) -> Option<(u64, &[Arc<Part>])> {
        self.open.as_ref().map(|open| (open.begin.number, open.parts.as_slice()))
    }

    /// When the segment that grows was captured, and whether it follows a discontinuity.
    pub(super) fn growing_since(&self) -> Option<Begin> {
        self.open.as_ref().map(|open| open.begin)
    }

    /// The segment of that number.
    pub fn segment(&self, number: u64) -> Found<Arc<Segment>> {
        let next = self.growing().map(|(number, _)| number);
        match self.segments.iter().rev().find(|segment| segment.number == number) {
            Some(segment) => Found::Here(segment.clone()),
            None if next == Some(number) => Found::Soon,
            None => Found::Never,
        }
    }

    /// The segment that is shown from that time on (DASH's `$Time$`). Players may ask for the next before its time is told:
    /// at the end of the one before, which is where it begins but for rounding.
    pub fn segment_at(&self, shown: i64) -> Found<Arc<Segment>> {
        let begins = |segment: &&Arc<Segment>| segment.shown.abs_diff(shown) <= NEXT_SLACK;
        let nearest = self.segments.iter().filter(begins).min_by_key(|one| one.shown.abs_diff(shown));
        let end = self.segments.back().map(|last| last.shown.saturating_add(last.duration));
        match nearest {
            Some(segment) => Found::Here(segment.clone()),
            None if end.is_some_and(|end| end.abs_diff(shown) <= NEXT_SLACK) => Found::Soon,
            None => Found::Never,
        }
    }

    /// That part of the segment of that number.
    pub fn part(&self, number: u64, part: usize) -> Found<Arc<Part>> {
        let next_segment = self.growing();
        let parts = match next_segment {
            Some((growing, parts)) if growing == number => parts,
            // The first part of the segment after it may be waited for as well.
            Some((growing, _)) if growing.checked_add(1) == Some(number) && part == 0 => return Found::Soon,
            _ => match self.segments.iter().rev().find(|segment| segment.number == number) {
                Some(segment) => {
                    return segment.parts.get(part).cloned().map_or(Found::Never, Found::Here);
                }
                None => return Found::Never,
            },
        };
        match parts.get(part) {
            Some(part) => Found::Here(part.clone()),
            None if part == parts.len() => Found::Soon,
            None => Found::Never,
        }
    }

    /// Whether the lane holds that segment, or that part of it, or something after it.
    pub fn reaches(&self, number: u64, part: Option<usize>) -> bool {
        let newest = self.segments.back().map(|segment| segment.number);
        if newest.is_some_and(|newest| newest >= number) {
            return true;
        }
        match (self.growing(), part) {
            (Some((growing, parts)), Some(part)) => {
                growing > number || growing == number && parts.len() > part
            }
            _ => false,
        }
    }

    pub(super) fn set_part_target(&mut self, ticks: Option<i64>) {
        self.part_target = ticks;
    }

    pub(super) fn set_init(&mut self, init: Arc<Init>) {
        self.init = init;
    }

    pub(super) fn held(&self) -> Option<&Sample> {
        self.held.as_ref()
    }

    pub(super) fn hold(&mut self, sample: Sample) {
        self.held = Some(sample);
    }

    /// Start of the segment that grows, if it has begun.
    pub(super) fn open_start(&self) -> Option<i64> {
        self.open.as_ref().map(|open| open.begin.dts)
    }

    pub(super) fn open_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.bytes)
    }

    pub(super) fn open_has_samples(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.samples.is_empty() || !open.parts.is_empty())
    }

    pub(super) fn last_duration(&self) -> u32 {
        self.last_duration
    }

    /// The held sample with the duration that the time of its follower gives it.
    pub(super) fn settle(&mut self, next_dts: i64) -> Option<Sample> {
        let mut held = self.held.take()?;
        held.duration = u32::try_from(next_dts.saturating_sub(held.dts)).unwrap_or(0);
        Some(held)
    }

    /// The held sample, if nothing follows it: as long as the one before.
    pub(super) fn settle_last(&mut self) -> Option<Sample> {
        let mut held = self.held.take()?;
        held.duration = self.last_duration;
        Some(held)
    }

    /// Adds a sample to the segment that grows; without one it is left out.
    pub(super) fn add(&mut self, mut sample: Sample) {
        let paused = i64::from(sample.duration) > PAUSE && self.kind == TrackKind::Audio;
        if paused {
            sample.duration = self.last_duration;
        }
        self.last_duration = sample.duration;
        let (target, duration) = (self.part_target, i64::from(sample.duration));
        let Some(open) = &mut self.open else { return };
        let is_over = |span: i64| target.is_some_and(|target| span.saturating_add(duration) > target);
        if !open.samples.is_empty() && is_over(open.span) {
            self.close_part();
        }
        let Some(open) = &mut self.open else { return };
        open.bytes = open.bytes.saturating_add(sample.payload.len() as u64);
        open.span = open.span.saturating_add(duration);
        open.samples.push(sample);
        if paused || is_over(open.span) {
            self.close_part();
        }
    }

    fn close_part(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| !open.samples.is_empty()) else { return };
        self.fragments = self.fragments.wrapping_add(1);
        let samples = std::mem::take(&mut open.samples);
        let head = fragment::head(self.kind, self.fragments, &samples);
        let payload =
            samples.iter().fold(0_u64, |sum, sample| sum.saturating_add(sample.payload.len() as u64));
        open.parts.push(Arc::new(Part {
            bytes: payload.saturating_add(head.len() as u64),
            independent: samples.first().is_some_and(|sample| sample.keyframe),
            duration: std::mem::take(&mut open.span),
            head,
            samples,
        }));
    }

    /// Ends the segment that grows and begins the next. A segment without samples lasts until the next begins.
    pub(super) fn begin(&mut self, begin: Begin) {
        self.close(begin.dts);
        self.open = Some(Open { begin, parts: Vec::new(), samples: Vec::new(), span: 0, bytes: 0 });
    }

    /// Ends the segment that grows.
    pub(super) fn close(&mut self, end: i64) {
        self.close_part();
        let Some(open) = self.open.take() else { return };
        let first = open.parts.first().and_then(|part| part.samples.first());
        let last = open.parts.last().and_then(|part| part.samples.last());
        let start = first.map_or(open.begin.dts, |first| first.dts);
        let end = last.map_or(end, |last| last.dts.saturating_add(i64::from(last.duration)));
        let samples = open.parts.iter().flat_map(|part| &part.samples);
        let shown = samples.map(|sample| sample.dts.saturating_add(i64::from(sample.offset))).min();
        let late = start.saturating_sub(open.begin.dts).saturating_mul(100) / 9;
        self.segments.push_back(Arc::new(Segment {
            number: open.begin.number,
            period: open.begin.period,
            is_discontinuity: open.begin.is_discontinuity,
            origin: open.begin.origin,
            unix_micros: open.begin.unix_micros.saturating_add(late),
            start,
            shown: shown.unwrap_or(start),
            duration: end.saturating_sub(start).max(0),
            bytes: open.parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.bytes)),
            independent: open.parts.first().is_none_or(|part| part.independent),
            parts: open.parts,
            init: self.init.clone(),
        }));
    }

    /// Lets go of the segments before that number.
    pub(super) fn evict_before(&mut self, number: u64) {
        while self.segments.front().is_some_and(|segment| segment.number < number) {
            self.segments.pop_front();
        }
    }

    /// Bytes of all that is kept.
    pub(super) fn bytes(&self) -> u64 {
        let whole = self.segments.iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.bytes));
        whole.saturating_add(self.open_bytes())
    }
}
