use super::*;
use crate::kmp::packet::{END_OF_STREAM, NULL, Name};
use crate::kmp::{Audio, Media, golden};
use fieldgate_media::{Ticks, TrackId};

fn read(direction: Direction, wire: &[u8]) -> Result<Vec<Packet>, ReadError> {
    golden::decode(direction, wire).map(|(packets, _)| packets)
}

fn packet(tag: &[u8; 4], header_len: u32, data_len: u32) -> Vec<u8> {
    let mut wire = [&tag[..], &header_len.to_le_bytes(), &data_len.to_le_bytes(), &[0; 4]].concat();
    wire.resize(header_len.clamp(16, 200_000) as usize, 0);
    wire
}

fn encoded(packet: &Packet, out: &mut BytesMut) {
    let wire = match packet {
        Packet::Connect(connect) => return connect.encode(out),
        Packet::Ack(ack) => return ack.encode(out),
        Packet::Null => return out.extend_from_slice(&NULL),
        Packet::EndOfStream => return out.extend_from_slice(&END_OF_STREAM),
        Packet::MediaInfo(info) => info.encode(),
        Packet::Frame(frame) => frame.head.encode(Bytes::copy_from_slice(frame.payload())),
    };
    out.extend_from_slice(&wire.head);
    out.extend_from_slice(&wire.body);
}

#[test]
fn every_recorded_connection_decodes_and_encodes_to_its_last_byte() {
    for (direction, files) in [(Direction::ToReceiver, 104), (Direction::ToSender, 70)] {
        let recordings = golden::recordings(direction);
        assert_eq!(recordings.len(), files);
        for (name, wire) in recordings {
            // A longer ack is recorded to show that the sender refuses it.
            if name.starts_with("33_") && name.ends_with(".1.acks.kmp") {
                let refused = ReadError::HeaderLen { kind: PacketKind::Ack, len: 44, needed: 40 };
                assert_eq!(golden::decode(direction, &wire).err(), Some(refused), "{name}");
                continue;
            }
            let (packets, complete) = golden::decode(direction, &wire).unwrap();
            assert!(complete, "{name}");
            let mut again = BytesMut::new();
            packets.iter().for_each(|packet| encoded(packet, &mut again));
            assert!(again == wire, "{name}");
        }
    }
}

#[test]
fn packets_come_out_the_same_however_they_are_cut() {
    let wire = golden::file("06_header_change_eos_tag/v1.main.1.kmp");
    let whole = read(Direction::ToReceiver, &wire).unwrap();
    for step in [1, 7, 16, 41, 1460] {
        let mut reader = PacketReader::new(Direction::ToReceiver, Limits::default());
        let mut packets = Vec::new();
        for mut piece in wire.chunks(step) {
            while let Some(packet) = reader.read(&mut piece).unwrap() {
                packets.push(packet);
            }
            assert!(piece.is_empty());
        }
        assert_eq!(format!("{packets:?}"), format!("{whole:?}"));
    }
}

#[test]
fn a_longer_header_is_taken_and_its_unknown_end_skipped() {
    let mut wire = packet(b"cnct", MAX_HEADER_LEN, 3);
    wire[80] = 5;
    wire.extend(b"abc");
    wire.extend(packet(b"fram", 48, 2));
    wire.extend(b"xy");
    wire.extend(packet(b"null", 24, 4));
    wire.extend(b"rest");
    wire.extend(packet(b"eost", 17, 0));
    let packets = read(Direction::ToReceiver, &wire).unwrap();
    let [Packet::Connect(connect), Packet::Frame(frame), Packet::Null, Packet::EndOfStream] = &packets[..]
    else {
        panic!("{packets:?}");
    };
    assert_eq!((connect.initial_frame_id, &connect.data[..]), (5, &b"abc"[..]));
    assert_eq!(frame.payload(), b"xy");
}

#[test]
fn what_no_receiver_may_take_is_refused() {
    let refused = |wire: &[u8]| read(Direction::ToReceiver, wire).unwrap_err();
    assert_eq!(refused(&packet(b"ackf", 40, 0)), ReadError::Kind { tag: *b"ackf" });
    assert_eq!(refused(&packet(b"what", 40, 0)), ReadError::Kind { tag: *b"what" });
    let kind = PacketKind::Connect;
    assert_eq!(refused(&packet(b"cnct", 103, 0)), ReadError::HeaderLen { kind, len: 103, needed: 104 });
    let max = MAX_HEADER_LEN;
    assert_eq!(refused(&packet(b"cnct", 65_537, 0)), ReadError::HeaderTooLong { kind, len: 65_537, max });
    let max = MAX_DATA_LEN;
    for (tag, kind) in
        [(b"cnct", PacketKind::Connect), (b"fram", PacketKind::Frame), (b"null", PacketKind::Null)]
    {
        let len = MAX_DATA_LEN + 1;
        assert_eq!(refused(&packet(tag, kind.header_len(), len)), ReadError::DataTooLong { kind, len, max });
    }
    assert_eq!(refused(&packet(b"minf", 48, 0)), ReadError::Timescale);
    let mut subtitle = packet(b"minf", 48, 0);
    (subtitle[16], subtitle[24]) = (2, 1);
    assert!(read(Direction::ToReceiver, &subtitle).is_ok());
    subtitle[16] = 3;
    assert_eq!(refused(&subtitle), ReadError::MediaType);
    let mut connect = packet(b"cnct", 104, 0);
    connect[80..88].fill(0xFF);
    assert_eq!(refused(&connect), ReadError::FrameId);
}

#[test]
fn a_sender_takes_acks_of_exactly_40_bytes_and_nothing_else() {
    assert!(read(Direction::ToSender, &packet(b"ackf", 40, 0)).is_ok());
    for (tag, header_len, data_len) in
        [(b"ackf", 44, 0), (b"ackf", 39, 0), (b"ackf", 40, 1), (b"null", 16, 0)]
    {
        assert!(read(Direction::ToSender, &packet(tag, header_len, data_len)).is_err());
    }
}

#[test]
fn the_data_limits_hold_at_their_last_byte() {
    let limits = Limits { header_len: 120, frame_len: 4, connect_data_len: 5, extra_data_len: 6 };
    for (tag, known, max) in [(b"fram", 40, 4), (b"cnct", 104, 5), (b"minf", 48, 6)] {
        for (extra, ok) in [(0, true), (1, false)] {
            let mut wire = packet(tag, known, max + extra);
            wire[24] = 1;
            wire.resize(wire.len() + (max + extra) as usize, 0);
            let read = PacketReader::new(Direction::ToReceiver, limits).read(&mut &wire[..]);
            assert_eq!(read.is_ok_and(|packet| packet.is_some()), ok, "{}", tag.escape_ascii());
        }
    }
    let mut reader = PacketReader::new(Direction::ToReceiver, limits);
    assert!(reader.read(&mut &packet(b"eost", 120, 0)[..]).is_ok());
    assert!(reader.read(&mut &packet(b"eost", 121, 0)[..]).is_err());
}

#[test]
fn announced_data_take_no_memory_before_they_come() {
    let mut reader = PacketReader::new(Direction::ToReceiver, Limits::default());
    assert!(reader.read(&mut &packet(b"fram", 40, MAX_DATA_LEN)[..]).unwrap().is_none());
    let started = reader.started.as_ref().unwrap();
    assert!(started.buf.capacity() <= 2 * FIRST_ROOM);
    assert_eq!(reader.held(), 40 + HEADROOM);
}

#[test]
fn a_frame_becomes_a_unit_in_place() {
    let mut wire = packet(b"fram", 40, 4);
    wire.extend(b"unit");
    let Ok(Some(Packet::Frame(frame))) =
        PacketReader::new(Direction::ToReceiver, Limits::default()).read(&mut &wire[..])
    else {
        panic!("no frame")
    };
    let at = frame.payload().as_ptr();
    let (dts, track) = (Ticks::new(frame.head.dts), TrackId::VIDEO);
    let draft = frame.into_draft(UnitHead {
        track,
        dts,
        pts: dts,
        source_dts: dts,
        source_pts: dts,
        keyframe: false,
        captured: None,
    });
    assert_eq!((draft.payload(), draft.payload().as_ptr()), (&b"unit"[..], at));
}

#[test]
fn the_subtitle_recording_reads_as_said() {
    let packets = read(Direction::ToReceiver, &golden::file("S_subtitle_null/cc1.main.1.kmp")).unwrap();
    let info = packets
        .iter()
        .find_map(|packet| if let Packet::MediaInfo(info) = packet { Some(info) } else { None });
    let info = info.unwrap();
    assert_eq!((info.codec_id, info.media, &info.extra_data[..]), (2001, Media::Subtitle, &b"WEBVTT"[..]));
    assert!(packets.iter().any(|packet| matches!(packet, Packet::Null)));
    assert!(matches!(packets.last(), Some(Packet::EndOfStream)));
    let Packet::Connect(connect) = &packets[0] else { panic!("{packets:?}") };
    assert_eq!(connect.track_id, Name::new("cc1").unwrap());
    let audio = read(Direction::ToReceiver, &golden::file("02_h264_bframes_mono_aac/a1.main.1.kmp")).unwrap();
    let Packet::MediaInfo(info) = &audio[1] else { panic!("{:?}", audio[1]) };
    let told = Audio { channels: 2, bits_per_sample: 16, sample_rate: 48_000, channel_layout: 3 };
    assert_eq!((info.codec_id, info.media), (1010, Media::Audio(told)));
}
