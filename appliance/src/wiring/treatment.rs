//! From what is decided about a mountpoint's pictures and sound to what its worker is told.

use crate::supervisor::Handling;
use fieldgate_model::Config;
use fieldgate_model::config::{AudioMode, Source, Span, VideoMode};
use fieldgate_model::job::{
    AudioEncode, AudioTreatment, EncoderWish, Overlay, SoundCodec, VideoEncode, VideoTreatment,
};
use fieldgate_model::masks::Masks;

/// Bits per second where nobody names them.
const USUAL_BITRATE: u32 = 2_500_000;
/// Time between keyframes where nobody names it.
const USUAL_GOP_MS: u32 = 2_000;

/// What happens to a source's pictures and sound.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Treatments {
    pub(super) video: VideoTreatment,
    pub(super) audio: AudioTreatment,
}

/// What a treatment is made of, besides the settings.
pub(super) struct Given {
    /// Those that must be burnt in.
    pub(super) masks: Masks,
    /// The encoder, with rate and keyframes.
    pub(super) encoder: EncoderWish,
    /// The pictures exceed what the settings let through.
    pub(super) exceeds: bool,
    /// They come raw.
    pub(super) is_raw: bool,
    /// So does sound.
    pub(super) has_raw_sound: bool,
}

impl Treatments {
    pub(super) fn of(handling: &Handling, given: Given) -> Treatments {
        let video = &handling.video;
        let overlay = (!video.overlay.is_empty())
            .then(|| Overlay { clock: video.overlay.clock, text: video.overlay.text.clone() });
        let encode = VideoEncode {
            encoder: given.encoder,
            masks: given.masks,
            overlay,
            max_width: video.max_width,
            max_height: video.max_height,
            max_frame_rate: video.max_frame_rate,
            is_exact: false,
        };
        let must = given.is_raw || given.exceeds || video.mode == VideoMode::Encode;
        let video = match must {
            true => VideoTreatment::Encode(Box::new(encode)),
            false => VideoTreatment::pass_or(encode),
        };
        Treatments { video, audio: audio(handling, given.has_raw_sound) }
    }
}

#[cfg(test)]
impl Treatments {
    /// With default settings and without masks.
    pub(super) fn plain(encoder: EncoderWish, is_raw: bool) -> Treatments {
        let given = Given { masks: Masks::none(), encoder, exceeds: false, is_raw, has_raw_sound: is_raw };
        Treatments::of(&Handling::default(), given)
    }
}

/// Whether pictures are decoded and encoded in any case, so that an encoder must be there.
pub(super) fn must_encode(handling: &Handling, masks: &Masks, exceeds: bool) -> bool {
    let video = &handling.video;
    !masks.is_empty() || !video.overlay.is_empty() || exceeds || video.mode == VideoMode::Encode
}

fn audio(handling: &Handling, is_raw: bool) -> AudioTreatment {
    let audio = &handling.audio;
    let encode = |codec| AudioEncode {
        codec,
        bitrate: audio.bitrate,
        gain_db: f32::from(audio.gain_db),
        mute: audio.mute,
    };
    let encode = match audio.mode {
        AudioMode::Off => return AudioTreatment::Off,
        AudioMode::Pass if !is_raw && audio.gain_db == 0 && !audio.mute => return AudioTreatment::Pass,
        AudioMode::Opus => encode(SoundCodec::Opus),
        AudioMode::Auto | AudioMode::Aac | AudioMode::Pass => encode(SoundCodec::Aac),
    };
    if handling.needs_audio { AudioTreatment::Silence(encode) } else { AudioTreatment::Encode(encode) }
}

/// Bits per second of a mountpoint's pictures that are encoded, as the config has it now.
pub(super) fn bitrate(config: &Config, mountpoint: &str, source: &Source) -> u32 {
    let wanted = config.mountpoint_for(mountpoint).and_then(|(_, settings)| settings.video.bitrate);
    wanted.unwrap_or(match source {
        Source::Test(test) => test.bitrate,
        Source::V4l2(v4l2) => v4l2.bitrate,
        Source::Csi(csi) => csi.bitrate,
        Source::Mjpeg(mjpeg) => mjpeg.bitrate,
        _ => USUAL_BITRATE,
    })
}

/// Milliseconds between keyframes of pictures that are encoded.
pub(super) fn gop_ms(handling: &Handling, source: &Source) -> u32 {
    let own = match source {
        Source::Test(test) => Some(test.keyframe_interval),
        Source::V4l2(v4l2) => Some(v4l2.keyframe_interval),
        Source::Csi(csi) => Some(csi.keyframe_interval),
        Source::Mjpeg(mjpeg) => Some(mjpeg.keyframe_interval),
        _ => None,
    };
    let millis = |span: Span| u32::try_from(span.get().as_millis()).unwrap_or(u32::MAX);
    handling.video.keyframe_interval.or(own).map_or(USUAL_GOP_MS, millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::config::{Audio, TestPicture, Video};
    use fieldgate_model::masks::{Mask, Point};

    fn given(masks: Masks) -> Given {
        Given { masks, encoder: EncoderWish::default(), exceeds: false, is_raw: false, has_raw_sound: false }
    }

    fn masks() -> Masks {
        let (from, to) = (Point { x: 0.0, y: 0.0 }, Point { x: 1.0, y: 0.5 });
        Masks::new(vec![Mask::Rectangle { from, to }]).unwrap()
    }

    #[test]
    fn only_what_must_be_is_encoded() {
        let plain = Handling::default();
        let video = |handling: &Handling, given: Given| Treatments::of(handling, given).video;
        assert!(matches!(video(&plain, given(Masks::none())), VideoTreatment::PassOr(..)));
        assert!(matches!(video(&plain, given(masks())), VideoTreatment::Encode(_)));
        let raw = Given { is_raw: true, ..given(Masks::none()) };
        assert!(matches!(video(&plain, raw), VideoTreatment::Encode(_)));
        let asked = Video { mode: VideoMode::Encode, ..Video::default() };
        let asked = Handling { video: asked, ..Handling::default() };
        assert!(matches!(video(&asked, given(Masks::none())), VideoTreatment::Encode(_)));
    }

    #[test]
    fn masks_reach_the_encoder_whatever_else_is_asked() {
        for mode in [VideoMode::Auto, VideoMode::Encode] {
            for exceeds in [false, true] {
                let video = Video { mode, ..Video::default() };
                let handling = Handling { video, ..Handling::default() };
                let treat = Treatments::of(&handling, Given { exceeds, ..given(masks()) });
                let VideoTreatment::Encode(encode) = treat.video else { panic!("{:?}", treat.video) };
                assert_eq!(encode.masks, masks());
            }
        }
    }

    #[test]
    fn sound_is_treated_as_asked() {
        let with = |mode, gain_db, needs_audio| {
            let audio = Audio { mode, gain_db, ..Audio::default() };
            let handling = Handling { audio, needs_audio, ..Handling::default() };
            Treatments::of(&handling, given(Masks::none())).audio
        };
        assert_eq!(with(AudioMode::Off, 0, true), AudioTreatment::Off);
        assert_eq!(with(AudioMode::Pass, 0, true), AudioTreatment::Pass);
        assert!(matches!(with(AudioMode::Pass, -6, false), AudioTreatment::Encode(e) if e.gain_db == -6.0));
        assert!(
            matches!(with(AudioMode::Opus, 0, false), AudioTreatment::Encode(e) if e.codec == SoundCodec::Opus)
        );
        let passed = Audio { mode: AudioMode::Pass, ..Audio::default() };
        let passed = Handling { audio: passed, ..Handling::default() };
        let given = Given { has_raw_sound: true, ..given(Masks::none()) };
        assert!(
            matches!(Treatments::of(&passed, given).audio, AudioTreatment::Encode(_)),
            "raw sound cannot pass"
        );
        assert!(
            matches!(with(AudioMode::Auto, 0, true), AudioTreatment::Silence(e) if e.codec == SoundCodec::Aac)
        );
    }

    #[test]
    fn rate_and_keyframes_come_from_the_mountpoint_before_the_source() {
        let source = Source::Test(TestPicture { bitrate: 700_000, ..TestPicture::default() });
        let config = |video: &str| {
            let json =
                format!(r#"{{"mountpoints": {{"a": {{"source": {{"kind": "test"}}, "video": {video}}}}}}}"#);
            Config::parse(&json).unwrap()
        };
        assert_eq!(bitrate(&config("{}"), "a", &source), 700_000);
        assert_eq!(bitrate(&config(r#"{"bitrate": 50000}"#), "a", &source), 50_000);
        let video = Video { keyframe_interval: Some(Span::from_millis(500)), ..Video::default() };
        let handling = Handling { video, ..Handling::default() };
        assert_eq!((gop_ms(&handling, &source), gop_ms(&Handling::default(), &source)), (500, 2_000));
    }
}
