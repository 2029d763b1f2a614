//! One track of a stream to the packets of a KMP connection. Source: the KMP contract, sections 6 and 13.
//!
//! Two ways of doing it. Strict mode makes what the reference makes, defects included. The default mode reads headers
//! instead of FLV's flags, sends `minf` only when its bytes change, and not before a keyframe.

use super::captions::has_captions;
use super::media_info::{Describe, codec_id};
use super::packet::{DEFAULT_TIMESCALE, FrameHead, MAX_DATA_LEN, MediaInfo, Wire};
use fieldgate_media::{Codec, Ticks, Track, TrackId, TrackKind, Tracks, Unit};
use std::time::Duration;

/// Pictures in which captions are looked for.
const CAPTION_PICTURES: u32 = 10;

/// How a track is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSettings {
    /// As the reference does it, defects included.
    pub strict: bool,
    /// Ticks per second of the packets, from 1000 on (lower ones have no whole tick in a millisecond).
    pub timescale: u32,
    /// How far the time of an AAC frame may be from what the frames before it tell, to be replaced by that.
    pub audio_sync_margin: Duration,
}

impl Default for MapSettings {
    fn default() -> Self {
        MapSettings {
            strict: false,
            timescale: DEFAULT_TIMESCALE,
            audio_sync_margin: Duration::from_millis(2),
        }
    }
}

/// A unit as packets.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// To be sent before the frame.
    pub media_info: Option<Wire>,
    /// The frame; its body is the unit's payload.
    pub frame: Wire,
    /// Its fields.
    pub head: FrameHead,
}

/// Makes the packets of the first video or audio track of a stream.
///
/// Feed it what a ring hands out, in order, from a keyframe on.
#[derive(Debug)]
pub struct TrackMapper {
    kind: TrackKind,
    settings: MapSettings,
    track: Option<Track>,
    /// The pictures were HEVC when this track's header came.
    beside_hevc: bool,
    /// What describes the track now.
    info: Option<MediaInfo>,
    /// What was sent last.
    sent: Option<MediaInfo>,
    /// The reference sends again, whether it differs or not.
    header_came: bool,
    captions: Captions,
    clock: MilliClock,
    /// Samples per second and per frame, for AAC.
    aac: Option<(i64, i64)>,
    smoothing: Option<Smoothing>,
    frames: u64,
    left_out: u64,
}

/// What is known of captions in the pictures.
#[derive(Debug, Default)]
struct Captions {
    searched: u32,
    found: bool,
}

/// 64-bit time out of 32-bit milliseconds, for each track by itself as the reference does it.
#[derive(Debug, Default)]
struct MilliClock {
    last: Option<(u32, i64)>,
}

/// Replaces the millisecond steps of AAC frames by their real length.
#[derive(Debug, Default)]
struct Smoothing {
    base: i64,
    samples: i64,
}

impl TrackMapper {
    /// For the first track of that kind.
    pub fn new(kind: TrackKind, settings: MapSettings) -> Self {
        TrackMapper {
            kind,
            settings,
            track: None,
            beside_hevc: false,
            info: None,
            sent: None,
            header_came: false,
            captions: Captions::default(),
            clock: MilliClock::default(),
            aac: None,
            smoothing: None,
            frames: 0,
            left_out: 0,
        }
    }

    /// Takes the stream's tracks; `header_of` is the track whose codec header brought them.
    pub fn tracks(&mut self, tracks: &Tracks, header_of: Option<TrackId>) {
        let Some(track) = tracks.first(self.kind) else { return };
        if header_of == Some(track.id) || self.track.is_none() {
            let pictures = tracks.first(TrackKind::Video);
            self.beside_hevc = pictures.is_some_and(|pictures| pictures.codec == Codec::Hevc);
        }
        if header_of == Some(track.id) || self.track.as_ref() != Some(track) {
            self.header_came |= header_of == Some(track.id);
            self.track = Some(track.clone());
            self.describe();
        }
    }

    /// Maps a unit. `unix_micros` is the wall clock, for units that nobody marked with the time of their capture.
    ///
    /// `None` for units of other tracks, of codecs without a number in KMP, and for frames too long for a receiver (the
    /// last two are counted in [`TrackMapper::left_out`]).
    pub fn unit(&mut self, unit: &Unit, unix_micros: i64) -> Option<Mapped> {
        let track = self.track.as_ref().filter(|track| track.id == unit.head.track)?;
        let (kind, codec) = (track.kind(), track.codec);
        if unit.payload.is_empty() {
            return None;
        }
        if self.info.is_none() || unit.payload.len() > MAX_DATA_LEN as usize {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        if kind == TrackKind::Video {
            self.look_for_captions(codec, &unit.payload);
        }
        let (dts, delay) = self.times(unit);
        let media_info = self.due(kind == TrackKind::Audio || unit.head.keyframe);
        let captured = unit.head.captured.map_or(unix_micros, |captured| captured.unix_micros);
        let head = FrameHead {
            created: scaled(captured, self.settings.timescale, 1_000_000),
            dts,
            keyframe: kind == TrackKind::Video && unit.head.keyframe,
            pts_delay: i32::try_from(delay).unwrap_or(if delay < 0 { i32::MIN } else { i32::MAX }),
        };
        self.frames = self.frames.saturating_add(1);
        Some(Mapped { media_info, frame: head.encode(unit.payload.clone()), head })
    }

    /// What describes the track now, for callbacks and the API; `None` before its header, or without a number in KMP.
    pub fn media_info(&self) -> Option<&MediaInfo> {
        self.info.as_ref()
    }

    /// The track's codec, if KMP has no number for it.
    pub fn unsupported(&self) -> Option<Codec> {
        self.track.as_ref().map(|track| track.codec).filter(|codec| codec_id(*codec).is_none())
    }

    /// Frames mapped so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Units of this track that could not be mapped.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn describe(&mut self) {
        let how = Describe {
            strict: self.settings.strict,
            timescale: self.settings.timescale,
            cea_captions: self.captions.found,
            beside_hevc: self.beside_hevc,
        };
        self.info = self.track.as_ref().and_then(|track| MediaInfo::of(track, how));
        self.aac = self.info.as_ref().and_then(|info| info.aac_rates(self.settings.strict));
    }

    /// The `minf` that goes before this frame, if any.
    fn due(&mut self, at_keyframe: bool) -> Option<Wire> {
        let info = self.info.as_ref()?;
        let changed = self.sent.as_ref() != Some(info);
        let due = match self.sent {
            None => true,
            // Nobody tells which header came: a change is all that can be seen.
            Some(_) if self.settings.strict => self.header_came || (changed && !self.captions_only(info)),
            // A receiver waits for a keyframe after each of them.
            Some(_) => changed && at_keyframe,
        };
        if !due {
            return None;
        }
        self.header_came = false;
        self.sent = Some(info.clone());
        Some(info.encode())
    }

    /// Whether captions found late are all that is new: the reference tells them with the next header.
    fn captions_only(&self, info: &MediaInfo) -> bool {
        let plain = |info: &MediaInfo| {
            let mut plain = info.clone();
            if let super::packet::Media::Video(video) = &mut plain.media {
                video.cea_captions = false;
            }
            plain
        };
        self.sent.as_ref().is_some_and(|sent| plain(sent) == plain(info))
    }

    fn look_for_captions(&mut self, codec: Codec, payload: &[u8]) {
        let captions = &mut self.captions;
        if captions.found || captions.searched >= CAPTION_PICTURES {
            return;
        }
        captions.searched = captions.searched.saturating_add(1);
        if (codec == Codec::H264 || !self.settings.strict) && has_captions(codec, payload) {
            captions.found = true;
            self.describe();
        }
    }

    /// Decode time and the way from it to the presentation, in ticks of the packets.
    fn times(&mut self, unit: &Unit) -> (i64, i64) {
        let (head, timescale) = (&unit.head, self.settings.timescale);
        let delay = head.source_pts.get().saturating_sub(head.source_dts.get());
        let (dts, delay) = if self.settings.strict {
            let millis = self.clock.unwrap(head.source_dts.as_millis() as u32);
            let per_milli = i64::from(timescale / 1000);
            let delay = Ticks::new(delay).as_millis();
            (millis.saturating_mul(per_milli), delay.saturating_mul(per_milli))
        } else {
            let ticks = Ticks::PER_SECOND;
            (scaled(head.source_dts.get(), timescale, ticks), scaled(delay, timescale, ticks))
        };
        (self.smooth(dts), delay)
    }

    fn smooth(&mut self, dts: i64) -> i64 {
        let Some((rate, samples)) = self.aac else {
            self.smoothing = None;
            return dts;
        };
        // The first frame passes as it is: the reference does not know its codec yet.
        let Some(smoothing) = self.smoothing.as_mut() else {
            self.smoothing = Some(Smoothing::default());
            return dts;
        };
        let margin = self.settings.audio_sync_margin.as_millis().min(i64::MAX as u128) as i64;
        let margin = margin.saturating_mul(i64::from(self.settings.timescale)) / 1000;
        let told = smoothing.base.saturating_add(scaled(smoothing.samples, self.settings.timescale, rate));
        let dts = if dts.abs_diff(told) <= margin.unsigned_abs() {
            told
        } else {
            (smoothing.base, smoothing.samples) = (dts, 0);
            dts
        };
        smoothing.samples = smoothing.samples.saturating_add(samples);
        dts
    }
}

impl MilliClock {
    fn unwrap(&mut self, millis: u32) -> i64 {
        let unwrapped = match self.last {
            None => i64::from(millis),
            Some((last, unwrapped)) => {
                unwrapped.saturating_add(i64::from(millis.wrapping_sub(last).cast_signed()))
            }
        };
        self.last = Some((millis, unwrapped));
        unwrapped
    }
}

/// `value * to / from`, towards the past.
fn scaled(value: i64, to: u32, from: i64) -> i64 {
    let scaled = i128::from(value).saturating_mul(i128::from(to)).checked_div_euclid(i128::from(from));
    i64::try_from(scaled.unwrap_or(0)).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests;
