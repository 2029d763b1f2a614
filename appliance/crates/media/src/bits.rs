//! Reads bit fields of codec headers; `None` past the end, never a panic.

/// A cursor over bits, most significant first.
#[derive(Clone, Debug)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    /// Next bit.
    at: usize,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Bits { bytes, at: 0 }
    }

    pub(crate) fn bit(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let shift = 7usize.saturating_sub(self.at % 8);
        self.at = self.at.checked_add(1)?;
        Some((byte >> shift) & 1 == 1)
    }

    /// Up to 32 bits.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..count {
            value = value << 1 | u32::from(self.bit()?);
        }
        Some(value)
    }

    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        let at = self.at.checked_add(count)?;
        (at <= self.bytes.len().saturating_mul(8)).then_some(())?;
        self.at = at;
        Some(())
    }

    /// Unsigned Exp-Golomb, `ue(v)`.
    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0u32;
        while !self.bit()? {
            zeros = zeros.checked_add(1)?;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.take(zeros)?;
        1u32.checked_shl(zeros)?.checked_sub(1)?.checked_add(rest)
    }

    /// Signed Exp-Golomb, `se(v)`.
    pub(crate) fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        let half = code.checked_add(1)? / 2;
        i32::try_from(if code % 2 == 1 { half } else { half.checked_neg()? }).ok()
    }

    /// AV1's `uvlc()`.
    pub(crate) fn uvlc(&mut self) -> Option<u32> {
        self.ue()
    }
}

/// NAL unit bytes without emulation prevention (00 00 03), at most the first `max` bytes of them.
pub(crate) fn unescape(nal: &[u8], max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len().min(max));
    let mut zeros = 0u8;
    for &byte in nal.iter().take(max) {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros.saturating_add(1) } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_read_as_in_the_standard() {
        // 1 | 010 | 011 | 00100 | 1...
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_1000]);
        assert_eq!((bits.ue(), bits.ue(), bits.ue(), bits.ue()), (Some(0), Some(1), Some(2), Some(3)));
        let mut bits = Bits::new(&[0b0100_1100, 0b1000_0101]);
        assert_eq!((bits.se(), bits.se(), bits.se()), (Some(1), Some(-1), Some(2)));
        assert_eq!(Bits::new(&[0; 8]).ue(), None);
        assert_eq!(Bits::new(&[0xFF]).take(9), None);
    }

    #[test]
    fn emulation_prevention_is_removed() {
        assert_eq!(unescape(&[1, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3], 99), [1, 0, 0, 1, 0, 0, 0, 0]);
    }
}
