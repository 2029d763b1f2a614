//! One video or audio message body, by itself. Source: FLV 10.1 annex E, Enhanced RTMP v2.

use super::{FOURCC_CODECS, FlvError, fourcc};
use fieldgate_media::{AudioShape, Codec, TrackKind};

/// What a message body is. `at` is where in the body the header or payload begins; it goes to the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tag {
    /// A codec header.
    Header {
        /// Of which codec.
        codec: Codec,
        /// Where it begins.
        at: usize,
    },
    /// One access unit.
    Unit {
        /// How it is coded.
        codec: Codec,
        /// Where its payload begins.
        at: usize,
        /// Decodable alone.
        keyframe: bool,
        /// Presentation after decoding, milliseconds.
        composition_ms: i32,
        /// To be added to its time: 0 to 999,999 nanoseconds.
        nanos: u32,
        /// What the tag says of the sound; zeros where it says nothing.
        audio: AudioShape,
    },
    /// The encoder ends this sequence.
    EndOfSequence {
        /// Of which kind of track.
        kind: TrackKind,
    },
    /// Colour information and such; not carried.
    Metadata,
    /// A command frame, an empty body or an unknown packet type.
    Nothing,
}

/// A body being read.
struct Cursor<'a> {
    body: &'a [u8],
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    fn new(body: &'a [u8], what: &'static str) -> Self {
        Cursor { body, rest: body, what }
    }

    fn broken(&self) -> FlvError {
        FlvError::Broken { what: self.what, len: self.body.len() }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FlvError> {
        let (&taken, rest) = self.rest.split_first_chunk().ok_or_else(|| self.broken())?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, FlvError> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// Signed.
    fn i24(&mut self) -> Result<i32, FlvError> {
        self.take().map(|[a, b, c]| i32::from_be_bytes([a, b, c, 0]) >> 8)
    }

    fn at(&self) -> usize {
        self.body.len().saturating_sub(self.rest.len())
    }

    /// Reads ModEx prefixes; returns the packet type behind them and the nanosecond offset.
    fn mod_ex(&mut self, mut packet: u8) -> Result<(u8, u32), FlvError> {
        let mut nanos = 0;
        while packet == 7 {
            let mut len = usize::from(self.byte()?).saturating_add(1);
            if len == 256 {
                len = usize::from(u16::from_be_bytes(self.take()?)).saturating_add(1);
            }
            let (value, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.broken())?;
            self.rest = rest;
            let next = self.byte()?;
            if next >> 4 == 0
                && let Some(&[a, b, c]) = value.first_chunk()
            {
                nanos = u32::from_be_bytes([0, a, b, c]).min(999_999);
            }
            packet = next & 0xF;
        }
        Ok((packet, nanos))
    }

    fn codec(&mut self, kind: TrackKind) -> Result<Codec, FlvError> {
        let code: [u8; 4] = self.take()?;
        FOURCC_CODECS
            .into_iter()
            .find(|&codec| codec.kind() == kind && fourcc(codec) == Some(code))
            .ok_or_else(|| FlvError::Codec { name: format!("FourCC {}", code.escape_ascii()) })
    }

    /// A multitrack message is taken if it holds one track, the first; returns the packet type inside.
    fn one_track(&mut self, kind: TrackKind) -> Result<(u8, Codec), FlvError> {
        let types = self.byte()?;
        if types >> 4 != 0 {
            return Err(FlvError::Multitrack);
        }
        let codec = self.codec(kind)?;
        if self.byte()? != 0 {
            return Err(FlvError::Multitrack);
        }
        Ok((types & 0xF, codec))
    }
}

/// Reads the body of a video message. No copy.
pub fn demux_video(body: &[u8]) -> Result<Tag, FlvError> {
    let mut cursor = Cursor::new(body, "video message");
    let Some(&first) = body.first() else { return Ok(Tag::Nothing) };
    cursor.byte()?;
    let frame = first >> 4 & 7;
    let keyframe = frame == 1 || frame == 4;
    if first & 0x80 != 0 {
        return enhanced_video(cursor, first & 0xF, frame);
    }
    // 12 was never Adobe's: Chinese servers and cameras use it for HEVC with the layout of AVC.
    let codec = match first & 0xF {
        7 => Codec::H264,
        12 => Codec::Hevc,
        _ if frame == 5 => return Ok(Tag::Nothing),
        other => {
            let name = match other {
                1 => "FLV video 1 (JPEG)".to_owned(),
                2 => "FLV video 2 (Sorenson H.263)".to_owned(),
                3 | 6 => format!("FLV video {other} (screen video)"),
                4 | 5 => format!("FLV video {other} (VP6)"),
                _ => format!("FLV video {other}"),
            };
            return Err(FlvError::Codec { name });
        }
    };
    if frame == 5 {
        return Ok(Tag::Nothing);
    }
    let packet = cursor.byte()?;
    let composition_ms = cursor.i24()?;
    let at = cursor.at();
    let audio = AudioShape::default();
    Ok(match packet {
        0 => Tag::Header { codec, at },
        1 => Tag::Unit { codec, at, keyframe, composition_ms, nanos: 0, audio },
        2 => Tag::EndOfSequence { kind: TrackKind::Video },
        _ => Tag::Nothing,
    })
}

fn enhanced_video(mut cursor: Cursor<'_>, packet: u8, frame: u8) -> Result<Tag, FlvError> {
    let (mut packet, nanos) = cursor.mod_ex(packet)?;
    if packet != 4 && frame == 5 {
        return Ok(Tag::Nothing);
    }
    let codec = if packet == 6 {
        let (inner, codec) = cursor.one_track(TrackKind::Video)?;
        packet = inner;
        codec
    } else {
        cursor.codec(TrackKind::Video)?
    };
    let composition_ms = match (packet, codec) {
        (1, Codec::H264 | Codec::Hevc) => cursor.i24()?,
        _ => 0,
    };
    let (at, keyframe, audio) = (cursor.at(), frame == 1 || frame == 4, AudioShape::default());
    Ok(match packet {
        0 => Tag::Header { codec, at },
        1 | 3 => Tag::Unit { codec, at, keyframe, composition_ms, nanos, audio },
        2 => Tag::EndOfSequence { kind: TrackKind::Video },
        4 => Tag::Metadata,
        _ => Tag::Nothing,
    })
}

/// Reads the body of an audio message. No copy.
pub fn demux_audio(body: &[u8]) -> Result<Tag, FlvError> {
    let mut cursor = Cursor::new(body, "audio message");
    let Some(&first) = body.first() else { return Ok(Tag::Nothing) };
    cursor.byte()?;
    let unit = |codec, at, audio| Tag::Unit { codec, at, keyframe: true, composition_ms: 0, nanos: 0, audio };
    let channels = if first & 1 == 1 { 2 } else { 1 };
    let at = cursor.at();
    Ok(match first >> 4 {
        10 => match cursor.byte() {
            // OBS ends its sound with a lone 0xAF.
            Err(_) => Tag::Nothing,
            Ok(0) => Tag::Header { codec: Codec::Aac, at: cursor.at() },
            Ok(1) => unit(Codec::Aac, cursor.at(), AudioShape::default()),
            Ok(_) => Tag::Nothing,
        },
        2 | 14 => {
            let sample_rate = match (first >> 4, first >> 2 & 3) {
                (14, _) => 8_000,
                (_, 0) => 5_512,
                (_, 1) => 11_025,
                (_, 2) => 22_050,
                _ => 44_100,
            };
            unit(Codec::Mp3, at, AudioShape { sample_rate, channels })
        }
        7 => unit(Codec::PcmA, at, AudioShape { sample_rate: 8_000, channels }),
        8 => unit(Codec::PcmU, at, AudioShape { sample_rate: 8_000, channels }),
        9 => return enhanced_audio(cursor, first & 0xF),
        other => {
            let name = match other {
                0 | 3 => format!("FLV audio {other} (uncompressed)"),
                1 => "FLV audio 1 (ADPCM)".to_owned(),
                4..=6 => format!("FLV audio {other} (Nellymoser)"),
                11 => "FLV audio 11 (Speex)".to_owned(),
                _ => format!("FLV audio {other}"),
            };
            return Err(FlvError::Codec { name });
        }
    })
}

fn enhanced_audio(mut cursor: Cursor<'_>, packet: u8) -> Result<Tag, FlvError> {
    let (mut packet, nanos) = cursor.mod_ex(packet)?;
    let codec = if packet == 5 {
        let (inner, codec) = cursor.one_track(TrackKind::Audio)?;
        packet = inner;
        codec
    } else {
        cursor.codec(TrackKind::Audio)?
    };
    let (at, audio) = (cursor.at(), AudioShape::default());
    Ok(match packet {
        0 => Tag::Header { codec, at },
        1 => Tag::Unit { codec, at, keyframe: true, composition_ms: 0, nanos, audio },
        2 => Tag::EndOfSequence { kind: TrackKind::Audio },
        _ => Tag::Nothing,
    })
}
