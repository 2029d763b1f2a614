//! The manifest of DASH's live profile. Source: ISO/IEC 23009-1, 5.3 (MPD), 8.4 (ISO base media file format live profile).
//!
//! A discontinuity begins a new period. Segments stand in timelines, whose times are exact. For players that count on their
//! own there are numbers and one duration, as long as the source's keyframes are as regular as that.
//!
//! Other streams of the same scene are further representations of the pictures. Each has a timeline and an offset of its own,
//! by which its times fall on those of the period: 5.3.9.2 has both for each representation.

use super::hls::bitrates;
use super::names::{self, Addressing};
use super::{Init, Lane, Origin, Package, SECOND, Segment, TIMESCALE};
use fieldgate_media::TrackKind;
use fieldgate_media::civil;
use std::fmt::Write;
use std::sync::Arc;

/// Players stay this many target durations behind the newest segment.
const DELAY: u32 = 3;

/// A stream that is made of another has the same times; what it says of its beginning comes later by what the making takes, ticks.
const MADE_LATER: i64 = SECOND.saturating_mul(10);

/// Pictures of the same scene in another stream, as they are listed now.
#[derive(Clone, Debug)]
pub struct Other {
    /// Stands before the names of its files.
    folder: String,
    /// It is made of the stream itself, whose times it has.
    is_made: bool,
    segments: Vec<Arc<Segment>>,
    /// Bits per second of the heaviest.
    peak: u64,
}

impl Other {
    /// What players can have of a stream, if it has pictures; its files are in `folder` of the manifest's own.
    pub fn new(package: &Package, folder: &str, is_made: bool) -> Option<Other> {
        let lane = package.lane(TrackKind::Video)?;
        let segments = package.listed(lane).filter(|segment| package.is_whole(segment.period));
        let (peak, _) = bitrates(lane);
        Some(Other { folder: format!("{folder}/"), is_made, segments: segments.cloned().collect(), peak })
    }

    /// Its newest segments that follow each other without a break, as far as they lie in a period.
    fn within(&self, origin: Origin, span: Option<i64>) -> Option<Within<'_>> {
        let newest = self.segments.last()?.origin;
        let later = ticks(newest.unix_micros.saturating_sub(origin.unix_micros));
        let by_clock = newest.start.saturating_sub(later);
        let has_same_times = self.is_made && by_clock.abs_diff(origin.start) <= MADE_LATER.unsigned_abs();
        let offset = if has_same_times { origin.start } else { by_clock };
        let is_within = |segment: &&Arc<Segment>| {
            let at = segment.shown.saturating_sub(offset);
            segment.origin == newest && at >= 0 && span.is_none_or(|span| at < span)
        };
        let segments: Vec<_> = self.segments.iter().filter(is_within).collect();
        let has_any = segments.iter().any(|segment| !segment.parts.is_empty());
        let within = Within { folder: &self.folder, peak: self.peak, offset, segments };
        Some(within).filter(|_| offset >= 0 && has_any)
    }
}

/// What a period has of another stream.
struct Within<'a> {
    folder: &'a str,
    peak: u64,
    /// Its time at which the period begins, ticks.
    offset: i64,
    segments: Vec<&'a Arc<Segment>>,
}

/// The manifest of a stream, and of others that show the same scene. `prefix` stands before all names, and is a folder or nothing;
/// `now_unix_micros` is the gateway's time.
pub fn manifest(
    package: &Package,
    others: &[Other],
    addressing: Addressing,
    prefix: &str,
    now_unix_micros: i64,
) -> String {
    let mut text = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = write(&mut text, (package, others), addressing, prefix, now_unix_micros);
    text
}

fn write(
    out: &mut String,
    (package, others): (&Package, &[Other]),
    addressing: Addressing,
    prefix: &str,
    now_unix_micros: i64,
) -> std::fmt::Result {
    let date = |micros: i64| civil::timestamp(micros.div_euclid(1000));
    let (target, now) = (package.target_secs(), date(now_unix_micros));
    let began = package.began().unwrap_or(now_unix_micros);
    let periods = periods(package);
    // While the source is away everything stays, and players must not think that their place is gone.
    let depth = periods.first().map_or(0, |period| now_unix_micros.saturating_sub(period.listed_from()));
    write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" \
         profiles=\"urn:mpeg:dash:profile:isoff-live:2011\" type=\"dynamic\" availabilityStartTime=\"{}\" \
         publishTime=\"{now}\" minBufferTime=\"PT{target}S\" timeShiftBufferDepth=\"{}\" maxSegmentDuration=\"PT{}S\" \
         suggestedPresentationDelay=\"PT{}S\"",
        date(began),
        Duration(depth.max(micros(package.window()))),
        target.saturating_add(1),
        target.saturating_mul(DELAY),
    )?;
    if package.has_ended() {
        let end = periods.last().map_or(0, |period| period.end());
        writeln!(out, " mediaPresentationDuration=\"{}\">", Duration(end.saturating_sub(began)))?;
    } else {
        writeln!(out, " minimumUpdatePeriod=\"PT{target}S\">")?;
    }
    if !prefix.is_empty() {
        writeln!(out, "<BaseURL>{prefix}</BaseURL>")?;
        writeln!(out, "<Location>{prefix}{}</Location>", names::manifest(addressing))?;
    }
    let last = periods.last().map(|period| period.number);
    for period in &periods {
        let start = Duration(period.origin.unix_micros.saturating_sub(began));
        write!(out, "<Period id=\"{}\" start=\"{start}\"", period.origin.number)?;
        // The next one begins when the source was back: nothing is to be waited for until then.
        let span = period.end().saturating_sub(period.origin.unix_micros);
        let span = Some(span).filter(|_| Some(period.number) != last);
        if let Some(span) = span {
            write!(out, " duration=\"{}\"", Duration(span))?;
        }
        writeln!(out, ">")?;
        for (lane, segments) in &period.lanes {
            let others = if lane.kind() == TrackKind::Video { others } else { &[] };
            let within = |other| Other::within(other, period.origin, span.map(ticks));
            let others: Vec<_> = others.iter().filter_map(within).collect();
            write_set(out, (lane, segments), &others, period.origin, (addressing, package.regular()))?;
        }
        writeln!(out, "</Period>")?;
    }
    writeln!(out, "<UTCTiming schemeIdUri=\"urn:mpeg:dash:utc:direct:2014\" value=\"{now}\"/>\n</MPD>")
}

/// A period with the segments that are listed, by lane.
struct Period<'a> {
    number: u64,
    origin: Origin,
    lanes: Vec<(&'a Lane, Vec<&'a Arc<Segment>>)>,
}

impl Period<'_> {
    /// When its first segment that is listed begins, microseconds since 1970 UTC.
    fn listed_from(&self) -> i64 {
        let first = self.lanes.iter().filter_map(|(_, segments)| segments.first());
        let shown = first.map(|first| first.shown).min().unwrap_or(self.origin.start);
        self.origin.unix_micros.saturating_add(micros(shown.saturating_sub(self.origin.start)))
    }

    /// When its last segment ends, microseconds since 1970 UTC.
    fn end(&self) -> i64 {
        let last = self.lanes.iter().filter_map(|(_, segments)| segments.last());
        let span =
            last.map(|last| last.shown.saturating_add(last.duration)).max().unwrap_or(self.origin.start);
        self.origin.unix_micros.saturating_add(micros(span.saturating_sub(self.origin.start)))
    }
}

/// Players set a period up from what they first see of it and never add a track later: none is listed before all its tracks
/// can be told, and a track of which nothing came is none.
fn periods(package: &Package) -> Vec<Period<'_>> {
    let mut periods: Vec<Period<'_>> = Vec::new();
    for lane in package.lanes() {
        for segment in package.listed(lane) {
            let period = match periods.iter_mut().position(|period| period.number == segment.period) {
                Some(at) => periods.get_mut(at),
                None => {
                    let (number, origin) = (segment.period, segment.origin);
                    periods.push(Period { number, origin, lanes: Vec::new() });
                    periods.last_mut()
                }
            };
            let Some(period) = period else { continue };
            match period.lanes.last_mut().filter(|(known, _)| known.kind() == lane.kind()) {
                Some((_, segments)) => segments.push(segment),
                None => period.lanes.push((lane, vec![segment])),
            }
        }
    }
    for period in &mut periods {
        period.lanes.retain(|(_, segments)| segments.iter().any(|segment| !segment.parts.is_empty()));
    }
    periods.retain(|period| package.is_whole(period.number) && !period.lanes.is_empty());
    periods.sort_by_key(|period| period.number);
    periods
}

fn write_set(
    out: &mut String,
    (lane, segments): (&Lane, &[&Arc<Segment>]),
    others: &[Within<'_>],
    origin: Origin,
    (addressing, regular): (Addressing, Option<i64>),
) -> std::fmt::Result {
    let Some(first) = segments.first() else { return Ok(()) };
    let word = match lane.kind() {
        TrackKind::Video => "video",
        TrackKind::Audio => "audio",
    };
    // Each is cut where its own keyframes are.
    let aligned = format!("segmentAlignment=\"{}\" startWithSAP=\"1\"", others.is_empty());
    writeln!(out, "<AdaptationSet contentType=\"{word}\" mimeType=\"{word}/mp4\" {aligned}>")?;
    let (peak, _) = bitrates(lane);
    write_representation(out, word, peak, &first.init)?;
    let times = format!("timescale=\"{TIMESCALE}\" presentationTimeOffset=\"{}\"", origin.start);
    match (addressing, regular) {
        (Addressing::Number, Some(duration)) => {
            let (number, names) = (origin.number, file_names("", first, addressing));
            writeln!(
                out,
                "<SegmentTemplate {times} startNumber=\"{number}\" duration=\"{duration}\" {names}/>"
            )?;
        }
        _ => write_template(out, &times, ("", segments), addressing)?,
    }
    writeln!(out, "</Representation>")?;
    for Within { folder, peak, offset, segments } in others {
        let Some(first) = segments.first() else { continue };
        let id = format!("{}{}", folder.replace('/', "-"), first.origin.number);
        write_representation(out, &id, *peak, &first.init)?;
        let times = format!("timescale=\"{TIMESCALE}\" presentationTimeOffset=\"{offset}\"");
        write_template(out, &times, (folder, segments), addressing)?;
        writeln!(out, "</Representation>")?;
    }
    writeln!(out, "</AdaptationSet>")
}

/// All of it but its end.
fn write_representation(out: &mut String, id: &str, bandwidth: u64, init: &Init) -> std::fmt::Result {
    write!(out, "<Representation id=\"{id}\" bandwidth=\"{bandwidth}\" codecs=\"{}\"", init.codecs)?;
    match init.track.kind() {
        TrackKind::Video => {
            let shape = init.track.video;
            if shape.width > 0 && shape.height > 0 {
                write!(out, " width=\"{}\" height=\"{}\"", shape.width, shape.height)?;
            }
            writeln!(out, ">")
        }
        TrackKind::Audio => {
            let shape = init.track.audio;
            let scheme = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011";
            writeln!(out, " audioSamplingRate=\"{}\">", shape.sample_rate.max(1))?;
            let channels = shape.channels.max(1);
            writeln!(out, "<AudioChannelConfiguration schemeIdUri=\"{scheme}\" value=\"{channels}\"/>")
        }
    }
}

fn file_names(folder: &str, first: &Segment, addressing: Addressing) -> String {
    let kind = first.init.track.kind();
    format!(
        "initialization=\"{folder}{}\" media=\"{folder}{}\"",
        names::init(kind, first.init.number),
        names::template(kind, addressing)
    )
}

/// Segments in a timeline.
fn write_template(
    out: &mut String,
    times: &str,
    (folder, segments): (&str, &[&Arc<Segment>]),
    addressing: Addressing,
) -> std::fmt::Result {
    let Some(first) = segments.first() else { return Ok(()) };
    let names = file_names(folder, first, addressing);
    match addressing {
        Addressing::Number => {
            writeln!(out, "<SegmentTemplate {times} startNumber=\"{}\" {names}>", first.number)?;
        }
        Addressing::Time => writeln!(out, "<SegmentTemplate {times} {names}>")?,
    }
    write_timeline(out, segments, addressing)
}

fn write_timeline(out: &mut String, segments: &[&Arc<Segment>], addressing: Addressing) -> std::fmt::Result {
    // By number each segment counts, also one without anything in it; by time it leaves a gap.
    let is_named = |segment: &&&Arc<Segment>| addressing == Addressing::Number || !segment.parts.is_empty();
    let mut named = segments.iter().filter(is_named).peekable();
    writeln!(out, "<SegmentTimeline>")?;
    while let Some(segment) = named.next() {
        // Where pictures are shown later than decoded by ever other times, the next one's time decides; also over a hole,
        // as players ask for what follows the end that they were told, and wait there for ever.
        let until_next = named.peek().map(|next| next.shown.saturating_sub(segment.shown));
        let duration = until_next.filter(|until| *until > 0).unwrap_or(segment.duration);
        writeln!(out, "<S t=\"{}\" d=\"{duration}\"/>", segment.shown)?;
    }
    writeln!(out, "</SegmentTimeline></SegmentTemplate>")
}

fn micros(ticks: i64) -> i64 {
    ticks.saturating_mul(100).saturating_div(9)
}

fn ticks(micros: i64) -> i64 {
    micros.saturating_mul(9).saturating_div(100)
}

/// Microseconds as XML Schema's duration, to the millisecond.
struct Duration(i64);

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.0.max(0) / 1000;
        write!(f, "PT{}.{:03}S", millis / 1000, millis % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Found;
    use super::super::Settings;
    use super::super::tests::{both, play, scene, settings};
    use super::*;
    use fieldgate_media::{Captured, Ticks, TrackId, Unit, UnitHead};

    fn package() -> Package {
        let mut package = Package::new(settings());
        package.on_tracks(&both());
        play(&mut package, &scene(0, 9, 60));
        package
    }

    /// The values of an attribute, in order.
    fn values(text: &str, name: &str) -> Vec<String> {
        let mark = format!(" {name}=\"");
        text.split(&mark).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_manifest_tells_the_exact_times_of_what_is_there() {
        let package = package();
        let text = manifest(&package, &[], Addressing::Time, "", 1_790_000_010_000_000);
        assert_eq!(values(&text, "availabilityStartTime"), ["2026-09-21T14:13:20.000Z"]);
        assert_eq!(values(&text, "publishTime"), ["2026-09-21T14:13:30.000Z"]);
        assert_eq!(values(&text, "start"), ["PT0.000S"]);
        assert_eq!(values(&text, "media"), ["vt$Time$.m4s", "at$Time$.m4s"]);
        assert_eq!(values(&text, "t")[..4], ["6000", "186000", "366000", "546000"]);
        assert_eq!(values(&text, "d")[..4], ["180000"; 4]);
        for kind in [TrackKind::Video, TrackKind::Audio] {
            let lane = package.lane(kind).unwrap();
            for segment in lane.segments() {
                let Found::Here(found) = lane.segment_at(segment.shown) else { panic!("it is there") };
                assert_eq!(found.number, segment.number, "each time of the manifest is a segment");
            }
            let last = lane.segments().next_back().unwrap();
            assert!(matches!(lane.segment_at(last.shown + last.duration), Found::Soon));
            assert!(matches!(lane.segment_at(last.shown + 2 * last.duration), Found::Never));
        }
        assert_eq!(values(&text, "timeShiftBufferDepth"), ["PT12.000S"]);
        let later = manifest(&package, &[], Addressing::Time, "", 1_790_000_050_000_000);
        assert_eq!(
            values(&later, "timeShiftBufferDepth"),
            ["PT50.000S"],
            "the source is away, and all is there"
        );
        assert!(!text.contains("BaseURL") && text.contains("minimumUpdatePeriod=\"PT2S\""));
        let opened = manifest(&package, &[], Addressing::Number, "token/", 0);
        assert!(opened.contains("<BaseURL>token/</BaseURL>\n<Location>token/number.mpd</Location>"));
        assert_eq!(values(&opened, "media"), ["v$Number$.m4s", "a$Number$.m4s"]);
        assert_eq!(values(&opened, "startNumber"), ["100", "100"]);
        assert_eq!(values(&opened, "duration"), ["180000", "180000"]);
        assert!(!opened.contains("<S "), "players count on their own");
    }

    #[test]
    fn numbers_of_irregular_segments_stand_in_a_timeline() {
        let mut package = package();
        let mut rest = scene(9 * SECOND, 9, 100);
        rest.retain(|unit| unit.head.dts.get() >= 9 * SECOND);
        play(&mut package, &rest);
        let text = manifest(&package, &[], Addressing::Number, "", 0);
        assert_eq!(values(&text, "media"), ["v$Number$.m4s", "a$Number$.m4s"]);
        assert!(values(&text, "duration").is_empty() && text.contains("<S t="), "{text}");
    }

    /// A browser's player that set a period up without its sound stood still at the end of the one before, for ever.
    #[test]
    fn a_period_is_listed_once_all_its_tracks_are_known() {
        let mut package = package();
        package.interrupt();
        let (pictures, sound): (Vec<_>, Vec<_>) =
            scene(20 * SECOND, 3, 60).into_iter().partition(|unit| unit.head.track == TrackId::VIDEO);
        play(&mut package, &pictures);
        let before = manifest(&package, &[], Addressing::Time, "", 0);
        assert_eq!(values(&before, "start"), ["PT0.000S"], "pictures alone are not the whole period");
        assert!(package.is_ready(), "what was there before can be watched");
        play(&mut package, &sound);
        let after = manifest(&package, &[], Addressing::Time, "", 0);
        assert_eq!(values(&after, "start"), ["PT0.000S", "PT20.000S"]);
        assert_eq!(values(&after, "contentType"), ["video", "audio", "video", "audio"]);
    }

    #[test]
    fn a_track_that_stays_silent_is_left_out_of_its_period() {
        let mut package = package();
        package.interrupt();
        let mut pictures = scene(20 * SECOND, 11, 60);
        pictures.retain(|unit| unit.head.track == TrackId::VIDEO);
        play(&mut package, &pictures);
        let text = manifest(&package, &[], Addressing::Time, "", 0);
        assert_eq!(values(&text, "contentType"), ["video", "audio", "video"], "{text}");
        assert!(!text.contains("<SegmentTimeline>\n</SegmentTimeline>"), "no track without segments");
    }

    /// The same player asks for what follows the end of the last segment, and finds nothing in a hole.
    #[test]
    fn a_timeline_of_times_has_no_holes() {
        let mut package = Package::new(settings());
        package.on_tracks(&both());
        let mut units = scene(0, 13, 60);
        units.retain(|unit| {
            unit.head.track == TrackId::VIDEO || !(4 * SECOND..8 * SECOND).contains(&unit.head.dts.get())
        });
        play(&mut package, &units);
        let text = manifest(&package, &[], Addressing::Time, "", 0);
        let sound = text.split("contentType=\"audio\"").nth(1).unwrap();
        let numbers =
            |name| values(sound, name).iter().map(|text| text.parse().unwrap()).collect::<Vec<i64>>();
        let (times, spans) = (numbers("t"), numbers("d"));
        assert!(times.len() >= 3 && spans.iter().any(|span| *span > 5 * SECOND), "{sound}");
        for (at, next) in times.iter().skip(1).enumerate() {
            assert_eq!(times[at] + spans[at], *next, "{sound}");
        }
    }

    #[test]
    fn a_restart_is_a_period_that_never_moves() {
        let mut package = package();
        package.interrupt();
        play(&mut package, &scene(20 * SECOND, 5, 60));
        let before = manifest(&package, &[], Addressing::Time, "", 0);
        assert_eq!(values(&before, "start"), ["PT0.000S", "PT20.000S"]);
        assert_eq!(values(&before, "presentationTimeOffset"), ["0", "0", "1800000", "1800000"]);
        assert!(
            before.contains("<Period id=\"100\" start=\"PT0.000S\" duration=\"PT9.0"),
            "its own end: {before}"
        );
        play(&mut package, &scene(25 * SECOND, 60, 60));
        let after = manifest(&package, &[], Addressing::Time, "", 0);
        assert_eq!(values(&after, "start"), ["PT20.000S"], "what is not listed any more is gone");
        assert_eq!(values(&after, "availabilityStartTime"), values(&before, "availabilityStartTime"));
        package.end();
        let ended = manifest(&package, &[], Addressing::Time, "", 0);
        assert!(!ended.contains("minimumUpdatePeriod") && ended.contains("mediaPresentationDuration=\"PT8"));
    }
    /// The same units at other times of the stream, captured when they were.
    fn moved(units: Vec<Unit>, by: i64) -> Vec<Unit> {
        let later = |at: Ticks| Ticks::new(at.get() + by);
        let head = |head: UnitHead| UnitHead { dts: later(head.dts), pts: later(head.pts), ..head };
        units.into_iter().map(|unit| Unit { head: head(unit.head), ..unit }).collect()
    }

    /// Another stream's units in segments from this number on.
    fn other(units: &[Unit], first_number: u64) -> Package {
        let mut package = Package::new(Settings { first_number, ..settings() });
        package.on_tracks(&both());
        play(&mut package, units);
        package
    }

    #[test]
    fn other_streams_are_representations_on_the_same_clock() {
        let package = package();
        let by = 50 * SECOND;
        let second = other(&moved(scene(0, 9, 30), by), 700);
        let others = [Other::new(&second, "low", false).unwrap()];
        let text = manifest(&package, &others, Addressing::Time, "", 0);
        assert_eq!(values(&text, "contentType"), ["video", "audio"], "in one set");
        assert_eq!(values(&text, "id")[1..], ["video", "low-700", "audio"]);
        assert_eq!(values(&text, "presentationTimeOffset"), ["0", "4500000", "0"]);
        assert_eq!(values(&text, "media"), ["vt$Time$.m4s", "low/vt$Time$.m4s", "at$Time$.m4s"]);
        assert_eq!(values(&text, "segmentAlignment"), ["false", "true"]);
        let low = text.split("id=\"low-700\"").nth(1).unwrap();
        assert_eq!(values(low, "t")[0], (by + 6000).to_string(), "{low}");
        let numbers = manifest(&package, &others, Addressing::Number, "", 0);
        assert_eq!(values(&numbers, "startNumber"), ["100", "700", "100"]);
        assert!(numbers.contains("media=\"low/v$Number$.m4s\">\n<SegmentTimeline>"), "{numbers}");
    }

    #[test]
    fn what_is_made_of_a_stream_has_its_times() {
        let package = package();
        let late = |unit: Unit| {
            let captured =
                unit.head.captured.map(|it| Captured { unix_micros: it.unix_micros + 900_000, ..it });
            Unit { head: UnitHead { captured, ..unit.head }, ..unit }
        };
        let made = other(&scene(0, 9, 60).into_iter().map(late).collect::<Vec<_>>(), 300);
        let offsets = |is_made| {
            let others = [Other::new(&made, "~90p", is_made).unwrap()];
            values(&manifest(&package, &others, Addressing::Time, "", 0), "presentationTimeOffset")
        };
        assert_eq!(offsets(true), ["0", "0", "0"]);
        assert_eq!(offsets(false), ["0", "0"], "nothing begins before its period's zero");
    }

    #[test]
    fn another_stream_is_listed_in_the_periods_that_it_has_pictures_of() {
        let mut package = package();
        package.interrupt();
        play(&mut package, &scene(20 * SECOND, 5, 60));
        let others = |units: &[Unit]| [Other::new(&other(units, 700), "low", true).unwrap()];
        let ids = |others: &[Other]| values(&manifest(&package, others, Addressing::Time, "", 0), "id");
        let main = ["100", "video", "audio", "105", "video", "audio"];
        assert_eq!(ids(&others(&moved(scene(0, 5, 60), 0))), [&main[..2], &["low-700"], &main[2..]].concat());
        let late = others(&scene(20 * SECOND, 5, 60));
        assert_eq!(ids(&late), [&main[..5], &["low-700"], &main[5..]].concat());
        let none = Package::new(settings());
        assert!(Other::new(&none, "low", true).is_none(), "nothing is known of it yet");
    }
}
