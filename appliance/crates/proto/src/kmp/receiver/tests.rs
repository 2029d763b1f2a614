use super::*;
use crate::kmp::golden;
use crate::kmp::packet::{Audio, FrameHead, Media, Name, Rational, Video};
use bytes::{Bytes, BytesMut};
use fieldgate_media::Codec;

const AVCC: &[u8] = b"\x01\x64\0\x0b\xff\xe1\0\0\x01\0\0";
const FIRST_ID: u64 = 1_000;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn connect(initial_frame_id: u64) -> Connect {
    Connect {
        channel_id: name("ch"),
        track_id: name("v1"),
        initial_frame_id,
        initial_upstream_frame_id: 0,
        initial_offset: 0,
        consistent: true,
        data: Bytes::new(),
    }
}

fn video_info() -> MediaInfo {
    MediaInfo {
        codec_id: 7,
        timescale: 90_000,
        bitrate: 100_000,
        media: Media::Video(Video {
            width: 160,
            height: 120,
            frame_rate: Rational { num: 15, denom: 1 },
            cea_captions: false,
        }),
        extra_data: Bytes::from_static(AVCC),
    }
}

fn sound_info(codec_id: u32) -> MediaInfo {
    let sound = Audio { channels: 2, bits_per_sample: 16, sample_rate: 48_000, channel_layout: 3 };
    MediaInfo { codec_id, media: Media::Audio(sound), extra_data: Bytes::new(), ..video_info() }
}

/// A connection's bytes, put together.
#[derive(Default)]
struct Script(BytesMut);

impl Script {
    fn from(connect: &Connect) -> Script {
        let mut script = Script::default();
        connect.encode(&mut script.0);
        script
    }

    fn wire(mut self, wire: &crate::kmp::Wire) -> Script {
        self.0.extend_from_slice(&wire.head);
        self.0.extend_from_slice(&wire.body);
        self
    }

    fn info(self, info: &MediaInfo) -> Script {
        self.wire(&info.encode())
    }

    fn frame(self, dts: i64, keyframe: bool, payload: &[u8]) -> Script {
        let head = FrameHead { created: 900_000, dts, keyframe, pts_delay: -3600 };
        self.wire(&head.encode(Bytes::copy_from_slice(payload)))
    }

    /// Frames with these numbers; a keyframe every ten. Their payload is their number.
    fn frames(self, numbers: std::ops::Range<i64>) -> Script {
        numbers.fold(self, |script, n| script.frame(n * 6000, n % 10 == 0, &n.to_be_bytes()))
    }

    fn raw(mut self, bytes: &[u8]) -> Script {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// What came of a connection.
#[derive(Debug, Default)]
struct Outcome {
    units: Vec<(u64, UnitHead, Vec<u8>)>,
    tracks: Vec<(Track, bool, bool)>,
    refs: Vec<FrameRef>,
    ended: bool,
    error: Option<ReceiveError>,
    join: Option<Join>,
    receiver: Option<Receiver>,
}

impl Outcome {
    fn payload_numbers(&self) -> Vec<i64> {
        let number = |payload: &Vec<u8>| i64::from_be_bytes(payload[..].try_into().unwrap());
        self.units.iter().map(|(_, _, payload)| number(payload)).collect()
    }

    fn ack(&mut self, memory: &TrackMemory) -> Option<u64> {
        self.receiver.as_mut().unwrap().poll_ack(memory).map(|ack| ack.frame_id)
    }
}

fn run_as(
    settings: ReceiverSettings,
    kind: TrackKind,
    memory: &mut TrackMemory,
    pieces: &[&[u8]],
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut opening = Some(Opening::new(settings));
    for piece in pieces {
        let mut input = *piece;
        loop {
            let result = match (&mut outcome.receiver, &mut opening) {
                (Some(receiver), _) => receiver.read(memory, &mut input),
                (None, Some(waiting)) => match waiting.read(&mut input) {
                    Ok(Some(connect)) => {
                        let (receiver, join) = opening.take().unwrap().accept(&connect, kind, memory);
                        (outcome.receiver, outcome.join) = (Some(receiver), Some(join));
                        continue;
                    }
                    Ok(None) => break,
                    Err(error) => Err(error),
                },
                (None, None) => unreachable!(),
            };
            match result {
                Ok(None) => break,
                Ok(Some(Event::End)) => {
                    outcome.ended = true;
                    return outcome;
                }
                Ok(Some(Event::Track { track, resent, same })) => outcome.tracks.push((track, resent, same)),
                Ok(Some(Event::Unit { frame, draft })) => {
                    outcome.refs.push(frame);
                    outcome.units.push((frame.id(), draft.head, draft.payload().to_vec()));
                }
                Err(error) => {
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
    }
    outcome
}

fn run(memory: &mut TrackMemory, script: Script) -> Outcome {
    run_as(ReceiverSettings::default(), TrackKind::Video, memory, &[&script.0])
}

fn strict() -> ReceiverSettings {
    ReceiverSettings { strict: true, ..ReceiverSettings::default() }
}

fn error_of(script: Script) -> ReceiveError {
    run(&mut TrackMemory::default(), script).error.unwrap()
}

#[test]
fn the_first_packet_must_be_a_connect_and_no_second_may_follow() {
    assert_eq!(error_of(Script::default().info(&video_info())), ReceiveError::NotConnect);
    assert_eq!(error_of(Script::default().raw(&crate::kmp::packet::NULL)), ReceiveError::NotConnect);
    let twice = Script::from(&connect(1)).raw(&Script::from(&connect(1)).0);
    assert_eq!(error_of(twice), ReceiveError::ConnectAgain);
}

#[test]
fn what_is_no_packet_of_a_sender_ends_the_connection_by_name() {
    let begun = || Script::from(&connect(1));
    let mut ack = BytesMut::new();
    Ack { frame_id: 1, upstream_frame_id: 0, offset: 0 }.encode(&mut ack);
    assert!(matches!(error_of(begun().raw(&ack)), ReceiveError::Read(ReadError::Kind { .. })));
    assert!(matches!(error_of(begun().raw(&[b'x'; 16])), ReceiveError::Read(ReadError::Kind { .. })));
    let timeless = MediaInfo { timescale: 0, ..video_info() };
    assert_eq!(error_of(begun().info(&timeless)), ReadError::Timescale.into());
    let mut short = video_info().encode().head.to_vec();
    short[4] = 47;
    assert!(matches!(error_of(begun().raw(&short)), ReceiveError::Read(ReadError::HeaderLen { .. })));
    let settings = ReceiverSettings { limits: Limits { frame_len: 4, ..Limits::default() }, ..strict() };
    let script = begun().info(&video_info()).frame(0, true, b"12345");
    let outcome = run_as(settings, TrackKind::Video, &mut TrackMemory::default(), &[&script.0]);
    assert!(matches!(outcome.error, Some(ReceiveError::Read(ReadError::DataTooLong { max: 4, .. }))));
}

#[test]
fn a_track_of_the_wrong_or_a_changed_kind_is_refused() {
    let begun = || Script::from(&connect(1));
    let wanted = TrackKind::Video;
    let refused = error_of(begun().info(&sound_info(1010)));
    assert_eq!(refused, ReceiveError::Kind { got: MediaKind::Audio, wanted });
    let subtitle = MediaInfo { codec_id: 2001, media: Media::Subtitle, ..video_info() };
    assert_eq!(error_of(begun().info(&subtitle)), ReceiveError::Kind { got: MediaKind::Subtitle, wanted });
    let changed = begun().info(&video_info()).info(&sound_info(1010));
    let (from, to) = (MediaKind::Video, MediaKind::Audio);
    assert_eq!(error_of(changed), ReceiveError::KindChanged { from, to });
}

#[test]
fn codecs_and_headers_that_no_output_can_carry_are_refused() {
    let begun = || Script::from(&connect(1));
    let sorenson = MediaInfo { codec_id: 2, ..video_info() };
    assert_eq!(error_of(begun().info(&sorenson)), ReceiveError::Codec { codec_id: 2 });
    let broken = MediaInfo { extra_data: Bytes::from_static(b"\x01"), ..video_info() };
    assert_eq!(error_of(begun().info(&broken)), ReceiveError::Header { codec_id: 7, len: 1 });
    let mut short_lengths = AVCC.to_vec();
    short_lengths[4] = 0xFD;
    let short = MediaInfo { extra_data: short_lengths.into(), ..video_info() };
    assert_eq!(error_of(begun().info(&short)), ReceiveError::NalLengths { len: 2 });
    for (codec_id, codec) in [
        (1002, Codec::Mp3),
        (1014, Codec::Mp3),
        (1007, Codec::PcmA),
        (1008, Codec::PcmU),
        (1016, Codec::Ac3),
        (1017, Codec::Eac3),
        (1018, Codec::Opus),
    ] {
        let script = begun().info(&sound_info(codec_id)).frame(0, false, b"x");
        let mut memory = TrackMemory::default();
        let outcome = run_as(strict(), TrackKind::Audio, &mut memory, &[&script.0]);
        let (track, ..) = &outcome.tracks[0];
        assert_eq!((track.codec, track.audio.sample_rate, track.audio.channels), (codec, 48_000, 2));
        assert!(outcome.units[0].1.keyframe, "sound is always decodable alone");
    }
}

#[test]
fn times_of_any_timescale_become_ticks_and_delays_are_signed() {
    for (timescale, dts, ticks) in [
        (90_000, -7, -7),
        (1000, 33, 2970),
        (48_000, 1024, 1920),
        (44_100, 1, 2),
        (u32::MAX, i64::MAX, i64::MAX),
    ] {
        let info = MediaInfo { timescale, ..video_info() };
        let head = FrameHead { created: 0, dts, keyframe: true, pts_delay: -40 };
        let script = Script::from(&connect(1)).info(&info).wire(&head.encode(Bytes::from_static(b"x")));
        let outcome = run(&mut TrackMemory::default(), script);
        let head = outcome.units[0].1;
        let expected = if timescale == u32::MAX { 193_273_528_365_000 } else { ticks };
        assert_eq!(head.dts.get(), expected, "{timescale}");
        assert_eq!(head.source_dts, head.dts);
        assert_eq!(head.captured, None);
        if timescale == 1000 {
            assert_eq!(head.pts.get(), -7 * 90);
        }
    }
    let script = Script::from(&connect(1)).info(&video_info()).frames(0..1);
    let outcome = run(&mut TrackMemory::default(), script);
    assert_eq!(outcome.units[0].1.captured.unwrap().unix_micros, 10_000_000);
    assert_eq!(outcome.units[0].1.pts.get(), -3600);
}

#[test]
fn frames_of_no_use_are_left_out_with_the_reason_but_use_up_their_ids() {
    let script = Script::from(&connect(FIRST_ID))
        .frames(0..2)
        .info(&video_info())
        .frames(3..5)
        .frame(0, true, b"")
        .raw(&crate::kmp::packet::NULL)
        .frames(10..12)
        .frames(13..14);
    let mut memory = TrackMemory::default();
    let mut outcome = run(&mut memory, script);
    assert_eq!(outcome.payload_numbers(), [10, 11, 13]);
    assert_eq!(outcome.units[0].0, FIRST_ID + 5);
    let counters = memory.counters();
    assert_eq!((counters.no_media_info, counters.no_key, counters.empty), (2, 2, 1));
    assert_eq!((counters.received_frames, counters.received_keyframes), (8, 3));
    // What was left out is settled, what was handed out is not yet.
    assert_eq!(outcome.ack(&memory), Some(FIRST_ID + 5));
    memory.safe_until(outcome.refs[2]);
    assert_eq!(outcome.ack(&memory), Some(FIRST_ID + 8));
}

#[test]
fn of_two_media_infos_in_a_row_the_second_counts() {
    let other = MediaInfo { codec_id: 8, extra_data: hvcc(), ..video_info() };
    let script = Script::from(&connect(1)).info(&other).info(&video_info()).frames(0..1);
    let outcome = run(&mut TrackMemory::default(), script);
    assert_eq!(outcome.tracks.len(), 1);
    assert_eq!(outcome.tracks[0].0.codec, Codec::H264);
}

fn hvcc() -> Bytes {
    let mut header = vec![0; 23];
    (header[0], header[21]) = (1, 3);
    header.into()
}

#[test]
fn an_end_of_stream_is_noted_and_nothing_after_it_is_read() {
    let script =
        Script::from(&connect(1)).raw(&crate::kmp::packet::END_OF_STREAM).raw(b"anything else than a packet");
    let mut memory = TrackMemory::default();
    let outcome = run(&mut memory, script);
    assert!(outcome.ended && outcome.error.is_none());
    let mut receiver = outcome.receiver.unwrap();
    assert!(receiver.ended());
    assert!(receiver.read(&mut memory, &mut &b"rubbish rubbish rubbish"[..]).unwrap().is_none());
}

#[test]
fn what_was_had_before_a_reconnect_is_counted_and_left_out() {
    let mut memory = TrackMemory::default();
    run(&mut memory, Script::from(&connect(FIRST_ID)).info(&video_info()).frames(0..25));
    let again = Script::from(&connect(FIRST_ID + 12)).info(&video_info()).frames(12..40);
    let outcome = run(&mut memory, again);
    assert_eq!(outcome.join, Some(Join::Resumed { repeated: 13 }));
    // In the middle of a GOP, as the sender is consistent.
    assert_eq!(outcome.payload_numbers(), (25..40).collect::<Vec<_>>());
    assert_eq!(outcome.units[0].0, FIRST_ID + 25);
    assert!(outcome.tracks[0].1, "the track is the same as before");
    assert_eq!(memory.counters().duplicate, 13);
}

#[test]
fn a_sender_that_is_not_consistent_is_joined_at_a_keyframe() {
    let mut memory = TrackMemory::default();
    run(&mut memory, Script::from(&connect(FIRST_ID)).info(&video_info()).frames(0..25));
    let loose = Connect { consistent: false, ..connect(FIRST_ID + 25) };
    let outcome = run(&mut memory, Script::from(&loose).info(&video_info()).frames(25..35));
    assert_eq!(outcome.payload_numbers(), (30..35).collect::<Vec<_>>());
}

#[test]
fn a_track_starts_anew_beyond_the_limit_of_repeated_frames_and_after_a_gap() {
    let settings = ReceiverSettings { max_repeated_frames: 20, ..ReceiverSettings::default() };
    let mut memory = TrackMemory::default();
    run(&mut memory, Script::from(&connect(FIRST_ID)).info(&video_info()).frames(0..25));
    for (first, join) in [
        (FIRST_ID + 5, Join::Resumed { repeated: 20 }),
        (FIRST_ID + 4, Join::Anew),
        (FIRST_ID + 500, Join::Anew),
    ] {
        let outcome = run_as(settings, TrackKind::Video, &mut memory, &[&Script::from(&connect(first)).0]);
        assert_eq!(outcome.join, Some(join), "{first}");
    }
    let outcome = run(&mut memory, Script::from(&connect(FIRST_ID + 500)).info(&video_info()).frames(7..12));
    assert_eq!(outcome.join, Some(Join::Resumed { repeated: 0 }));
    assert_eq!(outcome.payload_numbers(), [10, 11], "no keyframe was had since the gap");
}

#[test]
fn only_a_changed_codec_header_waits_for_a_keyframe_unless_strict() {
    let changed = MediaInfo { extra_data: [AVCC, b"\0"].concat().into(), ..video_info() };
    let faster = MediaInfo { bitrate: 7, ..video_info() };
    for (second, settings, expected) in [
        (video_info(), ReceiverSettings::default(), vec![0, 1, 2, 9, 10]),
        (faster, ReceiverSettings::default(), vec![0, 1, 2, 9, 10]),
        (changed, ReceiverSettings::default(), vec![0, 1, 2, 10]),
        (video_info(), strict(), vec![0, 1, 2, 10]),
    ] {
        let script = Script::from(&connect(1)).info(&video_info()).frames(0..3).info(&second).frames(9..11);
        let outcome = run_as(settings, TrackKind::Video, &mut TrackMemory::default(), &[&script.0]);
        assert_eq!(outcome.payload_numbers(), expected, "{second:?}");
        assert_eq!(outcome.tracks.len(), 2, "also an identical media info is announced");
        assert!(!outcome.tracks[1].1);
    }
}

#[test]
fn acks_never_pass_what_came_over_this_connection_nor_what_is_safe() {
    let mut memory = TrackMemory::default();
    let mut first = run(&mut memory, Script::from(&connect(FIRST_ID)).info(&video_info()).frames(0..25));
    assert_eq!(first.ack(&memory), None);
    memory.safe_until(first.refs[9]);
    memory.safe_until(first.refs[3]);
    assert_eq!(first.ack(&memory), Some(FIRST_ID + 10));
    assert_eq!(first.ack(&memory), None, "never twice");
    // The connection is lost; the rest becomes safe meanwhile.
    memory.safe_until(first.refs[24]);
    let mut again =
        run(&mut memory, Script::from(&connect(FIRST_ID + 10)).info(&video_info()).frames(10..15));
    assert_eq!(again.ack(&memory), Some(FIRST_ID + 15), "the sender has not said yet that it sent more");
    let receiver = again.receiver.as_mut().unwrap();
    let more = Script::default().frames(15..30);
    let mut input = &more.0[..];
    while receiver.read(&mut memory, &mut input).unwrap().is_some() {}
    assert_eq!(again.ack(&memory), Some(FIRST_ID + 25));
}

#[test]
fn frames_of_an_earlier_session_make_nothing_of_the_new_one_safe() {
    let mut memory = TrackMemory::default();
    let old = run(&mut memory, Script::from(&connect(900_000)).info(&video_info()).frames(0..5));
    let mut new = run(&mut memory, Script::from(&connect(FIRST_ID)).info(&video_info()).frames(0..5));
    memory.safe_until(old.refs[4]);
    assert_eq!(new.ack(&memory), None);
    memory.safe_until(new.refs[4]);
    assert_eq!(new.ack(&memory), Some(FIRST_ID + 5));
}

#[test]
fn units_that_were_thrown_away_before_they_were_safe_are_taken_again() {
    let mut memory = TrackMemory::default();
    let first = run(&mut memory, Script::from(&connect(FIRST_ID)).info(&video_info()).frames(0..25));
    memory.safe_until(first.refs[19]);
    memory.forget_unsafe();
    let again = run(&mut memory, Script::from(&connect(FIRST_ID + 15)).info(&video_info()).frames(15..30));
    assert_eq!(again.payload_numbers(), (20..30).collect::<Vec<_>>());
}

#[test]
fn a_unit_behind_its_track_is_not_lost_when_the_connection_ends_between_them() {
    let mut memory = TrackMemory::default();
    let script = Script::from(&connect(FIRST_ID)).info(&video_info()).frames(0..1);
    let mut opening = Opening::new(ReceiverSettings::default());
    let mut input = &script.0[..];
    let cnct = opening.read(&mut input).unwrap().unwrap();
    let (mut receiver, _) = opening.accept(&cnct, TrackKind::Video, &mut memory);
    assert!(matches!(receiver.read(&mut memory, &mut input), Ok(Some(Event::Track { .. }))));
    drop(receiver);
    let again = run(&mut memory, Script::from(&connect(FIRST_ID)).info(&video_info()).frames(0..1));
    assert_eq!(again.payload_numbers(), [0]);
}

#[test]
fn ids_do_not_run_over() {
    let script = Script::from(&connect(u64::MAX - 2)).info(&video_info()).frames(0..3);
    let outcome = run(&mut TrackMemory::default(), script);
    assert_eq!((outcome.units.len(), outcome.error), (1, Some(ReceiveError::FrameIds)));
}

// The recorded cases.

fn kind_of(file: &str) -> TrackKind {
    if file.contains("/v1.") { TrackKind::Video } else { TrackKind::Audio }
}

/// All frames of a recording with what they need: payload and head as in the file.
fn frames_of(file: &str) -> Vec<(FrameHead, Vec<u8>)> {
    let (packets, _) = golden::decode(Direction::ToReceiver, &golden::file(file)).unwrap();
    let frame = |packet: Packet| match packet {
        Packet::Frame(frame) => Some((frame.head, frame.payload().to_vec())),
        _ => None,
    };
    packets.into_iter().filter_map(frame).collect()
}

fn replay(memory: &mut TrackMemory, file: &str) -> Outcome {
    run_as(ReceiverSettings::default(), kind_of(file), memory, &[&golden::file(file)])
}

fn assert_whole(file: &str) {
    let mut memory = TrackMemory::default();
    let outcome = replay(&mut memory, file);
    assert_eq!(outcome.error, None, "{file}");
    let sent = frames_of(file);
    assert_eq!(outcome.units.len(), sent.len(), "{file}");
    for ((_, head, payload), (sent, sent_payload)) in outcome.units.iter().zip(&sent) {
        assert_eq!(payload, sent_payload);
        assert_eq!(head.keyframe, sent.keyframe || kind_of(file) == TrackKind::Audio);
    }
}

#[test]
fn every_recorded_first_connection_is_taken_whole() {
    let mut files = 0;
    for (file, _) in golden::recordings(Direction::ToReceiver) {
        if file.ends_with(".1.kmp") && !file.contains("S_subtitle") {
            assert_whole(&file);
            files += 1;
        }
    }
    assert!(files > 50, "{files}");
}

#[test]
fn the_reference_receivers_counts_are_ours() {
    // Cases A and H of `R_receiver_nginx_live/results.json`: frames in the segments that it served.
    for (file, frames) in [
        ("29_long_for_receiver/v1.main.1.kmp", 360),
        ("29_long_for_receiver/a1.main.1.kmp", 1035),
        ("02_h264_bframes_mono_aac/v1.main.1.kmp", 90),
        ("02_h264_bframes_mono_aac/a1.main.1.kmp", 142),
        ("05_hevc_enhanced_rtmp/v1.main.1.kmp", 45),
        ("06_header_change_eos_tag/v1.main.1.kmp", 60),
        ("06_header_change_eos_tag/a1.main.1.kmp", 87),
    ] {
        let outcome = replay(&mut TrackMemory::default(), file);
        assert_eq!((outcome.units.len(), outcome.ended), (frames, true), "{file}");
    }
}

/// The recording as it would come over a connection that begins with this frame.
fn from_frame(file: &str, first: usize, longer_headers: bool) -> Script {
    let (packets, _) = golden::decode(Direction::ToReceiver, &golden::file(file)).unwrap();
    let mut script = Script::default();
    let mut index = 0;
    for packet in packets {
        let mut piece = Script::default();
        match packet {
            Packet::Connect(connect) => {
                let id = connect.initial_frame_id + first as u64;
                piece = Script::from(&Connect { initial_frame_id: id, ..connect });
            }
            Packet::MediaInfo(info) => piece = piece.info(&info),
            Packet::Frame(frame) => {
                index += 1;
                if index <= first {
                    continue;
                }
                piece = piece.wire(&frame.head.encode(Bytes::copy_from_slice(frame.payload())));
            }
            _ => continue,
        }
        let mut bytes = piece.0.to_vec();
        if longer_headers {
            let known = usize::from(bytes[4]);
            bytes[4] += 8;
            bytes.splice(known..known, *b"unknown!");
            bytes.extend(crate::kmp::packet::NULL);
        }
        script = script.raw(&bytes);
    }
    script
}

#[test]
fn a_hundred_frames_sent_twice_come_out_once() {
    // Case C of the reference receiver.
    let file = "29_long_for_receiver/v1.main.1.kmp";
    let sent = frames_of(file);
    let head: usize = {
        let script = from_frame(file, 200, false);
        let all = from_frame(file, 0, false);
        all.0.len() - script.0.len()
    };
    let all = from_frame(file, 0, false);
    // The first connection ends behind frame 200: what follows connect and media info of the second is the rest.
    let opening = 104 + 48 + (all.0[104 + 8] as usize);
    let mut memory = TrackMemory::default();
    let cut = all.0[..opening + head].to_vec();
    let first = run_as(ReceiverSettings::default(), TrackKind::Video, &mut memory, &[&cut]);
    let second = run(&mut memory, from_frame(file, 100, false));
    assert_eq!(first.units.len(), 200);
    assert_eq!(second.join, Some(Join::Resumed { repeated: 100 }));
    let got: Vec<&Vec<u8>> = first.units.iter().chain(&second.units).map(|(_, _, payload)| payload).collect();
    assert_eq!(got, sent.iter().map(|(_, payload)| payload).collect::<Vec<_>>());
}

#[test]
fn longer_headers_and_null_packets_lose_nothing() {
    // Case E.
    for file in ["29_long_for_receiver/v1.main.1.kmp", "29_long_for_receiver/a1.main.1.kmp"] {
        let script = from_frame(file, 0, true);
        let mut memory = TrackMemory::default();
        let outcome = run_as(ReceiverSettings::default(), kind_of(file), &mut memory, &[&script.0]);
        assert_eq!((outcome.units.len(), outcome.error), (frames_of(file).len(), None));
    }
}

#[test]
fn an_identical_media_info_within_a_gop_costs_its_rest_only_in_strict_mode() {
    // Case F: the reference lost 10 of 360 frames.
    let file = "29_long_for_receiver/v1.main.1.kmp";
    let (packets, _) = golden::decode(Direction::ToReceiver, &golden::file(file)).unwrap();
    let sent = frames_of(file);
    let key = (90..).find(|index| sent[*index].0.keyframe).unwrap();
    let next = (key + 1..).find(|index| sent[*index].0.keyframe).unwrap();
    let mut script = Script::default();
    let (mut index, mut known) = (0, None);
    for packet in packets {
        match packet {
            Packet::Connect(connect) => script = Script::from(&connect),
            Packet::MediaInfo(info) => {
                script = script.info(&info);
                known = Some(info);
            }
            Packet::Frame(frame) => {
                if index == next - 10 {
                    script = script.info(known.as_ref().unwrap());
                }
                index += 1;
                script = script.wire(&frame.head.encode(Bytes::copy_from_slice(frame.payload())));
            }
            _ => {}
        }
    }
    for (settings, frames) in [(ReceiverSettings::default(), 360), (strict(), 350)] {
        let mut memory = TrackMemory::default();
        let outcome = run_as(settings, TrackKind::Video, &mut memory, &[&script.0]);
        assert_eq!(outcome.units.len(), frames);
        assert_eq!(memory.counters().no_key, 360 - frames as u64);
    }
}

#[test]
fn recorded_reconnects_give_every_frame_once() {
    for (case, track) in [
        ("03_reconnect_partial_ack", "v1"),
        ("03_reconnect_partial_ack", "a1"),
        ("04_reconnect_no_ack", "v1"),
        ("04_reconnect_no_ack", "a1"),
        ("31_reconnect_at_header_change", "v1"),
    ] {
        let mut memory = TrackMemory::default();
        let (mut ids, mut payloads) = (Vec::new(), Vec::new());
        let mut sent = std::collections::BTreeMap::new();
        for nth in 1.. {
            let file = format!("{case}/{track}.main.{nth}.kmp");
            if !golden::folder().join(&file).exists() {
                break;
            }
            let outcome = replay(&mut memory, &file);
            assert_eq!(outcome.error, None);
            let (packets, _) = golden::decode(Direction::ToReceiver, &golden::file(&file)).unwrap();
            let Some(Packet::Connect(connect)) = packets.first() else { panic!("{file}") };
            for (n, (_, payload)) in frames_of(&file).into_iter().enumerate() {
                sent.insert(connect.initial_frame_id + n as u64, payload);
            }
            for (id, _, payload) in outcome.units {
                ids.push(id);
                payloads.push(payload);
            }
        }
        assert_eq!(ids, sent.keys().copied().collect::<Vec<_>>(), "{case} {track}");
        assert_eq!(payloads, sent.into_values().collect::<Vec<_>>(), "{case} {track}");
    }
}

#[test]
fn a_recorded_subtitle_track_is_refused_where_sound_or_pictures_are_meant() {
    let wire = golden::file("S_subtitle_null/cc1.main.1.kmp");
    let mut memory = TrackMemory::default();
    let outcome = run_as(ReceiverSettings::default(), TrackKind::Audio, &mut memory, &[&wire]);
    assert!(matches!(outcome.error, Some(ReceiveError::Kind { got: MediaKind::Subtitle, .. })));
}

#[test]
fn cuts_at_any_byte_make_no_difference() {
    for file in ["03_reconnect_partial_ack/v1.main.1.kmp", "25_timescale_1000/a1.main.1.kmp"] {
        let wire = golden::file(file);
        let whole = replay(&mut TrackMemory::default(), file);
        for step in [1, 2, 7, 39, 1000] {
            let pieces: Vec<&[u8]> = wire.chunks(step).collect();
            let mut memory = TrackMemory::default();
            let cut = run_as(ReceiverSettings::default(), kind_of(file), &mut memory, &pieces);
            assert_eq!(cut.units, whole.units);
            assert_eq!(cut.tracks, whole.tracks);
        }
    }
}
