use super::*;
use crate::rtmp::chunk_reader::{Message, kind};
use fieldgate_media::{HEADROOM, Ticks, TrackId, TrackKind};

const AVCC: &[u8] = &[1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f, 1, 0, 2, 0x68, 0xef];
const ASC: &[u8] = &[0x12, 0x10];

fn message(kind: u8, timestamp: u32, parts: &[&[u8]]) -> Message {
    Message::copied(kind, timestamp, 1, 6, &parts.concat())
}

fn all(demuxer: &mut Demuxer, message: Message) -> Result<Vec<Item>, FlvError> {
    demuxer.push(message);
    let mut items = Vec::new();
    while let Some(item) = demuxer.poll()? {
        items.push(item);
    }
    Ok(items)
}

fn one_unit(items: Vec<Item>) -> fieldgate_media::Draft {
    match items.into_iter().next_back() {
        Some(Item::Unit(draft)) => draft,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_unit_is_a_slice_of_its_message() {
    let mut demuxer = Demuxer::new();
    let items = all(&mut demuxer, message(kind::VIDEO, 0, &[&[0x17, 0, 0, 0, 0], AVCC])).unwrap();
    assert!(matches!(&items[..], [Item::Tracks { same: false, .. }]));
    let coded = message(kind::VIDEO, 40, &[&[0x17, 1, 0, 0, 80], b"picture"]);
    let payload_at = coded.body()[5..].as_ptr();
    let draft = one_unit(all(&mut demuxer, coded).unwrap());
    assert_eq!((draft.payload(), draft.payload().as_ptr()), (&b"picture"[..], payload_at));
    assert!(draft.head.keyframe);
    assert_eq!((draft.head.dts, draft.head.pts), (Ticks::from_millis(40), Ticks::from_millis(120)));
    assert_eq!(draft.head.source_dts, draft.head.dts);
}

#[test]
fn composition_times_are_signed() {
    let tag = demux_video(&[0x27, 1, 0xFF, 0xFF, 0xD8, 9]).unwrap();
    assert!(matches!(tag, Tag::Unit { composition_ms: -40, keyframe: false, at: 5, .. }));
}

#[test]
fn an_identical_header_is_announced_as_the_same() {
    let mut demuxer = Demuxer::new();
    for expected in [false, true] {
        let items = all(&mut demuxer, message(kind::AUDIO, 0, &[&[0xAF, 0], ASC])).unwrap();
        let [Item::Tracks { tracks, same, header_of: Some(TrackId::AUDIO) }] = &items[..] else {
            panic!("{items:?}")
        };
        assert_eq!((*same, tracks.first(TrackKind::Audio).unwrap().audio.sample_rate), (expected, 44_100));
    }
    let items = all(&mut demuxer, message(kind::AUDIO, 0, &[&[0xAF, 0], &[0x11, 0x90]])).unwrap();
    assert!(matches!(&items[..], [Item::Tracks { same: false, .. }]));
}

#[test]
fn units_before_their_header_are_skipped_and_counted() {
    let mut demuxer = Demuxer::new();
    assert!(all(&mut demuxer, message(kind::VIDEO, 0, &[&[0x17, 1, 0, 0, 0], b"x"])).unwrap().is_empty());
    assert!(all(&mut demuxer, message(kind::AUDIO, 0, &[&[0xAF, 1], b"x"])).unwrap().is_empty());
    assert_eq!(demuxer.skipped(), 2);
}

#[test]
fn times_unwrap_across_their_end_and_back() {
    let mut demuxer = Demuxer::new();
    all(&mut demuxer, message(kind::AUDIO, 0xFFFF_FFF0, &[&[0xAF, 0], ASC])).unwrap();
    let mut at =
        |time| one_unit(all(&mut demuxer, message(kind::AUDIO, time, &[&[0xAF, 1], b"x"])).unwrap()).head.dts;
    assert_eq!(at(0xFFFF_FFFF), Ticks::from_millis(0xFFFF_FFFF));
    assert_eq!(at(9), Ticks::from_millis(0x1_0000_0009));
    // R14: a step back is a step back.
    assert_eq!(at(0xFFFF_FFFE), Ticks::from_millis(0xFFFF_FFFE));
}

#[test]
fn every_codec_of_enhanced_rtmp_is_told_by_its_fourcc() {
    for codec in FOURCC_CODECS {
        let code = fourcc(codec).unwrap();
        let (demux, first): (fn(&[u8]) -> _, u8) = match codec.kind() {
            TrackKind::Video => (demux_video, 0x90),
            TrackKind::Audio => (demux_audio, 0x90),
        };
        let body = |packet: u8| [&[first | packet][..], &code, &[0, 0, 7, 9, 9]].concat();
        assert_eq!(demux(&body(0)), Ok(Tag::Header { codec, at: 5 }));
        let composed = matches!(codec, Codec::H264 | Codec::Hevc);
        let expected = if composed { (8, 7) } else { (5, 0) };
        let Tag::Unit { codec: got, at, composition_ms, keyframe, .. } = demux(&body(1)).unwrap() else {
            panic!()
        };
        assert_eq!((got, (at, composition_ms), keyframe), (codec, expected, true));
        assert_eq!(demux(&body(2)), Ok(Tag::EndOfSequence { kind: codec.kind() }));
        if codec.kind() == TrackKind::Video {
            assert!(matches!(demux(&body(3)), Ok(Tag::Unit { at: 5, composition_ms: 0, .. })));
            assert_eq!(demux(&body(4)), Ok(Tag::Metadata));
            assert_eq!(demux(&body(5)), Ok(Tag::Nothing));
        }
    }
}

#[test]
fn mod_ex_moves_the_presentation_by_nanoseconds() {
    // Size 3, value 555,555; next: nano offset type 0, coded frames X.
    let [_, a, b, c] = 555_555u32.to_be_bytes();
    let body = [&[0x97, 2, a, b, c, 0x03][..], b"av01", b"x"].concat();
    let Tag::Unit { nanos, at, .. } = demux_video(&body).unwrap() else { panic!() };
    assert_eq!((nanos, at), (555_555, 10));
    // An unknown type of 256 bytes before it is passed over.
    let long = [&[0x97, 0xFF, 0, 255][..], &[7; 256], &[0x17, 2, a, b, c, 0x01], b"vp09", b"x"].concat();
    assert!(matches!(demux_video(&long), Ok(Tag::Unit { nanos: 555_555, codec: Codec::Vp9, .. })));
    let audio = [&[0x97, 2, a, b, c, 0x01][..], b"Opus", b"x"].concat();
    assert!(matches!(demux_audio(&audio), Ok(Tag::Unit { nanos: 555_555, codec: Codec::Opus, .. })));
    let mut demuxer = Demuxer::new();
    let draft = one_unit(all(&mut demuxer, message(kind::AUDIO, 10, &[&audio])).unwrap());
    assert_eq!(draft.head.pts, Ticks::new(900 + 49));
}

#[test]
fn multitrack_is_taken_for_the_first_track_and_refused_by_name_otherwise() {
    let first = [&[0x96, 0x01][..], b"hvc1", &[0], &[0, 0, 0], b"x"].concat();
    assert!(matches!(demux_video(&first), Ok(Tag::Unit { codec: Codec::Hevc, at: 10, .. })));
    let second = [&[0x96, 0x01][..], b"hvc1", &[1], &[0, 0, 0], b"x"].concat();
    assert_eq!(demux_video(&second), Err(FlvError::Multitrack));
    let many = [&[0x95, 0x11][..], b"Opus", &[0, 0, 0, 1, 9]].concat();
    let error = demux_audio(&many).unwrap_err();
    assert!(error.is_final() && error.to_string().contains("multitrack"));
}

#[test]
fn plain_flv_sound_needs_no_header() {
    for (first, codec, rate, channels) in [
        (0x2Fu8, Codec::Mp3, 44_100, 2),
        (0xE2, Codec::Mp3, 8_000, 1),
        (0x72, Codec::PcmA, 8_000, 1),
        (0x83, Codec::PcmU, 8_000, 2),
    ] {
        let mut demuxer = Demuxer::new();
        let items = all(&mut demuxer, message(kind::AUDIO, 0, &[&[first], b"sound"])).unwrap();
        let [Item::Tracks { tracks, same: false, .. }, Item::Unit(draft)] = &items[..] else {
            panic!("{items:?}")
        };
        let track = tracks.get(TrackId::AUDIO).unwrap();
        assert_eq!((track.codec, track.audio.sample_rate, track.audio.channels), (codec, rate, channels));
        assert_eq!(draft.payload(), b"sound");
        let again = all(&mut demuxer, message(kind::AUDIO, 0, &[&[first], b"sound"])).unwrap();
        assert!(matches!(&again[..], [Item::Unit(_)]));
    }
}

#[test]
fn hevc_by_its_unofficial_number_is_taken() {
    assert_eq!(demux_video(&[0x1C, 0, 0, 0, 0, 1]), Ok(Tag::Header { codec: Codec::Hevc, at: 5 }));
}

#[test]
fn codecs_that_nobody_can_carry_are_refused_by_name() {
    for (error, name) in [
        (demux_video(&[0x12, 1]), "Sorenson"),
        (demux_video(&[0x90, b'v', b'v', b'c', b'1']), "FourCC vvc1"),
        (demux_audio(&[0xB2, 1]), "Speex"),
        (demux_audio(&[0x90, b'a', b'b', 0xFF, b'1']), "FourCC ab\\xff1"),
        // A sound FourCC in a video message.
        (demux_video(&[0x90, b'O', b'p', b'u', b's']), "FourCC Opus"),
    ] {
        let error = error.unwrap_err();
        assert!(error.is_final() && error.to_string().contains(name), "{error}");
    }
    let mut demuxer = Demuxer::new();
    let two_byte = [&[0x17, 0, 0, 0, 0], &AVCC[..4], &[0xfd], &AVCC[5..]].concat();
    let error = all(&mut demuxer, message(kind::VIDEO, 0, &[&two_byte])).unwrap_err();
    assert_eq!(error, FlvError::NalLengths { codec: "h264", len: 2 });
}

#[test]
fn empty_and_lone_bytes_are_nothing() {
    assert_eq!(demux_audio(&[]), Ok(Tag::Nothing));
    assert_eq!(demux_audio(&[0xAF]), Ok(Tag::Nothing));
    assert_eq!(demux_video(&[]), Ok(Tag::Nothing));
    assert_eq!(demux_video(&[0x57, 0]), Ok(Tag::Nothing));
}

#[test]
fn broken_messages_are_counted_and_too_many_in_a_row_are_final() {
    let mut demuxer = Demuxer::new();
    let broken = || message(kind::VIDEO, 0, &[&[0x17, 1]]);
    for _ in 0..64 {
        assert!(all(&mut demuxer, broken()).unwrap().is_empty());
    }
    assert_eq!(demuxer.unparsable(), 64);
    assert!(matches!(all(&mut demuxer, broken()), Err(FlvError::Persistent { count: 65, .. })));
    let mut demuxer = Demuxer::new();
    for _ in 0..64 {
        all(&mut demuxer, broken()).unwrap();
    }
    all(&mut demuxer, message(kind::AUDIO, 0, &[&[0xAF, 0], ASC])).unwrap();
    assert!(all(&mut demuxer, broken()).is_ok(), "something sound between them counts anew");
    let mut demuxer = Demuxer::new();
    let long = vec![0; 1 << 20];
    assert!(all(&mut demuxer, message(kind::VIDEO, 0, &[&[0x17, 0, 0, 0, 0], &long])).is_err());
}

fn aggregate(parts: &[(u8, u32, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, time, part) in parts {
        let [high, t0, t1, t2] = time.to_be_bytes();
        body.push(*kind);
        body.extend(&(part.len() as u32).to_be_bytes()[1..]);
        body.extend([t0, t1, t2, high, 0, 0, 0]);
        body.extend(*part);
        body.extend((part.len() as u32 + 11).to_be_bytes());
    }
    body
}

#[test]
fn r11_aggregates_are_unpacked_on_their_messages_timeline() {
    let header = [&[0xAF, 0], ASC].concat();
    let body = aggregate(&[
        (kind::AUDIO, 0x0100_0000, &header),
        (kind::AUDIO, 0x0100_0000, &[0xAF, 1, 1]),
        (kind::AUDIO, 0x0100_0017, &[0xAF, 1, 2]),
        (kind::AGGREGATE, 0x0100_0017, &[0]),
    ]);
    let mut demuxer = Demuxer::new();
    let items = all(&mut demuxer, message(kind::AGGREGATE, 5000, &[&body])).unwrap();
    let [Item::Tracks { .. }, Item::Unit(a), Item::Unit(b)] = &items[..] else { panic!("{items:?}") };
    assert_eq!((a.head.dts, b.head.dts), (Ticks::from_millis(5000), Ticks::from_millis(5023)));
    assert_eq!((a.payload(), b.payload()), (&[1][..], &[2][..]));
    for end in 0..body.len() {
        all(&mut Demuxer::new(), message(kind::AGGREGATE, 0, &[&body[..end]])).unwrap();
    }
}

#[test]
fn r02_a_lone_set_data_frame_is_survived() {
    let mut demuxer = Demuxer::new();
    let body = [&[2, 0, 13][..], b"@setDataFrame"].concat();
    assert!(all(&mut demuxer, message(kind::DATA, 0, &[&body])).unwrap().is_empty());
    assert!(all(&mut demuxer, message(kind::DATA, 0, &[])).unwrap().is_empty());
}

#[test]
fn metadata_fills_what_headers_leave_open() {
    let mut body = bytes::BytesMut::new();
    use crate::rtmp::amf::{Field, put};
    let fields = [
        ("width", Field::Number(640.0)),
        ("height", Field::Text("360")),
        ("framerate", Field::Number(f64::NAN)),
        ("audiochannels", Field::Number(1e300)),
        ("stereo", Field::Bool(true)),
        ("encoder", Field::Text("test")),
    ];
    put(&mut body, Field::Text("@setDataFrame"));
    put(&mut body, Field::Text("onMetaData"));
    put(&mut body, Field::Map(&fields));
    let mut demuxer = Demuxer::new();
    for (kind, prefix) in [(kind::DATA, &[][..]), (kind::DATA_AMF3, &[0])] {
        let items = all(&mut demuxer, message(kind, 0, &[prefix, &body])).unwrap();
        let [Item::Metadata(metadata)] = &items[..] else { panic!("{items:?}") };
        assert_eq!((metadata.video.width, metadata.video.height, metadata.video.frame_rate), (640, 360, 0.0));
        assert_eq!((metadata.audio.channels, metadata.encoder.as_deref()), (2, Some("test")));
    }
    let items = all(&mut demuxer, message(kind::VIDEO, 0, &[&[0x17, 0, 0, 0, 0], AVCC])).unwrap();
    let [Item::Tracks { tracks, .. }] = &items[..] else { panic!("{items:?}") };
    assert_eq!(tracks.get(TrackId::VIDEO).unwrap().video.width, 640);
}

#[test]
fn the_headroom_is_enough_for_any_draft() {
    let mut demuxer = Demuxer::new();
    let draft = one_unit(all(&mut demuxer, message(kind::AUDIO, 0, &[&[0x72], b"x"])).unwrap());
    let (unit, wire) = draft.finish(|room| room.len());
    assert_eq!((unit.payload.len(), wire.len()), (1, HEADROOM + 1));
}

fn on_meta_data(fields: &[(&str, crate::rtmp::amf::Field<'_>)]) -> Message {
    use crate::rtmp::amf::{Field, put};
    let mut body = bytes::BytesMut::new();
    put(&mut body, Field::Text("onMetaData"));
    put(&mut body, Field::Map(fields));
    message(kind::DATA, 0, &[&body])
}

#[test]
fn what_the_encoder_declares_comes_with_the_next_header_even_an_identical_one() {
    use crate::rtmp::amf::Field::Number;
    let mut demuxer = Demuxer::new();
    let header = || message(kind::VIDEO, 0, &[&[0x17, 0, 0, 0, 0], AVCC]);
    let picture = || message(kind::VIDEO, 0, &[&[0x17, 1, 0, 0, 0], b"x"]);
    all(&mut demuxer, header()).unwrap();
    let first = [("videodatarate", Number(97.65)), ("width", Number(160.0)), ("framerate", Number(15.0))];
    // Behind the header but before any picture: still in time.
    let items = all(&mut demuxer, on_meta_data(&first)).unwrap();
    let [Item::Metadata(_), Item::Tracks { tracks, same: true, header_of: None }] = &items[..] else {
        panic!("{items:?}")
    };
    let declared = tracks.get(TrackId::VIDEO).unwrap().declared;
    assert_eq!((declared.bits_per_second, declared.width, declared.frame_rate), (97_650, 160, 15.0));
    all(&mut demuxer, picture()).unwrap();
    assert!(matches!(&all(&mut demuxer, on_meta_data(&[])).unwrap()[..], [Item::Metadata(_)]));
    let items = all(&mut demuxer, header()).unwrap();
    let [Item::Tracks { tracks, same: true, header_of: Some(TrackId::VIDEO) }] = &items[..] else {
        panic!("{items:?}")
    };
    assert_eq!(tracks.get(TrackId::VIDEO).unwrap().declared.bits_per_second, 0);
}

#[test]
fn the_flags_of_plain_flv_sound_are_kept() {
    let mut demuxer = Demuxer::new();
    let mut declared = |parts: &[&[u8]]| {
        let items = all(&mut demuxer, message(kind::AUDIO, 0, parts)).unwrap();
        let Some(Item::Tracks { tracks, .. }) = items.first() else { panic!("{items:?}") };
        tracks.get(TrackId::AUDIO).unwrap().declared.flv_sound
    };
    assert_eq!(declared(&[&[0xAE, 0], ASC]), Some(0xAE));
    assert_eq!(declared(&[&[0xAF, 0], ASC]), Some(0xAF));
    assert_eq!(declared(&[&[0x72], b"sound"]), Some(0x72));
    assert_eq!(declared(&[&[0x91], b"Opus", b"sound"]), None);
}

#[test]
fn of_framerate_and_fps_the_later_one_counts() {
    use crate::rtmp::amf::Field::Number;
    let rate = |keys: &[(&str, f64)]| {
        let fields: Vec<_> = keys.iter().map(|&(key, value)| (key, Number(value))).collect();
        let body = on_meta_data(&fields);
        StreamMetadata::parse(body.body(), kind::DATA).unwrap().unwrap().video.frame_rate
    };
    assert_eq!(rate(&[("fps", 25.0)]), 25.0);
    assert_eq!(rate(&[("fps", 25.0), ("framerate", 30.0)]), 30.0);
    assert_eq!(rate(&[("framerate", 30.0), ("fps", 25.0)]), 25.0);
}
