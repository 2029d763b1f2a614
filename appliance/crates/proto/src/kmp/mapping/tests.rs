use super::*;
use crate::kmp::packet::Media;
use crate::kmp::{Direction, Packet, golden};
use crate::rtmp::flv::{Demuxer, Item};
use bytes::Bytes;
use fieldgate_media::{Captured, ClockSource, Declared, UnitHead};

/// What our demultiplexer and mapper make of an FLV file. `rate` takes the place of its frame rate.
fn mapped(input: &str, kind: TrackKind, settings: MapSettings, rate: Option<f64>) -> Vec<Mapped> {
    let (mut demuxer, mut mapper) = (Demuxer::new(), TrackMapper::new(kind, settings));
    let mut all = Vec::new();
    for message in golden::flv(input) {
        demuxer.push(message);
        while let Some(item) = demuxer.poll().unwrap() {
            match item {
                Item::Tracks { mut tracks, header_of, .. } => {
                    if let (Some(rate), Some(mut video)) = (rate, tracks.first(TrackKind::Video).cloned()) {
                        video.declared.frame_rate = rate;
                        tracks = tracks.with(video);
                    }
                    mapper.tracks(&tracks, header_of);
                }
                Item::Unit(draft) => all.extend(mapper.unit(&draft.finish(|_| 0).0, 0)),
                Item::Metadata(_) | Item::EndOfSequence(_) => {}
            }
        }
    }
    assert_eq!(mapper.left_out(), 0);
    all
}

/// The packets that hold the media of a recorded connection, and the number of its first frame.
fn recorded(wire: &[u8]) -> (u64, Vec<Packet>) {
    let (packets, complete) = golden::decode(Direction::ToReceiver, wire).unwrap();
    assert!(complete);
    let mut packets = packets.into_iter();
    let Some(Packet::Connect(connect)) = packets.next() else { panic!("no connect packet") };
    let media = packets.filter(|packet| matches!(packet, Packet::MediaInfo(_) | Packet::Frame(_))).collect();
    (connect.initial_frame_id, media)
}

/// A packet with the fields of wall clock masked: `created`. Frame ids are not in these packets.
fn told(packet: &Packet) -> String {
    match packet {
        Packet::MediaInfo(info) => format!("{info:?}"),
        Packet::Frame(frame) => {
            let FrameHead { created: _, dts, keyframe, pts_delay } = frame.head;
            format!(
                "dts {dts} delay {pts_delay} keyframe {keyframe} payload {:?}",
                Bytes::copy_from_slice(frame.payload())
            )
        }
        other => panic!("{other:?}"),
    }
}

/// The queue from frame `from` on, as a connection must carry it, with the `minf` before it in front.
fn expected(units: &[Mapped], from: usize) -> Vec<String> {
    let decoded = |wire: &Wire| {
        let wire = [&wire.head[..], &wire.body[..]].concat();
        let (mut packets, complete) = golden::decode(Direction::ToReceiver, &wire).unwrap();
        assert!(complete);
        told(&packets.remove(0))
    };
    let before = units[..from].iter().rev().find_map(|unit| unit.media_info.as_ref());
    let queue = units[from..].iter().flat_map(|unit| unit.media_info.iter().chain([&unit.frame]));
    before.into_iter().chain(queue).map(decoded).collect()
}

/// What was compared.
#[derive(Debug, Default, PartialEq)]
struct Compared {
    connections: usize,
    infos: usize,
    frames: usize,
    /// Connections that carry all that is left of the input.
    to_the_end: usize,
    /// Connections in which a packet differs.
    differ: Vec<String>,
}

/// Compares every recorded connection with what the mapper makes.
fn compare(strict: bool) -> Compared {
    let inputs = golden::inputs();
    let mut compared = Compared::default();
    for (name, wire) in golden::recordings(Direction::ToReceiver) {
        let (case, file) = name.split_once('/').unwrap();
        let Some(input) = inputs.get(case) else { continue };
        let (first_id, media) = recorded(&wire);
        // Every upstream of a track counts in the same ids.
        let track = file.split('.').next().unwrap();
        let (queue_start, _) = recorded(&golden::file(&format!("{case}/{track}.main.1.kmp")));
        let from = (first_id - queue_start) as usize;
        let kind = if track == "v1" { TrackKind::Video } else { TrackKind::Audio };
        let timescale = if case.starts_with("25_") { 1000 } else { 90_000 };
        let settings = MapSettings { strict, timescale, ..MapSettings::default() };
        // ffmpeg published this one: its onMetaData tells the rate that it measured, not the file's.
        let rate = case.starts_with("02_").then_some(989.0 / 33.0);
        let queue = expected(&mapped(input, kind, settings, rate), from);
        let same = media.iter().zip(&queue).all(|(got, want)| told(got) == *want);
        if !same || media.len() > queue.len() {
            compared.differ.push(name);
            continue;
        }
        let infos = media.iter().filter(|packet| matches!(packet, Packet::MediaInfo(_))).count();
        compared.connections += 1;
        compared.infos += infos;
        compared.frames += media.len() - infos;
        compared.to_the_end += usize::from(media.len() == queue.len());
    }
    compared
}

/// Deviations on purpose: none. Fields of wall clock masked: `created` and frame ids.
#[test]
fn strict_mode_makes_every_recorded_packet() {
    let compared = compare(true);
    assert_eq!(compared.differ, [""; 0]);
    assert_eq!(
        (compared.connections, compared.infos, compared.frames, compared.to_the_end),
        (103, 108, 7355, 63)
    );
}

/// Deviations on purpose of the default mode. Fields of wall clock masked: `created` and frame ids.
#[test]
fn the_default_mode_differs_from_the_reference_only_where_that_is_wrong() {
    let why = [
        // Mono sound is announced as mono, as its header says; FLV's flags say two channels.
        "02_h264_bframes_mono_aac/a1.main.1.kmp",
        // An identical `minf` is not repeated: it would cost a receiver the rest of the GOP.
        "06_header_change_eos_tag/v1.main.1.kmp",
        // Without onMetaData the frame rate is the header's.
        "11_edge_no_metadata/v1.main.1.kmp",
        // As 06.
        "31_reconnect_at_header_change/v1.main.1.kmp",
        // Sound beside HEVC keeps its own rate, and with it the times of its frames.
        "35_hevc_aac48_reference_defect/a1.main.1.kmp",
    ];
    assert_eq!(compare(false).differ, why);

    let both = |input, kind, rate| {
        let strict = MapSettings { strict: true, ..MapSettings::default() };
        [mapped(input, kind, strict, rate), mapped(input, kind, MapSettings::default(), rate)]
    };
    let infos = |units: &[Mapped]| units.iter().filter(|unit| unit.media_info.is_some()).count();
    for (input, kind, expected) in [
        ("bframes.flv", TrackKind::Audio, [1, 1]),
        ("change.flv", TrackKind::Video, [3, 2]),
        ("edge.flv", TrackKind::Video, [1, 1]),
    ] {
        let [strict, ours] = both(input, kind, None);
        assert_eq!([infos(&strict), infos(&ours)], expected, "{input}");
        assert!(strict.iter().map(|unit| &unit.frame).eq(ours.iter().map(|unit| &unit.frame)), "{input}");
    }
    // Steps of one frame (1024 samples at 48 kHz), where the reference has irregular ones.
    let [_, sound] = both("hevc_aac.flv", TrackKind::Audio, None);
    let steps: Vec<i64> = sound.windows(2).skip(1).map(|pair| pair[1].head.dts - pair[0].head.dts).collect();
    assert!(steps.iter().all(|step| *step == 1920), "{steps:?}");
}

fn track(codec: Codec, header: &'static [u8]) -> Track {
    let id = if codec.kind() == TrackKind::Video { TrackId::VIDEO } else { TrackId::AUDIO };
    Track::new(id, codec, Bytes::from_static(header))
}

fn unit(track: &Track, millis: i64, keyframe: bool, payload: &[u8]) -> Unit {
    let dts = Ticks::from_millis(millis);
    let head = UnitHead {
        track: track.id,
        // The clean line, which counts for nothing here.
        dts: dts + Ticks::new(7),
        pts: dts + Ticks::new(7),
        source_dts: dts,
        source_pts: dts + Ticks::from_millis(-40),
        keyframe,
        captured: Some(Captured { unix_micros: 1_700_000_000_000_001, by: ClockSource::Camera }),
    };
    Unit { head, payload: Bytes::copy_from_slice(payload) }
}

fn mapper(kind: TrackKind, strict: bool, timescale: u32) -> TrackMapper {
    TrackMapper::new(kind, MapSettings { strict, timescale, ..MapSettings::default() })
}

#[test]
fn a_frame_carries_the_sources_times_and_the_units_own_payload() {
    let sound = track(Codec::PcmU, b"");
    let video = track(Codec::H264, b"header");
    let tracks = Tracks::new(vec![video.clone(), sound.clone()]);
    for (strict, timescale, dts, delay, created) in [
        (false, 90_000, 1_000_080, -3600, 153_000_000_000_000),
        (true, 90_000, 1_000_080, -3600, 153_000_000_000_000),
        (false, 44_100, 490_039, -1764, 74_970_000_000_000),
        // The reference's integer division: 44 ticks a millisecond.
        (true, 44_100, 488_928, -1760, 74_970_000_000_000),
    ] {
        let mut mapper = mapper(TrackKind::Video, strict, timescale);
        mapper.tracks(&tracks, None);
        assert!(mapper.unit(&unit(&sound, 5, true, b"sound"), 0).is_none());
        assert!(mapper.unit(&unit(&video, 5, true, b""), 0).is_none());
        let picture = unit(&video, 11_112, true, b"picture");
        let mapped = mapper.unit(&picture, 0).unwrap();
        assert_eq!((mapped.head.dts, i64::from(mapped.head.pts_delay)), (dts, delay));
        assert_eq!(mapped.head.created, created);
        assert!(mapped.head.keyframe && mapped.media_info.is_some());
        assert_eq!(mapped.frame.body.as_ptr(), picture.payload.as_ptr());
        assert_eq!(mapper.frames(), 1);
    }
    let mut mapper = mapper(TrackKind::Audio, false, 1000);
    mapper.tracks(&tracks, None);
    let mut late = unit(&sound, 5, true, b"sound");
    late.head.captured = None;
    let mapped = mapper.unit(&late, 1_700_000_000_123_456).unwrap();
    assert_eq!((mapped.head.created, mapped.head.keyframe), (1_700_000_000_123, false));
}

#[test]
fn a_changed_header_waits_for_a_keyframe_and_only_strictly_does_not() {
    let declared = Declared { bits_per_second: 64_000, ..Declared::default() };
    for (strict, expected) in [(false, [1, 0, 0, 0, 1, 0]), (true, [1, 1, 0, 1, 0, 0])] {
        let video = track(Codec::H264, b"one");
        let mut mapper = mapper(TrackKind::Video, strict, 90_000);
        let mut infos = Vec::new();
        let mut step = |mapper: &mut TrackMapper, keyframe| {
            infos.push(usize::from(
                mapper.unit(&unit(&video, 0, keyframe, b"x"), 0).unwrap().media_info.is_some(),
            ));
        };
        mapper.tracks(&Tracks::new(vec![video.clone()]), Some(video.id));
        step(&mut mapper, true);
        // The same again.
        mapper.tracks(&Tracks::new(vec![video.clone()]), Some(video.id));
        step(&mut mapper, true);
        step(&mut mapper, false);
        let changed = Track { header: Bytes::from_static(b"two"), declared, ..video.clone() };
        mapper.tracks(&Tracks::new(vec![changed.clone()]), Some(video.id));
        step(&mut mapper, false);
        step(&mut mapper, true);
        // The other track's header, and one that is the same.
        mapper.tracks(&Tracks::new(vec![changed.clone()]), Some(TrackId::AUDIO));
        step(&mut mapper, true);
        assert_eq!(infos, expected, "strict {strict}");
        assert_eq!(mapper.media_info().unwrap().bitrate, 64_000);
    }
}

#[test]
fn captions_found_late_are_told_at_a_keyframe_or_strictly_with_the_next_header() {
    let captions = [&[0, 0, 0, 12, 6, 4, 8][..], &[0xB5, 0, 0x31], b"GA94", &[3, 0x80]].concat();
    for (strict, expected) in [(false, [true, false, true, false]), (true, [true, false, false, true])] {
        let video = track(Codec::H264, b"header");
        let tracks = Tracks::new(vec![video.clone()]);
        let mut mapper = mapper(TrackKind::Video, strict, 90_000);
        mapper.tracks(&tracks, Some(video.id));
        let mut told = Vec::new();
        for (at, keyframe) in [true, false, true, true].into_iter().enumerate() {
            if at == 3 {
                mapper.tracks(&tracks, Some(video.id));
            }
            let payload = if at == 1 { &captions[..] } else { b"\0\0\0\x01\x65" };
            told.push(mapper.unit(&unit(&video, 0, keyframe, payload), 0).unwrap().media_info.is_some());
        }
        assert_eq!(told, expected, "strict {strict}");
        let Some(MediaInfo { media: Media::Video(info), .. }) = mapper.media_info() else { panic!() };
        assert!(info.cea_captions);
    }
    let video = track(Codec::H264, b"header");
    let mut mapper = mapper(TrackKind::Video, false, 90_000);
    mapper.tracks(&Tracks::new(vec![video.clone()]), None);
    (0..CAPTION_PICTURES).for_each(|_| assert!(mapper.unit(&unit(&video, 0, true, b"x"), 0).is_some()));
    assert!(mapper.unit(&unit(&video, 0, true, &captions), 0).unwrap().media_info.is_none());
}

#[test]
fn every_sound_codec_is_carried_and_others_are_named() {
    for codec in [Codec::Mp3, Codec::PcmA, Codec::PcmU, Codec::Aac, Codec::Opus, Codec::Ac3, Codec::Eac3] {
        let mut mapper = mapper(TrackKind::Audio, false, 90_000);
        let sound = track(codec, b"\x12\x10");
        mapper.tracks(&Tracks::new(vec![sound.clone()]), None);
        assert!(mapper.unit(&unit(&sound, 0, true, b"x"), 0).is_some(), "{codec:?}");
        assert_eq!(mapper.unsupported(), None);
    }
    let mut mapper = mapper(TrackKind::Video, false, 90_000);
    let video = track(Codec::Av1, b"header");
    mapper.tracks(&Tracks::new(vec![video.clone()]), None);
    assert!(mapper.unit(&unit(&video, 0, true, b"x"), 0).is_none());
    assert_eq!((mapper.unsupported(), mapper.left_out(), mapper.frames()), (Some(Codec::Av1), 1, 0));
}

#[test]
fn times_of_aac_follow_the_frames_within_the_margin() {
    let config: [&[u8]; 2] = [&[0x12, 0x10], &[0x2b, 0x11, 0x88, 0x00]];
    let times = |header: &'static [u8], strict, millis: &[i64]| -> Vec<i64> {
        let sound = track(Codec::Aac, header).with_header_shape();
        let mut mapper = mapper(TrackKind::Audio, strict, 90_000);
        mapper.tracks(&Tracks::new(vec![sound.clone()]), Some(sound.id));
        millis.iter().map(|at| mapper.unit(&unit(&sound, *at, true, b"x"), 0).unwrap().head.dts).collect()
    };
    for strict in [false, true] {
        assert_eq!(times(config[0], strict, &[0, 23, 46, 69]), [0, 2070, 4159, 6249]);
        // 2 ms off is near enough, 3 ms begins anew.
        assert_eq!(times(config[0], strict, &[0, 23, 48, 69]), [0, 2070, 4159, 6249]);
        assert_eq!(times(config[0], strict, &[0, 23, 50, 73]), [0, 2070, 4500, 6589]);
    }
    // SBR at 48 kHz: 2048 samples in 42.7 ms. The reference counts 1024, and so misses every time.
    assert_eq!(times(config[1], false, &[0, 43, 85, 128]), [0, 3870, 7710, 11_550]);
    assert_eq!(times(config[1], true, &[0, 43, 85, 128]), [0, 3870, 7650, 11_520]);
}

#[test]
fn strict_time_wraps_for_each_track_by_itself() {
    let mut clock = MilliClock::default();
    let times = [0xFFFF_FFF0u32, 0xFFFF_FFFF, 9, 0xFFFF_FFFE].map(|millis| clock.unwrap(millis));
    assert_eq!(times, [0xFFFF_FFF0, 0xFFFF_FFFF, 0x1_0000_0009, 0xFFFF_FFFE]);
}
