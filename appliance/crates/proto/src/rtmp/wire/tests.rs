use super::*;
use crate::rtmp::chunk_reader::{ChunkReader, Limits, Message};
use crate::rtmp::flv::{Demuxer, Item};
use bytes::Bytes;
use fieldgate_media::{AudioShape, Draft, TrackId, VideoShape};

const AVCC: &[u8] = &[1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f, 1, 0, 2, 0x68, 0xef];
const HVCC: &[u8] =
    &[1, 1, 4, 8, 0, 0, 0, 0x9e, 8, 0, 0, 0, 0, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0xf, 0];

const CODECS: [(Codec, &[u8]); 13] = [
    (Codec::H264, AVCC),
    (Codec::Hevc, HVCC),
    (Codec::Av1, &[0x81, 0, 0xc, 0]),
    (Codec::Vp9, &[1, 0, 0, 0, 0, 0x1f, 0x80, 2, 2, 2, 0, 0]),
    (Codec::Vp8, &[]),
    (Codec::Aac, &[0x12, 0x10]),
    (Codec::Mp3, &[]),
    (Codec::PcmA, &[]),
    (Codec::PcmU, &[]),
    (Codec::Opus, b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0"),
    (Codec::Ac3, &[]),
    (Codec::Eac3, &[]),
    (Codec::Flac, b"fLaC\x80\0\0\x22"),
];

fn track(codec: Codec, header: &'static [u8]) -> Track {
    let id = if codec.kind() == TrackKind::Video { TrackId::VIDEO } else { TrackId::AUDIO };
    let mut track = Track::new(id, codec, Bytes::from_static(header));
    track.video = VideoShape { width: 64, height: 48, frame_rate: 25.0 };
    track.audio = AudioShape { sample_rate: 44_100, channels: 2 };
    track
}

fn head(track: &Track, dts_ms: i64, composition_ms: i64, keyframe: bool) -> UnitHead {
    let dts = Ticks::from_millis(dts_ms);
    let pts = Ticks::from_millis(dts_ms + composition_ms);
    UnitHead { track: track.id, dts, pts, source_dts: dts, source_pts: pts, keyframe, captured: None }
}

fn wire_of(track: &Track, head: UnitHead, payload: &[u8]) -> Bytes {
    let (_, wire) =
        Draft::copied(head, payload).finish(|room| RtmpWire::unit_head(room, &head, track, payload.len()));
    wire
}

fn read(wire: &[u8], chunk_len: u32) -> Vec<Message> {
    let mut reader = ChunkReader::new(Limits::default());
    reader.allow_media(true);
    let mut all = BytesMut::new();
    ChunkWriter::new().set_chunk_len(&mut all, chunk_len);
    all.extend_from_slice(wire);
    let (mut input, mut messages) = (&all[..], Vec::new());
    while let Some(message) = reader.read(&mut input).unwrap() {
        messages.push(message);
    }
    messages
}

#[test]
fn every_codec_comes_back_as_it_was_through_tracks_and_units() {
    for (codec, header) in CODECS {
        for (dts, composition, keyframe) in [(0, 0, true), (40, 80, true), (0x1_0000_0010, -40, false)] {
            let track = track(codec, header);
            let keyframe = keyframe || track.kind() == TrackKind::Audio;
            let composed = matches!(codec, Codec::H264 | Codec::Hevc);
            let composition = if composed { composition } else { 0 };
            let unit = head(&track, dts, composition, keyframe);
            let mut out = BytesMut::new();
            let tracks = Tracks::new(vec![track.clone()]);
            RtmpWire::tracks(&mut out, &tracks, unit.dts, 128, STREAM_ID, MetadataStyle::Plain);
            let payload = vec![7; 500];
            let wire = wire_of(&track, unit, &payload);
            Chunked::new(&wire, 128, STREAM_ID).slices(0).for_each(|slice| out.extend_from_slice(slice));
            let mut demuxer = Demuxer::new();
            let mut seen = None;
            for message in read(&out, 128) {
                demuxer.push(message);
                while let Some(item) = demuxer.poll().unwrap() {
                    if let Item::Unit(draft) = item {
                        seen = Some(draft);
                    }
                }
            }
            let draft = seen.unwrap();
            assert_eq!(draft.payload(), payload, "{codec:?}");
            assert_eq!(draft.head.dts.as_millis(), dts & 0xFFFF_FFFF, "{codec:?}");
            assert_eq!((draft.head.pts - draft.head.dts).as_millis(), composition, "{codec:?}");
            assert_eq!(draft.head.keyframe, keyframe);
            let back = demuxer.tracks().get(track.id).unwrap();
            assert_eq!((back.codec, &back.header), (codec, &track.header));
        }
    }
}

#[test]
fn the_wire_form_ends_in_the_payload_itself() {
    let track = track(Codec::H264, AVCC);
    let unit = head(&track, 1, 0, true);
    let (unit, wire) =
        Draft::copied(unit, b"picture").finish(|room| RtmpWire::unit_head(room, &unit, &track, 7));
    assert_eq!(wire.len(), 12 + 5 + 7);
    assert_eq!(wire[17..].as_ptr(), unit.payload.as_ptr());
    assert_eq!(wire[..17], [6, 0, 0, 1, 0, 0, 12, 9, 1, 0, 0, 0, 0x17, 1, 0, 0, 0]);
}

#[test]
fn the_longest_head_fits_the_headroom_and_longer_units_have_none() {
    let track = track(Codec::Hevc, HVCC);
    let unit = head(&track, 0xFF_FFFF, 40, true);
    let mut room = [0; HEADROOM];
    assert_eq!(RtmpWire::unit_head(&mut room, &unit, &track, 100), 16 + 8);
    assert_eq!(RtmpWire::unit_head(&mut room, &unit, &track, MESSAGE_MAX - 8), 24);
    assert_eq!(RtmpWire::unit_head(&mut room, &unit, &track, MESSAGE_MAX - 7), 0);
}

#[test]
fn a_peer_with_a_large_chunk_size_gets_one_slice_of_the_shared_form() {
    let track = track(Codec::H264, AVCC);
    let wire = wire_of(&track, head(&track, 5, 0, true), &[1; 5000]);
    let chunked = Chunked::new(&wire, 1 << 20, STREAM_ID);
    let slices: Vec<&[u8]> = chunked.slices(0).collect();
    assert_eq!((slices.len(), slices[0].as_ptr(), chunked.total_len()), (1, wire.as_ptr(), wire.len()));
}

#[test]
fn slices_resume_at_any_byte_for_any_chunk_size_and_stream_id() {
    let track = track(Codec::H264, AVCC);
    for dts in [5, 0x0123_4567] {
        for payload_len in [1, 123, 124, 300] {
            let payload: Vec<u8> = (0..payload_len).map(|i| i as u8).collect();
            let wire = wire_of(&track, head(&track, dts, 0, true), &payload);
            for chunk_len in [1, 64, 128, 129, 4096] {
                for stream_id in [STREAM_ID, 7] {
                    let chunked = Chunked::new(&wire, chunk_len, stream_id);
                    let whole: Vec<u8> = chunked.slices(0).flatten().copied().collect();
                    assert_eq!(chunked.total_len(), whole.len());
                    for gone in 0..=whole.len() {
                        let rest: Vec<u8> = chunked.slices(gone).flatten().copied().collect();
                        assert_eq!(rest, whole[gone..], "gone {gone} chunk {chunk_len}");
                    }
                    assert!(chunked.slices(3).all(|slice| !slice.is_empty()));
                    let messages = read(&whole, chunk_len);
                    assert_eq!((messages.len(), messages[0].stream_id), (1, stream_id));
                    assert_eq!(messages[0].timestamp, dts as u32);
                    assert_eq!(messages[0].body()[5..], payload);
                }
            }
        }
    }
}

#[test]
fn metadata_says_what_is_known_in_both_styles() {
    let tracks = Tracks::new(vec![track(Codec::Hevc, HVCC), track(Codec::Aac, &[0x12, 0x10])]);
    for style in [MetadataStyle::Plain, MetadataStyle::SetDataFrame] {
        let mut out = BytesMut::new();
        RtmpWire::tracks(&mut out, &tracks, Ticks::ZERO, 4096, 3, style);
        let messages = read(&out, 4096);
        let kinds: Vec<_> = messages.iter().map(|message| (message.kind, message.stream_id)).collect();
        assert_eq!(kinds, [(kind::DATA, 3), (kind::VIDEO, 3), (kind::AUDIO, 3)]);
        let body = messages[0].body();
        assert_eq!(body.starts_with(b"\x02\0\x0d@setDataFrame"), style == MetadataStyle::SetDataFrame);
        let metadata = crate::rtmp::flv::StreamMetadata::parse(body, kind::DATA).unwrap().unwrap();
        assert_eq!((metadata.video.width, metadata.video.frame_rate), (64, 25.0));
        assert_eq!((metadata.audio.sample_rate, metadata.audio.channels), (44_100, 2));
        assert_eq!(metadata.encoder.as_deref(), Some("fieldgate"));
    }
}
