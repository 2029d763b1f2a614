//! What a JPEG picture says about itself before it is decoded.

/// The size of a baseline, extended or progressive JPEG in pixels, width and height: those that decoders here take.
///
/// `None` for anything else: no start, a marker that lies about its length, no frame header before the picture's data,
/// a height that follows later (ISO/IEC 10918-1, B.2.5).
pub fn shape(picture: &[u8]) -> Option<(u32, u32)> {
    let mut rest = picture.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let (&[mark, kind], after) = rest.split_first_chunk::<2>()?;
        if mark != 0xff {
            return None;
        }
        match kind {
            // Bytes to fill up before a marker.
            0xff => {
                rest = rest.get(1..)?;
                continue;
            }
            // Markers without a segment.
            0x01 | 0xd0..=0xd7 => {
                rest = after;
                continue;
            }
            // The picture's data, its end, or another beginning.
            0xd8..=0xda => return None,
            _ => {}
        }
        let (len, _) = after.split_first_chunk::<2>()?;
        let segment = after.get(2..usize::from(u16::from_be_bytes(*len)))?;
        if matches!(kind, 0xc0..=0xc2) {
            let (&[_, high, low, wide, narrow], _) = segment.split_first_chunk::<5>()?;
            let side = |one: u8, other: u8| u32::from(u16::from_be_bytes([one, other]));
            let (width, height) = (side(wide, narrow), side(high, low));
            return (width > 0 && height > 0).then_some((width, height));
        }
        rest = after.get(2_usize.checked_add(segment.len())?..)?;
    }
}

/// For fuzzing: any bytes.
pub fn fuzz_jpeg_shape(data: &[u8]) {
    if let Some((width, height)) = shape(data) {
        assert!((1..=65_535).contains(&width) && (1..=65_535).contains(&height));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &[u8] = b"\xff\xd8\xff\xe0\x00\x04JF\xff\xff\xfe\x00\x03c";
    const FRAME: &[u8] = b"\xff\xc0\x00\x0b\x08\x01\x20\x01\x60\x01\x01\x11\x00";

    #[test]
    fn a_size_is_read_from_the_frame_header() {
        assert_eq!(shape(&[START, FRAME, b"\xff\xda"].concat()), Some((352, 288)));
        let progressive: Vec<u8> =
            FRAME.iter().map(|byte| if *byte == 0xc0 { 0xc2 } else { *byte }).collect();
        assert_eq!(shape(&[START, &progressive].concat()), Some((352, 288)));
    }

    #[test]
    fn what_has_no_size_is_refused() {
        let whole = [START, FRAME].concat();
        for end in 0..whole.len() - 6 {
            assert_eq!(shape(&whole[..end]), None, "cut at {end}");
        }
        let later = b"\xff\xc0\x00\x0b\x08\x00\x00\x01\x60\x01\x01\x11\x00";
        for wrong in [
            &b"GIF89a"[..],
            b"\xff\xd8\xff\xe0\x00\x01",
            b"\xff\xd8\xff\xda\x00\x04xx\xff\xc0",
            b"\xff\xd8\xff\xd9",
            b"\xff\xd8abcdef",
            &[START, later].concat(),
        ] {
            assert_eq!(shape(wrong), None, "{wrong:x?}");
        }
    }

    #[test]
    fn hostile_pictures_are_survived() {
        let whole = [START, FRAME].concat();
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xc0, 0xd8, 0xfe, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                fuzz_jpeg_shape(&bytes);
                fuzz_jpeg_shape(&bytes[..at]);
            }
        }
    }
}
