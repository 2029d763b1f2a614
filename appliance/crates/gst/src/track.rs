//! What a pipeline's caps mean as a track.

use bytes::Bytes;
use fieldgate_media::{AudioShape, Codec, Track, TrackId, VideoShape};

/// The track that these caps describe; `None` for what the gateway does not carry, or when the codec's header has not
/// come yet.
pub(crate) fn from_caps(id: TrackId, caps: &gst::CapsRef) -> Option<Track> {
    let fields = caps.structure(0)?;
    let codec = codec(fields)?;
    let header = match codec {
        Codec::H264 | Codec::Hevc | Codec::Aac => codec_data(fields)?,
        Codec::Opus => opus_head(fields),
        _ => Bytes::new(),
    };
    let mut track = Track::new(id, codec, header);
    track.video = VideoShape {
        width: positive(fields, "width"),
        height: positive(fields, "height"),
        frame_rate: fields.get::<gst::Fraction>("framerate").map_or(0.0, |rate| {
            if rate.denom() > 0 { f64::from(rate.numer()) / f64::from(rate.denom()) } else { 0.0 }
        }),
    };
    let channels = u8::try_from(positive(fields, "channels")).unwrap_or(0);
    track.audio = AudioShape { sample_rate: positive(fields, "rate"), channels };
    Some(track)
}

fn codec(fields: &gst::StructureRef) -> Option<Codec> {
    Some(match fields.name().as_str() {
        "video/x-h264" => Codec::H264,
        "video/x-h265" => Codec::Hevc,
        "audio/mpeg" if fields.get::<i32>("mpegversion") == Ok(4) => Codec::Aac,
        "audio/x-alaw" => Codec::PcmA,
        "audio/x-mulaw" => Codec::PcmU,
        "audio/x-opus" => Codec::Opus,
        _ => return None,
    })
}

fn codec_data(fields: &gst::StructureRef) -> Option<Bytes> {
    let buffer = fields.get::<gst::Buffer>("codec_data").ok()?;
    let map = buffer.map_readable().ok()?;
    (!map.is_empty()).then(|| Bytes::copy_from_slice(&map))
}

fn positive(fields: &gst::StructureRef, name: &str) -> u32 {
    fields.get::<i32>(name).ok().and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}

/// The identification header of RFC 7845 for a mono or stereo stream (mapping family 0).
fn opus_head(fields: &gst::StructureRef) -> Bytes {
    let channels = u8::try_from(positive(fields, "channels")).unwrap_or(2).clamp(1, 2);
    let rate = match positive(fields, "rate") {
        0 => 48_000,
        rate => rate,
    };
    let mut head = Vec::with_capacity(19);
    head.extend_from_slice(b"OpusHead\x01");
    head.push(channels);
    head.extend_from_slice(&0_u16.to_le_bytes());
    head.extend_from_slice(&rate.to_le_bytes());
    head.extend_from_slice(&[0, 0, 0]);
    head.into()
}

/// Whether an access unit can be decoded alone: an IDR picture, any random access picture of HEVC, or a picture with
/// a recovery point (cameras with intra refresh send no IDR at all).
///
/// GStreamer's own flag also covers every picture of intra slices, after which others may refer further back.
pub(crate) fn is_keyframe(codec: Codec, parser_says: bool, payload: &[u8]) -> bool {
    match codec {
        Codec::H264 => nal_headers(payload).any(|first| match first & 0x1f {
            5 => true,
            6 => parser_says && has_recovery_point(payload),
            _ => false,
        }),
        Codec::Hevc => nal_headers(payload).any(|first| (16..=21).contains(&(first >> 1 & 0x3f))),
        _ => true,
    }
}

/// The first byte of each NAL unit behind its 4-byte length.
fn nal_headers(payload: &[u8]) -> impl Iterator<Item = u8> + '_ {
    nals(payload).filter_map(|nal| nal.first().copied())
}

fn nals(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let (nal, after) = after.split_at_checked(len)?;
        rest = after;
        Some(nal)
    })
}

fn has_recovery_point(payload: &[u8]) -> bool {
    const RECOVERY_POINT: u8 = 6;
    nals(payload).any(|nal| {
        let Some((first, mut sei)) = nal.split_first() else { return false };
        if first & 0x1f != 6 {
            return false;
        }
        // Messages of type and length, both in bytes that go on while they are 255.
        while sei.len() > 2 {
            let Some((kind, after)) = sei_number(sei) else { return false };
            let Some((len, after)) = sei_number(after) else { return false };
            if kind == usize::from(RECOVERY_POINT) {
                return true;
            }
            sei = after.get(len..).unwrap_or_default();
        }
        false
    })
}

fn sei_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let full = bytes.iter().take_while(|byte| **byte == 255).count();
    let (last, after) = bytes.get(full..)?.split_first()?;
    Some((full * 255 + usize::from(*last), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(nals: &[&[u8]]) -> Vec<u8> {
        let mut payload = Vec::new();
        for nal in nals {
            payload.extend_from_slice(&u32::try_from(nal.len()).unwrap().to_be_bytes());
            payload.extend_from_slice(nal);
        }
        payload
    }

    #[test]
    fn only_pictures_that_stand_alone_are_keyframes() {
        let idr = unit(&[&[0x09, 0xf0], &[0x67, 1], &[0x68, 1], &[0x65, 1, 2]]);
        let slice = unit(&[&[0x41, 1, 2]]);
        let recovery = unit(&[&[0x06, 1, 1, 0xaa, 6, 1, 0xc4, 0x80], &[0x41, 1]]);
        let other_sei = unit(&[&[0x06, 5, 1, 0xaa, 0x80], &[0x41, 1]]);
        assert!(is_keyframe(Codec::H264, false, &idr));
        assert!(!is_keyframe(Codec::H264, true, &slice));
        assert!(is_keyframe(Codec::H264, true, &recovery));
        assert!(!is_keyframe(Codec::H264, false, &recovery));
        assert!(!is_keyframe(Codec::H264, true, &other_sei));
        assert!(is_keyframe(Codec::Hevc, false, &unit(&[&[0x26, 1, 1]])));
        assert!(!is_keyframe(Codec::Hevc, true, &unit(&[&[0x02, 1, 1]])));
        assert!(is_keyframe(Codec::Aac, false, &[]));
    }

    #[test]
    fn broken_lengths_end_the_walk() {
        for payload in [&[][..], &[0, 0, 0], &[0, 0, 0, 9, 0x65], &[255, 255, 255, 255, 0x65]] {
            assert!(!is_keyframe(Codec::H264, true, payload));
        }
    }
}
