//! Where a mountpoint's stream comes from: one file per kind.

mod csi;
mod file;
mod microphone;
mod mjpeg;
mod publish;
mod pull;
mod rtp;
mod rtsp;
mod test_picture;
mod v4l2;

pub use csi::Csi;
pub use file::FileSource;
pub use microphone::is_microphone;
pub use mjpeg::Mjpeg;
pub use publish::Publish;
pub use pull::Pull;
pub use rtp::{Rtp, RtpError, RtpMedia, RtpSession, RtpStream};
pub use rtsp::{Rtsp, RtspStream, RtspTransport};
pub use test_picture::TestPicture;
pub use v4l2::{V4l2, V4l2Format};

use super::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a stream comes from, by `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// An encoder publishes to us by RTMP.
    Publish(Publish),
    /// A camera that speaks RTSP.
    Rtsp(Rtsp),
    /// A local camera or capture card (Video4Linux).
    V4l2(V4l2),
    /// A camera on the board's own connector (libcamera).
    Csi(Csi),
    /// RTP that a camera or encoder sends to us by UDP.
    Rtp(Rtp),
    /// A camera with Motion JPEG or single JPEG pictures by HTTP.
    Mjpeg(Mjpeg),
    /// A recorded file, for demonstrations.
    File(FileSource),
    /// A moving test picture with a clock and a tone.
    Test(TestPicture),
    /// A stream fetched from another RTMP server.
    Pull(Pull),
    /// Tracks that another gateway or Kaltura's connector sends by KMP.
    Kmp(KmpSource),
}

impl Source {
    /// The microphone that belongs to it.
    pub fn microphone(&self) -> Option<&str> {
        match self {
            Source::V4l2(v4l2) => v4l2.microphone.as_deref(),
            Source::Csi(csi) => csi.microphone.as_deref(),
            Source::Test(test) => test.microphone.as_deref(),
            _ => None,
        }
    }

    /// The `kind` that it has in the config.
    pub fn kind(&self) -> &'static str {
        match self {
            Source::Publish(_) => "publish",
            Source::Rtsp(_) => "rtsp",
            Source::V4l2(_) => "v4l2",
            Source::Csi(_) => "csi",
            Source::Rtp(_) => "rtp",
            Source::Mjpeg(_) => "mjpeg",
            Source::File(_) => "file",
            Source::Test(_) => "test",
            Source::Pull(_) => "pull",
            Source::Kmp(_) => "kmp",
        }
    }
}

/// Takes the tracks of the channel in `kmp.channels` that names this mountpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KmpSource {}

pub(super) fn default_stall() -> Span {
    Span::from_secs(10)
}

pub(super) fn default_keyframe_interval() -> Span {
    Span::from_secs(2)
}

/// Short: a link that comes back shall carry the stream again within five seconds.
pub(super) fn default_backoff_cap() -> Span {
    Span::from_secs(3)
}

/// Of pictures that are encoded here.
pub(super) fn default_bitrate() -> u32 {
    2_000_000
}

pub(super) fn yes() -> bool {
    true
}
