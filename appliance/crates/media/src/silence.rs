//! Silence in step with pictures, for receivers that insist on sound: whole frames that are the same every time, so that
//! no encoder is needed.
//!
//! Sources: AAC: ISO/IEC 14496-3, a raw data block with one channel element that has no scale factor bands. Opus:
//! RFC 6716, a CELT frame of 20 ms with its silence flag.

use crate::{Codec, Draft, Ticks, Track, TrackId, UnitHead};
use bytes::Bytes;

/// After a leap of the pictures' time by more than this silence begins anew.
const LEAP: Ticks = Ticks::from_millis(1_000);

/// Makes the units of a silent track.
#[derive(Clone, Debug)]
pub struct Silence {
    track: Track,
    frame: &'static [u8],
    step: Ticks,
    next: Option<Ticks>,
}

impl Silence {
    /// AAC LC, 48 kHz, one channel, 1,024 samples a frame.
    pub fn aac() -> Silence {
        let track = Track::new(TrackId::AUDIO, Codec::Aac, Bytes::from_static(&[0x11, 0x88]));
        Silence {
            track: track.with_header_shape(),
            frame: &[0, 0, 0, 7],
            step: Ticks::new(1_920),
            next: None,
        }
    }

    /// Opus, one channel, 20 ms a frame.
    pub fn opus() -> Silence {
        const HEAD: &[u8] = b"OpusHead\x01\x01\0\0\x80\xbb\0\0\0\0\0";
        let track = Track::new(TrackId::AUDIO, Codec::Opus, Bytes::from_static(HEAD)).with_header_shape();
        Silence { track, frame: &[0xf8, 0xff, 0xfe], step: Ticks::new(1_800), next: None }
    }

    /// The track to be announced with the pictures.
    pub fn track(&self) -> &Track {
        &self.track
    }

    /// The next unit that is due once a picture with these times is there; to be asked until there is none.
    pub fn due(&mut self, picture: &UnitHead) -> Option<Draft> {
        let next = match self.next {
            Some(next) if (picture.dts - next) < LEAP && (next - picture.dts) < LEAP => next,
            _ => picture.dts,
        };
        if next > picture.dts {
            self.next = Some(next);
            return None;
        }
        self.next = Some(next + self.step);
        let source = next + (picture.source_dts - picture.dts);
        let head = UnitHead {
            track: self.track.id,
            dts: next,
            pts: next,
            source_dts: source,
            source_pts: source,
            keyframe: true,
            captured: picture.captured,
        };
        Some(Draft::copied(head, self.frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(silence: &mut Silence, at: i64) -> Vec<i64> {
        let dts = Ticks::new(at);
        let head = UnitHead {
            track: TrackId::VIDEO,
            dts,
            pts: dts,
            source_dts: dts,
            source_pts: dts,
            keyframe: true,
            captured: None,
        };
        std::iter::from_fn(|| silence.due(&head)).map(|unit| unit.head.dts.get()).collect()
    }

    #[test]
    fn silence_keeps_step_with_pictures() {
        let mut silence = Silence::aac();
        assert_eq!(due(&mut silence, 1_000), [1_000]);
        assert_eq!(due(&mut silence, 4_600), [2_920]);
        assert_eq!(due(&mut silence, 8_200), [4_840, 6_760]);
        let mut last = 6_760;
        for picture in 3..1_000 {
            for at in due(&mut silence, 1_000 + picture * 3_600) {
                assert_eq!(at - last, 1_920);
                last = at;
            }
        }
        assert!((1_000 + 999 * 3_600 - last) < 1_920);
    }

    #[test]
    fn a_leap_of_the_pictures_makes_no_flood() {
        let mut silence = Silence::opus();
        due(&mut silence, 0);
        assert_eq!(due(&mut silence, 900_000), [900_000]);
        assert_eq!(due(&mut silence, 0), [0]);
    }

    #[test]
    fn its_tracks_say_what_they_are() {
        for (silence, codec) in [(Silence::aac(), Codec::Aac), (Silence::opus(), Codec::Opus)] {
            let track = silence.track();
            assert_eq!((track.codec, track.audio.sample_rate, track.audio.channels), (codec, 48_000, 1));
        }
    }
}
