//! The first picture of a recorded segment, read back from its files.

use bytes::Bytes;
use fieldgate_media::{Codec, Track, TrackId};

/// Fields of a visual sample entry before its boxes (ISO/IEC 14496-12, 12.1.3.2).
const VISUAL_FIELDS: usize = 78;
/// Of a sample's flags: it cannot be decoded alone (8.8.3.1).
const NOT_SYNC: usize = 0x1_0000;

/// The track that an initialisation segment describes, and the payload of a segment's first picture, which is a slice of it.
/// `None` for files that are not ours, cut, or damaged.
pub fn first_picture(init: &[u8], segment: &Bytes) -> Option<(Track, Bytes)> {
    let described = [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"]
        .into_iter()
        .try_fold(init, |inside, kind| Some(find(inside, kind)?.1))?;
    // Version, flags, a count of one.
    let (kind, entry, _) = first(described.get(8..)?)?;
    let (codec, header) = match &kind {
        b"avc1" => (Codec::H264, b"avcC"),
        b"hvc1" => (Codec::Hevc, b"hvcC"),
        b"av01" => (Codec::Av1, b"av1C"),
        _ => return None,
    };
    let (_, header) = find(entry.get(VISUAL_FIELDS..)?, header)?;
    let track = Track::new(TrackId::VIDEO, codec, Bytes::copy_from_slice(header)).with_header_shape();
    let (at, fragment) = find(segment, b"moof")?;
    let (_, run) = find(find(fragment, b"traf")?.1, b"trun")?;
    let (offset, len) = first_sample(run)?;
    let from = at.checked_add(offset)?;
    let to = from.checked_add(len).filter(|to| *to <= segment.len() && len > 0)?;
    Some((track, segment.slice(from..to)))
}

/// Where the samples of a run begin, counted from its fragment, and the first one's bytes (ISO/IEC 14496-12, 8.8.8).
fn first_sample(run: &[u8]) -> Option<(usize, usize)> {
    let flags = number(run, 0)? & 0xFF_FFFF;
    // Both are told in our own files.
    if flags & 0x201 != 0x201 || number(run, 4)? == 0 {
        return None;
    }
    let entry = run.get(if flags & 0x4 != 0 { 16 } else { 12 }..)?;
    let entry = entry.get(if flags & 0x100 != 0 { 4 } else { 0 }..)?;
    // A picture that needs others is none to show alone.
    if flags & 0x400 != 0 && number(entry, 4)? & NOT_SYNC != 0 {
        return None;
    }
    Some((number(run, 8)?, number(entry, 0)?))
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*four)).ok()
}

/// The first box, and what follows it.
fn first(bytes: &[u8]) -> Option<([u8; 4], &[u8], &[u8])> {
    let (size, kind) = (number(bytes, 0)?, *bytes.get(4..)?.first_chunk::<4>()?);
    let (this, rest) = bytes.split_at_checked(size)?;
    Some((kind, this.get(8..)?, rest))
}

/// The first box of that kind: where it begins, and what is in it.
fn find<'a>(bytes: &'a [u8], wanted: &[u8; 4]) -> Option<(usize, &'a [u8])> {
    let mut rest = bytes;
    loop {
        let (kind, inside, after) = first(rest)?;
        if kind == *wanted {
            return Some((bytes.len().checked_sub(rest.len())?, inside));
        }
        rest = after;
    }
}

/// A fuzz target: any two files, the first of which is as long as the first two bytes say, are read or refused.
pub fn fuzz(bytes: &[u8]) {
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (init, segment) = rest.split_at(usize::from(u16::from_be_bytes(*len)).min(rest.len()));
    if let Some((_, picture)) = first_picture(init, &Bytes::copy_from_slice(segment)) {
        debug_assert!(!picture.is_empty() && picture.len() <= segment.len());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{both, lane, play, scene, settings};
    use super::super::{Package, Segment};
    use super::*;
    use fieldgate_media::TrackKind;

    fn file(segment: &Segment) -> Bytes {
        let pieces = segment.parts.iter().flat_map(|part| (0..).map_while(|at| part.piece(at)));
        Bytes::from(pieces.flat_map(|piece| piece.to_vec()).collect::<Vec<u8>>())
    }

    fn segments(kind: TrackKind) -> Vec<std::sync::Arc<Segment>> {
        let mut package = Package::new(settings());
        package.on_tracks(&both());
        play(&mut package, &scene(0, 5, 60));
        lane(&package, kind)
    }

    #[test]
    fn the_first_picture_is_the_keyframe_that_was_written() {
        for segment in segments(TrackKind::Video) {
            let (track, picture) = first_picture(&segment.init.file, &file(&segment)).unwrap();
            assert_eq!(track.header, segment.init.track.header);
            assert_eq!((track.codec, picture), (Codec::H264, segment.parts[0].samples[0].payload.clone()));
        }
        let sound = segments(TrackKind::Audio);
        assert!(first_picture(&sound[0].init.file, &file(&sound[0])).is_none(), "sound has no pictures");
    }

    #[test]
    fn what_was_cut_or_damaged_is_refused() {
        let segment = &segments(TrackKind::Video)[0];
        let (init, whole) = (&segment.init.file, file(segment));
        let (_, picture) = first_picture(init, &whole).unwrap();
        let ends = segment.parts[0].head.len() + picture.len();
        assert!(first_picture(init, &whole.slice(..ends)).is_some());
        assert!(first_picture(init, &whole.slice(..ends - 1)).is_none());
        assert!((0..init.len()).all(|len| first_picture(&init[..len], &whole).is_none()));
        let len = u16::try_from(init.len()).unwrap();
        let seed = [&len.to_be_bytes()[..], init, &whole[..ends.min(2_000)]].concat();
        crate::mutation::run(fuzz, &[seed], 3_000, 0x7A11_3C0D_55E2_9F04);
    }
}
