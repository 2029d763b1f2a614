//! HLS playlists. Sources: RFC 8216, and its second edition (draft-pantos-hls-rfc8216bis) for parts and delta updates.

use super::{Found, Lane, Package, SECOND, Segment, codec, names, ts};
use fieldgate_media::TrackKind;
use fieldgate_media::civil;
use std::fmt::Write;
use std::sync::Arc;

/// Parts are named for this many target durations from the end (bis 4.4.4.9).
const PARTS_FOR: i64 = 3;
/// A delta update may leave out what is older than this many target durations (bis 4.4.3.8: six at least).
const SKIP_AFTER: i64 = 6;
/// Where a player begins that goes by whole segments, in target durations behind the end. The next segment is there before what it
/// finds is played, as one is never longer than that.
const START: i64 = 2;
/// Distance of a player from the end, in parts (bis 4.4.3.8: at least two, should be three).
const PART_HOLD_BACK: i64 = 3;
/// The least such distance, however short parts are: a player has nothing else against a network or a machine that hesitates.
const LEAST_HOLD_BACK: i64 = SECOND * 6 / 5;

/// The media playlist of a lane. With `skip`, a delta update where that saves anything.
pub fn media(package: &Package, lane: &Lane, skip: bool) -> String {
    let mut text = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = write_media(&mut text, package, lane, skip);
    text
}

/// The master playlist; `prefix` stands before the names of media playlists.
pub fn master(package: &Package, prefix: &str) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:6\n");
    text.push_str(&rendition(package, prefix, 0));
    text
}

/// The lines of a master playlist for a stream that shows the same scene as the list's own, which is number 0.
pub fn rendition(package: &Package, prefix: &str, number: usize) -> String {
    let mut text = String::with_capacity(1024);
    // Writing to a String cannot fail.
    let _ = write_rendition(&mut text, package, prefix, number);
    text
}

/// What is known of pictures before they are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Pictures per second that are not exceeded; none: as many as `of` has.
    pub frame_rate: Option<f64>,
    /// The rate that the encoder is told.
    pub bits_per_second: u64,
}

/// The lines of a master playlist for a size that will be made of this stream, H.264 pictures and its own sound, once somebody
/// asks for it.
pub fn planned(of: &Package, prefix: &str, number: usize, planned: Planned) -> String {
    let mut text = String::with_capacity(512);
    let shape = of.lane(TrackKind::Video).map(|lane| lane.init().track.video).unwrap_or_default();
    let frame_rate = planned.frame_rate.map_or(shape.frame_rate, |most| most.min(shape.frame_rate));
    let audio = of.lane(TrackKind::Audio);
    let (sound_peak, sound) = audio.map_or((0, 0), bitrates);
    let mut codecs = codec::main_profile(planned.width, planned.height, frame_rate);
    if let Some(audio) = audio {
        codecs = format!("{codecs},{}", audio.init().codecs);
    }
    let stream = Stream {
        // Encoders keep their rate over some pictures, not over each.
        peak: planned.bits_per_second.saturating_mul(2).saturating_add(sound_peak),
        average: planned.bits_per_second.saturating_add(sound),
        codecs,
        size: Some((planned.width, planned.height)),
        frame_rate,
        channels: audio.map(|audio| audio.init().track.audio.channels.max(1)),
    };
    // Writing to a String cannot fail.
    let _ = write_stream(&mut text, &stream, TrackKind::Video, prefix, number);
    text
}

/// The list of renditions for players that know MPEG-TS only; none if it can carry nothing of the stream.
pub fn old_master(package: &Package, prefix: &str) -> Option<String> {
    let fitting: Vec<&Lane> = package.lanes().filter(|lane| ts::fits(&lane.init().track)).collect();
    let codecs = fitting.iter().map(|lane| lane.init().codecs.as_str()).collect::<Vec<_>>().join(",");
    let peak = fitting.iter().fold(0_u64, |sum, lane| sum.saturating_add(bitrates(lane).0));
    // Packets' heads and tables.
    let peak = peak.saturating_add(peak / 10).saturating_add(50_000);
    let name = names::TOGETHER;
    (!fitting.is_empty()).then(|| {
        format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-STREAM-INF:BANDWIDTH={peak},CODECS=\"{codecs}\"\n{prefix}{name}\n")
    })
}

/// The segments of all tracks together. Source: RFC 8216, nothing later.
pub fn together(package: &Package) -> String {
    let mut text = String::with_capacity(2048);
    // Writing to a String cannot fail.
    let _ = write_together(&mut text, package);
    text
}

fn write_together(out: &mut String, package: &Package) -> std::fmt::Result {
    writeln!(out, "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{}", package.target_secs())?;
    let whole = |segment: &&Arc<Segment>| matches!(package.together(segment.number), Found::Here(_));
    let lead = package.lead();
    let listed = lead.into_iter().flat_map(|lead| package.listed(lead)).take_while(whole);
    let first = listed.clone().next();
    writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", first.map_or(package.next_number(), |first| first.number))?;
    if let Some(first) = first {
        let removed = first.period.saturating_sub(u64::from(first.is_discontinuity));
        writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{removed}")?;
    }
    for segment in listed {
        if segment.is_discontinuity {
            writeln!(out, "#EXT-X-DISCONTINUITY")?;
        }
        let date = civil::timestamp(segment.unix_micros.div_euclid(1000));
        writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{date}")?;
        writeln!(out, "#EXTINF:{},\n{}", Seconds(segment.duration), names::ts(segment.number))?;
    }
    if package.has_ended() {
        writeln!(out, "#EXT-X-ENDLIST")?;
    }
    Ok(())
}

fn write_media(out: &mut String, package: &Package, lane: &Lane, skip: bool) -> std::fmt::Result {
    let target = i64::from(package.target_secs()).saturating_mul(SECOND);
    let listed = package.listed(lane);
    let gaps = listed.clone().any(|segment| segment.parts.is_empty());
    let part_target = package.part_target();
    let version = match part_target {
        Some(_) => 9,
        None if gaps => 8,
        None => 6,
    };
    writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{}", package.target_secs())?;
    let skip_after = target.saturating_mul(SKIP_AFTER);
    if let Some(part) = part_target {
        writeln!(
            out,
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},HOLD-BACK={},CAN-SKIP-UNTIL={}",
            Seconds(part.saturating_mul(PART_HOLD_BACK).max(LEAST_HOLD_BACK)),
            Seconds(target.saturating_mul(3)),
            Seconds(skip_after),
        )?;
        writeln!(out, "#EXT-X-PART-INF:PART-TARGET={}", Seconds(part))?;
    } else {
        writeln!(out, "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES")?;
        if !package.has_ended() {
            writeln!(out, "#EXT-X-START:TIME-OFFSET=-{}", Seconds(target.saturating_mul(START)))?;
        }
    }
    let first = listed.clone().next();
    writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", first.map_or(package.next_number(), |first| first.number))?;
    if let Some(first) = first {
        // The first one's own tag stands in the list still.
        let removed = first.period.saturating_sub(u64::from(first.is_discontinuity));
        writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{removed}")?;
    }
    if listed.clone().all(|segment| segment.independent) {
        writeln!(out, "#EXT-X-INDEPENDENT-SEGMENTS")?;
    }
    let growing: i64 = lane.growing().map_or(0, |(_, parts)| parts.iter().map(|part| part.duration).sum());
    let mut age = listed.clone().fold(growing, |sum, segment| sum.saturating_add(segment.duration));
    let mut skipped = 0_u64;
    let mut init = None;
    for segment in listed {
        if skip && part_target.is_some() && age > skip_after {
            skipped = skipped.saturating_add(1);
            age = age.saturating_sub(segment.duration);
            continue;
        }
        if skipped > 0 {
            writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")?;
            skipped = 0;
        }
        let names_parts = part_target.is_some() && age <= target.saturating_mul(PARTS_FOR);
        write_segment(out, lane.kind(), segment, &mut init, names_parts)?;
        age = age.saturating_sub(segment.duration);
    }
    if package.has_ended() {
        return writeln!(out, "#EXT-X-ENDLIST");
    }
    if part_target.is_some() {
        write_growing(out, package, lane, &mut init)?;
    }
    Ok(())
}

fn write_segment(
    out: &mut String,
    kind: TrackKind,
    segment: &Arc<Segment>,
    init: &mut Option<u32>,
    names_parts: bool,
) -> std::fmt::Result {
    write_beginning(out, kind, segment.is_discontinuity, segment.init.number, segment.unix_micros, init)?;
    if names_parts {
        for (index, part) in segment.parts.iter().enumerate() {
            write_part(out, kind, segment.number, index, part)?;
        }
    }
    if segment.parts.is_empty() {
        writeln!(out, "#EXT-X-GAP")?;
    }
    writeln!(out, "#EXTINF:{},\n{}", Seconds(segment.duration), names::segment(kind, segment.number))
}

fn write_beginning(
    out: &mut String,
    kind: TrackKind,
    is_discontinuity: bool,
    init_number: u32,
    unix_micros: i64,
    init: &mut Option<u32>,
) -> std::fmt::Result {
    if is_discontinuity {
        writeln!(out, "#EXT-X-DISCONTINUITY")?;
    }
    if is_discontinuity || *init != Some(init_number) {
        writeln!(out, "#EXT-X-MAP:URI=\"{}\"", names::init(kind, init_number))?;
        *init = Some(init_number);
    }
    writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", civil::timestamp(unix_micros.div_euclid(1000)))
}

fn write_part(
    out: &mut String,
    kind: TrackKind,
    number: u64,
    index: usize,
    part: &super::Part,
) -> std::fmt::Result {
    let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
    let name = names::part(kind, number, index);
    writeln!(out, "#EXT-X-PART:DURATION={},URI=\"{name}\"{independent}", Seconds(part.duration))
}

/// The parts of the segment that is not whole yet, what comes next, and where the other lane stands.
fn write_growing(
    out: &mut String,
    package: &Package,
    lane: &Lane,
    init: &mut Option<u32>,
) -> std::fmt::Result {
    let kind = lane.kind();
    if let (Some((number, parts)), Some(begin)) = (lane.growing(), lane.growing_since()) {
        if !parts.is_empty() {
            write_beginning(out, kind, begin.is_discontinuity, lane.init().number, begin.unix_micros, init)?;
        }
        for (index, part) in parts.iter().enumerate() {
            write_part(out, kind, number, index, part)?;
        }
        writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{}\"", names::part(kind, number, parts.len()))?;
    }
    for other in package.lanes().filter(|other| other.kind() != kind) {
        let newest = other.segments().next_back();
        let (msn, part) = match other.growing().filter(|(_, parts)| !parts.is_empty()) {
            Some((number, parts)) => (number, parts.len().saturating_sub(1)),
            None => match newest {
                Some(newest) => (newest.number, newest.parts.len().saturating_sub(1)),
                None => continue,
            },
        };
        let uri = names::media(other.kind());
        writeln!(out, "#EXT-X-RENDITION-REPORT:URI=\"{uri}\",LAST-MSN={msn},LAST-PART={part}")?;
    }
    Ok(())
}

fn write_rendition(out: &mut String, package: &Package, prefix: &str, number: usize) -> std::fmt::Result {
    let lanes: Vec<&Lane> = package.lanes().collect();
    let (peak, average) = lanes.iter().fold((0_u64, 0_u64), |(peak, average), lane| {
        let (p, a) = bitrates(lane);
        (peak.saturating_add(p), average.saturating_add(a))
    });
    let (video, audio) = (package.lane(TrackKind::Video), package.lane(TrackKind::Audio));
    let stream = Stream {
        peak,
        average,
        codecs: lanes.iter().map(|lane| lane.init().codecs.as_str()).collect::<Vec<_>>().join(","),
        size: package.shape(),
        frame_rate: video.map_or(0.0, |video| video.init().track.video.frame_rate),
        channels: video.and(audio).map(|audio| audio.init().track.audio.channels.max(1)),
    };
    let kind = if video.is_some() { TrackKind::Video } else { TrackKind::Audio };
    write_stream(out, &stream, kind, prefix, number)
}

/// What a master playlist says of one stream.
struct Stream {
    peak: u64,
    average: u64,
    codecs: String,
    size: Option<(u32, u32)>,
    /// 0: not known.
    frame_rate: f64,
    /// Of sound beside pictures.
    channels: Option<u8>,
}

fn write_stream(
    out: &mut String,
    stream: &Stream,
    kind: TrackKind,
    prefix: &str,
    number: usize,
) -> std::fmt::Result {
    // Players take groups with the same codec and name for the same sound.
    let group = if number == 0 { "audio".to_owned() } else { format!("audio-{number}") };
    if let Some(channels) = stream.channels {
        writeln!(
            out,
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{group}\",NAME=\"audio\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"{channels}\",URI=\"{prefix}{}\"",
            names::media(TrackKind::Audio)
        )?;
    }
    let Stream { peak, average, codecs, .. } = stream;
    write!(out, "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS=\"{codecs}\"")?;
    if let Some((width, height)) = stream.size {
        write!(out, ",RESOLUTION={width}x{height}")?;
    }
    if stream.frame_rate > 0.0 {
        write!(out, ",FRAME-RATE={:.3}", stream.frame_rate)?;
    }
    if stream.channels.is_some() {
        write!(out, ",AUDIO=\"{group}\"")?;
    }
    writeln!(out, "\n{prefix}{}", names::media(kind))
}

/// Bits per second of the heaviest segment, and of all together.
pub(super) fn bitrates(lane: &Lane) -> (u64, u64) {
    let rate = |bytes: u64, ticks: i64| {
        let bits = u128::from(bytes).saturating_mul(8).saturating_mul(u128::from(SECOND.unsigned_abs()));
        let rate = bits.checked_div(u128::from(ticks.unsigned_abs())).unwrap_or(0);
        u64::try_from(rate).unwrap_or(u64::MAX)
    };
    let peak = lane.segments().map(|segment| rate(segment.bytes, segment.duration)).max().unwrap_or(0);
    let (bytes, ticks) = lane.segments().fold((0_u64, 0_i64), |(bytes, ticks), segment| {
        (bytes.saturating_add(segment.bytes), ticks.saturating_add(segment.duration))
    });
    // Nothing at all is no bitrate that a playlist may say.
    (peak.max(1), rate(bytes, ticks).max(1))
}

/// Ticks as decimal seconds, to the microsecond.
pub(super) struct Seconds(pub(super) i64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.saturating_mul(100).saturating_add(4).div_euclid(9);
        write!(f, "{}.{:06}", micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000))
    }
}
