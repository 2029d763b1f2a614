//! AV1 headers: AV1CodecConfigurationRecord and sequence header OBU. Source: AV1-ISOBMFF 2.3, AV1 5.5.

use crate::VideoShape;
use crate::bits::Bits;

/// The largest picture that an AV1CodecConfigurationRecord (`av1C`) announces, if it carries a sequence header.
pub fn shape(header: &[u8]) -> Option<VideoShape> {
    let (&[marker, _, _, _], mut obus) = header.split_first_chunk()?;
    if marker != 0x81 {
        return None;
    }
    while let Some((&first, rest)) = obus.split_first() {
        let mut rest = rest;
        if first & 4 != 0 {
            rest = rest.split_first()?.1;
        }
        let len = if first & 2 != 0 { leb128(&mut rest)? } else { rest.len() };
        let (obu, after) = rest.split_at_checked(len)?;
        if first >> 3 & 0xF == 1 {
            return sequence_shape(obu);
        }
        obus = after;
    }
    None
}

fn leb128(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0usize;
    for shift in (0..28).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= usize::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn sequence_shape(obu: &[u8]) -> Option<VideoShape> {
    let mut bits = Bits::new(obu);
    bits.skip(4)?;
    let mut frame_rate = 0.0;
    if bits.bit()? {
        bits.skip(5)?;
    } else {
        let mut decoder_model = None;
        if bits.bit()? {
            let (units, scale) = (bits.take(32)?, bits.take(32)?);
            if bits.bit()? {
                let per_picture = bits.uvlc()?.checked_add(1)?;
                if units > 0 {
                    frame_rate = f64::from(scale) / f64::from(units) / f64::from(per_picture);
                }
            }
            if bits.bit()? {
                decoder_model = Some(bits.take(5)?.checked_add(1)?);
                bits.skip(42)?;
            }
        }
        let initial_delay = bits.bit()?;
        for _ in 0..bits.take(5)?.checked_add(1)? {
            bits.skip(12)?;
            if bits.take(5)? > 7 {
                bits.bit()?;
            }
            if let Some(delay_len) = decoder_model
                && bits.bit()?
            {
                bits.skip((delay_len as usize).checked_mul(2)?.checked_add(1)?)?;
            }
            if initial_delay && bits.bit()? {
                bits.skip(4)?;
            }
        }
    }
    let (width_len, height_len) = (bits.take(4)?.checked_add(1)?, bits.take(4)?.checked_add(1)?);
    let width = bits.take(width_len)?.checked_add(1)?;
    let height = bits.take(height_len)?.checked_add(1)?;
    Some(VideoShape { width, height, frame_rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// libaom and SVT-AV1 at 320x180 (ffmpeg 5.1).
    #[rustfmt::skip]
    const AOM: &[u8] = &[0x81, 0x20, 0x00, 0x00, 0x0a, 0x0d, 0x20, 0x00, 0x00, 0x04, 0x3c, 0xfe, 0xcc, 0xda, 0xf9, 0x20, 0x21, 0xa0, 0x04];
    #[rustfmt::skip]
    const SVT: &[u8] = &[0x81, 0x00, 0x0c, 0x00, 0x0a, 0x0b, 0x00, 0x00, 0x00, 0x04, 0x3c, 0xfe, 0xcc, 0x02, 0xf8, 0x00, 0x40];

    #[test]
    fn size_is_read_from_two_encoders_headers() {
        for header in [AOM, SVT] {
            let shape = shape(header).unwrap();
            assert_eq!((shape.width, shape.height), (320, 180));
            for end in 0..header.len() - 1 {
                super::shape(&header[..end]);
            }
        }
    }
}
