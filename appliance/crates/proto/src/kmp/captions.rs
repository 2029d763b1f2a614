//! Finds captions in pictures: CEA-608 and 708 as ATSC A/53 puts them into SEI messages.

use fieldgate_media::Codec;

/// `user_data_registered_itu_t_t35` of ATSC, user identifier GA94.
const GA94: [u8; 7] = [0xB5, 0x00, 0x31, b'G', b'A', b'9', b'4'];
/// Payload type of `user_data_registered_itu_t_t35`.
const REGISTERED: u32 = 4;

/// Whether a picture with 4-byte NAL lengths carries captions. No copy, no allocation.
pub(super) fn has_captions(codec: Codec, payload: &[u8]) -> bool {
    let mut rest = payload;
    while let Some((&len, after)) = rest.split_first_chunk() {
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        let Some((nal, after)) = after.split_at_checked(len) else { return false };
        rest = after;
        let messages = match (codec, nal) {
            (Codec::H264, [first, messages @ ..]) if first & 0x1F == 6 => messages,
            (Codec::Hevc, [first, _, messages @ ..]) if first >> 1 & 0x3F == 39 => messages,
            _ => continue,
        };
        if in_sei(messages) {
            return true;
        }
    }
    false
}

/// Source: H.264 7.3.2.3.1, the same in H.265.
fn in_sei(messages: &[u8]) -> bool {
    let mut bytes = Unescaped { bytes: messages, zeros: 0 };
    while let (Some(kind), Some(len)) = (bytes.number(), bytes.number()) {
        let mut matched = 0;
        for at in 0..len {
            let Some(byte) = bytes.next() else { return false };
            if at == matched && GA94.get(matched as usize) == Some(&byte) {
                matched = matched.saturating_add(1);
            }
        }
        if kind == REGISTERED && matched as usize == GA94.len() {
            return true;
        }
    }
    false
}

/// NAL unit bytes without emulation prevention.
struct Unescaped<'a> {
    bytes: &'a [u8],
    zeros: u8,
}

impl Unescaped<'_> {
    /// Payload type or size: bytes of 255 and a last one, summed up.
    fn number(&mut self) -> Option<u32> {
        let mut sum = 0u32;
        loop {
            let byte = self.next()?;
            sum = sum.checked_add(u32::from(byte))?;
            if byte < 255 {
                return Some(sum);
            }
        }
    }
}

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        loop {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            if byte == 3 && self.zeros >= 2 {
                self.zeros = 0;
                continue;
            }
            self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
            return Some(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect()
    }

    /// Behind another message whose bytes need emulation prevention.
    fn sei(head: &[u8], kind: u8) -> Vec<u8> {
        let other = [5, 4, 0, 0, 3, 1, 9];
        [head, &other[..], &[kind, 9], &GA94, &[3, 0x40, 0x80]].concat()
    }

    #[test]
    fn captions_are_found_behind_other_messages_in_both_codecs() {
        let slice: &[u8] = &[0x65, 1, 2];
        assert!(has_captions(Codec::H264, &picture(&[&[9, 0x10], &sei(&[6], 4), slice])));
        assert!(has_captions(Codec::Hevc, &picture(&[&sei(&[78, 1], 4), slice])));
        assert!(!has_captions(Codec::H264, &picture(&[&sei(&[6], 5), slice])));
        assert!(!has_captions(Codec::H264, &picture(&[&sei(&[0x65], 4)])));
        assert!(!has_captions(Codec::Hevc, &picture(&[&sei(&[6], 4)])));
        let whole = picture(&[&sei(&[6], 4)]);
        for end in 0..whole.len() {
            has_captions(Codec::H264, &whole[..end]);
        }
    }
}
