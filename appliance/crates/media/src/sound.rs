//! Headers of the other sound codecs: OpusHead (RFC 7845 5.1), FLAC's STREAMINFO (RFC 9639 8.2), MP3 and AC-3 frames.

use crate::AudioShape;
use crate::bits::Bits;

/// Channels of an OpusHead. Opus always decodes at 48 kHz.
pub fn opus_shape(header: &[u8]) -> Option<AudioShape> {
    let rest = header.strip_prefix(b"OpusHead")?;
    let (&[version, channels], _) = rest.split_first_chunk()?;
    (version >> 4 == 0 && channels > 0).then_some(AudioShape { sample_rate: 48_000, channels })
}

/// Rate and channels of `fLaC` with its metadata blocks; also of a bare STREAMINFO block.
pub fn flac_shape(header: &[u8]) -> Option<AudioShape> {
    let blocks = header.strip_prefix(b"fLaC").unwrap_or(header);
    let (&[kind, ..], info) = blocks.split_first_chunk::<4>()?;
    if kind & 0x7F != 0 {
        return None;
    }
    let mut bits = Bits::new(info);
    bits.skip(80)?;
    let sample_rate = bits.take(20)?;
    let channels = u8::try_from(bits.take(3)?).ok()?.checked_add(1)?;
    Some(AudioShape { sample_rate, channels })
}

/// Rate and channels of an MPEG-1/2/2.5 layer III frame.
pub fn mp3_shape(frame: &[u8]) -> Option<AudioShape> {
    let &[0xFF, second, third, fourth] = frame.first_chunk()? else { return None };
    let base = match (second >> 5, third >> 2 & 3) {
        (7, 0) => 44_100,
        (7, 1) => 48_000,
        (7, 2) => 32_000,
        _ => return None,
    };
    let sample_rate = match second >> 3 & 3 {
        3 => base,
        2 => base / 2,
        0 => base / 4,
        _ => return None,
    };
    Some(AudioShape { sample_rate, channels: if fourth >> 6 == 3 { 1 } else { 2 } })
}

/// Rate and channels of an AC-3 or E-AC-3 syncframe. Source: ATSC A/52 5.3 and E.1.2.
pub fn ac3_shape(frame: &[u8]) -> Option<AudioShape> {
    let mut bits = Bits::new(frame.strip_prefix(&[0x0B, 0x77])?);
    let &[_, _, _, _, _, id] = frame.first_chunk()?;
    let (sample_rate, mode, low) = if id >> 3 > 10 {
        bits.skip(16)?;
        let mut rate = *[48_000, 44_100, 32_000, 0].get(bits.take(2)? as usize)?;
        let fine = bits.take(2)?;
        if rate == 0 {
            rate = *[24_000, 22_050, 16_000].get(fine as usize)?;
        }
        (rate, bits.take(3)?, bits.bit()?)
    } else {
        bits.skip(16)?;
        let rate = *[48_000, 44_100, 32_000].get(bits.take(2)? as usize)?;
        bits.skip(14)?;
        let mode = bits.take(3)?;
        bits.skip(if mode & 1 != 0 && mode != 1 { 2 } else { 0 })?;
        bits.skip(if mode & 4 != 0 { 2 } else { 0 })?;
        bits.skip(if mode == 2 { 2 } else { 0 })?;
        (rate, mode, bits.bit()?)
    };
    let channels = *[2u8, 1, 2, 3, 3, 4, 4, 5].get(mode as usize)?;
    Some(AudioShape { sample_rate, channels: channels.saturating_add(u8::from(low)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opus_head_gives_channels_at_48_khz() {
        let head = b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0";
        assert_eq!(opus_shape(head), Some(AudioShape { sample_rate: 48_000, channels: 2 }));
        assert_eq!(opus_shape(&head[..9]), None);
    }

    #[test]
    fn flac_stream_info_gives_rate_and_channels() {
        let mut header = b"fLaC\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0".to_vec();
        // 44,100 Hz (20 bits), 2 channels (3 bits), 16 bits per sample.
        header.extend([0x0a, 0xc4, 0x42, 0xf0, 0, 0, 0, 0]);
        header.extend([0; 16]);
        assert_eq!(flac_shape(&header), Some(AudioShape { sample_rate: 44_100, channels: 2 }));
        assert_eq!(flac_shape(&header[..20]), None);
    }

    #[test]
    fn frames_of_mp3_and_ac3_tell_rate_and_channels() {
        let shape = |sample_rate, channels| Some(AudioShape { sample_rate, channels });
        assert_eq!(mp3_shape(&[0xFF, 0xFB, 0x90, 0xC4]), shape(44_100, 1));
        assert_eq!(mp3_shape(&[0xFF, 0xF3, 0x94, 0x44]), shape(24_000, 2));
        assert_eq!(mp3_shape(&[0xFF, 0xE3, 0x98]), None);
        // 48 kHz, bsid 8, acmod 7 with LFE: 5.1; and stereo without.
        assert_eq!(ac3_shape(&[0x0B, 0x77, 0, 0, 0x1E, 0x40, 0xE1, 0, 0]), shape(48_000, 6));
        assert_eq!(ac3_shape(&[0x0B, 0x77, 0, 0, 0x14, 0x40, 0x40, 0, 0]), shape(48_000, 2));
        // E-AC-3: 44.1 kHz, stereo, bsid 16.
        assert_eq!(ac3_shape(&[0x0B, 0x77, 0, 0x7F, 0x74, 0x80, 0]), shape(44_100, 2));
        assert_eq!(ac3_shape(&[0x0B, 0x77, 0, 0]), None);
    }
}
