//! What a mountpoint's settings ask of its pictures and sound.

use crate::config::{AudioMode, Mountpoint, VideoMode};
use fieldgate_media::Codec;

/// What is asked of pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct VideoWish {
    /// They are encoded in any case, and why.
    pub(super) encode: Option<&'static str>,
    pub(super) max_width: Option<u32>,
    pub(super) max_height: Option<u32>,
    pub(super) max_frame_rate: Option<u32>,
    /// Something is written into them.
    pub(super) has_overlay: bool,
}

/// What is asked of sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AudioWish {
    /// AAC passes, of a camera's sound anything else is made AAC.
    #[default]
    Auto,
    /// None.
    Off,
    /// Whatever comes.
    Pass,
    /// This.
    To(Codec),
}

pub(super) fn video(mountpoint: &Mountpoint) -> VideoWish {
    let video = &mountpoint.video;
    VideoWish {
        encode: (video.mode == VideoMode::Encode).then_some("video.mode asks for it"),
        max_width: video.max_width,
        max_height: video.max_height,
        max_frame_rate: video.max_frame_rate,
        has_overlay: !video.overlay.is_empty(),
    }
}

/// With whether it shall sound otherwise than it comes.
pub(super) fn audio(mountpoint: &Mountpoint) -> (AudioWish, bool) {
    let audio = &mountpoint.audio;
    let wish = match audio.mode {
        AudioMode::Auto => AudioWish::Auto,
        AudioMode::Off => AudioWish::Off,
        AudioMode::Pass => AudioWish::Pass,
        AudioMode::Aac => AudioWish::To(Codec::Aac),
        AudioMode::Opus => AudioWish::To(Codec::Opus),
    };
    (wish, audio.gain_db != 0 || audio.mute)
}
