//! The head of a movie fragment: `moof` and the first eight bytes of `mdat`; the samples' payloads follow as they are.

use super::boxes::Boxes;
use super::{Sample, track_number};
use bytes::Bytes;
use fieldgate_media::TrackKind;

/// A sample that can be decoded alone, and one that can't (ISO/IEC 14496-12, 8.8.3.1).
const SYNC: u32 = 0x0200_0000;
const NOT_SYNC: u32 = 0x0101_0000;

/// Box heads and fixed fields of a fragment with one track.
const FIXED: usize = 8 + 16 + 8 + 20 + 20 + 20 + 8;

/// The head of the fragment that holds `samples`, the `sequence`th of its track. Sources: ISO/IEC 14496-12 8.8, CMAF 7.3.2.
pub(super) fn head(kind: TrackKind, sequence: u32, samples: &[Sample]) -> Bytes {
    let payload = samples.iter().fold(0_usize, |sum, sample| sum.saturating_add(sample.payload.len()));
    let base = samples.first().map_or(0, |sample| sample.dts);
    let is_video = kind == TrackKind::Video;
    let has_offsets = samples.iter().any(|sample| sample.offset != 0);
    // Of each sample: duration and size; of pictures also their kind, and the offset of what is shown later than decoded.
    let mut flags = 0x1 | 0x100 | 0x200;
    flags |= if is_video { 0x400 } else { 0 } | if has_offsets { 0x800 } else { 0 };
    let mut boxes = Boxes::with_capacity(samples.len().saturating_mul(16).saturating_add(FIXED));
    let mut offset_at = 0;
    boxes.boxed(b"moof", |b| {
        b.full(b"mfhd", 0, 0, |b| b.u32(sequence));
        b.boxed(b"traf", |b| {
            // Offsets count from the moof; all sound can be decoded alone.
            let default_flags = if is_video { NOT_SYNC } else { SYNC };
            b.full(b"tfhd", 0, 0x2_0000 | 0x20, |b| {
                b.u32(track_number(kind));
                b.u32(default_flags);
            });
            b.full(b"tfdt", 1, 0, |b| b.u64(u64::try_from(base).unwrap_or(0)));
            b.full(b"trun", 0, flags, |b| {
                b.u32(u32::try_from(samples.len()).unwrap_or(u32::MAX));
                offset_at = b.len();
                b.u32(0);
                for sample in samples {
                    b.u32(sample.duration);
                    b.u32(u32::try_from(sample.payload.len()).unwrap_or(u32::MAX));
                    if is_video {
                        b.u32(if sample.keyframe { SYNC } else { NOT_SYNC });
                    }
                    if has_offsets {
                        b.u32(sample.offset);
                    }
                }
            });
        });
    });
    let data_at = u32::try_from(boxes.len().saturating_add(8)).unwrap_or(u32::MAX);
    boxes.set_u32(offset_at, data_at);
    boxes.u32(u32::try_from(payload.saturating_add(8)).unwrap_or(u32::MAX));
    boxes.bytes(b"mdat");
    Bytes::from(boxes.finish())
}
