//! The manifest of DASH's live profile. Source: ISO/IEC 23009-1, 5.3 (MPD), 8.4 (ISO base media file format live profile).
//!
//! A discontinuity begins a new period. Segments stand in timelines, whose times are exact. For players that count on their
//! own there are numbers and one duration, as long as the source's keyframes are as regular as that.

use super::hls::bitrates;
use super::names::{self, Addressing};
use super::{Lane, Origin, Package, Segment, TIMESCALE};
use fieldgate_media::TrackKind;
use fieldgate_media::civil;
use std::fmt::Write;
use std::sync::Arc;

/// Players stay this many target durations behind the newest segment.
const DELAY: u32 = 3;

/// The manifest. `prefix` stands before all names, and is a folder or nothing; `now_unix_micros` is the gateway's time.
pub fn manifest(package: &Package, addressing: Addressing, prefix: &str, now_unix_micros: i64) -> String {
    let mut text = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = write(&mut text, package, addressing, prefix, now_unix_micros);
    text
}

fn write(
    out: &mut String,
    package: &Package,
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
        if Some(period.number) != last {
            // The next one begins when the source was back: nothing is to be waited for until then.
            let span = period.end().saturating_sub(period.origin.unix_micros);
            write!(out, " duration=\"{}\"", Duration(span))?;
        }
        writeln!(out, ">")?;
        for (lane, segments) in &period.lanes {
            write_set(out, lane, segments, period.origin, (addressing, package.regular()))?;
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
    lane: &Lane,
    segments: &[&Arc<Segment>],
    origin: Origin,
    (addressing, regular): (Addressing, Option<i64>),
) -> std::fmt::Result {
    let Some(first) = segments.first() else { return Ok(()) };
    let (kind, init) = (lane.kind(), &first.init);
    let word = match kind {
        TrackKind::Video => "video",
        TrackKind::Audio => "audio",
    };
    let aligned = "segmentAlignment=\"true\" startWithSAP=\"1\"";
    writeln!(out, "<AdaptationSet contentType=\"{word}\" mimeType=\"{word}/mp4\" {aligned}>")?;
    let (peak, _) = bitrates(lane);
    write!(out, "<Representation id=\"{word}\" bandwidth=\"{peak}\" codecs=\"{}\"", init.codecs)?;
    match kind {
        TrackKind::Video => {
            let shape = init.track.video;
            if shape.width > 0 && shape.height > 0 {
                write!(out, " width=\"{}\" height=\"{}\"", shape.width, shape.height)?;
            }
            writeln!(out, ">")?;
        }
        TrackKind::Audio => {
            let shape = init.track.audio;
            let scheme = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011";
            writeln!(out, " audioSamplingRate=\"{}\">", shape.sample_rate.max(1))?;
            let channels = shape.channels.max(1);
            writeln!(out, "<AudioChannelConfiguration schemeIdUri=\"{scheme}\" value=\"{channels}\"/>")?;
        }
    }
    let names = format!(
        "initialization=\"{}\" media=\"{}\"",
        names::init(kind, init.number),
        names::template(kind, addressing)
    );
    let times = format!("timescale=\"{TIMESCALE}\" presentationTimeOffset=\"{}\"", origin.start);
    match (addressing, regular) {
        (Addressing::Number, Some(duration)) => {
            let number = origin.number;
            writeln!(
                out,
                "<SegmentTemplate {times} startNumber=\"{number}\" duration=\"{duration}\" {names}/>"
            )?;
        }
        (Addressing::Number, None) => {
            let number = first.number;
            writeln!(out, "<SegmentTemplate {times} startNumber=\"{number}\" {names}>")?;
            write_timeline(out, segments, addressing)?;
        }
        (Addressing::Time, _) => {
            writeln!(out, "<SegmentTemplate {times} {names}>")?;
            write_timeline(out, segments, addressing)?;
        }
    }
    writeln!(out, "</Representation>\n</AdaptationSet>")
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
    use super::super::tests::{both, play, scene, settings};
    use super::super::{Found, SECOND};
    use super::*;
    use fieldgate_media::TrackId;

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
        let text = manifest(&package, Addressing::Time, "", 1_790_000_010_000_000);
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
        let later = manifest(&package, Addressing::Time, "", 1_790_000_050_000_000);
        assert_eq!(
            values(&later, "timeShiftBufferDepth"),
            ["PT50.000S"],
            "the source is away, and all is there"
        );
        assert!(!text.contains("BaseURL") && text.contains("minimumUpdatePeriod=\"PT2S\""));
        let opened = manifest(&package, Addressing::Number, "token/", 0);
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
        let text = manifest(&package, Addressing::Number, "", 0);
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
        let before = manifest(&package, Addressing::Time, "", 0);
        assert_eq!(values(&before, "start"), ["PT0.000S"], "pictures alone are not the whole period");
        assert!(package.is_ready(), "what was there before can be watched");
        play(&mut package, &sound);
        let after = manifest(&package, Addressing::Time, "", 0);
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
        let text = manifest(&package, Addressing::Time, "", 0);
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
        let text = manifest(&package, Addressing::Time, "", 0);
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
        let before = manifest(&package, Addressing::Time, "", 0);
        assert_eq!(values(&before, "start"), ["PT0.000S", "PT20.000S"]);
        assert_eq!(values(&before, "presentationTimeOffset"), ["0", "0", "1800000", "1800000"]);
        assert!(
            before.contains("<Period id=\"100\" start=\"PT0.000S\" duration=\"PT9.0"),
            "its own end: {before}"
        );
        play(&mut package, &scene(25 * SECOND, 60, 60));
        let after = manifest(&package, Addressing::Time, "", 0);
        assert_eq!(values(&after, "start"), ["PT20.000S"], "what is not listed any more is gone");
        assert_eq!(values(&after, "availabilityStartTime"), values(&before, "availabilityStartTime"));
        package.end();
        let ended = manifest(&package, Addressing::Time, "", 0);
        assert!(!ended.contains("minimumUpdatePeriod") && ended.contains("mediaPresentationDuration=\"PT8"));
    }
}
