//! The one wire form of a unit that serves all RTMP subscribers: one type 0 chunk header, FLV tag header, payload.
//!
//! It is written once, into the free bytes before the payload. A peer whose chunk size is smaller than the message, or
//! whose message stream id is not 1, gets the same bytes by way of [`Chunked`], still without a copy of the payload.

mod chunked;

pub use chunked::{Chunked, Slices};

use super::amf::{self, Field};
use super::chunk_reader::kind;
use super::chunk_writer::ChunkWriter;
use super::flv::fourcc;
use bytes::{BufMut, BytesMut};
use fieldgate_media::{Codec, HEADROOM, Ticks, Track, TrackKind, Tracks, UnitHead};

/// The message stream id that the shared wire form carries.
pub const STREAM_ID: u32 = 1;
/// The chunk stream of sound.
pub const AUDIO_CSID: u32 = 4;
/// The chunk stream of metadata.
pub const DATA_CSID: u32 = 5;
/// The chunk stream of pictures.
pub const VIDEO_CSID: u32 = 6;
/// The longest message that a chunk header can announce.
const MESSAGE_MAX: usize = 0xFF_FFFF;

/// How metadata is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataStyle {
    /// `onMetaData`: towards players.
    Plain,
    /// `@setDataFrame`, `onMetaData`: towards servers that we push to.
    SetDataFrame,
}

/// Writes the shared wire form. Stateless.
#[derive(Clone, Copy, Debug, Default)]
pub struct RtmpWire;

impl RtmpWire {
    /// Writes chunk header (type 0) and FLV tag header right-aligned into `room`; returns how many bytes they take.
    ///
    /// 0 means that the unit is longer than an RTMP message can be, and has no wire form.
    pub fn unit_head(room: &mut [u8; HEADROOM], unit: &UnitHead, track: &Track, payload_len: usize) -> usize {
        let mut head = Head { bytes: [0; HEADROOM], len: 0 };
        let tag = tag_head(unit, track);
        let Some(message_len) = payload_len.checked_add(tag.len).filter(|len| *len <= MESSAGE_MAX) else {
            return 0;
        };
        let (csid, kind) = match track.kind() {
            TrackKind::Video => (VIDEO_CSID, kind::VIDEO),
            TrackKind::Audio => (AUDIO_CSID, kind::AUDIO),
        };
        let timestamp = wire_time(unit.dts);
        let extended = timestamp >= 0xFF_FFFF;
        head.put(&[csid as u8]);
        head.put(&u24(timestamp.min(0xFF_FFFF)));
        head.put(&u24(message_len as u32));
        head.put(&[kind]);
        head.put(&STREAM_ID.to_le_bytes());
        if extended {
            head.put(&timestamp.to_be_bytes());
        }
        head.put(tag.bytes.get(..tag.len).unwrap_or_default());
        let at = HEADROOM.saturating_sub(head.len);
        match (room.get_mut(at..), head.bytes.get(..head.len)) {
            (Some(to), Some(from)) => to.copy_from_slice(from),
            _ => return 0,
        }
        head.len
    }

    /// Appends metadata, then every codec header, as messages at time `at`, cut at `chunk_len`.
    pub fn tracks(
        out: &mut BytesMut,
        tracks: &Tracks,
        at: Ticks,
        chunk_len: u32,
        stream_id: u32,
        style: MetadataStyle,
    ) {
        let writer = ChunkWriter::with_chunk_len(chunk_len);
        let timestamp = wire_time(at);
        let mut body = BytesMut::new();
        metadata(&mut body, tracks, style);
        writer.write(out, DATA_CSID, timestamp, kind::DATA, stream_id, &body);
        for track in tracks.iter().filter(|track| !track.header.is_empty()) {
            body.clear();
            let (csid, kind) = match (track.codec, fourcc(track.codec)) {
                (Codec::H264, _) => {
                    body.put_slice(&[0x17, 0, 0, 0, 0]);
                    (VIDEO_CSID, kind::VIDEO)
                }
                (Codec::Aac, _) => {
                    body.put_slice(&[0xAF, 0]);
                    (AUDIO_CSID, kind::AUDIO)
                }
                (codec, Some(code)) if codec.kind() == TrackKind::Video => {
                    body.put_u8(0x90);
                    body.put_slice(&code);
                    (VIDEO_CSID, kind::VIDEO)
                }
                (_, Some(code)) => {
                    body.put_u8(0x90);
                    body.put_slice(&code);
                    (AUDIO_CSID, kind::AUDIO)
                }
                (_, None) => continue,
            };
            body.put_slice(&track.header);
            writer.write(out, csid, timestamp, kind, stream_id, &body);
        }
    }
}

/// Stream time as RTMP carries it: milliseconds, wrapping at 2^32.
fn wire_time(at: Ticks) -> u32 {
    (at.as_millis() & 0xFFFF_FFFF) as u32
}

fn u24(value: u32) -> [u8; 3] {
    let [_, a, b, c] = value.to_be_bytes();
    [a, b, c]
}

/// Bytes being put together on the stack.
struct Head {
    bytes: [u8; HEADROOM],
    len: usize,
}

impl Head {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(to) = self.bytes.get_mut(self.len..end) {
            to.copy_from_slice(bytes);
            self.len = end;
        }
    }
}

/// The FLV tag header of one unit.
fn tag_head(unit: &UnitHead, track: &Track) -> Head {
    let mut head = Head { bytes: [0; HEADROOM], len: 0 };
    let frame: u8 = if unit.keyframe { 1 } else { 2 };
    let composition = unit.pts.as_millis().saturating_sub(unit.dts.as_millis());
    let composition = composition.clamp(-0x80_0000, 0x7F_FFFF) as i32;
    let composition_field = u24(composition.cast_unsigned() & 0xFF_FFFF);
    let channels = if track.audio.channels == 2 { 1 } else { 0 };
    match track.codec {
        Codec::H264 => {
            head.put(&[frame << 4 | 7, 1]);
            head.put(&composition_field);
        }
        Codec::Aac => head.put(&[0xAF, 1]),
        Codec::Mp3 => head.put(&[match track.audio.sample_rate {
            8_000 => 0xE2,
            11_025 => 0x26,
            22_050 => 0x2A,
            _ => 0x2E,
        } | channels]),
        Codec::PcmA => head.put(&[0x72 | channels]),
        Codec::PcmU => head.put(&[0x82 | channels]),
        codec => {
            let code = fourcc(codec).unwrap_or_default();
            match (codec.kind(), codec) {
                (TrackKind::Audio, _) => {
                    head.put(&[0x91]);
                    head.put(&code);
                }
                (_, Codec::Hevc) if composition != 0 => {
                    head.put(&[0x80 | frame << 4 | 1]);
                    head.put(&code);
                    head.put(&composition_field);
                }
                (_, Codec::Hevc) => {
                    head.put(&[0x80 | frame << 4 | 3]);
                    head.put(&code);
                }
                _ => {
                    head.put(&[0x80 | frame << 4 | 1]);
                    head.put(&code);
                }
            }
        }
    }
    head
}

/// The body of the metadata message.
fn metadata(body: &mut BytesMut, tracks: &Tracks, style: MetadataStyle) {
    let mut fields: Vec<(&str, Field<'_>)> = Vec::with_capacity(10);
    fields.push(("duration", Field::Number(0.0)));
    if let Some(track) = tracks.first(TrackKind::Video) {
        if track.video.width > 0 && track.video.height > 0 {
            fields.push(("width", Field::Number(f64::from(track.video.width))));
            fields.push(("height", Field::Number(f64::from(track.video.height))));
        }
        if track.video.frame_rate > 0.0 {
            fields.push(("framerate", Field::Number(track.video.frame_rate)));
        }
        fields.push(("videocodecid", Field::Number(codec_id(track.codec))));
    }
    if let Some(track) = tracks.first(TrackKind::Audio) {
        if track.audio.sample_rate > 0 {
            fields.push(("audiosamplerate", Field::Number(f64::from(track.audio.sample_rate))));
        }
        if track.audio.channels > 0 {
            fields.push(("audiochannels", Field::Number(f64::from(track.audio.channels))));
            fields.push(("stereo", Field::Bool(track.audio.channels >= 2)));
        }
        fields.push(("audiocodecid", Field::Number(codec_id(track.codec))));
    }
    fields.push(("encoder", Field::Text("fieldgate")));
    if style == MetadataStyle::SetDataFrame {
        amf::put(body, Field::Text("@setDataFrame"));
    }
    amf::put(body, Field::Text("onMetaData"));
    amf::put(body, Field::Map(&fields));
}

/// FLV's number where the unit goes by it, else the FourCC as a number.
fn codec_id(codec: Codec) -> f64 {
    match codec {
        Codec::H264 => 7.0,
        Codec::Aac => 10.0,
        Codec::Mp3 => 2.0,
        Codec::PcmA => 7.0,
        Codec::PcmU => 8.0,
        codec => f64::from(u32::from_be_bytes(fourcc(codec).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests;
