//! Initialisation segments: one track, no samples (CMAF, ISO/IEC 23000-19 7.3.1).

use super::boxes::Boxes;
use super::codec;
use super::{TIMESCALE, track_number};
use fieldgate_media::{Track, TrackKind};

/// The initialisation segment of a track. Source of the boxes: ISO/IEC 14496-12, 8.
pub(super) fn write(track: &Track) -> Vec<u8> {
    let number = track_number(track.kind());
    let mut boxes = Boxes::with_capacity(track.header.len().saturating_add(800));
    boxes.boxed(b"ftyp", |b| {
        b.bytes(b"iso6");
        b.u32(0);
        b.bytes(b"iso6cmfcmp41dash");
    });
    boxes.boxed(b"moov", |b| {
        b.full(b"mvhd", 0, 0, |b| {
            b.zeros(8);
            b.u32(TIMESCALE);
            b.u32(0);
            b.u32(0x1_0000);
            b.u16(0x100);
            b.zeros(10);
            unity_matrix(b);
            b.zeros(24);
            b.u32(number.saturating_add(1));
        });
        b.boxed(b"trak", |b| trak(b, track, number));
        b.boxed(b"mvex", |b| {
            b.full(b"trex", 0, 0, |b| {
                b.u32(number);
                b.u32(1);
                b.zeros(12);
            });
        });
    });
    boxes.finish()
}

fn trak(boxes: &mut Boxes, track: &Track, number: u32) {
    let is_video = track.kind() == TrackKind::Video;
    boxes.full(b"tkhd", 0, 7, |b| {
        b.zeros(8);
        b.u32(number);
        b.zeros(8);
        b.zeros(12);
        b.u16(if is_video { 0 } else { 0x100 });
        b.u16(0);
        unity_matrix(b);
        b.u32(track.video.width.min(0xFFFF) << 16);
        b.u32(track.video.height.min(0xFFFF) << 16);
    });
    boxes.boxed(b"mdia", |b| {
        b.full(b"mdhd", 0, 0, |b| {
            b.zeros(8);
            b.u32(TIMESCALE);
            b.u32(0);
            // "und"
            b.u16(0x55C4);
            b.u16(0);
        });
        b.full(b"hdlr", 0, 0, |b| {
            b.u32(0);
            b.bytes(if is_video { b"vide" } else { b"soun" });
            b.zeros(12);
            b.bytes(if is_video { b"video\0" } else { b"audio\0" });
        });
        b.boxed(b"minf", |b| {
            match is_video {
                true => b.full(b"vmhd", 0, 1, |b| b.zeros(8)),
                false => b.full(b"smhd", 0, 0, |b| b.zeros(4)),
            }
            b.boxed(b"dinf", |b| {
                b.full(b"dref", 0, 0, |b| {
                    b.u32(1);
                    b.full(b"url ", 0, 1, |_| {});
                });
            });
            b.boxed(b"stbl", |b| {
                b.full(b"stsd", 0, 0, |b| {
                    b.u32(1);
                    codec::write_sample_entry(b, track);
                });
                for empty in [b"stts", b"stsc", b"stco"] {
                    b.full(empty, 0, 0, |b| b.u32(0));
                }
                b.full(b"stsz", 0, 0, |b| b.zeros(8));
            });
        });
    });
}

fn unity_matrix(boxes: &mut Boxes) {
    for value in [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000] {
        boxes.u32(value);
    }
}
