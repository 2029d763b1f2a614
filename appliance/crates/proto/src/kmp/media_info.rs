//! What `minf` says of a track. Source: the KMP contract, sections 4, 6.2, 6.3 and 13.

use super::packet::{Audio, Media, MediaInfo, Rational, Video};
use fieldgate_media::{Codec, Track, TrackKind, aac};

/// Codec id of WebVTT, the one subtitle codec.
pub const WEBVTT: u32 = 2001;

/// Denominators of frame rates stay below this.
const MAX_DENOM: u64 = 1_000_000;
/// A rate below this says nothing.
const MIN_FRAME_RATE: f64 = 0.001;
/// A rate above this says nothing.
const MAX_FRAME_RATE: f64 = 1_000_000.0;

/// How a track is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Describe {
    /// As the reference does it, defects included.
    pub strict: bool,
    /// Hertz.
    pub timescale: u32,
    /// The pictures carry captions.
    pub cea_captions: bool,
    /// The stream's pictures were HEVC when this track's header came. The reference no longer reads the sound's own
    /// header then; counts in strict mode only.
    pub beside_hevc: bool,
}

/// The number of a codec; `None` for those that KMP has none for (AV1, VP8, VP9, FLAC).
pub fn codec_id(codec: Codec) -> Option<u32> {
    match codec {
        Codec::H264 => Some(7),
        Codec::Hevc => Some(8),
        Codec::Mp3 => Some(1002),
        Codec::PcmA => Some(1007),
        Codec::PcmU => Some(1008),
        Codec::Aac => Some(1010),
        Codec::Ac3 => Some(1016),
        Codec::Eac3 => Some(1017),
        Codec::Opus => Some(1018),
        _ => None,
    }
}

/// The codec with that number; `None` for those that the gateway does not carry.
pub fn codec_of(codec_id: u32) -> Option<Codec> {
    match codec_id {
        7 => Some(Codec::H264),
        8 => Some(Codec::Hevc),
        1002 | 1014 => Some(Codec::Mp3),
        1007 => Some(Codec::PcmA),
        1008 => Some(Codec::PcmU),
        1010 => Some(Codec::Aac),
        1016 => Some(Codec::Ac3),
        1017 => Some(Codec::Eac3),
        1018 => Some(Codec::Opus),
        _ => None,
    }
}

impl MediaInfo {
    /// Describes `track`; `None` if KMP has no number for its codec.
    pub fn of(track: &Track, how: Describe) -> Option<MediaInfo> {
        let mut id = codec_id(track.codec)?;
        let media = match track.kind() {
            TrackKind::Video if how.strict => Media::Video(declared_video(track, how.cea_captions)),
            TrackKind::Video => Media::Video(video(track, how.cea_captions)),
            TrackKind::Audio => match track.declared.flv_sound.filter(|_| how.strict) {
                Some(flags) => {
                    // FLV has a number of its own for MP3 at 8 kHz.
                    if flags >> 4 == 14 {
                        id = 1014;
                    }
                    Media::Audio(flv_audio(track, flags, how.beside_hevc))
                }
                None => Media::Audio(audio(track)),
            },
        };
        Some(MediaInfo {
            codec_id: id,
            timescale: how.timescale,
            bitrate: bitrate(track.declared.bits_per_second),
            media,
            extra_data: track.header.clone(),
        })
    }

    /// AAC's samples per second, as announced, and per frame; `None` for other codecs and without a rate.
    pub(super) fn aac_rates(&self, strict: bool) -> Option<(i64, i64)> {
        let Media::Audio(Audio { sample_rate: rate @ 1.., .. }) = self.media else { return None };
        // The reference counts 1024 whatever the header says.
        let told = aac::AacConfig::parse(&self.extra_data).filter(|_| !strict);
        let samples = told.map_or(1024, |config| config.frame_samples);
        (self.codec_id == 1010).then_some((i64::from(rate), i64::from(samples)))
    }
}

/// Whole kilobits, as the reference cuts them.
fn bitrate(bits_per_second: u64) -> u32 {
    let kilobits = bits_per_second / 1000;
    u32::try_from(kilobits.saturating_mul(1000)).unwrap_or(u32::MAX)
}

/// Sizes of H.264 out of its header, all else as the encoder declared it.
fn declared_video(track: &Track, cea_captions: bool) -> Video {
    let declared = &track.declared;
    let from_header = track.codec == Codec::H264 && track.video.width > 0;
    let (width, height) =
        if from_header { (track.video.width, track.video.height) } else { (declared.width, declared.height) };
    Video {
        width: clamped(width),
        height: clamped(height),
        frame_rate: rational(declared.frame_rate),
        cea_captions,
    }
}

/// All that is known, the header first; rates as declared where they are, since headers seldom have them right.
fn video(track: &Track, cea_captions: bool) -> Video {
    let declared = &track.declared;
    let size = |known: u32, said: u32| clamped(if known > 0 { known } else { said });
    let rate = if declared.frame_rate > 0.0 { declared.frame_rate } else { track.video.frame_rate };
    Video {
        width: size(track.video.width, declared.width),
        height: size(track.video.height, declared.height),
        frame_rate: rational(rate),
        cea_captions,
    }
}

/// What the flags of the FLV tag say; the rate of AAC out of its header.
fn flv_audio(track: &Track, flags: u8, beside_hevc: bool) -> Audio {
    let channels = if flags & 1 == 1 { 2 } else { 1 };
    let flag_rate = match flags >> 2 & 3 {
        0 => 5_512,
        1 => 11_025,
        2 => 22_050,
        _ => 44_100,
    };
    let header_rate = if track.codec == Codec::Aac && !beside_hevc { track.audio.sample_rate } else { 0 };
    Audio {
        channels,
        bits_per_sample: if flags & 2 == 2 { 16 } else { 8 },
        sample_rate: if header_rate > 0 { header_rate } else { flag_rate },
        channel_layout: if channels == 1 { 4 } else { 3 },
    }
}

/// What the header or the frames themselves say.
fn audio(track: &Track) -> Audio {
    let channels = track.audio.channels;
    Audio {
        channels: u16::from(channels),
        bits_per_sample: 16,
        sample_rate: track.audio.sample_rate,
        channel_layout: match channels {
            0 => 0,
            1 => 0x4,
            2 => 0x3,
            3 => 0x7,
            4 => 0x107,
            5 => 0x607,
            6 => 0x60f,
            7 => 0x70f,
            _ => 0x63f,
        },
    }
}

fn clamped(pixels: u32) -> u16 {
    u16::try_from(pixels).unwrap_or(u16::MAX)
}

/// The last convergent of the rate's continued fraction whose denominator is below a million; `0/1` for none.
pub(super) fn rational(rate: f64) -> Rational {
    if !(MIN_FRAME_RATE..=MAX_FRAME_RATE).contains(&rate) {
        return Rational { num: 0, denom: 1 };
    }
    // Exact: from a thousandth on a double has at most 62 bits behind the point.
    let mut denom = 1u128 << 62;
    let mut num = (rate * (1u64 << 62) as f64) as u128;
    let (mut before, mut last) = ((0u64, 1u64), (1u64, 0u64));
    while let Some(whole) = num.checked_div(denom) {
        let Ok(whole) = u64::try_from(whole) else { break };
        let next = |at: u64, before: u64| at.saturating_mul(whole).saturating_add(before);
        let convergent = (next(last.0, before.0), next(last.1, before.1));
        if convergent.1 >= MAX_DENOM || convergent.0 > u64::from(u32::MAX) {
            break;
        }
        (before, last) = (last, convergent);
        (num, denom) = (denom, num.checked_rem(denom).unwrap_or(0));
    }
    let [num, denom] = [last.0, last.1].map(|part| u32::try_from(part).unwrap_or(u32::MAX));
    Rational { num, denom }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fieldgate_media::{AudioShape, Declared, TrackId, VideoShape};

    const DEFAULT: Describe =
        Describe { strict: false, timescale: 90_000, cea_captions: false, beside_hevc: false };
    const STRICT: Describe = Describe { strict: true, ..DEFAULT };

    #[test]
    fn frame_rates_become_the_fractions_that_people_mean() {
        let ratio = |rate| {
            let Rational { num, denom } = rational(rate);
            (num, denom)
        };
        for (rate, expected) in [
            (15.0, (15, 1)),
            (29.97, (2997, 100)),
            (30_000.0 / 1001.0, (30_000, 1001)),
            (989.0 / 33.0, (989, 33)),
            (12.5, (25, 2)),
            (0.5, (1, 2)),
            (0.001, (1, 1000)),
            (0.0, (0, 1)),
            (-1.0, (0, 1)),
            (f64::NAN, (0, 1)),
            (f64::INFINITY, (0, 1)),
        ] {
            assert_eq!(ratio(rate), expected, "{rate}");
        }
        let Rational { num, denom } = rational(std::f64::consts::PI);
        assert!(
            denom < 1_000_000 && (f64::from(num) / f64::from(denom) - std::f64::consts::PI).abs() < 1e-10
        );
    }

    #[test]
    fn every_codec_of_the_contract_has_its_number_and_back() {
        for (codec, id) in [
            (Codec::H264, 7),
            (Codec::Hevc, 8),
            (Codec::Mp3, 1002),
            (Codec::PcmA, 1007),
            (Codec::PcmU, 1008),
            (Codec::Aac, 1010),
            (Codec::Ac3, 1016),
            (Codec::Eac3, 1017),
            (Codec::Opus, 1018),
        ] {
            assert_eq!((codec_id(codec), codec_of(id)), (Some(id), Some(codec)));
        }
        for codec in [Codec::Av1, Codec::Vp8, Codec::Vp9, Codec::Flac] {
            assert_eq!(codec_id(codec), None);
            assert_eq!(MediaInfo::of(&Track::new(TrackId::VIDEO, codec, Bytes::new()), DEFAULT), None);
        }
        assert_eq!((codec_of(1014), codec_of(WEBVTT), codec_of(0)), (Some(Codec::Mp3), None, None));
    }

    #[test]
    fn sound_is_described_by_its_header_and_only_strictly_by_the_flags() {
        let mut track = Track::new(TrackId::AUDIO, Codec::Aac, Bytes::from_static(&[0x11, 0x88]));
        track = track.with_header_shape();
        track.declared = Declared { bits_per_second: 31_999, flv_sound: Some(0xAF), ..Declared::default() };
        let audio = |how| match MediaInfo::of(&track, how).unwrap() {
            MediaInfo { media: Media::Audio(audio), bitrate: 31_000, .. } => audio,
            other => panic!("{other:?}"),
        };
        let better = audio(DEFAULT);
        assert_eq!((better.channels, better.channel_layout, better.sample_rate), (1, 4, 48_000));
        let strict = audio(STRICT);
        assert_eq!((strict.channels, strict.channel_layout, strict.sample_rate), (2, 3, 48_000));
        let defect = Describe { beside_hevc: true, ..STRICT };
        assert_eq!(
            (audio(defect).sample_rate, audio(Describe { strict: false, ..defect })),
            (44_100, better)
        );
    }

    #[test]
    fn sound_without_flags_is_described_by_what_is_known_in_both_modes() {
        let mut track = Track::new(TrackId::AUDIO, Codec::Ac3, Bytes::new());
        track.audio = AudioShape { sample_rate: 48_000, channels: 6 };
        let expected = Audio { channels: 6, bits_per_sample: 16, sample_rate: 48_000, channel_layout: 0x60f };
        for how in [DEFAULT, STRICT] {
            assert_eq!(MediaInfo::of(&track, how).unwrap().media, Media::Audio(expected));
        }
        track = Track::new(TrackId::AUDIO, Codec::PcmU, Bytes::new());
        track.audio = AudioShape { sample_rate: 8_000, channels: 1 };
        track.declared.flv_sound = Some(0x82);
        let rate = |how| match MediaInfo::of(&track, how).unwrap().media {
            Media::Audio(audio) => (audio.sample_rate, audio.channels, audio.bits_per_sample),
            other => panic!("{other:?}"),
        };
        assert_eq!((rate(DEFAULT), rate(STRICT)), ((8_000, 1, 16), (5_512, 1, 16)));
        let mut narrow = Track::new(TrackId::AUDIO, Codec::Mp3, Bytes::new());
        narrow.declared.flv_sound = Some(0xE2);
        assert_eq!(MediaInfo::of(&narrow, STRICT).unwrap().codec_id, 1014);
        assert_eq!(MediaInfo::of(&narrow, DEFAULT).unwrap().codec_id, 1002);
    }

    #[test]
    fn pictures_are_described_by_their_header_and_hevc_strictly_by_what_was_declared() {
        let mut track = Track::new(TrackId::VIDEO, Codec::Hevc, Bytes::new());
        track.video = VideoShape { width: 1920, height: 1080, frame_rate: 25.0 };
        let video = |track: &Track, how| match MediaInfo::of(track, how).unwrap().media {
            Media::Video(video) => (video.width, video.height, video.frame_rate.num, video.cea_captions),
            other => panic!("{other:?}"),
        };
        assert_eq!(video(&track, DEFAULT), (1920, 1080, 25, false));
        assert_eq!(video(&track, STRICT), (0, 0, 0, false));
        track.declared = Declared { width: 70_000, height: 720, frame_rate: 30.0, ..Declared::default() };
        assert_eq!(video(&track, STRICT), (u16::MAX, 720, 30, false));
        assert_eq!(video(&track, DEFAULT), (1920, 1080, 30, false));
        let captions = Describe { cea_captions: true, ..STRICT };
        assert_eq!(video(&Track { codec: Codec::H264, ..track }, captions), (1920, 1080, 30, true));
    }
}
