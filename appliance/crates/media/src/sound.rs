//! Headers of the other sound codecs: OpusHead (RFC 7845 5.1) and FLAC's STREAMINFO (RFC 9639 8.2).

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
}
