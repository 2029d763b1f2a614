//! What files and playlists say of a track's codec: sample entries (ISO/IEC 14496-12, -14, -15, AV1-ISOBMFF,
//! Opus-ISOBMFF) and the strings of RFC 6381.

use super::boxes::Boxes;
use fieldgate_media::aac::AacConfig;
use fieldgate_media::h264::AvcConfig;
use fieldgate_media::hevc::HevcConfig;
use fieldgate_media::{Codec, Track};

/// The longest codec header that is taken: more than any codec needs, less than a box may hold.
const HEADER_MAX: usize = 64 << 10;

/// The codec string of a track that files can carry; `None` for all others, and while its header is missing or broken.
pub fn codec_string(track: &Track) -> Option<String> {
    let header = &track.header;
    if header.len() > HEADER_MAX {
        return None;
    }
    match track.codec {
        Codec::H264 => AvcConfig::parse(header).map(|config| config.codec_string()),
        Codec::Hevc => HevcConfig::parse(header).map(|config| hevc_string(&config.profile_tier_level)),
        Codec::Av1 => av1_string(header),
        Codec::Aac => AacConfig::parse(header).map(|config| format!("mp4a.40.{}", config.object_type)),
        Codec::Opus => opus_box(header).map(|_| "opus".to_owned()),
        _ => None,
    }
}

/// The string of H.264's main profile at the lowest of the common levels that covers such pictures: 30 a second where their rate
/// is not known. Source: H.264 table A-1.
pub(super) fn main_profile(width: u32, height: u32, frame_rate: f64) -> String {
    // Macroblocks of a picture, macroblocks a second, level.
    const LEVELS: [(u64, f64, u8); 7] = [
        (1_620, 40_500.0, 30),
        (3_600, 108_000.0, 31),
        (8_192, 245_760.0, 40),
        (8_704, 522_240.0, 42),
        (22_080, 589_824.0, 50),
        (36_864, 983_040.0, 51),
        (36_864, 2_073_600.0, 52),
    ];
    let blocks = u64::from(width.div_ceil(16)).saturating_mul(u64::from(height.div_ceil(16)));
    let rate = blocks as f64 * if frame_rate > 0.0 { frame_rate } else { 30.0 };
    let level = LEVELS.iter().find(|(size, speed, _)| blocks <= *size && rate <= *speed);
    format!("avc1.4D40{:02X}", level.map_or(52, |(.., level)| *level))
}

/// Source: ISO/IEC 14496-15, Annex E.
fn hevc_string(bytes: &[u8; 12]) -> String {
    let &[first, c0, c1, c2, c3, ref constraints @ .., level] = bytes;
    let space = ["", "A", "B", "C"].get(usize::from(first >> 6)).copied().unwrap_or_default();
    let tier = if first & 0x20 != 0 { 'H' } else { 'L' };
    let compatibility = u32::from_be_bytes([c0, c1, c2, c3]).reverse_bits();
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    let constraints: String = constraints.iter().take(used).map(|byte| format!(".{byte:X}")).collect();
    format!("hvc1.{space}{}.{compatibility:X}.{tier}{level}{constraints}", first & 0x1F)
}

/// Source: AV1-ISOBMFF, 5 "Codecs Parameter String".
fn av1_string(header: &[u8]) -> Option<String> {
    let &[0x81, profile_level, flags, _] = header.first_chunk()? else { return None };
    let depth = match (flags & 0x40 != 0, flags & 0x20 != 0) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    let tier = if flags & 0x80 != 0 { 'H' } else { 'M' };
    Some(format!("av01.{}.{:02}{tier}.{depth:02}", profile_level >> 5, profile_level & 0x1F))
}

/// The body of `dOps`, made from an OpusHead. Sources: RFC 7845 5.1, Opus-ISOBMFF 4.3.2.
fn opus_box(header: &[u8]) -> Option<Vec<u8>> {
    let rest = header.strip_prefix(b"OpusHead")?;
    let (&[version, channels, s0, s1, r0, r1, r2, r3, g0, g1, family], table) = rest.split_first_chunk()?;
    if version >> 4 != 0 || channels == 0 {
        return None;
    }
    // Numbers are little-endian in the one and big-endian in the other.
    let mut body = vec![0, channels, s1, s0, r3, r2, r1, r0, g1, g0, family];
    if family != 0 {
        body.extend_from_slice(table.get(..usize::from(channels).saturating_add(2))?);
    }
    Some(body)
}

/// Writes the track's sample entry; nothing for a track without [`codec_string`].
pub(super) fn write_sample_entry(boxes: &mut Boxes, track: &Track) {
    match track.codec {
        Codec::H264 => visual(boxes, b"avc1", b"avcC", track),
        Codec::Hevc => visual(boxes, b"hvc1", b"hvcC", track),
        Codec::Av1 => visual(boxes, b"av01", b"av1C", track),
        Codec::Aac => {
            sound(boxes, b"mp4a", track, |b| b.full(b"esds", 0, 0, |b| es_descriptor(b, &track.header)))
        }
        Codec::Opus => {
            let body = opus_box(&track.header).unwrap_or_default();
            sound(boxes, b"Opus", track, |b| b.boxed(b"dOps", |b| b.bytes(&body)));
        }
        _ => {}
    }
}

fn visual(boxes: &mut Boxes, kind: &[u8; 4], config: &[u8; 4], track: &Track) {
    let pixels = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    boxes.boxed(kind, |b| {
        b.zeros(6);
        b.u16(1);
        b.zeros(16);
        b.u16(pixels(track.video.width));
        b.u16(pixels(track.video.height));
        b.u32(72 << 16);
        b.u32(72 << 16);
        b.u32(0);
        b.u16(1);
        b.zeros(32);
        b.u16(24);
        b.u16(0xFFFF);
        b.boxed(config, |b| b.bytes(&track.header));
    });
}

fn sound(boxes: &mut Boxes, kind: &[u8; 4], track: &Track, config: impl FnOnce(&mut Boxes)) {
    boxes.boxed(kind, |b| {
        b.zeros(6);
        b.u16(1);
        b.zeros(8);
        b.u16(u16::from(track.audio.channels.max(1)));
        b.u16(16);
        b.zeros(4);
        // What does not fit is told by the codec's own box.
        b.u32(u32::from(u16::try_from(track.audio.sample_rate).unwrap_or(0)) << 16);
        config(b);
    });
}

/// Source: ISO/IEC 14496-1 7.2.6, 14496-14 3.1.
fn es_descriptor(boxes: &mut Boxes, config: &[u8]) {
    let len = |extra: usize| config.len().saturating_add(extra);
    descriptor(boxes, 3, len(3 + 5 + 13 + 5 + 5 + 1));
    boxes.u16(0);
    boxes.u8(0);
    descriptor(boxes, 4, len(13 + 5));
    // MPEG-4 audio, in an audio stream; buffer size and bitrates are not told.
    boxes.u8(0x40);
    boxes.u8(0x15);
    boxes.zeros(11);
    descriptor(boxes, 5, config.len());
    boxes.bytes(config);
    descriptor(boxes, 6, 1);
    boxes.u8(2);
}

/// A tag and its length, always in four bytes.
fn descriptor(boxes: &mut Boxes, tag: u8, len: usize) {
    boxes.u8(tag);
    let len = u32::try_from(len).unwrap_or(0) & 0xF_FFFF;
    for shift in [21, 14, 7] {
        boxes.u8(0x80 | (len >> shift & 0x7F) as u8);
    }
    boxes.u8((len & 0x7F) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fieldgate_media::TrackId;

    #[test]
    fn codecs_are_named_as_rfc_6381_says() {
        let named = |codec, header: &[u8]| {
            codec_string(&Track::new(TrackId::VIDEO, codec, Bytes::copy_from_slice(header)))
        };
        let avcc = [1, 0x64, 0, 0x1f, 0xff, 0xe0, 0];
        assert_eq!(named(Codec::H264, &avcc).as_deref(), Some("avc1.64001f"));
        let mut hvcc = vec![1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93];
        hvcc.extend([0xF0, 0, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0, 0x0F, 0]);
        assert_eq!(named(Codec::Hevc, &hvcc).as_deref(), Some("hvc1.1.6.L93.90"));
        assert_eq!(named(Codec::Av1, &[0x81, 0x04, 0x0c, 0]).as_deref(), Some("av01.0.04M.08"));
        assert_eq!(named(Codec::Aac, &[0x12, 0x10]).as_deref(), Some("mp4a.40.2"));
        assert_eq!(
            named(Codec::Opus, b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0").as_deref(),
            Some("opus")
        );
        for codec in [Codec::H264, Codec::Hevc, Codec::Av1, Codec::Aac, Codec::Opus, Codec::Vp8, Codec::Mp3] {
            assert_eq!(named(codec, &[]), None, "{codec:?} without a header");
        }
    }

    #[test]
    fn an_opus_head_is_told_in_the_files_byte_order() {
        let body = opus_box(b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\x05\0\0").unwrap();
        assert_eq!(body, [0, 2, 1, 0x38, 0, 0, 0xbb, 0x80, 0, 5, 0]);
        assert!(opus_box(b"OpusHead\x01\x06\x38\x01\x80\xbb\0\0\x05\0\x01\x04").is_none(), "a cut table");
    }
}
