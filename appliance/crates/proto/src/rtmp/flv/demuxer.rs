//! One stream's messages to tracks and units.

use super::{FlvError, StreamMetadata, Tag, demux_audio, demux_video};
use crate::rtmp::chunk_reader::{Message, kind};
use bytes::{Buf, Bytes};
use fieldgate_media::{
    AudioShape, Codec, Declared, Draft, HEADROOM, Ticks, Track, TrackId, TrackKind, Tracks, UnitHead, h264,
    hevc, sound,
};
use std::collections::VecDeque;

/// Broken messages in a row after which the stream is given up.
const BROKEN_MESSAGES: u32 = 64;
/// Bytes of broken messages in a row after which the stream is given up.
const BROKEN_BYTES: usize = 1 << 20;

/// What a message contained.
#[derive(Debug)]
pub enum Item {
    /// A codec header came, or the first unit of a codec that has none: all tracks as known now.
    Tracks {
        /// All tracks.
        tracks: Tracks,
        /// The header was identical with the one before.
        same: bool,
        /// The track whose header or first unit this is; none if `onMetaData` told more of tracks before their media.
        header_of: Option<TrackId>,
    },
    /// One access unit.
    Unit(Draft),
    /// `onMetaData`.
    Metadata(StreamMetadata),
    /// The encoder says that this track ends here.
    EndOfSequence(TrackId),
}

/// Turns one stream's messages into tracks and units.
#[derive(Debug, Default)]
pub struct Demuxer {
    tracks: Tracks,
    metadata: StreamMetadata,
    /// The message that `poll` reads next.
    pending: Option<Message>,
    aggregate: Option<Aggregate>,
    items: VecDeque<Item>,
    /// The tracks whose first unit has come.
    flowing: [bool; 2],
    /// Last timestamp as sent, and unwrapped.
    clock: Option<(u32, i64)>,
    broken: u32,
    broken_bytes: usize,
    skipped: u64,
    unparsable: u64,
}

/// The rest of an aggregate message.
#[derive(Debug)]
struct Aggregate {
    rest: Bytes,
    /// To be added to the times inside.
    shift: Option<u32>,
    timestamp: u32,
    stream_id: u32,
    csid: u32,
}

impl Demuxer {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an audio, video, data or aggregate message (others are ignored). Poll until `None` before the next.
    pub fn push(&mut self, message: Message) {
        self.pending = Some(message);
    }

    /// The next item of the message pushed last.
    ///
    /// Fails when the stream cannot be carried or too much of it is broken; single broken messages are counted.
    pub fn poll(&mut self) -> Result<Option<Item>, FlvError> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            let message = match self.pending.take() {
                Some(message) if message.kind == kind::AGGREGATE => {
                    self.aggregate = Some(Aggregate {
                        timestamp: message.timestamp,
                        stream_id: message.stream_id,
                        csid: message.csid,
                        shift: None,
                        rest: message.buf.freeze().slice(HEADROOM..),
                    });
                    continue;
                }
                Some(message) => message,
                None => match self.aggregate.as_mut().and_then(Aggregate::next) {
                    Some(message) => message,
                    None => {
                        self.aggregate = None;
                        return Ok(None);
                    }
                },
            };
            let len = message.body().len();
            match self.take(message) {
                Ok(None) => self.broken_bytes = 0,
                Ok(Some(item)) => {
                    (self.broken, self.broken_bytes) = (0, 0);
                    return Ok(Some(item));
                }
                Err(error) => self.count(error, len)?,
            }
        }
    }

    /// All tracks as known now.
    pub fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    /// Units left out because no codec header had come before them.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Messages that did not parse.
    pub fn unparsable(&self) -> u64 {
        self.unparsable
    }

    fn count(&mut self, error: FlvError, len: usize) -> Result<(), FlvError> {
        if error.is_final() {
            return Err(error);
        }
        self.unparsable = self.unparsable.saturating_add(1);
        self.broken = self.broken.saturating_add(1);
        self.broken_bytes = self.broken_bytes.saturating_add(len);
        if self.broken > BROKEN_MESSAGES || self.broken_bytes > BROKEN_BYTES {
            return Err(FlvError::Persistent { count: self.broken, last: Box::new(error) });
        }
        Ok(())
    }

    #[expect(clippy::arithmetic_side_effects, reason = "Ticks saturate")]
    fn take(&mut self, message: Message) -> Result<Option<Item>, FlvError> {
        let tag = match message.kind {
            kind::VIDEO => demux_video(message.body())?,
            kind::AUDIO => demux_audio(message.body())?,
            kind::DATA | kind::DATA_AMF3 => return self.data(&message),
            _ => return Ok(None),
        };
        let millis = self.unwrap_time(message.timestamp);
        match tag {
            Tag::Header { codec, at } => {
                let header = message.body().get(at..).unwrap_or_default();
                self.header(codec, header, flv_sound(&message))
            }
            Tag::EndOfSequence { kind } => Ok(Some(Item::EndOfSequence(id_of(kind)))),
            Tag::Metadata | Tag::Nothing => Ok(None),
            Tag::Unit { codec, at, keyframe, composition_ms, nanos, audio } => {
                let payload = message.body().get(at..).unwrap_or_default();
                // OBS and others send empty sound when muted at the start.
                if payload.is_empty() {
                    return Ok(None);
                }
                let id = id_of(codec.kind());
                let first = match self.tracks.get(id) {
                    Some(track) if track.codec == codec => None,
                    _ if needs_header(codec) => {
                        self.skipped = self.skipped.saturating_add(1);
                        return Ok(None);
                    }
                    _ => Some(self.headerless(codec, payload, audio, flv_sound(&message))),
                };
                if let Some(flowing) = self.flowing.get_mut(usize::from(id.0)) {
                    *flowing = true;
                }
                let dts = Ticks::from_millis(millis);
                let shift = Ticks::from_millis(i64::from(composition_ms));
                let pts = dts + shift + Ticks::new(i64::from(nanos).saturating_mul(9) / 100_000);
                let head = UnitHead {
                    track: id,
                    dts,
                    pts,
                    source_dts: dts,
                    source_pts: pts,
                    keyframe,
                    captured: None,
                };
                let unit = Draft::new(head, message.buf, at.saturating_add(HEADROOM)).map(Item::Unit);
                match first {
                    None => Ok(unit),
                    Some(tracks) => {
                        self.items.extend(unit);
                        Ok(Some(tracks))
                    }
                }
            }
        }
    }

    /// A codec header: a new or changed track, or the same again.
    fn header(
        &mut self,
        codec: Codec,
        header: &[u8],
        flv_sound: Option<u8>,
    ) -> Result<Option<Item>, FlvError> {
        let broken = FlvError::Broken { what: "codec header", len: header.len() };
        let nal_lengths = match codec {
            Codec::H264 => h264::AvcConfig::parse(header).ok_or(broken)?.length_len,
            Codec::Hevc => hevc::HevcConfig::parse(header).ok_or(broken)?.length_len,
            _ if header.is_empty() => return Err(broken),
            _ => 4,
        };
        if nal_lengths != 4 {
            return Err(FlvError::NalLengths { codec: codec.name(), len: nal_lengths });
        }
        let id = id_of(codec.kind());
        let known = self.tracks.get(id).filter(|track| track.codec == codec && track.header == header);
        let same = known.is_some();
        match known.cloned() {
            Some(mut track) => {
                track.declared = self.declared(track.kind(), flv_sound);
                self.tracks = self.tracks.with(track);
            }
            None => {
                let track = Track::new(id, codec, Bytes::copy_from_slice(header)).with_header_shape();
                self.set_track(track, flv_sound);
            }
        }
        Ok(Some(Item::Tracks { tracks: self.tracks.clone(), same, header_of: Some(id) }))
    }

    /// The first unit of a codec that needs no header makes the track.
    fn headerless(&mut self, codec: Codec, payload: &[u8], audio: AudioShape, flv_sound: Option<u8>) -> Item {
        let mut track = Track::new(id_of(codec.kind()), codec, Bytes::new());
        track.audio = match codec {
            Codec::Mp3 => sound::mp3_shape(payload).unwrap_or(audio),
            Codec::Ac3 | Codec::Eac3 => sound::ac3_shape(payload).unwrap_or(audio),
            _ => audio,
        };
        let header_of = Some(track.id);
        self.set_track(track, flv_sound);
        Item::Tracks { tracks: self.tracks.clone(), same: false, header_of }
    }

    /// Fills what the header does not say from `onMetaData`.
    fn set_track(&mut self, mut track: Track, flv_sound: Option<u8>) {
        track.declared = self.declared(track.kind(), flv_sound);
        match track.kind() {
            TrackKind::Video => {
                let said = self.metadata.video;
                if track.video.width == 0 || track.video.height == 0 {
                    (track.video.width, track.video.height) = (said.width, said.height);
                }
                if track.video.frame_rate == 0.0 {
                    track.video.frame_rate = said.frame_rate;
                }
            }
            TrackKind::Audio => {
                let said = self.metadata.audio;
                if track.audio.sample_rate == 0 {
                    track.audio.sample_rate = said.sample_rate;
                }
                if track.audio.channels == 0 {
                    track.audio.channels = said.channels;
                }
            }
        }
        self.tracks = self.tracks.with(track);
    }

    /// What the encoder itself says of a track now.
    fn declared(&self, kind: TrackKind, flv_sound: Option<u8>) -> Declared {
        let said = &self.metadata;
        match kind {
            TrackKind::Video => Declared {
                bits_per_second: said.video_bits_per_second,
                width: said.video.width,
                height: said.video.height,
                frame_rate: said.video.frame_rate,
                flv_sound,
            },
            TrackKind::Audio => {
                Declared { bits_per_second: said.audio_bits_per_second, flv_sound, ..Declared::default() }
            }
        }
    }

    /// Tracks that have had their header but no unit yet take what `onMetaData` says behind it; whether any did.
    fn declare_waiting(&mut self) -> bool {
        let waiting = self
            .tracks
            .iter()
            .filter(|track| !self.flowing.get(usize::from(track.id.0)).copied().unwrap_or(true));
        let told: Vec<Track> = waiting
            .filter_map(|track| {
                let declared = self.declared(track.kind(), track.declared.flv_sound);
                (declared != track.declared).then(|| Track { declared, ..track.clone() })
            })
            .collect();
        let any = !told.is_empty();
        for track in told {
            self.tracks = self.tracks.with(track);
        }
        any
    }

    fn data(&mut self, message: &Message) -> Result<Option<Item>, FlvError> {
        let body = message.body();
        match StreamMetadata::parse(body, message.kind) {
            Ok(None) => Ok(None),
            Ok(Some(metadata)) => {
                self.metadata = metadata.clone();
                if self.declare_waiting() {
                    let tracks = self.tracks.clone();
                    self.items.push_back(Item::Tracks { tracks, same: true, header_of: None });
                }
                Ok(Some(Item::Metadata(metadata)))
            }
            Err(_) => Err(FlvError::Broken { what: "data message", len: body.len() }),
        }
    }

    /// Milliseconds without the wrap at 2^32: the value nearest to the one before.
    fn unwrap_time(&mut self, timestamp: u32) -> i64 {
        let unwrapped = match self.clock {
            None => i64::from(timestamp),
            Some((last, unwrapped)) => {
                let step = timestamp.wrapping_sub(last).cast_signed();
                unwrapped.saturating_add(i64::from(step))
            }
        };
        self.clock = Some((timestamp, unwrapped));
        unwrapped
    }
}

impl Aggregate {
    /// The next message inside; `None` at the end or where it is cut off. Source: RTMP 7.1.6.
    fn next(&mut self) -> Option<Message> {
        let (&[kind, l0, l1, l2, t0, t1, t2, t3, _, _, _], rest) = self.rest.split_first_chunk()?;
        let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let body = rest.get(..len)?;
        // The upper byte of the time comes last.
        let time = u32::from_be_bytes([t3, t0, t1, t2]);
        let shift = *self.shift.get_or_insert_with(|| self.timestamp.wrapping_sub(time));
        let message = Message::copied(kind, time.wrapping_add(shift), self.stream_id, self.csid, body);
        // Tag header, body, back pointer.
        let used = len.saturating_add(15).min(self.rest.len());
        self.rest.advance(used);
        Some(message)
    }
}

/// The first byte of a plain FLV sound tag; Enhanced RTMP's says nothing of the sound.
fn flv_sound(message: &Message) -> Option<u8> {
    let first = message.body().first().copied().filter(|first| first >> 4 != 9)?;
    (message.kind == kind::AUDIO).then_some(first)
}

fn id_of(kind: TrackKind) -> TrackId {
    match kind {
        TrackKind::Video => TrackId::VIDEO,
        TrackKind::Audio => TrackId::AUDIO,
    }
}

fn needs_header(codec: Codec) -> bool {
    matches!(codec, Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Aac | Codec::Flac)
}
