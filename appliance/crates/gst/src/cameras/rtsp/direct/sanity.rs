//! Whether what comes as pictures of a codec is such.
//!
//! A camera whose codec was changed on its page goes on sending in the same session, and the bytes of one codec can
//! pass for odd units of the other. Then only a new description helps.

use fieldgate_media::Codec;

/// Units in a row without a coded picture, after which it is another codec: a second or two.
const STRANGE_MAX: u32 = 30;

/// What is to be done with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// Not a picture: left out.
    Unusable,
    /// So many of them: describe the camera anew.
    OtherCodec,
}

/// Looks at one track's units.
#[derive(Debug)]
pub(super) struct Sanity {
    codec: Codec,
    strange: u32,
}

impl Sanity {
    pub(super) fn new(codec: Codec) -> Self {
        Sanity { codec, strange: 0 }
    }

    /// `unit` is NAL units with 4-byte lengths.
    pub(super) fn judge(&mut self, unit: &[u8]) -> Verdict {
        let has_picture = match self.codec {
            Codec::H264 => headers(unit).any(|first| matches!(first & 0x1f, 1 | 5)),
            Codec::Hevc => headers(unit).any(|first| first >> 1 & 0x3f <= 21),
            _ => true,
        };
        if has_picture {
            self.strange = 0;
            return Verdict::Fine;
        }
        self.strange += 1;
        if self.strange >= STRANGE_MAX { Verdict::OtherCodec } else { Verdict::Unusable }
    }
}

/// The first byte of each NAL unit.
fn headers(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let (nal, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
        rest = after;
        nal.first().copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(header: u8) -> [u8; 7] {
        [0, 0, 0, 3, header, 1, 0xaf]
    }

    #[test]
    fn pictures_of_another_codec_are_left_out_and_then_named() {
        let mut h264 = Sanity::new(Codec::H264);
        assert_eq!(h264.judge(&unit(0x65)), Verdict::Fine);
        // HEVC's TRAIL_R, IDR and fragments are other kinds of units in H.264's eyes.
        for n in 1..STRANGE_MAX {
            let header = [0x02, 0x26, 0x62][n as usize % 3];
            assert_eq!(h264.judge(&unit(header)), Verdict::Unusable, "{n}");
        }
        assert_eq!(h264.judge(&unit(0x02)), Verdict::OtherCodec);
        let mut hevc = Sanity::new(Codec::Hevc);
        assert_eq!(hevc.judge(&unit(0x26)), Verdict::Fine);
        assert_eq!(hevc.judge(&unit(0x65)), Verdict::Unusable);
    }

    #[test]
    fn one_strange_unit_now_and_then_is_only_left_out() {
        let mut h264 = Sanity::new(Codec::H264);
        for _ in 0..200 {
            assert_eq!(h264.judge(&unit(0x41)), Verdict::Fine);
            assert_eq!(h264.judge(&unit(0x06)), Verdict::Unusable);
        }
        for broken in [&[][..], &[0, 0, 0, 9, 0x65], &[255, 255, 255, 255, 1]] {
            assert_eq!(Sanity::new(Codec::H264).judge(broken), Verdict::Unusable);
        }
    }
}
