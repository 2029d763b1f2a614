//! FLV and Enhanced RTMP tag bodies to tracks and access units.
use super::chunk_reader::Message;
use fieldgate_media::{AudioShape, Draft, TrackId, Tracks, VideoShape};

/// Media that cannot be carried or is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlvError {
    /// A codec that no output can carry.
    #[error("codec {name} is not supported")]
    Codec {
        /// Its name, FourCC or FLV number.
        name: String,
    },
    /// More than one track of a kind in one message.
    #[error("multitrack is not supported, send one video and one audio track")]
    Multitrack,
    /// A tag that ends too early.
    #[error("{what} of {len} bytes is cut off")]
    Truncated {
        /// What it was.
        what: &'static str,
        /// Its length.
        len: usize,
    },
    /// One broken message after the other.
    #[error("{count} messages in a row do not parse; last: {last}")]
    Persistent {
        /// How many.
        count: u32,
        /// The last one's error.
        last: Box<FlvError>,
    },
}

/// What was understood of an `onMetaData`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamMetadata {
    /// Picture.
    pub video: VideoShape,
    /// Sound.
    pub audio: AudioShape,
    /// The encoder's name, at most 128 characters.
    pub encoder: Option<String>,
}

/// What a message contained.
#[derive(Debug)]
pub enum Item {
    /// A codec header came: all tracks as known now.
    Tracks {
        /// All tracks.
        tracks: Tracks,
        /// The header was identical with the one before.
        same: bool,
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
pub struct Demuxer {}
impl Demuxer {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }
    /// Takes an audio, video, data or aggregate message; its items come from `poll`.
    pub fn push(&mut self, _message: Message) -> Result<(), FlvError> {
        Ok(())
    }
    /// The next item.
    pub fn poll(&mut self) -> Option<Item> {
        None
    }
    /// Units left out because no codec header had come before them.
    pub fn skipped(&self) -> u64 {
        0
    }
    /// Messages that did not parse.
    pub fn unparsable(&self) -> u64 {
        0
    }
}
