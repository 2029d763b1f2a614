//! Why tracks end.

/// Why a track ended, as `unpublish` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The peer ended its stream.
    RtmpClose,
    /// The RTMP connection is gone: lost, idle, dropped through the API or because of another track.
    RtmpDisconnect,
    /// It was dropped because a message of another track could not be handled.
    RtmpKmpError,
    /// A message made no sense.
    RtmpBadData,
    /// There was no memory for a track.
    CreateTrackFailed,
    /// An upstream has failed that was required, or was the last.
    UpstreamError,
    /// No try of `publish` had a usable reply.
    ParsePublishFailed,
    /// `publish` could not be called at all.
    CreatePublishFailed,
    /// The controller named an upstream that cannot be used.
    CreateUpstreamFailed,
    /// The track's memory is used up.
    AllocFailed,
    /// A frame could not be queued.
    AppendFailed,
    /// Something else.
    Unexpected,
}

impl Reason {
    /// All there are.
    pub const ALL: [Reason; 12] = [
        Reason::RtmpClose,
        Reason::RtmpDisconnect,
        Reason::RtmpKmpError,
        Reason::RtmpBadData,
        Reason::CreateTrackFailed,
        Reason::UpstreamError,
        Reason::ParsePublishFailed,
        Reason::CreatePublishFailed,
        Reason::CreateUpstreamFailed,
        Reason::AllocFailed,
        Reason::AppendFailed,
        Reason::Unexpected,
    ];

    /// The reason that `unpublish` says like this.
    pub fn from_name(name: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// As `unpublish` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::RtmpClose => "rtmp_close",
            Reason::RtmpDisconnect => "rtmp_disconnect",
            Reason::RtmpKmpError => "rtmp_kmp_error",
            Reason::RtmpBadData => "rtmp_bad_data",
            Reason::CreateTrackFailed => "create_track_failed",
            Reason::UpstreamError => "upstream_error",
            Reason::ParsePublishFailed => "parse_publish_failed",
            Reason::CreatePublishFailed => "create_publish_failed",
            Reason::CreateUpstreamFailed => "create_upstream_failed",
            Reason::AllocFailed => "alloc_failed",
            Reason::AppendFailed => "append_failed",
            Reason::Unexpected => "unexpected",
        }
    }

    /// The reason of the session's other tracks when this one makes it end: handling a message failed, or something else
    /// did.
    pub(super) const fn of_sisters(self) -> Reason {
        match self {
            Reason::RtmpBadData
            | Reason::CreateTrackFailed
            | Reason::AllocFailed
            | Reason::AppendFailed
            | Reason::RtmpKmpError => Reason::RtmpKmpError,
            _ => Reason::RtmpDisconnect,
        }
    }
}
