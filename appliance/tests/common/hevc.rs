//! HEVC in Enhanced RTMP, made from a raw stream by the letter of the two specifications.

use super::flv::{Tag, VIDEO};
use std::path::Path;

const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const DELIMITER: u8 = 35;

/// Header and access units of a raw stream without B-frames, `frame_ms` apart. Every second unit says that its
/// composition time is zero by its packet type, the others by the field.
pub(crate) fn tags(path: &Path, frame_ms: f64) -> Vec<Tag> {
    let bytes = std::fs::read(path).unwrap();
    let units = units(&bytes);
    let find = |kind: u8| units.iter().find(|unit| nal_kind(unit) == kind).expect("parameter sets").to_vec();
    let sets = [find(VPS), find(SPS), find(PPS)];
    let mut tags = vec![Tag { kind: VIDEO, ts: 0, body: [&[0x90][..], b"hvc1", &record(&sets)].concat() }];
    let (mut unit, mut keyframe, mut count) = (Vec::new(), false, 0_u32);
    for (index, nal) in units.iter().enumerate() {
        let kind = nal_kind(nal);
        if !matches!(kind, VPS | SPS | PPS | DELIMITER) {
            unit.extend((nal.len() as u32).to_be_bytes());
            unit.extend_from_slice(nal);
            keyframe |= (16..=23).contains(&kind);
        }
        let next_begins = units.get(index + 1).is_none_or(|next| begins_unit(next));
        if kind < 32 && next_begins {
            let frame = if keyframe { 0x90 } else { 0xa0 };
            let head = if count % 2 == 0 { vec![frame | 3] } else { vec![frame | 1] };
            let offset: &[u8] = if count % 2 == 0 { &[] } else { &[0; 3] };
            let ts = (f64::from(count) * frame_ms).round() as u32;
            tags.push(Tag { kind: VIDEO, ts, body: [&head[..], b"hvc1", offset, &unit].concat() });
            unit.clear();
            keyframe = false;
            count += 1;
        }
    }
    tags
}

fn nal_kind(nal: &[u8]) -> u8 {
    nal[0] >> 1 & 0x3f
}

/// Whether an access unit begins here: its first slice, or what stands before one.
fn begins_unit(nal: &[u8]) -> bool {
    nal_kind(nal) >= 32 || nal[2] & 0x80 != 0
}

/// NAL units between start codes.
fn units(bytes: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = bytes
        .windows(3)
        .enumerate()
        .filter(|(_, window)| *window == [0, 0, 1])
        .map(|(at, _)| at + 3)
        .collect();
    let mut units = Vec::new();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).map_or(bytes.len(), |next| next - 3);
        let unit = &bytes[*start..end];
        let trimmed = unit.len() - unit.iter().rev().take_while(|byte| **byte == 0).count();
        units.push(&unit[..trimmed]);
    }
    units
}

/// `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15).
fn record(sets: &[Vec<u8>; 3]) -> Vec<u8> {
    let sps = without_emulation(&sets[1]);
    let mut out = vec![1];
    // Profile, compatibility, constraints, level: after the SPS's two header bytes and one of ids.
    out.extend(&sps[3..15]);
    out.extend([0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 3]);
    for (kind, set) in [VPS, SPS, PPS].iter().zip(sets) {
        out.extend([0x80 | kind, 0, 1]);
        out.extend((set.len() as u16).to_be_bytes());
        out.extend(set);
    }
    out
}

fn without_emulation(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, byte) in nal.iter().enumerate() {
        if !(*byte == 3 && index >= 2 && nal[index - 2..index] == [0, 0]) {
            out.push(*byte);
        }
    }
    out
}
