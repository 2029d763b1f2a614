//! Segments of a live stream, and the playlists that name them: CMAF (fragmented MP4), HLS, DASH.
//!
//! ```text
//!  Tracks, Units --> Package --> Lane video: [seg 7 | seg 8 | seg 9 | part part ...]
//!                        |   \-> Lane audio: [seg 7 | seg 8 | seg 9 | part ...]    same numbers, same beginnings
//!                        +--> hls::media, hls::master, dash::manifest
//! ```
//! A [`Package`] cuts one stream. Pictures and sound are files of their own with numbers in common, so that HLS and DASH
//! share them. A segment is a list of heads, made here, and of payloads, which are the stream's own and never copied.
//!
//! Every unit waits for the next of its track, because only that tells how long it lasts: durations are exact, their sums
//! are the differences of the timestamps.
//!
//! Not for storing and serving: that is `fieldgate-net`.

mod boxes;
mod codec;
pub mod dash;
mod fragment;
pub mod hls;
mod init;
mod lane;
pub mod names;
mod package;
mod picture;
pub mod recorded;
mod settings;
pub mod target;
pub mod ts;
pub mod vod;
mod wall_clock;

pub use codec::codec_string;
pub use lane::{Found, Lane};
pub use package::Package;
pub use picture::{first_picture, fuzz as fuzz_picture};
pub use settings::Settings;

use bytes::Bytes;
use fieldgate_media::{Track, TrackKind};
use std::sync::Arc;

/// Ticks per second in all files.
const TIMESCALE: u32 = 90_000;
/// The same, for times.
const SECOND: i64 = 90_000;

/// The number of a track inside files, and in fragments.
fn track_number(kind: TrackKind) -> u32 {
    match kind {
        TrackKind::Video => 1,
        TrackKind::Audio => 2,
    }
}

/// An initialisation segment, in force for the segments that refer to it.
#[derive(Clone, Debug)]
pub struct Init {
    /// Its number within the lane.
    pub number: u32,
    /// The track that it describes.
    pub track: Track,
    /// The codec string of RFC 6381.
    pub codecs: String,
    /// The file.
    pub file: Bytes,
}

/// One access unit with its final times, in ticks of the stream.
#[derive(Clone, Debug)]
pub struct Sample {
    /// As published.
    pub payload: Bytes,
    /// Decode time.
    pub dts: i64,
    /// Presentation time minus decode time.
    pub offset: u32,
    /// Time to the next unit of the track.
    pub duration: u32,
    /// Decodable alone.
    pub keyframe: bool,
}

/// Part of a segment: one fragment.
#[derive(Clone, Debug)]
pub struct Part {
    /// `moof` and the head of `mdat`.
    pub head: Bytes,
    /// What follows it; at least one.
    pub samples: Vec<Sample>,
    /// Ticks.
    pub duration: i64,
    /// Bytes of the whole.
    pub bytes: u64,
    /// Begins with a unit that can be decoded alone.
    pub independent: bool,
}

/// A whole segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The number that it has in both lanes.
    pub number: u64,
    /// How many discontinuities lie before it, counted from the package's first.
    pub period: u64,
    /// It is the first of its period, which is not the package's first.
    pub is_discontinuity: bool,
    /// Where and when its period began.
    pub origin: Origin,
    /// When its beginning was captured, microseconds since 1970 UTC.
    pub unix_micros: i64,
    /// Decode time of its beginning, ticks.
    pub start: i64,
    /// Presentation time of its earliest unit, ticks.
    pub shown: i64,
    /// Ticks.
    pub duration: i64,
    /// In order; none: nothing came in this time.
    pub parts: Vec<Arc<Part>>,
    /// Bytes of the whole.
    pub bytes: u64,
    /// Begins with a unit that can be decoded alone.
    pub independent: bool,
    /// What a player needs before it.
    pub init: Arc<Init>,
}

/// Where a period begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The number of its first segment.
    pub number: u64,
    /// Decode time of what leads, ticks.
    pub start: i64,
    /// The gateway's time then, microseconds since 1970 UTC; no period begins before the one before it is over.
    pub unix_micros: i64,
}

impl Segment {
    /// All samples in order.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.parts.iter().flat_map(|part| &part.samples)
    }
}

impl Part {
    /// The piece at `at`: the head is at 0, the payloads follow; `None` behind the last.
    pub fn piece(&self, at: usize) -> Option<&Bytes> {
        match at.checked_sub(1) {
            None => Some(&self.head),
            Some(at) => self.samples.get(at).map(|sample| &sample.payload),
        }
    }
}

#[cfg(test)]
mod tests;
