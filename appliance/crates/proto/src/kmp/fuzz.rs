//! Fuzz targets: any bytes to each parser. A failed assertion is a finding.
//!
//! They are ordinary functions: `cargo test` runs them over the recordings with a fixed seed of mutations, and a
//! fuzzer can call them with what it makes up.

use super::captions::has_captions;
use super::media_info::{Describe, codec_of};
use super::packet::{Ack, Connect, END_OF_STREAM, FrameHead, Media, MediaInfo, NO_FRAME_ID, NULL, Name};
use super::packet::{Audio, Rational, Video};
use super::{Direction, Limits, Packet, PacketReader};
use bytes::{Bytes, BytesMut};
use fieldgate_media::{Codec, Track, TrackId};

/// Packets of all pieces up to the first error, whether there was none, and the bytes held then.
fn packets<'a>(direction: Direction, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Packet>, bool, usize) {
    let mut reader = PacketReader::new(direction, Limits::default());
    let mut packets = Vec::new();
    let ok = pieces.into_iter().all(|piece| {
        let mut input = piece;
        loop {
            match reader.read(&mut input) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => return input.is_empty(),
                Err(_) => return false,
            }
        }
    });
    (packets, ok, reader.held())
}

/// One packet as its sender writes it.
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

/// The first byte says how long the pieces are: the same packets come at once or in pieces, and what is read is written
/// and read as the same again.
fn reader(direction: Direction, data: &[u8]) {
    let Some((&step, wire)) = data.split_first() else { return };
    let (whole, whole_ok, held) = packets(direction, std::iter::once(wire));
    let (pieces, pieces_ok, _) = packets(direction, wire.chunks(usize::from(step).max(1)));
    assert_eq!(whole_ok, pieces_ok);
    assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
    assert!(held <= wire.len().saturating_add(fieldgate_media::HEADROOM));
    let mut again = BytesMut::new();
    whole.iter().for_each(|packet| encoded(packet, &mut again));
    let (read, ok, held) = packets(direction, std::iter::once(&again[..]));
    assert!(ok && held == 0);
    assert_eq!(format!("{read:?}"), format!("{whole:?}"));
}

/// What a sender writes, to a receiver.
pub fn to_receiver(data: &[u8]) {
    reader(Direction::ToReceiver, data);
}

/// What a receiver writes, to a sender.
pub fn to_sender(data: &[u8]) {
    reader(Direction::ToSender, data);
}

/// Packets with any fields read back as they were.
pub fn round_trip(data: &[u8]) {
    let Some((&[a, b, c, d, e, f, g, h, kind], rest)) = data.split_first_chunk() else { return };
    let long = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let (int, short) = (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]));
    let body = Bytes::copy_from_slice(rest);
    let name = Name::new(&String::from_utf8_lossy(rest.get(..8).unwrap_or_default())).unwrap_or_default();
    let connect = Connect {
        channel_id: name,
        track_id: name,
        initial_frame_id: long.min(NO_FRAME_ID.saturating_sub(1)),
        initial_upstream_frame_id: long,
        initial_offset: int,
        consistent: kind & 1 == 1,
        data: body.clone(),
    };
    let media = match kind % 3 {
        0 => Media::Video(Video {
            width: short,
            height: short,
            frame_rate: Rational { num: int, denom: int },
            cea_captions: kind & 1 == 1,
        }),
        1 => {
            let (channels, bits_per_sample) = (short, short);
            Media::Audio(Audio { channels, bits_per_sample, sample_rate: int, channel_layout: long })
        }
        _ => Media::Subtitle,
    };
    let info =
        MediaInfo { codec_id: int, timescale: int.max(1), bitrate: int, media, extra_data: body.clone() };
    let time = long.cast_signed();
    let head = FrameHead { created: time, dts: time, keyframe: kind & 2 == 2, pts_delay: int.cast_signed() };
    let mut wire = BytesMut::new();
    connect.encode(&mut wire);
    for packet in [info.encode(), head.encode(body.clone())] {
        wire.extend_from_slice(&packet.head);
        wire.extend_from_slice(&packet.body);
    }
    let (read, ok, held) = packets(Direction::ToReceiver, std::iter::once(&wire[..]));
    assert!(ok && held == 0);
    assert!(matches!(&read[..], [Packet::Connect(c), Packet::MediaInfo(i), Packet::Frame(f)]
        if *c == connect && *i == info && f.head == head && f.payload() == body));
    let ack = Ack { frame_id: long, upstream_frame_id: long, offset: int };
    wire.clear();
    ack.encode(&mut wire);
    let (read, ok, _) = packets(Direction::ToSender, std::iter::once(&wire[..]));
    assert!(ok && matches!(&read[..], [Packet::Ack(read)] if *read == ack));
}

/// A picture in which captions are looked for, and a codec header that is described; the first byte says of which codec.
pub fn description(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    has_captions(Codec::H264, rest);
    has_captions(Codec::Hevc, rest);
    let numbers = [7, 8, 1002, 1007, 1008, 1010, 1016, 1017, 1018];
    let number = numbers.into_iter().cycle().nth(usize::from(first));
    let Some(codec) = number.and_then(codec_of) else { return };
    let mut track = Track::new(TrackId::VIDEO, codec, Bytes::copy_from_slice(rest)).with_header_shape();
    track.declared.flv_sound = rest.first().copied();
    track.declared.frame_rate = rest.first_chunk().map_or(0.0, |rate| f64::from_le_bytes(*rate));
    for strict in [false, true] {
        let how = Describe { strict, timescale: 90_000, cea_captions: false, beside_hevc: first & 1 == 1 };
        let info = MediaInfo::of(&track, how);
        assert!(info.is_some_and(|info| match info.media {
            Media::Video(video) => video.frame_rate.denom > 0 && video.frame_rate.denom < 1_000_000,
            _ => info.aac_rates(strict).is_none_or(|(rate, samples)| rate > 0 && samples > 0),
        }));
    }
}

/// A function that takes any bytes and must return.
pub type Target = fn(&[u8]);

/// All targets by name, for runners.
pub const TARGETS: [(&str, Target); 5] = [
    ("to_receiver", to_receiver),
    ("to_sender", to_sender),
    ("round_trip", round_trip),
    ("description", description),
    ("receiver", super::receiver::fuzz::receiver),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmp::golden;
    use crate::mutation::run;

    /// The beginnings of recorded connections, cut in pieces of 13 bytes.
    fn recordings(direction: Direction, count: usize) -> Vec<Vec<u8>> {
        let all = golden::recordings(direction);
        let step = all.len() / count;
        let seeds = all.into_iter().step_by(step).map(|(_, wire)| wire);
        seeds.map(|wire| [&[13], &wire[..wire.len().min(3000)]].concat()).collect()
    }

    #[test]
    fn packet_readers_survive_mutated_peers() {
        run(to_receiver, &recordings(Direction::ToReceiver, 20), 60, 0x6A09_E667_F3BC_C908);
        run(to_sender, &recordings(Direction::ToSender, 20), 60, 0xBB67_AE85_84CA_A73B);
    }

    #[test]
    fn packets_and_descriptions_survive_mutation() {
        let seeds = recordings(Direction::ToReceiver, 10);
        run(round_trip, &seeds, 60, 0x3C6E_F372_FE94_F82B);
        run(description, &seeds, 60, 0xA54F_F53A_5F1D_36F1);
        let pictures: Vec<Vec<u8>> = golden::flv("captions.flv")
            .iter()
            .filter(|message| message.kind == crate::rtmp::kind::VIDEO)
            .take(4)
            .map(|message| [&[0], &message.body()[5..]].concat())
            .collect();
        run(description, &pictures, 200, 0x510E_527F_ADE6_82D1);
        for config in [&[5, 0x12, 0x10][..], &[5, 0x2b, 0x11, 0x88, 0], &[5, 0xf9, 0x48, 0x42, 0x1f]] {
            run(description, &[config.to_vec()], 2000, 0x9B05_688C_2B3E_6C1F);
        }
    }
}
