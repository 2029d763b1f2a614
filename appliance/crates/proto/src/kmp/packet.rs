//! The packets: their fields and their bytes, all little-endian. Source: the KMP contract, sections 2 and 3.

use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// Bytes that every packet begins with: tag, header length, data length, reserved.
pub const COMMON_LEN: usize = 16;
/// The longest header that a peer may send, in bytes.
pub const MAX_HEADER_LEN: u32 = 65_536;
/// The most data that may follow a header, in bytes (16 MiB).
pub const MAX_DATA_LEN: u32 = 16_777_216;
/// Bytes of a channel or track id.
pub const NAME_LEN: usize = 32;
/// The frame id that stands for none; no connection may begin with it.
pub const NO_FRAME_ID: u64 = u64::MAX;
/// Ticks per second of `created`, `dts` and `pts_delay` where nothing else is set.
pub const DEFAULT_TIMESCALE: u32 = 90_000;
/// A whole `null` packet: a sign of life, without meaning.
pub const NULL: [u8; COMMON_LEN] = *b"null\x10\0\0\0\0\0\0\0\0\0\0\0";
/// A whole `eost` packet: the stream ends here.
pub const END_OF_STREAM: [u8; COMMON_LEN] = *b"eost\x10\0\0\0\0\0\0\0\0\0\0\0";

/// Bit of `cnct` flags: the same input makes the same bytes again.
const CONSISTENT: u32 = 1;
/// Bit of `fram` flags.
const KEYFRAME: u32 = 1;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// `cnct`, the first of a connection.
    Connect,
    /// `minf`, how the frames after it are coded.
    MediaInfo,
    /// `fram`, one frame.
    Frame,
    /// `null`, a sign of life.
    Null,
    /// `eost`, the end.
    EndOfStream,
    /// `ackf`, the receiver's only packet.
    Ack,
}

impl PacketKind {
    /// Its four bytes on the wire.
    pub const fn tag(self) -> [u8; 4] {
        match self {
            PacketKind::Connect => *b"cnct",
            PacketKind::MediaInfo => *b"minf",
            PacketKind::Frame => *b"fram",
            PacketKind::Null => *b"null",
            PacketKind::EndOfStream => *b"eost",
            PacketKind::Ack => *b"ackf",
        }
    }

    /// The kind with that tag; `None` if there is none.
    pub const fn from_tag(tag: [u8; 4]) -> Option<PacketKind> {
        match &tag {
            b"cnct" => Some(PacketKind::Connect),
            b"minf" => Some(PacketKind::MediaInfo),
            b"fram" => Some(PacketKind::Frame),
            b"null" => Some(PacketKind::Null),
            b"eost" => Some(PacketKind::EndOfStream),
            b"ackf" => Some(PacketKind::Ack),
            _ => None,
        }
    }

    /// Bytes of its header with all fields known here; a longer one is valid, a shorter one is not.
    pub const fn header_len(self) -> u32 {
        match self {
            PacketKind::Connect => 104,
            PacketKind::MediaInfo => 48,
            PacketKind::Frame | PacketKind::Ack => 40,
            PacketKind::Null | PacketKind::EndOfStream => 16,
        }
    }
}

/// A channel or track id: at most 32 bytes, none of them zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Name([u8; NAME_LEN]);

impl Name {
    /// From text; `None` if it is longer than 32 bytes or holds a zero byte. Empty is allowed.
    pub fn new(text: &str) -> Option<Name> {
        let mut name = [0; NAME_LEN];
        name.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        (!text.as_bytes().contains(&0)).then_some(Name(name))
    }

    /// From the 32 bytes of a packet: what stands before the first zero.
    pub fn from_wire(mut bytes: [u8; NAME_LEN]) -> Name {
        let used = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
        bytes.iter_mut().skip(used).for_each(|byte| *byte = 0);
        Name(bytes)
    }

    /// Its bytes without the padding; a peer may send any, not only UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        let used = self.0.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
        self.0.get(..used).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// `cnct`: which track comes, and from which frame on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The channel, as the controller named it.
    pub channel_id: Name,
    /// The track within the channel.
    pub track_id: Name,
    /// Id of the first frame to come; never [`NO_FRAME_ID`].
    pub initial_frame_id: u64,
    /// `upstream_frame_id` of the newest ack, 0 without one.
    pub initial_upstream_frame_id: u64,
    /// `offset` of the newest ack, 0 without one.
    pub initial_offset: u32,
    /// The same input makes the same bytes again, so that a receiver may go on within a GOP.
    pub consistent: bool,
    /// Opaque to the protocol; often empty.
    pub data: Bytes,
}

impl Connect {
    /// Appends the whole packet.
    pub fn encode(&self, out: &mut BytesMut) {
        put_common(out, PacketKind::Connect, self.data.len());
        out.put_slice(&self.channel_id.0);
        out.put_slice(&self.track_id.0);
        out.put_u64_le(self.initial_frame_id);
        out.put_u64_le(self.initial_upstream_frame_id);
        out.put_u32_le(self.initial_offset);
        out.put_u32_le(if self.consistent { CONSISTENT } else { 0 });
        out.put_slice(&self.data);
    }

    pub(super) fn decode(header: &[u8], data: Bytes) -> Option<Connect> {
        let mut fields = Fields(header.get(COMMON_LEN..)?);
        Some(Connect {
            channel_id: Name::from_wire(fields.take()?),
            track_id: Name::from_wire(fields.take()?),
            initial_frame_id: u64::from_le_bytes(fields.take()?),
            initial_upstream_frame_id: u64::from_le_bytes(fields.take()?),
            initial_offset: u32::from_le_bytes(fields.take()?),
            consistent: u32::from_le_bytes(fields.take()?) & CONSISTENT != 0,
            data,
        })
    }
}

/// What a track consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Text.
    Subtitle,
}

/// A fraction; `0/1` where unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rational {
    /// Above the line.
    pub num: u32,
    /// Below the line.
    pub denom: u32,
}

/// What `minf` says of pictures; zeros where unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Video {
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// Pictures per second.
    pub frame_rate: Rational,
    /// Pictures carry CEA-608 or CEA-708 captions.
    pub cea_captions: bool,
}

/// What `minf` says of sound; zeros where unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audio {
    /// Count.
    pub channels: u16,
    /// Of one sample before coding.
    pub bits_per_sample: u16,
    /// Hertz.
    pub sample_rate: u32,
    /// Which channels, one bit each: 1 front left, 2 front right, 4 front centre, 8 low frequencies, ...
    pub channel_layout: u64,
}

/// The part of `minf` that depends on the kind of track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Pictures.
    Video(Video),
    /// Sound.
    Audio(Audio),
    /// Text.
    Subtitle,
}

/// `minf`: how the frames after it are coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaInfo {
    /// See [`super::media_info`] for the numbers.
    pub codec_id: u32,
    /// Hertz, unit of `created`, `dts` and `pts_delay`; never 0 in a packet that was read.
    pub timescale: u32,
    /// Bits per second, 0 unknown.
    pub bitrate: u32,
    /// What depends on the kind.
    pub media: Media,
    /// The codec's header, without any box around it; empty for codecs that have none.
    pub extra_data: Bytes,
}

impl MediaInfo {
    /// What kind of track it describes.
    pub fn kind(&self) -> MediaKind {
        match self.media {
            Media::Video(_) => MediaKind::Video,
            Media::Audio(_) => MediaKind::Audio,
            Media::Subtitle => MediaKind::Subtitle,
        }
    }

    /// The whole packet.
    pub fn encode(&self) -> Wire {
        let mut head = BytesMut::with_capacity(PacketKind::MediaInfo.header_len() as usize);
        put_common(&mut head, PacketKind::MediaInfo, self.extra_data.len());
        head.put_u32_le(match self.media {
            Media::Video(_) => 0,
            Media::Audio(_) => 1,
            Media::Subtitle => 2,
        });
        head.put_u32_le(self.codec_id);
        head.put_u32_le(self.timescale);
        head.put_u32_le(self.bitrate);
        match self.media {
            Media::Video(video) => {
                head.put_u16_le(video.width);
                head.put_u16_le(video.height);
                head.put_u32_le(video.frame_rate.num);
                head.put_u32_le(video.frame_rate.denom);
                head.put_u32_le(u32::from(video.cea_captions));
            }
            Media::Audio(audio) => {
                head.put_u16_le(audio.channels);
                head.put_u16_le(audio.bits_per_sample);
                head.put_u32_le(audio.sample_rate);
                head.put_u64_le(audio.channel_layout);
            }
            Media::Subtitle => head.put_bytes(0, 16),
        }
        Wire { head: head.freeze(), body: self.extra_data.clone() }
    }

    /// `None` for an unknown kind of media.
    pub(super) fn decode(header: &[u8], extra_data: Bytes) -> Option<MediaInfo> {
        let mut fields = Fields(header.get(COMMON_LEN..)?);
        let kind = u32::from_le_bytes(fields.take()?);
        let codec_id = u32::from_le_bytes(fields.take()?);
        let timescale = u32::from_le_bytes(fields.take()?);
        let bitrate = u32::from_le_bytes(fields.take()?);
        let media = match kind {
            0 => Media::Video(Video {
                width: u16::from_le_bytes(fields.take()?),
                height: u16::from_le_bytes(fields.take()?),
                frame_rate: Rational {
                    num: u32::from_le_bytes(fields.take()?),
                    denom: u32::from_le_bytes(fields.take()?),
                },
                cea_captions: u32::from_le_bytes(fields.take()?) != 0,
            }),
            1 => Media::Audio(Audio {
                channels: u16::from_le_bytes(fields.take()?),
                bits_per_sample: u16::from_le_bytes(fields.take()?),
                sample_rate: u32::from_le_bytes(fields.take()?),
                channel_layout: u64::from_le_bytes(fields.take()?),
            }),
            2 => Media::Subtitle,
            _ => return None,
        };
        Some(MediaInfo { codec_id, timescale, bitrate, media, extra_data })
    }
}

/// The fields of `fram`. Its id is not among them: the n-th frame of a connection has `initial_frame_id + n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Wall clock (Unix time) at which the first server got the frame, in the track's timescale.
    pub created: i64,
    /// Decode time in the track's timescale; need not start near 0.
    pub dts: i64,
    /// Decodable alone; never set for sound.
    pub keyframe: bool,
    /// Presentation time minus decode time; may be negative. Subtitles: duration.
    pub pts_delay: i32,
}

impl FrameHead {
    /// The packet with this payload, which is not copied.
    ///
    /// `payload` must not be longer than [`MAX_DATA_LEN`]; receivers close at such a frame.
    pub fn encode(&self, payload: Bytes) -> Wire {
        let mut head = BytesMut::with_capacity(PacketKind::Frame.header_len() as usize);
        put_common(&mut head, PacketKind::Frame, payload.len());
        head.put_i64_le(self.created);
        head.put_i64_le(self.dts);
        head.put_u32_le(if self.keyframe { KEYFRAME } else { 0 });
        head.put_i32_le(self.pts_delay);
        Wire { head: head.freeze(), body: payload }
    }

    pub(super) fn decode(header: &[u8]) -> Option<FrameHead> {
        let mut fields = Fields(header.get(COMMON_LEN..)?);
        Some(FrameHead {
            created: i64::from_le_bytes(fields.take()?),
            dts: i64::from_le_bytes(fields.take()?),
            keyframe: u32::from_le_bytes(fields.take()?) & KEYFRAME != 0,
            pts_delay: i32::from_le_bytes(fields.take()?),
        })
    }
}

/// `ackf`: all frames with a lower id have arrived for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The first frame that is wanted after a reconnect.
    pub frame_id: u64,
    /// Private to the receiver; comes back in the next `cnct`.
    pub upstream_frame_id: u64,
    /// Private to the receiver; comes back in the next `cnct`.
    pub offset: u32,
}

impl Ack {
    /// The whole packet.
    pub fn encode(&self, out: &mut BytesMut) {
        put_common(out, PacketKind::Ack, 0);
        out.put_u64_le(self.frame_id);
        out.put_u64_le(self.upstream_frame_id);
        out.put_u32_le(self.offset);
        out.put_u32_le(0);
    }

    pub(super) fn decode(header: &[u8]) -> Option<Ack> {
        let mut fields = Fields(header.get(COMMON_LEN..)?);
        Some(Ack {
            frame_id: u64::from_le_bytes(fields.take()?),
            upstream_frame_id: u64::from_le_bytes(fields.take()?),
            offset: u32::from_le_bytes(fields.take()?),
        })
    }
}

/// A packet ready to be sent: its header, and its data as they are elsewhere in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The header.
    pub head: Bytes,
    /// What follows it; may be empty.
    pub body: Bytes,
}

impl Wire {
    /// Bytes on the wire.
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub fn len(&self) -> usize {
        self.head.len().saturating_add(self.body.len())
    }
}

fn put_common(out: &mut BytesMut, kind: PacketKind, data_len: usize) {
    out.put_slice(&kind.tag());
    out.put_u32_le(kind.header_len());
    out.put_u32_le(u32::try_from(data_len).unwrap_or(u32::MAX));
    out.put_u32_le(0);
}

/// The rest of a header.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_takes_32_bytes_and_no_zero() {
        let longest = "x".repeat(NAME_LEN);
        assert_eq!(Name::new(&longest).unwrap().as_bytes(), longest.as_bytes());
        assert_eq!(Name::new(&"x".repeat(NAME_LEN + 1)), None);
        assert_eq!(Name::new("a\0b"), None);
        let mut wire = [b'y'; NAME_LEN];
        wire[2] = 0;
        assert_eq!(Name::from_wire(wire), Name::new("yy").unwrap());
        assert_eq!(Name::from_wire(*b"\xff\"34567890123456789012345678901x").to_string().len(), 32 + 3 + 1);
    }

    #[test]
    fn headers_have_the_lengths_that_they_say() {
        let mut out = BytesMut::new();
        let name = Name::new("n").unwrap();
        Connect {
            channel_id: name,
            track_id: name,
            initial_frame_id: 7,
            initial_upstream_frame_id: 8,
            initial_offset: 9,
            consistent: true,
            data: Bytes::from_static(b"data"),
        }
        .encode(&mut out);
        assert_eq!(out.len(), 104 + 4);
        assert_eq!(&out[..16], b"cnct\x68\0\0\0\x04\0\0\0\0\0\0\0");
        assert_eq!(&out[80..], b"\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x09\0\0\0\x01\0\0\0data");
        out.clear();
        Ack { frame_id: 1, upstream_frame_id: 2, offset: 3 }.encode(&mut out);
        assert_eq!(
            &out[..],
            b"ackf\x28\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0"
        );
        let head = FrameHead { created: 1, dts: -2, keyframe: true, pts_delay: -3600 };
        let frame = head.encode(Bytes::from_static(b"xyz"));
        assert_eq!((frame.head.len(), frame.len()), (40, 43));
        assert_eq!(&frame.head[32..], b"\x01\0\0\0\xf0\xf1\xff\xff");
        for kind in ["cnct", "minf", "fram", "null", "eost", "ackf"] {
            let tag = kind.as_bytes().try_into().unwrap();
            assert_eq!(PacketKind::from_tag(tag).unwrap().tag(), tag);
        }
    }
}
