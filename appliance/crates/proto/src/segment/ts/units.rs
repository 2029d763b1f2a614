//! Access units as MPEG-TS wants them: pictures with start codes, sound with ADTS heads.

use super::super::Sample;
use fieldgate_media::h264::AvcConfig;
use fieldgate_media::hevc::HevcConfig;
use fieldgate_media::{Codec, Track};

const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// The longest frame that an ADTS head can tell, head included.
const ADTS_MAX: usize = 0x1FFF;
const ADTS_HEAD: usize = 7;

/// How a track's pictures are written.
pub(super) struct Pictures<'a> {
    is_hevc: bool,
    length_len: usize,
    /// What decoders need first.
    parameter_sets: Vec<&'a [u8]>,
}

impl<'a> Pictures<'a> {
    /// Of an H.264 or HEVC track with a sound header.
    pub(super) fn of(track: &'a Track) -> Option<Self> {
        match track.codec {
            Codec::H264 => AvcConfig::parse(&track.header).map(|config| Pictures {
                is_hevc: false,
                length_len: config.length_len.into(),
                parameter_sets: config.sps.into_iter().chain(config.pps).collect(),
            }),
            Codec::Hevc => HevcConfig::parse(&track.header).map(|config| Pictures {
                is_hevc: true,
                length_len: config.length_len.into(),
                parameter_sets: config.nals,
            }),
            _ => None,
        }
    }

    /// One picture: a delimiter, before keyframes the parameter sets, the picture's own units.
    pub(super) fn write(&self, out: &mut Vec<u8>, picture: &Sample) {
        out.extend_from_slice(&START_CODE);
        out.extend_from_slice(if self.is_hevc { &[0x46, 1, 0x50] } else { &[9, 0xF0] });
        let has_own = nal_units(&picture.payload, self.length_len).any(|nal| self.is_parameter_set(nal));
        if picture.keyframe && !has_own {
            for set in &self.parameter_sets {
                out.extend_from_slice(&START_CODE);
                out.extend_from_slice(set);
            }
        }
        for nal in nal_units(&picture.payload, self.length_len).filter(|nal| !self.is_delimiter(nal)) {
            out.extend_from_slice(&START_CODE);
            out.extend_from_slice(nal);
        }
    }

    fn kind(&self, nal: &[u8]) -> u8 {
        let first = nal.first().copied().unwrap_or(0);
        if self.is_hevc { first >> 1 & 0x3F } else { first & 0x1F }
    }

    fn is_parameter_set(&self, nal: &[u8]) -> bool {
        self.kind(nal) == if self.is_hevc { 33 } else { 7 }
    }

    fn is_delimiter(&self, nal: &[u8]) -> bool {
        self.kind(nal) == if self.is_hevc { 35 } else { 9 }
    }
}

/// The units of an access unit, which have lengths of `length_len` bytes before them; ends where a length is wrong.
fn nal_units(mut rest: &[u8], length_len: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = rest.split_at_checked(length_len)?;
        let length = length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        let (nal, after) = after.split_at_checked(length)?;
        rest = after;
        Some(nal)
    })
    .filter(|nal| !nal.is_empty())
}

/// The head of a frame of `len` bytes; `None` if ADTS has no words for the track or the length.
pub(super) fn adts(track: &Track, len: usize) -> Option<[u8; ADTS_HEAD]> {
    let &[first, second, ..] = &track.header[..] else { return None };
    let object_type = first >> 3;
    // Spectral band replication is found by decoders themselves; the core is AAC LC.
    let profile = match object_type {
        1..=4 => object_type.saturating_sub(1),
        5 | 29 => 1,
        _ => return None,
    };
    let frequency = (first & 7) << 1 | second >> 7;
    let channels = second >> 3 & 0x0F;
    let len = len.checked_add(ADTS_HEAD).filter(|len| *len <= ADTS_MAX)?;
    if frequency > 12 || !(1..=7).contains(&channels) {
        return None;
    }
    let byte = |value: usize| u8::try_from(value & 0xFF).unwrap_or(0);
    Some([
        0xFF,
        0xF1,
        profile << 6 | frequency << 2 | channels >> 2,
        (channels & 3) << 6 | byte(len >> 11),
        byte(len >> 3),
        byte((len & 7) << 5) | 0x1F,
        0xFC,
    ])
}
