//! What a sender asks of its owner, and what it tells of itself.

use super::arrears::Owed;
use super::upstream::{Fate, Totals, UpstreamKey, UpstreamSpec};
use crate::kmp::packet::{PacketKind, Wire};

/// Why a track ended; the first cause counts. The names are those of the `unpublish` callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The publisher ended its stream.
    Close,
    /// The publisher's connection was lost or cut.
    Disconnect,
    /// Another track of the session failed on its media.
    SisterError,
    /// The publisher sent what is no media.
    BadData,
    /// An upstream was given up.
    UpstreamError,
    /// The controller refused.
    PublishRefused,
    /// The controller could not be asked.
    PublishFailed,
    /// The controller named an upstream that is none.
    BadUpstream,
    /// No memory for more packets.
    NoMemory,
}

impl Reason {
    /// As the controller is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Close => "rtmp_close",
            Reason::Disconnect => "rtmp_disconnect",
            Reason::SisterError => "rtmp_kmp_error",
            Reason::BadData => "rtmp_bad_data",
            Reason::UpstreamError => "upstream_error",
            Reason::PublishRefused => "parse_publish_failed",
            Reason::PublishFailed => "create_publish_failed",
            Reason::BadUpstream => "create_upstream_failed",
            Reason::NoMemory => "alloc_failed",
        }
    }
}

/// What the owner shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask where the track goes; the answer is [`super::Sender::published`] or [`super::Sender::publish_failed`].
    AskPublish,
    /// Ask where an upstream goes on; the answer is [`super::Sender::republished`] or [`super::Sender::republish_failed`].
    AskRepublish(UpstreamKey),
    /// The track is over: cancel what is still asked for and tell the controller. Comes last, and only after
    /// [`Output::AskPublish`].
    AskUnpublish(Reason),
    /// Open a connection; the answer is [`super::Sender::connected`] or [`super::Sender::disconnected`].
    Connect(UpstreamKey),
    /// Close the connection, or stop opening it. Nothing more is to be told of it.
    Close(UpstreamKey),
    /// End the publisher's whole session, which ends this track too.
    DropSession(Reason),
    /// Hand in kept packets with [`super::Sender::loaded`], beginning with what stands before this frame.
    Fetch {
        /// The frame.
        from_id: u64,
    },
    /// These frames are not sent on this connection any more, and their fate is open; see [`super::Settings::live_within`].
    Left(Owed),
    /// The fate of some frames is known; told once for each frame and upstream, in order.
    Settled {
        /// Whose.
        upstream: UpstreamKey,
        /// The first frame.
        from_id: u64,
        /// The first that is not among them.
        to_id: u64,
        /// What became of them.
        fate: Fate,
    },
}

/// Where a track stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No frame came.
    Empty,
    /// It waits to be told its upstreams.
    Asking,
    /// It is sent.
    Active,
    /// It has no upstream: frames are left out.
    Inactive,
    /// No more frames come; the rest is sent.
    Ending,
    /// Nothing is left to do.
    Over,
}

/// What an upstream does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Disconnected; a question or a connection is due later.
    Waiting,
    /// The controller was asked.
    Asking,
    /// Connecting.
    Connecting,
    /// Connected.
    Connected,
}

/// One upstream as the status shows it.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamView<'a> {
    /// Its key.
    pub key: UpstreamKey,
    /// As it was described, with the newest address.
    pub spec: &'a UpstreamSpec,
    /// What it does.
    pub phase: Phase,
    /// Id of the first frame that is not released.
    pub acked_id: u64,
    /// Id of the first frame whose fate is open.
    pub told_id: u64,
    /// Of those, frames below this id were handed to a socket.
    pub handed_id: u64,
    /// Place in the track's queue up to which bytes were written.
    pub position: u64,
    /// Bytes written on this connection, `cnct` included.
    pub sent_bytes: u64,
    /// Totals.
    pub totals: Totals,
}

/// A packet that the owner has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `MediaInfo` or `Frame`.
    pub kind: PacketKind,
    /// A frame with which a receiver can begin.
    pub keyframe: bool,
    /// Its bytes.
    pub wire: Wire,
}
