//! A keyframe's bytes in one number: equal for equal pictures that were coded alike.

use fieldgate_media::Codec;
use std::hash::{DefaultHasher, Hasher};

/// More than any slice header: picture number, identity of the keyframe, entry points.
const HEADER_MAX: usize = 32;
/// Headers differ in length by a byte or two; the end of a slice is counted in steps of this.
const STEP: usize = 64;
/// Slices that are looked at; more are taken as one.
const SLICES_MAX: usize = 512;

/// The digest of a keyframe. Only slices count, as supplemental information holds clocks and counters; and of each
/// slice what follows its header, which is numbered. Arithmetic coding begins on a byte, so that equal pictures are
/// equal from there on; without it (CAVLC) every other keyframe of a series is equal.
pub(super) fn digest(codec: Codec, payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    match codec {
        Codec::H264 => slices(payload, |first| matches!(first & 0x1f, 1..=5), &mut hasher),
        Codec::Hevc => slices(payload, |first| (first >> 1 & 0x3f) < 32, &mut hasher),
        _ => hasher.write(payload),
    }
    hasher.finish()
}

fn slices(mut rest: &[u8], is_slice: impl Fn(u8) -> bool, hasher: &mut DefaultHasher) {
    let mut left = SLICES_MAX;
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        let Some((nal, after)) = after.split_at_checked(len).filter(|_| left > 0) else { break };
        left -= 1;
        rest = after;
        if nal.first().is_some_and(|first| is_slice(*first)) {
            let tail = nal.len().saturating_sub(HEADER_MAX) / STEP * STEP;
            let from = if tail == 0 { 0 } else { nal.len() - tail };
            hasher.write_usize(tail);
            hasher.write(nal.get(from..).unwrap_or_default());
        }
    }
    hasher.write(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(nals: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = Vec::new();
        for nal in nals {
            payload.extend_from_slice(&u32::try_from(nal.len()).unwrap().to_be_bytes());
            payload.extend_from_slice(nal);
        }
        payload
    }

    fn idr(header: &[u8], body: u8) -> Vec<u8> {
        [&[0x65][..], header, &vec![body; 300]].concat()
    }

    #[test]
    fn numbers_in_headers_and_clocks_beside_the_picture_do_not_count() {
        let one = unit(&[vec![6, 5, 1, 2], idr(&[1, 2], 7)]);
        let other = unit(&[vec![6, 5, 9, 9, 9], idr(&[3, 4, 5], 7)]);
        assert_eq!(digest(Codec::H264, &one), digest(Codec::H264, &other));
        let changed = unit(&[vec![6, 5, 1, 2], idr(&[1, 2], 8)]);
        assert_ne!(digest(Codec::H264, &one), digest(Codec::H264, &changed));
        let mut last_byte = one.clone();
        *last_byte.last_mut().unwrap() ^= 1;
        assert_ne!(digest(Codec::H264, &one), digest(Codec::H264, &last_byte));
    }

    #[test]
    fn hostile_lengths_are_only_bytes() {
        for payload in [&[][..], &[0, 0], &[255; 4], &[255, 255, 255, 255, 0x65], &[0; 4096]] {
            for codec in [Codec::H264, Codec::Hevc, Codec::Vp8] {
                assert_eq!(digest(codec, payload), digest(codec, payload));
            }
        }
    }
}
