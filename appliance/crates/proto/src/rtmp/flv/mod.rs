//! FLV and Enhanced RTMP tag bodies to tracks and access units.

mod demuxer;
mod metadata;
mod tag;

pub use demuxer::{Demuxer, Item};
pub use metadata::StreamMetadata;
pub use tag::{Tag, demux_audio, demux_video};

use fieldgate_media::Codec;

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
    /// A track other than the first of its kind.
    #[error("multitrack is not supported, send one video and one audio track")]
    Multitrack,
    /// NAL unit lengths of 1 or 2 bytes: outputs need 4.
    #[error("{codec} with {len}-byte NAL unit lengths is not supported, only 4")]
    NalLengths {
        /// The codec's name.
        codec: &'static str,
        /// Bytes of each length field.
        len: u8,
    },
    /// A tag that ends too early, or a codec header that does not parse.
    #[error("{what} of {len} bytes is cut off or broken")]
    Broken {
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

impl FlvError {
    /// Whether going on is pointless: the publisher must send something else.
    pub fn is_final(&self) -> bool {
        !matches!(self, FlvError::Broken { .. })
    }
}

/// The FourCC of Enhanced RTMP for a codec; `None` for those that only plain FLV numbers.
pub fn fourcc(codec: Codec) -> Option<[u8; 4]> {
    Some(match codec {
        Codec::H264 => *b"avc1",
        Codec::Hevc => *b"hvc1",
        Codec::Av1 => *b"av01",
        Codec::Vp9 => *b"vp09",
        Codec::Vp8 => *b"vp08",
        Codec::Aac => *b"mp4a",
        Codec::Mp3 => *b".mp3",
        Codec::Opus => *b"Opus",
        Codec::Ac3 => *b"ac-3",
        Codec::Eac3 => *b"ec-3",
        Codec::Flac => *b"fLaC",
        _ => return None,
    })
}

/// All codecs that have a FourCC.
pub const FOURCC_CODECS: [Codec; 11] = [
    Codec::H264,
    Codec::Hevc,
    Codec::Av1,
    Codec::Vp9,
    Codec::Vp8,
    Codec::Aac,
    Codec::Mp3,
    Codec::Opus,
    Codec::Ac3,
    Codec::Eac3,
    Codec::Flac,
];

#[cfg(test)]
mod tests;
