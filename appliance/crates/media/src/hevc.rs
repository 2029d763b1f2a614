//! HEVC headers: HEVCDecoderConfigurationRecord and sequence parameter set. Source: ISO/IEC 14496-15, H.265 7.3.2.2.

use crate::VideoShape;
use crate::bits::{Bits, unescape};

/// What an HEVCDecoderConfigurationRecord says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HevcConfig<'a> {
    /// The first 12 bytes after the version: profile, tier, compatibility, constraints, level.
    pub profile_tier_level: [u8; 12],
    /// Bytes of each NAL unit's length field: 1, 2 or 4.
    pub length_len: u8,
    /// Average pictures per second times 256; 0 unknown.
    pub average_frame_rate: u16,
    /// Parameter sets and SEI, NAL headers included, in order.
    pub nals: Vec<&'a [u8]>,
}

/// NAL unit type of a sequence parameter set.
const SPS: u8 = 33;

impl<'a> HevcConfig<'a> {
    /// Parses `hvcC`; `None` if it is cut off. Version 0 is taken too: some encoders write it.
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        let (&version, rest) = header.split_first()?;
        if version > 1 {
            return None;
        }
        let (&profile_tier_level, rest) = rest.split_first_chunk::<12>()?;
        let (&[_, _, _, _, _, _, rate_high, rate_low, lengths, arrays], mut rest) =
            rest.split_first_chunk()?;
        let mut nals = Vec::new();
        for _ in 0..arrays {
            let (&[_, high, low], after) = rest.split_first_chunk()?;
            rest = after;
            for _ in 0..u16::from_be_bytes([high, low]) {
                let (&len, after) = rest.split_first_chunk()?;
                let (nal, after) = after.split_at_checked(usize::from(u16::from_be_bytes(len)))?;
                rest = after;
                nals.push(nal);
            }
        }
        Some(HevcConfig {
            profile_tier_level,
            length_len: (lengths & 3).saturating_add(1),
            average_frame_rate: u16::from_be_bytes([rate_high, rate_low]),
            nals,
        })
    }

    /// The picture shape that its sequence parameter set says.
    pub fn shape(&self) -> Option<VideoShape> {
        let sps = self.nals.iter().find(|nal| nal.first().is_some_and(|first| first >> 1 & 0x3F == SPS))?;
        let mut shape = sps_shape(sps)?;
        if shape.frame_rate == 0.0 {
            shape.frame_rate = f64::from(self.average_frame_rate) / 256.0;
        }
        Some(shape)
    }
}

/// Picture size out of a sequence parameter set (NAL header included); the rate is left 0.
pub fn sps_shape(nal: &[u8]) -> Option<VideoShape> {
    let (&[first, _], body) = nal.split_first_chunk()?;
    if first >> 1 & 0x3F != SPS {
        return None;
    }
    let body = unescape(body, 1024);
    let mut bits = Bits::new(&body);
    bits.skip(4)?;
    let sub_layers = bits.take(3)?;
    bits.bit()?;
    skip_profile_tier_level(&mut bits, sub_layers)?;
    bits.ue()?;
    let chroma = bits.ue()?;
    let separate = chroma == 3 && bits.bit()?;
    let (mut width, mut height) = (bits.ue()?, bits.ue()?);
    if bits.bit()? {
        let (left, right, top, bottom) = (bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?);
        let (unit_x, unit_y) = match if separate { 0 } else { chroma } {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?;
    }
    Some(VideoShape { width, height, frame_rate: 0.0 })
}

fn skip_profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Option<()> {
    bits.skip(96)?;
    if sub_layers == 0 {
        return Some(());
    }
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present.push((bits.bit()?, bits.bit()?));
    }
    for _ in sub_layers..8 {
        bits.skip(2)?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 })?;
        bits.skip(if level { 8 } else { 0 })?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x265 at 320x180 (ffmpeg 5.1), its SEI left out.
    #[rustfmt::skip]
    const HVCC: &[u8] = &[0x01, 0x04, 0x08, 0x00, 0x00, 0x00, 0x9e, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3c, 0xf0, 0x00, 0xfc, 0xff, 0xf8, 0xf8, 0x00, 0x00, 0x0f, 0x03, 0xa0, 0x00, 0x01, 0x00, 0x17, 0x40, 0x01, 0x0c, 0x01, 0xff, 0xff, 0x04, 0x08, 0x00, 0x00, 0x03, 0x00, 0x9e, 0x08, 0x00, 0x00, 0x03, 0x00, 0x00, 0x3c, 0x95, 0x98, 0x09, 0xa1, 0x00, 0x01, 0x00, 0x2c, 0x42, 0x01, 0x01, 0x04, 0x08, 0x00, 0x00, 0x03, 0x00, 0x9e, 0x08, 0x00, 0x00, 0x03, 0x00, 0x00, 0x3c, 0x90, 0x01, 0x41, 0x01, 0x73, 0xe5, 0xcb, 0x2b, 0x34, 0x92, 0x65, 0x78, 0x0b, 0x70, 0x20, 0x20, 0x00, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x07, 0x82, 0xa2, 0x00, 0x01, 0x00, 0x08, 0x44, 0x01, 0xc1, 0x72, 0x86, 0x0c, 0x46, 0x24];

    #[test]
    fn size_is_read_from_an_x265_header() {
        let config = HevcConfig::parse(HVCC).unwrap();
        assert_eq!((config.length_len, config.nals.len()), (4, 3));
        let shape = config.shape().unwrap();
        assert_eq!((shape.width, shape.height), (320, 180));
    }

    #[test]
    fn a_header_cut_anywhere_is_refused_or_survived() {
        for end in 0..HVCC.len() {
            if let Some(config) = HevcConfig::parse(&HVCC[..end]) {
                config.shape();
            }
        }
        let config = HevcConfig::parse(HVCC).unwrap();
        for end in 0..config.nals[1].len() {
            sps_shape(&config.nals[1][..end]);
        }
    }
}
