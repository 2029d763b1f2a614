//! From what is decided about a mountpoint's pictures and sound to what its worker is told.

use fieldgate_model::job::{AudioEncode, AudioTreatment, EncoderWish, VideoEncode, VideoTreatment};
use fieldgate_model::masks::{Masks, Unmasked};

/// What happens to a source's pictures and sound.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Treatments {
    pub(super) video: VideoTreatment,
    pub(super) audio: AudioTreatment,
}

impl Treatments {
    /// Everything passes as the source sends it; for sources that send what outputs carry.
    pub(super) fn pass(unmasked: Unmasked) -> Treatments {
        Treatments { video: VideoTreatment::Pass(unmasked), audio: AudioTreatment::Pass }
    }

    /// What can pass does, raw and JPEG pictures are encoded.
    pub(super) fn pass_or(encoder: EncoderWish, masks: Masks) -> Treatments {
        let video = VideoTreatment::pass_or(VideoEncode::new(encoder, masks));
        Treatments { video, audio: AudioTreatment::Off }
    }

    /// Everything is encoded; for sources that send raw pictures and sound.
    pub(super) fn encode(encoder: EncoderWish, masks: Masks) -> Treatments {
        let video = VideoTreatment::Encode(Box::new(VideoEncode::new(encoder, masks)));
        Treatments { video, audio: AudioTreatment::Encode(AudioEncode::default()) }
    }
}
