//! What a mountpoint's settings ask of its pictures and sound.

use crate::config::Mountpoint;
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
#[allow(dead_code, reason = "asked for once mountpoints have settings for their sound")]
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

pub(super) fn video(_mountpoint: &Mountpoint) -> VideoWish {
    VideoWish::default()
}

/// With whether it shall sound otherwise than it comes.
pub(super) fn audio(_mountpoint: &Mountpoint) -> (AudioWish, bool) {
    (AudioWish::Auto, false)
}
