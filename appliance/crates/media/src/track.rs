//! What a stream consists of: its video and audio tracks and their codec headers.

use crate::{Codec, TrackKind, aac, av1, h264, hevc, sound};
use bytes::Bytes;
use std::sync::Arc;

/// Names one track within its stream; small and stable for the stream's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(pub u8);

impl TrackId {
    /// The video track of streams that have one at most (RTMP without multitrack, cameras).
    pub const VIDEO: TrackId = TrackId(0);
    /// The audio track of streams that have one at most.
    pub const AUDIO: TrackId = TrackId(1);
}

/// Size and rate of pictures, as far as known; 0 where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VideoShape {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Pictures per second.
    pub frame_rate: f64,
}

/// Rate and channels of sound, as far as known; 0 where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AudioShape {
    /// Hertz.
    pub sample_rate: u32,
    /// Count.
    pub channels: u8,
}

/// What the source said of a track besides its codec header (RTMP: `onMetaData` and FLV's flags), as it was when the
/// newest codec header came; zeros where it said nothing. Never what a header tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Declared {
    /// Bits per second.
    pub bits_per_second: u64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Pictures per second.
    pub frame_rate: f64,
    /// The first byte of the FLV sound tag: format, rate, sample size and channels; none for other sources.
    pub flv_sound: Option<u8>,
}

/// One video or audio of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Its name within the stream.
    pub id: TrackId,
    /// How its units are coded.
    pub codec: Codec,
    /// The codec's out-of-band header (see [`Codec`]); empty for codecs that have none, or until it came.
    pub header: Bytes,
    /// Known picture shape; zeros for audio.
    pub video: VideoShape,
    /// Known sound shape; zeros for video.
    pub audio: AudioShape,
    /// What the source itself said.
    pub declared: Declared,
}

impl Track {
    /// A track of which only codec and header are known yet.
    pub fn new(id: TrackId, codec: Codec, header: Bytes) -> Self {
        Track {
            id,
            codec,
            header,
            video: VideoShape::default(),
            audio: AudioShape::default(),
            declared: Declared::default(),
        }
    }

    /// The same track with the shapes that its header tells, where it tells any.
    pub fn with_header_shape(mut self) -> Self {
        match self.codec {
            Codec::H264 => {
                let shape = h264::AvcConfig::parse(&self.header).and_then(|config| config.shape());
                self.video = shape.unwrap_or(self.video);
            }
            Codec::Hevc => {
                let shape = hevc::HevcConfig::parse(&self.header).and_then(|config| config.shape());
                self.video = shape.unwrap_or(self.video);
            }
            Codec::Av1 => self.video = av1::shape(&self.header).unwrap_or(self.video),
            Codec::Aac => {
                self.audio = aac::AacConfig::parse(&self.header).map_or(self.audio, |config| config.shape());
            }
            Codec::Opus => self.audio = sound::opus_shape(&self.header).unwrap_or(self.audio),
            Codec::Flac => self.audio = sound::flac_shape(&self.header).unwrap_or(self.audio),
            _ => {}
        }
        self
    }

    /// Whether units of both are decoded and shown alike: all but what the source declared is equal.
    pub fn same_media(&self, other: &Track) -> bool {
        let (a, b) = (self, other);
        a.id == b.id && a.codec == b.codec && a.header == b.header && a.video == b.video && a.audio == b.audio
    }

    /// Picture or sound.
    pub fn kind(&self) -> TrackKind {
        self.codec.kind()
    }
}

/// All tracks of a stream at one moment. Cheap to clone; a change makes a new one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracks(Arc<[Track]>);

impl Tracks {
    /// The most tracks that one stream may have.
    pub const MAX: usize = 8;

    /// From a list in the order in which they are announced.
    pub fn new(tracks: Vec<Track>) -> Self {
        Tracks(tracks.into())
    }

    /// The track of that name.
    pub fn get(&self, id: TrackId) -> Option<&Track> {
        self.0.iter().find(|track| track.id == id)
    }

    /// The first track of that kind.
    pub fn first(&self, kind: TrackKind) -> Option<&Track> {
        self.0.iter().find(|track| track.kind() == kind)
    }

    /// All, in order of announcement.
    pub fn iter(&self) -> std::slice::Iter<'_, Track> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both hold the same tracks in the same order, whatever the source declared of them.
    pub fn same_media(&self, other: &Tracks) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(other.iter()).all(|(a, b)| a.same_media(b))
    }

    /// This set with `track` added, or put in place of the one with its id.
    pub fn with(&self, track: Track) -> Tracks {
        let mut tracks: Vec<Track> = self.0.to_vec();
        match tracks.iter_mut().find(|known| known.id == track.id) {
            Some(known) => *known = track,
            None => tracks.push(track),
        }
        Tracks::new(tracks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_with_a_known_id_takes_its_place() {
        let video = Track::new(TrackId::VIDEO, Codec::H264, Bytes::from_static(b"a"));
        let audio = Track::new(TrackId::AUDIO, Codec::Aac, Bytes::new());
        let tracks = Tracks::default().with(video.clone()).with(audio);
        let changed = tracks.with(Track { header: Bytes::from_static(b"b"), ..video });
        assert_eq!(changed.iter().count(), 2);
        assert_eq!(changed.first(TrackKind::Video).map(|t| &t.header[..]), Some(&b"b"[..]));
        assert_eq!(tracks.get(TrackId::VIDEO).map(|t| &t.header[..]), Some(&b"a"[..]));
    }

    #[test]
    fn what_a_source_declares_makes_no_other_media() {
        let video = Track::new(TrackId::VIDEO, Codec::H264, Bytes::from_static(b"a"));
        let told =
            Track { declared: Declared { bits_per_second: 5, ..Declared::default() }, ..video.clone() };
        let (a, b) = (Tracks::new(vec![video.clone()]), Tracks::new(vec![told]));
        assert!(a != b && a.same_media(&b));
        assert!(!a.same_media(&Tracks::new(vec![Track { codec: Codec::Hevc, ..video }])));
        assert!(!a.same_media(&Tracks::default()));
    }
}
