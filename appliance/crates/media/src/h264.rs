//! H.264 headers: AVCDecoderConfigurationRecord and sequence parameter set. Source: ISO/IEC 14496-15, H.264 7.3.2.1.

use crate::VideoShape;
use crate::bits::{Bits, unescape};

/// What an AVCDecoderConfigurationRecord says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvcConfig<'a> {
    /// `profile_idc`.
    pub profile: u8,
    /// Constraint flags.
    pub compatibility: u8,
    /// `level_idc`.
    pub level: u8,
    /// Bytes of each NAL unit's length field: 1, 2 or 4.
    pub length_len: u8,
    /// Sequence parameter sets, NAL header included.
    pub sps: Vec<&'a [u8]>,
    /// Picture parameter sets, NAL header included.
    pub pps: Vec<&'a [u8]>,
}

impl<'a> AvcConfig<'a> {
    /// Parses `avcC`; `None` if it is cut off or not version 1.
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        let (&[1, profile, compatibility, level, lengths, sets], mut rest) = header.split_first_chunk()?
        else {
            return None;
        };
        let length_len = (lengths & 3).saturating_add(1);
        let sps = take_sets(&mut rest, sets & 0x1F)?;
        let (&count, after) = rest.split_first()?;
        rest = after;
        let pps = take_sets(&mut rest, count)?;
        Some(AvcConfig { profile, compatibility, level, length_len, sps, pps })
    }

    /// The picture shape that its first parameter set says.
    pub fn shape(&self) -> Option<VideoShape> {
        sps_shape(self.sps.first()?)
    }

    /// The codec string of RFC 6381, such as `avc1.64001f`.
    pub fn codec_string(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile, self.compatibility, self.level)
    }
}

fn take_sets<'a>(rest: &mut &'a [u8], count: u8) -> Option<Vec<&'a [u8]>> {
    let mut sets = Vec::new();
    for _ in 0..count {
        let (&len, after) = rest.split_first_chunk()?;
        let (set, after) = after.split_at_checked(usize::from(u16::from_be_bytes(len)))?;
        *rest = after;
        sets.push(set);
    }
    Some(sets)
}

/// Picture size and rate out of a sequence parameter set (NAL header included); rate 0 if it has no timing.
pub fn sps_shape(nal: &[u8]) -> Option<VideoShape> {
    let (&first, body) = nal.split_first()?;
    if first & 0x1F != 7 {
        return None;
    }
    let body = unescape(body, 1024);
    let mut bits = Bits::new(&body);
    let profile = bits.take(8)?;
    bits.skip(16)?;
    bits.ue()?;
    let mut chroma = 1;
    let mut separate = false;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma = bits.ue()?;
        if chroma == 3 {
            separate = bits.bit()?;
        }
        bits.ue()?;
        bits.ue()?;
        bits.bit()?;
        if bits.bit()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.bit()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue()?;
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.bit()?;
            bits.se()?;
            bits.se()?;
            let count = bits.ue()?;
            if count > 255 {
                return None;
            }
            for _ in 0..count {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?;
    bits.bit()?;
    let width_mbs = bits.ue()?.checked_add(1)?;
    let height_units = bits.ue()?.checked_add(1)?;
    let frame_only = bits.bit()?;
    if !frame_only {
        bits.bit()?;
    }
    bits.bit()?;
    let field = if frame_only { 1 } else { 2 };
    let mut width = width_mbs.checked_mul(16)?;
    let mut height = height_units.checked_mul(16)?.checked_mul(field)?;
    if bits.bit()? {
        let (left, right, top, bottom) = (bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?);
        let (unit_x, unit_y) = match if separate { 0 } else { chroma } {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?.checked_mul(field)?)?;
    }
    Some(VideoShape { width, height, frame_rate: vui_rate(&mut bits).unwrap_or(0.0) })
}

fn skip_scaling_list(bits: &mut Bits<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i32, 8i32);
    for _ in 0..size {
        if next != 0 {
            next = last.checked_add(bits.se()?)?.checked_add(256)?.rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

/// Pictures per second out of the VUI, if it has timing.
fn vui_rate(bits: &mut Bits<'_>) -> Option<f64> {
    if !bits.bit()? {
        return None;
    }
    if bits.bit()? && bits.take(8)? == 255 {
        bits.skip(32)?;
    }
    if bits.bit()? {
        bits.bit()?;
    }
    if bits.bit()? {
        bits.skip(4)?;
        if bits.bit()? {
            bits.skip(24)?;
        }
    }
    if bits.bit()? {
        bits.ue()?;
        bits.ue()?;
    }
    if !bits.bit()? {
        return None;
    }
    let (units, scale) = (bits.take(32)?, bits.take(32)?);
    (units > 0 && scale > 0).then(|| f64::from(scale) / (2.0 * f64::from(units)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x264 at 1280x720, 30 pictures a second, High profile (ffmpeg 5.1).
    const AVCC: &[u8] = &[
        1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 0x1c, 0x67, 0x64, 0, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01,
        0x6a, 0x02, 0x02, 0x02, 0x80, 0, 0, 3, 0, 0x80, 0, 0, 0x1e, 0x07, 0x8c, 0x18, 0xcb, 1, 0, 5, 0x68,
        0xef, 0xbc, 0xb0, 0,
    ];

    #[test]
    fn size_and_rate_are_read_from_an_x264_header() {
        let config = AvcConfig::parse(AVCC).unwrap();
        assert_eq!((config.profile, config.level, config.length_len), (0x64, 0x1f, 4));
        assert_eq!((config.sps.len(), config.pps.len()), (1, 1));
        let shape = config.shape().unwrap();
        assert_eq!((shape.width, shape.height, shape.frame_rate), (1280, 720, 30.0));
        assert_eq!(config.codec_string(), "avc1.64001f");
    }

    #[test]
    fn a_header_cut_anywhere_is_refused_or_survived() {
        for end in 0..AVCC.len() - 1 {
            if let Some(config) = AvcConfig::parse(&AVCC[..end]) {
                config.shape();
            }
        }
        for end in 0..28 {
            sps_shape(&AVCC[8..8 + end]);
        }
    }
}
