use super::*;
use fieldgate_media::{Captured, ClockSource, Codec, Ticks, TrackId, Tracks, Unit, UnitHead};

const AVCC: &[u8] = &[
    1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 0x1c, 0x67, 0x64, 0, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01,
    0x6a, 0x02, 0x02, 0x02, 0x80, 0, 0, 3, 0, 0x80, 0, 0, 0x1e, 0x07, 0x8c, 0x18, 0xcb, 1, 0, 5, 0x68, 0xef,
    0xbc, 0xb0, 0,
];
const START_UNIX: i64 = 1_790_000_000_000_000;

fn video_track() -> Track {
    Track::new(TrackId::VIDEO, Codec::H264, Bytes::from_static(AVCC)).with_header_shape()
}

fn audio_track() -> Track {
    Track::new(TrackId::AUDIO, Codec::Aac, Bytes::from_static(&[0x12, 0x10])).with_header_shape()
}

pub(super) fn both() -> Tracks {
    Tracks::new(vec![video_track(), audio_track()])
}

pub(super) fn settings() -> Settings {
    Settings {
        segment: 2 * SECOND,
        part: Some(SECOND / 2),
        window: 12 * SECOND,
        max_bytes: 32 << 20,
        first_number: 100,
    }
}

fn unit(track: TrackId, dts: i64, offset: i64, keyframe: bool, len: usize) -> Unit {
    let (dts, pts) = (Ticks::new(dts), Ticks::new(dts + offset));
    let unix_micros = START_UNIX + dts.get() * 100 / 9;
    let captured = Some(Captured { unix_micros, by: ClockSource::Arrival });
    let head = UnitHead { track, dts, pts, source_dts: dts, source_pts: pts, keyframe, captured };
    Unit { head, payload: Bytes::from(vec![dts.get() as u8; len]) }
}

/// Pictures at 30 a second with a keyframe every `gop`, and AAC; in order of time, from `from` for `secs`.
pub(super) fn scene(from: i64, secs: i64, gop: i64) -> Vec<Unit> {
    let mut units: Vec<Unit> = (0..secs * 30)
        .map(|n| unit(TrackId::VIDEO, from + n * 3000, 6000, n % gop == 0, 500 + (n % 7) as usize))
        .collect();
    units.extend(
        (0..secs * 44_100 / 1024).map(|n| {
            unit(TrackId::AUDIO, from + n * 1024 * SECOND / 44_100, 0, true, 100 + (n % 5) as usize)
        }),
    );
    units.sort_by_key(|unit| (unit.head.dts, unit.head.track));
    units
}

pub(super) fn play(package: &mut Package, units: &[Unit]) {
    for unit in units {
        package.on_unit(unit, 0);
    }
}

pub(super) fn lane(package: &Package, kind: TrackKind) -> Vec<Arc<Segment>> {
    package.lane(kind).unwrap().segments().cloned().collect()
}

#[test]
fn durations_are_exact_and_sum_up_to_the_timestamps() {
    let mut package = Package::new(settings());
    package.on_tracks(&both());
    let units = scene(9_000, 9, 60);
    play(&mut package, &units);
    for (kind, track) in [(TrackKind::Video, TrackId::VIDEO), (TrackKind::Audio, TrackId::AUDIO)] {
        let times: Vec<i64> =
            units.iter().filter(|unit| unit.head.track == track).map(|unit| unit.head.dts.get()).collect();
        let segments = lane(&package, kind);
        assert_eq!(segments.iter().map(|segment| segment.number).collect::<Vec<_>>(), [100, 101, 102, 103]);
        let samples: Vec<Sample> = segments.iter().flat_map(|segment| segment.samples().cloned()).collect();
        for (sample, pair) in samples.iter().zip(times.windows(2)) {
            assert_eq!((sample.dts, i64::from(sample.duration)), (pair[0], pair[1] - pair[0]));
        }
        let mut end = times[0];
        for segment in &segments {
            assert_eq!(segment.start, end, "no gap, no overlap");
            let parts: i64 = segment.parts.iter().map(|part| part.duration).sum();
            assert_eq!(parts, segment.duration);
            end += segment.duration;
        }
        assert_eq!(end, times[samples.len()], "the sum is the time of the first unit that is not in it");
    }
    let (video, audio) = (lane(&package, TrackKind::Video), lane(&package, TrackKind::Audio));
    for (video, audio) in video.iter().zip(&audio) {
        assert_eq!(video.duration, 2 * SECOND);
        assert!((0..2_100).contains(&(audio.start - video.start)), "sound is cut at the pictures' keyframes");
        assert!(video.independent && video.shown == video.start + 6000);
    }
}

#[test]
fn payloads_are_the_published_bytes_themselves() {
    let mut package = Package::new(settings());
    package.on_tracks(&both());
    let units = scene(0, 5, 60);
    play(&mut package, &units);
    let published: Vec<*const u8> = units.iter().map(|unit| unit.payload.as_ptr()).collect();
    let mut seen = 0;
    for segment in package.lanes().flat_map(Lane::segments) {
        for part in &segment.parts {
            let mut bytes = 0;
            for (at, piece) in (0..).map_while(|at| part.piece(at)).enumerate() {
                assert!(at == 0 || published.contains(&piece.as_ptr()));
                seen += usize::from(at > 0);
                bytes += piece.len() as u64;
            }
            assert_eq!(bytes, part.bytes);
        }
    }
    assert!(seen > 200);
}

#[test]
fn a_fragment_says_what_it_holds() {
    let sample = |dts, keyframe, len| Sample {
        payload: Bytes::from(vec![1; len]),
        dts,
        offset: 6000,
        duration: 3000,
        keyframe,
    };
    let head = fragment::head(TrackKind::Video, 7, &[sample(9000, true, 5), sample(12_000, false, 3)]);
    #[rustfmt::skip]
    let expected: Vec<u8> = [
        &[0, 0, 0, 124][..], b"moof",
        &[0, 0, 0, 16], b"mfhd", &[0, 0, 0, 0], &[0, 0, 0, 7],
        &[0, 0, 0, 100], b"traf",
        &[0, 0, 0, 20], b"tfhd", &[0, 2, 0, 0x20], &[0, 0, 0, 1], &[1, 1, 0, 0],
        &[0, 0, 0, 20], b"tfdt", &[1, 0, 0, 0], &9000u64.to_be_bytes(),
        &[0, 0, 0, 52], b"trun", &[0, 0, 0x0F, 1], &[0, 0, 0, 2], &[0, 0, 0, 132],
        &3000u32.to_be_bytes(), &[0, 0, 0, 5], &[2, 0, 0, 0], &6000u32.to_be_bytes(),
        &3000u32.to_be_bytes(), &[0, 0, 0, 3], &[1, 1, 0, 0], &6000u32.to_be_bytes(),
    ].concat();
    let mut expected = expected;
    expected.extend([0, 0, 0, 16]);
    expected.extend(b"mdat");
    assert_eq!(head, expected);
}

#[test]
fn a_restart_begins_a_period_and_numbers_go_on_together() {
    let mut package = Package::new(settings());
    package.on_tracks(&both());
    play(&mut package, &scene(0, 5, 60));
    package.interrupt();
    play(&mut package, &scene(20 * SECOND, 5, 60));
    for kind in [TrackKind::Video, TrackKind::Audio] {
        let segments = lane(&package, kind);
        let told: Vec<_> = segments.iter().map(|s| (s.number, s.period, s.is_discontinuity)).collect();
        assert_eq!(
            told,
            [(100, 0, false), (101, 0, false), (102, 0, false), (103, 1, true), (104, 1, false)]
        );
        assert!(segments[3].start - 20 * SECOND < 2100);
    }
    let text = hls::media(&package, package.lead().unwrap(), false);
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1);
    assert!(text.contains("#EXT-X-DISCONTINUITY-SEQUENCE:0\n"));
}

#[test]
fn parts_keep_to_the_target_and_a_long_gop_is_cut() {
    let mut package = Package::new(settings());
    package.on_tracks(&both());
    play(&mut package, &scene(0, 4, 60));
    // Then a source without keyframes for ten seconds.
    let mut tail = scene(4 * SECOND, 10, 1_000);
    tail.retain(|unit| unit.head.dts.get() >= 4 * SECOND);
    play(&mut package, &tail);
    let target = package.part_target().unwrap();
    assert_eq!(package.target_secs(), 2);
    for lane in package.lanes() {
        for segment in lane.segments() {
            assert!(segment.duration < 2 * SECOND + SECOND / 2, "{segment:?}");
            for (at, part) in segment.parts.iter().enumerate() {
                assert!(part.duration <= target);
                let last = at + 1 == segment.parts.len();
                assert!(
                    last || part.independent && lane.kind() == TrackKind::Video
                        || part.duration * 100 >= target * 85
                );
            }
        }
    }
    let text = hls::media(&package, package.lead().unwrap(), false);
    assert!(!text.contains("INDEPENDENT-SEGMENTS"), "cut within a GOP, which is told");
}

#[test]
fn sound_that_stops_leaves_gaps_instead_of_stopping_the_pictures() {
    let mut package = Package::new(settings());
    package.on_tracks(&both());
    play(&mut package, &scene(0, 4, 60));
    let silent: Vec<Unit> =
        scene(4 * SECOND, 8, 60).into_iter().filter(|unit| unit.head.track == TrackId::VIDEO).collect();
    play(&mut package, &silent);
    let audio = lane(&package, TrackKind::Audio);
    assert!(audio.len() >= 4 && audio.last().unwrap().parts.is_empty());
    let text = hls::media(&package, package.lane(TrackKind::Audio).unwrap(), false);
    assert!(text.contains("#EXT-X-GAP\n"));
    // It comes back.
    play(&mut package, &scene(12 * SECOND, 6, 60));
    assert!(lane(&package, TrackKind::Audio).last().unwrap().parts.len() > 1);
}

#[test]
fn memory_is_bounded_by_bytes_and_by_the_window() {
    let mut package = Package::new(Settings { max_bytes: 200_000, ..settings() });
    package.on_tracks(&both());
    for at in 0..40 {
        play(&mut package, &scene(at * 4 * SECOND, 4, 60));
        assert!(package.bytes() <= 210_000, "{}", package.bytes());
    }
    let mut package = Package::new(settings());
    package.on_tracks(&both());
    for at in 0..40 {
        play(&mut package, &scene(at * 4 * SECOND, 4, 60));
    }
    let lead = package.lead().unwrap();
    assert_eq!(package.listed(lead).count(), 6);
    assert!((12..=14).contains(&lead.segments().count()), "{}", lead.segments().count());
    assert_eq!(package.lane(TrackKind::Audio).unwrap().segments().count(), lead.segments().count());
}

#[test]
fn sound_alone_is_cut_by_itself() {
    let mut package = Package::new(settings());
    package.on_tracks(&Tracks::new(vec![audio_track()]));
    let units: Vec<Unit> =
        scene(0, 9, 60).into_iter().filter(|unit| unit.head.track == TrackId::AUDIO).collect();
    play(&mut package, &units);
    assert!(package.is_ready() && lane(&package, TrackKind::Audio).len() >= 4);
    let master = hls::master(&package, "");
    assert!(master.contains("CODECS=\"mp4a.40.2\"") && master.ends_with("audio.m3u8\n"));
}

#[test]
fn a_header_that_comes_late_makes_no_period() {
    let mut package = Package::new(settings());
    package.on_tracks(&Tracks::new(vec![video_track()]));
    package.on_unit(&unit(TrackId::VIDEO, 0, 0, true, 10), 0);
    package.on_tracks(&both());
    play(&mut package, &scene(3000, 5, 60));
    assert!(lane(&package, TrackKind::Video).iter().all(|segment| !segment.is_discontinuity));
    assert_eq!(lane(&package, TrackKind::Audio)[0].number, 100);
}

#[test]
fn players_of_whole_segments_are_told_where_to_begin() {
    let list = |part, ends: bool| {
        let mut package = Package::new(Settings { part, ..settings() });
        package.on_tracks(&both());
        play(&mut package, &scene(0, 9, 60));
        if ends {
            package.end();
        }
        hls::media(&package, package.lead().unwrap(), false)
    };
    let start = "\n#EXT-X-START:TIME-OFFSET=-4.000000\n";
    assert!(list(None, false).contains(start), "two target durations");
    assert!(!list(None, true).contains("EXT-X-START"), "what is over is played from its beginning");
    assert!(!list(Some(SECOND / 2), false).contains("EXT-X-START"), "with parts the hold-backs say it");
}
