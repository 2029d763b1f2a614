//! What is known when a plan is made: streams that were seen, encoders that were proven.

use fieldgate_media::Codec;
use std::collections::BTreeMap;

/// All that a plan rests on besides the config. The default knows nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// What was seen of mountpoints and streams, by name.
    pub streams: BTreeMap<String, Seen>,
    /// Streams that exist under templates, each with its template.
    pub instances: BTreeMap<String, String>,
    /// Encoders that work, best first.
    pub encoders: Vec<KnownEncoder>,
    /// Decoders that are there, best first.
    pub decoders: Vec<KnownDecoder>,
    /// Whether encoders and decoders were tried at all.
    pub is_measured: bool,
    /// Processor cores.
    pub cores: u32,
    /// Pictures that are encoded for others, who come and go without the config.
    pub guests: BTreeMap<u64, Guest>,
}

/// Pictures that are decoded and encoded as H.264 for somebody whom the config does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// How they come.
    pub from: Codec,
    /// Pixels, as they are encoded.
    pub width: u32,
    /// Pixels, as they are encoded.
    pub height: u32,
    /// Pictures per second, as they are encoded.
    pub frame_rate: u32,
}

/// What was seen of one stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Its pictures, as they are in the mountpoint.
    pub video: Option<SeenVideo>,
    /// Its sound, as it is in the mountpoint.
    pub audio: Option<SeenAudio>,
    /// Whether the stream is or was there with all its tracks: what is missing above does not exist.
    pub is_whole: bool,
    /// Privacy masks.
    pub masks: usize,
    /// What else the camera offers.
    pub profiles: Vec<Profile>,
}

/// Pictures of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeenVideo {
    /// How they are coded.
    pub codec: Codec,
    /// Whether that was done here, at the source.
    pub encoded_here: bool,
    /// Pixels; 0 where unknown.
    pub width: u32,
    /// Pixels; 0 where unknown.
    pub height: u32,
    /// Pictures per second; 0 where unknown.
    pub frame_rate: u32,
}

/// Sound of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeenAudio {
    /// How it is coded.
    pub codec: Codec,
    /// Whether that was done here, at the source.
    pub encoded_here: bool,
}

/// One of the streams that a camera offers, from its discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The camera's name for it.
    pub name: String,
    /// How its pictures are coded; none for JPEG and what has no name here.
    pub codec: Option<Codec>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// An encoder that really encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownEncoder {
    /// Its element.
    pub name: String,
    /// What it makes.
    pub codec: Codec,
    /// Whether hardware does it.
    pub hardware: bool,
    /// How many of them were seen to work at once; none: as many as there is processor time for.
    pub sessions: Option<u32>,
    /// Processor time in microseconds for a million pixels, as measured.
    pub cpu_us_per_megapixel: u32,
    /// Thousands of pixels a second that all its sessions together manage; none where that is not its bound.
    pub kilopixels_per_second: Option<u64>,
}

/// A decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDecoder {
    /// Its element.
    pub name: String,
    /// What it takes; none for JPEG.
    pub codec: Option<Codec>,
    /// Whether hardware does it.
    pub hardware: bool,
    /// Processor time in microseconds for a million pixels, as measured; 0 where it was not.
    pub cpu_us_per_megapixel: u32,
}
