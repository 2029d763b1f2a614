//! What happens to pictures and sound between a source and its outputs.

use super::{EncoderWish, Work};
use crate::masks::{Masks, Unmasked};
use serde::{Deserialize, Serialize};

impl Work {
    /// What happens to pictures and sound; none of work that is no camera's.
    pub fn treatments(&self) -> Option<(&VideoTreatment, &AudioTreatment)> {
        match self {
            Work::Test(camera) => Some((&camera.video, &camera.audio)),
            Work::V4l2(camera) => Some((&camera.video, &camera.audio)),
            Work::Csi(camera) => Some((&camera.video, &camera.audio)),
            Work::Rtsp(camera) => Some((&camera.video, &camera.audio)),
            Work::Rtp(camera) => Some((&camera.video, &camera.audio)),
            Work::File(camera) => Some((&camera.video, &camera.audio)),
            Work::Received(received) => Some((&received.video, &received.audio)),
            Work::Transcode(_) | Work::Inspect(_) | Work::ProbeEncoders(_) | Work::ProbeDevice(_) => None,
        }
    }
}

/// What happens to pictures. A picture with masks can only be encoded: both other forms need the proof that it has
/// none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VideoTreatment {
    /// H.264 and HEVC pass as they are; JPEG and raw pictures are refused.
    Pass(Unmasked),
    /// H.264 and HEVC pass as they are; JPEG and raw pictures are encoded.
    PassOr(Unmasked, Box<VideoEncode>),
    /// Whatever comes is decoded and encoded.
    Encode(Box<VideoEncode>),
}

impl VideoTreatment {
    /// For a picture with these masks: passes if there are none and it can be carried, else encodes.
    pub fn pass_or(encode: VideoEncode) -> VideoTreatment {
        match encode.masks.unmasked() {
            Some(unmasked) if encode.overlay.is_none() => VideoTreatment::PassOr(unmasked, Box::new(encode)),
            _ => VideoTreatment::Encode(Box::new(encode)),
        }
    }

    /// How pictures are encoded, where they may be.
    pub fn encode(&self) -> Option<&VideoEncode> {
        match self {
            VideoTreatment::Pass(_) => None,
            VideoTreatment::PassOr(_, encode) | VideoTreatment::Encode(encode) => Some(encode),
        }
    }
}

/// How pictures are encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoEncode {
    /// The encoder, its rate and its keyframes.
    pub encoder: EncoderWish,
    /// What is painted black.
    pub masks: Masks,
    /// What is written into the picture.
    pub overlay: Option<Overlay>,
    /// Larger pictures are made this wide, pixels, even; their shape stays.
    pub max_width: Option<u32>,
    /// Larger pictures are made this high, pixels, even; their shape stays.
    pub max_height: Option<u32>,
    /// Of more pictures per second some are left out.
    pub max_frame_rate: Option<u32>,
    /// They become exactly that wide and high, whatever their shape; for those who have rounded both already.
    pub is_exact: bool,
}

impl VideoEncode {
    /// Pictures with these masks, otherwise as they come.
    pub fn new(encoder: EncoderWish, masks: Masks) -> Self {
        let (max_width, max_height, max_frame_rate) = (None, None, None);
        VideoEncode { encoder, masks, overlay: None, max_width, max_height, max_frame_rate, is_exact: false }
    }
}

/// What is written into the top left corner of a picture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overlay {
    /// Date and time of the gateway, UTC, to the second.
    pub clock: bool,
    /// A text, such as the camera's name; what the small font does not have is left blank. Empty: none.
    pub text: String,
}

/// What happens to sound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AudioTreatment {
    /// It is left out.
    Off,
    /// It passes as it is; raw sound is refused.
    Pass,
    /// It is encoded.
    Encode(AudioEncode),
    /// Without sound from the source there is silence in its place; sound is encoded.
    Silence(AudioEncode),
}

impl AudioTreatment {
    /// How sound is encoded, where it is.
    pub fn encode(&self) -> Option<&AudioEncode> {
        match self {
            AudioTreatment::Off | AudioTreatment::Pass => None,
            AudioTreatment::Encode(encode) | AudioTreatment::Silence(encode) => Some(encode),
        }
    }
}

/// How sound is encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AudioEncode {
    /// Into what.
    pub codec: SoundCodec,
    /// Bits per second.
    pub bitrate: u32,
    /// Amplification in decibels, -60 to 30; 0 leaves it as it is.
    pub gain_db: f32,
    /// Whether it is silenced.
    pub mute: bool,
}

impl Default for AudioEncode {
    fn default() -> Self {
        AudioEncode { codec: SoundCodec::Aac, bitrate: 96_000, gain_db: 0.0, mute: false }
    }
}

/// What a worker makes of a stream that the gateway sends to it. Tracks that pass are not sent to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcode {
    /// How its first video is encoded; `None` without one.
    pub video: Option<VideoEncode>,
    /// How its first sound is encoded; `None` without one.
    pub audio: Option<AudioEncode>,
}

/// What sound is encoded into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SoundCodec {
    /// AAC LC at 48 kHz, 1,024 samples a frame.
    #[default]
    Aac,
    /// Opus, 20 ms a frame.
    Opus,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masks::{Mask, Point};

    #[test]
    fn a_masked_or_overlaid_picture_is_never_passed() {
        let (from, to) = (Point { x: 0.0, y: 0.0 }, Point { x: 1.0, y: 0.5 });
        let masks = Masks::new(vec![Mask::Rectangle { from, to }]).unwrap();
        let masked = VideoTreatment::pass_or(VideoEncode::new(EncoderWish::default(), masks));
        assert!(matches!(masked, VideoTreatment::Encode(_)));
        let plain = VideoEncode::new(EncoderWish::default(), Masks::none());
        let overlay = Some(Overlay { clock: true, text: String::new() });
        let overlaid = VideoTreatment::pass_or(VideoEncode { overlay, ..plain.clone() });
        assert!(matches!(overlaid, VideoTreatment::Encode(_)));
        assert!(matches!(VideoTreatment::pass_or(plain), VideoTreatment::PassOr(..)));
    }

    #[test]
    fn treatments_survive_json() {
        let encode = VideoEncode::new(EncoderWish::default(), Masks::none());
        let unmasked = Masks::none().unmasked().unwrap();
        for treatment in [VideoTreatment::Pass(unmasked), VideoTreatment::pass_or(encode)] {
            let json = serde_json::to_string(&treatment).unwrap();
            assert_eq!(serde_json::from_str::<VideoTreatment>(&json).unwrap(), treatment, "{json}");
        }
        let silence = AudioTreatment::Silence(AudioEncode { gain_db: -6.5, ..AudioEncode::default() });
        let json = serde_json::to_string(&silence).unwrap();
        assert_eq!(serde_json::from_str::<AudioTreatment>(&json).unwrap(), silence);
    }
}
