//! What each protocol carries.

use crate::config::{Push, Source};
use fieldgate_media::Codec;

/// A way of carrying streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Rtmp,
    Kmp,
    /// A camera's own.
    Camera,
}

const RTMP_VIDEO: &[Codec] = &[Codec::H264, Codec::Hevc, Codec::Av1, Codec::Vp9, Codec::Vp8];
const RTMP_AUDIO: &[Codec] =
    &[Codec::Aac, Codec::Opus, Codec::Mp3, Codec::PcmA, Codec::PcmU, Codec::Ac3, Codec::Eac3, Codec::Flac];
const KMP_VIDEO: &[Codec] = &[Codec::H264, Codec::Hevc];
const KMP_AUDIO: &[Codec] =
    &[Codec::Aac, Codec::Opus, Codec::Mp3, Codec::PcmA, Codec::PcmU, Codec::Ac3, Codec::Eac3];

impl Protocol {
    pub(super) fn of_source(source: &Source) -> Protocol {
        match source {
            Source::Publish(_) | Source::Pull(_) => Protocol::Rtmp,
            Source::Kmp(_) => Protocol::Kmp,
            _ => Protocol::Camera,
        }
    }

    pub(super) fn of_push(push: &Push) -> Protocol {
        let scheme = push.url.parts().map(|parts| parts.scheme.to_ascii_lowercase()).unwrap_or_default();
        if scheme.starts_with("kmp") { Protocol::Kmp } else { Protocol::Rtmp }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Protocol::Rtmp => "RTMP",
            Protocol::Kmp => "KMP",
            Protocol::Camera => "the camera",
        }
    }

    pub(super) const fn video(self) -> &'static [Codec] {
        match self {
            Protocol::Kmp => KMP_VIDEO,
            Protocol::Rtmp | Protocol::Camera => RTMP_VIDEO,
        }
    }

    pub(super) const fn audio(self) -> &'static [Codec] {
        match self {
            Protocol::Kmp => KMP_AUDIO,
            Protocol::Rtmp | Protocol::Camera => RTMP_AUDIO,
        }
    }
}

/// Whether RTMP needs its Enhanced form for this, which not every receiver knows.
pub(super) fn is_enhanced(codec: Codec) -> bool {
    !matches!(codec, Codec::H264 | Codec::Aac | Codec::Mp3 | Codec::PcmA | Codec::PcmU)
}
