//! Cuts a stream into segments: where they begin, how they are numbered, how long they are kept.
//!
//! Pictures lead: a segment begins at a keyframe, and sound is cut where the pictures are. Sound alone leads itself. What
//! leads is always a little ahead, as sound waits until the pictures have reached its time.

use super::lane::{Begin, Lane};
use super::wall_clock::WallClock;
use super::{Found, Init, Origin, SECOND, Sample, Segment, Settings, codec, init};
use bytes::Bytes;
use fieldgate_media::{ClockSource, Track, TrackKind, Tracks, Unit};
use std::collections::VecDeque;
use std::sync::Arc;

/// Sound that lags more than this is waited for no longer: its segments stay empty.
const PATIENCE: i64 = SECOND.saturating_mul(2);
/// Units of sound that wait for pictures at most.
const WAITING_MAX: usize = 512;
/// How far a wall clock may stray from the stream's before it is believed again, microseconds.
const ARRIVAL_SLACK: u64 = 500_000;
const CAMERA_SLACK: u64 = 50_000;
/// The first segment decides how long one may be; it may be this long.
const FIRST_MAX: i64 = SECOND.saturating_mul(10);
/// What a segment may exceed the target duration by: players round, and sound is cut a little later.
const OVER_TARGET: i64 = SECOND.saturating_mul(2).saturating_div(5);
/// Bytes that a segment's growth may take of all that may be kept: one of so many.
const GROWTH_SHARE: u64 = 3;
/// Playlists name at least so many segments, however short the window is.
const LISTED_MIN: usize = 3;
/// Segments without anything of a track, after which it counts as silent.
const SILENT_MAX: usize = 2;
/// Times of sources by RTMP are milliseconds: parts last that much longer than planned.
const PART_JITTER: i64 = 180;

/// A stream in segments.
#[derive(Debug)]
pub struct Package {
    settings: Settings,
    /// What is cut now.
    video_track: Option<Track>,
    audio_track: Option<Track>,
    video: Option<Lane>,
    audio: Option<Lane>,
    /// Sound ahead of the pictures.
    waiting: VecDeque<Sample>,
    /// Beginnings that sound has not reached.
    boundaries: VecDeque<Begin>,
    next_number: u64,
    period: u64,
    begins_period: bool,
    inits: u32,
    target_secs: Option<u32>,
    /// Duration of the first whole segment, ticks.
    nominal: Option<i64>,
    part_target: Option<i64>,
    wall_clock: WallClock,
    /// Where the first period began, and the present one.
    origins: Option<(Origin, Origin)>,
    /// Time of the newest unit that leads.
    newest: i64,
    listed_from: u64,
    has_ended: bool,
    version: u64,
    unsupported: Option<&'static str>,
    left_out: u64,
}

impl Package {
    /// A package of a stream that is still to come.
    pub fn new(settings: Settings) -> Self {
        Package {
            video_track: None,
            audio_track: None,
            video: None,
            audio: None,
            waiting: VecDeque::new(),
            boundaries: VecDeque::new(),
            next_number: settings.first_number,
            period: 0,
            begins_period: false,
            inits: 0,
            target_secs: None,
            nominal: None,
            part_target: None,
            wall_clock: WallClock::default(),
            origins: None,
            newest: 0,
            listed_from: settings.first_number,
            has_ended: false,
            version: 0,
            unsupported: None,
            left_out: 0,
            settings,
        }
    }

    /// The stream consists of these tracks from here on. Of each kind the first is cut that files can carry.
    pub fn on_tracks(&mut self, tracks: &Tracks) {
        let fitting = |kind| {
            tracks.iter().find(|track| track.kind() == kind && codec::codec_string(track).is_some()).cloned()
        };
        let (video, audio) = (fitting(TrackKind::Video), fitting(TrackKind::Audio));
        let unfit = tracks.iter().find(|track| codec::codec_string(track).is_none());
        self.unsupported = unfit.map(|track| track.codec.name());
        let same = |old: &Option<Track>, new: &Option<Track>| match (old, new) {
            (Some(old), Some(new)) => old.same_media(new),
            (None, None) => true,
            _ => false,
        };
        if same(&self.video_track, &video) && same(&self.audio_track, &audio) {
            return;
        }
        let is_fresh = self.lanes().all(|lane| lane.segments().next().is_none());
        if is_fresh {
            // Headers come one after the other: what has begun between them is no period of its own.
            self.next_number = self.settings.first_number;
            self.period = 0;
            self.begins_period = false;
            (self.video, self.audio) = (None, None);
            self.waiting.clear();
            self.boundaries.clear();
        } else {
            self.interrupt();
        }
        for (track, lane) in [(&video, &mut self.video), (&audio, &mut self.audio)] {
            let Some(track) = track else { continue };
            if lane.as_ref().is_some_and(|lane| lane.init().track.same_media(track)) {
                continue;
            }
            self.inits = self.inits.saturating_add(1);
            let init = Arc::new(Init {
                number: self.inits,
                codecs: codec::codec_string(track).unwrap_or_default(),
                file: Bytes::from(init::write(track)),
                track: track.clone(),
            });
            match lane {
                Some(lane) => lane.set_init(init),
                None => *lane = Some(Lane::new(track.kind(), init)),
            }
        }
        (self.video_track, self.audio_track) = (video, audio);
        self.set_part_targets();
        self.version = self.version.saturating_add(1);
    }

    /// What comes next does not follow what came before: another source feeds the stream, or units were lost.
    pub fn interrupt(&mut self) {
        self.finish();
        self.begins_period = self.begins_period || self.lanes().any(|lane| lane.segments().next().is_some());
        self.wall_clock = WallClock::default();
        self.evict();
        self.version = self.version.saturating_add(1);
    }

    /// The stream is over.
    pub fn end(&mut self) {
        if !self.has_ended {
            self.finish();
            self.evict();
            self.has_ended = true;
            self.version = self.version.saturating_add(1);
        }
    }

    /// Takes the next unit. `now_unix_micros` counts where the unit does not say when it was captured.
    pub fn on_unit(&mut self, unit: &Unit, now_unix_micros: i64) {
        let is = |track: &Option<Track>| track.as_ref().is_some_and(|track| track.id == unit.head.track);
        let (is_video, is_audio) = (is(&self.video_track), is(&self.audio_track));
        if self.has_ended || !(is_video || is_audio) {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let delay = unit.head.pts.get().saturating_sub(unit.head.dts.get());
        let sample = Sample {
            payload: unit.payload.clone(),
            dts: unit.head.dts.get(),
            offset: u32::try_from(delay).unwrap_or(0),
            duration: 0,
            keyframe: unit.head.keyframe,
        };
        let before = self.marks();
        if is_video || self.video_track.is_none() {
            let slack = match unit.head.captured.map(|captured| captured.by) {
                Some(ClockSource::Camera) => CAMERA_SLACK,
                _ => ARRIVAL_SLACK,
            };
            let captured = unit.head.captured.map_or(now_unix_micros, |captured| captured.unix_micros);
            // Players go by the gateway's clock, whatever that of the camera says.
            let arrived = if slack == ARRIVAL_SLACK { captured } else { now_unix_micros };
            self.on_lead(sample, captured, slack, arrived);
        } else {
            self.waiting.push_back(sample);
        }
        self.catch_up();
        if self.marks() != before {
            self.evict();
            self.version = self.version.saturating_add(1);
        }
    }

    /// Changes whenever there is something new to tell.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The lane of that kind, if the stream has or had such a track.
    pub fn lane(&self, kind: TrackKind) -> Option<&Lane> {
        match kind {
            TrackKind::Video => self.video.as_ref(),
            TrackKind::Audio => self.audio.as_ref(),
        }
    }

    /// The lanes that there are, pictures first.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.video.iter().chain(&self.audio)
    }

    /// The lane that leads.
    pub fn lead(&self) -> Option<&Lane> {
        if self.video_track.is_some() {
            self.video.as_ref()
        } else {
            self.audio.as_ref().or(self.video.as_ref())
        }
    }

    /// The segments of a lane that playlists name.
    pub fn listed<'a>(
        &self,
        lane: &'a Lane,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Segment>> + Clone + use<'a> {
        let from = self.listed_from;
        lane.segments().filter(move |segment| segment.number >= from)
    }

    /// How long all segments last that playlists name, ticks.
    pub fn listed_span(&self) -> i64 {
        let listed = self.lead().into_iter().flat_map(|lead| self.listed(lead));
        listed.fold(0, |sum, segment| sum.saturating_add(segment.duration))
    }

    /// Pixels across and down of its pictures, where they are known.
    pub fn shape(&self) -> Option<(u32, u32)> {
        let shape = self.video.as_ref().map(|video| video.init().track.video)?;
        (shape.width > 0 && shape.height > 0).then_some((shape.width, shape.height))
    }

    /// Playlists do not name the first segments any more.
    pub fn has_evicted(&self) -> bool {
        self.listed_from > self.settings.first_number
    }

    /// How long segments last, ticks, if all that are listed begin where this says, counted from their period's first.
    pub fn regular(&self) -> Option<i64> {
        let nominal = self.nominal?;
        let fits = |segment: &Arc<Segment>| {
            let count = segment.number.checked_sub(segment.origin.number).and_then(|n| i64::try_from(n).ok());
            let planned = count.map(|n| n.saturating_mul(nominal).saturating_add(segment.origin.start));
            planned.is_some_and(|planned| planned.abs_diff(segment.start) < nominal.unsigned_abs() / 4)
        };
        self.lanes().all(|lane| self.listed(lane).all(fits)).then_some(nominal)
    }

    /// When the first period began, microseconds since 1970 UTC; none: nothing has.
    pub fn began(&self) -> Option<i64> {
        self.origins.map(|(first, _)| first.unix_micros)
    }

    /// Pictures and sound of one number together, once both are whole.
    pub fn together(&self, number: u64) -> Found<[Option<Arc<Segment>>; 2]> {
        if let Some(Found::Soon | Found::Never) = self.lead().map(|lead| lead.segment(number)) {
            let is_next = self.lead().and_then(Lane::growing).is_some_and(|(growing, _)| growing == number);
            return if is_next { Found::Soon } else { Found::Never };
        }
        let mut found = [None, None];
        for (place, lane) in found.iter_mut().zip([&self.video, &self.audio]) {
            let Some(lane) = lane else { continue };
            match lane.segment(number) {
                Found::Here(segment) => *place = Some(segment),
                Found::Soon => return Found::Soon,
                // Sound that has not even begun with it.
                Found::Never if lane.growing().is_some_and(|(growing, _)| growing < number) => {
                    return Found::Soon;
                }
                Found::Never => {}
            }
        }
        if found.iter().all(Option::is_none) { Found::Never } else { Found::Here(found) }
    }

    /// Each track has a whole segment, so that players can begin.
    pub fn is_ready(&self) -> bool {
        let has_segments = self.lanes().all(|lane| lane.segments().next().is_some());
        let mut listed = self.lead().into_iter().flat_map(|lead| self.listed(lead));
        has_segments && listed.any(|segment| self.is_whole(segment.period))
    }

    /// All that players need to know of this period is known: each track that is cut now has something in it, or has been
    /// silent for a while.
    pub fn is_whole(&self, period: u64) -> bool {
        let is_of = |segment: &&Arc<Segment>| segment.period == period;
        let is_told = |lane: &Lane| lane.segments().filter(is_of).any(|segment| !segment.parts.is_empty());
        self.has_ended
            || period < self.period
            || self.lead().is_some_and(|lead| lead.segments().filter(is_of).count() > SILENT_MAX)
            || self.lanes().all(|lane| !self.is_cut(lane.kind()) || is_told(lane))
    }

    fn is_cut(&self, kind: TrackKind) -> bool {
        match kind {
            TrackKind::Video => self.video_track.is_some(),
            TrackKind::Audio => self.audio_track.is_some(),
        }
    }

    /// What no rounded duration of a segment exceeds, seconds. Never changes once there is a segment.
    pub fn target_secs(&self) -> u32 {
        self.target_secs.unwrap_or(1)
    }

    /// The longest duration of a part, ticks; none: there are no parts.
    pub fn part_target(&self) -> Option<i64> {
        self.part_target
    }

    /// What playlists shall name, ticks.
    pub fn window(&self) -> i64 {
        self.settings.window
    }

    /// The number of the segment that begins next.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The stream is over; nothing comes any more.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// A codec of the stream that files cannot carry.
    pub fn unsupported(&self) -> Option<&'static str> {
        self.unsupported
    }

    /// Units that were left out: before the first keyframe, of other tracks, too late.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Bytes of payloads and heads that are kept.
    pub fn bytes(&self) -> u64 {
        self.lanes().fold(0, |sum, lane| sum.saturating_add(lane.bytes()))
    }

    /// What has to differ for players to see something new.
    fn marks(&self) -> (u64, usize, usize) {
        let parts = |lane: &Option<Lane>| {
            lane.as_ref().and_then(Lane::growing).map_or(0, |(number, parts)| {
                parts.len().saturating_add(usize::try_from(number).unwrap_or(0).saturating_mul(1 << 16))
            })
        };
        (self.next_number, parts(&self.video), parts(&self.audio))
    }

    fn lead_mut(&mut self) -> Option<&mut Lane> {
        if self.video_track.is_some() { self.video.as_mut() } else { self.audio.as_mut() }
    }

    /// The longest that a segment may become, ticks.
    fn longest(&self) -> i64 {
        match self.target_secs {
            Some(secs) => i64::from(secs).saturating_mul(SECOND).saturating_add(OVER_TARGET),
            None => self.settings.segment.saturating_mul(3).max(FIRST_MAX),
        }
    }

    fn on_lead(&mut self, sample: Sample, captured: i64, slack: u64, arrived: i64) {
        self.newest = sample.dts;
        let longest = self.longest();
        let most_bytes = self.settings.max_bytes.checked_div(GROWTH_SHARE).unwrap_or(0);
        let held_at = self.lead().and_then(Lane::held).map(|held| held.dts);
        if held_at.is_some_and(|held_at| sample.dts.saturating_sub(held_at) > longest) {
            self.interrupt();
        }
        let Some(lead) = self.lead_mut() else { return };
        let settled = lead.settle(sample.dts);
        let (start, has_samples, bytes) = (lead.open_start(), lead.open_has_samples(), lead.open_bytes());
        if let Some(settled) = settled {
            self.plan_parts(settled.duration);
            let is_long = start.is_some_and(|start| sample.dts.saturating_sub(start) > longest);
            if has_samples && (is_long || bytes > most_bytes) {
                let at = self.wall_clock.at(settled.dts);
                self.begin(settled.dts, at, arrived);
            }
            if let Some(lead) = self.lead_mut() {
                lead.add(settled);
            }
        }
        let shortest = self.settings.segment.saturating_sub(self.settings.segment.saturating_div(10));
        match self.lead().and_then(Lane::open_start) {
            None if !sample.keyframe => {
                self.left_out = self.left_out.saturating_add(1);
                return;
            }
            Some(start) if !sample.keyframe || sample.dts.saturating_sub(start) < shortest => {}
            _ => {
                self.wall_clock.tell(sample.dts, captured, slack);
                let at = self.wall_clock.at(sample.dts);
                self.begin(sample.dts, at, arrived);
            }
        }
        if let Some(lead) = self.lead_mut() {
            lead.hold(sample);
        }
    }

    /// A new segment begins in all lanes; in that of sound when it is reached.
    fn begin(&mut self, dts: i64, unix_micros: i64, arrived: i64) {
        let is_discontinuity = std::mem::take(&mut self.begins_period);
        let origin = self.origin(dts, arrived, is_discontinuity);
        self.period = self.period.saturating_add(u64::from(is_discontinuity));
        let number = self.next_number;
        let begin = Begin { number, period: self.period, is_discontinuity, dts, unix_micros, origin };
        self.next_number = number.saturating_add(1);
        let (has_video, has_audio) = (self.video_track.is_some(), self.audio_track.is_some());
        if let Some(video) = &mut self.video {
            video.begin(begin);
        }
        match &mut self.audio {
            Some(_) if has_audio && has_video => self.boundaries.push_back(begin),
            Some(audio) => audio.begin(begin),
            None => {}
        }
        self.set_target();
    }

    fn origin(&mut self, dts: i64, arrived: i64, begins: bool) -> Origin {
        let is_fresh = self.lanes().all(|lane| lane.segments().next().is_none() && lane.growing().is_none());
        let here = Origin { number: self.next_number, start: dts, unix_micros: arrived };
        let (first, present) = match self.origins.filter(|_| !is_fresh) {
            None => (here, here),
            Some((first, before)) if begins => {
                let end = self.lead().and_then(|lead| lead.segments().next_back()).map_or(0, |last| {
                    let span = last.start.saturating_add(last.duration).saturating_sub(before.start);
                    before.unix_micros.saturating_add(span.saturating_mul(100).saturating_div(9))
                });
                (first, Origin { unix_micros: arrived.max(end), ..here })
            }
            Some(known) => known,
        };
        self.origins = Some((first, present));
        present
    }

    /// The first whole segment decides on the target duration. RFC 8216 6.2.1: it must not change.
    fn set_target(&mut self) {
        let first = self.lead().and_then(|lead| lead.segments().next_back());
        if let (Some(first), None) = (first, self.target_secs) {
            let longest = first.duration.max(self.settings.segment).saturating_sub(SECOND.saturating_div(10));
            let secs = longest.saturating_add(SECOND.saturating_sub(1)).saturating_div(SECOND).max(1);
            self.nominal = Some(first.duration).filter(|duration| *duration > 0);
            self.target_secs = Some(u32::try_from(secs).unwrap_or(u32::MAX));
        }
    }

    /// The first unit's duration decides on that of parts: a whole number of units, so that all parts but a segment's last
    /// are almost as long as it says.
    fn plan_parts(&mut self, duration: u32) {
        let Some(wanted) = self.settings.part.filter(|_| self.part_target.is_none() && duration > 0) else {
            return;
        };
        let duration = i64::from(duration);
        let units = wanted.checked_div(duration).unwrap_or(1).max(1);
        self.part_target = Some(units.saturating_mul(duration).saturating_add(PART_JITTER));
        self.set_part_targets();
    }

    fn set_part_targets(&mut self) {
        for lane in self.video.iter_mut().chain(&mut self.audio) {
            lane.set_part_target(self.part_target);
        }
    }

    /// Sound follows as far as the pictures are.
    fn catch_up(&mut self) {
        while let Some(first) = self.waiting.front()
            && (first.dts <= self.newest || self.waiting.len() > WAITING_MAX)
        {
            if let Some(sample) = self.waiting.pop_front() {
                self.follow(sample);
            }
        }
        self.go_on_without(self.newest.saturating_sub(PATIENCE));
    }

    /// The next unit of sound behind the pictures.
    fn follow(&mut self, sample: Sample) {
        let Some(audio) = &mut self.audio else { return };
        if let Some(settled) = audio.settle(sample.dts) {
            audio.add(settled);
        }
        while let Some(begin) = self.boundaries.front().filter(|begin| begin.dts <= sample.dts) {
            audio.begin(*begin);
            self.boundaries.pop_front();
        }
        if audio.open_start().is_some_and(|start| sample.dts >= start) {
            audio.hold(sample);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// Segments that sound should have reached long ago end as they are.
    fn go_on_without(&mut self, until: i64) {
        let Some(audio) = &mut self.audio else { return };
        while let Some(begin) = self.boundaries.front().filter(|begin| begin.dts <= until) {
            if let Some(settled) = audio.settle_last() {
                audio.add(settled);
            }
            audio.begin(*begin);
            self.boundaries.pop_front();
        }
    }

    /// All that is under way becomes whole segments.
    fn finish(&mut self) {
        let is_sound_alone = self.video_track.is_none();
        let end = self.newest.saturating_add(self.lead().map_or(0, |lead| i64::from(lead.last_duration())));
        if !is_sound_alone {
            while let Some(sample) = self.waiting.pop_front().filter(|sample| sample.dts < end) {
                self.follow(sample);
            }
            self.go_on_without(i64::MAX);
        }
        for lane in self.video.iter_mut().chain(&mut self.audio) {
            if let Some(settled) = lane.settle_last() {
                lane.add(settled);
            }
            lane.close(end);
        }
        self.waiting.clear();
        self.boundaries.clear();
        self.set_target();
    }

    fn evict(&mut self) {
        let Some(lead) = self.lead() else { return };
        let (mut listed, mut span) = (0_usize, 0_i64);
        let (mut listed_from, mut kept_from) = (self.listed_from, 0);
        for segment in lead.segments().rev() {
            if listed < LISTED_MIN || span < self.settings.window {
                listed_from = segment.number;
            } else if span >= self.settings.window.saturating_mul(2) {
                kept_from = segment.number.saturating_add(1);
                break;
            }
            listed = listed.saturating_add(1);
            span = span.saturating_add(segment.duration);
        }
        self.listed_from = listed_from.max(self.listed_from);
        self.evict_before(kept_from);
        while self.bytes() > self.settings.max_bytes {
            let second = self.lead().and_then(|lead| lead.segments().nth(1)).map(|segment| segment.number);
            // The newest stays, whatever it takes.
            let Some(second) = second else { return };
            self.listed_from = self.listed_from.max(second);
            self.evict_before(second);
        }
    }

    fn evict_before(&mut self, number: u64) {
        for lane in self.video.iter_mut().chain(&mut self.audio) {
            lane.evict_before(number);
        }
    }
}
